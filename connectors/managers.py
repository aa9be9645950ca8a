"""Finding the users that profiles name as managers, where a directory names them by text and not by their id."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b

from connectors.values import Principal


class Managers:
    """Users who wait until all are known, and with them whom their profiles name.

    Kept in a temporary file, so that memory does not grow with the directory. A name that is several users', or
    nobody's, is no manager: a wrong one would own what is not theirs.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # a nameless file, which goes when it is closed
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE known (name BLOB, id TEXT, PRIMARY KEY (name, id)) WITHOUT ROWID")
        self._db.execute("CREATE TABLE waiting (manager BLOB, user BLOB)")

    def know(self, id_: str, names: Iterable[str]) -> None:
        """The user `id_` goes by these names."""
        self._db.executemany("INSERT OR IGNORE INTO known VALUES (?, ?)", [(_digest(name), id_) for name in names])

    def wait(self, user: Principal, manager: str) -> None:
        """Keep `user`, whose profile names `manager`."""
        self._db.execute("INSERT INTO waiting VALUES (?, ?)", (_digest(manager), pickle.dumps(user)))

    def settle(self) -> Iterator[Principal]:
        """Give back those who wait, in their order, each with the manager if exactly one user goes by that name."""
        for user, ids, id_ in self._db.execute(
            "SELECT user, (SELECT count(*) FROM known WHERE name = manager),"
            " (SELECT id FROM known WHERE name = manager) FROM waiting ORDER BY rowid"
        ):
            principal: Principal = pickle.loads(user)  # noqa: S301  # what `wait` wrote, in a file nobody else opens
            yield replace(principal, manager=id_ if ids == 1 else None)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def _digest(name: str) -> bytes:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
