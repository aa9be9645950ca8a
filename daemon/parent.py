"""Not outliving the process that started this one."""

from __future__ import annotations

import ctypes
import os
import signal

SUPERVISOR = "OWNERD_SUPERVISOR"
"""Environment variable in which `ownerd run` tells its process id to those it starts."""

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends: prctl(2)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def end_with_supervisor() -> None:
    """End on SIGTERM, cleanly, when the `ownerd run` that started this process is gone, however it ended."""
    if parent := os.environ.pop(SUPERVISOR, None):
        end_with_parent(int(parent), signal.SIGTERM)
