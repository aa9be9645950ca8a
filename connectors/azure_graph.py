"""The client of Azure Resource Graph: pages, the quota, and failures as ours.

Sources, on learn.microsoft.com: "Azure Resource Graph" (REST API 2021-03-01; Guidance for pagination; Guidance for
throttled requests), "Common error codes" of Azure Resource Manager, "Numerical operators" of the Kusto query language.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from connectors import retry
from connectors.answers import one_line, parse_json, text_of
from connectors.azure_auth import AzureCredentials, credential, failures, proxies, transport
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
from connectors.http import check_sendable, retry_after
from connectors.moving import Moved, each_once
from connectors.paging import Pages

if TYPE_CHECKING:
    from azure.mgmt.resourcegraph import ResourceGraphClient
    from azure.mgmt.resourcegraph.models import QueryRequest

PUBLIC = "https://management.azure.com"
CLOUDS = frozenset({PUBLIC, "https://management.usgovcloudapi.net", "https://management.chinacloudapi.cn"})
"""Each takes tokens for itself only."""
PERMISSION = "Microsoft.ResourceGraph/resources/read"

_PER_PAGE = 1000
_MOST_PARTS = 1_000_000


class Answer:
    """One page. ServerFault where a part is missing that is always sent."""

    def __init__(self, body: Any, headers: Mapping[str, str], place: str) -> None:
        document = body if isinstance(body, dict) else {}
        rows, total, truncated = (document.get(key) for key in ("data", "totalRecords", "resultTruncated"))
        if not (isinstance(rows, list) and type(total) is int and isinstance(truncated, str)):
            raise ServerFault(f"{place}: the answer lacks data, totalRecords or resultTruncated")
        if not all(isinstance(row, dict) for row in rows):
            raise BadData(f"{place}: a row is no object")
        token = document.get("$skipToken")
        if token is not None and not isinstance(token, str):
            raise BadData(f"{place}: $skipToken is no text")
        self.rows: list[dict[str, Any]] = rows
        self.total = total
        self.token = token or None
        self.truncated = truncated.lower() == "true"
        try:
            self.time = parsedate_to_datetime(headers.get("date", "")).astimezone(UTC)
        except (TypeError, ValueError) as error:
            raise ServerFault(f"{place}: the answer has no Date") from error


class _TooLarge(BadData):
    """The page would be more than the 16 MiB that an answer may hold: tags can be 38 KiB a resource."""


class ResourceGraph:
    """The client, kept to its quota. For one thread."""

    def __init__(self, options: AzureCredentials) -> None:
        self._options = options
        self._origin = (options.endpoint or PUBLIC).rstrip("/")
        self._audience = f"{self._origin if self._origin in CLOUDS else PUBLIC}/.default"
        self._credential = credential(options)
        self._client: ResourceGraphClient | None = None
        self._closed_until = 0.0

    def close(self) -> None:
        """Let go of connections."""
        if self._client is not None:
            self._client.close()
        self._credential.close()

    def rows(
        self, place: str, query: str, subscriptions: list[str] | None, group: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """All rows of a query, each id once.

        A list that changes while its pages are read is read again in parts that no change shifts.
        """

        def pages(attempt: int) -> Iterator[list[dict[str, Any]]]:
            read = self._parts if attempt else self._pages
            return read(place, query, subscriptions, group)

        return each_once(place, pages, lambda row: _key(row, place))

    def _pages(
        self, place: str, query: str, subscriptions: list[str] | None, group: str | None
    ) -> Iterator[list[dict[str, Any]]]:
        """The list by its tokens, which go by position.

        So each page begins with the last row of the one before: had anything come or gone in front of it, another row
        would stand there.
        """
        guard, token, total, count, size = Pages(place), None, None, 0, _PER_PAGE
        last, skip = "", None
        while True:
            try:
                answer = self.ask(place, query, subscriptions, group, token=token, skip=skip, top=size)
            except _TooLarge:
                if size <= 2:
                    raise
                size = max(2, size // 2)  # one row is that of the page before
                continue
            if total not in {None, answer.total}:
                raise Moved("it changed between two pages")
            rows = answer.rows
            if skip is not None:
                if not rows or _key(rows[0], place) != last:
                    raise Moved("two pages did not meet")
                rows = rows[1:]
            total, count = answer.total, count + len(rows)
            yield rows
            if answer.token is None:
                break
            token = guard.turn(answer.token)
            if rows:
                last, skip = _key(rows[-1], place), count - 1
        if answer.truncated:
            raise _truncated(place, count, total)
        if count != total:
            raise Moved(f"{count} of {total} rows came")

    def _parts(
        self, place: str, query: str, subscriptions: list[str] | None, group: str | None
    ) -> Iterator[list[dict[str, Any]]]:
        """The list in parts by a hash of the ids, as "Guidance for pagination" says, each small enough for one page.

        Whatever comes or goes meanwhile, a row that stays is in one part, and a page shows a moment. Kusto's % is never
        negative.
        """
        table, _, rest = query.partition(" | ")
        left = [(0, 1)]
        while left:
            number, of = left.pop()
            part = query if of == 1 else f"{table} | where hash(tolower(id)) % {of} == {number} | {rest}"
            try:
                answer = self.ask(place, part, subscriptions, group)
            except _TooLarge:
                if of > _MOST_PARTS:
                    raise
                pieces = 2
            else:
                if answer.truncated:
                    raise _truncated(place, len(answer.rows), answer.total)
                if answer.token is None:
                    if len(answer.rows) != answer.total:
                        raise Moved(f"{len(answer.rows)} of {answer.total} rows came")
                    yield answer.rows
                    continue
                if of > _MOST_PARTS:
                    raise Incomplete(f"{place}: one of {of} parts is still more than a page")
                # Filled to four fifths: parts differ in size, and the list may grow.
                pieces = max(2, answer.total * 5 // (4 * max(1, len(answer.rows))) + 1)
            left += [(number + of * piece, of * pieces) for piece in range(pieces)]

    def ask(
        self,
        place: str,
        query: str,
        subscriptions: list[str] | None,
        group: str | None = None,
        *,
        token: str | None = None,
        skip: int | None = None,
        top: int = _PER_PAGE,
    ) -> Answer:
        """One page. A token that ended is renewed once."""
        from azure.mgmt.resourcegraph.models import QueryRequest, QueryRequestOptions

        request = QueryRequest(
            query=query,
            subscriptions=subscriptions,
            management_groups=[group] if group else None,
            options=QueryRequestOptions(top=top, skip=skip, skip_token=token, result_format="objectArray"),
        )
        for renewed in (False, True):
            bearer = self._credential.get_token(self._audience).token
            check_sendable(bearer, "the access token")
            try:
                return retry.retrying(functools.partial(self._once, place, request, bearer))
            except Unauthenticated:
                if renewed or not self._credential.renew():
                    raise
        raise AssertionError

    def _once(self, place: str, request: QueryRequest, bearer: str) -> Answer:
        if (left := self._closed_until - time.monotonic()) > 0:
            retry.sleep(left)
        self._closed_until = 0.0
        answers: list[Answer] = []
        with failures(place, self._options):
            self._open().resources(
                request,
                headers={"Authorization": f"Bearer {bearer}"},
                # Before the SDK looks at it: what is no answer has many forms there.
                raw_response_hook=lambda answered: answers.append(self._judged(place, answered.http_response)),
            )
        return answers[0]

    def _judged(self, place: str, response: Any) -> Answer:
        status, headers = response.status_code, response.headers
        if status != 200:
            raise _refused(place, status, headers, response.content)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if not kind.endswith("json"):
            raise ServerFault(f"{place}: the answer is no JSON, but {one_line(kind, 80) or 'of no type'}")
        answer = Answer(parse_json(place, response.content), headers, place)
        if (quota := _quota(headers)) and quota[0] <= 1:
            self._closed_until = time.monotonic() + min(quota[1], retry.LONGEST_WAIT)
        if headers.get("x-ms-tenant-subscription-limit-hit", "").lower() == "true":
            raise Incomplete(
                f"{place}: more than 10,000 subscriptions, and the rest was left out",
                remedy="give `subscriptions`, or a `management_group` with fewer, in several integrations",
            )
        return answer

    def _open(self) -> ResourceGraphClient:
        if self._client is None:
            from azure.core.pipeline import policies
            from azure.mgmt.resourcegraph import ResourceGraphClient

            more = {"proxies": through} if (through := proxies(self._options)) is not None else {}
            # Without the usual retries (`retrying` does them), redirects (the token would go along), logs, and the
            # policy that registers resource providers, which writes.
            self._client = ResourceGraphClient(
                self._credential,
                self._origin,
                transport=transport(self._options),
                policies=[
                    policies.RequestIdPolicy(),
                    policies.UserAgentPolicy("ownerd"),
                    policies.ProxyPolicy(**more),
                    policies.CustomHookPolicy(),
                ],
            )
        return self._client


def _quota(headers: Mapping[str, str]) -> tuple[int, float] | None:
    """Queries that are left, and seconds until there are more; https://aka.ms/resourcegraph-throttling."""
    left = re.fullmatch(r"-?\d{1,9}", headers.get("x-ms-user-quota-remaining", "").strip())
    wait = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", headers.get("x-ms-user-quota-resets-after", "").strip())
    if not left or not wait:
        return None
    return int(left[0]), int(wait[1]) * 3600 + int(wait[2]) * 60 + float(wait[3])


def _refused(place: str, status: int, headers: Mapping[str, str], body: bytes) -> ConnectorError:
    codes, said = _told(body)
    said = f" ({said})" if said else ""
    if status == 401:
        return Unauthenticated(
            f"{place}: the access token was refused: 401{said}", remedy="it is wrong, expired or revoked; renew it"
        )
    if status == 403 or "NoValidSubscriptionsInQueryRequest" in codes:
        return Forbidden(
            f"{place}: the credentials may not: {status}{said}; it needs {PERMISSION} and Reader",
            permission=PERMISSION,
            remedy="az role assignment create --role Reader --assignee APP_ID --scope SCOPE",
        )
    wait = retry_after(headers)
    if status == 429:
        if wait is None and (quota := _quota(headers)) and quota[0] <= 0:
            wait = quota[1]
        return Throttled(f"{place}: too many requests: 429{said}", retry_after=wait)
    if status >= 500 or status == 408:
        if wait is not None:
            return Throttled(f"{place}: {status}{said}", retry_after=wait)
        return ServerFault(f"{place}: the server failed: {status}{said}")
    if 300 <= status < 400:
        return Misconfigured(f"{place}: a redirect is not followed: {status}", remedy="set `endpoint` to the API's own")
    if status == 404:
        return Misconfigured(f"{place}: no such thing: 404{said}", remedy="check `endpoint` and `management_group`")
    if "ResponsePayloadTooLarge" in codes:
        return _TooLarge(f"{place}: one row is more than an answer may hold: {status}{said}")
    return BadData(f"{place}: {status}{said}")


def _told(body: bytes) -> tuple[set[str], str]:
    """An error's codes, the details' included, and what it says (ARM's common error format)."""
    try:
        error = parse_json("", body)["error"]
        parts = [(str(part["code"]), str(part.get("message") or "")) for part in (error, *(error.get("details") or ()))]
    except (ServerFault, AttributeError, TypeError, KeyError):
        return set(), ""
    return {code for code, _ in parts}, one_line("; ".join(f"{code}: {message}" for code, message in parts))


def _truncated(place: str, count: int, total: int | None) -> Incomplete:
    return Incomplete(f"{place}: the result was truncated: {count} of {total} rows, and no way to the rest")


def _key(row: Mapping[str, Any], place: str) -> str:
    return text_of(row, "id", f"{place}: a row").lower()


def quoted(text: str) -> str:
    """A string literal of the query language."""
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return "'" + "".join(escapes.get(c, c) for c in text) + "'"
