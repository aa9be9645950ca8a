"""A database that an earlier ownerd has written is brought up to date, and says what it said."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from daemon.errors import DatabaseTooNew
from daemon.store import schema, writer
from tests.harness import World, configuration, integration, resource, team

FIRST = """
INSERT INTO source (id, name, role, connector, position, interval, stale_after, prefixes, rules, listed, synced, state)
VALUES (1, 'corp', 'directory', 'file', 0, 300, 1200, '[]', '[["group","name"]]', 1, '["group","user"]', 'ok');
INSERT INTO scope (id, source_id, name, read_at, rows, state) VALUES (1, 1, 'all', 1699999000, 2, 'ok');
INSERT INTO principal VALUES (1, 1, 'user:u1', 'user', 'u1', 'u1', NULL, 1, 1, NULL, '[]', '{}', x'00', 1);
INSERT INTO principal VALUES (2, 1, 'group:g', 'group', 'g', 'team-a', NULL, 1, 1, NULL, '[]', '{}', x'00', 1);
INSERT INTO member VALUES (1, 'group:g', 'user:u1', 1);
INSERT INTO match VALUES (1, 'group', 'name', 'team-a', 'group:g', 'team-a');
INSERT INTO freshness VALUES (7, 1, '[1]');
"""


def first_schema(path: Path) -> None:
    """A database as the first schema had it, and something in it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        migrations = Migrations("ownerd")
        migrations(name="m001_initial")(schema.m001_initial)
        migrations.apply(Database(db))
        db.executescript(FIRST)


def test_the_first_schema_is_migrated(tmp_path: Path) -> None:
    """What was known stays known: a resource is owned at once, without the directory being read again."""
    first_schema(tmp_path / "ownerd.db")
    world = World(tmp_path, configuration(integration("aws", fallback="team-a")))
    world.run("aws", resource("r", "Team A"))
    assert world.owners() == {"r": "team-a"}
    assert world.query("SELECT id, scope_id, directories, schedules FROM freshness WHERE id = 7") == [
        (7, 1, "[1]", "[]")
    ]
    assert world.query("SELECT whole_at, bookmark, gaps FROM scope WHERE id = 1") == [(1699999000, None, "[]")]
    assert world.query("SELECT on_call FROM member") == [(0,)]
    world.run("corp", *team("team-a", "u2"))
    assert world.owners() == {"r": "team-a"}
    world.close()


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    """What is applied is not applied again."""
    first_schema(tmp_path / "ownerd.db")
    for _ in range(2):
        db = writer.open_writer(tmp_path / "ownerd.db")
        applied = [name for (name,) in db.execute("SELECT name FROM _sqlite_migrations ORDER BY id")]
        assert applied == [m.name for m in schema.migrations._migrations]
        db.close()


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    """What a later ownerd has written is not touched."""
    first_schema(tmp_path / "ownerd.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "ownerd.db")) as db, db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('ownerd', 'm999_later', '2030-01-01')"
        )
    with pytest.raises(DatabaseTooNew, match="m999_later"):
        writer.open_writer(tmp_path / "ownerd.db")
