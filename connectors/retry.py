"""Retries for connectors whose SDK has none that can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from connectors.errors import Throttled, Transient

T = TypeVar("T")

ATTEMPTS = 5
LONGEST_WAIT = 120.0
"""Seconds. A server that asks for more gets its scope failed instead; the scheduler comes back later."""

sleep: Callable[[float], None] = time.sleep
"""Replaced in tests, so that none waits."""

_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=20)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, Throttled) else None
    return _backoff(state) if asked is None else max(0.0, asked)


def _worth_it(error: BaseException) -> bool:
    if isinstance(error, Throttled) and error.retry_after is not None and error.retry_after > LONGEST_WAIT:
        return False
    return isinstance(error, Transient)


def retrying(call: Callable[[], T], *, attempts: int = ATTEMPTS) -> T:
    """Call until it returns; on a `Transient` error wait (as long as a `Throttled` says) and try again.

    The last error is raised as it is.
    """
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts),
        wait=_wait,
        retry=tenacity.retry_if_exception(_worth_it),
        sleep=lambda seconds: sleep(seconds),  # noqa: PLW0108  # looked up at each call, for tests
        reraise=True,
    )(call)
