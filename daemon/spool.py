"""The spool: where a run's child process puts what it reads, and the poller merges from.

A SQLite file of its own, so that pages go straight to disk, doubles are seen at once, and the merge is a join.
Thrown away after the merge; written without a journal, since a child that dies leaves nothing of worth.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from connectors.errors import BadData, ConnectorError, Throttled
from connectors.values import Members, Principal, Record, Ref, Resource
from daemon.matching import resource_key

BATCH = 1000

_SCHEMA = """
CREATE TABLE run (finished REAL, error TEXT, kinds TEXT NOT NULL);
CREATE TABLE scope (
  no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, started REAL NOT NULL, state TEXT NOT NULL, rows INTEGER,
  error TEXT
);
CREATE TABLE resource (
  key TEXT PRIMARY KEY, rid TEXT, type TEXT, name TEXT, parent TEXT, parent_key TEXT, tags TEXT, hash BLOB,
  scope_no INTEGER
) WITHOUT ROWID;
CREATE TABLE principal (
  pid TEXT PRIMARY KEY, kind TEXT, external_id TEXT, name TEXT, email TEXT, active INTEGER, manager TEXT, aliases TEXT,
  attributes TEXT, hash BLOB, scope_no INTEGER
) WITHOUT ROWID;
CREATE TABLE member (
  group_pid TEXT, member_pid TEXT, scope_no INTEGER, PRIMARY KEY (group_pid, member_pid)
) WITHOUT ROWID;
"""


def pid_of(ref: Ref) -> str:
    """A principal's key inside its directory."""
    return f"{ref.kind}:{ref.id}"


def well_formed(text: str) -> str:
    """Text that can be stored as UTF-8: a lone surrogate (JSON can carry one) becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def describe(error: BaseException) -> dict[str, Any]:
    """An error as the store and the logs keep it. What is not ours is named by its type."""
    if isinstance(error, ConnectorError):
        told = {"code": error.code, "message": error.message, "remedy": error.remedy}
        if isinstance(error, Throttled) and error.retry_after is not None:
            return {**told, "retry_after": error.retry_after}
        return told
    if isinstance(error, sqlite3.Error | OSError):
        remedy = "the state directory needs room for what a run reads" if "full" in str(error) else ""
        return {"code": "spool", "message": f"what was read could not be stored: {error}", "remedy": remedy}
    return {"code": "unexpected", "message": f"{type(error).__name__}: {error}", "remedy": ""}


class SpoolWriter:
    """Writes one run. `scope()` brackets each scope; what a failed scope had yielded is taken out again."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")
        self._scope = 0
        self._rows: dict[str, list[tuple[Any, ...]]] = {"resource": [], "principal": [], "member": []}
        self.count = 0
        """Resources or principals of the scope that is being read."""

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Read one scope inside this; a `ConnectorError` or any other exception fails the scope and goes on up."""
        self._scope += 1
        self.count = 0
        self._db.execute(
            "INSERT INTO scope VALUES (?, ?, ?, 'reading', 0, NULL)", (self._scope, well_formed(name), self._clock())
        )
        try:
            yield
            for table in self._rows:
                self._flush(table)
        except Exception as error:
            for table, rows in self._rows.items():
                rows.clear()
                if not isinstance(error, sqlite3.Error):
                    self._db.execute(f"DELETE FROM {table} WHERE scope_no = ?", (self._scope,))
            self._end_scope("failed", orjson.dumps(describe(error)).decode())
            raise
        self._end_scope("whole", None)

    def _end_scope(self, state: str, error: str | None) -> None:
        self._db.execute(
            "UPDATE scope SET state = ?, rows = ?, error = ? WHERE no = ?", (state, self.count, error, self._scope)
        )

    def finish(self, kinds: Iterable[str], error: BaseException | None = None) -> None:
        """End the run. `kinds` are those that were asked for; `error` is why the scopes could not be named."""
        told = None if error is None else orjson.dumps(describe(error)).decode()
        self._db.execute(
            "INSERT INTO run VALUES (?, ?, ?)", (self._clock(), told, orjson.dumps(sorted(kinds)).decode())
        )
        self._db.execute("COMMIT")
        self._db.close()

    def add(self, record: Record) -> None:
        """Take one record in. BadData if its id came before with other content."""
        match record:
            case Resource():
                self._put("resource", _resource_row(record, self._scope))
                self.count += 1
            case Principal():
                self._put("principal", _principal_row(record, self._scope))
                self.count += 1
            case Members():
                group = well_formed(pid_of(record.group))
                for member in record.members:
                    self._put("member", (group, well_formed(pid_of(member)), self._scope))

    def _put(self, table: str, row: tuple[Any, ...]) -> None:
        rows = self._rows[table]
        rows.append(row)
        if len(rows) >= BATCH:
            self._flush(table)

    def _flush(self, table: str) -> None:
        rows = self._rows[table]
        if not rows:
            return
        places = ", ".join("?" * len(rows[0]))
        before = self._db.total_changes
        self._db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", rows)
        if table != "member" and self._db.total_changes - before < len(rows):
            self._refuse_contradictions(table, rows)
        rows.clear()

    def _refuse_contradictions(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """An object listed twice is one object, if both say the same. If not, either may be wrong."""
        key = "key" if table == "resource" else "pid"
        for row in rows:
            stored = self._db.execute(f"SELECT hash FROM {table} WHERE {key} = ?", (row[0],)).fetchone()
            if stored[0] != row[-2]:
                raise BadData(
                    f'"{row[0]}" was listed twice with different content',
                    remedy="if it changed while it was read, the next run is right; else the source contradicts itself",
                )


def _resource_row(it: Resource, scope: int) -> tuple[Any, ...]:
    parent = it.parent or None
    try:
        tags = orjson.dumps(dict(it.tags), option=orjson.OPT_SORT_KEYS)
        told = orjson.dumps((it.id, it.type, it.name, parent, it.tags), option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a lone surrogate
        return _resource_row(_mended(it), scope)
    digest = blake2b(told, digest_size=16).digest()
    parent_key = None if parent is None else resource_key(parent)
    return resource_key(it.id), it.id, it.type, it.name, parent, parent_key, tags.decode(), digest, scope


def _mended(it: Resource) -> Resource:
    tags: dict[str, str] = {}
    for key, value in it.tags.items():
        mended = well_formed(key)
        if mended in tags:
            raise BadData(
                f"{well_formed(it.id)}: two tag keys are the same once their malformed characters are replaced"
            )
        tags[mended] = well_formed(value)
    parent = None if it.parent is None else well_formed(it.parent)
    return Resource(well_formed(it.id), well_formed(it.type), well_formed(it.name), parent, tags)


def _principal_row(it: Principal, scope: int) -> tuple[Any, ...]:
    attributes = {
        well_formed(k): [well_formed(x) for x in v] if isinstance(v, list) else well_formed(v)
        for k, v in it.attributes.items()
    }
    email = None if it.email is None else well_formed(it.email)
    manager = None if it.manager is None else well_formed(it.manager)
    name, external = well_formed(it.name), well_formed(it.id)
    aliases = [well_formed(a) for a in it.aliases]
    told = orjson.dumps((name, email, it.active, manager, aliases, attributes), option=orjson.OPT_SORT_KEYS)
    digest = blake2b(told, digest_size=16).digest()
    return (
        well_formed(pid_of(it.ref)),
        str(it.kind),
        external,
        name,
        email,
        int(it.active),
        manager,
        orjson.dumps(aliases).decode(),
        orjson.dumps(attributes).decode(),
        digest,
        scope,
    )
