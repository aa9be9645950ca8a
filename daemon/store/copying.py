"""The writer's side of the copy of the answers: when it is made, and when it no longer counts.

`daemon.store.copied` tells what it is for. The database without its copy says the same: nothing that goes wrong here
keeps a publish from being one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from daemon.store import hashfile, room
from daemon.store.copied import NAMED, file_of
from daemon.store.hashfile import NONCE, NotUsable, Row

log = structlog.get_logger()

SHARE_OF_ROOM = 0.25
"""Of the free disk: a copy that would take more is not made."""
REST = 20.0
"""Times as long as it took to make a copy: before that, no other is made."""
_RETRY = 60.0
"""Seconds to wait after a failure."""


def most_changed(rows: int) -> int:
    """How many keys may have changed before a copy of so many rows no longer counts.

    A fiftieth; more of few rows, for which another copy would cost more than it gains; and no more than servers can
    keep in a few megabytes.
    """
    return min(max(100, min(rows, 1000), rows // 50), 20_000)


def bound(db: sqlite3.Connection) -> None:
    """Within a transaction: give the copy up if too much has changed since it was made. Its triggers rest then."""
    name, rows = db.execute("SELECT file, rows FROM copy").fetchone()
    changed = db.execute("SELECT coalesce(max(id), 0) FROM uncopied").fetchone()[0]
    if name is not None and changed > most_changed(rows):
        db.execute("UPDATE copy SET file = NULL")
        db.execute("DELETE FROM uncopied")


class Copying:
    """Keeps a database's copy. `clock`: seconds that only grow."""

    def __init__(self, db: sqlite3.Connection, database: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._database = database
        self._clock = clock
        self._not_before = clock()
        self._checked = False
        self._sweep()

    def tend(self) -> None:
        """After a commit: make a copy if there is none, and its time has come. Failures are told, and waited out."""
        try:
            name = self._named()
            if not self._checked and name is not None and not self._good(name):
                self._name(None)
                name = None
            self._checked = True
            if name is None and (started := self._clock()) >= self._not_before:
                self._make()
                self._not_before = self._clock() + REST * (self._clock() - started)
        except (sqlite3.Error, OSError) as error:
            self._not_before = self._clock() + _RETRY
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            log.warning(
                "copy.failed",
                path=str(self._database.parent),
                problem=str(error),
                remedy="look after the disk; until then lookups read the database, and take longer",
            )
        self._sweep()

    def _make(self) -> None:
        count, length = self._db.execute(
            "SELECT count(*), (SELECT avg(length(key) + length(body)) FROM (SELECT key, body FROM answer LIMIT 1000))"
            " FROM answer"
        ).fetchone()
        if not count:
            return
        folder = self._database.parent
        takes, free = count * (int(length) + 64), shutil.disk_usage(folder).free
        if takes > free * SHARE_OF_ROOM:
            raise OSError(
                f"a copy of the answers takes {takes:,} bytes, more than a quarter of what is free ({free:,})"
            )
        name = secrets.token_hex(NONCE)
        try:
            hashfile.write(file_of(self._database, name), bytes.fromhex(name), self._plain(), at_most=count)
        finally:
            room.give_back()
        _sync(folder)
        self._name(name, count)

    def _good(self, name: str) -> bool:
        """Whether the copy that another process has left is whole: a backup may have been put back, without it."""
        path = file_of(self._database, name)
        try:
            hashfile.check(path, bytes.fromhex(name))
        except FileNotFoundError:
            return False
        except (OSError, NotUsable) as error:
            log.warning(
                "copy.unusable", path=str(path), problem=str(error), remedy="it is made anew; look after the disk"
            )
            return False
        return True

    def _named(self) -> str | None:
        found = self._db.execute(NAMED).fetchone()
        return found[0] if found else None

    def _name(self, name: str | None, rows: int = 0) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("UPDATE copy SET file = ?, rows = ?", (name, rows))
        self._db.execute("DELETE FROM uncopied")
        self._db.execute("COMMIT")

    def _plain(self) -> Iterator[Row]:
        """The rows whose resource has no other, and that do not wait."""
        last: tuple[str, int, int, bytes] | None = None
        alone = True
        for row in self._db.execute("SELECT key, waiting, freshness_id, body FROM answer ORDER BY key"):
            if last is not None and row[0] == last[0]:
                alone = False
                continue
            if last is not None and alone and not last[1]:
                yield last[0], last[2], last[3]
            last, alone = row, True
        if last is not None and alone and not last[1]:
            yield last[0], last[2], last[3]

    def _sweep(self) -> None:
        """Delete the files that no database names. Who has one open keeps it until it is closed."""
        with suppress(sqlite3.Error, OSError):
            name = self._named()
            kept = None if name is None else file_of(self._database, name)
            for path in self._database.parent.glob("answers-*.copy"):
                if path != kept:
                    path.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
