"""Problems of a configuration: what they say, and where they say it is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

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


def problems_in(error: ValidationError, model: type[BaseModel], prefix: Loc) -> list[Problem]:
    """Each of pydantic's errors, once, at its place, in our words. Never shows the input: it may be a secret."""
    problems: dict[Problem, None] = {}
    for detail in error.errors(include_url=False, include_input=False):
        loc, owner = _walk(model, detail["loc"])
        match detail["type"]:
            case "extra_forbidden":
                key = str(loc[-1])
                message = f'unknown key "{key}"{nearest(key, owner.model_fields if owner else ())}'
            case "missing":
                message = "missing"
            case "string_pattern_mismatch" if owner and loc[-1] == "attribute":
                message = str(owner.model_fields["attribute"].description)
            case "string_pattern_mismatch" if loc[-1] == "name":
                message = "a name is 1 to 64 letters, digits, dots, hyphens and underscores, and starts with no mark"
            case _:
                message = detail["msg"].removeprefix("Value error, ")
        problems[Problem(place_of((*prefix, *loc)), message)] = None
    return list(problems)


def _walk(model: type[BaseModel], loc: Loc) -> tuple[Loc, type[BaseModel] | None]:
    """Drop the steps that pydantic adds for unions and the like; also the model that holds the last step."""
    kept: list[str | int] = []
    owner: type[BaseModel] | None = model
    for index, step in enumerate(loc):
        if isinstance(step, int):
            kept.append(step)
        elif owner is not None and (step in owner.model_fields or index == len(loc) - 1):
            kept.append(step)
            if step in owner.model_fields and index < len(loc) - 1:
                owner = _model_in(owner.model_fields[step].annotation)
        elif owner is None and not kept:
            kept.append(step)
    return tuple(kept), owner


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
