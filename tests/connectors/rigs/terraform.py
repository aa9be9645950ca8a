"""The rig of the `terraform` connector: state files as Terraform 1.9 and OpenTofu 1.8 write them (format version 4).

The structure is that of `terraform state pull`; the attributes are the ones that matter of what the providers keep
(hashicorp/aws 5, hashicorp/azurerm 4, hashicorp/google 6), under their names and in their forms.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.errors import BadData
from connectors.values import Resource
from tests.connectors.rig import Fault, Rig, key_of

PROVIDERS = {
    "aws": 'provider["terraform.example/hashicorp/aws"]',
    "azurerm": 'module.app.provider["terraform.example/hashicorp/azurerm"]',
    "google": 'provider["tofu.example/hashicorp/google"].eu',
}


def state(*resources: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A state file's content."""
    return {
        "version": 4,
        "terraform_version": "1.9.8",
        "serial": 42,
        "lineage": "6f1c1d5e-8a9a-4c52-9d0a-6a3f9f0d3b11",
        "outputs": {"db_password": {"value": "hunter2", "type": "string", "sensitive": True}},
        "resources": list(resources),
        "check_results": None,
        **changes,
    }


def resource(
    kind: str, name: str, *attributes: dict[str, Any], mode: str = "managed", module: str = "", each: bool = False
) -> dict[str, Any]:
    """One resource block with an instance for each of `attributes`; counted if there are several, or named if `each`."""
    instances: list[dict[str, Any]] = []
    for number, values in enumerate(attributes):
        instance = {
            "schema_version": 0,
            "attributes": values,
            "sensitive_attributes": [[{"type": "get_attr", "value": "password"}]],
            "private": "bnVsbA==",
            "dependencies": ["aws_vpc.main"],
        }
        if each or len(attributes) > 1:
            instance = {"index_key": f"key {number}" if each else number, **instance}
        instances.append(instance)
    block: dict[str, Any] = {"mode": mode, "type": kind, "name": name}
    if module:
        block = {"module": module, **block}
    return {**block, "provider": PROVIDERS.get(kind.partition("_")[0], "provider.other"), "instances": instances}


RDS = "arn:aws:rds:us-east-1:111122223333:db:orders"
SUBSCRIPTION = "/subscriptions/0f1e2d3c-aaaa-bbbb-cccc-0123456789ab"
SQL = f"{SUBSCRIPTION}/resourceGroups/Payments/providers/Microsoft.Sql/servers/pay-sql"
COMPUTE = "https://www.googleapis.com/compute/v1/projects/acme-pay"

AWS_STATE = state(
    resource(
        "aws_db_instance",
        "orders",
        {
            "arn": RDS,
            "id": "db-ABCDEFGHIJKL",
            "identifier": "orders",
            "password": "hunter2",
            "tags": {"Name": "orders db"},
            "tags_all": {"Name": "orders db", "owner": "team-payments"},
        },
        module="module.orders[0]",
    ),
    resource(
        "aws_instance",
        "web",
        {"arn": "arn:aws:ec2:us-east-1:111122223333:instance/i-0a", "id": "i-0a", "tags": None, "tags_all": {}},
        {"arn": "arn:aws:ec2:us-east-1:111122223333:instance/i-0b", "id": "i-0b", "tags": {"owner": "web"}},
    ),
    resource(
        "aws_s3_bucket",
        "logs",
        {"arn": "arn:aws:s3:::acme-logs", "id": "acme-logs", "bucket": "acme-logs", "tags": None, "tags_all": None},
        each=True,
    ),
    resource("aws_s3_bucket_versioning", "logs", {"bucket": "acme-logs", "id": "acme-logs"}),
    resource(
        "aws_autoscaling_group",
        "web",
        {
            "arn": "arn:aws:autoscaling:us-east-1:111122223333:autoScalingGroup:0a1b2c3d-0000-1111-2222-333344445555"
            ":autoScalingGroupName/web",
            "id": "web",
            "tag": [{"key": "owner", "propagate_at_launch": True, "value": "web"}],
        },
    ),
    resource("aws_ecs_service", "api", {"id": "arn:aws:ecs:us-east-1:111122223333:service/main/api", "tags_all": {"owner": "api"}}),
    resource("aws_iam_role_policy_attachment", "ci", {"id": "ci-20240101", "role": "ci", "policy_arn": "arn:aws:iam::aws:policy/X"}),
    resource("aws_ami", "base", {"arn": "arn:aws:ec2:us-east-1::image/ami-0a", "id": "ami-0a", "tags": {"owner": "aws"}}, mode="data"),
    resource("random_password", "db", {"result": "hunter2", "id": "none"}),
)  # fmt: skip

CLOUD_STATE = state(
    resource(
        "azurerm_resource_group",
        "payments",
        {"id": f"{SUBSCRIPTION}/resourceGroups/Payments", "name": "Payments", "tags": {"owner": "payments"}},
        module="module.app",
    ),
    resource("azurerm_mssql_server", "sql", {"id": SQL, "name": "pay-sql", "tags": None}),
    resource("azurerm_mssql_database", "db", {"id": f"{SQL}/databases/ledger", "name": "ledger", "tags": {"Owner": "Ledger Team"}}),
    resource(
        "azurerm_key_vault_secret",
        "s",
        {"id": "https://kv.vault.azure.net/secrets/s/0a", "name": "s", "value": "hunter2", "tags": {"owner": "x"}},
    ),
    resource("azurerm_subscription", "pay", {
        "id": "/providers/Microsoft.Subscription/aliases/pay", "subscription_id": SUBSCRIPTION.split("/")[2],
        "subscription_name": "Payments", "tags": {"owner": "finance"},
    }),
    resource("google_project", "pay", {
        "id": "projects/acme-pay", "project_id": "acme-pay", "name": "Acme Pay", "number": "123456789", "folder_id": "987",
        "org_id": "", "labels": {"owner": "payments"}, "effective_labels": {"owner": "payments", "env": "prod"},
    }),
    resource("google_sql_database_instance", "orders", {
        "id": "orders", "name": "orders", "project": "acme-pay", "root_password": "hunter2",
        "self_link": "https://sqladmin.googleapis.com/sql/v1beta4/projects/acme-pay/instances/orders",
        "settings": [{"tier": "db-f1-micro", "user_labels": {"owner": "orders"}}],
    }),
    resource("google_compute_instance", "vm", {
        "id": "projects/acme-pay/zones/europe-west1-b/instances/vm-1", "name": "vm-1", "project": "acme-pay",
        "self_link": f"{COMPUTE}/zones/europe-west1-b/instances/vm-1", "labels": {}, "terraform_labels": {"owner": "a"},
        "effective_labels": {"owner": "a", "goog-x": "1"},
    }),
    resource("google_container_cluster", "gke", {
        "id": "projects/acme-pay/locations/europe-west1-b/clusters/gke", "name": "gke", "project": "acme-pay",
        "location": "europe-west1-b", "resource_labels": {"owner": "platform"},
        "self_link": "https://container.googleapis.com/v1/projects/acme-pay/zones/europe-west1-b/clusters/gke",
    }),
    resource("google_storage_bucket", "data", {
        "id": "acme-data", "name": "acme-data", "project": "acme-pay", "labels": None, "effective_labels": {},
        "self_link": "https://www.googleapis.com/storage/v1/b/acme-data",
    }),
    resource("google_pubsub_topic", "events", {
        "id": "projects/acme-pay/topics/events", "name": "events", "project": "acme-pay", "labels": {"owner": "данные"},
    }),
    resource("google_secret_manager_secret", "key", {
        "id": "projects/acme-pay/secrets/key", "name": "projects/123456789/secrets/key", "project": "acme-pay", "labels": {},
    }),
    resource("google_filestore_instance", "nfs", {
        "id": "projects/acme-pay/locations/europe-west1-b/instances/nfs", "name": "nfs", "project": "acme-pay", "labels": {"owner": "x"},
    }),
    resource("google_project_iam_member", "m", {"id": "acme-pay/roles/viewer/user:a@x.org", "project": "acme-pay"}),
)  # fmt: skip

ACCOUNT = "arn:aws:iam::111122223333:root"
GROUP = f"{SUBSCRIPTION}/resourceGroups/Payments"
PROJECT = "//cloudresourcemanager.googleapis.com/projects/acme-pay"

AWS_RESOURCES = [
    Resource(RDS, "rds:db", "orders db", ACCOUNT, {"Name": "orders db", "owner": "team-payments"}),
    Resource("arn:aws:ec2:us-east-1:111122223333:instance/i-0a", "ec2:instance", "i-0a", ACCOUNT, {}),
    Resource("arn:aws:ec2:us-east-1:111122223333:instance/i-0b", "ec2:instance", "i-0b", ACCOUNT, {"owner": "web"}),
    Resource("arn:aws:s3:::acme-logs", "s3:bucket", "acme-logs", None, {}),
    Resource(
        "arn:aws:autoscaling:us-east-1:111122223333:autoScalingGroup:0a1b2c3d-0000-1111-2222-333344445555"
        ":autoScalingGroupName/web",
        "autoscaling:autoScalingGroup",
        "web",
        ACCOUNT,
        {"owner": "web"},
    ),
    Resource("arn:aws:ecs:us-east-1:111122223333:service/main/api", "ecs:service", "api", ACCOUNT, {"owner": "api"}),
]
CLOUD_RESOURCES = [
    Resource(
        GROUP, "microsoft.resources/subscriptions/resourcegroups", "Payments", SUBSCRIPTION, {"owner": "payments"}
    ),
    Resource(SQL, "microsoft.sql/servers", "pay-sql", GROUP, {}),
    Resource(f"{SQL}/databases/ledger", "microsoft.sql/servers/databases", "ledger", GROUP, {"Owner": "Ledger Team"}),
    Resource(SUBSCRIPTION, "microsoft.resources/subscriptions", "Payments", None, {"owner": "finance"}),
    Resource(
        PROJECT,
        "cloudresourcemanager.googleapis.com/Project",
        "Acme Pay",
        "//cloudresourcemanager.googleapis.com/folders/987",
        {"owner": "payments", "env": "prod"},
    ),
    Resource(
        "//sqladmin.googleapis.com/projects/acme-pay/instances/orders",
        "sqladmin.googleapis.com/Instance",
        "orders",
        PROJECT,
        {"owner": "orders"},
    ),
    Resource(
        "//compute.googleapis.com/projects/acme-pay/zones/europe-west1-b/instances/vm-1",
        "compute.googleapis.com/Instance",
        "vm-1",
        PROJECT,
        {"owner": "a", "goog-x": "1"},
    ),
    Resource(
        "//container.googleapis.com/projects/acme-pay/zones/europe-west1-b/clusters/gke",
        "container.googleapis.com/Cluster",
        "gke",
        PROJECT,
        {"owner": "platform"},
    ),
    Resource("//storage.googleapis.com/acme-data", "storage.googleapis.com/Bucket", "acme-data", PROJECT, {}),
    Resource(
        "//pubsub.googleapis.com/projects/acme-pay/topics/events",
        "pubsub.googleapis.com/Topic",
        "events",
        PROJECT,
        {"owner": "данные"},
    ),
    Resource(
        "//secretmanager.googleapis.com/projects/123456789/secrets/key",
        "secretmanager.googleapis.com/Secret",
        "key",
        PROJECT,
        {},
    ),
]


class StateFiles(Rig):
    kind = "terraform"
    role = "integration"
    faults = {Fault.CUT_BODY: BadData, Fault.EMPTY_BODY: BadData}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            for name, content in ("aws", AWS_STATE), ("clouds", CLOUD_STATE), ("empty", state()):
                (self.folder / f"{name}.tfstate").write_text(json.dumps(content, indent=2, ensure_ascii=False))
            yield

    def options(self) -> dict[str, Any]:
        return {"state": str(self.folder / "*.tfstate")}

    def expected(self) -> set[str]:
        return {key_of(r) for r in AWS_RESOURCES + CLOUD_RESOURCES}

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        path = self.folder / "clouds.tfstate"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3] if fault is Fault.CUT_BODY else b"")
        try:
            yield
        finally:
            path.write_bytes(whole)


RIGS = [StateFiles()]
