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
    left: float = 1.0
    """How many requests may be made before the API has told more."""
    closed_until: float = 0.0


class Pace:
    """Counts one run's requests in the windows of an API's buckets, and waits for the next window in time.

    `share` of each window, above 0 and at most 1, is this run's.
    """

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._reserve = min(RESERVE, 1 - share)
        self._windows: dict[str, _Window] = {}

    def keep(self, bucket: str, wanted: int = 1) -> int:
        """Call before requests: how many of the `wanted` may be made now, at least one.

        Waits if the bucket's share is used up. Of a window that has told nothing yet, one request finds out.
        """
        window = self._windows.setdefault(bucket, _Window())
        if (left := window.closed_until - time.monotonic()) > 0:
            retry.sleep(left)
        if window.closed_until:
            window.closed_until, window.left = 0.0, 1.0
        return max(1, int(min(wanted, window.left)))

    def count(self, bucket: str, *, limit: int, remaining: int, ends: float, wait: float) -> None:
        """Call after each answer, with what it told of the limit.

        `ends` names the window (the server's time of its end, say), `wait` is how many seconds it lasts from now.
        """
        window = self._windows.setdefault(bucket, _Window())
        if ends < window.ends:
            return  # answers of the window before may come late
        if ends != window.ends:
            window.ends, window.used, window.left = ends, 0, float("inf")
        window.used += 1
        window.left = min(window.left, limit * self._share - window.used, remaining - limit * self._reserve)
        if window.left <= 0:
            window.closed_until = time.monotonic() + min(wait, retry.LONGEST_WAIT)

    def untold(self, bucket: str) -> None:
        """Call after an answer that told nothing of a limit: there may be none."""
        window = self._windows.setdefault(bucket, _Window())
        if not window.ends:
            window.left = float("inf")
