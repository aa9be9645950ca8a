"""Real `ownerd` processes, for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tests.unixhttp import Answer, get

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
PATIENCE = 60.0
"""Seconds after which what is waited for has failed. Nothing waits longer than it must."""


def toml(document: Mapping[str, Any]) -> str:
    """A document as TOML: what JSON writes of strings, numbers, booleans and lists, TOML reads."""
    import json

    def table(head: str, rows: Mapping[str, Any]) -> str:
        plain = {k: v for k, v in rows.items() if not (isinstance(v, list) and v and isinstance(v[0], dict))}
        lines = [head] if head else []
        lines += [f"{k} = {inline(v)}" for k, v in plain.items() if not isinstance(v, dict) or head.startswith("[[")]
        text = "\n".join(lines) + "\n"
        name = head.strip("[]")
        for k, v in plain.items():
            if isinstance(v, dict) and not head.startswith("[["):
                text += table(f"[{k}]", v)
        for k, v in rows.items():
            if k not in plain:
                text += "".join(table(f"[[{name}.{k}]]" if name else f"[[{k}]]", row) for row in v)
        return text

    def inline(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} = {inline(v)}" for k, v in value.items()) + "}"
        return json.dumps(value)

    return table("", document)


def until(what: Callable[[], T | None]) -> T:
    """Ask until there is an answer that is true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "daemon", *words]


def environment(**more: str) -> dict[str, str]:
    """This process's, with the checkout importable."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def ownerd(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*words), capture_output=True, text=True, env=environment(), timeout=PATIENCE, **options
    )


class Daemon:
    """A running `ownerd`."""

    def __init__(self, verb: str, config: Path, log: Path, **options: Any) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command(verb, "--config", str(config)), stderr=out, stdout=out, env=environment(), **options
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def logged(self, text: str) -> bool:
        return text in self.log.read_text()

    def wait_for(self, text: str) -> None:
        """Until a log line says so; fails at once if the process has ended."""

        def look() -> bool:
            if self.logged(text):
                return True
            assert self.process.poll() is None, self.log.read_text()
            return False

        until(look)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def running(verb: str, config: Path, log: Path, **options: Any) -> Iterator[Daemon]:
    daemon = Daemon(verb, config, log, **options)
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.stop()


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    try:
        return [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def answers(socket: Path, page: str = "/healthz", **query: Any) -> Answer | None:
    """An answer, or None while nobody answers."""
    try:
        return get(socket, page, **query)
    except (ConnectionError, FileNotFoundError):
        return None
