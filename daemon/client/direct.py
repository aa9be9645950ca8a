"""Lookups in the file itself, for a program that may read it: no server, no socket, no waiting.

The answers are the server's: the same rows, the same bytes, the same rules for what has no answer. What is `stale`
goes by the caller's clock.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from daemon import problems
from daemon.client.problems import LookupProblem, bad_request, check_ids, problem_of
from daemon.client.values import Answer, Member
from daemon.errors import DatabaseUnusable
from daemon.matching import resource_key
from daemon.store.direct import FORBIDDEN, MOST, DirectReader, Found
from daemon.store.lookups import Age, Row

_decode = json.JSONDecoder().raw_decode
_TOGETHER = 100
"""Rows that are decoded together: few enough that memory for their text is at hand."""


class DirectOwners:
    """Lookups in `ownerd.db`, read-only.

    Never in the writer's way: no transaction is held between two calls. Threads may share it, and take turns; who asks
    in parallel has one for each thread. After a fork, the child opens the file anew.

    `copied`: answers may come from the copy that the poller keeps beside the database (`daemon.store.copied`), mapped
    into memory: several times as fast, and a millisecond behind what is published, at most. An I/O error of the disk,
    where it has that file, then ends the process with SIGBUS in place of an exception.
    `clock`: seconds since the epoch.

    Lists (`/v1/resources`, …) are the socket's.
    """

    def __init__(self, database: str | Path, *, copied: bool = True, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(database)
        self._reader = DirectReader(self.path, copied=copied)
        self._clock = clock
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            self._reader.close()

    def get(
        self, resource: str, integration: str | None = None, *, members: bool = False, max_age: int | None = None
    ) -> Answer:
        """Who owns a resource; see `Owners.get`. DatabaseUnusable if this process or this version cannot read it."""
        if not resource:
            raise bad_request('the parameter "resource" is missing')
        try:
            key = resource_key(resource) if resource[0] == "/" else resource
            with self._lock:
                if integration is None and not members and max_age is None:
                    try:
                        plain = self._reader.at_hand(key)
                    except (sqlite3.Error, DatabaseUnusable, ValueError):
                        plain = None  # the long way says what is the matter
                    if plain is not None:
                        return _answer(key, *plain, self._clock())
                _check_age(max_age)
                with self._generation():
                    return self._get(resource, key, integration, max_age, members=members)
        except UnicodeEncodeError as error:
            raise bad_request(f"{resource!r} is not Unicode text") from error

    def _get(self, resource: str, key: str, integration: str | None, max_age: int | None, *, members: bool) -> Answer:
        row = self._choose(resource, key, self._reader.rows([key]), integration)
        age, now = self._reader.age(row[2]), self._clock()
        _check_old(resource, age, now, max_age)
        answer = _answer(key, row[5], age, now)
        if members:
            for owner in answer["owners"]:
                found = self._reader.members(owner["directory"], f"{owner['kind']}:{owner['id']}", now)
                owner["members"] = [Member(id=i, email=email, name=name) for i, email, name in found]
        return answer

    def get_many(self, resources: Sequence[str], *, max_age: int | None = None) -> list[Answer | LookupProblem]:
        """Who owns many resources, in the order asked; a problem in the place of each that has no answer."""
        check_ids(resources)
        _check_age(max_age)
        found: list[Answer | LookupProblem] = []
        for start in range(0, len(resources), MOST):
            with self._lock:
                found += self._many(resources[start : start + MOST], max_age)
        return found

    def _many(self, resources: Sequence[str], max_age: int | None) -> list[Answer | LookupProblem]:
        keys = [resource_key(r) if r[0] == "/" else r for r in resources]
        refused: dict[int, LookupProblem] = {}
        with self._generation():
            now, reader = self._clock(), self._reader
            found: list[tuple[bytes, Age] | None] = [None] * len(keys)
            if max_age is None:
                with suppress(ValueError):  # the copy is spoilt; the database is not
                    found = list(map(reader.copied, keys))
            if missing := [place for place, row in enumerate(found) if row is None]:
                several: dict[str, list[Found]] = {}
                for row in reader.rows([keys[place] for place in missing]):
                    several.setdefault(row[0], []).append(row)
                for place in missing:
                    key = keys[place]
                    try:
                        row = self._choose(resources[place], key, several.get(key, ()), None)
                        _check_old(resources[place], reader.age(row[2]), now, max_age)
                        found[place] = row[5], reader.age(row[2])
                    except LookupProblem as problem:
                        refused[place] = problem
        told = [(key, *row) for key, row in zip(keys, found, strict=True) if row is not None]
        answers: list[Answer | LookupProblem] = []
        for start in range(0, len(told), _TOGETHER):
            answers += _answers(told[start : start + _TOGETHER], now)
        for place, why in refused.items():  # from the first on: each comes to stand where it was asked
            answers.insert(place, why)
        return answers

    # --- which row, and why there is none -----------------------------------------------------------------------------

    def _choose(self, resource: str, key: str, rows: Sequence[Found], integration: str | None) -> Found:
        """The row that counts. LookupProblem if there is none, or if several do not agree."""
        sources = self._reader.sources
        if integration is not None:
            wanted = {s.id for s in sources.values() if s.name == integration and s.role == "integration"}
            if not wanted:
                raise problem_of(problems.no_integration(integration))
            rows = [row for row in rows if row[1] in wanted]
        if not rows:
            superseded = self._reader.superseded
            raise problem_of(problems.absent(resource, key, integration, sources.values(), superseded=superseded))
        named = list(map(Row._make, rows))
        if len(named) > 1 and not self._reader.agree([row.outcome_id for row in named]):
            raise problem_of(problems.ambiguous(resource, [sources[row.source_id].name for row in named]))
        row = min(named, key=lambda row: sources[row.source_id].position)
        if row.waiting:
            raise problem_of(problems.waits(resource, sources[row.source_id].name, sources.values()))
        return row

    @contextmanager
    def _generation(self) -> Iterator[None]:
        """`DirectReader.generation`, with the server's words for what cannot be read."""
        try:
            with self._reader.generation():
                yield
        except DatabaseUnusable as error:
            cause = error.__cause__
            if isinstance(cause, FileNotFoundError):
                raise problem_of(problems.body("not-yet-known", f"{error.message}; {error.remedy}")) from error
            if isinstance(cause, sqlite3.DatabaseError) and cause.sqlite_errorcode & 0xFF not in FORBIDDEN:
                raise problem_of(problems.body("unavailable", f"{error.message}; {error.remedy}")) from error
            raise
        except sqlite3.DatabaseError as error:
            self._reader.failed()
            raise problem_of(problems.body("unavailable", f"the database cannot be read: {error}")) from error


def _answer(key: str, head: bytes, age: Age, now: float) -> Answer:
    """An owner row as an answer. LookupProblem if it is none: the file is damaged where SQLite cannot see it."""
    try:
        text = head.decode() + "}"
        answer: Any
        answer, end = _decode(text)
        about = answer["resource"]["id"]
        if end == len(text) and (about == key or resource_key(about) == key):
            answer.update(_tail(age, now))
            whole: Answer = answer
            return whole
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise _garbled() from error
    raise _garbled()


def _answers(rows: Sequence[tuple[str, bytes, Age]], now: float) -> list[Answer | LookupProblem]:
    """Keys, heads and ages as answers, decoded together: that takes half of the time.

    Each is looked at whether it is about its resource: if the file is damaged, one row might hold two, or none.
    """
    with suppress(ValueError, TypeError, LookupError, AttributeError):
        text = f"[{b'},'.join([head for _, head, _ in rows]).decode()}}}]"
        answers, end = _decode(text)
        if end != len(text):
            raise ValueError(end)  # it is caught right here
        for (key, _, age), answer in zip(rows, answers, strict=True):
            about = answer["resource"]["id"]
            if about != key and resource_key(about) != key:
                break
            answer.update(_tail(age, now))
        else:
            return list(answers)
    if len(rows) == 1:
        return [_garbled()]
    return [_answers([row], now)[0] for row in rows]


def _garbled() -> LookupProblem:
    return problem_of(problems.body("unavailable", "the database cannot be read: a row is no answer"))


def _tail(age: Age, now: float) -> dict[str, Any]:
    return _tails(age)[now > age.stale_from]


@lru_cache(1024)  # there are few ages, and many answers
def _tails(age: Age) -> tuple[dict[str, Any], dict[str, Any]]:
    """The members that tell ages, while it is fresh, and when it is stale."""
    fresh: dict[str, Any] = {
        "resource_seen_at": _rfc3339(age.resource_seen_at),
        "owners_seen_at": _rfc3339(age.owners_seen_at),
        "stale": False,
    }
    if age.valid_until is not None:
        fresh["valid_until"] = _rfc3339(age.valid_until)
    return fresh, {**fresh, "stale": True}


def _rfc3339(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_age(max_age: int | None) -> None:
    if max_age is not None and (type(max_age) is not int or max_age < 0):
        raise bad_request("Cache-Control: max-age takes a whole number of seconds")


def _check_old(resource: str, age: Age, now: float, max_age: int | None) -> None:
    if max_age is not None and now - age.oldest > max_age:
        raise problem_of(problems.too_old(resource, now - age.oldest, max_age))
