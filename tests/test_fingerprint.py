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
from connectors.values import Bookmark, Change, Gap, Gone, Resource
from daemon.fingerprint import _FORM, Known, RowProduct, fingerprint
from daemon.pipeline import Report
from daemon.spool import complete
from daemon.spool_rows import DIGEST, resource_row
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
    """After a run whose changes were merged, the next one compares, though it finds what the last whole one did."""
    run(world, {"us": [*ONE, Bookmark("b1")]})
    changes = world.spool(
        {"us": [resource("r1", "team-b"), Bookmark("b2")]}, {"us": "b1"}, known=world.store.known("aws")
    )
    assert world.store.run("aws", changes).counts.changed == 1
    assert world.query("SELECT fingerprint FROM source WHERE name = 'aws'") == [(None,)]
    report, short = run(world, {"us": ONE})
    assert not short
    assert (report.state, report.counts.changed) == ("ok", 1)
    assert world.owners() == {"r1": "team-a", "r2": "team-b"}


def test_a_bookmark_moves_on_in_an_unchanged_run(world: World) -> None:
    """The next changes are read from where this run ended."""
    run(world, {"us": [*ONE, Bookmark("b1")]})
    assert run(world, {"us": [*ONE, Bookmark("b2")]})[1]
    assert world.store.bookmarks("aws", base="", whole_interval=1e9) == {"us": "b2"}


def test_a_scope_that_comes_back_after_a_failure_is_compared(world: World) -> None:
    """With the same rows, too; the run after that one is known again. A source that failed as such changed no row."""
    run(world, {"us": ONE[:1], "eu": ONE[1:]})
    assert run(world, {"us": ONE[:1], "eu": ServerFault("500")})[0].state == "partial"
    report, short = run(world, {"us": ONE[:1], "eu": ONE[1:]})
    assert (report.state, report.counts.changed, short) == ("ok", 0, False)
    world.store.fail("aws", {"code": "crashed", "message": "", "remedy": ""})
    report, short = run(world, {"us": ONE[:1], "eu": ONE[1:]})
    assert (report.state, short) == ("ok", True)
    assert world.owners() == {"r1": "team-a", "r2": "team-b"}


def test_what_two_scopes_list_in_another_order_is_of_one_of_them(world: World) -> None:
    """It stays where it is while both list it, and goes over to the one that is left."""
    x = [resource("x", "team-a")]
    where = "SELECT c.name FROM resource r JOIN scope c ON c.id = r.scope_id"
    run(world, {"A": x, "B": x})
    report, short = run(world, {"B": x, "A": x})
    assert (report.state, report.rows, short) == ("ok", 1, True)
    assert world.query(where) == [("A",)]
    report, short = run(world, {"B": x, "A": []}, accept=True)
    assert (report.state, report.rows, short) == ("ok", 1, False)
    assert world.query(where) == [("B",)]
    assert world.owners() == {"x": "team-a"}


def test_another_database_knows_nothing_of_a_fingerprint(world: World) -> None:
    """A spool that was begun before the database was replaced is merged row by row, and so is the next."""
    run(world, {"us": ONE})
    late = world.spool({"us": ONE}, known=world.store.known("aws"))
    new = World(world.folder / "new", configuration(integration("aws"), integration("gcp")))
    new.run("corp", *PEOPLE)
    assert new.store.run("aws", late).counts.added == 2
    assert not run(new, {"us": ONE})[1]
    assert run(new, {"us": ONE})[1]
    assert new.owners() == world.owners()
    new.close()


def test_an_integration_that_went_and_came_is_not_known(world: World) -> None:
    """Its rows went with it, and its secret."""
    run(world, {"us": ONE})
    known = world.store.known("aws")
    assert known
    late = world.spool({"us": ONE}, known=known)
    world.configure(configuration(integration("gcp")))
    world.configure(configuration(integration("aws"), integration("gcp")))
    again = world.store.known("aws")
    assert again
    assert (again.secret != known.secret, again.fingerprint) == (True, "")
    assert world.store.run("aws", late).counts.added == 2
    assert world.owners() == {"r1": "team-a", "r2": "team-b"}


def test_a_scope_may_have_any_name(world: World) -> None:
    """Names that are no Unicode are mended before they go into a fingerprint."""
    assert run(world, {"estate-\udcff.json": ONE})[0].state == "ok"
    assert run(world, {"estate-\udcff.json": ONE})[1]


def test_the_form_of_what_is_hashed_is_known() -> None:
    """Who changes how rows are made must give `_FORM` another number: a fingerprint would pass for that of new rows."""
    made = [
        (row[:DIGEST], row[DIGEST].hex())
        for row in (
            resource_row(Resource("/Subscriptions/A/x", "t", "n", "/subscriptions/A", {"b": "é", "a": "1"}), 1),
            resource_row(Resource("bad\ud800", tags={"k\ud800": "x"}), 1),
        )
    ]
    azure = ("/subscriptions/a/x", "/Subscriptions/A/x", "t", "n", "/subscriptions/A", "/subscriptions/a")
    assert (_FORM, made) == (
        1,
        [
            ((*azure, '{"a":"1","b":"é"}'), "87d404c6e1f3a9a665d6476684e3b4d2"),
            (("bad\ufffd", "bad\ufffd", "", "", None, None, '{"k\ufffd":"x"}'), "82d090728dfc8e05019162c2b0ec317b"),
        ],
    )


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
SCOPES = st.dictionaries(st.sampled_from(["us", "eu", "ap"]), st.one_of(PARTS, st.none()), min_size=1)
STEPS = st.one_of(
    st.just(("again",)),
    st.tuples(st.just("whole"), SCOPES),
    st.tuples(st.just("changes"), PARTS, st.sampled_from("wxyz")),
    st.sampled_from([("accept",), ("fail",), ("rules", "owner"), ("rules", "team")]),
)


def listed(part: list[tuple[str, str]], number: int) -> list[Change]:
    return [*(resource(i, owner or None) for i, owner in part), Bookmark(f"b{number}")]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=2, max_size=8))
def test_no_run_ends_otherwise_than_one_that_knew_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    """Whatever comes and goes, fails and comes again, is held and accepted, or is told as changes, under any rules.

    Scopes come in the order of their names: what two of them list is the first one's.
    """
    worlds = [
        World(tmp_path_factory.mktemp("twins"), configuration(integration("aws"), integration("gcp"))) for _ in range(2)
    ]
    last: dict[str, Any] = {"us": []}
    for world in worlds:
        world.run("corp", *PEOPLE)
    for number, step in enumerate(steps):
        match step:
            case ("whole", wanted):
                last = wanted
        for world in worlds:
            world.clock.now += 1
            known = world.store.known("aws") if world is worlds[0] else None
            match step:
                case ("accept",):
                    world.store.accept("aws")
                case ("fail",):
                    world.store.fail("aws", {"code": "crashed", "message": "", "remedy": ""})
                case ("rules", key):
                    world.configure(configuration(integration("aws", owned_by(key=key)), integration("gcp")))
                case ("changes", part, gone):
                    since = world.store.bookmarks("aws", base="", whole_interval=1e9).get("us")
                    if since is not None:
                        records = [Gone(gone), *listed(part, number)]
                        world.store.run("aws", world.spool({"us": records}, {"us": since}, known=known))
                case _:
                    scopes: Scopes = {
                        name: ServerFault("500") if part is None else listed(part, number)
                        for name, part in sorted(last.items())
                    }
                    world.store.run("aws", world.spool(scopes, known=known))
        assert tables(worlds[0]) == tables(worlds[1])
    for world in worlds:
        world.close()
