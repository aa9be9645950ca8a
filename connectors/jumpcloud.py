"""Users, user groups and memberships of a JumpCloud organization.

API reference: https://docs.jumpcloud.com/api/1.0/ (users), https://docs.jumpcloud.com/api/2.0/ (groups, their members)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from pydantic import Field

from connectors.answers import attributes_of, gone_meanwhile, plain, rows_of, text_of
from connectors.contract import Check, Connector
from connectors.errors import BadData, ConnectorError, Forbidden, Incomplete, ServerFault
from connectors.http import Answer, Api, part
from connectors.moving import Moved, each_once
from connectors.options import HttpOptions, Secret
from connectors.paging import Pages
from connectors.values import Kind, Members, Principal, Record, Ref

DIRECTORY = "directory"
RIGHT = "the admin role Read Only"
"""https://jumpcloud.com/support/admin-portal-roles"""
_KINDS = {"user": Kind.USER, "user_group": Kind.GROUP}
_FIELDS = frozenset(
    {"id", "_id", "name", "email", "organization", "public_key", "suspended", "activated", "attributes", "type"}
)
_PASSING = frozenset(
    {
        "badLoginAttempts", "account_locked", "account_locked_date", "password_date", "password_expired",
        "password_expiration_date", "externalPasswordExpirationDate", "lastLogin", "tempPassword",
    }
)  # fmt: skip
"""What comes and goes with each login."""


class JumpCloudOptions(HttpOptions):
    """Options of the `jumpcloud` connector."""

    api_key: Secret = Field(description="API key of an administrator; Read Only is enough.")
    org_id: str | None = Field(None, description="Organization id; for a key that may see several.")


class JumpCloud(Connector):
    """Reads one organization. Users and groups are one scope, since they belong together."""

    Options = JumpCloudOptions
    limit: ClassVar[int] = 100
    """Entries a page: the most that JumpCloud gives; to ask for more is an error."""

    def __init__(self, options: JumpCloudOptions) -> None:
        org = {} if options.org_id is None else {"x-org-id": options.org_id}
        self._api = Api(
            options,
            options.endpoint or "https://console.jumpcloud.com",
            headers={"x-api-key": options.api_key.value, "Accept": "application/json", **org},
            credentials="the API key",
            meant=_meant,
        )

    def close(self) -> None:
        """Let go of connections."""
        self._api.close()

    def scopes(self) -> Iterable[str]:
        """The directory."""
        return [DIRECTORY]

    def holds(self, scope: str) -> Collection[Kind]:
        """Users and groups."""
        del scope
        return frozenset({Kind.USER, Kind.GROUP})

    def read(self, scope: str) -> Iterator[Record]:
        """Yield users; groups with their members, if they own."""
        del scope
        for row in each_once("users", lambda _: self._users(), lambda row: text_of(row, "_id", "a user")):
            yield _user(row)
        if Kind.GROUP not in self.kinds:
            return
        for row in each_once("groups", lambda _: self._groups(), lambda row: text_of(row, "id", "a group")):
            group = _group(row)
            yield group
            yield Members(group.ref, tuple(self._members(group.id)))

    # Lists

    def _users(self) -> Iterator[list[dict[str, Any]]]:
        def page(skip: int) -> tuple[list[dict[str, Any]], int]:
            body = self._get("api/systemusers", skip, sort="_id").body
            return rows_of(part(body, "results", list, "users"), "users"), part(body, "totalCount", int, "users")

        return self._linked("users", page, lambda row: row.get("_id"))

    def _groups(self) -> Iterator[list[dict[str, Any]]]:
        def page(skip: int) -> tuple[list[dict[str, Any]], int | None]:
            answer = self._get("api/v2/usergroups", skip)
            return _rows(answer, "groups"), _total(answer)

        return self._linked("groups", page, lambda row: row.get("id"))

    def _linked(
        self,
        what: str,
        page: Callable[[int], tuple[list[dict[str, Any]], int | None]],
        id_of: Callable[[dict[str, Any]], Any],
    ) -> Iterator[list[dict[str, Any]]]:
        """The pages of a list, each but the first asked for from the last row of the one before.

        If it does not begin with that row, the list has moved. The end is where a page holds nothing new.
        """
        pages = Pages(what)
        count, last = 0, None
        while True:
            rows, total = page(count if last is None else int(pages.turn(str(count - 1))))
            if last is not None:
                if not rows or id_of(rows[0]) != last:
                    raise Moved(f"the page at {count} did not begin where the one before ended")
                rows = rows[1:]
            yield rows
            count += len(rows)
            if not rows:
                break
            last = id_of(rows[-1])
        if total is not None and count < total:
            raise Incomplete(f"{what}: {count} of {total}, and no further page")

    def _members(self, group: str) -> Iterator[Ref]:
        """The members of a group. JumpCloud counts some here that it does not show: a short page is no end."""
        what = f"members of group {group}"

        def pages(_attempt: int) -> Iterator[list[dict[str, Any]]]:
            skip, last = 0, None
            totals: set[int | None] = set()
            while True:
                answer = self._get(f"api/v2/usergroups/{quote(group, safe='')}/members", skip)
                found, total = _rows(answer, what), _total(answer)
                rows = [part(row, "to", dict, what) for row in found]
                totals.add(total)
                if len(totals) > 1:
                    raise Moved("the number of members changed")
                if last is not None:
                    if not rows or rows[0].get("id") != last:
                        raise Moved(f"the page at {skip} did not begin where the one before ended")
                    rows = rows[1:]
                yield rows
                if not rows if total is None else skip + self.limit >= total:
                    return
                full = len(found) == self.limit  # its last row is at the page's last place
                last = found[-1]["to"].get("id") if full and self.limit > 1 else None
                skip += self.limit - (last is not None)

        for row in each_once(what, pages, lambda row: text_of(row, "id", f"a member of group {group}")):
            kind = _KINDS.get(text_of(row, "type", f"a member of group {group}"))
            if kind is None:
                raise BadData(f"{what}: one is of no kind that a user group may have")
            yield Ref(kind, row["id"])

    def _get(self, path: str, skip: int, **query: Any) -> Answer:
        return self._api.get(path, permission=RIGHT, limit=self.limit, skip=skip, **query)

    # Whether it may

    def check(self) -> Iterator[Check]:
        """Ask each list that a run reads for one entry."""
        lists = {"users": "api/systemusers", "groups": "api/v2/usergroups"}
        for what, path in lists.items():
            if what == "groups" and Kind.GROUP not in self.kinds:
                continue
            try:
                self._api.get(path, permission=RIGHT, limit=1)
            except Forbidden as error:
                yield Check(f"read {what}", ok=False, detail=error.message, remedy=error.remedy)
            else:
                yield Check(f"read {what}", ok=True)


def _rows(answer: Answer, what: str) -> list[dict[str, Any]]:
    if not isinstance(answer.body, list):
        raise ServerFault(f"{what}: the answer is no list")
    return rows_of(answer.body, what)


def _total(answer: Answer) -> int | None:
    """How many there are, where the answer tells it."""
    told = answer.headers.get("x-total-count", "")
    return int(told) if told.isascii() and told.isdecimal() else None


def _user(row: Mapping[str, Any]) -> Principal:
    id_ = text_of(row, "_id", "a user")
    what = f"user {id_}"
    login = text_of(row, "username", what)
    whole = " ".join(text for key in ("firstname", "lastname") if (text := plain(row.get(key))))
    attributes = attributes_of(row, but=_FIELDS | _PASSING | {"manager"})
    for custom in rows_of(row.get("attributes") or [], f"attributes of {what}"):
        attributes = attributes_of({text_of(custom, "name", what): custom.get("value")}, but=_FIELDS) | attributes
    return Principal(
        Kind.USER,
        id_,
        plain(row.get("displayname")) or whole or login,
        text_of(row, "email", what),
        _active(row, what),
        _manager(row.get("manager"), what),
        attributes=attributes,
    )


def _active(row: Mapping[str, Any], what: str) -> bool:
    """Who has set a password, and is neither staged nor suspended. A lock after wrong passwords passes."""
    flags = [row.get(key) for key in ("activated", "suspended")]
    state = row.get("state")
    if not all(isinstance(flag, bool) for flag in flags) or not (state is None or isinstance(state, str)):
        raise BadData(f"{what}: it is not told whether the account is active")
    return flags == [True, False] and state in {None, "ACTIVATED"}


def _manager(told: Any, what: str) -> str | None:
    """A user's id."""
    if told is not None and not isinstance(told, str):
        raise BadData(f"{what}: the manager is no id")
    return told or None


def _group(row: Mapping[str, Any]) -> Principal:
    id_ = text_of(row, "id", "a group")
    name = text_of(row, "name", f"group {id_}")
    return Principal(Kind.GROUP, id_, name, plain(row.get("email")), attributes=attributes_of(row, but=_FIELDS))


def _meant(place: str, status: int, _sentence: str) -> ConnectorError | None:
    return gone_meanwhile(place, status, "/usergroups/")
