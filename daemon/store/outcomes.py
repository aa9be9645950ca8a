"""Outcomes: who owns and why. There are few, and many rows share one, so each is kept once."""

from __future__ import annotations

import sqlite3
from functools import lru_cache

from connectors.values import Kind
from daemon.answers import outcome_fragment
from daemon.rule import Owner, Reason, Verdict
from daemon.store.directory import SqlDirectories
from daemon.text import json_text


class Outcomes:
    """Finds or makes the outcome of a verdict, while one transaction lasts."""

    def __init__(self, db: sqlite3.Connection, directories: SqlDirectories) -> None:
        self._db = db
        self._directories = directories
        self._find = lru_cache(10_000)(self._find_or_make)

    def intern(self, verdict: Verdict, fallback: Verdict, *, inherited: bool) -> int:
        """The id of what a row's answer says: the verdict's owners, or the fallback's with the verdict's reason.

        While a directory that bears on it is unread the row waits: no owners, and that reason.
        """
        if verdict.reason is None:
            return self._find(verdict.owners, "inherited" if inherited else "tag", None)
        if verdict.reason is Reason.DIRECTORY_NEVER_SYNCED:
            return self._find((), "inherited" if inherited else "tag", verdict.reason)
        if fallback.reason is not None:
            return self._find((), "integration", fallback.reason)
        return self._find(fallback.owners, "integration", verdict.reason)

    def _find_or_make(self, owners: tuple[Owner, ...], source: str, reason: Reason | None) -> int:
        fallback = source == "integration"
        body = outcome_fragment(owners, source, fallback=fallback, reason=reason)
        who = sorted(f"{o.directory}/{o.kind}:{o.id}" for o in owners)
        made = self._db.execute(
            "INSERT INTO outcome (body, identity, owners, source, fallback, reason)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (body) DO NOTHING RETURNING id",
            (body, json_text([who, source, reason]), json_text(who), source, int(fallback), reason),
        ).fetchone()
        if made is None:
            made = self._db.execute("SELECT id FROM outcome WHERE body = ?", (body,)).fetchone()
            return int(made[0])
        self._db.executemany(
            "INSERT INTO outcome_owner VALUES (?, ?, ?)",
            [(made[0], self._directories.ids[o.directory], f"{Kind(o.kind)}:{o.id}") for o in owners],
        )
        return int(made[0])
