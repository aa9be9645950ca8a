"""Who is at the other end of a Unix socket, as the kernel says: SO_PEERCRED, unix(7)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

_UCRED = struct.Struct("3i")
_SO_PEERGROUPS = 59
"""Linux 4.13 and later; Python does not name it."""
_LONGEST = 1024
"""As much as Python lets the kernel answer: 256 groups."""


class Asked(Protocol):
    """A connected socket, or what an event loop gives in its place."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """As `socket.socket.getsockopt`."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """A process at the moment when it connected. 65534: a user whom this user namespace does not have."""

    pid: int
    uid: int
    gid: int


def peer_of(connected: Asked) -> Peer:
    """Who connected."""
    return Peer(*_UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def groups_of(connected: Asked) -> tuple[int, ...]:
    """The supplementary groups of who connected; none where the kernel does not tell, or they are over 256."""
    try:
        raw = connected.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _LONGEST)
    except OSError:
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Who may ask: these users, and the members of these groups. Neither: whoever may open the socket."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()

    def permits(self, peer: Peer, groups: Callable[[], Iterable[int]]) -> bool:
        """Whether a peer may ask; `groups` are its supplementary ones. Nobody is exempt, root neither."""
        if not self.uids and not self.gids:
            return True
        return peer.uid in self.uids or peer.gid in self.gids or not self.gids.isdisjoint(groups())
