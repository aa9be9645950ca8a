"""A stand-in for `ownerd serve`: canned answers on a Unix socket, in the shapes of docs/api.md."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

MOMENT = "2026-11-23T08:00:00Z"


class Asked(NamedTuple):
    """A request that came."""

    page: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Canned(NamedTuple):
    """What to answer: JSON, or bytes as they are."""

    status: int
    body: Any


HANG_UP = Canned(0, None)
"""Closes the connection without an answer."""


class Stub:
    """Pages and their answers. Each request takes a page's next answer; the last one stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[Asked] = []
        self._pages: dict[str, list[Canned]] = {}

    def on(self, page: str, *answers: Any) -> None:
        """Set a page's answers, in order: JSON with status 200, or `Canned`."""
        self._pages[page] = [a if isinstance(a, Canned) else Canned(200, a) for a in answers]

    def next(self, asked: Asked) -> Canned:
        """Take the answer to a request."""
        self.asked.append(asked)
        left = self._pages.get(asked.page, [problem("not-found", 404, f"there is no {asked.page}")])
        return left.pop(0) if len(left) > 1 else left[0]


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    stub: Stub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _answer(self, body: Any) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        canned = self.server.stub.next(Asked(url.path, dict(parse_qsl(url.query)), headers, body))
        if canned is HANG_UP:
            self.close_connection = True
            return
        content = canned.body if isinstance(canned.body, bytes) else json.dumps(canned.body).encode()
        self.send_response(canned.status)
        self.send_header("content-type", "application/json" if canned.status == 200 else "application/problem+json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def socket_stub(path: Path) -> Iterator[Stub]:
    """A running stub."""
    stub = Stub(path)
    with _Server(str(path), _Handler) as server:
        server.stub = stub
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()


def problem(kind: str, status: int, detail: str = "as it is", **more: Any) -> Canned:
    """A problem (RFC 9457)."""
    return Canned(status, {"type": f"/problems/{kind}", "title": kind, "status": status, "detail": detail, **more})


def owner(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "group", "directory": "corp", "id": f"id-{name}", "name": name, **more}


def outcome(*owners: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    source = "integration" if reason else "tag"
    return {"owners": list(owners), "source": source, "fallback": reason is not None, "reason": reason}


def answer(rid: str, *owners: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    """An answer; a fallback if it has a reason."""
    value = owners[0]["name"] if owners else "x"
    return {
        "resource": {"id": rid, "integration": "aws", "type": "rds:db", "name": rid, "parent": None},
        **outcome(*owners, reason=reason),
        "tag": {"key": "owner", "value": value, "resource": rid},
        "changed_at": MOMENT,
        "resource_seen_at": "2026-11-23T09:00:00Z",
        "owners_seen_at": "2026-11-23T10:00:00Z",
        "stale": False,
        **more,
    }


def finding(value: str, **more: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "integration": "aws",
        "kind": "value_unknown",
        "key": "owner",
        "value": value,
        "resources": 12,
        "examples": ["r1", "r2"],
        "suggestions": ["Team Payments", "Team Payroll"],
        "first_seen": MOMENT,
        "last_seen": "2026-11-23T09:00:00Z",
        "resolved_at": None,
        **more,
    }


def change(rid: str, before: dict[str, Any] | None, after: dict[str, Any] | None, cursor: str = "c1") -> dict[str, Any]:
    kind = "added" if before is None else "removed" if after is None else "changed"
    resource = {"id": rid, "integration": "aws"}
    return {"cursor": cursor, "at": MOMENT, "kind": kind, "resource": resource, "before": before, "after": after}


def source(name: str, state: str = "ok", **more: Any) -> dict[str, Any]:
    """A source of `/v1/status`."""
    return {
        "name": name,
        "role": "integration",
        "connector": "aws",
        "state": state,
        "last_attempt": MOMENT,
        "last_success": MOMENT,
        "seen_at": MOMENT,
        "age": 10,
        "stale": False,
        "rows": 42,
        "gaps": [],
        "failures": 0,
        "error": None,
        "held": None,
        "interval": 900.0,
        "stale_after": 3600.0,
        "scopes": [
            {
                "name": "all",
                "state": "ok",
                "rows": 42,
                "seen_at": MOMENT,
                "age": 10,
                "stale": False,
                "whole_at": MOMENT,
                "gaps": [],
                "error": None,
            }
        ],
        **more,
    }
