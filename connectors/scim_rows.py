"""What the rows of a SCIM service's lists mean: RFC 7643, sections 4.1 (User), 4.2 (Group), 4.3 (enterprise users)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

from connectors.answers import attributes_of, plain, rows_of, text_of
from connectors.errors import BadData
from connectors.seen import Seen
from connectors.values import Kind, Members, Principal, Ref

ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
_FIELDS = frozenset(
    {"id", "name", "email", "active", "schemas", "meta", "password", "emails", "groups", "members", "manager"}
)
_CONTACTS = frozenset({"phoneNumbers", "ims", "photos", "addresses", "x509Certificates"})
_KINDS = {"user": Kind.USER, "group": Kind.GROUP}


def user_of(row: Mapping[str, Any]) -> Principal:
    """The user; e-mail addresses beyond the first, and a login that is one, are aliases."""
    id_ = text_of(row, "id", "a user")
    what = f"user {id_}"
    login = text_of(row, "userName", what)
    name = row.get("name")
    names = name if isinstance(name, dict) else {}
    whole = " ".join(text for key in ("givenName", "familyName") if (text := plain(names.get(key))))
    addresses = _addresses(row, what)
    if "@" in login and login not in addresses:
        addresses.append(login)
    enterprise = row.get(ENTERPRISE)
    return Principal(
        Kind.USER,
        id_,
        plain(row.get("displayName")) or plain(names.get("formatted")) or whole or login,
        addresses[0] if addresses else None,
        _active(row.get("active"), what),
        _manager(enterprise.get("manager") if isinstance(enterprise, dict) else None, what),
        tuple(addresses[1:]),
        _attributes(row),
    )


def _addresses(row: Mapping[str, Any], what: str) -> list[str]:
    """The primary address first, then those for work, then the others."""
    mails = rows_of(row.get("emails") or [], f"emails of {what}")
    mails.sort(key=lambda mail: (mail.get("primary") is not True, mail.get("type") != "work"))
    return list(dict.fromkeys(text for mail in mails if (text := plain(mail.get("value")))))


def _active(told: Any, what: str) -> bool:
    """Whoever is in the list and not said to be inactive is active; some services write the word."""
    active = {None: True, True: True, False: False, "true": True, "false": False}
    key = told.lower() if isinstance(told, str) else told
    if not isinstance(key, str | bool | None) or key not in active:
        raise BadData(f'{what}: "active" is neither true nor false')
    return active[key]


def _manager(told: Any, what: str) -> str | None:
    """The manager's id (RFC 7643, 4.3). Some services write it without the object around it."""
    if isinstance(told, dict):
        told = told.get("value")
    if told is not None and not isinstance(told, str):
        raise BadData(f"{what}: the manager is no id")
    return told or None


def _attributes(row: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """The row's attributes, by their names alone: the core schema's before the enterprise's, before any other's."""
    urns = sorted((key for key in row if key.startswith("urn:")), key=lambda urn: (urn != ENTERPRISE, urn))
    found: dict[str, str | list[str]] = {}
    for part_of in (row, row.get("name"), *(row[urn] for urn in urns)):
        if isinstance(part_of, dict):
            told = attributes_of(part_of, but=_FIELDS | {"formatted"})
            for key, values in part_of.items():  # roles, entitlements and their like: their values
                if isinstance(values, list) and key not in _FIELDS | _CONTACTS:
                    told |= attributes_of({key: [v.get("value") if isinstance(v, dict) else v for v in values]})
            found = told | found
    return found


def group_of(row: Mapping[str, Any]) -> Principal:
    """The group, without its members."""
    id_ = text_of(row, "id", "a group")
    return Principal(Kind.GROUP, id_, text_of(row, "displayName", f"group {id_}"), attributes=_attributes(row))


def members_of(row: Mapping[str, Any], id_: str) -> tuple[tuple[Ref, ...], list[str]]:
    """Members whose kind is told, by `type` or in `$ref`; and the ids of the others."""
    named: dict[Ref, None] = {}
    unknown: dict[str, None] = {}
    for member in rows_of(row.get("members") or [], f"members of group {id_}"):
        value = text_of(member, "value", f"a member of group {id_}")
        kind = _KINDS.get(str(member.get("type")).lower()) or _KINDS.get(_collection(member.get("$ref")))
        if kind is None:
            unknown[value] = None
        else:
            named[Ref(kind, value)] = None
    return tuple(named), list(unknown)


def _collection(link: Any) -> str:
    """What a link leads into: `user` of https://scim.example/v2/Users/2819c223, or of ../Users/2819c223."""
    parts = str(link).partition("?")[0].rstrip("/").split("/")
    return parts[-2].lower().removesuffix("s") if len(parts) > 1 else ""


def settled(untyped: IO[str], users: Seen, groups: Seen) -> Iterator[Members]:
    """Members whose kind the service does not tell, by who is in which list. `untyped`: lines of [group, [id, …]]."""
    untyped.seek(0)
    for line in untyped:
        group, ids = json.loads(line)
        members = []
        for id_ in ids:
            is_user, is_group = id_ in users, id_ in groups
            if is_user and is_group:
                raise BadData(
                    f"group {group}: its member {id_} is a user and a group: the service gives ids twice, and tells "
                    "neither `type` nor `$ref`"
                )
            members.append(Ref(Kind.GROUP if is_group else Kind.USER, id_))
        yield Members(Ref(Kind.GROUP, group), tuple(members))
