"""Reads a rig as a child process does, through spool, guard and store; and finds every rig of every registered kind."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path

from connectors.registry import DIRECTORIES, INTEGRATIONS
from connectors.values import Kind
from daemon.child import Job, read
from daemon.pipeline import Report
from daemon.spool import SpoolWriter
from tests.connectors.rig import Fault, Rig
from tests.harness import World

KINDS = [("integration", kind) for kind in INTEGRATIONS] + [("directory", kind) for kind in DIRECTORIES]
SOURCES = {"integration": "aws", "directory": "corp"}
"""What `harness.configuration(harness.integration())` calls them."""


def rigs(role: str, kind: str) -> list[Rig]:
    """The rigs of a kind; none if nobody wrote them, which `test_every_kind_has_a_rig` reports."""
    path = Path(__file__).parent / "rigs" / f"{kind}.py"
    name = f"tests.connectors.rigs.{kind}"
    if not path.exists():
        return []
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return [rig for rig in sys.modules[name].RIGS if rig.role == role]


RIGS = [rig for role, kind in KINDS for rig in rigs(role, kind)]
OVER_HTTP = [r for r in RIGS if Fault.THROTTLED_BARE in r.faults]


def name_of(rig: Rig) -> str:
    """For the names of tests, and tables."""
    return "-".join(x for x in (rig.role, rig.kind, rig.name) if x)


def run(world: World, rig: Rig, **options: object) -> Report:
    """One run of the rig's connector, as a child process makes it; how it ended."""
    world.runs += 1
    world.clock.now += 60
    path = world.folder / "spool" / f"{world.runs}.db"
    spool = SpoolWriter(path, clock=world.clock)
    error: Exception | None = None
    source = SOURCES[rig.role]
    try:
        with contextlib.closing(rig.connector(**options)) as connector:
            list(read(Job(source, rig.role, rig.kind, {}, [], str(path)), connector, spool))
    except Exception as caught:
        error = caught
    spool.finish([str(k) for k in Kind], error)
    return world.store.run(source, path)


def rows(world: World) -> list[list[tuple[object, ...]]]:
    """All that was read, and what is answered."""
    return [
        world.query("SELECT key, hash FROM resource ORDER BY 1"),
        world.query("SELECT pid, hash, alive FROM principal ORDER BY 1"),
        world.query("SELECT group_pid, member_pid FROM member ORDER BY 1, 2"),
        world.query("SELECT schedule_pid, member_pid, start, until FROM shift ORDER BY 1, 2, 3"),
        world.query("SELECT key, body FROM answer ORDER BY 1"),
    ]
