"""A run that has found just what the last one did: that it is seen, and that nothing else is taken for it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.errors import ServerFault
from connectors.values import Gap, Resource
from daemon.fingerprint import Known, RowProduct, fingerprint
from daemon.pipeline import Report
from daemon.spool import complete
from tests.harness import Scopes, World, configuration, integration, owned_by, resource, team

SECRET = "5" * 64
PEOPLE = (*team("team-a", "ada"), *team("team-b", "bob"), *team("platform", "pia"))
TABLES = {
    "resource": "source_id, key, rid, type, name, parent, parent_key, tags, hash, scope_id, claim_id, tagged_key",
    "answer": "key, source_id, resource_id, freshness_id, outcome_id, waiting, changed_at, body",
    "change": "*",
    "finding": "kind, key, value, resources, resolved_at",
    "scope": "source_id, name, read_at, rows, state, error, gaps",
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, configuration(integration("aws"), integration("gcp")))
    world.run("corp", *PEOPLE)
    yield world
    world.close()


def tables(world: World) -> dict[str, list[tuple[Any, ...]]]:
    return {table: world.query(f"SELECT {columns} FROM {table} ORDER BY 1, 2") for table, columns in TABLES.items()}


def run(world: World, scopes: Scopes, **more: Any) -> tuple[Report, bool]:
    """A run of `aws`, and whether it took the short way."""
    path = world.spool(scopes, known=world.store.known("aws"))
    with contextlib.closing(sqlite3.connect(path)) as spool:
        short = not spool.execute("SELECT complete FROM run").fetchone()[0]
    return world.store.run("aws", path, **more), short


def hashes(*texts: str) -> list[bytes]:
    return [text.encode().ljust(16, b"\0") for text in texts]


def told(*texts: str, secret: str = SECRET) -> tuple[int, str]:
    product = RowProduct(secret)
    product.take(hashes(*texts))
    return product.told()


@given(st.lists(st.text("abc", max_size=3), max_size=12), st.randoms(use_true_random=False))
def test_order_does_not_count_and_how_often_does(texts: list[str], rng: Any) -> None:
    """Nor in how many parts the rows come."""
    shuffled = rng.sample(texts, len(texts))
    product = RowProduct(SECRET)
    for text in shuffled:
        product.take(hashes(text))
    assert product.told() == told(*texts)
    if texts:
        assert told(*texts, texts[0]) != told(*texts)
        assert told(*texts[1:]) != told(*texts)
        assert told(*texts[1:], "another") != told(*texts)


def test_another_secret_gives_another_fingerprint() -> None:
    """So who does not know it cannot look for rows that meet one."""
    assert told("a", secret="1" * 64) != told("a")
    assert fingerprint({"us": told("a")}) != fingerprint({"eu": told("a")})


def test_an_unchanged_run_writes_no_row(world: World) -> None:
    """Whatever the order, over several scopes: only ages move on, and what is said of the run."""
    us, eu = [resource("r1", "team-a"), resource("r2", parent="r1")], [resource("r3", "nobody")]
    assert not run(world, {"us": us, "eu": eu})[1]
    before = tables(world)
    world.clock.now += 60
    report, short = run(world, {"eu": eu, "us": us[::-1]})
    assert short
    assert (report.state, report.rows, report.counts.added, report.counts.changed) == ("ok", 3, 0, 0)
    after = tables(world)
    assert {t: rows for t, rows in after.items() if t != "scope"} == {t: r for t, r in before.items() if t != "scope"}
    reads = world.query("SELECT c.read_at FROM scope c JOIN source s ON s.id = c.source_id WHERE s.name = 'aws'")
    assert reads == [(world.clock.now,)] * 2
    assert world.query("SELECT last_success FROM source WHERE name = 'aws'") == [(world.clock.now,)]


ONE = [resource("r1", "team-a"), resource("r2", "team-b")]


@pytest.mark.parametrize(
    "scopes",
    [
        {"us": [ONE[0], resource("r2", "team-a")], "eu": []},
        {"us": ONE[:1], "eu": []},
        {"us": [*ONE, resource("r3")], "eu": []},
        {"us": ONE[:1], "eu": ONE[1:]},
        {"us": ONE},
        {"us": ONE, "eu": [], "ap": []},
        {"us": ONE, "north": []},
        {"us": [ONE[0], Resource("r2", type="t", tags={"owner": "team-b"})], "eu": []},
        {"us": [ONE[0], Resource("r2", name="n", tags={"owner": "team-b"})], "eu": []},
        {"us": [ONE[0], resource("r2", "team-b", parent="r1")], "eu": []},
        {"us": ONE, "eu": ServerFault("500")},
        {"us": [*ONE, ONE[0]], "eu": []},
    ],
    ids=["tag", "gone", "new", "moved", "scope gone", "scope new", "renamed", "type", "name", "parent", "failed", "twice"],
)  # fmt: skip
def test_anything_else_takes_the_whole_way(world: World, scopes: Scopes) -> None:
    """And leads to just the tables that a run leads to which knew nothing."""
    run(world, {"us": ONE, "eu": []})
    twin = World(world.folder / "twin", configuration(integration("aws"), integration("gcp")))
    twin.run("corp", *PEOPLE)
    twin.store.run("aws", twin.spool({"us": ONE, "eu": []}))
    assert not run(world, scopes, accept=False)[1]
    twin.store.run("aws", twin.spool(scopes))
    for both in (world, twin):
        both.clock.now += 1
    assert tables(world) == tables(twin)
    twin.close()


def test_what_two_scopes_list_is_not_lost(world: World) -> None:
    """A scope that failed, or lost what another lists too, makes the next run look at everything."""
    a, b = [resource("x", "team-a"), resource("a1")], [resource("x", "team-a"), resource("b1")]
    run(world, {"A": a, "B": b})
    assert run(world, {"A": a, "B": b})[1]
    run(world, {"A": a[1:], "B": ServerFault("500")}, accept=True)
    report, short = run(world, {"A": a[1:], "B": b})
    assert not short
    assert report.state == "ok"
    assert set(world.answers()) == {"x", "a1", "b1"}


def test_what_was_held_or_withheld_is_not_known(world: World) -> None:
    """The fingerprint is of what is stored: what the guard has held back never was."""
    many = [resource(f"r{i}", "team-a") for i in range(40)]
    run(world, {"us": many, "eu": [resource("e1")]})
    few = {"us": many[:5], "eu": [resource("e1")]}
    assert run(world, few)[0].state == "held"
    report, short = run(world, few)
    assert (report.state, short) == ("held", False)
    assert len(world.answers()) == 41
    report, short = run(world, {"us": many, "eu": [resource("e1")]})
    assert report.state == "ok"
    assert report.released
    assert len(world.answers()) == 41


def test_a_publish_that_is_held_leaves_what_was_known(world: World) -> None:
    """All of it was rolled back: the rows that were stored before are unchanged."""
    many = [resource(f"r{i}", "team-a") for i in range(40)]
    run(world, {"us": many})
    assert run(world, {"us": [resource(f"r{i}", "team-b") for i in range(40)]})[0].state == "held"
    report, short = run(world, {"us": many})
    assert (report.state, short) == ("ok", True)
    assert set(world.owners().values()) == {"team-a"}


def test_changes_alone_tell_nothing_of_all_rows(world: World) -> None:
    """After a run that read changes, the next one compares."""
    run(world, {"us": ONE})
    world.store.run("aws", world.spool({"us": [resource("r1", "team-b")]}, {"us": ""}, known=world.store.known("aws")))
    assert world.query("SELECT fingerprint FROM source WHERE name = 'aws'") == [(None,)]
    report, short = run(world, {"us": ONE})
    assert not short
    assert report.state == "ok"


def test_new_rules_count_for_unchanged_rows(world: World) -> None:
    """They are resolved from what is stored."""
    run(world, {"us": [Resource("r1", tags={"owner": "team-a", "team": "team-b"})]})
    world.configure(configuration(integration("aws", owned_by(key="team")), integration("gcp")))
    assert world.owners()["r1"] == "team-b"
    assert run(world, {"us": [Resource("r1", tags={"owner": "team-a", "team": "team-b"})]})[1]
    assert world.owners()["r1"] == "team-b"


def test_gaps_are_recorded_in_an_unchanged_run(world: World) -> None:
    """What cannot be seen any more is no row, and yet it is news."""
    run(world, {"us": ONE})
    report, short = run(world, {"us": [*ONE, Gap("no_tags", "cannot be shown", "ask")]})
    assert (report.state, short) == ("ok", True)
    assert "no_tags" in world.query("SELECT gaps FROM scope WHERE name = 'us'")[0][0]


def test_the_merge_decides(world: World) -> None:
    """A spool whose run met what was known then is completed if that is not what is stored now."""
    run(world, {"us": ONE})
    late = world.spool({"us": ONE}, known=world.store.known("aws"))
    run(world, {"us": [*ONE, resource("r3", "team-b")]})
    report = world.store.run("aws", late)
    assert (report.state, report.counts.removed) == ("ok", 1)
    assert set(world.answers()) == {"r1", "r2"}


def test_a_contradiction_that_is_found_late_fails_its_scope(world: World, tmp_path: Path) -> None:
    """Completing a spool reconciles it, as the end of a run does."""
    scopes: Scopes = {"us": [resource("x", "team-a")], "eu": [resource("x", "team-b")]}
    path = world.spool(scopes, known=Known(SECRET))
    with contextlib.closing(sqlite3.connect(path)) as spool:
        (found,) = spool.execute("SELECT fingerprint FROM run").fetchone()
    path = world.spool(scopes, known=Known(SECRET, found))
    shutil.copy(path, tmp_path / "late.db")
    complete(tmp_path / "late.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "late.db")) as spool:
        assert spool.execute("SELECT state FROM scope ORDER BY no").fetchall() == [("whole",), ("failed",)]
    world.store.run("aws", path)
    assert world.owners() == {"x": "team-a"}
    assert world.query("SELECT fingerprint FROM source WHERE name = 'aws'") == [(None,)]


PARTS = st.lists(st.tuples(st.sampled_from("wxyz"), st.sampled_from(["team-a", "team-b", ""])), max_size=4)
RUNS = st.lists(
    st.one_of(
        st.just("again"), st.dictionaries(st.sampled_from(["us", "eu"]), st.one_of(PARTS, st.none()), min_size=1)
    ),
    min_size=2,
    max_size=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RUNS)
def test_no_run_ends_otherwise_than_one_that_knew_nothing(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Any]
) -> None:
    """Whatever comes and goes, fails and comes again."""
    worlds = [
        World(tmp_path_factory.mktemp("twins"), configuration(integration("aws"), integration("gcp"))) for _ in range(2)
    ]
    last: dict[str, Any] = {"us": []}
    for world in worlds:
        world.run("corp", *PEOPLE)
    for wanted in runs:
        last = last if wanted == "again" else wanted
        scopes: Scopes = {
            name: ServerFault("500") if part is None else [resource(i, owner or None) for i, owner in part]
            for name, part in last.items()
        }
        for world, known in zip(worlds, (worlds[0].store.known("aws"), None), strict=True):
            world.clock.now += 1
            world.store.run("aws", world.spool(scopes, known=known))
        assert tables(worlds[0]) == tables(worlds[1])
    for world in worlds:
        world.close()
