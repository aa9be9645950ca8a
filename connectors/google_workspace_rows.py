"""What the Directory API's answers say: rows as principals and references."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from connectors.answers import attributes_of, plain
from connectors.errors import BadData
from connectors.values import Kind, Principal, Ref

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")  # some become part of a URL
_TYPED = ("relations", "externalIds", "keywords")
_STRUCTURED = ("organizations", "locations")
_NO_FIELDS = {"type", "customType", "primary"}
_SHORT = ("department", "title", "costCenter")
"""Fields of organizations that have a name of their own, too."""


def part(document: Any, key: str, kind: type, place: str) -> Any:
    """`document[key]`, or None: the API leaves out what is empty."""
    if not isinstance(document, dict):
        raise BadData(f"{place}: where an object should be is none")
    found = document.get(key)
    if found is not None and not isinstance(found, kind):
        raise BadData(f'{place}: "{key}" is of the wrong type')
    return found


def needed(document: Any, key: str, place: str) -> str:
    """A text that is always there."""
    found: str | None = part(document, key, str, place)
    if not found:
        raise BadData(f'{place}: has no "{key}"')
    return found


def id_of(document: Any, key: str, place: str) -> str:
    """An id, which has the form of one."""
    found = needed(document, key, place)
    if not _ID.fullmatch(found):
        raise BadData(f'{place}: the "{key}" is no id')
    return found


def user_of(row: Any) -> tuple[Principal, str]:
    """A user, and the address that his profile names as the manager's, or ""."""
    id_ = id_of(row, "id", "a user")
    place = f"user {id_}"
    email = needed(row, "primaryEmail", place)
    suspended, archived = part(row, "suspended", bool, place), part(row, "archived", bool, place)
    if suspended is None:  # unlike "archived", which only some editions know
        raise BadData(f'{place}: has no "suspended"')
    name = part(row, "name", dict, place) or {}
    found = _Attributes(place)
    for key in ("givenName", "familyName", "displayName"):
        found.add(key, name.get(key))
    for key in ("orgUnitPath", "isAdmin", "isDelegatedAdmin", "isGuestUser"):
        found.add(key, row.get(key))
    for entry in _objects(row, "emails", place):
        found.add("emails", entry.get("address"))
    for key in _STRUCTURED:
        for entry in _objects(row, key, place):
            for inner in entry.keys() - _NO_FIELDS:
                found.add(f"{key}.{inner}", entry[inner])
                if key == "organizations" and inner in _SHORT:
                    found.add(inner, entry[inner])
    managers = set()
    for key in _TYPED:
        for entry in _objects(row, key, place):
            type_ = part(entry, "type", str, place)
            if type_ == "custom":
                type_ = part(entry, "customType", str, place)
            found.add(f"{key}.{type_}" if type_ else key, entry.get("value"))
            if (key, entry.get("type")) == ("relations", "manager") and (value := plain(entry.get("value"))):
                managers.add(value.strip().casefold())
    known = found.values.keys() | {"id", "name", "email"}
    for schema, fields in (part(row, "customSchemas", dict, place) or {}).items():
        for key in part({schema: fields}, schema, dict, place) or {}:
            if f"{schema}.{key}" not in known:  # what Google itself defines is not given another meaning
                found.add(f"{schema}.{key}", *_values(fields[key], place))
    return Principal(
        Kind.USER,
        id_,
        part(name, "fullName", str, place) or email,
        email,
        active=not (suspended or archived),
        aliases=_aliases(row, place),
        attributes=found.plain(),
    ), managers.pop() if len(managers) == 1 else ""  # of two, neither is known to be the one


def group_of(row: Any) -> Principal:
    """A group."""
    id_ = id_of(row, "id", "a group")
    place = f"group {id_}"
    email = needed(row, "email", place)
    told = {key: row[key] for key in ("description", "adminCreated") if key in row}
    name = part(row, "name", str, place) or email
    return Principal(Kind.GROUP, id_, name, email, aliases=_aliases(row, place), attributes=attributes_of(told))


def member_of(row: Any) -> Ref:
    """Whom a member's row means. A CUSTOMER is all users of the account whose id it has.

    Whoever is of a type that is new, or from elsewhere, is named as a user, and is none that the account has.
    """
    kind = Kind.GROUP if needed(row, "type", "a member") in {"GROUP", "CUSTOMER"} else Kind.USER
    return Ref(kind, needed(row, "id", "a member"))


class _Attributes:
    """Gathers what is matchable, each value once."""

    def __init__(self, place: str) -> None:
        self.values: dict[str, list[str]] = {}
        self._place = place

    def add(self, key: str, *values: Any) -> None:
        for value in values:
            if isinstance(value, dict | list):
                raise BadData(f'{self._place}: "{key}" is of the wrong type')
            text = plain(value)
            if text is not None and text not in self.values.setdefault(key, []):
                self.values[key].append(text)

    def plain(self) -> dict[str, str | list[str]]:
        return {k: v[0] if len(v) == 1 else v for k, v in sorted(self.values.items()) if v}


def _objects(row: Any, key: str, place: str) -> Iterable[dict[str, Any]]:
    for entry in part(row, key, list, place) or ():
        if not isinstance(entry, dict):
            raise BadData(f'{place}: "{key}" holds what is no object')
        yield entry


def _values(value: Any, place: str) -> list[Any]:
    """The values of a custom field: of one with several, each stands in an object."""
    if not isinstance(value, list):
        return [value]
    return [entry.get("value") for entry in _objects({"value": value}, "value", place)]


def _aliases(row: Any, place: str) -> tuple[str, ...]:
    found = [x for key in ("aliases", "nonEditableAliases") for x in part(row, key, list, place) or ()]
    if not all(isinstance(alias, str) for alias in found):
        raise BadData(f"{place}: an alias is no text")
    return tuple(dict.fromkeys(found))
