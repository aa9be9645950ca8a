"""Counters that workers share, so that any of them can tell the sums.

One file in memory, with a slot for each worker. A worker counts by itself and writes its own slot now and then: nothing
is locked, and a lookup pays nothing. The worker that takes the place of another goes on from what is in its slot.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import Counter

WORKER = "OWNERD_WORKER"
"""Environment variable that tells a process that it is a worker, and which: 0, 1, …"""
SHARED = "OWNERD_TALLY_FD"
"""Environment variable that names the file to it."""

LOOKUP_RESULTS = ("answered", "unknown-resource", "not-yet-known", "too-old", "ambiguous-resource", "bad-request")
CONNECTION_EVENTS = ("accepted", "refused", "evicted", "idle", "slow", "unread", "malformed")
# After an upgrade a worker may share the file with one of the version before: names are only ever appended.
_KINDS = (LOOKUP_RESULTS, CONNECTION_EVENTS)
_ROOM = 16
"""Counters of a kind."""
_SLOT = _ROOM * len(_KINDS)
_BYTES = 8


def make(workers: int) -> int:
    """The file, all zero: a descriptor for the workers to inherit."""
    descriptor = os.memfd_create("ownerd-tally")
    os.ftruncate(descriptor, workers * _SLOT * _BYTES)
    return descriptor


def inherited() -> Tally | None:
    """What this process shares as a worker; None if it is none."""
    slot, descriptor = os.environ.pop(WORKER, None), os.environ.pop(SHARED, None)
    return None if slot is None or descriptor is None else Tally(int(descriptor), int(slot))


class Tally:
    """The counters of all workers, as worker number `slot` sees them. Takes the descriptor over."""

    def __init__(self, descriptor: int, slot: int) -> None:
        self.slot = slot
        self._map = mmap.mmap(descriptor, 0)
        os.close(descriptor)
        # One aligned word each: read and written at once, never in parts.
        self._words = memoryview(self._map).cast("Q")
        self._own = [Counter(before) for before in self._read(slot)]
        self._lock = threading.Lock()

    def count(self, lookups: Counter[str], connections: Counter[str]) -> None:
        """Share these counters, which begin with what the slot has."""
        for own, before in zip((lookups, connections), self._own, strict=True):
            own.update(before)
        self._own = [lookups, connections]

    def write(self) -> None:
        """Let the others see this worker's counters."""
        with self._lock:  # else what one thread has read could be written over what another wrote since
            for kind, (names, own) in enumerate(zip(_KINDS, self._own, strict=True)):
                for number, name in enumerate(names, start=self.slot * _SLOT + kind * _ROOM):
                    self._words[number] = own[name]

    def sums(self) -> tuple[Counter[str], Counter[str]]:
        """Lookups by result, connections by event: of all workers, and of those whose places they took."""
        self.write()
        lookups, connections = Counter[str](), Counter[str]()
        for slot in range(len(self._words) // _SLOT):
            for sums, counters in zip((lookups, connections), self._read(slot), strict=True):
                sums.update(counters)
        return lookups, connections

    def _read(self, slot: int) -> list[dict[str, int]]:
        return [
            {name: self._words[number] for number, name in enumerate(names, start=slot * _SLOT + kind * _ROOM)}
            for kind, names in enumerate(_KINDS)
        ]

    def close(self) -> None:
        """Write what was counted last, and let the file go."""
        self.write()
        self._words.release()
        self._map.close()
