"""For APIs whose access token is taken with a client's credentials: OAuth 2.0, RFC 6749, sections 2.3.1 and 4.4."""

from __future__ import annotations

import base64
import time
from typing import Any

from connectors.errors import ConnectorError, Unauthenticated
from connectors.http import Answer, Api, part
from connectors.options import HttpOptions, Secret

EARLY = 60.0
"""Seconds before its end at which a token is not used any more."""


class Client:
    """Makes requests to `api` with a token, which is taken when it is needed, and once more when it ends early.

    `issuer` and `path` say where the token comes from; `body` is httpx2's `data` or `json` of that request.
    """

    def __init__(
        self,
        options: HttpOptions,
        api: Api,
        *,
        issuer: str,
        path: str,
        client_id: str,
        client_secret: Secret,
        body: dict[str, Any],
    ) -> None:
        pair = f"{client_id}:{client_secret.value}".encode()
        self._api = api
        self._issuer = Api(
            options,
            issuer,
            headers={"Authorization": f"Basic {base64.b64encode(pair).decode()}", "Accept": "application/json"},
            credentials="the client's secret",
            meant=_refused,
        )
        self._path, self._body = path, body
        self._ends = 0.0
        self._has_worked = False

    def close(self) -> None:
        """Let go of connections."""
        self._issuer.close()
        self._api.close()

    def get(self, path: str, *, permission: str = "", **query: Any) -> Answer:
        """As `Api.get`. A token that had worked and is refused was revoked, or ended early: a new one finds out."""
        if time.monotonic() >= self._ends:
            self._take()
        try:
            answer = self._api.get(path, permission=permission, **query)
        except Unauthenticated:
            if not self._has_worked:
                raise
            self._take()
            answer = self._api.get(path, permission=permission, **query)
        self._has_worked = True
        return answer

    def _take(self) -> None:
        asked = time.monotonic()
        told = self._issuer.call("POST", self._path, **self._body).body
        token = part(told, "access_token", str, "the access token")
        self._ends = asked + part(told, "expires_in", int, "the access token") - EARLY
        self._has_worked = False
        self._api.authorize(Authorization=f"Bearer {token}")


def _refused(place: str, status: int, sentence: str) -> ConnectorError | None:
    """RFC 6749, 5.2: a wrong client is a 400 or a 401."""
    if status in {400, 401, 403}:
        return Unauthenticated(
            f"{place}: the client's credentials were refused: {status}{f' ({sentence})' if sentence else ''}",
            remedy="check `client_id` and `client_secret`: they are wrong, disabled or revoked",
        )
    return None
