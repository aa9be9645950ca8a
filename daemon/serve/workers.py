"""`ownerd serve` with `workers = N`: a parent that holds the listening socket and keeps N servers running on it.

Each worker is an `ownerd serve` of its own; the kernel gives a connection to one of them. The parent opens no database
and answers nobody. Towards the service manager it stands for all: it is ready when all are, and alive while all are.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import structlog

from config.problems import ConfigurationError
from config.settings import Settings, load_settings
from daemon import logs
from daemon.errors import OwnerdError
from daemon.notify import notify, watchdog_interval
from daemon.processes import end_with_supervisor
from daemon.serve import tally
from daemon.sockets import listening_on
from daemon.supervised import Supervised, supervise

log = structlog.get_logger()

_LOOKS = 8
"""Looks at the workers in the time that the service manager allows between two signs of life."""
_STARTING = 60.0
"""Seconds that a worker has to begin, at the least."""


class Signs:
    """What is known of whether a worker lives. All times are seconds of one monotonic clock."""

    def __init__(self, allowed: float) -> None:
        self.ready = False
        """Whether it, or one before it in its place, was ever ready."""
        self.warned = False
        """Whether it was silent, and is being ended."""
        self._allowed = allowed
        self._fed = float("-inf")
        self._begun = False
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """A new process takes its place."""
        self._begun = False
        self.excuse(now)

    def excuse(self, now: float) -> None:
        """Its time counts from now on."""
        self._since, self.warned = now, False

    def hear(self, message: bytes, now: float) -> None:
        """It says something: sd_notify(3). Once it is being ended, that counts no more."""
        if self.warned:
            return
        lines = message.split(b"\n")
        self._begun = True
        if b"READY=1" in lines:
            self.ready = True
        if b"WATCHDOG=1" in lines:
            self._fed = now
            self.excuse(now)

    def alive(self, now: float) -> bool:
        """Whether it has given a sign of life within the time allowed. A process that has only begun has not."""
        return now - self._fed <= self._allowed

    def silent(self, now: float) -> bool:
        """Whether it had the time allowed, and gave none. To begin, it has no less than a minute."""
        allowed = self._allowed if self._begun else max(self._allowed, _STARTING)
        return self._since is not None and now - self._since > allowed


class Worker(Supervised):
    """One worker. It speaks to `path`, a socket that is its alone."""

    grace = 10.0

    def __init__(self, number: int, settings: Settings, listening: int, shared: int, path: Path) -> None:
        super().__init__("serve", settings, listening)
        self.number = number
        self.name = f"worker {number}"
        half = watchdog_interval()
        self._usec = None if half is None else os.environ["WATCHDOG_USEC"]
        self.signs = Signs(float("inf") if half is None else 2 * half)
        self._shared = shared
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def starting(self) -> None:
        """What the process before it still said does not speak for it."""
        for _ in self._received():
            pass
        self.signs.begin(time.monotonic())

    def environment(self) -> dict[str, str]:
        """That it is a worker, and whom it tells that it lives: the parent, not the service manager."""
        told = super().environment()
        told |= {tally.WORKER: str(self.number), tally.SHARED: str(self._shared), "NOTIFY_SOCKET": str(self._path)}
        for name in ("WATCHDOG_PID", "WATCHDOG_USEC"):
            told.pop(name, None)
        if self._usec is not None:
            told["WATCHDOG_USEC"] = self._usec
        return told

    def descriptors(self) -> Sequence[int]:
        """The counters too."""
        return (*super().descriptors(), self._shared)

    def final(self, code: int) -> bool:
        """Once it was ready, it is always tried again: a file that somebody edits must not end the other workers."""
        return super().final(code) and not self.signs.ready

    def fileno(self) -> int:
        """Where it is heard."""
        return self._socket.fileno()

    def listen(self) -> None:
        """Hear all that it has said."""
        for message in self._received():
            self.signs.hear(message, time.monotonic())

    def _received(self) -> Iterator[bytes]:
        with suppress(BlockingIOError):
            while True:
                yield self._socket.recv(4096)

    def end_silent(self) -> None:
        """End a process that hangs: SIGABRT; at the next look, SIGKILL."""
        number = signal.SIGKILL if self.signs.warned else signal.SIGABRT
        log.error("worker.silent", worker=self.number, pid=self.pid, signal=number.name)
        self.signs.warned = True
        self.send(signal.SIGCONT)  # a process that is stopped takes no other signal but SIGKILL
        self.send(number)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


class Workers:
    """All workers, towards the service manager."""

    def __init__(self, workers: Sequence[Worker], settings: Settings) -> None:
        self._workers = workers
        self._settings = settings
        self._ready = False
        half = watchdog_interval()
        self._between_looks = None if half is None else 2 * half / _LOOKS
        self._looked = time.monotonic()

    async def keep(self) -> int:
        """Keep them running until SIGTERM or SIGINT; the exit code."""
        loop = asyncio.get_running_loop()
        for worker in self._workers:
            loop.add_reader(worker.fileno(), self._hear, worker)
        watch = asyncio.create_task(self._watch())
        try:
            return await supervise(self._workers, self._begun, self._reload)
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            log.info("workers.stopped")

    def _begun(self) -> None:
        log.info("workers.starting", workers=len(self._workers), socket=str(self._settings.socket))

    def _reload(self) -> None:
        """How the parent itself logs; the workers do the rest, and say what is wrong with the file."""
        with suppress(ConfigurationError):
            new = load_settings(self._settings.path)
            logs.configure(new.daemon.log_format, new.daemon.log_level)

    def _hear(self, worker: Worker) -> None:
        worker.listen()
        if not self._ready and all(w.signs.ready for w in self._workers):
            self._ready = True
            log.info("workers.ready", workers=len(self._workers))
            notify("READY=1")

    async def _watch(self) -> None:
        while self._between_looks is not None:
            await asyncio.sleep(self._between_looks)
            self.look(time.monotonic(), self._between_looks)

    def look(self, now: float, every: float) -> None:
        """Feed the service manager's watchdog if every worker feeds its own; end those that do not."""
        late = now - self._looked > 2 * every
        self._looked = now
        for worker in self._workers:
            worker.listen()
            if worker.pid is None:
                continue
            if late and not worker.signs.warned:
                worker.signs.excuse(now)  # this process stood still; so may they have
            if worker.signs.silent(now):
                worker.end_silent()
        if all(worker.signs.alive(now) for worker in self._workers):
            notify("WATCHDOG=1")


def serve(settings: Settings) -> int:
    """Answer lookups until SIGTERM or SIGINT, in as many processes as are configured."""
    if settings.daemon.workers == 1 or tally.WORKER in os.environ:
        from daemon.serve.server import serve as answer  # the parent of workers needs none of it

        return answer(settings)
    end_with_supervisor()
    logs.configure(settings.daemon.log_format, settings.daemon.log_level)
    with listening_on(settings) as listening, _workers(settings, listening) as workers:
        return asyncio.run(Workers(workers, settings).keep())


@contextmanager
def _workers(settings: Settings, listening: socket.socket) -> Iterator[list[Worker]]:
    shared = tally.make(settings.daemon.workers)
    with ExitStack() as stack:
        stack.callback(os.close, shared)
        workers = []
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ownerd-")))
            for number in range(settings.daemon.workers):
                worker = Worker(number, settings, listening.fileno(), shared, folder / str(number))
                stack.callback(worker.close)
                workers.append(worker)
        except OSError as error:
            raise OwnerdError(
                f"no place for the sockets on which workers say that they live: {error}",
                remedy="let $TMPDIR name a directory that ownerd may write, and whose path is short",
            ) from error
        yield workers
