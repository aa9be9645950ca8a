"""What the command line does itself: check, sync, accept and held.

`sync` and `accept` go through a running poller, which is then the one writer; without one they do the work here.
Events: `started`, `scope` (rows so far, `done`, or an `error`), `merging`, `finished`; see `daemon.runner.finished`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from config.settings import Settings
from daemon.control import ask
from daemon.errors import NotRunning, OwnerdError
from daemon.held import HeldSnapshots
from daemon.pipeline import Store, Turned
from daemon.runner import Event, OnEvent, Runner, child, events_of, job_for

_CHECK_LIMIT = 120.0


async def check(settings: Settings, names: Sequence[str] = ()) -> AsyncGenerator[Event, None]:
    """Try each source's credentials and permissions: `{"source", "what", "ok", "detail", "remedy"}`."""
    for source in settings.sources:
        if names and source.name not in names:
            continue
        try:
            async with asyncio.timeout(_CHECK_LIMIT), child(job_for(settings, source)) as process:
                async for event in events_of(process):
                    yield {"source": source.name, **event}
                code = await process.wait()
        except TimeoutError:
            yield _failed(source.name, f"no end after {_CHECK_LIMIT:g} s")
        else:
            if code != 0:
                yield _failed(source.name, f"the child process ended with exit code {code}")


def _failed(source: str, detail: str) -> Event:
    return {"source": source, "what": "check", "ok": False, "detail": detail, "remedy": ""}


async def sync(settings: Settings, names: Sequence[str] = (), *, whole: bool = False) -> AsyncGenerator[Event, None]:
    """Run sources once: all of them, directories first, or those named. With `whole`, changes are not enough."""
    wanted = list(names) or [s.name for s in settings.sources]

    async def here(runner: Runner, on_event: OnEvent) -> None:
        # Directories first: else rows would wait for them, and be resolved twice.
        for role in ("directory", "integration"):
            todo = [s.name for s in settings.sources if s.role == role and s.name in wanted]
            await asyncio.gather(*(runner.run(name, on_event, whole=whole) for name in todo))

    async with aclosing(_through(settings, {"verb": "sync", "sources": wanted, "whole": whole}, here)) as events:
        async for event in events:
            yield event


async def accept(settings: Settings, name: str) -> AsyncGenerator[Event, None]:
    """Let the held snapshot of a source through. OwnerdError if nothing is held."""

    async def here(runner: Runner, on_event: OnEvent) -> None:
        if await runner.accept(name, on_event) is None:
            on_event(nothing_held(name))

    async with aclosing(_through(settings, {"verb": "accept", "source": name}, here)) as events:
        async for event in events:
            yield event


async def confirm(settings: Settings, name: str, resources: Sequence[str] | None) -> AsyncGenerator[Event, None]:
    """Put into force what waits for these resources of an integration; with None, for all of it."""

    async def here(runner: Runner, on_event: OnEvent) -> None:
        on_event(confirmed(await runner.confirm(name, resources)))

    request = {"verb": "confirm", "source": name, "resources": None if resources is None else list(resources)}
    async with aclosing(_through(settings, request, here)) as events:
        async for event in events:
            yield event


def confirmed(turned: Turned) -> Event:
    """The event that ends a confirmation: `resources` whose change is in force now."""
    return {
        "event": "confirmed",
        "source": turned.source,
        "resources": [{"id": rid, "old": old, "new": new} for rid, old, new in turned.applied],
        "owner_changes": turned.owner_changes,
    }


def nothing_held(name: str) -> Event:
    """The event that says that there is nothing to accept."""
    return {"event": "refused", "message": f'nothing of "{name}" is held', "remedy": "see `ownerd held`"}


def held(settings: Settings) -> list[dict[str, Any]]:
    """What is held: see `HeldSnapshots.reports`."""
    return HeldSnapshots(settings.state_directory / "held").reports()


async def _through(
    settings: Settings, request: Event, here: Callable[[Runner, OnEvent], Awaitable[None]]
) -> AsyncGenerator[Event, None]:
    """Ask the running poller, or do it here. OwnerdError if the poller ends before it has answered."""
    told: Event = {}
    try:
        async with aclosing(ask(settings.control_socket, request)) as events:
            async for told in events:
                _raise_refusal(told)
                yield told
    except NotRunning as error:
        if error.remedy:  # there is one, and we may not ask it
            raise
    except ConnectionError:
        raise _cut_short() from None
    else:
        if told.get("event") not in {"finished", "confirmed"}:
            raise _cut_short()
        return
    async with aclosing(_here(settings, here)) as events:
        async for event in events:
            _raise_refusal(event)
            yield event


def _cut_short() -> OwnerdError:
    return OwnerdError("the poller ended before it had answered", remedy="see whether it runs, and ask again")


async def _here(settings: Settings, work: Callable[[Runner, OnEvent], Awaitable[None]]) -> AsyncGenerator[Event, None]:
    store = Store(settings.state_directory)
    runner = Runner(store, settings)
    queue: asyncio.Queue[Event | None] = asyncio.Queue()
    try:
        await runner.configure(settings)
        task = asyncio.create_task(_until_done(work(runner, queue.put_nowait), queue))
        try:
            while (event := await queue.get()) is not None:
                yield event
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    finally:
        runner.close()
        store.close()


async def _until_done(work: Awaitable[None], queue: asyncio.Queue[Event | None]) -> None:
    try:
        await work
    finally:
        queue.put_nowait(None)


def _raise_refusal(event: Event) -> None:
    if event.get("event") == "refused":
        raise OwnerdError(event["message"], remedy=event.get("remedy", ""))
