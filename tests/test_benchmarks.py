"""The benchmarks measure what they say. What they find is not judged here."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks import bench, cloud
from tests.benchmarks.load import is_bulk, is_http, latencies, whole_array, whole_http
from tests.benchmarks.peers import Missing, program, resp
from tests.benchmarks.report import Bar, Figure, Row, at_least, at_most, in_turns, verdicts


def test_syncs_are_measured(tmp_path: Path) -> None:
    """A small run has a row for each of its bars, each with figures, and tells the versions."""
    out = tmp_path / "bench.json"
    words = ["--resources", "1000", "--repetitions", "1", "--only", "syncs", "--folder", str(tmp_path)]
    assert bench.main([*words, "--json", str(out)]) in {0, 1}
    told = json.loads(out.read_text())
    barred = [row for row in told["rows"] if row["bar"]]
    assert [row["bar"] for row in barred] == ["≤ 4 ×", "≤ 1.5 ×", "≤ 0.01 ×"]
    assert all(row["compared"]["median"] > 0 for row in told["rows"])
    assert {row["verdict"] for row in barred} <= {"pass", "FAIL"}
    assert told["versions"]["sqlite"]
    assert not list(tmp_path.glob("ownerd-bench-*"))


@pytest.mark.parametrize(
    ("bar", "ours", "theirs", "verdict"),
    [
        (at_least(0.35), 36.0, 100.0, "pass"),
        (at_least(0.35), 34.0, 100.0, "FAIL"),
        (at_most(1.8), 17.0, 10.0, "pass"),
        (at_most(1.8), 19.0, 10.0, "FAIL"),
        (Bar("difference", 0.5), 0.6, 0.2, "pass"),
        (Bar("difference", 0.5), 0.6, 0.05, "FAIL"),
        (at_most(1.8), 17.0, None, "missing"),
        (None, 17.0, 10.0, ""),
    ],
)
def test_a_bar_is_held_against_the_peer(bar: Bar | None, ours: float, theirs: float | None, verdict: str) -> None:
    """A figure passes on the right side of its bar; without the peer's figure it is missing, never passed."""
    row = Row("it", "a peer", bar, Figure("s", (ours,)), None if theirs is None else Figure("s", (theirs,)))
    assert row.verdict == verdict
    assert verdicts([row]) == {kind: int(kind == verdict) for kind in ("pass", "FAIL", "missing")}


@pytest.mark.parametrize(("figure", "verdict"), [(44.0, "pass"), (46.0, "FAIL")])
def test_a_bar_without_a_peer(figure: float, verdict: str) -> None:
    """A figure with a bar of its own is held against that."""
    assert Row("memory", bar=Bar("value", 45), ours=Figure("MiB", (figure,))).verdict == verdict


def test_ratios_are_of_pairs() -> None:
    """Each repetition is compared with the peer's in the same round."""
    turn: list[str] = []

    def measured(name: str, values: list[float]) -> Callable[[], float]:
        def one() -> float:
            turn.append(name)
            return values.pop(0)

        return one

    ours, theirs = in_turns(3, measured("a", [1.0, 2.0, 30.0]), measured("b", [1.0, 4.0, 10.0]))
    assert "".join(turn) == "ababab"
    compared = Row("it", "b", at_most(1), Figure("s", ours), Figure("s", theirs)).compared
    assert compared is not None
    assert compared.values == (1.0, 0.5, 3.0)
    assert compared.median == 1.0


def test_memory_is_the_command_s_own() -> None:
    """What this process has in memory is not taken for the command's."""
    mine = bytearray(200 * 2**20)
    assert cloud.run([sys.executable, "-c", "pass"]).peak < 100
    assert 250 < cloud.run([sys.executable, "-c", "bytearray(b'x') * (250 << 20)"]).peak < 350
    assert len(mine) == 200 * 2**20
    with pytest.raises(RuntimeError, match="exit code 3"):
        cloud.run([sys.executable, "-c", "import sys; sys.exit(3)"])


def test_a_program_that_is_not_there_is_named() -> None:
    """What is missing says what to install."""
    with pytest.raises(Missing, match="apt-get install no-such-package"):
        program("no-such-program", "no-such-package")


def test_whole_answers() -> None:
    """An answer is only counted when all of it has come."""
    http = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    array = b"*2\r\n$3\r\nabc\r\n$2\r\nde\r\n"
    left_over = b"\r\n\r\n$1\r\n" * 9  # of an answer before, in the same memory
    assert [whole_http(bytearray(http[:n] + left_over), n) for n in (10, 36, len(http))] == [0, 0, len(http)]
    assert {whole_array(bytearray(array[:n] + left_over), n) for n in range(len(array))} == {0}
    assert whole_array(bytearray(array + left_over), len(array)) == len(array)
    assert is_http(http)
    assert not is_http(http[:-1])
    assert not is_http(http.replace(b"200", b"404"))
    assert is_bulk(b"$5\r\nhello\r\n")
    assert not is_bulk(b"$5\r\nhell")
    assert not is_bulk(b"$-1\r\n")
    assert resp(b"GET", b"key") == b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"


def test_an_answer_that_is_none_is_no_figure(tmp_path: Path) -> None:
    """A server that answers with an error is not taken for a fast one."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            with listening.accept()[0] as it:
                it.recv(1000)
                it.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(AssertionError, match="404"):
            latencies(path, [b"GET / HTTP/1.1\r\n\r\n"], is_http)
        thread.join()
