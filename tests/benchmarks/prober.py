"""Looks resources up one after the other until a line comes on standard input; then tells how long that took.

    python -m tests.benchmarks.prober SOCKET RESOURCES

Prints JSON: how many, and the median, 99th and 99.9th percentile in microseconds.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from pathlib import Path

from tests.benchmarks.load import http_get, is_http, latencies
from tests.benchmarks.peers import target

_ROUND = 500


def main(path: str, resources: str) -> None:
    """Until told to stop."""
    stop, rng, found = threading.Event(), random.Random(3), list[float]()

    def wait() -> None:
        sys.stdin.readline()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    requests = [http_get(target(rng.randrange(int(resources)))) for _ in range(40 * _ROUND)]
    latencies(Path(path), requests[:_ROUND], is_http)
    print("begun", flush=True)
    rounds = 0
    while not stop.is_set():
        start = rounds * _ROUND % len(requests)
        found += latencies(Path(path), requests[start : start + _ROUND], is_http)
        rounds += 1
    found.sort()
    at = {"median": 0.5, "p99": 0.99, "p99.9": 0.999}
    told = {name: 1e6 * found[int(len(found) * share)] for name, share in at.items()}
    print(json.dumps({"count": len(found), **told}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
