"""The write-ahead log: how large it may stay, and who keeps it from being emptied.

What readers see is the log on top of the database file. SQLite copies the one into the other as it goes (a checkpoint),
and writes the log from its beginning again once no reader needs what is in it. A reader that keeps a transaction open
prevents that: the log grows with each publish until it ends. The server's own transactions last for a query.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import structlog

LIMIT = 64 * 2**20
"""Bytes past which the log is emptied at once, and not in passing."""
PATIENCE = 0.25
"""Seconds to wait for readers in the middle of a query."""
_LOCKS = Path("/proc/locks")
_READERS = range(123, 128)
"""The bytes of the index (`-shm`) that readers lock: https://www.sqlite.org/walformat.html"""

log = structlog.get_logger()


@dataclass(frozen=True)
class Sizes:
    """Of a database and its log, in bytes.

    `log_held`: the log is past its limit, since somebody's transaction keeps it from being emptied. (Or since a first
    read is just being published: that is emptied at once.)
    """

    bytes: int
    log_bytes: int
    log_held: bool


def sizes(database: Path) -> Sizes:
    """How large the files are; 0 where there is none, or the disk does not tell."""
    log = size(database)
    return Sizes(_bytes_of(database), log, log > LIMIT)


def size(database: Path) -> int:
    """Bytes of a database's log; 0 while it has none."""
    return _bytes_of(database.with_name(f"{database.name}-wal"))


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def readers(database: Path) -> list[int]:
    """The processes, but for this one, that are in a read transaction just now, as far as the kernel tells us."""
    try:
        told = database.with_name(f"{database.name}-shm").stat()
        lines = _LOCKS.read_text("ascii").splitlines()
    except OSError:
        return []
    inode = f"{os.major(told.st_dev):02x}:{os.minor(told.st_dev):02x}:{told.st_ino}"
    found = set()
    for line in lines:
        words = line.split()  # 7: POSIX  ADVISORY  READ 4711 fe:00:262211 124 124
        if len(words) == 8 and words[1] == "POSIX" and words[5] == inode and int(words[6]) in _READERS:
            found.add(int(words[4]))
    return sorted(found - {os.getpid()})


class Log:
    """The writer's log. Says once that it cannot be emptied, and again whenever it has doubled since."""

    def __init__(self, db: sqlite3.Connection, database: Path) -> None:
        self._db = db
        self._database = database
        self._told = 0

    def tend(self) -> None:
        """After a commit: empty the log if it is past its limit. What was committed is, whatever comes of it."""
        held = size(self._database)
        if held <= LIMIT:
            self._emptied()
            return
        problem = None
        try:
            (timeout,) = self._db.execute("PRAGMA busy_timeout").fetchone()
            self._db.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000:.0f}")
            try:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {timeout:d}")
        except sqlite3.Error as error:
            problem = str(error)
        if (left := size(self._database)) <= LIMIT:
            self._emptied()
        elif left >= 2 * self._told:
            self._told = left
            log.warning(
                "database.log_grows",
                path=str(self._database),
                bytes=left,
                readers=readers(self._database),
                problem=problem or "a reader keeps a transaction open",
                remedy="look after the disk" if problem else "end that transaction, or the process that has it",
            )

    def _emptied(self) -> None:
        if self._told:
            self._told = 0
            log.info("database.log_emptied", path=str(self._database))
