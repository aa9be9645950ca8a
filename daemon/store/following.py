"""The connection of a reader: it follows what is published, and takes up a database that replaced its own.

Ages belong to the sources, not to the rows, so they are few: they are kept in memory and read again when the database
has changed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from daemon.answers import answer_tail
from daemon.errors import DatabaseUnusable
from daemon.problems import Source
from daemon.store.lookups import COMPLETE, Age, Ages

LOOK = 1.0
"""Seconds between two looks at whether the file was replaced."""


@dataclass(frozen=True, slots=True)
class Aged:
    """Ages, and the bytes that tell them. There are few ages and many answers: they are rendered once."""

    age: Age
    fresh: bytes
    stale: bytes

    def tail(self, now: float) -> bytes:
        """What ends an answer's bytes at `now`."""
        return self.stale if now > self.age.stale_from else self.fresh


def _aged(age: Age) -> Aged:
    seen = age.resource_seen_at, age.owners_seen_at
    fresh, stale = (answer_tail(*seen, stale=stale, valid_until=age.valid_until) for stale in (False, True))
    return Aged(age, fresh, stale)


class Follower:
    """A read-only connection, and what is read with it once a publish: the sources, and their ages."""

    def __init__(self, path: Path, cache: int = 2 * 2**20) -> None:
        self._path = path
        self._cache = cache
        """Bytes of the file to keep in memory, at most."""
        self._db: sqlite3.Connection | None = None
        self._version: int | None = None
        self.sources: dict[int, Source] = {}
        self._ages: Ages | None = None
        self._aged: dict[int, Aged] = {}
        self._file: tuple[int, int] | None = None
        self._look_at = 0.0
        self._damaged = False
        self.in_turn = False
        """Between `begin_turn` and `end_turn`."""
        self.cursor: sqlite3.Cursor
        """Of the turn."""
        self.superseded = False
        """Another file has taken the place of the one that is open: what this one lacks may yet be there."""

    def close(self) -> None:
        """Let the database go."""
        self.in_turn = False
        if self._db is not None:
            self._db.close()
            self._db = None
            self._version = None

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

    def _open(self) -> tuple[sqlite3.Connection, tuple[int, int]]:
        try:
            told = self._path.stat()
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
        except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
            raise DatabaseUnusable(
                self._path, str(error), remedy="`ownerd poll` makes it: see whether it runs, and where"
            ) from error
        return db, (told.st_dev, told.st_ino)

    def _look(self) -> None:
        """Take up a database that has replaced the one that is open: as soon as it knows all that the sources have.

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

    @contextmanager
    def generation(self) -> Iterator[sqlite3.Connection]:
        """One generation for several reads; short, since it keeps the writer from reusing its log."""
        if self.in_turn:
            yield self.db
            return
        db = self.db
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("COMMIT")

    def begin_turn(self) -> None:
        """Follow once, and take one generation for all that is read until `end_turn`; it must come very soon.

        To lock the database and to look whether it changed takes half as long as the lookup itself.
        """
        self._look_when_due()
        db = self.db
        db.execute("BEGIN")
        self.in_turn, self.cursor = True, db.cursor()
        try:
            self._follow(db)
        except BaseException:
            self.in_turn = False
            db.execute("ROLLBACK")
            raise

    def end_turn(self) -> None:
        """Let the generation go."""
        self.in_turn = False
        if self._db is not None and self._db.in_transaction:
            self._db.execute("COMMIT")

    def aged(self, freshness_id: int) -> Aged:
        """The ages that belong to a row of the generation that `know_ages` was last asked about."""
        return self._aged[freshness_id]

    def know_ages(self, db: sqlite3.Connection, freshness_ids: Iterable[int]) -> None:
        """Read the ages of rows, in the generation that the rows were read in: no row gets those of a later one."""
        for freshness_id in freshness_ids:
            if freshness_id not in self._aged:
                assert self._ages  # `follow` came first
                self._aged[freshness_id] = _aged(self._ages.read(db, freshness_id))

    def follow(self) -> None:
        """Forget ages and sources if anything was published since, or if another database took this one's place."""
        if not self.in_turn:
            self._look_when_due()
            self._follow(self.db)

    def _look_when_due(self) -> None:
        if self._db is not None and time.monotonic() >= self._look_at:
            self._look()

    def _follow(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._load()
            self._version = version

    def _load(self) -> None:
        """Read the sources. Ages follow when a row needs them: a large organization has thousands."""
        self._aged.clear()
        with self.generation() as db:
            self._ages = Ages(db)
        self.sources = self._ages.sources
