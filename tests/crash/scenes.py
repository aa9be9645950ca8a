"""What the writer does to its database, one operation a scene, and what the database may say afterwards."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from connectors.values import Resource
from daemon.serve.lookup import ANY_AGE, Lookup
from daemon.store.reader import Reader
from daemon.store.writer import open_writer
from tests.crash import vfs
from tests.harness import Clock, CopyReader, World, configuration, integration, resource, team

ROWS = 500
HOLD = 1800.0
AUTOMATIC = 1000
"""Pages in the log from which on SQLite makes a checkpoint with a commit (`wal_autocheckpoint`, its default)."""
FRAME = 4096 + 24
FILES = ("ownerd.db", "ownerd.db-wal")
PEOPLE = [*team("team-a", "u1"), *team("team-b", "u2"), *team("platform", "p1")]
DOCUMENT = configuration(
    integration("aws", max_owner_changes=1.0),
    integration("slow", hold_owner_changes=HOLD, max_owner_changes=1.0),
)

_AGES = {"resource_seen_at", "owners_seen_at", "stale", "valid_until"}

Image = dict[str, list[Any]]


def rows(owner: str, generation: int, number: int = ROWS) -> list[Resource]:
    """All of a source's resources; each differs from what it is in any other generation."""
    return [resource(f"r{n:04d}", owner, parent="r0000" if n else None, made=str(generation)) for n in range(number)]


def waiting(number: int) -> list[Resource]:
    return [resource(f"s{n:04d}", "team-b") for n in range(number)]


def open_world(folder: Path) -> World:
    return World(folder, DOCUMENT)


@dataclass(frozen=True, slots=True)
class Scene:
    """`act` is acknowledged when it returns. It commits once, so that there is an image before it and one after it."""

    name: str
    act: Callable[[World], object]
    closes: bool = False


def turn(world: World) -> None:
    """What waits has waited long enough."""
    world.clock.now = Clock().now + 2 * HOLD
    world.store.turn()


SCENES = {
    scene.name: scene
    for scene in (
        Scene("publish", lambda world: world.run("aws", *rows("team-b", 1_000))),
        Scene("directory", lambda world: world.run("corp", *team("team-a", "u9"), *PEOPLE[3:])),
        Scene("confirm", lambda world: world.store.confirm("slow", None)),
        Scene("turn", turn),
        Scene("hold", lambda world: world.run("aws", resource("r0000", "team-a"))),
        Scene("configure", lambda world: world.configure({**DOCUMENT, "integrations": DOCUMENT["integrations"][:1]})),
        Scene("close", lambda world: world.close(), closes=True),
    )
}


def make_base(folder: Path) -> None:
    """A state directory as a killed poller leaves it: the next publish fills the log, and makes a checkpoint."""
    world = open_world(folder / "made")
    try:
        world.run("corp", *PEOPLE)
        world.run("slow", *(resource(f"s{n:04d}", "team-a") for n in range(ROWS // 2)))
        world.run("slow", *waiting(ROWS // 2))
        generation = 0
        with contextlib.closing(sqlite3.connect(world.store.path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        log = world.store.path.with_name("ownerd.db-wal")
        while log.stat().st_size < 0.92 * AUTOMATIC * FRAME:
            before = log.stat().st_size
            world.run("aws", *rows("team-a", generation))
            generation += 1
            if log.stat().st_size + (log.stat().st_size - before) > AUTOMATIC * FRAME:
                break
        for name in FILES:
            shutil.copyfile(folder / "made" / name, folder / name)
    finally:
        world.close()
        shutil.rmtree(folder / "made")


def lay(base: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in FILES:
        if (base / name).exists():
            shutil.copyfile(base / name, folder / name)
    return folder


_OF_THE_COPY = {"copy", "uncopied"}
"""What a file's random name is in, and what goes with it: `told_by_reader` asks the copy itself."""


def dump(db: sqlite3.Connection) -> Image:
    """Every row of every table, but for those of the copy."""
    names = [name for (name,) in db.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table' ORDER BY name")]
    tables = [name for name in names if name not in _OF_THE_COPY]
    return {table: sorted(db.execute(f'SELECT * FROM main."{table}"').fetchall(), key=repr) for table in tables}


def image(folder: Path) -> Image:
    """What a copy of a state directory says, without touching it."""
    copy = lay(folder, folder / "image")
    try:
        with contextlib.closing(sqlite3.connect(copy / "ownerd.db")) as db:
            return dump(db)
    finally:
        shutil.rmtree(copy)


def answers_of(told: Image) -> dict[str, bytes]:
    """Each resource's answer, but for the ages: those are put in when it is asked for."""
    return {row[0]: row[-1] + b"}" for row in told["answer"]}


@dataclass
class Recorded:
    """What one operation did to the files, and what they said before and after."""

    scene: Scene
    start: dict[str, bytes]
    old: Image
    new: Image
    ops: list[vfs.Op]
    indexes: list[int] = field(default_factory=list)
    """Of the operations that change a file."""


def record(base: Path, folder: Path, scene: Scene) -> Recorded:
    """Let an operation happen, and note each write and sync."""
    lay(base, folder)
    ops: list[vfs.Op] = []

    def note(op: vfs.Op) -> None:
        if op.changes:
            ops.append(op)

    with vfs.watching(folder):
        world = open_world(folder)
        try:
            start = {name: (folder / name).read_bytes() for name in FILES}
            old = image(folder)
            with vfs.asking(note):
                scene.act(world)
            if scene.closes:
                new = old
            else:
                new = image(folder)
                assert new != old
        finally:
            if not scene.closes:
                world.close()
    assert ops
    return Recorded(scene, start, old, new, ops)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Reader]:
    reader = Reader(path)
    try:
        yield reader
    finally:
        reader.close()


def told_by_reader(path: Path, keys: Iterable[str]) -> dict[str, bytes]:
    """What the server answers for each of these resources that it knows, but for the ages.

    Fails if the copy of the answers says anything else than the table.
    """
    asked = sorted(keys)
    with CopyReader(path) as copy:
        copy.look(*asked)
    with reading(path) as reader:
        told = orjson.loads(Lookup(reader, Clock()).answers(asked, ANY_AGE))["answers"]
    found = {}
    for key, answer in zip(asked, told, strict=True):
        if answer.get("status") != 404:
            found[key] = orjson.dumps({k: v for k, v in answer.items() if k not in _AGES})
    return found


def which(folder: Path, old: Image, new: Image) -> str:
    """Which generation a state directory holds, to a server and to a writer that come upon it: old or new.

    Fails if it is a mixture, if either cannot open it, or if it was taken for damaged.
    """
    path = folder / "ownerd.db"
    served = told_by_reader(path, {*answers_of(old), *answers_of(new)})
    db = open_writer(path)
    try:
        stored = dump(db)
        (checked,) = db.execute("PRAGMA integrity_check").fetchone()
    finally:
        db.close()
    assert checked == "ok"
    assert not list(folder.glob("*.damaged-*"))
    assert stored in (old, new), "a torn generation"
    assert served == answers_of(stored)
    return "new" if stored == new else "old"
