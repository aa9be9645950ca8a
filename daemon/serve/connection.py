"""A client's connection: what it may cost, and the short way for the common lookup.

uvicorn parses, answers and closes. It leaves open how many connections there may be, how long a client may take to send
and to read, how long a head may be, and who may ask at all. Each bound ends the connection that goes past it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from daemon.peers import Allowed, Peer, groups_of, peer_of
from daemon.serve.problems import Problem
from daemon.serve.quick import Quick
from daemon.serve.spinning import Spinner

log = structlog.get_logger()

MOST_CONNECTIONS = 4096
"""Past these, the ones that have been idle longest end."""
LONGEST_HEAD = 64 * 2**10
"""Bytes of a request line and its headers."""
IDLE = 75.0
"""Seconds between two requests of a connection."""
SENDING = 10.0
"""Seconds that a client may take to send a request."""
READING = 30.0
"""Seconds for which a client may leave an answer unread."""
_SWEEP = 1.0
_FREED = 64
"""Connections that are ended together: looking for the idlest costs a look at each."""
_KNOWN_PEERS = 1024


class Door:
    """What the connections of one server share."""

    def __init__(
        self,
        quick: Quick,
        spinner: Spinner,
        allowed: Allowed,
        counts: Counter[str],
        most: int = MOST_CONNECTIONS,
    ) -> None:
        self.quick = quick
        self.spinner = spinner
        self.counts = counts
        self.open: set[Connection] = set()
        self.draining = False
        self._empty = asyncio.Event()
        self._allowed = allowed
        self._most = most
        self._known: set[tuple[int, int]] = set()

    def admit(self, connection: Connection) -> Problem | None:
        """Take a connection up, for which room is made; or say why it may not ask."""
        if len(self.open) >= self._most:
            self._make_room()
        full = len(self.open) >= self._most
        self.open.add(connection)
        self.counts["accepted"] += 1
        if full:
            self.counts["refused"] += 1
            return Problem("too-many-connections", f"{self._most} requests are being answered already")
        return self._judge(connection)

    def _judge(self, connection: Connection) -> Problem | None:
        peer = connection.peer
        permitted = self._allowed.permits(peer, connection.groups)
        if (who := (peer.uid, peer.gid)) not in self._known and len(self._known) < _KNOWN_PEERS:
            self._known.add(who)
            tell = log.info if permitted else log.warning
        else:
            tell = log.debug  # a client that connects a thousand times must not fill the log
        tell("peer.connected" if permitted else "peer.refused", uid=peer.uid, gid=peer.gid, pid=peer.pid)
        if permitted:
            return None
        self.counts["refused"] += 1
        return Problem(
            "peer-not-allowed", f"the user {peer.uid} may not ask; daemon.allow_uids and allow_gids say who may"
        )

    def allow(self, allowed: Allowed) -> None:
        """Let others ask from now on; whoever may no longer ask is not answered again."""
        self._allowed = allowed
        self._known.clear()
        for connection in self.open:
            connection.unwelcome = self._judge(connection)

    def _make_room(self) -> None:
        idlest = sorted((c for c in self.open if not c.answering), key=lambda c: c.since)[:_FREED]
        log.warning("connections.full", most=self._most, ended=len(idlest))
        for connection in idlest:
            self.counts["evicted"] += 1
            connection.end()

    async def watch(self) -> None:
        """End the connections that have taken too long, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP)
            now = loop.time()
            for connection in list(self.open):
                connection.look(now)

    async def drain(self, patience: float) -> None:
        """Let each connection have its answer, and with it the word that it ends; idle ones end after `patience`."""
        self.draining = True
        if self.open:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), patience)

    def forget(self, connection: Connection) -> None:
        """It has ended."""
        self.open.discard(connection)
        if self.draining and not self.open:
            self._empty.set()


class _Outgoing:
    """A transport that may be closed at any moment, as asyncio's: uvloop's raises where an answer comes too late."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        """Send, if anybody is there."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, bounded. `since`: when what it does now began, in the loop's seconds."""

    def __init__(
        self,
        door: Door,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door = door
        self._quick = door.quick.answer
        self._answered = door.spinner.answered
        self._now: Callable[[], float] = self.loop.time
        self.since = self._now()
        self._receiving = False
        self._in_head = False
        self._head = self._raw = 0
        """Bytes of the head: in parts that are whole, and in all that came while it was not."""
        self._unread_since: float | None = None
        self._refusal: Problem | None = None
        self.unwelcome: Problem | None = None
        self.peer: Peer

    # --- the transport's calls --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """See who it is. A client that may not ask is told so when it does: before, it would not listen."""
        super().connection_made(cast("asyncio.Transport", _Outgoing(transport)))
        self.peer = peer_of(transport.get_extra_info("socket"))
        self.unwelcome = self._door.admit(self)

    def groups(self) -> tuple[int, ...]:
        """The supplementary groups of the client."""
        return groups_of(self.transport.get_extra_info("socket"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._door.forget(self)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # as the transport's contract has it
        """A client that has said all it wants to say still gets its answers."""
        if self._receiving or not self.answering:
            return False
        self.cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Answer the common lookup at once; the rest goes through the parser."""
        if self._refusal is not None:
            return
        if self.unwelcome is not None:
            self._refuse(self.unwelcome)
            return
        if not self._receiving and ((cycle := self.cycle) is None or cycle.response_complete):
            self.since = self._now()
            if not self._door.draining and not self.flow.write_paused:
                state = self.server_state
                found = self._quick(data, state.default_headers)
                if found is not None:
                    self._unset_keepalive_if_required()
                    state.total_requests += 1
                    self.transport.write(found)
                    self._answered()
                    return
        if self._in_head:
            self._raw += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # to what we do not speak: it is answered in HTTP/1.1
        except httptools.HttpParserError:
            self._door.counts["malformed"] += 1
            self._refuse(self._refusal or Problem("bad-request", "this is no HTTP/1.1 request"))
        if self._in_head and self._raw > LONGEST_HEAD and self._refusal is None:
            self._refuse(_head_too_long())

    def pause_writing(self) -> None:
        """The client does not read. What it asks next waits until it does, and it has some time for that."""
        super().pause_writing()
        self._unread_since = self._now()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._unread_since = None

    # --- the parser's calls -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._receiving = self._in_head = True
        self._head = self._raw = 0

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def _count(self, length: int) -> None:
        self._head += length
        if self._head > LONGEST_HEAD:
            self._refusal = _head_too_long()
            raise ValueError("the head is too long")  # the parser makes it one of its errors

    def on_headers_complete(self) -> None:
        """The head has ended. While the server stops, the answer says that the connection does."""
        self._in_head = False
        super().on_headers_complete()
        if self._door.draining:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request has ended."""
        super().on_message_complete()
        self._receiving = False

    def on_response_complete(self) -> None:
        """An answer is out, and may have told of something newer than the turn that lasts."""
        self._door.quick.end_turn()
        self.since = self._now()
        super().on_response_complete()

    # --- bounds -----------------------------------------------------------------------------------------------------

    @property
    def answering(self) -> bool:
        """Whether a request waits for its answer."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.disconnected

    def look(self, now: float) -> None:
        """End it if the client has taken too long."""
        if self._unread_since is not None:
            if now - self._unread_since > READING:
                self._door.counts["unread"] += 1
                self.transport.abort()
        elif self._receiving:
            if now - self.since > SENDING:
                self._door.counts["slow"] += 1
                self._refuse(Problem("request-timeout", f"the request was not all there after {SENDING:g} seconds"))
        elif not self.answering and now - self.since > IDLE:
            self._door.counts["idle"] += 1
            self.end()

    def end(self) -> None:
        """Close it; what is written goes out first."""
        self._door.forget(self)
        self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Say why, and end the connection. An answer that is under way is not mixed with another."""
        self._refusal = problem
        if self.answering and self.cycle.response_started:
            self.transport.abort()
            return
        self.pipeline.clear()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = problem.to_json()
        self.transport.write(
            STATUS_LINE[problem.status]
            + b"cache-control: no-store\r\ncontent-type: application/problem+json\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.transport.close()


def _head_too_long() -> Problem:
    return Problem("head-too-long", f"a request line and its headers have at most {LONGEST_HEAD} bytes")
