"""SIGKILL at random moments, with lookups going on. `make crash` does it hundreds of times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.kills import Acknowledged, Site, Tally, behind, run
from tests.crash.publisher import ROWS, TEAMS, owner_of


@pytest.mark.parametrize(("real", "kills"), [(False, 20), (True, 3)], ids=["pipeline", "ownerd poll"])
def test_killed_at_random(tmp_path: Path, real: bool, kills: int) -> None:
    """No answer mixes generations or goes back behind what was acknowledged, during the kills and after."""
    tally = run(tmp_path, kills, seed=kills, real=real)
    assert tally.bad == 0, tally
    assert tally.kills >= kills
    assert min(tally.lookups, tally.published, tally.confirmed) > 0
    print(tally)


def test_the_judge(tmp_path: Path) -> None:
    """It sees a mixture, and what fell back behind an acknowledgement."""
    assert not behind(owner_of(70), 69)
    assert not behind(owner_of(69), 69)
    assert behind(owner_of(68), 69)
    assert behind(None, 69)
    assert behind("platform", 0)
    assert owner_of(TEAMS) == owner_of(0)
    site = Site(tmp_path, real=False)
    now = [owner_of(5)] * ROWS
    site.judge(now, now[:5], 5, 4)
    assert site.tally == Tally()
    site.judge([*now[1:], owner_of(6)], now[:5], 5, 5)
    assert site.tally == Tally(torn=1)
    site.judge(now, now[:5], 6, 5)
    assert site.tally == Tally(torn=1, published_lost=1)
    site.judge(now, now[:5], 5, 6)
    assert site.tally == Tally(torn=1, published_lost=1, confirmations_lost=1)
    assert site.writer.told == Acknowledged(ready=site.writer.told.ready)
