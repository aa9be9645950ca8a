"""A OneLogin on loopback, over TLS: tokens, users, groups and roles.

Built from OneLogin's published reference (developers.onelogin.com: "Generate Tokens v2", "List Users", "User Resource",
"List Roles", "Get Role Users", "Pagination" and "Rate Limits" of API 2; "Get Groups" of API 1) and from the models of its
own SDK (onelogin 4.0.1: User, Role, Group, OauthToken). A list of users tells roles, managers and custom attributes only
if they are named in `fields`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from tests.servers.directory import TokenServer
from tests.servers.oncall import Page, Refusal, whole

USUAL = [
    "id", "username", "email", "firstname", "lastname", "status", "state", "group_id", "external_id", "directory_id",
    "samaccountname", "member_of", "distinguished_name", "phone", "created_at", "updated_at", "activated_at",
    "last_login", "invitation_sent_at", "locked_until", "password_changed_at", "invalid_login_attempts",
]  # fmt: skip
"""What a list of users tells if no `fields` are named."""


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """An error as API 2 words it."""
    return Refusal(status, {"statusCode": status, "name": f"{message}Error", "message": message}, headers)


class OneLoginServer(TokenServer):
    """The account."""

    def __init__(self, *, page: int = 100) -> None:
        super().__init__()
        self.page = page
        """The most entries that a page has."""
        self.lasts = 36000
        self.users: dict[int, dict[str, Any]] = {}
        self.roles: dict[int, dict[str, Any]] = {}
        self.groups: dict[int, dict[str, Any]] = {}
        self.forbidden: set[str] = set()
        self.roles_in_users = True
        """Whether a list of users tells their roles."""
        self.total: Callable[[int], int] = lambda of: of
        self.limits: dict[str, str] = {
            "X-RateLimit-Limit": "5000",
            "X-RateLimit-Remaining": "4900",
            "X-RateLimit-Reset": "1800",
        }
        self.before: Callable[[str, int], None] = lambda _name, _number: None
        """Called before each page is made, with its list and number."""
        self.stuck: int | None = None
        """The number of the page of users from which on each leads to itself."""

    def add_user(
        self, id_: int, email: str | None, first: str, last: str, status: int = 1, *roles: int, **more: Any
    ) -> None:
        self.users[id_] = {
            "id": id_, "username": "", "email": email, "firstname": first, "lastname": last, "title": None,
            "department": None, "company": None, "comment": None, "group_id": None, "role_ids": list(roles),
            "phone": "", "state": 1, "status": status, "directory_id": None, "trusted_idp_id": None,
            "manager_ad_id": None, "manager_user_id": None, "samaccountname": None, "member_of": None,
            "userprincipalname": None, "distinguished_name": None, "external_id": None, "activated_at": None,
            "last_login": "2026-11-22T07:00:00.000Z", "invitation_sent_at": None, "preferred_locale_code": None,
            "created_at": "2026-01-02T03:04:05.678Z", "updated_at": "2026-11-22T07:00:00.000Z", "locked_until": None,
            "invalid_login_attempts": 0, "password_changed_at": None, "custom_attributes": {}, **more,
        }  # fmt: skip

    def add_role(self, id_: int, name: str) -> None:
        self.roles[id_] = {"id": id_, "name": name, "apps": [], "users": [], "admins": []}

    def add_group(self, id_: int, name: str) -> None:
        self.groups[id_] = {"id": id_, "name": name, "reference": None}

    def granted(self, document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "created_at": "2026-11-23T08:00:00.000Z", "refresh_token": "…", "account_id": 555555}

    def unknown_client(self) -> Refusal:
        return Refusal(
            401, {"status": {"error": True, "code": 401, "type": "Unauthorized", "message": "Authentication Failure"}}
        )

    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        if path == ["auth", "oauth2", "v2", "token"]:
            return self.token(headers)
        if not self.is_authorized(headers):
            raise problem(401, "Unauthorized")
        if path[-1] in self.forbidden:
            raise problem(403, "Insufficient Permission")
        match path:
            case ["api", "2", "users"]:
                fields = query["fields"][0].split(",") if "fields" in query else USUAL
                hidden = set() if self.roles_in_users else {"role_ids"}
                rows = [{k: u[k] for k in {"id", *fields} - hidden} for u in self.users.values()]
                return self._list("users", rows, query)
            case ["api", "2", "roles"]:
                fields = (
                    query["fields"][0].split(",") if "fields" in query else ["id", "name", "apps", "users", "admins"]
                )
                return self._list("roles", [{k: r[k] for k in fields} for r in self.roles.values()], query)
            case ["api", "2", "roles", id_, "users"] if id_.isdecimal() and int(id_) in self.roles:
                rows = [
                    {"id": u["id"], "name": u["firstname"], "username": u["email"], "added_by": None, "assigned": True}
                    for u in self.users.values()
                    if int(id_) in u["role_ids"]
                ]
                return self._list(f"role {id_}", rows, query)
            case ["api", "1", "groups"]:
                return self._groups(query)
        raise problem(404, "The resource with the given id could not be found")

    def _list(self, name: str, rows: list[dict[str, Any]], query: dict[str, list[str]]) -> Page:
        limit = whole(query, "limit", 50)
        if not 0 < limit <= 100:
            raise problem(400, "limit")
        start = _place(query["cursor"][0]) if "cursor" in query else 0
        size = min(limit, self.page)
        number = start // size + 1
        self.before(name, number)
        told = {**self.limits, "Total-Count": str(self.total(len(rows))), "Current-Page": str(number)}
        if start + size < len(rows):
            told["After-Cursor"] = _cursor(start + size)
        if name == "users" and self.stuck is not None and number >= self.stuck and "cursor" in query:
            told["After-Cursor"] = query["cursor"][0]
        return Page(rows[start : start + size], name, number, headers=told)

    def _groups(self, query: dict[str, list[str]]) -> Page:
        rows = list(self.groups.values())
        start = _place(query["after_cursor"][0]) if "after_cursor" in query else 0
        after = _cursor(start + self.page) if start + self.page < len(rows) else None
        document = {
            "status": {"error": False, "code": 200, "type": "success", "message": "Success"},
            "pagination": {"before_cursor": None, "after_cursor": after, "previous_link": None, "next_link": None},
            "data": rows[start : start + self.page],
        }  # fmt: skip
        return Page(document, "groups", start // self.page + 1, headers=self.limits)


def _cursor(place: int) -> str:
    return base64.b64encode(f"+/{place}".encode()).decode()


def _place(cursor: str) -> int:
    return int(base64.b64decode(cursor).decode().removeprefix("+/"))
