"""HTTP/1.1 over a Unix socket: one request, one answer, over a connection that is kept.

Only what ownerd's server does is taken for an answer: a status line, a head with one Content-Length, and that many
bytes. Anything else is an error, and ends the connection: to guess where an answer ends is to take a part of it for the
answer to the next question. So does whatever interrupts an exchange.
"""

from __future__ import annotations

import grp
import os
import re
import select
import socket
import struct
import time
from functools import lru_cache
from pathlib import Path

from daemon.errors import NotRunning, OwnerdError

LONGEST_HEAD = 64 * 2**10
LONGEST_BODY = 256 * 2**20
"""Bytes; the members of the largest organizations fit."""
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2})[ \r]")
_LENGTH = re.compile(rb"[0-9]{1,12}")


class _Ended(Exception):
    """The connection ended before a byte of the answer."""


class _Strange(Exception):
    """What came is no answer of ownerd's server."""


class Connection:
    """Connects when there is something to ask. `timeout`: seconds for a whole exchange.

    For one thread at a time. After a fork, the child connects anew: two that asked over one connection would get each
    other's answers.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        if timeout <= 0:
            raise ValueError("a timeout is more than 0 seconds")
        self.path = path
        self.timeout = timeout
        self._socket: socket.socket | None = None
        self._coming = select.poll()
        self._pid = 0
        self._buffer = memoryview(bytearray(LONGEST_HEAD))

    def close(self) -> None:
        """End the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. NotRunning if nobody answers, OwnerdError if it is no answer of ownerd's."""
        if self._pid != os.getpid() or not self._is_quiet():
            self.close()
            self._pid = os.getpid()
        kept = self._socket is not None
        try:
            try:
                return self._exchange(request)
            except _Ended:
                if not kept:
                    raise
                # A connection that was kept may have ended meanwhile: that is tried once more.
                self.close()
                return self._exchange(request)
        except _Ended as error:
            self.close()
            raise NotRunning(
                f"{self.path}: ownerd ended the connection", remedy="it may be restarting: try again"
            ) from error
        except _Strange as error:
            self.close()
            raise self.stranger(str(error)) from error
        except OSError as error:
            self.close()
            raise self._not_running(error) from error
        except BaseException:
            self.close()  # what comes of this answer must not be taken for the next one's
            raise

    def stranger(self, why: str = "") -> OwnerdError:
        """The error for what is no answer of ownerd's."""
        self.close()
        return OwnerdError(
            f"{self.path}: this is no answer of ownerd's" + (f": {why}" if why else ""),
            remedy="check that the path is that of ownerd.sock, not control.sock or another service's",
        )

    def _is_quiet(self) -> bool:
        """Whether nothing has come since the last answer: neither the end, nor what would be taken for the next."""
        return self._socket is None or not self._coming.poll(0)

    def _connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # The kernel's time-outs: Python's own cost a call of poll() before each of send() and recv().
            made.setblocking(True)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _interval(self.timeout))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _interval(self.timeout))
            made.connect(str(self.path))
        except BaseException:
            made.close()
            raise
        self._coming = select.poll()
        self._coming.register(made, select.POLLIN)
        self._socket = made
        return made

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        connection = self._socket or self._connect()
        deadline = time.monotonic() + self.timeout
        try:  # noqa: SIM105  # that costs a microsecond
            connection.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server that refuses says so before it has heard all: then what it said is what counts
        buffer = self._buffer
        try:
            got = connection.recv_into(buffer)
        except ConnectionResetError as error:
            raise _Ended from error
        if not got:
            raise _Ended
        slow = False
        while (end := (head := bytes(buffer[:got])).find(b"\r\n\r\n")) < 0:
            if got == len(buffer):
                raise _Strange("its head is too long")
            if not head.startswith(b"HTTP/1.1 "[:got]):
                raise _Strange("it does not speak HTTP/1.1")
            slow = True
            got += self._more(connection, buffer[got:], deadline)
        status, length, closing = _read_head(head[:end])
        body = head[end + 4 :]
        if (left := length - len(body)) < 0:
            raise _Strange("it goes on after its end")
        if left:
            slow = True
            whole = bytearray(length)
            whole[: len(body)] = body
            view = memoryview(whole)
            while left:
                left -= self._more(connection, view[length - left :], deadline)
            body = bytes(whole)
        if closing:
            self.close()
        elif slow:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _interval(self.timeout))
        return status, body

    def _more(self, connection: socket.socket, into: memoryview, deadline: float) -> int:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _interval(left))
        got = connection.recv_into(into)
        if not got:
            raise ConnectionResetError("the connection ended in the middle of an answer")
        return got

    def _not_running(self, error: OSError) -> NotRunning:
        path = self.path
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return NotRunning(
                f"no ownerd answers on {path}", remedy="start it: `ownerd run`, or `systemctl start ownerd`"
            )
        if isinstance(error, PermissionError):
            return NotRunning(f"{path}: permission denied", remedy=_who_may(path))
        if isinstance(error, TimeoutError | BlockingIOError):
            return NotRunning(
                f"{path}: no answer in {self.timeout:g} s",
                remedy="see whether it works: `systemctl status ownerd`, `journalctl -u ownerd`",
            )
        if isinstance(error, ConnectionError):
            why = "ownerd ended the connection in the middle of an answer"
            return NotRunning(f"{path}: {why}", remedy="it may be restarting: try again")
        why = error.strerror or str(error) or type(error).__name__
        return NotRunning(f"{path}: {why}", remedy="check that the path is that of ownerd's socket")


def _interval(seconds: float) -> bytes:
    """A `struct timeval`; at least a microsecond, since none means for ever."""
    microseconds = max(1, round(seconds * 1e6))
    return struct.pack("@ll", *divmod(microseconds, 1_000_000))


@lru_cache(256)  # but for the length, the server's are alike
def _read_head(head: bytes) -> tuple[int, int, bool]:
    """Status, length of the body, and whether the connection ends with it."""
    found = _STATUS.match(head + b"\r")
    if not found:
        raise _Strange("it does not speak HTTP/1.1")
    length: int | None = None
    closing = False
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if name == b"content-length":
            value = value.strip(b" \t")
            if length is not None or not _LENGTH.fullmatch(value):
                raise _Strange("its Content-Length is not one number")
            length = int(value)
        elif name == b"transfer-encoding":
            raise _Strange("it has a Transfer-Encoding")
        elif name == b"connection":
            closing = closing or b"close" in value.lower()
        elif not colon:
            raise _Strange("it has a line that is no header")
    if length is None:
        raise _Strange("it has no Content-Length")
    if length > LONGEST_BODY:
        raise _Strange(f"it has {length} bytes; at most {LONGEST_BODY} are read")
    return int(found[1]), length, closing


def _who_may(path: Path) -> str:
    """Who may open a socket that this process may not."""
    try:
        group = grp.getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        return "only members of the socket's group may ask: daemon.socket_group names it"
    return f'only members of the group "{group}" may ask (daemon.socket_group): `sudo usermod -aG {group} "$USER"`'
