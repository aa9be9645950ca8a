"""Processes that are started again when they end: what `ownerd run` and a server with workers keep."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import structlog

from config.settings import Settings
from daemon.notify import HANDED_OVER, notify
from daemon.processes import SUPERVISOR, end

log = structlog.get_logger()

NO_RETRY = 2
"""The exit code for a configuration that cannot be used."""
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 30.0
_STEADY = 60.0
"""Seconds after which a process counts as having started well."""


class Supervised:
    """`ownerd VERB`, kept running. It is handed descriptor `listening`, if given, which outlasts it."""

    grace = 15.0
    """Seconds that it has to end when it is told to."""

    def __init__(self, verb: str, settings: Settings, listening: int | None = None) -> None:
        self.name = verb
        self._listening = listening
        self._command = [sys.executable, "-P", "-m", "daemon", verb, "--config", str(settings.path)]
        self._process: asyncio.subprocess.Process | None = None

    async def keep_running(self) -> int:
        """Run until cancelled; the exit code of a process that must not be started again."""
        wait = _FIRST_WAIT
        try:
            while True:
                started = time.monotonic()
                self.starting()
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, env=self.environment(), pass_fds=self.descriptors()
                )
                code = await self._process.wait()
                if self.final(code):
                    return code
                if time.monotonic() - started > _STEADY:
                    wait = _FIRST_WAIT
                log.error("process.ended", process=self.name, code=code, restart_in=wait)
                await asyncio.sleep(wait)
                wait = min(_LONGEST_WAIT, 2 * wait)
        finally:
            if self._process is not None:
                await end(self._process, self.grace)

    @property
    def pid(self) -> int | None:
        """The process that runs now, if one does."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def starting(self) -> None:
        """It is about to be started."""

    def environment(self) -> dict[str, str]:
        """What it is told: this process's environment, and who its supervisor is."""
        told = {**os.environ, SUPERVISOR: str(os.getpid())}
        if self._listening is not None:
            told[HANDED_OVER] = str(self._listening)
        return told

    def descriptors(self) -> Sequence[int]:
        """The open files that it inherits."""
        return () if self._listening is None else (self._listening,)

    def final(self, code: int) -> bool:
        """Whether a process that ended so must not be started again."""
        return code == NO_RETRY

    def send(self, number: signal.Signals) -> None:
        """Pass a signal on."""
        if self._process and self.pid is not None:
            self._process.send_signal(number)


async def supervise(
    processes: Sequence[Supervised], begun: Callable[[], None], reload: Callable[[], None] = lambda: None
) -> int:
    """Keep `processes` running until SIGTERM, SIGINT, or one must not be started again: its exit code then, else 0.

    `begun` is called once signals are heeded; `reload` at SIGHUP, which is passed on.
    """
    tasks = [asyncio.create_task(p.keep_running()) for p in processes]
    stop = asyncio.create_task(asyncio.Event().wait())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.cancel)

    def pass_on() -> None:
        reload()
        for process in processes:
            process.send(signal.SIGHUP)

    loop.add_signal_handler(signal.SIGHUP, pass_on)
    begun()
    done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
    notify("STOPPING=1")
    code = next((t.result() for t in done if t is not stop and not t.cancelled()), 0)
    for task in [stop, *tasks]:
        task.cancel()
    await asyncio.gather(stop, *tasks, return_exceptions=True)
    return int(code)
