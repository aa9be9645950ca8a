"""The way of the data: spool ─► guard ─► merge ─► resolve ─► publish, in one transaction.

`Store.run` is the design's steps in their order. Whoever reads the database sees the generation before or the one
after, never a mixture.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from config.settings import Settings
from daemon import drift
from daemon.configured import limits_of, rules_of, source_row
from daemon.errors import DatabaseUnusable
from daemon.fingerprint import Known
from daemon.guard import Implausible, Limits, OwnerChange, judge_owners, judge_scopes
from daemon.held import Examples, HeldSnapshots, told
from daemon.spool import bring_up_to_date, complete
from daemon.store import claims, copying, directory, findings, merge, pending, publish, room, sources, turning
from daemon.store.claims import Claims
from daemon.store.copying import Copying
from daemon.store.directory import SqlDirectories
from daemon.store.findings import Transition
from daemon.store.merge import Counts
from daemon.store.outcomes import Outcomes
from daemon.store.wal import Log
from daemon.store.writer import WriterLock, failure, open_writer


@dataclass(slots=True)
class Report:
    """How one run ended. `state`: ok, partial (some scopes failed), failed, or held."""

    source: str
    state: str
    rows: int = 0
    counts: Counts = field(default_factory=Counts)
    owner_changes: int = 0
    transitions: list[Transition] = field(default_factory=list)
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By scope; the scope "" is the source itself."""
    held: list[Implausible] = field(default_factory=list)
    waiting: list[tuple[str, str, str, str, float]] = field(default_factory=list)
    """Changes of tags that wait from now on: integration, resource, the value in force, the new one, until when."""
    released: bool = False
    """A snapshot that was held before has been replaced by a good one."""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Turned:
    """What time alone, or somebody's confirmation, changed by one source."""

    source: str
    owner_changes: int
    transitions: list[Transition]
    applied: list[tuple[str, str, str]] = field(default_factory=list)
    """Changes of tags that had waited: the resource, the old value, the new one."""


class _Held(Exception):
    """Unrolls a publish that would re-own too much."""

    def __init__(self, why: Sequence[Implausible], examples: Examples) -> None:
        super().__init__()
        self.why = list(why)
        self.examples = examples


class Store:
    """The one writer of a state directory. Holds its lock until closed."""

    def __init__(self, state_directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = WriterLock(state_directory)
        self.path = state_directory / "ownerd.db"
        self.spool = state_directory / "spool"
        self.held = HeldSnapshots(state_directory / "held")
        self.lost = False
        """The database was closed to be opened anew, and could not be."""
        self._limits: dict[str, Limits] = {}
        try:
            # We hold the lock: what is in there was left by a process that was killed.
            self.spool.mkdir(exist_ok=True, mode=0o700)
            for left in self.spool.iterdir():
                left.unlink()
            self.held.prepare()
            self._open()
        except OSError as error:
            self._lock.close()
            raise DatabaseUnusable(state_directory, error.strerror or str(error)) from error
        except BaseException:
            self._lock.close()
            raise

    def _open(self) -> None:
        self._db = open_writer(self.path)
        self._log = Log(self._db, self.path)
        self._copy = Copying(self._db, self.path)
        merge.prepare(self._db)

    def close(self) -> None:
        """Let the database and its lock go."""
        self._db.close()
        self._lock.close()

    def reopen(self, settings: Settings) -> bool:
        """Open the database anew after SQLite found it damaged; whether it was set aside for a new one."""
        before = self.path.stat().st_ino
        self.lost = True
        self._db.close()
        self._open()
        self.lost = False
        self.configure(settings)
        return self.path.stat().st_ino != before

    # --- configuration ----------------------------------------------------------------------------------------------

    def configure(self, settings: Settings) -> list[Transition]:
        """Make the database serve what `settings` say. What rules have changed is resolved anew from what is stored."""
        self._limits = {source.name: limits_of(source, settings) for source in settings.sources}
        rules = {name: rules_of(integration) for name, integration in settings.integrations.items()}
        used = {use for r in rules.values() for use in r.used()}
        now = self._clock()
        with self._transaction():
            wanted = [source_row(s, rules, used) for s in settings.sources]
            for source, name, role in sources.vanished(self._db, wanted):
                if role == "integration":
                    self._forget_integration(source, name, now)
                else:
                    merge.delete_principals(self._db, source)
                sources.delete(self._db, source)
                self.held.release(name)
            changed = sources.configure(self._db, wanted)
            for source in changed.rematch:
                directory.index_all(self._db, source)
            _, transitions = self._resolve_and_publish(changed.reresolve, now, anew=True)
        return transitions

    def _forget_integration(self, source: int, name: str, now: float) -> None:
        merge.gone_resources(self._db, source)
        publish.retract(self._db, source, now=now)
        claims.forget(self._db, source)
        merge.delete_gone(self._db)
        findings.resolve_all(self._db, name, now=now)
        merge.clear(self._db)

    # --- a run ------------------------------------------------------------------------------------------------------

    def run(self, name: str, spool: Path, *, accept: bool = False) -> Report:
        """Merge what a child has spooled. With `accept` the guard does not judge it."""
        with self._attached(spool):
            failed = self._db.execute("SELECT error FROM spool.run").fetchone()
            if failed is None or failed[0] is not None:
                error = orjson.loads(failed[0]) if failed else _CUT_SHORT
                return self.fail(name, error)
            try:
                if accept or not sources.unchanged(self._db, sources.source_id(self._db, name)):
                    complete(spool)
                return self._merge(name, spool, accept=accept)
            except _Held as held:
                return self._hold_all(name, spool, held.why, held.examples)

    def bookmarks(self, name: str, *, base: str, whole_interval: float) -> dict[str, str]:
        """By scope, where to go on reading changes; scopes that are due to be read whole are not in it."""
        now = self._clock()
        try:
            source = sources.source_id(self._db, name)
            return sources.bookmarks(self._db, source, base=base, whole_since=now - whole_interval, now=now)
        except sqlite3.Error as error:
            raise failure(self.path, error) from error

    def known(self, name: str) -> Known | None:
        """What the next run of an integration is compared with; None for a directory."""
        try:
            return sources.known(self._db, sources.source_id(self._db, name))
        except sqlite3.Error as error:
            raise failure(self.path, error) from error

    def turn(self) -> list[Turned]:
        """Apply what time alone has changed since: hand-overs of schedules, former names whose time is over."""
        done = []
        try:
            due = turning.due(self._db, now=self._clock())
        except sqlite3.Error as error:
            raise failure(self.path, error) from error
        for source in due:
            db, now = self._db, self._clock()
            with self._transaction():
                turning.turn(db, source, now=now)
                self._follow(source)
                done.append(self._turned(source, now))
        for source in pending.due(self._db, now=self._clock()):
            db, now = self._db, self._clock()
            with self._transaction():
                applied = pending.release_due(db, source, now=now)
                done.append(self._turned(source, now, applied))
        return done

    def confirm(self, name: str, keys: Sequence[str] | None) -> Turned:
        """Put into force at once what waits for these resources of an integration; with None, for all of them."""
        now = self._clock()
        with self._transaction():
            source = sources.source_id(self._db, name)
            return self._turned(source, now, pending.confirm(self._db, source, keys))

    def _turned(self, source: int, now: float, applied: Sequence[tuple[str, str, str]] = ()) -> Turned:
        published, transitions = self._resolve_and_publish([], now)
        return Turned(sources.name_of(self._db, source), published.changes, transitions, list(applied))

    def next_turn(self) -> float | None:
        """When time will change something next: seconds since the epoch."""
        try:
            known = [turning.next_turn(self._db, now=self._clock()), pending.next_due(self._db)]
            return min((at for at in known if at is not None), default=None)
        except sqlite3.Error as error:
            raise failure(self.path, error) from error

    def _follow(self, source: int) -> None:
        """Mark the claims that the touched principals of a directory bear on, and index those principals anew."""
        directory.touch_reports(self._db, source)
        directory.touch_terms(self._db, source)
        directory.index_touched(self._db, source)
        directory.touch_terms(self._db, source)

    def fail(self, name: str, error: dict[str, Any]) -> Report:
        """Record a run that yielded nothing."""
        with self._transaction():
            sources.mark_failed(self._db, sources.source_id(self._db, name), now=self._clock(), error=error)
        return Report(name, "failed", errors={"": error}, retry_after=error.get("retry_after"))

    def _merge(self, name: str, spool: Path, *, accept: bool) -> Report:
        db, now = self._db, self._clock()
        with self._transaction():
            source, role = db.execute("SELECT id, role FROM source WHERE name = ?", (name,)).fetchone()
            integration = role == "integration"
            sources.ensure_scopes(db, source)
            merge.plan_scopes(db, source, again=accept)
            plan = merge.plan_principals
            if integration:
                plan = partial(merge.plan_resources, unchanged=not accept and sources.unchanged(db, source))
            planned = plan(db, source)
            held = [] if accept else list(judge_scopes(planned, self._limits[name]))
            examples = {h.subject: merge.going(db, h.subject, integration=integration) for h in held}
            merge.withhold(db, [h.subject for h in held])
            if integration:
                counts = merge.apply_resources(db, source)
                publish.retract(db, source, now=now)
                merge.delete_gone(db)
            else:
                counts = merge.apply_principals(db, source, now=now)
                self._follow(source)
                sources.mark_scopes(db, source, [h.subject for h in held])
                if sources.mark_synced(db, source):
                    directory.touch_everything(db, source)
            published, transitions = self._resolve_and_publish([source] if integration else [], now)
            if integration:  # its new rows are there only now
                sources.mark_scopes(db, source, [h.subject for h in held])
                sources.mark_fingerprint(db, source)
            if not accept:
                changes = [OwnerChange(n, publish.rows_of(db, n), c) for n, c in published.reowned.items()]
                if too_many := [h for c in changes for h in judge_owners([c], self._limits[c.integration])]:
                    named = [h.subject for h in too_many]
                    raise _Held(too_many, {n: publish.examples(db, n, now=now) for n in named})
            report = self._report(name, source, now, held)
            report.waiting = pending.began(db, now=now)
            if held:
                self.held.keep(name, spool, held, examples, now=now)
        if report.state == "ok":
            report.released = self._release(name)
        report.counts, report.owner_changes, report.transitions = counts, published.changes, transitions
        return report

    def _resolve_and_publish(
        self, dirty: Sequence[int], now: float, *, anew: bool = False
    ) -> tuple[publish.Published, list[Transition]]:
        """Resolve what the temporary tables name: resources of the integrations `dirty`, and claims of any.

        With `anew`, all of those integrations' resources.
        """
        db = self._db
        directories = SqlDirectories(db)
        outcomes = Outcomes(db, directories)
        waiting: Counter[str] = Counter()
        for source in dirty:
            if anew:
                claims.forget(db, source)
            if number := Claims(db, source, directories, outcomes, now=now).assign():
                waiting[sources.name_of(db, source)] = number
        concerned = db.execute(
            "SELECT DISTINCT c.source_id FROM temp.dirty_claim d JOIN claim c ON c.id = d.claim_id ORDER BY 1"
        ).fetchall()
        for (source,) in concerned:
            Claims(db, source, directories, outcomes, now=now).judge()
        published = publish.publish(db, now=now)
        published.reowned += waiting
        claims.sweep(db)
        return published, findings.refresh(db, now=now, suggest=drift.suggest)

    def _report(self, name: str, source: int, now: float, held: Sequence[Implausible]) -> Report:
        db = self._db
        scopes = db.execute("SELECT name, state, rows, error FROM scope WHERE source_id = ?", (source,)).fetchall()
        errors = {scope: orjson.loads(error) for scope, state, _, error in scopes if state == "failed" and error}
        named = db.execute("SELECT count(*) FROM spool.scope").fetchone()[0]
        state = "held" if held else "ok" if not errors else "failed" if len(errors) >= named else "partial"
        first = next(iter(errors.items()), None)
        sources.mark_source(
            db,
            source,
            now=now,
            state=state,
            error={"scope": first[0], **first[1]} if first else None,
            held={"why": told(held)} if held else None,
        )
        waits = [e["retry_after"] for e in errors.values() if e.get("retry_after") is not None]
        rows = sum(r for _, _, r, _ in scopes)
        return Report(name, state, rows=rows, errors=errors, held=list(held), retry_after=max(waits, default=None))

    # --- held snapshots ---------------------------------------------------------------------------------------------

    def _hold_all(self, name: str, spool: Path, why: Sequence[Implausible], examples: Examples) -> Report:
        now = self._clock()
        with self._transaction():
            source = sources.source_id(self._db, name)
            self.held.keep(name, spool, why, examples, now=now)
            sources.mark_source(self._db, source, now=now, state="held", held={"why": told(why)})
        return Report(name, "held", held=list(why))

    def accept(self, name: str) -> Report | None:
        """Let the held snapshot of a source through; None if nothing is held."""
        held = self.held.spool(name)
        if held is None:
            return None
        try:
            bring_up_to_date(held)
        except sqlite3.Error as error:
            raise failure(held, error) from error
        report = self.run(name, held, accept=True)
        with self._transaction():
            sources.unhold(self._db, sources.source_id(self._db, name))
        self._release(name)
        return report

    def _release(self, name: str) -> bool:
        """Throw a held snapshot away; whether there was one."""
        try:
            return self.held.release(name)
        except OSError as error:
            raise failure(self.held.folder, error) from error

    # --- plumbing ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _attached(self, spool: Path) -> Iterator[None]:
        self._detach()  # if a fault kept the last one
        try:
            self._db.execute("ATTACH ? AS spool", (str(spool),))
            yield
        except sqlite3.Error as error:
            raise failure(spool, error) from error
        finally:
            self._detach()

    def _detach(self) -> None:
        with suppress(sqlite3.Error):  # none is attached, or a failed statement still has it
            self._db.execute("DETACH spool")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with room.to_publish(self._db):
                self._db.execute("BEGIN IMMEDIATE")
                merge.clear(self._db)
                yield
                merge.clear(self._db)
                copying.bound(self._db)
                self._db.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):  # what failed is told, not what came of it
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error | OSError):
                raise failure(self.path, error) from error
            raise
        self._copy.tend()
        self._log.tend()  # last: naming a copy is a commit too


_CUT_SHORT = {"code": "cut_short", "message": "the child process ended before its run was complete", "remedy": ""}
