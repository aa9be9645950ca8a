"""A disk that gives errors to whoever reads: no answer is wrong, and nothing is «unknown» for it."""

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
from tests.crash.scenes import answers_of, dump, image, lay, open_world, rows
from tests.crash.vfs import Fail, Op
from tests.harness import World
from tests.serving import serving
from tests.unixhttp import Answer, call, get

pytestmark = pytest.mark.skipif(vfs.MISSING is not None, reason=str(vfs.MISSING))
EVERY = 1 if os.environ.get("OWNERD_CRASH") == "all" else 24
"""Of how many reads one is tried; `make crash` tries each."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    scenes.make_base(folder)
    return folder


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
                        assert lookup.answer(key, None, ANY_AGE).startswith(right[key][:-1])
                    except (sqlite3.Error, DatabaseUnusable):
                        failed += 1
                    except Problem as problem:
                        pytest.fail(f"{key}: {problem.kind}")
            for key in keys:
                assert lookup.answer(key, None, ANY_AGE).startswith(right[key][:-1])
            told = orjson.loads(lookup.answers(keys, ANY_AGE))["answers"]
            assert [t["resource"]["id"] for t in told] == keys
        if not hit:
            break
    assert failed
    print(f"lookups: {point} reads that failed, {failed} errors, 0 wrong answers")


def test_the_server_on_a_disk_that_gives_errors(served: World) -> None:
    """Every page is a 503 that says so, or right; with the disk back, all are answered by the same server."""
    socket = served.folder / "ownerd.sock"
    keys = [row.id for row in rows("", 0)]
    pages = ["/v1/resources", "/v1/drift", "/v1/pending", "/v1/changes", "/v1/status", "/readyz", "/metrics"]
    refused = 0

    def fail(op: Op) -> Fail | None:
        return Fail(vfs.IOERR_READ) if op.kind in {"read", "open"} else None

    def check(answer: Answer, *, disk: bool) -> int:
        """An answer, or a problem that is of the disk; whether it is the latter."""
        if disk or answer.status == 200:
            assert answer.status == 200, answer
            return 0
        assert (answer.status, answer.problem) == (503, "unavailable"), answer
        return 1

    def owners(answer: Answer, *, disk: bool, name: str) -> int:
        if found := check(answer, disk=disk):
            return found
        told = answer.json.get("answers", [answer.json])
        assert {owner["name"] for row in told for owner in row["owners"]} == {name}
        return 0

    with serving(served.store.path, socket, served.clock):
        for generation in range(6):
            name = "team-b" if generation % 2 else "team-a"
            served.run("aws", *rows(name, 5_000 + generation))  # what the server has in memory is of yesterday
            for disk in (False, True):
                with contextlib.nullcontext() if disk else vfs.asking(fail):
                    for key in keys[::50]:
                        refused += owners(get(socket, "/v1/owner", resource=key), disk=disk, name=name)
                        refused += check(get(socket, "/v1/explain", resource=key), disk=disk)
                    batch = call(socket, "POST", "/v1/owners", {"resources": keys})
                    refused += owners(batch, disk=disk, name=name)
                    for page in pages:
                        refused += check(get(socket, page), disk=disk)
                    assert get(socket, "/healthz").status == 200
    assert refused
    print(f"server: {refused} answers were 503, 0 were wrong")
