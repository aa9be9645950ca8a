"""Changes of tags that wait: until their time is over, or somebody confirms them. In the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import orjson


def due(db: sqlite3.Connection, *, now: float) -> list[int]:
    """The integrations that have a change whose time is over."""
    rows = db.execute("SELECT DISTINCT source_id FROM resource WHERE pending_until <= ? ORDER BY 1", (now,))
    return [source for (source,) in rows]


def next_due(db: sqlite3.Connection) -> float | None:
    """When the next one's time is over."""
    found: float | None = db.execute(
        "SELECT min(pending_until) FROM resource WHERE pending_until IS NOT NULL"
    ).fetchone()[0]
    return found


def release_due(db: sqlite3.Connection, source: int, *, now: float) -> list[tuple[str, str, str]]:
    """Put into force what has waited long enough; what each was (see `_release`)."""
    return _release(db, "source_id = ? AND pending_until <= ?", (source, now))


def confirm(db: sqlite3.Connection, source: int, keys: Sequence[str] | None) -> list[tuple[str, str, str]]:
    """Put into force what waits for these resources, and for those that inherit from them; with None, all."""
    if keys is None:
        return _release(db, "source_id = ? AND pending_until IS NOT NULL", (source,))
    told = orjson.dumps(list(keys)).decode()
    return _release(
        db,
        "source_id = ? AND pending_until IS NOT NULL AND (key IN (SELECT value FROM json_each(?))"
        " OR pending_key IN (SELECT value FROM json_each(?)) OR tagged_key IN (SELECT value FROM json_each(?)))",
        (source, told, told, told),
    )


def _release(db: sqlite3.Connection, where: str, bound: Sequence[object]) -> list[tuple[str, str, str]]:
    """The resource id, the old value and the new one of each; what must be rendered stands in `temp.render`."""
    rows = db.execute(
        "SELECT r.id, r.rid, c.value, p.value FROM resource r JOIN claim c ON c.id = r.claim_id"
        " JOIN claim p ON p.id = r.pending_claim_id"
        f" WHERE r.id IN (SELECT id FROM resource WHERE {where}) ORDER BY r.id",
        bound,
    ).fetchall()
    ids = [(i,) for i, *_ in rows]
    db.executemany("INSERT OR IGNORE INTO temp.render VALUES (?)", ids)
    for column in ("claim_id", "pending_claim_id"):
        db.executemany(f"INSERT OR IGNORE INTO temp.touched_claim SELECT {column} FROM resource WHERE id = ?", ids)
    db.executemany(
        "UPDATE resource SET claim_id = pending_claim_id, tagged_key = pending_key, pending_claim_id = NULL,"
        " pending_key = NULL, pending_since = NULL, pending_until = NULL WHERE id = ?",
        ids,
    )
    return [(rid, old, new) for _, rid, old, new in rows]


def began(db: sqlite3.Connection, *, now: float) -> list[tuple[str, str, str, str, float]]:
    """What has begun to wait at `now`: integration, resource id, the value in force, the new one, and until when."""
    return db.execute(
        "SELECT s.name, r.rid, c.value, p.value, r.pending_until FROM resource r INDEXED BY resource_waits"
        " CROSS JOIN source s ON s.id = r.source_id CROSS JOIN claim c ON c.id = r.claim_id"
        " CROSS JOIN claim p ON p.id = r.pending_claim_id"
        " WHERE r.pending_until IS NOT NULL AND r.pending_since = ? ORDER BY r.id",
        (now,),
    ).fetchall()
