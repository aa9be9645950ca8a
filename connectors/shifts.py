"""What connectors to on-call systems share: users and teams in one scope, schedules and their shifts in another."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from connectors.answers import one_line
from connectors.contract import Check, Connector
from connectors.errors import BadData, Forbidden
from connectors.values import SHIFT_HORIZON, Kind, Record, Ref, Shift

DIRECTORY, SCHEDULES = "directory", "schedules"
FOREVER = 4102444800.0
"""Seconds since the epoch: 2100. The end of a shift that has none; a moment that moved with each poll would be news."""


class OnCallSystem(Connector):
    """Reads an on-call system. Two scopes, so that a right that is missing for one does not stop the other.

    None of these systems tells what has changed; hand-overs need no poll, since the shifts to come are read.
    """

    clock: Callable[[], float] = staticmethod(time.time)
    """Seconds since the epoch: the moment from which shifts are read."""

    def scopes(self) -> Iterable[str]:
        """Users and teams; and schedules, if any own."""
        return [DIRECTORY, SCHEDULES] if Kind.SCHEDULE in self.kinds else [DIRECTORY]

    def holds(self, scope: str) -> Collection[Kind]:
        """Users and teams, or schedules."""
        return {Kind.SCHEDULE} if scope == SCHEDULES else {Kind.USER, Kind.GROUP}

    def read(self, scope: str) -> Iterator[Record]:
        """Yield all that `scope` holds."""
        yield from self._schedules() if scope == SCHEDULES else self._directory()

    @abstractmethod
    def _directory(self) -> Iterator[Record]:
        """Users; teams with their members, if they own."""

    @abstractmethod
    def _schedules(self) -> Iterator[Record]:
        """Schedules with their shifts."""

    @abstractmethod
    def _tries(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """For `check`: what is tried, and a call that makes one request for it."""

    def check(self) -> Iterator[Check]:
        """Ask for one page of each list that a run reads."""
        for what, attempt in self._tries():
            try:
                attempt()
            except Forbidden as error:
                yield Check(what, ok=False, detail=error.message, remedy=error.remedy)
            else:
                yield Check(what, ok=True)


def touches(start: float, end: float, now: float) -> bool:
    """Whether any of the time from `start` to `end` is one that shifts are read for."""
    return start < end and end > now and start < now + SHIFT_HORIZON


def shifts(schedule: Ref, member: Ref, spans: Iterable[tuple[float, float]], now: float) -> Iterator[Shift]:
    """Those of `spans` that touch the time that shifts are read for."""
    for start, end in spans:
        if touches(start, end, now):
            yield Shift(schedule, member, start, end)


def moment(value: Any, what: str) -> float:
    """Seconds since the epoch, of an RFC 3339 time. BadData for anything else: a time without its offset, too."""
    try:
        parsed = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise BadData(f"{what}: no time: {one_line(str(value), 40)!r}") from error
    if parsed.tzinfo is None:
        raise BadData(f"{what}: a time without its offset from UTC: {one_line(str(value), 40)!r}")
    return parsed.timestamp()


def utc(at: float) -> str:
    """A moment as these systems want it asked: 2026-11-23T08:00:00Z."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
