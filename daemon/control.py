"""The control socket: admin verbs of a running poller, for its own user and root: mode 0600, and the peer is checked.

A request is one JSON line, `{"verb": "sync", "sources": […]}` or `{"verb": "accept", "source": …}`; the answer is a
JSON line an event, as `daemon.engine` describes them, and the end of the stream.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import structlog

from daemon.errors import NotRunning, OwnerdError
from daemon.peers import peer_of
from daemon.sockets import bind_unix
from daemon.text import json_text

Event = dict[str, Any]
Handler = Callable[[Event, Callable[[Event], None]], Awaitable[None]]
_LONGEST = 2**20
_LOGGED = 500
_MOST_UNREAD = 2**20

log = structlog.get_logger()


async def listen(path: Path, handler: Handler) -> asyncio.Server:
    """Serve `handler` on the control socket."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(event: Event) -> None:
            if writer.transport.get_write_buffer_size() > _MOST_UNREAD:
                writer.transport.abort()  # who does not read does not hold up what he ordered
            if not writer.is_closing():
                writer.write(orjson.dumps(event) + b"\n")

        try:
            peer = peer_of(writer.get_extra_info("socket"))
            if peer.uid not in {0, os.geteuid()}:
                log.warning("peer.refused", uid=peer.uid, gid=peer.gid, pid=peer.pid, socket=str(path))
                send({"event": "refused", "message": f"the user {peer.uid} may not give orders"})
                return
            async with asyncio.timeout(10):
                line = await reader.readline()
            try:
                request = orjson.loads(line)
            except orjson.JSONDecodeError:
                send({"event": "refused", "message": "not a JSON line"})
            else:
                log.info("order.received", order=json_text(request)[:_LOGGED], uid=peer.uid, pid=peer.pid)
                try:
                    await handler(request, send)
                except OwnerdError as error:  # whoever asked must not take silence for a yes
                    log.error("order.failed", problem=error.message, remedy=error.remedy)  # noqa: TRY400  # no traceback
                    send({"event": "refused", "message": error.message, "remedy": error.remedy})
            await writer.drain()
        except (ConnectionError, TimeoutError, ValueError):
            pass  # the client's trouble, and it is gone
        finally:
            writer.close()

    return await asyncio.start_unix_server(serve, sock=bind_unix(path, 0o600), limit=_LONGEST)


async def ask(path: Path, request: Event) -> AsyncGenerator[Event, None]:
    """Ask a running poller. NotRunning if there is none."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=2**24)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunning(f"no poller answers on {path}") from error
    except PermissionError as error:
        raise NotRunning(
            f"{path}: permission denied", remedy="run the command as ownerd's user: sudo -u ownerd ownerd …"
        ) from error
    try:
        writer.write(orjson.dumps(request) + b"\n")
        await writer.drain()
        async for line in reader:
            yield orjson.loads(line)
    finally:
        writer.close()
