"""The control socket: admin verbs of a running poller. Mode 0600: whoever may open it may do all.

A request is one JSON line, `{"verb": "sync", "sources": […]}` or `{"verb": "accept", "source": …}`; the answer is a
JSON line an event, as `daemon.engine` describes them, and the end of the stream.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from daemon.errors import NotRunning, SocketTaken

Event = dict[str, Any]
Handler = Callable[[Event, Callable[[Event], None]], Awaitable[None]]
_LONGEST = 2**20


def bind_unix(path: Path, mode: int) -> socket.socket:
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
                await handler(request, send)
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
