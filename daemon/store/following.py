"""The server's connection: it follows what is published.

Ages belong to the sources, not to the rows, so they are few: they are kept in memory and read again when the database
has changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from daemon.answers import answer_tail
from daemon.problems import Source
from daemon.store.copied import Copied, Open, never
from daemon.store.lookups import Age, Ages
from daemon.store.readonly import ReadOnly


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


class Follower(ReadOnly):
    """A read-only connection, and what is read with it once a publish: the sources, and their ages."""

    def __init__(self, path: Path, cache: int = 2 * 2**20, opening: Open = never) -> None:
        """`opening`: how the copy of the answers is opened, which counts within a turn."""
        super().__init__(path, cache=cache)
        self.copied = Copied(path, opening)
        self.sources: dict[int, Source] = {}
        self._ages: Ages | None = None
        self._aged: dict[int, Aged] = {}
        self.in_turn = False
        """Between `begin_turn` and `end_turn`."""
        self.cursor: sqlite3.Cursor
        """Of the turn."""

    def close(self) -> None:
        """Let the database go, in a turn too."""
        self.in_turn = False
        self.copied.forget()
        super().close()

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
        self.look_when_due()
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
            self.look_when_due()
            self._follow(self.db)

    def _follow(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._load()
            self._version = version
        if self.in_turn and self.copied.behind(version):
            self.copied.follow(db, version)

    def _load(self) -> None:
        """Read the sources. Ages follow when a row needs them: a large organization has thousands."""
        self._aged.clear()
        with self.generation() as db:
            self._ages = Ages(db)
        self.sources = self._ages.sources
