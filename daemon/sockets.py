"""Listening on Unix sockets: who may connect, and whose place is taken."""

from __future__ import annotations

import grp
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.settings import Settings
from daemon.errors import SocketTaken
from daemon.notify import inherited_socket


@contextmanager
def listening_on(settings: Settings) -> Iterator[socket.socket]:
    """The socket for lookups: one that was handed over, or one of our own, which goes when it is no longer needed."""
    handed_over = inherited_socket()
    of = settings.daemon
    listening = handed_over or bind_unix(settings.socket, int(of.socket_mode, 8), of.socket_group)
    try:
        yield listening
    finally:
        if handed_over is None:
            settings.socket.unlink(missing_ok=True)
        listening.close()


def bind_unix(path: Path, mode: int, group: str | None = None) -> socket.socket:
    """Bind `path`; a socket file that nobody answers on is replaced. SocketTaken if it is anything else.

    The file never has wider permissions than `mode`, not even for a moment.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path):
            _clear_the_way(path)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        if group is not None:
            _give_to(path, group)
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise SocketTaken(f"{path}: {error.strerror or error}", remedy="choose another runtime_directory") from error
    except SocketTaken:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _clear_the_way(path: Path) -> None:
    if not path.is_socket():
        raise SocketTaken(
            f"{path}: exists and is no socket", remedy="move it away, or choose another runtime_directory"
        )
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1.0)
    try:
        probe.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SocketTaken(f"{path}: {error.strerror or error}", remedy="see who holds it: ss -xlp") from error
    else:
        raise SocketTaken(
            f"{path}: another process answers here", remedy="stop it first, or choose another runtime_directory"
        )
    finally:
        probe.close()


def _give_to(path: Path, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError as error:
        raise SocketTaken(f'{path}: there is no group "{group}"', remedy="correct daemon.socket_group") from error
    except PermissionError as error:
        raise SocketTaken(
            f'{path}: may not be given to the group "{group}"', remedy="ownerd's user must be a member of the group"
        ) from error
