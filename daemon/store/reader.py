"""What the server asks of the database. Read-only, short, and never in the writer's way.

Each `Reader` has a connection of its own and belongs to one thread. Ages belong to the sources, not to the rows, so
they are few: they are kept in memory and read again when the database has changed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from daemon.errors import DatabaseUnusable
from daemon.matching import canonical

LOOK = 1.0
"""Seconds between two looks at whether the file was replaced."""


class Row(NamedTuple):
    """An owner row. `head` is an answer's bytes but for its tail."""

    source_id: int
    freshness_id: int
    outcome_id: int
    waiting: int
    head: bytes


@dataclass(frozen=True, slots=True)
class Age:
    """When what an answer rests on was read, in seconds since the epoch, and until when it is not stale.

    `valid_until`: the next hand-over of a schedule that the answer goes through; past it, the answer is stale.
    """

    resource_seen_at: float
    owners_seen_at: float | None
    stale_from: float
    valid_until: float | None = None

    @property
    def oldest(self) -> float:
        """The time of the oldest reading that the answer rests on."""
        seen = self.resource_seen_at
        return seen if self.owners_seen_at is None else min(seen, self.owners_seen_at)


@dataclass(frozen=True, slots=True)
class Source:
    """A source, as far as lookups need it. `whole`: every scope it has was read at least once."""

    id: int
    name: str
    role: str
    position: int
    prefixes: tuple[str, ...]
    whole: bool
    error: str | None

    def could_hold(self, key: str) -> bool:
        """Whether it is an integration that a resource of this key could come from."""
        return self.role == "integration" and (
            not self.prefixes or key.lower().startswith(tuple(p.lower() for p in self.prefixes))
        )


class Reader:
    """A read-only view of the database; it follows what the writer publishes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._version: int | None = None
        self.sources: dict[int, Source] = {}
        self._ages: dict[int, Age] = {}
        self._file: tuple[int, int] | None = None
        self._look_at = 0.0
        self._damaged = False
        self.superseded = False
        """Another file has taken the place of the one that is open: what this one lacks may yet be there."""

    def close(self) -> None:
        """Let the database go."""
        if self._db is not None:
            self._db.close()
            self._db = None
            self._version = None

    @property
    def db(self) -> sqlite3.Connection:
        """The connection. DatabaseUnusable while there is no database."""
        if self._db is None:
            self._db, self._file = self._open()
        return self._db

    def _open(self) -> tuple[sqlite3.Connection, tuple[int, int]]:
        try:
            told = self._path.stat()
            db = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
            try:
                db.execute("PRAGMA query_only = ON")
                db.execute("PRAGMA cell_size_check = ON")
                db.execute("SELECT 1 FROM source LIMIT 1")
            except BaseException:
                db.close()
                raise
        except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
            raise DatabaseUnusable(
                self._path, str(error), remedy="`ownerd poll` makes it: see whether it runs, and where"
            ) from error
        return db, (told.st_dev, told.st_ino)

    def _look(self) -> None:
        """Take up a database that has replaced the one that is open: as soon as it knows all that the sources have.

        Until then the old one is better, unless it is what failed.
        """
        self._look_at = time.monotonic() + LOOK
        try:
            told = self._path.stat()
            if (told.st_dev, told.st_ino) == self._file:
                return
            self.superseded = True
            db, file = self._open()
        except (OSError, DatabaseUnusable):
            self.superseded = True
            return  # it is being made
        ready = (
            self._damaged
            or db.execute(
                "SELECT EXISTS (SELECT 1 FROM source) AND NOT EXISTS (SELECT 1 FROM source s WHERE NOT s.listed"
                " OR EXISTS (SELECT 1 FROM scope c WHERE c.source_id = s.id AND c.read_at IS NULL))"
            ).fetchone()[0]
        )
        if not ready:
            db.close()
            return
        self.close()
        self._db, self._file, self._damaged, self.superseded = db, file, False, False

    @contextmanager
    def generation(self) -> Iterator[sqlite3.Connection]:
        """One generation for several reads; short, since it keeps the writer from reusing its log."""
        db = self.db
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("COMMIT")

    # --- lookups ----------------------------------------------------------------------------------------------------

    def rows(self, key: str) -> list[Row]:
        """The owner rows of a resource, one an integration that has it; mostly one or none."""
        try:
            self.follow()
            found = self.db.execute(
                "SELECT source_id, freshness_id, outcome_id, waiting, body FROM answer WHERE key = ?", (key,)
            ).fetchall()
        except sqlite3.DatabaseError:
            self._damaged = True  # or out of reach: whatever stands in its place is better
            raise
        return [Row(*row) for row in found]

    def many(self, keys: Sequence[str]) -> dict[str, list[Row]]:
        """The owner rows of many resources, by key, in one query."""
        self.follow()
        found: dict[str, list[Row]] = {}
        for key, *row in self.db.execute(
            "SELECT a.key, a.source_id, a.freshness_id, a.outcome_id, a.waiting, a.body"
            " FROM (SELECT DISTINCT value FROM json_each(?)) j JOIN answer a ON a.key = j.value",
            (orjson.dumps(list(keys)).decode(),),
        ):
            found.setdefault(key, []).append(Row(*row))
        return found

    def age(self, freshness_id: int) -> Age:
        """The ages that belong to a row."""
        if freshness_id not in self._ages:  # published since `follow`
            self._load()
        return self._ages[freshness_id]

    def owners_agree(self, rows: Sequence[Row]) -> bool:
        """Whether several integrations give a resource the same owners."""
        ids = orjson.dumps([row.outcome_id for row in rows]).decode()
        found = self.db.execute(
            "SELECT count(DISTINCT owners) FROM outcome WHERE id IN (SELECT value FROM json_each(?))", (ids,)
        ).fetchone()
        return bool(found[0] == 1)

    def follow(self) -> None:
        """Read ages and sources again if anything was published since, or if another database took this one's place."""
        if self._db is not None and time.monotonic() >= self._look_at:
            self._look()
        version = self.db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._load()
            self._version = version

    def _load(self) -> None:
        with self.generation() as db:
            self.sources = {
                source_id: Source(source_id, name, role, position, tuple(orjson.loads(prefixes)), bool(whole), error)
                for source_id, name, role, position, prefixes, whole, error in db.execute(
                    "SELECT id, name, role, position, prefixes, listed AND NOT EXISTS"
                    " (SELECT 1 FROM scope c WHERE c.source_id = s.id AND c.read_at IS NULL), error FROM source s"
                )
            }
            read = {
                source_id: (oldest, stale_after)
                for source_id, oldest, stale_after in db.execute(
                    "SELECT s.id, min(c.read_at), s.stale_after FROM source s JOIN scope c ON c.source_id = s.id"
                    " WHERE s.role = 'directory' AND c.read_at IS NOT NULL GROUP BY s.id"
                )
            }
            turns: dict[str, float | None] = {"[]": None}
            self._ages = {}
            for freshness_id, directories, schedules, read_at, stale_after in db.execute(
                "SELECT f.id, f.directories, f.schedules, coalesce(c.read_at, 0), s.stale_after FROM freshness f"
                " JOIN scope c ON c.id = f.scope_id JOIN source s ON s.id = c.source_id"
            ):
                if schedules not in turns:
                    turns[schedules] = _next_turn(db, schedules)
                ages = [read[d] for d in orjson.loads(directories) if d in read]
                self._ages[freshness_id] = _age(read_at, stale_after, ages, turns[schedules])

    def members(self, directory: str, pid: str, now: float) -> list[dict[str, Any]]:
        """The active users of a principal, nested groups flattened, by name; a user is his own only member.

        Of a schedule that has shifts: who is on call at `now`, whatever has been published.
        """
        return [
            {"id": external_id, "email": email, "name": name}
            for external_id, email, name in self.db.execute(
                "WITH RECURSIVE d (id) AS (SELECT id FROM source WHERE name = ?), down (pid) AS (SELECT ? UNION"
                " SELECT b.member_pid FROM down JOIN member b ON b.directory_id = (SELECT id FROM d)"
                " AND b.group_pid = down.pid AND NOT b.on_call UNION"
                " SELECT h.member_pid FROM down JOIN shift h ON h.directory_id = (SELECT id FROM d)"
                " AND h.schedule_pid = down.pid AND h.start <= ? AND h.until > ?)"
                " SELECT p.external_id, p.email, p.name FROM down JOIN principal p"
                " ON p.directory_id = (SELECT id FROM d) AND p.pid = down.pid"
                " WHERE p.kind = 'user' AND p.active ORDER BY p.name, p.external_id",
                (directory, pid, now, now),
            )
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
    ) -> list[tuple[str, Row]]:
        """Owner rows by key, with their keys, from after a position on."""
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
        found = self.db.execute(
            "SELECT a.key, a.source_id, a.freshness_id, a.outcome_id, a.waiting, a.body"
            f" FROM {tables} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?",
            (*bound, limit),
        )
        return [(key, Row(*row)) for key, *row in found]

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
        """What metrics count: open findings by integration and kind; rows by integration, fallback and reason."""
        with self.generation() as db:
            return {
                "drift": db.execute(
                    "SELECT integration, kind, count(*) FROM finding WHERE resolved_at IS NULL GROUP BY 1, 2"
                ).fetchall(),
                "rows": db.execute(
                    "SELECT s.name, o.fallback, coalesce(o.reason, ''), sum(n.n) FROM (SELECT outcome_id, source_id,"
                    " count(*) AS n FROM answer INDEXED BY answer_outcome GROUP BY 1, 2) n"
                    " JOIN outcome o ON o.id = n.outcome_id JOIN source s ON s.id = n.source_id GROUP BY 1, 2, 3"
                ).fetchall(),
            }


def _age(
    read_at: float, stale_after: float, directories: Sequence[tuple[float, float]], valid_until: float | None
) -> Age:
    stale_from = min([read_at + stale_after, *(at + after for at, after in directories)])
    if valid_until is not None:
        stale_from = min(stale_from, valid_until)
    return Age(read_at, min((at for at, _ in directories), default=None), stale_from, valid_until)


def _next_turn(db: sqlite3.Connection, schedules: str) -> float | None:
    """The first beginning or end of a shift of `schedules` after what has been published; None if there is none."""
    found: float | None = db.execute(
        "SELECT min(at) FROM (SELECT min(h.start) AS at FROM json_each(?1) j JOIN source d ON d.id = j.value ->> 0"
        " JOIN shift h ON h.directory_id = d.id AND h.schedule_pid = j.value ->> 1 AND h.start > d.turned_at UNION ALL"
        " SELECT min(h.until) FROM json_each(?1) j JOIN source d ON d.id = j.value ->> 0"
        " JOIN shift h ON h.directory_id = d.id AND h.schedule_pid = j.value ->> 1 AND h.until > d.turned_at)",
        (schedules,),
    ).fetchone()[0]
    return found
