"""Damaged databases: set aside, filled anew from the sources, and never answered from wrongly."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from daemon.errors import DatabaseDamaged, DatabaseUnusable
from daemon.serve.lookup import ANY_AGE, Lookup
from daemon.serve.problems import Problem
from daemon.store import readonly, writer
from daemon.store.reader import Reader
from tests.harness import Clock, World, configuration, integration, resource, team

DOCUMENT = configuration(integration())
PEOPLE = [*team("team-a", "u1"), *team("platform", "p1")]
ROWS = [resource(f"r{n:03d}", "team-a" if n % 2 else None, parent=f"r{n // 2:03d}") for n in range(200)]
FLIPPED = 500


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good database, closed: all of it is in the one file."""
    folder = tmp_path_factory.mktemp("whole")
    world = World(folder, DOCUMENT)
    world.run("corp", *PEOPLE)
    world.run("aws", *ROWS)
    world.close()
    return folder / "ownerd.db"


def truth(path: Path) -> dict[str, bytes]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT key, body FROM answer"))


def integrity(path: Path) -> str:
    """What SQLite's own whole check says."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.text_factory = bytes
            return str(db.execute("PRAGMA integrity_check(1)").fetchone()[0].decode("utf-8", "replace"))
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        return str(error)


def flip(path: Path, rng: random.Random) -> None:
    """Spoil a few bytes of a page, or a whole one."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(rng.randrange(size))
        match rng.randrange(3):
            case 0:
                file.write(bytes([rng.randrange(256)]))
            case 1:
                file.write(rng.randbytes(rng.randrange(1, 64)))
            case _:
                file.seek(rng.randrange(size // 4096) * 4096)
                file.write(rng.choice([bytes(4096), rng.randbytes(4096)]))


def test_bytes_flipped_at_random(whole: Path, tmp_path: Path) -> None:
    """Of 500 spoilt files, each that SQLite finds damaged is set aside, and serves again once its sources are read."""
    right, found = truth(whole), 0
    for number in range(FLIPPED):
        rng = random.Random(number)
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "ownerd.db"
        shutil.copyfile(whole, path)
        flip(path, rng)
        if integrity(path) == "ok":
            continue  # the bytes of a value, or of no consequence: nothing in the file says what they were
        found += 1
        world = World(folder, DOCUMENT)
        (aside,) = [p for p in folder.glob("ownerd.db.damaged-*") if not p.name.endswith(("-wal", "-shm"))]
        assert aside.stat().st_mode & 0o777 == 0o600
        assert world.owners() == {}
        world.run("corp", *PEOPLE)
        world.run("aws", *ROWS)
        assert truth(path).keys() == right.keys()
        assert integrity(path) == "ok"
        world.close()
        shutil.rmtree(folder)
    assert found > FLIPPED / 3


def test_a_damaged_page_is_no_answer(whole: Path, tmp_path: Path) -> None:
    """A lookup that meets damage is an error, not an answer and not «unknown»; others are answered as before."""
    path = tmp_path / "ownerd.db"
    shutil.copyfile(whole, path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        pages = (
            [p for (p,) in db.execute("SELECT pageno FROM dbstat WHERE name = 'answer' AND pagetype = 'leaf'")]
            if has_dbstat(db)
            else []
        )
        right = truth(path)
    if not pages:
        pages = pages_with(path, b"r150")
    with path.open("r+b") as file:
        file.seek((pages[len(pages) // 2] - 1) * 4096)
        file.write(b"\xff" * 4096)
    told: dict[str, Any] = {}
    with contextlib.closing(Reader(path)) as reader:
        lookup = Lookup(reader, Clock())
        for key in right:
            try:
                told[key] = lookup.answer(key, None, ANY_AGE)
            except sqlite3.DatabaseError:
                told[key] = None
            except Problem as problem:
                pytest.fail(f"{key}: {problem.kind}")
    assert None in told.values()
    for key, answer in told.items():
        if answer is not None:
            assert answer.startswith(right[key])


def has_dbstat(db: sqlite3.Connection) -> bool:
    try:
        db.execute("SELECT 1 FROM dbstat LIMIT 1")
    except sqlite3.OperationalError:
        return False
    return True


def pages_with(path: Path, text: bytes) -> list[int]:
    """The pages of answers that hold `text`."""
    data = path.read_bytes()
    return [
        n + 1
        for n in range(len(data) // 4096)
        if text in (p := data[n * 4096 : n * 4096 + 4096]) and b'{"resource"' in p
    ]


def test_the_server_goes_on_from_the_old_file_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the sources are read anew, what was known is answered."""
    monkeypatch.setattr(readonly, "LOOK", 0.0)
    world = World(tmp_path, DOCUMENT)
    world.run("corp", *PEOPLE)
    world.run("aws", resource("r", "team-a"))
    with contextlib.closing(Reader(world.store.path)) as reader:
        lookup = Lookup(reader, world.clock)

        def owner() -> str:
            name: str = orjson.loads(lookup.answer("r", None, ANY_AGE))["owners"][0]["name"]
            return name

        assert owner() == "team-a"
        world.close()
        writer.set_aside(tmp_path / "ownerd.db")
        world = World(tmp_path, DOCUMENT)
        assert owner() == "team-a", "the new database is empty"
        with pytest.raises(Problem) as caught:
            lookup.answer("nobody has it", None, ANY_AGE)
        assert caught.value.kind == "not-yet-known", "a damaged file's «unknown» is not to be trusted"
        world.run("corp", *PEOPLE)
        assert owner() == "team-a", "half of it is not enough"
        world.run("aws", resource("r"))
        assert owner() == "platform"
    world.close()


def test_damage_that_a_publish_meets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run fails with an error of its own kind, which makes the runner open the database anew."""
    world = World(tmp_path, DOCUMENT)
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert isinstance(writer.failure(world.store.path, error), DatabaseDamaged)
    assert world.store.reopen(world.settings) is False, "nothing is wrong with it: it stays"
    world.store._db.close()
    world.store.path.write_bytes(os.urandom(8192))
    world.store._db = sqlite3.connect(":memory:")
    assert world.store.reopen(world.settings) is True
    world.run("corp", *PEOPLE)
    world.run("aws", resource("r", "team-a"))
    assert world.owners() == {"r": "team-a"}
    world.close()


@pytest.mark.parametrize(
    "code",
    [
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_SCHEMA,
    ],
)
def test_what_is_no_damage_resets_nothing(tmp_path: Path, code: int) -> None:
    """A full disk, or one that does not answer, says nothing against the file."""
    error = sqlite3.OperationalError("something")
    error.sqlite_errorcode = code
    told = writer.failure(tmp_path, error)
    assert isinstance(told, DatabaseUnusable)
    assert not isinstance(told, DatabaseDamaged)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """It is set aside too: nothing of it could be read."""
    (tmp_path / "ownerd.db").write_bytes(b"not a database, but long enough to be one" * 200)
    world = World(tmp_path, DOCUMENT)
    assert len(list(tmp_path.glob("ownerd.db.damaged-*"))) == 1
    world.close()


def test_a_file_that_may_not_be_read_stays(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A denied permission is no damage."""
    shutil.copyfile(whole, tmp_path / "ownerd.db")
    real = sqlite3.connect

    def refuse(*arguments: Any, **more: Any) -> Any:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    monkeypatch.setattr(sqlite3, "connect", refuse)
    with pytest.raises(DatabaseUnusable):
        writer.open_writer(tmp_path / "ownerd.db")
    monkeypatch.setattr(sqlite3, "connect", real)
    assert integrity(tmp_path / "ownerd.db") == "ok"
    assert not list(tmp_path.glob("*.damaged-*"))


def test_only_the_last_few_damaged_ones_are_kept(tmp_path: Path) -> None:
    """A disk that goes on damaging files does not fill itself with them."""
    for number in range(writer.KEPT + 2):
        (tmp_path / "ownerd.db").write_text(str(number))
        (tmp_path / "ownerd.db-wal").write_text("")
        writer.set_aside(tmp_path / "ownerd.db")
    kept = sorted(p for p in tmp_path.glob("ownerd.db.damaged-*") if not p.name.endswith("-wal"))
    assert len(kept) == writer.KEPT
    assert len(list(tmp_path.glob("*-wal"))) == writer.KEPT


@pytest.fixture(autouse=True)
def quiet(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    capsys.readouterr()
