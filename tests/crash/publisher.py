"""Publishes without pause, and confirms in between, until it is killed: `python -m tests.crash.publisher STATE`.

Says on its output what has been acknowledged, a line each: `ready N`, `published N`, `confirmed N`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from connectors.values import Record, Resource
from tests.harness import World, configuration, integration, resource, team

TEAMS = 64
"""Generations that can be told apart: generation N is owned by team N modulo this."""
ROWS = 200
HELD_ROWS = 5
DOCUMENT = configuration(
    integration("aws", max_owner_changes=1.0),
    integration("slow", hold_owner_changes=86400.0, max_owner_changes=1.0),
)
PEOPLE: list[Record] = [record for n in range(TEAMS) for record in team(f"team-{n}", f"u{n}")]
PEOPLE += team("platform", "p1")


def owner_of(generation: int) -> str:
    return f"team-{generation % TEAMS}"


def rows(generation: int) -> list[Resource]:
    """All of `aws`: a generation's rows say which it is, by their owner."""
    return [resource(f"r{n}", owner_of(generation)) for n in range(ROWS)]


def held_rows(generation: int) -> list[Resource]:
    """All of `slow`, whose changes wait until they are confirmed."""
    return [resource(f"c{n}", owner_of(generation)) for n in range(HELD_ROWS)]


def say(*words: Any) -> None:
    print(*words, flush=True)


def main(folder: Path, generation: int) -> None:
    world = World(folder, DOCUMENT)
    world.run("corp", *PEOPLE)
    say("ready", generation)
    while True:
        generation += 1
        world.clock.now += 1
        assert world.run("aws", *rows(generation)).state == "ok"
        say("published", generation)
        assert world.run("slow", *held_rows(generation)).state == "ok"
        world.store.confirm("slow", None)
        say("confirmed", generation)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
