"""What was measured: figures, their bars, a table for the terminal, and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing, measured several times."""

    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        spread = f" ({_number(min(self.values))}–{_number(max(self.values))})" if len(self.values) > 1 else ""
        return f"{_number(self.median)} {self.unit}{spread}"

    def to_json(self) -> dict[str, Any]:
        return {"unit": self.unit, "median": self.median, "min": min(self.values), "max": max(self.values),
                "values": list(self.values)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure is held against: `ratio` to a peer's, `difference` from it, or the figure itself (`value`)."""

    kind: str
    limit: float
    least: bool = False
    """At least that much; else at most."""

    def holds(self, it: float) -> bool:
        return it >= self.limit if self.least else it <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.limit:g}{' ×' if self.kind == 'ratio' else ''}"


def at_least(ratio: float) -> Bar:
    return Bar("ratio", ratio, least=True)


def at_most(ratio: float) -> Bar:
    return Bar("ratio", ratio)


@dataclass(slots=True)
class Row:
    """A line of the table. Without `theirs`, `why` says what keeps it from being measured, if it has a peer."""

    what: str
    peer: str = ""
    bar: Bar | None = None
    ours: Figure | None = None
    theirs: Figure | None = None
    why: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    """For the JSON."""

    @property
    def compared(self) -> Figure | None:
        """What the bar is held against: repetition by repetition, since they took turns."""
        if self.ours is None or (self.peer and self.theirs is None):
            return None
        if self.theirs is None:
            return self.ours
        if self.bar is not None and self.bar.kind == "difference":
            return Figure(self.ours.unit, tuple(a - self.theirs.median for a in self.ours.values))
        pairs = zip(self.ours.values, self.theirs.values, strict=False)
        return Figure("×", tuple(a / b for a, b in pairs))

    @property
    def verdict(self) -> str:
        """pass, fail, missing; or nothing, if there is no bar."""
        compared = self.compared
        if compared is None:
            return "missing"
        return "" if self.bar is None else "pass" if self.bar.holds(compared.median) else "FAIL"

    def to_json(self) -> dict[str, Any]:
        compared = self.compared
        return {
            "what": self.what,
            "peer": self.peer or None,
            "ours": self.ours and self.ours.to_json(),
            "theirs": self.theirs and self.theirs.to_json(),
            "compared": compared and compared.to_json(),
            "bar": None if self.bar is None else str(self.bar),
            "verdict": self.verdict or None,
            "missing": self.why or None,
            **self.more,
        }


def in_turns(repetitions: int, *measured: Callable[[], float]) -> list[tuple[float, ...]]:
    """Measure each in turn, again and again (A B A B …): what the machine does meanwhile befalls all of them."""
    rounds = [[one() for one in measured] for _ in range(repetitions)]
    return list(zip(*rounds, strict=True))


def _number(it: float) -> str:
    return f"{it:,.0f}" if abs(it) >= 1000 else f"{it:.3g}"


def show(rows: Sequence[Row], console: Console, title: str) -> None:
    """The table; then what is missing, each with its remedy."""
    table = Table(title=title, title_justify="left", expand=False)
    for name in ("what", "ownerd", "compared with", "its figure", "ratio", "bar", ""):
        table.add_column(name, overflow="fold", justify="left")
    colour = {"pass": "green", "FAIL": "bold red", "missing": "yellow"}
    for row in rows:
        compared = row.compared if row.theirs is not None else None
        table.add_row(
            row.what,
            str(row.ours or "–"),
            row.peer,
            str(row.theirs or ("–" if row.peer else "")),
            str(compared or ""),
            str(row.bar or ""),
            f"[{colour[row.verdict]}]{row.verdict}[/]" if row.verdict else "",
        )
    console.print(table)
    for row in rows:
        if spent := row.more.get("processor_us_an_answer"):
            ours, theirs = spent["ours"], spent["theirs"]
            told = f"{row.what}: {ours:.3g} µs of the server's processor for each answer; {row.peer}: {theirs:.3g} µs"
            console.print(told, markup=False, highlight=False)
    for line in dict.fromkeys(f"missing: {row.peer or row.what}: {row.why}" for row in rows if row.why):
        console.print(line, style="yellow", markup=False, highlight=False)


def verdicts(rows: Iterable[Row]) -> dict[str, int]:
    """How many of each."""
    found = {"pass": 0, "FAIL": 0, "missing": 0}
    for row in rows:
        if row.verdict:
            found[row.verdict] += 1
    return found
