"""Measures ownerd against what people would use instead, and against floors, all in one run.

    python -m tests.benchmarks.bench [--resources 1000000] [--json FILE] [--only lookups,syncs,footprint,sdk] …

Prints a table, and writes everything as JSON. A peer that is not there is named. Exit code 1 if a bar is not met.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
from rich.console import Console

from tests.benchmarks import peers
from tests.benchmarks.report import Row, show, verdicts
from tests.benchmarks.serving import Lookups
from tests.benchmarks.world import Size, World

_PARTS = ("lookups",)


def arguments(words: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=…", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument(
        "--resources", type=int, default=1_000_000, help="a twentieth as many groups, half as many memberships"
    )
    parser.add_argument(
        "--seconds", type=float, default=None, help="of load in each repetition; default: 4, below 100,000 resources 1"
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", default=",".join(_PARTS), help=f"parts, of {', '.join(_PARTS)}")
    parser.add_argument(
        "--folder", type=Path, help="where the databases are made; default: a temporary folder, which goes"
    )
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="default: bench.json")
    told = parser.parse_args(words)
    if told.resources < 1000:
        parser.error("--resources: 1000 at least")
    if told.seconds is None:
        told.seconds = 4.0 if told.resources >= 100_000 else 1.0
    told.only = told.only.split(",")
    if unknown := set(told.only) - set(_PARTS):
        parser.error(f"--only: no part is named {', '.join(sorted(unknown))}")
    return told


def main(words: list[str]) -> int:
    """Measure, print, and write."""
    told = arguments(words)
    console = Console(width=None if sys.stdout.isatty() else 200)
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="ownerd-bench-", dir=told.folder) as folder:
        rows = list(_measure(told, Path(folder), Console(stderr=True)))
    size = Size(told.resources)
    show(
        rows,
        console,
        f"{size.resources:,} resources, {size.groups:,} groups, {size.memberships:,} memberships; {os.cpu_count()} CPUs",
    )
    result = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": time.time() - started,
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "versions": peers.versions(),
        "resources": size.resources,
        "groups": size.groups,
        "memberships": size.memberships,
        "repetitions": told.repetitions,
        "rows": [row.to_json() for row in rows],
    }
    told.json.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    counts = verdicts(rows)
    console.print(f"{counts['pass']} bars met, {counts['FAIL']} not met, {counts['missing']} not measured; {told.json}")
    return 1 if counts["FAIL"] else 0


def _measure(told: argparse.Namespace, folder: Path, log: Console) -> Iterator[Row]:
    world = World(folder, Size(told.resources))
    log.print(f"building {told.resources:,} resources …")
    with closing(world.open_store()) as store:
        world.build(store)
    log.print("lookups …")
    if "lookups" in told.only:
        with peers.ownerd(world) as server:
            for row in Lookups(world, server, told.seconds, told.repetitions).rows():
                log.print(
                    f"  {row.what}: {row.ours} | {row.peer}: {row.theirs or row.why}", highlight=False, markup=False
                )
                yield row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
