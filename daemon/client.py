"""A small client of the socket: typed, and without dependencies.

    with Owners("/run/ownerd/ownerd.sock") as owners:
        answer = owners.get("arn:aws:rds:us-east-1:111122223333:db:orders")

Not thread-safe: one `Owners` a thread. Errors: `NotRunning`, and a `LookupProblem` for each problem of docs/api.md.

    LookupProblem
    ├── UnknownResource    no integration has it
    ├── NotYetKnown        it, or its owner, may be known later
    ├── TooOld             known, but older than was asked for
    └── AmbiguousResource  integrations disagree; name one
"""

from __future__ import annotations

import grp
import http.client
import json
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict
from urllib.parse import urlencode

from daemon.errors import NotRunning, OwnerdError

Row = dict[str, Any]
_MOST = 1000


class Member(TypedDict):
    """An active user of an owning group."""

    id: str
    email: str | None
    name: str


class Owner(TypedDict):
    """A principal that owns. `members` is there when it was asked for."""

    kind: str
    directory: str
    id: str
    name: str
    members: NotRequired[list[Member]]


class Resource(TypedDict):
    """What is owned."""

    id: str
    integration: str
    type: str
    name: str
    parent: str | None


class Tag(TypedDict):
    """The tag that decided, and the resource that has it."""

    key: str
    value: str
    resource: str


class Answer(TypedDict):
    """Who owns a resource; docs/api.md tells what each member means. Moments are RFC 3339."""

    resource: Resource
    owners: list[Owner]
    source: str
    fallback: bool
    reason: str | None
    tag: Tag | None
    changed_at: str
    resource_seen_at: str | None
    owners_seen_at: str | None
    stale: bool


class LookupProblem(OwnerdError):
    """A request that has no answer. `kind` is the problem's type without `/problems/`; `body` is all of it."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = dict(body)
        self.kind = str(body.get("type", "")).rpartition("/")[2]
        super().__init__(str(body.get("detail") or body.get("title") or "the server failed"))


class UnknownResource(LookupProblem):
    """Every integration that could have it was read whole, and none has it."""


class NotYetKnown(LookupProblem):
    """A source that bears on the answer was never read whole."""


class TooOld(LookupProblem):
    """The answer is older than was asked for."""


class AmbiguousResource(LookupProblem):
    """Several integrations have it, and give it different owners."""


_PROBLEMS: Mapping[str, type[LookupProblem]] = {
    "unknown-resource": UnknownResource,
    "not-yet-known": NotYetKnown,
    "too-old": TooOld,
    "ambiguous-resource": AmbiguousResource,
}


def problem_of(body: Mapping[str, Any]) -> LookupProblem:
    """The error for a problem's body."""
    kind = str(body.get("type", "")).rpartition("/")[2]
    return _PROBLEMS.get(kind, LookupProblem)(body)


class Rows:
    """The rows of a list, read as they are asked for. `next`: at the end, the cursor of what was left out, or None."""

    def __init__(self, pages: Generator[Row, None, str | None]) -> None:
        self._pages = pages
        self.next: str | None = None

    def __iter__(self) -> Iterator[Row]:
        self.next = yield from self._pages


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Owners:
    """Lookups over one connection, which is kept."""

    def __init__(self, path: str | Path, *, timeout: float = 10.0) -> None:
        self.path = Path(path)
        self._connection = _UnixConnection(str(path), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        self._connection.close()

    def get(
        self, resource: str, integration: str | None = None, *, members: bool = False, max_age: int | None = None
    ) -> Answer:
        """Who owns a resource: an answer of docs/api.md."""
        query = {"resource": resource}
        if integration is not None:
            query["integration"] = integration
        if members:
            query["expand"] = "members"
        answer: Answer = self._told(self.call("GET", _target("/v1/owner", query), headers=_age(max_age)), "owners")
        return answer

    def get_many(self, resources: Sequence[str], *, max_age: int | None = None) -> list[Answer | LookupProblem]:
        """Who owns many resources, in the order asked; a problem in the place of each that has no answer."""
        found: list[Answer | LookupProblem] = []
        for start in range(0, len(resources), _MOST):
            asked = list(resources[start : start + _MOST])
            told = self.call("POST", "/v1/owners", {"resources": asked}, headers=_age(max_age))
            told = self._told(told, "answers")["answers"]
            if len(told) != len(asked):
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
        """Any call of the socket. NotRunning if nobody answers; LookupProblem for what is not an answer."""
        raw = None if body is None else json.dumps(body).encode()
        status, content = self._send(method, target, raw, headers or {})
        try:
            told = json.loads(content)
        except ValueError as error:
            raise self._stranger() from error
        if status != 200:
            raise problem_of(self._told(told, "type"))
        return told

    def _told(self, told: Any, *names: str) -> Any:
        """An object, if it has these members."""
        if not isinstance(told, dict) or not all(name in told for name in names):
            raise self._stranger()
        return told

    def _stranger(self) -> OwnerdError:
        return OwnerdError(
            f"{self.path}: this is no answer of ownerd's",
            remedy="check that the path is that of ownerd.sock, not control.sock or another service's",
        )

    def _send(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        for kept in (self._connection.sock is not None, False):
            try:
                self._connection.request(method, target, body, dict(headers))
                response = self._connection.getresponse()
                return response.status, response.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                self.close()
                if not kept:  # a kept connection may have ended meanwhile: that is tried once more
                    raise NotRunning(
                        f"{self.path}: ownerd ended the connection", remedy="it may be restarting: try again"
                    ) from error
            except (FileNotFoundError, ConnectionRefusedError) as error:
                self.close()
                raise NotRunning(
                    f"no ownerd answers on {self.path}", remedy="start it: `ownerd run`, or `systemctl start ownerd`"
                ) from error
            except PermissionError as error:
                self.close()
                raise NotRunning(f"{self.path}: permission denied", remedy=_who_may(self.path)) from error
            except TimeoutError as error:
                self.close()
                raise NotRunning(
                    f"{self.path}: no answer in {self._connection.timeout:g} s",
                    remedy="see whether it works: `systemctl status ownerd`, `journalctl -u ownerd`",
                ) from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                why = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise NotRunning(
                    f"{self.path}: {why}", remedy="check that the path is that of ownerd's socket"
                ) from error
        raise AssertionError("unreachable")


def _age(max_age: int | None) -> dict[str, str]:
    return {} if max_age is None else {"Cache-Control": f"max-age={max_age}"}


def _target(page: str, query: Mapping[str, str]) -> str:
    try:
        return f"{page}?{urlencode(query)}"
    except UnicodeEncodeError as error:
        raise problem_of(
            {"type": "/problems/bad-request", "detail": f"{error.object!r} is not Unicode text"}
        ) from error


def _who_may(path: Path) -> str:
    """Who may open a socket that this process may not."""
    try:
        group = grp.getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        return "only members of the socket's group may ask: daemon.socket_group names it"
    return f'only members of the group "{group}" may ask (daemon.socket_group): `sudo usermod -aG {group} "$USER"`'
