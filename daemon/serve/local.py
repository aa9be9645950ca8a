"""Keeps browsers out. A page on the web must not make somebody's browser ask the socket, should it be forwarded.

A browser says so itself: it sends `Origin` with what scripts ask, and the name it was led to as `Host` (DNS rebinding
gives a foreign name the address of this host). Programs that speak to a Unix socket send neither.
"""

from __future__ import annotations

import ipaddress

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from daemon.serve.problems import Problem


class LocalOnly:
    """Answers 403 in place of the application to what comes from a browser, or through a foreign name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        for name, value in scope["headers"]:
            if name == b"origin":
                await _refuse("requests with `Origin` come from a browser", scope, receive, send)
                return
            if name == b"host" and not is_local(value):
                await _refuse("`Host` names another host; say localhost", scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_local(host: bytes) -> bool:
    """Whether a `Host` is a name without a domain (`localhost`, `ownerd`, or nothing), or a loopback address."""
    if b"." not in host and b"[" not in host:
        return True
    name = host.decode("latin-1").rpartition(":")[0] if host[-1:] != b"]" and b":" in host else host.decode("latin-1")
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


async def _refuse(why: str, scope: Scope, receive: Receive, send: Send) -> None:
    problem = Problem("not-local", why)
    answer = Response(problem.to_json(), problem.status, media_type="application/problem+json")
    await answer(scope, receive, send)
