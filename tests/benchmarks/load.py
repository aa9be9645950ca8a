"""Load: requests a second from a load generator in C, and the times of single requests from a bare socket."""

from __future__ import annotations

import csv
import random
import re
import select
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.peers import Missing, program

_GENERATORS = 4
"""Processes of h2load at a time, since each connection of one asks for the same resources in the same order."""
_URIS = 20_000


class Targets:
    """Random requests over the whole table, in files for h2load."""

    def __init__(self, folder: Path, name: str, target: Callable[[int], str], resources: int, seed: int = 1) -> None:
        rng = random.Random(seed)
        self.files = []
        for part in range(_GENERATORS):
            path = folder / f"{name}-{part}.txt"
            lines = (f"http://localhost{target(rng.randrange(resources))}\n" for _ in range(_URIS))
            path.write_text("".join(lines))
            self.files.append(path)


def h2load(server: Path, targets: Targets, connections: int, seconds: float) -> float:
    """Requests a second, HTTP/1.1 over a Unix socket, for some time. Missing without h2load; AssertionError if any answer is not 2xx."""
    tool = program("h2load", "nghttp2-client")
    generators = min(_GENERATORS, connections)
    common = [tool, "--h1", f"--base-uri=unix:{server}", f"-D{round(1000 * seconds)}ms", "--warm-up-time=300ms"]
    rate = 0.0
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [*common, f"-c{connections // generators}", f"-i{file}"], stdout=subprocess.PIPE, text=True
                )
            )
            for file in targets.files[:generators]
        ]
        for process in started:
            out = process.communicate(timeout=seconds + 60)[0]
            assert process.returncode == 0, out
            codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
            assert codes and int(codes[1]) > 0, out
            assert not any(int(codes[n]) for n in (2, 3, 4)), out
            found = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", out)
            assert found, out
            rate += float(found[1])
    return rate


def redis_benchmark(server: Path, resources: int, connections: int, seconds: float, words: Sequence[str]) -> float:
    """Requests a second by Redis's own load generator; `__rand_int__` in a word becomes a random number of twelve digits."""
    tool = program("redis-benchmark", "redis-tools")

    def run(requests: int) -> float:
        out = subprocess.run(
            [tool, "-s", str(server), "-c", str(connections), "-n", str(requests), "-r", str(resources), "--csv", *words],
            capture_output=True, text=True, check=True, timeout=seconds + 120,
        )  # fmt: skip
        return float(next(csv.DictReader(out.stdout.strip().splitlines()))["rps"])

    return run(max(1000, int(run(5000) * seconds)))


def http_get(target: str) -> bytes:
    """A bare request."""
    return f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def http_post(target: str, body: bytes) -> bytes:
    """A bare request with a body."""
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    return b"%s%d\r\n\r\n%s" % (head.encode(), len(body), body)


def latencies(server: Path, requests: Sequence[bytes], is_answer: Callable[[bytes], bool]) -> list[float]:
    """Seconds that each request takes, one after the other on one connection. Each answer comes in one piece."""
    found = []
    clock = time.perf_counter
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server))
        send, receive = sock.sendall, sock.recv
        for request in requests:
            started = clock()
            send(request)
            answer = receive(1 << 18)
            found.append(clock() - started)
            assert is_answer(answer), answer[:200]
    return found


def is_http(answer: bytes) -> bool:
    """Whether these bytes are a whole 200."""
    head, gap, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return bool(gap) and answer.startswith(b"HTTP/1.1 200 ") and length is not None and int(length[1]) == len(body)


def is_bulk(answer: bytes) -> bool:
    """Whether these bytes are a whole string of Redis."""
    length, gap, value = answer.partition(b"\r\n")
    return bool(gap) and length[:1] == b"$" and int(length[1:]) == len(value) - 2


def whole_http(got: bytearray, filled: int) -> int:
    """The length of the HTTP answer that these bytes begin with; 0 while its head is not whole."""
    end = got.find(b"\r\n\r\n", 0, filled)
    if end < 0:
        return 0
    length = got.find(b"\r\ncontent-length: ", 0, end) + 18
    assert got.startswith(b"HTTP/1.1 200 ") and length >= 18, bytes(got[:end])
    return end + 4 + int(got[length : got.find(b"\r", length)])


def whole_array(got: bytearray, filled: int) -> int:
    """The length of the array of strings of Redis that these bytes are; 0 while it is not whole."""
    end = got.find(b"\r\n", 0, filled)
    at, ends = end + 2, int(got[1:end]) if end > 0 else 0
    for _ in range(ends):
        end = got.find(b"\r\n", at, filled)
        if end < 0:
            return 0
        at = end + 2 + int(got[at + 1 : end]) + 2
    return at if end > 0 and filled >= at else 0


class _Flow:
    """One connection of a `Pump`: what it has got of an answer, and how much that will be."""

    def __init__(self, server: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(server))
        self.got = bytearray(1 << 20)
        self.room = memoryview(self.got)
        self.filled = self.wanted = 0


class Pump:
    """Several connections that each always have one request under way, in one thread; as light as Python can be."""

    def __init__(self, server: Path, connections: int, whole: Callable[[bytearray, int], int]) -> None:
        """`whole`: the length of the answer that some bytes begin with, 0 while that cannot be told."""
        self._whole = whole
        self._flows = [_Flow(server) for _ in range(connections)]

    def run(self, requests: Sequence[bytes], seconds: float) -> float:
        """Answers a second. At the end, the connections are closed."""
        turn, done, clock, whole = 0, 0, time.perf_counter, self._whole
        with select.epoll() as polled:
            flows = {flow.socket.fileno(): flow for flow in self._flows}
            for number, flow in flows.items():
                polled.register(number, select.EPOLLIN)
                flow.socket.sendall(requests[turn % len(requests)])
                turn += 1
            started = clock()
            while (now := clock()) - started < seconds:
                for number, _ in polled.poll(1.0):
                    flow = flows[number]
                    flow.filled += flow.socket.recv_into(flow.room[flow.filled :])
                    if not flow.wanted:
                        flow.wanted = whole(flow.got, flow.filled)
                    if flow.wanted and flow.filled >= flow.wanted:
                        flow.filled = flow.wanted = 0
                        done += 1
                        flow.socket.sendall(requests[turn % len(requests)])
                        turn += 1
        for flow in self._flows:
            flow.socket.close()
        if not done:
            raise Missing("no answer")
        return done / (now - started)
