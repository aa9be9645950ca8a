"""The Admin SDK's Directory API on loopback: users, groups, members, administrator roles and their assignments.

Built from the reference (workspace/admin/directory/reference/rest/v1: users.list, groups.list, groups.get, members.list,
roles.list, roleAssignments.list; every answer is held against the description that Google ships), the guides "Manage
users" and "Group members" (the answers that they show), "Troubleshoot error codes" and "Limits and quotas" (errors are
of the older form), "Perform domain-wide delegation of authority", and "Performance tips" (`fields`). What is empty is
left out of an answer, but each says its `kind`.

Content can change while it runs; every change holds from the next request on.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from tests.servers.google import Call, GoogleProblem, GoogleServer, TokenProblem, description, method_of

BASE = "/admin/directory/v1"
AUTH = "https://www.googleapis.com/auth/admin.directory."
READ_USERS, READ_GROUPS, READ_ROLES = (f"{AUTH}{x}.readonly" for x in ("user", "group", "rolemanagement"))
ACCOUNT = "C03az79cb"
ADMIN = "admin@acme.example"
FORBIDDEN = "Not Authorized to access this resource/api"


class DirectoryServer(GoogleServer):
    """An account. `privileges`: what an administrator, or a service account, may read."""

    def __init__(self, *, page: int = 500) -> None:
        super().__init__(page=page)
        self.delegated = {READ_USERS, READ_GROUPS, READ_ROLES}
        self.privileges: dict[str, set[str]] = {ADMIN: {"users", "groups", "roles"}}
        self.users: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.members: dict[str, list[dict[str, Any]]] = {}
        """By group."""
        self.roles: list[dict[str, Any]] = []
        self.assignments: list[dict[str, Any]] = []
        self.hidden: set[str] = set()
        """Groups whose members may not be read."""
        for method, pattern, handler in (
            ("users.list", "users", self._list_users),
            ("groups.list", "groups", self._list_groups),
            ("groups.get", "groups/([^/]+)", self._get_group),
            ("members.list", "groups/([^/]+)/members", self._list_members),
            ("roles.list", "customer/([^/]+)/roles", self._list_roles),
            ("roleAssignments.list", "customer/([^/]+)/roleassignments", self._list_assignments),
        ):
            self.route("admin", "directory_v1", f"directory.{method}", f"{BASE}/{pattern}", handler)

    # ── content ──

    def user(self, id_: str, email: str, name: str = "", **more: Any) -> str:
        """A user, active unless `more` says otherwise; returns the id."""
        given, _, family = name.partition(" ")
        self.users[id_] = {
            "kind": "admin#directory#user",
            "id": id_,
            "etag": f'"{id_}-u"',
            "primaryEmail": email,
            "name": {"givenName": given, "familyName": family, "fullName": name},
            "isAdmin": email == ADMIN,
            "isDelegatedAdmin": False,
            "lastLoginTime": "2026-11-22T10:00:00.000Z",
            "creationTime": "2020-01-01T00:00:00.000Z",
            "agreedToTerms": True,
            "suspended": False,
            "archived": False,
            "changePasswordAtNextLogin": False,
            "ipWhitelisted": False,
            "emails": [{"address": email, "primary": True}],
            "customerId": ACCOUNT,
            "orgUnitPath": "/",
            "isMailboxSetup": True,
            "recoveryEmail": "private@elsewhere.example",
            "phones": [{"value": "+49 30 1234567", "type": "home"}],
            **more,
        }
        return id_

    def group(self, id_: str, email: str, name: str, **more: Any) -> str:
        """A group without members; returns the id."""
        self.groups[id_] = {
            "kind": "admin#directory#group",
            "id": id_,
            "etag": f'"{id_}-g"',
            "email": email,
            "name": name,
            "directMembersCount": "0",
            "description": "",
            "adminCreated": True,
            **more,
        }
        self.members[id_] = []
        return id_

    def member(self, group: str, *ids: str, type_: str = "", **more: Any) -> None:
        """Put users and groups (or whatever `type_` says) into a group."""
        for id_ in ids:
            kind = type_ or ("GROUP" if id_ in self.groups else "USER")
            row = {"kind": "admin#directory#member", "etag": f'"{id_}-m"', "id": id_, "role": "MEMBER", "type": kind}
            known = self.users.get(id_, {}).get("primaryEmail") or self.groups.get(id_, {}).get("email")
            if known:
                row |= {"email": known, "status": "ACTIVE"}
            self.members[group].append(row | more)

    def remove_group(self, id_: str) -> None:
        """Delete a group."""
        del self.groups[id_], self.members[id_]

    def role(self, id_: str, name: str, **more: Any) -> str:
        """A role; returns the id."""
        told = {"kind": "admin#directory#role", "etag": '"r"', "roleId": id_, "roleName": name, "isSystemRole": False}
        self.roles.append({**told, **more})
        return id_

    def assign(self, role: str, to: str, **more: Any) -> None:
        """Give a role to a user or group."""
        told = {
            "kind": "admin#directory#roleAssignment",
            "etag": '"a"',
            "roleAssignmentId": str(1000 + len(self.assignments)),
            "roleId": role,
            "assignedTo": to,
            "assigneeType": "group" if to in self.groups else "user",
            "scopeType": "CUSTOMER",
        }
        self.assignments.append({**told, **more})

    # ── the methods ──

    def _list_users(self, call: Call) -> tuple[dict[str, Any], int]:
        self._let_in(call, "users.list", "users", call.one("customer"))
        rows = sorted(self.users.values(), key=lambda u: str(u["primaryEmail"]).lower())
        if call.one("orderBy") != "email":
            rows = list(self.users.values())
        if call.one("projection", "basic") == "basic":
            rows = [{k: v for k, v in row.items() if k != "customSchemas"} for row in rows]
        return self._list(call, "users", "users", rows, 500)

    def _list_groups(self, call: Call) -> tuple[dict[str, Any], int]:
        self._let_in(call, "groups.list", "groups", call.one("customer"))
        return self._list(call, "groups", "groups", list(self.groups.values()), 200)

    def _get_group(self, call: Call, key: str) -> tuple[dict[str, Any], int]:
        self._let_in(call, "groups.get", "groups")
        return _selected({**self._group(key)}, call.one("fields")), 1

    def _list_members(self, call: Call, key: str) -> tuple[dict[str, Any], int]:
        self._let_in(call, "members.list", "groups")
        id_ = self._group(key)["id"]
        if id_ in self.hidden:
            raise GoogleProblem.old(403, FORBIDDEN, "forbidden")
        return self._list(call, "members", "members", self.members[id_], 200)

    def _list_roles(self, call: Call, customer: str) -> tuple[dict[str, Any], int]:
        self._let_in(call, "roles.list", "roles", customer)
        return self._list(call, "roles", "items", self.roles, 100)

    def _list_assignments(self, call: Call, customer: str) -> tuple[dict[str, Any], int]:
        self._let_in(call, "roleAssignments.list", "roles", customer)
        return self._list(call, "roleAssignments", "items", self.assignments, 200)

    def _group(self, key: str) -> dict[str, Any]:
        found = next((g for g in self.groups.values() if key in {g["id"], g["email"]}), None)
        if found is None:
            raise GoogleProblem.old(404, f"Resource Not Found: {key}", "notFound")
        return found

    def _list(self, call: Call, kind: str, key: str, rows: list[Any], most: int) -> tuple[dict[str, Any], int]:
        document, number = self.paged(call, key, rows, most=most, size="maxResults")
        return _selected({"kind": f"admin#directory#{kind}", "etag": '"l"', **document}, call.one("fields")), number

    def _let_in(self, call: Call, method: str, privilege: str, customer: str = ACCOUNT) -> None:
        allowed = method_of(description("admin", "directory_v1"), f"directory.{method}")["scopes"]
        if not call.token.scopes & set(allowed):
            problem = GoogleProblem(
                403, "Request had insufficient authentication scopes.", reason="ACCESS_TOKEN_SCOPE_INSUFFICIENT"
            )
            problem.body["error"]["errors"] = [
                {"message": "Insufficient Permission", "domain": "global", "reason": "insufficientPermissions"}
            ]
            raise problem
        who = call.token.subject or call.token.email
        if customer not in {"my_customer", ACCOUNT} or privilege not in self.privileges.get(who, set()):
            raise GoogleProblem.old(403, FORBIDDEN, "forbidden")

    def _token(self, form: Mapping[str, list[str]]) -> dict[str, Any]:
        payload = form["assertion"][0].split(".")[1]
        subject = json.loads(base64.urlsafe_b64decode(payload + "==")).get("sub")
        known = {u["primaryEmail"] for u in self.users.values() if not u["suspended"]}
        if subject and subject not in known:
            raise TokenProblem("invalid_grant", "Invalid email or User ID")
        return super()._token(form)


def _selected(document: Any, fields: str) -> Any:
    """What a partial response holds: the fields that are named, `key(…)` with only some of what is inside."""
    if not fields:
        return document
    if isinstance(document, list):
        return [_selected(one, fields) for one in document]
    found = {}
    for name, inner in _parsed(fields):
        if name in document:
            found[name] = _selected(document[name], inner)
    return found


def _parsed(fields: str) -> list[tuple[str, str]]:
    parts: list[str] = []
    depth, begin = 0, 0
    for at, character in enumerate(fields + ","):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(fields[begin:at])
            begin = at + 1
    if depth or not all(parts):
        raise GoogleProblem(400, f"Invalid field selection {fields}")
    return [(name, inner.removesuffix(")")) for name, _, inner in (part.partition("(") for part in parts)]
