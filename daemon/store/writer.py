"""How the one writer opens the database, and what it does with one that is damaged.

A database that SQLite finds damaged is set aside, not deleted, and a new one is filled from the sources; servers go
on answering from the old one until then. No other error makes a new database: a full disk, a denied permission, a disk
that does not answer, or a later schema leave the file as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
import time
from pathlib import Path

import structlog

from daemon.errors import DatabaseDamaged, DatabaseUnusable, WriterBusy
from daemon.store import wal
from daemon.store.schema import migrate

log = structlog.get_logger()

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_UNREAD = re.compile(
    r"unable to get the page\. error code=(\d+)|failed to get page|failed to read ptrmap", re.IGNORECASE
)
"""How SQLite's checks speak of a page that they could not read (`checkTreePage` and `checkList` in its btree.c)."""
KEPT = 3
"""Damaged databases that are kept."""


class WriterLock:
    """The lock that lets one process write at a time. Held until closed, or until the process ends."""

    def __init__(self, state_directory: Path) -> None:
        self.path = state_directory / "ownerd.lock"
        try:
            state_directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise DatabaseUnusable(self.path, error.strerror or str(error)) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise WriterBusy(self.path, holder) from None
        with contextlib.suppress(OSError):  # a full disk has no room for our name, and the lock holds without
            os.ftruncate(self._fd, 0)
            os.write(self._fd, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Let the next process write. The file stays: removing it would let two hold "the" lock."""
        os.close(self._fd)


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is wrong, and not that something keeps it from the file."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


def failure(path: Path, error: sqlite3.Error | OSError) -> DatabaseUnusable:
    """An error of SQLite's, or of the files beside it, as ours."""
    return DatabaseDamaged(path, str(error)) if is_damage(error) else DatabaseUnusable(path, str(error))


def open_writer(path: Path) -> sqlite3.Connection:
    """Open for writing, and bring the schema up to date. A damaged one is set aside.

    The caller holds the `WriterLock`.
    """
    try:
        return _open(path)
    except DatabaseDamaged as damaged:
        aside = set_aside(path)
        log.critical(
            "database.damaged",
            path=str(path),
            problem=damaged.message,
            kept_as=str(aside),
            remedy="nothing needs to be done: all of it is read again from the sources; look after the disk",
        )
        return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    db: sqlite3.Connection | None = None
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        path.chmod(0o640)
        db.execute("PRAGMA cell_size_check = ON")
        db.execute("PRAGMA journal_mode = WAL")
        # What is acknowledged is on the disk: NORMAL would lose the last commits with the power.
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA temp_store = FILE")
        db.execute(f"PRAGMA journal_size_limit = {wal.LIMIT:d}")
        _check(db, path)
        migrate(db, path)
    except sqlite3.Error as error:
        _close(db)
        raise failure(path, error) from error
    except UnicodeDecodeError as error:  # of an error's own text, which quotes a schema that is damaged
        _close(db)
        raise DatabaseDamaged(path, "malformed database schema") from error
    except BaseException:
        _close(db)
        raise
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Look for damage: what is not found here is found by chance, or not at all.

    The quick check of some SQLite versions (3.40) complains of NULLs in keys of tables without rowid that are none: the
    slow one has the last word. Both also report a page that the disk did not give, which is no damage.
    """
    db.text_factory = lambda text: text.decode("utf-8", "replace")  # it may quote what is damaged
    try:
        for check in ("quick_check", "integrity_check"):
            found = db.execute(f"PRAGMA {check}(1)").fetchone()[0]
            if found == "ok":
                return
    finally:
        db.text_factory = str
    unread = _UNREAD.search(found)
    if unread and int(unread[1] or sqlite3.SQLITE_IOERR) & 0xFF not in _DAMAGE:
        raise DatabaseUnusable(path, f"the disk does not give all of it: {found}", remedy="look after the disk")
    raise DatabaseDamaged(path, found)


def _close(db: sqlite3.Connection | None) -> None:
    if db is not None:
        db.close()


def set_aside(path: Path) -> Path:
    """Rename a damaged database, with its log, so that only its owner can read it; where it is now. The oldest go.

    The log last: without its log a database is an older one, perhaps of two ages, and may pass for whole. What a
    process that dies in between leaves is a log without a database, which SQLite throws away.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for suffix in ("-shm", "", "-wal"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.chmod(0o600)
            part.rename(aside.with_name(aside.name + suffix))
    kept = sorted(p for p in path.parent.glob(f"{path.name}.damaged-*") if not p.name.endswith(("-wal", "-shm")))
    for old in kept[:-KEPT]:
        for suffix in ("-wal", "-shm", ""):
            old.with_name(old.name + suffix).unlink(missing_ok=True)
    return aside
