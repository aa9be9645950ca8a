"""The rig of the `opsgenie` connector: an account on `tests.servers.opsgenie`, which names the pages it follows."""

from __future__ import annotations

from typing import Any

from connectors.values import Kind, Principal, Ref, Shift
from tests.connectors.oncall_rig import OnCallRig, at, iso
from tests.connectors.rig import Fault, Rig, key_of, member_key, shift_key
from tests.servers.opsgenie import OpsgenieServer, period, problem, rotation

ADA, DINA, YAMADA, ZOE, BOB = (f"b5b92115-bfe7-43eb-8c2a-e467f2e5ddc{n}" for n in range(1, 6))
USERS = [
    (ADA, "ada@acme.example", "Ada Lovelace", False),
    (DINA, "дина@acme.example", "Дина", False),
    (YAMADA, "yamada@acme.example", "山田 太郎", True),
    (ZOE, "zoë@acme.example", "Zoë 🦉 \u202e", False),
    (BOB, "bob+oncall@acme.example", 'O\'Brien "Bob" <b>', False),
]
PAYMENTS, KEYS, EMPTY = (f"90098alp9-f0e3-41d3-a060-0ea895027ac{n}" for n in range(1, 4))
TEAMS = {
    PAYMENTS: ("Team Payments", [ADA, DINA]),
    KEYS: ("команда: ключи", [ZOE, YAMADA]),
    EMPTY: ("empty " + "x" * 300, []),
}
PRIMARY, SECOND, OFF = (f"d875alp4-9b4e-4219-alp3-0c26936d18d{n}" for n in range(1, 4))
SHIFTS = [(PRIMARY, ADA, -2, 10), (PRIMARY, DINA, 10, 22), (PRIMARY, BOB, -2, 10)]
SHIFTS += [(SECOND, user, -5, 300) for user in (ZOE, YAMADA)]


class OpsgenieRig(OnCallRig):
    kind = "opsgenie"
    longest = "users"
    refusals = {
        Fault.UNAUTHENTICATED: problem(403, "Could not authenticate"),
        Fault.FORBIDDEN: problem(403, "You are not authorized to reach this resource with this API key", code=40301),
        Fault.THROTTLED_ONCE: problem(
            429,
            "You are making too many requests!",
            {"X-RateLimit-State": "THROTTLED", "X-RateLimit-Reason": "ACCOUNT", "X-RateLimit-Period-In-Sec": "60"},
        ),
    }

    def make(self) -> OpsgenieServer:
        server = OpsgenieServer(page=2)
        for id_, username, name, blocked in USERS:
            server.add_user(id_, username, name, blocked=blocked)
        for id_, (name, members) in TEAMS.items():
            server.add_team(id_, name, *members)
        early = period(iso(-20), iso(-2), "user", BOB, flattenedRecipients=[{"type": "user", "id": BOB, "name": "…"}])
        server.add_schedule(
            PRIMARY,
            "دورية",
            rotation("a", early, period(iso(-2), iso(10), "user", ADA), period(iso(10), iso(22), "user", DINA)),
            rotation(
                "b", period(iso(-2), iso(10), "user", BOB, type="override"), period(iso(10), iso(12), "none", None)
            ),
            rotation("c", period(iso(-2), iso(10), "user", ZOE), deleted=True),
        )
        server.add_schedule(SECOND, "a team's", rotation("a", period(iso(-5), iso(300), "team", KEYS)))
        server.add_schedule(OFF, "switched off", rotation("a", period(iso(-5), iso(9), "user", ADA)), enabled=False)
        return server

    def options(self) -> dict[str, Any]:
        return {"api_key": {"file": str(self.secret_file)}, **self.http()}

    def expected(self) -> set[str]:
        found = {key_of(Principal(Kind.USER, id_, name, mail, not blocked)) for id_, mail, name, blocked in USERS}
        for id_, (name, members) in TEAMS.items():
            found.add(key_of(Principal(Kind.GROUP, id_, name)))
            found |= {member_key(Ref(Kind.GROUP, id_), Ref(Kind.USER, m)) for m in members}
        for id_, name in ((PRIMARY, "دورية"), (SECOND, "a team's"), (OFF, "switched off")):
            found.add(key_of(Principal(Kind.SCHEDULE, id_, name, active=id_ != OFF)))
        return found | {
            shift_key(Shift(Ref(Kind.SCHEDULE, schedule), Ref(Kind.USER, user), at(start), at(end)))
            for schedule, user, start, end in SHIFTS
        }


RIGS: list[Rig] = [OpsgenieRig()]
