"""Runs a command to its end, and prints what it took as JSON.

    python tests/benchmarks/launch.py WORD…

A process of its own, and small: what the kernel tells of a child's highest memory begins with that of the process that
started it. `{parent}` in a word becomes this process's id. Standard input goes to the command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main(words: list[str]) -> None:
    """Run it: seconds, seconds of processor time, highest resident memory in MiB, and the exit code."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [word.replace("{parent}", str(os.getpid())) for word in words], stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    told = {
        "seconds": time.perf_counter() - started,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss / 1024,
        "code": process.returncode,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
