"""What the `scim` connector follows, and what it does not trust."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import connectors.retry
from config.secrets import resolve
from connectors.errors import ConnectorError, Incomplete, ServerFault, StaleBookmark
from connectors.scim import DIRECTORY, Scim, ScimOptions
from connectors.values import Bookmark, Change, Kind, Principal, Ref
from daemon.child import Job, read
from daemon.spool import SpoolWriter
from tests.connectors.rig import Content
from tests.harness import World, configuration, integration
from tests.servers.oncall import Answer, Page, Refusal
from tests.servers.scim import RealScimServer, ScimServer

MINUTE, HOUR = 60.0, 3600.0


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connectors.retry, "sleep", lambda _seconds: None)


@pytest.fixture
def server() -> Iterator[ScimServer]:
    """Seven users, three groups, each an hour younger than the one before; some were modified since."""
    with ScimServer(page=100) as server:
        fill(server, 7)
        yield server


def fill(server: ScimServer, users: int, *, apart: float = HOUR) -> None:
    server.config = {"filter": {"supported": True, "maxResults": 500}}
    for n in range(users):
        server.add_user(f"u{n}", f"user{n}")
        server.advance(apart)
    for id_, name in (("g1", "Payments"), ("g2", "All"), ("g3", "Empty")):
        server.add_group(id_, name)
        server.advance(HOUR)
    server.set_members("g1", ("User", "u1"), ("User", "u2"))
    server.set_members("g2", ("Group", "g1"), ("User", "u3"))
    server.add_user("u0", "user0", displayName="Zero")
    server.advance(HOUR)


class Directory:
    """What the runs of a connector know of a server, each a connector of its own, with time in between."""

    def __init__(self, server: ScimServer | RealScimServer, folder: Path) -> None:
        self.server = server
        self.token = folder / "token"
        self.token.write_text(server.token)
        self.content = Content()

    def connector(self, **kinds: Any) -> Scim:
        told = {"endpoint": f"{self.server.url}/v2", "token": {"file": str(self.token)}, "ca_file": self.server.ca_file}
        options = ScimOptions.model_validate({**told, "timeout": "10s"})
        resolve(options)
        return Scim(options)

    @property
    def bookmark(self) -> str | None:
        return self.content.bookmarks.get(DIRECTORY)

    def whole(self) -> int:
        """Read all; how many requests that took."""
        self.content = Content()
        return self._take(lambda connector: connector.read(DIRECTORY))

    def follow(self) -> int:
        """Read what has changed; how many requests that took."""
        bookmark = self.bookmark
        assert bookmark is not None
        return self._take(lambda connector: connector.changes(DIRECTORY, bookmark))

    def _take(self, read: Callable[[Scim], Iterator[Change]]) -> int:
        before = len(self.server.requests)
        self.content.seen = []
        with contextlib.closing(self.connector()) as connector:
            for record in read(connector):
                self.content.take(DIRECTORY, record)
        return len(self.server.requests) - before

    def agrees(self) -> bool:
        """Whether a whole read would find the same."""
        other = Directory(self.server, self.token.parent)
        other.whole()
        return other.content.keys() == self.content.keys()


@pytest.fixture
def directory(server: ScimServer, tmp_path: Path) -> Directory:
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark
    return directory


# ── what it costs ──


@pytest.mark.parametrize(("users", "requests"), [(1_000, 24), (10_000, 114)])
def test_a_change_of_one_member_costs_the_same_in_any_directory(tmp_path: Path, users: int, requests: int) -> None:
    """A whole read takes a request for each 99 users; the change of a membership seven, however many there are."""
    with ScimServer(page=100) as server:
        fill(server, users, apart=1)
        for n in range(200):
            server.add_group(f"team{n}", f"Team {n}", *(("User", f"u{m}") for m in range(n, users, 200)))
        server.advance(HOUR)
        directory = Directory(server, tmp_path)
        assert directory.whole() == requests
        directory.follow()  # those of the last minutes come twice
        server.advance(HOUR)
        directory.follow()
        before = directory.content.keys()
        server.set_members("team7", ("User", "u8"))
        server.advance(HOUR)
        assert directory.follow() == 7
        assert directory.content.seen == [Ref(Kind.GROUP, "team7")]
        after = directory.content.keys()
        assert after - before == {"user u8 in group team7"}
        assert before - after == {f"user u{n} in group team7" for n in range(7, users, 200)}


def test_nothing_new_costs_seven_requests(directory: Directory) -> None:
    """One for the configuration; for each list what is new, whether it still filters, and its length."""
    for _ in range(3):
        directory.server.advance(HOUR)
        requests = directory.follow()
    assert requests == 7
    assert directory.content.seen == []


def test_a_bookmark_is_short_and_holds_no_secret(server: ScimServer, directory: Directory) -> None:
    """Four numbers for each list, and something for each of those that were created in the last minutes."""
    server.add_user("u7", "user7")
    server.add_user("u8", "user8")
    directory.follow()
    bookmark = directory.bookmark
    assert bookmark is not None
    assert {path: len(mark) for path, mark in json.loads(bookmark).items()} == {"Users": 6, "Groups": 4}
    assert directory.server.token not in bookmark


# ── what is followed ──


def test_what_was_added_edited_and_left(server: ScimServer, directory: Directory) -> None:
    """Users, groups, and members of both kinds."""
    server.add_user("u7", "user7")
    server.add_user("u3", "user3", active=False, displayName="Three")
    server.add_group("g4", "New", ("User", "u7"))
    server.set_members("g1", ("User", "u2"), ("Group", "g4"))
    server.set_members("g2")
    for _ in range(3):
        directory.follow()
        assert directory.agrees()
        server.advance(HOUR)


@pytest.mark.parametrize("typed", [("type", "$ref"), ()])
@pytest.mark.parametrize("told", ["always", "request", "alone"])
def test_members_are_followed_however_they_are_told(
    server: ScimServer, tmp_path: Path, typed: tuple[str, ...], told: str
) -> None:
    """Untyped ones are told apart by the list of all groups."""
    server.typed, server.members_told = typed, told
    directory = Directory(server, tmp_path)
    directory.whole()
    server.set_members("g3", ("User", "u5"), ("Group", "g1"), ("User", "u99"))
    directory.follow()
    assert directory.agrees()


def test_an_id_of_a_user_and_a_group_is_never_guessed(server: ScimServer, tmp_path: Path) -> None:
    """Which the whole read says: such a bookmark does not go on."""
    server.typed = ()
    directory = Directory(server, tmp_path)
    directory.whole()
    server.add_user("g1", "also g1")
    server.set_members("g3", ("User", "g1"))
    with pytest.raises(StaleBookmark, match="a user and a group"):
        directory.follow()


def test_a_change_behind_the_reader_is_followed(server: ScimServer, tmp_path: Path) -> None:
    """A row that changes after its page was read, and before another one does, is older than the newest that is seen."""
    server.page = 3

    def before(name: str, start: int) -> None:
        if name == "Users" and start in {3, 5}:
            server.advance(MINUTE)
            server.add_user("u0" if start == 3 else "u6", f"user{start}")

    server.before = before
    directory = Directory(server, tmp_path)
    directory.whole()
    server.before = lambda _name, _start: None
    assert not directory.agrees()
    directory.follow()
    assert directory.agrees()


def test_a_whole_read_may_take_long(server: ScimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changed behind the reader an hour before the newest is asked for, too."""
    monkeypatch.setattr("connectors.scim_changes.monotonic", lambda: server.clock)
    server.page = 3

    def before(name: str, start: int) -> None:
        if name == "Users" and start in {3, 5}:
            server.add_user("u0" if start == 3 else "u6", f"user{start}")
            server.advance(HOUR)

    server.before = before
    directory = Directory(server, tmp_path)
    directory.whole()
    server.before = lambda _name, _start: None
    directory.follow()
    assert directory.agrees()


def test_a_read_of_more_than_a_day_gives_no_bookmark(
    server: ScimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To follow it would be to read a day's changes each time."""
    times = itertools.count(0, 90_000)
    monkeypatch.setattr("connectors.scim_changes.monotonic", lambda: next(times))
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark is None


@pytest.mark.parametrize("late", [0.0, 0.5, 1.0, 240.0])
def test_a_change_that_shows_up_late_is_followed(server: ScimServer, directory: Directory, late: float) -> None:
    """Its moment is before that of another one, which was read already."""
    server.advance(HOUR)
    server.add_user("u5", "newest")
    directory.follow()
    now = server.clock
    server.clock = now - late
    server.set_members("g2", ("User", "u4"))
    server.add_user("u4", "late")
    server.clock = now + 30
    directory.follow()
    assert directory.agrees()


def test_once_it_is_old_the_newest_is_not_read_again(server: ScimServer, directory: Directory) -> None:
    """Until then, it is: another one may show up behind it."""
    for _ in range(2):
        server.advance(HOUR)
        directory.follow()
    server.add_user("u5", "newest")
    directory.follow()
    directory.follow()
    assert Ref(Kind.USER, "u5") in directory.content.seen
    server.advance(HOUR)
    directory.follow()
    assert directory.content.seen == [Ref(Kind.USER, "u5")]
    directory.follow()
    assert directory.content.seen == []


def test_without_a_date_the_newest_is_read_each_time(server: ScimServer, tmp_path: Path) -> None:
    """Nothing tells how old it is."""
    server.says_date = False
    directory = Directory(server, tmp_path)
    directory.whole()
    for _ in range(3):
        server.advance(HOUR)
        directory.follow()
        assert Ref(Kind.USER, "u0") in directory.content.seen
    server.set_members("g1", ("User", "u6"))
    directory.follow()
    assert directory.agrees()


def _iso(clock: float, zone: timezone = UTC) -> str:
    return datetime.fromtimestamp(clock, zone).isoformat()


STAMPS: dict[str, Callable[[float], str]] = {
    "no zone": lambda clock: _iso(clock).removesuffix("+00:00"),
    "Z": lambda clock: _iso(clock).replace("+00:00", "Z"),
    "seven digits": lambda clock: _iso(int(clock)).replace("+00:00", ".1234567Z"),
    "whole seconds": lambda clock: _iso(int(clock)),
    "another zone": lambda clock: _iso(clock, timezone(timedelta(hours=-5))),
    "local time as UTC, behind": lambda clock: _iso(clock - 5 * HOUR),
    "local time as UTC, ahead": lambda clock: _iso(clock + 9.5 * HOUR),
}


@pytest.mark.parametrize("stamp", STAMPS.values(), ids=list(STAMPS))
def test_moments_are_the_services_own(server: ScimServer, tmp_path: Path, stamp: Callable[[float], str]) -> None:
    """However they are written, and however wrong: they are compared with one another, and with no other clock."""
    server.stamp = stamp
    directory = Directory(server, tmp_path)
    directory.whole()
    for n in range(4):
        server.advance(HOUR)
        server.set_members("g1", ("User", f"u{n}"))
        server.add_user(f"v{n}", f"new{n}")
        directory.follow()
        assert directory.agrees()


# ── what is deleted ──


@pytest.mark.parametrize("path", ["users", "groups"])
def test_a_deletion_makes_the_bookmark_stale(server: ScimServer, directory: Directory, path: str) -> None:
    """The list is shorter than its changes tell."""
    del getattr(server, path)["u6" if path == "users" else "g3"]
    with pytest.raises(StaleBookmark, match=r"rows, and by its changes"):
        directory.follow()


@pytest.mark.parametrize("path", ["users", "groups"])
def test_one_added_hides_no_deletion(server: ScimServer, directory: Directory, path: str) -> None:
    """The list is as long as before, and that is one too short."""
    if path == "users":
        del server.users["u6"]
        server.add_user("u7", "user7")
    else:
        del server.groups["g3"]
        server.add_group("g4", "New")
    with pytest.raises(StaleBookmark):
        directory.follow()


def test_one_added_just_before_the_last_read_is_counted_once(server: ScimServer, directory: Directory) -> None:
    """Though it is told again."""
    server.add_user("u7", "user7")
    for _ in range(4):
        server.advance(MINUTE)
        directory.follow()
        assert directory.agrees()
    del server.users["u7"]
    with pytest.raises(StaleBookmark):
        directory.follow()


def test_one_that_came_and_went_between_runs_is_noticed(server: ScimServer, directory: Directory) -> None:
    """Though the list is as long as it was without it, and others were modified after it."""
    server.add_user("u7", "user7")
    server.add_user("u1", "newer")
    directory.follow()
    del server.users["u7"]
    with pytest.raises(StaleBookmark, match="one of the latest"):
        directory.follow()


def test_one_that_came_and_went_while_it_was_read_is_noticed(server: ScimServer, directory: Directory) -> None:
    """Between two readings of what was modified."""
    server.add_user("u7", "user7")
    calls = itertools.count()

    def before(name: str, _start: int) -> None:
        if name == "Users" and (call := next(calls)) in {2, 3}:
            if call == 3:
                del server.users["u7"]
            server.add_user(f"v{call}", "new")

    server.before = before
    with pytest.raises(StaleBookmark):
        directory.follow()


def test_too_many_that_were_created_at_once_give_no_bookmark(
    server: ScimServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold all their ids."""
    monkeypatch.setattr("connectors.scim_changes.MOST_RECENT", 3)
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark is not None
    for n in range(9):
        server.add_user(f"v{n}", "new")
    with pytest.raises(StaleBookmark, match="too many"):
        directory.follow()
    directory.whole()
    assert directory.bookmark is None


def test_one_that_is_added_meanwhile_is_asked_for_again(server: ScimServer, directory: Directory) -> None:
    """The list is longer than its changes tell: that is no reason to read it whole."""
    calls = itertools.count()

    def before(name: str, _start: int) -> None:
        if name == "Users" and next(calls) == 2:
            server.add_user("u7", "user7")

    server.before = before
    server.advance(HOUR)
    directory.follow()
    assert directory.agrees()


def test_a_list_that_stays_longer_makes_the_bookmark_stale(server: ScimServer, directory: Directory) -> None:
    """One that came back from the dead, say, as old as it was."""
    back = {**server.users["u1"], "id": "u8"}
    server.users["u8"] = back
    with pytest.raises(StaleBookmark, match="8 rows, and by its changes 7"):
        directory.follow()


def test_a_deletion_that_an_addition_hides_for_now_shows_the_next_time(
    server: ScimServer, directory: Directory
) -> None:
    """One added between the list of changes and the question for its length."""
    calls = itertools.count()
    server.advance(HOUR)
    directory.follow()
    server.advance(HOUR)
    directory.follow()
    del server.users["u6"]

    def before(name: str, _start: int) -> None:
        if name == "Users" and next(calls) == 1:
            server.add_user("u7", "user7")

    server.before = before
    directory.follow()
    server.before = lambda _name, _start: None
    with pytest.raises(StaleBookmark):
        directory.follow()


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_the_runs_end_where_a_whole_read_does(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any changes, between reads and in the middle of them, at any pace: no run is wrong of what held still."""
    dice = random.Random(seed)
    with ScimServer(page=dice.choice([2, 3, 100])) as server:
        fill(server, 8, apart=dice.choice([0, 1, HOUR]))
        server.typed = dice.choice([("type",), ()])
        monkeypatch.setattr("connectors.scim_changes.monotonic", lambda: server.clock)
        names = itertools.count(100)

        def change() -> None:
            server.advance(dice.choice([0, 0.3, 1, 50, 400, HOUR]))
            users, groups = list(server.users), list(server.groups)
            match dice.randrange(7):
                case 0:
                    server.add_user(f"u{next(names)}", "new")
                case 1:
                    server.add_user(dice.choice(users), f"edited{next(names)}")
                case 2:
                    server.add_group(f"g{next(names)}", "New", ("User", dice.choice(users)))
                case 3 | 4 | 5:
                    some = [("User", u) for u in dice.sample(users, 2)] + [("Group", dice.choice(groups))]
                    server.set_members(dice.choice(groups), *some[: dice.randrange(4)])
                case 6 if dice.random() < 0.5:
                    of = server.users if dice.random() < 0.5 and len(users) > 3 else server.groups
                    if len(of) > 2:
                        del of[dice.choice(list(of))]

        directory = Directory(server, tmp_path)
        followed = 0
        for _ in range(25):
            server.before = lambda _name, _start: change() if dice.random() < 0.05 else None
            try:
                with contextlib.suppress(Incomplete):
                    followed += run(directory)
            finally:
                server.before = lambda _name, _start: None
            if dice.random() < 0.4:  # it holds still for once
                followed += run(directory)
                assert directory.agrees()
            for _ in range(dice.randrange(3)):
                change()
        assert followed


def run(directory: Directory) -> bool:
    """One run, as the daemon does: what fails changes nothing. Whether changes were followed."""
    before = copy.deepcopy(directory.content)
    try:
        if directory.bookmark is not None:
            with contextlib.suppress(StaleBookmark):
                directory.follow()
                return True
        directory.whole()
    except ConnectorError:
        directory.content = before
        raise
    return False


# ── what is not trusted ──


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"filter": None},
        {"filter": {"supported": False}},
        {"filter": {"supported": "true"}},
        {"filter": {"supported": 1}},
    ],
)
def test_without_filters_there_is_no_bookmark(server: ScimServer, tmp_path: Path, config: Any) -> None:
    """And none is asked for."""
    server.config = config
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark is None
    assert not any("filter" in request or "meta" in request for request in server.requests)


@pytest.mark.parametrize("filtering", ["ignored", "refused", "nothing", "one"])
def test_a_service_that_filters_only_by_its_own_account_gets_no_bookmark(
    server: ScimServer, tmp_path: Path, filtering: str
) -> None:
    """It is read whole, and well."""
    server.filtering = filtering
    server.users["u4"]["meta"]["lastModified"] = server.users["u0"]["meta"]["lastModified"]
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark is None
    assert len(directory.content.seen) == 10


@pytest.mark.parametrize("filtering", ["ignored", "refused", "nothing"])
def test_a_service_that_filters_no_more_is_noticed(server: ScimServer, directory: Directory, filtering: str) -> None:
    """The next run reads all."""
    for _ in range(2):
        server.advance(HOUR)
        directory.follow()
    server.filtering = filtering
    with pytest.raises(StaleBookmark):
        directory.follow()
    directory.whole()
    assert directory.bookmark is None


def test_a_service_that_tells_of_no_filters_any_more_is_noticed(server: ScimServer, directory: Directory) -> None:
    """By its ServiceProviderConfig."""
    server.config = {"filter": {"supported": False}}
    with pytest.raises(StaleBookmark, match="ServiceProviderConfig"):
        directory.follow()


@pytest.mark.parametrize("status", [400, 403, 404, 501])
def test_a_filter_that_is_refused_makes_the_bookmark_stale(
    server: ScimServer, directory: Directory, status: int
) -> None:
    """With any word: the whole read tells whether it is the filter or the list."""
    with server.broken("Groups", 1, Answer(status, {"detail": "no"})), pytest.raises(StaleBookmark):
        directory.follow()


def test_a_service_that_knows_no_meta_by_name_is_read_whole(server: ScimServer, tmp_path: Path) -> None:
    """It refuses the attribute, and is asked without."""
    real = server.answer

    def answer(path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        if "meta" in query.get("attributes", [""])[0].split(","):
            raise Refusal(400, {"scimType": "invalidPath", "detail": "meta"})
        return real(path, query, headers)

    server.answer = answer  # type: ignore[method-assign]
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark is None
    assert len(directory.content.seen) == 10


def test_a_service_in_trouble_is_not_read_whole(server: ScimServer, directory: Directory) -> None:
    """That would not help it."""
    with server.broken("Groups", 1, Answer(500, {})), pytest.raises(ServerFault):
        directory.follow()


@pytest.mark.parametrize("status", [400, 403, 429, 500, 501])
def test_a_probe_that_fails_fails_no_whole_read(server: ScimServer, tmp_path: Path, status: int) -> None:
    """The list was read; only no bookmark is given."""
    real = server.answer

    def answer(path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        if "filter" in query:
            raise Refusal(status, {"detail": "no"})
        return real(path, query, headers)

    server.answer = answer  # type: ignore[method-assign]
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark is None
    assert len(directory.content.seen) == 10


@pytest.mark.parametrize(
    "stamp",
    [
        lambda _clock: None,
        lambda _clock: "yesterday",
        lambda clock: clock,
        lambda _clock: "0001-01-01T00:00:00Z",
        lambda _clock: "",
        lambda clock: [_iso(clock)],
    ],
)
def test_a_service_that_tells_no_moments_gets_no_bookmark(
    server: ScimServer, tmp_path: Path, stamp: Callable[[float], Any]
) -> None:
    """Neither one that writes something else in their place."""
    server.stamp, server.filtering = stamp, "ignored"
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark is None


def test_one_row_without_moments_is_enough(server: ScimServer, tmp_path: Path) -> None:
    """It would never be followed."""
    server.users["u3"]["meta"] = {"created": server.clock, "lastModified": 0}  # older than its creation
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark is None


@pytest.mark.parametrize("path", ["users", "groups"])
def test_a_service_on_which_nothing_was_ever_modified_gets_no_bookmark(
    server: ScimServer, tmp_path: Path, path: str
) -> None:
    """It may not keep record of that: some write when the object was created, for ever."""
    for row in getattr(server, path).values():
        row["meta"]["lastModified"] = row["meta"]["created"] + 2
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark is None


def test_totals_that_are_not_true_give_no_bookmark(server: ScimServer, tmp_path: Path) -> None:
    """Deletions would not be noticed."""
    server.total = lambda _of, rows: rows
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark is None


def test_a_service_that_hides_members_gets_no_bookmark(server: ScimServer, tmp_path: Path) -> None:
    """So that the gap is told again each time."""
    for group in server.groups.values():
        group["members"] = []
    directory = Directory(server, tmp_path)
    directory.whole()
    assert [gap.code for gap in directory.content.gaps] == ["members_hidden"]
    assert directory.bookmark is None


def test_members_that_modify_no_group_wait_for_the_whole_read(server: ScimServer, directory: Directory) -> None:
    """Against RFC 7643, 3.1, and not to be noticed: `whole_interval` says for how long."""
    for _ in range(2):
        server.advance(HOUR)
        directory.follow()
    server.notes_members = False
    server.set_members("g1", ("User", "u6"))
    directory.follow()
    assert not directory.agrees()
    directory.whole()
    assert directory.agrees()


@pytest.mark.parametrize(
    "bookmark",
    [
        "", "x", "[]", "{}", "null", "7", '{"Users":[1,1,null,1]}', '{"Users":[1,1,1],"Groups":[1,1,1]}',
        '{"Users":["1",1,null,1],"Groups":[1,1,null,1]}', '{"Users":[1,1,null,true],"Groups":[1,1,null,1]}',
        '{"Users":[-1,1,null,1],"Groups":[1,1,null,1]}', '{"Users":[1e99,1,null,1],"Groups":[1,1,null,1]}',
        '{"Users":[1,1,null,1,7],"Groups":[1,1,null,1]}', '{"Users":[1,99999999999999,null,1],"Groups":[1,1,null,1]}', '{"Users":[1,1,"x",1],"Groups":[1,1,null,1]}',
    ],
)  # fmt: skip
def test_what_is_no_bookmark_is_stale(directory: Directory, bookmark: str) -> None:
    """Nothing is asked with it."""
    requests = len(directory.server.requests)
    with contextlib.closing(directory.connector()) as connector, pytest.raises(StaleBookmark, match="none of ours"):
        list(connector.changes(DIRECTORY, bookmark))
    assert len(directory.server.requests) == requests


def test_without_groups_only_users_are_followed(server: ScimServer, tmp_path: Path) -> None:
    """And a bookmark of users is none of groups."""
    directory = Directory(server, tmp_path)
    with contextlib.closing(directory.connector()) as connector:
        connector.kinds = frozenset({Kind.USER})
        *_, bookmark = connector.read(DIRECTORY)
        assert isinstance(bookmark, Bookmark)
        server.add_user("u7", "user7")
        found = [r.id for r in connector.changes(DIRECTORY, bookmark.token) if isinstance(r, Principal)]
        assert found == ["u0", "u7"] or found == ["u7"]
        assert not any("Groups" in request for request in server.requests)
        connector.kinds = frozenset(Kind)
        with pytest.raises(StaleBookmark):
            list(connector.changes(DIRECTORY, bookmark.token))


def test_a_group_that_goes_while_it_is_read_fails_the_run(server: ScimServer, directory: Directory) -> None:
    """Which changes nothing; the next one finds it gone."""
    server.members_told = "alone"
    server.set_members("g2", ("User", "u5"))
    with server.broken("group", 1, Answer(404, {"detail": "gone"})), pytest.raises(Incomplete):
        directory.follow()


# ── a real service ──


@pytest.mark.parametrize("cursor", [False, True])
def test_a_real_service_is_followed(tmp_path: Path, cursor: bool) -> None:
    """scim2-server: a member who joins, one who leaves, one who comes, and one who is deleted."""
    with RealScimServer(page=3, cursor=cursor) as server:
        ids = []
        for n in range(5):
            ids.append(server.add("Users", userName=f"user{n}"))
            server.advance(HOUR)
        group = server.add("Groups", displayName="Payments", members=[{"value": ids[0], "type": "User"}])
        server.add("Groups", displayName="Other")
        server.advance(HOUR)
        server.edit("Users", ids[0], userName="user0", displayName="Zero")
        joins = {"op": "add", "path": "members", "value": [{"value": ids[1], "type": "User"}]}
        server.patch("Groups", group, joins)
        directory = Directory(server, tmp_path)
        directory.whole()
        server.advance(HOUR)
        directory.follow()
        for operation in (
            {"op": "add", "path": "members", "value": [{"value": ids[2], "type": "User"}]},
            {"op": "remove", "path": f'members[value eq "{ids[0]}"]'},
        ):
            server.advance(HOUR)
            server.patch("Groups", group, operation)
            directory.follow()
            assert Ref(Kind.GROUP, group) in directory.content.seen
            assert directory.agrees()
        server.add("Users", userName="late")
        directory.follow()
        assert directory.agrees()
        server.delete("Users", ids[4])
        with pytest.raises(StaleBookmark):
            directory.follow()


# ── through to the database ──


def test_a_membership_reaches_the_database_and_a_deletion_too(server: ScimServer, tmp_path: Path) -> None:
    """Read whole, then by changes; a run whose bookmark is stale reads whole at once, and takes away what is gone."""
    directory = Directory(server, tmp_path)
    with contextlib.closing(World(tmp_path, configuration(integration()))) as world:

        def run() -> tuple[int, set[tuple[str, str]], set[str]]:
            """Requests that it took; members and principals after it."""
            world.runs += 1
            world.clock.now += 60
            server.advance(HOUR)
            before = len(server.requests)
            since = world.store.bookmarks("corp", base="b", whole_interval=86400)
            path = world.folder / "spool" / f"{world.runs}.db"
            spool = SpoolWriter(path, clock=world.clock)
            job = Job("corp", "directory", "scim", {}, [], str(path), since, "b")
            with contextlib.closing(directory.connector()) as connector:
                list(read(job, connector, spool))
            spool.finish([str(kind) for kind in Kind], base="b")
            assert world.store.run("corp", path).state == "ok"
            members = {(group, member) for group, member in world.query("SELECT group_pid, member_pid FROM member")}
            return len(server.requests) - before, members, {pid for (pid,) in world.query("SELECT pid FROM principal")}

        whole, members, people = run()
        assert len(members) == 4
        assert len(people) == 10
        run()
        run()
        server.set_members("g1", ("User", "u2"), ("User", "u5"))
        server.add_user("u7", "user7")
        requests, after, now = run()
        assert after - members == {("group:g1", "user:u5")}
        assert members - after == {("group:g1", "user:u1")}
        assert now - people == {"user:u7"}
        assert requests < whole
        del server.users["u5"]
        server.set_members("g1", ("User", "u2"))
        _, after, left = run()
        assert now - left == {"user:u5"}
        assert ("group:g1", "user:u5") not in after
        assert world.store.bookmarks("corp", base="b", whole_interval=86400).keys() == {DIRECTORY}
