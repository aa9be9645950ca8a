"""Rigs of the `google_workspace` connector: an account on `tests.servers.google_directory`, which names its sources."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.errors import Forbidden, Incomplete, ServerFault, Throttled, Unauthenticated, Unreachable
from connectors.values import Kind, Principal, Ref
from tests.connectors.rig import Fault, Rig, key_of, member_key
from tests.servers.google import Answer, GoogleProblem
from tests.servers.google_directory import (
    ACCOUNT,
    ADMIN,
    BASE,
    FORBIDDEN,
    READ_GROUPS,
    READ_ROLES,
    READ_USERS,
    DirectoryServer,
)

LONG = "ÿ" * 900
USERS: list[tuple[str, str, str, dict[str, Any], bool]] = [
    # id, e-mail, full name, what else Google tells, and whether active
    ("100000000000000000001", ADMIN, "Ada Lovelace", {}, True),
    ("100000000000000000002", "bo@acme.example", "Bo Ek", {"aliases": ["bo.ek@acme.example"]}, True),
    ("100000000000000000003", "дина@acme.example", "Дина Δ", {"suspended": True, "suspensionReason": "ADMIN"}, False),
    ("100000000000000000004", "eve@acme.example", "山田 花子", {"archived": True}, False),
    ("100000000000000000005", "nour@acme.example", "نور \u202e", {"orgUnitPath": '/Süd/"Ost"'}, True),
    ("100000000000000000006", "zoe@sub.acme.example", "Zoë 🦉", {"isGuestUser": True}, True),
    ("100000000000000000007", "long@acme.example", LONG, {}, True),
]
OTHER = "117000000000000000099"
"""Somebody from elsewhere."""
GROUPS: dict[str, tuple[str, str, list[Ref]]] = {
    "01ksv4uv1gexk1h": ("payments@acme.example", "Team Payments", [Ref(Kind.USER, u[0]) for u in USERS[:5]]),
    "02szc72q1gexk2i": (
        "keys@acme.example",
        "команда: ключи 🔑",
        [
            Ref(Kind.GROUP, "01ksv4uv1gexk1h"),
            Ref(Kind.GROUP, "03x8tuzt1gexk3j"),
            Ref(Kind.USER, OTHER),
            *(Ref(Kind.USER, u[0]) for u in USERS[2:6]),
        ],
    ),
    "03x8tuzt1gexk3j": ("ring@acme.example", "ring", [Ref(Kind.GROUP, "02szc72q1gexk2i")]),
    "04iylrwe1gexk4k": ("empty@acme.example", 'デ"ー"タ & <b> \u2066', []),
    "01opuj5n1gexk5l": ("all@acme.example", "everybody", [Ref(Kind.GROUP, ACCOUNT)]),
}
BIG = "02szc72q1gexk2i"
ROLES = {"28504508671721473": "_SEED_ADMIN_ROLE", "28504508671721500": "Datenhüter 🗝", "28504508671721501": "nobody's"}
HOLDERS = [
    ("28504508671721473", Ref(Kind.USER, USERS[0][0])),
    ("28504508671721473", Ref(Kind.USER, USERS[1][0])),
    ("28504508671721500", Ref(Kind.GROUP, "01ksv4uv1gexk1h")),
    ("28504508671721500", Ref(Kind.USER, "117000000000000000001")),  # a service account
]
TOKEN = "ya29.TokenOfAnAdministrator-Secret"

ANSWERS = {
    Fault.UNAUTHENTICATED: Answer.of(GoogleProblem.old(401, "Invalid Credentials", "authError")),
    Fault.FORBIDDEN: Answer.of(GoogleProblem.old(403, FORBIDDEN, "forbidden")),
    Fault.SERVER_ERROR: Answer.of(GoogleProblem.old(500, "Internal error encountered.", "internalError")),
    Fault.UNAVAILABLE: Answer.of(GoogleProblem.old(503, "Service unavailable. Please try again", "backendError")),
    Fault.THROTTLED_BARE: Answer.of(GoogleProblem.old(403, "Rate Limit Exceeded", "userRateLimitExceeded")),
    Fault.EMPTY_BODY: Answer(200),
    Fault.CUT_BODY: Answer(cut=True),
    Fault.EMPTY_LIST: Answer(200, b"{}"),
    Fault.REPEATED_TOKEN: Answer(repeat=True),
    Fault.REFUSED: Answer(refuse=True),
    Fault.HANG: Answer(stall=True),
}


def fill(server: DirectoryServer) -> None:
    """Put the content above into `server`."""
    for id_, email, name, more, _ in USERS:
        server.user(id_, email, name, **more)
    for id_, (email, name, _) in GROUPS.items():
        server.group(id_, email, name)
    for id_, (_, _, members) in GROUPS.items():
        for member in members:
            server.member(id_, member.id, type_="CUSTOMER" if member.id == ACCOUNT else "")
    for id_, name in ROLES.items():
        server.role(id_, name)
    for role, holder in HOLDERS:
        server.assign(role, holder.id)
    server.assign("28504508671721501", USERS[4][0], scopeType="ORG_UNIT", orgUnitId="03ph8a2z1enx4lx")


class GoogleWorkspaceRig(Rig):
    kind = "google_workspace"
    role = "directory"
    pages = 4
    faults = {
        Fault.UNAUTHENTICATED: Unauthenticated,
        Fault.FORBIDDEN: Forbidden,
        Fault.SERVER_ERROR: ServerFault,
        Fault.UNAVAILABLE: ServerFault,
        Fault.THROTTLED_ONCE: Throttled,
        Fault.THROTTLED_BARE: Throttled,
        Fault.EMPTY_BODY: ServerFault,
        Fault.CUT_BODY: ServerFault,
        Fault.EMPTY_LIST: ServerFault,
        Fault.REPEATED_TOKEN: Incomplete,
        Fault.REFUSED: Unreachable,
    }
    broken = f"{BASE}/users"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with DirectoryServer(page=2) as self.server:
            fill(self.server)
            yield
            assert self.server.problems == []

    def options(self) -> dict[str, Any]:
        return {
            "credentials_file": self.server.key_file,
            "subject": ADMIN,
            "endpoint": self.server.url,
            "ca_file": self.server.ca_file,
            "timeout": "10s",
        }

    def expected(self) -> set[str]:
        users = [Ref(Kind.USER, id_) for id_, *_ in USERS]
        found = {key_of(Principal(Kind.USER, id_, name, email, active)) for id_, email, name, _, active in USERS}
        for id_, (email, name, members) in (*GROUPS.items(), (ACCOUNT, (None, ACCOUNT, users))):
            found.add(key_of(Principal(Kind.GROUP, id_, name, email)))
            found |= {member_key(Ref(Kind.GROUP, id_), member) for member in members}
        found |= {key_of(Principal(Kind.ROLE, id_, name)) for id_, name in ROLES.items()}
        return found | {member_key(Ref(Kind.ROLE, role), holder) for role, holder in HOLDERS}

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        if fault is Fault.THROTTLED_ONCE:
            answer = Answer.of(GoogleProblem.old(403, "Quota exceeded", "quotaExceeded"), times=1)
        else:
            answer = ANSWERS[fault]
        with self.server.broken(self.broken, page, answer):
            yield


class GoogleWorkspaceMembersRig(GoogleWorkspaceRig):
    """With an access token; the faults are on the members of a group, which are read beside those of others."""

    name = "members"
    broken = f"{BASE}/groups/{BIG}/members"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with super().running(), tempfile.TemporaryDirectory() as folder:
            self.server.grant(TOKEN, READ_USERS, READ_GROUPS, READ_ROLES, email=ADMIN)
            self.token_file = Path(folder, "token")
            self.token_file.write_text(TOKEN + "\n")
            yield

    def options(self) -> dict[str, Any]:
        kept = {k: v for k, v in super().options().items() if k not in {"credentials_file", "subject"}}
        return {**kept, "customer": ACCOUNT, "access_token": {"file": str(self.token_file)}}


RIGS: list[Rig] = [GoogleWorkspaceRig(), GoogleWorkspaceMembersRig()]
