"""Tables on a terminal. Imported only where there is one: rich is slow to import."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from daemon.cli.show import Cell, Column
from daemon.text import printable

_LONGEST_CELL = 300
_LONGEST_LINE = 2000
_GAP = 2
_ALWAYS_FITS = 24
"""Width up to which a column is not folded."""
_LEAST = 16
"""Width below which no column is pressed."""


def text_of(cell: Cell, longest: int = _LONGEST_LINE) -> Text:
    """A cell as text that is never taken for markup. One without end is cut in its middle, and says so."""
    if isinstance(cell, str):
        return Text(shortened(cell, longest))
    if isinstance(cell, tuple):
        return Text(shortened(cell[0], longest), style=cell[1])
    return Text(", ".join(shortened(part, longest) for part in cell))


def shortened(text: str, longest: int) -> str:
    """`printable`, and at most about `longest` characters: beginning and end, and how many are left out."""
    safe = printable(text)
    if len(safe) <= longest:
        return safe
    half = longest // 2
    return f"{safe[:half]} … {len(safe) - 2 * half} characters … {safe[-half:]}"


def grid(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> Table:
    """A table no wider than the terminal: what does not fit goes under another column, and then is folded."""
    shown = [number for number, column in enumerate(columns) if column.only != "pipe"]
    cells = [[text_of(cell, _LONGEST_CELL) for cell in row] for row in rows]
    natural = {n: max(len(columns[n].title), *(row[n].cell_len for row in cells), 0) for n in shown}
    if sum(natural.values()) + _GAP * (len(shown) - 1) > width:
        titles = [column.title for column in columns]
        for number in [n for n in shown if columns[n].under]:
            shown.remove(number)
            over = titles.index(columns[number].under)
            for row, given in zip(cells, rows, strict=True):
                for below in _below(columns[number], given[number]):
                    row[over].append("\n").append(below)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold underline")
    for number in shown:
        column, fits = columns[number], natural[number] <= _ALWAYS_FITS
        table.add_column(
            column.title,
            overflow="fold",
            no_wrap=fits and not column.fold,
            min_width=min(natural[number], _LEAST) if column.fold else None,
            justify="right" if column.right else "left",
        )
    for row in cells:
        table.add_row(*(row[number] for number in shown))
    return table


def _below(column: Column, cell: Cell) -> Iterator[Text]:
    if isinstance(cell, list):
        parts = [shortened(part, _LONGEST_CELL) for part in cell]
    else:
        text = text_of(cell, _LONGEST_CELL).plain
        parts = [f"{column.title.lower()} {text}"] if text else []
    for part in parts:
        yield Text(part, style="dim")


def labelled(lines: Iterable[tuple[str, Cell]]) -> Table:
    """Labels, and what they label, one below the other."""
    table = Table.grid(padding=(0, _GAP))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, cell in lines:
        table.add_row(Text(label), text_of(cell))
    return table
