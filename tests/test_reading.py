"""Scopes side by side and from bookmarks: what arrives at the spool, and what of it is merged."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.contract import Connector
from connectors.errors import BadData, ServerFault, StaleBookmark
from connectors.values import Bookmark, Change, Gap, Gone, Kind, Left, Record, Resource
from daemon.child import Job, read
from daemon.reading import messages
from daemon.spool import SpoolWriter
from tests.harness import World, configuration, group, integration, members, owned_by, resource, team, user


class Scripted(Connector):
    """A connector whose scopes yield what they are told; an exception is raised where it stands."""

    def __init__(self, **scopes: list[Change | Exception]) -> None:
        self.script = scopes
        self.calls: list[tuple[str, str | None]] = []

    def scopes(self) -> list[str]:
        return list(self.script)

    def read(self, scope: str) -> Iterator[Record]:
        self.calls.append((scope, None))
        for step in self.script[scope]:
            if isinstance(step, Exception):
                raise step
            assert not isinstance(step, Gone | Left)
            yield step

    def changes(self, scope: str, since: str) -> Iterator[Change]:
        self.calls.append((scope, since))
        if since == "old":
            yield Resource("half")
            raise StaleBookmark("too old")
        yield Resource(f"{scope}-changed")


class Parallel(Scripted):
    at_once = 4


def job(**since: str) -> Job:
    return Job("a", "integration", "file", {}, [], "spool", since)


def spooled(
    connector: Connector, folder: Path, **since: str
) -> tuple[dict[str, str], set[str], list[dict[str, object]]]:
    """The state of each scope, the resources, and the events."""
    import sqlite3

    path = folder / "spool.db"
    path.unlink(missing_ok=True)
    spool = SpoolWriter(path)
    events = list(read(job(**since), connector, spool))
    spool.finish([])
    with contextlib.closing(sqlite3.connect(path)) as db:
        states = dict(db.execute("SELECT name, state FROM scope").fetchall())
        return states, {rid for (rid,) in db.execute("SELECT rid FROM resource")}, events


@pytest.mark.parametrize("kind", [Scripted, Parallel])
def test_one_scope_fails_and_the_others_are_whole(kind: type[Scripted], tmp_path: Path) -> None:
    """What a failed scope had yielded is taken out; the others stand."""
    many: list[Change | Exception] = [Resource(f"b{i}") for i in range(1200)]
    connector = kind(a=[Resource("a1"), ServerFault("cut")], b=many, c=[], d=[Resource("d1")])
    states, found, events = spooled(connector, tmp_path)
    assert states == {"a": "failed", "b": "whole", "c": "whole", "d": "whole"}
    assert found == {*(f"b{i}" for i in range(1200)), "d1"}
    assert {"scope": "b", "rows": 1200, "done": True} in events


def test_what_two_scopes_list_survives_the_failure_of_either(tmp_path: Path) -> None:
    """A bucket that two regions list stays, though the one that was first to list it fails."""
    first = threading.Event()

    class Ordered(Parallel):
        def read(self, scope: str) -> Iterator[Record]:
            if scope == "a":
                yield from [Resource("shared") for _ in range(500)]  # a whole batch, so that it is spooled first
                first.set()
                raise ServerFault("cut")
            first.wait(10)
            yield Resource("shared")

    states, found, _ = spooled(Ordered(a=[], b=[]), tmp_path)
    assert states == {"a": "failed", "b": "whole"}
    assert found == {"shared"}


@pytest.mark.parametrize("kind", [Scripted, Parallel])
def test_scopes_that_contradict_each_other(kind: type[Scripted], tmp_path: Path) -> None:
    """Of two scopes that say different things of one id, the later fails; its other rows go with it."""
    connector = kind(a=[Resource("x", tags={"owner": "one"})], b=[Resource("x", tags={"owner": "two"}), Resource("y")])
    states, found, _ = spooled(connector, tmp_path)
    assert sorted(states.values()) == ["failed", "whole"]
    assert "y" not in found or states["b"] == "whole"
    assert "x" in found


def test_a_scope_that_contradicts_itself(tmp_path: Path) -> None:
    """One id with two contents fails its scope, and that one only."""
    connector = Scripted(a=[Resource("x"), Resource("x", name="other")], b=[Resource("y")])
    assert spooled(connector, tmp_path)[:2] == ({"a": "failed", "b": "whole"}, {"y"})


@pytest.mark.parametrize("kind", [Scripted, Parallel])
def test_a_stale_bookmark_reads_the_scope_whole(kind: type[Scripted], tmp_path: Path) -> None:
    """What its changes had yielded before is void."""
    connector = kind(a=[Resource("a1")], b=[Resource("b1")])
    states, found, _ = spooled(connector, tmp_path, a="old", b="good")
    assert states == {"a": "whole", "b": "changes"}
    assert found == {"a1", "b-changed"}


def test_who_stops_listening_stops_the_threads() -> None:
    """When the spool is full nobody waits for a thread that nobody reads."""

    class Endless(Parallel):
        def read(self, scope: str) -> Iterator[Record]:
            while True:
                yield Resource("again")

    arriving = messages(Endless(a=[], b=[], c=[]), ["a", "b", "c"], {}, sdk=contextlib.nullcontext)
    next(arriving)
    arriving.close()
    for thread in threading.enumerate():
        if thread.name.startswith("scope-"):
            thread.join(10)
            assert not thread.is_alive()


def test_only_changes_take_away(tmp_path: Path) -> None:
    """`Gone` in a whole read is a connector's mistake, and fails the scope."""
    states, _, _ = spooled(Scripted(a=[Gone("x")]), tmp_path)
    assert states == {"a": "failed"}


# --- the merge of changes --------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, configuration(integration()))
    made.run("corp", *team("team-a", "u1"), *team("platform", "p1"), Bookmark("d1"), base="o")
    made.run("aws", resource("r1", "team-a"), resource("r2"), resource("r3", parent="r1"), Bookmark("b1"), base="o")
    yield made
    made.close()


def bookmarks(world: World, source: str, base: str = "o", whole: float = 1e9) -> dict[str, str]:
    return world.store.bookmarks(source, base=base, whole_interval=whole)


def test_changes_touch_only_what_they_name(world: World) -> None:
    """A changed, a new and a gone resource; what is not named stays, and heirs follow."""
    report = world.run(
        "aws", resource("r1"), resource("r4", "team-a"), Gone("r2"), Bookmark("b2"), since="b1", base="o"
    )
    assert (report.state, report.counts.added, report.counts.changed, report.counts.removed) == ("ok", 1, 1, 1)
    assert world.owners() == {
        "r1": "tag_missing -> platform",
        "r3": "tag_missing -> platform",
        "r4": "team-a",
    }
    assert bookmarks(world, "aws") == {"all": "b2"}


def test_changes_of_another_bookmark_are_not_merged(world: World) -> None:
    """Changes fit the point that they were read from, and no other."""
    world.run("aws", Gone("r1"), Bookmark("b9"), since="b0", base="o")
    assert "r1" in world.owners()
    assert bookmarks(world, "aws") == {"all": "b1"}


def test_changes_of_other_options_are_not_merged(world: World) -> None:
    """A bookmark is good for the options that it was made with."""
    world.run("aws", Gone("r1"), Bookmark("b9"), since="b1", base="other")
    assert "r1" in world.owners()
    assert bookmarks(world, "aws", base="other") == {}


def test_a_whole_read_is_due_after_its_interval(world: World) -> None:
    """Changes do not put the whole read off; a clock that was set back does not either."""
    world.clock.now += 100
    world.run("aws", Bookmark("b2"), since="b1", base="o")
    assert bookmarks(world, "aws", whole=101) == {"all": "b2"}
    assert bookmarks(world, "aws", whole=99) == {}
    world.clock.now -= 1000
    assert bookmarks(world, "aws") == {}


def test_changes_without_a_new_bookmark_keep_the_old(world: World) -> None:
    """Nothing new is a good answer; the scope is as fresh as that answer."""
    world.clock.now += 50
    report = world.run("aws", since="b1", base="o")
    assert (report.state, report.counts.changed, report.counts.removed) == ("ok", 0, 0)
    assert bookmarks(world, "aws") == {"all": "b1"}
    assert world.query("SELECT read_at - whole_at FROM scope WHERE bookmark = 'b1'") == [(50.0,)]


def test_a_whole_read_without_a_bookmark_forgets_it(world: World) -> None:
    """A connector that can no longer follow is read whole."""
    world.run("aws", resource("r1", "team-a"), resource("r2"), resource("r3", parent="r1"), base="o")
    assert bookmarks(world, "aws") == {}


def test_a_failed_scope_keeps_its_bookmark(world: World) -> None:
    """What could not be told this time is told the next time."""
    world.run_scopes("aws", {"all": BadData("no")}, since={"all": "b1"}, base="o")
    assert bookmarks(world, "aws") == {"all": "b1"}


def test_the_guard_judges_changes(tmp_path: Path) -> None:
    """Changes that take too much away are held; the bookmark stays, so that they are told again."""
    world = World(tmp_path, configuration(integration()))
    world.run("corp", *team("platform", "p1"))
    world.run("aws", *(resource(f"r{i}") for i in range(20)), Bookmark("b1"))
    report = world.run("aws", *(Gone(f"r{i}") for i in range(8)), Bookmark("b2"), since="b1")
    assert report.state == "held"
    assert len(world.owners()) == 20
    assert bookmarks(world, "aws", base="") == {"all": "b1"}
    accepted = world.store.accept("aws")
    assert accepted is not None
    assert accepted.counts.removed == 8
    assert bookmarks(world, "aws", base="") == {"all": "b2"}
    world.close()


def test_what_is_accepted_late_does_not_undo_what_came_after(tmp_path: Path) -> None:
    """Of a held snapshot only the scopes count that have not been read since."""
    world = World(tmp_path, configuration(integration()))
    world.run("corp", *team("team-a", "u1"), *team("platform", "p1"))
    full = [resource(f"r{i}") for i in range(20)]
    world.run_scopes("aws", {"one": full, "two": [resource("x")]})
    world.clock.now += 1
    assert world.run_scopes("aws", {"one": full[:5], "two": [resource("x")]}).state == "held"
    world.clock.now += 1
    world.run_scopes("aws", {"one": ServerFault("down"), "two": [resource("x", "team-a")]})
    world.clock.now += 1
    accepted = world.store.accept("aws")
    assert accepted is not None
    assert accepted.counts.removed == 15
    assert world.owners()["x"] == "team-a"
    world.close()


def test_members_who_left_and_lists_told_anew(world: World) -> None:
    """A group whose last active member left owns no more; one whose list is told anew has just that list."""
    team_a = group("[team-a]").ref
    world.run("corp", Left(team_a, (user("u1").ref,)), Bookmark("d2"), since="d1", base="o")
    assert world.owners()["r1"] == "group_empty -> platform"
    world.run("corp", user("u2"), Left(team_a), members("[team-a]", "u2"), Bookmark("d3"), since="d2", base="o")
    assert world.owners()["r1"] == "team-a"
    assert world.query("SELECT member_pid FROM member WHERE group_pid = 'group:[team-a]'") == [("user:u2",)]


def test_the_later_change_overrides_the_earlier(world: World) -> None:
    """Gone and back is there; back and gone is gone; left and joined is in."""
    team_a = group("[team-a]").ref
    one = user("u1").ref
    world.run("corp", Left(team_a, (one,)), members("[team-a]", "u1"), Bookmark("d2"), since="d1", base="o")
    assert world.owners()["r1"] == "team-a"
    world.run(
        "aws", Gone("r1"), resource("r1", "team-a"), resource("r9"), Gone("r9"), Bookmark("b2"), since="b1", base="o"
    )
    assert set(world.owners()) == {"r1", "r2", "r3"}
    world.run("corp", members("[team-a]", "u1"), Left(team_a, (one,)), Bookmark("d3"), since="d2", base="o")
    assert world.owners()["r1"] == "group_empty -> platform"


def test_a_group_that_is_gone_takes_its_memberships_along(world: World) -> None:
    """A new group of the same id does not inherit them."""
    world.run("corp", Gone(group("[team-a]").ref), Bookmark("d2"), since="d1", base="o")
    assert world.owners()["r1"] == "value_unknown -> platform"
    world.run("corp", group("[team-a]", "team-a"), Bookmark("d3"), since="d2", base="o")
    assert world.owners()["r1"] == "group_empty -> platform"


def test_gaps_are_kept_until_a_read_tells_otherwise(world: World) -> None:
    """A gap stands beside the rows; changes that say nothing of it leave it; a whole read without it closes it."""
    everything = [resource("r1", "team-a"), resource("r2"), resource("r3", parent="r1")]
    world.run("aws", *everything, Gap("untagged", "not all is listed", "turn it on"), Bookmark("b2"), base="o")
    world.run("aws", Bookmark("b3"), since="b2", base="o")
    (gaps,) = world.query("SELECT gaps FROM scope WHERE gaps != '[]'")
    assert '"code":"untagged"' in gaps[0]
    world.run("aws", *everything, Bookmark("b4"), base="o")
    assert world.query("SELECT 1 FROM scope WHERE gaps != '[]'") == []


def test_what_goes_out_of_sight_is_held(world: World) -> None:
    """Rows that vanish as a scope can no longer show everything may be there still; a person says."""
    gap = Gap("never_tagged", "Resource Explorer was turned off", "")
    report = world.run("aws", resource("r1", "team-a"), resource("r2"), gap)
    assert [type(h).__name__ for h in report.held] == ["OutOfSight"]
    assert "never_tagged" in report.held[0].why
    assert set(world.owners()) == {"r1", "r2", "r3"}
    assert world.store.accept("aws") is not None
    assert set(world.owners()) == {"r1", "r2"}
    # It is told of once: from then on the scope is known not to show everything.
    assert world.run("aws", resource("r1", "team-a"), gap).state == "ok"


# --- what a directory knows whole ------------------------------------------------------------------------------------


def test_roles_that_may_not_be_read_do_not_keep_groups_from_owning(tmp_path: Path) -> None:
    """What is known whole is told by kind: a scope of roles that fails makes what roles own wait, and no more."""
    rules = owned_by("owner"), owned_by("admin", "role.name")
    world = World(tmp_path, configuration(integration("aws", *rules)))
    world.run("aws", resource("r", "team-a"), resource("a", admin="Owner"))
    path = world.folder / "spool" / "corp.db"
    spool = SpoolWriter(path, clock=world.clock)
    with spool.scope("directory", holds={Kind.USER, Kind.GROUP}) as scope:
        for record in [*team("team-a", "u1"), *team("platform", "p1")]:
            scope.add(record)
    with contextlib.suppress(ServerFault), spool.scope("roles", holds={Kind.ROLE}):
        raise ServerFault("forbidden")
    spool.finish([str(k) for k in Kind])
    assert world.store.run("corp", path).state == "partial"
    assert world.owners() == {"r": "team-a", "a": "directory_never_synced -> "}
    world.close()


def test_without_its_users_a_directory_knows_no_group(tmp_path: Path) -> None:
    """A group whose members were not read would look empty."""
    world = World(tmp_path, configuration(integration()))
    world.run("aws", resource("r", "team-a"))
    path = world.folder / "spool" / "corp.db"
    spool = SpoolWriter(path, clock=world.clock)
    with contextlib.suppress(ServerFault), spool.scope("users", holds={Kind.USER}):
        raise ServerFault("down")
    with spool.scope("groups", holds={Kind.GROUP}) as scope:
        scope.add(group("[team-a]", "team-a"))
    spool.finish([str(k) for k in Kind])
    world.store.run("corp", path)
    assert world.owners() == {"r": "directory_never_synced -> "}
    world.close()
