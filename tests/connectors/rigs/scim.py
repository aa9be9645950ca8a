"""The rigs of the `scim` connector: scim2-server, paged by index and by cursor; and a service of our own.

None of their changes is a deletion: that makes a bookmark stale, and has tests of its own.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.contract import Connector
from connectors.errors import StaleBookmark
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
Person = tuple[dict[str, Any], str, str | None, bool]
BEFORE: dict[str, Person] = {login: (more, name, mail, active) for login, more, name, mail, active in PEOPLE}
LATER: dict[str, Person] = {
    # what becomes of some: as above
    "ada": ({"displayName": "Ada L.", "emails": [{"value": "lovelace@acme.example"}]}, "Ada L.", "lovelace@acme.example", True),
    "山田": ({"displayName": "山田 太郎", "active": True}, "山田 太郎", None, True),
    "zoë": ({"displayName": "Zoë \u2066🦉"}, "Zoë \u2066🦉", None, True),
    "bob": ({"displayName": "Bob", "active": False}, "Bob", None, False),
    "solo": ({"displayName": "Not alone"}, "Not alone", None, True),
}  # fmt: skip
LATER_GROUPS: dict[str, list[str]] = {
    "Team Payments": ["ada", "solo"],
    "all 🦉": ["/команда: ключи", "bob", "山田"],
    "empty " + "x" * 300: ["/all 🦉", "mira"],
}

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
        return Answer(
            cut=fault is Fault.CUT_BODY,
            refuse=fault is Fault.REFUSED,
            empty=fault is Fault.EMPTY_LIST,
            stall=fault is Fault.HANG,
        )
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
    change_faults = {**faults, Fault.FORBIDDEN: StaleBookmark}
    """It may be the filter that is forbidden: the whole read tells."""
    stale_bookmark = '{"Users":[1700000000,1700000000,null,1000],"Groups":[1700000000,1700000000,null,1000]}'
    cursor = False
    server: RealScimServer | ScimServer

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with RealScimServer(page=3, cursor=self.cursor) as self.server, tempfile.TemporaryDirectory() as folder:
            self.secret_file = Path(folder, "token")
            self.secret_file.write_text(self.server.token + "\n")
            self.people = dict(BEFORE)
            self.groups = dict(GROUPS)
            self.fill()
            self.server.advance(3600)
            self.put("Users", "zoë")  # what was never modified cannot be followed
            self.put("Groups", "команда: ключи")
            yield

    def fill(self) -> None:
        assert isinstance(self.server, RealScimServer)
        self.ids = {}
        for login, (more, *_) in self.people.items():
            self.ids[login] = self.server.add("Users", userName=login, **more)
            self.server.advance(600)
        for name, members in self.groups.items():
            self.ids["/" + name] = self.server.add("Groups", displayName=name, members=self.named(members))
            self.server.advance(600)

    def named(self, members: list[str]) -> list[dict[str, str]]:
        return [{"value": self.ids[m], "type": "Group" if m.startswith("/") else "User"} for m in members]

    def put(self, path: str, name: str) -> None:
        """Make a user or a group on the server what it is here; and touch it, even if it is so already."""
        assert isinstance(self.server, RealScimServer)
        for touched in ("x", ""):
            told = {"externalId": touched} if touched else {}
            if path == "Users":
                self.server.edit(path, self.ids[name], userName=name, **self.people[name][0], **told)
            else:
                members = self.named(self.groups[name])
                self.server.edit(path, self.ids["/" + name], displayName=name, members=members, **told)

    def connector(self, **changes: Any) -> Connector:
        self.server.advance(1200)  # between runs
        return super().connector(**changes)

    def options(self) -> dict[str, Any]:
        return {
            "endpoint": f"{self.server.url}/v2", "token": {"file": str(self.secret_file)},
            "ca_file": self.server.ca_file, "timeout": "10s",
        }  # fmt: skip

    def expected(self) -> set[str]:
        found = {
            key_of(Principal(Kind.USER, self.ids[login], name, mail, active))
            for login, (_, name, mail, active) in self.people.items()
        }
        for name, members in self.groups.items():
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

    @contextlib.contextmanager
    def changed(self) -> Iterator[None]:
        before = self.people, self.groups
        self.people = {**self.people, **LATER}
        self.groups = {**self.groups, **LATER_GROUPS}
        self.put_all()
        try:
            yield
        finally:
            self.people, self.groups = before
            self.put_all()

    def put_all(self) -> None:
        for login in LATER:
            self.server.advance(7)
            self.put("Users", login)
        for name in LATER_GROUPS:
            self.put("Groups", name)

    @contextlib.contextmanager
    def inject_into_changes(self, fault: Fault) -> Iterator[None]:
        if fault in {Fault.REPEATED_TOKEN, Fault.CUT_BODY, Fault.REFUSED}:
            with self.inject(fault, 2):
                yield
        else:
            with self.server.broken("Groups", 1, answer_of(fault)):
                yield


class CursorScimRig(RealScimRig):
    """The same, which pages by cursor only (RFC 9865)."""

    name = "scim2-server-cursors"
    cursor = True
    pages = 3


class OwnScimRig(RealScimRig):
    """Ours: `members` in no list, which are of no said kind; and empty pages without `Resources`."""

    name = "rfc7644"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with ScimServer(page=3) as self.server, tempfile.TemporaryDirectory() as folder:
            self.secret_file = Path(folder, "token")
            self.secret_file.write_text(self.server.token + "\n")
            self.server.members_told, self.server.typed, self.server.bare_ends = "alone", (), True
            self.server.config = {"filter": {"supported": True, "maxResults": 200}}
            self.people = dict(BEFORE)
            self.groups = dict(GROUPS)
            self.ids = {login: f"ид/{n}?#" for n, login in enumerate(self.people)}
            self.ids |= {f"/{name}": f"g{n}" for n, name in enumerate(self.groups)}
            for path, names in (("Users", self.people), ("Groups", self.groups)):
                for name in names:
                    self.put(path, name)
                    self.server.advance(600)
            self.put("Users", "zoë")
            self.put("Groups", "команда: ключи")
            yield

    def put(self, path: str, name: str) -> None:
        assert isinstance(self.server, ScimServer)
        if path == "Users":
            more = {**self.people[name][0], ENTERPRISE: {"department": "Pay"}}
            self.server.add_user(self.ids[name], name, **more)
        else:
            told = [("Group" if m.startswith("/") else "User", self.ids[m]) for m in self.groups[name]]
            self.server.add_group(self.ids["/" + name], name, *told)

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
