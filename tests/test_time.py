"""What time alone changes: schedules hand over, former names run out; no poll in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors.values import Bookmark, Kind, Left, Members, Principal, Record, Ref, Shift
from daemon.serve.lookup import ANY_AGE, Lookup
from daemon.store.reader import Reader
from tests.harness import World, configuration, group, integration, members, owned_by, resource, team, user

HOUR = 3600.0
PRIMARY = Ref(Kind.SCHEDULE, "S1")


class Told:
    """Answers as the server gives them."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, rid: str, *, expand: bool = False) -> dict[str, Any]:
        reader = Reader(self.world.store.path)
        try:
            lookup = Lookup(reader, self.world.clock)
            answer = lookup.answer(rid, None, ANY_AGE)
            told: dict[str, Any] = orjson.loads(lookup.with_members(answer) if expand else answer)
            return told
        finally:
            reader.close()

    def on_call(self, rid: str) -> list[str]:
        return [m["name"] for o in self(rid, expand=True)["owners"] for m in o["members"]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    rules = owned_by("oncall", "schedule.name"), owned_by("owner", "group.name")
    made = World(tmp_path, configuration(integration("aws", *rules, stale_after="30d"), of_each={"stale_after": "30d"}))
    yield made
    made.close()


def shift(who: str, start: float, end: float, base: float) -> Shift:
    return Shift(PRIMARY, Ref(Kind.USER, who), base + start * HOUR, base + end * HOUR)


def people(world: World, *shifts: tuple[str, float, float]) -> list[Record]:
    base = world.clock.now
    schedule = Principal(Kind.SCHEDULE, "S1", "Payments primary")
    return [
        *team("platform", "p1"),
        user("ada"),
        user("bo"),
        schedule,
        *(shift(*told, base) for told in shifts),
    ]


def test_a_hand_over_needs_no_poll(world: World) -> None:
    """Ada until nine, Bo from nine on: the answer follows the clock, and says until when it holds."""
    start = world.clock.now
    world.run("corp", *people(world, ("ada", -1, 2), ("bo", 2, 8)))
    world.run("aws", resource("r", oncall="payments-primary"))
    told = Told(world)
    assert told.on_call("r") == ["ada"]
    assert told("r")["valid_until"] == "2023-11-15T00:13:20Z"
    assert world.store.next_turn() == start + 2 * HOUR

    world.clock.now = start + 2 * HOUR
    (turned,) = world.store.turn()
    assert (turned.source, turned.owner_changes) == ("corp", 0), "the schedule owns as before"
    assert told.on_call("r") == ["bo"]
    assert told("r")["valid_until"] == "2023-11-15T06:13:20Z"
    assert told("r")["stale"] is False
    assert world.store.turn() == []


def test_a_gap_in_the_schedule_falls_back_and_comes_back(world: World) -> None:
    """While nobody is on call the integration owner owns; the answer says until when, and drift opens and resolves."""
    start = world.clock.now
    world.run("corp", *people(world, ("ada", -1, 1), ("bo", 3, 8)))
    world.run("aws", resource("r", oncall="Payments primary"))
    told = Told(world)
    assert world.owners() == {"r": "Payments primary"}

    world.clock.now = start + 1 * HOUR
    (turned,) = world.store.turn()
    assert [(t.opened, t.kind) for t in turned.transitions] == [(True, "group_empty")]
    assert world.owners() == {"r": "group_empty -> platform"}
    assert told("r")["valid_until"] == "2023-11-15T01:13:20Z"

    world.clock.now = start + 3 * HOUR
    (turned,) = world.store.turn()
    assert [(t.opened, t.kind) for t in turned.transitions] == [(False, "group_empty")]
    assert world.owners() == {"r": "Payments primary"}
    assert told.on_call("r") == ["bo"]


def test_several_on_call_at_once(world: World) -> None:
    """Shifts that overlap are several people."""
    world.run("corp", *people(world, ("ada", -1, 2), ("bo", 0, 8)))
    world.run("aws", resource("r", oncall="Payments primary"))
    assert Told(world).on_call("r") == ["ada", "bo"]


def test_without_a_poller_the_server_still_knows_who_is_on_call(world: World) -> None:
    """Whom `expand` names follows the clock by itself; the answer as a whole is marked as stale."""
    world.run("corp", *people(world, ("ada", -1, 2), ("bo", 2, 8)))
    world.run("aws", resource("r", oncall="Payments primary"))
    world.clock.now += 2 * HOUR + 1
    told = Told(world)
    assert told.on_call("r") == ["bo"]
    assert told("r")["stale"] is True


def test_answers_without_a_schedule_have_no_valid_until(world: World) -> None:
    """Only what hangs on a schedule runs out."""
    world.run("corp", *people(world, ("ada", -1, 2)))
    world.run("aws", resource("r", "platform"))
    assert "valid_until" not in Told(world)("r")


def test_a_fallback_that_is_a_schedule_runs_out_too(tmp_path: Path) -> None:
    """An integration owner may be a schedule."""
    owner = [{"directory": "corp", "attribute": "schedule.name", "values": ["Payments primary"]}]
    world = World(tmp_path, configuration({**integration(), "integration_owner": owner}))
    world.run("corp", *people(world, ("ada", -1, 2), ("bo", 2, 8)))
    world.run("aws", resource("r"), resource("s", "platform"))
    told = Told(world)
    assert told.on_call("r") == ["ada"]
    assert "valid_until" in told("r")
    assert "valid_until" not in told("s")
    world.close()


def test_a_poll_brings_other_shifts(world: World) -> None:
    """An override replaces what was planned; shifts that are no longer told are gone."""
    start = world.clock.now
    world.run("corp", *people(world, ("ada", -1, 2), ("bo", 2, 8)))
    world.run("aws", resource("r", oncall="Payments primary"))
    world.clock.now += 60
    world.run("corp", *(r for r in people(world) if not isinstance(r, Shift)), shift("bo", -1, 3, start))
    assert Told(world).on_call("r") == ["bo"]
    assert world.store.next_turn() == start + 3 * HOUR


def test_many_schedules_may_hand_over_at_once(world: World) -> None:
    """Monday, nine o'clock: all memberships of all schedules change, and the guard lets it pass."""
    base = world.clock.now

    def monday(who: str, start: float, end: float) -> list[Record]:
        records = people(world)
        for n in range(20):
            ref = Ref(Kind.SCHEDULE, f"T{n}")
            records += [Principal(Kind.SCHEDULE, ref.id, f"schedule {n}")]
            records += [Shift(ref, Ref(Kind.USER, who), base + start * HOUR, base + end * HOUR)]
        return records

    world.run("corp", *monday("ada", -1, 1))
    world.run("aws", *(resource(f"r{n}", oncall=f"schedule {n}") for n in range(20)))
    world.clock.now += 2 * HOUR
    report = world.run("corp", *monday("bo", 1, 9))
    assert (report.state, report.owner_changes) == ("ok", 0)
    assert Told(world).on_call("r7") == ["bo"]


def test_shifts_told_as_changes(world: World) -> None:
    """A schedule whose list is told anew has just those shifts."""
    base = world.clock.now
    world.run("corp", *people(world, ("ada", -1, 2)), Bookmark("1"))
    world.run("aws", resource("r", oncall="Payments primary"))
    world.run("corp", Left(PRIMARY), shift("bo", -1, 2, base), Bookmark("2"), since="1")
    assert Told(world).on_call("r") == ["bo"]


def test_a_clock_that_was_set_back(world: World) -> None:
    """Who is on call is a question of the clock, whichever way it went."""
    start = world.clock.now
    world.run("corp", *people(world, ("ada", -1, 2), ("bo", 2, 8)))
    world.run("aws", resource("r", oncall="Payments primary"))
    world.clock.now = start + 3 * HOUR
    world.store.turn()
    assert Told(world).on_call("r") == ["bo"]
    world.clock.now = start
    world.store.turn()
    assert Told(world).on_call("r") == ["ada"]
    assert world.query("SELECT member_pid FROM member WHERE on_call") == [("user:ada",)]


def test_members_and_shifts_of_one_schedule(world: World) -> None:
    """Somebody who is always in stays in when a shift of his ends."""
    base = world.clock.now
    always = Members(PRIMARY, (Ref(Kind.USER, "ada"),))
    world.run("corp", *people(world, ("ada", -1, 1)), always)
    world.run("aws", resource("r", oncall="Payments primary"))
    world.clock.now = base + 2 * HOUR
    world.store.turn()
    assert Told(world).on_call("r") == ["ada"]
    assert world.owners() == {"r": "Payments primary"}


# --- former names -----------------------------------------------------------------------------------------------------


def renamed(world: World, name: str, i: str = "[team-a]") -> None:
    world.run("corp", group(i, name), user("u1"), members(i, "u1"), *team("platform", "p1"))


DAY = 24 * HOUR


def test_a_former_name_counts_for_a_while(world: World) -> None:
    """The group is known by its id: its old name goes on naming it, with drift that tells the new one."""
    renamed(world, "team-a")
    world.run("aws", resource("r", "team-a"), resource("n", "Team Payments"))
    renamed(world, "Team Payments")
    assert world.owners() == {"r": "Team Payments", "n": "Team Payments"}
    assert world.drift() == {("group_renamed", "team-a", 1)}
    assert world.query("SELECT suggestions FROM finding WHERE kind = 'group_renamed'") == [('["Team Payments"]',)]

    renamed(world, "Payments")
    assert world.owners() == {"r": "Payments", "n": "Payments"}
    told = dict(world.query("SELECT value, suggestions FROM finding WHERE kind = 'group_renamed'"))
    assert told == {"team-a": '["Payments"]', "Team Payments": '["Payments"]'}

    world.clock.now += 14 * DAY + 1
    (turned,) = world.store.turn()
    assert turned.owner_changes == 2
    assert world.owners() == {"r": "value_unknown -> platform", "n": "value_unknown -> platform"}
    assert {kind for kind, _, _ in world.drift()} == {"value_unknown"}
    assert world.query("SELECT 1 FROM former") == []


def test_a_name_that_somebody_has_now_is_his(world: World) -> None:
    """The old name of one is the new name of another: no doubt, and no ambiguity."""
    renamed(world, "team-a")
    world.run("aws", resource("r", "team-a"))
    everyone = [group("[team-a]", "archive"), group("new", "Team A"), user("u1"), user("u2")]
    world.run("corp", *everyone, members("[team-a]", "u1"), members("new", "u2"), *team("platform", "p1"))
    assert world.owners() == {"r": "Team A"}
    assert world.drift() == set()


def test_two_who_had_one_name(world: World) -> None:
    """A former name of two is ambiguous."""
    both = [user("u1"), members("g1", "u1"), members("g2", "u1"), *team("platform", "p1")]
    world.run("corp", group("g1", "Team A"), group("g2", "team b"), *both)
    world.run("corp", group("g1", "one"), group("g2", "Team-A"), *both)
    world.run("corp", group("g1", "one"), group("g2", "two"), *both)
    world.run("aws", resource("r", "team a"))
    assert world.owners() == {"r": "value_ambiguous -> platform"}


def test_who_takes_his_old_name_back(world: World) -> None:
    """Nothing is former any more but the name in between."""
    for name in ("team-a", "other", "team-a"):
        renamed(world, name)
    world.run("aws", resource("r", "team-a"), resource("o", "other"))
    assert world.drift() == {("group_renamed", "other", 1)}


def test_a_group_that_is_gone_is_gone_by_any_name(world: World) -> None:
    """A former name of nobody names nobody."""
    renamed(world, "team-a")
    world.run("aws", resource("r", "team-a"))
    renamed(world, "new name")
    world.run("corp", user("u1"), *team("platform", "p1"))
    assert world.owners() == {"r": "value_unknown -> platform"}


def test_the_integration_owner_may_be_renamed_too(world: World) -> None:
    """Its old name in the configuration counts for a while, and drift says to change it."""
    world.run("corp", *team("platform", "p1"))
    world.run("aws", resource("r"))
    world.run("corp", group("[platform]", "Cloud Platform"), user("p1"), members("[platform]", "p1"))
    assert world.owners() == {"r": "tag_missing -> Cloud Platform"}
    assert world.drift() == {("group_renamed", "platform", 1)}
    world.clock.now += 15 * DAY
    world.store.turn()
    assert world.drift() == {("integration_owner_unknown", "platform", 1)}


def test_without_grace_a_rename_counts_at_once(tmp_path: Path) -> None:
    """`rename_grace = 0` is for those who want it so."""
    world = World(tmp_path, configuration(integration(), of_each={"rename_grace": 0}))
    renamed(world, "team-a")
    world.run("aws", resource("r", "team-a"))
    renamed(world, "new")
    assert world.owners() == {"r": "value_unknown -> platform"}
    world.close()


def test_an_old_address_counts_too(tmp_path: Path) -> None:
    """A user whose e-mail changes is found by the old one, unless somebody else has it."""
    world = World(tmp_path, configuration(integration("aws", owned_by("owner", "user.email"))))
    rest = team("platform", "p1")
    world.run("corp", user("u1", email="jane.doe@x.org"), user("u2"), *rest)
    world.run("aws", resource("r", "jane.doe@x.org"))
    world.run("corp", user("u1", email="jane.roe@x.org"), user("u2"), *rest)
    assert world.owners() == {"r": "u1"}
    world.run("corp", user("u1", email="jane.roe@x.org"), user("u2", email="jane.doe@x.org"), *rest)
    assert world.owners() == {"r": "u2"}
    world.close()
