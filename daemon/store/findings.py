"""Drift: findings that open and resolve. In the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from daemon.matching import canonical
from daemon.rule import GROUP_RENAMED, OWNERLESS, Rule
from daemon.rules import Rules
from daemon.store.claims import INTEGRATION_OWNER
from daemon.store.directory import names

EXAMPLES = 3
KEPT = 400 * 86400.0
"""Seconds for which a resolved finding is kept."""
COMPARED, COMPARED_LATER = 5_000_000, 1_000_000
"""Names that a publish compares with unknown values, to suggest the nearest: with those that it opens, and with those
that earlier ones left. A million takes half a second, and a wrong rule makes every value unknown."""
_GUESSED = ("value_unknown", OWNERLESS)


@dataclass(frozen=True, slots=True)
class Transition:
    """A finding that opened or was resolved."""

    opened: bool
    integration: str
    kind: str
    key: str
    value: str
    resources: int
    suggestions: tuple[str, ...] = ()


Suggest = Callable[[str, Mapping[str, str]], tuple[str, ...]]
"""Given an unknown value and every known one with its canonical form: the nearest."""


def refresh(db: sqlite3.Connection, *, now: float, suggest: Suggest) -> list[Transition]:
    """Bring every finding in `temp.touched_finding` up to date."""
    # The number of rows that fall back bears on what an unknown integration owner concerns.
    db.execute(
        "INSERT OR IGNORE INTO temp.touched_finding SELECT DISTINCT f.source_id, f.kind, f.key, f.value"
        " FROM claim_finding f WHERE f.kind = ?",
        (OWNERLESS,),
    )
    db.execute("DELETE FROM finding WHERE resolved_at < ?", (now - KEPT,))
    transitions = []
    known: dict[tuple[int, str], dict[str, str]] = {}
    left = COMPARED
    touched = db.execute(
        "SELECT f.source_id, coalesce(s.name, ''), f.kind, f.key, f.value FROM temp.touched_finding f"
        " LEFT JOIN source s ON s.id = f.source_id ORDER BY 1, 3, 4, 5"
    ).fetchall()
    for source, integration, kind, key, value in touched:
        what = (integration, kind, key, value)
        told = _concerned(db, (source, kind, key, value))
        opened = db.execute(
            "SELECT id, resources, examples, suggestions FROM finding"
            " WHERE integration = ? AND kind = ? AND key = ? AND value = ? AND resolved_at IS NULL",
            what,
        ).fetchone()
        if told is None:
            if opened:
                db.execute("UPDATE finding SET resolved_at = ?, last_seen = ? WHERE id = ?", (now, now, opened[0]))
                transitions.append(Transition(False, *what, resources=opened[1]))
            continue
        count, examples = told
        near: tuple[str, ...] = ()
        if kind == GROUP_RENAMED:
            near = _called_now(db, source, kind, key, value)
        if opened:
            found = (count, examples, orjson.dumps(near).decode() if near else opened[3])
            if found != opened[1:]:
                db.execute(
                    "UPDATE finding SET resources = ?, examples = ?, suggestions = ? WHERE id = ?", (*found, opened[0])
                )
            continue
        looked = True
        if kind in _GUESSED and (looked := left > 0):
            names_known = _known(db, source, kind, key, value, known)
            near = suggest(value, names_known)
            left -= len(names_known)
        db.execute(
            "INSERT INTO finding (integration, kind, key, value, resources, examples, suggestions, first_seen,"
            " last_seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*what, count, examples, orjson.dumps(near).decode() if looked else None, now, now),
        )
        transitions.append(Transition(True, *what, resources=count, suggestions=near))
    _suggest_later(db, known, suggest, min(left, COMPARED_LATER))
    return transitions


def _suggest_later(
    db: sqlite3.Connection, known: dict[tuple[int, str], dict[str, str]], suggest: Suggest, left: int
) -> None:
    """Look for what some of the values could mean for which there was no time when they were found."""
    if left <= 0:
        return
    waiting = db.execute(
        "SELECT f.id, s.id, f.kind, f.key, f.value FROM finding f INDEXED BY finding_unsuggested"
        " CROSS JOIN source s ON s.name = f.integration WHERE f.suggestions IS NULL AND f.resolved_at IS NULL"
        " ORDER BY f.id"
    )
    found = []
    for number, source, kind, key, value in waiting:
        near: tuple[str, ...] = ()
        if kind in _GUESSED:
            names_known = _known(db, source, kind, key, value, known)
            near = suggest(value, names_known)
            left -= max(len(names_known), 1)
        found.append((orjson.dumps(near).decode(), number))
        if left <= 0:
            break
    db.executemany("UPDATE finding SET suggestions = ? WHERE id = ?", found)


def resolve_all(db: sqlite3.Connection, integration: str, *, now: float) -> None:
    """Resolve every finding of an integration that is no longer configured."""
    db.execute(
        "UPDATE finding SET resolved_at = ?, last_seen = ? WHERE resolved_at IS NULL AND integration = ?",
        (now, now, integration),
    )


def _concerned(db: sqlite3.Connection, what: tuple[Any, ...]) -> tuple[int, str] | None:
    """How many resources a finding concerns, and a few; None if there is no such finding any more."""
    where = "f.source_id = ? AND f.kind = ? AND f.key = ? AND f.value = ?"
    told = db.execute(
        f"SELECT c.rule FROM claim_finding f JOIN claim c ON c.id = f.claim_id WHERE {where} LIMIT 1", what
    ).fetchone()
    if told is None:
        return None
    if of_integration := told[0] == INTEGRATION_OWNER:
        rows = (
            "FROM claim c JOIN outcome o ON o.id = c.outcome_id AND o.fallback JOIN resource r ON r.claim_id = c.id"
            " WHERE c.source_id = ?"
        )
        bound = what[:1]
    else:
        rows = f"FROM claim_finding f JOIN resource r ON r.claim_id = f.claim_id WHERE {where}"
        bound = what
    count: int = db.execute(f"SELECT count(*) {rows}", bound).fetchone()[0]
    if count == 0 and not of_integration:
        return None
    examples = db.execute(f"SELECT r.rid {rows} ORDER BY r.id LIMIT {EXAMPLES}", bound).fetchall()
    return count, orjson.dumps([rid for (rid,) in examples]).decode()


def _known(
    db: sqlite3.Connection, source: int, kind: str, key: str, value: str, cache: dict[tuple[int, str], dict[str, str]]
) -> Mapping[str, str]:
    """Every value that could have been meant, over the rules that the finding's claims are of."""
    ids = dict(db.execute("SELECT name, id FROM source WHERE role = 'directory'").fetchall())
    meant = _rules_of(db, source, kind, key, value)
    found: dict[str, str] = {}
    for rule in sorted(meant, key=lambda r: (r.directory, r.attribute)):
        where = (ids[rule.directory], f"{rule.kind}.{rule.field}")
        if where not in cache:
            cache[where] = dict(names(db, where[0], rule.kind, rule.field))
        if len(meant) == 1:
            return cache[where]
        found |= cache[where]
    return found


def _rules_of(db: sqlite3.Connection, source: int, kind: str, key: str, value: str) -> set[Rule]:
    """The rules that the claims of a finding are of."""
    rules = Rules.from_json(db.execute("SELECT rules FROM source WHERE id = ?", (source,)).fetchone()[0])
    numbers = {
        number
        for (number,) in db.execute(
            "SELECT DISTINCT c.rule FROM claim_finding f JOIN claim c ON c.id = f.claim_id"
            " WHERE f.source_id = ? AND f.kind = ? AND f.key = ? AND f.value = ?",
            (source, kind, key, value),
        )
    }
    found = {rules.resource_owner[number] for number in numbers if number >= 0}
    if INTEGRATION_OWNER in numbers:
        found |= {rule for rule, values in rules.integration_owner if value in values}
    return found


def _called_now(db: sqlite3.Connection, source: int, kind: str, key: str, value: str) -> tuple[str, ...]:
    """What whoever was called `value` is called now."""
    found: set[str] = set()
    for rule in _rules_of(db, source, kind, key, value):
        column = "email" if rule.field == "email" else "name"
        rows = db.execute(
            f"SELECT p.{column} FROM match m JOIN source d ON d.id = m.directory_id AND d.name = ? JOIN principal p"
            " ON p.directory_id = m.directory_id AND p.pid = m.pid WHERE m.kind = ? AND m.field = ? AND m.canonical = ?"
            " AND m.former",
            (rule.directory, str(rule.kind), rule.field, canonical(value)),
        )
        found |= {name for (name,) in rows if name}
    return tuple(sorted(found))
