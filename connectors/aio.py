"""For connectors whose SDK speaks through aiohttp: a session by the HTTP options, and its failures as ours."""

from __future__ import annotations

import asyncio
import socket
import ssl
import urllib.request
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from connectors.errors import Misconfigured, ServerFault, Unreachable
from connectors.options import HttpOptions

if TYPE_CHECKING:
    import aiohttp


class Wire:
    """A session, and its sockets: TLS to a peer that fell silent would stay open when the session closes."""

    def __init__(self) -> None:
        self.session: aiohttp.ClientSession
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def socket(self, address: Any) -> socket.socket:
        """Make the socket of a connection (aiohttp's `socket_factory`)."""
        made = socket.socket(*address[:3])
        self._sockets.add(made)
        return made

    async def close(self) -> None:
        """Close the session, and whatever it leaves open."""
        await self.session.close()
        left = [sock for sock in self._sockets if sock.fileno() != -1]
        for sock in left:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # its transport reads an end, and closes
        for _ in range(100):
            if all(sock.fileno() == -1 for sock in left):
                return
            await asyncio.sleep(0)


def open_wire(options: HttpOptions, url: str) -> Wire:
    """A session to `url`'s host. Call it inside the event loop that will use it.

    Without `proxy`, the usual variables tell one (HTTPS_PROXY, NO_PROXY). aiohttp could read them itself, but would
    then also put the passwords of ~/.netrc in place of a token.
    """
    import aiohttp

    parts = urlsplit(url)
    proxies = {} if urllib.request.proxy_bypass(parts.netloc) else urllib.request.getproxies()
    try:
        tls = ssl.create_default_context(cafile=options.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise Misconfigured(
            f"ca_file: {options.ca_file}: {error.strerror or error}", remedy="name a readable PEM bundle"
        ) from error
    wire = Wire()
    wire.session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, socket_factory=wire.socket),
        timeout=aiohttp.ClientTimeout(total=options.timeout),
        proxy=options.proxy or proxies.get(parts.scheme),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    return wire


@contextmanager
def failures(place: str, options: HttpOptions) -> Iterator[None]:
    """Turn what aiohttp raises into our errors; `place` is said first in each."""
    import aiohttp

    try:
        yield
    except TimeoutError as error:
        raise Unreachable(f"{place}: no answer in {options.timeout:g} s") from error
    except aiohttp.ClientSSLError as error:  # before its parent, the next
        raise Unreachable(
            f"{place}: TLS failed: {error.strerror or error.os_error}",
            remedy="if a private authority signs for this host, name its PEM bundle in `ca_file`",
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise Unreachable(
            f"{place}: cannot connect to {error.host}:{error.port}: {error.strerror or error.os_error}",
            remedy="check the URL, the network, and `proxy`",
        ) from error
    except aiohttp.ClientConnectionError as error:
        raise Unreachable(f"{place}: the connection broke before the answer ({type(error).__name__})") from error
    except aiohttp.ClientPayloadError as error:
        raise ServerFault(f"{place}: the answer ends in the middle") from error
    except aiohttp.ClientHttpProxyError as error:
        raise Unreachable(f"{place}: the proxy answers {error.status}", remedy="check `proxy`") from error
    except aiohttp.ClientResponseError as error:
        raise ServerFault(f"{place}: the answer is not HTTP") from error
