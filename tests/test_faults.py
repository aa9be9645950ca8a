"""A disk that gives errors, or is full, at every write and sync of what the writer does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.settings import parse_settings
from daemon import control, engine
from daemon.errors import DatabaseDamaged, DatabaseUnusable, OwnerdError, WriterBusy
from daemon.store import writer
from tests.crash import scenes, vfs
from tests.crash.scenes import SCENES, Recorded, answers_of, dump, image, lay, open_world, record, rows, told_by_reader
from tests.crash.vfs import Fail, Op
from tests.harness import World, resource

pytestmark = pytest.mark.skipif(vfs.MISSING is not None, reason=str(vfs.MISSING))
EVERY = 1 if os.environ.get("OWNERD_CRASH") == "all" else 40
"""Of how many points one is tried; `make crash` tries each."""
EIO = {"write": vfs.IOERR_WRITE, "sync": vfs.IOERR_FSYNC, "truncate": vfs.IOERR_TRUNCATE, "delete": vfs.IOERR_DELETE}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    scenes.make_base(folder)
    return folder


@pytest.fixture
def served(base: Path, tmp_path: Path) -> Iterator[World]:
    lay(base, tmp_path / "w")
    with vfs.watching(tmp_path / "w"):
        world = open_world(tmp_path / "w")
        yield world
        world.close()


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
@pytest.mark.parametrize("name", ["publish", "directory", "confirm", "turn", "hold", "configure"])
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
            assert told_by_reader(world.store.path, answers_of(recorded.old)) == {
                key: answer for key, answer in answers_of(expected).items() if key in answers_of(recorded.old)
            }
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


# --- beside the database ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_held_snapshot_that_cannot_be_kept(
    served: World, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """The run fails as one that the database fails; nothing is marked as held, and what was held before still is."""
    assert served.run("aws", resource("r0000", "team-a")).state == "held"
    before = served.store.held.reports()
    place: Any = {"fsync": os, "replace": Path, "open": Path}[call]
    with monkeypatch.context() as patch:
        real = getattr(place, call)

        def fail(*arguments: Any, **more: Any) -> Any:
            if call == "fsync" or ".partial" in str(arguments[0]):
                raise OSError(code, os.strerror(code))
            return real(*arguments, **more)

        patch.setattr(place, call, fail)
        with pytest.raises(DatabaseUnusable, match=os.strerror(code)):
            served.run("aws", resource("r0001", "team-b"))
    assert [{**row, "at": 0} for row in served.store.held.reports()] == [{**row, "at": 0} for row in before]
    assert served.run("aws", resource("r0001", "team-b")).state == "held"
    report = served.store.accept("aws")
    assert report
    assert report.state == "ok"
    assert served.store.held.reports() == []


def test_a_held_snapshot_that_cannot_be_removed(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run says so, and what it read is in force; the next one removes it."""
    assert served.run("aws", resource("r0000", "team-a")).state == "held"
    with monkeypatch.context() as patch:

        def fail(self: Path, *, missing_ok: bool = False) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        patch.setattr(Path, "unlink", fail)
        with pytest.raises(DatabaseUnusable, match=os.strerror(errno.EROFS)):
            served.run("aws", *rows("team-b", 4_000))
    assert served.owners()["r0001"] == "team-b"
    assert served.run("aws", *rows("team-b", 4_000)).released
    assert served.store.held.reports() == []


def test_a_start_on_a_full_disk(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock holds though its holder's name finds no room."""
    folder = lay(base, tmp_path / "w")

    def fail(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        world = open_world(folder)
    with pytest.raises(WriterBusy):
        open_world(folder)
    world.close()


def test_a_spool_that_cannot_be_read(served: World) -> None:
    """It is the run's trouble and not the database's: the run fails, and the next one does not."""
    before = served.owners()
    spoilt = served.folder / "spool" / "spoilt.db"
    for content in (b"", b"no database at all, but long enough to look like one" * 100):
        spoilt.write_bytes(content)
        with pytest.raises(DatabaseUnusable, match=str(spoilt)):
            served.store.run("aws", spoilt)
        assert served.owners() == before
    assert served.run("aws", *rows("team-b", 4_000)).state == "ok"


def test_a_reopening_that_fails(served: World) -> None:
    """After damage was found the disk fails too: the next run opens the database, and goes on."""
    before = served.owners()

    def fail(op: Op) -> Fail | None:
        return Fail(vfs.IOERR_READ) if op.kind == "read" else None

    with vfs.asking(fail), pytest.raises(DatabaseUnusable):
        served.store.reopen(served.settings)
    assert served.store.lost
    with pytest.raises(DatabaseUnusable):
        served.run("aws", *rows("team-b", 4_000))
    assert not served.store.reopen(served.settings)
    assert not served.store.lost
    assert served.owners() == before
    assert served.run("aws", *rows("team-b", 4_000)).state == "ok"


@pytest.mark.parametrize("renames", range(3))
def test_death_while_a_damaged_one_is_set_aside(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """What is left is seen to be damaged again, or is nothing: never a database without its log."""
    folder = lay(base, tmp_path / "w")
    path = folder / "ownerd.db"
    (folder / "ownerd.db-shm").write_bytes(bytes(32768))
    left, real = renames, Path.rename

    def rename(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise InterruptedError
        left -= 1
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with contextlib.suppress(InterruptedError):
            writer.set_aside(path)
    assert path.exists() == (folder / "ownerd.db-wal").exists() or not path.exists()
    open_world(folder).close()
    assert image(folder)["answer"] in ([], image(base)["answer"])


def test_a_confirmation_that_fails(served: World) -> None:
    """Whoever confirms is told that it failed, and why; nothing is in force by halves."""
    before = dump(served.store._db)
    path = served.folder / "control.sock"

    async def ask() -> list[dict[str, Any]]:
        async def handler(_request: dict[str, Any], _send: Any) -> None:
            served.store.confirm("slow", None)

        server = await control.listen(path, handler)
        try:
            return [event async for event in control.ask(path, {"verb": "confirm"})]
        finally:
            server.close()

    with vfs.asking(Faulty(3, "lasting full")):
        (told,) = asyncio.run(ask())
    assert told["event"] == "refused"
    assert "full" in told["message"]
    assert "room" in told["remedy"]
    assert dump(served.store._db) == before


def test_a_poller_that_dies_before_it_has_answered(served: World) -> None:
    """Silence is no yes."""
    document = {**scenes.DOCUMENT, "daemon": {"state_directory": str(served.folder)}}
    settings = parse_settings(document, Path("test.toml"))

    async def ask() -> None:
        async def handler(_request: Any, _send: Any) -> None:
            """Say nothing."""

        server = await control.listen(settings.control_socket, handler)
        try:
            async for _ in engine.confirm(settings, "slow", None):
                pass
        finally:
            server.close()

    with pytest.raises(OwnerdError, match="before it had answered"):
        asyncio.run(ask())
