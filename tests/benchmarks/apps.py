"""Apps to compare with, each under uvicorn on a Unix socket.

    python -m tests.benchmarks.apps NAME SOCKET DATABASE

`hello` says hello and nothing else. `starlette` does the read that a lookup comes down to, as one would write it.
"""

from __future__ import annotations

import sqlite3
import sys
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.benchmarks.peers import QUERY, tail_like


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    """The least that an ASGI application can do."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


def same_read(database: str) -> ASGIApp:
    """`GET /v1/owner?resource=ID` by Starlette: one query, and the bytes that it finds."""
    db = sqlite3.connect(f"file:{quote(database)}?mode=ro", uri=True, isolation_level=None)
    tail = tail_like()

    async def owner(request: Request) -> Response:
        found = db.execute(QUERY, (request.query_params["resource"],)).fetchone()
        return Response(found[0] + tail, media_type="application/json") if found else Response(status_code=404)

    return Starlette(routes=[Route("/v1/owner", owner)])


if __name__ == "__main__":
    name, socket, path = sys.argv[1:]
    app = hello if name == "hello" else same_read(path)
    uvicorn.run(app, uds=socket, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="error")
