"""Memory of the processes, and how soon the server answers."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.benchmarks import peers
from tests.benchmarks.load import http_get, is_http, latencies
from tests.benchmarks.peers import reading, target
from tests.benchmarks.report import Bar, Figure, Row
from tests.benchmarks.world import World
from tests.processes import children, command, environment

_MIB = 2**20
_LIMIT = 45.0
_IDLE = 3.0
"""Seconds without anything to do, before memory is looked at."""
_READ = 1800.0
"""Seconds in which the poller must have read everything."""


def memory(pid: int) -> dict[str, float]:
    """MiB of a process and its children. `own`: without pages of files, which are the page cache's (anonymous and
    shared memory of `/proc/PID/smaps_rollup`, its proportional share of what processes have in common)."""
    found = {"own": 0.0, "pss": 0.0, "rss": 0.0}
    for one in (pid, *children(pid)):
        lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:]
        told = {name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines)}
        found["own"] += told["Pss_Anon"] + told["Pss_Shmem"]
        found["pss"] += told["Pss"]
        found["rss"] += told["Rss"]
    return found


class Footprint:
    """Measures on one world, whose store is closed."""

    def __init__(self, world: World, repetitions: int) -> None:
        self.world, self.repetitions = world, repetitions

    def rows(self) -> Iterator[Row]:
        """Start, then memory."""
        yield self._start()
        yield self._serve()
        yield self._poll()

    def _start(self) -> Row:
        words = command("serve", "--config", str(self.world.config))
        ours, python = [], []
        for _ in range(self.repetitions + 2):
            ours.append(self._to_first_answer(words))
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            python.append(time.perf_counter() - started)
        bar = Bar("difference", 0.5)
        return Row(
            "start of serve to its first answer",
            "python -c pass",
            bar,
            Figure("s", tuple(ours)),
            Figure("s", tuple(python)),
        )

    def _to_first_answer(self, words: list[str]) -> float:
        self.world.socket.unlink(missing_ok=True)
        asked = http_get(target(1))
        started = time.perf_counter()
        with subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environment()) as process:
            while True:
                with socket.socket(socket.AF_UNIX) as sock:
                    try:
                        sock.connect(str(self.world.socket))
                        sock.sendall(asked)
                        assert is_http(sock.recv(1 << 18))
                        break
                    except OSError:
                        assert process.poll() is None, "serve has ended"
                        time.sleep(0.002)
            took = time.perf_counter() - started
            process.terminate()
        return took

    def _serve(self) -> Row:
        found = []
        for _ in range(self.repetitions):
            with peers.ownerd(self.world) as server:
                numbers = range(0, self.world.size.resources, max(1, self.world.size.resources // 20_000))
                latencies(server.socket, [http_get(target(n)) for n in numbers], is_http)
                time.sleep(_IDLE)
                found.append(memory(server.pid))
        return _memory_row("serve, idle after 20,000 lookups", found)

    def _poll(self) -> Row:
        self.world.write_files()
        began = time.time()
        words = command("poll", "--config", str(self.world.config))
        log = self.world.folder / "poll.log"
        control = self.world.state / "control.sock"
        with peers.running(words, control, log) as poller:
            while not self._read_since(began):
                assert time.time() - began < _READ, log.read_text()[-2000:]
                time.sleep(0.5)
            time.sleep(_IDLE)
            found = [memory(poller.pid)]
        return _memory_row("poll, idle after it has read and merged everything", found)

    def _read_since(self, moment: float) -> bool:
        with closing(reading(self.world.database)) as db:
            rows = db.execute("SELECT state, last_attempt, error FROM source").fetchall()
        for state, at, error in rows:
            assert (at or 0) < moment or state == "ok", error
        return all((at or 0) >= moment for _, at, _ in rows)


def _memory_row(what: str, found: list[dict[str, float]]) -> Row:
    row = Row(f"memory of {what}", bar=Bar("value", _LIMIT), ours=Figure("MiB", tuple(it["own"] for it in found)))
    row.more = {"pss": [it["pss"] for it in found], "rss": [it["rss"] for it in found]}
    return row
