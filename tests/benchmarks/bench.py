"""Measures ownerd against what people would use instead, and against floors, all in one run.

    python -m tests.benchmarks.bench [--resources 1000000] [--json FILE] [--only lookups,syncs,cloud] …

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
from typing import Any

import orjson
from rich.console import Console

from tests.benchmarks import cloud, growth, peers
from tests.benchmarks.footprint import Footprint
from tests.benchmarks.publishing import Syncs
from tests.benchmarks.report import Row, show, verdicts
from tests.benchmarks.serving import Lookups
from tests.benchmarks.world import Size, World

_PARTS = ("lookups", "syncs", "footprint", "meanwhile", "cloud")


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
    parser.add_argument("--sizes", default="", help="in place of all that, how cost grows: 10000,100000,1000000")
    parser.add_argument(
        "--folder", type=Path, help="where the databases are made; default: a temporary folder, which goes"
    )
    parser.add_argument("--json", type=Path, default=Path("var/bench.json"), help="default: var/bench.json")
    told = parser.parse_args(words)
    if told.resources < 1000:
        parser.error("--resources: 1000 at least")
    if told.seconds is None:
        told.seconds = 4.0 if told.resources >= 100_000 else 1.0
    told.only = told.only.split(",")
    told.sizes = [int(size) for size in told.sizes.split(",") if size]
    if unknown := set(told.only) - set(_PARTS):
        parser.error(f"--only: no part is named {', '.join(sorted(unknown))}")
    return told


def main(words: list[str]) -> int:
    """Measure, print, and write."""
    told = arguments(words)
    if told.sizes:
        return grow(told)
    console = Console(width=None if sys.stdout.isatty() else 200)
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="ownerd-bench-", dir=told.folder) as folder:
        rows = []
        log = Console(stderr=True, soft_wrap=True, highlight=False)
        for row in _measure(told, Path(folder), log):
            rows.append(row)
            log.print(f"  {row.what}: {row.ours} | {row.peer}: {row.theirs or row.why}", markup=False)
    size = Size(told.resources)
    show(
        rows,
        console,
        f"{size.resources:,} resources, {size.groups:,} groups, {size.memberships:,} memberships; {os.cpu_count()} CPUs",
    )
    result = {
        **_where(started),
        "resources": size.resources,
        "groups": size.groups,
        "memberships": size.memberships,
        "repetitions": told.repetitions,
        "rows": [row.to_json() for row in rows],
    }
    told.json.parent.mkdir(parents=True, exist_ok=True)
    told.json.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    counts = verdicts(rows)
    console.print(f"{counts['pass']} bars met, {counts['FAIL']} not met, {counts['missing']} not measured; {told.json}")
    return 1 if counts["FAIL"] else 0


def grow(told: argparse.Namespace) -> int:
    """Measure at each size, print, and write."""
    started, found = time.time(), []
    for size in told.sizes:
        with tempfile.TemporaryDirectory(prefix="ownerd-bench-", dir=told.folder) as folder:
            found.append(growth.at(Path(folder), Size(size), told.seconds))
    growth.show(found, Console(width=None if sys.stdout.isatty() else 200))
    told.json.parent.mkdir(parents=True, exist_ok=True)
    told.json.write_bytes(orjson.dumps({**_where(started), "sizes": found}, option=orjson.OPT_INDENT_2))
    return 0


def _where(started: float) -> dict[str, Any]:
    """When, on what machine, and of which versions."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": time.time() - started,
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "versions": peers.versions(),
    }


def _measure(told: argparse.Namespace, folder: Path, log: Console) -> Iterator[Row]:
    size = Size(told.resources)
    if set(told.only) - {"cloud"}:
        world = World(folder, size)
        log.print(f"building {size.resources:,} resources …")
        with closing(world.open_store()) as store:
            world.build(store)
    if "lookups" in told.only:
        with peers.ownerd(world) as server:
            yield from Lookups(world, server, told.seconds, told.repetitions).rows()
    if "syncs" in told.only:
        yield from Syncs(world, told.repetitions, told.seconds).rows()
    if "footprint" in told.only:
        yield from Footprint(world, told.repetitions).rows()
    if "meanwhile" in told.only:
        yield from Syncs(world, told.repetitions, told.seconds).meanwhile()
    if "cloud" in told.only:
        yield from cloud.rows(folder, size, told.repetitions)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
