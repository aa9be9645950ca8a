"""The rig of the `splunk_oncall` connector: `tests.servers.splunk_oncall` names the pages it follows.

The API has no pages: a list of members for each team is what comes nearest.
"""

from __future__ import annotations

from typing import Any

from connectors.shifts import FOREVER
from connectors.values import Kind, Principal, Ref, Shift
from tests.connectors.oncall_rig import NOW, OnCallRig, at, iso
from tests.connectors.rig import Fault, Rig, key_of, member_key, shift_key
from tests.servers.splunk_oncall import SplunkOnCallServer, entry, override, problem

USERS = [
    ("ada", "Ada", "Lovelace", "ada@acme.example"),
    ("дина", "Дина", "", "дина@acme.example"),
    ("yamada", "山田", "太郎", "yamada@acme.example"),
    ("zoë", "Zoë 🦉", "\u202e", "zoë@acme.example"),
    ("bob", "O'Brien", '"Bob" <b>', "bob+oncall@acme.example"),
]
TEAMS = {
    "team-abcd": ("Team Payments", ["Ada", "bob"]),
    "team-efgh": ("команда: ключи", ["дина", "zoë"]),
    "team-ijkl": ("empty " + "x" * 300, []),
    "team-mnop": ("all 🦉", ["ada", "дина", "yamada", "zoë", "bob"]),
}
SHIFTS: list[tuple[str, str, float, float]] = [
    ("pol-high", "ada", at(-2), at(3)),
    ("pol-high", "bob", at(3), at(5)),
    ("pol-high", "ada", at(5), at(10)),
    ("pol-high", "дина", at(10), at(22)),
    ("pol-high", "yamada", at(-1), at(1)),
    ("pol-fixed", "zoë", 0.0, FOREVER),
    ("pol-low", "zoë", at(4), at(8)),
    ("pol-low", "bob", at(1), at(2)),
]
POLICIES = [("pol-high", "High Severity"), ("pol-low", "低"), ("pol-fixed", "always Zoë")]


class SplunkOnCallRig(OnCallRig):
    kind = "splunk_oncall"
    longest = "members"
    pages = 4
    faults = {k: v for k, v in OnCallRig.faults.items() if k is not Fault.REPEATED_TOKEN}
    refusals = {
        Fault.UNAUTHENTICATED: problem(401, "Authentication parameters missing"),
        Fault.FORBIDDEN: problem(403, "Authentication failed"),
        Fault.THROTTLED_ONCE: problem(403, "Rate limit reached"),
    }

    def make(self) -> SplunkOnCallServer:
        server = SplunkOnCallServer()
        for user in USERS:
            server.add_user(*user)
        for slug, (name, members) in TEAMS.items():
            server.add_team(slug, name, *members)
        rolls = ("ada", iso(-2), iso(10)), ("дина", iso(10), iso(22)), ("ada", iso(300), iso(310))
        server.add_policy(
            "team-abcd",
            "pol-high",
            "High Severity",
            entry("rotation_group", *rolls, user="ada"),
            entry("rotation_group_next", ("yamada", iso(-1, "+00:00"), iso(1, "+00:00"))),
            overrides=[override("Ada", "bob", iso(3), iso(5))],
        )
        server.add_policy(
            "team-efgh",
            "pol-low",
            "低",
            entry("rotation_group", (None, iso(-2), iso(4)), ("zoë", iso(4), iso(8))),
            overrides=[override(None, "bob", iso(1), iso(2))],
        )
        server.add_policy("team-efgh", "pol-fixed", "always Zoë", entry("user", user="zoë"))
        return server

    def options(self) -> dict[str, Any]:
        server = self.server
        assert isinstance(server, SplunkOnCallServer)
        return {"api_id": server.api_id, "api_key": {"file": str(self.secret_file)}, **self.http()}

    def expected(self) -> set[str]:
        found = {key_of(Principal(Kind.USER, id_, f"{a} {b}".strip(), mail)) for id_, a, b, mail in USERS}
        for id_, (name, members) in TEAMS.items():
            found.add(key_of(Principal(Kind.GROUP, id_, name)))
            found |= {member_key(Ref(Kind.GROUP, id_), Ref(Kind.USER, m.lower())) for m in members}
        found |= {key_of(Principal(Kind.SCHEDULE, id_, name)) for id_, name in POLICIES}
        return found | {
            shift_key(Shift(Ref(Kind.SCHEDULE, schedule), Ref(Kind.USER, user), start, end))
            for schedule, user, start, end in SHIFTS
            if end > NOW
        }


RIGS: list[Rig] = [SplunkOnCallRig()]
