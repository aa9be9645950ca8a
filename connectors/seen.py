"""A set on disk: what a list has named so far, where there may be a million of it."""

from __future__ import annotations

import sqlite3
from types import TracebackType
from typing import Self

_AT_ONCE = 1000


class Seen:
    """A set of texts in a file of its own that nobody else sees and that goes away with it. For one thread."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE seen (what TEXT PRIMARY KEY) WITHOUT ROWID")
        self._db.execute("BEGIN")
        self._new: list[tuple[str]] = []

    def add(self, what: str) -> None:
        """Remember `what`."""
        self._new.append((what,))
        if len(self._new) >= _AT_ONCE:
            self._flush()

    def __contains__(self, what: str) -> bool:
        self._flush()
        return self._db.execute("SELECT 1 FROM seen WHERE what = ?", (what,)).fetchone() is not None

    def _flush(self) -> None:
        if self._new:
            self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?)", self._new)
            self._new.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._db.close()
