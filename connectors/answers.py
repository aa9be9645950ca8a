"""Reading what an HTTP API answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from connectors.errors import BadData, Incomplete, ServerFault


def parse_json(place: str, body: bytes) -> Any:
    """The document of a successful answer. ServerFault if the body is empty, or no JSON from end to end."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)  # slower, and takes the lone surrogates that a name can hold
    except ValueError as error:
        why = "is empty" if not body.strip() else "is no JSON, or ends in the middle"
        raise ServerFault(f"{place}: the answer {why}") from error


def one_line(text: str, most: int = 300) -> str:
    """What a server says, fit for a message: cut to `most` characters, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text[:most])


def plain(value: Any) -> str | None:
    """A JSON value as text that a tag can name; None for what is empty or no scalar."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value) or None
    return None


def attributes_of(
    profile: Mapping[str, Any], *, but: frozenset[str] = frozenset({"id", "name", "email"})
) -> dict[str, str | list[str]]:
    """An object's matchable attributes: its scalars, and its lists of scalars, but for those that are fields."""
    found: dict[str, str | list[str]] = {}
    for key, value in profile.items():
        if key in but:
            continue
        if isinstance(value, list):
            if texts := [text for x in value if (text := plain(x)) is not None]:
                found[key] = texts
        elif (text := plain(value)) is not None:
            found[key] = text
    return found


def text_of(row: Any, key: str, what: str) -> str:
    """A text that every such row has. BadData without it."""
    value = row.get(key) if isinstance(row, Mapping) else None
    if not isinstance(value, str) or not value:
        raise BadData(f'{what} has no "{key}"')
    return value


def rows_of(value: Any, what: str) -> list[dict[str, Any]]:
    """A list of objects. BadData for anything else."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise BadData(f"{what}: expected a list of objects")
    return value


def gone_meanwhile(place: str, status: int, items: str) -> Incomplete | None:
    """What a 404 means below the path `items`: one of a list that was read a moment ago."""
    if status == 404 and items in place:
        return Incomplete(f"{place}: gone since the list was read; the next run is right")
    return None
