"""Users, groups and memberships of any SCIM 2.0 service, whole or what has changed.

RFC 7643 (schemas), RFC 7644 (protocol), RFC 9865 (cursors). Pages are read raw: with its checks on, scim2-client takes
264 ms for 1000 users where this takes 6, refuses what real services leave out or add, and has no paging of its own;
with its checks off it is the HTTP client below it.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from pydantic import Field

from connectors.contract import Check, Connector
from connectors.errors import BadData, ConnectorError, Forbidden, Misconfigured, StaleBookmark
from connectors.http import Api
from connectors.moving import TRIES
from connectors.options import HttpOptions, Secret
from connectors.scim_changes import (
    NEVER,
    Following,
    Mark,
    Survey,
    marks_of,
    modified_since,
    moments_of,
    token_of,
)
from connectors.scim_lists import Lists, meant, right, told
from connectors.scim_rows import group_of, members_of, settled, user_of
from connectors.seen import Seen
from connectors.values import Bookmark, Change, Gap, Kind, Left, Members, Record

DIRECTORY = "directory"

GROUP_ATTRIBUTES = "id,displayName,externalId,members"
"""Asked for by name, since `members` may come on request only (RFC 7643, 7: "returned")."""
_HIDDEN = Gap(
    "members_hidden",
    "the service tells no members of any group: all groups look empty, and own nothing",
    "let the token's owner see memberships; if the service never tells them, read the system that fills it instead",
)


class ScimOptions(HttpOptions):
    """Options of the `scim` connector."""

    endpoint: str = Field(description="Base URL of the service: what /Users and /Groups are under.")
    token: Secret = Field(description="Bearer token.")


class Scim(Connector):
    """Reads one SCIM service. Users and groups are one scope, since they belong together."""

    Options = ScimOptions
    incremental = True

    def __init__(self, options: ScimOptions) -> None:
        self._patience = options.timeout
        self._api = Api(
            options,
            options.endpoint,
            headers={"Authorization": f"Bearer {options.token.value}", "Accept": "application/scim+json"},
            told=told,
            meant=meant,
        )
        self._lists = Lists(self._api)

    def close(self) -> None:
        """Let go of connections."""
        self._api.close()

    def scopes(self) -> Iterable[str]:
        """The directory."""
        return [DIRECTORY]

    def holds(self, scope: str) -> Collection[Kind]:
        """SCIM's roles are a user's attributes."""
        del scope
        return frozenset({Kind.USER, Kind.GROUP})

    @property
    def _paths(self) -> tuple[str, ...]:
        """The lists that are read: groups only if they own."""
        return ("Users", "Groups") if Kind.GROUP in self.kinds else ("Users",)

    # Whole

    def read(self, scope: str) -> Iterator[Record]:
        """Yield users; groups with their members, if they own; a bookmark, if the service proves that it can go on."""
        del scope
        marks: dict[str, Mark] = {}
        with Seen() as users, Seen() as groups, tempfile.TemporaryFile("w+") as untyped:
            for row in self._surveyed("Users", marks):
                user = user_of(row)
                users.add(user.id)
                yield user
            empty = None
            for row in self._surveyed("Groups", marks) if "Groups" in self._paths else ():
                group = group_of(row)
                groups.add(group.id)
                yield group
                named, unknown = members_of(self._with_members(row), group.id)
                empty = not (named or unknown) and empty is not False
                yield Members(group.ref, named)
                if unknown:  # told from groups when all groups are known
                    untyped.write(json.dumps([group.id, unknown]) + "\n")
            yield from settled(untyped, users, groups)
        if empty:
            yield _HIDDEN
        elif len(marks) == len(self._paths):
            yield Bookmark(token_of(marks))

    def _surveyed(self, path: str, marks: dict[str, Mark]) -> Iterator[dict[str, Any]]:
        """The rows of a list; at its end its mark, if it can be followed from there."""
        survey = Survey()
        for row in self._all(path):
            survey.see(row, self._lists.clock)
            yield row
        if (mark := survey.mark()) is not None and self._is_proven(path, survey):
            marks[path] = mark

    def _all(self, path: str) -> Iterator[dict[str, Any]]:
        rows = self._lists.rows(path, **self._query(path))
        try:
            first = list(islice(rows, 1))
        except BadData:
            if path == "Users" or not self._lists.provider.filters:
                raise
            first, rows = [], self._lists.rows(path, attributes=GROUP_ATTRIBUTES)  # it may not know `meta` by name
        return chain(first, rows)

    def _query(self, path: str) -> dict[str, str]:
        """What is asked of a list: moments only where they may be of use."""
        if path == "Users":
            return {}
        return {"attributes": f"{GROUP_ATTRIBUTES},meta" if self._lists.provider.filters else GROUP_ATTRIBUTES}

    def _is_proven(self, path: str, survey: Survey) -> bool:
        """Whether the service tells lengths as they are, and filters by `meta.lastModified`, as it says.

        Many say so and do not: they take the filter for none, find nothing with it, or refuse it.
        """
        if not self._lists.provider.filters:
            return False
        latest = modified_since(survey.last - 1)
        try:
            rows, total = self._lists.first(path, filter=latest, **self._query(path))
            moments = [moments_of(row) for row in rows]
            return (
                self._lists.total(path) == survey.rows
                and self._lists.total(path, filter=modified_since(NEVER)) == 0
                and total >= survey.at_last
                and len(moments) > 0
                and all(of is not None and of.modified >= survey.last - 1 for of in moments)
            )
        except ConnectorError:  # the list itself was read: only its changes cannot be
            return False

    def _with_members(self, row: dict[str, Any]) -> Mapping[str, Any]:
        """The group with its members: a list may leave them out, and a group of none has no `members` either."""
        if row.get("members") is not None:
            return row
        return self._lists.one("Groups", row["id"], attributes=GROUP_ATTRIBUTES)

    # What has changed

    def changes(self, scope: str, since: str) -> Iterator[Change]:
        """Yield what was modified since, if the length of each list tells that nothing else was added or deleted.

        Whether a change of members modifies a group is the service's affair: RFC 7643 says so, and some do not.
        """
        del scope
        marks = marks_of(since, self._paths)
        if not self._lists.provider.filters:
            raise StaleBookmark("ServiceProviderConfig tells of no filters any more")
        try:
            yield from self._changes(marks)
        except (BadData, Misconfigured, Forbidden) as error:  # of the filter, it may be: a whole read has none
            raise StaleBookmark(error.message) from error

    def _changes(self, marks: Mapping[str, Mark]) -> Iterator[Change]:
        found: dict[str, Mark] = {}
        for row in self._followed("Users", marks, found):
            yield user_of(row)
        untyped: dict[str, list[str]] = {}
        for row in self._followed("Groups", marks, found) if "Groups" in marks else ():
            group = group_of(row)
            named, untyped[group.id] = members_of(self._with_members(row), group.id)
            yield group
            yield Left(group.ref)
            yield Members(group.ref, named)
        yield from self._told_apart({group: ids for group, ids in untyped.items() if ids})
        yield Bookmark(token_of(found))

    def _followed(self, path: str, marks: Mapping[str, Mark], found: dict[str, Mark]) -> Iterator[dict[str, Any]]:
        """The rows of a list that were modified since its mark; at the end, the mark of now.

        Deletions leave no trace but the list's length: it must be what it was, and those that were created since. One
        that is longer was added to just now: then it is asked again.
        """
        mark = marks[path]
        for _ in range(TRIES):
            now = Following(mark)
            for row in self._lists.rows(path, filter=modified_since(mark.since), **self._query(path)):
                now.see(row, self._lists.clock)
                yield row
            now.hear(self._lists.clock)
            mark = replace(mark, recent=now.recent)
            if not now.rows and not self._lists.total(path, filter=modified_since(mark.last - 1)):
                raise StaleBookmark(f"/{path}: what was modified last is not found again")
            total = self._lists.total(path)
            if total == now.total:
                found[path] = now.mark(self._patience)
                return
            if total < now.total:
                break
        raise StaleBookmark(f"/{path}: {total} rows, and by its changes {now.total}")

    def _told_apart(self, untyped: Mapping[str, list[str]]) -> Iterator[Members]:
        """Members whose kind the service does not tell, by the list of all groups."""
        if not untyped:
            return
        ids = {id_ for members in untyped.values() for id_ in members}
        with Seen() as users, Seen() as groups:
            for row in self._lists.rows("Groups", attributes="id"):
                groups.add(row["id"])
                if row["id"] in ids and self._is_user(row["id"]):
                    users.add(row["id"])
            lines = "\n".join(json.dumps([group, members]) for group, members in untyped.items())
            yield from settled(io.StringIO(lines), users, groups)

    def _is_user(self, id_: str) -> bool:
        try:
            self._lists.one("Users", id_, attributes="id")
        except Misconfigured:  # 404
            return False
        return True

    # Whether it may

    def check(self) -> Iterator[Check]:
        """Ask each list that a run reads for one row."""
        for path in self._paths:
            try:
                self._api.get(path, permission=right(path), count=1)
            except Forbidden as error:
                yield Check(f"read /{path}", ok=False, detail=error.message, remedy=error.remedy)
            else:
                paged = "by cursor" if self._lists.provider.cursor else "by index"
                yield Check(f"read /{path}", ok=True, detail=paged)
