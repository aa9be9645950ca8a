"""Requests to an API server, through the kubernetes client, and what they fail with, as ours.

The client's models cost 170 ms of CPU a thousand objects: answers are taken raw. Its retries are off.
Statuses and their meaning: https://kubernetes.io/docs/reference/using-api/api-concepts/ and the "Status" of
https://kubernetes.io/docs/reference/kubernetes-api/definitions/status-v1-meta/
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.answers import one_line, parse_json
from connectors.errors import (
    BadData,
    ConnectorError,
    Forbidden,
    Incomplete,
    Misconfigured,
    ServerFault,
    Throttled,
    Unauthenticated,
)
from connectors.http import retry_after
from connectors.kubernetes_auth import ClusterOptions, configuration_of
from connectors.retry import retrying
from connectors.urllib3_errors import failures, until

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from urllib3 import BaseHTTPResponse

JSON = "application/json"


class Expired(Incomplete):
    """410: the server no longer has the point in time that a list, or a watch, was to go on from."""


class NotThere(Misconfigured):
    """404."""


class ApiServer:
    """One API server. Credentials are loaded with the first request, and again when they have expired."""

    def __init__(self, options: ClusterOptions) -> None:
        self._options = options
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._opened: ApiClient | None = None
        self._worked = False

    def close(self) -> None:
        """Let go of connections, and of keys that had to be files."""
        self._leave()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def get(self, path: str, *, accept: str = JSON, permission: str = "", **query: Any) -> Any:
        """The document at `path`. `permission` is what RBAC must allow, for messages. Tried again where it may help."""
        return retrying(lambda: self._document("GET", path, accept, permission, query, None))

    def post(self, path: str, document: Mapping[str, Any]) -> Any:
        """The answer to a review, which is asked for by creating it; nothing is stored."""
        return retrying(lambda: self._document("POST", path, JSON, "", {}, document))

    def _document(
        self, method: str, path: str, accept: str, permission: str, query: Mapping[str, Any], body: Any
    ) -> Any:
        place, limit = f"{method} {path}", self._options.timeout
        ends = time.monotonic() + limit
        answer = self._open(method, path, accept, permission, query, body, limit)
        with _reading(answer), failures(place, limit):
            content = b"".join(until(ends, answer.stream(1 << 16, decode_content=True)))
        document = parse_json(place, content)
        if not isinstance(document, dict):
            raise ServerFault(f"{place}: the answer is no object")
        return document

    def watch(
        self, path: str, *, accept: str, permission: str, seconds: int, **query: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of a watch, each its type and object, until the server ends it, after `seconds`.

        A watch that ends in any other way raises. Time limits are kept here too: a connection that is half open tells
        nothing, for ever.
        """
        place, limit = f"watch {path}", seconds + self._options.timeout
        query = {**query, "watch": "true", "timeoutSeconds": seconds}
        answer = retrying(lambda: self._open("GET", path, accept, permission, query, None, limit))
        left = b""
        with _reading(answer):
            pieces = until(time.monotonic() + limit, answer.stream(1 << 16, decode_content=True))
            while True:
                with failures(place, limit):
                    piece = next(pieces, None)
                if piece is None:
                    break
                *lines, left = (left + piece).split(b"\n")
                for line in filter(bytes.strip, lines):
                    yield self._event(place, permission, line)
        if left.strip():
            raise ServerFault(f"{place}: the last event is cut short")

    def _event(self, place: str, permission: str, line: bytes) -> tuple[str, dict[str, Any]]:
        event = parse_json(place, line)
        kind, thing = (event.get("type"), event.get("object")) if isinstance(event, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(thing, dict):
            raise BadData(f"{place}: an event without type or object")
        if kind == "ERROR":
            code = thing.get("code")
            raise _error(place, permission, code if isinstance(code, int) else 500, {}, _sentence(thing))
        return kind, thing

    # --- one request ------------------------------------------------------------------------------------------------

    def _open(
        self,
        method: str,
        path: str,
        accept: str,
        permission: str,
        query: Mapping[str, Any],
        body: Any,
        limit: float,
    ) -> BaseHTTPResponse:
        """A successful answer, its body not read yet. Credentials that have worked, and no longer do, are renewed."""
        try:
            answer = self._ask(method, path, accept, permission, query, body, limit)
        except Unauthenticated:
            if not self._worked:
                raise
            self._leave()
            answer = self._ask(method, path, accept, permission, query, body, limit)
        self._worked = True
        return answer

    def _ask(
        self,
        method: str,
        path: str,
        accept: str,
        permission: str,
        query: Mapping[str, Any],
        body: Any,
        limit: float,
    ) -> BaseHTTPResponse:
        from kubernetes.client import ApiException
        from urllib3.exceptions import SSLError

        client, place = self._client(), f"{method} {path}"
        headers = {"Accept": accept, "Accept-Encoding": "identity" if "watch" in query else "gzip"}
        if body is not None:
            headers["Content-Type"] = JSON
        request = client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer: BaseHTTPResponse
        with failures(place, limit):
            try:
                answer = client.call_api(*request, _request_timeout=(self._options.timeout, limit)).response
            except ApiException as error:
                if isinstance(error.__context__, SSLError):
                    raise error.__context__ from None
                raise
        if 200 <= answer.status < 300:
            return answer
        with _reading(answer), failures(place, limit):
            ends = time.monotonic() + limit
            content = b"".join(until(ends, answer.stream(1 << 16, decode_content=True)))
        try:
            sentence = _sentence(parse_json(place, content))
        except ServerFault:  # what is in between speaks HTML
            sentence = ""
        raise _error(place, permission, answer.status, answer.headers, sentence)

    def _client(self) -> ApiClient:
        if self._opened is None:
            from kubernetes.client import ApiClient

            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="ownerd-", ignore_cleanup_errors=True)
            self._opened = ApiClient(configuration_of(self._options, Path(self._folder.name)))
            self._opened.user_agent = "ownerd"
        return self._opened

    def _leave(self) -> None:
        opened: Any = self._opened
        self._opened, self._worked = None, False
        if opened is not None:
            opened.close()


class _reading:  # noqa: N801  # reads as a statement does
    """Gives an answer's connection back, or ends it, if the answer was not read to its end."""

    def __init__(self, answer: BaseHTTPResponse) -> None:
        self._answer = answer

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._answer.release_conn()
        else:
            self._answer.close()


def _sentence(status: Any) -> str:
    """What a `Status` says."""
    message = status.get("message") if isinstance(status, dict) else None
    return one_line(message) if isinstance(message, str) else ""


def _error(place: str, permission: str, status: int, headers: Mapping[str, str], sentence: str) -> ConnectorError:
    said = f" ({sentence})" if sentence else ""
    if status == 401:
        return Unauthenticated(
            f"{place}: the credentials were refused: 401{said}",
            remedy="they are wrong, expired or revoked: renew the token, the certificate, or the exec plugin's login",
        )
    if status == 403:
        return Forbidden(
            f"{place}: the credentials may not: 403{said}" + (f"; it needs {permission}" if permission else ""),
            permission=permission,
            remedy=f"a ClusterRole, bound by a ClusterRoleBinding, that allows: {permission}" if permission else "",
        )
    if status == 404:
        return NotThere(
            f"{place}: there is no such API: 404{said}", remedy="check `resources`, the server and its path"
        )
    if status == 410:
        return Expired(f"{place}: the server no longer has that state: 410{said}")
    if status == 429 or status >= 500 or status == 408:
        wait = retry_after(headers)
        if status == 429 or wait is not None:
            return Throttled(f"{place}: too many requests, or not now: {status}{said}", retry_after=wait)
        return ServerFault(f"{place}: the server failed: {status}{said}")
    if 300 <= status < 400:
        return BadData(f"{place}: a redirect ({status}) is not followed", remedy="set `endpoint` to where the API is")
    return BadData(f"{place}: {status}{said}")
