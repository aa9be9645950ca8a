"""The `splunk_oncall` connector: overrides, policies and a rate limit that is told nowhere but in the reference."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import connectors.retry
from config.secrets import resolve
from connectors.errors import BadData, Forbidden, Incomplete, ServerFault, Throttled
from connectors.shifts import DIRECTORY, FOREVER, SCHEDULES
from connectors.splunk_oncall import SplunkOnCall, SplunkOnCallOptions
from connectors.values import SHIFT_HORIZON, Gap, Kind, Members, Principal, Record, Shift
from tests.connectors.oncall_rig import NOW, at, iso
from tests.servers.oncall import Answer
from tests.servers.splunk_oncall import SplunkOnCallServer, entry, override, problem


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture
def server() -> Iterator[SplunkOnCallServer]:
    """Three users in one team, without a policy."""
    with SplunkOnCallServer() as server:
        server.add_user("ada", "Ada", "Lovelace", "ada@acme.example")
        server.add_user("Bo", "Bo", "Ek", "bo@acme.example")
        server.add_user("chi", "", "", "chi@acme.example")
        server.add_team("team-1", "Payments", "Ada", "bo")
        yield server


class Connect:
    """Builds connectors to a server, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[SplunkOnCall] = []

    def __call__(self, server: SplunkOnCallServer, *, secret: str | None = None, **changes: Any) -> SplunkOnCall:
        file = self.folder / "key"
        file.write_text(server.api_key if secret is None else secret)
        told = {"api_id": server.api_id, "api_key": {"file": str(file)}, "endpoint": server.url}
        options = SplunkOnCallOptions.model_validate({**told, "ca_file": server.ca_file, "timeout": "10s", **changes})
        resolve(options)
        connector = SplunkOnCall(options)
        connector.clock = lambda: NOW
        self.open.append(connector)
        return connector


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    connect = Connect(tmp_path)
    yield connect
    for connector in connect.open:
        connector.close()


def shifts(records: list[Record]) -> list[tuple[str, float, float]]:
    return sorted((r.member.id, r.start, r.end) for r in records if isinstance(r, Shift))


def test_usernames_are_the_same_in_any_case(server: SplunkOnCallServer, connect: Connect) -> None:
    """The lists do not agree in it."""
    records = list(connect(server).read(DIRECTORY))
    assert [r.id for r in records if isinstance(r, Principal) and r.kind is Kind.USER] == ["ada", "bo", "chi"]
    assert [[m.id for m in r.members] for r in records if isinstance(r, Members)] == [["ada", "bo"]]


def test_users_become_principals(server: SplunkOnCallServer, connect: Connect) -> None:
    """Without a name, the username is one."""
    users = [r for r in connect(server).read(DIRECTORY) if isinstance(r, Principal) and r.kind is Kind.USER]
    assert [(u.name, u.email, u.active) for u in users] == [
        ("Ada Lovelace", "ada@acme.example", True),
        ("Bo Ek", "bo@acme.example", True),
        ("chi", "chi@acme.example", True),
    ]
    assert users[1].attributes == {"firstName": "Bo", "lastName": "Ek", "username": "Bo"}


def test_both_keys_are_sent(server: SplunkOnCallServer, connect: Connect) -> None:
    """The id is no secret, the key is."""
    list(connect(server).read(DIRECTORY))
    assert {(h["x-vo-api-id"], h["x-vo-api-key"]) for h in server.headers} == {(server.api_id, server.api_key)}


def test_only_what_owns_is_read(server: SplunkOnCallServer, connect: Connect) -> None:
    """Without `group.*` no teams, without `schedule.*` no schedules."""
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    assert list(connector.scopes()) == [DIRECTORY]
    list(connector.read(DIRECTORY))
    assert server.requests == ["/api-public/v2/user"]


def test_a_team_deleted_meanwhile_fails_the_scope(server: SplunkOnCallServer, connect: Connect) -> None:
    """404 of one that was listed a moment ago, for its members as for its schedule."""
    for name, scope in (("members", DIRECTORY), ("schedules", SCHEDULES)):
        with server.broken(name, 1, Answer(404)), pytest.raises(Incomplete, match="gone"):
            list(connect(server).read(scope))


@pytest.mark.parametrize("document", [{}, {"users": None}, {"users": [[{"username": "ada"}]]}, [], {"users": [{}]}])
def test_users_that_are_none_are_no_empty_list(server: SplunkOnCallServer, connect: Connect, document: Any) -> None:
    """The older list is nested: that is not what was asked for."""
    with server.broken("users", 1, Answer(200, document)), pytest.raises((BadData, ServerFault)):
        list(connect(server).read(DIRECTORY))


def test_an_empty_list_where_some_must_be_is_incomplete(server: SplunkOnCallServer, connect: Connect) -> None:
    """A key is somebody's; and the list of teams counts each one's members."""
    for name in ("users", "members"):
        with server.broken(name, 1, Answer(empty=True)), pytest.raises(Incomplete):
            list(connect(server).read(DIRECTORY))


# Who is on call


def test_a_policy_is_a_schedule(server: SplunkOnCallServer, connect: Connect) -> None:
    """Named by itself, and with its team as the site shows it."""
    server.add_policy("team-1", "pol-1", "High", entry("rotation_group", ("ada", iso(-1), iso(1))))
    records = list(connect(server).read(SCHEDULES))
    assert records[0] == Principal(
        Kind.SCHEDULE, "pol-1", "High", attributes={"team": "Payments", "full_name": "Payments : High"}
    )
    assert "daysForward=8&daysSkip=0&step=0" in server.requests[-1]


def test_an_override_takes_its_part_of_a_turn(server: SplunkOnCallServer, connect: Connect) -> None:
    """Before and after it, whose turn it is stays on call."""
    server.add_policy(
        "team-1",
        "pol-1",
        "P",
        entry("rotation_group", ("ada", iso(-1), iso(9))),
        overrides=[override("ADA", "bo", iso(2), iso(3)), override("ada", "chi", iso(5), iso(6))],
    )
    assert shifts(list(connect(server).read(SCHEDULES))) == [
        ("ada", at(-1), at(2)),
        ("ada", at(3), at(5)),
        ("ada", at(6), at(9)),
        ("bo", at(2), at(3)),
        ("chi", at(5), at(6)),
    ]


def test_an_override_over_several_turns(server: SplunkOnCallServer, connect: Connect) -> None:
    """Only of the user that it is for: who comes between is not overridden."""
    turns = ("ada", iso(-1), iso(2)), ("bo", iso(2), iso(4)), ("ada", iso(4), iso(6))
    server.add_policy(
        "team-1", "pol-1", "P", entry("rotation_group", *turns), overrides=[override("ada", "chi", iso(1), iso(5))]
    )
    assert shifts(list(connect(server).read(SCHEDULES))) == [
        ("ada", at(-1), at(1)),
        ("ada", at(5), at(6)),
        ("bo", at(2), at(4)),
        ("chi", at(1), at(2)),
        ("chi", at(4), at(5)),
    ]


def test_an_override_of_another_rotation_leaves_this_one(server: SplunkOnCallServer, connect: Connect) -> None:
    """Two rotations in the first step: the override is for one of the two people."""
    server.add_policy(
        "team-1",
        "pol-1",
        "P",
        entry("rotation_group", ("ada", iso(-1), iso(2))),
        entry("rotation_group", ("bo", iso(-1), iso(2))),
        overrides=[override("bo", "chi", iso(-1), iso(2))],
    )
    assert shifts(list(connect(server).read(SCHEDULES))) == [("ada", at(-1), at(2)), ("chi", at(-1), at(2))]


def test_an_override_where_nobody_was_puts_somebody_on_call(server: SplunkOnCallServer, connect: Connect) -> None:
    """It has no original user."""
    server.add_policy(
        "team-1",
        "pol-1",
        "P",
        entry("rotation_group", (None, iso(-1), iso(4))),
        overrides=[override(None, "bo", iso(1), iso(2))],
    )
    assert shifts(list(connect(server).read(SCHEDULES))) == [("bo", at(1), at(2))]


def test_who_is_named_in_the_step_is_always_on_call(server: SplunkOnCallServer, connect: Connect) -> None:
    """From and to moments that do not move with the poll."""
    server.add_policy("team-1", "pol-1", "P", entry("user", user="ada"))
    assert shifts(list(connect(server).read(SCHEDULES))) == [("ada", 0.0, FOREVER)]


def test_the_turn_of_now_counts_where_only_the_next_are_listed(server: SplunkOnCallServer, connect: Connect) -> None:
    """Until the hand-over, and with its overrides; a listed turn of now is not counted twice."""
    server.add_policy(
        "team-1",
        "pol-1",
        "P",
        entry("rotation_group", ("bo", iso(5), iso(9)), user="ada", shiftRoll=iso(5)),
        overrides=[override("ada", "chi", iso(-1), iso(2))],
    )
    assert [s for s in shifts(list(connect(server).read(SCHEDULES))) if s[1] <= NOW < s[2]] == [("chi", at(-1), at(2))]
    server.teams["team-1"]["schedules"].clear()
    turns = ("ada", iso(-1), iso(5)), ("bo", iso(5), iso(9))
    server.add_policy("team-1", "pol-1", "P", entry("rotation_group", *turns, user="ada", shiftRoll=iso(5)))
    assert shifts(list(connect(server).read(SCHEDULES))) == [("ada", at(-1), at(5)), ("bo", at(5), at(9))]


def test_only_turns_that_touch_the_coming_week_are_read(server: SplunkOnCallServer, connect: Connect) -> None:
    """From now to the horizon."""
    week = SHIFT_HORIZON / 3600
    spans = [(-9.0, 0.0), (-1.0, 0.5), (week - 1, week + 1), (week, week + 1)]
    server.add_policy("team-1", "pol-1", "P", entry("rotation_group", *(("ada", iso(a), iso(b)) for a, b in spans)))
    assert shifts(list(connect(server).read(SCHEDULES))) == [
        ("ada", at(-1), at(0.5)),
        ("ada", at(week - 1), at(week + 1)),
    ]


@pytest.mark.parametrize("kind", ["team", "team_routing", "webhook", "email", "policy_routing"])
def test_a_step_that_calls_no_person_is_told(server: SplunkOnCallServer, connect: Connect, kind: str) -> None:
    """Whom it reaches is not read, which status shows; people in the same step are."""
    server.add_policy("team-1", "pol-1", "P", entry(kind), entry("rotation_group_previous", ("ada", iso(-1), iso(1))))
    records = list(connect(server).read(SCHEDULES))
    assert [r.code for r in records if isinstance(r, Gap)] == ["steps_without_people"]
    assert shifts(records) == [("ada", at(-1), at(1))]


@pytest.mark.parametrize(
    "change",
    [
        {"onCallType": None},
        {"rolls": None},
        {"rolls": [{"onCallUser": {"username": "ada"}, "start": iso(-1)}]},
        {"rolls": [{"onCallUser": {}, "start": iso(-1), "end": iso(1)}, {"onCallUser": {"name": "x"}}]},
        {"rolls": [{"onCallUser": {"username": "ada"}, "start": "2026-11-23T07:00:00", "end": iso(1)}]},
    ],
)
def test_an_entry_that_is_none_is_an_error(
    server: SplunkOnCallServer, connect: Connect, change: dict[str, Any]
) -> None:
    """Never nobody on call."""
    server.add_policy("team-1", "pol-1", "P", {**entry("rotation_group", ("ada", iso(-1), iso(1))), **change})
    with pytest.raises((BadData, ServerFault)):
        list(connect(server).read(SCHEDULES))


def test_a_policy_in_two_teams_is_an_error(server: SplunkOnCallServer, connect: Connect) -> None:
    """Its slug is what it is known by."""
    server.add_team("team-2", "Storage")
    for team in ("team-1", "team-2"):
        server.add_policy(team, "pol-1", "P")
    with pytest.raises(BadData, match="pol-1"):
        list(connect(server).read(SCHEDULES))


@pytest.mark.parametrize("slug", ["../user", "a/b?c=d", "team 1#x", "ключ"])
def test_slugs_go_quoted_into_paths(server: SplunkOnCallServer, connect: Connect, slug: str) -> None:
    """A slug leads to no other call."""
    server.add_team(slug, "Odd", "ada")
    members = [r for r in connect(server).read(DIRECTORY) if isinstance(r, Members) and r.group.id == slug]
    assert len(members) == 1 and len(members[0].members) == 1


# Rates and errors


def test_requests_keep_to_what_the_reference_says(
    server: SplunkOnCallServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of 60 a minute of each call, half a second apart; the API itself tells no limit."""
    for n in range(65):
        server.add_team(f"team-x{n}", f"T{n}")
    connector = connect(server)
    now, moment = [NOW], [0.0]
    asked: list[tuple[float, int]] = []

    def sleep(seconds: float) -> None:
        asked.append((seconds, len(server.requests)))
        moment[0] += seconds
        now[0] += seconds

    monkeypatch.setattr(connectors.retry, "sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: moment[0])
    connector.clock = lambda: now[0]
    list(connector.read(DIRECTORY))
    assert [count for seconds, count in asked if seconds > 1] == [32, 62]
    assert [seconds for seconds, _ in asked].count(0.5) >= 60


def test_a_403_is_a_rate_limit_only_if_it_says_so(
    server: SplunkOnCallServer, connect: Connect, sleeps: list[float]
) -> None:
    """The reference gives the status two meanings: one is tried again, one is not."""
    with server.broken("users", 1, Answer(403, problem(403, "Rate limit reached").document)):
        with pytest.raises(Throttled):
            list(connect(server).read(DIRECTORY))
    assert len(server.requests) == connectors.retry.ATTEMPTS
    with server.broken("users", 1, Answer(403, problem(403, "Authentication failed").document)):
        with pytest.raises(Forbidden):
            list(connect(server).read(DIRECTORY))
    assert len(server.requests) == connectors.retry.ATTEMPTS + 1


def test_a_wrong_key_is_not_shown(server: SplunkOnCallServer, connect: Connect) -> None:
    """In no part of the error."""
    wrong = "of-another-SECRET"
    with pytest.raises(Forbidden) as caught:
        list(connect(server, secret=wrong).read(DIRECTORY))
    assert wrong not in "".join(traceback.format_exception(caught.value))


def test_check_tries_users_and_teams(server: SplunkOnCallServer, connect: Connect) -> None:
    """Two requests; the words of a refusal are the API's."""
    checks = list(connect(server).check())
    assert [(c.what, c.ok) for c in checks] == [("read users", True), ("read teams and schedules", True)]
    assert len(server.requests) == 2
    checks = list(connect(server, secret="wrong").check())
    assert [c.ok for c in checks] == [False, False]
    assert "Authentication failed" in checks[0].detail
