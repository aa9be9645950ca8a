"""The owner rows and the change feed. In the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, NamedTuple

import orjson

from daemon.answers import answer_head
from daemon.rule import Reason
from daemon.store import copying
from daemon.store.claims import NO_TAG

KEPT_CHANGES = 1_000_000
_CHUNK = 5000
_CACHED = 50_000
"""Of each sort: some 20 MiB."""


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
        " FROM temp.gone g CROSS JOIN resource r ON r.id = g.id CROSS JOIN source s ON s.id = r.source_id"
        " CROSS JOIN answer a ON a.key = r.key AND a.source_id = r.source_id ORDER BY r.id",
        (now,),
    )
    return db.execute(
        "DELETE FROM answer WHERE source_id = ? AND key IN (SELECT key FROM temp.gone)", (source,)
    ).rowcount


def publish(db: sqlite3.Connection, *, now: float) -> Published:
    """Render the owner row of each resource in `temp.render`, and record those that changed."""
    done = Published()
    known = _Known(db)
    low = -1
    while True:
        rows = db.execute(
            "SELECT r.id, r.source_id, r.key, r.rid, r.type, r.name, r.parent, r.scope_id, r.claim_id, r.tagged_key,"
            " r.pending_claim_id, r.pending_key, r.pending_since, r.pending_until, a.outcome_id, a.changed_at"
            " FROM temp.render d CROSS JOIN resource r ON r.id = d.resource_id"
            " LEFT JOIN answer a ON a.key = r.key AND a.source_id = r.source_id"
            " WHERE d.resource_id > ? ORDER BY d.resource_id LIMIT ?",
            (low, _CHUNK),
        ).fetchall()
        if not rows:
            break
        low = rows[-1][0]
        new, again, changes = [], [], []
        for (
            resource_id, source, key, rid, kind, name, parent, scope, claim, tagged_key,
            waits_for, new_key, since, until, old_outcome, changed_at,
        ) in rows:  # fmt: skip
            integration = known.integration(source)
            says = known.claim(claim, tagged_key != key)
            at = now
            if old_outcome == says.outcome:
                at = changed_at
            elif old_outcome is None:
                changes.append((now, integration, rid, None, says.outcome))
            else:
                before, after = known.outcome(old_outcome), known.outcome(says.outcome)
                if before.identity == after.identity:
                    at = changed_at
                else:
                    changes.append((now, integration, rid, old_outcome, says.outcome))
                    if before.owners != after.owners and not (before.waits or after.waits):
                        done.reowned[integration] += 1
            where = (source, key, rid)
            tag = known.tag(says, tagged_key, *where)
            pending = None
            if until is not None:
                pending = (known.tag(known.claim(waits_for, new_key != key), new_key, *where), since, until)
            head = answer_head((rid, integration, kind, name, parent), says.body, tag, at, pending)
            row = (known.freshness(scope, *says.rests_on), says.outcome, says.waits, at, head)
            if old_outcome is None:
                new.append((*row, key, source, resource_id))
            else:
                again.append((*row, key, source))
        db.executemany(
            "INSERT INTO answer (freshness_id, outcome_id, waiting, changed_at, body, key, source_id, resource_id)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            new,
        )
        db.executemany(
            "UPDATE answer SET freshness_id = ?, outcome_id = ?, waiting = ?, changed_at = ?, body = ?"
            " WHERE key = ? AND source_id = ?",
            again,
        )
        db.executemany(
            "INSERT INTO change (at, integration, resource, before_id, after_id) VALUES (?, ?, ?, ?, ?)", changes
        )
        copying.bound(db)
        done.rendered += len(rows)
        done.changes += len(changes)
    db.execute(
        "DELETE FROM change WHERE seq <= (SELECT max(seq) FROM change) - ?",
        (KEPT_CHANGES,),
    )
    known.forget()
    return done


class _Outcome(NamedTuple):
    identity: str
    owners: str
    waits: bool


class _Claim(NamedTuple):
    """What a claim says of the rows that have its tag, or of those that inherit it."""

    outcome: int
    body: str
    waits: int
    tag: tuple[str, str] | None
    rests_on: tuple[str, str]


class _Known:
    """What many rows share, each read once, while one transaction lasts."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.integration = cache(self._read_integration)
        self.claim = lru_cache(_CACHED)(self._read_claim)
        self.outcome = lru_cache(_CACHED)(self._read_outcome)
        self.freshness = lru_cache(_CACHED)(self._read_freshness)
        self._rid = lru_cache(_CACHED)(self._read_rid)

    def forget(self) -> None:
        """Let what is known go at once: the caches hold this, and this holds them."""
        for cached in (self.integration, self.claim, self.outcome, self.freshness, self._rid):
            cached.cache_clear()

    def _read_integration(self, source: int) -> str:
        found: str = self._db.execute("SELECT name FROM source WHERE id = ?", (source,)).fetchone()[0]
        return found

    def _read_claim(self, claim: int, inherited: bool) -> _Claim:
        rule, key, value, directories, schedules, outcome, body, reason = self._db.execute(
            "SELECT c.rule, c.key, c.value, c.directories, c.schedules, o.id, o.body, o.reason FROM claim c"
            f" JOIN outcome o ON o.id = c.{'inherited_' if inherited else ''}outcome_id WHERE c.id = ?",
            (claim,),
        ).fetchone()
        tag = None if rule == NO_TAG else (key, value)
        return _Claim(outcome, body, int(reason == Reason.DIRECTORY_NEVER_SYNCED), tag, (directories, schedules))

    def _read_outcome(self, outcome: int) -> _Outcome:
        identity, owners, reason = self._db.execute(
            "SELECT identity, owners, reason FROM outcome WHERE id = ?", (outcome,)
        ).fetchone()
        return _Outcome(identity, owners, reason == Reason.DIRECTORY_NEVER_SYNCED)

    def tag(self, claim: _Claim, tagged: str | None, source: int, key: str, rid: str) -> tuple[str, str, str] | None:
        """The tag that speaks: its key, its value, and the id of the resource that has it.

        While the loss of that resource waits, its key stands for its id.
        """
        if claim.tag is None:
            return None
        if tagged is None or tagged == key:
            return (*claim.tag, rid)
        return (*claim.tag, self._rid(source, tagged) or tagged)

    def _read_rid(self, source: int, key: str) -> str | None:
        found = self._db.execute("SELECT rid FROM resource WHERE source_id = ? AND key = ?", (source, key)).fetchone()
        return found[0] if found else None

    def _read_freshness(self, scope: int, directories: str, schedules: str) -> int:
        what = (scope, directories, schedules)
        found = self._db.execute(
            "SELECT id FROM freshness WHERE scope_id = ? AND directories = ? AND schedules = ?", what
        ).fetchone()
        if found:
            return int(found[0])
        made: int = self._db.execute(
            "INSERT INTO freshness (scope_id, directories, schedules) VALUES (?, ?, ?) RETURNING id", what
        ).fetchone()[0]
        return made


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


def rows_of(db: sqlite3.Connection, integration: str) -> int:
    """How many owner rows an integration has. After `sources.mark_scopes`."""
    found: int = db.execute(
        "SELECT coalesce(sum(c.rows), 0) FROM source s JOIN scope c ON c.source_id = s.id WHERE s.name = ?",
        (integration,),
    ).fetchone()[0]
    return found
