"""Microsoft Graph v1.0: the SDK's request adapter authenticates and sends; paging, retries and judging are ours.

Answers are read raw: the SDK's models cost some 5 s of CPU per 1000 objects. Its retry and redirect handlers are left
out: they wait on their own clock, without a limit that we set, and follow wherever a server points.
"""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from connectors.answers import one_line
from connectors.errors import BadData, ConnectorError, Incomplete, Misconfigured, StaleBookmark
from connectors.http import Api, part
from connectors.options import HttpOptions
from connectors.paging import Pages

if TYPE_CHECKING:
    import httpx
    from azure.core.credentials import TokenCredential

PUBLIC = "https://graph.microsoft.com"
CLOUDS = frozenset(
    {
        PUBLIC,
        "https://graph.microsoft.us",
        "https://dod-graph.microsoft.us",
        "https://microsoftgraph.chinacloudapi.cn",
    }
)
"""https://learn.microsoft.com/graph/deployments. Each takes tokens for itself only."""

_FORGOTTEN = ("syncstatenotfound", "syncstateinvalid", "resyncrequired", "resyncapplydifferences")
"""Codes that tell of a delta token that is no more, in lower case: https://learn.microsoft.com/graph/errors."""


class Graph:
    """One client and one event loop. Closes `credential` with itself."""

    def __init__(self, options: HttpOptions, credential: TokenCredential) -> None:
        self._options = options
        self._credential = credential
        self._origin = (options.endpoint or PUBLIC).rstrip("/").removesuffix("/v1.0")
        self._audience = f"{self._origin if self._origin in CLOUDS else PUBLIC}/.default"
        self._runner: asyncio.Runner | None = None
        self._client: httpx.AsyncClient | None = None
        self._adapter: Any = None  # msgraph_core has no types
        self._resuming = False
        self._api = Api(
            options,
            f"{self._origin}/v1.0",
            # When a tenant is throttled, those go first that people do not wait for.
            headers={"Accept": "application/json", "x-ms-throttle-priority": "low"},
            credentials="the access token",
            told=_told,
            meant=self._meant,
            send=self._send,
            library="httpx",
        )

    def get(self, path: str, permission: str, *, resuming: bool = False) -> dict[str, Any]:
        """The document at `path`: relative to the version, or a link that Graph gave. `resuming`: from a bookmark."""
        self._resuming = resuming
        # Before the request, which has its own limit and its own attempts: the adapter then finds a token at hand.
        self._credential.get_token(self._audience, claims=None, enable_cae=True)
        document = self._api.get(path, permission=permission).body
        if not isinstance(document, dict):
            raise BadData(f"{self.place(path)}: the answer is no JSON object")
        return document

    def pages(
        self, path: str, permission: str, *, resuming: bool = False
    ) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
        """The rows of each page of a list; and of a round of a delta query the query of its `deltaLink`, at the end."""
        pages = Pages(self.place(path))
        while True:
            page = self.get(path, permission, resuming=resuming)
            rows = part(page, "value", list, self.place(path))
            if not all(isinstance(row, dict) for row in rows):
                raise BadData(f"{self.place(path)}: expected a list of objects")
            following, delta = page.get("@odata.nextLink"), page.get("@odata.deltaLink")
            for link in (following, delta):
                if link is not None and not (isinstance(link, str) and link):
                    raise BadData(f"{self.place(path)}: a link that is no text")
            yield rows, _query(delta) if delta else None
            if following is None:
                return
            path, resuming = pages.turn(following), False

    def place(self, path: str) -> str:
        """What messages call a request to `path`: without its query, which may hold a token."""
        return one_line(urlsplit(path).path)

    def close(self) -> None:
        """Close the connections, and the event loop that they live in."""
        self._api.close()
        runner, client, self._runner, self._client, self._adapter = self._runner, self._client, None, None, None
        if runner is not None:
            if client is not None:
                runner.run(client.aclose())
            runner.close()
        if close := getattr(self._credential, "close", None):
            close()

    def _send(self, method: str, url: str, *, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(self._ask(method, url, headers))

    async def _ask(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        import httpx
        from kiota_abstractions.method import Method
        from kiota_abstractions.native_response_handler import NativeResponseHandler
        from kiota_abstractions.request_information import RequestInformation
        from kiota_http.middleware.options import ResponseHandlerOption

        request = RequestInformation(Method(method))
        request.url = url
        for name, value in headers.items():
            request.headers.add(name, value)
        # With this handler the adapter gives the response as it came, whatever its status.
        request.add_request_options([ResponseHandlerOption(NativeResponseHandler())])
        adapter = self._opened()
        try:
            async with asyncio.timeout(self._options.timeout):  # httpx's own limit starts anew with each piece
                response: Any = await adapter.send_primitive_async(request, "bytes", {})
        except TimeoutError as error:
            raise httpx.ReadTimeout("the answer takes too long") from error
        return response.status_code, response.headers, response.content

    def _opened(self) -> Any:
        if self._adapter is None:
            import httpx
            from kiota_authentication_azure.azure_identity_authentication_provider import (
                AzureIdentityAuthenticationProvider,
            )
            from msgraph_core import BaseGraphRequestAdapter  # type: ignore[import-untyped]

            parts = urlsplit(self._origin)
            proxies = {} if urllib.request.proxy_bypass(parts.netloc) else urllib.request.getproxies()
            try:
                tls = ssl.create_default_context(cafile=self._options.ca_file)
            except OSError as error:  # ssl.SSLError is one
                raise Misconfigured(
                    f"ca_file: {self._options.ca_file}: {error.strerror or error}", remedy="name a readable PEM bundle"
                ) from error
            try:
                self._client = httpx.AsyncClient(
                    verify=tls,
                    proxy=self._options.proxy or proxies.get(parts.scheme),
                    timeout=self._options.timeout,
                    trust_env=False,  # it would read passwords from ~/.netrc; proxies are told above
                )
            except (ValueError, httpx.InvalidURL):
                raise Misconfigured(
                    "proxy: that is no URL of an HTTP proxy", remedy="http://proxy.example:3128"
                ) from None
            provider = AzureIdentityAuthenticationProvider(
                self._credential, scopes=[self._audience], allowed_hosts=[parts.hostname or ""]
            )
            self._adapter = BaseGraphRequestAdapter(provider, http_client=self._client)
        return self._adapter

    def _meant(self, place: str, status: int, sentence: str) -> ConnectorError | None:
        """What Graph means by some errors; https://learn.microsoft.com/graph/delta-query-overview."""
        codes = sentence.partition(":")[0].casefold().split("/")
        # A request that holds a bookmark and nothing else is a bad one for its bookmark's sake.
        if status == 410 or (self._resuming and status in {400, 404}) or any(code in _FORGOTTEN for code in codes):
            return StaleBookmark(f"{place}: {status} ({sentence or 'the delta token is no longer known'})")
        if "directory_expiredpagetoken" in codes:
            return Incomplete(f"{place}: {status} ({sentence})", remedy="the next run begins anew")
        if status == 404 and "request_resourcenotfound" in codes:
            return Incomplete(
                f"{place}: {status} ({sentence})", remedy="it was deleted while read: the next run is right"
            )
        return None


def _query(link: str) -> str:
    try:
        return urlsplit(link).query
    except ValueError:
        return ""


def _told(document: Any) -> str:
    """The codes of an error, from the outer to the inner ones, and what it says."""
    error = document["error"]
    codes, inner = [], error
    while isinstance(inner, dict):
        if isinstance(code := inner.get("code"), str) and code:
            codes.append(code)
        inner = inner.get("innerError", inner.get("innererror"))
    return f"{'/'.join(codes)}: {error.get('message') or ''}".strip(": ")
