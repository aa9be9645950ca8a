"""How far a list of a SCIM service was read, by the service's own clock, so that the next run asks for what is newer.

SCIM has no list of changes. It has `meta.lastModified` (RFC 7643, 3.1), which a filter may compare (RFC 7644, 3.4.2.2).
All moments here are that clock's, in whole seconds since the epoch; of ours, only lengths of time are used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from heapq import heappop, heappush
from time import monotonic
from typing import Any, NamedTuple

from connectors.errors import StaleBookmark

OVERLAP = 300
"""Seconds. How late a change may show up behind its `meta.lastModified`: transactions, replicas, several clocks."""
MOST = 86400
"""Seconds. A list that takes longer to read gets no mark."""
MOST_RECENT = 20_000
"""Rows whose ids a mark may hold."""
_AFTER_CREATION = 60
"""Seconds. What is modified so soon was not changed, but created slowly."""
NEVER = 32472144000
"""A moment after which nothing is modified: the year 2999."""


class Moments(NamedTuple):
    """When a row was created and last modified."""

    created: int
    modified: int


def moments_of(row: Mapping[str, Any]) -> Moments | None:
    """None if the row does not tell both, in their order."""
    meta = row.get("meta")
    told = [_moment(meta.get(key)) for key in ("created", "lastModified")] if isinstance(meta, dict) else [None, None]
    created, modified = told
    if created is None or modified is None or not 0 < created <= modified:  # the year 1 stands for none
        return None
    return Moments(created, modified)


def _moment(text: Any) -> int | None:
    """An xsd:dateTime; one that names no zone is UTC's."""
    try:
        moment = datetime.fromisoformat(text)
        return math.floor((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None


def clock_of(headers: Mapping[str, str]) -> int | None:
    """The Date of an answer."""
    try:
        return math.floor(parsedate_to_datetime(headers.get("date", "")).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None


def modified_since(moment: int) -> str:
    """The filter that asks for what was modified then or later."""
    return f'meta.lastModified ge "{datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}"'


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the reading of one list goes on.

    All changes before `since` were read. `last` is the latest `meta.lastModified` seen, and `at` when, by the Date of
    the service's answers. `older` is how many rows there are that were created before `since`; `recent` are the others,
    by digests of their ids: of each of them a deletion is noticed.
    """

    since: int
    last: int
    at: int | None
    older: int
    recent: frozenset[str]


def digest_of(row: Mapping[str, Any]) -> str:
    """A short name for a row."""
    return blake2b(row["id"].encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def token_of(marks: Mapping[str, Mark]) -> str:
    """A bookmark's token: the marks of each list."""
    told = {path: [mark.since, mark.last, mark.at, mark.older, *sorted(mark.recent)] for path, mark in marks.items()}
    return json.dumps(told, separators=(",", ":"))


def marks_of(token: str, paths: tuple[str, ...]) -> dict[str, Mark]:
    """The marks of a token. StaleBookmark if it is none for these lists."""
    try:
        told = json.loads(token)
        return {path: _mark_of(*told[path]) for path in paths}
    except (ValueError, TypeError, KeyError) as error:
        raise StaleBookmark("the bookmark is none of ours") from error


def _mark_of(since: Any, last: Any, at: Any, older: Any, *recent: Any) -> Mark:
    numbers = [since, last, older, *([] if at is None else [at])]
    if not all(type(x) is int and 0 <= x < NEVER for x in numbers) or not all(isinstance(x, str) for x in recent):
        raise ValueError
    return Mark(since, last, at, older, frozenset(recent))


class _Reading:
    """What a reading of a list shows as it goes."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._clock: int | None = None
        self._heard = False

    def hear(self, clock: int | None) -> None:
        """The Date of the first page: the others do not count."""
        if not self._heard:
            self._clock, self._heard = clock, True

    @property
    def _took(self) -> int:
        return math.ceil(monotonic() - self._began)

    def _ended(self) -> int | None:
        return None if self._clock is None else self._clock + self._took


class Survey(_Reading):
    """A whole reading of a list: whether it could be followed from here, and from which mark."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0
        self.last = 0
        self.at_last = 0
        """Rows that were modified in the second `last`."""
        self._fit = True
        self._changed = False
        self._recent: list[tuple[int, str]] = []  # a heap: creations that may be after the mark
        self._dropped = 0

    def see(self, row: Mapping[str, Any], clock: int | None) -> None:
        """Take note of a row that came by."""
        self.hear(clock)
        self.rows += 1
        moments = moments_of(row)
        if moments is None:
            self._fit = False
            return
        if moments.modified > self.last:
            self.last, self.at_last = moments.modified, 0
        self.at_last += moments.modified == self.last
        self._changed |= moments.modified - moments.created > _AFTER_CREATION
        if moments.created >= self.last - MOST:
            heappush(self._recent, (moments.created, digest_of(row)))
        while self._recent and (self._recent[0][0] < self.last - MOST or len(self._recent) > 2 * MOST_RECENT):
            self._dropped = max(self._dropped, heappop(self._recent)[0])

    def mark(self) -> Mark | None:
        """None if rows tell no moments; or if none was ever modified: the service may not keep record of that.

        What was modified while the list was read was modified no longer ago than that took.
        """
        took = self._took
        if not (self.rows and self._fit and self._changed) or OVERLAP + took > MOST:
            return None
        since = max(0, self.last - OVERLAP - took)
        recent = frozenset(digest for created, digest in self._recent if created >= since)
        if len(recent) > MOST_RECENT or self._dropped >= since:
            return None
        return Mark(since, self.last, self._ended(), self.rows - len(recent), recent)


class Following(_Reading):
    """A reading of what was modified since a mark."""

    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self._mark = mark
        self._last = mark.last
        self._created: dict[str, int] = {}
        self.rows = 0

    def see(self, row: Mapping[str, Any], clock: int | None) -> None:
        """Take note of a row that came by. StaleBookmark if nobody asked for it."""
        self.hear(clock)
        self.rows += 1
        moments = moments_of(row)
        if moments is None or moments.modified < self._mark.since:
            raise StaleBookmark("the service shows what was not modified since, or does not tell when it was")
        self._last = max(self._last, moments.modified)
        if moments.created >= self._mark.since:
            self._created[digest_of(row)] = moments.created

    @property
    def recent(self) -> frozenset[str]:
        """Rows that were created since the mark. StaleBookmark if one of those that the mark names is no more."""
        if not self._mark.recent <= self._created.keys():
            raise StaleBookmark("one of the latest that were created is no more")
        return frozenset(self._created)

    @property
    def total(self) -> int:
        """How long the whole list is now, if nothing was deleted."""
        return self._mark.older + len(self._created)

    def mark(self, patience: float) -> Mark:
        """The mark to go on from. `patience` in seconds: how long an answer may take.

        Once the latest change is so old that none can show up behind it any more, it is not read again.
        """
        old = self._mark
        since, at = old.since, old.at
        if self._last > old.last:
            since, at = max(since, self._last - OVERLAP - self._took), self._ended()
        elif at is None:
            at = self._ended()
        elif self._clock is not None and self._clock - at >= OVERLAP + patience:
            since = old.last + 1
        recent = frozenset(digest for digest, created in self._created.items() if created >= since)
        if len(recent) > MOST_RECENT:
            raise StaleBookmark("too many were created at once")
        return Mark(since, self._last, at, self.total - len(recent), recent)
