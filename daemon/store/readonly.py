"""A connection that reads the database, and takes up a file that has replaced its own. Standard library only.

It cannot write, and never checkpoints: whoever has one is never in the writer's way for longer than a transaction.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from stat import S_ISDIR

from daemon.errors import DatabaseUnusable
from daemon.store.lookups import COMPLETE

LOOK = 1.0
"""Seconds between two looks at whether the file was replaced."""


class ReadOnly:
    """Opens when there is something to read. `cache`: bytes of the file in memory, at most."""

    def __init__(self, path: Path, *, cache: int) -> None:
        self._path = path
        self._cache = cache
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._look_at = 0.0
        self._damaged = False
        self._version: int | None = None
        """SQLite's number for the generation of what is remembered of the database."""
        self.superseded = False
        """Another file has taken the place of the one that is open: what this one lacks may yet be there."""

    @property
    def path(self) -> Path:
        """The database's file."""
        return self._path

    @property
    def db(self) -> sqlite3.Connection:
        """The connection. DatabaseUnusable while there is no database."""
        if self._db is None:
            self._db, self._file = self._open()
        return self._db

    def close(self) -> None:
        """Let the database go; the next read opens it again."""
        if self._db is not None:
            self._db.close()
        self._db = self._version = None

    def failed(self) -> None:
        """A read failed: the file is damaged, or out of reach; whatever stands in its place is better."""
        self._damaged = True

    def look_when_due(self) -> None:
        """Take up a database that has replaced the one that is open, if it is time to look."""
        if self._db is not None and time.monotonic() >= self._look_at:
            self._look()

    def _open(self) -> tuple[sqlite3.Connection, tuple[int, int]]:
        try:
            told = self._path.stat()
            if S_ISDIR(told.st_mode):
                raise IsADirectoryError("a directory; the database in it is ownerd.db")
            db = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
            try:
                db.execute("PRAGMA query_only = ON")
                db.execute("PRAGMA cell_size_check = ON")
                db.execute(f"PRAGMA cache_size = {-self._cache // 1024}")
                db.execute("SELECT 1 FROM source LIMIT 1")
            except BaseException:
                db.close()
                raise
        except (sqlite3.Error, UnicodeError, OSError) as error:
            raise DatabaseUnusable(self._path, str(error), remedy=self._remedy(error)) from error
        return db, (told.st_dev, told.st_ino)

    def _remedy(self, _error: Exception) -> str:
        """What to do where the file cannot be opened."""
        return "`ownerd poll` makes it: see whether it runs, and where"

    def _look(self) -> None:
        """Take up another database as soon as it knows all that the sources have.

        Until then the old one is better, unless it is what failed.
        """
        self._look_at = time.monotonic() + LOOK
        try:
            told = self._path.stat()
            if (told.st_dev, told.st_ino) == self._file:
                return
            self.superseded = True
            db, file = self._open()
        except (OSError, DatabaseUnusable):
            self.superseded = True
            return  # it is being made
        try:
            ready = self._damaged or db.execute(COMPLETE).fetchone()[0]
        except sqlite3.Error:
            ready = False  # nothing is the matter with the old one
        if not ready:
            db.close()
            return
        self.close()
        self._db, self._file, self._damaged, self.superseded = db, file, False, False
