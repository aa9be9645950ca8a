"""What is configured, and how it fares."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from daemon.fingerprint import Known


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A source as it is configured. `rules` is JSON: an integration's `Rules`, a directory's matched fields.

    `rename_grace`: seconds for which a directory's former names count. `hold`: seconds for which an integration's
    changed tags wait.
    """

    name: str
    role: str
    connector: str
    interval: float
    stale_after: float
    prefixes: tuple[str, ...]
    rules: str
    rename_grace: float = 0.0
    hold: float = 0.0


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """What a new configuration changed, by source id."""

    rematch: list[int]
    """Directories that are new, or whose matched fields changed."""
    reresolve: list[int]
    """Integrations that are new, or whose rules changed."""


def vanished(db: sqlite3.Connection, wanted: Iterable[SourceRow]) -> list[tuple[int, str, str]]:
    """The id, name and role of each source that is no longer configured, or that has another role now."""
    roles = {row.name: row.role for row in wanted}
    found = db.execute("SELECT id, name, role FROM source ORDER BY id").fetchall()
    return [(i, name, role) for i, name, role in found if roles.get(name) != role]


def delete(db: sqlite3.Connection, source: int) -> None:
    """Delete a source and its scopes. What it held is the caller's to remove, before."""
    db.execute("DELETE FROM freshness WHERE scope_id IN (SELECT id FROM scope WHERE source_id = ?)", (source,))
    db.execute("DELETE FROM source WHERE id = ?", (source,))


def configure(db: sqlite3.Connection, wanted: Iterable[SourceRow]) -> Reconfigured:
    """Make the table of sources what the configuration says; whatever vanished has been deleted before."""
    changed = Reconfigured([], [])
    for position, row in enumerate(wanted):
        before = db.execute("SELECT rules FROM source WHERE name = ?", (row.name,)).fetchone()
        source: int = db.execute(
            "INSERT INTO source (name, role, connector, position, interval, stale_after, prefixes, rules,"
            " rename_grace, hold) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET connector = excluded.connector, position = excluded.position,"
            " interval = excluded.interval, stale_after = excluded.stale_after,"
            " prefixes = excluded.prefixes, rules = excluded.rules, rename_grace = excluded.rename_grace,"
            " hold = excluded.hold RETURNING id",
            (
                row.name,
                row.role,
                row.connector,
                position,
                row.interval,
                row.stale_after,
                orjson.dumps(row.prefixes).decode(),
                row.rules,
                row.rename_grace,
                row.hold,
            ),
        ).fetchone()[0]
        if row.role == "integration":
            secret = secrets.token_hex(32)
            db.execute("UPDATE source SET secret = ? WHERE id = ? AND secret = ''", (secret, source))
        if before is None or before[0] != row.rules:
            (changed.reresolve if row.role == "integration" else changed.rematch).append(source)
    return changed


def source_id(db: sqlite3.Connection, name: str) -> int:
    """The id of a configured source."""
    found: int = db.execute("SELECT id FROM source WHERE name = ?", (name,)).fetchone()[0]
    return found


def name_of(db: sqlite3.Connection, source: int) -> str:
    """The name of a source."""
    found: str = db.execute("SELECT name FROM source WHERE id = ?", (source,)).fetchone()[0]
    return found


def synced_kinds(db: sqlite3.Connection, directory: int) -> frozenset[str]:
    """The kinds of principal that a directory has been read whole for, once. A later failure takes none away."""
    told = db.execute("SELECT synced FROM source WHERE id = ?", (directory,)).fetchone()[0]
    return frozenset(orjson.loads(told))


def mark_synced(db: sqlite3.Connection, directory: int) -> bool:
    """Record the kinds that the spool's run asked for and that are known whole by now; whether any is new.

    A kind is, when every scope that may hold it has been read, and every one that may hold users: those are what
    makes a group active.
    """
    asked: list[str] = orjson.loads(db.execute("SELECT kinds FROM spool.run").fetchone()[0])
    scopes = db.execute("SELECT holds, read_at IS NOT NULL FROM scope WHERE source_id = ?", (directory,)).fetchall()
    missing = {kind for holds, read in scopes if not read for kind in orjson.loads(holds)}
    before = synced_kinds(db, directory)
    after = before | (set() if "user" in missing else set(asked) - missing)
    db.execute("UPDATE source SET synced = ? WHERE id = ?", (orjson.dumps(sorted(after)).decode(), directory))
    return after != before


def ensure_scopes(db: sqlite3.Connection, source: int) -> None:
    """Give each scope of the attached spool a row."""
    db.execute(
        "INSERT INTO scope (source_id, name, holds) SELECT ?, name, holds FROM spool.scope WHERE true"
        " ON CONFLICT DO UPDATE SET holds = excluded.holds",
        (source,),
    )


def mark_scopes(db: sqlite3.Connection, source: int, held: Iterable[str]) -> None:
    """Record how each scope of the attached spool fared. A held scope keeps the age of what it still serves."""
    db.execute("UPDATE source SET listed = 1 WHERE id = ?", (source,))
    table = "resource" if _role(db, source) == "integration" else "principal"
    db.execute(
        "UPDATE scope SET state = 'failed', error = s.error FROM spool.scope s"
        " WHERE s.name = scope.name AND scope.source_id = ? AND s.state = 'failed'",
        (source,),
    )
    db.execute(
        "UPDATE scope SET state = 'ok', error = NULL, read_at = s.started,"
        " whole_at = iif(m.whole, s.started, whole_at), bookmark = iif(m.whole, s.bookmark, coalesce(s.bookmark,"
        " scope.bookmark)), base = (SELECT base FROM spool.run),"
        " gaps = iif(m.whole OR s.gaps != '[]', s.gaps, scope.gaps)"
        " FROM spool.scope s JOIN temp.scope_map m ON m.no = s.no AND m.readable"
        " WHERE m.scope_id = scope.id AND scope.source_id = ?",
        (source,),
    )
    db.execute(
        "UPDATE scope SET state = 'held', error = NULL"
        " WHERE source_id = ? AND name IN (SELECT value FROM json_each(?))",
        (source, orjson.dumps(list(held)).decode()),
    )
    db.execute(
        f"UPDATE scope SET rows = (SELECT count(*) FROM {table} t WHERE t.scope_id = scope.id) WHERE source_id = ?",
        (source,),
    )
    # A scope that is no longer named, and whose rows are gone, is gone.
    db.execute(
        "DELETE FROM scope WHERE source_id = ? AND rows = 0 AND name NOT IN (SELECT name FROM spool.scope)"
        " AND id IN (SELECT scope_id FROM temp.scope_map WHERE readable)",
        (source,),
    )
    db.execute("DELETE FROM freshness WHERE scope_id NOT IN (SELECT id FROM scope)")


def known(db: sqlite3.Connection, source: int) -> Known | None:
    """What a run is compared with; None for a directory."""
    secret, fingerprint = db.execute("SELECT secret, fingerprint FROM source WHERE id = ?", (source,)).fetchone()
    return Known(secret, fingerprint or "") if secret else None


def unchanged(db: sqlite3.Connection, source: int) -> bool:
    """Whether the attached spool's run has found just what is stored, and so has not been completed."""
    found = db.execute(
        "SELECT NOT r.complete AND r.fingerprint IS s.fingerprint FROM spool.run r, source s WHERE s.id = ?",
        (source,),
    ).fetchone()[0]
    return bool(found)


def mark_fingerprint(db: sqlite3.Connection, source: int) -> None:
    """Record what is stored by now, if that is just what the attached spool's run has found in all scopes."""
    db.execute(
        "UPDATE source SET fingerprint = iif(EXISTS (SELECT 1 FROM temp.scope_map WHERE NOT readable OR NOT whole),"
        " NULL, (SELECT fingerprint FROM spool.run)) WHERE id = ?",
        (source,),
    )


def bookmarks(db: sqlite3.Connection, source: int, *, base: str, whole_since: float, now: float) -> dict[str, str]:
    """By scope, where the reading of its changes goes on; no scope that is due to be read whole.

    `base` tells what configuration the bookmarks must be of; `whole_since` is the time since which a scope must have
    been read whole.
    """
    return dict(
        db.execute(
            "SELECT name, bookmark FROM scope WHERE source_id = ? AND bookmark IS NOT NULL AND base = ?"
            " AND whole_at BETWEEN ? AND ?",
            (source, base, whole_since, now),
        ).fetchall()
    )


def _role(db: sqlite3.Connection, source: int) -> str:
    role: str = db.execute("SELECT role FROM source WHERE id = ?", (source,)).fetchone()[0]
    return role


def mark_source(
    db: sqlite3.Connection,
    source: int,
    *,
    now: float,
    state: str,
    error: dict[str, Any] | None = None,
    held: dict[str, Any] | None = None,
) -> None:
    """Record how a run ended. `state` is ok, partial, failed or held.

    What is held stays so until a whole run, or until something else is held in its place.
    """
    told = None if held is None else orjson.dumps(held).decode()
    db.execute(
        "UPDATE source SET state = ?, last_attempt = ?, error = ?,"
        " last_success = CASE WHEN ? = 'ok' THEN ? ELSE last_success END,"
        " failures = CASE WHEN ? IN ('ok', 'held') THEN 0 ELSE failures + 1 END,"
        " held_since = CASE WHEN ? = 'ok' THEN NULL WHEN ? THEN coalesce(held_since, ?) ELSE held_since END,"
        " held = CASE WHEN ? = 'ok' THEN NULL ELSE coalesce(?, held) END WHERE id = ?",
        (
            state,
            now,
            None if error is None else orjson.dumps(error).decode(),
            state,
            now,
            state,
            state,
            told is not None,
            now,
            state,
            told,
            source,
        ),
    )


def mark_failed(db: sqlite3.Connection, source: int, *, now: float, error: dict[str, Any]) -> None:
    """Record a run that yielded nothing at all. What is held stays held."""
    db.execute(
        "UPDATE source SET state = 'failed', last_attempt = ?, error = ?, failures = failures + 1 WHERE id = ?",
        (now, orjson.dumps(error).decode(), source),
    )


def unhold(db: sqlite3.Connection, source: int) -> None:
    """Record that nothing of a source is held any more."""
    db.execute("UPDATE source SET held = NULL, held_since = NULL WHERE id = ?", (source,))
