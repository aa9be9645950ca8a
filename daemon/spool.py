"""The spool: where a run's child process puts what it reads, and the poller merges from.

A SQLite file of its own, so that pages go straight to disk, doubles are seen, and the merge is a join.
Thrown away after the merge; written without a journal, since a child that dies leaves nothing of worth.

What has a content (resources, principals) is written in the order in which it comes, and indexed once at the end: in
the order of their keys a million rows would cost three times as much. Not even that is done where the run has found
just what the last one did (`daemon.fingerprint`); whoever wants the rows nevertheless completes it.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from connectors.errors import BadData
from connectors.values import Bookmark, Change, Gap, Gone, Kind, Left, Members, Principal, Resource, Shift
from daemon.described import SHARE_OF_ROOM, describe
from daemon.fingerprint import Known, RowProduct, fingerprint
from daemon.matching import resource_key
from daemon.redact import redact
from daemon.spool_rows import DIGEST, pid_of, principal_row, resource_row, well_formed

BATCH = 1000

_SCHEMA = """
CREATE TABLE run (
  finished REAL, error TEXT, kinds TEXT NOT NULL, base TEXT NOT NULL, fingerprint TEXT,
  complete INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE scope (
  no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, started REAL NOT NULL, state TEXT NOT NULL, rows INTEGER NOT NULL,
  error TEXT, since TEXT, bookmark TEXT, gaps TEXT NOT NULL, holds TEXT NOT NULL, kept INTEGER NOT NULL DEFAULT 0,
  kept_members INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE resource (
  key TEXT, rid TEXT, type TEXT, name TEXT, parent TEXT, parent_key TEXT, tags TEXT, hash BLOB, scope_no INTEGER
);
CREATE TABLE principal (
  pid TEXT, kind TEXT, external_id TEXT, name TEXT, email TEXT, active INTEGER, manager TEXT, aliases TEXT,
  attributes TEXT, hash BLOB, scope_no INTEGER
);
CREATE TABLE member (
  group_pid TEXT, member_pid TEXT, scope_no INTEGER, PRIMARY KEY (group_pid, member_pid, scope_no)
) WITHOUT ROWID;
CREATE TABLE shift (
  schedule_pid TEXT, member_pid TEXT, start REAL, until REAL, scope_no INTEGER,
  PRIMARY KEY (schedule_pid, member_pid, start, until, scope_no)
) WITHOUT ROWID;
CREATE TABLE gone (key TEXT, scope_no INTEGER, PRIMARY KEY (key, scope_no)) WITHOUT ROWID;
CREATE TABLE gone_member (
  group_pid TEXT, member_pid TEXT, scope_no INTEGER, PRIMARY KEY (group_pid, member_pid, scope_no)
) WITHOUT ROWID;
CREATE TABLE emptied (group_pid TEXT, scope_no INTEGER, PRIMARY KEY (group_pid, scope_no)) WITHOUT ROWID;
"""
_VERSION = 3
"""Of the tables, in `PRAGMA user_version`: a held snapshot may be older than this program."""
_TABLES = ("resource", "principal", "member", "shift", "gone", "gone_member", "emptied")
_IDENTIFIED = {"resource": "key", "principal": "pid"}
"""The tables whose rows have a content, and the column that says of what. One row a key, when the run has ended."""


_LEAST_ROOM = 64 * 2**20


class SpoolWriter:
    """Writes one run. Scopes may be open side by side; one thread writes them all."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, known: Known | None = None) -> None:
        """`known`: of an integration, what its run is compared with."""
        self._clock = clock
        self._known = known
        self._held: dict[str, tuple[int, str] | None] = {}
        """By scope that was begun, what it holds; None while or since that cannot be told by its rows alone."""
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        room = max(_LEAST_ROOM, int(shutil.disk_usage(path.parent).free * SHARE_OF_ROOM))
        self._db.execute(f"PRAGMA max_page_count = {room // self._db.execute('PRAGMA page_size').fetchone()[0]}")
        self._db.executescript(_SCHEMA)
        self._db.execute(f"PRAGMA user_version = {_VERSION:d}")
        self._db.execute("BEGIN")
        self._scopes = 0

    def open(self, name: str, *, since: str | None = None, holds: Iterable[Kind] = Kind) -> ScopeWriter:
        """Begin a scope that is read whole or, with `since`, of which the changes after that bookmark are read.

        `holds`: the kinds of principal that it may hold.
        """
        name = well_formed(name)
        self._scopes += 1
        self._db.execute(
            "INSERT INTO scope VALUES (?, ?, ?, 'reading', 0, NULL, ?, NULL, '[]', ?, 0, 0)",
            (self._scopes, name, self._clock(), since, orjson.dumps(sorted(map(str, holds))).decode()),
        )
        self._held[name] = None
        if self._known is None:
            return ScopeWriter(self._db, self._scopes, changes=since is not None)

        def ended(held: tuple[int, str] | None) -> None:
            self._held[name] = held

        return ScopeWriter(
            self._db, self._scopes, changes=since is not None, product=RowProduct(self._known.secret), ended=ended
        )

    @contextmanager
    def scope(self, name: str, *, since: str | None = None, holds: Iterable[Kind] = Kind) -> Iterator[ScopeWriter]:
        """Read one scope inside this; an exception fails the scope and goes on up."""
        scope = self.open(name, since=since, holds=holds)
        try:
            yield scope
            scope.end()
        except Exception as error:
            scope.fail(error)
            raise

    def finish(self, kinds: Iterable[str], error: BaseException | None = None, *, base: str = "") -> dict[str, Any]:
        """End the run; the scopes that it fails, since they contradict others, each with its error.

        `kinds` are those that were asked for; `error` is why the scopes could not be named; `base` tells for what
        configuration the bookmarks are good.
        """
        told = None if error is None else orjson.dumps(describe(error)).decode()
        found = None if error is not None else self._fingerprint()
        same = found is not None and self._known is not None and found == self._known.fingerprint
        self._db.execute(
            "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)",
            (self._clock(), told, orjson.dumps(sorted(kinds)).decode(), base, found, not same),
        )
        contradicted = {} if same else _complete(self._db)
        self._db.execute("COMMIT")
        self._db.close()
        return contradicted

    def _fingerprint(self) -> str | None:
        scopes = {name: held for name, held in self._held.items() if held is not None}
        return fingerprint(scopes) if self._known is not None and len(scopes) == len(self._held) else None


def complete(path: Path) -> None:
    """Index and reconcile a spool whose run found just what was known, if that is not known any more."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        if not db.execute("SELECT complete FROM run").fetchone()[0]:
            _complete(db)
            db.execute("UPDATE run SET complete = 1")
        db.execute("COMMIT")


def _complete(db: sqlite3.Connection) -> dict[str, Any]:
    index(db)
    failed = _reconcile(db)
    count_kept(db)
    return failed


def _reconcile(db: sqlite3.Connection) -> dict[str, Any]:
    """An object that is listed twice is one object, the first one's, if both say the same of it.

    If not, either may be wrong: its scope fails; of two scopes, the later.
    """
    failed: dict[str, Any] = {}
    for table, key in _IDENTIFIED.items():
        db.execute(f"CREATE TEMP TABLE twice AS SELECT {key} AS key FROM {table} GROUP BY {key} HAVING count(*) > 1")
        doubles = (
            f"FROM temp.twice t CROSS JOIN {table} later ON later.{key} = t.key CROSS JOIN {table} first"
            f" ON first.{key} = t.key AND (first.scope_no, first.rowid) < (later.scope_no, later.rowid)"
        )
        while row := db.execute(
            f"SELECT later.scope_no, t.key {doubles} AND first.hash != later.hash ORDER BY 1, 2 LIMIT 1"
        ).fetchone():
            error = _contradiction(row[1])
            ScopeWriter(db, row[0], changes=False).fail(error)
            name = db.execute("SELECT name FROM scope WHERE no = ?", (row[0],)).fetchone()[0]
            failed[name] = describe(error)
        db.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT later.rowid {doubles})")
        db.execute("DROP TABLE temp.twice")
    if db.execute("SELECT count(*) > 1 FROM scope").fetchone()[0]:
        db.execute(
            "DELETE FROM member WHERE EXISTS (SELECT 1 FROM member first WHERE first.group_pid = member.group_pid"
            " AND first.member_pid = member.member_pid AND first.scope_no < member.scope_no)"
        )
    return failed


def index(db: sqlite3.Connection) -> None:
    """Index what has a content, if it is not yet. With its hash: the merge compares by the index alone."""
    for table, key in _IDENTIFIED.items():
        db.execute(f"CREATE INDEX IF NOT EXISTS {table}_key ON {table} ({key}, scope_no, hash)")


def count_kept(db: sqlite3.Connection) -> None:
    """Record how many resources or principals, and memberships, of each scope are in the spool when all is told."""
    for table, column in (("resource", "kept"), ("principal", "kept"), ("member", "kept_members")):
        found = db.execute(f"SELECT count(*), scope_no FROM {table} GROUP BY scope_no").fetchall()
        db.executemany(f"UPDATE scope SET {column} = {column} + ? WHERE no = ?", found)


def bring_up_to_date(path: Path) -> None:
    """Give a snapshot that an earlier ownerd has held the tables of this one."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version >= _VERSION:
            return
        db.execute("BEGIN IMMEDIATE")
        if version < 2:
            for column in ("kept", "kept_members"):
                db.execute(f"ALTER TABLE scope ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
            for table in _IDENTIFIED:
                db.execute(f"CREATE TABLE later AS SELECT * FROM {table}")
                db.execute(f"DROP TABLE {table}")
                db.execute(f"ALTER TABLE later RENAME TO {table}")
            index(db)
            count_kept(db)
        db.execute("ALTER TABLE run ADD COLUMN fingerprint TEXT")
        db.execute("ALTER TABLE run ADD COLUMN complete INTEGER NOT NULL DEFAULT 1")
        db.execute(f"PRAGMA user_version = {_VERSION:d}")
        db.execute("COMMIT")


class ScopeWriter:
    """Writes one scope. End it with `end` or `fail`; what a failed scope had yielded is taken out again."""

    def __init__(
        self,
        db: sqlite3.Connection,
        number: int,
        *,
        changes: bool,
        product: RowProduct | None = None,
        ended: Callable[[tuple[int, str] | None], None] = lambda _held: None,
    ) -> None:
        """`ended` is told what an integration's scope holds, by its `product`; None if that cannot be told."""
        self._db = db
        self._product = None if changes else product
        self._ended = ended
        self._number = number
        self._changes = changes
        self._first: dict[str, int] = {}
        """By table whose rows have numbers, the number from which this scope's are."""
        self._rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _TABLES}
        self._gaps: list[dict[str, str]] = []
        self._bookmark: str | None = None
        self.count = 0
        """Resources, principals, and what is gone."""

    def restart(self) -> None:
        """Forget what came so far: the scope is read whole after all."""
        self._empty()
        self._changes = False
        self._product = None
        self._gaps, self._bookmark, self.count = [], None, 0
        self._db.execute("UPDATE scope SET since = NULL WHERE no = ?", (self._number,))

    def end(self) -> None:
        """The scope was read to its end. Whether it contradicts itself is seen when the run ends."""
        for table in self._rows:
            self._flush(table)
        self._ended(None if self._product is None else self._product.told())
        self._close("changes" if self._changes else "whole", None)

    def fail(self, error: BaseException) -> None:
        """The scope could not be read."""
        self._bookmark = None
        self._ended(None)
        with suppress(sqlite3.Error):  # a disk that is full fails here too, and the run with it
            self._empty()
        self._close("failed", orjson.dumps(describe(error)).decode())

    def _empty(self) -> None:
        for table, rows in self._rows.items():
            rows.clear()
            numbered = "rowid >= ? AND" if table in _IDENTIFIED else "? = 0 AND"
            self._db.execute(
                f"DELETE FROM {table} WHERE {numbered} scope_no = ?", (self._first.pop(table, 0), self._number)
            )

    def _close(self, state: str, error: str | None) -> None:
        self._db.execute(
            "UPDATE scope SET state = ?, rows = ?, error = ?, bookmark = ?, gaps = ? WHERE no = ?",
            (state, self.count, error, self._bookmark, orjson.dumps(self._gaps).decode(), self._number),
        )

    def add(self, record: Change) -> None:
        """Take one record in. BadData if its tags cannot be told apart."""
        match record:
            case Resource():
                self._put("resource", resource_row(record, self._number))
                self.count += 1
            case Principal():
                self._put("principal", principal_row(record, self._number))
                self.count += 1
            case Members():
                group = well_formed(pid_of(record.group))
                for member in record.members:
                    self._put("member", (group, well_formed(pid_of(member)), self._number))
            case Shift():
                who = (well_formed(pid_of(record.schedule)), well_formed(pid_of(record.member)))
                self._put("shift", (*who, float(record.start), float(record.end), self._number))
            case Gap():
                gap = {"code": record.code, "message": redact(well_formed(record.message)), "remedy": record.remedy}
                if gap not in self._gaps:
                    self._gaps.append(gap)
            case Bookmark():
                self._bookmark = record.token
            case Gone() | Left():
                if not self._changes:
                    msg = f"{type(record).__name__} outside of changes"
                    raise TypeError(msg)
                self._take_away(record)

    def _take_away(self, record: Gone | Left) -> None:
        no = self._number
        match record:
            case Gone(what):
                index(self._db)
                table, column = ("resource", "key") if isinstance(what, str) else ("principal", "pid")
                key = resource_key(well_formed(what)) if isinstance(what, str) else well_formed(pid_of(what))
                self._db.execute(f"DELETE FROM {table} WHERE {column} = ? AND scope_no = ?", (key, no))
                self._db.execute("INSERT OR IGNORE INTO gone VALUES (?, ?)", (key, no))
                self.count += 1
            case Left(group, None):
                key = well_formed(pid_of(group))
                self._db.execute("INSERT OR IGNORE INTO emptied VALUES (?, ?)", (key, no))
                for table, column in (("member", "group_pid"), ("gone_member", "group_pid"), ("shift", "schedule_pid")):
                    self._db.execute(f"DELETE FROM {table} WHERE {column} = ? AND scope_no = ?", (key, no))
            case Left(group, members) if members is not None:
                key = well_formed(pid_of(group))
                for one in members:
                    row = (key, well_formed(pid_of(one)), no)
                    self._db.execute("DELETE FROM member WHERE group_pid = ? AND member_pid = ? AND scope_no = ?", row)
                    self._db.execute("INSERT OR IGNORE INTO gone_member VALUES (?, ?, ?)", row)

    def _put(self, table: str, row: tuple[Any, ...]) -> None:
        if self._changes:  # in order, the later overrides the earlier; there are few
            self._override(table, row)
            return
        rows = self._rows[table]
        rows.append(row)
        if len(rows) >= BATCH:
            self._flush(table)

    def _override(self, table: str, row: tuple[Any, ...]) -> None:
        places = ", ".join("?" * len(row))
        if table in _IDENTIFIED:
            index(self._db)
            where = f"{_IDENTIFIED[table]} = ? AND scope_no = ?"
            self._db.execute(f"DELETE FROM {table} WHERE {where}", (row[0], self._number))
            self._db.execute("DELETE FROM gone WHERE key = ? AND scope_no = ?", (row[0], self._number))
        elif table == "member":
            self._db.execute("DELETE FROM gone_member WHERE group_pid = ? AND member_pid = ? AND scope_no = ?", row)
        self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", row)

    def _flush(self, table: str) -> None:
        rows = self._rows[table]
        if not rows:
            return
        if table in _IDENTIFIED and table not in self._first:
            last = self._db.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()[0]
            self._first[table] = last + 1
        places = ", ".join("?" * len(rows[0]))
        self._db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", rows)
        if self._product is not None:
            if table == "resource":
                self._product.take([row[DIGEST] for row in rows])
            else:
                self._product = None
        rows.clear()


def _contradiction(what: str) -> BadData:
    return BadData(
        f'"{what}" was listed twice with different content',
        remedy="if it changed while it was read, the next run is right; else the source contradicts itself",
    )
