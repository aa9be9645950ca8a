"""Snapshots that the guard holds: kept as they were spooled, each with a report that people can read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from daemon.errors import OwnerdError
from daemon.guard import Implausible

Examples = Mapping[str, Sequence[Any]]
"""By subject: ids that would go, or `{"resource", "before", "after"}` of what would get other owners."""


def told(why: Sequence[Implausible]) -> list[dict[str, Any]]:
    """What is held, and why, without examples."""
    return [{"what": type(h).__name__, "subject": h.subject, "why": h.why} for h in why]


class HeldSnapshots:
    """The folder `held/`: at most one snapshot a source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder; remove what a killed process was about to keep."""
        self.folder.mkdir(exist_ok=True, mode=0o700)
        for left in self.folder.glob("*.partial"):
            left.unlink()

    def spool(self, name: str) -> Path | None:
        """The held snapshot of a source."""
        path = self.folder / f"{name}.db"
        return path if path.exists() else None

    def keep(self, name: str, spool: Path, why: Sequence[Implausible], examples: Examples, *, now: float) -> None:
        """Keep a snapshot, in place of an earlier one. Before the commit: what is marked as held can be accepted."""
        rows = [{**row, "examples": list(examples.get(row["subject"], ()))} for row in told(why)]
        report = orjson.dumps({"source": name, "at": now, "why": rows}, option=orjson.OPT_INDENT_2)
        self._put(f"{name}.db", spool)
        self._put(f"{name}.json", report)

    def _put(self, name: str, content: bytes | Path) -> None:
        """A file, whole or not at all, also when the power goes right after."""
        partial = self.folder / f"{name}.partial"
        with partial.open("wb") as file:
            partial.chmod(0o600)
            if isinstance(content, Path):
                with content.open("rb") as source:
                    shutil.copyfileobj(source, file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def release(self, name: str) -> bool:
        """Throw a snapshot away; whether there was one."""
        found = self.spool(name) is not None
        for suffix in (".db", ".json", ".db.partial", ".json.partial"):
            (self.folder / f"{name}{suffix}").unlink(missing_ok=True)
        return found

    def reports(self) -> list[dict[str, Any]]:
        """`[{"source", "at", "why": [{"what", "subject", "why", "examples"}]}]`, oldest first."""
        found = []
        for report in self.folder.glob("*.json"):
            try:
                found.append(orjson.loads(report.read_bytes()))
            except FileNotFoundError:
                continue  # released in this moment
            except (OSError, orjson.JSONDecodeError) as error:
                raise OwnerdError(f"{report}: {error}", remedy="run the command as ownerd's user") from error
        return sorted(found, key=lambda r: (r["at"], r["source"]))
