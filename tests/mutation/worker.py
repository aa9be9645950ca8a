"""Tests mutants, one line of JSON a mutant, inside a copy of the tree. Started by `tests.mutation`, never by hand.

Each mutant is tested in a fork, which finds pytest and hypothesis imported. What it may compute for is limited in
seconds of its own CPU, so that a busy machine kills none.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
from contextlib import redirect_stdout
from pathlib import Path

import hypothesis.strategies  # noqa: F401 - the forks find it imported
import pytest
from hypothesis import HealthCheck, Phase, settings

OPTIONS = ("-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "--no-header", "--no-summary")
_MEMORY = 4 * 2**30


def _test(tests: list[str], seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    silent = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(silent, number)
    os._exit(int(pytest.main([*OPTIONS, *tests])))


def _run(name: str, source: str, tests: list[str], seconds: int) -> int:
    """The exit code of the tests with a module that says `source`; negative: the signal that ended them."""
    module = Path(name)
    before = module.read_bytes()
    module.write_text(source, encoding="utf-8")
    try:
        child = os.fork()
        if child == 0:
            try:
                _test(tests, seconds)
            finally:
                os._exit(99)
        _, status = os.waitpid(child, 0)
    finally:
        module.write_bytes(before)
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    """Answer each job on standard input: `{"module", "source"}` → `[exit code, seconds of CPU]`."""
    tests, seconds = json.loads(sys.argv[1]), int(sys.argv[2])
    with redirect_stdout(io.StringIO()):
        pytest.main(["--version"])  # imports what the forks would import one after the other
    settings.register_profile(
        "mutation",
        max_examples=20,
        phases=[Phase.explicit, Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutation")
    sys.dont_write_bytecode = True
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] in {"daemon", "connectors"})
    assert not loaded, f"a fork would test what is loaded, not the mutant: {loaded}"
    for line in sys.stdin:
        job = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = _run(job["module"], job["source"], tests[job["module"]], seconds)
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(json.dumps([code, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime]), flush=True)


if __name__ == "__main__":
    main()
