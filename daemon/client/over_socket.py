"""Lookups over the socket."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import quote, urlencode

from daemon.client.problems import LookupProblem, bad_request, check_ids, problem_of
from daemon.client.values import Answer, Row
from daemon.client.wire import Connection
from daemon.errors import OwnerdError

if TYPE_CHECKING:
    from daemon.client.direct import DirectOwners

_decode = json.JSONDecoder().raw_decode
"""A third faster than json.loads for a short answer; it leaves what comes after the answer to the caller."""
_MOST = 1000
_SAFE = "-._~!$'()*,;=:@/?"
_AS_IT_IS = re.compile(rf"[A-Za-z0-9{re.escape(_SAFE)}]+")
"""What a query's value may hold as it is (RFC 3986, 3.4): most ids, and quoting costs more than looking."""
_HOST = "Host: localhost\r\n"


class Rows:
    """The rows of a list, read as they are asked for. `next`: at the end, the cursor of what was left out, or None."""

    def __init__(self, pages: Generator[Row, None, str | None]) -> None:
        self._pages = pages
        self.next: str | None = None

    def __iter__(self) -> Iterator[Row]:
        self.next = yield from self._pages


class Owners:
    """Lookups over one connection, which is kept. `timeout`: seconds for one call.

    Threads may share it, and take turns; who asks in parallel has one for each thread.
    """

    def __init__(self, path: str | Path, *, timeout: float = 10.0) -> None:
        self.path = Path(path)
        self._connection = Connection(self.path, timeout)
        self._lock = threading.Lock()

    @staticmethod
    def direct(database: str | Path, *, copied: bool = True, clock: Callable[[], float] | None = None) -> DirectOwners:
        """Lookups in the file itself, `ownerd.db`: see `daemon.client.direct.DirectOwners`."""
        from daemon.client.direct import DirectOwners

        return DirectOwners(database, copied=copied, **({} if clock is None else {"clock": clock}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        with self._lock:
            self._connection.close()

    def get(
        self, resource: str, integration: str | None = None, *, members: bool = False, max_age: int | None = None
    ) -> Answer:
        """Who owns a resource: an answer of docs/api.md."""
        target = f"/v1/owner?resource={_quoted(resource)}"
        if integration is not None:
            target += f"&integration={_quoted(integration)}"
        if members:
            target += "&expand=members"
        if max_age is None:  # in the shortest way: what goes in is quoted
            told = self._told_by(f"GET {target} HTTP/1.1\r\n{_HOST}\r\n".encode("ascii"))
        else:
            told = self.call("GET", target, headers=_age(max_age))
        if not isinstance(told, dict) or "owners" not in told:
            raise self._stranger()
        return cast("Answer", told)

    def get_many(self, resources: Sequence[str], *, max_age: int | None = None) -> list[Answer | LookupProblem]:
        """Who owns many resources, in the order asked; a problem in the place of each that has no answer."""
        check_ids(resources)
        found: list[Answer | LookupProblem] = []
        for start in range(0, len(resources), _MOST):
            asked = list(resources[start : start + _MOST])
            told = self.call("POST", "/v1/owners", {"resources": asked}, headers=_age(max_age))
            told = self._told(told, "answers")["answers"]
            if not isinstance(told, list) or len(told) != len(asked):
                raise self._stranger()
            found += [answer if "resource" in answer and "owners" in answer else problem_of(answer) for answer in told]
        return found

    def pages(self, page: str, name: str, most: int | None = None, **query: str | None) -> Rows:
        """The rows of a list (`/v1/resources`, `resources`), page by page, to its end or to `most`."""
        return Rows(self._pages(page, name, most, {key: value for key, value in query.items() if value is not None}))

    def _pages(self, page: str, name: str, most: int | None, asked: dict[str, str]) -> Generator[Row, None, str | None]:
        left = most
        while True:
            asked["limit"] = str(_MOST if left is None else min(left, _MOST))
            told = self._told(self.call("GET", _target(page, asked)), name, "next")
            yield from told[name]
            left = None if left is None else left - len(told[name])
            cursor: str | None = told["next"]
            if cursor is None or (left is not None and left <= 0):
                return cursor
            asked["after" if name == "changes" else "cursor"] = cursor

    def call(self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Any call of the socket: the JSON that it answers. NotRunning if nobody does.

        LookupProblem for what is not an answer. `target` is percent-encoded.
        """
        return self._told_by(_request(method, target, body, headers or {}))

    def _told_by(self, request: bytes) -> Any:
        with self._lock:
            status, content = self._connection.exchange(request)
        try:
            text = content.decode().strip()
            told, end = _decode(text)
        except (ValueError, RecursionError) as error:
            raise self._stranger() from error
        if end != len(text):
            raise self._stranger()
        if status != 200:
            raise problem_of(self._told(told, "type"))
        return told

    def _told(self, told: Any, *names: str) -> Any:
        """An object, if it has these members."""
        if not isinstance(told, dict) or not all(name in told for name in names):
            raise self._stranger()
        return told

    def _stranger(self) -> OwnerdError:
        return self._connection.stranger()


def _request(method: str, target: str, body: Any, headers: Mapping[str, str]) -> bytes:
    """The bytes of a request. ValueError for what would end its line: it would be another request."""
    head = f"{method} {target} HTTP/1.1\r\n{_HOST}"
    for name, value in headers.items():
        head += f"{name}: {value}\r\n"
    if body is None:
        raw = b""
    else:
        raw = json.dumps(body, separators=(",", ":")).encode()
        head += f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n"
    lines = 2 + len(headers) + (0 if body is None else 2)
    if not head.isascii() or head.count("\n") != lines or head.count("\r") != lines or target.count(" "):
        raise ValueError("a method, target or header is not ASCII, or has a space or line break: percent-encode it")
    return f"{head}\r\n".encode("ascii") + raw


def _age(max_age: int | None) -> dict[str, str]:
    return {} if max_age is None else {"Cache-Control": f"max-age={max_age}"}


def _quoted(text: str) -> str:
    if _AS_IT_IS.fullmatch(text):
        return text
    try:
        return quote(text, safe=_SAFE)
    except UnicodeEncodeError as error:
        raise bad_request(f"{text!r} is not Unicode text") from error


def _target(page: str, query: Mapping[str, str]) -> str:
    try:
        return f"{page}?{urlencode(query)}"
    except UnicodeEncodeError as error:
        raise bad_request(f"{error.object!r} is not Unicode text") from error
