"""The tables, and how they came to be.

Times are REAL seconds since the epoch. A principal's `pid` is `KIND:ID`. Ids of rows are our own integers, and
never leave the database.

    source ─┬─ scope                     what is polled, and how that fares
            ├─ resource ──► claim        integrations: a resource, and the tag that speaks for it (rule -1: none
            │                             does; rule -2: not a tag, but the integration owner)
            ├─ principal, member, match  directories: who there is, and what values name them
            └─ shift, former             directories: who is on call when, and names that count for a while yet
    claim ─┬─ term                       what values a claim depends on
           ├─ claim_finding ──► finding  drift
           └──► outcome ─► outcome_owner who owns, and why; few, and shared by many rows
    answer                               the table that is served: resource ──► outcome, with the answer's bytes
    copy, uncopied                       the file that has the same (`daemon.store.copied`), and what changed since
    change                               the feed
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlite_utils import Database, Migrations

from daemon.errors import DatabaseTooNew

migrations = Migrations("ownerd")


@migrations()
def m001_initial(db: Database) -> None:
    """The first schema."""
    for statement in _INITIAL.split(";\n"):
        if statement.strip():
            db.execute(statement)


@migrations()
def m002_incremental(db: Database) -> None:
    """Reading what changed; what a scope cannot show."""
    for column in ("whole_at REAL", "bookmark TEXT", "base TEXT", "gaps TEXT NOT NULL DEFAULT '[]'"):
        db.execute(f"ALTER TABLE scope ADD COLUMN {column}")
    # What was read before was read whole.
    db.execute("UPDATE scope SET whole_at = read_at")


@migrations()
def m003_time(db: Database) -> None:
    """What changes with time alone: who is on call, and how long a former name is known; which kinds a scope holds."""
    for statement in _TIME.split(";\n"):
        if statement.strip():
            db.execute(statement)


@migrations()
def m004_pending(db: Database) -> None:
    """Changes of tags that wait."""
    for column in ("pending_claim_id INTEGER", "pending_key TEXT", "pending_since REAL", "pending_until REAL"):
        db.execute(f"ALTER TABLE resource ADD COLUMN {column}")
    db.execute("CREATE INDEX resource_pending ON resource (pending_claim_id) WHERE pending_claim_id IS NOT NULL")
    db.execute("CREATE INDEX resource_waits ON resource (pending_until) WHERE pending_until IS NOT NULL")
    db.execute("ALTER TABLE source ADD COLUMN hold REAL NOT NULL DEFAULT 0")


@migrations()
def m005_on_call(db: Database) -> None:
    """Who is on call is found without a look at every membership."""
    db.execute("CREATE INDEX member_on_call ON member (directory_id, scope_id) WHERE on_call")


@migrations()
def m006_suggestions(db: Database) -> None:
    """Values for which nobody has looked yet what they could mean."""
    db.execute("CREATE INDEX finding_unsuggested ON finding (id) WHERE suggestions IS NULL AND resolved_at IS NULL")


@migrations()
def m007_fingerprint(db: Database) -> None:
    """What an integration held when it was merged last, in one text (`daemon.fingerprint`), and its secret."""
    for column in ("secret TEXT NOT NULL DEFAULT ''", "fingerprint TEXT"):
        db.execute(f"ALTER TABLE source ADD COLUMN {column}")


@migrations()
def m008_copy(db: Database) -> None:
    """The file that has a copy of the answers, and the keys that have changed since (`daemon.store.copied`)."""
    for statement in _COPY.split(";;\n"):
        db.execute(statement)


_COPY = """
CREATE TABLE copy (id INTEGER PRIMARY KEY CHECK (id = 1), file TEXT, rows INTEGER NOT NULL DEFAULT 0) STRICT;;
INSERT INTO copy (id) VALUES (1);;
CREATE TABLE uncopied (id INTEGER PRIMARY KEY, key TEXT NOT NULL) STRICT;;
CREATE TRIGGER answer_inserted AFTER INSERT ON answer WHEN (SELECT file FROM copy) IS NOT NULL
  BEGIN INSERT INTO uncopied (key) VALUES (new.key); END;;
CREATE TRIGGER answer_updated AFTER UPDATE ON answer WHEN (SELECT file FROM copy) IS NOT NULL
  BEGIN INSERT INTO uncopied (key) VALUES (new.key); END;;
CREATE TRIGGER answer_deleted AFTER DELETE ON answer WHEN (SELECT file FROM copy) IS NOT NULL
  BEGIN INSERT INTO uncopied (key) VALUES (old.key); END
"""
_TIME = """
ALTER TABLE scope ADD COLUMN holds TEXT NOT NULL DEFAULT '["group","role","schedule","user"]';
ALTER TABLE source ADD COLUMN rename_grace REAL NOT NULL DEFAULT 0;
ALTER TABLE source ADD COLUMN turned_at REAL;
ALTER TABLE member ADD COLUMN on_call INTEGER NOT NULL DEFAULT 0;
ALTER TABLE match ADD COLUMN former INTEGER NOT NULL DEFAULT 0;
ALTER TABLE claim ADD COLUMN schedules TEXT NOT NULL DEFAULT '[]';
CREATE TABLE shift (
  directory_id INTEGER NOT NULL,
  schedule_pid TEXT NOT NULL,
  member_pid TEXT NOT NULL,
  start REAL NOT NULL,
  until REAL NOT NULL,
  scope_id INTEGER NOT NULL,
  PRIMARY KEY (directory_id, schedule_pid, member_pid, start, until)
) STRICT, WITHOUT ROWID;
CREATE INDEX shift_scope ON shift (scope_id);
CREATE TABLE former (
  directory_id INTEGER NOT NULL,
  pid TEXT NOT NULL,
  field TEXT NOT NULL,
  exact TEXT NOT NULL,
  until REAL NOT NULL,
  PRIMARY KEY (directory_id, pid, field, exact)
) STRICT, WITHOUT ROWID;
CREATE TABLE freshness_3 (
  id INTEGER PRIMARY KEY,
  scope_id INTEGER NOT NULL,
  directories TEXT NOT NULL,
  schedules TEXT NOT NULL DEFAULT '[]',
  UNIQUE (scope_id, directories, schedules)
) STRICT;
INSERT INTO freshness_3 (id, scope_id, directories) SELECT id, scope_id, directories FROM freshness;
DROP TABLE freshness;
ALTER TABLE freshness_3 RENAME TO freshness;
"""
_INITIAL = """
CREATE TABLE source (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  role TEXT NOT NULL,
  connector TEXT NOT NULL,
  position INTEGER NOT NULL,
  interval REAL NOT NULL,
  stale_after REAL NOT NULL,
  prefixes TEXT NOT NULL,
  rules TEXT NOT NULL,
  listed INTEGER NOT NULL DEFAULT 0,
  synced TEXT NOT NULL DEFAULT '[]',
  state TEXT NOT NULL DEFAULT 'never',
  last_attempt REAL,
  last_success REAL,
  failures INTEGER NOT NULL DEFAULT 0,
  error TEXT,
  held_since REAL,
  held TEXT
) STRICT;
CREATE TABLE scope (
  id INTEGER PRIMARY KEY,
  source_id INTEGER NOT NULL REFERENCES source(id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  read_at REAL,
  rows INTEGER NOT NULL DEFAULT 0,
  state TEXT NOT NULL DEFAULT 'never',
  error TEXT,
  UNIQUE (source_id, name)
) STRICT;
CREATE TABLE resource (
  id INTEGER PRIMARY KEY,
  source_id INTEGER NOT NULL,
  key TEXT NOT NULL,
  rid TEXT NOT NULL,
  type TEXT NOT NULL,
  name TEXT NOT NULL,
  parent TEXT,
  parent_key TEXT,
  tags TEXT NOT NULL,
  hash BLOB NOT NULL,
  scope_id INTEGER NOT NULL,
  claim_id INTEGER,
  tagged_key TEXT,
  UNIQUE (source_id, key)
) STRICT;
CREATE INDEX resource_parent ON resource (source_id, parent_key) WHERE parent_key IS NOT NULL;
CREATE INDEX resource_claim ON resource (claim_id);
CREATE INDEX resource_scope ON resource (scope_id);
CREATE TABLE principal (
  id INTEGER PRIMARY KEY,
  directory_id INTEGER NOT NULL,
  pid TEXT NOT NULL,
  kind TEXT NOT NULL,
  external_id TEXT NOT NULL,
  name TEXT NOT NULL,
  email TEXT,
  active INTEGER NOT NULL,
  alive INTEGER NOT NULL DEFAULT 0,
  manager TEXT,
  aliases TEXT NOT NULL,
  attributes TEXT NOT NULL,
  hash BLOB NOT NULL,
  scope_id INTEGER NOT NULL,
  UNIQUE (directory_id, pid)
) STRICT;
CREATE INDEX principal_manager ON principal (directory_id, manager) WHERE manager IS NOT NULL;
CREATE INDEX principal_scope ON principal (scope_id);
CREATE TABLE member (
  directory_id INTEGER NOT NULL,
  group_pid TEXT NOT NULL,
  member_pid TEXT NOT NULL,
  scope_id INTEGER NOT NULL,
  PRIMARY KEY (directory_id, group_pid, member_pid)
) STRICT, WITHOUT ROWID;
CREATE INDEX member_member ON member (directory_id, member_pid);
CREATE INDEX member_scope ON member (scope_id);
CREATE TABLE match (
  directory_id INTEGER NOT NULL,
  kind TEXT NOT NULL,
  field TEXT NOT NULL,
  canonical TEXT NOT NULL,
  pid TEXT NOT NULL,
  exact TEXT NOT NULL,
  PRIMARY KEY (directory_id, kind, field, canonical, pid, exact)
) STRICT, WITHOUT ROWID;
CREATE INDEX match_pid ON match (directory_id, pid);
CREATE TABLE claim (
  id INTEGER PRIMARY KEY,
  source_id INTEGER NOT NULL,
  rule INTEGER NOT NULL,
  ambiguous INTEGER NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  owners TEXT NOT NULL DEFAULT '[]',
  reason TEXT,
  directories TEXT NOT NULL DEFAULT '[]',
  outcome_id INTEGER,
  inherited_outcome_id INTEGER,
  UNIQUE (source_id, rule, ambiguous, key, value)
) STRICT;
CREATE TABLE term (
  directory_id INTEGER NOT NULL,
  kind TEXT NOT NULL,
  field TEXT NOT NULL,
  canonical TEXT NOT NULL,
  claim_id INTEGER NOT NULL,
  PRIMARY KEY (directory_id, kind, field, canonical, claim_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX term_claim ON term (claim_id);
CREATE TABLE claim_finding (
  source_id INTEGER NOT NULL,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  claim_id INTEGER NOT NULL,
  PRIMARY KEY (source_id, kind, key, value, claim_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX claim_finding_claim ON claim_finding (claim_id);
CREATE TABLE outcome (
  id INTEGER PRIMARY KEY,
  body TEXT NOT NULL UNIQUE,
  identity TEXT NOT NULL,
  owners TEXT NOT NULL,
  source TEXT NOT NULL,
  fallback INTEGER NOT NULL,
  reason TEXT
) STRICT;
CREATE TABLE outcome_owner (
  outcome_id INTEGER NOT NULL,
  directory_id INTEGER NOT NULL,
  pid TEXT NOT NULL,
  PRIMARY KEY (directory_id, pid, outcome_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE freshness (
  id INTEGER PRIMARY KEY,
  scope_id INTEGER NOT NULL,
  directories TEXT NOT NULL,
  UNIQUE (scope_id, directories)
) STRICT;
CREATE TABLE answer (
  key TEXT NOT NULL,
  source_id INTEGER NOT NULL,
  resource_id INTEGER NOT NULL,
  freshness_id INTEGER NOT NULL,
  outcome_id INTEGER NOT NULL,
  waiting INTEGER NOT NULL,
  changed_at REAL NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (key, source_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX answer_outcome ON answer (outcome_id);
CREATE TABLE change (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  integration TEXT NOT NULL,
  resource TEXT NOT NULL,
  before_id INTEGER,
  after_id INTEGER
) STRICT;
CREATE TABLE finding (
  id INTEGER PRIMARY KEY,
  integration TEXT NOT NULL,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  resources INTEGER NOT NULL,
  examples TEXT NOT NULL,
  suggestions TEXT,
  first_seen REAL NOT NULL,
  last_seen REAL NOT NULL,
  resolved_at REAL
) STRICT;
CREATE UNIQUE INDEX finding_open ON finding (integration, kind, key, value) WHERE resolved_at IS NULL;
CREATE VIEW owners AS
  SELECT r.rid AS resource, s.name AS integration, r.type, r.name, o.owners, o.source, o.fallback, o.reason,
         a.changed_at
  FROM answer a JOIN resource r ON r.id = a.resource_id JOIN source s ON s.id = a.source_id
       JOIN outcome o ON o.id = a.outcome_id
"""


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Apply what is pending. DatabaseTooNew if a later ownerd has written this file."""
    wrapped = Database(db)
    unknown = {m.name for m in migrations.applied(wrapped)} - {m.name for m in migrations._migrations}  # noqa: SLF001
    if unknown:
        raise DatabaseTooNew(path, sorted(unknown))
    migrations.apply(wrapped)
