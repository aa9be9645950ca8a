"""How every source fares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from daemon.answers import rfc3339
from daemon.store import wal
from daemon.store.reader import Reader


def status(reader: Reader, now: float) -> dict[str, Any]:
    """`/v1/status`: ages are in seconds; a source is as old as the oldest of its scopes."""
    sources = [_source(row, now) for row in reader.status()]
    return {"now": rfc3339(now), "database": vars(wal.sizes(reader.path)), "sources": sources}


def unread(reader: Reader) -> list[str] | None:
    """The sources that have not been read whole yet; None while the poller has not even named them."""
    reader.follow()
    return sorted(s.name for s in reader.sources.values() if not s.whole) if reader.sources else None


def _source(row: dict[str, Any], now: float) -> dict[str, Any]:
    scopes = [_scope(scope, row["stale_after"], now) for scope in row["scopes"]]
    read = [s["age"] for s in scopes]
    known = bool(scopes) and None not in read
    return {
        "id": row["id"],
        "name": row["name"],
        "role": row["role"],
        "connector": row["connector"],
        "state": row["state"],
        "last_attempt": rfc3339(row["last_attempt"]),
        "last_success": rfc3339(row["last_success"]),
        "seen_at": rfc3339(min(s["read_at"] for s in row["scopes"])) if known else None,
        "age": max(read) if known else None,
        "stale": any(s["stale"] for s in scopes),
        "rows": sum(s["rows"] for s in scopes),
        "gaps": gaps_of(row["scopes"]),
        "failures": row["failures"],
        "error": row["error"],
        "held": None if row["held"] is None else {"since": rfc3339(row["held_since"]), **row["held"]},
        "interval": row["interval"],
        "stale_after": row["stale_after"],
        "scopes": scopes,
    }


def _scope(row: dict[str, Any], stale_after: float, now: float) -> dict[str, Any]:
    read_at = row["read_at"]
    return {
        "name": row["name"],
        "state": row["state"],
        "rows": row["rows"],
        "seen_at": rfc3339(read_at),
        "age": None if read_at is None else max(0, int(now - read_at)),
        "stale": read_at is not None and now - read_at > stale_after,
        "whole_at": rfc3339(row["whole_at"]),
        "gaps": row["gaps"],
        "error": row["error"],
    }


def gaps_of(scopes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a source cannot show: each gap once, with the number of scopes that have it."""
    counted = Counter((g["code"], g["message"], g["remedy"]) for scope in scopes for g in scope["gaps"])
    return [
        {"code": code, "message": message, "remedy": remedy, "scopes": number}
        for (code, message, remedy), number in sorted(counted.items())
    ]
