"""What one client may cost, and who may ask at all: the bounds of `ownerd.sock`, on a real server."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from daemon.peers import Allowed, Peer, groups_of, peer_of
from daemon.serve import quick
from daemon.serve.connection import IDLE, LONGEST_HEAD, READING, SENDING
from daemon.serve.lookup import Lookup
from daemon.store.reader import Reader
from tests.harness import World, configuration, integration, resource, team
from tests.processes import until
from tests.serving import Running, serving
from tests.unixhttp import get

LOOKUP = b"GET /v1/owner?resource=r1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW = b"GET /v1/owner?resource=r1 HTTP/1.1\r\nHost: localhost\r\nX-Long-Way: 1\r\n\r\n"
HOSTILE = ["r1", "a b", "a+b", "a%2Bb", "r/ü", "r?x=y", "r\u202e", "x" * 3000, "%zz", "two"]


class Raw:
    """A client that says just what it is told to."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self._read = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next response. EOFError at the end."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        while len(self._read) < int(headers["content-length"]):
            self._more()
        body, self._read = self._read[: int(headers["content-length"])], self._read[int(headers["content-length"]) :]
        return int(first.split(" ")[1]), headers, body

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._read += data

    def ended(self) -> bool:
        """Whether the server has closed, and said nothing more."""
        try:
            return self._read == b"" and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def problem(self) -> str:
        """The problem that the server gives before it ends the connection."""
        _, headers, body = self.answer()
        assert headers["content-type"] == "application/problem+json"
        assert headers["connection"] == "close"
        assert self.ended()
        return str(json.loads(body)["type"]).removeprefix("/problems/")

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("world"), configuration(integration("aws"), integration("gcp")))
    world.run("corp", *team("team-a", "ada"), *team("team-b", "bob"), *team("platform", "pia"))
    world.run("aws", *(resource(i, "team-a") for i in HOSTILE), *(resource(f"n{i}", "team-b") for i in range(3000)))
    world.run("gcp", resource("two", "team-b"))
    yield world
    world.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def running(world: World, path: Path) -> Iterator[Running]:
    with serving(world.store.path, path, world.clock) as running:
        yield running


@pytest.fixture
def client(running: Running, path: Path) -> Iterator[Raw]:
    with contextlib.closing(Raw(path)) as client:
        yield client


def connected(running: Running, number: int) -> None:
    until(lambda: running.do(lambda: len(running.door.open)) == number)


def received(running: Running) -> None:
    """Until the server has seen a part of a request."""
    until(lambda: running.do(lambda: any(c._receiving for c in running.door.open)))


# --- the short way --------------------------------------------------------------------------------------------------


def both(path: Path, target: bytes) -> tuple[tuple[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]:
    """The answers to one target on the short way, where it takes that, and on the long one."""
    found = []
    for more in (b"", b"X-Long-Way: 1\r\n"):
        with contextlib.closing(Raw(path)) as client:
            client.send(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n")
            status, headers, body = client.answer()
            headers.pop("date", None)
            found.append((status, headers, body))
    return found[0], found[1]


@pytest.mark.parametrize("rid", HOSTILE, ids=ascii)
def test_both_ways_say_the_same(running: Running, path: Path, rid: str) -> None:
    """Byte for byte but for the date, headers too, however the id is written."""
    for safe in ("", ":/", "/?:@!$'()*,;=~"):
        short, long = both(path, b"/v1/owner?resource=" + quote(rid, safe=safe).encode())
        assert short == long
        assert (short[0] == 200) == (rid != "two"), "two integrations disagree about it"


def both_batches(path: Path, body: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    found = []
    for more in (b"", b"X-Long-Way: 1\r\n"):
        with contextlib.closing(Raw(path)) as client:
            length = b"Content-Length: %d\r\n" % len(body)
            client.send(b"POST /v1/owners HTTP/1.1\r\nHost: localhost\r\n" + more + length + b"\r\n" + body)
            status, headers, told = client.answer()
            headers.pop("date", None)
            found.append((status, headers, told))
    return found


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"resources": HOSTILE}).encode(),
        json.dumps({"resources": ["r1", "r1", "nobody", "two", "n7"]}).encode(),
        b'{"resources": []}',
        b'{"resources": [""]}',
        b'{"resources": ["r1"], "more": 1}',
        b"[",
        b"",
        json.dumps({"resources": ["r1"] * 1001}).encode(),
    ],
    ids=["hostile", "mixed", "none", "empty id", "more", "cut", "no body", "too many"],
)
def test_both_ways_say_the_same_of_batches(running: Running, path: Path, body: bytes) -> None:
    short, long = both_batches(path, body)
    assert short == long


def test_the_short_way_is_taken_by_batches(client: Raw, running: Running) -> None:
    """One that comes whole, and only that."""
    body = json.dumps({"resources": HOSTILE}).encode()
    data = b"POST /v1/owners HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    client.send(data)
    assert client.answer()[0] == 200
    (connection,) = running.do(lambda: list(running.door.open))
    assert connection.cycle is None
    client.send(data[:100])
    received(running)
    client.send(data[100:])
    assert client.answer()[0] == 200
    assert connection.cycle is not None


@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=30).map(lambda raw: bytes(b for b in raw if 0x20 < b < 0x7F)))
@example(b"r1&integration=aws")
@example(b"r1&resource=r1")
@example(b"%")
@example(b"a+b")
@example(b"a%20b")
@example(b"%ff")
@example(b"%F0%9F")
@example(b"r1#x")
@example(b"")
def test_both_ways_say_the_same_of_anything(running: Running, path: Path, value: bytes) -> None:
    """Whatever stands where an id should."""
    short, long = both(path, b"/v1/owner?resource=" + value)
    assert short == long


def test_the_short_way_is_taken(client: Raw, running: Running) -> None:
    """The common request never reaches the parser, and one with a header of its own does."""
    client.send(LOOKUP)
    assert client.answer()[0] == 200
    (connection,) = running.do(lambda: list(running.door.open))
    assert connection.cycle is None
    client.send(SLOW)
    assert client.answer()[0] == 200
    assert connection.cycle is not None


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_requests_in_pieces_and_in_a_row(client: Raw, size: int) -> None:
    """However the bytes are cut, each request has its answer, in order."""
    data = LOOKUP + SLOW + LOOKUP.replace(b"r1", b"n1") + LOOKUP.replace(b"r1", b"nobody")
    for start in range(0, len(data), size):
        client.send(data[start : start + size])
    told = [client.answer() for _ in range(4)]
    assert [status for status, _, _ in told] == [200, 200, 200, 404]
    assert [json.loads(body)["resource"]["id"] for _, _, body in told[:3]] == ["r1", "r1", "n1"]


@pytest.mark.parametrize("between", [None, SLOW, b"GET /v1/changes HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_what_one_turn_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: bytes | None) -> None:
    """One generation while it lasts, unless another answer, which may have told of a later one, came between."""
    monkeypatch.setattr(quick, "TURN", 3600.0)
    world = World(tmp_path, configuration(integration("aws")))
    world.run("corp", *team("team-a", "ada"), *team("team-b", "bob"), *team("platform", "pia"))
    world.run("aws", resource("r1", "team-a"))
    path = tmp_path / "s"
    with serving(world.store.path, path, world.clock), contextlib.closing(Raw(path)) as client:

        def owner() -> str:
            client.send(LOOKUP)
            return str(json.loads(client.answer()[2])["owners"][0]["id"])

        assert owner() == "[team-a]"
        world.run("aws", resource("r1", "team-b"), accept=True)
        assert owner() == "[team-a]"
        if between is not None:
            client.send(between)
            assert client.answer()[0] == 200
            assert owner() == "[team-b]"
    world.close()


def test_a_turn_ends_in_time(tmp_path: Path) -> None:
    """Even if the loop is too busy to end it: the next lookup sees to that."""
    world = World(tmp_path, configuration(integration("aws")))
    world.run("corp", *team("team-a", "ada"), *team("team-b", "bob"), *team("platform", "pia"))
    world.run("aws", resource("r1", "team-a"))
    reader = Reader(world.store.path)
    way = quick.Quick(Lookup(reader, world.clock), lambda _delay, _call: None)
    assert b"team-a" in (way.answer(LOOKUP, ()) or b"")
    world.run("aws", resource("r1", "team-b"), accept=True)
    until(lambda: b"team-b" in (way.answer(LOOKUP, ()) or b""))
    reader.close()
    world.close()


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [b"GET /v1/ow", LOOKUP[:-2], b"POST /v1/owners HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"],
    ids=["line", "head", "body"],
)
def test_a_request_that_does_not_end(client: Raw, running: Running, path: Path, part: bytes) -> None:
    """It is waited for a while, then told so; others are answered all along."""
    client.send(part)
    received(running)
    running.look(SENDING - 1)
    assert get(path, "/v1/owner", resource="r1").status == 200
    running.look(SENDING + 1)
    assert client.problem() == "request-timeout"
    assert get(path, "/v1/owner", resource="r1").status == 200


@pytest.mark.parametrize("first", [b"", LOOKUP, SLOW], ids=["silent", "short way", "long way"])
def test_an_idle_connection_ends(client: Raw, running: Running, first: bytes) -> None:
    """Whether it never asked, or has been answered."""
    if first:
        client.send(first)
        client.answer()
    connected(running, 1)
    running.look(IDLE - 1)
    connected(running, 1)
    running.look(IDLE + 1)
    assert client.ended()
    connected(running, 0)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * LONGEST_HEAD,
        b"GET / HTTP/1.1\r\nX: " + b"x" * LONGEST_HEAD,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (LONGEST_HEAD // 6),
    ],
    ids=["line", "header", "headers"],
)
@pytest.mark.parametrize("size", [1000, 10**6])
def test_a_head_without_end(client: Raw, running: Running, head: bytes, size: int) -> None:
    """However it is cut, it is refused when it is too long, and no more of it is kept."""
    data = head + b"X: y\r\n" * 100
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for start in range(0, len(data), size):
            client.send(data[start : start + size])
    assert client.problem() == "head-too-long"
    connected(running, 0)


def test_a_long_head_that_ends_is_read(client: Raw) -> None:
    client.send(LOOKUP[:-2] + b"X: " + b"y" * (LONGEST_HEAD - 200) + b"\r\n\r\n")
    assert client.answer()[0] == 200


def test_a_body_without_end(client: Raw, running: Running) -> None:
    """A page that takes no body does not keep it."""
    client.send(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
    assert client.answer()[0] == 405
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(200):
            client.send(b"x" * 2**16)
    (connection,) = running.do(lambda: list(running.door.open))
    assert len(connection.cycle.body) < 2**20
    running.look(SENDING + 1)
    connected(running, 0)


def test_a_client_that_does_not_read(client: Raw, running: Running, path: Path) -> None:
    """What it asks waits; after a time it is cut off. What the server keeps for it is bounded."""
    connected(running, 1)
    client.socket.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += client.socket.send(LOOKUP * 1000)
    (connection,) = running.do(lambda: list(running.door.open))
    until(lambda: running.do(lambda: connection.flow.write_paused))
    kept = running.do(connection.transport.get_write_buffer_size)
    assert kept < 2**20, "of the answers"
    assert sent < 2**24, "of the requests: the rest waits in the client"
    assert get(path, "/v1/owner", resource="r1").status == 200
    running.look(READING - 1)
    assert connection in running.do(lambda: set(running.door.open))
    running.look(READING + 1)
    connected(running, 0)


@pytest.mark.parametrize("asked", [LOOKUP, SLOW, b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_half_closed_clients_are_answered(client: Raw, asked: bytes) -> None:
    """One that says that it will say no more still wants to hear."""
    client.send(asked)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.answer()[0] == 200
    assert client.ended()


@pytest.mark.parametrize(
    "part", [LOOKUP[:20], b"POST /v1/owners HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"], ids=["head", "body"]
)
def test_half_a_request_and_no_more(client: Raw, running: Running, part: bytes) -> None:
    """The connection ends, and that is nothing to log."""
    client.send(part)
    received(running)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.ended()
    connected(running, 0)
    assert {line["event"] for line in running.logged} == {"peer.connected"}


@pytest.mark.parametrize("seed", range(20))
def test_garbage(client: Raw, running: Running, path: Path, seed: int) -> None:
    """It is told that this is no HTTP, or nothing; nobody else notices."""
    dice = random.Random(seed)
    start = dice.choice(
        [b"", b"GET ", LOOKUP[: dice.randrange(len(LOOKUP))], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01"]
    )
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.send(start + dice.randbytes(5000))
        client.socket.shutdown(socket.SHUT_WR)
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            status, headers, _ = client.answer()
            assert status in {400, 404, 405, 431}
            assert headers["content-type"] == "application/problem+json"
    assert get(path, "/v1/owner", resource="r1").status == 200


def test_the_idlest_make_room(world: World, path: Path) -> None:
    """When there are as many as may be, who comes is let in, and who has been idle longest goes."""
    with serving(world.store.path, path, world.clock, most=4) as running:
        clients = [Raw(path) for _ in range(3)]
        connected(running, 3)
        busy = Raw(path)
        connected(running, 4)
        busy.send(b"POST /v1/owners HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n")
        until(lambda: running.do(lambda: any(c.answering for c in running.door.open)))
        assert get(path, "/v1/owner", resource="r1").status == 200
        assert all(client.ended() for client in clients)
        busy.send(b'{"resources":[  ]}')
        assert busy.answer()[0] == 200
        assert running.door.counts["evicted"] == 3
        for one in (busy, *clients):
            one.close()


def test_no_more_than_can_be_answered(world: World, path: Path) -> None:
    """Where all wait for an answer, who comes is told to come again, and nobody who waits is sent away."""
    with serving(world.store.path, path, world.clock, most=1) as running:
        busy = Raw(path)
        busy.send(b"POST /v1/owners HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n")
        until(lambda: running.do(lambda: any(c.answering for c in running.door.open)))
        refused = get(path, "/v1/owner", resource="r1")
        assert (refused.status, refused.problem) == (503, "too-many-connections")
        busy.send(b'{"resources":[  ]}')
        assert busy.answer()[0] == 200
        busy.close()


# --- who may ask ----------------------------------------------------------------------------------------------------


def test_the_kernel_says_who_asks() -> None:
    """User, group, process, and supplementary groups of the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == Peer(os.getpid(), os.geteuid(), os.getegid())
        assert set(groups_of(ours)) == set(os.getgroups())


@pytest.mark.parametrize(
    ("allowed", "peer", "groups", "permitted"),
    [
        (Allowed(), Peer(1, 5, 5), (), True),
        (Allowed(frozenset({5})), Peer(1, 5, 9), (), True),
        (Allowed(frozenset({5})), Peer(1, 6, 5), (5,), False),
        (Allowed(frozenset({5})), Peer(1, 0, 0), (0,), False),
        (Allowed(gids=frozenset({5})), Peer(1, 6, 5), (), True),
        (Allowed(gids=frozenset({5})), Peer(1, 5, 6), (7, 5), True),
        (Allowed(gids=frozenset({5})), Peer(1, 5, 6), (7,), False),
        (Allowed(frozenset({1}), frozenset({5})), Peer(1, 1, 6), (), True),
        (Allowed(frozenset({1}), frozenset({5})), Peer(1, 2, 6), (6,), False),
    ],
)
def test_who_is_permitted(allowed: Allowed, peer: Peer, groups: tuple[int, ...], permitted: bool) -> None:
    """A user that is named, or a member of a group that is; neither is named: all; nobody is exempt."""
    assert allowed.permits(peer, lambda: groups) is permitted


@pytest.mark.parametrize("asked", [LOOKUP, SLOW, b"GET /healthz HTTP/1.1\r\n\r\n"])
def test_a_user_who_may_not_ask(world: World, path: Path, asked: bytes) -> None:
    """He is told so, on every page, and learns nothing."""
    with serving(world.store.path, path, world.clock, allowed=Allowed(frozenset({os.geteuid() + 1}))):
        client = Raw(path)
        client.send(asked)
        assert client.problem() == "peer-not-allowed"
        client.close()


def test_who_asks_is_logged_once(running: Running, path: Path) -> None:
    """A user's first connection, and his first that is refused: not each of a thousand."""
    for _ in range(5):
        get(path, "/healthz")
    told = [line for line in running.logged if line["log_level"] != "debug"]
    assert [(line["event"], line["uid"], line["pid"]) for line in told] == [
        ("peer.connected", os.geteuid(), os.getpid())
    ]
    running.do(lambda: running.door.allow(Allowed(frozenset({os.geteuid() + 1}))))
    for _ in range(5):
        assert get(path, "/healthz").status == 403
    told = [line for line in running.logged if line["log_level"] == "warning"]
    assert [(line["event"], line["uid"]) for line in told] == [("peer.refused", os.geteuid())]


def test_a_member_of_the_group_may_ask(world: World, path: Path) -> None:
    allowed = Allowed(gids=frozenset({os.getegid()}))
    with serving(world.store.path, path, world.clock, allowed=allowed):
        assert get(path, "/v1/owner", resource="r1").status == 200


def test_a_reload_says_anew_who_may_ask(client: Raw, running: Running) -> None:
    """Of connections that are there, too."""
    client.send(LOOKUP)
    assert client.answer()[0] == 200
    running.do(lambda: running.door.allow(Allowed(frozenset({os.geteuid() + 1}))))
    client.send(LOOKUP)
    assert client.problem() == "peer-not-allowed"


# --- the end --------------------------------------------------------------------------------------------------------


def test_who_is_connected_when_the_server_stops_is_answered(client: Raw, running: Running) -> None:
    """He may ask once more, and is told that the connection ends."""
    client.send(LOOKUP)
    assert "connection" not in client.answer()[1]
    running.server.should_exit = True
    until(lambda: running.do(lambda: running.door.draining))
    client.send(LOOKUP)
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert client.ended()
