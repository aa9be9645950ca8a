"""What the servers of directories for tests share beyond `tests.servers.oncall`: POST, and tokens for a client's credentials."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs

from tests.servers.base import body_of
from tests.servers.oncall import OnCallServer, Page, Refusal


class DirectoryServer(OnCallServer):
    """A server that also takes POST: `body` is what the request at hand has sent, or None."""

    methods = ("GET", "POST")

    def __init__(self) -> None:
        super().__init__()
        self._bodies = threading.local()
        self.bodies: list[bytes | None] = []
        """Of each request."""

    @property
    def body(self) -> bytes | None:
        return getattr(self._bodies, "value", None)

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        self._bodies.value = body_of(request) if request.command == "POST" else None
        super().serve(request)


class TokenServer(DirectoryServer):
    """One that gives tokens to a client (RFC 6749, 4.4)."""

    client_id, client_secret = "client-1", "c1-SECRET"
    token_path: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.tokens = 0
        """How many were given."""
        self.valid: set[str] = set()
        self.lasts = 3600

    def end_tokens(self) -> None:
        """Every token that was given has ended."""
        self.valid.clear()

    def token(self, headers: Mapping[str, str]) -> Page:
        """The answer to a request at `token_path`."""
        pair = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        if headers.get("authorization") != f"Basic {pair}":
            raise self.unknown_client()
        body = self.body or b""
        asked = json.loads(body) if body.startswith(b"{") else {k: v[0] for k, v in parse_qs(body.decode()).items()}
        assert asked == {"grant_type": "client_credentials"}, asked
        self.tokens += 1
        token = f"token-{self.tokens}-SECRET"
        self.valid.add(token)
        return Page(self.granted({"access_token": token, "token_type": "bearer", "expires_in": self.lasts}), "token")

    def granted(self, document: dict[str, Any]) -> dict[str, Any]:
        return document

    def unknown_client(self) -> Refusal:
        return Refusal(
            401, {"error": "invalid_client", "error_description": "Request denied: Invalid client credentials"}
        )

    def is_authorized(self, headers: Mapping[str, str]) -> bool:
        return headers.get("authorization", "").removeprefix("Bearer ") in self.valid
