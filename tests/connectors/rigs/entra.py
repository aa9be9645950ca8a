"""Rigs of the `entra` connector: a tenant on `tests.servers.graph`, which names the pages of the reference it follows."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from connectors.values import Kind, Principal, Ref
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig, key_of, member_key
from tests.servers.graph import Answer, GraphProblem, GraphServer


def guid(kind: str, number: int) -> str:
    """An id: `kind` is one hexadecimal digit."""
    return f"{kind * 8}-0000-4000-8000-{number:012x}"


def user(number: int) -> str:
    return guid("a", number)


def group(number: int) -> str:
    return guid("b", number)


USERS: list[tuple[str, str, str | None, str, bool]] = [
    # login, display name, mail, and the name and e-mail that they mean; whether the account is on
    ("ada@acme.example", "Ada Lovelace", None, "ada@acme.example", True),
    ("bo@acme.example", "Bo Ek", "bo.ek@acme.example", "bo.ek@acme.example", True),
    ("chi@acme.example", "Χι 'quoted' \"twice\"", "χ@acme.example", "χ@acme.example", True),
    ("дина@acme.example", "Дина", None, "дина@acme.example", True),
    ("eve@acme.example", "山田 太郎", None, "eve@acme.example", False),
    ("x_partner.example#EXT#@acme.example", "Guest", "x@partner.example", "x@partner.example", True),
    ("zoë@acme.example", "Zoë 🦉 \u202e", None, "zoë@acme.example", True),
    ("nour@acme.example", "نور " + "x" * 200, None, "nour@acme.example", True),
    *((f"u{n}@acme.example", f"User {n}", None, f"u{n}@acme.example", True) for n in range(8, 11)),
]
GROUPS: list[tuple[str, list[str]]] = [
    ("Team Payments", [user(0), user(1), user(4)]),
    ("команда: ключи", [user(n) for n in range(7)]),
    ("empty", []),
    ('profiles/デ"ー"タ & <b>', [group(0), user(6), group(4)]),
    ("Round", [group(3)]),
]
DEVICE = guid("d", 1)
ADMINS = guid("c", 1)
APP, WRITER, READER, DAEMON = guid("e", 1), guid("f", 1), guid("f", 2), guid("f", 3)
LIST = "/v1.0/users"
ROUND = "/v1.0/groups/delta"

ANSWERS = {
    Fault.UNAUTHENTICATED: Answer.error(GraphProblem.expired_token()),
    Fault.FORBIDDEN: Answer.error(GraphProblem.denied()),
    Fault.SERVER_ERROR: Answer.error(GraphProblem.internal()),
    Fault.UNAVAILABLE: Answer(503),
    Fault.THROTTLED_ONCE: Answer.error(GraphProblem.throttled(**{"Retry-After": "10"}), times=1),
    Fault.THROTTLED_BARE: Answer.error(GraphProblem.throttled()),
    Fault.EMPTY_BODY: Answer(200),
    Fault.EMPTY_LIST: Answer(empty=True),
    Fault.CUT_BODY: Answer(cut=True, right=True),
    Fault.REPEATED_TOKEN: Answer(repeat=True),
    Fault.REFUSED: Answer(refuse=True),
    Fault.HANG: Answer(stall=True),
}


class EntraRig(Rig):
    kind = "entra"
    role = "directory"
    pages = 3
    faults = USUAL_FAULTS
    change_faults = faults
    stale_bookmark = "$deltatoken=AAAA"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with GraphServer(page=4) as self.server, tempfile.TemporaryDirectory() as folder:
            self.token_file = Path(folder, "token")
            self.token_file.write_text(self.server.token + "\n")
            self.server.delta_page = 2
            self.server.members_page = 2
            self.users = {
                user(n): Principal(Kind.USER, user(n), name, email, enabled)
                for n, (_, name, _, email, enabled) in enumerate(USERS)
            }
            for n, (login, name, mail, _, enabled) in enumerate(USERS):
                more = {"mail": mail} if mail else {}
                self.server.add_user(user(n), login, name, enabled=enabled, **more)
            self.server.link("users", user(1), user(0))
            self.groups: dict[str, tuple[str, set[str]]] = {}
            for n, (name, members) in enumerate(GROUPS):
                self.server.add_group(group(n), name)
                self.groups[group(n)] = (name, set(members))
            for n, (_, members) in enumerate(GROUPS):
                for member in members:
                    self.server.link("groups", group(n), member)
            self.server.add_role(ADMINS, "Global Administrator", guid("6", 2), user(0), group(0))
            self.server.add_app(
                APP,
                "Bücher",
                (WRITER, "Writer", ["User"], True),
                (READER, "Reader", ["User", "Application"], True),
                (DAEMON, "Daemon", ["Application"], True),
            )
            self.admins = {user(0), group(0)}
            self.server.assign(APP, WRITER, user(1))
            self.server.assign(APP, READER, group(3), "Group")
            self.server.assign(APP, DAEMON, guid("e", 2), "ServicePrincipal")
            yield

    def options(self) -> dict[str, Any]:
        return {
            "endpoint": self.server.url,
            "access_token": {"file": str(self.token_file)},
            "ca_file": self.server.ca_file,
            "timeout": "10s",
        }

    def expected(self) -> set[str]:
        found = {key_of(it) for it in self.users.values()}
        for id_, (name, members) in self.groups.items():
            found.add(key_of(Principal(Kind.GROUP, id_, name)))
            found |= {member_key(Ref(Kind.GROUP, id_), self._ref(m)) for m in members}
        roles = {ADMINS: "Global Administrator", f"{APP}/{WRITER}": "Bücher/Writer", f"{APP}/{READER}": "Bücher/Reader"}
        found |= {key_of(Principal(Kind.ROLE, id_, name)) for id_, name in roles.items()}
        held = [(ADMINS, holder) for holder in self.admins] + [(f"{APP}/{WRITER}", user(1))]
        held += [(f"{APP}/{READER}", member) for member in self.groups[group(3)][1] if member not in self.groups]
        return found | {member_key(Ref(Kind.ROLE, role), self._ref(holder)) for role, holder in held}

    def _ref(self, id_: str) -> Ref:
        return Ref(Kind.GROUP if id_.startswith("b") else Kind.USER, id_)

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        with self.server.broken(LIST, page, ANSWERS[fault]):
            yield

    @contextlib.contextmanager
    def inject_into_changes(self, fault: Fault) -> Iterator[None]:
        with self.server.broken(ROUND, 2, ANSWERS[fault]):
            yield

    @contextlib.contextmanager
    def changed(self) -> Iterator[None]:
        before = dict(self.users), {id_: (name, set(who)) for id_, (name, who) in self.groups.items()}
        server, new, made = self.server, user(100), group(100)
        bo = self.users[user(1)]
        server.add_user(new, "novo@acme.example", "Novo", manager=user(0))
        server.update("users", user(1), displayName="Bo Ek-Åberg")
        server.update("users", user(0), accountEnabled=False)
        server.add_group(made, "Neu", new, DEVICE, group(0))
        server.update("groups", group(2), displayName="no longer empty")
        server.link("groups", group(2), new)
        server.unlink("groups", group(0), user(1))
        server.delete("users", user(6))
        server.delete("groups", group(4), for_good=True)
        self.users |= {
            new: Principal(Kind.USER, new, "Novo", "novo@acme.example"),
            user(1): Principal(Kind.USER, user(1), "Bo Ek-Åberg", bo.email),
            user(0): Principal(Kind.USER, user(0), "Ada Lovelace", "ada@acme.example", active=False),
        }
        del self.users[user(6)], self.groups[group(4)]
        for _, members in self.groups.values():
            members -= {user(6), group(4)}
        self.groups |= {made: ("Neu", {new, DEVICE, group(0)}), group(2): ("no longer empty", {new})}
        self.groups[group(0)][1].remove(user(1))
        self.admins.add(new)
        server.link("directoryRoles", ADMINS, new)
        server.assign(APP, WRITER, user(1))  # once more
        try:
            yield
        finally:
            server.delete("users", new)
            server.delete("groups", made)
            server.update("users", user(1), displayName="Bo Ek")
            server.update("users", user(0), accountEnabled=True)
            server.update("groups", group(2), displayName="empty")
            server.link("groups", group(0), user(1))
            server.restore("users", user(6))
            for n in (1, 3):
                server.link("groups", group(n), user(6))
            server.add_group(group(4), "Round", group(3))
            server.link("groups", group(3), group(4))
            self.admins.remove(new)
            self.users, self.groups = before


RIGS: list[Rig] = [EntraRig()]
