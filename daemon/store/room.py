"""Memory for a publish: more of the database while it lasts, and none of it after."""

from __future__ import annotations

import ctypes
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PUBLISHING = 64 * 2**20
"""Bytes of the database that a publish may keep in memory: a page that falls out of it is written, and read again."""
IDLE = 2 * 2**20


@contextmanager
def to_publish(db: sqlite3.Connection) -> Iterator[None]:
    """Let the connection keep more in memory inside this."""
    db.execute(f"PRAGMA cache_size = -{PUBLISHING // 1024:d}")
    try:
        yield
    finally:
        with suppress(sqlite3.Error):  # what failed inside is told, not what came of it
            db.execute(f"PRAGMA cache_size = -{IDLE // 1024:d}")
            db.execute("PRAGMA shrink_memory")
        give_back()


def give_back() -> None:
    """Let the system have what was freed: glibc keeps it (`malloc_trim(3)`), other C libraries have no such call."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
