"""What the `terraform` connector does beyond the contract."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import BadData, Misconfigured
from connectors.terraform import Terraform, TerraformOptions
from connectors.values import Record

_spec = importlib.util.spec_from_file_location("terraform_rig", Path(__file__).parent / "rigs" / "terraform.py")
assert _spec
assert _spec.loader
rig = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rig)
resource, state = rig.resource, rig.state

ARN = "arn:aws:sqs:us-east-1:111122223333:jobs"


def write(folder: Path, content: Any) -> Terraform:
    path = folder / "terraform.tfstate"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Terraform(TerraformOptions(state=str(path)))


def read(connector: Terraform) -> list[Record]:
    return [record for scope in connector.scopes() for record in connector.read(scope)]


def test_every_field(tmp_path: Path) -> None:
    """Ids, types, names, parents and tags, as the clouds' own APIs give them."""
    assert read(write(tmp_path, rig.AWS_STATE)) == rig.AWS_RESOURCES
    assert read(write(tmp_path, rig.CLOUD_STATE)) == rig.CLOUD_RESOURCES
    assert read(write(tmp_path, state())) == []


def test_check_counts_what_it_leaves_out(tmp_path: Path) -> None:
    """What cannot be named exactly is no row, and no secret either."""
    (line,) = write(tmp_path, rig.CLOUD_STATE).check()
    assert line.detail == "11 resources; left out 1 azurerm_key_vault_secret, 1 google_filestore_instance"


@pytest.mark.parametrize(
    ("content", "message", "remedy"),
    [
        ("", "not JSON", "whole"),
        ('{"version": 4, "resources": [{"password": "hunter2"', "not JSON", "whole"),
        ("[]", "no version", "terraform state pull"),
        (state(version=3), "version 3", "terraform state pull"),
        (state(version="4"), "no version", "terraform state pull"),
        ({"encrypted_data": "aGk=", "encryption_version": "v0"}, "encrypted by OpenTofu", "tofu state pull"),
        ({"format_version": "1.0", "values": {}}, "terraform show", "terraform state pull"),
        ({"version": 4, "serial": 1}, 'no list "resources"', ""),
        (state({"mode": "managed", "type": "aws_vpc"}), r"resources\[0\]: not a resource", ""),
        (
            state({"mode": "managed", "type": "aws_vpc", "name": "v", "instances": [{"attributes_flat": {"id": "x"}}]}),
            "aws_vpc.v: an instance without attributes",
            "-refresh-only",
        ),
        (state(resource("aws_vpc", "v", {"arn": "arn:aws:ec2", "tags": {}})), "aws_vpc.v: not an ARN", ""),
        (state(resource("aws_sqs_queue", "q", {"arn": ARN, "tags": {"owner": 7}})), "'owner' is no string", ""),
        (state(resource("aws_sqs_queue", "q", {"arn": ARN, "tags": "hunter2"})), "is no map", ""),
        (
            state(resource("aws_sqs_queue", "q", {"arn": ARN, "tags": {}}, {"arn": ARN, "tags": {"a": "b"}})),
            r"aws_sqs_queue.q\[0\] and aws_sqs_queue.q\[1\] are the same object",
            "refresh",
        ),
    ],
)
def test_what_is_no_state(tmp_path: Path, content: Any, message: str, remedy: str) -> None:
    """Each says what it is and where, and how to come by a good one; never what is in it."""
    connector = write(tmp_path, content)
    with pytest.raises(BadData, match=message) as caught:
        read(connector)
    assert str(tmp_path) in caught.value.message
    assert remedy in caught.value.remedy
    error: BaseException | None = caught.value
    while error is not None:  # and not in what it was raised from
        assert "hunter2" not in f"{error} {vars(error)}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    """No file is not an empty state."""
    for name in ("none.tfstate", "*.tfstate"):
        with pytest.raises(Misconfigured):
            read(Terraform(TerraformOptions(state=str(tmp_path / name))))


def test_one_object_in_two_places(tmp_path: Path) -> None:
    """Twice the same is once; of a deposed object and the one that takes its place, the latter speaks."""
    queue = resource("aws_sqs_queue", "q", {"arn": ARN, "tags": {"owner": "new"}})
    old = {"deposed": "0a1b2c3d", "attributes": {"arn": ARN, "tags": {"owner": "old"}}}
    other = {"deposed": "4e5f6a7b", "attributes": {"arn": f"{ARN}-old", "tags": {"owner": "old"}}}
    queue["instances"] = [old, other, *queue["instances"]]
    found = read(write(tmp_path, state(queue, resource("aws_sqs_queue", "again", queue["instances"][2]["attributes"]))))
    assert {(r.id, r.tags["owner"]) for r in found} == {(ARN, "new"), (f"{ARN}-old", "old")}  # type: ignore[union-attr]
    assert len(found) == 2


@pytest.mark.parametrize(
    ("kind", "attributes", "expected"),
    [
        ("aws_cloudwatch_log_group", {"arn": "arn:aws:logs:us-east-1:1:log-group:/a:*", "tags": {}}, "arn:aws:logs:us-east-1:1:log-group:/a"),
        ("aws_vpc", {"arn": None, "id": None, "tags": {}}, None),
        ("aws_eip", {"id": "eipalloc-0a", "tags": {"owner": "x"}}, None),
        ("azurerm_role_definition", {"id": "/providers/Microsoft.Management/managementGroups/g", "tags": {}}, None),
        ("azurerm_subnet_association", {"id": "/subscriptions/s/resourceGroups/g/providers/A.B/c/d|/subscriptions/s", "tags": {}}, None),
        ("google_compute_instance_template", {"self_link": f"{rig.COMPUTE}/global/instanceTemplates/t", "labels": {"owner": "x"}}, None),
        ("google_compute_disk", {"self_link": f"{rig.COMPUTE}/zones/z/disks/d", "labels": {}}, "//compute.googleapis.com/projects/acme-pay/zones/z/disks/d"),
        ("google_compute_disk", {"self_link": None, "labels": {}}, None),
        ("google_pubsub_topic", {"id": "events", "labels": {}}, None),
        ("google_spanner_instance", {"id": "p/i", "project": "p", "name": "i", "labels": {}}, "//spanner.googleapis.com/projects/p/instances/i"),
        ("google_dns_managed_zone", {"project": "p", "name": "z", "managed_zone_id": 77, "labels": {}}, "//dns.googleapis.com/projects/p/managedZones/77"),
        ("google_artifact_registry_repository", {"id": "projects/p/locations/l/repositories/r", "labels": {}}, None),
    ],
)  # fmt: skip
def test_ids_are_exact_or_not_at_all(
    tmp_path: Path, kind: str, attributes: dict[str, Any], expected: str | None
) -> None:
    """A wrong id is worse than none."""
    found = read(write(tmp_path, state(resource(kind, "x", attributes))))
    assert [r.id for r in found] == ([] if expected is None else [expected])  # type: ignore[union-attr]
