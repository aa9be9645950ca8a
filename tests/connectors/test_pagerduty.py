"""The `pagerduty` connector, where PagerDuty and its client mislead."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import connectors.retry
from config.secrets import resolve
from connectors.errors import (
    BadData,
    ConnectorError,
    Forbidden,
    Incomplete,
    Misconfigured,
    ServerFault,
    Throttled,
    Unauthenticated,
    Unreachable,
)
from connectors.pagerduty import PagerDuty, PagerDutyOptions
from connectors.shifts import DIRECTORY, SCHEDULES, touches
from connectors.values import SHIFT_HORIZON, Gap, Kind, Members, Principal, Record, Ref, Shift
from tests.connectors.oncall_rig import NOW, at, iso
from tests.servers.oncall import Answer
from tests.servers.pagerduty import PagerDutyServer, problem, reference

WRONG = "of-another-SECRET"
BROKEN = "two\nlines-of-a-SECRET"


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    """Three users in two teams, one schedule; pages of one."""
    with PagerDutyServer(page=1) as server:
        server.add_team("PT1", "Payments")
        server.add_team("PT2", "Storage")
        server.add_user("PU1", "Ada", "ada@acme.example", "PT1", "PT2", job_title="Engineer")
        server.add_user("PU2", "Bo", "bo@acme.example", "PT1")
        server.add_user("PU3", "Chi", "chi@acme.example")
        server.add_schedule("PS1", "Primary", (reference("user", "PU1"), iso(-1), iso(1)))
        yield server


class Connect:
    """Builds connectors to a server, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[PagerDuty] = []

    def __call__(self, server: PagerDutyServer, *, secret: str | None = None, **changes: Any) -> PagerDuty:
        file = self.folder / "token"
        file.write_text(server.token if secret is None else secret)
        told = {"token": {"file": str(file)}, "endpoint": server.url, "ca_file": server.ca_file, "timeout": "10s"}
        options = PagerDutyOptions.model_validate({**told, **changes})
        resolve(options)
        connector = PagerDuty(options)
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


def paths(server: PagerDutyServer) -> list[str]:
    return [request.partition("?")[0] for request in server.requests]


def test_memberships_come_with_the_users_not_a_request_a_team(server: PagerDutyServer, connect: Connect) -> None:
    """(users + teams) / 100 requests, however many teams there are."""
    server.page = 100
    records = list(connect(server).read(DIRECTORY))
    assert paths(server) == ["/teams", "/users"]
    members = {r.group.id: [m.id for m in r.members] for r in records if isinstance(r, Members)}
    assert members == {"PT1": ["PU1", "PU2"], "PT2": ["PU1"]}


def test_what_a_user_is_becomes_attributes(server: PagerDutyServer, connect: Connect) -> None:
    """The profile, without PagerDuty's own links and colours."""
    users = [r for r in connect(server).read(DIRECTORY) if isinstance(r, Principal) and r.kind is Kind.USER]
    assert users[0].attributes == {"job_title": "Engineer", "role": "user", "time_zone": "Europe/Berlin"}
    assert users[0].email == "ada@acme.example"


def test_a_team_that_was_made_after_the_list_has_no_members_yet(server: PagerDutyServer, connect: Connect) -> None:
    """A membership of a team that is in no list names nothing."""
    server.users[2]["teams"] = [reference("team", "PNEW")]
    assert all(r.group.id != "PNEW" for r in connect(server).read(DIRECTORY) if isinstance(r, Members))


def test_only_what_owns_is_read(server: PagerDutyServer, connect: Connect) -> None:
    """Without `group.*` no teams, without `schedule.*` no schedules."""
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    assert list(connector.scopes()) == [DIRECTORY]
    assert not [r for r in connector.read(DIRECTORY) if isinstance(r, Members)]
    assert set(paths(server)) == {"/users"}
    connector.kinds = frozenset({Kind.SCHEDULE})
    assert list(connector.scopes()) == [DIRECTORY, SCHEDULES]


def test_more_than_ten_thousand_is_incomplete_not_shorter(server: PagerDutyServer, connect: Connect) -> None:
    """PagerDuty serves no page past 10,000: the scope fails, and the client's own paging would have ended well."""
    server.page = 100
    server.limit = 1_000_000
    server.users = [{**server.users[0], "id": f"PU{n}"} for n in range(10_001)]
    with pytest.raises(Incomplete, match="10000") as caught:
        list(connect(server).read(DIRECTORY))
    assert "identity provider" in caught.value.remedy
    assert sum("/users" in r for r in server.requests) == 100


def test_exactly_ten_thousand_are_read(server: PagerDutyServer, connect: Connect) -> None:
    """The limit itself is no error."""
    server.page = 100
    server.limit = 1_000_000
    server.users = [{**server.users[0], "id": f"PU{n}"} for n in range(10_000)]
    found = [r for r in connect(server).read(DIRECTORY) if isinstance(r, Principal) and r.kind is Kind.USER]
    assert len(found) == 10_000


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"more": None}, ServerFault),
        ({"more": "true"}, ServerFault),
        ({"offset": None}, ServerFault),
        ({"offset": 7}, Incomplete),
        ({"users": None}, ServerFault),
        ({"users": {}}, ServerFault),
        ({"users": ["PU1"]}, BadData),
        ({"users": [], "more": True}, Incomplete),
    ],
)
def test_a_page_without_what_pages_have_is_no_end(
    server: PagerDutyServer, connect: Connect, change: dict[str, Any], expected: type[ConnectorError]
) -> None:
    """A missing `more` is not "no more"."""
    document = {"users": [], "more": False, "offset": 1, "limit": 1} | change
    document = {key: value for key, value in document.items() if value is not None}
    with server.broken("users", 2, Answer(200, document)), pytest.raises(expected):
        list(connect(server).read(DIRECTORY))


@pytest.mark.parametrize("key", ["id", "name", "email", "teams"])
def test_a_user_without_what_every_user_has_is_an_error(server: PagerDutyServer, connect: Connect, key: str) -> None:
    """Never a default that hides it."""
    del server.users[1][key]
    with pytest.raises(BadData, match="teams of user PU2" if key == "teams" else key):
        list(connect(server).read(DIRECTORY))


def test_a_plan_without_teams_is_a_gap(server: PagerDutyServer, connect: Connect) -> None:
    """402: users are read, and the gap is told."""
    server.has_teams = False
    for user in server.users:
        del user["teams"]
    records = list(connect(server).read(DIRECTORY))
    assert [r.code for r in records if isinstance(r, Gap)] == ["teams_not_in_plan"]
    assert len([r for r in records if isinstance(r, Principal)]) == 3


# Schedules


def test_only_shifts_that_touch_the_coming_week_are_read(server: PagerDutyServer, connect: Connect) -> None:
    """From now to the horizon: one that ends now, or begins at its end, is not on call in it."""
    week = SHIFT_HORIZON / 3600
    user = reference("user", "PU1")
    server.schedules.clear()
    server.add_schedule(
        "PS1",
        "Primary",
        (user, iso(-9), iso(0)),
        (user, iso(-1), iso(0.5)),
        (user, iso(week - 1), iso(week + 1)),
        (user, iso(week), iso(week + 1)),
    )
    assert shifts(list(connect(server).read(SCHEDULES))) == [
        ("PU1", at(-1), at(0.5)),
        ("PU1", at(week - 1), at(week + 1)),
    ]


def test_a_schedule_is_asked_for_in_utc_and_whole(server: PagerDutyServer, connect: Connect) -> None:
    """`overflow` keeps the true start and end of a shift that reaches over the window."""
    list(connect(server).read(SCHEDULES))
    asked = next(r for r in server.requests if r.startswith("/schedules/PS1"))
    assert "since=2026-11-23T08%3A00%3A00Z&until=2026-11-30T08%3A00%3A01Z&time_zone=UTC&overflow=true" in asked


def test_a_deleted_user_on_call_is_nobody_active(server: PagerDutyServer, connect: Connect) -> None:
    """The shift names a user that is in no list, so it never counts as active."""
    server.add_schedule("PS2", "Old", (reference("user", "PGONE", deleted_at=iso(-99)), iso(-1), iso(1)))
    records = [r for scope in (DIRECTORY, SCHEDULES) for r in connect(server).read(scope)]
    assert ("PGONE", at(-1), at(1)) in shifts(records)
    assert Ref(Kind.USER, "PGONE") not in {r.ref for r in records if isinstance(r, Principal)}


@pytest.mark.parametrize("nobody", [{}, {"user": None}])
def test_an_entry_for_nobody_is_a_gap_in_the_schedule(
    server: PagerDutyServer, connect: Connect, nobody: dict[str, Any]
) -> None:
    """With a null in the user's place, or nothing."""
    entries = [
        {"start": iso(-1), "end": iso(1), **nobody},
        {"start": iso(1), "end": iso(2), "user": reference("user", "PU1")},
    ]
    document = {"schedule": {"final_schedule": {"rendered_schedule_entries": entries}}}
    with server.broken("schedule", 1, Answer(200, document)):
        assert shifts(list(connect(server).read(SCHEDULES))) == [("PU1", at(1), at(2))]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (-1, 0, False),
        (-1, 0.1, True),
        (0, 1, True),
        (0, 0, False),
        (2, 1, False),
        (168, 169, False),
        (167.9, 169, True),
    ],
)
def test_a_shift_touches_the_week_from_now(start: float, end: float, expected: bool) -> None:
    """Its end is no part of a shift, nor of the week."""
    assert touches(at(start), at(end), NOW) == expected


def test_offsets_from_utc_are_heeded(server: PagerDutyServer, connect: Connect) -> None:
    """A schedule may be rendered in its own zone."""
    server.schedules.clear()
    server.add_schedule(
        "PS1", "P", (reference("user", "PU1"), "2026-11-23T10:00:00+01:00", "2026-11-23T05:00:00-05:00")
    )
    assert shifts(list(connect(server).read(SCHEDULES))) == [("PU1", at(1), at(2))]


@pytest.mark.parametrize("start", ["2026-11-23T07:00:00", "yesterday", "", None, 1795420800])
def test_a_time_that_is_none_is_an_error(server: PagerDutyServer, connect: Connect, start: Any) -> None:
    """Without an offset from UTC, too: it would be read by this host's clock."""
    document = {"schedule": {"final_schedule": {"rendered_schedule_entries": [
        {"start": start, "end": iso(1), "user": reference("user", "PU1")}]}}}  # fmt: skip
    with server.broken("schedule", 1, Answer(200, document)), pytest.raises(BadData, match="time"):
        list(connect(server).read(SCHEDULES))


@pytest.mark.parametrize("document", [{}, {"schedule": {}}, {"schedule": {"final_schedule": {}}}, []])
def test_a_schedule_without_its_rendering_is_no_empty_schedule(
    server: PagerDutyServer, connect: Connect, document: Any
) -> None:
    """An entry list that is missing is not nobody on call."""
    with server.broken("schedule", 1, Answer(200, document)), pytest.raises((ServerFault, BadData)):
        list(connect(server).read(SCHEDULES))


def test_a_schedule_deleted_meanwhile_fails_the_scope(server: PagerDutyServer, connect: Connect) -> None:
    """404 of one that was listed a moment ago: the next run is right."""
    answer = Answer(404, {"error": {"message": "Not Found", "code": 2100}})
    with server.broken("schedule", 1, answer), pytest.raises(Incomplete, match="gone"):
        list(connect(server).read(SCHEDULES))


@pytest.mark.parametrize("id_", ["../users", "a/b?c=d", "PS 1#x", "ключ"])
def test_ids_go_quoted_into_paths(server: PagerDutyServer, connect: Connect, id_: str) -> None:
    """An id leads to no other call."""
    server.schedules.clear()
    server.add_schedule(id_, "Odd", (reference("user", "PU1"), iso(-1), iso(1)))
    assert len(shifts(list(connect(server).read(SCHEDULES)))) == 1
    assert not [p for p in paths(server) if p.startswith("/users")]


# Shift-based schedules


def test_shift_based_schedules_are_read_beside_the_others(server: PagerDutyServer, connect: Connect) -> None:
    """From the v3 API, two at once on call; a slot that is left empty is nobody."""
    server.add_shift_based("v3-1", "Sun", ("PU1", iso(-1), iso(2)), ("PU2", iso(-1), iso(2)), (None, iso(2), iso(4)))
    found = [r for r in connect(server).read(SCHEDULES) if isinstance(r, Shift) and r.schedule.id == "v3-1"]
    assert [(r.member.id, r.start, r.end) for r in found] == [("PU1", at(-1), at(2)), ("PU2", at(-1), at(2))]


def test_a_schedule_in_both_lists_comes_once(server: PagerDutyServer, connect: Connect) -> None:
    """Whatever PagerDuty decides to list where."""
    server.add_shift_based("PS1", "Primary", ("PU2", iso(-1), iso(2)))
    records = list(connect(server).read(SCHEDULES))
    assert [r.id for r in records if isinstance(r, Principal)] == ["PS1"]
    assert shifts(records) == [("PU2", at(-1), at(2))]


def test_an_account_without_shift_based_schedules_shows_the_gap(server: PagerDutyServer, connect: Connect) -> None:
    """404 of the whole list: the others are read, and status tells."""
    server.has_shift_based = False
    records = list(connect(server).read(SCHEDULES))
    assert [r.code for r in records if isinstance(r, Gap)] == ["shift_based_schedules"]
    assert shifts(records) == [("PU1", at(-1), at(1))]


def test_a_refusal_of_shift_based_schedules_is_no_gap(server: PagerDutyServer, connect: Connect) -> None:
    """403, 429, 5xx fail the scope: what was read before is kept."""
    server.add_shift_based("v3-1", "Sun", ("PU1", iso(-1), iso(2)))
    for answer, expected in (
        (Answer(403, problem(403, 2010, "Access Denied").document), Forbidden),
        (Answer(500), ServerFault),
        (Answer(429), Throttled),
    ):
        with server.broken("v3", 1, answer), pytest.raises(expected):
            list(connect(server).read(SCHEDULES))


def test_a_shift_based_schedule_deleted_meanwhile_is_no_gap(server: PagerDutyServer, connect: Connect) -> None:
    """A 404 of one of them does not mean that the account has none."""
    server.add_shift_based("v3-1", "Sun", ("PU1", iso(-1), iso(2)))
    with server.broken("v3 schedule", 1, Answer(404)), pytest.raises(Incomplete):
        list(connect(server).read(SCHEDULES))


@pytest.mark.parametrize(("status", "expected"), [(402, BadData), (404, Misconfigured)])
def test_an_account_that_showed_some_does_not_lack_them(
    server: PagerDutyServer, connect: Connect, status: int, expected: type[ConnectorError]
) -> None:
    """On a later page it is an error: the schedules already read are not all."""
    server.add_shift_based("v3-1", "Sun")
    server.add_shift_based("v3-2", "Moon")
    with server.broken("v3", 2, Answer(status)), pytest.raises(expected):
        list(connect(server).read(SCHEDULES))


@pytest.mark.parametrize("whole", [True, False])
def test_a_v3_list_without_more_is_read_until_it_ends(server: PagerDutyServer, connect: Connect, whole: bool) -> None:
    """A full page leads on, a short one does not."""
    rows = [reference("schedule", f"v3-{n}", f"S{n}") for n in range(100 if whole else 3)]
    for row in rows:
        server.add_shift_based(row["id"], row["summary"])
    with server.broken("v3", 1, Answer(200, {"schedules": rows})):
        found = [r for r in connect(server).read(SCHEDULES) if isinstance(r, Principal)]
    assert len(found) == len(rows) + 1
    assert any("/v3/schedules?limit=100&offset=100" in r for r in server.requests) == whole


# Rates, errors, secrets


def test_a_429_waits_until_the_reset(server: PagerDutyServer, connect: Connect, sleeps: list[float]) -> None:
    """PagerDuty tells it in a header of its own; its client would retry without end."""
    refusal = problem(429, 2020, "Rate Limit Exceeded")
    with server.broken("users", 2, Answer(429, refusal.document, {"ratelimit-reset": "23"}, times=2)):
        list(connect(server).read(DIRECTORY))
    assert sleeps == [23.0, 23.0]


def test_a_429_for_ever_ends(server: PagerDutyServer, connect: Connect, sleeps: list[float]) -> None:
    """After a few tries, by our count."""
    with server.broken("users", 1, Answer(429)), pytest.raises(Throttled):
        list(connect(server).read(DIRECTORY))
    assert len(sleeps) == connectors.retry.ATTEMPTS - 1


def test_half_of_the_rate_limit_is_left_to_others(
    server: PagerDutyServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run pauses until the reset before it has used more, and so meets no 429."""
    for n in range(4, 20):
        server.add_user(f"PU{n}", f"U{n}", f"u{n}@acme.example")
    server.limit = 8
    connector = connect(server)
    used: list[int] = []
    now = [NOW]

    def sleep(seconds: float) -> None:
        assert seconds == pytest.approx(42, abs=1)
        used.append(server.used)
        server.used = 0
        now[0] += seconds

    monkeypatch.setattr(connectors.retry, "sleep", sleep)
    connector.clock = lambda: now[0]
    assert len([r for r in connector.read(DIRECTORY) if isinstance(r, Principal)]) == 21
    assert used == [4] * 5


def test_the_client_never_sleeps_on_its_own(
    server: PagerDutyServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a 429, nor for a connection that breaks."""
    import time

    def sleep(seconds: float) -> None:
        raise AssertionError(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    with server.broken("users", 2, Answer(429)), pytest.raises(Throttled):
        list(connect(server).read(DIRECTORY))
    with server.broken("users", 1, Answer(refuse=True)), pytest.raises(Unreachable):
        list(connect(server).read(DIRECTORY))


def test_a_wrong_token_is_said_to_be_one(server: PagerDutyServer, connect: Connect) -> None:
    """Tried once; the token is in no part of the error."""
    with pytest.raises(Unauthenticated) as caught:
        list(connect(server, secret=WRONG).read(DIRECTORY))
    assert WRONG not in "".join(traceback.format_exception(caught.value))
    assert len(server.requests) == 1


def test_a_token_with_a_line_break_is_not_shown(server: PagerDutyServer, connect: Connect) -> None:
    """Nor sent."""
    with pytest.raises(Misconfigured, match="token") as caught:
        list(connect(server, secret=BROKEN).read(DIRECTORY))
    assert BROKEN[-12:] not in "".join(traceback.format_exception(caught.value))
    assert server.requests == []


@pytest.mark.parametrize(
    ("token", "style"), [("y_NbAkKc", "Token token="), ("pdus+_0XBPWQQ", "Bearer "), ("pdeu+_0XBPWQQ", "Bearer ")]
)
def test_keys_and_oauth_tokens_are_sent_each_in_its_way(
    server: PagerDutyServer, connect: Connect, token: str, style: str
) -> None:
    """A scoped OAuth token tells itself by its beginning."""
    server.token = token
    list(connect(server).read(DIRECTORY))
    assert server.headers[0]["authorization"] == style + token


def test_the_token_is_in_no_log_line(
    server: PagerDutyServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """At the finest level, and when things fail."""
    caplog.set_level(logging.DEBUG)
    with server.broken("users", 2, Answer(500)), pytest.raises(ServerFault):
        list(connect(server).read(DIRECTORY))
    assert server.token not in caplog.text


def test_a_redirect_is_not_followed(server: PagerDutyServer, connect: Connect) -> None:
    """The client raises at one; it is our error."""
    with server.broken("users", 1, Answer(302, None, {"Location": "https://evil.example/"})), pytest.raises(BadData):
        connector = connect(server)
        connector.kinds = frozenset({Kind.USER})
        list(connector.read(DIRECTORY))
    assert len(server.requests) == 1


def test_plain_http_is_refused_clearly(server: PagerDutyServer, connect: Connect) -> None:
    """To loopback, too: PagerDuty's client does not speak it."""
    with pytest.raises(Misconfigured, match="https"):
        list(connect(server, endpoint="http://127.0.0.1:1").read(DIRECTORY))


def test_the_words_of_an_error_are_told(server: PagerDutyServer, connect: Connect) -> None:
    """PagerDuty's message and its details."""
    server.scopes = {"users.read"}
    with pytest.raises(Forbidden) as caught:
        list(connect(server).read(DIRECTORY))
    assert "Access Denied: Token lacks the scope teams.read" in caught.value.message
    assert caught.value.permission == "teams.read"


# check


def test_check_names_each_missing_scope(server: PagerDutyServer, connect: Connect) -> None:
    """In PagerDuty's words, with one request for each list."""
    server.scopes = {"users.read"}
    checks = list(connect(server).check())
    assert [(c.what, c.ok) for c in checks] == [("read users", True), ("read teams", False), ("read schedules", False)]
    assert [c.remedy for c in checks] == ["", "grant teams.read", "grant schedules.read"]
    assert len(server.requests) == 3
    assert all("limit=1" in r for r in server.requests)


def test_schedules_may_be_forbidden_without_harm_to_the_rest(server: PagerDutyServer, connect: Connect) -> None:
    """Two scopes: one fails."""
    server.scopes = {"users.read", "teams.read"}
    connector = connect(server)
    assert len(list(connector.read(DIRECTORY))) > 3
    with pytest.raises(Forbidden):
        list(connector.read(SCHEDULES))
