"""`ownerd run`: the server and the poller under one parent, for a laptop, a container, the demo."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time

import structlog

from config.settings import Settings
from daemon import logs
from daemon.notify import HANDED_OVER, notify
from daemon.processes import SUPERVISOR, end, keep_memory_private
from daemon.sockets import listening_on

log = structlog.get_logger()

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 30.0
_STEADY = 60.0
"""Seconds after which a process counts as having started well."""
_GRACE = 15.0
_NO_RETRY = 2
"""The exit code for a configuration that cannot be used."""


class _Supervised:
    """One process that is started again when it ends. It is handed `listening`, if given, which outlasts it."""

    def __init__(self, verb: str, settings: Settings, listening: socket.socket | None = None) -> None:
        self.verb = verb
        self._handed_over = () if listening is None else (listening.fileno(),)
        self._command = [sys.executable, "-P", "-m", "daemon", verb, "--config", str(settings.path)]
        self._process: asyncio.subprocess.Process | None = None

    async def keep_running(self) -> int:
        """Run until cancelled; the exit code of a process that must not be started again."""
        wait = _FIRST_WAIT
        try:
            while True:
                started = time.monotonic()
                environ = {**os.environ, SUPERVISOR: str(os.getpid())}
                if self._handed_over:
                    environ[HANDED_OVER] = str(self._handed_over[0])
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, env=environ, pass_fds=self._handed_over
                )
                code = await self._process.wait()
                if code == _NO_RETRY:
                    return code
                if time.monotonic() - started > _STEADY:
                    wait = _FIRST_WAIT
                log.error("process.ended", process=self.verb, code=code, restart_in=wait)
                await asyncio.sleep(wait)
                wait = min(_LONGEST_WAIT, 2 * wait)
        finally:
            if self._process is not None:
                await end(self._process, _GRACE)

    def send(self, number: signal.Signals) -> None:
        """Pass a signal on."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)


async def _supervise(settings: Settings, listening: socket.socket) -> int:
    # The poller goes first: it makes the database that the server reads.
    processes = [_Supervised("poll", settings), _Supervised("serve", settings, listening)]
    tasks = [asyncio.create_task(p.keep_running()) for p in processes]
    stop = asyncio.create_task(asyncio.Event().wait())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.cancel)

    def reload() -> None:
        for process in processes:
            process.send(signal.SIGHUP)

    loop.add_signal_handler(signal.SIGHUP, reload)
    notify("READY=1")
    done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
    notify("STOPPING=1")
    code = next((t.result() for t in done if t is not stop and not t.cancelled()), 0)
    for task in [stop, *tasks]:
        task.cancel()
    await asyncio.gather(stop, *tasks, return_exceptions=True)
    return int(code)


def run(settings: Settings) -> int:
    """Run server and poller until SIGTERM or SIGINT."""
    keep_memory_private()
    logs.configure(settings.daemon.log_format, settings.daemon.log_level)
    # Held here, it waits for the next server when one ends: who asks meanwhile waits with it, and is answered.
    with listening_on(settings) as listening:
        return asyncio.run(_supervise(settings, listening))
