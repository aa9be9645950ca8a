"""What the server asks of the database. Read-only, short, and never in the writer's way.

Each `Reader` has a connection of its own and belongs to one thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from daemon.matching import canonical
from daemon.store.following import Aged, Follower
from daemon.store.lookups import AGREE, MEMBERS, ROWS, Row

_PLAIN = "SELECT freshness_id, body, waiting FROM answer WHERE key = ?"
_MANY = (
    "SELECT j.key, a.key, a.source_id, a.freshness_id, a.outcome_id, a.waiting, a.body"
    " FROM json_each(?) j CROSS JOIN answer a ON a.key = j.value"
)
"""By the position of each key in a JSON array: in one query, for half of the time of one for each."""


class Reader(Follower):
    """A read-only view of the database."""

    # --- lookups ----------------------------------------------------------------------------------------------------

    def rows(self, key: str) -> list[Row]:
        """The owner rows of a resource, one an integration that has it; mostly one or none."""
        try:
            self.follow()
            found = self.db.execute(ROWS, (key,)).fetchall()
            for row in found:
                if row[2] not in self._aged:
                    with self.generation() as db:
                        found = db.execute(ROWS, (key,)).fetchall()
                        self.know_ages(db, (row[2] for row in found))
                    break
        except sqlite3.DatabaseError:
            self.failed()
            raise
        return list(map(Row._make, found))

    def plain(self, key: str) -> tuple[bytes, Aged] | None:
        """Bytes and ages of the one row of a resource; None if it has none or several, or waits. Within a turn."""
        found = self.copied.find(key)
        if found is None:
            rows = self.cursor.execute(_PLAIN, (key,)).fetchall()
            if len(rows) != 1 or rows[0][2]:
                return None
            found = rows[0][:2]
        freshness_id, head = found
        return head, self._aged.get(freshness_id) or self.aged_in_turn(freshness_id)

    def aged_in_turn(self, freshness_id: int) -> Aged:
        """The ages of a row. Within its turn."""
        self.know_ages(self.db, (freshness_id,))
        return self._aged[freshness_id]

    def many(self, keys: Sequence[str]) -> list[list[Row]]:
        """The owner rows of many resources, in the order asked, all of one generation."""
        found: list[list[Row]] = [[] for _ in keys]
        try:
            self.follow()
            with self.generation() as db:
                told = orjson.dumps(keys)
                rows = db.execute(_MANY, (told.decode(),)).fetchall()
                if b"\\u0000" in told:  # SQLite ends a JSON text there, and would answer for another id
                    rows = [row for row in rows if "\0" not in keys[row[0]]]
                    each = ((i, key) for i, key in enumerate(keys) if "\0" in key)
                    rows += [(i, *row) for i, key in each for row in db.execute(ROWS, (key,))]
                self.know_ages(db, {row[3] for row in rows})
        except sqlite3.DatabaseError:
            self.failed()
            raise
        make = Row._make
        for row in rows:
            found[row[0]].append(make(row[1:]))
        return found

    def owners_agree(self, rows: Sequence[Row]) -> bool:
        """Whether several integrations give a resource the same owners."""
        ids = orjson.dumps([row.outcome_id for row in rows]).decode()
        return bool(self.db.execute(AGREE, (ids,)).fetchone()[0])

    def members(self, directory: str, pid: str, now: float) -> list[dict[str, Any]]:
        """The active users of a principal, nested groups flattened, by name; a user is his own only member.

        Of a schedule that has shifts: who is on call at `now`, whatever has been published.
        """
        return [
            {"id": external_id, "email": email, "name": name}
            for external_id, email, name in self.db.execute(MEMBERS, (directory, pid, now))
        ]

    # --- lists ------------------------------------------------------------------------------------------------------

    def resources(
        self,
        *,
        owner: str | None = None,
        integration: int | None = None,
        kind: str | None = None,
        fallback: bool | None = None,
        reason: str | None = None,
        after: tuple[str, int] = ("", 0),
        limit: int = 100,
    ) -> list[Row]:
        """Owner rows by key, from after a position on."""
        self.follow()
        where, bound = ["(a.key, a.source_id) > (?, ?)"], list[Any](after)
        tables = "answer a"
        if integration is not None:
            # By the integration's own index: a small one would else be sought in all rows.
            tables = "resource r CROSS JOIN answer a ON a.key = r.key AND a.source_id = r.source_id"
            where += ["r.source_id = ?", "r.key >= ?"]
            bound += [integration, after[0]]
        elif kind is not None:
            tables = "answer a CROSS JOIN resource r ON r.id = a.resource_id"
        if kind is not None:
            where.append("r.type = ?")
            bound.append(kind)
        outcomes, told = [], list[Any]()
        if reason is not None:
            outcomes.append("reason = ?")
            told.append(reason)
        if fallback is not None:
            outcomes.append("fallback = ?")
            told.append(int(fallback))
        if owner is not None:
            outcomes.append("id IN (SELECT value FROM json_each(?))")
            told.append(orjson.dumps(self._outcomes_of(owner)).decode())
        if outcomes:
            # Few rows have a given owner or reason: by their index. Many fall back or do not: in passing.
            plus = "" if owner is not None or reason is not None else "+"
            where.append(f"{plus}a.outcome_id IN (SELECT id FROM outcome WHERE {' AND '.join(outcomes)})")
            bound += told
        order = "r.key" if integration is not None else "a.key, a.source_id"
        with self.generation() as db:
            found = [
                Row(*row)
                for row in db.execute(
                    "SELECT a.key, a.source_id, a.freshness_id, a.outcome_id, a.waiting, a.body"
                    f" FROM {tables} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?",
                    (*bound, limit),
                )
            ]
            self.know_ages(db, (row.freshness_id for row in found))
        return found

    def _outcomes_of(self, owner: str) -> list[int]:
        """The outcomes in which a principal owns that has this name, id or e-mail; else one whose name is alike."""
        everybody = self.db.execute(
            "SELECT oo.outcome_id, p.name, p.external_id, p.email FROM outcome_owner oo"
            " JOIN principal p ON p.directory_id = oo.directory_id AND p.pid = oo.pid"
        ).fetchall()
        exact = [outcome for outcome, *known in everybody if owner in known]
        return exact or [outcome for outcome, name, _, _ in everybody if canonical(name) == canonical(owner)]

    def findings(
        self, *, state: str, kind: str | None, integration: str | None, after: int, limit: int
    ) -> list[dict[str, Any]]:
        """Drift, oldest first. An open finding was last seen when its integration was last read."""
        where, bound = ["f.id > ?"], list[Any]((after,))
        if state != "all":
            where.append(f"f.resolved_at IS {'' if state == 'open' else 'NOT '}NULL")
        for column, value in (("kind", kind), ("integration", integration)):
            if value is not None:
                where.append(f"f.{column} = ?")
                bound.append(value)
        cursor = self.db.execute(
            "SELECT f.id, f.integration, f.kind, f.key, f.value, f.resources, f.examples, f.suggestions, f.first_seen,"
            " iif(f.resolved_at IS NULL, max(f.last_seen, coalesce((SELECT max(c.read_at) FROM scope c"
            " JOIN source s ON s.id = c.source_id WHERE s.name = f.integration), 0)), f.last_seen), f.resolved_at"
            f" FROM finding f WHERE {' AND '.join(where)} ORDER BY f.id LIMIT ?",
            (*bound, limit),
        )
        names = [column[0] for column in cursor.description]
        names[9] = "last_seen"
        found = [dict(zip(names, row, strict=True)) for row in cursor]
        for finding in found:
            finding["examples"] = orjson.loads(finding["examples"])
            finding["suggestions"] = orjson.loads(finding["suggestions"] or "[]")
        return found

    def pending(self, *, integration: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """Changes of tags that wait, by resource; `before` and `after` are fragments of outcomes."""
        cursor = self.db.execute(
            "SELECT r.id, r.rid, s.name, r.pending_since, r.pending_until,"
            " iif(r.tagged_key IS r.key, b.body, bi.body), iif(r.pending_key IS r.key, a.body, ai.body),"
            " c.rule, c.key, c.value, w.rule, w.key, w.value"
            " FROM resource r JOIN source s ON s.id = r.source_id JOIN claim c ON c.id = r.claim_id"
            " JOIN claim w ON w.id = r.pending_claim_id JOIN outcome b ON b.id = c.outcome_id"
            " JOIN outcome bi ON bi.id = c.inherited_outcome_id JOIN outcome a ON a.id = w.outcome_id"
            " JOIN outcome ai ON ai.id = w.inherited_outcome_id"
            " WHERE r.pending_until IS NOT NULL AND r.id > ? AND (? IS NULL OR s.name = ?) ORDER BY r.id LIMIT ?",
            (after, integration, integration, limit),
        )
        names = ("id", "resource", "integration", "since", "until", "before", "after")
        found = []
        for row in cursor:
            told: dict[str, Any] = dict(zip(names, row[:7], strict=True))
            old, new = row[7:10], row[10:13]
            told["old_tag"] = {"key": old[1], "value": old[2]} if old[0] >= 0 else None
            told["new_tag"] = {"key": new[1], "value": new[2]} if new[0] >= 0 else None
            found.append(told)
        return found

    def changes(self, *, after: int, limit: int) -> list[tuple[int, float, str, str, str | None, str | None]]:
        """The feed: sequence number, time, integration, resource id, and both outcomes as fragments."""
        return self.db.execute(
            "SELECT c.seq, c.at, c.integration, c.resource, b.body, a.body FROM change c"
            " LEFT JOIN outcome b ON b.id = c.before_id LEFT JOIN outcome a ON a.id = c.after_id"
            " WHERE c.seq > ? ORDER BY c.seq LIMIT ?",
            (after, limit),
        ).fetchall()

    def first_change(self) -> int:
        """The oldest sequence number that is kept; 0 while there is none."""
        found = self.db.execute("SELECT coalesce(min(seq), 0) FROM change").fetchone()
        return int(found[0])

    # --- status -----------------------------------------------------------------------------------------------------

    def status(self) -> list[dict[str, Any]]:
        """Every source with its scopes; times in seconds since the epoch."""
        with self.generation() as db:
            db.row_factory = sqlite3.Row
            try:
                found = [
                    dict(row)
                    for row in db.execute(
                        "SELECT id, name, role, connector, state, last_attempt, last_success, failures, error,"
                        " held_since, held, interval, stale_after, listed FROM source ORDER BY position"
                    )
                ]
                scopes = [
                    dict(row)
                    for row in db.execute(
                        "SELECT source_id, name, state, rows, read_at, whole_at, gaps, error FROM scope"
                        " ORDER BY source_id, name"
                    )
                ]
            finally:
                db.row_factory = None
        for row in (*found, *scopes):
            for column in ("error", "held", "gaps"):
                if column in row:
                    row[column] = orjson.loads(row[column] or "null")
        by_source: dict[int, list[dict[str, Any]]] = {}
        for scope in scopes:
            by_source.setdefault(scope["source_id"], []).append(scope)
        for source in found:
            source["scopes"] = by_source.get(source["id"], [])
        return found

    def counts(self) -> dict[str, list[tuple[Any, ...]]]:
        """What metrics count: changes that wait; open findings by kind; rows by fallback and reason; by integration."""
        with self.generation() as db:
            return {
                "pending": db.execute(
                    "SELECT s.name, count(r.id) FROM source s LEFT JOIN resource r"
                    " ON r.source_id = s.id AND r.pending_until IS NOT NULL WHERE s.hold > 0 GROUP BY 1"
                ).fetchall(),
                "drift": db.execute(
                    "SELECT integration, kind, count(*) FROM finding WHERE resolved_at IS NULL GROUP BY 1, 2"
                ).fetchall(),
                "rows": db.execute(
                    "SELECT s.name, o.fallback, coalesce(o.reason, ''), sum(n.n) FROM (SELECT outcome_id, source_id,"
                    " count(*) AS n FROM answer INDEXED BY answer_outcome GROUP BY 1, 2) n"
                    " JOIN outcome o ON o.id = n.outcome_id JOIN source s ON s.id = n.source_id GROUP BY 1, 2, 3"
                ).fetchall(),
            }
