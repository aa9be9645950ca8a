"""What a lookup asks of the database: its statements, and the ages that an answer rests on.

Standard library only, since the direct reader of `daemon.client` uses it in the caller's process.

Ages belong to the sources, not to the rows, so they are few: `Ages` keeps those of one generation.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

from daemon.problems import Source

ROWS = "SELECT key, source_id, freshness_id, outcome_id, waiting, body FROM answer WHERE key = ?"
"""The owner rows of a resource, one an integration that has it; mostly one or none."""
MANY = "SELECT key, source_id, freshness_id, outcome_id, waiting, body FROM answer WHERE key IN ({})"
AGREE = "SELECT count(DISTINCT owners) = 1 FROM outcome WHERE id IN (SELECT value FROM json_each(?))"
"""Whether several outcomes have the same owners; bound: a JSON list of their ids."""
MEMBERS = (
    "WITH RECURSIVE d (id) AS (SELECT id FROM source WHERE name = ?1), down (pid) AS (SELECT ?2 UNION"
    " SELECT b.member_pid FROM down JOIN member b ON b.directory_id = (SELECT id FROM d)"
    " AND b.group_pid = down.pid AND NOT b.on_call UNION"
    " SELECT h.member_pid FROM down JOIN shift h ON h.directory_id = (SELECT id FROM d)"
    " AND h.schedule_pid = down.pid AND h.start <= ?3 AND h.until > ?3)"
    " SELECT p.external_id, p.email, p.name FROM down JOIN principal p"
    " ON p.directory_id = (SELECT id FROM d) AND p.pid = down.pid"
    " WHERE p.kind = 'user' AND p.active ORDER BY p.name, p.external_id"
)
"""The active users of a principal, nested groups flattened, by name; bound: directory, `KIND:ID`, now.

Of a schedule that has shifts: who is on call now, whatever has been published.
"""
MIGRATIONS = "SELECT name FROM _sqlite_migrations WHERE migration_set = 'ownerd'"
COMPLETE = (
    "SELECT EXISTS (SELECT 1 FROM source) AND NOT EXISTS (SELECT 1 FROM source s WHERE NOT s.listed"
    " OR EXISTS (SELECT 1 FROM scope c WHERE c.source_id = s.id AND c.read_at IS NULL))"
)
"""Whether every source has been read whole."""
_SOURCES = (
    "SELECT id, name, role, position, prefixes, listed AND NOT EXISTS"
    " (SELECT 1 FROM scope c WHERE c.source_id = s.id AND c.read_at IS NULL), error FROM source s"
)
_READ = (
    "SELECT s.id, min(c.read_at), s.stale_after FROM source s JOIN scope c ON c.source_id = s.id"
    " WHERE s.role = 'directory' AND c.read_at IS NOT NULL GROUP BY s.id"
)
_FRESHNESS = (
    "SELECT f.directories, f.schedules, coalesce(c.read_at, 0), s.stale_after FROM freshness f"
    " JOIN scope c ON c.id = f.scope_id JOIN source s ON s.id = c.source_id WHERE f.id = ?"
)
_NEXT_TURN = (
    "SELECT min(at) FROM (SELECT min(h.start) AS at FROM json_each(?1) j JOIN source d ON d.id = j.value ->> 0"
    " JOIN shift h ON h.directory_id = d.id AND h.schedule_pid = j.value ->> 1 AND h.start > d.turned_at UNION ALL"
    " SELECT min(h.until) FROM json_each(?1) j JOIN source d ON d.id = j.value ->> 0"
    " JOIN shift h ON h.directory_id = d.id AND h.schedule_pid = j.value ->> 1 AND h.until > d.turned_at)"
)
"""The first beginning or end of a shift of these schedules after what has been published; null if there is none."""


class Row(NamedTuple):
    """An owner row. `head` is an answer's bytes, up to `changed_at` (`daemon.answers`)."""

    key: str
    source_id: int
    freshness_id: int
    outcome_id: int
    waiting: int
    head: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Age:
    """When what an answer rests on was read, in seconds since the epoch, and until when it is not stale.

    There are few, and many look them up: each is equal to itself only.

    `valid_until`: the next hand-over of a schedule that the answer goes through; past it, the answer is stale.
    """

    resource_seen_at: float
    owners_seen_at: float | None
    stale_from: float
    valid_until: float | None

    @property
    def oldest(self) -> float:
        """The time of the oldest reading that the answer rests on."""
        seen = self.resource_seen_at
        return seen if self.owners_seen_at is None else min(seen, self.owners_seen_at)


class Ages:
    """The sources of one generation, and the ages of its rows, read when a row needs them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.sources = {
            source_id: Source(source_id, name, role, position, tuple(json.loads(prefixes)), bool(whole), error)
            for source_id, name, role, position, prefixes, whole, error in db.execute(_SOURCES)
        }
        self._read = {source_id: (at, stale_after) for source_id, at, stale_after in db.execute(_READ)}
        """Of each directory that was read: when, and for how long that counts."""
        self._turns: dict[str, float | None] = {"[]": None}

    def read(self, db: sqlite3.Connection, freshness_id: int) -> Age:
        """The ages of a row. The connection must be in the generation that this was made in."""
        directories, schedules, read_at, stale_after = db.execute(_FRESHNESS, (freshness_id,)).fetchone()
        if schedules not in self._turns:
            self._turns[schedules] = db.execute(_NEXT_TURN, (schedules,)).fetchone()[0]
        until = self._turns[schedules]
        known = [self._read[d] for d in json.loads(directories) if d in self._read]
        stale_from = min([read_at + stale_after, *(at + after for at, after in known)])
        if until is not None:
            stale_from = min(stale_from, until)
        return Age(read_at, min((at for at, _ in known), default=None), stale_from, until)
