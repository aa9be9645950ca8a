"""Lists that are paged by position, and so shift when something is added or goes while they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from connectors.errors import Incomplete
from connectors.seen import Seen

TRIES = 3
"""How often a list that moves while it is read is read."""


class Moved(Exception):
    """The list changed while its pages were read, so that some rows may have been skipped."""


def each_once(
    what: str, pages: Callable[[int], Iterable[list[dict[str, Any]]]], id_of: Callable[[dict[str, Any]], str]
) -> Iterator[dict[str, Any]]:
    """Each row of a list once, whose pages raise `Moved` where they see it; a row that comes twice means the same.

    `pages` is called with the number of the try, from 0. What an earlier try has yielded stays: the next one is for
    what it may have skipped. Incomplete after the last.
    """
    why = ""
    with ExitStack() as stack:
        earlier: list[Seen] = []
        for attempt in range(TRIES):
            seen = stack.enter_context(Seen())
            try:
                for row in (row for page in pages(attempt) for row in page):
                    id_ = id_of(row)
                    _first_time(id_, seen)
                    if not any(id_ in others for others in earlier):
                        yield row
            except Moved as moved:
                why = str(moved)
                earlier.append(seen)
            else:
                return
    raise Incomplete(
        f"{what}: read {TRIES} times, and each time {why}: some of it may have been skipped",
        remedy="the next run is right if it was being changed; else its pages do not follow one another as they should",
    )


def _first_time(id_: str, seen: Seen) -> None:
    if id_ in seen:
        raise Moved("an id came twice")
    seen.add(id_)
