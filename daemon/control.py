"""The control socket: admin verbs of a running poller. Mode 0600: whoever may open it may do all.

A request is one JSON line, `{"verb": "sync", "sources": […]}` or `{"verb": "accept", "source": …}`; the answer is a
JSON line an event, as `daemon.engine` describes them, and the end of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from daemon.errors import NotRunning, OwnerdError
from daemon.sockets import bind_unix

Event = dict[str, Any]
Handler = Callable[[Event, Callable[[Event], None]], Awaitable[None]]
_LONGEST = 2**20


async def listen(path: Path, handler: Handler) -> asyncio.Server:
    """Serve `handler` on the control socket."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(event: Event) -> None:
            if not writer.is_closing():
                writer.write(orjson.dumps(event) + b"\n")

        try:
            async with asyncio.timeout(10):
                line = await reader.readline()
            try:
                request = orjson.loads(line)
            except orjson.JSONDecodeError:
                send({"event": "refused", "message": "not a JSON line"})
            else:
                try:
                    await handler(request, send)
                except OwnerdError as error:  # whoever asked must not take silence for a yes
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
