"""What time alone changes: who is on call, and for how long a former name counts. In the caller's transaction."""

from __future__ import annotations

import sqlite3

from daemon.store.alive import refresh_alive, spread_upwards


def keep_former(db: sqlite3.Connection, directory: int, *, now: float) -> None:
    """Remember what the changed were called before, for as long as the directory's `rename_grace` says.

    Who is called so again needs no memory; of who is gone there is none.
    """
    for field in ("name", "email"):
        db.execute(
            f"INSERT INTO former SELECT p.directory_id, p.pid, ?, p.{field}, ? + d.rename_grace FROM temp.changed c"
            " CROSS JOIN principal p ON p.directory_id = ? AND p.pid = c.key"
            " CROSS JOIN source d ON d.id = p.directory_id"
            " CROSS JOIN spool.principal s ON s.pid = c.key"
            " CROSS JOIN temp.scope_map m ON m.no = s.scope_no AND m.readable"
            f" WHERE d.rename_grace > 0 AND trim(p.{field}) != '' AND p.{field} IS NOT s.{field}"
            " ON CONFLICT DO UPDATE SET until = excluded.until",
            (field, now, directory),
        )
        db.execute(
            "DELETE FROM former WHERE directory_id = ? AND field = ? AND (pid, exact) IN"
            f" (SELECT c.key, s.{field} FROM temp.changed c CROSS JOIN spool.principal s ON s.pid = c.key)",
            (directory, field),
        )
    db.execute("DELETE FROM former WHERE directory_id = ? AND pid IN (SELECT key FROM temp.gone)", (directory,))


def apply_shifts(db: sqlite3.Connection, directory: int) -> None:
    """Make the shifts of the scopes that were read what the spool has."""
    db.execute(
        "DELETE FROM shift WHERE directory_id = ? AND scope_id IN"
        " (SELECT scope_id FROM temp.scope_map WHERE readable AND whole) AND NOT EXISTS (SELECT 1 FROM spool.shift s"
        " WHERE s.schedule_pid = shift.schedule_pid AND s.member_pid = shift.member_pid AND s.start = shift.start"
        " AND s.until = shift.until)",
        (directory,),
    )
    for named, column in (("emptied", "group_pid"), ("gone", "key")):
        db.execute(
            f"DELETE FROM shift WHERE directory_id = ? AND schedule_pid IN (SELECT g.{column} FROM spool.{named} g"
            " JOIN temp.scope_map m ON m.no = g.scope_no AND m.readable AND NOT m.whole)",
            (directory,),
        )
    db.execute(
        "INSERT INTO shift SELECT ?, s.schedule_pid, s.member_pid, s.start, s.until, m.scope_id FROM spool.shift s"
        " JOIN temp.scope_map m ON m.no = s.scope_no AND m.readable WHERE true"
        " ON CONFLICT DO UPDATE SET scope_id = excluded.scope_id WHERE scope_id != excluded.scope_id",
        (directory,),
    )


def hand_over(db: sqlite3.Connection, directory: int, *, now: float) -> None:
    """Make whoever is on call now, and nobody else, the members of each schedule that has shifts.

    A schedule whose members change is left in `temp.affected`.
    """
    db.execute(
        "INSERT INTO temp.on_call SELECT schedule_pid, member_pid, min(scope_id) FROM shift"
        " WHERE directory_id = ? AND start <= ? AND until > ? GROUP BY 1, 2",
        (directory, now, now),
    )
    ended = (
        f"member INDEXED BY member_on_call WHERE directory_id = {directory:d} AND on_call"
        " AND (group_pid, member_pid) NOT IN (SELECT group_pid, member_pid FROM temp.on_call)"
    )
    begun = (
        "temp.on_call n WHERE NOT EXISTS (SELECT 1 FROM member b"
        f" WHERE b.directory_id = {directory:d} AND b.group_pid = n.group_pid AND b.member_pid = n.member_pid)"
    )
    for rows in (ended, begun):
        db.execute(
            "INSERT OR IGNORE INTO temp.affected (pid, was_alive) SELECT t.pid, p.alive FROM"
            f" (SELECT DISTINCT group_pid AS pid FROM {rows}) t"
            " LEFT JOIN principal p ON p.directory_id = ? AND p.pid = t.pid",
            (directory,),
        )
    db.execute(f"DELETE FROM {ended}")
    db.execute(
        "INSERT INTO member (directory_id, group_pid, member_pid, scope_id, on_call)"
        f" SELECT ?, n.group_pid, n.member_pid, n.scope_id, 1 FROM {begun}",
        (directory,),
    )
    db.execute("UPDATE source SET turned_at = ? WHERE id = ?", (now, directory))


def turn(db: sqlite3.Connection, directory: int, *, now: float) -> None:
    """Apply what only time has changed: hand-overs, and former names whose time is over.

    Whom that touches is left in `temp.touched_pid`, and who must be indexed again in `temp.changed`.
    """
    hand_over(db, directory, now=now)
    spread_upwards(db, directory)
    refresh_alive(db, directory)
    db.execute(
        "INSERT OR IGNORE INTO temp.changed SELECT pid, 0 FROM former WHERE directory_id = ? AND until <= ?",
        (directory, now),
    )
    db.execute("INSERT OR IGNORE INTO temp.touched_pid SELECT key FROM temp.changed")
    db.execute("DELETE FROM former WHERE directory_id = ? AND until <= ?", (directory, now))


def due(db: sqlite3.Connection, *, now: float) -> list[int]:
    """The directories that time has changed since they were turned or merged last."""
    rows = db.execute(
        "SELECT s.id FROM source s WHERE s.role = 'directory' AND (EXISTS (SELECT 1 FROM shift h"
        " WHERE h.directory_id = s.id AND ((h.start > s.turned_at AND h.start <= ?1)"
        " OR (h.until > s.turned_at AND h.until <= ?1) OR s.turned_at IS NULL OR s.turned_at > ?1))"
        " OR EXISTS (SELECT 1 FROM former f WHERE f.directory_id = s.id AND f.until <= ?1)) ORDER BY s.id",
        (now,),
    )
    return [source for (source,) in rows]


def next_turn(db: sqlite3.Connection, *, now: float) -> float | None:
    """When time will change something next, as far as is known."""
    found: float | None = db.execute(
        "SELECT min(at) FROM (SELECT min(start) AS at FROM shift WHERE start > ?1 UNION ALL"
        " SELECT min(until) FROM shift WHERE until > ?1 UNION ALL SELECT min(until) FROM former WHERE until > ?1)",
        (now,),
    ).fetchone()[0]
    return found
