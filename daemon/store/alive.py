"""Which groups have an active member, at any depth. In the caller's transaction.

What is affected stands in `temp.affected`, each with whether it was alive before.
"""

from __future__ import annotations

import sqlite3


def spread_upwards(db: sqlite3.Connection, directory: int) -> None:
    """Add every group that contains an affected principal, at any depth. Cycles end, since each is added once."""
    db.execute(
        "WITH RECURSIVE up (pid) AS (SELECT pid FROM temp.affected UNION"
        " SELECT b.group_pid FROM up JOIN member b ON b.directory_id = ? AND b.member_pid = up.pid)"
        " INSERT OR IGNORE INTO temp.affected (pid, was_alive) SELECT up.pid,"
        " (SELECT alive FROM principal p WHERE p.directory_id = ? AND p.pid = up.pid) FROM up",
        (directory, directory),
    )


def refresh_alive(db: sqlite3.Connection, directory: int) -> None:
    """Find anew which of the affected have an active member, nested ones counted: the least fixed point."""
    db.execute(
        "UPDATE principal SET alive = (kind = 'user' AND active) WHERE directory_id = ?"
        " AND pid IN (SELECT pid FROM temp.affected)",
        (directory,),
    )
    while db.execute(
        "UPDATE principal SET alive = 1 WHERE directory_id = ? AND alive = 0 AND kind != 'user'"
        " AND pid IN (SELECT pid FROM temp.affected) AND EXISTS (SELECT 1 FROM member b JOIN principal p"
        " ON p.directory_id = b.directory_id AND p.pid = b.member_pid AND p.alive"
        " WHERE b.directory_id = principal.directory_id AND b.group_pid = principal.pid)",
        (directory,),
    ).rowcount:
        pass
    db.execute("INSERT OR IGNORE INTO temp.touched_pid SELECT key FROM temp.changed UNION SELECT key FROM temp.gone")
    db.execute(
        "INSERT OR IGNORE INTO temp.touched_pid SELECT a.pid FROM temp.affected a"
        " LEFT JOIN principal p ON p.directory_id = ? AND p.pid = a.pid WHERE p.alive IS NOT a.was_alive",
        (directory,),
    )
