"""The servers that ownerd is measured against, each a process of its own on a Unix socket.

What cannot run here raises `Missing`, which says how to get it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from tests.benchmarks.world import World, rid
from tests.processes import command, environment

_PATIENCE = 120.0
_BATCH = 5000


class Missing(Exception):
    """A peer that is not here, with its remedy."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `pid`: of the process that answers."""

    socket: Path
    pid: int


@contextlib.contextmanager
def running(words: Sequence[str], path: Path, log: Path) -> Iterator[Server]:
    """A process that listens on `path` while this lasts. Missing if it ends before."""
    path.unlink(missing_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment())
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _listens(path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"{words[0]} did not start: {log.read_text(errors='replace').strip()[-300:]}")
            time.sleep(0.01)
        yield Server(path, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as trying:
        try:
            trying.connect(str(path))
        except OSError:
            return False
    return True


def program(name: str, package: str) -> str:
    """The path of a program; Missing names the Debian package that has it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/bin")
    if found is None:
        raise Missing(f"{name} is not installed: `apt-get install {package}`")
    return found


def module(name: str) -> str:
    """The version of a Python package; Missing if it is not installed."""
    if importlib.util.find_spec(name) is None:
        raise Missing(f"the Python package {name} is not installed: see requirements/bench.txt")
    return importlib.metadata.version(name)


def told_by(*words: str) -> str:
    """The first line that a program says of its version."""
    out = subprocess.run(words, capture_output=True, text=True, check=False)
    return (out.stdout or out.stderr).strip().partition("\n")[0]


def ownerd(world: World) -> contextlib.AbstractContextManager[Server]:
    """`ownerd serve` on the world's database."""
    return running(command("serve", "--config", str(world.config)), world.socket, world.folder / "serve.log")


def ownerd_workers(world: World, workers: int) -> contextlib.AbstractContextManager[Server]:
    """The same with several processes on one socket."""
    config, path = world.with_workers(workers)
    return running(command("serve", "--config", str(config)), path, world.folder / "workers.log")


# --- Redis --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def redis(world: World) -> Iterator[Server]:
    """Redis, in memory only, that has every answer's bytes under the resource's id."""
    words = [program("redis-server", "redis-server"), "--port", "0", "--save", "", "--appendonly", "no"]
    path = world.folder / "redis.sock"
    with running([*words, "--unixsocket", str(path)], path, world.folder / "redis.log") as server:
        _fill(server.socket, world)
        yield server


def _fill(path: Path, world: World) -> None:
    """Put in what `ownerd serve` would answer: the stored bytes, and a tail like the one that is spliced in."""
    tail = tail_like()
    with socket.socket(socket.AF_UNIX) as redis, contextlib.closing(reading(world.database)) as db:
        redis.connect(str(path))
        rows = db.execute("SELECT r.rid, a.body FROM resource r JOIN answer a ON a.resource_id = r.id")
        while batch := rows.fetchmany(_BATCH):
            redis.sendall(b"".join(resp(b"SET", key.encode(), head + tail) for key, head in batch))
            left = len(b"+OK\r\n") * len(batch)
            while left:
                left -= len(redis.recv(left))


def reading(database: Path) -> sqlite3.Connection:
    """A bare connection that only reads."""
    return sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)


def tail_like() -> bytes:
    """Bytes as long as the ages at the end of an answer."""
    seen = "2026-11-23T08:00:00Z"
    told = json.dumps({"resource_seen_at": seen, "owners_seen_at": seen, "stale": False}, separators=(",", ":"))
    return b"," + told.encode()[1:]


def resp(*words: bytes) -> bytes:
    """A command as Redis reads it."""
    return b"*%d\r\n%s" % (len(words), b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))


# --- HTTP ---------------------------------------------------------------------------------------------------------------

QUERY = "SELECT body, freshness_id FROM answer WHERE key = ?"
"""The read that a lookup comes down to."""


def datasette(world: World) -> contextlib.AbstractContextManager[Server]:
    """Datasette on the same database."""
    module("datasette")
    path = world.folder / "datasette.sock"
    words = [sys.executable, "-m", "datasette", "serve", str(world.database), "--uds", str(path)]
    return running(words, path, world.folder / "datasette.log")


def datasette_target(number: int) -> str:
    """The same read, asked of Datasette: its shortest form of answer."""
    sql = "SELECT CAST(body AS TEXT) AS body, freshness_id FROM answer WHERE key = :key"
    return f"/ownerd.json?{urlencode({'sql': sql, 'key': rid(number), '_shape': 'array'})}"


def uvicorn(world: World, app: str) -> contextlib.AbstractContextManager[Server]:
    """An app of `tests.benchmarks.apps` under uvicorn, as fast as that is: uvloop, httptools, no log of accesses."""
    path = world.folder / f"{app}.sock"
    words = [sys.executable, "-m", "tests.benchmarks.apps", app, str(path), str(world.database)]
    return running(words, path, world.folder / f"{app}.log")


def target(number: int) -> str:
    """The request for a resource's owner."""
    return f"/v1/owner?resource={rid(number)}"


def versions() -> dict[str, str]:
    """Of everything that the figures depend on and that is here."""
    found = {"python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version, "kernel": os.uname().release}
    for name in ("uvicorn", "starlette", "uvloop", "httptools", "orjson", "datasette", "redis", "boto3"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    for words in (["redis-server", "--version"], ["h2load", "--version"], ["userdbctl", "--version"]):
        if path := shutil.which(words[0]):
            found[words[0]] = told_by(path, *words[1:])
    return found
