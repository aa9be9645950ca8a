"""Users, groups, memberships and administrator roles of an Okta org, whole or what has changed.

API reference: https://developer.okta.com/docs/api/openapi/okta-management/management/
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, TypeVar

from connectors.answers import plain
from connectors.contract import Check, Connector
from connectors.errors import BadData, Forbidden, StaleBookmark
from connectors.managers import Managers
from connectors.okta_options import OktaOptions
from connectors.okta_rows import NAMES, Rows
from connectors.okta_wire import Listing, Org, Page
from connectors.values import Bookmark, Change, Gap, Gone, Kind, Left, Members, Principal, Record, Ref

T = TypeVar("T")

DIRECTORY, ROLES = "directory", "roles"

OVERLAP = 300.0
"""Seconds that are read twice. Okta says its lists lag by less than one; a long import may commit later."""
OLDEST = 30 * 86400.0
"""Seconds. An older bookmark is not followed: the System Log goes back 90 days, and a whole read is as cheap."""

_DELETIONS = ("group.lifecycle.delete", "system.import.group.delete", "user.lifecycle.delete.completed")
_READ, _READ_ROLES = ("okta.users.read", "okta.groups.read"), ("okta.roles.read",)
_LIMIT = ("limit", "200")  # what Okta recommends for all of these; above it, requests time out
_SLIM = ("Content-Type", "application/json; okta-response=omitCredentials,omitCredentialsLinks")

USERS = Listing("users", "/api/v1/users", "okta.users.read", _READ, query=(_LIMIT,), headers=(_SLIM,))
GROUPS = Listing("groups", "/api/v1/groups", "okta.groups.read", _READ, query=(_LIMIT,))
MEMBERS = Listing("members of group {}", "/api/v1/groups/{}/users", "okta.groups.read", _READ, query=(_LIMIT,))
LOG = Listing(
    "the System Log",
    "/api/v1/logs",
    "okta.logs.read",
    ("okta.logs.read",),
    query=(("filter", " or ".join(f'eventType eq "{type_}"' for type_ in _DELETIONS)), _LIMIT),
    role="the standard role Report Administrator (or Read-Only Administrator)",
)
CUSTOM_ROLES = Listing("custom roles", "/api/v1/iam/roles", "okta.iam.read", _READ_ROLES, key="roles")
ADMINS = Listing("users with roles", "/api/v1/iam/assignees/users", "okta.iam.read", _READ_ROLES, key="value")
ROLES_OF_USER = Listing("roles of user {}", "/api/v1/users/{}/roles", "okta.iam.read", _READ_ROLES)
ROLES_OF_GROUP = Listing("roles of group {}", "/api/v1/groups/{}/roles", "okta.iam.read", _READ_ROLES)


class Okta(Connector):
    """Reads one Okta org. Users, groups and members are one scope, since they belong together; roles are another."""

    Options = OktaOptions
    incremental = True

    def __init__(self, options: OktaOptions) -> None:
        self.options = options
        self._org = Org(options)
        self._rows = Rows(self._org.host)

    def scopes(self) -> Iterable[str]:
        """The directory; and the roles, if any own: few logins may read them, and each takes a request a group."""
        return [DIRECTORY, ROLES] if Kind.ROLE in self.kinds else [DIRECTORY]

    def holds(self, scope: str) -> Collection[Kind]:
        """Users and groups, or roles."""
        return {Kind.ROLE} if scope == ROLES else {Kind.USER, Kind.GROUP}

    def close(self) -> None:
        """Close the connections."""
        self._org.close()

    # Whole

    def read(self, scope: str) -> Iterator[Record]:
        """Yield all that `scope` holds. Roles come without a bookmark: Okta tells no changes of them."""
        yield from self._roles() if scope == ROLES else self._directory()

    def _directory(self) -> Iterator[Record]:
        # A filter, since the plain list leaves out deactivated users; this one, since a user whose status changes
        # between two lists would be in both or in neither. Unlike `search`, it reads the most recent data.
        pages = self._org.pages(USERS, filter='lastUpdated gt "1970-01-01T00:00:00.000Z"')
        first = next(pages)
        if not first.rows:  # the login itself belongs to one
            raise self._sees_none(USERS)
        yield from self._users(chain([first], pages))
        if self._groups_own:
            groups = self._org.pages(GROUPS)
            first_groups = next(groups)
            if not first_groups.rows:  # every org has Everyone
                raise self._sees_none(GROUPS)
            rows = chain.from_iterable(page.rows for page in chain([first_groups], groups))
            yield from self._with_members((group, group.id) for group in map(self._rows.group, rows))
        if first.clock is not None:
            if (gap := self._gap(first.clock)) is not None:
                yield gap
            yield self._bookmark(first.clock)

    @property
    def _groups_own(self) -> bool:
        return bool(self.kinds & {Kind.GROUP, Kind.ROLE})

    def _users(self, pages: Iterable[Page]) -> Iterator[Principal]:
        """All users. Those whose managers are named by text come last, when all names are known."""
        with closing(Managers()) as managers:
            for row in chain.from_iterable(page.rows for page in pages):
                user, manager = self._rows.user(row)
                managers.know(user.id, self._rows.names_of(row))
                if manager:
                    managers.wait(user, manager)
                else:
                    yield user
            yield from managers.settle()

    def _with_members(self, records: Iterable[tuple[T, str]]) -> Iterator[T | Members]:
        """These records, and the members of the group whose id is beside one: several groups' are read at once.

        Each group is asked: the counts of `expand=stats` may lag, and an empty group is a finding.
        """
        told: list[T] = []

        def ids() -> Iterator[str]:
            for record, id_ in records:
                told.append(record)
                if id_:
                    yield id_

        for id_, page in self._org.side_by_side(MEMBERS, ids()):
            yield from told
            told.clear()
            members = (Ref(Kind.USER, self._rows.text(it, "id", "a member")) for it in page.rows)
            yield Members(Ref(Kind.GROUP, id_), tuple(members))
        yield from told

    def _sees_none(self, listing: Listing) -> Forbidden:
        return Forbidden(
            f"{self._org.host}: Okta shows no {listing.what}, and every org has some",
            permission=listing.permission,
            remedy=f"grant {listing.permission} for all {listing.what}: "
            "Okta leaves out of a list what the login may not see",
        )

    def _roles(self) -> Iterator[Record]:
        known: set[str] = set()
        for row in self._org.rows(CUSTOM_ROLES):  # those that nobody holds, too
            known.add(id_ := self._rows.text(row, "id", "a custom role"))
            yield Principal(Kind.ROLE, id_, plain(row.get("label")) or id_)
        for holders, listing, kind in ((ADMINS, ROLES_OF_USER, Kind.USER), (GROUPS, ROLES_OF_GROUP, Kind.GROUP)):
            ids = (self._rows.text(holder, "id", f"a {kind}") for holder in self._org.rows(holders))
            for id_, page in self._org.side_by_side(listing, ids):
                for row in page.rows:
                    # A user's list also tells what comes through groups, which are asked themselves.
                    through = self._rows.text(row, "assignmentType", f"a role of {id_}")
                    if through != kind.upper() or row.get("status") == "INACTIVE":
                        continue
                    role = Ref(Kind.ROLE, self._rows.text(row, "role" if row.get("role") else "type", "a role"))
                    if role.id not in known:
                        known.add(role.id)
                        yield Principal(Kind.ROLE, role.id, plain(row.get("label")) or role.id)
                    yield Members(role, (Ref(kind, id_),))

    # What has changed

    def changes(self, scope: str, since: str) -> Iterator[Change]:
        """Yield what Okta has updated after `since`, and what its System Log says was deleted."""
        if scope == ROLES:
            raise StaleBookmark(f"{self._org.host}: Okta tells no changes of roles")
        moment = _moment(since)
        pages = self._org.pages(USERS, filter=f'lastUpdated gt "{since}"')
        first = next(pages)
        if first.clock is None or not 0 <= first.clock - moment <= OLDEST:
            raise StaleBookmark(f"{self._org.host}: changes since {since} are not followed")
        created: list[Ref] = []
        for page in chain([first], pages):
            yield from self._changed_users(page.rows)
            if self._groups_own:
                created += (Ref(Kind.USER, row["id"]) for row in page.rows if self._rows.when(row, "created") > moment)
        if self._groups_own:
            yield from self._with_members(self._changed_groups(since, tuple(created)))
        yield from self._deleted(since, _time(first.clock + 1))  # Date is cut to the second
        yield self._bookmark(first.clock)

    def _bookmark(self, clock: float) -> Bookmark:
        """By the server's clock, from before the first page was asked for: it took no longer than it was allowed to."""
        return Bookmark(_time(clock - self.options.timeout - OVERLAP))

    def _changed_users(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Principal]:
        users = [self._rows.user(row) for row in rows]
        found = self._find({manager for _, manager in users if manager})
        for user, manager in users:
            yield replace(user, manager=found.get(manager)) if manager else user

    def _find(self, names: Iterable[str]) -> dict[str, str]:
        """The ids of those who go by these names: of each name that is exactly one user's."""
        found: dict[str, set[str]] = {name: set() for name in names}
        left = iter(sorted(found))
        while some := list(islice(left, 5)):  # a search that is too long is an error
            clauses = (f'profile.{field} eq "{name}"' for name in some for field in NAMES)
            for row in self._org.rows(USERS, search=" or ".join(clauses)):
                for name in self._rows.names_of(row) & found.keys():  # `search` itself does not heed case
                    found[name].add(self._rows.text(row, "id", "a user"))
        return {name: ids.pop() for name, ids in found.items() if len(ids) == 1}

    def _changed_groups(self, since: str, created: tuple[Ref, ...]) -> Iterator[tuple[Change, str]]:
        """Groups whose profile or membership moved, and beside `Left` the id of a group to be read again."""
        moment = _moment(since)
        for row in self._org.rows(GROUPS, filter=f'lastUpdated gt "{since}" or lastMembershipUpdated gt "{since}"'):
            group = self._rows.group(row)
            yield group, ""
            if row.get("type") == "BUILT_IN" and group.name == "Everyone":
                # Holds every user, always, and moves with each new one: to read it again would be to read all.
                yield Members(group.ref, created), ""
            elif self._rows.when(row, "lastMembershipUpdated") > moment:
                yield Left(group.ref), group.id

    def _deleted(self, since: str, until: str) -> Iterator[Gone | Gap]:
        """What is gone: the System Log tells where to look, the lists tell whether it is so."""
        kinds = {"User": Kind.USER, "UserGroup": Kind.GROUP}
        ids: dict[Kind, set[str]] = {kind: set() for kind in kinds.values()}
        try:
            for page in self._org.pages(LOG, since=since, until=until):
                if not page.rows:  # its last page may link to a next one
                    break
                for target in chain.from_iterable(map(self._rows.targets, page.rows)):
                    if (kind := kinds.get(str(target.get("type")))) is not None:
                        ids[kind].add(self._rows.text(target, "id", "a deleted object in the System Log"))
        except Forbidden as error:
            yield _deletions_hidden(error)
        for listing, kind in ((USERS, Kind.USER), (GROUPS, Kind.GROUP)):
            left = iter(sorted(ids[kind]))
            while (some := list(islice(left, 40))) and (self._groups_own or kind is Kind.USER):
                if not all(re.fullmatch(r"\w{1,64}", id_, re.ASCII) for id_ in some):
                    raise BadData(f"{self._org.host}: an id in the System Log is none")
                rows = self._org.rows(listing, filter=" or ".join(f'id eq "{id_}"' for id_ in some))
                there = {row.get("id") for row in rows}
                yield from (Gone(Ref(kind, id_)) for id_ in some if id_ not in there)

    # Whether it may

    def check(self) -> Iterator[Check]:
        """Ask each list for one entry, and tell every permission that is missing."""
        clock: float | None = None
        for listing in (USERS, GROUPS, *((CUSTOM_ROLES, ADMINS) if Kind.ROLE in self.kinds else ())):
            try:
                few = {"limit": "1"} if _LIMIT in listing.query else {}
                rows, _, clock = self._org.first(listing, **few)
                if not rows and listing in {USERS, GROUPS}:
                    raise self._sees_none(listing)
            except Forbidden as error:
                yield Check(f"read {listing.what}", ok=False, detail=error.message, remedy=error.remedy)
            else:
                yield Check(f"read {listing.what}", ok=True)
        gap = self._gap(clock)
        yield Check(f"read {LOG.what}", ok=True, detail=gap.message if gap else "", remedy=gap.remedy if gap else "")

    def _gap(self, clock: float | None) -> Gap | None:
        """Ask the System Log for a second's deletions, to see whether it may be read."""
        second = {"since": _time(clock - 1), "until": _time(clock)} if clock is not None else {}
        try:
            self._org.first(LOG, **second, limit="1")
        except Forbidden as error:
            return _deletions_hidden(error)
        return None


def _deletions_hidden(error: Forbidden) -> Gap:
    return Gap(
        "deletions_late",
        f"{error.message}: groups and users that are deleted stay until the next whole read",
        error.remedy,
    )


def _time(seconds: float) -> str:
    """A moment as Okta writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _moment(bookmark: str) -> float:
    """The moment of a bookmark, in seconds since the epoch."""
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", bookmark, re.ASCII):
            return datetime.fromisoformat(bookmark).timestamp()
    except ValueError:
        pass
    raise StaleBookmark("the bookmark is none of ours")
