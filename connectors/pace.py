"""Keeping to a rate limit before it is used up, for APIs that tell it in their answers."""

from __future__ import annotations

import time
from dataclasses import dataclass

from connectors import retry

SHARE = 0.5
"""Of a window's requests, how many one run makes; the rest is left to others."""
RESERVE = 0.1
"""Whoever made the requests: with less than this left, a run waits for the next window."""


@dataclass
class _Window:
    ends: float = 0.0
    used: int = 0
    closed_until: float = 0.0


class Pace:
    """Counts one run's requests in the windows of an API's buckets, and waits for the next window in time."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def keep(self, bucket: str) -> None:
        """Call before each request: waits, if the bucket's share is used up."""
        window = self._windows.setdefault(bucket, _Window())
        if (left := window.closed_until - time.monotonic()) > 0:
            retry.sleep(left)
        window.closed_until = 0.0

    def count(self, bucket: str, *, limit: int, remaining: int, ends: float, wait: float) -> None:
        """Call after each answer, with what it told of the limit.

        `ends` names the window (the server's time of its end, say), `wait` is how many seconds it lasts from now.
        """
        window = self._windows.setdefault(bucket, _Window())
        if ends != window.ends:
            window.ends, window.used = ends, 0
        window.used += 1
        if window.used >= limit * SHARE or remaining <= limit * RESERVE:
            window.closed_until = time.monotonic() + min(wait, retry.LONGEST_WAIT)
