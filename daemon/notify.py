"""What systemd is told, and what it hands over: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

HANDED_OVER = "OWNERD_LISTEN_FD"
"""Environment variable in which `ownerd run` names the listening socket that the server is to use."""

_FIRST_FD = 3


def notify(*lines: str) -> None:
    """Send `READY=1`, `STOPPING=1`, `WATCHDOG=1`, `STATUS=…`; nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    with (
        suppress(ConnectionRefusedError, FileNotFoundError),  # whoever listened is gone
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.sendto("\n".join(lines).encode(), address)


def inherited_socket() -> socket.socket | None:
    """The listening socket that was handed over, by `ownerd run` or the service manager; None if none was.

    ValueError if there are several.
    """
    if number := os.environ.pop(HANDED_OVER, None):
        os.set_inheritable(int(number), False)
        return socket.socket(fileno=int(number))
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if count == 0:
        return None
    if count > 1:
        raise ValueError(f"one listening socket is expected, {count} were passed")
    os.set_inheritable(_FIRST_FD, False)
    return socket.socket(fileno=_FIRST_FD)


def watchdog_interval() -> float | None:
    """Seconds between two signs of life: half of what the service manager allows; None where it asks for none."""
    allowed = os.environ.get("WATCHDOG_USEC")
    if not allowed or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(allowed) / 2_000_000
