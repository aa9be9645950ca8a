"""Rigs of the `azure` connector: a tenant on `tests.servers.azure`, which names Microsoft's pages that it follows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from connectors.errors import Forbidden, Incomplete
from connectors.values import Resource
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig, key_of
from tests.servers.azure import GROUPS, Answer, ArmProblem, AzureServer

PAY = "0aaaaaaa-0000-4000-8000-000000000001"
OPS = "0bbbbbbb-0000-4000-8000-000000000002"
BARE = "0ccccccc-0000-4000-8000-000000000003"
MANAGEMENT = [  # name, title, and those above, from the nearest
    ("root", "Tenant Root Group", ()),
    ("corp", "Körperschaft 🏢", ("root",)),
    ("corp-prod", "Prod", ("corp", "root")),
]
SUBSCRIPTIONS: list[tuple[str, str, dict[str, Any] | None, tuple[str, ...]]] = [
    (PAY, "Payments", {"owner": "team-payments"}, ("corp-prod", "corp", "root")),
    (OPS, "Betrieb \u202e'x'", None, ("root",)),
    (BARE, "bare", {}, ()),
]
RESOURCE_GROUPS = [
    (PAY, "rg-api", {"Owner": "API", "note": ""}),
    (PAY, "rg-(数据)_1", None),
    (OPS, "RG-Ops", {"owner": 'a "quoted" \\ one'}),
]
RESOURCES: list[tuple[str, str, str, str, str, dict[str, Any] | None]] = [
    # subscription, resource group, provider/type/…, the type, the name, tags
    (PAY, "rg-api", "Microsoft.Web/sites/api", "microsoft.web/sites", "api", {"owner": "команда"}),
    (PAY, "rg-api", "Microsoft.Sql/servers/s1", "microsoft.sql/servers", "s1", {"owner": "dba"}),
    (PAY, "rg-api", "Microsoft.Sql/servers/s1/databases/it's", "microsoft.sql/servers/databases", "it's", None),
    (
        PAY,
        "RG-API",
        "Microsoft.Storage/storageAccounts/acme",
        "microsoft.storage/storageaccounts",
        "acme",
        {"🦉": "zoë"},
    ),
    (PAY, "rg-(数据)_1", "Microsoft.KeyVault/vaults/kv", "microsoft.keyvault/vaults", "kv", {"owner": "\u2066x\u2069"}),
    (PAY, "rg-(数据)_1", "Microsoft.Compute/disks/d\\1", "microsoft.compute/disks", "d\\1", {"owner": "x" * 256}),
    (PAY, "rg-(数据)_1", "Microsoft.Compute/disks/d2", "Microsoft.Compute/disks", "d2", {"owner": None}),
    (PAY, "", "Microsoft.Network/dnsZones/sub-level", "microsoft.network/dnszones", "sub-level", None),
    (OPS, "RG-Ops", "Microsoft.Compute/virtualMachines/vm", "microsoft.compute/virtualmachines", "vm", {"a": "b"}),
]
LATE = (PAY, "rg-api", "Microsoft.Cache/redis/late", "microsoft.cache/redis", "late", {"owner": "позже"})


def resource_id(row: tuple[str, str, str, str, str, dict[str, Any] | None]) -> str:
    return f"/subscriptions/{row[0]}{'/resourceGroups/' * bool(row[1])}{row[1]}/providers/{row[2]}"


def as_told(row: tuple[str, str, str, str, str, dict[str, Any] | None]) -> Resource:
    """What the connector should make of a resource."""
    parent = f"/subscriptions/{row[0]}{'/resourceGroups/' * bool(row[1])}{row[1]}"
    return Resource(resource_id(row), row[3].lower(), row[4], parent, {k: v or "" for k, v in (row[5] or {}).items()})


def fill(server: AzureServer) -> None:
    """Put the content above into `server`, long ago by its clock."""
    for name, title, above in MANAGEMENT:
        server.management_group(name, title, *above)
    for guid, name, tags, above in SUBSCRIPTIONS:
        server.subscription(guid, name, tags, *above)
    for guid, name, tags in RESOURCE_GROUPS:
        server.group(guid, name, tags)
    for row in RESOURCES:
        server.put(resource_id(row), row[4], row[3], row[5])
    server.advance(3600)


def content() -> dict[str, Resource]:
    """What the connector should make of it all."""
    found = []
    kind = "microsoft.management/managementgroups"
    for name, title, above in MANAGEMENT:
        found.append(Resource(GROUPS + name, kind, title, GROUPS + above[0] if above else None))
    kind = "microsoft.resources/subscriptions"
    for guid, name, tags, above in SUBSCRIPTIONS:
        parent = GROUPS + above[0] if above else None
        found.append(Resource(f"/subscriptions/{guid}", kind, name, parent, tags or {}))
    kind += "/resourcegroups"
    for guid, name, tags in RESOURCE_GROUPS:
        own = f"/subscriptions/{guid}"
        found.append(Resource(f"{own}/resourceGroups/{name}", kind, name, own, tags or {}))
    found += map(as_told, RESOURCES)
    return {resource.id: resource for resource in found}


def truncated(document: dict[str, Any]) -> None:
    """The end of what Resource Graph lists, though not of what there is."""
    document.pop("$skipToken", None)
    document["resultTruncated"] = "true"


ANSWERS = {
    Fault.UNAUTHENTICATED: Answer.error(ArmProblem.expired_token()),
    Fault.FORBIDDEN: Answer.error(ArmProblem.denied()),
    Fault.SERVER_ERROR: Answer.error(ArmProblem.internal()),
    Fault.UNAVAILABLE: Answer(503, b"<html>Service Unavailable</html>", {"Content-Type": "text/html"}),
    Fault.THROTTLED_BARE: Answer(429),
    Fault.EMPTY_BODY: Answer(200),
    Fault.CUT_BODY: Answer(cut=True, right=True),
    Fault.EMPTY_LIST: Answer(hide=True),
    Fault.REPEATED_TOKEN: Answer(repeat=True),
    Fault.REFUSED: Answer(refuse=True),
    Fault.HANG: Answer(stall=True),
    Fault.SIZE_LIMIT: Answer(change=truncated),
}
CHANGES = {
    # where, while changes are read
    Fault.UNAUTHENTICATED: ("resourcechanges", 2),
    Fault.FORBIDDEN: ("resourcecontainerchanges", 1),
    Fault.SERVER_ERROR: ("resources", 1),
    Fault.UNAVAILABLE: ("resourcechanges", 1),
    Fault.THROTTLED_ONCE: ("resourcechanges", 2),
    Fault.THROTTLED_BARE: ("resources", 1),
    Fault.EMPTY_BODY: ("resourcechanges", 2),
    Fault.CUT_BODY: ("resourcechanges", 1),
    Fault.EMPTY_LIST: ("resources", 1),
    Fault.REPEATED_TOKEN: ("resourcechanges", 1),
    Fault.REFUSED: ("resourcechanges", 1),
    Fault.SIZE_LIMIT: ("resourcechanges", 2),
}


class AzureRig(Rig):
    kind = "azure"
    role = "integration"
    pages = 4
    faults = {**USUAL_FAULTS, Fault.EMPTY_LIST: Forbidden, Fault.SIZE_LIMIT: Incomplete}
    change_faults = faults
    stale_bookmark = "2001-01-01T00:00:00Z"

    def __init__(self) -> None:
        self.content = content()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with AzureServer(page=3) as self.server, tempfile.TemporaryDirectory() as folder:
            fill(self.server)
            self.token_file = Path(folder, "token")
            self.token_file.write_text(self.server.token + "\n")
            yield

    def options(self) -> dict[str, Any]:
        return {
            "endpoint": self.server.url,
            "access_token": {"file": str(self.token_file)},
            "ca_file": self.server.ca_file,
            "timeout": "10s",
        }

    def expected(self) -> set[str]:
        return set(map(key_of, self.content.values()))

    def answer(self, fault: Fault) -> Answer:
        if fault is Fault.THROTTLED_ONCE:
            return Answer.error(ArmProblem.throttled(Retry_After="3"), times=1)
        return replace(ANSWERS[fault])

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        with self.server.broken("resources", page, self.answer(fault)):
            yield

    @contextlib.contextmanager
    def inject_into_changes(self, fault: Fault) -> Iterator[None]:
        with self.server.broken(*CHANGES[fault], self.answer(fault)):
            yield

    @contextlib.contextmanager
    def changed(self) -> Iterator[None]:
        """Tags, a resource group with all it held, one that is new; more changes than a page."""
        before, server = self.content, self.server
        self.content = dict(before)
        server.advance(60)
        for row in (RESOURCES[0], RESOURCES[2]):
            new = (*row[:5], {"owner": "changed 'by' \\ us", "more": "x"})
            server.put(resource_id(row), row[4], row[3], new[5])
            self.content[resource_id(row)] = as_told(new)
        server.put(resource_id(LATE), LATE[4], LATE[3], LATE[5])
        self.content[resource_id(LATE)] = as_told(LATE)
        gone = [*map(resource_id, RESOURCES[4:7]), f"/subscriptions/{PAY}/resourceGroups/rg-(数据)_1"]
        for id_ in gone:
            server.delete(id_)
            del self.content[id_]
        server.group(OPS, "rg-new", {"owner": "new"})
        kind, own = "microsoft.resources/subscriptions", f"/subscriptions/{OPS}"
        new_id = f"{own}/resourceGroups/rg-new"
        self.content[new_id] = Resource(new_id, f"{kind}/resourcegroups", "rg-new", own, {"owner": "new"})
        server.subscription(OPS, "Ops", {"owner": "ops"}, "corp", "root")
        self.content[own] = Resource(own, kind, "Ops", GROUPS + "corp", {"owner": "ops"})
        try:
            yield
        finally:
            server.advance(60)
            server.delete(resource_id(LATE))
            server.delete(new_id)
            server.subscription(OPS, SUBSCRIPTIONS[1][1], SUBSCRIPTIONS[1][2], *SUBSCRIPTIONS[1][3])
            server.group(*RESOURCE_GROUPS[1])
            for row in (RESOURCES[0], RESOURCES[2], *RESOURCES[4:7]):
                server.put(resource_id(row), row[4], row[3], row[5])
            self.content = before
            server.advance(3600)


RIGS: list[Rig] = [AzureRig()]
