"""Rigs of the `okta` connector: an org on `tests.servers.okta`, which names the pages of Okta's reference it follows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.errors import Forbidden, Incomplete, ServerFault, Throttled, Unauthenticated, Unreachable
from connectors.values import Kind, Principal, Ref
from tests.connectors.rig import Fault, Rig, key_of, member_key
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

ANSWERS = {
    Fault.UNAUTHENTICATED: Answer.error("E0000011"),
    Fault.FORBIDDEN: Answer.error("E0000006"),
    Fault.SERVER_ERROR: Answer.error("E0000009"),
    Fault.UNAVAILABLE: Answer(503),
    Fault.THROTTLED_BARE: Answer(429),
    Fault.EMPTY_BODY: Answer(200),
    Fault.CUT_BODY: Answer(cut=True, right=True),
    Fault.REPEATED_TOKEN: Answer(repeat=True),
    Fault.REFUSED: Answer(refuse=True),
}


def fill(server: OktaServer) -> None:
    """Put the content above into `server`."""
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


class OktaRig(Rig):
    kind = "okta"
    role = "directory"
    pages = 3
    faults = {
        Fault.UNAUTHENTICATED: Unauthenticated,
        Fault.FORBIDDEN: Forbidden,
        Fault.SERVER_ERROR: ServerFault,
        Fault.UNAVAILABLE: ServerFault,
        Fault.THROTTLED_ONCE: Throttled,
        Fault.THROTTLED_BARE: Throttled,
        Fault.EMPTY_BODY: ServerFault,
        Fault.CUT_BODY: ServerFault,
        Fault.REPEATED_TOKEN: Incomplete,
        Fault.REFUSED: Unreachable,
    }

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
        found = {
            key_of(Principal(Kind.USER, id_, name, email or login, active))
            for id_, login, _, _, name, email, active in USERS
        }
        everyone = (EVERYONE, ("Everyone", [u[0] for u in USERS]))
        for id_, (name, members) in (*GROUPS.items(), everyone):
            found.add(key_of(Principal(Kind.GROUP, id_, name)))
            found |= {member_key(Ref(Kind.GROUP, id_), Ref(Kind.USER, m)) for m in members}
        found |= {key_of(Principal(Kind.ROLE, id_, label)) for id_, label in ROLES.items()}
        return found | {member_key(Ref(Kind.ROLE, role), holder) for role, holder in HOLDERS}

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        if fault is Fault.THROTTLED_ONCE:
            reset = {"X-Rate-Limit-Limit": "600", "X-Rate-Limit-Remaining": "0"}
            reset["X-Rate-Limit-Reset"] = str(int(self.server.clock) + 20)
            answer = Answer.error("E0000047", headers=reset, times=1)
        else:
            answer = ANSWERS[fault]
        with self.server.broken(LIST, page, answer):
            yield


RIGS: list[Rig] = [OktaRig()]
