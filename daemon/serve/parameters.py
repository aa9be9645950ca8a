"""Query parameters, cursors and bodies: what a request may say. Problem for anything else."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

from daemon.serve.problems import Problem

MOST_RESOURCES = 1000
LONGEST_BODY = 8 * 2**20
_MOST_LIMIT = 1000


def query(raw: bytes, allowed: Collection[str]) -> dict[str, str]:
    """The parameters, each at most once, none unknown: one that was ignored could widen an answer."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), errors="strict")
    except ValueError as error:
        raise Problem("bad-request", "the query is not name=value pairs in percent-encoded UTF-8") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            raise Problem("bad-request", f'unknown parameter "{name}"; there are {", ".join(sorted(allowed))}')
        if name in found:
            raise Problem("bad-request", f'the parameter "{name}" is given twice')
        found[name] = value
    return found


def required(parameters: Mapping[str, str], name: str) -> str:
    """A parameter that must be there, and not be empty."""
    if not (value := parameters.get(name)):
        raise Problem("bad-request", f'the parameter "{name}" is missing')
    return value


def limit(parameters: Mapping[str, str]) -> int:
    """`limit`, 1 to 1000, by default 100."""
    given = parameters.get("limit", "100")
    if not (given.isascii() and given.isdigit() and len(given) <= 5 and 1 <= int(given) <= _MOST_LIMIT):
        raise Problem("bad-request", f"limit is a whole number from 1 to {_MOST_LIMIT}")
    return int(given)


def flag(parameters: Mapping[str, str], name: str) -> bool | None:
    """`true`, `false`, `1` or `0`; None if it is not given."""
    given = parameters.get(name)
    if given is None:
        return None
    if given not in {"true", "false", "1", "0"}:
        raise Problem("bad-request", f"{name} is true or false")
    return given in {"true", "1"}


def one_of(parameters: Mapping[str, str], name: str, allowed: Collection[str], default: str) -> str:
    """A parameter with few values."""
    given = parameters.get(name, default)
    if given not in allowed:
        raise Problem("bad-request", f"{name} is one of {', '.join(sorted(allowed))}")
    return given


def cursor_of(kind: str, *position: str | int) -> str:
    """An opaque cursor of one list."""
    return base64.urlsafe_b64encode(orjson.dumps([kind, *position])).decode("ascii").rstrip("=")


def position_of(kind: str, cursor: str, *types: type) -> list[Any]:
    """Where a cursor points. Problem if it is not one of this list's."""
    try:
        told = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error):
        told = None
    match = isinstance(told, list) and len(told) == len(types) + 1 and told[0] == kind
    if not match or not all(type(x) is t for x, t in zip(told[1:], types, strict=True)):
        raise Problem("bad-request", "the cursor is not one that this list has given")
    if any(isinstance(x, int) and not 0 <= x < 2**63 for x in told[1:]):
        raise Problem("bad-request", "the cursor is not one that this list has given")
    position: list[Any] = told[1:]
    return position


def batch(body: bytes) -> list[str]:
    """The ids of `{"resources": [ID, …]}`."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem("bad-request", f"the body is not JSON: {error.msg}") from error
    ids = told.get("resources") if isinstance(told, dict) and told.keys() == {"resources"} else None
    if not isinstance(ids, list) or not {*map(type, ids)} <= {str} or "" in ids:
        raise Problem("bad-request", 'the body must be {"resources": [ID, …]}, each ID a string')
    if len(ids) > MOST_RESOURCES:
        raise Problem("bad-request", f"at most {MOST_RESOURCES} resources at once, not {len(ids)}")
    return ids
