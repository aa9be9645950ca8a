"""The rig of the `pagerduty` connector: an account on `tests.servers.pagerduty`, which names the pages it follows."""

from __future__ import annotations

from typing import Any

from connectors.values import Kind, Principal, Ref, Shift
from tests.connectors.oncall_rig import OnCallRig, at, iso
from tests.connectors.rig import Fault, Rig, key_of, member_key, shift_key
from tests.servers.pagerduty import PagerDutyServer, problem, reference

USERS = [
    ("PUSER01", "Ada Lovelace", "ada@acme.example", ["PTEAM01", "PTEAM02"]),
    ("PUSER02", "Дина", "дина@acme.example", ["PTEAM01"]),
    ("PUSER03", "山田 太郎", "yamada@acme.example", []),
    ("PUSER04", "Zoë 🦉 \u202e", "zoë@acme.example", ["PTEAM02"]),
    ("PUSER05", 'O\'Brien "Bob" <b>', "bob+oncall@acme.example", []),
]
TEAMS = [("PTEAM01", "Team Payments"), ("PTEAM02", "команда: ключи"), ("PTEAM03", "empty " + "x" * 300)]
SCHEDULES: list[tuple[str, str, list[tuple[str | None, float, float]]]] = [
    ("PSCHED1", "Primary", [("PUSER01", -2, 10), ("PUSER02", 10, 22), ("PUSER01", 22, 34)]),
    ("PSCHED2", "دورية", [("PGONE01", -2, 4), (None, 4, 8), ("PUSER03", 8, 300)]),
    ("PSCHED3", "nobody", []),
]
SHIFT_BASED: list[tuple[str, str, list[tuple[str | None, float, float]]]] = [
    (
        "0c7a1f2e-4b5d-4a37-9f11-2d3c4b5a6978",
        "Follow the sun 🌍",
        [("PUSER04", -1, 7), ("PUSER05", -1, 7), (None, 7, 9)],
    ),
]


class PagerDutyRig(OnCallRig):
    kind = "pagerduty"
    longest = "users"
    refusals = {
        Fault.UNAUTHENTICATED: problem(401, 2006, "Unauthorized"),
        Fault.FORBIDDEN: problem(403, 2010, "Access Denied"),
        Fault.THROTTLED_ONCE: problem(429, 2020, "Rate Limit Exceeded", headers={"ratelimit-reset": "17"}),
    }

    def make(self) -> PagerDutyServer:
        server = PagerDutyServer(page=2)
        server.limit = 1_000_000
        for id_, name in TEAMS:
            server.add_team(id_, name)
        for id_, name, email, teams in USERS:
            server.add_user(id_, name, email, *teams)
        for id_, name, entries in SCHEDULES:
            gone = {"deleted_at": iso(-100)}
            server.add_schedule(
                id_,
                name,
                *(
                    (reference("user", u, "…", **(gone if u == "PGONE01" else {})) if u else None, iso(a), iso(b))
                    for u, a, b in entries
                ),
            )
        for id_, name, entries in SHIFT_BASED:
            server.add_shift_based(id_, name, *((u, iso(a), iso(b)) for u, a, b in entries))
        return server

    def options(self) -> dict[str, Any]:
        return {"token": {"file": str(self.secret_file)}, **self.http()}

    def expected(self) -> set[str]:
        found = {key_of(Principal(Kind.GROUP, id_, name)) for id_, name in TEAMS}
        for id_, name, email, teams in USERS:
            found.add(key_of(Principal(Kind.USER, id_, name, email)))
            found |= {member_key(Ref(Kind.GROUP, team), Ref(Kind.USER, id_)) for team in teams}
        for id_, name, entries in [*SCHEDULES, *SHIFT_BASED]:
            schedule = Principal(Kind.SCHEDULE, id_, name)
            found.add(key_of(schedule))
            found |= {
                shift_key(Shift(schedule.ref, Ref(Kind.USER, user), at(start), at(end)))
                for user, start, end in entries
                if user
            }
        return found


RIGS: list[Rig] = [PagerDutyRig()]
