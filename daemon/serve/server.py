"""The server process: a socket, uvicorn on uvloop, and signs of life."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import cast

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from config.problems import ConfigurationError
from config.settings import Settings, load_settings
from daemon import logs
from daemon.errors import DatabaseUnusable
from daemon.notify import notify, watchdog_interval
from daemon.peers import Allowed
from daemon.processes import end_with_supervisor
from daemon.serve.app import Pages, make_app
from daemon.serve.connection import IDLE, MOST_CONNECTIONS, Connection, Door
from daemon.serve.quick import Quick
from daemon.serve.spinning import NEAR, Spinner, may_spin
from daemon.serve.tally import Tally
from daemon.serve.tally import inherited as inherited_tally
from daemon.sockets import listening_on

log = structlog.get_logger()

_GRACE = 5
"""Seconds that requests under way have to end when the server stops."""
_DRAIN = 0.5
"""Seconds in which connected clients may ask once more when the server stops: they are told to connect anew."""
_SHARE = 1.0
"""Seconds between two times at which a worker writes its counters for the others."""
_OTHER_FILES = 128
"""Files that are no connections: the database, once a thread; the log; what the loop needs."""


class Server(uvicorn.Server):
    """uvicorn, with bounded connections, a short way for lookups, an end that fails no request, and our signals."""

    def __init__(
        self, app: ASGIApp, pages: Pages, allowed: Allowed, most: int = MOST_CONNECTIONS, *, spin: bool = True
    ) -> None:
        quick = Quick(pages.lookup, lambda delay, call: asyncio.get_running_loop().call_later(delay, call))
        spinner = Spinner(lambda call: asyncio.get_running_loop().call_soon(call), NEAR if spin else 0.0)
        self.door = Door(quick, spinner, allowed, pages.connections, most)
        super().__init__(
            uvicorn.Config(
                app,
                http=cast("type[asyncio.Protocol]", partial(Connection, self.door)),
                loop="none",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=int(IDLE),
                timeout_graceful_shutdown=_GRACE,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `_serve`: uvicorn would raise SIGTERM again at the end, and so end as if killed."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Watch over the connections too."""
        await super().startup(sockets)
        self._watch = asyncio.create_task(self.door.watch())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and let those who are connected have their answers; who asks later finds the next server."""
        for server in self.servers:
            server.close()
        await self.door.drain(_DRAIN)
        self._watch.cancel()
        await super().shutdown(sockets)


def serve(settings: Settings) -> int:
    """Answer lookups until SIGTERM or SIGINT."""
    end_with_supervisor()
    logs.configure(settings.daemon.log_format, settings.daemon.log_level)
    tally = inherited_tally()
    if tally is not None:
        structlog.contextvars.bind_contextvars(worker=tally.slot)
    with listening_on(settings) as listening:
        uvloop.run(_serve(settings, listening, tally))
    return 0


async def _serve(settings: Settings, listening: socket.socket, tally: Tally | None) -> None:
    app, pages = make_app(settings.database, tally=tally)
    server = Server(app, pages, _allowed(settings), _most_connections(), spin=may_spin(settings.daemon.workers))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, _reload, settings, server.door)
    background = [asyncio.create_task(_signs_of_life(pages))]
    if tally is not None:
        background.append(asyncio.create_task(_share(tally)))
    pages.look()
    log.info("server.ready", socket=listening.getsockname(), database=str(settings.database))
    gc.freeze()  # what is there now stays; it is not to be looked through again
    notify("READY=1")
    try:
        await server.serve(sockets=[listening])
    finally:
        notify("STOPPING=1")
        log.info("server.stopping")
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        pages.close()
        if tally is not None:
            tally.close()


def _allowed(settings: Settings) -> Allowed:
    return Allowed(frozenset(settings.daemon.allow_uids or ()), frozenset(settings.daemon.allow_gids or ()))


def _most_connections() -> int:
    """As many as the limit of open files allows, which is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + _OTHER_FILES
    if soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox may forbid it; the unit's LimitNOFILE= does it there
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MOST_CONNECTIONS, soft - _OTHER_FILES))


def _reload(settings: Settings, door: Door) -> None:
    """How it logs and who may ask can change without a restart; all else is the poller's, or the socket's."""
    try:
        new = load_settings(settings.path)
    except ConfigurationError as error:
        for problem in error.problems:
            log.error("config.refused", place=problem.place, problem=problem.message)  # noqa: TRY400  # no traceback
        return
    logs.configure(new.daemon.log_format, new.daemon.log_level)
    door.allow(_allowed(new))
    log.info("config.reloaded", path=str(new.path))


async def _share(tally: Tally) -> None:
    """Let the other workers see what this one counts."""
    while True:
        tally.write()
        await asyncio.sleep(_SHARE)


async def _signs_of_life(pages: Pages) -> None:
    """Feed the watchdog, from the loop that answers, and after a read that a lookup would do."""
    interval = watchdog_interval()
    while interval is not None:
        try:
            pages.lookup.reader.rows("")
        except DatabaseUnusable as error:
            # There is no database before the first poll: no reason to be restarted.
            log.warning("database.unavailable", problem=error.message, remedy=error.remedy)
            notify("WATCHDOG=1")
        except sqlite3.Error as error:
            log.error("database.failed", problem=str(error))  # noqa: TRY400  # no traceback
        else:
            notify("WATCHDOG=1")
        await asyncio.sleep(interval)
