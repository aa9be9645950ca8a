"""The rigs of the `scim` connector: scim2-server, paged by index and by cursor; and a service of our own."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.values import Kind, Principal, Ref
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig, key_of, member_key
from tests.servers.oncall import Answer, Refusal
from tests.servers.scim import ENTERPRISE, RealScimServer, ScimServer, problem

PEOPLE: list[tuple[str, dict[str, Any], str, str | None, bool]] = [
    # userName, other attributes, and what becomes of them: name, e-mail, active or not
    ("ada", {"displayName": "Ada", "emails": [{"value": "ada@acme.example", "primary": True}]}, "Ada", "ada@acme.example", True),
    ("дина@acme.example", {"name": {"givenName": "Дина", "familyName": "Р"}, "active": True}, "Дина Р", "дина@acme.example", True),
    ("山田", {"displayName": "山田 太郎", "active": False}, "山田 太郎", None, False),
    ("zoë", {"displayName": "Zoë 🦉 \u202e", "emails": [{"value": "z@acme.example", "type": "work"}]}, "Zoë 🦉 \u202e", "z@acme.example", True),
    ("bob", {"displayName": "O'Brien \"Bob\" <b>", "emails": [{"value": "b@home.example", "type": "home"}]}, "O'Brien \"Bob\" <b>", "b@home.example", True),
    ("long", {"displayName": "x" * 300}, "x" * 300, None, True),
    ("mira", {"name": {"formatted": "Dr. Mira"}}, "Dr. Mira", None, True),
    ("solo", {}, "solo", None, True),
]  # fmt: skip
GROUPS: dict[str, list[str]] = {
    "Team Payments": ["ada", "山田"],
    "команда: ключи": ["zoë", "дина@acme.example"],
    "all 🦉": ["bob", "/Team Payments", "/команда: ключи"],
    "empty " + "x" * 300: [],
}
"""Members by userName, or by a slash and the name of a group."""

REFUSALS: dict[Fault, Refusal] = {
    Fault.UNAUTHENTICATED: problem(401, "Authorization failure"),
    Fault.FORBIDDEN: problem(403, "Operation is not permitted based on the supplied authorization"),
    Fault.SERVER_ERROR: problem(500, "An internal error"),
    Fault.UNAVAILABLE: Refusal(503, b"<html>Service Unavailable</html>"),
    Fault.THROTTLED_ONCE: problem(429, "Too many requests", headers={"Retry-After": "7"}),
    Fault.THROTTLED_BARE: Refusal(429, None),
    Fault.EMPTY_BODY: Refusal(200, None),
}


def answer_of(fault: Fault) -> Answer:
    """What a page that suffers `fault` answers."""
    if (refusal := REFUSALS.get(fault)) is None:
        return Answer(cut=fault is Fault.CUT_BODY, refuse=fault is Fault.REFUSED)
    answer = Answer(refusal.status, refusal.document, refusal.headers)
    answer.times = 1 if fault is Fault.THROTTLED_ONCE else answer.times
    return answer


class RealScimRig(Rig):
    """scim2-server behind the proxy."""

    kind = "scim"
    role = "directory"
    name = "scim2-server"
    pages = 4
    """Of users: 8 in pages of 3, each of which begins with the last of the one before; 3 by cursor."""
    faults = USUAL_FAULTS
    cursor = False
    server: RealScimServer | ScimServer

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with RealScimServer(page=3, cursor=self.cursor) as self.server, tempfile.TemporaryDirectory() as folder:
            self.secret_file = Path(folder, "token")
            self.secret_file.write_text(self.server.token + "\n")
            self.ids = {name: self.server.add("Users", userName=name, **more) for name, more, *_ in PEOPLE}
            for name, members in GROUPS.items():
                named = [
                    {"value": self.ids[m], "type": "Group" if m.startswith("/") else "User"} for m in members
                ]  # fmt: skip
                more = {"members": named} if named else {}
                self.ids["/" + name] = self.server.add("Groups", displayName=name, **more)
            yield

    def options(self) -> dict[str, Any]:
        return {
            "endpoint": f"{self.server.url}/v2", "token": {"file": str(self.secret_file)},
            "ca_file": self.server.ca_file, "timeout": "10s",
        }  # fmt: skip

    def expected(self) -> set[str]:
        found = {
            key_of(Principal(Kind.USER, self.ids[login], name, mail, active)) for login, _, name, mail, active in PEOPLE
        }
        for name, members in GROUPS.items():
            group = Ref(Kind.GROUP, self.ids["/" + name])
            found.add(key_of(Principal(Kind.GROUP, group.id, name)))
            found |= {
                member_key(group, Ref(Kind.GROUP if m.startswith("/") else Kind.USER, self.ids[m])) for m in members
            }
        return found

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        if fault is Fault.REPEATED_TOKEN:
            assert isinstance(self.server, RealScimServer)
            self.server.stuck = ("Users", page)
            yield
            self.server.stuck = None
        else:
            with self.server.broken("Users", page, answer_of(fault)):
                yield


class CursorScimRig(RealScimRig):
    """The same, which pages by cursor only (RFC 9865)."""

    name = "scim2-server-cursors"
    cursor = True
    pages = 3


class OwnScimRig(RealScimRig):
    """Ours: no ServiceProviderConfig, `members` in no list, which are of no said kind, and too low a totalResults."""

    name = "rfc7644"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with ScimServer(page=3) as self.server, tempfile.TemporaryDirectory() as folder:
            self.secret_file = Path(folder, "token")
            self.secret_file.write_text(self.server.token + "\n")
            self.server.members_told, self.server.typed, self.server.bare_ends = "alone", (), True
            self.server.total = lambda _of, rows: rows
            self.ids = {login: f"ид/{n}?#" for n, (login, *_) in enumerate(PEOPLE)}
            self.ids |= {f"/{name}": f"g{n}" for n, name in enumerate(GROUPS)}
            for login, more, *_ in PEOPLE:
                self.server.add_user(self.ids[login], login, **more, **{ENTERPRISE: {"department": "Pay"}})
            for name, members in GROUPS.items():
                told = [("Group" if m.startswith("/") else "User", self.ids[m]) for m in members]
                self.server.add_group(self.ids["/" + name], name, *told)
            yield

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        if fault is Fault.REPEATED_TOKEN:
            assert isinstance(self.server, ScimServer)
            self.server.stuck = (page - 1) * 2 + 1
            yield
            self.server.stuck = None
        else:
            with super().inject(fault, page):
                yield


RIGS: list[Rig] = [RealScimRig(), CursorScimRig(), OwnScimRig()]
