"""Reads a connector's scopes, one after the other or side by side, into one stream of messages.

Side by side, each scope is read in a thread of its own; what it yields comes in batches through a queue that is
bounded, so that memory does not grow when the reader is faster than the disk.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import islice
from typing import NamedTuple

from connectors.contract import Connector
from connectors.errors import StaleBookmark
from connectors.values import Change

BATCH = 500


class Started(NamedTuple):
    """A scope's reading begins."""

    scope: str


class Batch(NamedTuple):
    """Some of a scope's records, in their order."""

    scope: str
    records: list[Change]


class Restarted(NamedTuple):
    """What the scope has yielded is void: it is read whole from here on."""

    scope: str


class Ended(NamedTuple):
    """A scope was read to its end, or failed."""

    scope: str
    error: Exception | None


Message = Started | Batch | Restarted | Ended
Sdk = Callable[[], AbstractContextManager[None]]


def messages(
    connector: Connector, scopes: Sequence[str], since: Mapping[str, str], *, sdk: Sdk
) -> Generator[Message, None, None]:
    """Read every scope, from its bookmark in `since` or whole. `sdk` turns a missing module into its error."""
    if connector.at_once == 1 or len(scopes) < 2:
        for scope in scopes:
            yield from _one(connector, scope, since.get(scope), sdk)
    else:
        yield from _side_by_side(connector, scopes, since, sdk)


def _one(connector: Connector, scope: str, since: str | None, sdk: Sdk) -> Generator[Message, None, None]:
    yield Started(scope)
    try:
        with sdk():
            if since is not None:
                try:
                    yield from _batches(scope, connector.changes(scope, since))
                except StaleBookmark:
                    yield Restarted(scope)
                else:
                    yield Ended(scope, None)
                    return
            yield from _batches(scope, connector.read(scope))
    except Exception as error:  # noqa: BLE001  # an SDK may raise anything; the scope has failed, and says why
        yield Ended(scope, error)
    else:
        yield Ended(scope, None)


def _batches(scope: str, records: Iterator[Change]) -> Iterator[Batch]:
    while batch := list(islice(records, BATCH)):
        yield Batch(scope, batch)


class _Stopped(Exception):
    """Nobody listens any more."""


def _side_by_side(
    connector: Connector, scopes: Sequence[str], since: Mapping[str, str], sdk: Sdk
) -> Generator[Message, None, None]:
    arriving: queue.Queue[Message | None] = queue.Queue(2 * connector.at_once)
    stopped = threading.Event()
    left = iter(scopes)
    lock = threading.Lock()

    def take() -> str | None:
        with lock:
            return next(left, None)

    def put(message: Message | None) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                arriving.put(message, timeout=0.1)
                return
        raise _Stopped

    def work() -> None:
        with suppress(_Stopped):
            try:
                while (scope := take()) is not None:
                    for message in _one(connector, scope, since.get(scope), sdk):
                        put(message)
            finally:
                put(None)

    # Daemons: a thread that hangs in an SDK must not keep the process from its end.
    threads = [
        threading.Thread(target=work, name=f"scope-{n}", daemon=True)
        for n in range(min(connector.at_once, len(scopes)))
    ]
    for thread in threads:
        thread.start()
    try:
        working = len(threads)
        while working:
            message = arriving.get()
            if message is None:
                working -= 1
            else:
                yield message
    finally:
        stopped.set()
