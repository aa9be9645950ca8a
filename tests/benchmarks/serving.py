"""Lookups: against Redis, Datasette, uvicorn with and without Starlette, and bare reads."""

from __future__ import annotations

import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from typing import Any

import orjson

from daemon.client import OwnerdError, Owners
from tests.benchmarks import peers
from tests.benchmarks.groups import group_rows
from tests.benchmarks.load import (
    Pump,
    Targets,
    h2load,
    http_get,
    http_post,
    is_bulk,
    is_http,
    latencies,
    redis_benchmark,
    whole_array,
    whole_http,
)
from tests.benchmarks.peers import QUERY, Missing, Server, datasette_target, reading, resp, target
from tests.benchmarks.report import Bar, Figure, Row, at_least, at_most, in_turns
from tests.benchmarks.watch import cpu_of
from tests.benchmarks.world import ARN, World, rid

CONNECTIONS = 32
BATCH = 100
WORKERS = 2
_SAMPLE = 20_000

Peer = tuple[str, Bar | None, Callable[[World], AbstractContextManager[Server]], Callable[[int], str]]
_OVER_HTTP: tuple[Peer, ...] = (
    ("uvicorn + Starlette, the same read", at_least(2.5), lambda w: peers.uvicorn(w, "starlette"), target),
    ("Datasette, the same read", at_least(20), peers.datasette, datasette_target),
    ("uvicorn, a bare hello", None, lambda w: peers.uvicorn(w, "hello"), target),
)


class Lookups:
    """Measures on one world, while `ownerd serve` runs."""

    def __init__(self, world: World, server: Server, seconds: float, repetitions: int) -> None:
        self.world, self.server, self.seconds, self.repetitions = world, server, seconds, repetitions
        self._rng = random.Random(7)
        self._spent: dict[int, list[float]] = {}
        """By process that answers: microseconds of its processor time for each answer, load by load."""
        self._targets = Targets(world.folder, "ownerd", target, world.size.resources)

    def numbers(self, count: int) -> list[int]:
        """Random resources."""
        return [self._rng.randrange(self.world.size.resources) for _ in range(count)]

    def rows(self) -> Iterator[Row]:
        """Everything, peer by peer; each runs only while it is compared."""
        for connections in (CONNECTIONS, 1):
            for name, bar, start, path in _OVER_HTTP:
                yield self._over_http(name, bar if connections > 1 else None, start, path, connections)
        with ExitStack() as stack:
            try:
                redis, why = stack.enter_context(peers.redis(self.world)), ""
            except Missing as missing:
                redis, why = None, str(missing)
            for make in (
                self._get,
                self._get_alone,
                self._many,
                self._many_by_workers,
                self._clients,
                self._many_clients,
                *self._direct(),
            ):
                row = make(redis)
                row.why = row.why or why
                yield row
        yield from self._bare()
        with Owners.direct(self.world.database) as owners:
            yield from group_rows(self._alone, lambda: self._median(owners.get), self.repetitions)

    # --- HTTP peers -------------------------------------------------------------------------------------------------

    def _over_http(
        self,
        name: str,
        bar: Bar | None,
        start: Callable[[World], AbstractContextManager[Server]],
        path: Callable[[int], str],
        connections: int,
    ) -> Row:
        row = Row(f"GET /v1/owner, {_said(connections)}", name, bar)
        try:
            with start(self.world) as peer:
                theirs = Targets(self.world.folder, "peer", path, self.world.size.resources)
                ours, others = in_turns(
                    self.repetitions,
                    lambda: self._load(connections),
                    lambda: self._spending(peer, lambda: h2load(peer.socket, theirs, connections, self.seconds)),
                )
                row.more = self._processor(peer)
            row.ours, row.theirs = Figure("/s", ours), Figure("/s", others)
        except Missing as missing:
            row.why = str(missing)
        return row

    # --- Redis ------------------------------------------------------------------------------------------------------

    def _get(self, redis: Server | None) -> Row:
        row = Row(f"GET /v1/owner, {_said(CONNECTIONS)}", "Redis GET (redis-benchmark)", at_least(0.35))
        return self._against(
            row,
            "/s",
            self._load,
            redis,
            lambda it: self._spending(it, lambda: self._redis_benchmark(it, ["GET", f"{ARN}__rand_int__"])),
        )

    def _get_alone(self, redis: Server | None) -> Row:
        row = Row("GET /v1/owner, 1 connection, median", "Redis GET, the same bare client", at_most(1.8))
        asked = [resp(b"GET", rid(n).encode()) for n in self.numbers(_SAMPLE)]
        return self._against(
            row, "µs", self._alone, redis, lambda it: 1e6 * statistics.median(latencies(it.socket, asked, is_bulk))
        )

    def _alone(self) -> float:
        asked = [http_get(target(n)) for n in self.numbers(_SAMPLE)]
        return 1e6 * statistics.median(latencies(self.server.socket, asked, is_http))

    def _many(self, redis: Server | None) -> Row:
        row = self._against_mget(redis, "", lambda: self._spending(self.server, lambda: self._post(self.server)))
        if redis is not None:
            asked = [resp(b"MGET", *(rid(n).encode() for n in self.numbers(BATCH))) for _ in range(500)]
            pumped = BATCH * Pump(redis.socket, CONNECTIONS, whole_array).run(asked, self.seconds)
            row.more["mget_by_the_generator_of_post"] = pumped
        return row

    def _many_by_workers(self, redis: Server | None) -> Row:
        with peers.ownerd_workers(self.world, WORKERS) as servers:
            self._post(servers)  # so that each has checked its copy of the answers
            return self._against_mget(redis, f", workers = {WORKERS}", lambda: self._post(servers))

    def _against_mget(self, redis: Server | None, more: str, ours: Callable[[], float]) -> Row:
        row = Row(
            f"POST /v1/owners of {BATCH}, {_said(CONNECTIONS)}{more}", "Redis MGET (redis-benchmark)", at_least(1)
        )
        keys = [f"{ARN}__rand_int__"] * BATCH
        return self._against(
            row,
            "answers/s",
            ours,
            redis,
            lambda it: self._spending(it, lambda: BATCH * self._redis_benchmark(it, ["MGET", *keys])),
        )

    def _post(self, server: Server) -> float:
        asked = [
            http_post("/v1/owners", orjson.dumps({"resources": [rid(n) for n in self.numbers(BATCH)]}))
            for _ in range(500)
        ]
        return BATCH * Pump(server.socket, CONNECTIONS, whole_http).run(asked, self.seconds)

    def _redis_benchmark(self, redis: Server, words: list[str]) -> float:
        return redis_benchmark(redis.socket, self.world.size.resources, CONNECTIONS, self.seconds, words)

    # --- Python clients ---------------------------------------------------------------------------------------------

    def _clients(self, redis: Server | None) -> Row:
        row = Row("Owners(socket).get, 1 connection", "redis-py GET")
        with Owners(self.world.socket) as owners:
            return self._against(row, "/s", lambda: self._rate(owners.get), redis, self._redis_py_get)

    def _many_clients(self, redis: Server | None) -> Row:
        row = Row(f"Owners(socket).get_many of {BATCH}, 1 connection", "redis-py MGET")
        with Owners(self.world.socket) as owners:
            return self._against(
                row, "answers/s", lambda: self._rate_of_many(owners.get_many), redis, self._redis_py_mget
            )

    def _direct(self) -> list[Callable[[Server | None], Row]]:
        def get(copied: bool, bar: Bar | None) -> Callable[[Server | None], Row]:
            def measured(redis: Server | None) -> Row:
                row = Row(f"Owners.direct(database).get, one process{_by(copied)}", "redis-py GET", bar)
                with Owners.direct(self.world.database, copied=copied) as owners:
                    return self._against(row, "/s", lambda: self._rate(owners.get), redis, self._redis_py_get)

            return measured

        def many(copied: bool, bar: Bar | None) -> Callable[[Server | None], Row]:
            def measured(redis: Server | None) -> Row:
                row = Row(f"Owners.direct(database).get_many of {BATCH}{_by(copied)}", "redis-py GET", bar)
                with Owners.direct(self.world.database, copied=copied) as owners:
                    return self._against(
                        row, "answers/s", lambda: self._rate_of_many(owners.get_many), redis, self._redis_py_get
                    )

            return measured

        return [get(True, at_least(10)), many(True, at_least(10)), get(False, None), many(False, None)]

    def _rate(self, get: Callable[[str], Any]) -> float:
        asked = [rid(n) for n in self.numbers(_SAMPLE)]
        started = time.perf_counter()
        for one in asked:
            get(one)
        return len(asked) / (time.perf_counter() - started)

    def _median(self, get: Callable[[str], Any]) -> float:
        found, clock = [], time.perf_counter
        for one in [rid(n) for n in self.numbers(_SAMPLE)]:
            started = clock()
            get(one)
            found.append(clock() - started)
        return 1e6 * statistics.median(found)

    def _rate_of_many(self, get: Callable[[list[str]], Any]) -> float:
        asked = [[rid(n) for n in self.numbers(BATCH)] for _ in range(max(1, _SAMPLE // BATCH))]
        started = time.perf_counter()
        for some in asked:
            assert len(get(some)) == BATCH
        return BATCH * len(asked) / (time.perf_counter() - started)

    def _redis_py_get(self, redis: Server) -> float:
        peers.module("redis")
        from redis import Redis

        with closing(Redis(unix_socket_path=str(redis.socket))) as client:
            return self._rate(client.get)

    def _redis_py_mget(self, redis: Server) -> float:
        peers.module("redis")
        from redis import Redis

        with closing(Redis(unix_socket_path=str(redis.socket))) as client:
            return self._rate_of_many(client.mget)

    def _against(
        self, row: Row, unit: str, ours: Callable[[], float], redis: Server | None, theirs: Callable[[Server], float]
    ) -> Row:
        """Ours and Redis's in turns; ours alone where Redis, or its client, is missing."""
        try:
            if redis is None:
                row.ours = Figure(unit, in_turns(self.repetitions, ours)[0])
            else:
                mine, others = in_turns(self.repetitions, ours, lambda: theirs(redis))
                row.ours, row.theirs = Figure(unit, mine), Figure(unit, others)
                if self._spent.keys() >= {self.server.pid, redis.pid}:
                    row.more = self._processor(redis)
                self._spent.clear()
        except (Missing, OwnerdError) as missing:
            row.why = str(missing)
        return row

    # --- floors -----------------------------------------------------------------------------------------------------

    def _bare(self) -> Iterator[Row]:
        """SQLite alone, in this process: what nothing that reads the database can be faster than."""
        with closing(reading(self.world.database)) as db, Owners.direct(self.world.database) as owners:
            peer = "bare sqlite3 reads in one process"
            for what, ours in (
                (f"GET /v1/owner, {_said(CONNECTIONS)}", self._load),
                ("Owners.direct(database).get, one process", lambda: self._rate(owners.get)),
            ):
                row = Row(what, peer)
                try:
                    mine, others = in_turns(self.repetitions, ours, lambda: self._rate(lambda key: _read(db, key)))
                    row.ours, row.theirs = Figure("/s", mine), Figure("/s", others)
                except (Missing, OwnerdError) as missing:
                    row.why = str(missing)
                yield row

    def _load(self, connections: int = CONNECTIONS) -> float:
        return self._spending(self.server, lambda: h2load(self.server.socket, self._targets, connections, self.seconds))

    def _spending(self, server: Server, load: Callable[[], float]) -> float:
        """Answers a second; notes what each has cost the server."""
        started, before = time.perf_counter(), cpu_of(server.pid)
        rate = load()
        spent = (cpu_of(server.pid) - before) / (rate * (time.perf_counter() - started))
        self._spent.setdefault(server.pid, []).append(1e6 * spent)
        return rate

    def _processor(self, peer: Server) -> dict[str, Any]:
        """For the JSON: processor time of the servers for each answer, which the rest of the machine bears on less."""
        ours, theirs = (statistics.median(self._spent.pop(it.pid)) for it in (self.server, peer))
        return {"processor_us_an_answer": {"ours": ours, "theirs": theirs}}


def _read(db: sqlite3.Connection, key: str) -> bytes:
    found: tuple[bytes, int] = db.execute(QUERY, (key,)).fetchone()
    return found[0]


def _by(copied: bool) -> str:
    return "" if copied else ", without the copy"


def _said(connections: int) -> str:
    return f"{connections} connection{'s' * (connections > 1)}"
