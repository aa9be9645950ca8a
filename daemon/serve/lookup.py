"""The lookup: one resource id in, the bytes of an answer out, or a `Problem`.

This is the path that callers wait for: one primary-key read, and the ages put in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from daemon import problems
from daemon.matching import resource_key
from daemon.serve.problems import Problem
from daemon.store.lookups import Row
from daemon.store.reader import Reader
from daemon.text import json_bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """How old an answer may be: the request's `Cache-Control`, in seconds (RFC 9111, RFC 5861)."""

    max_age: float | None = None
    stale_if_error: float = 0.0

    @property
    def oldest(self) -> float | None:
        """The age past which an answer is refused, or None."""
        return None if self.max_age is None else self.max_age + self.stale_if_error


ANY_AGE = Limits()
_LIST, _LIST_END = b'{"answers":[', b"]}"


def parse_cache_control(header: str) -> Limits:
    """`max-age=60, stale-if-error=3600`; other directives are not ours. Problem for a value that is no number."""
    found: dict[str, float] = {}
    for directive in header.split(","):
        name, _, value = directive.strip().partition("=")
        name = name.strip().lower()
        if name in {"max-age", "stale-if-error"}:
            digits = value.strip().strip('"')
            if not (digits.isascii() and digits.isdigit()):
                raise Problem("bad-request", f"Cache-Control: {name} takes a whole number of seconds")
            found[name] = min(float(digits), 2.0**31)
    return Limits(found.get("max-age"), found.get("stale-if-error", 0.0)) if "max-age" in found else ANY_AGE


class Lookup:
    """Answers from one reader; counts what it answered."""

    def __init__(self, reader: Reader, clock: Callable[[], float], counts: Counter[str] | None = None) -> None:
        self.reader = reader
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._clock = clock

    def answer(self, resource: str, integration: str | None, limits: Limits) -> bytes:
        """The answer for one resource; Problem if there is none."""
        rows = self.reader.rows(resource_key(resource))
        return self._told(resource, rows, integration, limits)

    def quick(self, resource: str) -> list[bytes] | None:
        """Head and tail of the answer, of any age, if it is plain: one integration has the resource, and its owner."""
        plain = self.reader.plain(resource_key(resource))
        if plain is None:
            return None
        head, aged = plain
        self.counts["answered"] += 1
        return [head, aged.tail(self._clock())]

    def answers(self, resources: Sequence[str], limits: Limits) -> bytes:
        """A list of answers or problems, in the order asked."""
        return _LIST + b",".join(self._many(resources, limits)) + _LIST_END

    def quick_answers(self, resources: Sequence[str]) -> list[bytes]:
        """The parts of the same, of any age, within a turn: from the copy of the answers, what that tells."""
        find, now, aged = self.reader.copied.find, self._clock(), self.reader.aged_in_turn
        tails: dict[int, bytes] = {}
        told: list[bytes] = [_LIST]
        places = []
        for place, resource in enumerate(resources):
            found = find(resource_key(resource) if resource[0] == "/" else resource)
            if found is None:
                places.append(place)
                told += b"", b","
                continue
            freshness_id, head = found
            tail = tails.get(freshness_id)
            if tail is None:
                tail = tails[freshness_id] = aged(freshness_id).tail(now) + b","
            told += head, tail
        if places:
            for place, answer in zip(places, self._many([resources[p] for p in places], ANY_AGE), strict=True):
                told[2 * place + 1] = answer
        self.counts["answered"] += len(resources) - len(places)
        told[-1] = told[-1].removesuffix(b",") + _LIST_END
        return told

    def _many(self, resources: Sequence[str], limits: Limits) -> list[bytes]:
        told = []
        plain = limits.oldest is None
        now, aged = self._clock(), self.reader.aged
        for resource, rows in zip(resources, self.reader.many([resource_key(r) for r in resources]), strict=True):
            if plain and len(rows) == 1 and not rows[0].waiting:
                row = rows[0]
                told.append(row.head + aged(row.freshness_id).tail(now))
                self.counts["answered"] += 1
                continue
            try:
                told.append(self._told(resource, rows, None, limits))
            except Problem as problem:
                told.append(problem.to_json())
        return told

    def _told(self, resource: str, rows: list[Row], integration: str | None, limits: Limits) -> bytes:
        try:
            row = rows[0] if len(rows) == 1 and integration is None else self.choose(resource, rows, integration)
            if row.waiting:
                sources = self.reader.sources
                raise Problem.of(problems.waits(resource, sources[row.source_id].name, sources.values()))
            aged = self.reader.aged(row.freshness_id)
            now = self._clock()
            since = now - aged.age.oldest
            if limits.oldest is not None and since > limits.oldest:
                raise Problem.of(problems.too_old(resource, since, limits.oldest))
        except Problem as problem:
            self.counts[problem.kind] += 1
            raise
        self.counts["answered"] += 1
        return row.head + aged.tail(now)

    def render(self, row: Row, now: float | None = None) -> bytes:
        """A row's bytes, with its ages."""
        return row.head + self.reader.aged(row.freshness_id).tail(self._clock() if now is None else now)

    def choose(self, resource: str, rows: Sequence[Row], integration: str | None) -> Row:
        """The row that counts. Problem if no integration has the resource, or if several give it different owners."""
        if integration is not None:
            wanted = self.integration_id(integration)
            rows = [row for row in rows if row.source_id == wanted]
        if not rows:
            sources, superseded = self.reader.sources.values(), self.reader.superseded
            key = resource_key(resource)
            raise Problem.of(problems.absent(resource, key, integration, sources, superseded=superseded))
        if len(rows) > 1 and not self.reader.owners_agree(rows):
            names = [self.reader.sources[row.source_id].name for row in rows]
            raise Problem.of(problems.ambiguous(resource, names))
        return min(rows, key=lambda row: self.reader.sources[row.source_id].position)

    def integration_id(self, name: str) -> int:
        """The id of an integration; Problem if none has this name."""
        self.reader.follow()
        for source in self.reader.sources.values():
            if source.name == name and source.role == "integration":
                return source.id
        raise Problem.of(problems.no_integration(name))

    def with_members(self, answer: bytes) -> bytes:
        """An answer in which each owner has its `members`: active users, nested groups flattened."""
        told: dict[str, Any] = orjson.loads(answer)
        for owner in told["owners"]:
            owner["members"] = self.reader.members(owner["directory"], f"{owner['kind']}:{owner['id']}", self._clock())
        return json_bytes(told)
