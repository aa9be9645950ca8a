"""Rigs of the `ldap` connector: a real slapd for the RFCs' schemas, `tests.servers.active_directory` for Microsoft's."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.contract import Connector
from connectors.errors import ConnectorError, Forbidden, Incomplete, ServerFault, Unauthenticated, Unreachable
from connectors.values import Kind, Principal, Ref
from tests.connectors.rig import Fault, Rig, key_of, member_key
from tests.servers.active_directory import ActiveDirectory
from tests.servers.slapd import ACCESS, MISSING, Slapd

BASE = "dc=corp,dc=example"
PAGE = 3

PEOPLE: list[tuple[str, str, dict[str, Any], str, bool]] = [
    # DN below the base, name, attributes, e-mail, active
    ("uid=ada,ou=people", "Ada Lovelace", {"displayName": "Ada Lovelace", "mail": ["ada@corp.example"]}, "ada@corp.example", True),
    ("uid=bo,ou=people", "Bo", {"mail": ["bo@corp.example", "bo.ek@corp.example"]}, "bo@corp.example", True),
    ("cn=Chi\\, the \\22third\\22 \\+ more,ou=people", 'Chi, the "third" + more', {}, "", True),
    ("uid=дина,ou=people", "Дина", {"userPassword": "not for you"}, "", True),
    ("uid=eve,ou=people", "山田", {"pwdAccountLockedTime": "000001010000Z"}, "", False),
    ("uid=fay,ou=people", "Fay", {"nsAccountLock": "TRUE"}, "", False),
    ("uid=gus,ou=people", "Gus", {"pwdAccountLockedTime": "20200101000000Z"}, "", True),
    ("uid=zoë,ou=people", "Zoë 🦉 \u202e", {}, "", True),
]  # fmt: skip


class _Slow(Rig):
    """What the three have in common: small pages, and the reader's password in a file."""

    kind = "ldap"
    role = "directory"
    base = BASE
    password_file: Path

    def connector(self, **changes: Any) -> Connector:
        connector: Any = super().connector(**changes)
        connector.page_size = PAGE
        return connector  # type: ignore[no-any-return]


class SlapdRig(_Slow):
    missing = MISSING
    schema = ""
    pages = 3
    faults: dict[Fault, type[ConnectorError] | tuple[type[ConnectorError], ...]] = {
        Fault.UNAUTHENTICATED: Unauthenticated,
        Fault.FORBIDDEN: Forbidden,
        Fault.SIZE_LIMIT: Incomplete,
        Fault.REFUSED: Unreachable,
    }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with Slapd(BASE) as self.server, tempfile.TemporaryDirectory() as folder:
            self.password_file = Path(folder, "password")
            self.password_file.write_text(self.server.password + "\n")
            self.fill()
            yield

    def dn(self, name: str) -> str:
        return f"{name},{BASE}"

    def fill(self) -> None:
        self.server.add_all(
            [(self.dn(f"ou={x}"), {"objectClass": ["organizationalUnit"]}) for x in ("people", "groups", "other")]
        )
        for number, (dn, name, attributes, *_) in enumerate(PEOPLE):
            classes = ["inetOrgPerson", *(["lockable"] if "nsAccountLock" in attributes else []), *self.classes]
            more = {k: v for k, v in attributes.items() if k != "pwdAccountLockedTime"}
            self.server.add(
                self.dn(dn), {"objectClass": classes, "cn": name, "sn": "x", **more, **self.person(number, dn)}
            )
            if lock := attributes.get("pwdAccountLockedTime"):
                self.server.modify(self.dn(dn), {"pwdAccountLockedTime": [lock]})
        self.server.modify(self.dn("uid=bo,ou=people"), {"manager": [self.dn("UID=ADA , OU = People")]})
        self.add_groups()

    classes: tuple[str, ...] = ()

    def person(self, number: int, dn: str) -> dict[str, Any]:
        return {}

    def add_groups(self) -> None:
        raise NotImplementedError

    def id(self, dn: str) -> str:
        return self.server.get(self.dn(dn), "entryUUID")

    def user(self, dn: str) -> Ref:
        return Ref(Kind.USER, self.id(dn))

    def group(self, dn: str) -> Ref:
        return Ref(Kind.GROUP, self.id(dn))

    def options(self) -> dict[str, Any]:
        return {
            "url": self.server.url,
            "base": BASE,
            "schema": self.schema,
            "bind_dn": self.server.bind_dn,
            "password": {"file": str(self.password_file)},
            "timeout": "10s",
        }

    def expected(self) -> set[str]:
        found = {
            key_of(Principal(Kind.USER, self.id(dn), name, email or None, active))
            for dn, name, _, email, active in PEOPLE
        }
        return found | self.expected_groups()

    def expected_groups(self) -> set[str]:
        raise NotImplementedError

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        server = self.server
        match fault:
            case Fault.UNAUTHENTICATED:
                server.modify(server.bind_dn, {"userPassword": ["another"]})
                try:
                    yield
                finally:
                    server.modify(server.bind_dn, {"userPassword": [server.password]})
            case Fault.FORBIDDEN:  # what an ACL hides, slapd leaves out without an error
                hidden = f'to dn.subtree="ou=people,{BASE}" by * none'
                with server.configured(olcAccess=[ACCESS[0], hidden, ACCESS[1]]):
                    yield
            case Fault.SIZE_LIMIT:
                with server.configured(olcLimits=[f"* size.prtotal={max(1, (page - 1) * PAGE)}"]):
                    yield
            case _:
                server.stop()
                try:
                    yield
                finally:
                    server.start()


class Rfc2307bis(SlapdRig):
    name = "slapd-rfc2307bis"
    schema = "rfc2307bis"
    groups: dict[str, tuple[str, str, list[str]]] = {
        # class, attribute of members, members
        "cn=Team Payments,ou=groups": ("groupOfNames", "member", ["UID=Ada,OU=People", "uid=bo,ou=people", "cn=loop,ou=groups"]),
        "cn=loop,ou=groups": ("groupOfNames", "member", ["cn=team  payments,ou=groups", "cn=loop,ou=groups"]),
        "cn=unique \\2B \\E2\\82\\AC,ou=groups": ("groupOfUniqueNames", "uniqueMember", [PEOPLE[2][0], "uid=дина,ou=people"]),
        "cn=empty,ou=groups": ("groupOfMembers", "member", []),
        "cn=stray,ou=other": ("groupOfNames", "member", ["uid=nobody,ou=people", "uid=zoë,ou=people"]),
    }  # fmt: skip
    names = ("Team Payments", "loop", "unique + €", "empty", "stray")

    def add_groups(self) -> None:
        for dn, (class_, attribute, members) in self.groups.items():
            values = {attribute: [self.dn(x) for x in members]} if members else {}
            self.server.add(self.dn(dn), {"objectClass": [class_], **values})

    def expected_groups(self) -> set[str]:
        found = {
            key_of(Principal(Kind.GROUP, self.id(dn), name)) for dn, name in zip(self.groups, self.names, strict=True)
        }
        for dn, (_, _, members) in self.groups.items():
            for member in members:
                if "nobody" not in member:
                    ref = self.group(member) if "groups" in member else self.user(member)
                    found.add(member_key(self.group(dn), ref))
        return found


class Rfc2307(SlapdRig):
    name = "slapd-rfc2307"
    schema = "rfc2307"
    classes = ("posixAccount",)
    logins = [f"login{n}" for n in range(len(PEOPLE))]
    groups: dict[str, tuple[int, list[int]]] = {
        "cn=staff": (100, [0, 1, 7]),
        "cn=дев": (101, [2]),
        "cn=none": (102, []),
    }

    def person(self, number: int, dn: str) -> dict[str, Any]:
        uid = [self.logins[number], *([dn[4:].partition(",")[0]] if dn.startswith("uid=") else [])]
        return {"uid": uid, "uidNumber": 1000 + number, "gidNumber": 100 if number % 2 else 999, "homeDirectory": "/"}

    def add_groups(self) -> None:
        for dn, (number, members) in self.groups.items():
            values = {"memberUid": [*(self.logins[x] for x in members), "nobody"]}
            self.server.add(self.dn(f"{dn},ou=groups"), {"objectClass": ["posixGroup"], "gidNumber": number, **values})

    def expected_groups(self) -> set[str]:
        found = set()
        for dn, (_, members) in self.groups.items():
            group = self.group(f"{dn},ou=groups")
            found.add(key_of(Principal(Kind.GROUP, group.id, dn[3:])))
            found |= {member_key(group, self.user(PEOPLE[x][0])) for x in members}
        staff = self.group("cn=staff,ou=groups")
        return found | {member_key(staff, self.user(p[0])) for n, p in enumerate(PEOPLE) if n % 2}


class AdRig(_Slow):
    name = "ad"
    pages = 3
    faults = {
        Fault.UNAUTHENTICATED: Unauthenticated,
        Fault.FORBIDDEN: Forbidden,
        Fault.SIZE_LIMIT: Incomplete,
        Fault.REFUSED: Unreachable,
        Fault.UNAVAILABLE: ServerFault,
        Fault.SERVER_ERROR: ServerFault,
        Fault.CUT_BODY: ServerFault,
        Fault.EMPTY_BODY: ServerFault,
        Fault.EMPTY_LIST: Incomplete,
        Fault.REPEATED_TOKEN: Incomplete,
    }
    people = [f"User {n:02}" for n in range(7)]
    teams: dict[str, list[str]] = {
        "Große Gruppe": [*people[:5], "Nested"],
        "Nested": ["Große Gruppe", people[6]],
        "Empty": [],
    }
    disabled = "User 02"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with ActiveDirectory(BASE, range_size=2) as self.server, tempfile.TemporaryDirectory() as folder:
            self.password_file = Path(folder, "password")
            self.password_file.write_text(self.server.password)
            primary = self.server.add_group("Domain Users", rid=513)
            self.ids = {"Domain Users": primary}
            for name in self.people:
                flags = 514 if name == self.disabled else 512
                mail = f"{name[-2:]}@corp.example"
                self.ids[name] = self.server.add_user(name, mail=mail, userAccountControl=flags)
            for name in self.teams:
                self.ids[name] = self.server.add_group(name)
            for name, members in self.teams.items():
                self.server.set_members(name, [self.server.dn(x) for x in members])
            yield

    def options(self) -> dict[str, Any]:
        return {
            "url": self.server.url,
            "base": BASE,
            "schema": "ad",
            "bind_dn": self.server.bind_dn,
            "password": {"file": str(self.password_file)},
            "timeout": "10s",
        }

    def ref(self, name: str) -> Ref:
        return Ref(Kind.USER if name in self.people else Kind.GROUP, self.ids[name])

    def expected(self) -> set[str]:
        found = {
            key_of(Principal(Kind.USER, self.ids[x], x, f"{x[-2:]}@corp.example", x != self.disabled))
            for x in self.people
        }
        for name, members in (*self.teams.items(), ("Domain Users", self.people)):
            found.add(key_of(Principal(Kind.GROUP, self.ids[name], name)))
            found |= {member_key(self.ref(name), self.ref(x)) for x in members}
        return found

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        what = {
            Fault.FORBIDDEN: "50",
            Fault.SIZE_LIMIT: "4",
            Fault.UNAVAILABLE: "52",
            Fault.SERVER_ERROR: "1",
            Fault.CUT_BODY: "cut",
            Fault.EMPTY_BODY: "close",
            Fault.EMPTY_LIST: "nocontrol",
            Fault.REPEATED_TOKEN: "repeat",
        }
        if fault is Fault.UNAUTHENTICATED:
            with self.server.refusing("533"):
                yield
        elif fault is Fault.REFUSED:
            with self.server.stopped():
                yield
        else:
            with self.server.broken(page, what[fault]):
                yield


RIGS: list[Rig] = [Rfc2307bis(), Rfc2307(), AdRig()]
