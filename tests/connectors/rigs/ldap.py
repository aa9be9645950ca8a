"""Rigs of the `ldap` connector: a real slapd for the RFCs' schemas, `tests.servers.active_directory` for Microsoft's."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.contract import Connector
from connectors.errors import (
    ConnectorError,
    Forbidden,
    Incomplete,
    ServerFault,
    StaleBookmark,
    Unauthenticated,
    Unreachable,
)
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
    stale_bookmark = "20200101000000.000000Z#000000#000#000000"
    change_faults = {
        Fault.UNAUTHENTICATED: Unauthenticated,
        Fault.FORBIDDEN: Forbidden,
        Fault.SIZE_LIMIT: Incomplete,
    }
    people = PEOPLE
    added = ("uid=neu,ou=people", "Neu", {"mail": ["neu@corp.example"]}, "neu@corp.example", True)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with Slapd(BASE, session_log=1000) as self.server, tempfile.TemporaryDirectory() as folder:
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
        for number, person in enumerate(PEOPLE):
            self.add_person(number, person)
        self.server.modify(self.dn("uid=bo,ou=people"), {"manager": [self.dn("UID=ADA , OU = People")]})
        self.add_groups()

    def add_person(self, number: int, person: tuple[str, str, dict[str, Any], str, bool]) -> None:
        dn, name, attributes, *_ = person
        classes = ["inetOrgPerson", *(["lockable"] if "nsAccountLock" in attributes else []), *self.classes]
        more = {k: v for k, v in attributes.items() if k != "pwdAccountLockedTime"}
        self.server.add(self.dn(dn), {"objectClass": classes, "cn": name, "sn": "x", **more, **self.person(number, dn)})
        if lock := attributes.get("pwdAccountLockedTime"):
            self.server.modify(self.dn(dn), {"pwdAccountLockedTime": [lock]})

    @contextlib.contextmanager
    def changed(self) -> Iterator[None]:
        """One user more, one less, one renamed, one edited, one unlocked; and the schema's groups."""
        ada, *others, eve, fay, gus, zoe = self.people
        server = self.server
        self.add_person(90, self.added)
        server.delete(self.dn(gus[0]))
        server.modify(self.dn(ada[0]), {"mail": ["ada@new.example"], "displayName": ["Ada King"]})
        server.modify(self.dn(eve[0]), {"pwdAccountLockedTime": []})
        server.rename(self.dn(zoe[0]), "uid=zora")
        self.people = [
            (ada[0], "Ada King", {}, "ada@new.example", True), *others, (*eve[:4], True), fay,
            ("uid=zora,ou=people", *zoe[1:]), self.added,
        ]  # fmt: skip
        with self.changed_groups():
            yield
        server.delete(self.dn(self.added[0]))
        self.add_person(6, gus)
        server.modify(self.dn(ada[0]), {"mail": ["ada@corp.example"], "displayName": ["Ada Lovelace"]})
        server.modify(self.dn(eve[0]), {"pwdAccountLockedTime": ["000001010000Z"]})
        server.rename(self.dn("uid=zora,ou=people"), "uid=zoë")
        self.people = PEOPLE

    @contextlib.contextmanager
    def changed_groups(self) -> Iterator[None]:
        raise NotImplementedError
        yield

    @contextlib.contextmanager
    def inject_into_changes(self, fault: Fault) -> Iterator[None]:
        with self.inject(fault, 1):
            yield

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
            for dn, name, _, email, active in self.people
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
    names: dict[str, str] = dict(zip(groups, ("Team Payments", "loop", "unique + €", "empty", "stray"), strict=True))

    def add_groups(self) -> None:
        for dn in self.groups:
            self.add_group(dn)

    def add_group(self, dn: str) -> None:
        class_, attribute, members = self.groups[dn]
        values = {attribute: [self.dn(x) for x in members]} if members else {}
        self.server.add(self.dn(dn), {"objectClass": [class_], **values})

    @contextlib.contextmanager
    def changed_groups(self) -> Iterator[None]:
        """A member more and one less, a group more and one less, one renamed, one that names whoever comes."""
        groups, names, server = self.groups, self.names, self.server
        payments, loop, unique, empty, stray = groups
        members = ["uid=neu,ou=people", "uid=bo,ou=people", "cn=added,ou=groups"]
        server.modify(self.dn(payments), {"member": [self.dn(x) for x in members]})
        server.rename(self.dn(unique), "cn=Einzig")
        server.delete(self.dn(empty))
        self.groups = {
            payments: ("groupOfNames", "member", members),
            loop: groups[loop],
            "cn=Einzig,ou=groups": groups[unique],
            stray: groups[stray],  # one of its members is renamed, and so no member
            "cn=added,ou=groups": ("groupOfNames", "member", ["uid=bo,ou=people", "cn=Einzig,ou=groups"]),
        }
        self.names = {**names, "cn=Einzig,ou=groups": "Einzig", "cn=added,ou=groups": "added"}
        self.add_group("cn=added,ou=groups")
        yield
        server.delete(self.dn("cn=added,ou=groups"))
        server.rename(self.dn("cn=Einzig,ou=groups"), unique.partition(",")[0])
        self.groups, self.names = groups, names
        self.add_group(empty)
        server.modify(self.dn(payments), {"member": [self.dn(x) for x in groups[payments][2]]})

    def expected_groups(self) -> set[str]:
        found = {key_of(Principal(Kind.GROUP, self.id(dn), self.names[dn])) for dn in self.groups}
        for dn, (_, _, members) in self.groups.items():
            for member in members:
                if self.server.has(self.dn(member)):
                    ref = self.group(member) if "groups" in member else self.user(member)
                    found.add(member_key(self.group(dn), ref))
        return found


class Rfc2307(SlapdRig):
    name = "slapd-rfc2307"
    schema = "rfc2307"
    classes = ("posixAccount",)
    logins = [f"login{n}" for n in range(99)]
    groups: dict[str, tuple[int, list[int]]] = {
        "cn=staff": (100, [0, 1, 7]),
        "cn=дев": (101, [2]),
        "cn=none": (102, []),
    }

    def person(self, number: int, dn: str) -> dict[str, Any]:
        uid = [self.logins[number], *([dn[4:].partition(",")[0]] if dn.startswith("uid=") else [])]
        return {"uid": uid, "uidNumber": 1000 + number, "gidNumber": 100 if number % 2 else 999, "homeDirectory": "/"}

    primary: dict[int, str] = {n: "cn=staff" for n in range(len(PEOPLE)) if n % 2}
    """Whose primary group is which."""

    def add_groups(self) -> None:
        for dn in self.groups:
            self.add_group(dn)

    def add_group(self, dn: str) -> None:
        number, members = self.groups[dn]
        values = {"memberUid": [*(self.logins[x] for x in members), "nobody"]}
        self.server.add(self.dn(f"{dn},ou=groups"), {"objectClass": ["posixGroup"], "gidNumber": number, **values})

    @contextlib.contextmanager
    def changed_groups(self) -> Iterator[None]:
        """A member more and one less, a group more and one less, another primary group, a login that leads nowhere."""
        groups, primary, server = self.groups, self.primary, self.server
        members = {"memberUid": [self.logins[1], self.logins[3], "nobody"]}
        server.modify(self.dn("cn=staff,ou=groups"), members)
        server.delete(self.dn("cn=none,ou=groups"))
        server.modify(self.dn(f"{PEOPLE[1][0]}"), {"gidNumber": ["103"]})
        server.modify(self.dn(f"{PEOPLE[2][0]}"), {"uid": ["another"]})
        self.groups = {"cn=staff": (100, [1, 3]), "cn=дев": (101, []), "cn=added": (103, [0])}
        self.primary = {1: "cn=added", 3: "cn=staff", 5: "cn=staff", 7: "cn=staff"}
        self.add_group("cn=added")
        yield
        server.modify(self.dn(f"{PEOPLE[1][0]}"), {"gidNumber": ["100"]})
        server.modify(self.dn(f"{PEOPLE[2][0]}"), {"uid": [self.logins[2]]})
        server.delete(self.dn("cn=added,ou=groups"))
        self.groups, self.primary = groups, primary
        self.add_group("cn=none")
        server.modify(self.dn("cn=staff,ou=groups"), {"memberUid": [*(self.logins[x] for x in groups["cn=staff"][1]), "nobody"]})  # fmt: skip

    def member(self, number: int) -> Ref:
        """By the login, which is not in the name of all."""
        dn = PEOPLE[number][0]
        return self.user(dn if self.server.has(self.dn(dn)) else "uid=zora,ou=people")

    def expected_groups(self) -> set[str]:
        found = set()
        for dn, (_, members) in self.groups.items():
            group = self.group(f"{dn},ou=groups")
            found.add(key_of(Principal(Kind.GROUP, group.id, dn[3:])))
            found |= {member_key(group, self.member(x)) for x in members}
        return found | {
            member_key(self.group(f"{dn},ou=groups"), self.member(number)) for number, dn in self.primary.items()
        }


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
    stale_bookmark = "00112233445566778899aabbccddeeff:1"
    change_faults = {**faults, Fault.REPEATED_TOKEN: StaleBookmark}

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

    @contextlib.contextmanager
    def changed(self) -> Iterator[None]:
        """One user more, one less, one enabled; a group renamed, one gone, one more; members moved."""
        server, before = self.server, (self.people, self.teams, self.disabled, dict(self.ids))
        big, nested, empty = self.teams
        server.delete("User 00")
        self.ids["Neu"] = server.add_user("Neu", mail="eu@corp.example")
        server.edit(self.disabled, userAccountControl=512)
        server.rename(server.dn(nested), server.dn("Andere"))
        server.delete(empty)
        self.ids["Andere"] = self.ids[nested]
        self.ids["Mehr"] = server.add_group("Mehr")
        self.people = [*self.people[1:], "Neu"]
        self.teams = {
            big: ["User 01", "User 03", "User 04", "Neu", "Mehr"],
            "Andere": [big, "User 06"],
            "Mehr": ["User 02", "User 03", "User 06"],
        }
        self.disabled = ""
        for name in (big, "Mehr"):
            server.set_members(name, [server.dn(x) for x in self.teams[name]])
        yield
        self.people, self.teams, self.disabled, ids = before
        for name in ("Neu", "Mehr"):
            server.delete(name)
        server.rename(server.dn("Andere"), server.dn(nested))
        server.edit(self.disabled, userAccountControl=514)
        self.ids = {
            **ids,
            "User 00": server.add_user("User 00", mail="00@corp.example"),
            empty: server.add_group(empty),
        }
        server.set_members(big, [server.dn(x) for x in self.teams[big]])

    @contextlib.contextmanager
    def inject_into_changes(self, fault: Fault) -> Iterator[None]:
        with self.inject(fault, 1):
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
