"""A process that dies, or a machine that loses its power, at every write and sync of what the writer does."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.crash import power, scenes, vfs
from tests.crash.scenes import SCENES, Recorded, Scene, image, open_world, record, which
from tests.harness import World

pytestmark = pytest.mark.skipif(vfs.MISSING is not None, reason=str(vfs.MISSING))
EVERY = 1 if os.environ.get("OWNERD_CRASH") == "all" else 32
"""Of how many points one is tried; `make crash` tries each."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    scenes.make_base(folder)
    return folder


def points(recorded: Recorded) -> list[int]:
    """The operations before which it happens, and the end; each sync, and what surrounds it, is among them."""
    syncs = {n + d for n, op in enumerate(recorded.ops) if op.kind != "write" for d in (-1, 0, 1)}
    last = len(recorded.ops)
    return sorted({*range(0, last, EVERY), *(n for n in syncs if 0 <= n <= last), last})


@pytest.mark.parametrize("name", SCENES)
def test_at_every_write_and_sync(base: Path, tmp_path: Path, name: str, record_property: Any) -> None:
    """The generation before or the one after, never a mixture; and the one after, once it was acknowledged."""
    recorded = record(base, tmp_path / "recorded", SCENES[name])
    tried, told = 0, {"old": 0, "new": 0}
    chosen = points(recorded)
    for point in chosen:
        for variant, files in power.states(recorded.start, recorded.ops, point, name):
            folder = tmp_path / f"{point}"
            power.put(files, folder)
            found = which(folder, recorded.old, recorded.new)
            shutil.rmtree(folder)
            tried += 1
            told[found] += 1
            assert found == "new" or point < len(recorded.ops), f"acknowledged, and lost: {variant}"
    record_property("points", len(chosen))
    record_property("states", tried)
    assert told["new"]
    assert told["old"] or recorded.old == recorded.new
    print(f"{name}: {len(recorded.ops)} writes and syncs, {len(chosen)} points, {tried} states: {told}")


def test_the_model_sees_what_is_not_synced(base: Path, tmp_path: Path) -> None:
    """Were a commit not synced, states would be found in which an acknowledged confirmation is lost."""

    def unsynced(world: World) -> None:
        world.store._db.execute("PRAGMA synchronous = NORMAL")
        world.store.confirm("slow", ["s0000"])

    recorded = record(base, tmp_path / "recorded", Scene("unsynced", unsynced))
    found = set()
    for number, (_, files) in enumerate(power.states(recorded.start, recorded.ops, len(recorded.ops), "unsynced")):
        folder = tmp_path / str(number)
        power.put(files, folder)
        found.add(which(folder, recorded.old, recorded.new))
    assert "old" in found


def test_the_model_sees_a_mixture(base: Path, tmp_path: Path) -> None:
    """Were a publish committed in two steps, a state between them would be found."""

    def twice(world: World) -> None:
        world.store.confirm("slow", ["s0000"])
        world.store.confirm("slow", None)

    recorded = record(base, tmp_path / "recorded", Scene("twice", twice))
    with pytest.raises(AssertionError, match="torn generation"):
        for point in range(len(recorded.ops)):
            for _, files in itertools.islice(power.states(recorded.start, recorded.ops, point, "twice"), 1):
                folder = tmp_path / str(point)
                power.put(files, folder)
                which(folder, recorded.old, recorded.new)


def test_at_every_write_of_a_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is being made is finished by the next start, and never taken for a damaged one."""
    monkeypatch.setattr(secrets, "token_hex", lambda length: "5" * 2 * length)
    folder = tmp_path / "made"
    folder.mkdir()
    ops: list[vfs.Op] = []
    with vfs.watching(folder), vfs.asking(lambda op: ops.append(op) if op.changes else None):
        world = open_world(folder)
        world.close()
    whole = image(folder)
    stamped = whole.pop("_sqlite_migrations")
    tried = 0
    for point in [*range(0, len(ops), EVERY), len(ops)]:
        for _, files in power.states({}, ops, point, "first"):
            again = tmp_path / str(point)
            power.put(files, again)
            open_world(again).close()
            assert not list(again.glob("*.damaged-*"))
            found = image(again)
            assert len(found.pop("_sqlite_migrations")) == len(stamped)
            assert found == whole
            shutil.rmtree(again)
            tried += 1
    print(f"first start: {len(ops)} writes and syncs, {tried} states")
