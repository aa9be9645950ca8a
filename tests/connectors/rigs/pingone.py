"""The rigs of the `pingone` connector: an environment on `tests.servers.pingone`, which names the pages it follows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.values import Kind, Principal, Ref
from tests.connectors.directory_rig import answer_of
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig, key_of, member_key
from tests.servers.pingone import ENVIRONMENT, PingOneServer, problem

USERS = [
    # id, username, given, family, e-mail, enabled, groups
    ("5e2f-1", "ada", "Ada", "Lovelace", "ada@acme.example", True, ["g-pay", "g-keys"]),
    ("5e2f-2", "дина", "Дина", "", "дина@acme.example", True, ["g-keys"]),
    ("5e2f-3", "yamada", "山田", "太郎", "yamada@acme.example", False, ["g-pay"]),
    ("5e2f-4", "zoe", "Zoë 🦉 \u202e", "", "zoë@acme.example", True, ["g-pay"]),
    ("5e2f-5", "bob", "O'Brien", '"Bob" <b>', "bob+x@acme.example", True, ["g-pay"]),
    ("5e2f-6", "long", "x" * 300, "", "long@acme.example", True, ["g-pay"]),
    ("5e2f-7", "solo", "", "", None, True, []),
]
GROUPS: dict[str, tuple[str, list[str]]] = {
    "g-pay": ("Team Payments", ["g-all"]),
    "g-keys": ("команда: ключи", ["g-all"]),
    "g-all": ("all 🦉", ["g-pay"]),
    "g-none": ("empty " + "y" * 300, []),
}
"""Name, and the groups that it is in: two of them in a circle."""


class PingOneRig(Rig):
    kind = "pingone"
    role = "directory"
    pages = 4
    faults = USUAL_FAULTS
    refusals = {
        Fault.UNAUTHENTICATED: problem(401, "INVALID_TOKEN", "The access token provided is expired or invalid"),
        Fault.FORBIDDEN: problem(403, "ACCESS_FAILED", "The actor is not authorized."),
        Fault.THROTTLED_ONCE: problem(429, "REQUEST_LIMITED", "Rate limit exceeded", {"Retry-After": "3"}),
    }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with PingOneServer(page=2) as self.server, tempfile.TemporaryDirectory() as folder:
            self.secret_file = Path(folder, "secret")
            self.secret_file.write_text(self.server.client_secret + "\n")
            for id_, username, given, family, email, enabled, groups in USERS:
                self.server.add_user(id_, username, given, family, email, *groups, enabled=enabled)
            for id_, (name, parents) in GROUPS.items():
                self.server.add_group(id_, name, *parents)
            yield

    def options(self) -> dict[str, Any]:
        return {
            "environment_id": ENVIRONMENT, "region": "eu", "client_id": self.server.client_id,
            "client_secret": {"file": str(self.secret_file)}, "endpoint": self.server.url,
            "ca_file": self.server.ca_file, "timeout": "10s",
        }  # fmt: skip

    def expected(self) -> set[str]:
        found = set()
        for id_, username, given, family, email, enabled, groups in USERS:
            name = f"{given} {family}".strip() or username
            found.add(key_of(Principal(Kind.USER, id_, name, email, enabled)))
            found |= {member_key(Ref(Kind.GROUP, group), Ref(Kind.USER, id_)) for group in groups}
        for id_, (name, parents) in GROUPS.items():
            found.add(key_of(Principal(Kind.GROUP, id_, name)))
            found |= {member_key(Ref(Kind.GROUP, parent), Ref(Kind.GROUP, id_)) for parent in parents}
        return found

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        if fault is Fault.REPEATED_TOKEN:
            self.server.stuck = page
            yield
            self.server.stuck = None
        else:
            with self.server.broken("users", page, answer_of(fault, self.refusals)):
                yield


RIGS: list[Rig] = [PingOneRig()]
