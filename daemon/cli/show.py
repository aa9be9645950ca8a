"""How things look: tables for people, plain tab-separated lines for pipes, JSON for programs.

No text from outside is shown raw, nor taken for markup.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from daemon.text import json_text, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Cell = str | tuple[str, str]
"""A cell: text, or text and a style."""

_ESCAPE = {"red": "\x1b[31m", "bold": "\x1b[1m"}


def is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def console() -> Console:
    """Standard output, for tables. NO_COLOR is honoured."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)


def complain(message: str, remedy: str = "", *, head: str = "ownerd: ") -> None:
    """An error on standard error: what happened, and what to do."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    shown = f"{_ESCAPE['red']}{head}\x1b[0m" if colour and head else head
    sys.stderr.write(f"{shown}{printable(message)}\n")
    if remedy:
        sys.stderr.write(f"  → {printable(remedy)}\n")


def as_json(value: Any) -> None:
    """One JSON document; indented for people."""
    text = json_text(value)
    if is_terminal():
        import json

        # What is unsafe is escaped already; `json` escapes all that is not ASCII, which is as safe.
        text = json.dumps(json.loads(text), indent=2)
    sys.stdout.write(text + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, wide: Sequence[str] = (), empty: str = "") -> None:
    """A table on a terminal; else a line a row, its cells divided by tabs. `wide` columns take the room there is."""
    if not is_terminal():
        for row in rows:
            sys.stdout.write("\t".join(printable(_plain(cell)) for cell in row) + "\n")
        return
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold", ratio=1 if column in wide else None, no_wrap=column not in wide)
    count = 0
    for row in rows:
        grid.add_row(*(styled(cell) for cell in row))
        count += 1
    if count:
        console().print(grid)
    elif empty:
        console().print(empty, style="dim")


def styled(cell: Cell) -> Text:
    """A cell as text that is never taken for markup."""
    from rich.text import Text

    text, style = cell if isinstance(cell, tuple) else (cell, "")
    return Text(
        "\n".join(map(printable, text.split("\n"))) if style == "lines" else printable(text),
        style="" if style == "lines" else style,
    )


def _plain(cell: Cell) -> str:
    return cell[0] if isinstance(cell, tuple) else cell


def story(lines: Iterable[tuple[str, Cell]]) -> None:
    """Labelled lines, one below the other."""
    if not is_terminal():
        for label, cell in lines:
            sys.stdout.write(f"{label}\t{printable(_plain(cell))}\n")
        return
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, cell in lines:
        grid.add_row(label, styled(cell))
    console().print(grid)


def age(at: str | None, now: Callable[[], float] = time.time) -> str:
    """`2026-11-23T08:00:00Z` as `3m ago` for people, as it is for programs; `never` for None."""
    if at is None or not is_terminal():
        return at or "never"
    return f"{span(now() - datetime.fromisoformat(at).timestamp())} ago"


def span(seconds: float) -> str:
    """A length of time in its largest unit: `45s`, `3m`, `5h`, `12d`."""
    left = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if left >= 2 * size or (unit == "m" and left >= size):
            return f"{left // size}{unit}"
    return f"{left}s"


def owners_of(answer: dict[str, Any]) -> str:
    """The owners' names, each with its kind where it is no group."""
    if not answer["owners"]:
        return "nobody"
    return ", ".join(
        o["name"] or o["id"] if o["kind"] == "group" else f"{o['name'] or o['id']} ({o['kind']})"
        for o in answer["owners"]
    )


def source_of(answer: dict[str, Any]) -> Cell:
    """How the owners were found; a fallback stands out."""
    if answer["fallback"]:
        return f"FALLBACK: {answer['reason']}", "yellow"
    if answer["reason"]:
        return str(answer["reason"]), "yellow"
    return str(answer["source"])


def seen(answer: dict[str, Any]) -> Cell:
    """The age of the older of the two readings; stale stands out."""
    oldest = min(x for x in (answer["resource_seen_at"], answer["owners_seen_at"]) if x is not None)
    return (f"{age(oldest)}, STALE", "red") if answer["stale"] else age(oldest)
