"""Rigs of the `gcp` connector: an inventory on `tests.servers.google_assets`, which names the pages it follows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.values import Resource
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig, key_of
from tests.servers.google import Answer, GoogleProblem
from tests.servers.google_assets import MANAGER, ORGANIZATION, PERMISSION, AssetServer

OWNER = "123456789012/owner"
SHOP, PAY = f"{MANAGER}/projects/acme-shop", f"{MANAGER}/projects/acme-pay-7"
PROD, ROOT = f"{MANAGER}/folders/700000000001", f"{MANAGER}/{ORGANIZATION}"
LIST = f"/v1/{ORGANIZATION}:searchAllResources"
LONG = "a" * 1400

# What the inventory holds, and what each becomes: id (if another), name, parent, tags.
RESOURCES: list[tuple[str, str, str, dict[str, Any], Resource]] = [
    (
        "//cloudsql.googleapis.com/projects/acme-pay-7/instances/orders",
        "sqladmin.googleapis.com/Instance",
        PAY,
        {"displayName": "orders", "labels": {"owner": "team-payments", "env": ""}, "location": "europe-west1"},
        Resource(
            "//sqladmin.googleapis.com/projects/acme-pay-7/instances/orders",
            "sqladmin.googleapis.com/Instance",
            "orders",
            PAY,
            {"owner": "team-payments", "env": ""},
        ),
    ),
    (
        "//cloudsql.googleapis.com/projects/acme-pay-7/instances/orders/backupRuns/1",
        "sqladmin.googleapis.com/BackupRun",
        "//cloudsql.googleapis.com/projects/acme-pay-7/instances/orders",
        {},
        Resource(
            "//cloudsql.googleapis.com/projects/acme-pay-7/instances/orders/backupRuns/1",
            "sqladmin.googleapis.com/BackupRun",
            "1",
            "//sqladmin.googleapis.com/projects/acme-pay-7/instances/orders",
        ),
    ),
    (
        "//storage.googleapis.com/acme-exports",
        "storage.googleapis.com/Bucket",
        PAY,
        {"displayName": "acme-exports", "tags": {OWNER: 'コンピュータ "部" 🦉 \u202e', "acme-pay-7/cost": "c-1"}},
        Resource(
            "//storage.googleapis.com/acme-exports",
            "storage.googleapis.com/Bucket",
            "acme-exports",
            PAY,
            {OWNER: 'コンピュータ "部" 🦉 \u202e', "acme-pay-7/cost": "c-1"},
        ),
    ),
    (
        "//artifactregistry.googleapis.com/projects/acme-shop/locations/asia-south1/repositories/www",
        "artifactregistry.googleapis.com/Repository",
        SHOP,
        {"displayName": "projects/acme-shop/locations/asia-south1/repositories/www", "labels": {"команда": "ключи"}},
        Resource(
            "//artifactregistry.googleapis.com/projects/acme-shop/locations/asia-south1/repositories/www",
            "artifactregistry.googleapis.com/Repository",
            "www",
            SHOP,
            {"команда": "ключи"},
        ),
    ),
    (
        "//container.googleapis.com/projects/acme-shop/locations/l/clusters/c/k8s/namespaces/pay/apps/deployments/api",
        "apps.k8s.io/Deployment",
        "//container.googleapis.com/projects/acme-shop/locations/l/clusters/c/k8s/namespaces/pay",
        {
            "project": "projects/222",
            "organization": ORGANIZATION,
            "parentFullResourceName": "//container.googleapis.com/projects/acme-shop/locations/l/clusters/c/k8s/namespaces/pay",
            "parentAssetType": "k8s.io/Namespace",
        },
        Resource(
            "//container.googleapis.com/projects/acme-shop/locations/l/clusters/c/k8s/namespaces/pay/apps/deployments/api",
            "apps.k8s.io/Deployment",
            "api",
            "//container.googleapis.com/projects/acme-shop/locations/l/clusters/c/k8s/namespaces/pay",
        ),
    ),
    (
        f"//pubsub.googleapis.com/projects/acme-shop/topics/{LONG}",
        "pubsub.googleapis.com/Topic",
        SHOP,
        {"displayName": "CPU / Speicher: الإنذار <b>"},
        Resource(
            f"//pubsub.googleapis.com/projects/acme-shop/topics/{LONG}",
            "pubsub.googleapis.com/Topic",
            "CPU / Speicher: الإنذار <b>",
            SHOP,
        ),
    ),
]
CONTAINERS = [
    Resource(ROOT, "cloudresourcemanager.googleapis.com/Organization", "acme.example", None, {"1/seen": "yes"}),
    Resource(PROD, "cloudresourcemanager.googleapis.com/Folder", "Produktion Süd", ROOT, {OWNER: "platform"}),
    Resource(SHOP, "cloudresourcemanager.googleapis.com/Project", "acme-shop", PROD, {"owner": "shop"}),
    Resource(PAY, "cloudresourcemanager.googleapis.com/Project", "acme-pay-7", PROD, {OWNER: "payments"}),
]

ANSWERS = {
    Fault.UNAUTHENTICATED: Answer.of(GoogleProblem(401, "Request had invalid authentication credentials.")),
    Fault.FORBIDDEN: Answer.of(
        GoogleProblem(403, f"Permission '{PERMISSION}' denied.", reason="IAM_PERMISSION_DENIED")
    ),
    Fault.SERVER_ERROR: Answer.of(GoogleProblem(500, "Internal error encountered.")),
    Fault.UNAVAILABLE: Answer.of(GoogleProblem(503, "The service is currently unavailable.")),
    Fault.THROTTLED_BARE: Answer.of(GoogleProblem(429, "Quota exceeded for quota metric.")),
    Fault.EMPTY_BODY: Answer(200),
    Fault.EMPTY_LIST: Answer(empty=True),
    Fault.CUT_BODY: Answer(cut=True),
    Fault.REPEATED_TOKEN: Answer(repeat=True),
    Fault.REFUSED: Answer(refuse=True),
    Fault.HANG: Answer(stall=True),
}


def fill(server: AssetServer) -> None:
    """Put the content above into `server`."""
    server.organization(displayName="acme.example", tags={"1/seen": "yes"})
    server.folder(700000000001, ROOT, "Produktion Süd", tags={OWNER: "platform"})
    server.project("acme-shop", 222, PROD, labels={"owner": "shop"})
    server.project("acme-pay-7", 111, PROD, tags={OWNER: "payments"})
    for name, kind, parent, more, _ in RESOURCES:
        server.add(name, kind, parent, **more)


class GcpRig(Rig):
    kind = "gcp"
    role = "integration"
    pages = 5
    faults = USUAL_FAULTS

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with AssetServer(page=2) as self.server:
            fill(self.server)
            yield
            assert self.server.problems == []

    def options(self) -> dict[str, Any]:
        return {
            "scope": ORGANIZATION,
            "credentials_file": self.server.key_file,
            "endpoint": self.server.url,
            "ca_file": self.server.ca_file,
            "timeout": "10s",
        }

    def expected(self) -> set[str]:
        return {key_of(r) for r in (*CONTAINERS, *(r for *_, r in RESOURCES))}

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        if fault is Fault.THROTTLED_ONCE:
            problem = GoogleProblem(429, "Quota exceeded for quota metric.", headers={"Retry-After": "7"})
            answer = Answer.of(problem, times=1)
        else:
            answer = ANSWERS[fault]
        with self.server.broken(LIST, page, answer):
            yield


class GcpTokenRig(GcpRig):
    """With an access token, and parents that the inventory names by their projects' numbers."""

    name = "token"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with super().running(), tempfile.TemporaryDirectory() as folder:
            self.server.parents_by_number = True
            self.token_file = Path(folder, "token")
            self.token_file.write_text(self.server.token + "\n")
            yield

    def options(self) -> dict[str, Any]:
        token = {"file": str(self.token_file)}
        return {k: v for k, v in super().options().items() if k != "credentials_file"} | {"access_token": token}


RIGS: list[Rig] = [GcpRig(), GcpTokenRig()]
