"""What the files may look like when a process dies, or the power goes, at any point of an operation.

Of a process that dies, all it has written stays. Without power, what was synced stays; of what was written since, each
write may have reached the disk or not, or only some of its sectors, in any order; and a file may have grown without
what was written there. (The model of ALICE, "All File Systems Are Not Created Equal", OSDI 2014, for overwrites and
appends.)
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.crash.vfs import Op

SECTOR = 512
VARIANTS = ("killed", "torn write", "unsynced lost", "some sectors", "other sectors")

Files = dict[str, bytearray]


def _grow(content: bytearray, size: int) -> None:
    if len(content) < size:
        content.extend(bytes(size - len(content)))


def apply(files: Files, op: Op, parts: Sequence[slice] | None = None) -> None:
    """Do an operation, or only these parts of a write (slices of its data)."""
    name = op.path.name
    if op.kind == "delete":
        files.pop(name, None)
    elif op.kind == "truncate":
        content = files[name]
        _grow(content, op.at)
        del content[op.at :]
    elif op.kind == "write":
        content = files.setdefault(name, bytearray())
        for part in [slice(0, len(op.data))] if parts is None else parts:
            _grow(content, op.at + part.stop)
            content[op.at + part.start : op.at + part.stop] = op.data[part]


def sectors(op: Op) -> list[slice]:
    """The parts of a write that a disk writes at once."""
    edges = [0, *range(SECTOR - op.at % SECTOR, len(op.data), SECTOR), len(op.data)]
    return [slice(a, b) for a, b in itertools.pairwise(edges) if a < b]


def states(start: dict[str, bytes], ops: Sequence[Op], point: int, seed: str) -> Iterator[tuple[str, Files]]:
    """The files when the process dies or the power goes before operation `point` (or after the last)."""
    durable = {name: bytearray(content) for name, content in start.items()}
    unsynced: list[Op] = []
    for op in ops[:point]:
        if op.kind == "sync":
            for done in [o for o in unsynced if o.path == op.path]:
                apply(durable, done)
            unsynced = [o for o in unsynced if o.path != op.path]
        else:
            unsynced.append(op)

    def copy() -> Files:
        return {name: bytearray(content) for name, content in durable.items()}

    killed = copy()
    for op in unsynced:
        apply(killed, op)
    yield "killed", killed
    if point < len(ops) and ops[point].kind == "write":
        torn = {name: bytearray(content) for name, content in killed.items()}
        apply(torn, ops[point], [slice(0, len(ops[point].data) // 2)])
        yield "torn write", torn
    if not unsynced:
        return
    yield "unsynced lost", copy()
    for variant in VARIANTS[3:]:
        rng = random.Random(f"{seed} {point} {variant}")
        some = copy()
        for op in unsynced:
            match rng.randrange(4):
                case 0:
                    apply(some, op)
                case 1 if op.kind == "write":
                    _grow(some.setdefault(op.path.name, bytearray()), op.at + len(op.data))
                case 2 if op.kind == "write":
                    apply(some, op, [part for part in sectors(op) if rng.random() < 0.5])
        yield variant, some


def put(files: Files, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
