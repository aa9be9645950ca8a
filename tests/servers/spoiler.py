"""Spoils any one answer of any HTTP server for tests, whatever the API: it stands before the server's own handler.

Servers word their own errors on the pages of their longest list (`Broken`). This knows nothing of an API, and reaches
every request there is: lists of members, discovery, tokens.
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

from tests.connectors.rig import Fault

STATUSES = {
    Fault.UNAUTHENTICATED: 401,
    Fault.FORBIDDEN: 403,
    Fault.THROTTLED_BARE: 429,
    Fault.SERVER_ERROR: 500,
    Fault.UNAVAILABLE: 503,
}
FAULTS = (Fault.EMPTY_LIST, Fault.CUT_BODY, *STATUSES, Fault.REFUSED, Fault.HANG)
"""What it can do to an answer."""

_LEADS_ON = {
    "next", "more", "nextPageToken", "@odata.nextLink", "@odata.deltaLink", "continue", "$skipToken",
    "PaginationToken", "NextToken", "nextCursor",
}  # fmt: skip
_LEAD_ON = {"link", "after-cursor"}
_ENVELOPE = {"schemas"}
"""Lists that belong to every answer, and hold no rows."""


def emptied(document: Any) -> Any:
    """A page with nothing in its lists, and nothing that leads on; its counts stay."""
    if isinstance(document, list):
        return []
    if not isinstance(document, dict):
        return document
    return {
        name: value if name in _ENVELOPE else emptied(value)
        for name, value in document.items()
        if name not in _LEADS_ON
    }


def leads_on(header: str) -> bool:
    """Whether a header of a page leads to the next one."""
    return header.lower() in _LEAD_ON


class Place(NamedTuple):
    """One answer of a run: the `number`-th different request (from 1) to a target. What is tried again is the same."""

    target: str
    number: int


class Spoiler:
    """Set as `server.spoiler`. It counts requests from `begin` on, and spoils the answer at one place."""

    def __init__(self) -> None:
        self.places: dict[Place, bool] = {}
        """What was asked since `begin`, and whether its answer is one that `emptied` makes another."""
        self.spoilt = 0
        """How often the fault was answered."""
        self._asked: dict[str, list[tuple[str, bytes]]] = {}
        self._place: Place | None = None
        self._fault: Fault | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()

    def begin(self, place: Place | None = None, fault: Fault | None = None) -> None:
        """Another run; at `place` it suffers `fault`, for as long as it lasts."""
        self._over.set()
        self._over = threading.Event()
        self.places, self.spoilt = {}, 0
        self._asked, self._place, self._fault = {}, place, fault

    def end(self) -> None:
        """Let go of whoever waits."""
        self.begin()

    def serve(
        self,
        request: BaseHTTPRequestHandler,
        answer: Callable[[BaseHTTPRequestHandler], None],
        refuse: Callable[[], None],
    ) -> None:
        """Answer a request through `answer`, or spoil it; `refuse` makes the server accept no connection any more."""
        over = self._over
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        place = self._place_of(request, body)
        hit = self._fault if place == self._place else None
        self.spoilt += hit is not None
        if hit in STATUSES:
            self._send(request, f"HTTP/1.1 {STATUSES[hit]} Spoilt\r\nContent-Length: 0\r\n\r\n".encode())
        elif hit is Fault.REFUSED:
            request.close_connection = True
            refuse()
        elif hit is Fault.HANG:
            request.close_connection = True
            over.wait(30)
        else:
            raw = self._answer(request, answer, body)
            other = _empty(raw)
            self.places.setdefault(place, other is not None)
            if hit is Fault.CUT_BODY:
                head, _, sent = raw.partition(b"\r\n\r\n")
                raw = head + b"\r\n\r\n" + sent[: len(sent) * 2 // 3]
                request.close_connection = True
            elif hit is Fault.EMPTY_LIST and other is not None:
                raw = other
            self._send(request, raw)

    def _place_of(self, request: BaseHTTPRequestHandler, body: bytes) -> Place:
        path, _, query = request.path.partition("?")
        target = " ".join(filter(None, (request.command, path, request.headers.get("X-Amz-Target"))))
        if request.headers.get("X-Amz-Target"):  # the region is in the signature only
            target += " " + request.headers.get("Authorization", "").split("/")[2]
        body = re.sub(rb"assertion=[^&]*", b"", body)  # of a login: it tells the time
        with self._lock:
            asked = self._asked.setdefault(target, [])
            if (query, body) not in asked:
                asked.append((query, body))
            return Place(target, asked.index((query, body)) + 1)

    @staticmethod
    def _answer(
        request: BaseHTTPRequestHandler, answer: Callable[[BaseHTTPRequestHandler], None], body: bytes
    ) -> bytes:
        """All that the server would send."""
        del request.headers["Accept-Encoding"]
        streams, captured = (request.rfile, request.wfile), io.BytesIO()
        request.rfile, request.wfile = io.BytesIO(body), captured
        try:
            answer(request)
        finally:
            request.rfile, request.wfile = streams
        return captured.getvalue()

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, raw: bytes) -> None:
        request.wfile.write(raw)


def _empty(raw: bytes) -> bytes | None:
    """A whole answer with its lists emptied; None if it is no success, or has none that could be."""
    head, _, sent = raw.partition(b"\r\n\r\n")
    status, *headers = head.decode("latin-1").split("\r\n")
    try:
        document = json.loads(sent)
    except ValueError:
        return None
    if status.split()[1] != "200" or not _has_rows(document):
        return None
    body = json.dumps(emptied(document)).encode()
    kept = [line for line in headers if line.partition(":")[0].lower() not in {*_LEAD_ON, "content-length"}]
    return "\r\n".join([status, *kept, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


def _has_rows(document: Any) -> bool:
    if isinstance(document, list):
        return bool(document)
    if not isinstance(document, dict):
        return False
    return any(_has_rows(value) for name, value in document.items() if name not in _ENVELOPE)
