"""What Graph's objects are to us: users, groups, roles, and who belongs to them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from connectors.answers import attributes_of, plain
from connectors.errors import BadData
from connectors.values import Kind, Principal, Ref

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Collection:
    """Objects of one type. An object that lacks one of `needed` is not whole."""

    path: str
    kind: Kind
    permission: str
    select: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    followed: str = "members"
    """The relationship that delta queries tell of."""

    @property
    def list(self) -> str:
        """The query of a list."""
        return f"$select={','.join(self.select)}"

    @property
    def round(self) -> str:
        """The query that begins a round of a delta query."""
        return f"$select={','.join((*self.select, self.followed))}" if self.select else ""


USERS = Collection(
    "users",
    Kind.USER,
    "User.Read.All",
    (
        *("id", "displayName", "userPrincipalName", "mail", "proxyAddresses", "otherMails", "mailNickname"),
        *("accountEnabled", "userType", "givenName", "surname", "jobTitle", "department", "companyName"),
        *("officeLocation", "city", "state", "country", "usageLocation", "employeeId", "employeeType"),
        *("onPremisesSamAccountName", "onPremisesDomainName", "onPremisesUserPrincipalName"),
        "onPremisesExtensionAttributes",
    ),
    ("userPrincipalName", "accountEnabled"),
    followed="manager",
)
GROUPS = Collection(
    "groups",
    Kind.GROUP,
    "GroupMember.Read.All",
    (
        *("id", "displayName", "description", "mail", "mailNickname", "proxyAddresses", "groupTypes"),
        *("securityEnabled", "mailEnabled", "visibility", "classification", "isAssignableToRole"),
        *("onPremisesSamAccountName", "onPremisesDomainName"),
    ),
    ("displayName",),
)
ROLES = Collection(  # without a query: they have few properties, and tell their members unasked
    "directoryRoles", Kind.ROLE, "RoleManagement.Read.Directory", needed=("displayName", "roleTemplateId")
)

_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def id_of(row: Row, what: str, key: str = "id") -> str:
    """The id of an object, fit for a path."""
    found = row.get(key)
    if not isinstance(found, str) or not _GUID.fullmatch(found):
        raise BadData(f"{what} has no {key} that is a GUID")
    return found


def principal_of(of: Collection, row: Row, manager: str | None = None) -> Principal:
    """A user, a group or a directory role."""
    id_ = id_of(row, f"a {of.kind}")
    what = f"{of.kind} {id_}"
    login, mail = plain(row.get("userPrincipalName")), plain(row.get("mail"))
    active = row.get("accountEnabled")
    if of is USERS:
        login = _text(row, "userPrincipalName", what)
        if not isinstance(active, bool):
            raise BadData(f"{what} has no accountEnabled", remedy=f"grant {of.permission}: User.ReadBasic.All hides it")
    else:
        active = True
    email = mail or login
    extension = row.get("onPremisesExtensionAttributes")
    flat = {**row, **(extension if isinstance(extension, dict) else {})}
    return Principal(
        of.kind,
        id_,
        (plain(row.get("displayName")) or login) if login else _text(row, "displayName", what),
        email,
        active,
        manager,
        _aliases(row, email, login),
        attributes_of(
            {key: value for key, value in flat.items() if "@" not in key},
            but=frozenset({"id", "displayName", "mail"}),
        ),
    )


def _text(row: Row, key: str, what: str) -> str:
    if not isinstance(value := row.get(key), str) or not value:
        raise BadData(f"{what} has no {key}")
    return value


def _aliases(row: Row, email: str | None, login: str | None) -> tuple[str, ...]:
    """Further addresses: the login, and what Exchange delivers. Not `otherMails`, which nothing verifies."""
    told = row.get("proxyAddresses") or ()
    found = [login or "", *(a[5:] for a in told if isinstance(a, str) and a[:5].casefold() == "smtp:")]
    return tuple(dict.fromkeys(a for a in found if a and a.casefold() != (email or "").casefold()))


def manager_of(row: Row) -> str | None:
    """The id of the manager that a list has expanded."""
    manager = row.get("manager")
    return None if manager is None else id_of(manager if isinstance(manager, dict) else {}, "a manager")


def linked(row: Row, of: Collection) -> list[Row] | None:
    """What a round tells of the relationship that is followed; None if nothing."""
    key = f"{of.followed}@delta"
    told = row.get(key)
    if told is not None and not (isinstance(told, list) and all(isinstance(one, dict) for one in told)):
        raise BadData(f"{of.path}/delta: {key} is no list of objects")
    return told


def removed(row: Row) -> bool:
    """Whether a round tells that an object, or a link to it, is no more."""
    return "@removed" in row


def members_of(row: Row) -> tuple[Ref, ...]:
    """One member. What is neither user nor group (a device, an application) is named as a user that nobody lists."""
    id_, type_ = id_of(row, "a member"), row.get("@odata.type")
    if isinstance(type_, str):
        return (Ref(Kind.GROUP if type_ == "#microsoft.graph.group" else Kind.USER, id_),)
    if removed(row):
        return Ref(Kind.USER, id_), Ref(Kind.GROUP, id_)
    raise BadData(f"member {id_} has no @odata.type")


def hides_members(row: Row) -> bool:
    """Whether a group's members are shown only to who has `Member.Read.Hidden`: others see none."""
    return row.get("visibility") == "HiddenMembership"


def app_roles_of(app: Row) -> Iterator[Principal]:
    """The roles of a service principal that are on, and that people can hold."""
    id_ = id_of(app, "a service principal")
    roles = app.get("appRoles")
    if not isinstance(roles, list) or not all(isinstance(role, dict) for role in roles):
        raise BadData(f"service principal {id_} has no appRoles")
    for role in roles:
        if role.get("isEnabled") is not True or "User" not in (role.get("allowedMemberTypes") or ()):
            continue
        # With the application's name, since whoever may register one may call its roles anything.
        names = (plain(app.get("displayName")), plain(role.get("displayName")))
        about = {"value": role.get("value"), "appId": app.get("appId"), "app": app.get("displayName")}
        yield Principal(
            Kind.ROLE,
            f"{id_}/{id_of(role, 'an app role')}",
            "/".join(filter(None, names)),
            attributes=attributes_of(about),
        )
