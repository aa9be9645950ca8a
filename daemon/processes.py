"""What the kernel is asked for: ending processes, and keeping a process's memory to itself."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

SUPERVISOR = "OWNERD_SUPERVISOR"
"""Environment variable in which `ownerd run` tells its process id to those it starts."""

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Write no core, and let no other process of this user read the memory or the environment: prctl(2), core(5).

    The limit alone does not do: where cores go to a program (core_pattern with a pipe), it is not asked.
    """
    with contextlib.suppress(OSError):  # a sandbox may not allow it; the next call is the one that counts
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


NICE = 10
"""Of what polls and merges: whoever waits for an answer goes first."""


def give_way() -> None:
    """Let others have the processor first: nice(2). A merge of a million rows keeps a core busy for a minute."""
    with contextlib.suppress(OSError):  # a sandbox may not allow it, and sets it itself
        os.nice(max(0, NICE - os.nice(0)))


def limit_memory(most: int) -> None:
    """Let this process take so many bytes; past them, Python raises MemoryError. If memory is short, let it go first.

    What is counted is what it has for itself, setrlimit(2), RLIMIT_DATA; proc_pid_oom_score_adj(5) for the rest.
    """
    with contextlib.suppress(OSError, ValueError):  # it had a lower limit already
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends: prctl(2)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def end_with_supervisor() -> None:
    """End on SIGTERM, cleanly, when the `ownerd run` that started this process is gone, however it ended."""
    if parent := os.environ.pop(SUPERVISOR, None):
        end_with_parent(int(parent), signal.SIGTERM)


async def end(process: asyncio.subprocess.Process, grace: float) -> None:
    """See that a process has ended: on SIGTERM, or, after `grace` seconds, on SIGKILL."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), grace)
    except TimeoutError:
        process.kill()
        await process.wait()
