"""An Okta on loopback, over TLS: the part of its management API that reads users, groups, memberships and admin roles.

Built from Okta's published reference (developer.okta.com, OpenAPI 5.1.0; the same text is in the `okta` SDK's docs):
User (listUsers), Group (listGroups, listGroupUsers), RoleAssignmentAUser (listUsersWithRoleAssignments,
listAssignedRolesForUser), RoleAssignmentBGroup (listGroupAssignedRoles), RoleECustom (listRoles), SystemLog (listLogEvents) with "System Log query" and "Event types"; "Core Okta API"
(Link headers, one for `self` and one for `next`, with opaque `after` cursors; HTTP errors), "Error codes", "Rate limit
best practices" (the X-Rate-Limit headers), "Implement OAuth for Okta with a service app" (the token endpoint).

Content can change while it runs; every change holds from the next request on. Its clock stands still, far from ours,
unless `advance` moves it. As in Okta, every org has the built-in group Everyone, which holds each user.
"""

from __future__ import annotations

import base64
import json
import operator as operators
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

from tests.servers.base import Broken, HttpsServer, body_of, send

SUMMARIES = {
    "E0000001": (400, "Api validation failed: {}"),
    "E0000006": (403, "You do not have permission to perform the requested action"),
    "E0000007": (404, "Not found: Resource not found: {}"),
    "E0000008": (404, "The requested path was not found"),
    "E0000009": (500, "Internal Server Error"),
    "E0000010": (503, "Service is in read only mode"),
    "E0000011": (401, "Invalid token provided"),
    "E0000022": (405, "The endpoint does not support the provided HTTP method"),
    "E0000031": (400, "Invalid search criteria."),
    "E0000047": (429, "API call exceeded rate limit due to too many requests."),
}
"""Codes of https://developer.okta.com/docs/reference/error-codes/."""

STATUSES = {
    "ACTIVE",
    "DEPROVISIONED",
    "LOCKED_OUT",
    "PASSWORD_EXPIRED",
    "PROVISIONED",
    "RECOVERY",
    "STAGED",
    "SUSPENDED",
}
USER_FILTERS = {
    "status",
    "lastUpdated",
    "id",
    "profile.login",
    "profile.email",
    "profile.firstName",
    "profile.lastName",
}
GROUP_FILTERS = {"id", "type", "lastUpdated", "lastMembershipUpdated"}
EVERYONE = "00gEveryone000000000"

_CLAUSE = re.compile(r'\s*([\w.]+)\s+(eq|gt|ge|lt|le)\s+"([^"]*)"\s*', re.IGNORECASE)


class OktaProblem(Exception):
    """An error as Okta words it."""

    def __init__(self, code: str, *names: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(code)
        self.status, summary = SUMMARIES[code]
        self.headers = headers or {}
        self.body = {
            "errorCode": code,
            "errorSummary": summary.format(*names),
            "errorLink": code,
            "errorId": "oaeSAMPLE0000000000000",
            "errorCauses": [],
        }


@dataclass
class Answer(Broken):
    """What a broken page answers in place of the right thing."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    right: bool = False
    """The page itself, before `cut` and `repeat`."""

    @classmethod
    def error(cls, code: str, *, headers: dict[str, str] | None = None, times: int = 1_000_000) -> Answer:
        """One of Okta's errors."""
        problem = OktaProblem(code, "")
        return cls(problem.status, json.dumps(problem.body).encode(), headers or {}, times=times)


class OktaServer(HttpsServer[Answer]):
    """The org. Use it as a context manager; then `url`, `ca_file` and `token` say how to log in."""

    methods = ("GET", "POST", "PUT", "DELETE")

    def __init__(self, *, token: str = "00SecretTokenOfTheOrg-aBcDeF1234567890", page: int = 200) -> None:
        super().__init__()
        self.token = token
        self.page = page
        """The server's own limit of entries a page; Okta's is 200 for users."""
        self.clock = 1_795_000_000.0
        self.limit = 1_000_000
        """Requests a minute and bucket."""
        self.permissions = {"okta.users.read", "okta.groups.read", "okta.iam.read", "okta.logs.read"}
        """Of the administrator whose login is used."""
        self.granted = {"okta.users.read", "okta.groups.read", "okta.roles.read", "okta.logs.read"}
        """API scopes granted to the OAuth app."""
        self.token_life = 3600
        """Seconds that an access token of an OAuth app lives."""
        self.clients: dict[str, str] = {}
        """OAuth apps: client id → public key (PEM)."""
        self.link_origin: str | None = None
        """Origin of the links to next pages; the server's own if None."""
        self.one_link_header = False
        """Both links in one Link header, which is as valid."""
        self.requests: list[tuple[str, str]] = []
        """Method and path with query of every request."""
        self.authorizations: list[str] = []
        self.dated = True
        """Whether answers have a Date."""
        self.throttled = 0
        self.most_at_once = 0
        """The most requests that were answered at the same time."""
        self.meeting: set[str] = set()
        """Paths whose answers wait until all of them are asked for, at the same time."""
        self._users: dict[str, dict[str, Any]] = {}
        self._groups: dict[str, dict[str, Any]] = {}
        self._members: dict[str, set[str]] = {}
        self._custom_roles: dict[str, dict[str, Any]] = {}
        self._assignments: list[dict[str, Any]] = []
        self._log: list[dict[str, Any]] = []
        self._here: list[str] = []
        self._arrived = threading.Condition()
        self._used: dict[tuple[str, int], int] = {}
        self._issued: dict[str, set[str]] = {}
        self._spent_assertions: set[str] = set()
        self.add_group(EVERYONE, "Everyone", type_="BUILT_IN")

    # ── content ──

    def _now(self) -> str:
        return _timestamp(self.clock)

    def advance(self, seconds: float) -> None:
        """Move the server's clock."""
        self.clock += seconds

    def add_user(self, id_: str, login: str, status: str = "ACTIVE", **profile: Any) -> str:
        """Add a user, who thereby is in Everyone. `profile` adds to login and email (default: the login)."""
        assert status in STATUSES
        whole = {"firstName": None, "lastName": None, "login": login, "email": login, **profile}
        with self._lock:
            self._users[id_] = {
                "id": id_,
                "status": status,
                "created": self._now(),
                "activated": None,
                "statusChanged": None,
                "lastLogin": None,
                "lastUpdated": self._now(),
                "passwordChanged": None,
                "type": {"id": "otyfnjfba4ye7pgjB0g4"},
                "profile": whole,
                "credentials": {"provider": {"type": "OKTA", "name": "OKTA"}},
            }
            self._members[EVERYONE].add(id_)
            self._groups[EVERYONE]["lastMembershipUpdated"] = self._now()
        return id_

    def update_user(self, id_: str, status: str | None = None, **profile: Any) -> None:
        """Change a user's status or profile; memberships stay, as they do in Okta, even of the deactivated."""
        with self._lock:
            user = self._users[id_]
            if status is not None:
                assert status in STATUSES
                user["status"] = status
            user["profile"] = {**user["profile"], **profile}
            user["lastUpdated"] = self._now()

    def delete_user(self, id_: str) -> None:
        """Delete a user, with memberships and roles. Of it all, only the System Log tells."""
        with self._lock:
            self.log("user.lifecycle.delete.completed", "User", id_, self._users[id_]["profile"]["login"])
            del self._users[id_]
            for members in self._members.values():
                members.discard(id_)
            self._assignments = [a for a in self._assignments if a["holder"] != ("users", id_)]

    def add_group(self, id_: str, name: str, *, type_: str = "OKTA_GROUP", **profile: Any) -> str:
        """Add a group without members."""
        with self._lock:
            self._groups[id_] = {
                "id": id_,
                "created": self._now(),
                "lastUpdated": self._now(),
                "lastMembershipUpdated": self._now(),
                "objectClass": ["okta:user_group"],
                "type": type_,
                "profile": {"name": name, "description": None, **profile},
            }
            self._members[id_] = set()
        return id_

    def update_group(self, id_: str, **profile: Any) -> None:
        """Change a group's profile: `name`, say."""
        with self._lock:
            self._groups[id_]["profile"] = {**self._groups[id_]["profile"], **profile}
            self._groups[id_]["lastUpdated"] = self._now()

    def delete_group(self, id_: str) -> None:
        """Delete a group, with memberships and roles. Only the System Log tells."""
        with self._lock:
            self.log("group.lifecycle.delete", "UserGroup", id_, self._groups[id_]["profile"]["name"])
            del self._groups[id_], self._members[id_]
            self._assignments = [a for a in self._assignments if a["holder"] != ("groups", id_)]

    def add_member(self, group: str, *users: str) -> None:
        """Put users into a group."""
        with self._lock:
            assert set(users) <= self._users.keys()
            self._members[group].update(users)
            self._groups[group]["lastMembershipUpdated"] = self._now()

    def remove_member(self, group: str, user: str) -> None:
        """Take a user out of a group."""
        with self._lock:
            self._members[group].remove(user)
            self._groups[group]["lastMembershipUpdated"] = self._now()

    def add_custom_role(self, id_: str, label: str) -> str:
        """Add a custom administrator role, held by nobody."""
        with self._lock:
            self._custom_roles[id_] = {"id": id_, "label": label, "description": label, "created": self._now()}
        return id_

    def assign_role(self, role: str, label: str, *, user: str = "", group: str = "", status: str = "ACTIVE") -> None:
        """Give a standard role (its type) or a custom one (its id) to a user or a group."""
        holder = ("users", user) if user else ("groups", group)
        row: dict[str, Any] = {"id": f"ra{uuid.uuid4().hex[:17]}", "label": label, "type": role, "status": status}
        if role in self._custom_roles:
            row |= {"type": "CUSTOM", "role": role, "resource-set": "iamoJDFKaJxGIr0oamd9g"}
        row |= {"created": self._now(), "lastUpdated": self._now(), "assignmentType": "USER" if user else "GROUP"}
        with self._lock:
            self._assignments.append({"holder": holder, "role": role, "row": row})

    def unassign_role(self, role: str, *, user: str = "", group: str = "") -> None:
        """Take a role away again."""
        holder = ("users", user) if user else ("groups", group)
        with self._lock:
            self._assignments = [a for a in self._assignments if (a["holder"], a["role"]) != (holder, role)]

    def log(self, event: str, type_: str, id_: str, name: str) -> None:
        """Add an event to the System Log, about one object of `type_` (User, UserGroup)."""
        actor = {"id": "00uAdmin000000000000", "type": "User", "alternateId": "admin@acme.example"}
        target = {"id": id_, "type": type_, "alternateId": name, "displayName": name, "detailEntry": None}
        self._log.append(
            {
                "actor": actor,
                "eventType": event,
                "outcome": {"result": "SUCCESS", "reason": None},
                "published": self._now(),
                "severity": "INFO",
                "target": [target],
                "uuid": f"{len(self._log):08}-0000-11ee-8000-000000000000",
                "version": "0",
            }
        )

    def revoke_access_tokens(self) -> None:
        """End every access token that was given to an OAuth app, whatever is left of its time."""
        self._issued.clear()

    # ── the server ──

    def date(self) -> str:
        return formatdate(self.clock, usegmt=True) if self.dated else ""

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = body_of(request)
        path, _, query = request.path.partition("?")
        self.requests.append((request.command, request.path))
        self.authorizations.append(request.headers.get("Authorization", ""))
        self._meet(path)
        headers: dict[str, str] = {}
        links: list[str] = []
        answer = None
        try:
            if path == "/oauth2/v1/token":
                status, document = self._token(request.command, body)
                answer = self._broken_answer(path, 1)
            else:
                headers = self._rate(path, request.command)
                rights = self._rights(request.headers.get("Authorization", ""))
                status = 200
                slim = "omitCredentials" in request.headers.get("Content-Type", "")
                with self._lock:
                    document, links, number = self._get(path, dict(parse_qsl(query)), rights, slim=slim)
                answer = self._broken_answer(path, number)
                if answer and answer.repeat:
                    here = {"after": _cursor(""), **dict(parse_qsl(query))}
                    links = [_link(f"{self.url}{path}?{urlencode(here)}", "next")]
        except OktaProblem as problem:
            status, document = problem.status, problem.body
            headers |= problem.headers
        data = json.dumps(document).encode()
        if answer:
            if self._hangs_up(request, answer):
                return
            if not (answer.right or answer.repeat or answer.empty):
                status, data, links, headers = answer.status, answer.body, [], dict(answer.headers)
        if self.one_link_header and links:
            links = [", ".join(links)]
        told = [("Content-Type", "application/json"), *headers.items(), *(("Link", link) for link in links)]
        send(request, status, told, data, broken=answer)

    def _meet(self, path: str) -> None:
        """Count who is here at the same time; and have those of the meeting wait for each other."""
        with self._arrived:
            self._here.append(path)
            self.most_at_once = max(self.most_at_once, len(self._here))
            if path in self.meeting:
                self._arrived.notify_all()
                self._arrived.wait_for(lambda: self.meeting <= set(self._here) or path not in self.meeting, timeout=10)
                self.meeting = set()
            self._here.remove(path)

    def _rate(self, path: str, method: str) -> dict[str, str]:
        if method != "GET":
            raise OktaProblem("E0000022")
        window = int(self.clock // 60)
        bucket = re.sub(r"/(users|groups)/[^/]+", r"/\1/{id}", path)
        with self._lock:
            used = self._used[bucket, window] = self._used.get((bucket, window), 0) + 1
        headers = {
            "X-Rate-Limit-Limit": str(self.limit),
            "X-Rate-Limit-Remaining": str(max(0, self.limit - used)),
            "X-Rate-Limit-Reset": str((window + 1) * 60),
        }
        if used > self.limit:
            self.throttled += 1
            raise OktaProblem("E0000047", headers=headers)
        return headers

    def _rights(self, authorization: str) -> set[str]:
        """What the login may read."""
        kind, _, secret = authorization.partition(" ")
        if kind == "SSWS" and secret == self.token:
            return self.permissions
        if kind == "Bearer" and secret in self._issued:
            scopes = self._issued[secret]
            return {p for p in self.permissions if p.replace("iam", "roles") in scopes}
        raise OktaProblem("E0000011")

    def _token(self, method: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """The token endpoint, client credentials with private_key_jwt: RFC 6749, RFC 7523."""
        import jwt

        form = {k: v[0] for k, v in parse_qs(body.decode()).items()}
        if method != "POST" or form.get("grant_type") != "client_credentials":
            return 400, {"error": "unsupported_grant_type", "error_description": "Use client_credentials."}
        denied = 401, {"error": "invalid_client", "error_description": "The client_assertion is not valid."}
        if form.get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
            return denied
        assertion = form.get("client_assertion", "")
        try:
            client = jwt.decode(assertion, options={"verify_signature": False})["sub"]
            claims = jwt.decode(
                assertion,
                self.clients[client],
                algorithms=["RS256"],
                audience=f"{self.url}/oauth2/v1/token",
                issuer=client,
                options={"require": ["exp", "iss", "sub", "aud", "jti"]},
            )
        except (jwt.InvalidTokenError, KeyError):
            return denied
        if claims["jti"] in self._spent_assertions:
            return denied
        self._spent_assertions.add(claims["jti"])
        scopes = set(form.get("scope", "").split())
        if not scopes <= self.granted:
            return 400, {"error": "invalid_scope", "error_description": "One or more scopes are not configured."}
        secret = uuid.uuid4().hex
        self._issued[secret] = scopes
        return 200, {
            "token_type": "Bearer",
            "expires_in": self.token_life,
            "access_token": secret,
            "scope": " ".join(scopes),
        }

    # ── the API ──

    def _get(self, path: str, query: dict[str, str], rights: set[str], *, slim: bool) -> tuple[Any, list[str], int]:
        """The document, the Link headers and the page's number."""

        def need(permission: str) -> None:
            if permission not in rights:
                raise OktaProblem("E0000006")

        parts = path.removeprefix("/api/v1/").split("/")
        match parts:
            case ["users"]:
                need("okta.users.read")
                rows = [u for _, u in sorted(self._users.items())]
                if "filter" in query:
                    keep = _filter(query["filter"], USER_FILTERS)
                    rows = [r for r in rows if keep(r)]
                elif "search" in query:
                    keep = _filter(query["search"], USER_FILTERS | {"created", "profile.employeeNumber"}, fold=True)
                    rows = [r for r in rows if keep(r)]
                else:
                    rows = [r for r in rows if r["status"] != "DEPROVISIONED"]
                page, links, number = self._paged(path, rows, query, {"filter", "search"}, most=200)
                return [self._user(u, slim=slim) for u in page], links, number
            case ["groups"]:
                need("okta.groups.read")
                rows = [g for _, g in sorted(self._groups.items())]
                for name in ("filter", "search"):
                    if name in query:
                        keep = _filter(query[name], GROUP_FILTERS | ({"profile.name"} if name == "search" else set()))
                        rows = [r for r in rows if keep(r)]
                if "q" in query:
                    rows = [r for r in rows if r["profile"]["name"].casefold().startswith(query["q"].casefold())]
                page, links, number = self._paged(path, rows, query, {"filter", "search", "q", "expand"}, most=10_000)
                return [self._group(g, query.get("expand", "")) for g in page], links, number
            case ["groups", group, "users"]:
                need("okta.groups.read")
                if group not in self._groups:
                    raise OktaProblem("E0000007", f"{group} (UserGroup)")
                rows = [self._users[u] for u in sorted(self._members[group])]
                page, links, number = self._paged(path, rows, query, set(), most=1000)
                return [self._user(u, slim=False) for u in page], links, number
            case ["users" | "groups" as holders, holder, "roles"]:
                need("okta.iam.read")
                if holder not in (self._users if holders == "users" else self._groups):
                    raise OktaProblem("E0000007", f"{holder} ({'User' if holders == 'users' else 'UserGroup'})")
                via = [a for a in self._assignments if a["holder"] == (holders, holder)]
                if holders == "users":
                    via += [
                        a
                        for a in self._assignments
                        if a["holder"][0] == "groups" and holder in self._members[a["holder"][1]]
                    ]
                return [self._assignment(a) for a in via], [], 1
            case ["logs"]:
                need("okta.logs.read")
                return self._logs(path, query)
            case ["iam", "assignees", "users"]:
                need("okta.iam.read")
                ids = sorted({a["holder"][1] for a in self._assignments if a["holder"][0] == "users"})
                rows = [{"id": i, "orn": f"orn:okta:00o5rb5mt2H3d1TJd0h7:users:{i}", "_links": {}} for i in ids]
                return self._in_body("value", path, rows, query)
            case ["iam", "roles"]:
                need("okta.iam.read")
                return self._in_body("roles", path, [r for _, r in sorted(self._custom_roles.items())], query)
        raise OktaProblem("E0000008")

    def _logs(self, path: str, query: dict[str, str]) -> tuple[Any, list[str], int]:
        """Bounded queries end; those without `until` poll: they always link to a next page, however empty."""
        rows = [{"id": event["uuid"], **event} for event in self._log]
        for name, holds in (("since", operators.ge), ("until", operators.lt)):
            if name in query:
                rows = [r for r in rows if holds(r["published"], query[name])]
        if "filter" in query:
            rows = list(filter(_filter(query["filter"], {"eventType", "target.id"}), rows))
        page, links, number = self._paged(path, rows, query, {"since", "until", "filter", "sortOrder"}, most=1000)
        if "until" not in query and not any("next" in link for link in links):
            last = page[-1]["id"] if page else query.get("after", "")
            links.append(_link(f"{self.url}{path}?after={quote(_cursor(last))}", "next"))
        return [{k: v for k, v in event.items() if k != "id"} for event in page], links, number

    def _user(self, user: dict[str, Any], *, slim: bool) -> dict[str, Any]:
        row = {**user, "_links": {"self": {"href": f"{self.url}/api/v1/users/{user['id']}"}}}
        if slim:
            del row["credentials"]
        return row

    def _group(self, group: dict[str, Any], expand: str) -> dict[str, Any]:
        row = {**group, "_links": {"users": {"href": f"{self.url}/api/v1/groups/{group['id']}/users"}}}
        if "stats" in expand.split(","):
            row["_embedded"] = {"stats": {"usersCount": len(self._members[group["id"]])}}
        return row

    def _assignment(self, assignment: dict[str, Any]) -> dict[str, Any]:
        holders, holder = assignment["holder"]
        return {**assignment["row"], "_links": {"assignee": {"href": f"{self.url}/api/v1/{holders}/{holder}"}}}

    def _in_body(
        self, key: str, path: str, rows: list[dict[str, Any]], query: dict[str, str]
    ) -> tuple[Any, list[str], int]:
        """Lists about roles are objects, with the link to the next page in the body."""
        rows, links, number = self._paged(path, rows, query, set(), most=100)
        document: dict[str, Any] = {key: rows, "_links": {}}
        for link in links:
            if link.endswith('rel="next"'):
                document["_links"]["next"] = {"href": link[1 : link.index(">")]}
        return document, [], number

    def _paged(
        self, path: str, rows: list[dict[str, Any]], query: dict[str, str], known: set[str], *, most: int
    ) -> tuple[Any, list[str], int]:
        if unknown := query.keys() - known - {"limit", "after"}:
            raise OktaProblem("E0000001", ", ".join(sorted(unknown)))
        asked = query.get("limit", str(most))
        if not asked.isdecimal() or not 0 < int(asked) <= 10_000:
            raise OktaProblem("E0000001", "limit")
        size = min(int(asked), most, self.page)
        after = _position(query["after"]) if "after" in query else ""
        rest = [r for r in rows if r["id"] > after]
        page = rest[:size]
        number = (len(rows) - len(rest)) // size + 1

        def link(rel: str, **more: str) -> str:
            kept = {k: v for k, v in query.items() if k != "after"} | more
            text = f"?{urlencode(kept, quote_via=quote)}" if kept else ""
            return _link(f"{self.link_origin or self.url}{path}{text}", rel)

        links = [link("self", **({"after": query["after"]} if "after" in query else {}))]
        if len(rest) > size:
            links.append(link("next", after=_cursor(page[-1]["id"])))
        return page, links, number


def _link(url: str, rel: str) -> str:
    return f'<{url}>; rel="{rel}"'


def _cursor(last: str) -> str:
    # Opaque, and with characters that must survive encoding: +, / and =.
    return base64.b64encode(b"\xfb\xef\xff" + last.encode()).decode()


def _position(cursor: str) -> str:
    try:
        data = base64.b64decode(cursor, validate=True)
    except ValueError:
        data = b""
    if not data.startswith(b"\xfb\xef\xff"):
        raise OktaProblem("E0000001", "after")
    return data[3:].decode()


def _timestamp(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _filter(expression: str, properties: set[str], *, fold: bool = False) -> Callable[[dict[str, Any]], bool]:
    """Clauses `property operator "value"`, joined by `and` or by `or`; only dates have an order. E0000031 for others.

    With `fold`, as `search` does, case does not count.
    """
    joiner = re.search(r'"\s+(and|or)\s+', expression)
    texts = re.split(r"(?<=\")\s+(?:and|or)\s+", expression)
    if joiner and len(re.findall(rf'"\s+(?!{joiner[1]})(?:and|or)\s+', expression)):
        raise OktaProblem("E0000031")
    clauses = []
    for text in texts:
        match = _CLAUSE.fullmatch(text)
        if not match or match[1] not in properties:
            raise OktaProblem("E0000031")
        name, operator, value = match[1], match[2].lower(), match[3]
        if operator != "eq" and name not in {"lastUpdated", "lastMembershipUpdated", "created"}:
            raise OktaProblem("E0000031")
        clauses.append((name, operator, value))

    def holds(row: dict[str, Any], clause: tuple[str, str, str]) -> bool:
        name, operator, value = clause
        found: Any = row
        for key in name.split("."):
            found = found.get(key)
        if found is None:
            return False
        if fold:
            found, value = str(found).lower(), value.lower()
        return bool(getattr(operators, operator)(found, value))

    join = any if joiner and joiner[1] == "or" else all
    return lambda row: join(holds(row, clause) for clause in clauses)
