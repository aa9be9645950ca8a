"""How a run is watched: bars on a terminal, a line an event elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from daemon.cli.show import complain, console, is_terminal, line
from daemon.text import printable

Event = dict[str, Any]
_MARKS = {
    "ok": ("✓", "green"),
    "partial": ("!", "yellow"),
    "held": ("‖", "yellow"),
    "failed": ("✗", "red"),
}


class Progress:
    """Shows events of `daemon.engine`."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._rows: dict[str, dict[str, int]] = {}
        self._ends: list[Event] = []

    def __enter__(self) -> Self:
        if is_terminal():
            self._bars = _bars()
            self._bars.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
        for event in self._ends:
            _afterwards(event)

    def show(self, event: Event) -> None:
        """Show one event."""
        if self._bars is None:
            _line(event)
        else:
            self._bar(event)
        if event["event"] == "finished":
            self._ends.append(event)

    def _bar(self, event: Event) -> None:
        name = event["source"]
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(printable(name), total=None, rows=0, mark=(" ", ""), what="")
        task = self._tasks[name]
        match event["event"]:
            case "scopes" if event["scopes"] > 1:  # of one, how far it is cannot be told: its bar pulses
                self._bars.update(task, total=event["scopes"], completed=0)
            case "scope":
                if "done" in event or "error" in event:
                    self._bars.advance(task)
                rows = self._rows.setdefault(name, {})
                rows[event["scope"]] = event.get("rows", 0)
                self._bars.update(task, rows=sum(rows.values()), what=printable(event["scope"]))
            case "merging":
                self._bars.update(task, what="publishing")
            case "finished":
                mark = _MARKS[event["state"]]
                total = self._bars.tasks[task].total or 1
                what = _summary(event)
                self._bars.update(task, total=total, completed=total, rows=event["rows"], mark=mark, what=what)


def _bars() -> Any:
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.table import Column
    from rich.text import Text

    class Mark(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(*task.fields["mark"])

    return Bars(
        SpinnerColumn(finished_text=" "),
        Mark(),
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[rows]} rows", justify="right", markup=False),
        TimeElapsedColumn(),
        TextColumn(
            "{task.fields[what]}", style="dim", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
        ),
        console=console(),
    )


def _summary(event: Event) -> str:
    parts = [f"{event[key]} {key}" for key in ("added", "changed", "removed") if event[key]]
    parts += [f"{event['owner_changes']} owners changed"] if event["owner_changes"] else []
    parts += [f"{event['drift_opened']} drift opened"] if event["drift_opened"] else []
    parts += [f"{event['drift_resolved']} drift resolved"] if event["drift_resolved"] else []
    return ", ".join(parts) or ("no change" if event["state"] == "ok" else event["state"])


def _line(event: Event) -> None:
    match event["event"]:
        case "finished":
            rows, seconds = f"{event['rows']} rows", f"{event['seconds']:.1f} s"
            words = [event["source"], event["state"], rows, _summary(event), seconds]
        case "scope" if event.get("done"):
            words = [event["source"], "read", event["scope"], f"{event['rows']} rows"]
        case _:
            return
    sys.stdout.write(line(words))
    sys.stdout.flush()


def _afterwards(event: Event) -> None:
    """What went wrong, below the bars."""
    for scope, error in event["errors"].items():
        place = f"{event['source']}: {scope}: " if scope else f"{event['source']}: "
        complain(place + error["message"], error["remedy"])
    for held in event["held"]:
        complain(f"{event['source']}: held: {held['subject']}: {held['why']}")
    if event["held"]:
        complain(
            f"{event['source']}: what was published before is still served",
            f"ownerd held {event['source']} shows what is held; ownerd accept {event['source']} lets it through",
            head="",
        )
