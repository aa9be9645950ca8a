"""Clouds and directories down for three days: what was known is answered, with its age."""

from __future__ import annotations

import contextlib
from pathlib import Path

import orjson
import pytest

from connectors.errors import Unreachable
from daemon.serve.lookup import ANY_AGE, Limits, Lookup
from daemon.serve.problems import Problem
from daemon.store.reader import Reader
from tests.harness import World, configuration, integration, resource, team

HOUR = 3600.0


def test_three_days_of_nothing(tmp_path: Path) -> None:
    """Every known lookup is answered for 72 hours of failed polls, says how old it is, and that it is stale."""
    world = World(tmp_path, configuration(integration()))
    world.run("corp", *team("team-a", "u1"), *team("platform", "p1"))
    ids = [f"r{n:03d}" for n in range(300)]
    world.run("aws", *(resource(i, "team-a" if n % 3 else None) for n, i in enumerate(ids)))
    read = world.clock.now
    owners = world.owners()
    with contextlib.closing(Reader(world.store.path)) as reader:
        lookup = Lookup(reader, world.clock)
        for _ in range(72):
            world.clock.now += HOUR
            for source in ("corp", "aws"):
                world.run_scopes(source, {"all": Unreachable("no route")})
                world.store.fail(source, {"code": "unreachable", "message": "no route", "remedy": ""})
            world.store.turn()
            answers = [orjson.loads(lookup.answer(i, None, ANY_AGE)) for i in ids]
            assert all(a["stale"] for a in answers)
            assert {a["resource_seen_at"] for a in answers} == {"2023-11-14T22:13:20Z"}
            assert {a["owners_seen_at"] for a in answers} == {"2023-11-14T22:13:20Z"}
            with pytest.raises(Problem) as caught:
                lookup.answer("never seen", None, ANY_AGE)
            assert caught.value.kind == "unknown-resource"
        assert world.owners() == owners
        # Whoever cannot live with that says so, and may allow for a failure.
        age = world.clock.now - read
        with pytest.raises(Problem) as caught:
            lookup.answer(ids[0], None, Limits(max_age=60))
        assert caught.value.kind == "too-old"
        assert lookup.answer(ids[0], None, Limits(max_age=60, stale_if_error=age))
    world.close()
