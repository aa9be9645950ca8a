"""The owner rows and the change feed. In the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from daemon.answers import answer_head
from daemon.rule import Reason
from daemon.store.claims import NO_TAG

KEPT_CHANGES = 1_000_000
_CHUNK = 5000


@dataclass(slots=True)
class Published:
    """What a publish did. `reowned` counts, by integration, the rows whose owners it changed."""

    rendered: int = 0
    changes: int = 0
    reowned: Counter[str] = field(default_factory=Counter)
    """And those whose change waits: it will."""


def retract(db: sqlite3.Connection, source: int, *, now: float) -> int:
    """Take away the owner rows of the resources in `temp.gone`, each with a change; how many."""
    db.execute(
        "INSERT INTO change (at, integration, resource, before_id) SELECT ?, s.name, r.rid, a.outcome_id"
        " FROM temp.gone g JOIN resource r ON r.id = g.id JOIN source s ON s.id = r.source_id"
        " JOIN answer a ON a.key = r.key AND a.source_id = r.source_id ORDER BY r.id",
        (now,),
    )
    return db.execute(
        "DELETE FROM answer WHERE source_id = ? AND key IN (SELECT key FROM temp.gone)", (source,)
    ).rowcount


def publish(db: sqlite3.Connection, *, now: float) -> Published:
    """Render the owner row of each resource in `temp.render`, and record those that changed."""
    done = Published()
    freshness = lru_cache(10_000)(lambda *what: _freshness(db, *what))
    low = -1
    while True:
        rows = db.execute(
            "SELECT r.id, r.source_id, r.key, r.rid, s.name, r.type, r.name, r.parent, r.scope_id,"
            " c.rule, c.key, c.value, c.directories, c.schedules, CASE WHEN r.tagged_key = r.key THEN r.rid ELSE"
            " (SELECT t.rid FROM resource t WHERE t.source_id = r.source_id AND t.key = r.tagged_key) END,"
            " w.rule, w.key, w.value, CASE WHEN r.pending_key = r.key THEN r.rid ELSE"
            " (SELECT t.rid FROM resource t WHERE t.source_id = r.source_id AND t.key = r.pending_key) END,"
            " r.pending_since, r.pending_until,"
            " o.id, o.body, o.identity, o.owners, o.reason, a.outcome_id, b.identity, b.owners, b.reason, a.changed_at"
            " FROM temp.render d JOIN resource r ON r.id = d.resource_id JOIN source s ON s.id = r.source_id"
            " JOIN claim c ON c.id = r.claim_id LEFT JOIN claim w ON w.id = r.pending_claim_id"
            " JOIN outcome o ON o.id = iif(r.tagged_key IS r.key, c.outcome_id, c.inherited_outcome_id)"
            " LEFT JOIN answer a ON a.key = r.key AND a.source_id = r.source_id"
            " LEFT JOIN outcome b ON b.id = a.outcome_id"
            " WHERE d.resource_id > ? ORDER BY d.resource_id LIMIT ?",
            (low, _CHUNK),
        ).fetchall()
        if not rows:
            break
        low = rows[-1][0]
        answers, changes = [], []
        for (
            resource_id, source, key, rid, integration, kind, name, parent, scope,
            rule, tag_key, tag_value, directories, schedules, tagged_rid,
            new_rule, new_key, new_value, new_rid, since, until,
            outcome, body, identity, owners, reason, old_outcome, old_identity, old_owners, old_reason, changed_at,
        ) in rows:  # fmt: skip
            same = identity == old_identity
            if not same:
                changes.append((now, integration, rid, old_outcome, outcome))
                waited = Reason.DIRECTORY_NEVER_SYNCED in (reason, old_reason)
                if old_owners is not None and owners != old_owners and not waited:
                    done.reowned[integration] += 1
            at = changed_at if same else now
            tag = None if rule == NO_TAG else (tag_key, tag_value, tagged_rid)
            pending = None
            if until is not None:
                pending = (None if new_rule == NO_TAG else (new_key, new_value, new_rid), since, until)
            head = answer_head((rid, integration, kind, name, parent), body, tag, at, pending)
            waiting = int(reason == Reason.DIRECTORY_NEVER_SYNCED)
            answers.append(
                (key, source, resource_id, freshness(scope, directories, schedules), outcome, waiting, at, head)
            )
        db.executemany("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?)", answers)
        db.executemany(
            "INSERT INTO change (at, integration, resource, before_id, after_id) VALUES (?, ?, ?, ?, ?)", changes
        )
        done.rendered += len(answers)
        done.changes += len(changes)
    db.execute(
        "DELETE FROM change WHERE seq <= (SELECT max(seq) FROM change) - ?",
        (KEPT_CHANGES,),
    )
    return done


def examples(db: sqlite3.Connection, integration: str, *, now: float, most: int = 20) -> list[dict[str, Any]]:
    """Some of what a publish at `now` has re-owned, or will when its time has come: the owners' names, old and new."""
    rows = db.execute(
        "SELECT c.resource, b.body, a.body FROM change c JOIN outcome b ON b.id = c.before_id"
        " JOIN outcome a ON a.id = c.after_id AND a.owners != b.owners WHERE c.integration = ? AND c.at = ?"
        " UNION ALL SELECT r.rid, b.body, a.body FROM resource r JOIN source s ON s.id = r.source_id AND s.name = ?"
        " JOIN claim x ON x.id = r.claim_id JOIN outcome b ON b.id = x.outcome_id"
        " JOIN claim y ON y.id = r.pending_claim_id JOIN outcome a ON a.id = y.outcome_id"
        " WHERE r.pending_since = ? ORDER BY 1 LIMIT ?",
        (integration, now, integration, now, most),
    )
    return [{"resource": rid, "before": _names(before), "after": _names(after)} for rid, before, after in rows]


def _names(body: str) -> list[str]:
    return [owner["name"] or owner["id"] for owner in orjson.loads(f"{{{body}}}")["owners"]]


def rows_by_integration(db: sqlite3.Connection) -> dict[str, int]:
    """How many owner rows each integration has."""
    return dict(
        db.execute(
            "SELECT s.name, (SELECT count(*) FROM resource r WHERE r.source_id = s.id) FROM source s"
            " WHERE s.role = 'integration'"
        ).fetchall()
    )


def _freshness(db: sqlite3.Connection, scope: int, directories: str, schedules: str) -> int:
    what = (scope, directories, schedules)
    found = db.execute(
        "SELECT id FROM freshness WHERE scope_id = ? AND directories = ? AND schedules = ?", what
    ).fetchone()
    if found:
        return int(found[0])
    made: int = db.execute(
        "INSERT INTO freshness (scope_id, directories, schedules) VALUES (?, ?, ?) RETURNING id", what
    ).fetchone()[0]
    return made
