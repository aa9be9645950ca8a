"""The wait for the next request of a client that asks one lookup after the other.

Where the processor sleeps between two such requests, it wakes with cold caches: that costs a client more time than the
lookup itself, and even more processor time. So the loop looks again and again for a moment before it sleeps, as the
kernel's SO_BUSY_POLL and a hypervisor's halt polling do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic

SPIN = 50e-6
"""Seconds of looking after an answer; no more than waking would take."""
NEAR = 200e-6
"""Seconds between two answers, at most, that tell of such a client: what it takes with a processor that sleeps."""


class Spinner:
    """Keeps a loop from sleeping. `soon`: the loop's `call_soon`. With `near` 0 it never does."""

    def __init__(
        self,
        soon: Callable[[Callable[[], None]], object],
        near: float = NEAR,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._soon = soon
        self._near = near
        self._clock = clock
        self._answered = 0.0
        self._spinning = False

    def answered(self) -> None:
        """An answer is out."""
        now = self._clock()
        if not self._spinning and now - self._answered < self._near:
            self._spinning = True
            self._soon(self._look)
        self._answered = now

    def _look(self) -> None:
        if self._clock() - self._answered < SPIN:
            self._soon(self._look)  # the loop looks for requests before it comes back here
        else:
            self._spinning = False


def may_spin(servers: int) -> bool:
    """Whether a processor is left for the clients while so many servers spin."""
    return len(os.sched_getaffinity(0)) > servers
