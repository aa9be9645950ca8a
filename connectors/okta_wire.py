"""Asking an Okta org: logins, lists and their pages, several at once, retries, pace, and what errors mean.

The SDK's request executor authenticates; paging, retries, pace and the judging of answers are ours, over raw bodies.
The SDK's are not to be trusted: errors are returned and get lost, the paging helper reads only the first of two Link
headers, the token is logged, redirects are followed, waits have no limit.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from connectors.aio import Wire, failures, open_wire
from connectors.answers import one_line, parse_json
from connectors.errors import (
    BadData,
    ConnectorError,
    Forbidden,
    Incomplete,
    Misconfigured,
    ServerFault,
    Throttled,
    Transient,
    Unauthenticated,
)
from connectors.okta_options import OktaOptions
from connectors.options import Secret
from connectors.pace import Pace
from connectors.paging import Pages
from connectors.retry import retrying

AT_ONCE = 8
"""Lists that are read side by side. An org takes 35 requests at the same time, or 75, from all that use it:
https://developer.okta.com/docs/reference/rl-additional-limits/"""


@dataclass(frozen=True)
class Listing:
    """A list of the API. `permission` is what a custom admin role needs, `oauth` the scopes of an OAuth app.

    `role` is a standard role that gives the permission, where custom ones cannot.
    """

    what: str
    path: str
    permission: str
    oauth: tuple[str, ...]
    key: str = ""
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    role: str = ""


class Page(NamedTuple):
    """A page's rows, the cursor of the next (None at the end), and the server's clock: seconds since the epoch."""

    rows: list[dict[str, Any]]
    after: str | None
    clock: float | None


@dataclass
class _Ask:
    """The next page of one list."""

    listing: Listing
    place: str
    subject: str
    query: dict[str, str]
    pages: Pages = field(init=False)

    def __post_init__(self) -> None:
        self.pages = Pages(self.place)

    @property
    def path(self) -> str:
        query = urlencode(self.query, quote_via=quote)
        return f"{self.listing.path.format(quote(self.subject, safe=''))}{'?' if query else ''}{query}"

    def goes_on(self, page: Page) -> bool:
        """Whether there is a next page; if so, this asks for it from now on."""
        if page.after is not None:
            self.query["after"] = self.pages.turn(page.after)
        return page.after is not None


class Org:
    """One Okta org, as its lists."""

    def __init__(self, options: OktaOptions) -> None:
        self.host = urlsplit(options.org_url).netloc
        self._options = options
        self._url = options.org_url.rstrip("/")
        self._pace = Pace(options.rate_share)
        self._runner: asyncio.Runner | None = None
        self._wire: Wire | None = None
        self._executors: dict[tuple[str, ...], Any] = {}

    def close(self) -> None:
        """Close the connections, and the event loop that they live in."""
        if self._runner is not None:
            if self._wire is not None:
                self._runner.run(self._wire.close())
            self._runner.close()
            self._runner = self._wire = None

    # Lists and pages

    def rows(self, listing: Listing, subject: str = "", **query: str) -> Iterator[dict[str, Any]]:
        """The objects of a list; `subject` is the id in its path, `query` adds to its own."""
        for page in self.pages(listing, subject, **query):
            yield from page.rows

    def pages(self, listing: Listing, subject: str = "", **query: str) -> Iterator[Page]:
        """The pages of a list."""
        ask = self._ask(listing, subject, query)
        while True:
            page = self._round([ask])[0]
            yield page
            if not ask.goes_on(page):
                return

    def first(self, listing: Listing, **query: str) -> Page:
        """Only the first page of a list."""
        return self._round([self._ask(listing, "", query)])[0]

    def side_by_side(self, listing: Listing, subjects: Iterable[str]) -> Iterator[tuple[str, Page]]:
        """The pages of that list of every subject, with the subject: those of one in their order, others in between.

        Subjects are taken as places get free, so that no more than AT_ONCE pages are held.
        """
        left = iter(subjects)
        reading: deque[_Ask] = deque()
        while True:
            reading.extend(self._ask(listing, subject, {}) for subject in islice(left, AT_ONCE - len(reading)))
            if not reading:
                return
            asked = list(reading)
            reading.clear()
            for ask, page in zip(asked, self._round(asked), strict=True):
                yield ask.subject, page
                if ask.goes_on(page):
                    reading.append(ask)

    def _ask(self, listing: Listing, subject: str, query: Mapping[str, str]) -> _Ask:
        return _Ask(listing, f"{self.host}: {listing.what.format(subject)}", subject, {**dict(listing.query), **query})

    def _round(self, asks: Sequence[_Ask]) -> list[Page]:
        """The pages that these ask for, all of one listing, at the same time. Only what fails is asked again."""
        pages: dict[int, Page] = {}

        def once() -> list[Page]:
            left = [n for n in range(len(asks)) if n not in pages]
            failed: list[ConnectorError] = []
            while left and not failed:
                now = left[: self._pace.keep(asks[0].listing.path, len(left))]
                del left[: len(now)]
                for n, outcome in zip(now, self._exchange([asks[n] for n in now]), strict=True):
                    try:
                        pages[n] = self._understand(asks[n], outcome)
                    except ConnectorError as error:
                        failed.append(error)
            if failed:
                raise max(failed, key=_gravity)
            return [pages[n] for n in range(len(asks))]

        return retrying(once)

    def _understand(self, ask: _Ask, outcome: tuple[Any, bytes] | BaseException) -> Page:
        with failures(ask.place, self._options):
            if isinstance(outcome, BaseException):
                raise outcome
        response, body = outcome
        _judge(ask.place, response, body, ask.listing)
        self._count(ask.listing, response.headers)
        document = parse_json(ask.place, body)
        after = _next(ask.place, response, document)
        key = ask.listing.key
        rows = document.get(key) if key and isinstance(document, dict) else document
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise BadData(f"{ask.place}: expected a list of objects")
        return Page(rows, after, _clock(response.headers))

    def _count(self, listing: Listing, headers: Mapping[str, str]) -> None:
        wait = _until_reset(headers)
        names = ("X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset")
        told = [headers.get(name, "") for name in names]
        if wait is not None and all(x.isdecimal() for x in told):
            limit, remaining, ends = map(int, told)
            self._pace.count(listing.path, limit=limit, remaining=remaining, ends=ends, wait=wait)
        else:
            self._pace.untold(listing.path)

    # Requests

    def _exchange(self, asks: Iterable[_Ask]) -> list[tuple[Any, bytes] | BaseException]:
        """The responses to these, whatever their status, with their bodies; or why there are none."""
        if self._runner is None:
            self._runner = asyncio.Runner()

        async def all_of() -> list[tuple[Any, bytes] | BaseException]:
            return await asyncio.gather(*map(self._send, asks), return_exceptions=True)

        return self._runner.run(all_of())

    async def _send(self, ask: _Ask) -> tuple[Any, bytes]:
        if self._wire is None:
            self._wire = open_wire(self._options, self._options.endpoint or self._url)
        scopes = ask.listing.oauth
        executor = self._executors.get(scopes) or self._executor(scopes, self._wire)
        response, body = await self._fire(executor, ask)
        if response.status == 401 and self._options.private_key is not None:
            # An access token can end before its time: revoked, or by a clock that is ahead. Once, a new one.
            if self._executors.get(scopes) is executor:
                del self._executors[scopes]
            executor = self._executors.get(scopes) or self._executor(scopes, self._wire)
            response, body = await self._fire(executor, ask)
        return response, body

    async def _fire(self, executor: Any, ask: _Ask) -> tuple[Any, bytes]:
        try:
            request, error = await executor.create_request("GET", ask.path, headers=dict(ask.listing.headers))
        except (ValueError, AttributeError) as caught:  # the SDK met something else than a JSON object
            raise ServerFault(f"{self.host}: access token: the answer is no JSON object") from caught
        if error is not None:
            raise BadData(f"{self.host}: access token: the answer holds none")
        _, response, body, _ = await executor.fire_request_helper(request, 0, time.time())
        return response, body

    def _executor(self, scopes: tuple[str, ...], wire: Wire) -> Any:
        """The SDK's request executor: without retries, and without its own configuration files and variables.

        One for each set of OAuth scopes: a token is refused whole if the app lacks one of them.
        """
        from okta.cache.no_op_cache import NoOpCache
        from okta.request_executor import RequestExecutor

        client: dict[str, Any] = {"orgUrl": self._url, "requestTimeout": 0, "rateLimit": {"maxRetries": 0}}
        if (token := self._options.token) is not None:
            if not re.fullmatch(r"[!-~]+", token.value):
                raise Misconfigured(f"token: {token.place} holds what no token has, such as a space")
            client |= {"authorizationMode": "SSWS", "token": token.value}
        elif (key := self._options.private_key) is not None:
            client |= {"authorizationMode": "PrivateKey", "clientId": self._options.client_id, "scopes": list(scopes)}
            client |= {"privateKey": _rsa_key(key), "oauthTokenRenewalOffset": 5}
        base = (self._options.endpoint or self._url).rstrip("/")
        transport = _transport(wire.session, self._url, base)
        executor = RequestExecutor({"client": client}, NoOpCache(), transport)  # type: ignore[no-untyped-call]
        self._executors[scopes] = executor
        return executor


def _transport(session: Any, org: str, base: str) -> Callable[[dict[str, Any]], Any]:
    """The SDK's HTTP client with our session: silent (its own logs the token), no redirects, errors raised."""
    from okta.http_client import HTTPClient
    from yarl import URL

    class Transport(HTTPClient):
        def _setup_proxy(self, proxy: Any) -> None:
            """The session has it."""

        async def send_request(self, request: dict[str, Any]) -> tuple[Any, Any, bytes, None]:
            url = URL(base + request["url"].removeprefix(org), encoded=True)
            headers, form = request["headers"], request["form"] or None
            async with session.request(
                request["method"], url, headers=headers, data=form, allow_redirects=False
            ) as response:
                body = await response.read()
            if form:  # the token endpoint: the SDK would keep what it says to itself
                _judge(f"{urlsplit(org).netloc}: access token", response, body, None)
            return response.request_info, response, body, None

    return Transport


def _rsa_key(secret: Secret) -> str:
    from okta.jwt import JWT

    try:
        JWT.get_PEM_JWK(secret.value)  # type: ignore[no-untyped-call]
    except Exception:  # noqa: BLE001  # a parser's complaint may quote the key
        raise Misconfigured(
            f"private_key: {secret.place} is no RSA private key",
            remedy="give the app's key as PEM without a passphrase, or as a JWK in JSON",
        ) from None
    return secret.value


def _gravity(error: ConnectorError) -> tuple[bool, float]:
    """Of several errors the one that counts: that no retry helps against, else that wants the longest wait."""
    wait = error.retry_after if isinstance(error, Throttled) else None
    return not isinstance(error, Transient), wait or 0.0


def _judge(place: str, response: Any, body: bytes, listing: Listing | None) -> None:
    """Raise what a status other than success means. `listing` is None for the token endpoint.

    https://developer.okta.com/docs/reference/error-codes/, RFC 6749 section 5.2
    """
    status: int = response.status
    if 200 <= status < 300:
        return
    code, said = _error_of(body)
    told = f"{place}: HTTP {status}{': ' if said else ''}{said}"
    if listing is None and status in {400, 401}:
        if code in {"invalid_scope", "consent_required"}:
            raise Forbidden(told, permission=code, remedy="grant the app the Okta API scopes that it asks for")
        dpop = "turn off the app's setting that requires DPoP: it is not supported" if "dpop" in code else ""
        raise Unauthenticated(told, remedy=dpop or "check client_id, and that private_key is an active key of that app")
    if status == 401:
        raise Unauthenticated(told, remedy="check the login: an API token ends with its user, or after 30 days unused")
    if status == 403:
        permission, scopes = (listing.permission, " and ".join(listing.oauth)) if listing else ("", "")
        role = listing.role if listing and listing.role else f"an admin role with {permission}"
        remedy = f"give the login {role}; an OAuth app also needs the scopes {scopes}"
        raise Forbidden(told, permission=permission, remedy=remedy)
    if status == 429:
        raise Throttled(told, retry_after=_until_reset(response.headers))
    if status >= 500:
        raise ServerFault(told)
    if code == "E0000007":
        raise Incomplete(told, remedy="it was deleted while the org was read: the next run is right")
    if status == 404 or status < 400:
        raise Misconfigured(told, remedy="check org_url: no Okta org answers there")
    raise BadData(told)


def _error_of(body: bytes) -> tuple[str, str]:
    """Okta's error code, and all it says in one line."""
    try:
        document = parse_json("", body)
    except ServerFault:
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    code = str(document.get("errorCode") or document.get("error") or "")
    summary = str(document.get("errorSummary") or document.get("error_description") or "")
    return code, one_line(f"{code} {summary}".strip())


def _next(place: str, response: Any, document: Any) -> str | None:
    """The cursor of the next page, from the Link headers or, in lists about roles, from the body; None at the end.

    Nothing else of that link is used: it may lead anywhere, and the token shall not follow.
    """
    from yarl import URL

    link = response.links.get("next")
    try:
        if link is None:
            if not isinstance(document, dict) or "next" not in (document.get("_links") or {}):
                return None
            link = {"url": document["_links"]["next"]["href"]}
        cursor = URL(link["url"]).query.get("after")
    except (KeyError, TypeError, ValueError) as error:
        raise BadData(f"{place}: the link to the next page cannot be understood") from error
    if not cursor:
        raise Incomplete(f"{place}: the link to the next page holds no cursor")
    return cursor


def _clock(headers: Mapping[str, str]) -> float | None:
    """The server's time, to the second, in seconds since the epoch; None if it does not tell."""
    try:
        return parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return None


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until the rate limit is whole again, by the server's clock, since ours may be wrong; None if untold.

    https://developer.okta.com/docs/reference/rl-best-practices/
    """
    now = _clock(headers)
    try:
        return None if now is None else max(0.0, int(headers["X-Rate-Limit-Reset"]) - now) + 1  # both: whole seconds
    except (KeyError, ValueError):
        return None
