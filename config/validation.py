"""pydantic's errors in our words, each at its place."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from config.problems import Loc, Problem, nearest, place_of


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
