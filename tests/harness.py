"""Drives the real pipeline with records in memory: no child, no scheduler, a clock that the test sets."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from config.settings import Settings, parse_settings
from connectors.errors import ConnectorError
from connectors.values import Change, Kind, Members, Principal, Record, Ref, Resource
from daemon.fingerprint import Known
from daemon.pipeline import Report, Store
from daemon.spool import SpoolWriter
from daemon.store import copying
from daemon.store.copied import Copied, Open, at_once


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def configuration(
    *integrations: Mapping[str, Any],
    directories: Iterable[str] = ("corp",),
    of_each: Mapping[str, Any] | None = None,
    **tables: Any,
) -> dict[str, Any]:
    """A document with file connectors throughout; nothing is ever read from their paths.

    `of_each`: options of each directory.
    """
    return {
        **tables,
        "directories": [{"name": d, "connector": "file", "path": "/nowhere", **(of_each or {})} for d in directories],
        "integrations": [{"connector": "file", "path": "/nowhere", **it} for it in integrations],
    }


def owned_by(key: str | list[str] = "owner", attribute: str = "group.name", **more: Any) -> dict[str, Any]:
    return {"key": key, "directory": "corp", "attribute": attribute, **more}


def integration(
    name: str = "aws", *rules: Mapping[str, Any], fallback: str = "platform", **more: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "resource_owner": list(rules) or [owned_by()],
        "integration_owner": [{"directory": "corp", "attribute": "group.name", "values": [fallback]}],
        **more,
    }


def user(i: str, name: str = "", **more: Any) -> Principal:
    return Principal(Kind.USER, i, name or i, **more)


def group(i: str, name: str = "", **more: Any) -> Principal:
    return Principal(Kind.GROUP, i, name or i, **more)


def members(g: str, *who: str) -> Members:
    """Members of a group; `g:…` names a group, anything else a user."""
    refs = (Ref(Kind.GROUP, w[2:]) if w.startswith("g:") else Ref(Kind.USER, w) for w in who)
    return Members(Ref(Kind.GROUP, g), tuple(refs))


def team(name: str, *who: str) -> list[Record]:
    """A group whose id is its name in brackets, and its users, active."""
    return [group(f"[{name}]", name), *(user(w) for w in who if w[:2] != "g:"), members(f"[{name}]", *who)]


Scopes = Mapping[str, Iterable[Change] | ConnectorError]


class World:
    """A store under a folder, and a way to run sources into it."""

    def __init__(self, folder: Path, document: Mapping[str, Any]) -> None:
        self.folder = folder
        self.clock = Clock()
        self.store = Store(folder, clock=self.clock)
        self.runs = 0
        self.configure(document)

    def configure(self, document: Mapping[str, Any]) -> None:
        self.settings: Settings = parse_settings(document, Path("test.toml"))
        self.store.configure(self.settings)

    def spool(
        self, scopes: Scopes, since: Mapping[str, str] | None = None, base: str = "", known: Known | None = None
    ) -> Path:
        self.runs += 1
        path = self.folder / "spool" / f"{self.runs}.db"
        writer = SpoolWriter(path, clock=self.clock, known=known)
        for name, records in scopes.items():
            try:
                with writer.scope(name, since=(since or {}).get(name)) as scope:
                    if isinstance(records, ConnectorError):
                        raise records
                    for record in records:
                        scope.add(record)
            except ConnectorError:
                pass
        writer.finish([str(k) for k in Kind], base=base)
        return path

    def run(self, source: str, *records: Change, since: str | None = None, **more: Any) -> Report:
        """Run a source of one scope, whole or from a bookmark."""
        return self.run_scopes(source, {"all": records}, since=None if since is None else {"all": since}, **more)

    def run_scopes(
        self,
        source: str,
        scopes: Scopes,
        *,
        since: Mapping[str, str] | None = None,
        accept: bool = False,
        base: str = "",
    ) -> Report:
        return self.store.run(source, self.spool(scopes, since, base, self.store.known(source)), accept=accept)

    def query(self, sql: str, *bound: Any) -> list[tuple[Any, ...]]:
        db = sqlite3.connect(f"file:{self.store.path}?mode=ro", uri=True)
        try:
            return db.execute(sql, bound).fetchall()
        finally:
            db.close()

    def answers(self) -> dict[str, dict[str, Any]]:
        """Every owner row by resource id."""
        rows = (json.loads(body + b"}") for (body,) in self.query("SELECT body FROM answer"))
        return {row["resource"]["id"]: row for row in rows}

    def owners(self) -> dict[str, Any]:
        """For each resource: the owners' names where a tag gave them, else `reason → the fallback's names`."""
        told = {}
        for rid, row in self.answers().items():
            names = ",".join(o["name"] for o in row["owners"])
            told[rid] = f"{row['reason']} -> {names}" if row["reason"] else names
        return told

    def drift(self) -> set[tuple[str, str, int]]:
        """Open findings: kind, value, resources."""
        return set(self.query("SELECT kind, value, resources FROM finding WHERE resolved_at IS NULL"))

    def close(self) -> None:
        self.store.close()


def resource(i: str, owner: str | None = None, *, parent: str | None = None, **tags: str) -> Resource:
    return Resource(i, parent=parent, tags={**tags, **({} if owner is None else {"owner": owner})})


class CopyReader:
    """A connection, and what it knows of the copy; each look is of one generation."""

    def __init__(self, path: Path, opening: Open = at_once) -> None:
        self.db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        self.copied = Copied(path, opening)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.copied.forget()
        self.db.close()

    def begin(self) -> None:
        self.db.execute("BEGIN")
        version = self.db.execute("PRAGMA data_version").fetchone()[0]
        if self.copied.behind(version):
            self.copied.follow(self.db, version)

    def end(self) -> None:
        self.db.execute("COMMIT")

    def compare(self, *more: str) -> set[str]:
        """The keys that the copy tells, each just as the table does; `more`: others to ask for."""
        rows: dict[str, list[Any]] = {}
        for key, *row in self.db.execute("SELECT key, waiting, freshness_id, body FROM answer"):
            rows.setdefault(key, []).append(row)
        told = set()
        for key in {*rows, *more}:
            found = self.copied.find(key)
            if found is not None:
                assert rows.get(key) == [[0, *found]], key
                told.add(key)
        return told

    def look(self, *more: str) -> set[str]:
        self.begin()
        try:
            return self.compare(*more)
        finally:
            self.end()


def copied_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the copy be given up after a few changes, and made anew at once."""
    monkeypatch.setattr(copying, "most_changed", lambda _rows: 3)
    monkeypatch.setattr(copying, "REST", 0.0)
