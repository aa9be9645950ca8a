"""A disk that gives errors, or is full, at every write and sync of what the writer does, and at every read."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from daemon.errors import DatabaseDamaged, DatabaseUnusable
from daemon.serve.lookup import ANY_AGE, Lookup
from daemon.serve.problems import Problem
from daemon.store.reader import Reader
from tests.crash import scenes, vfs
from tests.crash.scenes import SCENES, Recorded, answers_of, dump, image, lay, open_world, record, rows, told_by_reader
from tests.crash.vfs import Fail, Op
from tests.harness import World

pytestmark = pytest.mark.skipif(vfs.MISSING is not None, reason=str(vfs.MISSING))
EVERY = 1 if os.environ.get("OWNERD_CRASH") == "all" else 24
"""Of how many points one is tried; `make crash` tries each."""
EIO = {"write": vfs.IOERR_WRITE, "sync": vfs.IOERR_FSYNC, "truncate": vfs.IOERR_TRUNCATE, "delete": vfs.IOERR_DELETE}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    scenes.make_base(folder)
    return folder


class Faulty:
    """Lets one operation that changes a file fail, and, with `lasting`, each one after it."""

    def __init__(self, point: int, how: str) -> None:
        self.left = point
        self.how = how
        self.hit = 0

    def __call__(self, op: Op) -> Fail | None:
        if not op.changes:
            return None
        self.left -= 1
        if self.left >= 0 or (self.hit and not self.how.startswith("lasting")):
            return None
        if "full" in self.how and op.kind in {"sync", "delete", "truncate"}:
            return None  # these need no room
        self.hit += 1
        code = vfs.FULL if "full" in self.how else EIO[op.kind]
        return Fail(code, len(op.data) // 2 if "half" in self.how else 0)


HOW = ("one error", "one half-written", "lasting errors", "lasting full", "lasting full half-written")


def points(recorded: Recorded) -> list[int]:
    """Each sync, and others at even distances; the last two are always among them."""
    last = len(recorded.ops)
    chosen = {*range(0, last, EVERY), *(n for n, op in enumerate(recorded.ops) if op.kind != "write")}
    return sorted(chosen | {last - 2, last - 1})


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["publish", "directory", "confirm", "configure"])
def test_writes_and_syncs(base: Path, tmp_path: Path, name: str, how: str) -> None:
    """It fails with an error that is no damage, or succeeds; what was served is served; the next one succeeds."""
    recorded = record(base, tmp_path / "recorded", SCENES[name])
    failed = hits = 0
    chosen = points(recorded)
    for point in chosen:
        folder = lay(base, tmp_path / f"{point}")
        with vfs.watching(folder):
            world = open_world(folder)
            faulty, acknowledged = Faulty(point, how), False
            with vfs.asking(faulty):
                try:
                    SCENES[name].act(world)
                    acknowledged = True
                except DatabaseUnusable as error:
                    assert not isinstance(error, DatabaseDamaged), error
                    assert str(folder) in error.message
                    assert error.remedy
                    failed += 1
            hits += bool(faulty.hit)
            expected = recorded.new if acknowledged else recorded.old
            assert told_by_reader(world.store.path, expected) == answers_of(expected)
            assert stored(world) == expected
            SCENES[name].act(world)
            assert stored(world)["answer"] == recorded.new["answer"]
            assert world.query("PRAGMA integrity_check") == [("ok",)]
            world.close()
        assert not list(folder.glob("*.damaged-*"))
        assert image(folder)["answer"] == recorded.new["answer"]
        shutil.rmtree(folder)
    assert failed
    print(f"{name}, {how}: {len(chosen)} points, {hits} faults, {failed} failed runs")


def stored(world: World) -> scenes.Image:
    """What another process reads."""
    with contextlib.closing(sqlite3.connect(f"file:{world.store.path}?mode=ro", uri=True)) as db:
        return dump(db)


def test_reads_at_a_start(base: Path, tmp_path: Path) -> None:
    """An error of the disk is told as one, wherever the start meets it: also SQLite's checks, which report it as text."""
    reads = 0

    def count(op: Op) -> None:
        nonlocal reads
        reads += op.kind == "read"

    folder = lay(base, tmp_path / "counted")
    with vfs.watching(folder), vfs.asking(count):
        open_world(folder).close()
    whole = image(folder)
    refused = 0
    for point, lasting in itertools.product(range(0, reads, EVERY), (False, True)):
        left = point

        def fail(op: Op, lasting: bool = lasting) -> Fail | None:
            nonlocal left
            left -= op.kind == "read"
            return Fail(vfs.IOERR_READ) if op.kind == "read" and (left == -1 or (lasting and left < 0)) else None

        folder = lay(base, tmp_path / f"{point} {lasting}")
        with vfs.watching(folder), vfs.asking(fail):
            try:
                open_world(folder).close()
            except DatabaseUnusable as error:
                assert not isinstance(error, DatabaseDamaged), error
                refused += 1
        assert not list(folder.glob("*.damaged-*"))
        assert image(folder) == whole
        shutil.rmtree(folder)
    assert refused
    print(f"start: {reads} reads, {refused} refused starts, 0 databases set aside")


def test_a_page_that_cannot_be_read(base: Path, tmp_path: Path) -> None:
    """One bad place on the disk is not taken for damage, whichever page lies there."""
    lay(base, tmp_path / "w")
    path = tmp_path / "w" / "ownerd.db"
    open_world(path.parent).close()  # all of it is in the one file
    pages = path.stat().st_size // 4096
    for page in range(0, pages, max(1, EVERY // 4)):

        def fail(op: Op, page: int = page) -> Fail | None:
            return Fail(vfs.IOERR_READ) if op.kind == "read" and op.at // 4096 == page else None

        with vfs.watching(path.parent), vfs.asking(fail):
            with pytest.raises(DatabaseUnusable) as caught:
                open_world(path.parent).close()
        assert not isinstance(caught.value, DatabaseDamaged), caught.value
        assert not list(path.parent.glob("*.damaged-*"))


@pytest.fixture
def served(base: Path, tmp_path: Path) -> Iterator[World]:
    lay(base, tmp_path / "w")
    with vfs.watching(tmp_path / "w"):
        world = open_world(tmp_path / "w")
        yield world
        world.close()


def test_lookups_on_a_disk_that_gives_errors(served: World) -> None:
    """An answer, the right one, or an error that is no answer: never «unknown». Afterwards all is answered again."""
    right = answers_of(dump(served.store._db))
    keys = list(right)[:: max(1, EVERY // 2)]
    failed = 0
    for point in itertools.count():
        left = point
        hit = False

        def fail(op: Op) -> Fail | None:
            nonlocal left, hit
            if op.kind not in {"read", "open"}:
                return None
            left -= 1
            hit |= left == -1
            return Fail(vfs.IOERR_READ) if left == -1 else None

        with contextlib.closing(Reader(served.store.path)) as reader:
            lookup = Lookup(reader, served.clock)
            with vfs.asking(fail):
                for key in keys:
                    try:
                        assert lookup.answer(key, None, ANY_AGE).startswith(right[key])
                    except (sqlite3.Error, DatabaseUnusable):
                        failed += 1
                    except Problem as problem:
                        pytest.fail(f"{key}: {problem.kind}")
            for key in keys:
                assert lookup.answer(key, None, ANY_AGE).startswith(right[key])
            told = orjson.loads(lookup.answers(keys, ANY_AGE))["answers"]
            assert [t["resource"]["id"] for t in told] == keys
        if not hit:
            break
    assert failed
    print(f"lookups: {point} reads that failed, {failed} errors, 0 wrong answers")


def test_a_full_disk_for_hours(served: World) -> None:
    """Each run fails and says why, lookups go on; with room again, the next run is as any other."""
    before = served.owners()
    with vfs.asking(Faulty(0, "lasting full")):
        for generation in range(5):
            with pytest.raises(DatabaseUnusable, match="full"):
                served.run("aws", *rows("team-b", 2_000 + generation))
            assert served.owners() == before
    assert served.run("aws", *rows("team-b", 3_000)).state == "ok"
    assert {served.owners()[row.id] for row in rows("team-b", 3_000)} == {"team-b"}
