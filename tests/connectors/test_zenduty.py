"""The `zenduty` connector: who is on call is computed here, so that is what is tested most."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import connectors.retry
from config.secrets import resolve
from connectors.errors import BadData, Forbidden, Incomplete, ServerFault, Unauthenticated
from connectors.shifts import DIRECTORY, FOREVER, SCHEDULES
from connectors.values import SHIFT_HORIZON, Gap, Kind, Members, Principal, Record, Shift
from connectors.zenduty import Zenduty, ZendutyOptions, _both, _on_call, _union, _without
from tests.connectors.oncall_rig import NOW, at, iso
from tests.servers.oncall import Answer
from tests.servers.zenduty import ZendutyServer, layer, override, restriction

DAY, WEEK = 86400, 604800


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture
def server() -> Iterator[ZendutyServer]:
    """Three users, one team; whole lists."""
    with ZendutyServer() as server:
        server.add_user("u-ada", "Ada", "Lovelace", "ada@acme.example")
        server.add_user("u-bo", "Bo", " ", "bo@acme.example")
        server.add_user("u-chi", "", "", "chi@acme.example")
        server.add_team("t1", "Payments", "u-ada", "u-bo")
        yield server


class Connect:
    """Builds connectors to a server, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[Zenduty] = []

    def __call__(
        self, server: ZendutyServer, *, secret: str | None = None, now: float = NOW, **changes: Any
    ) -> Zenduty:
        file = self.folder / "token"
        file.write_text(server.token if secret is None else secret)
        told = {"token": {"file": str(file)}, "endpoint": server.url, "ca_file": server.ca_file, "timeout": "10s"}
        options = ZendutyOptions.model_validate({**told, **changes})
        resolve(options)
        connector = Zenduty(options)
        connector.clock = lambda: now
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


def gaps(records: list[Record]) -> list[str]:
    return [r.code for r in records if isinstance(r, Gap)]


def test_users_become_principals(server: ZendutyServer, connect: Connect) -> None:
    """Known by the username, which never changes; not verified is no less active."""
    users = [r for r in connect(server).read(DIRECTORY) if isinstance(r, Principal) and r.kind is Kind.USER]
    assert [(u.id, u.name, u.active) for u in users] == [
        ("u-ada", "Ada Lovelace", True),
        ("u-bo", "Bo", True),
        ("u-chi", "chi@acme.example", True),
    ]
    assert users[0].attributes == {"time_zone": "UTC", "role": "3"}


def test_the_directory_takes_two_requests(server: ZendutyServer, connect: Connect) -> None:
    """Teams come with their members."""
    records = list(connect(server).read(DIRECTORY))
    assert server.requests == ["/api/account/members/", "/api/account/teams/"]
    assert [[m.id for m in r.members] for r in records if isinstance(r, Members)] == [["u-ada", "u-bo"]]


def test_only_what_owns_is_read(server: ZendutyServer, connect: Connect) -> None:
    """Without `group.*` no teams, without `schedule.*` no schedules."""
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    assert list(connector.scopes()) == [DIRECTORY]
    list(connector.read(DIRECTORY))
    assert server.requests == ["/api/account/members/"]


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:9"])
def test_the_token_follows_no_link_to_another_origin(server: ZendutyServer, connect: Connect, origin: str) -> None:
    """A next page elsewhere is refused."""
    server.page, server.link_origin = 1, origin
    with pytest.raises(BadData, match="not followed"):
        list(connect(server).read(DIRECTORY))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "document", [{}, {"results": None, "next": None}, "[]", None, [[]], {"results": [], "next": 7}, {"detail": "ok"}]
)
def test_a_list_that_is_none_is_no_empty_list(server: ZendutyServer, connect: Connect, document: Any) -> None:
    """Neither in the whole form nor in the paged one."""
    with server.broken("members", 1, Answer(200, document)), pytest.raises((BadData, ServerFault)):
        list(connect(server).read(DIRECTORY))


def test_fewer_than_the_pages_count_are_incomplete(server: ZendutyServer, connect: Connect) -> None:
    """An empty last page is no end of a list that tells how many there are."""
    server.page = 2
    with server.broken("members", 2, Answer(empty=True)), pytest.raises(Incomplete, match="2 of 3"):
        list(connect(server).read(DIRECTORY))


@pytest.mark.parametrize("key", ["username", "email"])
def test_a_user_without_what_every_user_has_is_an_error(server: ZendutyServer, connect: Connect, key: str) -> None:
    """Never a default that hides it."""
    del server.members[1]["user"][key]
    with pytest.raises(BadData, match=key):
        list(connect(server).read(DIRECTORY))


def test_a_team_without_a_list_of_members_is_not_empty(server: ZendutyServer, connect: Connect) -> None:
    """An empty team is a finding."""
    del server.teams["t1"]["members"]
    with pytest.raises(BadData, match="members of team t1"):
        list(connect(server).read(DIRECTORY))


# Turns


def test_users_take_turns_by_their_position(server: ZendutyServer, connect: Connect) -> None:
    """From the rotation's start on, whatever the order of the list."""
    server.add_schedule("t1", "s1", "P", layer(["u-ada", "u-bo", "u-chi"], iso(-25), DAY))
    records = list(connect(server).read(SCHEDULES))
    assert shifts(records)[:3] == [
        ("u-ada", at(47), at(71)),
        ("u-ada", at(119), at(143)),
        ("u-bo", at(-1), at(23)),
    ]
    assert len(shifts(records)) == 8
    assert gaps(records) == ["schedules_computed"]


def test_a_rotation_that_has_not_begun_or_is_over_has_nobody(server: ZendutyServer, connect: Connect) -> None:
    """And one that ends cuts its last turn."""
    server.add_schedule("t1", "s1", "ahead", layer(["u-ada", "u-bo"], iso(8 * 24), DAY))
    server.add_schedule("t1", "s2", "over", layer(["u-ada", "u-bo"], iso(-99), DAY, rotation_end_time=iso(0)))
    server.add_schedule("t1", "s3", "ends", layer(["u-ada", "u-bo"], iso(-1), DAY, rotation_end_time=iso(30)))
    server.add_schedule("t1", "s4", "begins", layer(["u-ada", "u-bo"], iso(5), WEEK))
    assert shifts(list(connect(server).read(SCHEDULES))) == [
        ("u-ada", at(-1), at(23)),
        ("u-ada", at(5), at(173)),
        ("u-bo", at(23), at(30)),
    ]


def test_one_user_alone_is_on_call_without_hand_overs(server: ZendutyServer, connect: Connect) -> None:
    """To an end that does not move with the poll."""
    server.add_schedule("t1", "s1", "P", layer(["u-ada"], iso(-9), DAY))
    assert shifts(list(connect(server).read(SCHEDULES))) == [("u-ada", at(-9), FOREVER)]


def test_a_second_poll_says_the_same(server: ZendutyServer, connect: Connect) -> None:
    """An hour later the same shifts are the same, to the second: nothing is rewritten."""
    server.add_schedule("t1", "s1", "P", layer(["u-ada", "u-bo"], iso(-25), DAY), zone="Europe/Berlin")
    first = shifts(list(connect(server).read(SCHEDULES)))
    assert shifts(list(connect(server, now=NOW + 3600).read(SCHEDULES))) == first


def test_layers_add_up(server: ZendutyServer, connect: Connect) -> None:
    """Where two overlap both are on call; one that is off, or has no users, is not there."""
    server.add_schedule(
        "t1",
        "s1",
        "P",
        layer(["u-ada"], iso(-9), DAY),
        layer(["u-bo"], iso(-9), DAY),
        layer(["u-chi"], iso(-9), DAY, is_active=False),
        layer([], iso(-9), DAY),
    )
    assert [s[0] for s in shifts(list(connect(server).read(SCHEDULES)))] == ["u-ada", "u-bo"]


# Restrictions


def test_a_daily_restriction_is_of_the_local_day(server: ZendutyServer, connect: Connect) -> None:
    """Nine to five in Tokyo, each day; whatever day of the week it carries."""
    office = [restriction("09:00:00", 8 * 3600, 7)]
    server.add_schedule(
        "t1",
        "s1",
        "P",
        layer(["u-ada"], iso(-99), DAY, restriction_type=1, restrictions=office),
        zone="Asia/Tokyo",
    )
    found = shifts(list(connect(server).read(SCHEDULES)))
    assert found[0] == ("u-ada", at(16), at(24))  # NOW is 17:00 in Tokyo
    assert len(found) == 7


def test_a_restriction_over_midnight_is_open_the_morning_after(server: ZendutyServer, connect: Connect) -> None:
    """20:00 to 08:30, at 08:00."""
    night = [restriction("20:00:00", 12 * 3600 + 1800)]
    server.add_schedule("t1", "s1", "P", layer(["u-ada"], iso(-99), DAY, restriction_type=1, restrictions=night))
    assert shifts(list(connect(server).read(SCHEDULES)))[0] == ("u-ada", at(-12), at(0.5))


@pytest.mark.parametrize(("day", "begins"), [(1, 144), (2, 0), (3, 24), (7, 120), (0, 0)])
def test_a_weekly_restriction_counts_from_sunday(
    server: ZendutyServer, connect: Connect, day: int, begins: int
) -> None:
    """1 is Sunday, 7 Saturday, 0 each day. NOW is a Monday."""
    hours = [restriction("08:00:00", 3600, day)]
    server.add_schedule("t1", "s1", "P", layer(["u-ada"], iso(-999), DAY, restriction_type=2, restrictions=hours))
    found = shifts(list(connect(server).read(SCHEDULES)))
    assert found[0] == ("u-ada", at(begins), at(begins + 1))
    assert len(found) == (7 if day == 0 else 1)


def test_a_weekend_that_lasts_days_is_open_on_its_last(server: ZendutyServer, connect: Connect) -> None:
    """From Friday 18:00 for 63 hours, to Monday 09:00: at Monday 08:00."""
    weekend = [restriction("18:00:00", 63 * 3600, 6)]
    server.add_schedule("t1", "s1", "P", layer(["u-ada"], iso(-999), DAY, restriction_type=2, restrictions=weekend))
    assert shifts(list(connect(server).read(SCHEDULES))) == [("u-ada", at(-62), at(1)), ("u-ada", at(106), at(169))]


def test_a_restricted_layer_without_restrictions_has_nobody(server: ZendutyServer, connect: Connect) -> None:
    """Rather than everybody at all times."""
    server.add_schedule("t1", "s1", "P", layer(["u-ada"], iso(-9), DAY, restriction_type=1))
    assert shifts(list(connect(server).read(SCHEDULES))) == []


# Daylight saving


def test_an_hour_in_doubt_is_nobodys(server: ZendutyServer, connect: Connect) -> None:
    """Begun in summer: the hand-over is at 09:00 by the clock or an hour earlier; between the two nobody is on call."""
    start = datetime(2026, 9, 7, 9, tzinfo=ZoneInfo("Europe/Berlin")).isoformat()
    server.add_schedule("t1", "s1", "P", layer(["u-ada", "u-bo"], start, DAY), zone="Europe/Berlin")
    records = list(connect(server).read(SCHEDULES))
    found = sorted(shifts(records), key=lambda shift: shift[1])
    assert gaps(records) == ["schedules_computed", "daylight_saving"]
    assert found[0] == ("u-bo", at(0), at(23))  # 09:00 in Berlin to 08:00 of the next day
    assert found[1] == ("u-ada", at(24), at(47))
    assert all(after[1] - before[2] == 3600 for before, after in pairwise(found))


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Asia/Calcutta"])
def test_zones_without_daylight_saving_leave_no_doubt(server: ZendutyServer, connect: Connect, zone: str) -> None:
    """However long ago the rotation began."""
    server.add_schedule("t1", "s1", "P", layer(["u-ada", "u-bo"], "2022-07-08T08:00:00Z", DAY), zone=zone)
    records = list(connect(server).read(SCHEDULES))
    assert gaps(records) == ["schedules_computed"]
    found = sorted(shifts(records), key=lambda shift: shift[1])
    assert all(after[1] == before[2] for before, after in pairwise(found))


def test_a_rotation_begun_in_the_same_season_leaves_no_doubt(server: ZendutyServer, connect: Connect) -> None:
    """Winter then and now: both ways of counting agree."""
    server.add_schedule("t1", "s1", "P", layer(["u-ada", "u-bo"], "2025-12-01T08:00:00Z", DAY), zone="Europe/Berlin")
    records = list(connect(server).read(SCHEDULES))
    assert gaps(records) == ["schedules_computed"]
    assert len(shifts(records)) == 7


# Overrides


def test_while_an_override_lasts_its_user_is_on_call(server: ZendutyServer, connect: Connect) -> None:
    """Before and after it the layer is; one outside of the coming week is nothing."""
    server.add_schedule(
        "t1",
        "s1",
        "P",
        layer(["u-ada"], iso(-9), DAY),
        overrides=[
            override("u-bo", iso(1), iso(2)),
            override("u-chi", iso(-3), iso(0)),
            override("u-chi", iso(999), iso(1000)),
        ],
    )
    assert shifts(list(connect(server).read(SCHEDULES))) == [
        ("u-ada", at(-9), at(1)),
        ("u-ada", at(2), FOREVER),
        ("u-bo", at(1), at(2)),
    ]


def test_an_override_of_several_layers_leaves_only_its_user(server: ZendutyServer, connect: Connect) -> None:
    """The API does not tell which layer it is for: nobody is on call who may not be."""
    server.add_schedule(
        "t1",
        "s1",
        "P",
        layer(["u-ada"], iso(-9), DAY),
        layer(["u-bo"], iso(-9), DAY),
        overrides=[override("u-chi", iso(-1), iso(2))],
    )
    records = list(connect(server).read(SCHEDULES))
    assert gaps(records) == ["schedules_computed", "overrides_of_several_layers"]
    assert [s for s in shifts(records) if s[1] <= NOW < s[2]] == [("u-chi", at(-1), at(2))]


# What may not be computed from


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"time_zone": "Mars/Olympus"}, "time zone"),
        ({"time_zone": "../../etc/passwd"}, "time zone"),
        ({"time_zone": None}, "time_zone"),
        ({"layers": None}, "layers"),
        ({"overrides": None}, "overrides"),
        ({"overrides": [{**override("u", iso(0), iso(1)), "user": None}]}, "user"),
        ({"overrides": [override("u", "2026-11-23T08:00:00", iso(1))]}, "time"),
        ({"layers": [{**layer(["a", "b"], iso(0), DAY), "shift_length": None}]}, "shift_length"),
        ({"layers": [layer(["a", "b"], iso(0), 0)]}, "shifts of 0 s"),
        ({"layers": [layer(["a", "b"], iso(0), -5)]}, "shifts of -5 s"),
        ({"layers": [{**layer(["a", "b"], iso(0), DAY), "users": None}]}, "users"),
        ({"layers": [{**layer(["a"], iso(0), DAY), "users": [{"user": "a"}]}]}, "position"),
        ({"layers": [{**layer(["a", "b"], iso(0), DAY), "rotation_start_time": None}]}, "time"),
        ({"layers": [{**layer(["a", "b"], iso(0), DAY), "restriction_type": 9}]}, "type 9"),
        ({"layers": [{**layer(["a", "b"], iso(0), DAY), "restriction_type": None}]}, "restriction_type"),
        (
            {"layers": [layer(["a"], iso(0), DAY, restriction_type=1, restrictions=[restriction("noon", 9)])]},
            "time of day",
        ),
    ],
)
def test_a_schedule_that_cannot_be_understood_fails_the_scope(
    server: ZendutyServer, connect: Connect, change: dict[str, Any], said: str
) -> None:
    """Never nobody, never somebody by a default."""
    server.add_schedule("t1", "s1", "P", layer(["u-ada"], iso(-9), DAY))
    server.schedules["t1"][0] |= change
    with pytest.raises((BadData, ServerFault), match=said):
        list(connect(server).read(SCHEDULES))


def test_shifts_of_a_minute_for_years_are_computed_quickly(server: ZendutyServer, connect: Connect) -> None:
    """Only those of the coming week are looked at."""
    server.add_schedule("t1", "s1", "P", layer(["u-ada", "u-bo"], "1999-01-01T00:00:00Z", 60))
    assert len(shifts(list(connect(server).read(SCHEDULES)))) == WEEK // 60


def test_a_team_deleted_meanwhile_fails_the_scope(server: ZendutyServer, connect: Connect) -> None:
    """404 of one that was listed a moment ago."""
    with server.broken("schedules", 1, Answer(404)), pytest.raises(Incomplete, match="gone"):
        list(connect(server).read(SCHEDULES))


@pytest.mark.parametrize("id_", ["../members", "a/b?c=d", "t 1#x", "ключ"])
def test_ids_go_quoted_into_paths(server: ZendutyServer, connect: Connect, id_: str) -> None:
    """An id leads to no other call."""
    server.add_team(id_, "Odd")
    server.add_schedule(id_, "s1", "P", layer(["u-ada"], iso(-9), DAY))
    assert len(shifts(list(connect(server).read(SCHEDULES)))) == 1


# The arithmetic, by what it means: who is on call at a moment

spans = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30))
    .map(lambda ab: (float(min(ab)), float(max(ab))))
    .filter(lambda s: s[0] < s[1]),
    max_size=6,
)


def held(some: list[tuple[float, float]], moment: float) -> bool:
    return any(a <= moment < b for a, b in some)


@given(spans, spans)
def test_spans_mean_moments(some: list[tuple[float, float]], others: list[tuple[float, float]]) -> None:
    """Union, both, and the one without the other, at every moment."""
    for moment in (n / 2 for n in range(62)):
        a, b = held(some, moment), held(others, moment)
        assert held(_union(some), moment) == a
        assert held(_both(some, others), moment) == (a and b)
        assert held(_without(some, others), moment) == (a and not b)


@given(
    st.integers(1, 4),
    st.integers(60, 30 * DAY),
    st.integers(-400 * DAY, 10 * DAY),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(0, int(SHIFT_HORIZON)),
)
def test_at_every_moment_the_turn_is_whose_it_is(users: int, length: int, begins: int, zone: str, after: int) -> None:
    """Of one layer nobody else is ever on call than whose turn it is by both ways of counting, nor two at once."""
    length = max(length, 600)
    start, moment = NOW + begins, NOW + after
    names = [f"u{n}" for n in range(users)]
    row = {
        "time_zone": zone,
        "layers": [layer(names, datetime.fromtimestamp(start, UTC).isoformat(), length)],
        "overrides": [],
    }
    found = [
        user
        for record in _on_call(row, "a schedule", NOW)
        if not isinstance(record, Gap)
        for user, spans in [record]
        if held(spans, moment)
    ]
    if moment < start:
        assert found == []
        return
    local = [datetime.fromtimestamp(t, ZoneInfo(zone)).replace(tzinfo=None) for t in (start, moment)]
    ways = {int((moment - start) // length), int((local[1] - local[0]).total_seconds() // length)}
    if len(ways) == 1:
        turn = names[ways.pop() % users]
        assert found in ([turn], []) if zone != "UTC" and users > 1 else found == [turn]
    else:
        assert found == (names if users == 1 else [])


# Errors and check


def test_a_wrong_token_is_unauthenticated_though_it_is_a_403(server: ZendutyServer, connect: Connect) -> None:
    """Zenduty's sentence tells; the token is in no part of the error."""
    wrong = "of-another-SECRET"
    with pytest.raises(Unauthenticated) as caught:
        list(connect(server, secret=wrong).read(DIRECTORY))
    assert wrong not in "".join(traceback.format_exception(caught.value))
    assert len(server.requests) == 1


def test_a_429_waits_as_it_asks(server: ZendutyServer, connect: Connect, sleeps: list[float]) -> None:
    """By Retry-After."""
    with server.broken("teams", 1, Answer(429, {"detail": "Request was throttled."}, {"Retry-After": "31"}, times=1)):
        list(connect(server).read(DIRECTORY))
    assert sleeps == [31.0]


def test_check_says_what_the_key_may_not(server: ZendutyServer, connect: Connect) -> None:
    """Schedules of one team stand for all."""
    server.may_read_schedules = False
    checks = list(connect(server).check())
    assert [(c.what, c.ok) for c in checks] == [("read users", True), ("read teams", True), ("read schedules", False)]
    assert "You do not have permission" in checks[2].detail
    connector = connect(server)
    assert list(connector.read(DIRECTORY))
    with pytest.raises(Forbidden):
        list(connector.read(SCHEDULES))
