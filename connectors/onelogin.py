"""Users, groups and roles of a OneLogin account.

API reference: https://developers.onelogin.com/api-docs/2/ (users, roles) and https://developers.onelogin.com/api-docs/1/
(groups)
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from connectors.answers import attributes_of, gone_meanwhile, plain, rows_of, text_of
from connectors.client_credentials import Client
from connectors.contract import Check, Connector
from connectors.errors import BadData, ConnectorError, Forbidden, Incomplete, ServerFault
from connectors.http import Answer, Api, part, retry_after
from connectors.options import HttpOptions, Secret
from connectors.pace import Pace
from connectors.paging import Pages
from connectors.values import Kind, Members, Principal, Record, Ref

DIRECTORY = "directory"
RIGHT = "the scope Read Users of the API credentials"
"""Covers GET of users, roles and groups. https://developers.onelogin.com/api-docs/2/getting-started/working-with-api-credentials"""
CAN_ACT = frozenset({1, 3, 4, 5, 8})
"""Statuses of users whose account works, or will once they have signed in again or changed their password.

Active; locked; password expired; awaiting password reset; security questions required. Not so: unactivated (0),
suspended (2), password pending (7), whatever may come. https://developers.onelogin.com/api-docs/2/users/user-resource
"""
APPROVED = 1
"""The state that an account must be in. Not so: unapproved, rejected, unlicensed."""
FIELDS = (
    "id,username,email,firstname,lastname,title,department,company,comment,status,state,group_id,role_ids,"
    "manager_user_id,manager_ad_id,external_id,directory_id,samaccountname,userprincipalname,distinguished_name,"
    "member_of,preferred_locale_code,custom_attributes"
)
"""What is asked for: unless they are named, a list leaves out roles, managers and custom attributes."""
_NOT_ATTRIBUTES = frozenset({"id", "name", "email", "status", "state", "role_ids", "custom_attributes"})


class OneLoginOptions(HttpOptions):
    """Options of the `onelogin` connector."""

    endpoint: str = Field(description="The account's own URL: https://SUBDOMAIN.onelogin.com.")
    client_id: str = Field(description="Client id of API credentials with the scope Read Users.")
    client_secret: Secret = Field(description="Their client secret.")


class OneLogin(Connector):
    """Reads one account. Its scope is one: who is in a group or has a role, the users tell."""

    Options = OneLoginOptions
    limit: ClassVar[int] = 100
    """Entries a page of API 2: the most there is."""

    def __init__(self, options: OneLoginOptions) -> None:
        self._client = Client(
            options,
            Api(options, options.endpoint, told=_told, meant=_meant, wait=_until_reset),
            issuer=options.endpoint,
            path="auth/oauth2/v2/token",
            client_id=options.client_id,
            client_secret=options.client_secret,
            body={"json": {"grant_type": "client_credentials"}},
        )
        self._pace = Pace()

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def scopes(self) -> Iterable[str]:
        """The directory."""
        return [DIRECTORY]

    def holds(self, scope: str) -> frozenset[Kind]:
        """Groups are OneLogin's security groups, one a user; teams are its roles, as a rule."""
        del scope
        return frozenset({Kind.USER, Kind.GROUP, Kind.ROLE})

    def read(self, scope: str) -> Iterator[Record]:
        """Yield groups and roles, if they own; users, and with them who is in which."""
        del scope
        known: set[Ref] = set()
        for kind, rows in ((Kind.GROUP, self._groups), (Kind.ROLE, self._roles)):
            for row in rows() if kind in self.kinds else ():
                id_ = _id(row.get("id"), f"a {kind}")
                known.add(Ref(kind, id_))
                yield Principal(kind, id_, text_of(row, "name", f"{kind} {id_}"))
        roles_told = True
        for page in self._pages("users", fields=FIELDS):
            members: defaultdict[Ref, list[Ref]] = defaultdict(list)
            for row in page:
                user = _user(row)
                yield user
                roles_told &= "role_ids" in row
                for ref in _within(row, user.id):
                    members[ref].append(user.ref)
            for ref in members.keys() & known:  # one that was made a moment ago comes with the next run
                yield Members(ref, tuple(members[ref]))
        if not roles_told:
            for role in sorted(ref for ref in known if ref.kind is Kind.ROLE):
                for page in self._pages(f"roles/{role.id}/users"):
                    assigned = (row for row in page if row.get("assigned", True))
                    ids = (_id(row.get("id"), f"a user of role {role.id}") for row in assigned)
                    yield Members(role, tuple(Ref(Kind.USER, id_) for id_ in ids))

    # Lists

    def _roles(self) -> Iterator[dict[str, Any]]:
        for page in self._pages("roles", fields="id,name"):
            yield from page

    def _pages(self, path: str, **query: Any) -> Iterator[list[dict[str, Any]]]:
        """Pages of API 2: bare lists, with the next one's cursor in a header."""
        pages = Pages(path)
        count, cursor = 0, None
        while True:
            answer = self._get(f"api/2/{path}", limit=self.limit, cursor=cursor, **query)
            if not isinstance(answer.body, list):
                raise ServerFault(f"{path}: the answer is no list")
            rows = rows_of(answer.body, path)
            count += len(rows)
            yield rows
            following = answer.headers.get("after-cursor", "")
            if not following:
                break
            cursor = pages.turn(following)
        total = answer.headers.get("total-count", "")
        if total.isascii() and total.isdecimal() and count < int(total):
            raise Incomplete(f"{path}: {count} of {total}, and no further page")

    def _groups(self) -> Iterator[dict[str, Any]]:
        """Groups are in API 1 only, whose lists are objects, with the next page's cursor in them."""
        pages = Pages("groups")
        cursor = None
        while True:
            body = self._get("api/1/groups", after_cursor=cursor).body
            yield from rows_of(part(body, "data", list, "groups"), "groups")
            paging = body.get("pagination")
            following = paging.get("after_cursor") if isinstance(paging, dict) else None
            if not following:
                return
            cursor = pages.turn(str(following))

    def _get(self, path: str, **query: Any) -> Answer:
        self._pace.keep("account")
        answer = self._client.get(path, permission=RIGHT, **query)
        told = [answer.headers.get(f"x-ratelimit-{name}", "") for name in ("limit", "remaining", "reset")]
        if all(x.isascii() and x.isdecimal() for x in told):
            limit, remaining, reset = map(int, told)
            ends = round((time.monotonic() + reset) / 60)  # the same all through a window of an hour, or nearly
            self._pace.count("account", limit=limit, remaining=remaining, ends=ends, wait=reset)
        return answer

    # Whether it may

    def check(self) -> Iterator[Check]:
        """Ask each list that a run reads for one entry."""
        lists = {
            "users": ("api/2/users", None),
            "groups": ("api/1/groups", Kind.GROUP),
            "roles": ("api/2/roles", Kind.ROLE),
        }
        for what, (path, kind) in lists.items():
            if kind is not None and kind not in self.kinds:
                continue
            try:
                self._get(path, limit=1)
            except Forbidden as error:
                yield Check(f"read {what}", ok=False, detail=error.message, remedy=error.remedy)
            else:
                yield Check(f"read {what}", ok=True)


def _id(told: Any, what: str) -> str:
    """OneLogin's ids are numbers."""
    if not isinstance(told, int) or isinstance(told, bool):
        raise BadData(f'{what} has no "id"')
    return str(told)


def _user(row: Mapping[str, Any]) -> Principal:
    id_ = _id(row.get("id"), "a user")
    what = f"user {id_}"
    login, email = plain(row.get("username")), plain(row.get("email"))
    whole = " ".join(text for key in ("firstname", "lastname") if (text := plain(row.get(key))))
    if not (login or email):
        raise BadData(f"{what} has neither user name nor e-mail address")
    custom = row.get("custom_attributes")
    attributes = attributes_of(custom, but=_NOT_ATTRIBUTES) if isinstance(custom, dict) else {}
    attributes |= attributes_of(row, but=_NOT_ATTRIBUTES)
    addresses = [text for text in dict.fromkeys((email, login)) if text and (text == email or "@" in text)]
    return Principal(
        Kind.USER,
        id_,
        whole or login or email or "",
        addresses[0] if addresses else None,
        part(row, "status", int, what) in CAN_ACT and part(row, "state", int, what) == APPROVED,
        _manager(row.get("manager_user_id"), what),
        tuple(addresses[1:]),
        attributes,
    )


def _manager(told: Any, what: str) -> str | None:
    """A user's id, which comes as a number or as text."""
    if told is None or told == "":
        return None
    if not str(told).isdecimal():
        raise BadData(f"{what}: the manager is no id")
    return str(told)


def _within(row: Mapping[str, Any], user: str) -> Iterator[Ref]:
    """The group and the roles of a user."""
    if row.get("group_id") is not None:
        yield Ref(Kind.GROUP, _id(row["group_id"], f"the group of user {user}"))
    roles = row.get("role_ids")
    if roles is not None and not isinstance(roles, list):
        raise BadData(f"user {user}: the roles are no list")
    for role in roles or ():
        yield Ref(Kind.ROLE, _id(role, f"a role of user {user}"))


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until OneLogin serves again (https://developers.onelogin.com/api-docs/2/getting-started/rate-limits)."""
    told = headers.get("x-ratelimit-reset", "")
    return float(told) if told.isascii() and told.isdecimal() else retry_after(headers)


def _told(document: Any) -> str:
    """API 2: {"statusCode", "name", "message"}; API 1: {"status": {"error", "code", "type", "message"}}."""
    status = document.get("status")
    message = (status if isinstance(status, dict) else document).get("message")
    if isinstance(message, dict):
        message = message.get("description")
    return str(message or "")


def _meant(place: str, status: int, _sentence: str) -> ConnectorError | None:
    return gone_meanwhile(place, status, "/roles/")
