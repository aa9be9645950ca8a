"""The client's HTTP: what it takes for an answer, and what it does when the connection does not hold."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.client import LookupProblem, Owners, over_socket, wire
from daemon.errors import NotRunning, OwnerdError
from daemon.serve import quick

ANSWER: Any = {"resource": {"id": "r"}, "owners": []}
BODY = json.dumps(ANSWER).encode()


def response(body: bytes = BODY, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


GOOD = response()


class Scripted:
    """A listener. For each connection in turn a list: what to send after each request; at its end it closes.

    `None` in place of bytes waits for the end of the test. What was asked is kept, a list a connection.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[list[bytes]] = []
        self.done = threading.Event()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._threads: list[threading.Thread] = []

    def plays(self, *connections: list[bytes | list[bytes] | None]) -> Owners:
        """Play a script in a thread; a client for it."""

        def run() -> None:
            for script in connections:
                connection, _ = self._listening.accept()
                asked: list[bytes] = []
                self.asked.append(asked)
                with connection:
                    for step in script:
                        asked.append(connection.recv(1 << 16))
                        if step is None:
                            self.done.wait(60)
                            continue
                        for part in step if isinstance(step, list) else [step]:
                            connection.sendall(part)

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)
        return Owners(self.path)

    def close(self) -> None:
        self.done.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "the script was not played to its end"
        self._listening.close()


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Scripted]:
    made = Scripted(tmp_path / "s")
    yield made
    made.close()


def test_an_answer_may_come_in_pieces(scripted: Scripted) -> None:
    """Byte by byte, and more than fits the buffer."""
    large = json.dumps({**ANSWER, "x": "y" * 300_000}).encode()
    with scripted.plays([[bytes([b]) for b in GOOD], [GOOD[:30], GOOD[30:]], response(large), GOOD]) as owners:
        for size in (0, 0, 300_000, 0):
            assert len(owners.call("GET", "/x").get("x", "")) == size
    assert len(scripted.asked) == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n" + BODY, "no Content-Length"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "Transfer-Encoding"),
        (response(BODY, "200 OK", "Content-Length: 3"), "not one number"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "not one number"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0x10\r\n\r\n", "not one number"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n", "at most"),
        (b"HTTP/1.1 200 OK\r\nwhat is this\r\ncontent-length: 0\r\n\r\n", "no header"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", r"HTTP/1\.1"),
        (b"HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\n", r"HTTP/1\.1"),
        (b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n", r"HTTP/1\.1"),
        (b"* OK IMAP4rev1\r\n", r"HTTP/1\.1"),
        (GOOD + b"{", "goes on"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * wire.LONGEST_HEAD, "too long"),
        (response(b"no JSON"), "no answer"),
        (response(b"[1]"), "no answer"),
        (response(b'{"detail": "?"}', "404 Not Found"), "no answer"),
        (response(b"[" * 100_000), "no answer"),
    ],
)
def test_what_is_no_answer_of_ownerds(scripted: Scripted, content: bytes, why: str) -> None:
    """A clear error, and nothing more is read from that connection."""
    owners = scripted.plays([content])
    with pytest.raises(OwnerdError, match=why) as caught:
        owners.get("r")
    assert not isinstance(caught.value, LookupProblem | NotRunning)
    assert "ownerd.sock" in caught.value.remedy
    assert owners._connection._socket is None or why == "no answer"
    owners.close()


def test_a_close_that_was_announced_is_obeyed(scripted: Scripted) -> None:
    """The next request goes to a new connection: the server may be another."""
    script: list[bytes | list[bytes] | None] = [response(BODY, "200 OK", "Connection: close")]
    with scripted.plays(script, [GOOD]) as owners:
        owners.get("r")
        assert owners._connection._socket is None
        owners.get("r")
    assert [len(asked) for asked in scripted.asked] == [1, 1]


def test_a_kept_connection_that_ended_is_opened_once_more(scripted: Scripted) -> None:
    """Whether the end was seen before the request or after it; but only once."""
    with scripted.plays([GOOD, b""], [b""]) as owners:
        owners.get("r")
        with pytest.raises(NotRunning, match="ended the connection"):
            owners.get("r")
    assert [len(asked) for asked in scripted.asked] == [2, 1]


def test_half_an_answer_is_not_asked_for_again(scripted: Scripted) -> None:
    """A byte of the answer had come."""
    with scripted.plays([GOOD, GOOD[:-1]]) as owners:
        owners.get("r")
        with pytest.raises(NotRunning, match="in the middle"):
            owners.get("r")
    assert len(scripted.asked) == 1


def test_what_came_unasked_is_no_answer(scripted: Scripted) -> None:
    """Bytes that are there before the question are thrown away, with their connection."""
    stray = response(b'{"resource": {"id": "other"}, "owners": ["wrong"]}')
    sent = threading.Event()

    class Late(list[bytes]):
        """The answer, and once the client has it, what nobody asked for."""

        def __iter__(self) -> Iterator[bytes]:
            yield GOOD
            got.wait(60)
            yield stray
            sent.set()

    got = threading.Event()
    with scripted.plays([Late()], [GOOD]) as owners:
        owners.get("r")
        got.set()
        assert sent.wait(60)
        assert owners.get("r") == ANSWER
    assert len(scripted.asked) == 2


def test_a_refusal_before_all_was_said(scripted: Scripted) -> None:
    """The server answers and ends before it has read the whole request: what it said is what counts."""
    refusal = response(b'{"type": "/problems/too-large", "detail": "at most 8"}', "413 Too Large", "connection: close")
    with scripted.plays([refusal]) as owners, pytest.raises(LookupProblem) as caught:
        owners.call("POST", "/v1/owners", {"resources": ["x" * 20_000_000]})
    assert caught.value.kind == "too-large"


@pytest.mark.parametrize("script", [[None], [GOOD[:20]]])
def test_who_does_not_answer_in_time(scripted: Scripted, script: list[Any]) -> None:
    """Silence, and half of an answer, end in the same error; the connection is not used again."""
    if script[0] is not None:
        script = [Half(scripted.done)]
    scripted.plays(script)
    with Owners(scripted.path, timeout=0.05) as owners:
        with pytest.raises(NotRunning, match=r"no answer in 0\.05 s"):
            owners.get("r")
        assert owners._connection._socket is None
    scripted.done.set()


class Half(list[bytes]):
    """Half of an answer, and then nothing."""

    def __init__(self, done: threading.Event) -> None:
        super().__init__()
        self._done = done

    def __iter__(self) -> Iterator[bytes]:
        yield GOOD[:20]
        self._done.wait(60)


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_no_time_at_all_is_refused(tmp_path: Path, timeout: float) -> None:
    """To the kernel, none would mean for ever."""
    with pytest.raises(ValueError, match="more than 0"):
        Owners(tmp_path / "s", timeout=timeout)


def test_what_interrupts_an_exchange_ends_the_connection(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer that is still to come must not be taken for that to the next question."""

    def interrupt(_head: bytes) -> Any:
        raise KeyboardInterrupt

    with scripted.plays([GOOD], [GOOD]) as owners:
        with monkeypatch.context() as patch:
            patch.setattr(wire, "_read_head", interrupt)
            with pytest.raises(KeyboardInterrupt):
                owners.get("r")
        assert owners.get("r") == ANSWER
    assert len(scripted.asked) == 2


def test_a_child_has_a_connection_of_its_own(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes over one connection would get each other's answers."""
    with scripted.plays([GOOD], [GOOD]) as owners:
        owners.get("r")
        another = os.getpid() + 1
        monkeypatch.setattr("daemon.client.wire.os.getpid", lambda: another)
        owners.get("r")
    assert [len(asked) for asked in scripted.asked] == [1, 1]


@pytest.mark.parametrize(
    "ask",
    [
        lambda o: o.call("GET", "/v1/x HTTP/1.1\r\nX: y\r\n\r\nGET /"),
        lambda o: o.call("GET", "/v1/a b"),
        lambda o: o.call("GET", "/v1/ä"),
        lambda o: o.call("GET", "/", headers={"X": "a\nb"}),
        lambda o: o.call("GET / HTTP/1.1\r\n", "/"),
    ],
)
def test_a_request_is_one_request(tmp_path: Path, ask: Callable[[Owners], Any]) -> None:
    """What would make two of it, or none, is refused before anybody is asked."""
    with pytest.raises(ValueError, match="percent-encode"):
        ask(Owners(tmp_path / "nobody"))


@pytest.mark.parametrize("rid", ["arn:aws:rds:us-east-1:1:db:orders", "a b", "ä&b=c+d#e%", "//sqladmin/x?y"])
def test_the_common_lookups_go_the_short_way(rid: str) -> None:
    """The server knows them by their bytes."""
    one = over_socket._request("GET", f"/v1/owner?resource={over_socket._quoted(rid)}", None, {})
    assert quick._ONE.fullmatch(one)
    assert quick._MANY.match(over_socket._request("POST", "/v1/owners", {"resources": [rid]}, {}))
