"""Microsoft Graph v1.0 on loopback, over TLS: users, groups, directory roles and app roles, with delta queries.

Built from Microsoft's published reference (learn.microsoft.com/graph, and its source, microsoft-graph-docs-contrib):
"user: delta", "group: delta", "directoryRole: delta", "Get incremental changes for groups" (`members@delta`, a large
group on several pages), "Use delta query to track changes" (state tokens, `$deltatoken=latest`, `@removed` and its
reasons, replays, synchronization reset, seven days), "List users", "Get manager", "List group members" (what is
hidden), "List directoryRoles", "List servicePrincipals", "List appRoleAssignments granted for a service principal";
"Get access without a user" (the token endpoint, for client secrets); "Query parameters", "Paging", "Known issues" (15 values in an `in`; 100 objects a page with `$expand`), "Microsoft
Graph throttling guidance", "Error responses". Property names are those of the SDK's models: a test reads this server
through them.

As in Graph, a round that begins tells properties that are set, and one that goes on may tell of an object only what
changed. Content can change while it runs; every change holds from the next request on.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_plus

from tests.servers.base import Broken, HttpsServer, body_of, send

USER = {
    *("id", "displayName", "userPrincipalName", "mail", "proxyAddresses", "otherMails", "mailNickname"),
    *("accountEnabled", "userType", "givenName", "surname", "jobTitle", "department", "companyName"),
    *("officeLocation", "city", "state", "country", "usageLocation", "employeeId", "employeeType"),
    *("onPremisesSamAccountName", "onPremisesDomainName", "onPremisesUserPrincipalName"),
    *("onPremisesExtensionAttributes", "preferredLanguage", "mobilePhone", "businessPhones", "createdDateTime"),
}
GROUP = {
    *("id", "displayName", "description", "mail", "mailNickname", "proxyAddresses", "groupTypes", "securityEnabled"),
    *("mailEnabled", "visibility", "classification", "isAssignableToRole", "onPremisesSamAccountName"),
    *("onPremisesDomainName", "createdDateTime", "membershipRule"),
}
ROLE = {"id", "displayName", "description", "roleTemplateId"}
APP = {"id", "appId", "displayName", "appRoles", "servicePrincipalType", "accountEnabled"}
COLLECTIONS = {"users": USER, "groups": GROUP, "directoryRoles": ROLE, "servicePrincipals": APP}
TYPES = {"users": "user", "groups": "group", "directoryRoles": "directoryRole", "servicePrincipals": "servicePrincipal"}
RELATION = {"users": "manager", "groups": "members", "directoryRoles": "members"}
NEEDED = {
    "users": "User.Read.All",
    "groups": "GroupMember.Read.All",
    "directoryRoles": "RoleManagement.Read.Directory",
    "servicePrincipals": "Application.Read.All",
}
NO_ROLE = "00000000-0000-0000-0000-000000000000"


class GraphProblem(Exception):
    """An error as Graph words it."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None, inner: str = ""
    ) -> None:
        super().__init__(code)
        self.status = status
        self.headers = headers or {}
        self.body = {
            "error": {
                "code": code,
                "message": message,
                "innerError": {
                    **({"code": inner} if inner else {}),
                    "date": "2026-11-23T08:00:00",
                    "request-id": "b0b1c4b8-1c9a-4a3e-8f61-5b3c1f3c0a11",
                    "client-request-id": "b0b1c4b8-1c9a-4a3e-8f61-5b3c1f3c0a11",
                },
            }
        }

    @classmethod
    def expired_token(cls) -> GraphProblem:
        return cls(401, "InvalidAuthenticationToken", "Lifetime validation failed, the token is expired.")

    @classmethod
    def denied(cls) -> GraphProblem:
        return cls(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")

    @classmethod
    def throttled(cls, **headers: str) -> GraphProblem:
        told = {"x-ms-throttle-information": "ResourceUnitLimitExceeded", **headers}
        return cls(429, "TooManyRequests", "Too many requests", headers=told)

    @classmethod
    def internal(cls) -> GraphProblem:
        return cls(500, "InternalServerError", "An unexpected error occurred.")


def _bad(message: str) -> GraphProblem:
    return GraphProblem(400, "Request_BadRequest", message)


@dataclass
class Answer(Broken):
    """What a broken page answers in place of the right thing."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    right: bool = False
    """The page itself, before `cut`, `change` and `repeat`."""
    change: Callable[[dict[str, Any]], Any] | None = None
    """Changes the page itself."""
    drip: bool = False
    """Send a blank now and then, until the client hangs up."""

    @classmethod
    def error(cls, problem: GraphProblem, *, times: int = 1_000_000) -> Answer:
        """One of Graph's errors."""
        headers = {"Content-Type": "application/json", **problem.headers}
        return cls(problem.status, json.dumps(problem.body).encode(), headers, times=times)


@dataclass
class _Event:
    """One change: of properties, of a relationship, or of being there."""

    collection: str
    id: str
    properties: tuple[str, ...] = ()
    other: tuple[str, str] | None = None
    """Type and id of who joined or left."""
    joined: bool = False
    born: bool = False


@dataclass
class _Round:
    """The pages of one round that are still to be given."""

    collection: str
    pages: list[list[dict[str, Any]]]
    select: str
    end: int


class GraphServer(HttpsServer[Answer]):
    """The tenant. Use it as a context manager; then `url`, `ca_file` and `token` say how to log in."""

    def __init__(
        self, *, token: str = "eyJ0eXAiOiJKV1QiLCJub25jZSI6-SecretOfTheTenant", page: int = 999, tls: bool = True
    ) -> None:
        super().__init__()
        self.token = token
        self.tls = tls
        self.page = page
        """The server's own limit of objects a page; Graph's is 999, and 100 with `$expand`."""
        self.delta_page = min(page, 200)
        """Objects a page of a round."""
        self.members_page = 1000
        """Members on a page of a round; a group with more comes again."""
        self.permissions = set(NEEDED.values())
        """Application permissions that are granted. `Member.Read.Hidden` is not."""
        self.whole_changes = False
        """Rounds that go on tell changed objects whole, as "user: delta" promises, and not only what changed."""
        self.forgotten_with = GraphProblem(400, "syncStateNotFound", "The sync state generation is not found.")
        self.lags: set[str] = set()
        """Ids that lists and reads by id do not know yet: their copy lags behind."""
        self.stale: dict[str, dict[str, Any]] = {}
        """By id, properties as a lagging copy still has them."""
        self.requests: list[str] = []
        """Path and query of every request, unquoted."""
        self.headers: list[dict[str, str]] = []
        self.authorizations: list[str] = []
        self.link_origin: str | None = None
        """Origin of the links; the server's own if None."""
        self.apps: dict[str, str] = {}
        """App registrations: client id → client secret. The sign-in is here, too."""
        self.token_life = 3600
        """Seconds that an access token of an app lives."""
        self.signed_in = 0
        """How many access tokens were given."""
        self._objects: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in COLLECTIONS}
        self._links: dict[str, dict[str, dict[str, str]]] = {name: {} for name in RELATION}
        self._assigned: dict[str, list[dict[str, Any]]] = {}
        self._deleted: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {}
        self._log: list[_Event] = []
        self._oldest = 0
        self._rounds: dict[str, _Round] = {}
        self._order: dict[str, tuple[int, list[dict[str, Any]]]] = {}

    # ── content ──

    def _event(self, collection: str, id_: str, **more: Any) -> None:
        self._log.append(_Event(collection, id_, **more))

    def _add(self, collection: str, id_: str, row: dict[str, Any]) -> str:
        assert row.keys() <= COLLECTIONS[collection], row.keys() - COLLECTIONS[collection]
        with self._lock:
            self._objects[collection][id_] = {"id": id_, **row}
            if collection in RELATION:
                self._links[collection][id_] = {}
            self._event(collection, id_, properties=tuple(row), born=True)
        return id_

    def add_user(self, id_: str, login: str, name: str | None = None, *, enabled: bool = True, **more: Any) -> str:
        """Add a user. `manager` may be among `more`."""
        manager = more.pop("manager", None)
        row = {
            "displayName": name or login,
            "userPrincipalName": login,
            "accountEnabled": enabled,
            "userType": "Member",
        }
        self._add("users", id_, {**row, "proxyAddresses": [], "otherMails": [], **more})
        if manager:
            self.link("users", id_, manager)
        return id_

    def add_group(self, id_: str, name: str, *members: str, **more: Any) -> str:
        """Add a group; `members` are users, groups and whatever else there is."""
        row = {"displayName": name, "securityEnabled": True, "mailEnabled": False, "groupTypes": []}
        self._add("groups", id_, {**row, "proxyAddresses": [], **more})
        for member in members:
            self.link("groups", id_, member)
        return id_

    def add_role(self, id_: str, name: str, template: str, *members: str) -> str:
        """Activate a directory role."""
        self._add(
            "directoryRoles", id_, {"displayName": name, "description": f"Can {name}", "roleTemplateId": template}
        )
        for member in members:
            self.link("directoryRoles", id_, member)
        return id_

    def add_app(self, id_: str, name: str, *roles: tuple[str, str, list[str], bool]) -> str:
        """Add a service principal; `roles` are id, name, allowed member types, and whether it is on."""
        told = [
            {
                "id": role,
                "displayName": title,
                "description": title,
                "value": title.replace(" ", "."),
                "allowedMemberTypes": types,
                "isEnabled": on,
                "origin": "Application",
            }
            for role, title, types, on in roles
        ]
        self._assigned[id_] = []
        return self._add("servicePrincipals", id_, {"appId": str(uuid.uuid4()), "displayName": name, "appRoles": told})

    def assign(self, app: str, role: str, principal: str, type_: str = "User") -> None:
        """Give an app role to a user, a group or a service principal (`ServicePrincipal`)."""
        self._assigned[app].append(
            {
                "id": base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="),
                "deletedDateTime": None,
                "appRoleId": role,
                "createdDateTime": "2026-02-02T04:22:45.9480566Z",
                "principalDisplayName": "Somebody",
                "principalId": principal,
                "principalType": type_,
                "resourceDisplayName": self._objects["servicePrincipals"][app]["displayName"],
                "resourceId": app,
            }
        )

    def unassign(self, app: str, role: str, principal: str) -> None:
        """Take an app role away."""
        self._assigned[app] = [
            a for a in self._assigned[app] if (a["appRoleId"], a["principalId"]) != (role, principal)
        ]

    def update(self, collection: str, id_: str, **properties: Any) -> None:
        """Change an object's properties; None unsets one."""
        assert properties.keys() <= COLLECTIONS[collection]
        with self._lock:
            self._objects[collection][id_].update(properties)
            self._event(collection, id_, properties=tuple(properties))

    def link(self, collection: str, id_: str, other: str, type_: str = "") -> None:
        """Put `other` into a group or a role; or make it the manager of a user, in place of whoever was."""
        type_ = type_ or next((TYPES[name] for name, rows in self._objects.items() if other in rows), "device")
        with self._lock:
            links = self._links[collection][id_]
            if collection == "users":
                for before in list(links):
                    self.unlink("users", id_, before)
            links[other] = type_
            self._event(collection, id_, other=(type_, other), joined=True)

    def unlink(self, collection: str, id_: str, other: str) -> None:
        """Undo `link`."""
        with self._lock:
            type_ = self._links[collection][id_].pop(other)
            self._event(collection, id_, other=(type_, other))

    def delete(self, collection: str, id_: str, *, for_good: bool = False) -> None:
        """Delete an object, to the bin or for good; whoever it was linked to loses it."""
        with self._lock:
            for name, all_links in self._links.items():
                for holder, links in all_links.items():
                    if id_ in links:
                        self.unlink(name, holder, id_)
            row = self._objects[collection].pop(id_)
            links = self._links[collection].pop(id_, {})
            self._deleted[id_] = ("deleted" if for_good else "changed", row, links)
            self._event(collection, id_)

    def restore(self, collection: str, id_: str) -> None:
        """Take an object out of the bin, with its members."""
        _, row, links = self._deleted.pop(id_)
        self._add(collection, id_, {k: v for k, v in row.items() if k != "id"})
        for other, type_ in links.items():
            self.link(collection, id_, other, type_)

    def forget(self) -> None:
        """Seven days go by: every token that was given is no more."""
        with self._lock:
            self._event("", "")
            self._oldest = len(self._log)
            self._rounds.clear()

    # ── the server ──

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = body_of(request)
        path, _, query = request.path.partition("?")
        if path.endswith(("/.well-known/openid-configuration", "/oauth2/v2.0/token")):
            self._sign_in(request, path.split("/")[1], dict(parse_qsl(body.decode())))
            return
        self.requests.append(unquote_plus(request.path))
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        self.authorizations.append(request.headers.get("Authorization", ""))
        headers: dict[str, str] = {"Content-Type": "application/json;odata.metadata=minimal"}
        answer, status = None, 200
        try:
            self._admit(request)
            with self._lock:
                document, number = self._get(path, dict(parse_qsl(query, keep_blank_values=True)))
            answer = self._broken_answer(path, number)
            if answer and answer.repeat:
                document.pop("@odata.deltaLink", None)
                document["@odata.nextLink"] = f"{self.url}{request.path}"
            if answer and answer.change:
                answer.change(document)
        except GraphProblem as problem:
            status, document = problem.status, problem.body
            headers |= problem.headers
        data = json.dumps(document).encode()
        if answer:
            if self._hangs_up(request, answer):
                return
            if not (answer.right or answer.repeat or answer.change or answer.empty):
                status, data, headers = answer.status, answer.body, dict(answer.headers)
        if answer and answer.drip:
            self._drip(request, status, headers)
        else:
            send(request, status, headers.items(), data, broken=answer)

    def _drip(self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        """Begin a long body, and send a blank now and then."""
        request.send_response(status)
        request.send_header("Content-Length", "100000")
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.close_connection = True
        with contextlib.suppress(OSError):
            while not self._stopping.wait(0.02):
                request.wfile.write(b" ")
                request.wfile.flush()

    def _sign_in(self, request: BaseHTTPRequestHandler, tenant: str, form: dict[str, str]) -> None:
        """The authority: where its token endpoint is, and a token for a client secret (RFC 6749, 4.4)."""
        status, told = 200, {}
        if request.command == "GET":
            told = {
                "token_endpoint": f"{self.url}/{tenant}/oauth2/v2.0/token",
                "authorization_endpoint": f"{self.url}/{tenant}/oauth2/v2.0/authorize",
                "issuer": f"{self.url}/{tenant}/v2.0",
            }
        elif self.apps.get(form.get("client_id", "")) != form.get("client_secret", ""):
            status = 401
            told = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}
        else:
            assert form["grant_type"] == "client_credentials"
            assert form["scope"] == "https://graph.microsoft.com/.default"
            self.signed_in += 1
            self.token = f"issued-{uuid.uuid4().hex}"
            told = {"token_type": "Bearer", "expires_in": str(self.token_life), "access_token": self.token}
        send(request, status, [("Content-Type", "application/json; charset=utf-8")], json.dumps(told).encode())

    def _admit(self, request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise GraphProblem(401, "InvalidAuthenticationToken", "Access token validation failure.")
        if request.command != "GET":
            raise GraphProblem(405, "Request_BadRequest", "Specified HTTP method is not allowed.")

    # ── the API ──

    def _need(self, collection: str) -> None:
        if NEEDED[collection] not in self.permissions:
            raise GraphProblem.denied()

    def _get(self, path: str, query: dict[str, str]) -> tuple[dict[str, Any], int]:
        """The document, and the page's number."""
        parts = path.removeprefix("/v1.0/").split("/")
        match parts:
            case [("users" | "groups" | "directoryRoles") as name, "delta" | "microsoft.graph.delta" | "delta()"]:
                self._need(name)
                return self._delta(name, query)
            case [("users" | "groups" | "directoryRoles" | "servicePrincipals") as name]:
                self._need(name)
                return self._list(name, query)
            case ["groups", group, "members"]:
                self._need("groups")
                if group not in self._objects["groups"]:
                    raise _not_found(group)
                rows = [self._member(*one) for one in self._seen_members("groups", group)]
                return self._paged(path, rows, query, {"$select"})
            case ["servicePrincipals", app, "appRoleAssignedTo"]:
                self._need("servicePrincipals")
                if app not in self._assigned:
                    raise _not_found(app)
                return self._paged(path, list(self._assigned[app]), query, set())
        raise GraphProblem(400, "BadRequest", f"Resource not found for the segment '{parts[0]}'.")

    def _seen_members(self, collection: str, id_: str) -> list[tuple[str, str]]:
        hidden = self._objects[collection][id_].get("visibility") == "HiddenMembership"
        if hidden and "Member.Read.Hidden" not in self.permissions:
            return []
        return sorted(self._links[collection][id_].items())

    def _member(self, id_: str, type_: str) -> dict[str, Any]:
        return {"@odata.type": f"#microsoft.graph.{type_}", "id": id_}

    def _selected(self, collection: str, query: dict[str, str]) -> list[str]:
        names = query.get("$select", "").split(",") if query.get("$select") else sorted(COLLECTIONS[collection])
        for name in names:
            if name not in COLLECTIONS[collection] | {RELATION.get(collection)}:
                type_ = TYPES[collection]
                raise _bad(f"Could not find a property named '{name}' on type 'microsoft.graph.{type_}'.")
        return names

    def _ordered(self, collection: str) -> list[dict[str, Any]]:
        """By id, without those that a copy does not know yet; kept from page to page, since a list may be long."""
        objects = self._objects[collection]
        version, rows = self._order.get(collection, (-1, []))
        if version != len(self._log) or len(rows) != len(objects):
            rows = [objects[id_] for id_ in sorted(objects)]
            self._order[collection] = len(self._log), rows
        return [row for row in rows if row["id"] not in self.lags] if self.lags else rows

    def _list(self, collection: str, query: dict[str, str]) -> tuple[dict[str, Any], int]:
        known = {"$select", "$filter", "$expand"}
        if collection == "directoryRoles":
            known = set()
        names = self._selected(collection, query)
        rows = self._ordered(collection)
        if filter_ := query.get("$filter"):
            match = re.fullmatch(r"id in \(('[^']+'(?:,'[^']+')*)\)", filter_)
            if not match:
                raise GraphProblem(400, "Request_UnsupportedQuery", "Unsupported Query.")
            wanted = match[1].replace("'", "").split(",")
            if len(wanted) > 15:
                raise _bad(
                    f"Too many child clauses specified in search filter expression containing 'OR': {len(wanted)}"
                )
            rows = [row for row in rows if row["id"] in wanted]
        expand = query.get("$expand", "")
        if expand and (collection != "users" or not re.fullmatch(r"manager(\(\$select=id\))?", expand)):
            raise _bad(f"Could not expand '{expand}'.")

        def told(row: dict[str, Any]) -> dict[str, Any]:
            row = {**row, **self.stale.get(row["id"], {})}
            one = {name: row.get(name) for name in ["id", *names]}
            if collection == "users" and "User.ReadBasic.All" in self.permissions:
                one.pop("accountEnabled", None)
            if expand:
                for manager in self._links["users"][row["id"]]:
                    one["manager"] = {"@odata.type": "#microsoft.graph.user", "id": manager}
            return one

        if collection == "directoryRoles":
            query = {**query, "$top": "999"}
        document, number = self._paged(
            f"/v1.0/{collection}", rows, query, known | {"$top"}, most=100 if expand else 999
        )
        return {**document, "value": [told(row) for row in document["value"]]}, number

    def _paged(
        self, path: str, rows: list[dict[str, Any]], query: dict[str, str], known: set[str], *, most: int = 999
    ) -> tuple[dict[str, Any], int]:
        if unknown := query.keys() - known - {"$top", "$skiptoken"}:
            raise _bad(f"Query option '{min(unknown)}' is not allowed.")
        asked = query.get("$top", "100")
        if not asked.isdecimal() or not 0 < int(asked) <= 999:
            raise _bad("Invalid page size specified: it must be from 1 to 999.")
        size = min(int(asked), most, self.page)
        start = _position(query["$skiptoken"]) if "$skiptoken" in query else 0
        document: dict[str, Any] = {
            "@odata.context": f"{self.url}/v1.0/$metadata#{path.removeprefix('/v1.0/')}",
            "value": rows[start : start + size],
        }
        if start + size < len(rows):
            kept = {**query, "$skiptoken": _skip(start + size)}
            document["@odata.nextLink"] = self._link(path, kept)
        return document, start // size + 1

    def _link(self, path: str, query: dict[str, str]) -> str:
        told = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return f"{self.link_origin or self.url}{path}?{told}"

    # ── delta queries ──

    def _delta(self, collection: str, query: dict[str, str]) -> tuple[dict[str, Any], int]:
        known = {"$select", "$filter", "$deltatoken", "$skiptoken", "$expand"}
        if collection == "directoryRoles":
            known.discard("$expand")
        lowered = {name.lower(): value for name, value in query.items()}
        if unknown := lowered.keys() - known:
            raise _bad(f"Query option '{min(unknown)}' is not supported for a delta query.")
        if "$skiptoken" in lowered:
            key, _, number = lowered["$skiptoken"].rpartition(".")
            if key not in self._rounds or not number.isdecimal():
                raise self.forgotten_with
            return self._round_page(collection, key, int(number))
        select = lowered.get("$select", "")
        self._selected(collection, {"$select": select})
        now = len(self._log)
        token = lowered.get("$deltatoken")
        if token == "latest":
            return {**self._context(collection), "value": [], "@odata.deltaLink": self._end(collection, select, now)}, 1
        told: list[dict[str, Any] | None]
        if token is None:
            told = [self._begun(collection, id_, select) for id_ in sorted(self._objects[collection])]
        else:
            since, select = self._since(collection, token)
            told = [self._told(collection, id_, since, select) for id_ in self._changed(collection, since)]
        rows = [part for row in told if row is not None for part in self._parts(row)]
        pages = self._packed(rows)
        key = uuid.uuid4().hex
        self._rounds[key] = _Round(collection, pages, select, now)
        return self._round_page(collection, key, 0)

    def _context(self, collection: str) -> dict[str, Any]:
        return {"@odata.context": f"{self.url}/v1.0/$metadata#{collection}"}

    def _round_page(self, collection: str, key: str, number: int) -> tuple[dict[str, Any], int]:
        round_ = self._rounds[key]
        if round_.collection != collection:
            raise self.forgotten_with
        document = {**self._context(collection), "value": round_.pages[number]}
        if number + 1 < len(round_.pages):
            document["@odata.nextLink"] = self._link(f"/v1.0/{collection}/delta", {"$skiptoken": f"{key}.{number + 1}"})
        else:
            document["@odata.deltaLink"] = self._end(collection, round_.select, round_.end)
        return document, number + 1

    def _end(self, collection: str, select: str, number: int) -> str:
        text = json.dumps([collection, select, number]).encode()
        return self._link(f"/v1.0/{collection}/delta", {"$deltatoken": base64.urlsafe_b64encode(text).decode()})

    def _since(self, collection: str, token: str) -> tuple[int, str]:
        try:
            name, select, number = json.loads(base64.urlsafe_b64decode(token))
        except ValueError:
            raise _bad("Badly formed token.") from None
        if name != collection:
            raise _bad("Badly formed token.")
        if number < self._oldest:
            raise self.forgotten_with
        return number, select

    def _follows(self, collection: str, select: str) -> bool:
        return not select or RELATION[collection] in select.split(",")

    def _begun(self, collection: str, id_: str, select: str) -> dict[str, Any]:
        """An object in a round that begins: what is set, and all that is linked."""
        row = self._objects[collection][id_]
        names = select.split(",") if select else sorted(COLLECTIONS[collection])
        told = {"id": id_} | {name: row[name] for name in names if row.get(name) is not None}
        if self._follows(collection, select):
            links = self._links["users"][id_].items() if collection == "users" else self._seen_members(collection, id_)
            if links:
                told[f"{RELATION[collection]}@delta"] = [self._member(*one) for one in links]
        return told

    def _changed(self, collection: str, since: int) -> list[str]:
        """Ids in the order of their first change."""
        return list(dict.fromkeys(e.id for e in self._log[since:] if e.collection == collection))

    def _told(self, collection: str, id_: str, since: int, select: str) -> dict[str, Any] | None:
        """An object in a round that goes on; None if nothing that is followed has changed."""
        if id_ not in self._objects[collection]:
            return {"id": id_, "@removed": {"reason": self._deleted[id_][0]}}
        events = [e for e in self._log[since:] if e.collection == collection and e.id == id_]
        if any(e.born for e in events):
            return self._begun(collection, id_, select)
        row = self._objects[collection][id_]
        names = select.split(",") if select else sorted(COLLECTIONS[collection])
        changed = [name for name in names if any(name in e.properties for e in events)]
        told: dict[str, Any] = {"id": id_} | {name: row[name] for name in changed}
        if self.whole_changes:
            told |= {name: row[name] for name in names if row.get(name) is not None}
        links = [e for e in events if e.other]
        if links and self._follows(collection, select):
            seen = dict(self._seen_members(collection, id_)) if collection != "users" else None
            last = {e.other: e for e in links}
            told[f"{RELATION[collection]}@delta"] = [
                {**self._member(other[1], other[0]), **({} if e.joined else {"@removed": {"reason": "deleted"}})}
                for other, e in last.items()
                if other and (seen is None or not e.joined or other[1] in seen)
            ]
            if not told[f"{RELATION[collection]}@delta"]:
                del told[f"{RELATION[collection]}@delta"]
        return told if len(told) > 1 else None

    def _packed(self, rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Pages: each is full with so many objects, or so many members."""
        pages: list[list[dict[str, Any]]] = [[]]
        room = self.members_page
        for row in rows:
            size = len(row.get("members@delta", []))
            if pages[-1] and (len(pages[-1]) >= self.delta_page or size > room):
                pages.append([])
                room = self.members_page
            pages[-1].append(row)
            room -= size
        return pages

    def _parts(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A group with many members comes several times, with some of them each."""
        members = row.get("members@delta", [])
        if len(members) <= self.members_page:
            yield row
            return
        for start in range(0, len(members), self.members_page):
            yield {**row, "members@delta": members[start : start + self.members_page]}


def _not_found(id_: str) -> GraphProblem:
    message = f"Resource '{id_}' does not exist or one of its queried reference-property objects are not present."
    return GraphProblem(404, "Request_ResourceNotFound", message)


def _skip(position: int) -> str:
    # Opaque, and with characters that must survive encoding: +, / and =.
    return base64.b64encode(b"\xfb\xef\xff" + str(position).encode()).decode()


def _position(token: str) -> int:
    try:
        data = base64.b64decode(token, validate=True)
        if data.startswith(b"\xfb\xef\xff"):
            return int(data[3:])
    except ValueError:
        pass
    raise GraphProblem(400, "Directory_ExpiredPageToken", "The specified page token value has expired.")
