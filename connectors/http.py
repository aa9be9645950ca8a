"""For connectors whose vendor has no client worth having: JSON over HTTP, through httpx2.

One place turns what HTTP can do wrong into `connectors.errors`, keeps to the HTTP options, and sees to it that
credentials go to one origin only: redirects are not followed, and a link to another origin is refused.
"""

from __future__ import annotations

import email.utils
import importlib
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from connectors import retry
from connectors.answers import one_line, parse_json
from connectors.errors import (
    BadData,
    ConnectorError,
    Forbidden,
    Misconfigured,
    ServerFault,
    Throttled,
    Unauthenticated,
    Unreachable,
)
from connectors.options import HttpOptions

if TYPE_CHECKING:
    import httpx2


class Answer:
    """A successful answer: its document, and its headers (names compare without case)."""

    def __init__(self, body: Any, headers: Mapping[str, str]) -> None:
        self.body = body
        self.headers = headers


Send = Callable[..., tuple[int, Mapping[str, str], bytes]]
"""Makes one request, `(method, url, **request)`, and returns the answer's status, headers and body."""


class Api:
    """A JSON API at one origin.

    `headers` go with every request: credentials among them. `told` makes a sentence of an error's document, for
    messages. `meant` is asked first what an error means: it is given the place, the status and the sentence, and
    returns None where they mean the usual. `wait` tells how many seconds the headers of a 429 ask for. `send` makes
    the requests, in place of a client of ours: for vendors whose own client is worth having. `library` is what that
    raises the failures of: httpx2, or its elder, httpx.
    """

    def __init__(
        self,
        options: HttpOptions,
        base: str,
        *,
        headers: Mapping[str, str] | None = None,
        told: Callable[[Any], str] | None = None,
        credentials: str = "the token",
        meant: Callable[[str, int, str], ConnectorError | None] | None = None,
        wait: Callable[[Mapping[str, str]], float | None] | None = None,
        send: Send | None = None,
        library: str = "httpx2",
    ) -> None:
        self.base = base.rstrip("/") + "/"
        self._options = options
        self._headers = dict(headers or {})
        self._told = told or _sentence_of
        self._credentials = credentials
        self._meant = meant
        self._wait = wait or retry_after
        self._send = send or self._through_ours
        self._library = library
        self._opening = threading.Lock()
        self._opened: httpx2.Client | None = None

    def close(self) -> None:
        """Let go of connections."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def authorize(self, **headers: str) -> None:
        """Send these headers from now on (a token that was just taken). `_` stands for `-`."""
        self._headers |= {name.replace("_", "-"): value for name, value in headers.items()}

    def get(self, path: str, *, permission: str = "", **query: Any) -> Answer:
        """GET `path`, which may be a link that the API gave. Tried again where that may help."""
        return self.call("GET", path, permission=permission, params={k: v for k, v in query.items() if v is not None})

    def call(self, method: str, path: str, *, permission: str = "", **request: Any) -> Answer:
        """The answer to one request. `request` is httpx2's: `params`, `json`, `data`, `headers`."""
        try:
            url = urljoin(self.base, path)
            ours = _origin(url) == _origin(self.base)
        except ValueError as error:  # a link with half an IPv6 address, or a port that is no number
            raise BadData(f"{self.base}: a link that is no URL: {one_line(path)}") from error
        if not ours:
            other = one_line(_said_origin(url))
            raise BadData(f"{self.base}: a link to {other} is not followed: it would be sent the credentials")
        place = f"{method} {one_line(urlsplit(url).path)}"
        if not request.get("params"):
            request.pop("params", None)  # httpx would drop the query that a link has
        return retry.retrying(lambda: self._once(method, url, place, permission, request))

    def _once(self, method: str, url: str, place: str, permission: str, request: Mapping[str, Any]) -> Answer:
        headers = {**self._headers, **request.get("headers", {})}
        for value in headers.values():
            check_sendable(value, self._credentials)
        with failures(place, self._options, self._library):
            status, answered, body = self._send(method, url, **{**request, "headers": headers})
        if 200 <= status < 300:
            return Answer(parse_json(place, body), answered)
        raise self._error(place, permission, status, answered, body)

    def _error(
        self, place: str, permission: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> ConnectorError:
        sentence = self._sentence(body)
        if self._meant and (meant := self._meant(place, status, sentence)):
            return meant
        said = f" ({sentence})" if sentence else ""
        if status == 401:
            return Unauthenticated(
                f"{place}: {self._credentials} was refused: 401{said}",
                remedy="it is wrong, expired or revoked; renew it",
            )
        if status == 403:
            needed = f"; it needs {permission}" if permission else ""
            return Forbidden(
                f"{place}: {self._credentials} may not: 403{said}{needed}",
                permission=permission,
                remedy=f"grant {permission}" if permission else "",
            )
        if status == 429:
            return Throttled(f"{place}: too many requests: 429{said}", retry_after=self._wait(headers))
        if status >= 500 or status in {408, 425}:
            if (wait := retry_after(headers)) is not None:
                return Throttled(f"{place}: {status}{said}", retry_after=wait)
            return ServerFault(f"{place}: the server failed: {status}{said}")
        if 300 <= status < 400:
            return BadData(
                f"{place}: a redirect to {one_line(_said_origin(headers.get('location', '')))} is not followed",
                remedy="set `endpoint` to where the API is",
            )
        if status == 404:
            return Misconfigured(
                f"{place}: no such thing: 404{said}", remedy="check `endpoint`, and ids in the options"
            )
        return BadData(f"{place}: {status}{said}")

    def _sentence(self, body: bytes) -> str:
        try:
            return one_line(self._told(parse_json("", body)))
        except (ServerFault, AttributeError, TypeError, KeyError, IndexError):
            return ""

    def _through_ours(self, method: str, url: str, **request: Any) -> tuple[int, Mapping[str, str], bytes]:
        import httpx2

        with self._opening:
            if self._opened is None:
                self._opened = httpx2.Client(**client_settings(self._options), auth=_as_we_say)
        ends = time.monotonic() + self._options.timeout
        pieces = []
        with self._opened.stream(method, url, **request) as answer:
            for piece in answer.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > ends:  # httpx's limit is for each piece: one that drips would never end
                    raise httpx2.ReadTimeout("the answer takes too long")
        return answer.status_code, answer.headers, b"".join(pieces)


def check_sendable(value: str, what: str) -> None:
    """Misconfigured, if `value` cannot be a header's (RFC 9110, 5.5). httpx would say so too, and show the secret."""
    if not re.fullmatch(r"[\t -~]*", value):
        raise Misconfigured(
            f"{what} holds what cannot be sent, such as a line break",
            remedy="look at what the file or the variable holds: it must be the secret and nothing else",
        )


def client_settings(options: HttpOptions) -> dict[str, Any]:
    """What an httpx2 client is made with, by the HTTP options. Without `proxy`, the usual variables tell one."""
    import httpx2

    try:
        tls: ssl.SSLContext | bool = ssl.create_default_context(cafile=options.ca_file) if options.ca_file else True
    except OSError as error:  # ssl.SSLError is one
        raise Misconfigured(
            f"ca_file: {options.ca_file}: {error.strerror or error}", remedy="name a readable PEM bundle"
        ) from error
    try:
        proxy = None if options.proxy is None else httpx2.Proxy(options.proxy)
    except (ValueError, httpx2.InvalidURL):
        raise Misconfigured("proxy: that is no URL of an HTTP proxy", remedy="http://proxy.example:3128") from None
    return {"verify": tls, "proxy": proxy, "timeout": options.timeout}


def _as_we_say(request: httpx2.Request) -> httpx2.Request:
    """An `auth` that does nothing, in place of the default, which would put passwords of ~/.netrc over a token."""
    return request


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, in either of its forms (RFC 9110, 10.2.3); None if it is not there."""
    told = headers.get("retry-after")
    if told is None:
        return None
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    if (until := _time_of(told)) is None:
        return None
    now = _time_of(headers.get("date", ""))  # the server's clock, which may not be ours
    return max(0.0, until - (time.time() if now is None else now))


def _time_of(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def part(document: Any, key: str, kind: type, place: str) -> Any:
    """`document[key]`, which must be there and of a kind: an answer without it is no answer, not an empty one."""
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, kind):
        raise ServerFault(f'{place}: the answer has no "{key}"')
    return found


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _said_origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "what is no URL"
    return f"{parts.scheme}://{parts.hostname}" if parts.hostname else "another path"


def _sentence_of(document: Any) -> str:
    for key in ("message", "error_description", "detail", "error", "errorSummary", "description"):
        value = document.get(key)
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value:
            return value
    return ""


@contextmanager
def failures(place: str, options: HttpOptions, library: str = "httpx2") -> Iterator[None]:
    """Turn what httpx2, or httpx, raises into our errors; `place` is said first in each."""
    http: Any = importlib.import_module(library)

    try:
        yield
    except http.TimeoutException as error:
        raise Unreachable(f"{place}: no answer in {options.timeout:g} s") from error
    except http.ProxyError as error:
        raise Unreachable(f"{place}: the proxy refuses: {error}", remedy="check `proxy`") from error
    except http.ConnectError as error:
        if "SSL" in str(error).upper() or "CERTIFICATE" in str(error).upper():
            raise Unreachable(
                f"{place}: TLS failed: {error}",
                remedy="if a private authority signs for this host, name its PEM bundle in `ca_file`",
            ) from error
        raise Unreachable(
            f"{place}: cannot connect: {error}", remedy="check `endpoint`, the network, and `proxy`"
        ) from error
    except (http.RemoteProtocolError, http.DecodingError) as error:
        raise ServerFault(f"{place}: the answer is cut short, or is not HTTP: {one_line(str(error))}") from error
    except http.InvalidURL as error:
        raise BadData(f"{place}: a link that is no URL: {one_line(str(error))}") from error
    except http.TransportError as error:
        raise Unreachable(f"{place}: the connection broke ({type(error).__name__})") from error
