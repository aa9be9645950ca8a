"""A snapshot into the tables. The spool is attached as `spool`; all is done in the caller's transaction.

`plan_*` fills temporary tables and counts, for the guard to judge; `apply_*` carries them out. What changed is left
in temporary tables for the steps after: `temp.dirty` (resources to resolve again), `temp.differing` (of which those
without `resource_id` are new, and yet to be inserted, with their claims: `Claims.assign`), `temp.touched_pid`
(principals whose fitness or attributes may have changed).

Many joins are written with CROSS JOIN: SQLite does not know how full these tables are, and then takes them in the order
in which they stand.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from daemon.guard import ScopeChange
from daemon.store import turning
from daemon.store.alive import refresh_alive, spread_upwards

_TEMPORARY = """
CREATE TEMP TABLE IF NOT EXISTS scope_map (
  no INTEGER UNIQUE, scope_id INTEGER PRIMARY KEY, name TEXT, readable INTEGER, whole INTEGER);
CREATE TEMP TABLE IF NOT EXISTS differing (
  seq INTEGER PRIMARY KEY, no INTEGER, resource_id INTEGER, was_in INTEGER, scope_id INTEGER);
CREATE TEMP TABLE IF NOT EXISTS gone (id INTEGER PRIMARY KEY, key TEXT, scope_id INTEGER);
CREATE TEMP TABLE IF NOT EXISTS gone_member (
  group_pid TEXT, member_pid TEXT, scope_id INTEGER, PRIMARY KEY (group_pid, member_pid)) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS new_member (
  group_pid TEXT, member_pid TEXT, scope_id INTEGER, was_in INTEGER, on_call INTEGER);
CREATE TEMP TABLE IF NOT EXISTS on_call (
  group_pid TEXT, member_pid TEXT, scope_id INTEGER, PRIMARY KEY (group_pid, member_pid)) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS changed (key TEXT PRIMARY KEY, fresh INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS dirty (resource_id INTEGER PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS touched_pid (pid TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS affected (pid TEXT PRIMARY KEY, was_alive INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS dirty_claim (claim_id INTEGER PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS render (resource_id INTEGER PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS moved (resource_id INTEGER PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS touched_claim (claim_id INTEGER PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS touched_finding (
  source_id INTEGER, kind TEXT, key TEXT, value TEXT, PRIMARY KEY (source_id, kind, key, value)) WITHOUT ROWID;
"""
_TABLES = (
    "scope_map",
    "differing",
    "gone",
    "gone_member",
    "new_member",
    "on_call",
    "changed",
    "dirty",
    "touched_pid",
    "affected",
    "dirty_claim",
    "render",
    "moved",
    "touched_claim",
    "touched_finding",
)


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows that a merge wrote."""

    added: int = 0
    changed: int = 0
    removed: int = 0


def prepare(db: sqlite3.Connection) -> None:
    """Make the temporary tables, once a connection. Outside any transaction."""
    db.executescript(_TEMPORARY)


def clear(db: sqlite3.Connection) -> None:
    """Empty the temporary tables, at the start of a transaction."""
    for table in _TABLES:
        db.execute(f"DELETE FROM temp.{table}")


def plan_scopes(db: sqlite3.Connection, source: int, *, again: bool) -> None:
    """Tell which scopes are merged: those read whole, those no longer named, and those whose changes were read.

    Changes fit only what they are changes of. With `again` the spool was held, and may be older than what is stored:
    a scope that has been read since stays as it is.
    """
    db.execute(
        "INSERT INTO temp.scope_map SELECT s.no, c.id, c.name, CASE"
        " WHEN ? AND c.read_at > coalesce(s.started, r.finished) THEN 0"
        " WHEN s.no IS NULL OR s.state = 'whole' THEN 1"
        " WHEN s.state = 'changes' THEN s.since IS c.bookmark AND r.base IS c.base"
        " ELSE 0 END, s.no IS NULL OR s.state = 'whole'"
        " FROM spool.run r JOIN scope c LEFT JOIN spool.scope s ON s.name = c.name WHERE c.source_id = ?",
        (again, source),
    )


def plan_resources(db: sqlite3.Connection, source: int, *, unchanged: bool = False) -> list[ScopeChange]:
    """Find what differs and what would go, and count that by scope. `unchanged`: nothing does, as is known."""
    stored = dict(
        db.execute(
            "SELECT m.scope_id, (SELECT count(*) FROM resource r WHERE r.scope_id = m.scope_id)"
            " FROM temp.scope_map m WHERE m.readable"
        ).fetchall()
    )
    if not unchanged:
        _find_differences(db, source, stored)
    going = dict(db.execute("SELECT scope_id, count(*) FROM temp.gone GROUP BY 1").fetchall())
    new_gaps = _new_gaps(db)
    scopes = db.execute("SELECT scope_id, name FROM temp.scope_map WHERE readable").fetchall()
    return [ScopeChange(name, stored[i], going.get(i, 0), gaps=new_gaps.get(name, ())) for i, name in scopes]


def _find_differences(db: sqlite3.Connection, source: int, stored: Mapping[int, int]) -> None:
    """Fill `temp.differing` and `temp.gone`. `stored`: rows by scope."""
    # One way through the spool's index and the table's, both in the order of the keys.
    db.execute(
        "INSERT INTO temp.differing (no, resource_id, was_in, scope_id) SELECT s.rowid, r.id, r.scope_id, m.scope_id"
        " FROM spool.resource s INDEXED BY resource_key CROSS JOIN temp.scope_map m ON m.no = s.scope_no AND m.readable"
        " LEFT JOIN resource r ON r.source_id = ? AND r.key = s.key"
        " WHERE r.id IS NULL OR r.hash != s.hash OR r.scope_id != m.scope_id ORDER BY s.key",
        (source,),
    )
    # What a scope has in the spool, but for what comes into it, was in it: only if that is not all is anything gone.
    coming = dict(
        db.execute("SELECT scope_id, count(*) FROM temp.differing WHERE was_in IS NOT scope_id GROUP BY 1").fetchall()
    )
    kept = db.execute(
        "SELECT m.scope_id, coalesce(s.kept, 0) FROM temp.scope_map m LEFT JOIN spool.scope s ON s.no = m.no"
        " WHERE m.readable AND m.whole"
    ).fetchall()
    for scope in (scope for scope, rows in kept if stored[scope] != rows - coming.get(scope, 0)):
        db.execute(
            "INSERT INTO temp.gone SELECT r.id, r.key, r.scope_id FROM resource r WHERE r.scope_id = ?"
            " AND NOT EXISTS (SELECT 1 FROM spool.resource s WHERE s.key = r.key)",
            (scope,),
        )
    db.execute(
        "INSERT INTO temp.gone SELECT r.id, r.key, r.scope_id FROM spool.gone g"
        " CROSS JOIN temp.scope_map m ON m.no = g.scope_no AND m.readable AND NOT m.whole"
        " CROSS JOIN resource r ON r.source_id = ? AND r.key = g.key AND r.scope_id = m.scope_id",
        (source,),
    )


def _new_gaps(db: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """By scope, the codes of what could be shown when it was read last, and cannot be now."""
    found: dict[str, tuple[str, ...]] = {}
    for name, code in db.execute(
        "SELECT m.name, g.value ->> 'code' FROM temp.scope_map m JOIN spool.scope s ON s.no = m.no"
        " JOIN scope c ON c.id = m.scope_id, json_each(s.gaps) g WHERE m.readable AND c.read_at IS NOT NULL"
        " AND g.value ->> 'code' NOT IN (SELECT value ->> 'code' FROM json_each(c.gaps)) ORDER BY 1, 2"
    ):
        found[name] = (*found.get(name, ()), code)
    return found


def going(db: sqlite3.Connection, scope: str, *, integration: bool, most: int = 20) -> list[str]:
    """Some of what would go from a scope: ids of resources, or kinds and names of principals."""
    shown = "t.rid" if integration else "t.kind || ' ' || t.name"
    table = "resource" if integration else "principal"
    rows = db.execute(
        f"SELECT {shown} FROM temp.scope_map m JOIN temp.gone g ON g.scope_id = m.scope_id"
        f" JOIN {table} t ON t.id = g.id WHERE m.name = ? ORDER BY 1 LIMIT ?",
        (scope, most),
    )
    return [text for (text,) in rows]


def withhold(db: sqlite3.Connection, scopes: Iterable[str]) -> None:
    """Leave these scopes as they are."""
    names = orjson.dumps(list(scopes)).decode()
    db.execute(
        "UPDATE temp.scope_map SET readable = 0 WHERE name IN (SELECT value FROM json_each(?))",
        (names,),
    )
    for table in ("differing", "gone", "gone_member", "new_member"):
        db.execute(
            f"DELETE FROM temp.{table} WHERE scope_id IN (SELECT scope_id FROM temp.scope_map WHERE NOT readable)"
        )


def apply_resources(db: sqlite3.Connection, source: int) -> Counts:
    """Carry the plan out for what was there before; leave what must be resolved again in `temp.dirty`."""
    # What inherited from a resource that goes, or that comes where there was none, must look again.
    heirs = "INSERT OR IGNORE INTO temp.dirty SELECT r.id FROM"
    inherits = "CROSS JOIN resource r ON r.source_id = ? AND r.parent_key ="
    db.execute(f"{heirs} temp.gone g {inherits} g.key", (source,))
    some = "SELECT EXISTS (SELECT 1 FROM resource WHERE source_id = ? AND parent_key IS NOT NULL)"
    if db.execute(some, (source,)).fetchone()[0]:
        db.execute(
            f"{heirs} temp.differing d CROSS JOIN spool.resource s ON s.rowid = d.no {inherits} s.key"
            " WHERE d.resource_id IS NULL",
            (source,),
        )
    db.execute("INSERT OR IGNORE INTO temp.dirty SELECT resource_id FROM temp.differing WHERE resource_id IS NOT NULL")
    db.execute("DELETE FROM temp.dirty WHERE resource_id IN (SELECT id FROM temp.gone)")
    rows = db.execute(
        "SELECT s.rid, s.type, s.name, s.parent, s.parent_key, s.tags, s.hash, d.scope_id, d.resource_id"
        " FROM temp.differing d CROSS JOIN spool.resource s ON s.rowid = d.no WHERE d.resource_id IS NOT NULL"
    )
    db.executemany(
        "UPDATE resource SET rid = ?, type = ?, name = ?, parent = ?, parent_key = ?, tags = ?, hash = ?, scope_id = ?"
        " WHERE id = ?",
        rows,
    )
    added, changed, removed = db.execute(
        "SELECT count(*) FILTER (WHERE resource_id IS NULL), count(resource_id), (SELECT count(*) FROM temp.gone)"
        " FROM temp.differing"
    ).fetchone()
    return Counts(added, changed, removed)


def _counts(db: sqlite3.Connection) -> Counts:
    return Counts(
        *db.execute(
            "SELECT coalesce(sum(fresh), 0), coalesce(sum(NOT fresh), 0), (SELECT count(*) FROM temp.gone)"
            " FROM temp.changed"
        ).fetchone()
    )


def gone_resources(db: sqlite3.Connection, source: int) -> None:
    """Plan the removal of every resource of an integration: it is no longer configured."""
    db.execute("INSERT INTO temp.gone SELECT id, key, scope_id FROM resource WHERE source_id = ?", (source,))


def delete_gone(db: sqlite3.Connection) -> None:
    """Delete the resources in `temp.gone`. Their owner rows are removed before, by `publish.retract`."""
    for column in ("claim_id", "pending_claim_id"):
        db.execute(
            f"INSERT OR IGNORE INTO temp.touched_claim SELECT r.{column} FROM temp.gone g"
            f" CROSS JOIN resource r ON r.id = g.id WHERE r.{column} IS NOT NULL"
        )
    db.execute("DELETE FROM resource WHERE id IN (SELECT id FROM temp.gone)")


def plan_principals(db: sqlite3.Connection, directory: int) -> list[ScopeChange]:
    """Find what would go, and count it by scope."""
    db.execute(
        "INSERT INTO temp.gone SELECT p.id, p.pid, p.scope_id FROM temp.scope_map m"
        " CROSS JOIN principal p ON p.scope_id = m.scope_id WHERE m.readable AND m.whole"
        " AND NOT EXISTS (SELECT 1 FROM spool.principal s WHERE s.pid = p.pid)"
    )
    db.execute(
        "INSERT INTO temp.gone SELECT p.id, p.pid, p.scope_id FROM spool.gone g"
        " CROSS JOIN temp.scope_map m ON m.no = g.scope_no AND m.readable AND NOT m.whole"
        " CROSS JOIN principal p ON p.directory_id = ? AND p.pid = g.key AND p.scope_id = m.scope_id",
        (directory,),
    )
    stored = _plan_members(db, directory)
    going, leaving = (
        dict(db.execute(f"SELECT scope_id, count(*) FROM temp.{table} GROUP BY 1").fetchall())
        for table in ("gone", "gone_member")
    )
    new_gaps = _new_gaps(db)
    scopes = db.execute(
        "SELECT m.scope_id, m.name, (SELECT count(*) FROM principal p WHERE p.scope_id = m.scope_id)"
        " FROM temp.scope_map m WHERE m.readable"
    ).fetchall()
    return [
        ScopeChange(name, rows, going.get(i, 0), stored[i], leaving.get(i, 0), gaps=new_gaps.get(name, ()))
        for i, name, rows in scopes
    ]


def _plan_members(db: sqlite3.Connection, directory: int) -> dict[int, int]:
    """Find the memberships that come and go; how many each scope has that is merged, without those of shifts."""
    db.execute(
        "INSERT INTO temp.new_member SELECT s.group_pid, s.member_pid, m.scope_id, b.scope_id, b.on_call"
        " FROM spool.member s CROSS JOIN temp.scope_map m ON m.no = s.scope_no AND m.readable"
        " LEFT JOIN member b ON b.directory_id = ? AND b.group_pid = s.group_pid AND b.member_pid = s.member_pid"
        " WHERE b.group_pid IS NULL OR b.on_call OR b.scope_id != m.scope_id",
        (directory,),
    )
    stored = dict(
        db.execute(
            "SELECT m.scope_id, (SELECT count(*) FROM member b WHERE b.scope_id = m.scope_id)"
            " - (SELECT count(*) FROM member b INDEXED BY member_on_call"
            " WHERE b.directory_id = ? AND b.scope_id = m.scope_id AND b.on_call)"
            " FROM temp.scope_map m WHERE m.readable",
            (directory,),
        ).fetchall()
    )
    coming = dict(
        db.execute(
            "SELECT scope_id, count(*) FROM temp.new_member WHERE was_in IS NOT scope_id OR on_call GROUP BY 1"
        ).fetchall()
    )
    kept = db.execute(
        "SELECT m.scope_id, coalesce(s.kept_members, 0) FROM temp.scope_map m LEFT JOIN spool.scope s ON s.no = m.no"
        " WHERE m.readable AND m.whole"
    ).fetchall()
    for scope in (scope for scope, rows in kept if stored[scope] != rows - coming.get(scope, 0)):
        db.execute(
            "INSERT INTO temp.gone_member SELECT b.group_pid, b.member_pid, b.scope_id FROM member b"
            " WHERE b.scope_id = ? AND NOT b.on_call AND NOT EXISTS"
            " (SELECT 1 FROM spool.member s WHERE s.group_pid = b.group_pid AND s.member_pid = b.member_pid)",
            (scope,),
        )
    # Of changes: who left, whoever was in a group that is told anew, and the members of groups that are gone. A user
    # that is gone may stay named as a member: nobody is active by a name alone.
    for named, joined in (
        ("spool.gone_member", "b.group_pid = g.group_pid AND b.member_pid = g.member_pid"),
        ("spool.emptied", "b.group_pid = g.group_pid"),
        ("spool.gone", "b.group_pid = g.key"),
    ):
        db.execute(
            f"INSERT OR IGNORE INTO temp.gone_member SELECT b.group_pid, b.member_pid, m.scope_id FROM {named} g"
            " CROSS JOIN temp.scope_map m ON m.no = g.scope_no AND m.readable AND NOT m.whole"
            f" CROSS JOIN member b ON b.directory_id = ? AND NOT b.on_call AND {joined} WHERE NOT EXISTS"
            " (SELECT 1 FROM spool.member s WHERE s.group_pid = b.group_pid AND s.member_pid = b.member_pid)",
            (directory,),
        )
    return stored


def apply_principals(db: sqlite3.Connection, directory: int, *, now: float) -> Counts:
    """Carry the plan out; leave whoever may match or fit otherwise than before in `temp.touched_pid`."""
    db.execute(
        "INSERT INTO temp.changed SELECT s.pid, p.id IS NULL FROM spool.principal s INDEXED BY principal_key"
        " CROSS JOIN temp.scope_map m ON m.no = s.scope_no AND m.readable"
        " LEFT JOIN principal p ON p.directory_id = ? AND p.pid = s.pid"
        " WHERE p.id IS NULL OR p.hash != s.hash OR p.scope_id != m.scope_id ORDER BY s.pid",
        (directory,),
    )
    # Whose activity may change: the changed and the gone, and the groups that gain or lose a member ...
    for pids in ("key FROM temp.changed", "key FROM temp.gone", "group_pid FROM temp.gone_member"):
        db.execute(f"INSERT OR IGNORE INTO temp.affected (pid) SELECT {pids}")
    db.execute("INSERT OR IGNORE INTO temp.affected (pid) SELECT group_pid FROM temp.new_member WHERE was_in IS NULL")
    spread_upwards(db, directory)
    db.execute(
        "UPDATE temp.affected SET was_alive ="
        " (SELECT alive FROM principal p WHERE p.directory_id = ? AND p.pid = affected.pid)",
        (directory,),
    )
    turning.keep_former(db, directory, now=now)
    db.execute(
        "INSERT INTO principal (directory_id, pid, kind, external_id, name, email, active, manager, aliases,"
        " attributes, hash, scope_id) SELECT ?, s.pid, s.kind, s.external_id, s.name, s.email, s.active, s.manager,"
        " s.aliases, s.attributes, s.hash, m.scope_id"
        " FROM temp.changed c CROSS JOIN spool.principal s ON s.pid = c.key"
        " CROSS JOIN temp.scope_map m ON m.no = s.scope_no"
        " WHERE true ON CONFLICT (directory_id, pid) DO UPDATE SET name = excluded.name, email = excluded.email,"
        " active = excluded.active, manager = excluded.manager, aliases = excluded.aliases,"
        " attributes = excluded.attributes, hash = excluded.hash, scope_id = excluded.scope_id",
        (directory,),
    )
    db.execute("DELETE FROM principal WHERE id IN (SELECT id FROM temp.gone)")
    db.execute(
        "DELETE FROM member WHERE directory_id = ? AND (group_pid, member_pid) IN"
        " (SELECT group_pid, member_pid FROM temp.gone_member)",
        (directory,),
    )
    db.execute(
        "INSERT INTO member (directory_id, group_pid, member_pid, scope_id)"
        " SELECT ?, group_pid, member_pid, scope_id FROM temp.new_member WHERE true"
        " ON CONFLICT DO UPDATE SET scope_id = excluded.scope_id, on_call = 0",
        (directory,),
    )
    turning.apply_shifts(db, directory)
    turning.hand_over(db, directory, now=now)
    # ... and, through new memberships, whatever contains those.
    spread_upwards(db, directory)
    refresh_alive(db, directory)
    return _counts(db)


def delete_principals(db: sqlite3.Connection, directory: int) -> None:
    """Delete a directory that is no longer configured."""
    for table in ("principal", "member", "match", "term", "shift", "former"):
        db.execute(f"DELETE FROM {table} WHERE directory_id = ?", (directory,))
