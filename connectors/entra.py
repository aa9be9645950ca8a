"""Users, groups, memberships and roles of a Microsoft Entra tenant, by Microsoft Graph.

A whole read lists the users, and lets the first round of a delta query tell groups and directory roles with all their
members: the one call that does not cost a request a group. Later rounds tell what has changed since.
https://learn.microsoft.com/graph/delta-query-overview
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from urllib.parse import quote

from connectors.azure_auth import AzureCredentials, credential
from connectors.contract import Check, Connector
from connectors.entra_rows import (
    GROUPS,
    ROLES,
    USERS,
    Collection,
    Row,
    app_roles_of,
    hides_members,
    id_of,
    linked,
    manager_of,
    members_of,
    principal_of,
    removed,
)
from connectors.errors import Forbidden, Incomplete, StaleBookmark
from connectors.graph import Graph
from connectors.values import Bookmark, Change, Gap, Gone, Kind, Left, Members, Principal, Record, Ref

FOLLOWED = {"users": USERS, "groups": GROUPS, "roles": ROLES}
"""Scopes that delta queries tell of."""
APP_ROLES = "app_roles"
READ_APPS = "Application.Read.All"

_MOST = "$top=999"
_MANAGER = "$expand=manager($select=id)"
_IDS_AT_ONCE = 15
"""Values that an `in` may have: https://developer.microsoft.com/graph/known-issues/?search=13635"""


class EntraOptions(AzureCredentials):
    """Options of the `entra` connector."""


class Entra(Connector):
    """Reads one tenant. Users, groups and roles are scopes of their own: each has its own permission and bookmark."""

    Options = EntraOptions
    incremental = True

    def __init__(self, options: EntraOptions) -> None:
        self._graph = Graph(options, credential(options))

    def scopes(self) -> Iterable[str]:
        """Users always; groups, if they or roles own; roles, if those own: few logins may read them."""
        found = ["users"]
        if self.kinds & {Kind.GROUP, Kind.ROLE}:
            found.append("groups")
        if Kind.ROLE in self.kinds:
            found += ["roles", APP_ROLES]
        return found

    def holds(self, scope: str) -> frozenset[Kind]:
        """Each scope holds one kind."""
        return frozenset({FOLLOWED[scope].kind if scope in FOLLOWED else Kind.ROLE})

    def close(self) -> None:
        """Close the connections."""
        self._graph.close()

    # Whole reads

    def read(self, scope: str) -> Iterator[Record]:
        """Yield all that `scope` holds."""
        try:
            if scope == APP_ROLES:
                yield from self._app_roles()
            elif scope == "users":
                yield from self._users()
            else:
                yield from self._with_members(FOLLOWED[scope])
        except StaleBookmark as error:  # of a round that began just now
            raise Incomplete(error.message, remedy="the next run begins anew") from error

    def _users(self) -> Iterator[Record]:
        """A list, since rounds leave out managers at times, and may tell a user twice."""
        yield self._now(USERS)
        user = None
        for row in self._rows(f"users?{USERS.list}&{_MANAGER}&{_MOST}", USERS.permission):
            user = principal_of(USERS, row, manager_of(row))
            yield user
        if user is None:  # whoever made the tenant is one
            raise Forbidden(
                "Graph shows no users, and every tenant has some",
                permission=USERS.permission,
                remedy=_grant(USERS.permission),
            )

    def _with_members(self, of: Collection) -> Iterator[Record]:
        """Groups or directory roles. One with many members comes again, with more of them.

        Who leaves meanwhile stays for now: the bookmark was taken before, and the changes after it tell that.
        """
        yield self._now(of)
        seen: set[str] = set()
        hidden: dict[str, Principal] = {}
        query = None
        for rows, query in self._graph.pages(f"{of.path}/delta?{of.round}", of.permission):  # noqa: B007
            for row in rows:
                if removed(row):
                    continue
                it = principal_of(of, row)
                members = [ref for one in linked(row, of) or () if not removed(one) for ref in members_of(one)]
                if it.id not in seen:
                    seen.add(it.id)
                    if hides_members(row) and not members:
                        hidden[it.id] = it
                    else:
                        yield it
                elif members and it.id in hidden:
                    yield hidden.pop(it.id)
                if members:
                    yield Members(it.ref, tuple(members))
        self._bookmark(of, query)  # it was a whole round
        if hidden:
            yield _gap(f"groups whose members are hidden are left out: {_names(hidden.values())}")

    def _now(self, of: Collection) -> Bookmark:
        """The bookmark of this moment."""
        start = "&".join(filter(None, ("$deltatoken=latest", of.round)))
        query = None
        for _, query in self._graph.pages(f"{of.path}/delta?{start}", of.permission):  # noqa: B007
            pass
        return self._bookmark(of, query)

    def _bookmark(self, of: Collection, query: str | None) -> Bookmark:
        """Of a delta link only the query is kept, which holds no secret: it must not lead anywhere else."""
        if query is None or not _resumes(query):
            raise Incomplete(f"{of.path}/delta: it ended without a delta link")
        return Bookmark(query)

    # Changes

    def changes(self, scope: str, since: str) -> Iterator[Change]:
        """Yield what has changed in `scope`. Bookmarks live for seven days."""
        of = FOLLOWED[scope]
        if not _resumes(since):
            raise StaleBookmark(f"{of.path}/delta: that is no bookmark of {scope}")
        query = None
        for rows, query in self._graph.pages(f"{of.path}/delta?{since}", of.permission, resuming=True):  # noqa: B007
            stored = self._stored(of, [id_of(row, f"a {of.kind}") for row in rows if not removed(row)])
            for row in rows:
                yield from self._change(of, row, stored)
        yield self._bookmark(of, query)

    def _stored(self, of: Collection, ids: Sequence[str]) -> dict[str, Row]:
        """These objects, whole: a round may tell only what changed."""
        found: dict[str, Row] = {}
        if ids and of is ROLES:  # it takes no filter, and lists at most the built-in ones
            found = {id_of(row, "a role"): row for row in self._rows(of.path, of.permission)}
        elif ids:
            unique = list(dict.fromkeys(ids))
            for start in range(0, len(unique), _IDS_AT_ONCE):
                wanted = ",".join(f"'{id_}'" for id_ in unique[start : start + _IDS_AT_ONCE])
                query = f"{of.list}&$filter={quote(f'id in ({wanted})')}" + (f"&{_MANAGER}" if of is USERS else "")
                found |= {id_of(row, of.path): row for row in self._rows(f"{of.path}?{query}", of.permission)}
        return found

    def _change(self, of: Collection, row: Row, stored: Mapping[str, Row]) -> Iterator[Change]:
        ref = Ref(of.kind, id_of(row, f"a {of.kind}"))
        if removed(row):  # for good, or to the bin
            yield Gone(ref)
            return
        if ref.id not in stored and not all(key in row for key in of.needed):
            raise StaleBookmark(f"{of.path}/delta: {ref.id} has changed, and is not to be found")
        # The copy that was asked may lag behind the one that told the change: what that told wins.
        whole = {**stored.get(ref.id, {}), **row}
        links = linked(row, of)
        if of is USERS:
            manager = manager_of(whole)
            if links is not None:
                manager = next((id_of(one, "a manager") for one in reversed(links) if not removed(one)), None)
            yield principal_of(of, whole, manager)
            return
        it = principal_of(of, whole)
        if hides_members(whole) and all(removed(one) for one in links or ()) and not self._shows_members(it):
            yield Gone(ref)
            yield _gap(f"groups whose members are hidden are left out, at least: {_names([it])}")
            return
        yield it
        for gone, ones in groupby(links or (), removed):
            members = tuple(member for one in ones for member in members_of(one))
            yield Left(ref, members) if gone else Members(ref, members)

    def _shows_members(self, group: Principal) -> bool:
        return any(True for _ in self._rows(f"groups/{group.id}/members?$select=id&$top=1", GROUPS.permission))

    # App roles

    def _app_roles(self) -> Iterator[Record]:
        """Roles of applications that people can hold. Nothing tells their changes: without a bookmark.

        A role that a group holds is its direct members', not those' of groups in it:
        https://learn.microsoft.com/graph/api/resources/approleassignment
        """
        held: dict[str, list[Ref]] = {}
        for app in self._rows(f"servicePrincipals?$select=id,appId,displayName,appRoles&{_MOST}", READ_APPS):
            roles = {role.id: role for role in app_roles_of(app)}
            yield from roles.values()
            if not roles:
                continue
            id_ = id_of(app, "a service principal")
            for row in self._rows(f"servicePrincipals/{id_}/appRoleAssignedTo?{_MOST}", READ_APPS):
                role = roles.get(f"{id_}/{row.get('appRoleId')}")
                holder = id_of(row, "an app role's assignment", "principalId")
                if role is None:  # one that is off, is for applications, or the access without any role
                    continue
                if row.get("principalType") == "Group":
                    held.setdefault(holder, []).append(role.ref)
                else:
                    yield Members(role.ref, (Ref(Kind.USER, holder),))
        unseen = []
        for group, refs in held.items():
            shown = False
            for rows, _ in self._graph.pages(f"groups/{group}/members?$select=id&{_MOST}", GROUPS.permission):
                shown = shown or bool(rows)
                users = tuple(ref for row in rows for ref in members_of(row) if ref.kind is Kind.USER)
                yield from (Members(ref, users) for ref in refs if users)
            if not shown:
                unseen += [
                    principal_of(GROUPS, row) for row in self._stored(GROUPS, [group]).values() if hides_members(row)
                ]
        if unseen:
            yield _gap(
                f"app roles held through groups whose members are hidden look as if nobody did: {_names(unseen)}"
            )

    # Checks, and what all share

    def check(self) -> Iterator[Check]:
        """Ask each scope for as little as it gives, and tell every permission that is missing."""
        paths = {scope: f"{of.path}/delta?$deltatoken=latest" for scope, of in FOLLOWED.items()}
        paths |= {"users": "users?$select=id,accountEnabled&$top=1", APP_ROLES: "servicePrincipals?$select=id&$top=1"}
        for scope in self.scopes():
            permission = FOLLOWED[scope].permission if scope in FOLLOWED else READ_APPS
            try:
                rows = next(rows for rows, _ in self._graph.pages(paths[scope], permission))
            except Forbidden as error:
                yield Check(f"read {scope}", ok=False, detail=error.message, remedy=_grant(permission))
                continue
            if scope == "users" and not any(isinstance(row.get("accountEnabled"), bool) for row in rows):
                yield Check("read users", ok=False, detail="Graph shows no user whole", remedy=_grant(permission))
            else:
                yield Check(f"read {scope}", ok=True)

    def _rows(self, path: str, permission: str) -> Iterator[Row]:
        for rows, _ in self._graph.pages(path, permission):
            yield from rows


def _grant(permission: str) -> str:
    return f"grant the application permission {permission} of Microsoft Graph, with admin consent"


def _resumes(query: str) -> bool:
    return re.fullmatch(r"[!-~]*(\$|%24)deltatoken=[!-~]+", query, re.IGNORECASE) is not None and "#" not in query


def _gap(message: str) -> Gap:
    return Gap("hidden_membership", message, _grant("Member.Read.Hidden"))


def _names(groups: Iterable[Principal]) -> str:
    names = [f'"{group.name}"' for group in groups]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
