"""What the servers of on-call systems for tests share: a listener on loopback, over TLS, and the faults of its pages."""

from __future__ import annotations

import contextlib
import json
import ssl
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote

import trustme


@dataclass
class Answer:
    """What a broken page answers in place of the right thing."""

    status: int = 200
    document: Any = None
    """Sent as JSON, unless it is bytes."""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    """The page itself: announce it whole, send two thirds, and hang up."""
    repeat: bool = False
    """The page itself, but what leads on from it leads to this page again."""
    refuse: bool = False
    """Hang up without a word, and accept no connection any more."""
    times: int = 1_000_000
    """How often, before the page answers as usual."""


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


class OnCallServer(ABC):
    """A server. Use it as a context manager; then `url` and `ca_file` say where it is."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        """Path with query of each request."""
        self.headers: list[dict[str, str]] = []
        """Names in lower case."""
        self.link_origin: str | None = None
        """Origin of the links to next pages; the server's own if None."""
        self._broken: dict[tuple[str, int], Answer] = {}
        self._httpd: _Listener | None = None
        self._port = 0
        self._lock = threading.Lock()
        self.url = self.ca_file = ""

    @abstractmethod
    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        """The right answer to a GET of `path`, or a Refusal."""

    @contextlib.contextmanager
    def broken(self, name: str, page: int, answer: Answer) -> Iterator[None]:
        """Have page number `page` of the list `name` answer wrongly while this lasts."""
        if answer.refuse and page == 1:
            self._unlisten()
        self._broken[name, page] = answer
        try:
            yield
        finally:
            del self._broken[name, page]
            if self._httpd is None:
                self._listen()

    def link(self, path: str) -> str:
        """An absolute link, as lists have."""
        return f"{self.link_origin or self.url}{path}"

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        authority = trustme.CA()
        self.ca_file = str(Path(self._folder.name, "ca.pem"))
        authority.cert_pem.write_to_path(self.ca_file)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(self._tls)
        self._listen()
        self.url = f"https://127.0.0.1:{self._port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._unlisten()
        self._folder.cleanup()

    def _listen(self) -> None:
        self._httpd = _Listener(("127.0.0.1", self._port), self._handler())
        self._httpd.socket = self._tls.wrap_socket(self._httpd.socket, server_side=True, do_handshake_on_connect=False)
        self._port = self._httpd.server_address[1]
        threading.Thread(target=self._httpd.serve_forever, args=(0.01,), daemon=True).start()

    def _unlisten(self) -> None:
        httpd, self._httpd = self._httpd, None
        if httpd is not None:
            httpd.shutdown()
            httpd.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60
            wbufsize = -1  # head and body in one packet

            def do_GET(self) -> None:
                server._serve(self)

            def log_message(self, *args: Any) -> None:
                pass

        return Handler

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        if self._httpd is None:  # refusing: a connection kept alive is no way in
            request.close_connection = True
            return
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
                broken = self._broken.get((page.name, page.number))
                if broken and broken.times > 0:
                    broken.times -= 1
                else:
                    broken = None
                if broken and broken.repeat:
                    assert page.repeated is not None, f"{page.name} has no pages to repeat"
                    document = page.repeated
            except Refusal as refusal:
                status, document, told = refusal.status, refusal.document, dict(refusal.headers)
        if broken and broken.refuse:
            self._unlisten()
            request.close_connection = True
            return
        if broken and not (broken.cut or broken.repeat):
            status, document, told = broken.status, broken.document, dict(broken.headers)
        data = (
            document if isinstance(document, bytes) else json.dumps(document).encode() if document is not None else b""
        )
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        for name, value in told.items():
            request.send_header(name, value)
        request.end_headers()
        if broken and broken.cut:
            data = data[: len(data) * 2 // 3]
            request.close_connection = True
        request.wfile.write(data)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, or does not trust us, is no news."""


def whole(query: Mapping[str, list[str]], name: str, default: int) -> int:
    """A number of the query."""
    return int(query.get(name, [str(default)])[0])
