"""A JumpCloud on loopback, over TLS: the part of its API that reads users, user groups and their members.

Built from JumpCloud's published descriptions (docs.jumpcloud.com/api/1.0: "List all system users", Systemuserreturn,
Error; docs.jumpcloud.com/api/2.0: "List all User Groups", "List the members of a User Group", GraphConnection) and the
SDKs made of them (github.com/TheJumpCloud/jcapi-python, jcapi-go). More than 100 entries a page are refused in the words
of jcapi-python's issue 38. Entries that a group's members count and do not show: TheJumpCloud/support, issue 369.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.servers.oncall import OnCallServer, Page, Refusal, whole


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """An error as JumpCloud words it."""
    return Refusal(status, {"code": status, "message": message, "status": "…"}, headers)


class JumpCloudServer(OnCallServer):
    """The organization. Pages are as large as asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.api_key = "jca_8kcA2r1Hf9-SECRET"
        self.org_id: str | None = None
        """If set, requests must name it: the key sees several organizations."""
        self.users: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.members: dict[str, list[tuple[str, str] | None]] = {}
        """(type, id), or None for one that is counted and not shown."""
        self.counted = True
        """Whether lists of API 2.0 tell X-Total-Count."""
        self.total: Callable[[int], Any] = lambda of: of
        """What a list tells of so many."""
        self.forbidden: set[str] = set()
        self.stuck: tuple[str, int] | None = None
        """A list, and the place from which on every page is the one that begins there."""
        self.before: Callable[[str, int], None] = lambda _name, _skip: None
        """Called before each page is made, with its list and place."""

    def add_user(self, id_: str, username: str, email: str, state: str = "ACTIVATED", **more: Any) -> None:
        self.users[id_] = {
            "_id": id_, "id": id_, "username": username, "email": email, "firstname": "", "lastname": "",
            "displayname": "", "activated": state == "ACTIVATED", "suspended": state == "SUSPENDED", "state": state,
            "account_locked": False, "sudo": False, "unix_uid": 5000 + len(self.users), "attributes": [],
            "badLoginAttempts": 3, "created": "2026-01-02T03:04:05.678Z", "manager": None, "organization": "o1", **more,
        }  # fmt: skip

    def add_group(self, id_: str, name: str, *members: tuple[str, str] | None, **more: Any) -> None:
        """`members` are ("user" or "user_group", id)."""
        self.groups[id_] = {
            "id": id_, "name": name, "type": "user_group", "description": "", "email": "",
            "membershipMethod": "STATIC", "attributes": {}, **more,
        }  # fmt: skip
        self.members[id_] = list(members)

    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        if headers.get("x-api-key") != self.api_key:
            raise problem(401, "Unauthorized")
        if self.org_id is not None and headers.get("x-org-id") != self.org_id:
            raise problem(400, "Bad Request: x-org-id is required")
        if path[-1] in self.forbidden:
            raise problem(403, "Forbidden")
        limit, skip = whole(query, "limit", 10), whole(query, "skip", 0)
        if limit > 100:
            raise problem(400, 'Bad Request: request parameter "limit" exceeds maximum value of 100')
        match path:
            case ["api", "systemusers"]:
                assert query.get("sort", ["_id"]) == ["_id"]
                self.before("users", skip)
                users = [self.users[id_] for id_ in sorted(self.users)]
                found, number = self._part("users", users, limit, skip)
                return Page({"results": found, "totalCount": self.total(len(self.users))}, "users", number)
            case ["api", "v2", "usergroups"]:
                return self._list("groups", list(self.groups.values()), limit, skip)
            case ["api", "v2", "usergroups", id_, "members"] if id_ in self.groups:
                rows = [
                    None if m is None else {"to": {"type": m[0], "id": m[1], "attributes": None}, "attributes": None}
                    for m in self.members[id_]
                ]
                return self._list(f"members of {id_}", rows, limit, skip)
        raise problem(404, "Not Found")

    def _list(self, name: str, rows: list[Any], limit: int, skip: int) -> Page:
        self.before(name, skip)
        found, number = self._part(name, rows, limit, skip)
        told = {"X-Total-Count": str(self.total(len(rows)))} if self.counted else {}
        return Page([row for row in found if row is not None], name, number, headers=told)

    def _part(self, name: str, rows: list[Any], limit: int, skip: int) -> tuple[list[Any], int]:
        if self.stuck and self.stuck[0] == name:
            skip = min(skip, self.stuck[1])
        return rows[skip : skip + limit], skip // max(limit - 1, 1) + 1
