"""What the system's own directories take to answer: systemd-userdbd, SSSD."""

from __future__ import annotations

import ctypes
import grp
import itertools
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.peers import Missing
from tests.benchmarks.report import Figure, Row, in_turns

_USERDB = Path("/run/systemd/userdb/io.systemd.Multiplexer")
_SAMPLE = 300


def group_rows(by_socket: Callable[[], float], by_file: Callable[[], float], repetitions: int) -> Iterator[Row]:
    """Our lookups, over the socket and straight from the file, against look-ups of a group; medians in microseconds.

    SSSD's own library reads its memory cache, a mapped file, as the direct reader does.
    """
    socket_, file = "GET /v1/owner, 1 connection, median", "Owners.direct(database).get, median"
    userdbd, sssd = "systemd-userdbd, a group", "SSSD, a group"
    for what, ours, name, make in (
        (socket_, by_socket, userdbd, _userdbd),
        (socket_, by_socket, sssd, _sssd),
        (file, by_file, sssd, _sssd),
    ):
        row = Row(what, name)
        try:
            look_up = make()
            mine, others = in_turns(repetitions, ours, lambda once=look_up: _median(once))  # type: ignore[misc]
            row.ours, row.theirs = Figure("µs", mine), Figure("µs", others)
        except Missing as missing:
            row.why = str(missing)
        yield row


def _median(look_up: Callable[[str], None]) -> float:
    found = []
    names = [g.gr_name for g in grp.getgrall() if g.gr_gid]  # SSSD answers for anybody but root
    for name in itertools.islice(itertools.cycle(names), _SAMPLE):
        started = time.perf_counter()
        look_up(name)
        found.append(time.perf_counter() - started)
    return 1e6 * statistics.median(found)


def _userdbd() -> Callable[[str], None]:
    """Over its socket (Varlink: JSON that ends in a zero byte), on one connection."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(_USERDB))
    except OSError as error:
        remedy = "`apt-get install systemd-userdbd`, and a systemd that runs it"
        raise Missing(f"systemd-userdbd does not listen on {_USERDB} ({error.strerror}): {remedy}") from error

    def look_up(name: str) -> None:
        asked = {"groupName": name, "service": "io.systemd.Multiplexer"}
        told = json.dumps({"method": "io.systemd.UserDatabase.GetGroupRecord", "parameters": asked})
        sock.sendall(told.encode() + b"\0")
        answer = bytearray()
        while not answer.endswith(b"\0"):
            answer += sock.recv(1 << 16)
        if "error" in json.loads(answer[:-1]):
            raise Missing(f"systemd-userdbd has no group {name}")

    return look_up


class _Group(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("password", ctypes.c_char_p), ("gid", ctypes.c_uint),
                ("members", ctypes.c_void_p))  # fmt: skip


def _sssd() -> Callable[[str], None]:
    """By its own library for the C library's switch, from its memory cache where it has one."""
    try:
        library = ctypes.CDLL("libnss_sss.so.2")
    except OSError:
        raise Missing(
            "SSSD is not installed: `apt-get install sssd`, and a domain that has this machine's groups"
        ) from None
    ask, found, buffer, why = (
        library._nss_sss_getgrnam_r,
        _Group(),
        ctypes.create_string_buffer(1 << 16),
        ctypes.c_int(),
    )

    size = ctypes.c_size_t(len(buffer))

    def look_up(name: str) -> None:
        # enum nss_status of nss.h: 1 is success, 0 not found, -1 unavailable.
        status = ask(name.encode(), ctypes.byref(found), buffer, size, ctypes.byref(why))
        if status != 1:
            raise Missing(
                f"SSSD is installed, but has no group {name} (status {status}): give it this machine's groups"
            )

    return look_up
