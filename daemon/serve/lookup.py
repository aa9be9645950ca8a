"""The lookup: one resource id in, the bytes of an answer out, or a `Problem`.

This is the path that callers wait for: one primary-key read, and the ages put in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from daemon.matching import resource_key
from daemon.serve.problems import Problem
from daemon.store.reader import Age, Reader, Row
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

    def quick(self, resource: str) -> tuple[bytes, bytes] | None:
        """Head and tail of the answer, of any age, if it is plain: one integration has the resource, and its owner."""
        plain = self.reader.plain(resource_key(resource))
        if plain is None:
            return None
        head, age = plain
        self.counts["answered"] += 1
        return head, age.tail(self._clock())

    def answers(self, resources: Sequence[str], limits: Limits) -> bytes:
        """A list of answers or problems, in the order asked."""
        told = []
        plain = limits.oldest is None
        now, age = self._clock(), self.reader.age
        for resource, rows in zip(resources, self.reader.many([resource_key(r) for r in resources]), strict=True):
            if plain and len(rows) == 1 and not rows[0].waiting:
                row = rows[0]
                told.append(row.head + age(row.freshness_id).tail(now))
                self.counts["answered"] += 1
                continue
            try:
                told.append(self._told(resource, rows, None, limits))
            except Problem as problem:
                told.append(problem.to_json())
        return b'{"answers":[' + b",".join(told) + b"]}"

    def _told(self, resource: str, rows: list[Row], integration: str | None, limits: Limits) -> bytes:
        try:
            row = rows[0] if len(rows) == 1 and integration is None else self.choose(resource, rows, integration)
            if row.waiting:
                raise self._waits(resource, row)
            age = self.reader.age(row.freshness_id)
            now = self._clock()
            if limits.oldest is not None and now - age.oldest > limits.oldest:
                raise self._too_old(resource, age, now, limits)
        except Problem as problem:
            self.counts[problem.kind] += 1
            raise
        self.counts["answered"] += 1
        return self.render(row, age, now)

    def render(self, row: Row, age: Age | None = None, now: float | None = None) -> bytes:
        """A row's bytes, with its ages."""
        age = age or self.reader.age(row.freshness_id)
        now = self._clock() if now is None else now
        return row.head + age.tail(now)

    def choose(self, resource: str, rows: Sequence[Row], integration: str | None) -> Row:
        """The row that counts. Problem if no integration has the resource, or if several give it different owners."""
        if integration is not None:
            wanted = self.integration_id(integration)
            rows = [row for row in rows if row.source_id == wanted]
        if not rows:
            raise self._absent(resource, integration)
        if len(rows) > 1 and not self.reader.owners_agree(rows):
            names = sorted(self.reader.sources[row.source_id].name for row in rows)
            raise Problem(
                "ambiguous-resource",
                f"the integrations {', '.join(names)} have this resource, and give it different owners;"
                " name one with `integration`",
                resource=resource,
                integrations=names,
            )
        return min(rows, key=lambda row: self.reader.sources[row.source_id].position)

    def integration_id(self, name: str) -> int:
        """The id of an integration; Problem if none has this name."""
        self.reader.follow()
        for source in self.reader.sources.values():
            if source.name == name and source.role == "integration":
                return source.id
        raise Problem("bad-request", f'no integration is named "{name}"')

    def _absent(self, resource: str, integration: str | None) -> Problem:
        """Unknown, or only not known yet: while a source that could have it was never read, nobody can tell."""
        key = resource_key(resource)
        if self.reader.superseded:
            return Problem(
                "not-yet-known",
                "the database that was set aside does not have this resource, and the new one is not filled yet",
                resource=resource,
                sources=[],
            )
        unread = [
            {"name": s.name, "error": orjson.loads(s.error) if s.error else None}
            for s in self.reader.sources.values()
            if s.could_hold(key) and not s.whole and (integration is None or s.name == integration)
        ]
        if unread or not self.reader.sources:
            names = ", ".join(str(s["name"]) for s in unread) or "no source"
            return Problem(
                "not-yet-known",
                f"no integration has this resource so far, and {names} has not been read whole yet",
                resource=resource,
                sources=unread,
            )
        return Problem("unknown-resource", "no integration has this resource", resource=resource)

    def _waits(self, resource: str, row: Row) -> Problem:
        unread = [
            {"name": s.name, "error": orjson.loads(s.error) if s.error else None}
            for s in self.reader.sources.values()
            if s.role == "directory" and not s.whole
        ]
        names = ", ".join(str(s["name"]) for s in unread) or "a directory"
        return Problem(
            "not-yet-known",
            f"the resource is known, its owner is not: {names} has not been read whole yet",
            resource=resource,
            integration=self.reader.sources[row.source_id].name,
            reason="directory_never_synced",
            sources=unread,
        )

    def _too_old(self, resource: str, age: Age, now: float, limits: Limits) -> Problem:
        return Problem(
            "too-old",
            f"it rests on what was read {now - age.oldest:.0f} s ago; at most {limits.oldest:.0f} s was asked for",
            resource=resource,
            age=int(now - age.oldest),
        )

    def with_members(self, answer: bytes) -> bytes:
        """An answer in which each owner has its `members`: active users, nested groups flattened."""
        told: dict[str, Any] = orjson.loads(answer)
        for owner in told["owners"]:
            owner["members"] = self.reader.members(owner["directory"], f"{owner['kind']}:{owner['id']}", self._clock())
        return json_bytes(told)
