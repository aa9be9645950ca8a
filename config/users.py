"""Users and groups of this host, by number or by name."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_HIGHEST = 2**32 - 2


def _number(value: Any, what: str, find: Callable[[str], int]) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _HIGHEST:
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("account", f"write the number or the name of a {what}")
    try:
        return find(value)
    except KeyError:
        raise PydanticCustomError("account", f'this host has no {what} "{{name}}"', {"name": value}) from None


def _uid(value: Any) -> int:
    return _number(value, "user", lambda name: pwd.getpwnam(name).pw_uid)


def _gid(value: Any) -> int:
    return _number(value, "group", lambda name: grp.getgrnam(name).gr_gid)


_SCHEMA = WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "minLength": 1}]})

Uid = Annotated[int, BeforeValidator(_uid), _SCHEMA]
"""A user; a name becomes its number when the configuration is read."""
Gid = Annotated[int, BeforeValidator(_gid), _SCHEMA]
"""A group; likewise."""
