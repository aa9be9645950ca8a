"""Spool, guard, merge, resolve and publish, on the real database."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import Forbidden, ServerFault
from connectors.values import Kind, Members, Principal, Ref, Shift
from daemon.errors import WriterBusy
from daemon.pipeline import Store
from daemon.spool import SpoolWriter
from daemon.store import findings, room
from tests.harness import World, configuration, group, integration, members, owned_by, resource, team, user

PEOPLE = [*team("team-a", "ada"), *team("Team B", "bob"), *team("platform", "pia")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, configuration(integration()))
    yield world
    world.close()


def test_the_way_of_the_data(world: World) -> None:
    """Tags name groups, exactly or in canonical form; what names nobody falls back."""
    world.run("corp", *PEOPLE)
    report = world.run(
        "aws", resource("r1", "team-a"), resource("r2", "team_b"), resource("r3", "nobody"), resource("r4")
    )
    assert (report.state, report.counts.added, report.owner_changes) == ("ok", 4, 4)
    assert world.owners() == {
        "r1": "team-a",
        "r2": "Team B",
        "r3": "value_unknown -> platform",
        "r4": "tag_missing -> platform",
    }
    assert world.drift() == {("value_unknown", "nobody", 1)}


def test_rows_wait_for_a_directory_that_was_never_read(world: World) -> None:
    """Unknown is not absent: no owner, no fallback and no drift before the directory has been read."""
    world.run("aws", resource("r1", "team-a"), resource("r2"))
    assert world.owners() == {"r1": "directory_never_synced -> ", "r2": "directory_never_synced -> "}
    assert world.drift() == set()
    world.run("corp", *PEOPLE)
    assert world.owners() == {"r1": "team-a", "r2": "tag_missing -> platform"}


def test_a_directory_that_fails_later_changes_no_row(world: World) -> None:
    """A failed scope keeps what it had."""
    world.run("corp", *PEOPLE)
    world.run("aws", resource("r1", "team-a"))
    report = world.run_scopes("corp", {"all": ServerFault("500")})
    assert (report.state, report.errors["all"]["code"]) == ("failed", "server_fault")
    world.run("aws", resource("r1", "team-a"), resource("r2", "team-a"))
    assert world.owners() == {"r1": "team-a", "r2": "team-a"}


def test_one_scope_fails_and_the_others_advance(world: World) -> None:
    """A denied region keeps its last rows, and is marked; the others are merged."""
    world.run("corp", *PEOPLE)
    world.run_scopes("aws", {"us": [resource("r1", "team-a")], "eu": [resource("r2", "team-a")]})
    world.clock.now += 60
    report = world.run_scopes(
        "aws", {"us": Forbidden("no"), "eu": [resource("r2", "Team B"), resource("r3", "Team B")]}
    )
    assert report.state == "partial"
    assert world.owners() == {"r1": "team-a", "r2": "Team B", "r3": "Team B"}
    assert world.query("SELECT name, state, read_at FROM scope WHERE name != 'all' ORDER BY name") == [
        ("eu", "ok", 1_700_000_060.0),
        ("us", "failed", 1_700_000_000.0),
    ]


def test_a_membership_is_followed(world: World) -> None:
    """A group that loses its last active member, even deep below, stops owning; and owns again."""
    outer = [group("outer"), group("inner"), user("ada"), user("pia"), group("[platform]", "platform")]
    links = [members("outer", "g:inner"), members("inner", "ada", "g:outer"), members("[platform]", "pia")]
    world.run("corp", *outer, *links)
    world.run("aws", resource("r1", "outer"))
    assert world.owners() == {"r1": "outer"}
    world.run("corp", *outer, links[0], members("inner", "g:outer"), links[2])
    assert world.owners() == {"r1": "group_empty -> platform"}
    assert world.drift() == {("group_empty", "outer", 1)}
    world.run("corp", *outer, *links)
    assert world.owners() == {"r1": "outer"}
    assert world.drift() == set()
    world.run("corp", outer[0], outer[1], user("ada", active=False), *outer[3:], *links)
    assert world.owners() == {"r1": "group_empty -> platform"}


def test_a_group_deleted_and_recreated(world: World) -> None:
    """Deleted: its resources fall back and drift opens. Recreated, with another id: drift resolves."""
    world.run("corp", *PEOPLE)
    world.run("aws", resource("r1", "team-a"), resource("r2", "team-a"))
    world.run("corp", *PEOPLE[3:], user("ada"))
    assert set(world.owners().values()) == {"value_unknown -> platform"}
    assert world.drift() == {("value_unknown", "team-a", 2)}
    world.run("corp", *PEOPLE[3:], user("ada"), group("new", "Team A"), members("new", "ada"))
    assert set(world.owners().values()) == {"Team A"}
    assert world.drift() == set()
    assert world.query("SELECT count(*) FROM finding WHERE resolved_at IS NOT NULL") == [(1,)]


def test_inheritance_follows_the_nearest_ancestor(world: World) -> None:
    """A tag above counts until there is one below; a present but unusable one is never inherited over."""
    world.run("corp", *PEOPLE)
    tree = [
        resource("account", "team-a"),
        resource("group", None, parent="account"),
        resource("vm", None, parent="group"),
        resource("disk", None, parent="vm"),
    ]
    world.run("aws", *tree)
    assert world.answers()["disk"]["tag"] == {"key": "owner", "value": "team-a", "resource": "account"}
    assert world.answers()["disk"]["source"] == "inherited"
    world.run("aws", tree[0], resource("group", "Team B", parent="account"), *tree[2:])
    assert world.owners() == {"account": "team-a", "group": "Team B", "vm": "Team B", "disk": "Team B"}
    world.run("aws", tree[0], resource("group", " ", parent="account"), *tree[2:])
    assert world.owners()["disk"] == "tag_empty -> platform"
    assert world.drift() == {("tag_empty", "", 3)}
    world.run("aws", *tree[1:])
    assert set(world.owners().values()) == {"tag_missing -> platform"}
    world.run("aws", *tree)
    assert set(world.owners().values()) == {"team-a"}


def test_parents_in_a_circle_end(world: World) -> None:
    """Parents that form a circle give no owner, and no endless loop."""
    world.run("corp", *PEOPLE)
    world.run("aws", resource("a", parent="b"), resource("b", parent="a"), resource("c", parent="c"))
    assert set(world.owners().values()) == {"tag_missing -> platform"}


def test_an_unknown_integration_owner_is_drift(world: World) -> None:
    """Without an integration owner the answer has no owners, and says so."""
    world.run("corp", *PEOPLE[:3])
    world.run("aws", resource("r1", "nobody"), resource("r2", "team-a"))
    assert world.owners() == {"r1": "value_unknown -> ", "r2": "team-a"}
    assert world.drift() == {("value_unknown", "nobody", 1), ("integration_owner_unknown", "platform", 1)}
    world.run("corp", *PEOPLE)
    assert world.owners()["r1"] == "value_unknown -> platform"
    assert world.drift() == {("value_unknown", "nobody", 1)}


def test_an_emptied_scope_is_held_at_any_size(world: World) -> None:
    """An empty list where there were rows is held; accepting it lets it through."""
    world.run("corp", *PEOPLE)
    world.run("aws", resource("r1", "team-a"))
    report = world.run("aws")
    assert report.state == "held"
    assert report.held[0].why == "all 1 rows would go"
    assert world.owners() == {"r1": "team-a"}
    assert world.query("SELECT state, held_since FROM source WHERE name = 'aws'") == [("held", world.clock.now)]
    accepted = world.store.accept("aws")
    assert accepted is not None
    assert accepted.state == "ok"
    assert world.owners() == {}
    assert world.store.accept("aws") is None


def test_too_many_owner_changes_are_held_and_a_good_snapshot_releases(world: World) -> None:
    """A directory that would re-own too much is held whole: not one row of it is merged."""
    world.run("corp", *PEOPLE)
    rows = [resource(f"r{i}", "team-a" if i < 5 else "Team B") for i in range(12)]
    world.run("aws", *rows)
    before = world.answers()
    report = world.run("corp", *PEOPLE[3:])
    assert [h.subject for h in report.held] == ["aws"]
    assert world.answers() == before
    assert world.drift() == set()
    report = world.run("corp", *PEOPLE)
    assert (report.state, report.released) == ("ok", True)
    assert not list((world.folder / "held").iterdir())


def test_unchanged_polls_write_nothing_but_ages(world: World) -> None:
    """A poll in which nothing changed rewrites no row."""
    world.run("corp", *PEOPLE)
    rows = [resource("r1", "team-a"), resource("r2")]
    world.run("aws", *rows)
    before = world.query("SELECT key, body, changed_at FROM answer")
    world.clock.now += 100
    assert world.run("aws", *rows).owner_changes == 0
    assert world.run("corp", *PEOPLE).owner_changes == 0
    assert world.query("SELECT key, body, changed_at FROM answer") == before


def test_changed_at_is_the_owners(world: World) -> None:
    """A new name renders the row anew, but its owner did not change."""
    world.run("corp", *PEOPLE)
    world.run("aws", resource("r1", "team-a"))
    first = world.answers()["r1"]
    world.clock.now += 100
    world.run("aws", resource("r1", "team-a", note="x"))
    assert world.answers()["r1"]["changed_at"] == first["changed_at"]
    world.run("aws", resource("r1", "Team B"))
    assert world.answers()["r1"]["changed_at"] != first["changed_at"]


def test_new_rules_are_applied_to_what_is_stored(world: World) -> None:
    """A changed configuration is resolved anew without a poll; a removed integration goes, with its findings."""
    world.run("corp", *PEOPLE)
    world.run("aws", resource("r1", "nobody", team="Team B"))
    assert world.owners() == {"r1": "value_unknown -> platform"}
    world.configure(configuration(integration("aws", owned_by("team"))))
    assert world.owners() == {"r1": "Team B"}
    assert world.drift() == set()
    world.configure(configuration(integration("other")))
    assert world.owners() == {}
    assert [row[0] for row in world.query("SELECT name FROM source ORDER BY id")] == ["corp", "other"]
    assert world.query("SELECT after_id FROM change ORDER BY seq DESC LIMIT 1") == [(None,)]


def test_split_values_and_their_drift(tmp_path: Path) -> None:
    """The parts that match own; the others are drift, by part."""
    world = World(tmp_path, configuration(integration("aws", owned_by(split=","))))
    world.run("corp", *PEOPLE)
    world.run("aws", resource("r1", "team-a, nobody ,Team B,team-a"), resource("r2", "x,y"), resource("r3", "nobody"))
    assert world.owners() == {
        "r1": "team-a,Team B",
        "r2": "value_unknown -> platform",
        "r3": "value_unknown -> platform",
    }
    assert world.drift() == {("value_unknown", "nobody", 2), ("value_unknown", "x", 1), ("value_unknown", "y", 1)}
    world.close()


def test_every_principal_that_shares_an_attribute_owns(tmp_path: Path) -> None:
    """`user.department` names everybody who has it, and follows who does."""
    world = World(tmp_path, configuration(integration("aws", owned_by("dept", "user.department"))))
    people: Any = [
        user("ada", attributes={"department": "Eng"}),
        user("bob", attributes={"department": ["Eng", "Ops"]}),
    ]
    world.run("corp", *PEOPLE[6:], *people)
    world.run("aws", resource("r1", dept="Eng"), resource("r2", dept="ops"))
    assert world.owners() == {"r1": "ada,bob", "r2": "bob"}
    world.run("corp", *PEOPLE[6:], people[0], user("bob", active=False, attributes={"department": ["Eng", "Ops"]}))
    assert world.owners() == {"r1": "ada", "r2": "principal_inactive -> platform"}
    world.close()


def test_a_manager_owns_for_a_user(tmp_path: Path) -> None:
    """`manager.email` finds a user, active or not, and follows the manager."""
    world = World(tmp_path, configuration(integration("aws", owned_by("creator", "manager.email"))))
    base = [*PEOPLE[6:], user("boss")]
    world.run("corp", *base, user("ada", email="ada@x.org", active=False, manager="boss"))
    world.run("aws", resource("r1", creator="ada@x.org"), resource("r2", creator="ada-x-org"))
    assert world.owners() == {"r1": "boss", "r2": "boss"}
    world.run("corp", *PEOPLE[6:], user("boss", active=False), user("ada", email="ada@x.org", manager="boss"))
    assert world.owners()["r1"] == "principal_inactive -> platform"
    world.run("corp", *base, user("ada", email="ada@x.org"))
    assert world.owners()["r1"] == "value_unknown -> platform"
    world.close()


def test_one_writer(world: World) -> None:
    """A second writer is refused, and told who is first."""
    with pytest.raises(WriterBusy, match=r"pid \d+"):
        Store(world.folder)


def test_azure_ids_compare_without_case(world: World) -> None:
    """Azure returns one id in several spellings; it is one resource, and parents are found by it."""
    world.run("corp", *PEOPLE)
    world.run(
        "aws",
        resource("/subscriptions/S/resourceGroups/RG", "team-a"),
        resource("/subscriptions/s/resourcegroups/rg/x", parent="/SUBSCRIPTIONS/S/resourcegroups/rg"),
    )
    assert set(world.owners().values()) == {"team-a"}


def test_findings_count_resources_and_suggest(world: World) -> None:
    """One finding a value, however many resources, with the nearest names."""
    world.run("corp", *PEOPLE)
    world.run("aws", *(resource(f"r{i}", "taem-a") for i in range(12)))
    assert world.query("SELECT resources, examples, suggestions FROM finding") == [
        (12, '["r0","r1","r10"]', '["team-a"]')
    ]


def test_only_a_whole_snapshot_releases_what_is_held(world: World) -> None:
    """A scope that is held stays so while it cannot be read; then a good snapshot releases it."""
    world.run("corp", *PEOPLE)
    whole = {"us": [resource("r1", "team-a")], "eu": [resource("r2", "team-a")]}
    world.run_scopes("aws", whole)
    assert world.run_scopes("aws", {**whole, "us": []}).state == "held"
    since = world.clock.now
    world.clock.now += 60
    assert world.run_scopes("aws", {**whole, "us": ServerFault("500")}).released is False
    assert world.query("SELECT state, held_since, held IS NULL FROM source WHERE name = 'aws'") == [
        ("partial", since, 0)
    ]
    report = world.run_scopes("aws", whole)
    assert (report.state, report.released) == ("ok", True)
    assert world.query("SELECT state, held_since, held FROM source WHERE name = 'aws'") == [("ok", None, None)]


def test_what_the_guard_holds_in_one_scope_does_not_stop_the_others(world: World) -> None:
    world.run("corp", *PEOPLE)
    world.run_scopes("aws", {"us": [resource("r1", "team-a")], "eu": [resource("r2", "team-a")]})
    world.run_scopes("aws", {"us": [], "eu": [resource("r2", "Team B"), resource("r3")]})
    assert world.owners() == {"r1": "team-a", "r2": "Team B", "r3": "tag_missing -> platform"}


def test_a_scope_that_is_no_longer_named_goes_only_by_the_guard(world: World) -> None:
    """A region that left the list takes all its rows with it: that is held, and may be accepted."""
    world.run("corp", *PEOPLE)
    world.run_scopes("aws", {"us": [resource("r1", "team-a")], "eu": [resource("r2", "team-a")]})
    report = world.run_scopes("aws", {"us": [resource("r1", "team-a")]})
    assert [(h.subject, report.state) for h in report.held] == [("eu", "held")]
    assert set(world.owners()) == {"r1", "r2"}
    assert world.store.accept("aws")
    assert set(world.owners()) == {"r1"}
    assert world.query("SELECT name FROM scope WHERE name != 'all'") == [("us",)]


def test_a_resource_that_two_scopes_list_counts_once(world: World) -> None:
    """The same content twice is one row, and survives one of the scopes; different content fails the later scope."""
    world.run("corp", *PEOPLE)
    both = resource("bucket", "team-a")
    report = world.run_scopes("aws", {"us": [both, resource("r1")], "eu": [both, resource("r2")]})
    assert (report.state, report.rows) == ("ok", 3)
    world.run_scopes("aws", {"us": Forbidden("no"), "eu": [both, resource("r2")]})
    world.run_scopes("aws", {"us": [resource("r1")], "eu": [both, resource("r2")]})
    assert set(world.owners()) == {"bucket", "r1", "r2"}
    report = world.run_scopes(
        "aws", {"us": [both, resource("r1")], "eu": [resource("bucket", "Team B"), resource("r2")]}
    )
    assert (report.state, report.errors["eu"]["code"]) == ("partial", "bad_data")
    assert world.owners()["bucket"] == "team-a"


def test_new_rules_of_two_integrations_at_once(tmp_path: Path) -> None:
    """What is resolved anew together is not mixed: each integration by its own rules."""
    world = World(tmp_path, configuration(integration("one"), integration("two")))
    world.run("corp", *PEOPLE)
    world.run("one", resource("r1", "team-a", team="Team B"))
    world.run("two", resource("r2", "team-a", team="Team B"))
    world.configure(configuration(integration("one", owned_by("team")), integration("two", fallback="team-a")))
    assert world.owners() == {"r1": "Team B", "r2": "team-a"}
    assert world.query("SELECT count(*) FROM resource r JOIN claim c ON c.id = r.claim_id WHERE c.source_id != r.source_id") == [(0,)]  # fmt: skip
    world.close()


def test_what_a_killed_process_left_is_removed(world: World) -> None:
    """Spools and half-kept snapshots; what is held stays."""
    for name in ("spool/aws.1.db", "held/aws.db.partial", "held/aws.db"):
        (world.folder / name).write_text("left")
    world.store.close()
    world.store = Store(world.folder, clock=world.clock)
    left = {p.name for folder in ("spool", "held") for p in (world.folder / folder).iterdir()}
    assert left == {"aws.db"}


@pytest.mark.parametrize("version", [0, 2])
def test_a_snapshot_that_an_earlier_version_holds_is_accepted(world: World, version: int) -> None:
    """Its spool had other tables: they are brought up to date, and what it says counts."""
    world.run("corp", *PEOPLE)
    world.run("aws", *(resource(f"r{i}", "team-a") for i in range(20)), resource("s", parent="r1"))
    world.run("aws", resource("r1", "Team B"), resource("s", parent="r1"))
    with contextlib.closing(sqlite3.connect(world.folder / "held" / "aws.db")) as held:
        held.executescript(
            "ALTER TABLE run DROP COLUMN fingerprint; ALTER TABLE run DROP COLUMN complete; PRAGMA user_version = 2"
        )
        if version < 2:
            held.executescript(
                "ALTER TABLE scope DROP COLUMN kept; ALTER TABLE scope DROP COLUMN kept_members;"
                "PRAGMA user_version = 0; ALTER TABLE resource RENAME TO r;"
                "CREATE TABLE resource (key TEXT, rid TEXT, type TEXT, name TEXT, parent TEXT, parent_key TEXT,"
                " tags TEXT, hash BLOB, scope_no INTEGER, PRIMARY KEY (key, scope_no)) WITHOUT ROWID;"
                "INSERT INTO resource SELECT * FROM r; DROP TABLE r;"
            )
    report = world.store.accept("aws")
    assert report and (report.state, report.counts.changed, report.counts.removed) == ("ok", 1, 19)
    assert world.owners() == {"r1": "Team B", "s": "Team B"}


def test_a_resource_comes_from_a_scope_that_failed_and_another_goes(world: World) -> None:
    """What moves into a scope does not hide what leaves it."""
    world.run("corp", *PEOPLE)
    world.run_scopes("aws", {"us": [resource("r1"), resource("r2")], "eu": [resource("r3"), resource("r4")]})
    report = world.run_scopes("aws", {"us": [resource("r1"), resource("r3")], "eu": ServerFault("500")})
    assert (report.counts.added, report.counts.changed, report.counts.removed) == (0, 1, 1)
    assert set(world.answers()) == {"r1", "r3", "r4"}
    assert world.query("SELECT name, rows FROM scope WHERE name != 'all' ORDER BY 1") == [("eu", 1), ("us", 2)]


def test_what_is_new_inherits_from_what_is_new_and_from_what_was_there(world: World) -> None:
    """Whatever order it comes in, over as many steps as there are; what was there inherits from what is new."""
    world.run("corp", *PEOPLE)
    world.run("aws", resource("z", "team-a"), resource("orphan", parent="b"))
    report = world.run(
        "aws",
        resource("a", parent="b"),
        resource("b", parent="c"),
        resource("c", "Team B"),
        resource("d", parent="e"),
        resource("e", parent="z"),
        resource("loop", parent="loop"),
        resource("z", "team-a"),
        resource("orphan", parent="b"),
    )
    assert report.counts.added == 6
    assert world.owners() == {
        "a": "Team B",
        "b": "Team B",
        "c": "Team B",
        "d": "team-a",
        "e": "team-a",
        "loop": "tag_missing -> platform",
        "orphan": "Team B",
        "z": "team-a",
    }
    assert world.answers()["orphan"]["tag"] == {"key": "owner", "value": "Team B", "resource": "c"}


def test_what_is_new_does_not_inherit_from_what_a_held_scope_lists(world: World) -> None:
    """Of a scope that is held nothing counts: neither its new rows, nor the new tags of its old ones."""
    world.run("corp", *PEOPLE)
    old = [resource(f"r{i}", "team-a") for i in range(20)]
    world.run_scopes("aws", {"one": old, "two": [resource("s", "team-a")]})
    report = world.run_scopes(
        "aws",
        {
            "one": [resource("r1", "Team B"), resource("new", "Team B")],
            "two": [resource("s", "team-a"), resource("x", parent="r1"), resource("y", parent="new")],
        },
    )
    assert [h.subject for h in report.held] == ["one"]
    owners = world.owners()
    assert (owners["x"], owners["y"], owners["r1"]) == ("team-a", "tag_missing -> platform", "team-a")
    assert "new" not in owners
    assert len(owners) == 23


def test_many_scopes_fail_and_take_out_their_own_rows_only(tmp_path: Path) -> None:
    """Whole batches of scopes that are read side by side, restarted and failed between one another."""
    path = tmp_path / "spool.db"
    writer = SpoolWriter(path)
    scopes = {name: writer.open(name) for name in "abc"}
    for i in range(2500):
        for name, scope in scopes.items():
            scope.add(resource(f"{name}{i}"))
    scopes["c"].fail(ServerFault("500"))
    scopes["b"].restart()
    for i in range(1200):
        scopes["b"].add(resource(f"again{i}"))
    scopes["b"].restart()
    scopes["b"].add(resource("b"))
    for name in "ab":
        scopes[name].end()
    assert writer.finish([]) == {}
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name, state, kept FROM scope ORDER BY 1").fetchall() == [
            ("a", "whole", 2500),
            ("b", "whole", 1),
            ("c", "failed", 0),
        ]
        assert db.execute("SELECT count(*), count(DISTINCT key) FROM resource").fetchone() == (2501, 2501)


def test_memberships_move_between_scopes_and_go(tmp_path: Path) -> None:
    """Who comes into a scope does not hide who leaves it; who is on call is no membership that a scope could lose."""
    world = World(tmp_path, configuration(integration()))
    rota = Ref(Kind.SCHEDULE, "rota")
    people = [user("ada"), user("bob"), group("g", "platform"), Principal(Kind.SCHEDULE, "rota", "rota")]
    on_call = Shift(rota, Ref(Kind.USER, "ada"), world.clock.now - 60, world.clock.now + 60)
    world.run_scopes("corp", {"one": [*people, members("g", "ada")], "two": [on_call, members("g", "bob")]})
    found = "SELECT m.group_pid, m.member_pid, s.name, m.on_call FROM member m JOIN scope s ON s.id = m.scope_id ORDER BY 1, 2"  # fmt: skip
    assert world.query(found) == [
        ("group:g", "user:ada", "one", 0),
        ("group:g", "user:bob", "two", 0),
        ("schedule:rota", "user:ada", "two", 1),
    ]
    report = world.run_scopes("corp", {"one": [*people, members("g", "bob")], "two": ServerFault("500")})
    assert report.state == "partial"
    assert world.query(found) == [("group:g", "user:bob", "one", 0), ("schedule:rota", "user:ada", "two", 1)]
    world.run_scopes("corp", {"one": [*people, members("g", "bob")], "two": [on_call, Members(rota, (Ref(Kind.USER, "ada"),))]})  # fmt: skip
    world.run_scopes("corp", {"one": [*people, members("g", "bob")], "two": [on_call]})
    assert world.query(found) == [("group:g", "user:bob", "one", 0), ("schedule:rota", "user:ada", "two", 1)]
    world.close()


def test_memory_is_given_back_after_a_publish(world: World) -> None:
    """Whether it succeeds or fails; what it may keep meanwhile is bounded."""

    def kept() -> int:
        return int(world.store._db.execute("PRAGMA cache_size").fetchone()[0])

    world.run("corp", *PEOPLE)
    assert kept() == -room.IDLE // 1024
    with pytest.raises(RuntimeError), world.store._transaction():
        assert kept() == -room.PUBLISHING // 1024
        raise RuntimeError
    assert kept() == -room.IDLE // 1024


def test_what_unknown_values_could_mean_is_found_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong rule makes every value unknown: a publish looks at some, later ones at the others, and each once."""
    world.run("corp", *PEOPLE)  # three names
    monkeypatch.setattr(findings, "COMPARED", 5)
    monkeypatch.setattr(findings, "COMPARED_LATER", 4)
    suggested = "SELECT value, suggestions FROM finding ORDER BY id"
    report = world.run("aws", *(resource(f"r{i}", f"team-aa{i}") for i in range(6)))
    assert [bool(t.suggestions) for t in report.transitions] == [True, True, False, False, False, False]
    assert [s is None for _, s in world.query(suggested)] == [False, False, True, True, True, True]
    for still in (2, 0, 0):
        world.run("corp", *PEOPLE)
        assert sum(s is None for _, s in world.query(suggested)) == still
    assert {s for _, s in world.query(suggested)} == {'["team-a"]'}
    world.run("aws", *(resource(f"r{i}", f"team-aa{i}") for i in range(1, 6)), resource("r0", "team-aa1"))
    assert {s for _, s in world.query(suggested)} == {'["team-a"]'}
