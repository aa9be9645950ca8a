"""Whether a snapshot is plausible. Pure: counts in, what is wrong out.

An API that errs often errs by returning less. What would empty a scope, or take away or re-own more than a set
share at once, is held for a person to look at; the old rows stay, and age.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

COUNTED_FROM = 10
"""Rows from which shares are counted: of fewer, a share says nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The `[guard]` table: shares from 0 to 1."""

    max_removed: float
    max_owner_changes: float


@dataclass(frozen=True, slots=True)
class ScopeChange:
    """What merging a snapshot would do to one scope: rows before, and rows that would go.

    `members` and `members_removed` are a directory's memberships; zero for integrations. `gaps` are codes of what the
    scope cannot show now, and could when it was read last.
    """

    scope: str
    rows: int
    removed: int
    members: int = 0
    members_removed: int = 0
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnerChange:
    """What a publish would do to one integration: rows that have an owner before and after, and those re-owned."""

    integration: str
    rows: int
    changed: int


@dataclass(frozen=True, slots=True)
class Implausible:
    """A change that is held. `subject` is a scope's or an integration's name."""

    subject: str
    why: str


class Emptied(Implausible):
    """All rows of a scope would go."""


class OutOfSight(Implausible):
    """Rows would go from a scope that can no longer show everything: they may be there still."""


class TooMuchRemoved(Implausible):
    """More than `max_removed` of a scope's rows, or of its memberships, would go."""


class TooManyOwnerChanges(Implausible):
    """More than `max_owner_changes` of an integration's rows would get other owners."""


def judge_scopes(changes: Iterable[ScopeChange], limits: Limits) -> Iterator[Implausible]:
    """Each scope that is implausible, once."""
    for change in changes:
        if change.rows and change.removed >= change.rows:
            yield Emptied(change.scope, f"all {change.rows} rows would go")
        elif change.members >= COUNTED_FROM and change.members_removed >= change.members:
            yield Emptied(change.scope, f"all {change.members} memberships would go")
        elif change.removed and change.gaps:
            why = f"{change.removed} of {change.rows} rows would go, and the scope can no longer show all there is"
            yield OutOfSight(change.scope, f"{why}: {', '.join(change.gaps)}")
        elif change.rows >= COUNTED_FROM and change.removed / change.rows > limits.max_removed:
            share = _share(change.removed, change.rows, limits.max_removed)
            yield TooMuchRemoved(change.scope, f"{change.removed} of {change.rows} rows would go ({share})")
        elif change.members >= COUNTED_FROM and change.members_removed / change.members > limits.max_removed:
            share = _share(change.members_removed, change.members, limits.max_removed)
            why = f"{change.members_removed} of {change.members} memberships would go ({share})"
            yield TooMuchRemoved(change.scope, why)


def judge_owners(changes: Iterable[OwnerChange], limits: Limits) -> Iterator[Implausible]:
    """Each integration whose owners change implausibly, once."""
    for change in changes:
        if change.rows >= COUNTED_FROM and change.changed / change.rows > limits.max_owner_changes:
            share = _share(change.changed, change.rows, limits.max_owner_changes)
            why = f"{change.changed} of {change.rows} rows would get other owners ({share})"
            yield TooManyOwnerChanges(change.integration, why)


def _share(part: int, whole: int, limit: float) -> str:
    return f"{part / whole:.0%}; the limit is {limit:.0%}"
