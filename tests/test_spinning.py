"""The wait for the next request: when the loop looks again, and when it sleeps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.serve import server, spinning
from daemon.serve.spinning import NEAR, SPIN, Spinner, may_spin
from tests.harness import World, configuration, integration, resource, team
from tests.serving import serving
from tests.test_socket import LOOKUP, Raw


class Loop:
    """A loop whose time goes when it is told to."""

    def __init__(self, near: float = NEAR) -> None:
        self.now = 1000.0
        self.ready: list[Callable[[], None]] = []
        self.spinner = Spinner(self.ready.append, near, lambda: self.now)

    def answer(self, after: float) -> None:
        self.now += after
        self.spinner.answered()

    def turn(self, after: float) -> bool:
        """Run what is ready; whether the loop would then look again instead of sleeping."""
        self.now += after
        ready = self.ready[:]
        self.ready.clear()
        for call in ready:
            call()
        return bool(self.ready)


def test_it_sleeps_after_a_single_answer() -> None:
    loop = Loop()
    loop.answer(0)
    assert not loop.turn(0)


@pytest.mark.parametrize(("gap", "spins"), [(NEAR / 2, True), (NEAR * 2, False)], ids=["near", "far"])
def test_it_spins_where_one_answer_follows_another(gap: float, spins: bool) -> None:
    loop = Loop()
    loop.answer(0)
    loop.answer(gap)
    assert loop.turn(0) is spins


def test_it_sleeps_when_nothing_comes_in_time() -> None:
    """And begins anew with the next two that are near."""
    loop = Loop()
    loop.answer(0)
    loop.answer(NEAR / 2)
    assert loop.turn(SPIN / 2)
    assert not loop.turn(SPIN)
    loop.answer(NEAR * 2)
    assert not loop.turn(0)
    loop.answer(NEAR / 2)
    assert loop.turn(0)


def test_an_answer_prolongs_it() -> None:
    loop = Loop()
    loop.answer(0)
    loop.answer(NEAR / 2)
    for _ in range(10):
        loop.answer(SPIN * 0.9)
        assert loop.turn(0)
    assert not loop.turn(SPIN * 1.1)


def test_many_answers_do_not_make_it_look_more_often() -> None:
    loop = Loop()
    for _ in range(10):
        loop.answer(SPIN / 100)
    assert len(loop.ready) == 1
    loop.turn(0)
    assert len(loop.ready) == 1


def test_it_may_be_told_not_to() -> None:
    loop = Loop(near=0.0)
    for _ in range(3):
        loop.answer(0)
    assert not loop.turn(0)


@pytest.mark.parametrize(
    ("processors", "servers", "may"), [({0}, 1, False), ({0, 5}, 1, True), ({0, 1}, 2, False), (set(range(8)), 4, True)]
)
def test_a_processor_is_left_for_clients(
    monkeypatch: pytest.MonkeyPatch, processors: set[int], servers: int, may: bool
) -> None:
    """Of those that this process may use."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: processors)
    assert may_spin(servers) is may


def test_a_server_that_spins_hears_others_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it never sleeps."""
    monkeypatch.setattr(server, "NEAR", 3600.0)
    monkeypatch.setattr(spinning, "SPIN", 3600.0)
    world = World(tmp_path, configuration(integration("aws")))
    world.run("corp", *team("team-a", "ada"), *team("platform", "pia"))
    world.run("aws", resource("r1", "team-a"))
    path = tmp_path / "s"
    with serving(world.store.path, path, world.clock) as running, contextlib.closing(Raw(path)) as first:
        for _ in range(3):
            first.send(LOOKUP)
            assert first.answer()[0] == 200
        assert running.server.door.spinner._spinning
        with contextlib.closing(Raw(path)) as second:
            second.send(LOOKUP)
            assert second.answer()[0] == 200
            second.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert second.answer()[0] == 200
    world.close()
