"""Problems of a configuration: what they say, and where they say it is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `place` is a path into the document: `integrations[1].resource_owner[0].directory`."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class ConfigurationError(Exception):
    """The configuration cannot be used. `problems` is never empty."""

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = list(problems)
        super().__init__(f"{path}: " + "; ".join(map(str, self.problems)))


def place_of(loc: Loc) -> str:
    """`("integrations", 1, "key")` as `integrations[1].key`."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def nearest(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean "okta"?`, or nothing if no known name is near."""
    found = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{found[0]}"?' if found else ""
