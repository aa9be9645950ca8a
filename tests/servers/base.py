"""What every HTTPS server for tests shares: a listener on loopback, a certificate, faults on pages, bodies that are cut."""

from __future__ import annotations

import contextlib
import json
import ssl
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import trustme

from tests.servers.spoiler import Spoiler, emptied, leads_on


@dataclass(kw_only=True)
class Broken:
    """What goes wrong with a page, whatever the API. A server's own `Answer` adds what it answers instead."""

    cut: bool = False
    """Announce the whole body, send two thirds, and hang up."""
    empty: bool = False
    """The page itself, its counts too, but with nothing in its lists, and nothing that leads on."""
    repeat: bool = False
    """The page itself, but what leads on from it leads to this page again."""
    refuse: bool = False
    """Hang up without a word, and accept no connection any more."""
    stall: bool = False
    """Say nothing until the server is stopped."""
    times: int = 1_000_000
    """How often, before the page answers as usual."""


A = TypeVar("A", bound=Broken)


class HttpsServer(ABC, Generic[A]):
    """A server. Use it as a context manager; then `url` and `ca_file` say where it is."""

    names: ClassVar[tuple[str, ...]] = ("localhost", "127.0.0.1")
    """What its certificate is for."""
    methods: ClassVar[tuple[str, ...]] = ("GET", "POST", "PUT", "PATCH", "DELETE")
    """Those that `serve` is called for; others get 501."""
    client_certificates: ClassVar[bool] = False
    """Whether clients may show certificates of `authority`."""
    tls: bool = True
    """Plain HTTP if not."""
    spoiler: Spoiler | None = None
    """What stands before `serve`."""

    def __init__(self) -> None:
        self.url = self.ca_file = ""
        self._broken: dict[tuple[str, int], A] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._httpd: Listener | None = None
        self._port = 0

    @abstractmethod
    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request, on a thread of its connection."""

    def date(self) -> str | None:
        """The Date of answers; the present time if None."""
        return None

    # ── faults ──

    @contextlib.contextmanager
    def broken(self, name: str, page: int, answer: A) -> Iterator[A]:
        """Have page `page` (from 1; 0 of a watch) of the list `name`, often a path, answer wrongly while this lasts."""
        if answer.refuse and page <= 1:
            self.unlisten()
        self._broken[name, page] = answer
        try:
            yield answer
        finally:
            del self._broken[name, page]
            self.listen()

    def _broken_answer(self, name: str, page: int) -> A | None:
        answer = self._broken.get((name, page))
        if answer is None or answer.times <= 0:
            return None
        answer.times -= 1
        return answer

    def _hangs_up(self, request: BaseHTTPRequestHandler, answer: A) -> bool:
        """Refuse or stall, if that is the fault; and tell whether it was."""
        if answer.refuse:
            self.unlisten()
        elif answer.stall:
            self._stopping.wait(30)
        else:
            return False
        request.close_connection = True
        return True

    # ── the server ──

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self.authority = trustme.CA()
        self.ca_file = str(Path(self._folder.name, "ca.pem"))
        self.authority.cert_pem.write_to_path(self.ca_file)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.client_certificates:
            self._tls.verify_mode = ssl.CERT_OPTIONAL
            self.authority.configure_trust(self._tls)
        self.authority.issue_cert(*self.names).configure_cert(self._tls)
        self.listen()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.unlisten()
        self._folder.cleanup()

    def listen(self) -> None:
        """Accept connections, if it does not."""
        if self._httpd is not None:
            return
        self._httpd = Listener(("127.0.0.1", self._port), self._handler())
        self._port = self._httpd.server_address[1]
        if self.tls:
            self._httpd.socket = self._tls.wrap_socket(
                self._httpd.socket, server_side=True, do_handshake_on_connect=False
            )
        self._httpd.start()

    def unlisten(self) -> None:
        """Refuse connections."""
        httpd, self._httpd = self._httpd, None
        if httpd is not None:
            httpd.shutdown()
            httpd.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60
            wbufsize = -1  # head and body in one packet: two would wait for each other (Nagle's algorithm)

            def answer(self) -> None:
                if server._httpd is None:  # refusing: a connection kept alive is no way in
                    self.close_connection = True
                elif server.spoiler is not None:
                    server.spoiler.serve(self, server.serve, server.unlisten)
                else:
                    server.serve(self)

            def date_time_string(self, timestamp: float | None = None) -> str:
                date = server.date()
                return super().date_time_string(timestamp) if date is None else date

            def log_message(self, *args: Any) -> None:
                pass

        for method in self.methods:
            setattr(Handler, f"do_{method}", Handler.answer)
        return Handler


class Listener(ThreadingHTTPServer):
    """A listener whose threads end with the process."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, or does not trust us, is no news."""

    def start(self) -> None:
        """Accept connections, on a thread."""
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


def body_of(request: BaseHTTPRequestHandler) -> bytes:
    """The whole body of a request that tells its length; none if it does not."""
    return request.rfile.read(int(request.headers.get("Content-Length") or 0))


def send(
    request: BaseHTTPRequestHandler,
    status: int,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    broken: Broken | None = None,
) -> None:
    """Answer a request. Where the page is broken it may be cut: announced whole, two thirds sent; or emptied."""
    cut = bool(broken and broken.cut)
    if broken and broken.empty and status == 200:
        body = json.dumps(emptied(json.loads(body))).encode()
        headers = [(name, value) for name, value in headers if not leads_on(name)]
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    for name, value in headers:
        request.send_header(name, value)
    request.end_headers()
    if cut:
        body = body[: len(body) * 2 // 3]
        request.close_connection = True
    request.wfile.write(body)
