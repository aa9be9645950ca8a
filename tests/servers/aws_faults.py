"""A loopback proxy in front of moto that spoils one page of `GetResources` in one region.

It also refuses roles, which moto gives to anybody, and has the services that moto lacks (`aws_indexes`).

Error bodies follow the AWS JSON 1.1 protocol (Smithy, "AWS JSON 1.1 protocol": `__type` and `message`), with the codes
and texts of the GetResources page of the API reference and of "Common errors".
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

from tests.connectors.rig import Fault
from tests.servers.aws_indexes import Indexes
from tests.servers.moto_aws import ACCOUNT
from tests.servers.spoiler import Spoiler

_THROTTLED = (429, "ThrottledException", "Rate exceeded")
_ERRORS = {
    Fault.UNAUTHENTICATED: (
        400,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    ),
    Fault.FORBIDDEN: (
        400,
        "AccessDeniedException",
        "User: arn:aws:iam::123456789012:user/ownerd is not authorized to perform: tag:GetResources",
    ),
    Fault.SERVER_ERROR: (500, "InternalServiceException", "Internal error"),
    Fault.THROTTLED_ONCE: _THROTTLED,
    Fault.THROTTLED_BARE: _THROTTLED,
}


_REFUSED = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>User: arn:aws:iam::123456789012:user/ownerd is not authorized to perform:
sts:AssumeRole</Message></Error><RequestId>1</RequestId></ErrorResponse>"""

Spoiled = Fault | tuple[int, str, str] | Literal["lost once"]


class AwsFaults:
    """The proxy. `inject` spoils page `page` of the list of `region`; every other request goes through as it is."""

    def __init__(self, upstream: str, region: str) -> None:
        self._upstream = urlsplit(upstream)
        self.region = region
        self.requests: list[tuple[str, str]] = []
        """(service, region) of each request, in order."""
        self.canned: Callable[[str, str], tuple[int, bytes] | None] = lambda _service, _body: None
        """What to answer (HTTP status, body) in moto's place, by service and request body; None leaves it to moto."""
        self.spoiler: Spoiler | None = None
        """What stands before `serve`."""
        self.indexes = Indexes()
        self.refused: set[str] = set()
        """Accounts whose roles nobody may assume."""
        self.assumed: Counter[str] = Counter()
        """How often the role in each account was."""
        self._accounts: dict[str, str] = {}
        self._pages: dict[str, int] = {}
        self._fault: Spoiled | None = None
        self._page = 0
        self._repeated: bytes | None = None
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[AwsFaults]:
        self.listen()
        try:
            yield self
        finally:
            self.unlisten()

    @contextlib.contextmanager
    def inject(self, fault: Spoiled, page: int) -> Iterator[None]:
        """`fault` is one of the suite's; (HTTP status, code, message) of an error of AWS; or an answer "lost once"."""
        self._fault, self._page, self._repeated = fault, page, None
        self._over = threading.Event()
        if fault is Fault.REFUSED and page == 1:
            self.unlisten()
        try:
            yield
        finally:
            self._fault = None
            self._over.set()
            self.listen()

    def listen(self) -> None:
        """Accept connections, if it does not."""
        if self._server is not None:
            return
        faults = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                if faults.spoiler is None:
                    faults.serve(self)
                else:
                    faults.spoiler.serve(self, faults.serve, faults.unlisten)

            do_GET = do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def unlisten(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        credential = re.search(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/", request.headers.get("Authorization", ""))
        key, region, service = credential.groups() if credential else ("", "", "")
        self.requests.append((service, region))
        if (canned := self.canned(service, body.decode("utf-8", "replace"))) is not None:
            _send(request, *canned, {})
            return
        operation = request.headers.get("X-Amz-Target", request.path).rpartition("." if service == "config" else "/")[2]
        account = self._accounts.get(key, ACCOUNT)
        if (indexed := self.indexes.answer(service, operation, account, region, body)) is not None:
            _send(request, *indexed, {})
            return
        role = re.search(rb"RoleArn=arn%3Aaws%3Aiam%3A%3A(\d+)", body) if service == "sts" else None
        if role and role[1].decode() in self.refused:
            _send(request, 403, _REFUSED.encode(), {"Content-Type": "text/xml"})
            return
        listing = request.headers.get("X-Amz-Target", "").endswith(".GetResources") and region == self.region
        token = json.loads(body).get("PaginationToken", "") if listing else ""
        page = self._pages.get(token, 1) if listing else 0
        spoiled = self._fault if listing and page >= self._page else None
        if spoiled is not None and (page == self._page or token == "repeated"):
            self._spoil(spoiled, request, body)
            return
        status, headers, answer = self._forward(request, body)
        if role and (given := re.search(rb"<AccessKeyId>(.+?)</AccessKeyId>", answer)):
            self._accounts[given[1].decode()] = role[1].decode()
            self.assumed[role[1].decode()] += 1
        if listing and status == 200 and (following := json.loads(answer).get("PaginationToken")):
            self._pages[following] = page + 1
        if listing and self._fault is Fault.REFUSED and page + 1 == self._page:
            self.unlisten()
            request.close_connection = True
            headers["Connection"] = "close"
        _send(request, status, answer, headers)

    def _spoil(self, fault: Spoiled, request: BaseHTTPRequestHandler, body: bytes) -> None:
        match fault:
            case Fault.UNAVAILABLE:
                _send(request, 503, b"<html><body><h1>503 Service Unavailable</h1></body></html>", {})
            case Fault.EMPTY_LIST:
                _send(request, 200, b'{"ResourceTagMappingList": [], "PaginationToken": ""}', {})
            case Fault.HANG:
                self._over.wait(30)
                request.close_connection = True
            case Fault.EMPTY_BODY:
                _send(request, 200, b"", {})
            case Fault.CUT_BODY:
                _, _, answer = self._forward(request, body)
                request.close_connection = True
                _send(request, 200, answer[: len(answer) * 2 // 3], {}, length=len(answer))
            case "lost once":
                self._forward(request, body)
                self._fault = None
                _send(request, 500, b"", {})
            case Fault.REPEATED_TOKEN:
                if self._repeated is None:
                    _, _, answer = self._forward(request, body)
                    self._repeated = json.dumps({**json.loads(answer), "PaginationToken": "repeated"}).encode()
                    self._pages["repeated"] = self._page
                _send(request, 200, self._repeated, {})
            case _:
                status, code, message = fault if isinstance(fault, tuple) else _ERRORS[Fault(fault)]
                if fault is Fault.THROTTLED_ONCE:
                    self._fault = None
                _send(request, status, json.dumps({"__type": code, "message": message}).encode(), {})

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        assert self._upstream.hostname
        with contextlib.closing(http.client.HTTPConnection(self._upstream.hostname, self._upstream.port)) as upstream:
            upstream.request(request.command, request.path, body, dict(request.headers.items()))
            answer = upstream.getresponse()
            kept = {k: v for k, v in answer.getheaders() if k.lower() in {"content-type", "x-amzn-requestid"}}
            return answer.status, kept, answer.read()


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, Any], length: int | None = None
) -> None:
    request.send_response(status)
    for name, value in {"Content-Type": "application/x-amz-json-1.1", **headers}.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)
