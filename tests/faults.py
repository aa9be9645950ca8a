"""Every answer of every connector's run, spoilt in every way: `python -m tests.faults [KIND…]`. It takes minutes.

Each connector over HTTP is run against its rig, into a store with ownerd's defaults. Then each request that it made,
be it for a page, a token or what there is, is answered wrongly in turn, in each way of `tests.servers.spoiler`, by a
run of its own. No row may change. What each case ended as is printed: a connector's error by its code, or "held" by
the guard; and each case in which rows changed, with what went. It ends with 1 if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import connectors.retry
from daemon.pipeline import Report
from tests.connectors.rig import Fault, Rig
from tests.connectors.through import OVER_HTTP, name_of, rows, run
from tests.harness import World, configuration, integration
from tests.servers.spoiler import FAULTS, Place, Spoiler

TABLES = ("resources", "principals", "memberships", "shifts", "answers")


@dataclass(frozen=True)
class Case:
    """One answer that was spoilt, what the run ended as, and what of the store changed."""

    rig: str
    place: Place
    fault: Fault
    outcome: str
    changed: str = ""


def cases(rig: Rig, folder: Path, *, max_removed: float, faults: Sequence[Fault] = FAULTS) -> Iterator[Case]:
    """Spoil each answer of a running rig in turn."""
    server: Any = vars(rig).get("proxy") or vars(rig)["server"]
    document = configuration(integration(), guard={"max_removed": max_removed})
    spoiler = server.spoiler = Spoiler()

    def begin() -> World:
        world = World(Path(tempfile.mkdtemp(dir=folder)), document)
        assert run(world, rig).state == "ok"
        return world

    try:
        with contextlib.ExitStack() as stack:
            world = stack.enter_context(contextlib.closing(begin()))
            before = rows(world)
            spoiler.begin()
            assert run(world, rig).state == "ok"
            assert rows(world) == before
            for place, has_rows in list(spoiler.places.items()):
                for fault in faults:
                    if fault is Fault.EMPTY_LIST and not has_rows:
                        continue
                    spoiler.begin(place, fault)
                    report = run(world, rig, **({"timeout": 0.2} if fault is Fault.HANG else {}))
                    outcome = outcome_of(report) if spoiler.spoilt else "not asked"
                    spoiler.end()
                    server.listen()
                    after = rows(world)
                    yield Case(name_of(rig), place, fault, outcome, difference(before, after))
                    if after != before:  # what comes next is not to depend on it
                        world = stack.enter_context(contextlib.closing(begin()))
                        before = rows(world)
            assert run(world, rig).state == "ok", "what was held is not released"
            assert rows(world) == before
    finally:
        server.spoiler = None


def outcome_of(report: Report) -> str:
    """The codes of its errors, "held", or "ok"."""
    codes = {str(error["code"]) for error in report.errors.values()}
    return ", ".join(sorted(codes | ({"held"} if report.held else set()))) or report.state


def difference(before: list[list[tuple[object, ...]]], after: list[list[tuple[object, ...]]]) -> str:
    """What went, by table, and of how many."""
    told = []
    for name, old, new in zip(TABLES, before, after, strict=True):
        if old != new:
            told.append(f"{len(set(old) - set(new))} of {len(old)} {name}")
    return ", ".join(told)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("kinds", nargs="*", help="default: all")
    parser.add_argument("--max-removed", type=float, default=0.2, help="the guard's (default: %(default)s)")
    parser.add_argument("--fault", choices=[f.name.lower() for f in FAULTS], help="default: all")
    parser.add_argument("--verbose", action="store_true", help="print each case")
    asked = parser.parse_args()
    connectors.retry.sleep = lambda _: None
    faults = [f for f in FAULTS if asked.fault in {None, f.name.lower()}]
    found: list[Case] = []
    for rig in OVER_HTTP:
        if rig.missing or (asked.kinds and rig.kind not in asked.kinds):
            continue
        with rig.running(), tempfile.TemporaryDirectory() as folder:
            for case in cases(rig, Path(folder), max_removed=asked.max_removed, faults=faults):
                found.append(case)
                if asked.verbose:
                    print(*case.place, case.fault.name, case.outcome, case.changed, sep=" | ")
        _print_table(name_of(rig), [case for case in found if case.rig == name_of(rig)])
    changed = [case for case in found if case.changed]
    print(f"{len(found)} cases, {len(changed)} in which rows changed")
    for case in changed:
        print(f"  {case.rig}: {case.fault.name} on {case.place.target} ({case.place.number}): {case.changed}")
    return int(bool(changed))


def _print_table(name: str, found: list[Case]) -> None:
    places = len({case.place for case in found})
    print(f"{name}: {places} answers, {len(found)} cases", flush=True)
    for fault in FAULTS:
        outcomes = Counter("ROWS CHANGED" if c.changed else c.outcome for c in found if c.fault is fault)
        if not outcomes:
            continue
        print(f"  {fault.name:<16}", "; ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
