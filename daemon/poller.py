"""The poller: runs every source on its schedule, and takes orders on the control socket."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from config.problems import ConfigurationError
from config.settings import Settings, load_settings
from daemon import control, logs
from daemon.engine import confirmed, nothing_held
from daemon.errors import OwnerdError
from daemon.notify import notify, watchdog_interval
from daemon.pipeline import Report, Store
from daemon.processes import end_with_supervisor, give_way, keep_memory_private
from daemon.runner import Event, OnEvent, Runner, finished, log_report, log_turned

FIRST_RETRY = 15.0
"""Seconds from a source's first failure to the next try; doubled with each, up to its interval."""
CLOCK_JUMP = 60.0
"""Seconds that the wall clock may move against the monotonic one before everything is read anew."""
LONGEST_LOOK = 30.0
"""Seconds between two looks at what time alone has changed."""
DIRECTORIES_FIRST = 60.0
"""Seconds for which integrations wait, after a start, until each directory has been tried once."""
JITTER = 0.1
"""Share of the interval that is added at random, so that many hosts do not ask at once."""

log = structlog.get_logger()


LASTING = frozenset({"unauthenticated", "forbidden", "misconfigured", "missing_extra", "incomplete", "bad_data"})
"""Errors that an early retry does not heal; with a wrong password it would lock the account besides."""


def retry_delay(failures: int, interval: float, asked: float | None, codes: Collection[str] = ()) -> float:
    """Seconds to the next try after `failures` in a row: doubling, no longer than the interval, no less than asked.

    Where no error (`codes`) is one that passes, the interval.
    """
    if codes and LASTING.issuperset(codes):
        return max(interval, asked or 0.0)
    doubled = FIRST_RETRY * 2.0 ** min(failures - 1, 30)
    return max(min(doubled, interval), asked or 0.0)


class Poller:
    """The scheduler and its orders, over one store."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._runner = Runner(store, settings)
        self._runner.on_rebuilt = self._run_all
        self._failures: dict[str, int] = {}
        self._untried = set(settings.directories)
        self._directories_tried = asyncio.Event()
        self._stop = asyncio.Event()
        self._clock_offset = time.time() - time.monotonic()
        self._published = asyncio.Event()
        """Something was: a hand-over may be nearer than it was."""
        self._runs: set[asyncio.Task[Any]] = set()
        # A late run is still wanted (no misfire limit), and several missed ones are one.
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )

    async def serve(self) -> None:
        """Poll until told to stop."""
        settings = self._runner.settings
        await self._runner.configure(settings)
        server = await control.listen(settings.control_socket, self._obey)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload()))
        self._schedule(settings)
        self._scheduler.start()
        self._spawn(self._watchdog())
        self._spawn(self._keep_time())
        log.info("poller.ready", sources=len(settings.sources), state_directory=str(settings.state_directory))
        notify("READY=1")
        try:
            await self._stop.wait()
        finally:
            notify("STOPPING=1")
            log.info("poller.stopping")
            self._scheduler.shutdown(wait=False)
            server.close()
            for task in self._runs:
                task.cancel()
            await asyncio.gather(*self._runs, return_exceptions=True)
            self._runner.close()
            settings.control_socket.unlink(missing_ok=True)

    def _spawn(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)
        return task

    # --- the schedule -----------------------------------------------------------------------------------------------

    def _schedule(self, settings: Settings) -> None:
        """Make the jobs what the configuration says; what has not changed keeps its time."""
        wanted = {source.name: source.settings.interval for source in settings.sources}
        for job in self._scheduler.get_jobs():
            if job.id not in wanted or job.trigger.interval.total_seconds() != wanted.pop(job.id):
                wanted.setdefault(job.id, 0.0)
                job.remove()
        current = {source.name: source.settings.interval for source in settings.sources}
        now = datetime.now(UTC)
        for order, name in enumerate(n for n in current if n in wanted):
            self._scheduler.add_job(
                self._on_time,
                IntervalTrigger(seconds=current[name], jitter=JITTER * current[name], timezone=UTC),
                args=[name],
                id=name,
                # At once, but not all in one moment; directories come first.
                next_run_time=now + timedelta(seconds=0.05 * order),
            )

    def _run_all(self) -> None:
        """Run every source soon: the database is new."""
        now = datetime.now(UTC)
        for order, job in enumerate(self._scheduler.get_jobs()):
            job.modify(next_run_time=now + timedelta(seconds=1 + 0.05 * order))

    async def _on_time(self, name: str) -> None:
        with suppress(asyncio.CancelledError):  # the poller stops
            if name in self._runner.settings.integrations:
                # Else its rows would first wait for the directories, and then be resolved a second time.
                try:
                    await asyncio.wait_for(self._directories_tried.wait(), DIRECTORIES_FIRST)
                except TimeoutError:
                    self._directories_tried.set()
            await self._spawn(self._run(name, lambda _event: None))

    async def _run(self, name: str, on_event: OnEvent, *, whole: bool = False) -> Report:
        summary: Event = {}

        def listen(event: Event) -> None:
            summary.clear()
            summary.update(event)
            on_event(event)

        try:
            report = await self._runner.run(name, listen, whole=whole)
        finally:
            self._published.set()
            self._untried.discard(name)
            if not self._untried:
                self._directories_tried.set()
        log_report(log, report, summary if summary.get("event") == "finished" else finished(report, 0.0))
        self._back_off(report)
        return report

    def _back_off(self, report: Report) -> None:
        if report.state in {"ok", "held"}:
            self._failures.pop(report.source, None)
            return
        failures = self._failures[report.source] = self._failures.get(report.source, 0) + 1
        job = self._scheduler.get_job(report.source)
        if job is None:
            return
        codes = {error["code"] for error in report.errors.values()}
        delay = retry_delay(failures, job.trigger.interval.total_seconds(), report.retry_after, codes)
        delay *= 1 + JITTER * random.random()  # noqa: S311  # spreads load, guards nothing
        job.modify(next_run_time=datetime.now(UTC) + timedelta(seconds=delay))
        log.info("poll.retry", source=report.source, failures=failures, seconds=round(delay, 1))

    async def _keep_time(self) -> None:
        """Hand schedules over at their minute, without a poll.

        Looks at the wall clock often enough to notice when it was set, or stood still while the machine slept.
        """
        while True:
            self._published.clear()
            self._look_at_the_clock()
            try:
                done, following = await self._runner.turn()
            except OwnerdError as error:
                log.error("time.failed", problem=error.message, remedy=error.remedy)  # noqa: TRY400  # no traceback
                done, following = [], None
            for turned in done:
                log_turned(log, turned)
            wait = LONGEST_LOOK if following is None else min(max(following - time.time(), 0.0), LONGEST_LOOK)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._published.wait(), wait)

    def _look_at_the_clock(self) -> None:
        """Run everything soon if the wall clock was set, or the machine slept.

        The schedule keeps to the wall clock: set back by a day, it would rest for a day.
        """
        offset = time.time() - time.monotonic()
        by = offset - self._clock_offset
        if abs(by) >= CLOCK_JUMP:
            self._clock_offset = offset
            log.warning("time.jumped", seconds=round(by))
            self._run_all()

    # --- orders -----------------------------------------------------------------------------------------------------

    async def _obey(self, request: Event, send: Callable[[Event], None]) -> None:
        known = [s.name for s in self._runner.settings.sources]
        match request:
            case {"verb": "sync", "sources": [*names]} if names and all(n in known for n in names):
                for role in ("directory", "integration"):  # in this order: else rows would be resolved twice
                    todo = [s.name for s in self._runner.settings.sources if s.role == role and s.name in names]
                    whole = bool(request.get("whole"))
                    await asyncio.gather(*(self._spawn(self._run(name, send, whole=whole)) for name in todo))
            case {"verb": "accept", "source": str(name)} if name in known:
                report = await self._runner.accept(name, send)
                if report is None:
                    send(nothing_held(name))
                else:
                    log.warning("guard.accepted", source=name)
                    log_report(log, report, finished(report, 0.0))
            case {"verb": "confirm", "source": str(name), "resources": [*_] | None as resources} if (
                name in self._runner.settings.integrations
            ):
                turned = await self._runner.confirm(name, resources)
                log_turned(log, turned, confirmed=True)
                send(confirmed(turned))
            case _:
                send({"event": "refused", "message": f"the poller does not know how to do this; it has {known}"})

    async def _reload(self) -> None:
        """Read the configuration again; a bad one is refused, and the old one stays."""
        old = self._runner.settings
        try:
            new = await asyncio.to_thread(load_settings, old.path)
        except ConfigurationError as error:
            for problem in error.problems:
                log.error("config.refused", place=problem.place, problem=problem.message)  # noqa: TRY400  # no traceback
            log.error("config.kept", path=str(old.path), remedy="correct the file and reload again")  # noqa: TRY400
            return
        if (new.state_directory, new.runtime_directory) != (old.state_directory, old.runtime_directory):
            log.error("config.kept", path=str(old.path), remedy="a new state or runtime directory needs a restart")
            return
        try:
            await self._runner.configure(new)
        except OwnerdError as error:
            log.error("config.kept", problem=error.message, remedy=error.remedy)  # noqa: TRY400  # no traceback
            return
        logs.configure(new.daemon.log_format, new.daemon.log_level)
        self._schedule(new)
        log.info("config.reloaded", path=str(new.path), sources=len(new.sources))

    async def _watchdog(self) -> None:
        interval = watchdog_interval()
        while interval is not None:
            notify("WATCHDOG=1")
            await asyncio.sleep(interval)


def poll(settings: Settings) -> int:
    """Run the poller until SIGTERM or SIGINT."""
    end_with_supervisor()
    keep_memory_private()
    give_way()
    logs.configure(settings.daemon.log_format, settings.daemon.log_level)
    store = Store(settings.state_directory)
    try:

        async def main() -> None:
            await Poller(settings, store).serve()

        asyncio.run(main())
    finally:
        store.close()
    return 0
