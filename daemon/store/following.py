"""The connection of a reader: it follows what is published, and takes up a database that replaced its own.

Ages belong to the sources, not to the rows, so they are few: they are kept in memory and read again when the database
has changed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from daemon.answers import answer_tail
from daemon.errors import DatabaseUnusable

LOOK = 1.0
"""Seconds between two looks at whether the file was replaced."""


@dataclass(frozen=True, slots=True)
class Age:
    """When what an answer rests on was read, in seconds since the epoch, and until when it is not stale.

    `valid_until`: the next hand-over of a schedule that the answer goes through; past it, the answer is stale.
    """

    resource_seen_at: float
    owners_seen_at: float | None
    stale_from: float
    valid_until: float | None = None
    _fresh: bytes = field(init=False, repr=False, compare=False)
    _stale: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, stale in (("_fresh", False), ("_stale", True)):
            tail = answer_tail(self.resource_seen_at, self.owners_seen_at, stale=stale, valid_until=self.valid_until)
            object.__setattr__(self, name, tail)

    def tail(self, now: float) -> bytes:
        """What ends an answer's bytes at `now`. There are few ages and many answers: it is rendered once."""
        return self._stale if now > self.stale_from else self._fresh

    @property
    def oldest(self) -> float:
        """The time of the oldest reading that the answer rests on."""
        seen = self.resource_seen_at
        return seen if self.owners_seen_at is None else min(seen, self.owners_seen_at)


@dataclass(frozen=True, slots=True)
class Source:
    """A source, as far as lookups need it. `whole`: every scope it has was read at least once."""

    id: int
    name: str
    role: str
    position: int
    prefixes: tuple[str, ...]
    whole: bool
    error: str | None

    def could_hold(self, key: str) -> bool:
        """Whether it is an integration that a resource of this key could come from."""
        return self.role == "integration" and (
            not self.prefixes or key.lower().startswith(tuple(p.lower() for p in self.prefixes))
        )


class Follower:
    """A read-only connection, and what is read with it once a publish: the sources, and their ages."""

    def __init__(self, path: Path, cache: int = 2 * 2**20) -> None:
        self._path = path
        self._cache = cache
        """Bytes of the file to keep in memory, at most."""
        self._db: sqlite3.Connection | None = None
        self._version: int | None = None
        self.sources: dict[int, Source] = {}
        self._ages: dict[int, Age] = {}
        self._read: dict[int, tuple[float, float]] | None = None
        """Of each directory that was read: when, and for how long that counts."""
        self._turns: dict[str, float | None] = {}
        self._file: tuple[int, int] | None = None
        self._look_at = 0.0
        self._damaged = False
        self._turn = False
        self.superseded = False
        """Another file has taken the place of the one that is open: what this one lacks may yet be there."""

    def close(self) -> None:
        """Let the database go."""
        self._turn = False
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
            ready = (
                self._damaged
                or db.execute(
                    "SELECT EXISTS (SELECT 1 FROM source) AND NOT EXISTS (SELECT 1 FROM source s WHERE NOT s.listed"
                    " OR EXISTS (SELECT 1 FROM scope c WHERE c.source_id = s.id AND c.read_at IS NULL))"
                ).fetchone()[0]
            )
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
        if self._turn:
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

        To lock the database and to look whether it changed takes as long as a lookup itself.
        """
        self._look_when_due()
        db = self.db
        db.execute("BEGIN")
        try:
            self._follow(db)
        except BaseException:
            db.execute("ROLLBACK")
            raise
        self._turn = True

    def end_turn(self) -> None:
        """Let the generation go."""
        self._turn = False
        if self._db is not None and self._db.in_transaction:
            self._db.execute("COMMIT")

    @property
    def in_turn(self) -> bool:
        """Between `begin_turn` and `end_turn`."""
        return self._turn

    def age(self, freshness_id: int) -> Age:
        """The ages that belong to a row of the generation that `know_ages` was last asked about."""
        return self._ages[freshness_id]

    def know_ages(self, db: sqlite3.Connection, freshness_ids: Iterable[int]) -> None:
        """Read the ages of rows, in the generation that the rows were read in: no row gets those of a later one."""
        for freshness_id in freshness_ids:
            if freshness_id not in self._ages:
                self._ages[freshness_id] = self._age_of(db, freshness_id)

    def follow(self) -> None:
        """Forget ages and sources if anything was published since, or if another database took this one's place."""
        if not self._turn:
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
        self._ages.clear()
        self._turns = {"[]": None}
        self._read = None
        self.sources = {
            source_id: Source(source_id, name, role, position, tuple(orjson.loads(prefixes)), bool(whole), error)
            for source_id, name, role, position, prefixes, whole, error in self.db.execute(
                "SELECT id, name, role, position, prefixes, listed AND NOT EXISTS"
                " (SELECT 1 FROM scope c WHERE c.source_id = s.id AND c.read_at IS NULL), error FROM source s"
            )
        }

    def _age_of(self, db: sqlite3.Connection, freshness_id: int) -> Age:
        if self._read is None:
            self._read = {
                source_id: (oldest, stale_after)
                for source_id, oldest, stale_after in db.execute(
                    "SELECT s.id, min(c.read_at), s.stale_after FROM source s JOIN scope c ON c.source_id = s.id"
                    " WHERE s.role = 'directory' AND c.read_at IS NOT NULL GROUP BY s.id"
                )
            }
        directories, schedules, read_at, stale_after = db.execute(
            "SELECT f.directories, f.schedules, coalesce(c.read_at, 0), s.stale_after FROM freshness f"
            " JOIN scope c ON c.id = f.scope_id JOIN source s ON s.id = c.source_id WHERE f.id = ?",
            (freshness_id,),
        ).fetchone()
        if schedules not in self._turns:
            self._turns[schedules] = _next_turn(db, schedules)
        ages = [self._read[d] for d in orjson.loads(directories) if d in self._read]
        return _age(read_at, stale_after, ages, self._turns[schedules])


def _age(
    read_at: float, stale_after: float, directories: Sequence[tuple[float, float]], valid_until: float | None
) -> Age:
    stale_from = min([read_at + stale_after, *(at + after for at, after in directories)])
    if valid_until is not None:
        stale_from = min(stale_from, valid_until)
    return Age(read_at, min((at for at, _ in directories), default=None), stale_from, valid_until)


def _next_turn(db: sqlite3.Connection, schedules: str) -> float | None:
    """The first beginning or end of a shift of `schedules` after what has been published; None if there is none."""
    found: float | None = db.execute(
        "SELECT min(at) FROM (SELECT min(h.start) AS at FROM json_each(?1) j JOIN source d ON d.id = j.value ->> 0"
        " JOIN shift h ON h.directory_id = d.id AND h.schedule_pid = j.value ->> 1 AND h.start > d.turned_at UNION ALL"
        " SELECT min(h.until) FROM json_each(?1) j JOIN source d ON d.id = j.value ->> 0"
        " JOIN shift h ON h.directory_id = d.id AND h.schedule_pid = j.value ->> 1 AND h.until > d.turned_at)",
        (schedules,),
    ).fetchone()[0]
    return found
