"""The rigs of the `zenduty` connector: accounts on `tests.servers.zenduty`, which names the pages it follows."""

from __future__ import annotations

from typing import Any

from connectors.shifts import FOREVER
from connectors.values import Kind, Principal, Ref, Shift
from tests.connectors.oncall_rig import OnCallRig, at, iso
from tests.connectors.rig import Fault, Rig, key_of, member_key, shift_key
from tests.servers.zenduty import ZendutyServer, layer, override, problem, restriction

ADA, DINA, YAMADA, ZOE, BOB, MIRA, SOLO = (f"216bba3d-7268-4a8e-89e9-{n}" for n in range(1, 8))
USERS = [
    (ADA, "Ada", "Lovelace", "ada@acme.example"),
    (DINA, "Дина", " ", "дина@acme.example"),
    (YAMADA, "山田", "太郎", "yamada@acme.example"),
    (ZOE, "Zoë 🦉 \u202e", "", "zoë@acme.example"),
    (BOB, "O'Brien", '"Bob" <b>', "bob+oncall@acme.example"),
    (MIRA, "Mira", "", "mira@acme.example"),
    (SOLO, "Solo", "", "solo@acme.example"),
]
PAYMENTS, KEYS, EMPTY = (f"1f1b4d79-ed32-44fc-926d-f794b975200{n}" for n in range(1, 4))
TEAMS = {
    PAYMENTS: ("Team Payments", [ADA, DINA]),
    KEYS: ("команда: ключи", [ZOE, YAMADA]),
    EMPTY: ("empty " + "x" * 300, []),
}
WEEKLY, OFFICE, NOBODY = (f"4a3025f3-836f-4d18-8923-7adfe5690d1{n}" for n in range(1, 4))
DAY, WEEK = 86400, 604800
SHIFTS: list[tuple[str, str, float, float]] = [
    (WEEKLY, ADA, at(-24), at(1)),
    (WEEKLY, BOB, at(1), at(2)),
    (WEEKLY, ADA, at(2), at(144)),
    (WEEKLY, DINA, at(144), at(312)),
    *((OFFICE, ZOE, at(day * 24 + 1), at(day * 24 + 9)) for day in range(7)),
    (OFFICE, YAMADA, at(-100), FOREVER),
]


class ZendutyRig(OnCallRig):
    kind = "zenduty"
    name = "paged"
    longest = "members"
    refusals = {
        Fault.UNAUTHENTICATED: problem(403, "Invalid token."),
        Fault.FORBIDDEN: problem(403, "You do not have permission to perform this action."),
        Fault.THROTTLED_ONCE: problem(429, "Request was throttled.", {"Retry-After": "42"}),
    }
    page: int | None = 3

    def make(self) -> ZendutyServer:
        server = ZendutyServer(page=self.page)
        for user in USERS:
            server.add_user(*user)
        for id_, (name, members) in TEAMS.items():
            server.add_team(id_, name, *members)
        turns = layer([ADA, DINA], iso(-24 - 2 * 168), WEEK)
        over = [override(BOB, iso(1), iso(2)), override(BOB, iso(-9), iso(-8))]
        server.add_schedule(PAYMENTS, WEEKLY, "Weekly", turns, overrides=over)
        office = layer([ZOE], iso(-100), DAY, restriction_type=1, restrictions=[restriction("09:00:00", 8 * 3600, 7)])
        ended = layer([BOB], iso(-100), DAY, rotation_end_time=iso(-1))
        off = layer([BOB], iso(-100), DAY, is_active=False)
        server.add_schedule(KEYS, OFFICE, "Bürozeiten", office, ended, off, layer([YAMADA], iso(-100), DAY))
        server.add_schedule(KEYS, NOBODY, "nobody")
        return server

    def options(self) -> dict[str, Any]:
        return {"token": {"file": str(self.secret_file)}, **self.http()}

    def expected(self) -> set[str]:
        found = {key_of(Principal(Kind.USER, id_, f"{a} {b}".strip(), mail)) for id_, a, b, mail in USERS}
        for id_, (name, members) in TEAMS.items():
            found.add(key_of(Principal(Kind.GROUP, id_, name)))
            found |= {member_key(Ref(Kind.GROUP, id_), Ref(Kind.USER, m)) for m in members}
        found |= {
            key_of(Principal(Kind.SCHEDULE, id_, name))
            for id_, name in ((WEEKLY, "Weekly"), (OFFICE, "Bürozeiten"), (NOBODY, "nobody"))
        }
        return found | {
            shift_key(Shift(Ref(Kind.SCHEDULE, schedule), Ref(Kind.USER, user), start, end))
            for schedule, user, start, end in SHIFTS
        }


class UnpagedZendutyRig(ZendutyRig):
    """As Zenduty's reference has it: whole lists."""

    name = "unpaged"
    page = None
    pages = 1
    faults = {k: v for k, v in OnCallRig.faults.items() if k is not Fault.REPEATED_TOKEN}


RIGS: list[Rig] = [ZendutyRig(), UnpagedZendutyRig()]
