"""Kills the writer and the server at random moments while lookups go on, and counts what must not be.

`python -m tests.crash.kills [KILLS [SEED]]` prints a table (`make crash`).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from connectors.values import Members, Principal
from tests.crash import publisher
from tests.crash.publisher import PEOPLE, ROWS, TEAMS, held_rows, owner_of, rows
from tests.processes import PATIENCE, ROOT, Daemon, answers, environment, toml, until
from tests.unixhttp import call, get

KEYS = [row.id for row in rows(0)]
HELD_KEYS = [row.id for row in held_rows(0)]


@dataclass
class Acknowledged:
    """The last generation that was published, and the last that was confirmed, as far as anybody was told."""

    published: int = 0
    confirmed: int = 0
    ready: threading.Event = field(default_factory=threading.Event)


class Writer(Protocol):
    """What publishes and confirms, until it is killed."""

    told: Acknowledged
    span: float
    """Seconds in which it does what it does at least once."""

    def start(self) -> None: ...
    def kill(self) -> None: ...


class PipelineWriter:
    """The pipeline in a process of its own, without a pause between two publishes."""

    span = 0.2

    def __init__(self, state: Path) -> None:
        self.told = Acknowledged()
        self._state = state

    def start(self) -> None:
        self.told.ready.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.publisher", str(self._state), str(self.told.published)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if not line.endswith("\n"):
                break  # cut by death: nobody was told
            word, number = line.split()
            if word == "ready":
                self.told.ready.set()
            else:
                setattr(self.told, word, int(number))

    def kill(self) -> None:
        early = self._process.poll()
        self._process.kill()
        self._process.wait(PATIENCE)
        self._thread.join()
        assert self._process.stdout
        assert self._process.stderr
        problem = self._process.stderr.read()
        self._process.stdout.close()
        self._process.stderr.close()
        assert early is None, problem


class PollWriter:
    """The real `ownerd poll`, told over its control socket to read and to confirm, one order after the other."""

    span = 2.0

    def __init__(self, config: Path, sources: Path, control: Path, log: Path) -> None:
        self.told = Acknowledged()
        self._config, self._sources, self._control, self._log = config, sources, control, log

    def start(self) -> None:
        self.told.ready.clear()
        self._killed = False
        self._daemon = Daemon("poll", self._config, self._log)
        self._thread = threading.Thread(target=self._drive)
        self._thread.start()

    def _drive(self) -> None:
        import socket

        def order(request: dict[str, Any], last: str) -> bool:
            """Whether the poller said that it was done."""
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE)
                try:
                    connection.connect(str(self._control))
                    connection.sendall(json.dumps(request).encode() + b"\n")
                    with connection.makefile("rb") as lines:
                        told = [json.loads(line) for line in lines if line.endswith(b"\n")]
                except OSError:
                    return False
            return bool(told) and told[-1]["event"] == last and told[-1].get("state", "ok") == "ok"

        generation = max(self.told.published, self.told.confirmed)
        while not self._killed:
            generation += 1
            for name, made in (("aws", rows(generation)), ("slow", held_rows(generation))):
                told = [{"id": row.id, "tags": dict(row.tags)} for row in made]
                write(self._sources / f"{name}.json", {"resources": told})
                if not order({"verb": "sync", "sources": [name]}, "finished"):
                    generation -= 1
                    time.sleep(0.02)
                    break
                self.told.ready.set()
                if name == "aws":
                    self.told.published = generation
                elif order({"verb": "confirm", "source": "slow", "resources": None}, "confirmed"):
                    self.told.confirmed = generation

    def kill(self) -> None:
        early = self._daemon.process.poll()
        self._killed = True
        self._daemon.stop(signal.SIGKILL)
        self._thread.join()
        assert early is None, "ended by itself"


def write(path: Path, content: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    partial.rename(path)


@dataclass
class Tally:
    """What was done, and what was found. All below `lookups` must stay 0."""

    kills: int = 0
    kills_of_the_server: int = 0
    published: int = 0
    confirmed: int = 0
    lookups: int = 0
    torn: int = 0
    published_lost: int = 0
    confirmations_lost: int = 0
    wrong: int = 0
    damaged: int = 0

    @property
    def bad(self) -> int:
        return self.torn + self.published_lost + self.confirmations_lost + self.wrong + self.damaged


class Site:
    """A writer and a server over one state directory, and clients that ask all the time."""

    def __init__(self, folder: Path, *, real: bool) -> None:
        self.tally = Tally()
        self.state = folder / "state"
        self.state.mkdir()
        self.log = folder / "log"
        self._config = folder / "ownerd.toml"
        sources = folder / "sources"
        sources.mkdir()
        people = [
            {"kind": str(p.kind), "id": p.id, "name": p.name, "members": []} for p in PEOPLE if isinstance(p, Principal)
        ]
        inside = {m.group.id: [ref.id for ref in m.members] for m in PEOPLE if isinstance(m, Members)}
        for who in people:
            if who["id"] in inside:
                who["members"] = inside[who["id"]]
        write(sources / "corp.json", {"principals": people})
        for name, made in (("aws", rows(0)), ("slow", held_rows(0))):
            write(sources / f"{name}.json", {"resources": [{"id": r.id, "tags": dict(r.tags)} for r in made]})
        document = json.loads(json.dumps(publisher.DOCUMENT))
        for source in (*document["directories"], *document["integrations"]):
            source |= {"path": str(sources / f"{source['name']}.json"), "interval": 3600}
        self._config.write_text(toml({"daemon": {"state_directory": str(self.state)}, **document}))
        self.socket = self.state / "ownerd.sock"
        control = self.state / "control.sock"
        self.writer: Writer = (
            PollWriter(self._config, sources, control, self.log) if real else PipelineWriter(self.state)
        )
        self._asking = True
        self._clients = [threading.Thread(target=self._ask, args=(n,)) for n in range(2)]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.writer.start()
        until(self.writer.told.ready.is_set)
        until(lambda: self.writer.told.confirmed)
        self._serve()
        for client in self._clients:
            client.start()
        try:
            yield
        finally:
            self._asking = False
            for client in self._clients:
                client.join()
            self.server.stop(signal.SIGKILL)
            self.writer.kill()

    def _serve(self) -> None:
        self.server = Daemon("serve", self._config, self.log)
        until(lambda: answers(self.socket))

    def _ask(self, number: int) -> None:
        """Ask for all of a generation at once, and for single rows, without pause."""
        rng = random.Random(number)
        while self._asking:
            published, confirmed = self.writer.told.published, self.writer.told.confirmed
            try:
                batch = call(self.socket, "POST", "/v1/owners", {"resources": [*KEYS, *HELD_KEYS]})
                one = get(self.socket, "/v1/owner", resource=rng.choice(KEYS))
            except (OSError, http.client.HTTPException):
                time.sleep(0.005)  # the server was killed
                continue
            if (batch.status, one.status) != (200, 200):
                self.tally.wrong += 1
                continue
            told = [answer.get("owners", [{}])[0].get("name") for answer in batch.json["answers"]]
            self.tally.lookups += len(told) + 1
            self.judge(told[:ROWS], told[ROWS:], published, confirmed)
            self.tally.wrong += behind(one.json["owners"][0]["name"], published)

    def judge(self, told: list[Any], held: list[Any], published: int, confirmed: int) -> None:
        """Count what cannot be: owners of two generations, or of one before what had been acknowledged."""
        self.tally.torn += len(set(told)) != 1 or len(set(held)) != 1
        self.tally.published_lost += any(behind(name, published) for name in set(told))
        self.tally.confirmations_lost += any(behind(name, confirmed) for name in set(held))

    def look(self) -> None:
        """Judge the files that a killed writer has left, before anything else writes there."""
        with contextlib.closing(sqlite3.connect(f"file:{self.state}/ownerd.db?mode=ro", uri=True)) as db:
            owners = dict(db.execute("SELECT resource, owners FROM owners").fetchall())
            (checked,) = db.execute("PRAGMA integrity_check").fetchone()
        names = {
            key: json.loads(told)[0].removeprefix("corp/group:[").removesuffix("]") for key, told in owners.items()
        }
        told = self.writer.told
        self.judge([names[k] for k in KEYS], [names[k] for k in HELD_KEYS], told.published, told.confirmed)
        self.tally.damaged += checked != "ok" or any(self.state.glob("*.damaged-*"))

    def kill(self, rng: random.Random) -> None:
        """Kill the writer at a random moment, mostly of its work, sometimes of its start; now and then the server."""
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0.0, 0.6))
        else:
            until(self.writer.told.ready.is_set)
            time.sleep(rng.uniform(0.0, self.writer.span))
        both = rng.random() < 0.15
        if both:
            os.kill(self.server.pid, signal.SIGKILL)
            self.tally.kills_of_the_server += 1
        self.writer.kill()
        self.tally.kills += 1
        self.look()
        if both:
            self.server.process.wait(PATIENCE)
            self._serve()
        self.writer.start()


def behind(name: Any, acknowledged: int) -> bool:
    """Whether an owner is of a generation before the one that was acknowledged; generations ahead are under way."""
    ahead = [owner_of(acknowledged + n) for n in range(TEAMS // 2)]
    return name not in ahead


def run(folder: Path, kills: int, seed: int, *, real: bool) -> Tally:
    """Kill that many times; what was found."""
    rng = random.Random(seed)
    site = Site(folder, real=real)
    try:
        with site.running():
            while site.tally.kills < kills:
                site.kill(rng)
            until(site.writer.told.ready.is_set)
    except AssertionError as error:
        error.add_note(site.log.read_text()[-4000:])
        raise
    site.tally.published = site.writer.told.published
    site.tally.confirmed = site.writer.told.confirmed
    return site.tally


def main() -> int:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    found = {}
    for name, real, number in (("pipeline", False, kills), ("ownerd poll", True, max(1, kills // 6))):
        with tempfile.TemporaryDirectory() as folder:
            found[name] = run(Path(folder), number, seed, real=real)
    print(f"{'seed ' + str(seed):24}" + "".join(f"{name:>14}" for name in found))
    for key in vars(next(iter(found.values()))):
        print(f"{key.replace('_', ' '):24}" + "".join(f"{getattr(tally, key):14}" for tally in found.values()))
    return int(any(tally.bad for tally in found.values()))


if __name__ == "__main__":
    sys.exit(main())
