"""Syncs: against bare inserts of the same rows, bare reading and comparing, and lookups meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import orjson

from daemon.pipeline import Store
from daemon.processes import give_way
from daemon.store.writer import open_writer
from tests.benchmarks import peers
from tests.benchmarks.peers import reading
from tests.benchmarks.report import Bar, Figure, Row, at_most
from tests.benchmarks.watch import Watch
from tests.benchmarks.world import Size, Took, World
from tests.processes import environment

_CHUNK = 10_000
_TABLES = {"resource": "id", "answer": "resource_id"}
"""What a first sync is compared with: these tables, and the column by which their rows are in the order of ours."""


def bare_insert(world: World) -> Watch:
    """The time to insert the rows of `_TABLES` into an empty database like ours, in one transaction, and no more."""
    path, took = world.folder / "bare.db", Watch()
    with closing(reading(world.database)) as source, closing(open_writer(path)) as db:
        db.execute("BEGIN IMMEDIATE")
        for table, order in _TABLES.items():
            rows = source.execute(f"SELECT * FROM {table} ORDER BY {order}")
            insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows.description))})"
            while chunk := rows.fetchmany(_CHUNK):
                with took:
                    db.executemany(insert, chunk)
        with took:
            db.execute("COMMIT")
    for left in world.folder.glob("bare.db*"):
        left.unlink()
    return took


def bare_compare(world: World) -> Watch:
    """The time to read every resource from the database, and to compare what comes with it, column by column."""
    dumps, sort, took, differing = orjson.dumps, orjson.OPT_SORT_KEYS, Watch(), 0
    with closing(reading(world.database)) as db, took:
        known = {
            rid: (kind, name, parent, tags)
            for rid, kind, name, parent, tags in db.execute("SELECT rid, type, name, parent, tags FROM resource")
        }
    for chunk in world.size.estate():
        with took:
            for it in chunk:
                differing += known.get(it.id) != (it.type, it.name, it.parent, dumps(it.tags, option=sort).decode())
    assert differing == 0, differing
    return took


def row_compare(world: World) -> Watch:
    """As `bare_compare`, but resource by resource, in memory that does not grow: a read by key for each."""
    dumps, sort, took, differing = orjson.dumps, orjson.OPT_SORT_KEYS, Watch(), 0
    query = "SELECT type, name, parent, tags FROM resource WHERE source_id = ? AND key = ?"
    with closing(reading(world.database)) as db:
        (source,) = db.execute("SELECT id FROM source WHERE role = 'integration'").fetchone()
        for chunk in world.size.estate():
            with took:
                for it in chunk:
                    found = db.execute(query, (source, it.id)).fetchone()
                    differing += found != (it.type, it.name, it.parent, dumps(it.tags, option=sort).decode())
    assert differing == 0, differing
    return took


class Syncs:
    """Measures on one world. The first sync of all is measured in worlds of its own."""

    def __init__(self, world: World, repetitions: int, seconds: float) -> None:
        self.world, self.repetitions, self.seconds = world, repetitions, seconds

    def first(self) -> list[Row]:
        """Each repetition in a new state directory. The first is that of `world` itself, which was built already."""
        took, bare, corp = [self.world.first], [bare_insert(self.world)], [self.world.corp]
        for n in range(1, self.repetitions):
            folder = self.world.folder / f"again-{n}"
            folder.mkdir()
            again = World(folder, self.world.size)
            with closing(again.open_store()) as store:
                again.build(store)
            took.append(again.first)
            corp.append(again.corp)
            bare.append(bare_insert(again))
            shutil.rmtree(folder)
        more = {
            "spool": [t.spool.seconds for t in took],
            "publish": [t.publish.seconds for t in took],
            "directory_first": [t.whole for t in corp],
            "database_bytes": self.world.database.stat().st_size,
        }
        return _rows("first sync of all resources", "bare executemany of the same rows", at_most(4), took, bare, more)

    def rows(self) -> Iterator[Row]:
        """All but lookups meanwhile."""
        first = self.first()
        yield from first
        with closing(self.world.open_store()) as store:
            yield from self._unchanged(store)
            yield self._one_group(store, first[0])
            yield self._directory(store, first[0])

    def _unchanged(self, store: Store) -> Iterator[Row]:
        world = self.world
        took, scan, by_row = [], [], []
        for _ in range(self.repetitions):
            took.append(world.sync_estate(store)[0])
            scan.append(bare_compare(world))
            by_row.append(row_compare(world))
        more = {"spool": [t.spool.seconds for t in took], "publish": [t.publish.seconds for t in took]}
        what = "a sync in which nothing changed"
        yield from _rows(what, "reading and comparing the rows bare", at_most(1.5), took, scan, more)
        yield from _rows(what, "the same, a read by key for each", None, took, by_row, {})

    def _one_group(self, store: Store, first: Row) -> Row:
        took = [self.world.change_first_group(store, empty=n % 2 == 0).whole for n in range(2 * self.repetitions)]
        what = f"one group changes, {self.world.size.dependents:,} resources depend on it"
        assert first.ours
        whole = Figure("s", (first.ours.median,) * len(took))
        return Row(what, "the first sync", at_most(0.01), _seconds(took), whole)

    def _directory(self, store: Store, first: Row) -> Row:
        took = [self.world.sync_directory(store).whole for _ in range(self.repetitions)]
        assert first.ours
        whole = Figure("s", (first.ours.median,) * len(took))
        return Row("the whole directory is read, nothing changed", "the first sync", None, _seconds(took), whole)

    def meanwhile(self) -> Iterator[Row]:
        """Lookups of resources while each of them is merged with another name."""
        idle: list[dict[str, float]] = []
        busy: list[dict[str, float]] = []
        took = []
        with (
            peers.ownerd(self.world) as server,
            ThreadPoolExecutor(1, initializer=give_way) as merger,  # as the poller does; of a thread, in Linux
            closing(merger.submit(self.world.open_store).result()) as store,
        ):
            for n in range(self.repetitions):
                spool = self.world.spool_estate(store, revision=n + 1)
                with _Prober(server.socket, self.world.size) as prober:
                    time.sleep(max(3.0, self.seconds))
                idle.append(prober.told)
                started = time.perf_counter()
                with _Prober(server.socket, self.world.size) as prober:
                    report = merger.submit(store.run, "estate", spool).result()
                took.append(time.perf_counter() - started)
                assert report.counts.changed == self.world.size.resources, report
                busy.append(prober.told)
                spool.unlink(missing_ok=True)
        what = f"lookups while {self.world.size.resources:,} resources are merged"
        more = {"merge_seconds": took, "lookups_meanwhile": [b["count"] for b in busy]}
        for name, bar in (("p99", at_most(2)), ("median", None), ("p99.9", None)):
            ours, theirs = (Figure("µs", tuple(it[name] for it in them)) for them in (busy, idle))
            yield Row(f"{what}, {name}", "the same, idle", bar, ours, theirs, more=more)


class _Prober:
    """Asks for one resource after the other, from another process, as long as it lasts."""

    def __init__(self, socket: Path, size: Size) -> None:
        self._words = [sys.executable, "-m", "tests.benchmarks.prober", str(socket), str(size.resources)]
        self.told: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
        assert self._process.stdout
        self._process.stdout.readline()  # it has begun
        return self

    def __exit__(self, *_: object) -> None:
        self.told = orjson.loads(self._process.communicate(b"stop\n")[0])


def _rows(
    what: str, peer: str, bar: Bar | None, took: Sequence[Took], bare: Sequence[Watch], more: dict[str, Any]
) -> list[Row]:
    """By the clock, which the bar is for, and by the processor's time."""
    clock = Row(what, peer, bar, _seconds(t.whole for t in took), _seconds(b.seconds for b in bare), more=more)
    cpu = Figure("CPU s", tuple(t.cpu for t in took)), Figure("CPU s", tuple(b.cpu for b in bare))
    return [clock, Row(f"{what}: processor", peer, None, *cpu)]


def _seconds(them: Iterator[float] | list[float]) -> Figure:
    return Figure("s", tuple(them))
