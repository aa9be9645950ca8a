"""Principals as the owner rule sees them, and the index of what values name them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

import orjson

from connectors.values import Kind
from daemon.matching import canonical
from daemon.rule import Candidate
from daemon.store.sources import synced_kinds

_CHUNK = 2000


class SqlDirectories:
    """`daemon.rule.Directories` over the database. Lives for one transaction: what it learns of sources it keeps."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        rows = db.execute("SELECT name, id FROM source WHERE role = 'directory'").fetchall()
        self.ids: dict[str, int] = dict(rows)
        self._synced: dict[str, frozenset[str]] = {}

    def synced(self, directory: str, kind: Kind) -> bool:
        """Whether the directory's principals of `kind` have been read whole at least once."""
        if directory not in self._synced:
            self._synced[directory] = synced_kinds(self._db, self.ids[directory])
        return kind in self._synced[directory]

    def candidates(self, directory: str, kind: Kind, field: str, value: str) -> Sequence[Candidate]:
        """Every principal of `kind` whose `field` equals `value` in canonical form, ordered by id."""
        rows = self._db.execute(
            "SELECT p.kind, p.external_id, p.name, p.active, p.alive, m.exact, p.manager, m.former FROM match m"
            " JOIN principal p ON p.directory_id = m.directory_id AND p.pid = m.pid"
            " WHERE m.directory_id = ? AND m.kind = ? AND m.field = ? AND m.canonical = ? ORDER BY m.pid, m.exact",
            (self.ids[directory], str(kind), field, canonical(value)),
        )
        return [_candidate(row) for row in rows]

    def user(self, directory: str, user_id: str) -> Candidate | None:
        """One user by id."""
        row = self._db.execute(
            "SELECT kind, external_id, name, active, alive, '', manager, 0 FROM principal"
            " WHERE directory_id = ? AND pid = ?",
            (self.ids[directory], f"{Kind.USER}:{user_id}"),
        ).fetchone()
        return _candidate(row) if row else None


def _candidate(row: tuple[str, str, str, int, int, str, str | None, int]) -> Candidate:
    kind, external_id, name, active, alive, exact, manager, former = row
    return Candidate(Kind(kind), external_id, name, bool(active), bool(alive), exact, manager, bool(former))


def used_fields(db: sqlite3.Connection, directory: int) -> list[tuple[str, str]]:
    """The (kind, field) pairs of a directory that values are matched against."""
    rules = db.execute("SELECT rules FROM source WHERE id = ?", (directory,)).fetchone()[0]
    return [(kind, field) for kind, field in orjson.loads(rules)]


def touch_terms(db: sqlite3.Connection, directory: int) -> None:
    """Mark every claim that depends on a value of a touched principal. Before and after `index_touched`."""
    db.execute(
        "INSERT OR IGNORE INTO temp.dirty_claim SELECT t.claim_id FROM temp.touched_pid x"
        " JOIN match m ON m.directory_id = ? AND m.pid = x.pid"
        " JOIN term t ON t.directory_id = m.directory_id AND t.kind = m.kind AND t.field = m.field"
        " AND t.canonical = m.canonical",
        (directory,),
    )


def touch_reports(db: sqlite3.Connection, directory: int) -> None:
    """A user's manager owns in his place: who reports to a touched user is touched too."""
    db.execute(
        "INSERT OR IGNORE INTO temp.touched_pid SELECT r.pid FROM temp.touched_pid x"
        " JOIN principal r ON r.directory_id = ? AND r.manager = substr(x.pid, 6) WHERE x.pid LIKE 'user:%'",
        (directory,),
    )


def touch_everything(db: sqlite3.Connection, directory: int) -> None:
    """Mark every claim that depends on the directory at all: it has been read for the first time."""
    db.execute("INSERT OR IGNORE INTO temp.dirty_claim SELECT claim_id FROM term WHERE directory_id = ?", (directory,))


def index_touched(db: sqlite3.Connection, directory: int) -> None:
    """Index what values name the touched principals now."""
    db.execute(
        "DELETE FROM match WHERE directory_id = ?"
        " AND pid IN (SELECT key FROM temp.changed UNION ALL SELECT key FROM temp.gone)",
        (directory,),
    )
    cursor = db.execute(
        "SELECT p.pid, p.kind, p.external_id, p.name, p.email, p.aliases, p.attributes FROM temp.changed c"
        " JOIN principal p ON p.directory_id = ? AND p.pid = c.key",
        (directory,),
    )
    _index(db, directory, cursor)
    _index_former(db, directory, "AND f.pid IN (SELECT key FROM temp.changed)")


def index_all(db: sqlite3.Connection, directory: int) -> None:
    """Index the whole directory anew: the fields that values are matched against have changed."""
    db.execute("DELETE FROM match WHERE directory_id = ?", (directory,))
    cursor = db.execute(
        "SELECT pid, kind, external_id, name, email, aliases, attributes FROM principal WHERE directory_id = ?",
        (directory,),
    )
    _index(db, directory, cursor)
    _index_former(db, directory)


def _index_former(db: sqlite3.Connection, directory: int, only: str = "") -> None:
    """Index what the principals were called before, after what they are called: that counts more."""
    used = set(used_fields(db, directory))
    rows = db.execute(
        f"SELECT p.kind, f.field, f.exact, f.pid FROM former f JOIN principal p ON p.directory_id = f.directory_id"
        f" AND p.pid = f.pid WHERE f.directory_id = ? {only}",
        (directory,),
    ).fetchall()
    db.executemany(
        "INSERT OR IGNORE INTO match VALUES (?, ?, ?, ?, ?, ?, 1)",
        [
            (directory, kind, field, canonical(exact.strip()), pid, exact.strip())
            for kind, field, exact, pid in rows
            if (kind, field) in used
        ],
    )


def _index(db: sqlite3.Connection, directory: int, cursor: sqlite3.Cursor) -> None:
    used = used_fields(db, directory)
    while rows := cursor.fetchmany(_CHUNK):
        db.executemany(
            "INSERT OR IGNORE INTO match VALUES (?, ?, ?, ?, ?, ?, 0)",
            [
                (directory, kind, field, canonical(exact), row[0], exact)
                for row in rows
                for kind, field in used
                if kind == row[1]
                for exact in _values(field, row)
                if exact.strip()
            ],
        )


def _values(field: str, row: tuple[str, str, str, str, str | None, str, str]) -> Iterable[str]:
    _, _, external_id, name, email, aliases, attributes = row
    match field:
        case "id":
            return (external_id,)
        case "name":
            return (name.strip(),)
        case "email":
            return [a.strip() for a in ([email] if email else []) + orjson.loads(aliases)]
        case _:
            found = orjson.loads(attributes).get(field, [])
            return [x.strip() for x in ([found] if isinstance(found, str) else found)]


def names(db: sqlite3.Connection, directory: int, kind: str, field: str) -> Iterator[tuple[str, str]]:
    """Every value that a tag could have held instead, with its canonical form, for "did you mean"."""
    yield from db.execute(
        "SELECT DISTINCT exact, canonical FROM match WHERE directory_id = ? AND kind = ? AND field = ? AND NOT former",
        (directory, kind, field),
    )
