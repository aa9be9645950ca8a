"""The `opsgenie` connector, where a list, a timeline or a link could mislead."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import connectors.retry
from config.secrets import resolve
from connectors.errors import BadData, ConnectorError, Forbidden, Incomplete, ServerFault, Unauthenticated
from connectors.opsgenie import Opsgenie, OpsgenieOptions
from connectors.shifts import DIRECTORY, SCHEDULES
from connectors.values import SHIFT_HORIZON, Gap, Kind, Members, Principal, Record, Shift
from tests.connectors.oncall_rig import NOW, at, iso
from tests.servers.oncall import Answer
from tests.servers.opsgenie import OpsgenieServer, period, problem, rotation


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture
def server() -> Iterator[OpsgenieServer]:
    """Three users, one team, one schedule; pages of one."""
    with OpsgenieServer(page=1) as server:
        server.add_user(
            "u1", "ada@acme.example", "Ada", tags=["it", "ops"], details={"cost": ["17"]}, timeZone="Asia/Tokyo"
        )
        server.add_user("u2", "bo@acme.example", "Bo", blocked=True)
        server.add_user("u3", "chi@acme.example", "")
        server.add_team("t1", "Payments", "u1", "u2")
        server.add_schedule("s1", "Primary", rotation("a", period(iso(-1), iso(1), "user", "u1")))
        yield server


class Connect:
    """Builds connectors to a server, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[Opsgenie] = []

    def __call__(self, server: OpsgenieServer, *, secret: str | None = None, **changes: Any) -> Opsgenie:
        file = self.folder / "key"
        file.write_text(server.api_key if secret is None else secret)
        told = {"api_key": {"file": str(file)}, "endpoint": server.url, "ca_file": server.ca_file, "timeout": "10s"}
        options = OpsgenieOptions.model_validate({**told, **changes})
        resolve(options)
        connector = Opsgenie(options)
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
    return [(r.member.id, r.start, r.end) for r in records if isinstance(r, Shift)]


def test_users_become_principals(server: OpsgenieServer, connect: Connect) -> None:
    """Blocked is inactive, not verified is not; without a name the address is one."""
    users = [r for r in connect(server).read(DIRECTORY) if isinstance(r, Principal) and r.kind is Kind.USER]
    assert [(u.name, u.email, u.active) for u in users] == [
        ("Ada", "ada@acme.example", True),
        ("Bo", "bo@acme.example", False),
        ("chi@acme.example", "chi@acme.example", True),
    ]
    assert users[0].attributes == {
        "tags": ["it", "ops"],
        "details.cost": ["17"],
        "role": "User",
        "timeZone": "Asia/Tokyo",
        "locale": "en_US",
        "verified": "false",
        "createdAt": "2017-05-12T08:34:30.283Z",
    }


def test_pages_are_as_large_as_opsgenie_gives(server: OpsgenieServer, connect: Connect) -> None:
    """The default would be 20."""
    list(connect(server).read(DIRECTORY))
    assert "limit=100" in server.requests[0]


def test_a_list_that_ends_before_its_count_is_incomplete(server: OpsgenieServer, connect: Connect) -> None:
    """The last page has no link, and fewer were read than Opsgenie counts."""
    rows = [{**server.users[0], "id": f"u{n}"} for n in range(2)]
    with (
        server.broken("users", 1, Answer(200, {"data": rows, "totalCount": 3, "paging": {"first": "…"}})),
        pytest.raises(Incomplete, match="2 of 3"),
    ):
        list(connect(server).read(DIRECTORY))


def test_more_than_twenty_thousand_is_incomplete(server: OpsgenieServer, connect: Connect) -> None:
    """Opsgenie answers 422 there: nobody is taken for gone."""
    refusal = problem(422, "Sum of offset and limit should be lower than 20000")
    with server.broken("users", 3, Answer(422, refusal.document)), pytest.raises(Incomplete, match="20,000"):
        list(connect(server).read(DIRECTORY))


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:9", "https://api.opsgenie.com"])
def test_the_key_follows_no_link_to_another_origin(server: OpsgenieServer, connect: Connect, origin: str) -> None:
    """Not to the vendor's own either, if a gateway is configured."""
    server.link_origin = origin
    with pytest.raises(BadData, match="not followed"):
        list(connect(server).read(DIRECTORY))
    assert len(server.requests) == 1


@pytest.mark.parametrize("link", [7, "", ["x"], {"href": "x"}])
def test_a_link_that_is_none_is_no_end(server: OpsgenieServer, connect: Connect, link: Any) -> None:
    """Something in the place of the next page is not the last page."""
    answer = Answer(200, {"data": [server.users[0]], "paging": {"next": link}})
    with server.broken("users", 1, answer), pytest.raises(BadData):
        list(connect(server).read(DIRECTORY))


@pytest.mark.parametrize("paging", [[], "next", 7])
def test_paging_that_is_none_is_no_end(server: OpsgenieServer, connect: Connect, paging: Any) -> None:
    """Neither."""
    answer = Answer(200, {"data": [server.users[0]], "paging": paging})
    with server.broken("users", 1, answer), pytest.raises((BadData, ServerFault)):
        list(connect(server).read(DIRECTORY))


@pytest.mark.parametrize("role", ["User", {"id": "User", "name": "User"}])
def test_a_role_is_an_attribute_in_either_form(server: OpsgenieServer, connect: Connect, role: Any) -> None:
    """A name, or an object with one."""
    server.users[0]["role"] = role
    user = next(r for r in connect(server).read(DIRECTORY) if isinstance(r, Principal))
    assert user.attributes["role"] == "User"


@pytest.mark.parametrize("key", ["id", "username", "blocked"])
def test_a_user_without_what_every_user_has_is_an_error(server: OpsgenieServer, connect: Connect, key: str) -> None:
    """A missing `blocked` is not false."""
    rows = {"data": [{k: v for k, v in server.users[0].items() if k != key}], "totalCount": 1}
    with server.broken("users", 1, Answer(200, rows)), pytest.raises((BadData, ServerFault), match=key):
        list(connect(server).read(DIRECTORY))


def test_teams_are_read_with_their_members(server: OpsgenieServer, connect: Connect) -> None:
    """One request a team; the deactivated stay members, and count for nothing."""
    records = list(connect(server).read(DIRECTORY))
    assert [(r.group.id, [m.id for m in r.members]) for r in records if isinstance(r, Members)] == [
        ("t1", ["u1", "u2"])
    ]


def test_a_team_deleted_meanwhile_fails_the_scope(server: OpsgenieServer, connect: Connect) -> None:
    """404 of one that was listed a moment ago."""
    with server.broken("team", 1, Answer(404)), pytest.raises(Incomplete, match="gone"):
        list(connect(server).read(DIRECTORY))


def test_only_what_owns_is_read(server: OpsgenieServer, connect: Connect) -> None:
    """Without `group.*` no teams, without `schedule.*` no schedules."""
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    assert list(connector.scopes()) == [DIRECTORY]
    list(connector.read(DIRECTORY))
    assert all(r.startswith("/v2/users") for r in server.requests)


# Who is on call


def test_a_timeline_is_asked_for_from_the_day_on(server: OpsgenieServer, connect: Connect) -> None:
    """Not from the moment: a period that Opsgenie cuts there would be another at each poll."""
    list(connect(server).read(SCHEDULES))
    asked = server.requests[-1]
    assert asked.startswith("/v2/schedules/s1/timeline?")
    assert "interval=9&intervalUnit=days&date=2026-11-23T00%3A00%3A00Z" in asked


@pytest.mark.parametrize("days", [1, 7])
def test_a_timeline_shorter_than_asked_for_fails(server: OpsgenieServer, connect: Connect, days: int) -> None:
    """Who is on call after its end would be unknown, and look like nobody."""
    server.timeline_days = days
    with pytest.raises(Incomplete, match="cover"):
        list(connect(server).read(SCHEDULES))


def test_only_periods_that_touch_the_coming_week_are_read(server: OpsgenieServer, connect: Connect) -> None:
    """From now to the horizon."""
    week = SHIFT_HORIZON / 3600
    spans = [(-9.0, 0.0), (-1.0, 0.5), (week - 1, week + 1), (week, week + 1)]
    server.add_schedule("s1", "P", rotation("a", *(period(iso(a), iso(b), "user", "u1") for a, b in spans)))
    assert shifts(list(connect(server).read(SCHEDULES))) == [
        ("u1", at(-1), at(0.5)),
        ("u1", at(week - 1), at(week + 1)),
    ]


def test_all_rotations_count_but_deleted_ones(server: OpsgenieServer, connect: Connect) -> None:
    """Several on call at once; a deleted rotation carries what was."""
    server.add_schedule(
        "s1",
        "P",
        rotation("a", period(iso(-1), iso(1), "user", "u1")),
        rotation("b", period(iso(-1), iso(1), "user", "u2")),
        rotation("c", period(iso(-1), iso(1), "user", "u3"), deleted=True),
    )
    assert [s[0] for s in shifts(list(connect(server).read(SCHEDULES)))] == ["u1", "u2"]


def test_a_team_on_call_is_its_members(server: OpsgenieServer, connect: Connect) -> None:
    """Read once, however often it is on call."""
    server.add_schedule(
        "s1", "P", rotation("a", period(iso(-1), iso(1), "team", "t1"), period(iso(1), iso(2), "team", "t1"))
    )
    assert [s[0] for s in shifts(list(connect(server).read(SCHEDULES)))] == ["u1", "u2", "u1", "u2"]
    assert sum("/v2/teams/t1" in r for r in server.requests) == 1


@pytest.mark.parametrize("kind", ["none", "noone"])
def test_nobody_on_call_is_a_gap_in_the_schedule(server: OpsgenieServer, connect: Connect, kind: str) -> None:
    """The reserved word of an empty slot."""
    server.add_schedule("s1", "P", rotation("a", period(iso(-1), iso(1), kind, None)))
    assert shifts(list(connect(server).read(SCHEDULES))) == []


def test_a_period_for_nobody_is_a_gap_in_the_schedule(server: OpsgenieServer, connect: Connect) -> None:
    """An empty slot may come without a recipient."""
    slot = period(iso(-1), iso(1), "none", None)
    del slot["recipient"]
    server.add_schedule("s1", "P", rotation("a", slot, period(iso(1), iso(2), "user", "u1")))
    assert shifts(list(connect(server).read(SCHEDULES))) == [("u1", at(1), at(2))]


def test_an_escalation_on_call_is_told(server: OpsgenieServer, connect: Connect) -> None:
    """Who is reached through one is not read, which status shows."""
    server.add_schedule("s1", "P", rotation("a", period(iso(-1), iso(1), "escalation", "e1")))
    records = list(connect(server).read(SCHEDULES))
    assert [r.code for r in records if isinstance(r, Gap)] == ["escalations_in_schedules"]
    assert shifts(records) == []


def test_who_was_on_call_comes_from_the_flattened_list(server: OpsgenieServer, connect: Connect) -> None:
    """A period that is partly past names the users that it meant."""
    people = [{"type": "user", "id": "u2", "name": "…"}, {"type": "user", "id": "u3", "name": "…"}]
    past = period(iso(-1), iso(1), "team", "t1", type="historical", flattenedRecipients=people)
    server.add_schedule("s1", "P", rotation("a", past))
    assert [s[0] for s in shifts(list(connect(server).read(SCHEDULES)))] == ["u2", "u3"]


def test_a_schedule_that_is_off_has_nobody(server: OpsgenieServer, connect: Connect) -> None:
    """And is asked for no timeline."""
    server.add_schedule("s1", "P", rotation("a", period(iso(-1), iso(1), "user", "u1")), enabled=False)
    records = list(connect(server).read(SCHEDULES))
    assert [r.active for r in records if isinstance(r, Principal)] == [False]
    assert shifts(records) == [] and not [r for r in server.requests if "timeline" in r]


@pytest.mark.parametrize(
    "change",
    [
        {"finalTimeline": None},
        {"finalTimeline": {}},
        {"startDate": None},
        {"endDate": "soon"},
        {"finalTimeline": {"rotations": [{"periods": [{"startDate": iso(-1), "recipient": {"type": "none"}}]}]}},
        {
            "finalTimeline": {
                "rotations": [{"periods": [{**period(iso(-1), iso(1), "user", "u1"), "recipient": ["u1"]}]}]
            }
        },
        {"finalTimeline": {"rotations": [{"periods": [period("2026-11-23T07:00:00", iso(1), "user", "u1")]}]}},
        {"finalTimeline": {"rotations": [{"periods": [period(iso(-1), iso(1), "user", None)]}]}},
        {"finalTimeline": {"rotations": [{"periods": [period(iso(-1), iso(1), "robot", "r1")]}]}},
    ],
)
def test_a_timeline_that_is_none_is_no_empty_schedule(
    server: OpsgenieServer, connect: Connect, change: dict[str, Any]
) -> None:
    """Missing parts, and participants of a kind that nobody knows."""
    timeline = {"startDate": iso(-9), "endDate": iso(300), "finalTimeline": {"rotations": []}} | change
    with server.broken("timeline", 1, Answer(200, {"data": timeline})), pytest.raises((BadData, ServerFault)):
        list(connect(server).read(SCHEDULES))


@pytest.mark.parametrize("id_", ["../users", "a/b?c=d", "s 1#x", "ключ"])
def test_ids_go_quoted_into_paths(server: OpsgenieServer, connect: Connect, id_: str) -> None:
    """An id leads to no other call."""
    server.schedules.clear()
    server.add_schedule(id_, "Odd", rotation("a", period(iso(-1), iso(1), "user", "u1")))
    assert len(shifts(list(connect(server).read(SCHEDULES)))) == 1


# Errors, rates, check


def test_a_429_waits_for_its_period(server: OpsgenieServer, connect: Connect, sleeps: list[float]) -> None:
    """Opsgenie tells it in a header of its own."""
    headers = {"X-RateLimit-State": "THROTTLED", "X-RateLimit-Period-In-Sec": "60"}
    with server.broken("users", 2, Answer(429, problem(429, "…").document, headers, times=2)):
        list(connect(server).read(DIRECTORY))
    assert sleeps == [60.0, 60.0]


def test_a_wrong_key_is_unauthenticated_though_it_is_a_403(server: OpsgenieServer, connect: Connect) -> None:
    """Opsgenie's sentence tells; the key is in no part of the error."""
    wrong = "0000-of-another-SECRET"
    with pytest.raises(Unauthenticated) as caught:
        list(connect(server, secret=wrong).read(DIRECTORY))
    assert wrong not in "".join(traceback.format_exception(caught.value))
    assert "api.eu.opsgenie.com" in caught.value.remedy


def test_a_key_without_configuration_access_is_forbidden(server: OpsgenieServer, connect: Connect) -> None:
    """And the right is named as Opsgenie calls it."""
    server.configuration_access = False
    with pytest.raises(Forbidden, match="Configuration access"):
        list(connect(server).read(DIRECTORY))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(Answer(500), ServerFault), (Answer(302, None, {"Location": "https://evil.example/"}), BadData)],
)
def test_schedules_fail_apart_from_the_directory(
    server: OpsgenieServer, connect: Connect, answer: Answer, expected: type[ConnectorError]
) -> None:
    """Two scopes."""
    connector = connect(server)
    with server.broken("schedules", 1, answer):
        assert list(connector.read(DIRECTORY))
        with pytest.raises(expected):
            list(connector.read(SCHEDULES))


def test_check_reminds_of_the_end(server: OpsgenieServer, connect: Connect) -> None:
    """5 April 2027; and tries each list with one request."""
    checks = list(connect(server).check())
    assert all(c.ok for c in checks)
    assert "5 April 2027" in checks[-1].detail
    assert len(server.requests) == 3


def test_check_names_what_the_key_lacks(server: OpsgenieServer, connect: Connect) -> None:
    """For each list."""
    server.configuration_access = False
    failed = [c for c in connect(server).check() if not c.ok]
    assert [c.what for c in failed] == ["read users", "read teams", "read schedules"]
    assert all("Configuration access" in c.remedy for c in failed)
