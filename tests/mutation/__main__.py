"""Changes the owner rule and the guard in one place at a time, and looks whether their tests notice: `make mutation`.

Nothing in the tree is written: each worker has a copy of its own. Exit code 1 if the tests notice too little, or if a
mutant that is listed as equivalent is not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.operators import Mutant, mutants_of

MODULES = {
    "daemon/rule.py": ("tests/test_rule_exact.py", "tests/test_rule.py"),
    "daemon/rules.py": ("tests/test_rules.py",),
    "daemon/guard.py": ("tests/test_guard.py",),
    "daemon/matching.py": ("tests/test_matching.py", "tests/test_rule.py"),
}
"""What is mutated, and the tests that must notice, the quickest first."""
TESTS = sorted({test for tests in MODULES.values() for test in tests})
LEAST = 0.85
_COPIED = ("daemon", "connectors", "config", *TESTS)
_WORKERS = min(4, os.cpu_count() or 1)
_INI = "[pytest]\naddopts = --import-mode=importlib --strict-markers\npythonpath = .\nfilterwarnings = error\n"
_FOREVER = 3600


class Worker:
    """A process that tests mutants in a copy of the tree."""

    def __init__(self, tree: Path, *, seconds: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutation.worker", json.dumps(MODULES), str(seconds)],
            cwd=tree,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def test(self, module: str, source: str) -> tuple[int, float]:
        """The exit code of the tests, and the seconds of CPU they took."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"module": module, "source": source}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"the worker ended with {self._process.wait()}; what it wrote is above")
        code, seconds = json.loads(answer)
        return code, seconds

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass(frozen=True, slots=True)
class Tested:
    """A mutant, and how its tests ended. `code`: 0 if all passed; negative if a signal ended them."""

    module: str
    mutant: Mutant
    code: int

    @property
    def survived(self) -> bool:
        """Whether no test noticed."""
        return self.code == 0

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What it is listed by if it is equivalent."""
        return self.module, self.mutant.function, self.mutant.before, self.mutant.after


def _copy(to: Path) -> Path:
    for name in (*_COPIED, "tests/mutation"):
        source, target = Path(name), to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (to / "pytest.ini").write_text(_INI)
    return to


@contextmanager
def _workers(number: int, *, seconds: int) -> Iterator[SimpleQueue[Worker]]:
    free: SimpleQueue[Worker] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="ownerd-mutation-") as folder:
        made = [Worker(_copy(Path(folder, str(n))), seconds=seconds) for n in range(number)]
        for worker in made:
            free.put(worker)
        try:
            yield free
        finally:
            for worker in made:
                worker.close()


def _limit() -> int:
    """Seconds of CPU that a mutant gets, by what the original takes. Exits if its tests fail."""
    longest = 0.0
    with _workers(1, seconds=_FOREVER) as free:
        worker = free.get()
        for module, tests in MODULES.items():
            code, seconds = worker.test(module, Path(module).read_text(encoding="utf-8"))
            if code != 0:
                sys.exit(f"{module} as it is fails its tests (exit code {code}): python -m pytest {' '.join(tests)}")
            longest = max(longest, seconds)
    return int(5 + 5 * longest)


def _test_all(mutants: Sequence[tuple[str, Mutant]]) -> list[Tested]:
    with _workers(_WORKERS, seconds=_limit()) as free, ThreadPoolExecutor(_WORKERS) as pool:

        def test(job: tuple[str, Mutant]) -> Tested:
            worker = free.get()
            try:
                code, _ = worker.test(job[0], job[1].source)
            finally:
                free.put(worker)
            return Tested(*job, code)

        return list(pool.map(test, mutants))


def _table(tested: Sequence[Tested]) -> None:
    print(f"\n{'module':24}{'mutants':>9}{'killed':>9}{'of these by time':>18}{'survived':>10}{'score':>8}")
    for module in (*MODULES, ""):
        of = [t for t in tested if module in {"", t.module}]
        survived = sum(t.survived for t in of)
        late = sum(t.code < 0 for t in of)
        score = (len(of) - survived) / len(of)
        print(f"{module or 'all':24}{len(of):9}{len(of) - survived:9}{late:18}{survived:10}{score:8.1%}")


def main() -> int:
    """Test every mutant, and tell what came of it."""
    began = time.monotonic()
    mutants = [(m, mutant) for m in MODULES for mutant in mutants_of(Path(m).read_text(encoding="utf-8"))]
    tested = _test_all(mutants)
    survivors = [t for t in tested if t.survived]
    if survivors:
        print("\nWhat no test noticed:")
    for t in survivors:
        m = t.mutant
        print(f"{t.module}:{m.line} in {m.function or 'the module'}:\n    {m.before}\n  → {m.after}")
        if t.name in EQUIVALENT:
            print(f"    equivalent: {EQUIVALENT[t.name]}")
    _table(tested)
    score = 1 - len(survivors) / len(tested)
    equivalent = Counter(t.name in EQUIVALENT for t in survivors)[True]
    print(
        f"\n{len(tested)} mutants in {time.monotonic() - began:.0f} s: {score:.1%} killed; {LEAST:.0%} are asked for."
    )
    print(f"Of the {len(survivors)} survivors {equivalent} are equivalent (tests/mutation/equivalent.py); they count.")
    mistaken = EQUIVALENT.keys() - {t.name for t in survivors}
    for name in sorted(mistaken):
        print(f"not equivalent, or not there: {name}")
    return int(score < LEAST or bool(mistaken))


if __name__ == "__main__":
    sys.exit(main())
