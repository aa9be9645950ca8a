"""The connection of a program that reads owner rows from the file itself. Standard library only.

It is never in the writer's way: it cannot write, never checkpoints, and holds no transaction between two calls.
Not thread-safe by itself, and not to be used across a fork: see `daemon.client.direct`.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import monotonic

from daemon.errors import DatabaseUnusable
from daemon.problems import Source
from daemon.store import lookups
from daemon.store.copied import Copied, at_once, never
from daemon.store.lookups import Age, Ages
from daemon.store.readonly import ReadOnly

NEEDED = frozenset({"m001_initial", "m002_incremental", "m003_time", "m004_pending"})
"""The migrations that the statements of `daemon.store.lookups` are written for."""
KNOWN = NEEDED | {"m005_on_call", "m006_suggestions", "m007_fingerprint", "m008_copy"}
"""And those that add an index, what only the poller reads, or the copy. Any other may have changed what a row means."""
MOST = 1000
"""Keys in one statement, and so in one generation: what a request of the socket may ask for."""
FORBIDDEN = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
"""What SQLite says where this process may not read: that is for its operator to mend, not to be waited for."""
_CACHE = 8 * 2**20
"""Bytes of the file to keep in memory, at most."""
TURN = 0.001
"""Seconds for which one look at what is published holds for `at_hand`: to look takes longer than to answer."""
_VERSION = "PRAGMA data_version"
Found = tuple[str, int, int, int, int, bytes]
"""A `Row`, bare: to name the members of many takes longer than to fetch them."""
_forks = 0
"""How often this process's line has forked: what was opened before is the parent's."""
_abandoned: list[sqlite3.Connection] = []
"""Connections of a parent process. SQLite forbids even to close them: https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_across_a_fork_"""


def _forked() -> None:
    global _forks  # noqa: PLW0603  # a look at it costs less than os.getpid()
    _forks += 1


os.register_at_fork(after_in_child=_forked)


class DirectReader(ReadOnly):
    """A read-only connection that follows what is published, and takes up a database that replaced its own."""

    def __init__(self, path: Path, *, copied: bool) -> None:
        super().__init__(path, cache=_CACHE)
        self._forks = _forks
        self._ages: Ages | None = None
        self._known: dict[int, Age] = {}
        self._copied = Copied(path, at_once if copied else never)
        self._follow_at = 0.0

    def close(self) -> None:
        """Let the database go; the next call opens it again."""
        if self._forks != _forks and self._db is not None:
            _abandoned.append(self._db)
            self._db = None
        super().close()
        self._copied.forget()
        self._ages = None
        self._known.clear()
        self._follow_at = 0.0

    # --- reading ----------------------------------------------------------------------------------------------------

    def at_hand(self, key: str) -> tuple[bytes, Age] | None:
        """Head and ages of the one row of a resource, from the copy of the answers; None if that does not tell.

        They are of what was the last generation within `TURN`. ValueError if the copy is spoilt.
        """
        if monotonic() >= self._follow_at or self._forks != _forks:
            with self.generation():
                self._follow_at = monotonic() + TURN
        found = self._copied.find(key)
        if found is None:
            return None
        age = self._known.get(found[0])
        if age is None:
            with self.generation():
                return self.copied(key)
        return found[1], age

    def copied(self, key: str) -> tuple[bytes, Age] | None:
        """The same, within a generation, and of that one."""
        found = self._copied.find(key)
        return None if found is None else (found[1], self.age(found[0]))

    @contextmanager
    def generation(self) -> Iterator[None]:
        """One generation for several reads; short, since it keeps the writer from reusing its log."""
        db = self._follow()
        db.execute("BEGIN")
        try:
            version = db.execute(_VERSION).fetchone()[0]
            if version != self._version:
                self._load(db)
                self._version = version
            if self._copied.behind(version):
                self._copied.follow(db, version)
            yield
        finally:
            if db.in_transaction:  # some errors have ended it
                db.execute("COMMIT")

    def rows(self, keys: Sequence[str]) -> list[Found]:
        """The owner rows of some resources, in any order; at most `MOST` keys. Within a generation.

        By one `IN`: it took four fifths of the time of a join with `json_each`, and of a statement for each key.
        """
        places = 1 << (len(keys) - 1).bit_length()  # few different statements, so that each is prepared once
        padded = [*keys, *[keys[-1]] * (places - len(keys))]
        return self.db.execute(_many(places), padded).fetchall()

    def age(self, freshness_id: int) -> Age:
        """The ages of a row. Within its generation."""
        age = self._known.get(freshness_id)
        if age is None:
            assert self._ages is not None
            age = self._known[freshness_id] = self._ages.read(self.db, freshness_id)
        return age

    @property
    def sources(self) -> dict[int, Source]:
        """The sources by id. Within a generation."""
        assert self._ages is not None
        return self._ages.sources

    def agree(self, outcome_ids: Sequence[int]) -> bool:
        """Whether several integrations give a resource the same owners."""
        return bool(self.db.execute(lookups.AGREE, (json.dumps(outcome_ids),)).fetchone()[0])

    def members(self, directory: str, pid: str, now: float) -> list[tuple[str, str | None, str]]:
        """Id, e-mail address and name of each active user of a principal (`KIND:ID`), nested groups flattened."""
        return self.db.execute(lookups.MEMBERS, (directory, pid, now)).fetchall()

    # --- the connection ---------------------------------------------------------------------------------------------

    def _follow(self) -> sqlite3.Connection:
        if self._forks != _forks:
            self.close()
            self._forks = _forks
        self.look_when_due()
        return self.db

    def _remedy(self, error: Exception) -> str:
        """In this log mode, a reader needs the two files beside it too."""
        path = self._path
        try:
            there = path.exists()
        except OSError:
            there = True
        if there and not os.access(path, os.R_OK):
            return "ask over the socket; only ownerd's own user may read the file"
        if isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF in FORBIDDEN:
            return (
                "ask over the socket; who may not write in its directory can read the file only while ownerd has it"
                f" open, and with the right to read {path.name}-wal and {path.name}-shm"
            )
        return super()._remedy(error)

    def _load(self, db: sqlite3.Connection) -> None:
        """Read the sources; ages follow when a row needs them. The schema may have changed with what was published."""
        self._version = None
        self._known.clear()
        applied = {name for (name,) in db.execute(lookups.MIGRATIONS)}
        if not NEEDED <= applied <= KNOWN:
            later = ", ".join(sorted(applied - KNOWN))
            raise DatabaseUnusable(
                self._path,
                f"written by a later ownerd (it has {later})" if later else "written by an earlier ownerd",
                remedy="ask over the socket, or use the client of the version that writes the file",
            )
        self._ages = Ages(db)


@cache
def _many(places: int) -> str:
    return lookups.MANY.format(",".join("?" * places))
