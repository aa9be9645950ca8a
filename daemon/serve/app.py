"""The pages of the socket. docs/api.md and `/openapi.json` describe them."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.answers import rfc3339
from daemon.errors import DatabaseUnusable
from daemon.explain import explain
from daemon.matching import resource_key
from daemon.serve import parameters as given
from daemon.serve.local import LocalOnly
from daemon.serve.lookup import ANY_AGE, Lookup, parse_cache_control
from daemon.serve.metrics import metrics
from daemon.serve.openapi import OPENAPI
from daemon.serve.pending import pending
from daemon.serve.problems import Problem
from daemon.serve.status import status, unread
from daemon.serve.tally import Tally
from daemon.store.checked import checked
from daemon.store.reader import Reader
from daemon.text import json_bytes

log = structlog.get_logger()

LOOKUP_CACHE = 8 * 2**20
"""Bytes: the upper levels of the table of a million resources, which every lookup passes."""
FINDING_KINDS = (
    "value_unknown",
    "value_ambiguous",
    "tag_empty",
    "group_empty",
    "principal_inactive",
    "owner_not_allowed",
    "integration_owner_unknown",
    "group_renamed",
)


def json_response(body: bytes, status_code: int = 200, media_type: str = "application/json") -> Response:
    """An answer. Nothing may keep it: its ages are of this moment."""
    return Response(body, status_code, {"cache-control": "no-store"}, media_type)


def problem_response(problem: Problem) -> Response:
    """A problem's answer; where waiting helps, it says so."""
    response = json_response(problem.to_json(), problem.status, "application/problem+json")
    if problem.status == 503:
        response.headers["retry-after"] = "10"
    return response


class Pages:
    """The handlers. Lookups are answered on the event loop; what may read many rows, in a thread of its own."""

    def __init__(self, database: Path, clock: Callable[[], float] = time.time, tally: Tally | None = None) -> None:
        self._database = database
        self._clock = clock
        self._threads = threading.local()
        self.lookup = Lookup(Reader(database, LOOKUP_CACHE, checked), clock)
        self._lookups = [self.lookup]
        self.connections: Counter[str] = Counter()
        """How connections fared; the server counts them."""
        self._tally = tally
        if tally is not None:
            tally.count(self.lookup.counts, self.connections)

    def close(self) -> None:
        """Let the database go, in every thread."""
        for lookup in self._lookups:
            lookup.reader.close()

    def look(self) -> None:
        """Look at what there is before anybody asks: the copy of the answers is checked in the meantime."""
        with suppress(DatabaseUnusable, sqlite3.Error):  # the first request tells
            self.lookup.reader.begin_turn()
        self.lookup.reader.end_turn()

    def _slow(self) -> Lookup:
        """The lookup of the thread that asks."""
        if not hasattr(self._threads, "lookup"):
            self._threads.lookup = Lookup(Reader(self._database), self._clock, self.lookup.counts)
            self._lookups.append(self._threads.lookup)
        found: Lookup = self._threads.lookup
        return found

    # --- lookups ----------------------------------------------------------------------------------------------------

    async def owner(self, request: Request) -> Response:
        """`GET /v1/owner`: one answer."""
        asked = given.query(request.scope["query_string"], {"resource", "integration", "expand"})
        resource = given.required(asked, "resource")
        control = request.headers.get("cache-control")
        limits = parse_cache_control(control) if control else ANY_AGE
        if "expand" not in asked:
            return json_response(self.lookup.answer(resource, asked.get("integration"), limits))
        given.one_of(asked, "expand", {"members"}, "members")

        def slow() -> bytes:
            lookup = self._slow()
            return lookup.with_members(lookup.answer(resource, asked.get("integration"), limits))

        return json_response(await run_in_threadpool(slow))

    async def owners(self, request: Request) -> Response:
        """`POST /v1/owners`: many answers, in the order asked."""
        given.query(request.scope["query_string"], ())
        control = request.headers.get("cache-control")
        limits = parse_cache_control(control) if control else ANY_AGE
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > given.LONGEST_BODY:
                raise Problem("too-large", f"at most {given.LONGEST_BODY} bytes")
        return json_response(self.lookup.answers(given.batch(bytes(body)), limits))

    def explain(self, request: Request) -> Response:
        """`GET /v1/explain`: each step of the rule."""
        asked = given.query(request.scope["query_string"], {"resource", "integration"})
        resource = given.required(asked, "resource")
        lookup = self._slow()
        reader = lookup.reader
        key = resource_key(resource)
        row = lookup.choose(resource, reader.rows(key), asked.get("integration"))
        answer = orjson.loads(lookup.render(row))
        concerned = {row.source_id} | {
            s.id
            for s in reader.sources.values()
            if s.role == "directory" and s.name in _directories(reader, row.source_id)
        }
        told = {
            "resource": answer["resource"],
            "steps": explain(reader, key, row.source_id),
            "answer": answer,
            "sources": [s for s in status(reader, self._clock())["sources"] if s.pop("id") in concerned],
        }
        return json_response(json_bytes(told))

    # --- lists ------------------------------------------------------------------------------------------------------

    def resources(self, request: Request) -> Response:
        """`GET /v1/resources`: owner rows, by resource id."""
        asked = given.query(
            request.scope["query_string"],
            {"owner", "integration", "type", "fallback", "reason", "cursor", "limit"},
        )
        most = given.limit(asked)
        lookup = self._slow()
        key, source = given.position_of("r", asked["cursor"], str, int) if "cursor" in asked else ("", 0)
        found = lookup.reader.resources(
            owner=asked.get("owner"),
            integration=lookup.integration_id(asked["integration"]) if "integration" in asked else None,
            kind=asked.get("type"),
            fallback=given.flag(asked, "fallback"),
            reason=asked.get("reason"),
            after=(key, source),
            limit=most + 1,
        )
        more = len(found) > most
        now = self._clock()
        rows = b",".join(lookup.render(row, now) for row in found[:most])
        last = found[most - 1] if more else None
        cursor = given.cursor_of("r", last.key, last.source_id) if last else None
        return json_response(b'{"resources":[' + rows + b'],"next":' + json_bytes(cursor) + b"}")

    def drift(self, request: Request) -> Response:
        """`GET /v1/drift`: findings, oldest first."""
        asked = given.query(request.scope["query_string"], {"state", "kind", "integration", "cursor", "limit"})
        most = given.limit(asked)
        (after,) = given.position_of("d", asked["cursor"], int) if "cursor" in asked else (0,)
        kind = given.one_of(asked, "kind", FINDING_KINDS, "") if "kind" in asked else None
        found = self._slow().reader.findings(
            state=given.one_of(asked, "state", {"open", "resolved", "all"}, "open"),
            kind=kind,
            integration=asked.get("integration"),
            after=after,
            limit=most + 1,
        )
        cursor = given.cursor_of("d", found[most - 1]["id"]) if len(found) > most else None
        for finding in found:
            for at in ("first_seen", "last_seen", "resolved_at"):
                finding[at] = rfc3339(finding[at])
        return json_response(json_bytes({"findings": found[:most], "next": cursor}))

    def pending(self, request: Request) -> Response:
        """`GET /v1/pending`: changes of tags that wait."""
        return json_response(json_bytes(pending(self._slow().reader, request.scope["query_string"])))

    def changes(self, request: Request) -> Response:
        """`GET /v1/changes`: owner changes, oldest first; each has the cursor to resume after it."""
        asked = given.query(request.scope["query_string"], {"after", "limit"})
        most = given.limit(asked)
        (after,) = given.position_of("c", asked["after"], int) if "after" in asked else (0,)
        reader = self._slow().reader
        found = reader.changes(after=after, limit=most + 1)
        if "after" in asked and after + 1 < reader.first_change():
            raise Problem("cursor-expired", "changes after this cursor are no longer kept; read /v1/resources again")
        told = [_change(*change) for change in found[:most]]
        cursor = told[-1]["cursor"] if len(found) > most else None
        return json_response(json_bytes({"changes": told, "next": cursor}))

    # --- how it fares -----------------------------------------------------------------------------------------------

    def status(self, request: Request) -> Response:
        """`GET /v1/status`: every source."""
        given.query(request.scope["query_string"], ())
        told = status(self._slow().reader, self._clock())
        for source in told["sources"]:
            del source["id"]
        return json_response(json_bytes(told))

    async def healthz(self, _request: Request) -> Response:
        """`GET /healthz`: alive."""
        return json_response(b'{"status":"ok"}')

    def readyz(self, _request: Request) -> Response:
        """`GET /readyz`: every source has been read at least once."""
        left = unread(self._slow().reader)
        if left is None or left:
            names = ", ".join(left or ["any source"])
            raise Problem("not-ready", f"not read whole yet: {names}", sources=left or [])
        return json_response(b'{"status":"ready"}')

    def metrics(self, _request: Request) -> Response:
        """`GET /metrics`: Prometheus text."""
        lookups, connections = (self.lookup.counts, self.connections) if self._tally is None else self._tally.sums()
        text = metrics(self._slow().reader, lookups, connections, self._clock())
        return Response(text, headers={"cache-control": "no-store"}, media_type="text/plain; version=0.0.4")

    async def openapi(self, _request: Request) -> Response:
        """`GET /openapi.json`: what this is."""
        return json_response(json_bytes(OPENAPI))


def _directories(reader: Reader, source_id: int) -> set[str]:
    rules = orjson.loads(reader.db.execute("SELECT rules FROM source WHERE id = ?", (source_id,)).fetchone()[0])
    return {r["directory"] for r in (*rules["resource_owner"], *rules["integration_owner"])}


def _change(
    seq: int, at: float, integration: str, resource: str, before: str | None, after: str | None
) -> dict[str, Any]:
    kind = "added" if before is None else "removed" if after is None else "changed"
    return {
        "cursor": given.cursor_of("c", seq),
        "at": rfc3339(at),
        "kind": kind,
        "resource": {"id": resource, "integration": integration},
        "before": None if before is None else orjson.loads(f"{{{before}}}"),
        "after": None if after is None else orjson.loads(f"{{{after}}}"),
    }


async def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error)


async def _on_unusable(_request: Request, error: Exception) -> Response:
    assert isinstance(error, DatabaseUnusable)
    kind = "unavailable" if error.path.exists() else "not-yet-known"
    return problem_response(Problem(kind, f"{error.message}; {error.remedy}"))


async def _on_sqlite_error(request: Request, error: Exception) -> Response:
    log.error("database.failed", path=request.url.path, problem=str(error))
    return problem_response(Problem("unavailable", f"the database cannot be read: {error}"))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        response = problem_response(Problem("method-not-allowed", f"{request.url.path} takes {_allowed(error)}"))
        response.headers["allow"] = _allowed(error)
        return response
    return problem_response(Problem("not-found", f"there is no {request.url.path}; see /openapi.json"))


def _allowed(error: HTTPException) -> str:
    return (error.headers or {}).get("Allow", "GET")


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody hears it


async def _on_fault(request: Request, error: Exception) -> Response:
    log.error("request.failed", path=request.url.path, exc_info=error)
    return problem_response(Problem("internal", "the request failed; the log says more"))


def make_app(
    database: Path, clock: Callable[[], float] = time.time, tally: Tally | None = None
) -> tuple[LocalOnly, Pages]:
    """The application over a database, and its handlers. `tally`: what it shares with other workers."""
    pages = Pages(database, clock, tally)
    get, post = ["GET"], ["POST"]
    app = Starlette(
        routes=[
            Route("/v1/owner", pages.owner, methods=get),
            Route("/v1/owners", pages.owners, methods=post),
            Route("/v1/resources", pages.resources, methods=get),
            Route("/v1/explain", pages.explain, methods=get),
            Route("/v1/drift", pages.drift, methods=get),
            Route("/v1/pending", pages.pending, methods=get),
            Route("/v1/changes", pages.changes, methods=get),
            Route("/v1/status", pages.status, methods=get),
            Route("/healthz", pages.healthz, methods=get),
            Route("/readyz", pages.readyz, methods=get),
            Route("/metrics", pages.metrics, methods=get),
            Route("/openapi.json", pages.openapi, methods=get),
        ],
        exception_handlers={
            Problem: _on_problem,
            DatabaseUnusable: _on_unusable,
            sqlite3.Error: _on_sqlite_error,
            HTTPException: _on_http_exception,
            ClientDisconnect: _on_disconnect,
            Exception: _on_fault,
        },
    )
    return LocalOnly(app), pages
