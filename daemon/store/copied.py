"""The copy of the plain answers that lookups read before the database. Standard library only.

A row of a table costs SQLite some three pages and half a dozen calls of the kernel, a record of a mapped file none. So
the writer keeps a copy of the answers that are plain (one integration has the resource, and it does not wait) in a file
that never changes (`daemon.store.hashfile`). The database has the last word: it says which file is its copy, and which
keys have changed since that was made; triggers note those, in the transaction that changes them. So a reader that takes
both from one generation finds in the copy what that generation says, or nothing; and then it asks the database.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from daemon.store.hashfile import Find, HashFile, NotUsable

Take = Callable[[HashFile], None]
Open = Callable[[Path, bytes, Take], None]
"""Opens a file, and hands it over: at once, or later from another thread; or never, if it cannot be used."""

_THERE = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'copy')"
NAMED = "SELECT file FROM copy WHERE length(file) = 32 AND file NOT GLOB '*[^0-9a-f]*'"
"""The name of the copy; no row while there is none, nor for what is no name: the table may be damaged."""
_CHANGED = "SELECT id, key FROM uncopied WHERE id > ? ORDER BY id"


def file_of(database: Path, name: str) -> Path:
    """Where the copy of a database is; `name`: 32 hexadecimal digits, which the file has in it too."""
    return database.with_name(f"answers-{name}.copy")


def at_once(path: Path, nonce: bytes, take: Take) -> None:
    """Open a copy, unchecked but for its header."""
    with suppress(OSError, NotUsable):
        take(HashFile(path, nonce))


def never(_path: Path, _nonce: bytes, _take: Take) -> None:
    """For readers that need no copy."""


def _nothing(_key: str) -> None:
    """What is found where there is no copy."""


class Copied:
    """What one connection knows of its database's copy."""

    def __init__(self, database: Path, opening: Open) -> None:
        self._database = database
        self._opening = opening
        self._name: str | None = None
        self._version: int | None = None
        self._file: HashFile | None = None
        self._coming: deque[tuple[str, HashFile]] = deque()
        self.find: Find = _nothing
        """Freshness id and head of the one row of a resource, in the generation of the last `follow`.

        None if the copy does not tell. ValueError if it is spoilt.
        """
        self._changed: set[str] = set()
        self._last = 0
        """Id of the newest key in `_changed`."""

    def behind(self, version: int) -> bool:
        """Whether `follow` has something to do in the generation of this number of SQLite's (`data_version`)."""
        return version != self._version or bool(self._coming)

    def follow(self, db: sqlite3.Connection, version: int) -> None:
        """Take up what the database says of its copy, in the generation that `db` is in; `version`: its number."""
        self.find = _nothing
        named = db.execute(NAMED).fetchone() if db.execute(_THERE).fetchone()[0] else None
        name = named[0] if named else None
        if name != self._name:
            self.forget()
            self._name = name
            if name is not None:
                self._opening(file_of(self._database, name), bytes.fromhex(name), partial(self._take, name))
        while self._coming:
            of, file = self._coming.popleft()
            if of == self._name and self._file is None:
                self._file = file
            else:
                file.close()
        if self._file is not None:
            for number, key in db.execute(_CHANGED, (self._last,)):
                self._changed.add(key)
                self._last = number
            self.find = _but(self._changed, self._file.find) if self._changed else self._file.find
        self._version = version

    def forget(self) -> None:
        """Let the file go. What is known belongs to one database: another one's keys have other ids."""
        self.find = _nothing
        self._name = self._version = None
        self._changed.clear()
        self._last = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, name: str, file: HashFile) -> None:
        self._coming.append((name, file))


def _but(changed: set[str], find: Find) -> Find:
    return lambda key: None if key in changed else find(key)
