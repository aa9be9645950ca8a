"""What the servers of on-call systems for tests share: JSON on numbered pages of named lists, and faults on them."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote

from tests.servers.base import Broken, HttpsServer, send


@dataclass
class Answer(Broken):
    """What a broken page answers in place of the right thing; what is `cut` or comes again is the right page."""

    status: int = 200
    document: Any = None
    """Sent as JSON, unless it is bytes."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Page:
    """A right answer. `name` and `number` (from 1) are what faults are put on."""

    document: Any
    name: str = ""
    number: int = 1
    repeated: Any = None
    """The document if the next page were this one again."""
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An error of the API, in the vendor's words."""

    def __init__(self, status: int, document: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.document, self.headers = status, document, headers or {}


class OnCallServer(HttpsServer[Answer]):
    """A server. Use it as a context manager; then `url` and `ca_file` say where it is."""

    methods: ClassVar[tuple[str, ...]] = ("GET",)

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        """Path with query of each request."""
        self.headers: list[dict[str, str]] = []
        """Names in lower case."""
        self.link_origin: str | None = None
        """Origin of the links to next pages; the server's own if None."""

    @abstractmethod
    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        """The right answer to a GET of `path`, or a Refusal."""

    def link(self, path: str) -> str:
        """An absolute link, as lists have."""
        return f"{self.link_origin or self.url}{path}"

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        headers = {name.lower(): value for name, value in request.headers.items()}
        broken = None
        status, told = 200, {}
        with self._lock:
            self.requests.append(request.path)
            self.headers.append(headers)
            try:
                parts = [unquote(part) for part in path.split("/") if part]
                page = self.answer(parts, parse_qs(query, keep_blank_values=True), headers)
                document, told = page.document, dict(page.headers)
                broken = self._broken_answer(page.name, page.number)
                if broken and broken.repeat:
                    assert page.repeated is not None, f"{page.name} has no pages to repeat"
                    document = page.repeated
            except Refusal as refusal:
                status, document, told = refusal.status, refusal.document, dict(refusal.headers)
        if broken and self._hangs_up(request, broken):
            return
        if broken and not (broken.cut or broken.repeat or broken.empty):
            status, document, told = broken.status, broken.document, dict(broken.headers)
        data = (
            document if isinstance(document, bytes) else json.dumps(document).encode() if document is not None else b""
        )
        send(
            request,
            status,
            [("Content-Type", "application/json"), *told.items()],
            data,
            broken=broken,
        )


def whole(query: Mapping[str, list[str]], name: str, default: int) -> int:
    """A number of the query."""
    return int(query.get(name, [str(default)])[0])
