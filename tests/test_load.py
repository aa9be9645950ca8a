"""The socket under load, with real processes: restarts, reloads, idle clients and clients that send garbage."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.processes import children, command, environment, ownerd, until
from tests.test_processes import Site
from tests.unixhttp import UnixConnection, get

RESTARTS = RELOADS = 25
IDLE_CLIENTS = 1000
GARBAGE_CLIENTS = 10
GOOD_CLIENTS = 4

# What a service manager does: descriptor 3 is the listening socket, and the process is told its own number.
_HAND_OVER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


class Manager:
    """Starts the server as systemd does: with a listening socket that outlasts it."""

    def __init__(self, site: Site, path: Path) -> None:
        self.path = path
        self._site = site
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(1024)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(site.folder / "notify"))
        self._notify.settimeout(60)
        self.more: dict[str, str] = {}
        """Further environment."""
        self.process: subprocess.Popen[bytes]

    def launch(self) -> None:
        number = self._listening.fileno()
        with self._site.log("serve").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _HAND_OVER,
                    str(number),
                    *command("serve", "--config", str(self._site.config))[1:],
                ],
                pass_fds=[number],
                env=environment(LISTEN_FDS="1", NOTIFY_SOCKET=str(self._site.folder / "notify"), **self.more),
                stderr=log,
            )

    def start(self) -> None:
        self.launch()
        while self._notify.recv(100) != b"READY=1":
            pass

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 0, self._site.log("serve").read_text()[-2000:]

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()
        self._listening.close()
        self._notify.close()


class Clients:
    """Ask without pause, each over a connection that it keeps as long as it is told to."""

    def __init__(self, path: Path, number: int = GOOD_CLIENTS) -> None:
        self.answered: Counter[int] = Counter()
        self.failed: list[str] = []
        self._path = path
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=[n]) for n in range(number)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        connection = UnixConnection(self._path)
        row = 0
        while not self._stop.is_set():
            row = (row + 1) % 3
            # Every second client says something that takes the long way.
            headers = {"X-Client": str(number)} if number % 2 else {}
            try:
                connection.request("GET", f"/v1/owner?resource=r{row}", headers=headers)
                answer = connection.getresponse()
                if answer.status != 200 or f'"id":"r{row}"'.encode() not in answer.read():
                    self.failed.append(f"{answer.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection.close()
            self.answered[number] += 1
        connection.close()

    def go_on(self) -> None:
        """Until each has had another answer."""
        before = Counter(self.answered)
        until(lambda: all(self.answered[n] > before[n] for n in range(len(self._threads))))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    site = Site(tmp_path)
    assert ownerd("sync", "--config", str(site.config)).returncode == 0
    manager = Manager(site, tmp_path / "given.sock")
    manager.start()
    yield manager
    manager.close()


def test_restarts_and_reloads_fail_no_lookup(manager: Manager) -> None:
    """A client that keeps its connection while it may, and connects when it must, never hears an error."""
    with Clients(manager.path) as clients:
        for _ in range(RESTARTS):
            clients.go_on()
            manager.stop()
            manager.start()
        for _ in range(RELOADS):
            manager.process.send_signal(signal.SIGHUP)
            clients.go_on()
    assert clients.failed == []


def test_the_server_of_run_is_replaced_without_a_failed_lookup(tmp_path: Path) -> None:
    """`ownerd run` keeps the socket: who asks while there is no server waits for the next."""
    site = Site(tmp_path)
    with site.start("run") as daemon:
        until(lambda: site.socket.exists() and get(site.socket, "/readyz").status == 200)
        with Clients(site.socket) as clients:
            for _ in range(3):
                server = _server_of(daemon.pid)
                os.kill(server, signal.SIGTERM)
                until(lambda: _server_of(daemon.pid) not in {0, server})  # noqa: B023  # awaited within the round
                clients.go_on()
        assert clients.failed == []
    assert not site.socket.exists()


def _server_of(pid: int) -> int:
    for child in children(pid):
        with contextlib.suppress(OSError):
            if b"serve" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                return child
    return 0


def _resident(pid: int) -> int:
    """Bytes in memory that are the process's own, and not the page cache's."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_idle_clients_and_garbage_disturb_nobody(manager: Manager) -> None:
    """A thousand that say nothing, ten that send garbage without pause: no error for others, and bounded memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, IDLE_CLIENTS + 500), hard), hard))
    stop = threading.Event()

    def garbage(number: int) -> None:
        dice = random.Random(number)
        while not stop.is_set():
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                client.connect(str(manager.path))
                client.settimeout(0.2)
                client.sendall(dice.choice([b"", b"GET /", b"POST /v1/owners HTTP/1.1\r\n"]) + dice.randbytes(10_000))
                client.recv(1000)

    with contextlib.ExitStack() as stack, Clients(manager.path) as clients:
        clients.go_on()
        before = _resident(manager.process.pid)
        idle = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(IDLE_CLIENTS)]
        for client in idle:
            client.connect(str(manager.path))
        senders = [threading.Thread(target=garbage, args=[n]) for n in range(GARBAGE_CLIENTS)]
        for sender in senders:
            sender.start()
        for _ in range(100):
            clients.go_on()
        taken = _resident(manager.process.pid) - before
        stop.set()
        for sender in senders:
            sender.join()
        assert clients.failed == []
        assert taken < 32 * 2**20, f"{taken / 2**20:.1f} MiB"
        told = get(manager.path, "/metrics").body.decode()
        assert 'ownerd_connections_total{event="evicted"} 0' in told
        accepted = next(line for line in told.splitlines() if line.startswith('ownerd_connections_total{event="acc'))
        assert int(accepted.split()[1]) > IDLE_CLIENTS
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
