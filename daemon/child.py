"""The child process of one run: reads one source into a spool file, or checks it, and ends.

A job comes as one JSON line on standard input, progress goes out as JSON lines on standard output. SDKs, secrets,
crashes, hangs and leaks stay in here: whatever it says, there or on standard error, has no secret in it. When the
poller dies, so does its child.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from config.secrets import resolve
from config.settings import ROLES, Role
from connectors.contract import Connector
from connectors.errors import ConnectorError
from connectors.registry import load, sdk_needed
from connectors.values import Kind
from daemon.described import describe
from daemon.fingerprint import Known
from daemon.processes import end_with_parent, keep_memory_private, limit_memory
from daemon.reading import Batch, Ended, Restarted, Started, messages
from daemon.redact import Guarded, learn, redacted
from daemon.spool import ScopeWriter, SpoolWriter
from daemon.spool_rows import well_formed
from daemon.tls import verify_always

EVERY = 1000
"""Records between two lines of progress."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to do. `spool` is empty for a check."""

    name: str
    role: Role
    connector: str
    options: dict[str, Any]
    kinds: list[str]
    spool: str = ""
    since: dict[str, str] = field(default_factory=dict)
    """By scope, the bookmark from which to read its changes; other scopes are read whole."""
    base: str = ""
    """What the bookmarks of this run are good for."""
    secret: str = ""
    """Of an integration, for `daemon.fingerprint`; "" otherwise."""
    fingerprint: str = ""
    """What the run of an integration is compared with; "" where that is not known."""
    memory_limit: int = 0
    """Bytes that the process may take; 0: no limit."""

    def to_json(self) -> bytes:
        """One line."""
        return orjson.dumps(asdict(self), default=str) + b"\n"


def build(job: Job) -> Connector:
    """The job's connector, with its secrets. ConnectorError says what is missing."""
    cls = load(ROLES[job.role][job.connector])
    options = cls.Options.model_validate(job.options)
    learn(resolve(options))
    connector: Connector = cls(options)  # type: ignore[call-arg]  # each connector takes its own options
    connector.kinds = frozenset(Kind(kind) for kind in job.kinds)
    return connector


def read(job: Job, connector: Connector, spool: SpoolWriter) -> Iterator[dict[str, Any]]:
    """Read every scope; a scope that fails does not keep the others from being read."""
    scopes = list(connector.scopes())
    open_: dict[str, ScopeWriter] = {}
    told = dict.fromkeys(scopes, 0)
    yield {"scopes": len(scopes)}
    with closing(messages(connector, scopes, job.since, sdk=lambda: _sdk_of(job))) as arriving:
        for message in arriving:
            match message:
                case Started(scope):
                    open_[scope] = spool.open(scope, since=job.since.get(scope), holds=connector.holds(scope))
                    yield {"scope": scope, "rows": 0}
                case Restarted(scope) if scope in open_:
                    open_[scope].restart()
                case Batch(scope, records) if scope in open_:
                    writer = open_[scope]
                    try:
                        for record in records:
                            writer.add(record)
                    except sqlite3.Error:
                        raise
                    except Exception as error:  # noqa: BLE001  # a record of a wrong shape: the scope has failed
                        yield _ended(open_, scope, error)
                    else:
                        if writer.count >= told[scope] + EVERY:
                            told[scope] = writer.count
                            yield {"scope": scope, "rows": writer.count}
                case Ended(scope, error) if scope in open_:
                    yield _ended(open_, scope, error)


def _ended(writers: dict[str, ScopeWriter], scope: str, error: Exception | None) -> dict[str, Any]:
    """Close a scope; what there is to tell of it."""
    writer = writers.pop(scope)
    if error is None:
        writer.end()
        return {"scope": scope, "rows": writer.count, "done": True}
    writer.fail(error)
    return {"scope": scope, "error": describe(error)}


def _sdk_of(job: Job) -> AbstractContextManager[None]:
    return sdk_needed(job.connector, ROLES[job.role][job.connector])


def _run(job: Job) -> Iterator[dict[str, Any]]:
    spool = SpoolWriter(Path(job.spool), known=Known(job.secret, job.fingerprint) if job.secret else None)
    error: Exception | None = None
    try:
        with _sdk_of(job):
            connector = build(job)
            try:
                yield from read(job, connector, spool)
            finally:
                connector.close()
    except sqlite3.Error:
        raise
    except Exception as caught:  # noqa: BLE001  # an SDK may raise anything; the run has failed, and says why
        error = caught
    for scope, why in spool.finish(job.kinds, error, base=job.base).items():
        yield {"scope": scope, "error": why}


def _check(job: Job) -> Iterator[dict[str, Any]]:
    try:
        with _sdk_of(job):
            connector = build(job)
            try:
                for check in connector.check():
                    yield asdict(check)
            finally:
                connector.close()
    except Exception as error:  # noqa: BLE001  # as above
        told = describe(error)
        what = "connect" if isinstance(error, ConnectorError) else "check"
        yield {"what": what, "ok": False, "detail": told["message"], "remedy": told["remedy"]}


def main() -> int:
    """Do the job on standard input."""
    keep_memory_private()
    verify_always(os.environ)
    sys.stderr = Guarded(sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the whole group; the poller decides
    job = Job(**orjson.loads(sys.stdin.buffer.readline()))
    end_with_parent(int(sys.argv[1]), signal.SIGKILL)
    if job.memory_limit:
        limit_memory(job.memory_limit)
    try:
        for event in _run(job) if job.spool else _check(job):
            _tell(event)
    except (sqlite3.Error, OSError) as error:  # a full disk, most likely
        _tell({"fatal": describe(error)})
    return 0


def _tell(event: dict[str, Any]) -> None:
    told = redacted(event)
    try:
        line = orjson.dumps(told)
    except TypeError:  # a lone surrogate: a scope may be a file, and its name no Unicode
        line = well_formed(json.dumps(told, ensure_ascii=False)).encode()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
