"""Stopwatches. The processor's time tells on a busy machine what the clock does not."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import children


@dataclass(slots=True)
class Watch:
    """Adds up what goes on inside: seconds, and seconds of this process's processor time."""

    seconds: float = 0.0
    cpu: float = 0.0
    _began: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process and its children have taken so far."""
    ticks = 0
    for one in (pid, *children(pid)):
        told = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(told[11]) + int(told[12])  # utime and stime: proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")
