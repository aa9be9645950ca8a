"""The Python client."""

from __future__ import annotations

import grp
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.errors import Forbidden
from daemon.client import AmbiguousResource, LookupProblem, NotYetKnown, Owners, TooOld, UnknownResource
from daemon.errors import NotRunning, OwnerdError
from tests.harness import World, configuration, integration, resource, team
from tests.serving import serving


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, configuration(integration("one"), integration("two")))
    with serving(world.store.path, tmp_path / "s", world.clock):
        world.run("corp", *team("team-a", "ada"), *team("platform", "pia"))
        world.run("one", *(resource(f"r{i}", "team-a") for i in range(1500)))
        yield world
    world.close()


def test_one_and_many(world: World) -> None:
    with Owners(world.folder / "s") as owners:
        assert owners.get("r1")["owners"][0]["name"] == "team-a"
        assert owners.get("r1", "one", members=True)["owners"][0]["members"][0]["id"] == "ada"
        ids = [f"r{i}" for i in range(1500)]
        found = owners.get_many([*ids, "nope"])
        assert [a["resource"]["id"] for a in found if isinstance(a, dict)] == ids
        assert isinstance(found[-1], NotYetKnown)
        assert len(list(owners.pages("/v1/resources", "resources"))) == 1500
        assert len(list(owners.pages("/v1/resources", "resources", 1200))) == 1200
        assert len(list(owners.pages("/v1/changes", "changes"))) == 1500


def test_each_problem_has_its_error(world: World) -> None:
    with Owners(world.folder / "s") as owners:
        with pytest.raises(NotYetKnown):
            owners.get("nope")
        world.run("two", resource("r1", "platform"))
        with pytest.raises(UnknownResource) as caught:
            owners.get("nope")
        assert caught.value.body["resource"] == "nope"
        with pytest.raises(AmbiguousResource):
            owners.get("r1")
        world.clock.now += 60
        with pytest.raises(TooOld):
            owners.get("r2", max_age=30)
        world.run_scopes("two", {"all": Forbidden("no")})
        with pytest.raises(OwnerdError, match="no integration is named"):
            owners.get("r1", "three")


def test_a_connection_that_ended_is_opened_again(world: World) -> None:
    with Owners(world.folder / "s") as owners:
        owners.get("r1")
        assert owners._connection._socket
        owners._connection._socket.shutdown(socket.SHUT_RDWR)
        assert owners.get("r2")["resource"]["id"] == "r2"


def test_nobody_or_a_stranger_answers(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no ownerd answers"):
        Owners(tmp_path / "none").get("x")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    listening.listen()

    def answer(content: bytes) -> None:
        connection, _ = listening.accept()
        connection.recv(1000)
        connection.sendall(content)
        connection.close()

    for content in (b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"):
        thread = threading.Thread(target=answer, args=(content,))
        thread.start()
        with pytest.raises(OwnerdError, match="no answer of ownerd's"), Owners(tmp_path / "s") as owners:
            owners.get("x")
        thread.join()
    listening.close()


def test_who_may_ask_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to open the socket, the error names the group that has it."""

    def refuse(_self: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("daemon.client.wire.Connection._connect", refuse)
    (tmp_path / "s").touch()
    group = grp.getgrgid((tmp_path / "s").stat().st_gid).gr_name
    with pytest.raises(NotRunning, match="permission denied") as caught:
        Owners(tmp_path / "s").get("x")
    assert f'the group "{group}"' in caught.value.remedy
    with pytest.raises(NotRunning) as caught:
        Owners(tmp_path / "gone").get("x")
    assert "daemon.socket_group" in caught.value.remedy


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LookupProblem) as caught:
        Owners(tmp_path / "s").get("a\udcff")
    assert caught.value.kind == "bad-request"


def test_a_list_tells_what_was_left_out(world: World) -> None:
    with Owners(world.folder / "s") as owners:
        some = owners.pages("/v1/resources", "resources", 1200)
        assert some.next is None
        first = [row["resource"]["id"] for row in some]
        assert some.next is not None
        rest = owners.pages("/v1/resources", "resources", cursor=some.next)
        assert len({*first, *(row["resource"]["id"] for row in rest)}) == 1500
        assert rest.next is None
