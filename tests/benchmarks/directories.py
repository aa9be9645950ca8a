"""What reading a large directory costs: whole, and after 100 changes. Time, CPU, requests and peak memory.

    python tests/benchmarks/directories.py entra 100000 20000 500000

The arguments are the kind (okta, entra), users, groups and memberships. The vendor's server runs in a process of its own,
on loopback, without a rate limit; the connector in another, as it does in the daemon. Figures of one machine, to compare
with each other: most of the time is the server's.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
CHANGES = 50
"""Users that change, and as many memberships."""


def okta(users: int, groups: int, memberships: int) -> Any:
    from tests.servers.okta import OktaServer

    server, rng = OktaServer(page=200), random.Random(1)
    server.__enter__()
    ids = [
        server.add_user(f"00u{n:017d}", f"user{n}@acme.example", firstName="User", lastName=str(n))
        for n in range(users)
    ]
    for n in range(groups):
        server.add_group(f"00g{n:017d}", f"Group {n}")
    for n in range(memberships):
        server.add_member(f"00g{n % groups:017d}", ids[rng.randrange(users)])

    server.clock += 86400  # what was made long ago is no change

    def change() -> None:
        for n in range(CHANGES):
            server.add_member(f"00g{100 + n:017d}", ids[rng.randrange(users)])
            server.update_user(ids[500 + n], department="Moved")

    os.environ["TOKEN"] = server.token
    return (
        server,
        change,
        {"org_url": server.url, "ca_file": server.ca_file, "token": {"env": "TOKEN"}, "rate_share": 1.0},
    )


def entra(users: int, groups: int, memberships: int) -> Any:
    from tests.servers.graph import GraphServer

    def guid(kind: str, n: int) -> str:
        return f"{kind * 8}-0000-4000-8000-{n:012x}"

    server, rng = GraphServer(), random.Random(1)
    server.__enter__()
    for n in range(users):
        server.add_user(guid("a", n), f"user{n}@acme.example", f"User {n}", department=f"D{n % 300}")
    members: list[set[str]] = [set() for _ in range(groups)]
    for n in range(memberships):
        members[n % groups].add(guid("a", rng.randrange(users)))
    for n in range(groups):
        server.add_group(guid("b", n), f"Group {n}", *members[n])

    def change() -> None:
        for n in range(CHANGES):
            server.link("groups", guid("b", 100 + n), guid("a", rng.randrange(users)))
            server.update("users", guid("a", 500 + n), department="Moved")

    return (
        server,
        change,
        {
            "endpoint": server.url,
            "ca_file": server.ca_file,
            "access_token": {"env": "TOKEN"},
        },
    )


def serve(kind: str, sizes: list[int]) -> None:
    """The server's process: tells the connector's options, then obeys lines: `change`, `requests`."""
    server, change, options = {"okta": okta, "entra": entra}[kind](*sizes)
    print(json.dumps([options, server.token]), flush=True)
    for line in sys.stdin:
        if line.strip() == "change":
            change()
        count = len(server.requests)
        server.requests.clear()
        print(count, flush=True)
    server.__exit__(None, None, None)


def read(kind: str, sizes: list[int]) -> None:
    """The connector's process: reads whole, has the server change, reads the changes."""
    from config.secrets import resolve
    from connectors.registry import DIRECTORIES, load
    from connectors.values import Bookmark, Members, Principal

    me = [sys.executable, __file__, kind, *map(str, sizes), "--serve"]
    with subprocess.Popen(me, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        options, os.environ["TOKEN"] = json.loads(process.stdout.readline())

        def ask(what: str) -> int:
            assert process.stdin
            assert process.stdout
            process.stdin.write(what + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        cls = load(DIRECTORIES[kind])
        made = cls.Options.model_validate(options)
        resolve(made)
        bookmarks: dict[str, str] = {}
        print(
            "| read | principals | memberships | requests | seconds | CPU s | peak MiB |\n|---|---|---|---|---|---|---|"
        )
        for whole in (True, False):
            with closing(cls(made)) as connector:  # type: ignore[call-arg]  # each takes its own options
                ask("requests" if whole else "change")
                started, cpu, principals, members = time.perf_counter(), time.process_time(), 0, 0
                for scope in connector.scopes():
                    if scope not in ("directory", "users", "groups"):
                        continue  # roles cost requests of their own
                    for record in connector.read(scope) if whole else connector.changes(scope, bookmarks[scope]):
                        match record:
                            case Bookmark():
                                bookmarks[scope] = record.token
                            case Members():
                                members += len(record.members)
                            case Principal():
                                principals += 1
                took, spent = time.perf_counter() - started, time.process_time() - cpu
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                name = "whole" if whole else f"{2 * CHANGES} changes"
                print(
                    f"| {name} | {principals} | {members} | {ask('requests')} | {took:.1f} | {spent:.1f} | {peak} |",
                    flush=True,
                )
        process.stdin.close()


if __name__ == "__main__":
    what, *numbers = (word for word in sys.argv[1:] if word != "--serve")
    (serve if "--serve" in sys.argv else read)(what, [int(n) for n in numbers])
