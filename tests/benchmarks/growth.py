"""How cost grows with the number of resources."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks import peers
from tests.benchmarks.footprint import memory
from tests.benchmarks.load import Targets, h2load, http_get, is_http, latencies
from tests.benchmarks.peers import Missing, target
from tests.benchmarks.publishing import bare_insert
from tests.benchmarks.serving import CONNECTIONS
from tests.benchmarks.world import Size, World

_SAMPLE = 20_000


def at(folder: Path, size: Size, seconds: float) -> dict[str, Any]:
    """Each cost once, in a world of this size. What could not be measured is None."""
    world = World(folder, size)
    with closing(world.open_store()) as store:
        world.build(store)
        bare = bare_insert(world)
        unchanged = world.sync_estate(store)[0].whole
        group = statistics.median(world.change_first_group(store, empty=n % 2 == 0).whole for n in range(3))
        directory = world.sync_directory(store).whole
    with peers.ownerd(world) as server:
        targets = Targets(folder, "ownerd", target, size.resources)
        step = 2_654_435_761  # a prime: as good as at random
        asked = [http_get(target(n * step % size.resources)) for n in range(_SAMPLE)]
        took = sorted(latencies(server.socket, asked, is_http))
        try:
            rate = h2load(server.socket, targets, CONNECTIONS, seconds)
        except Missing:
            rate = None
        own = memory(server.pid)["own"]
    return {
        "resources": size.resources,
        "first sync, s": world.first.whole,
        "bare insert, s": bare.seconds,
        "first sync of the directory, s": world.corp.whole,
        "nothing changed, s": unchanged,
        "directory whole, nothing changed, s": directory,
        "one group, 1,000 dependents at most, s": group,
        f"GET at {CONNECTIONS} connections, /s": rate,
        "GET, median, µs": 1e6 * took[len(took) // 2],
        "GET, p99, µs": 1e6 * took[len(took) * 99 // 100],
        "serve, memory of its own, MiB": own,
        "database, MiB": world.database.stat().st_size / 2**20,
    }


def show(found: Sequence[dict[str, Any]], console: Console) -> None:
    """A column for each size."""
    table = Table("", *(f"{it['resources']:,}" for it in found), title="How cost grows", title_justify="left")
    names = list(dict.fromkeys(name for it in found for name in it if name != "resources"))
    for name in names:
        table.add_row(name, *("–" if it.get(name) is None else f"{it[name]:,.4g}" for it in found))
    console.print(table)
