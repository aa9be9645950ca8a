"""The server process: a socket, uvicorn on uvloop, and signs of life."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog
import uvicorn
import uvloop

from config.problems import ConfigurationError
from config.settings import Settings, load_settings
from daemon import logs
from daemon.errors import DatabaseUnusable
from daemon.notify import inherited_socket, notify, watchdog_interval
from daemon.processes import end_with_supervisor
from daemon.serve.app import Pages, make_app
from daemon.sockets import bind_unix

log = structlog.get_logger()

_KEEP_ALIVE = 75
_GRACE = 5
"""Seconds that requests under way have to end when the server stops."""


class _Server(uvicorn.Server):
    """uvicorn, with our signal handling: it would raise SIGTERM again at the end, and so end as if killed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `_serve`."""
        yield


def serve(settings: Settings) -> int:
    """Answer lookups until SIGTERM or SIGINT."""
    end_with_supervisor()
    logs.configure(settings.daemon.log_format, settings.daemon.log_level)
    inherited = inherited_socket()
    listening = inherited or bind_unix(
        settings.socket, int(settings.daemon.socket_mode, 8), settings.daemon.socket_group
    )
    ours = inherited is None
    try:
        uvloop.run(_serve(settings, listening))
    finally:
        if ours:
            settings.socket.unlink(missing_ok=True)
        listening.close()
    return 0


async def _serve(settings: Settings, listening: socket.socket) -> None:
    app, pages = make_app(settings.database)
    server = _Server(
        uvicorn.Config(
            app,
            http="httptools",
            loop="none",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_GRACE,
        )
    )
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, _reload, settings)
    alive = asyncio.create_task(_signs_of_life(pages))
    log.info("server.ready", socket=listening.getsockname(), database=str(settings.database))
    notify("READY=1")
    try:
        await server.serve(sockets=[listening])
    finally:
        notify("STOPPING=1")
        log.info("server.stopping")
        alive.cancel()
        with suppress(asyncio.CancelledError):
            await alive
        pages.close()


def _reload(settings: Settings) -> None:
    """Only how it logs can change without a restart; everything else is the poller's, or the socket's."""
    try:
        new = load_settings(settings.path)
    except ConfigurationError as error:
        for problem in error.problems:
            log.error("config.refused", place=problem.place, problem=problem.message)  # noqa: TRY400  # no traceback
        return
    logs.configure(new.daemon.log_format, new.daemon.log_level)
    log.info("config.reloaded", path=str(new.path))


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
        await asyncio.sleep(interval)
