"""The write-ahead log, and readers that keep it from being emptied."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon.serve.status import status
from daemon.store import wal
from daemon.store.reader import Reader
from tests.crash import vfs
from tests.harness import World, configuration, integration, resource, team
from tests.serving import serving
from tests.unixhttp import call, get

LIMIT = 256 * 2**10
ROWS = 60
PEOPLE = [*team("team-a", "u1"), *team("team-b", "u2"), *team("platform", "p1")]
DOCUMENT = configuration(integration(max_owner_changes=1.0))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(wal, "LIMIT", LIMIT)
    monkeypatch.setattr(wal, "PATIENCE", 0.001)
    with vfs.watching(tmp_path) if vfs.MISSING is None else contextlib.nullcontext():
        made = World(tmp_path, DOCUMENT)
    made.run("corp", *PEOPLE)
    yield made
    made.close()


def publish(world: World, generation: int) -> None:
    owner = "team-b" if generation % 2 else "team-a"
    report = world.run("aws", *(resource(f"r{n}", owner, made=str(generation)) for n in range(ROWS)))
    assert report.state == "ok"
    assert set(world.owners().values()) == {owner}


@contextlib.contextmanager
def stuck_reader(path: Path) -> Iterator[int]:
    """Another program that reads in a transaction and does not end it; its process id."""
    program = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True, isolation_level=None)\n"
        "db.execute('BEGIN'); db.execute('SELECT count(*) FROM answer').fetchone()\n"
        "print('reading', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"reading\n"
        yield process.pid


def test_a_stuck_reader(world: World) -> None:
    """The log grows while it lasts, and operators are told by whom; with its end the next publish empties it."""
    publish(world, 0)
    path = world.store.path
    with capture_logs() as logs, stuck_reader(path) as pid:
        for generation in range(1, 201):
            publish(world, generation)
        grown = wal.size(path)
        assert grown > 2 * LIMIT
        with contextlib.closing(Reader(path)) as reader:
            assert status(reader, world.clock())["database"] == {
                "bytes": path.stat().st_size,
                "log_bytes": grown,
                "log_held": True,
            }
    warned = [entry for entry in logs if entry["event"] == "database.log_grows"]
    assert all(pid in entry["readers"] for entry in warned)
    sizes = [entry["bytes"] for entry in warned]
    assert all(later >= 2 * earlier for earlier, later in itertools.pairwise(sizes)), "once each doubling"
    assert sizes
    with capture_logs() as logs:
        publish(world, 201)
        publish(world, 202)
    assert [entry["event"] for entry in logs] == ["database.log_emptied"]
    assert wal.size(path) <= LIMIT
    with contextlib.closing(Reader(path)) as reader:
        assert not status(reader, world.clock())["database"]["log_held"]
    print(f"200 publishes with a stuck reader: {grown} bytes, {len(warned)} warnings; then {wal.size(path)}")


def test_without_a_stuck_reader(world: World) -> None:
    """However many publishes, with a reader that asks after each: the log stays within its limit."""
    largest = 0
    with capture_logs() as logs, contextlib.closing(Reader(world.store.path)) as reader:
        for generation in range(200):
            publish(world, generation)
            assert len(reader.rows("r1")) == 1
            largest = max(largest, wal.size(world.store.path))
    assert largest <= LIMIT
    assert logs == []
    print(f"200 publishes: {largest} bytes at most")


def test_the_server_holds_no_transaction(world: World) -> None:
    """Whatever was asked, also what failed: once it was answered, nothing keeps the log from being emptied."""
    publish(world, 0)
    socket = world.folder / "ownerd.sock"
    pages = [
        "/v1/resources",
        "/v1/drift",
        "/v1/pending",
        "/v1/changes",
        "/v1/status",
        "/readyz",
        "/metrics",
        "/nothing",
    ]
    with serving(world.store.path, socket, world.clock):
        for generation in range(1, 4):
            for page in pages:
                get(socket, page)
            for rid in ("r0", "r1", "no such", ""):
                get(socket, "/v1/owner", resource=rid)
                get(socket, "/v1/owner", resource=rid, expand="members")
                get(socket, "/v1/explain", resource=rid)
                get(socket, "/v1/owner", {"cache-control": "max-age=0"}, resource=rid, integration="none")
            get(socket, "/v1/resources", limit="1", owner="team-a")
            get(socket, "/v1/resources", cursor="spoilt")
            call(socket, "POST", "/v1/owners", {"resources": ["r0", "no such"] * 400})
            call(socket, "POST", "/v1/owners", b"[")
            publish(world, generation)
            with contextlib.closing(sqlite3.connect(world.store.path)) as db:
                assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            assert wal.size(world.store.path) == 0


@pytest.mark.skipif(vfs.MISSING is not None, reason=str(vfs.MISSING))
def test_a_log_that_cannot_be_emptied(world: World) -> None:
    """The disk fails after the commit: what was published is, and operators are told; with the disk back all is well."""

    def fail(op: vfs.Op) -> vfs.Fail | None:
        return vfs.Fail(vfs.IOERR_WRITE) if op.kind == "write" and op.path.name == "ownerd.db" else None

    with vfs.watching(world.folder):
        with capture_logs() as logs, vfs.asking(fail):
            for generation in range(30):
                publish(world, generation)
        assert {entry["event"] for entry in logs} == {"database.log_grows"}
        assert all("I/O" in entry["problem"] for entry in logs)
        assert wal.size(world.store.path) > LIMIT
        publish(world, 31)
        assert wal.size(world.store.path) <= LIMIT
    assert world.query("PRAGMA integrity_check") == [("ok",)]


def test_who_reads(world: World) -> None:
    """A process counts while it is in a transaction, and no longer; this one does not."""
    publish(world, 0)
    with contextlib.closing(sqlite3.connect(world.store.path, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM answer").fetchone()
        assert wal.readers(world.store.path) == []
        with stuck_reader(world.store.path) as pid:
            assert wal.readers(world.store.path) == [pid]
    assert wal.readers(world.store.path) == []
    assert wal.readers(world.folder / "none") == []
    assert wal.size(world.folder / "none") == 0
