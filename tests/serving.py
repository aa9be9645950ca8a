"""The real server, in a thread, with a test's clock."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import uvloop
from structlog.testing import capture_logs
from structlog.typing import EventDict

from daemon.peers import Allowed
from daemon.serve.app import make_app
from daemon.serve.connection import MOST_CONNECTIONS
from daemon.serve.server import Server
from daemon.sockets import bind_unix

T = TypeVar("T")


class Running:
    """A server, and a way into its loop."""

    def __init__(self, server: Server, logged: list[EventDict]) -> None:
        self.server = server
        self.logged = logged
        self.door = server.door
        self._loop = asyncio.get_running_loop()

    def do(self, call: Callable[[], T]) -> T:
        """Call in the server's loop, and wait for what it returns."""
        found: list[T] = []
        done = threading.Event()

        def run() -> None:
            try:
                found.append(call())
            finally:
                done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(60)
        return found[0]

    def look(self, later: float) -> None:
        """Look at all connections as the server does each second, with a clock that is `later` seconds ahead."""

        def look() -> None:
            for connection in list(self.door.open):
                connection.look(self._loop.time() + later)

        self.do(look)


@contextmanager
def serving_on(
    listening: socket.socket,
    database: Path,
    clock: Callable[[], float],
    *,
    allowed: Allowed | None = None,
    most: int = MOST_CONNECTIONS,
) -> Iterator[Running]:
    """Serve on a listening socket until the end of the block."""
    app, pages = make_app(database, clock)
    made: list[Running] = []
    ready = threading.Event()

    async def main(logged: list[EventDict]) -> None:
        server = Server(app, pages, allowed or Allowed(), most)
        made.append(Running(server, logged))
        ready.set()
        await server.serve(sockets=[listening])

    with capture_logs() as logged:
        thread = threading.Thread(target=lambda: uvloop.run(main(logged)))
        thread.start()
        ready.wait()
        try:
            yield made[0]
        finally:
            made[0].server.should_exit = True
            thread.join()
            listening.close()
            pages.close()


@contextmanager
def serving(
    database: Path,
    path: Path,
    clock: Callable[[], float],
    *,
    allowed: Allowed | None = None,
    most: int = MOST_CONNECTIONS,
) -> Iterator[Running]:
    """Serve on a Unix socket of our own."""
    with serving_on(bind_unix(path, 0o600), database, clock, allowed=allowed, most=most) as running:
        yield running
