"""The rigs of the `jumpcloud` connector: organizations on `tests.servers.jumpcloud`, which names what it follows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.contract import Connector
from connectors.jumpcloud import JumpCloud
from connectors.values import Kind, Principal, Ref
from tests.connectors.directory_rig import answer_of
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig, key_of, member_key
from tests.servers.jumpcloud import JumpCloudServer, problem

LIMIT = 3
USERS = [
    # id, username, e-mail, state, displayname
    ("5f1b4d79ed3244fc926d0001", "ada", "ada@acme.example", "ACTIVATED", "Ada Lovelace"),
    ("5f1b4d79ed3244fc926d0002", "дина", "дина@acme.example", "ACTIVATED", "Дина"),
    ("5f1b4d79ed3244fc926d0003", "yamada", "yamada@acme.example", "SUSPENDED", "山田 太郎"),
    ("5f1b4d79ed3244fc926d0004", "zoe", "zoë@acme.example", "STAGED", "Zoë 🦉 \u202e"),
    ("5f1b4d79ed3244fc926d0005", "bob", "bob+x@acme.example", "ACTIVATED", 'O\'Brien "Bob" <b>'),
    ("5f1b4d79ed3244fc926d0006", "long", "long@acme.example", "ACTIVATED", "x" * 300),
    ("5f1b4d79ed3244fc926d0007", "solo", "solo@acme.example", "ACTIVATED", ""),
    ("5f1b4d79ed3244fc926d0008", "mira", "mira@acme.example", "ACTIVATED", "Mira"),
]
ALL = [("user", id_) for id_, *_ in USERS]
GROUPS: dict[str, tuple[str, list[tuple[str, str] | None]]] = {
    "6a1": ("Team Payments", [*ALL]),
    "6a2": ("команда: ключи", [ALL[0], None, ALL[3], None, None, ALL[1]]),
    "6a3": ("empty " + "y" * 300, []),
    "6a4": ("all 🦉", [("user_group", "6a1"), ALL[2]]),
}


class JumpCloudRig(Rig):
    kind = "jumpcloud"
    role = "directory"
    name = "counted"
    pages = 4
    faults = USUAL_FAULTS
    counted = True
    refusals = {
        Fault.UNAUTHENTICATED: problem(401, "Unauthorized"),
        Fault.FORBIDDEN: problem(403, "Forbidden"),
        Fault.THROTTLED_ONCE: problem(429, "Too Many Requests", {"Retry-After": "3"}),
    }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with JumpCloudServer() as self.server, tempfile.TemporaryDirectory() as folder:
            self.secret_file = Path(folder, "key")
            self.secret_file.write_text(self.server.api_key + "\n")
            self.server.org_id, self.server.counted = "o1", self.counted
            for id_, username, email, state, name in USERS:
                self.server.add_user(id_, username, email, state, displayname=name)
            for id_, (name, members) in GROUPS.items():
                self.server.add_group(id_, name, *members)
            yield

    def options(self) -> dict[str, Any]:
        return {
            "api_key": {"file": str(self.secret_file)}, "org_id": "o1", "endpoint": self.server.url,
            "ca_file": self.server.ca_file, "timeout": "10s",
        }  # fmt: skip

    def connector(self, **changes: Any) -> Connector:
        connector = super().connector(**changes)
        assert isinstance(connector, JumpCloud)
        connector.limit = LIMIT  # type: ignore[misc]
        return connector

    def expected(self) -> set[str]:
        found = {
            key_of(Principal(Kind.USER, id_, name or username, email, state == "ACTIVATED"))
            for id_, username, email, state, name in USERS
        }
        for id_, (name, members) in GROUPS.items():
            found.add(key_of(Principal(Kind.GROUP, id_, name)))
            kinds = {"user": Kind.USER, "user_group": Kind.GROUP}
            found |= {member_key(Ref(Kind.GROUP, id_), Ref(kinds[m[0]], m[1])) for m in members if m}
        return found

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        if fault is Fault.REPEATED_TOKEN:
            self.server.stuck = ("users", (page - 1) * (LIMIT - 1))
            yield
            self.server.stuck = None
        else:
            with self.server.broken("users", page, answer_of(fault, self.refusals)):
                yield


class UncountedJumpCloudRig(JumpCloudRig):
    """Lists of API 2.0 that do not tell how many there are."""

    name = "uncounted"
    counted = False


RIGS: list[Rig] = [JumpCloudRig(), UncountedJumpCloudRig()]
