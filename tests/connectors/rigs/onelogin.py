"""The rigs of the `onelogin` connector: accounts on `tests.servers.onelogin`, which names the pages it follows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.values import Kind, Principal, Ref
from tests.connectors.directory_rig import answer_of
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig, key_of, member_key
from tests.servers.onelogin import OneLoginServer, problem

USERS: list[tuple[int, str | None, str, str, int, list[int], int | None]] = [
    # id, e-mail, first name, last name, status, roles, group
    (101, "ada@acme.example", "Ada", "Lovelace", 1, [1, 2], 71),
    (102, "дина@acme.example", "Дина", "", 1, [2], 71),
    (103, "yamada@acme.example", "山田", "太郎", 2, [1], 72),
    (104, "zoë@acme.example", "Zoë 🦉 \u202e", "", 3, [], None),
    (105, "bob+x@acme.example", "O'Brien", '"Bob" <b>', 7, [1, 3], 73),
    (106, "long@acme.example", "x" * 300, "", 4, [3], None),
    (107, None, "", "", 1, [], 72),
]
ROLES = {1: "Team Payments", 2: "команда: ключи", 3: "all 🦉", 4: "empty " + "y" * 300}
GROUPS = {71: "Default", 72: "Außendienst", 73: "営業"}


class OneLoginRig(Rig):
    kind = "onelogin"
    role = "directory"
    name = "roles-in-users"
    pages = 4
    faults = USUAL_FAULTS
    roles_in_users = True
    refusals = {
        Fault.UNAUTHENTICATED: problem(401, "Unauthorized"),
        Fault.FORBIDDEN: problem(403, "Insufficient Permission"),
        Fault.THROTTLED_ONCE: problem(429, "rate limit exceeded", {"X-RateLimit-Reset": "17"}),
    }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with OneLoginServer(page=2) as self.server, tempfile.TemporaryDirectory() as folder:
            self.secret_file = Path(folder, "secret")
            self.secret_file.write_text(self.server.client_secret + "\n")
            self.server.roles_in_users = self.roles_in_users
            for id_, email, first, last, status, roles, group in USERS:
                self.server.add_user(id_, email, first, last, status, *roles, group_id=group)
            self.server.users[107]["username"] = "solo"
            for id_, name in ROLES.items():
                self.server.add_role(id_, name)
            for id_, name in GROUPS.items():
                self.server.add_group(id_, name)
            yield

    def options(self) -> dict[str, Any]:
        return {
            "endpoint": self.server.url, "client_id": self.server.client_id, "timeout": "10s",
            "client_secret": {"file": str(self.secret_file)}, "ca_file": self.server.ca_file,
        }  # fmt: skip

    def expected(self) -> set[str]:
        found = {
            key_of(Principal(Kind.USER, str(id_), f"{first} {last}".strip() or "solo", email, status in {1, 3, 4}))
            for id_, email, first, last, status, _, _ in USERS
        }
        for kind, things in ((Kind.ROLE, ROLES), (Kind.GROUP, GROUPS)):
            found |= {key_of(Principal(kind, str(id_), name)) for id_, name in things.items()}
        for id_, _, _, _, _, roles, group in USERS:
            within = [Ref(Kind.ROLE, str(role)) for role in roles]
            within += [Ref(Kind.GROUP, str(group))] if group else []
            found |= {member_key(ref, Ref(Kind.USER, str(id_))) for ref in within}
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


class RolesAloneRig(OneLoginRig):
    """An account whose lists of users do not tell roles: each role is asked for its users."""

    name = "roles-alone"
    roles_in_users = False


RIGS: list[Rig] = [OneLoginRig(), RolesAloneRig()]
