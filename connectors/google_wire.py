"""HTTP for Google's clients, by the HTTP options, and its failures as ours: urllib3, which comes with the clients.

httplib2, googleapiclient's own, would go past a proxy in silence unless PySocks is there, trust certifi's authorities
instead of the system's, and could give the answer of a request that timed out to the next one.
"""

from __future__ import annotations

import re
import ssl
import time
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from connectors.answers import one_line
from connectors.errors import Misconfigured
from connectors.options import HttpOptions
from connectors.urllib3_errors import failures, until

if TYPE_CHECKING:
    import urllib3

_METADATA = {"metadata.google.internal", "metadata", "169.254.169.254", "fd20:ce::254"}
"""Hosts of the metadata server, which is never asked through a proxy."""


class Wire:
    """Makes requests by the HTTP options. Its connections are one thread's."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        try:
            self._tls = ssl.create_default_context(cafile=options.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise Misconfigured(
                f"ca_file: {options.ca_file}: {error.strerror or error}", remedy="name a readable PEM bundle"
            ) from error
        self._pools: dict[str, urllib3.PoolManager] = {}

    def __deepcopy__(self, memo: object) -> NoReturn:
        # google.auth would ask for a "regional access boundary" with a copy, in a thread of its own: nobody waits for
        # that, and where it cannot copy, it does not ask.
        msg = "connections are not copied"
        raise TypeError(msg)

    def send(
        self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower-case) and body of the answer. Redirects are not followed."""
        import urllib3

        limit = self._options.timeout
        ends = time.monotonic() + limit
        with failures(place_of(url), limit):
            answer = self._pool(url).request(
                method,
                url,
                body=body,
                headers=dict(headers or {}),
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=limit, read=limit),
                preload_content=False,
            )
            try:
                content = b"".join(until(ends, answer.stream(1 << 16, decode_content=True)))
            except BaseException:
                answer.close()  # what is left of this answer must not begin the next
                raise
        return answer.status, {k.lower(): v for k, v in answer.headers.items()}, content

    def _pool(self, url: str) -> urllib3.PoolManager:
        import urllib3

        proxy = self._proxy(url)
        if proxy not in self._pools:
            if not proxy:
                self._pools[proxy] = urllib3.PoolManager(ssl_context=self._tls)
                return self._pools[proxy]
            parts = urllib3.util.parse_url(proxy)
            headers = urllib3.make_headers(proxy_basic_auth=parts.auth) if parts.auth else None
            self._pools[proxy] = urllib3.ProxyManager(
                proxy, proxy_headers=headers, ssl_context=self._tls, proxy_ssl_context=self._tls
            )
        return self._pools[proxy]

    def _proxy(self, url: str) -> str:
        """The proxy for `url`, or "". Without the option, the usual variables tell one."""
        parts = urlsplit(url)
        if parts.hostname in _METADATA:
            return ""
        proxy = self._options.proxy
        if proxy is None:
            if urllib.request.proxy_bypass(parts.netloc):
                return ""
            proxy = urllib.request.getproxies().get(parts.scheme, "")
            if proxy and "://" not in proxy:
                proxy = f"http://{proxy}"
        if proxy and not re.match(r"https?://[^/]", proxy):
            raise Misconfigured("proxy: that is no URL of an HTTP proxy", remedy="http://proxy.example:3128")
        return proxy

    def close(self) -> None:
        """Let go of connections."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.clear()


def place_of(url: str) -> str:
    """Host and path of `url`, for messages."""
    parts = urlsplit(url)
    return one_line(f"{parts.hostname}{parts.path}")
