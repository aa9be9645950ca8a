"""The world that is measured: an estate, a directory that owns it, and the database that ownerd makes of both.

Its files are real: `ownerd poll` reads the same rows from them as the spools that are written here hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from config.settings import Settings, load_settings
from connectors.values import Bookmark, Change, Kind, Left, Members, Principal, Ref, Resource
from daemon.pipeline import Report, Store
from daemon.spool import SpoolWriter
from tests.benchmarks.watch import Watch
from tests.processes import toml

ESTATE, CORP = "estate", "corp"
ARN = "arn:aws:ec2:us-east-1:111122223333:instance/i-"
"""What all ids begin with. Twelve digits follow: what redis-benchmark puts for `__rand_int__`."""
_ACCOUNT = "arn:aws:iam::111122223333:root"
_SHUFFLE = 2_654_435_761
"""A prime. Resources come in no order of their ids, as from a cloud."""
_CHUNK = 10_000
_PER_FILE = 100_000


def rid(number: int) -> str:
    """The id of a resource."""
    return f"{ARN}{number:012d}"


@dataclass(frozen=True)
class Size:
    """How much there is. A twentieth as many groups as resources, half as many memberships, a tenth as many users."""

    resources: int

    @property
    def groups(self) -> int:
        return max(2, self.resources // 20)

    @property
    def memberships(self) -> int:
        return self.resources // 2

    @property
    def users(self) -> int:
        return max(10, self.resources // 10)

    @property
    def dependents(self) -> int:
        """Resources that belong to the first group."""
        return min(1000, self.resources // 20)

    def resource(self, number: int, revision: int = 0) -> Resource:
        """One of ten has no owner tag, one of twenty a tag that names nobody. Another revision has another name."""
        name = f"thing-{number}" if not revision else f"thing-{number}-{revision}"
        tags = {"Name": name, "cost-center": str(4000 + number % 97), "env": ("prod", "test", "dev")[number % 3]}
        if number % (self.resources // self.dependents) == 3:
            tags["owner"] = "team-0"
        elif number % 20 == 1:
            tags["owner"] = f"nobody-{number % 1000}"
        elif number % 10:
            tags["owner"] = f"team-{1 + number % (self.groups - 1)}"
        return Resource(rid(number), "ec2:instance", name, _ACCOUNT, tags)

    def estate(self, revision: int = 0, begin: int = 0, end: int | None = None) -> Iterator[list[Resource]]:
        """Resources, from the `begin`th that comes to the `end`th, in lists."""
        end = self.resources if end is None else end
        for start in range(begin, end, _CHUNK):
            numbers = range(start, min(start + _CHUNK, end))
            yield [self.resource(n * _SHUFFLE % self.resources, revision) for n in numbers]

    def directory(self) -> Iterator[list[Change]]:
        """Users, groups and their members, in lists."""
        each = self.memberships // self.groups
        for start in range(0, self.users, _CHUNK):
            numbers = range(start, min(start + _CHUNK, self.users))
            yield [Principal(Kind.USER, f"u{n}", f"User {n}", f"user{n}@acme.example") for n in numbers]
        for start in range(0, self.groups, _CHUNK):
            found: list[Change] = []
            for n in range(start, min(start + _CHUNK, self.groups)):
                who = dict.fromkeys(Ref(Kind.USER, f"u{(n * 31 + m * 7919) % self.users}") for m in range(each))
                found += [Principal(Kind.GROUP, f"g{n}", f"Team {n}"), Members(Ref(Kind.GROUP, f"g{n}"), tuple(who))]
            yield found
        yield [Principal(Kind.GROUP, "platform", "platform"),
               Members(Ref(Kind.GROUP, "platform"), (Ref(Kind.USER, "u1"),))]  # fmt: skip

    def first_group(self, *, empty: bool) -> list[Change]:
        """The change that empties the first group, or fills it again: its resources change their owner."""
        group = Ref(Kind.GROUP, "g0")
        back = [] if empty else [Members(group, (Ref(Kind.USER, "u0"),))]
        return [Principal(Kind.GROUP, "g0", "Team 0"), Left(group), *back]


@dataclass(slots=True)
class Took:
    """A sync's time, all but fetching."""

    spool: Watch = field(default_factory=Watch)
    publish: Watch = field(default_factory=Watch)

    @property
    def whole(self) -> float:
        """Seconds."""
        return self.spool.seconds + self.publish.seconds

    @property
    def cpu(self) -> float:
        """Seconds of processor time."""
        return self.spool.cpu + self.publish.cpu


class World:
    """A state directory, and the sources that fill it."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        self.state = folder / "state"
        self.socket = self.state / "ownerd.sock"
        self.database = self.state / "ownerd.db"
        self.config = folder / "ownerd.toml"
        self.config.write_text(toml(self._document()))
        self.settings: Settings = load_settings(self.config)
        self.first = Took()
        """The first sync of the estate; of the directory, `corp`."""
        self.corp = Took()
        self._spools = 0
        self._bookmark = 0

    def with_workers(self, workers: int) -> tuple[Path, Path]:
        """A configuration for several servers on this database, and their socket."""
        folder, document = self.folder / f"workers-{workers}", self._document()
        folder.mkdir(exist_ok=True)
        document["daemon"] |= {"workers": workers, "runtime_directory": str(folder)}
        config = folder / "ownerd.toml"
        config.write_text(toml(document))
        return config, folder / "ownerd.sock"

    def _document(self) -> dict[str, Any]:
        fallback = {"directory": CORP, "attribute": "group.name", "values": ["platform"]}
        more = {"connector": "file", "interval": "1h"}
        return {
            "daemon": {"state_directory": str(self.state), "log_format": "json"},
            "directories": [{"name": CORP, "path": str(self.folder / "corp.json"), **more}],
            "integrations": [
                {
                    "name": ESTATE,
                    "path": str(self.folder / "estate-*.json"),
                    **more,
                    "resource_owner": [{"key": "owner", "directory": CORP, "attribute": "group.name"}],
                    "integration_owner": [fallback],
                }
            ],
        }

    # --- files ------------------------------------------------------------------------------------------------------

    def _scopes(self) -> Iterator[tuple[str, int, int]]:
        """The files of the estate, each with what it holds: the `file` connector takes each for a scope."""
        for number, start in enumerate(range(0, self.size.resources, _PER_FILE)):
            name = str(self.folder / f"estate-{number:03d}.json")
            yield name, start, min(start + _PER_FILE, self.size.resources)

    def write_files(self) -> None:
        """What `ownerd poll` is to read."""
        for name, start, end in self._scopes():
            rows = [_plain(r) for chunk in self.size.estate(begin=start, end=end) for r in chunk]
            Path(name).write_bytes(orjson.dumps({"resources": rows}))
        principals: dict[Ref, dict[str, Any]] = {}
        for record in (r for chunk in self.size.directory() for r in chunk):
            if isinstance(record, Principal):
                row = {"kind": record.kind, "id": record.id, "name": record.name, "email": record.email}
                principals[record.ref] = row
            elif isinstance(record, Members):
                principals[record.group]["members"] = [m.id for m in record.members]
        Path(self.folder, "corp.json").write_bytes(orjson.dumps({"principals": list(principals.values())}))

    # --- syncs ------------------------------------------------------------------------------------------------------

    def open_store(self) -> Store:
        """The one writer. To be closed before `ownerd poll` may write."""
        store = Store(self.state)
        store.configure(self.settings)
        return store

    def build(self, store: Store) -> None:
        """The directory, then the estate, for the first time."""
        self.corp = self.sync_directory(store)
        self.first = self.sync_estate(store)[0]

    def sync_estate(self, store: Store, revision: int = 0) -> tuple[Took, Report]:
        """Spool and publish all resources. What makes them, in place of fetching them, is not in the time."""
        took = Took()
        return took, self._publish(store, ESTATE, self.spool_estate(store, revision, took.spool), took)

    def spool_estate(self, store: Store, revision: int, watch: Watch | None = None) -> Path:
        """Only the spool, as a child writes it; `watch` runs meanwhile."""
        watch, known = watch or Watch(), store.known(ESTATE)
        with watch:
            writer = SpoolWriter(spool := self._spool(), known=known)
        for name, start, end in self._scopes():
            with writer.scope(name) as scope:
                for chunk in self.size.estate(revision, start, end):
                    with watch:
                        for record in chunk:
                            scope.add(record)
        with watch:
            writer.finish([str(k) for k in Kind])
        return spool

    def sync_directory(self, store: Store) -> Took:
        """Spool and publish the whole directory."""
        return self._sync_corp(store, self.size.directory(), None)

    def change_first_group(self, store: Store, *, empty: bool) -> Took:
        """Spool and publish one group's change, as a directory that tells changes would give it."""
        return self._sync_corp(store, [self.size.first_group(empty=empty)], str(self._bookmark))

    def _sync_corp(self, store: Store, chunks: Iterable[list[Change]], since: str | None) -> Took:
        took = Took()
        self._bookmark += 1
        with took.spool:
            writer = SpoolWriter(spool := self._spool())
        with writer.scope(str(self.folder / "corp.json"), since=since) as scope:
            for chunk in chunks:
                with took.spool:
                    for record in chunk:
                        scope.add(record)
            scope.add(Bookmark(str(self._bookmark)))
        with took.spool:
            writer.finish([str(k) for k in Kind])
        self._publish(store, CORP, spool, took)
        return took

    def _publish(self, store: Store, name: str, spool: Path, took: Took) -> Report:
        with took.publish:
            report = store.run(name, spool)
        with suppress(FileNotFoundError):
            spool.unlink()
        assert report.state == "ok", report
        return report

    def _spool(self) -> Path:
        self._spools += 1
        (self.state / "spool").mkdir(parents=True, exist_ok=True)
        return self.state / "spool" / f"bench-{self._spools}.db"


def _plain(it: Resource) -> dict[str, Any]:
    return {"id": it.id, "type": it.type, "name": it.name, "parent": it.parent, "tags": it.tags}
