"""How things look: tables for people, plain tab-separated lines for pipes, JSON for programs.

No text from outside is shown raw, nor taken for markup.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import compress, islice
from typing import TYPE_CHECKING, Any, Literal

from daemon.text import json_text, printable

if TYPE_CHECKING:
    from rich.console import Console

    from daemon.client import Rows

Cell = str | tuple[str, str] | list[str]
"""A cell: text; text and a style; or a list of texts."""

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. How it looks in a pipe never changes with the width of anything."""

    title: str
    fold: bool = False
    """Gives way where there is not room for all, and is then folded."""
    under: str = ""
    """Where there is no room for it: the column under whose text it goes; a list is a line each there."""
    right: bool = False
    """Numbers."""
    only: Literal["", "pipe", "people"] = ""
    """Whom it is for, if not for all."""


def is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def console() -> Console:
    """Standard output, for tables. NO_COLOR is honoured."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)


def note(message: str) -> None:
    """A remark for people, dim; programs are not bothered."""
    if is_terminal():
        console().print(printable(message), style="dim")


def complain(message: str, *remedies: str, head: str = "ownerd: ") -> None:
    """An error on standard error: what happened, and what to do."""
    with contextlib.suppress(OSError):  # reported when it is tried again
        sys.stdout.flush()  # what came before it stays before it
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    shown = f"{_RED}{head}{_PLAIN}" if coloured and head else head
    sys.stderr.write(f"{shown}{printable(message)}\n")
    for remedy in filter(None, remedies):
        sys.stderr.write(f"  → {printable(remedy)}\n")


def as_json(value: Any) -> None:
    """One JSON document; indented for people."""
    if not is_terminal():
        sys.stdout.write(json_text(value) + "\n")
        return
    text = json.dumps(value, indent=2, ensure_ascii=False)
    sys.stdout.write("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text) + "\n")


def as_json_list(name: str, rows: Rows) -> None:
    """A list of any length as one JSON document in the socket's shape, a row a line; no document if it fails."""
    sys.stdout.write(f'{{"{name}":[')
    for number, row in enumerate(rows):
        sys.stdout.write(("," if number else "") + "\n" + json_text(row))
    sys.stdout.write(f'\n],"next":{json_text(rows.next)}}}\n')


def table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, empty: str = "") -> None:
    """A table on a terminal; else a line a row, of all cells, divided by tabs, with `-` for an empty one."""
    if not is_terminal():
        piped = [column.only != "people" for column in columns]
        for row in rows:
            sys.stdout.write(line(compress(row, piped)))
        return
    from daemon.cli.tables import grid

    left: Iterator[Sequence[Cell]] = iter(rows)
    out = console()
    some = False
    while batch := list(islice(left, _AT_ONCE)):  # a list may be longer than memory
        out.print(grid(columns, batch, out.width))
        some = True
    if not some and empty:
        out.print(empty, style="dim")


def story(lines: Iterable[tuple[str, Cell]]) -> None:
    """Labelled lines, one below the other."""
    if is_terminal():
        from daemon.cli.tables import labelled

        console().print(labelled(lines))
        return
    for row in lines:
        sys.stdout.write(line(row))


def line(cells: Iterable[Cell]) -> str:
    """A line for a pipe: cells divided by tabs, `-` for an empty one."""
    return "\t".join(plain(cell) or "-" for cell in cells) + "\n"


def plain(cell: Cell) -> str:
    """A cell for a pipe: whole, on one line, harmless."""
    if isinstance(cell, str):
        return printable(cell)
    if isinstance(cell, tuple):
        return printable(cell[0])
    return ", ".join(map(printable, cell))


def age(at: str | None) -> str:
    """`2026-11-23T08:00:00Z` as `3m ago` for people, as it is for programs; `never` for None."""
    if at is None or not is_terminal():
        return at or "never"
    return f"{span(time.time() - datetime.fromisoformat(at).timestamp())} ago"


def ahead(at: str) -> str:
    """A moment to come: `in 25m` for people; `now` once it has passed."""
    left = datetime.fromisoformat(at).timestamp() - time.time()
    return f"in {span(left)}" if left > 0 else "now"


def span(seconds: float) -> str:
    """A length of time in its largest unit: `45s`, `3m`, `5h`, `12d`."""
    left = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if left >= 2 * size or (unit == "m" and left >= size):
            return f"{left // size}{unit}"
    return f"{left}s"


# --- answers ----------------------------------------------------------------------------------------------------------


def owners_of(outcome: Mapping[str, Any]) -> str:
    """The owners' names, each with its kind where it is no group."""
    if not outcome["owners"]:
        return "nobody"
    return ", ".join(
        o["name"] or o["id"] if o["kind"] == "group" else f"{o['name'] or o['id']} ({o['kind']})"
        for o in outcome["owners"]
    )


def source_of(outcome: Mapping[str, Any]) -> Cell:
    """How the owners were found; a fallback stands out."""
    if outcome["fallback"]:
        return f"FALLBACK: {outcome['reason']}", "yellow"
    if outcome["reason"]:
        return str(outcome["reason"]), "yellow"
    return str(outcome["source"])


def seen_at(answer: Mapping[str, Any]) -> str | None:
    """When the older of the two readings was that an answer rests on."""
    return min((at for at in (answer["resource_seen_at"], answer["owners_seen_at"]) if at is not None), default=None)
