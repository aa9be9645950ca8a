"""One run of one source: a child process that reads, and the merge of what it read."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import orjson
import structlog

from config.settings import Configured, Settings
from daemon.answers import rfc3339
from daemon.child import Job
from daemon.configured import rules_of
from daemon.errors import DatabaseDamaged, DatabaseUnusable
from daemon.matching import resource_key
from daemon.pipeline import Report, Store, Turned
from daemon.processes import end
from daemon.store.findings import Transition
from daemon.version import version

log = structlog.get_logger()

Event = dict[str, Any]
OnEvent = Callable[[Event], None]

SILENCE = 60.0
"""Seconds without a word from a child after which its place goes to another."""
_GRACE = 5.0
"""Seconds that a child has to end on SIGTERM before it is killed."""


def job_for(settings: Settings, source: Configured, spool: Path | None = None) -> Job:
    """What the child of a source is told, to read it whole; secrets go as references."""
    kinds = {
        str(kind)
        for integration in settings.integrations.values()
        for directory, kind in rules_of(integration).kinds()
        if directory == source.name
    }
    options = dict(source.options)
    job = Job(source.name, source.role, source.settings.connector, options, sorted(kinds), str(spool or ""))
    return replace(job, base=_base_of(job), memory_limit=source.settings.memory_limit)


def _base_of(job: Job) -> str:
    """What bookmarks are good for: another option, kind of principal or version of ours may read other things."""
    told = [version(), job.role, job.connector, job.options, job.kinds]
    return blake2b(orjson.dumps(told, option=orjson.OPT_SORT_KEYS, default=str), digest_size=12).hexdigest()


@asynccontextmanager
async def child(job: Job) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child at work on `job`. Whatever happens, it has ended when the context has."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "daemon.child",
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        assert process.stdin
        process.stdin.write(job.to_json())
        process.stdin.close()
        yield process
    finally:
        await end(process, _GRACE)


async def events_of(process: asyncio.subprocess.Process) -> AsyncIterator[Event]:
    """The lines of a child's progress, until it closes its output."""
    assert process.stdout
    async for line in process.stdout:
        yield orjson.loads(line)


class _Place:
    """One of the few places of the runs that go on at once."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._taken = False

    async def __aenter__(self) -> Self:
        await self._places.acquire()
        self._taken = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        if self._taken:
            self._taken = False
            self._places.release()

    @asynccontextmanager
    async def lent_in_silence(self, source: str) -> AsyncIterator[Callable[[], None]]:
        """Call what this gives at each sign of life. Where none comes for long, another source may have the place.

        A few that hang must not keep all others waiting for as long as each may take.
        """
        loop = asyncio.get_running_loop()

        def lend() -> None:
            log.warning("poll.silent", source=source, seconds=SILENCE)
            self._give_back()

        timer = loop.call_later(SILENCE, lend)

        def heard() -> None:
            nonlocal timer
            timer.cancel()
            timer = loop.call_later(SILENCE, lend)

        try:
            yield heard
        finally:
            timer.cancel()


class Runner:
    """Runs sources into a store, one run of a source at a time, a few sources at once."""

    def __init__(self, store: Store, settings: Settings, *, at_once: int = 4) -> None:
        self.settings = settings
        self._store = store
        self._locks: dict[str, asyncio.Lock] = {}
        self._places = asyncio.Semaphore(at_once)
        # One thread writes: SQLite wants one writer, and the loop must not wait for a merge.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._number = 0
        self.on_rebuilt: Callable[[], None] = lambda: None
        """Called when a damaged database was replaced by an empty one: every source is to be read."""

    def close(self) -> None:
        """Wait for a merge that is under way."""
        self._writer.shutdown(wait=True)

    async def configure(self, settings: Settings) -> None:
        """Serve another configuration from now on."""
        await self._write(self._store.configure, settings)
        self.settings = settings

    async def run(self, name: str, on_event: OnEvent, *, whole: bool = False) -> Report:
        """Read the source `name`, and merge it. Never raises for what can go wrong with a source.

        Where the source tells what has changed, that is read, unless a whole read is due, or asked for by `whole`.
        """
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock, _Place(self._places) as place:
            started = time.monotonic()
            on_event({"source": name, "event": "started"})
            source = next((s for s in self.settings.sources if s.name == name), None)
            if source is None:
                return Report(name, "failed", errors={"": {"code": "gone", "message": "no longer configured"}})
            report = await self._run(source, place, on_event, whole=whole)
            on_event(finished(report, time.monotonic() - started))
            return report

    async def turn(self) -> tuple[list[Turned], float | None]:
        """Apply what time alone has changed; what that did, and when time will change something next."""
        done: list[Turned] = await self._write(self._store.turn)
        following: float | None = await self._write(self._store.next_turn)
        return done, following

    async def confirm(self, name: str, resources: Sequence[str] | None) -> Turned:
        """Put into force what waits for these resources of an integration; with None, for all."""
        keys = None if resources is None else [resource_key(r) for r in resources]
        done: Turned = await self._write(self._store.confirm, name, keys)
        return done

    async def accept(self, name: str, on_event: OnEvent) -> Report | None:
        """Let a held snapshot through; None if nothing is held."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            started = time.monotonic()
            report: Report | None = await self._write(self._store.accept, name)
            if report:
                on_event(finished(report, time.monotonic() - started))
            return report

    async def _run(self, source: Configured, place: _Place, on_event: OnEvent, *, whole: bool) -> Report:
        self._number += 1
        spool = self._store.spool / f"{source.name}.{self._number}.db"
        try:
            error = await self._read(source, spool, place, on_event, whole=whole)
            on_event({"source": source.name, "event": "merging"})
            report: Report = (
                await self._write(self._store.fail, source.name, error)
                if error
                else await self._write(self._store.run, source.name, spool)
            )
        except DatabaseUnusable as unusable:
            if isinstance(unusable, DatabaseDamaged) or self._store.lost:
                await self._reopen()
            told = {"code": "database", "message": unusable.message, "remedy": unusable.remedy}
            return Report(source.name, "failed", errors={"": told})
        else:
            return report
        finally:
            with suppress(OSError):  # the disk has failed, and the run has said so; the next start removes it
                spool.unlink(missing_ok=True)

    async def _reopen(self) -> None:
        """Open the database anew; if that fails too, the next run tries again."""
        try:
            if await self._write(self._store.reopen, self.settings):
                self.on_rebuilt()
        except DatabaseUnusable as unusable:
            log.error("database.lost", problem=unusable.message, remedy=unusable.remedy)  # noqa: TRY400  # no traceback

    async def _read(
        self, source: Configured, spool: Path, place: _Place, on_event: OnEvent, *, whole: bool
    ) -> dict[str, Any] | None:
        """Run the child to its end; the error that keeps its spool from being used."""
        job = job_for(self.settings, source, spool)
        if (known := await self._write(self._store.known, source.name)) is not None:
            job = replace(job, secret=known.secret, fingerprint="" if whole else known.fingerprint)
        if not whole:
            since = await self._write(
                partial(self._store.bookmarks, base=job.base, whole_interval=source.settings.whole), source.name
            )
            job = replace(job, since=since)
        limit = source.settings.time_limit
        try:
            async with asyncio.timeout(limit), child(job) as process, place.lent_in_silence(source.name) as heard:
                async for event in events_of(process):
                    heard()
                    if "fatal" in event:
                        fatal: dict[str, Any] = event["fatal"]
                        return fatal
                    kind = "scopes" if "scopes" in event else "scope"
                    on_event({"source": source.name, "event": kind, **event})
                code = await process.wait()
        except TimeoutError:
            return {
                "code": "time_limit",
                "message": f"the run took longer than {limit:g} s and was stopped",
                "remedy": "raise `time_limit`, or find out why the source is slow",
            }
        if code != 0:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return {"code": "crashed", "message": f"the child process ended with {how}", "remedy": ""}
        return None

    async def _write(self, call: Callable[..., Any], *arguments: Any) -> Any:
        # Shielded: a merge that has begun ends in its commit or its rollback, also while the process stops.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._writer, call, *arguments))


def finished(report: Report, seconds: float) -> Event:
    """The event that ends a run."""
    return {
        "source": report.source,
        "event": "finished",
        "state": report.state,
        "rows": report.rows,
        "added": report.counts.added,
        "changed": report.counts.changed,
        "removed": report.counts.removed,
        "owner_changes": report.owner_changes,
        "drift_opened": sum(t.opened for t in report.transitions),
        "drift_resolved": sum(not t.opened for t in report.transitions),
        "errors": report.errors,
        "held": [{"what": type(h).__name__, "subject": h.subject, "why": h.why} for h in report.held],
        "released": report.released,
        "seconds": round(seconds, 3),
    }


def log_drift(log: Any, transitions: Iterable[Transition]) -> None:
    """One line a finding that opened or was resolved."""
    for t in transitions:
        told = {"integration": t.integration, "kind": t.kind, "key": t.key, "value": t.value, "resources": t.resources}
        if t.opened:
            log.warning("drift.opened", **told, suggestions=list(t.suggestions))
        else:
            log.info("drift.resolved", **told)


def log_turned(log: Any, turned: Turned, *, confirmed: bool = False) -> None:
    """One line a change that came into force, one a finding, and a summary."""
    for resource, old, new in turned.applied:
        log.warning(
            "owner.confirmed" if confirmed else "owner.applied",
            integration=turned.source,
            resource=resource,
            old=old,
            new=new,
        )
    log_drift(log, turned.transitions)
    log.info("time.turned", source=turned.source, owner_changes=turned.owner_changes)


def log_report(log: Any, report: Report, event: Mapping[str, Any]) -> None:
    """One line a transition, one a failed scope or held part, and one summary line a run."""
    log_drift(log, report.transitions)
    for scope, error in report.errors.items():
        log.error("poll.scope_failed", source=report.source, scope=scope, **error)
    for h in report.held:
        log.error(
            "guard.held", source=report.source, subject=h.subject, why=h.why, remedy=f"ownerd held {report.source}"
        )
    for integration, resource, old, new, until in report.waiting:
        told = {"integration": integration, "resource": resource, "old": old, "new": new, "until": rfc3339(until)}
        log.warning("owner.pending", **told)
    if report.released:
        log.info("guard.released", source=report.source)
    summary = {k: v for k, v in event.items() if k not in {"event", "errors", "held", "released"}}
    level = log.info if report.state == "ok" else log.warning
    level("poll.finished", **summary)
