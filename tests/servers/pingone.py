"""A PingOne on loopback, over TLS: tokens, populations, users, groups and memberships of one environment.

Built from PingOne's published reference (developer.pingidentity.com/pingone-api/platform: "Read All Users", "User
operations", "Read All Groups", "Groups", "Read All Users in a Group", "Read Group Nesting", "Populations", "Paging and
ordering collections", "Token (client_credentials)") and the documents of github.com/patrickcping/pingone-go-sdk-v2
(EntityArrayEmbedded, GroupMembership, User: memberOfGroupIDs is not returned with a list of users).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from tests.servers.directory import TokenServer
from tests.servers.oncall import Page, Refusal, whole

ENVIRONMENT = "abfba8f6-49eb-49f5-a5d9-80ad5c98f9f6"
POPULATION = "7ab8f9f1-0000-4000-8000-000000000001"


def problem(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """An error as PingOne words it."""
    return Refusal(status, {"id": "c0ffee", "code": code, "message": message, "details": []}, headers)


class PingOneServer(TokenServer):
    """The environment. `page` is the most entries that a page has."""

    def __init__(self, *, page: int = 200) -> None:
        super().__init__()
        self.page = page
        self.users: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.within: dict[str, list[str]] = {}
        """Of each user and group, the groups that it is in directly."""
        self.populations: dict[str, str] = {POPULATION: "Staff"}
        self.forbidden: set[str] = set()
        self.links_keep_filters = True
        self.uncounted = False
        """Whether groups come without directMemberCounts."""
        self.miscounted = 0
        """How many more direct members are counted than shown."""
        self.stuck: int | None = None
        """The number of the page of users from which on each leads to itself."""
        self.before: Callable[[str, int], None] = lambda _name, _number: None

    def add_user(
        self, id_: str, username: str, given: str, family: str, email: str | None, *groups: str, **more: Any
    ) -> None:
        self.users[id_] = {
            "_links": {"self": {"href": self.link(f"/v1/environments/{ENVIRONMENT}/users/{id_}")}},
            "id": id_, "environment": {"id": ENVIRONMENT}, "account": {"canAuthenticate": True, "status": "OK"},
            "createdAt": "2026-01-02T03:04:05.678Z", "email": email, "enabled": True,
            "identityProvider": {"type": "PING_ONE"}, "lifecycle": {"status": "ACCOUNT_OK"}, "mfaEnabled": False,
            "name": {"given": given, "family": family}, "population": {"id": POPULATION},
            "updatedAt": "2026-11-22T07:00:00.000Z", "username": username, "verifyStatus": "NOT_INITIATED", **more,
        }  # fmt: skip
        self.within[id_] = list(groups)

    def add_group(self, id_: str, name: str, *parents: str, **more: Any) -> None:
        self.groups[id_] = {
            "id": id_, "environment": {"id": ENVIRONMENT}, "name": name,
            "createdAt": "2026-01-02T03:04:05.678Z", "updatedAt": "2026-11-22T07:00:00.000Z", **more,
        }  # fmt: skip
        self.within[id_] = list(parents)

    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        if path == [ENVIRONMENT, "as", "token"]:
            return self.token(headers)
        if not self.is_authorized(headers):
            raise problem(401, "INVALID_TOKEN", "The access token provided is expired or invalid")
        if path[:3] != ["v1", "environments", ENVIRONMENT]:
            raise problem(404, "NOT_FOUND", "The requested resource object cannot be found.")
        if path[3] in self.forbidden:
            raise problem(403, "ACCESS_FAILED", "The actor attempting to perform the request is not authorized.")
        match path[3:]:
            case ["populations"]:
                rows = [{"id": id_, "name": name, "userCount": 1} for id_, name in self.populations.items()]
                return self._list("populations", "populations", path, rows, query)
            case ["users"] if "filter" in query:
                found = re.fullmatch(r'memberOfGroups\[id eq "([^"]+)"\]', query["filter"][0])
                if not found:
                    raise problem(400, "INVALID_REQUEST", "The filter is invalid")
                rows = [self.users[id_] for id_ in self.users if found[1] in self.within[id_]]
                return self._list(f"members of {found[1]}", "users", path, rows, query)
            case ["users"]:
                return self._list("users", "users", path, list(self.users.values()), query)
            case ["groups"]:
                rows = [
                    group if self.uncounted else {**group, **self._counts(id_)} for id_, group in self.groups.items()
                ]
                return self._list("groups", "groups", path, rows, query)
            case ["groups", id_, "memberOfGroups"] if id_ in self.groups:
                rows = [{"id": parent, "type": "DIRECT"} for parent in self.within[id_]]
                return self._list(f"parents of {id_}", "groupMemberships", path, rows, query)
        raise problem(404, "NOT_FOUND", "The requested resource object cannot be found.")

    def _counts(self, id_: str) -> dict[str, Any]:
        counts = {
            "users": sum(id_ in self.within[user] for user in self.users) + self.miscounted,
            "groups": sum(id_ in self.within[group] for group in self.groups),
        }
        return {"directMemberCounts": counts}

    def _list(self, name: str, key: str, path: list[str], rows: list[Any], query: dict[str, list[str]]) -> Page:
        start = int(base64.urlsafe_b64decode(query["cursor"][0])) if "cursor" in query else 0
        size = min(whole(query, "limit", self.page), self.page)
        number = start // size + 1
        self.before(name, number)

        def to(place: int) -> dict[str, str]:
            kept = {"filter": query["filter"][0]} if "filter" in query and self.links_keep_filters else {}
            cursor = base64.urlsafe_b64encode(str(place).encode()).decode()
            return {"href": self.link(f"/{'/'.join(path)}?{urlencode({'cursor': cursor, 'limit': size, **kept})}")}

        links = {"self": {"href": self.link(f"/{'/'.join(path)}")}}
        if start + size < len(rows):
            links["next"] = to(start + size)
        if name == "users" and self.stuck is not None and number >= self.stuck and start:
            links["next"] = to(start)
        part = rows[start : start + size]
        document = {"_links": links, "_embedded": {key: part}, "count": len(rows), "size": len(part)}
        return Page(document, name, number)
