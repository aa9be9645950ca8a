"""How the daemon itself fails. Each says what to do.

OwnerdError
├── WriterBusy          another process writes this database
├── DatabaseUnusable    cannot be opened, read or written
│   ├── DatabaseTooNew  written by a later version
│   └── DatabaseDamaged SQLite finds it damaged
├── SocketTaken         somebody answers on the socket's path, or it is no socket
└── NotRunning          nobody answers on a socket
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class OwnerdError(Exception):
    """The base of all. `remedy` tells an operator what to do."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class WriterBusy(OwnerdError):
    """Another process writes this database."""

    def __init__(self, lock: Path, holder: str) -> None:
        super().__init__(
            f"{lock}: another ownerd (pid {holder}) writes this database",
            remedy="stop it first; `ownerd sync` and `ownerd accept` go through a running poller by themselves",
        )


class DatabaseUnusable(OwnerdError):
    """The database cannot be opened, read or written."""

    def __init__(self, path: Path, why: str, remedy: str = "") -> None:
        self.path = path
        super().__init__(
            f"{path}: {why}",
            remedy=remedy or "check that the state directory exists, is writable by ownerd's user, and has room",
        )


class DatabaseDamaged(DatabaseUnusable):
    """SQLite finds the file itself to be wrong. The next start sets it aside, and makes a new one."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, f"damaged: {why}", remedy="the poller sets the file aside, and reads all anew")


class DatabaseTooNew(DatabaseUnusable):
    """A later version wrote this database."""

    def __init__(self, path: Path, unknown: Sequence[str]) -> None:
        super().__init__(
            path,
            f"written by a later ownerd (it has {', '.join(unknown)})",
            remedy="run that version again, or move the file away to start afresh",
        )


class SocketTaken(OwnerdError):
    """The socket's path cannot be used."""


class NotRunning(OwnerdError):
    """Nobody answers on a socket."""
