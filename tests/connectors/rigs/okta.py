"""Rigs of the `okta` connector: an org on `tests.servers.okta`, which names the pages of Okta's reference it follows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from connectors.values import Kind, Principal, Ref
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig, key_of, member_key
from tests.servers.okta import EVERYONE, Answer, OktaServer

USERS: list[tuple[str, str, str, dict[str, Any], str, str, bool]] = [
    # id, login, status, profile, and the name, email and activity that they mean
    ("00u00000000000000001", "ada@acme.example", "ACTIVE", {"displayName": "Ada Lovelace"}, "Ada Lovelace", "", True),
    ("00u00000000000000002", "bo@acme.example", "LOCKED_OUT", {"firstName": "Bo", "lastName": "Ek"}, "Bo Ek", "", True),
    ("00u00000000000000003", "chi", "PASSWORD_EXPIRED", {"email": "χ@acme.example"}, "chi", "χ@acme.example", True),
    ("00u00000000000000004", "дина@acme.example", "RECOVERY", {"firstName": "Дина"}, "Дина", "", True),
    ("00u00000000000000005", "eve@acme.example", "SUSPENDED", {"lastName": "山田"}, "山田", "", False),
    ("00u00000000000000006", "gone@acme.example", "DEPROVISIONED", {}, "gone@acme.example", "", False),
    ("00u00000000000000007", "new@acme.example", "STAGED", {"displayName": "نور"}, "نور", "", False),
    ("00u00000000000000008", "soon@acme.example", "PROVISIONED", {"displayName": "Soon"}, "Soon", "", False),
    ("00u00000000000000009", "zoë@acme.example", "ACTIVE", {"displayName": "Zoë 🦉 \u202e"}, "Zoë 🦉 \u202e", "", True),
]
GROUPS: dict[str, tuple[str, list[str]]] = {
    "00g00000000000000001": ("Team Payments", ["00u00000000000000001", "00u00000000000000002", "00u00000000000000006"]),
    "00g00000000000000002": ("команда: ключи", [u[0] for u in USERS[:7]]),
    "00g00000000000000003": ("empty", []),
    "00g00000000000000004": ('profiles/デ"ー"タ & <b>', ["00u00000000000000009"]),
}
ROLES = {"SUPER_ADMIN": "Super Administrator", "cr0Yq6IJxGIr0ouum0g3": "Datenhüter", "cr0nobody00000000000": "Nobody's"}
HOLDERS = [
    ("SUPER_ADMIN", Ref(Kind.USER, "00u00000000000000001")),
    ("SUPER_ADMIN", Ref(Kind.USER, "00u00000000000000002")),
    ("SUPER_ADMIN", Ref(Kind.GROUP, "00g00000000000000002")),
    ("cr0Yq6IJxGIr0ouum0g3", Ref(Kind.USER, "00u00000000000000009")),
    ("cr0Yq6IJxGIr0ouum0g3", Ref(Kind.GROUP, "00g00000000000000001")),
]
LIST = "/api/v1/users"
LATE, LATER = "00u00000000000000010", "00g00000000000000010"
CHANGES: dict[Fault, tuple[str, int]] = {
    # where, while changes are read; the list of users has as many pages as changed users take
    Fault.UNAUTHENTICATED: ("/api/v1/groups", 1),
    Fault.FORBIDDEN: (LIST, 2),
    Fault.SERVER_ERROR: ("/api/v1/groups/00g00000000000000002/users", 2),
    Fault.UNAVAILABLE: ("/api/v1/groups", 2),
    Fault.THROTTLED_ONCE: ("/api/v1/groups", 1),
    Fault.THROTTLED_BARE: ("/api/v1/logs", 1),
    Fault.EMPTY_BODY: (LIST, 2),
    Fault.CUT_BODY: ("/api/v1/groups/00g00000000000000002/users", 1),
    Fault.REPEATED_TOKEN: ("/api/v1/groups", 1),
    Fault.REFUSED: (LIST, 1),
}

ANSWERS = {
    Fault.UNAUTHENTICATED: Answer.error("E0000011"),
    Fault.FORBIDDEN: Answer.error("E0000006"),
    Fault.SERVER_ERROR: Answer.error("E0000009"),
    Fault.UNAVAILABLE: Answer(503),
    Fault.THROTTLED_BARE: Answer(429),
    Fault.EMPTY_BODY: Answer(200),
    Fault.EMPTY_LIST: Answer(empty=True),
    Fault.CUT_BODY: Answer(cut=True, right=True),
    Fault.REPEATED_TOKEN: Answer(repeat=True),
    Fault.REFUSED: Answer(refuse=True),
    Fault.HANG: Answer(stall=True),
}


def fill(server: OktaServer) -> None:
    """Put the content above into `server`, long ago by its clock."""
    for id_, login, status, profile, *_ in USERS:
        server.add_user(id_, login, status, **profile)
    for id_, (name, members) in GROUPS.items():
        server.add_group(id_, name)
        server.add_member(id_, *members)
    for id_, label in ROLES.items():
        if id_.startswith("cr0"):
            server.add_custom_role(id_, label)
    for role, (kind, id_) in HOLDERS:
        server.assign_role(role, ROLES[role], **{str(kind): id_})
    server.assign_role("ORG_ADMIN", "Organization Administrator", user="00u00000000000000005", status="INACTIVE")
    server.advance(3600)


class OktaRig(Rig):
    kind = "okta"
    role = "directory"
    pages = 3
    faults = USUAL_FAULTS
    change_faults = faults
    stale_bookmark = "2001-01-01T00:00:00.000Z"

    def __init__(self) -> None:
        self.users = {
            id_: Principal(Kind.USER, id_, name, email or login, active)
            for id_, login, _, _, name, email, active in USERS
        }
        self.groups = {id_: (name, set(members)) for id_, (name, members) in GROUPS.items()}
        self.holders = list(HOLDERS)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with OktaServer(page=4) as self.server, tempfile.TemporaryDirectory() as folder:
            fill(self.server)
            self.token_file = Path(folder, "token")
            self.token_file.write_text(self.server.token + "\n")
            yield

    def options(self) -> dict[str, Any]:
        return {
            "org_url": self.server.url,
            "token": {"file": str(self.token_file)},
            "ca_file": self.server.ca_file,
            "timeout": "10s",
        }

    def expected(self) -> set[str]:
        found = set(map(key_of, self.users.values()))
        for id_, (name, members) in (*self.groups.items(), (EVERYONE, ("Everyone", set(self.users)))):
            found.add(key_of(Principal(Kind.GROUP, id_, name)))
            found |= {member_key(Ref(Kind.GROUP, id_), Ref(Kind.USER, m)) for m in members}
        found |= {key_of(Principal(Kind.ROLE, id_, label)) for id_, label in ROLES.items()}
        return found | {member_key(Ref(Kind.ROLE, role), holder) for role, holder in self.holders}

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        with self.server.broken(LIST, page, self.answer(fault)):
            yield

    @contextlib.contextmanager
    def inject_into_changes(self, fault: Fault) -> Iterator[None]:
        with self.server.broken(*CHANGES[fault], self.answer(fault)):
            yield

    def answer(self, fault: Fault) -> Answer:
        if fault is not Fault.THROTTLED_ONCE:
            return ANSWERS[fault]
        reset = {"X-Rate-Limit-Limit": "600", "X-Rate-Limit-Remaining": "0"}
        reset["X-Rate-Limit-Reset"] = str(int(self.server.clock) + 20)
        return Answer.error("E0000047", headers=reset, times=1)

    @contextlib.contextmanager
    def changed(self) -> Iterator[None]:
        """In pages of two: all but one of the users touched, and each group."""
        server, before = self.server, (self.users, self.groups, self.holders)
        self.users, self.holders = dict(self.users), list(self.holders)
        self.groups = {id_: (name, set(members)) for id_, (name, members) in self.groups.items()}
        server.page = 2
        server.advance(60)
        self.change()
        try:
            yield
        finally:
            server.advance(60)
            self.change_back()
            self.users, self.groups, self.holders = before
            server.page = 4
            server.advance(3600)

    def change(self) -> None:
        server, u, g = self.server, [x[0] for x in USERS], list(GROUPS)
        server.update_user(u[0], "DEPROVISIONED")
        self.users[u[0]] = replace(self.users[u[0]], active=False)
        server.update_user(u[2], email="χι@acme.example")
        self.users[u[2]] = replace(self.users[u[2]], email="χι@acme.example")
        server.update_user(u[4], "ACTIVE")
        self.users[u[4]] = replace(self.users[u[4]], active=True)
        for id_ in u[6:8]:
            server.update_user(id_, title="who cares")
        server.update_user(u[8], displayName="Zoë \u2066🦉")
        self.users[u[8]] = replace(self.users[u[8]], name="Zoë \u2066🦉")
        server.delete_user(u[5])
        del self.users[u[5]]
        server.add_user(LATE, "late@acme.example", displayName="遅い")
        self.users[LATE] = Principal(Kind.USER, LATE, "遅い", "late@acme.example")

        server.update_group(g[0], name="Team Payments & Billing")
        server.remove_member(g[1], u[3])
        server.add_member(g[2], u[8], LATE)
        server.delete_group(g[3])
        server.add_group(LATER, "позже")
        server.add_member(LATER, LATE)
        self.groups[g[0]] = ("Team Payments & Billing", {u[0], u[1]})
        self.groups[g[1]][1].difference_update({u[3], u[5]})
        self.groups[g[2]][1].update({u[8], LATE})
        del self.groups[g[3]]
        self.groups[LATER] = ("позже", {LATE})

        server.unassign_role("SUPER_ADMIN", user=u[1])
        server.assign_role("SUPER_ADMIN", ROLES["SUPER_ADMIN"], user=u[8])
        self.holders[1] = ("SUPER_ADMIN", Ref(Kind.USER, u[8]))

    def change_back(self) -> None:
        server, u, g = self.server, [x[0] for x in USERS], list(GROUPS)
        server.delete_user(LATE)
        server.delete_group(LATER)
        for id_, login, status, profile, *_ in USERS:
            if id_ == u[5]:
                server.add_user(id_, login, status, **profile)
            else:
                server.update_user(id_, status, **{"email": login, **profile})
        server.add_group(g[3], GROUPS[g[3]][0])
        for id_, (name, members) in GROUPS.items():
            server.update_group(id_, name=name)
            server.add_member(id_, *members)
        server.remove_member(g[2], u[8])
        server.unassign_role("SUPER_ADMIN", user=u[8])
        server.assign_role("SUPER_ADMIN", ROLES["SUPER_ADMIN"], user=u[1])


RIGS: list[Rig] = [OktaRig()]
