"""The service manager's watchdog is fed by a process that works, and by no other."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.errors import DatabaseUnusable
from daemon.serve.app import Pages
from daemon.serve.server import _signs_of_life
from tests.processes import environment, ownerd
from tests.test_processes import Site

INTERVAL = 0.1
"""Seconds between two signs of life."""

# The daemon as it is; but at SIGUSR1 its loop waits at a pipe.
_STUCK = """
import asyncio, signal, sys
from pathlib import Path
from config.settings import load_settings
import daemon.poller, daemon.serve.server

def hang():
    open(sys.argv[3]).read()

def hanging(signs):
    async def told(*arguments):
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, hang)
        await signs(*arguments)
    return told

daemon.poller.Poller._watchdog = hanging(daemon.poller.Poller._watchdog)
daemon.serve.server._signs_of_life = hanging(daemon.serve.server._signs_of_life)
go = {"poll": daemon.poller.poll, "serve": daemon.serve.server.serve}[sys.argv[1]]
sys.exit(go(load_settings(Path(sys.argv[2]))))
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where the service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(2e6 * INTERVAL)))
        yield listening


def fed(manager: socket.socket) -> None:
    """Until it is."""
    while manager.recv(100) != b"WATCHDOG=1":
        pass


def heard(manager: socket.socket, seconds: float) -> list[bytes]:
    """What is said until nothing is for so long."""
    said = []
    manager.settimeout(seconds)
    try:
        while True:
            said.append(manager.recv(100))
    except (TimeoutError, BlockingIOError):
        return said
    finally:
        manager.settimeout(60)


@pytest.mark.parametrize("verb", ["serve", "poll"])
def test_a_stuck_loop_feeds_none(verb: str, tmp_path: Path, manager: socket.socket) -> None:
    """Not once in ten intervals, though its process lives; and again when it goes on."""
    site = Site(tmp_path, interval="1h")
    assert ownerd("sync", "--config", str(site.config)).returncode == 0
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with site.log(verb).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _STUCK, verb, str(site.config), str(pipe)], env=environment(), stderr=log
        )
    fed(manager)
    fed(manager)
    process.send_signal(signal.SIGUSR1)
    with pipe.open("wb"):  # opens once the loop waits
        heard(manager, 0.0)
        assert heard(manager, 10 * INTERVAL) == []
        assert process.poll() is None
    fed(manager)
    process.terminate()
    assert process.wait(60) == 0, site.log(verb).read_text()


class Enough(Exception):
    """No more tries."""


class Failing:
    """Pages whose lookups fail as said, one after another; and whether the watchdog was fed after each."""

    def __init__(self, manager: socket.socket, *outcomes: Exception | None) -> None:
        self.lookup = self.reader = self
        self.fed: list[bool] = []
        self._manager = manager
        self._outcomes = iter(outcomes)
        self._tried = False

    def rows(self, _key: str) -> list[Any]:
        if self._tried:
            self.fed.append(heard(self._manager, 0.0) == [b"WATCHDOG=1"])
        self._tried = True
        outcome = next(self._outcomes, Enough())
        if outcome is not None:
            raise outcome
        return []

    def end(self) -> list[bool]:
        with pytest.raises(Enough):
            asyncio.run(_signs_of_life(cast("Pages", self)))
        return self.fed


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), sqlite3.DatabaseError("malformed")])
def test_lookups_that_fail_feed_none(error: Exception, manager: socket.socket) -> None:
    """None after a try that failed, one after each that did not."""
    assert Failing(manager, None, error, error, None, error, None).end() == [True, False, False, True, False, True]


def test_no_database_is_no_reason_for_a_restart(tmp_path: Path, manager: socket.socket) -> None:
    """Before the first poll there is none: the watchdog is fed all the same."""
    assert Failing(manager, DatabaseUnusable(tmp_path, "is not there"), None).end() == [True, True]
