"""The poller and a clock that is set, or a machine that sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.settings import parse_settings
from daemon import poller
from daemon.pipeline import Store
from tests.harness import configuration, integration

DAY = 86400.0


@pytest.fixture
def polling(tmp_path: Path) -> Iterator[poller.Poller]:
    """A poller with its jobs scheduled, one interval from now; nothing runs."""
    settings = parse_settings(configuration(integration(interval="15m")), tmp_path / "t.toml")
    store = Store(tmp_path / "state")

    async def make() -> poller.Poller:
        made = poller.Poller(settings, store)
        made._schedule(settings)
        return made

    made = asyncio.run(make())
    yield made
    made._runner.close()
    store.close()


def due_in(polling: poller.Poller) -> list[float]:
    """Seconds until each job, as the clock says now."""
    now = time.time()
    return [job.next_run_time.timestamp() - now for job in polling._scheduler.get_jobs()]


@pytest.mark.parametrize("jump", [-3 * DAY, -3600.0, 3600.0, 3 * DAY])
def test_a_clock_that_jumps_has_everything_read_soon(
    polling: poller.Poller, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Set back by days, the schedule does not rest for days; set ahead, or after a sleep, nothing stays old."""
    later = datetime.fromtimestamp(time.time() + 900, UTC)
    for job in polling._scheduler.get_jobs():
        job.modify(next_run_time=later)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    if jump < 0:
        assert min(due_in(polling)) > 900
    # datetime.now is the C clock: what is scheduled is relative to it, as in a process whose clock was really set.
    before = datetime.now(UTC)
    polling._look_at_the_clock()
    for job in polling._scheduler.get_jobs():
        assert 0 < (job.next_run_time - before).total_seconds() < 60


def test_a_clock_that_drifts_does_not(polling: poller.Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a time service corrects is no jump, however often; neither is a second look at a jump."""
    later = datetime.fromtimestamp(time.time() + 900, UTC)
    for job in polling._scheduler.get_jobs():
        job.modify(next_run_time=later)
    real, shift = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    for _ in range(3):
        shift += poller.CLOCK_JUMP / 4
        polling._look_at_the_clock()
    assert {job.next_run_time for job in polling._scheduler.get_jobs()} == {later}
