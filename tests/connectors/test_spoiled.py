"""What `python -m tests.faults` does with every connector, with one; and what passes as a change, and is none."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

import connectors.retry
from connectors.values import Record
from tests.connectors.rigs.hibob import HiBobRig
from tests.faults import cases
from tests.harness import World, configuration, group, integration, members, resource, team, user
from tests.servers.spoiler import FAULTS


def test_any_answer_spoilt_in_any_way_changes_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both lists of a small directory, in each way; each case is an error, or held."""
    monkeypatch.setattr(connectors.retry, "sleep", lambda _: None)
    rig = HiBobRig()
    with rig.running():
        found = list(cases(rig, tmp_path, max_removed=0.2))
    assert len(found) == 2 * len(FAULTS)
    assert {case.fault for case in found} == set(FAULTS)
    assert [case for case in found if case.changed or case.outcome in {"ok", "not asked"}] == []


def test_one_groups_lost_members_are_taken_for_none(tmp_path: Path) -> None:
    """What no count of the API tells, and is less than `max_removed` of the scope, is a change like any other.

    The owner is then the integration's, and says why; the next read that is whole mends it.
    """

    def directory(*lost: int) -> list[Record]:
        groups = [group(f"g{n}") for n in range(10)]
        lists = [members(f"g{n}", *(f"u{4 * n + m}" for m in range(4))) for n in range(10) if n not in lost]
        return [*map(user, (f"u{n}" for n in range(40))), *groups, *team("platform", "p"), *lists]

    with contextlib.closing(World(tmp_path, configuration(integration()))) as world:
        world.run("corp", *directory())
        world.run("aws", *(resource(f"r{n}", f"g{n}") for n in range(10)))
        assert world.run("corp", *directory(0)).state == "ok"  # 4 of 41
        assert world.owners()["r0"] == "group_empty -> platform"
        assert world.run("corp", *directory()).state == "ok"
        assert world.owners()["r0"] == "g0"
        assert world.run("corp", *directory(0, 1, 2)).state == "held"  # 12 of 41
        assert world.owners()["r0"] == "g0"
