"""Errors as the store and the logs keep them."""

from __future__ import annotations

import sqlite3
from typing import Any

from connectors.errors import ConnectorError, Throttled
from daemon.redact import redact

SHARE_OF_ROOM = 0.25
"""Of what is free on the disk, as much as one run may take: a list without end must not fill it for the others."""


def describe(error: BaseException) -> dict[str, Any]:
    """An error as the store and the logs keep it, without secrets. What is not ours is named by its type."""
    if isinstance(error, ConnectorError):
        told = {"code": error.code, "message": redact(error.message), "remedy": redact(error.remedy)}
        if isinstance(error, Throttled) and error.retry_after is not None:
            return {**told, "retry_after": error.retry_after}
        return told
    if isinstance(error, sqlite3.Error | OSError):
        remedy = (
            f"the state directory needs room: a run may take {SHARE_OF_ROOM:.0%} of what is free there"
            if "full" in str(error)
            else ""
        )
        return {
            "code": "spool",
            "message": f"what was read could not be stored: {redact(str(error))}",
            "remedy": remedy,
        }
    if isinstance(error, MemoryError):
        return {
            "code": "memory_limit",
            "message": "the process that reads took more memory than it may",
            "remedy": "report it, since memory should not grow with the source; `memory_limit` gives more",
        }
    return {"code": "unexpected", "message": redact(f"{type(error).__name__}: {error}"), "remedy": ""}
