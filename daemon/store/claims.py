"""Which tag speaks for which resource, and what each says. In the caller's transaction.

Many resources share a claim, so the rule is asked once a claim. What a claim depends on (`term`) is kept, so that a
change in a directory is followed to the claims it bears on, and from those to the rows, and no further.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from connectors.values import Kind
from daemon.matching import canonical
from daemon.rule import (
    GROUP_RENAMED,
    OWNERLESS,
    Claim,
    Finding,
    Owner,
    Reason,
    Rule,
    Verdict,
    claim_of,
    judge,
    judge_fallback,
    parts_of,
)
from daemon.rules import Rules
from daemon.store.directory import SqlDirectories
from daemon.store.outcomes import Outcomes

NO_TAG = -1
INTEGRATION_OWNER = -2
_CHUNK = 5000
_CACHED = 50_000
_LONGEST_CHAIN = 64
_JUDGED = "c.id, c.rule, c.ambiguous, c.key, c.value, c.outcome_id, c.inherited_outcome_id, c.directories, c.schedules"
"""A claim, and from the sixth on what it said when it was judged last: NULL if it never was."""


class _Row(NamedTuple):
    """A resource that is to be looked at. `claim_id` is in force; another may be pending."""

    id: int
    key: str
    tags: str
    parent_key: str | None
    claim_id: int | None
    tagged_key: str | None
    pending_id: int | None
    pending_key: str | None


class Claims:
    """The claims of one integration, while one transaction lasts."""

    def __init__(
        self, db: sqlite3.Connection, source: int, directories: SqlDirectories, outcomes: Outcomes, *, now: float
    ) -> None:
        self._db = db
        self._source = source
        self._now = now
        self._directories = directories
        self._outcomes = outcomes
        rules, self._hold = db.execute("SELECT rules, hold FROM source WHERE id = ?", (source,)).fetchone()
        self._rules = Rules.from_json(rules)
        self._pending = 0
        self._coming = False
        """Resources of the spool are being inserted: what is not there yet is about to be."""
        self._intern = lru_cache(_CACHED)(self._find_or_make)
        self._ancestor = lru_cache(_CACHED)(self._read_ancestor)

    # --- which tag speaks -------------------------------------------------------------------------------------------

    def assign(self) -> int:
        """Find the claim of every resource in `temp.dirty`, and of those below it that inherit; mark them to render.

        All of `temp.dirty` is this integration's. The number of resources whose claim waits from now on.
        """
        self._fallback_claim()
        self._admit()
        low = -1
        while True:
            rows = self._db.execute(
                "SELECT r.id, r.key, r.tags, r.parent_key, r.claim_id, r.tagged_key, r.pending_claim_id, r.pending_key"
                " FROM temp.dirty d"
                " CROSS JOIN resource r ON r.id = d.resource_id AND r.source_id = ?"
                " WHERE d.resource_id > ? ORDER BY d.resource_id LIMIT ?",
                (self._source, low, _CHUNK),
            ).fetchall()
            if not rows:
                # Each round follows the heirs of the round before, until no row's tag has changed.
                if not self._next_round():
                    self._intern.cache_clear()
                    self._ancestor.cache_clear()
                    return self._pending
                low = -1
                continue
            low = rows[-1][0]
            self._assign_rows(map(_Row._make, rows))

    def _admit(self) -> None:
        """Insert the resources that are new, with their claims: a row that is written twice costs twice."""
        if not self._db.execute("SELECT EXISTS (SELECT 1 FROM temp.differing WHERE resource_id IS NULL)").fetchone()[0]:
            return
        self._coming = True
        number = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM resource").fetchone()[0]
        fresh = self._db.execute(
            "SELECT s.key, s.rid, s.type, s.name, s.parent, s.parent_key, s.tags, s.hash, d.scope_id"
            " FROM temp.differing d CROSS JOIN spool.resource s ON s.rowid = d.no WHERE d.resource_id IS NULL"
            " ORDER BY d.seq"
        )
        while rows := fresh.fetchmany(_CHUNK):
            claims = [self._claim_for(row[0], row[6], row[5]) for row in rows]
            self._db.executemany(
                "INSERT INTO resource (id, source_id, key, rid, type, name, parent, parent_key, tags, hash, scope_id,"
                f" claim_id, tagged_key) VALUES (?, {self._source:d}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(i, *row, *claim) for i, (row, claim) in enumerate(zip(rows, claims, strict=True), number)],
            )
            self._db.executemany(
                "INSERT INTO temp.render VALUES (?)", [(i,) for i in range(number, number + len(rows))]
            )
            self._db.executemany("INSERT OR IGNORE INTO temp.touched_claim VALUES (?)", {(c,) for c, _ in claims})
            number += len(rows)
        self._coming = False

    def _claim_for(self, key: str, tags: str, parent_key: str | None) -> tuple[int, str | None]:
        """The claim that speaks for a resource, and the key of the resource that has the tag."""
        own = claim_of(orjson.loads(tags), self._rules.resource_owner)
        if own is not None:
            return self._intern(own), key
        own, tagged = self._inherited(parent_key) if self._rules.inherit else (None, None)
        return self._intern(own), tagged

    def _assign_rows(self, rows: Iterable[_Row]) -> None:
        in_force, waiting, concerned = [], [], []
        for row in rows:
            claim, tagged = self._claim_for(row.key, row.tags, row.parent_key)
            # Whoever can write a tag could name himself: what a tag said stays in force for a while. A resource that
            # is new, or whose rules are, has nothing that could.
            if self._hold and row.claim_id is not None and claim != row.claim_id:
                if (claim, tagged) == (row.pending_id, row.pending_key):
                    continue
                waiting.append((claim, tagged, self._now, self._now + self._hold, row.id))
                self._pending += 1
            elif (claim, tagged) == (row.claim_id, row.tagged_key) and row.pending_id is None:
                continue
            else:
                in_force.append((claim, tagged, row.id))
            concerned.append((row.id, (claim, row.claim_id, row.pending_id)))
        self._db.executemany(
            "UPDATE resource SET claim_id = ?, tagged_key = ?, pending_claim_id = NULL, pending_key = NULL,"
            " pending_since = NULL, pending_until = NULL WHERE id = ?",
            in_force,
        )
        self._db.executemany(
            "UPDATE resource SET pending_claim_id = ?, pending_key = ?, pending_since = ?, pending_until = ?"
            " WHERE id = ?",
            waiting,
        )
        self._db.executemany("INSERT OR IGNORE INTO temp.moved VALUES (?)", [(i,) for i, _ in concerned])
        self._db.executemany(
            "INSERT OR IGNORE INTO temp.touched_claim VALUES (?)",
            {(c,) for _, claims in concerned for c in claims if c is not None},
        )

    def _next_round(self) -> bool:
        self._db.execute("INSERT OR IGNORE INTO temp.render SELECT resource_id FROM temp.dirty")
        self._db.execute("DELETE FROM temp.dirty")
        if self._rules.inherit:
            self._db.execute(
                "INSERT OR IGNORE INTO temp.dirty SELECT c.id FROM temp.moved m"
                " CROSS JOIN resource r ON r.id = m.resource_id"
                " CROSS JOIN resource c ON c.source_id = r.source_id AND c.parent_key = r.key"
                " WHERE c.id NOT IN (SELECT resource_id FROM temp.render)"
            )
        self._db.execute("DELETE FROM temp.moved")
        return bool(self._db.execute("SELECT EXISTS (SELECT 1 FROM temp.dirty)").fetchone()[0])

    def _inherited(self, parent_key: str | None) -> tuple[Claim | None, str | None]:
        seen: set[str] = set()
        while parent_key is not None and parent_key not in seen and len(seen) < _LONGEST_CHAIN:
            seen.add(parent_key)
            claim, above = self._ancestor(parent_key)
            if claim is not None:
                return claim, parent_key
            parent_key = above
        return None, None

    def _read_ancestor(self, key: str) -> tuple[Claim | None, str | None]:
        row = self._db.execute(
            "SELECT tags, parent_key FROM resource WHERE source_id = ? AND key = ?", (self._source, key)
        ).fetchone()
        if row is None and self._coming:
            row = self._db.execute(
                "SELECT s.tags, s.parent_key FROM spool.resource s CROSS JOIN temp.scope_map m ON m.no = s.scope_no"
                " AND m.readable WHERE s.key = ?",
                (key,),
            ).fetchone()
        if row is None:
            return None, None
        return claim_of(orjson.loads(row[0]), self._rules.resource_owner), row[1]

    def _find_or_make(self, claim: Claim | None) -> int:
        if claim is None:
            return self._claim_id(NO_TAG, "", "", ambiguous=False)
        return self._claim_id(claim.rule, claim.key, claim.value, ambiguous=claim.ambiguous)

    def _claim_id(self, rule: int, key: str, value: str, *, ambiguous: bool) -> int:
        what = (self._source, rule, int(ambiguous), key, value)
        found = self._db.execute(
            "SELECT id FROM claim WHERE source_id = ? AND rule = ? AND ambiguous = ? AND key = ? AND value = ?", what
        ).fetchone()
        if found:
            return int(found[0])
        made: int = self._db.execute(
            "INSERT INTO claim (source_id, rule, ambiguous, key, value) VALUES (?, ?, ?, ?, ?) RETURNING id", what
        ).fetchone()[0]
        self._db.execute("INSERT OR IGNORE INTO temp.dirty_claim VALUES (?)", (made,))
        self._add_terms(made, rule, value, ambiguous=ambiguous)
        return made

    def _fallback_claim(self) -> int:
        return self._claim_id(INTEGRATION_OWNER, "integration_owner", "", ambiguous=False)

    # --- what a claim depends on ------------------------------------------------------------------------------------

    def _add_terms(self, claim_id: int, rule: int, value: str, *, ambiguous: bool) -> None:
        if rule == INTEGRATION_OWNER:
            terms = [(r, v) for r, values in self._rules.integration_owner for v in values]
        elif rule == NO_TAG or ambiguous:
            terms = []
        else:
            of = self._rules.resource_owner[rule]
            terms = [(of, v) for v in dict.fromkeys((value.strip(), *parts_of(value.strip(), of.split))) if v]
        self._db.executemany("INSERT OR IGNORE INTO term VALUES (?, ?, ?, ?, ?)", self._term_rows(claim_id, terms))

    def _term_rows(self, claim_id: int, terms: Iterable[tuple[Rule, str]]) -> Iterator[tuple[int, Kind, str, str, int]]:
        for rule, value in terms:
            yield self._directories.ids[rule.directory], rule.kind, rule.field, canonical(value), claim_id

    # --- what it says -----------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Judge every claim in `temp.dirty_claim` that is this integration's; mark the rows it changes to render."""
        fallback_id = self._fallback_claim()
        dirty = self._db.execute(
            f"SELECT {_JUDGED} FROM temp.dirty_claim d CROSS JOIN claim c ON c.id = d.claim_id"
            " WHERE c.source_id = ? AND c.id != ?",
            (self._source, fallback_id),
        )
        fallback_is_new = self._judge_fallback(fallback_id)
        fallback = self._read_fallback(fallback_id)
        while rows := dirty.fetchmany(_CHUNK):
            for claim_id, rule, ambiguous, key, value, *old in rows:
                claim = None if rule == NO_TAG else Claim(rule, key, value, bool(ambiguous))
                verdict = self._verdict(claim)
                found = [(f.reason, key, f.value) for f in verdict.findings]
                self._record_findings(claim_id, found, first=old[0] is None)
                self._conclude(claim_id, claim, verdict, fallback, tuple(old))
        if fallback_is_new:
            self._reconclude(fallback_id, fallback)

    def _verdict(self, claim: Claim | None) -> Verdict:
        if claim is None:
            return Verdict(reason=Reason.TAG_MISSING)
        return judge(claim, self._rules.resource_owner[claim.rule], self._directories)

    def _record_findings(self, claim_id: int, findings: Sequence[tuple[str, str, str]], *, first: bool = False) -> None:
        if not first:
            self._db.execute(
                "INSERT OR IGNORE INTO temp.touched_finding"
                " SELECT source_id, kind, key, value FROM claim_finding WHERE claim_id = ?",
                (claim_id,),
            )
            self._db.execute("DELETE FROM claim_finding WHERE claim_id = ?", (claim_id,))
        if not findings:
            return
        rows = [(self._source, str(kind), key, value) for kind, key, value in findings]
        self._db.executemany("INSERT OR IGNORE INTO temp.touched_finding VALUES (?, ?, ?, ?)", rows)
        self._db.executemany(
            "INSERT OR IGNORE INTO claim_finding VALUES (?, ?, ?, ?, ?)", [(*row, claim_id) for row in rows]
        )

    def _judge_fallback(self, claim_id: int) -> bool:
        """Whether the integration owner has changed."""
        if not self._db.execute("SELECT 1 FROM temp.dirty_claim WHERE claim_id = ?", (claim_id,)).fetchone():
            return False
        verdict = judge_fallback(self._rules.integration_owner, self._directories)
        before = self._db.execute("SELECT owners, reason, outcome_id FROM claim WHERE id = ?", (claim_id,)).fetchone()
        owners = orjson.dumps([tuple(o) for o in verdict.owners]).decode()
        self._db.execute(
            "UPDATE claim SET owners = ?, reason = ?, outcome_id = 0 WHERE id = ?", (owners, verdict.reason, claim_id)
        )
        findings: list[Finding] = list(verdict.findings)
        told = [(f.reason if f.reason == GROUP_RENAMED else OWNERLESS, "integration_owner", f.value) for f in findings]
        self._record_findings(claim_id, told)
        return bool(before != (owners, verdict.reason, 0))

    def _read_fallback(self, claim_id: int) -> Verdict:
        owners, reason = self._db.execute("SELECT owners, reason FROM claim WHERE id = ?", (claim_id,)).fetchone()
        return Verdict(
            tuple(Owner(Kind(k), d, i, n) for k, d, i, n in orjson.loads(owners)), Reason(reason) if reason else None
        )

    def _conclude(
        self,
        claim_id: int,
        claim: Claim | None,
        verdict: Verdict,
        fallback: Verdict,
        old: tuple[Any, ...],
    ) -> None:
        """Put verdict and fallback together: the outcome of the rows that have the tag, and of their heirs.

        `old`: what the claim said before, as in `_JUDGED`.
        """
        concerned = set() if claim is None else {self._rules.resource_owner[claim.rule].directory}
        schedules = self._schedules_of(claim)
        if verdict.reason is not None and verdict.reason is not Reason.DIRECTORY_NEVER_SYNCED:
            concerned |= {rule.directory for rule, _ in self._rules.integration_owner}
            schedules |= self._schedules_of_fallback()
        new = (
            self._outcomes.intern(verdict, fallback, inherited=False),
            self._outcomes.intern(verdict, fallback, inherited=True),
            orjson.dumps(sorted(self._directories.ids[name] for name in concerned)).decode(),
            orjson.dumps(sorted(schedules)).decode(),
        )
        owners = orjson.dumps([tuple(o) for o in verdict.owners]).decode()
        self._db.execute(
            "UPDATE claim SET outcome_id = ?, inherited_outcome_id = ?, directories = ?, schedules = ?, owners = ?,"
            " reason = ? WHERE id = ?",
            (*new, owners, verdict.reason, claim_id),
        )
        # Whatever has a claim that was made just now is to be rendered already.
        if old[0] is not None and new != old:
            self._db.execute(
                "INSERT OR IGNORE INTO temp.render SELECT id FROM resource WHERE claim_id = ?", (claim_id,)
            )

    def _schedules_of(self, claim: Claim | None) -> set[tuple[int, str]]:
        """The schedules that a claim names, on call or not: when they hand over, the answer may be another."""
        if claim is None or claim.ambiguous:
            return set()
        rule = self._rules.resource_owner[claim.rule]
        value = claim.value.strip()
        return self._named_schedules(rule, (value, *parts_of(value, rule.split)))

    def _schedules_of_fallback(self) -> set[tuple[int, str]]:
        return {s for rule, values in self._rules.integration_owner for s in self._named_schedules(rule, values)}

    def _named_schedules(self, rule: Rule, values: Iterable[str]) -> set[tuple[int, str]]:
        if rule.kind is not Kind.SCHEDULE:
            return set()
        found = (c for v in values for c in self._directories.candidates(rule.directory, rule.kind, rule.field, v))
        return {(self._directories.ids[rule.directory], f"{c.kind}:{c.id}") for c in found}

    def _reconclude(self, fallback_id: int, fallback: Verdict) -> None:
        """Every claim that falls back has new owners."""
        cursor = self._db.execute(
            f"SELECT c.reason, {_JUDGED} FROM claim c WHERE c.source_id = ? AND c.id != ? AND c.reason IS NOT NULL",
            (self._source, fallback_id),
        )
        while rows := cursor.fetchmany(_CHUNK):
            for reason, claim_id, rule, ambiguous, key, value, *old in rows:
                claim = None if rule == NO_TAG else Claim(rule, key, value, bool(ambiguous))
                self._conclude(claim_id, claim, Verdict(reason=Reason(reason)), fallback, tuple(old))


def forget(db: sqlite3.Connection, source: int) -> None:
    """Drop every claim of an integration: its rules have changed, or it is gone. Its rows are the caller's to redo."""
    db.execute(
        "INSERT OR IGNORE INTO temp.touched_finding SELECT source_id, kind, key, value FROM claim_finding"
        " WHERE source_id = ?",
        (source,),
    )
    db.execute("DELETE FROM claim_finding WHERE source_id = ?", (source,))
    db.execute("DELETE FROM term WHERE claim_id IN (SELECT id FROM claim WHERE source_id = ?)", (source,))
    db.execute("DELETE FROM claim WHERE source_id = ?", (source,))
    db.execute(
        "UPDATE resource SET claim_id = NULL, tagged_key = NULL, pending_claim_id = NULL, pending_key = NULL,"
        " pending_since = NULL, pending_until = NULL WHERE source_id = ?",
        (source,),
    )
    db.execute("INSERT OR IGNORE INTO temp.dirty SELECT id FROM resource WHERE source_id = ?", (source,))


def sweep(db: sqlite3.Connection) -> None:
    """Mark the findings of the claims that resources joined or left, and drop those that the last has left."""
    db.execute(
        "INSERT OR IGNORE INTO temp.touched_finding SELECT f.source_id, f.kind, f.key, f.value"
        " FROM temp.touched_claim l JOIN claim_finding f ON f.claim_id = l.claim_id"
    )
    db.execute(
        "DELETE FROM temp.touched_claim WHERE EXISTS"
        " (SELECT 1 FROM resource r WHERE r.claim_id = touched_claim.claim_id) OR EXISTS"
        " (SELECT 1 FROM resource r WHERE r.pending_claim_id = touched_claim.claim_id)"
    )
    for table, column in (("claim_finding", "claim_id"), ("term", "claim_id"), ("claim", "id")):
        db.execute(f"DELETE FROM {table} WHERE {column} IN (SELECT claim_id FROM temp.touched_claim)")
