"""Azure Resource Graph on loopback: one tenant's management groups, subscriptions, resource groups and resources.

Built from Microsoft's published pages: the REST API "Azure Resource Graph: Resources" (2021-03-01: request, response,
`$skipToken`, `resultTruncated`), "Paging results", "Guidance for throttled requests" (the quota's headers, the one that
tells of more than 10,000 subscriptions), "Get resource changes" (`resourcechanges`, `resourcecontainerchanges`), "Azure
Resource Graph table and resource type reference" with its samples (`managementGroupAncestorsChain`), "Common error
codes" of Azure Resource Manager; "Guidance for pagination" (partitions by a hash); and of the Microsoft identity platform
"The client credentials flow", "Error codes", "How to use managed identities on an Azure VM to acquire an access token".

It understands the part of the query language that a reader of tables needs. What one may not read is left out. Pages
go by position, over what there is at that moment. Its clock stands still unless `advance` moves it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, parse_qsl
from zlib import crc32

from tests.servers.base import Broken, HttpsServer, body_of, send

PATH = "/providers/Microsoft.ResourceGraph/resources"
GROUPS = "/providers/Microsoft.Management/managementGroups/"
TENANT = "11111111-2222-3333-4444-555555555555"
LITERAL = r"'((?:[^'\\]|\\.)*)'"


class ArmProblem(Exception):
    """An error as Azure Resource Manager words it."""

    def __init__(
        self, status: int, code: str, message: str, *details: tuple[str, str], headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(code)
        self.status = status
        self.headers = headers or {}
        self.body: dict[str, Any] = {"error": {"code": code, "message": message}}
        if details:
            self.body["error"]["details"] = [{"code": c, "message": m} for c, m in details]

    @classmethod
    def expired_token(cls) -> ArmProblem:
        return cls(
            401,
            "ExpiredAuthenticationToken",
            "The access token expiry UTC time '11/23/2026 8:00:00 AM' is earlier than current UTC time.",
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
        )

    @classmethod
    def denied(cls) -> ArmProblem:
        return cls(
            403,
            "AuthorizationFailed",
            "The client 'ownerd' does not have authorization to perform action 'Microsoft.ResourceGraph/resources/read'"
            " over scope '/providers/Microsoft.ResourceGraph' or the scope is invalid.",
        )

    @classmethod
    def throttled(cls, **headers: str) -> ArmProblem:
        return cls(
            429,
            "RateLimiting",
            "Please provide below info when asking for support: timestamp = 2026-11-23T08:00:00Z.",
            ("RateLimiting", "Client application has been throttled and should not attempt to repeat the request."),
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    @classmethod
    def internal(cls, status: int = 500) -> ArmProblem:
        return cls(status, "InternalServerError", "Encountered internal server error.")


@dataclass
class Answer(Broken):
    """What a broken page answers in place of the right thing. `repeat`: its token leads on from all later pages, too."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    right: bool = False
    """The page itself, before `cut`, `change` and `repeat`."""
    change: Callable[[dict[str, Any]], Any] | None = None
    """Changes the page itself."""
    more: dict[str, str] = field(default_factory=dict)
    """Further headers of the page itself."""
    hide: bool = False
    """From this page on no subscription may be read any more."""
    first: Callable[[], Any] | None = None
    """Called before the page is answered as usual."""

    @classmethod
    def error(cls, problem: ArmProblem, *, times: int = 1_000_000) -> Answer:
        """One of ARM's errors."""
        headers = {"Content-Type": "application/json; charset=utf-8", **problem.headers}
        return cls(problem.status, json.dumps(problem.body).encode(), headers, times=times)


class AzureServer(HttpsServer[Answer]):
    """The tenant. Use it as a context manager; then `url`, `ca_file` and `token` say how to log in."""

    def __init__(
        self, *, token: str = "eyJ0eXAiOiJKV1Qi-SecretOfTheTenant", page: int = 1000, tls: bool = True
    ) -> None:
        super().__init__()
        self.token = token
        self.page = page
        """The server's own limit of rows a page."""
        self.tls = tls
        self.clock = 1_795_000_000.0
        self.quota = (14, "00:00:05")
        """What the headers tell: queries that are left, and when there are more."""
        self.positions = True
        """Whether `$skip` counts beside a token, as documented."""
        self.most_bytes = 16_777_216
        """Of rows in an answer."""
        self.apps = {"app": "s3cret-of-the-app"}
        """Client secrets. An app with an empty one signs in with a certificate."""
        self.sign_in_error: tuple[int, str, str] | None = None
        self.sign_in_page: bytes | None = None
        """What stands in place of the authority's answers: some gateway's own page."""
        self.identities: dict[str, int] = {}
        """What the metadata service answers, by client id ("" is the machine's own identity)."""
        self.signed_in = 0
        self.assertions: list[str] = []
        self.tenants: list[str] = []
        """Those that were signed in to."""
        self.requests: list[dict[str, Any]] = []
        """The bodies of all queries."""
        self.headers: list[dict[str, str]] = []
        self.unseen: set[str] = set()
        """Subscriptions that may not be read; management groups, by their names."""
        self.rows: dict[str, dict[str, dict[str, Any]]] = {"resources": {}, "resourcecontainers": {}}
        self.changes: dict[str, list[dict[str, Any]]] = {"resourcechanges": [], "resourcecontainerchanges": []}
        self._hiding = False
        self._repeated: tuple[str, str] | None = None

    # --- content ----------------------------------------------------------------------------------------------------

    def put(self, id_: str, name: str, kind: str, tags: dict[str, Any] | None = None, **properties: Any) -> str:
        """Make or replace a row, and let the table of changes know."""
        subscription = id_.split("/")[2].lower() if id_.lower().startswith("/subscriptions/") else ""
        row = {"id": id_, "name": name, "type": kind, "tenantId": TENANT, "location": "westeurope", "tags": tags}
        row |= {"subscriptionId": subscription, "properties": properties}
        contains = kind.startswith(("microsoft.resources/subscriptions", "microsoft.management/managementgroups"))
        of = "resourcecontainers" if contains else "resources"
        known = self.rows[of].get(id_.lower())
        self.rows[of][id_.lower()] = row
        self._changed(of, row, "Update" if known else "Create")
        return id_

    def delete(self, id_: str) -> None:
        """Take a row away, and let the table of changes know."""
        for of, rows in self.rows.items():
            if row := rows.pop(id_.lower(), None):
                self._changed(of, row, "Delete")

    def _changed(self, of: str, row: dict[str, Any], kind: str) -> None:
        number = len(self.changes["resourcechanges"]) + len(self.changes["resourcecontainerchanges"])
        at = datetime.fromtimestamp(self.clock, UTC).strftime("%Y-%m-%dT%H:%M:%S.1234567Z")
        self.changes[f"{of.removesuffix('s')}changes"].append(
            {
                "id": f"{row['id']}/providers/Microsoft.Resources/changes/{number:08x}",
                "name": f"{number:08x}",
                "type": "microsoft.resources/changes",
                "subscriptionId": row["subscriptionId"],
                "properties": {
                    "targetResourceId": row["id"],
                    "targetResourceType": row["type"],
                    "changeType": kind,
                    "changeAttributes": {"timestamp": at, "changesCount": 1},
                },
            }
        )

    def advance(self, seconds: float) -> None:
        self.clock += seconds

    def management_group(self, name: str, title: str, *above: str) -> str:
        """`above`: the names from the parent to the root."""
        chain = [{"name": a, "displayName": a.title()} for a in above]
        details = {"managementGroupAncestorsChain": chain, "parent": chain[0] if chain else {}}
        return self.put(
            GROUPS + name, name, "microsoft.management/managementgroups", displayName=title, details=details
        )

    def subscription(self, guid: str, name: str, tags: dict[str, Any] | None = None, *above: str) -> str:
        chain = [{"name": a, "displayName": a.title()} for a in above]
        kind = "microsoft.resources/subscriptions"
        return self.put(
            f"/subscriptions/{guid}", name, kind, tags, managementGroupAncestorsChain=chain, state="Enabled"
        )

    def group(self, guid: str, name: str, tags: dict[str, Any] | None = None) -> str:
        kind = "microsoft.resources/subscriptions/resourcegroups"
        return self.put(f"/subscriptions/{guid}/resourceGroups/{name}", name, kind, tags)

    # --- faults -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def broken(self, table: str, page: int, answer: Answer) -> Iterator[Answer]:
        """Have page number `page` (from 1) of every query of `table` answer wrongly while this lasts."""
        with super().broken(table, page, answer):
            try:
                yield answer
            finally:
                self._hiding, self._repeated = False, None

    # --- the server -------------------------------------------------------------------------------------------------

    def date(self) -> str:
        return formatdate(self.clock, usegmt=True)

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        data = body_of(request)
        path, _, query = request.path.partition("?")
        if path.endswith(("/.well-known/openid-configuration", "/oauth2/v2.0/token")):
            self._sign_in(request, path.split("/")[1], dict(parse_qsl(data.decode())))
            return
        if path == "/metadata/identity/oauth2/token":
            self._metadata(request, dict(parse_qsl(query)))
            return
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        status, headers, answer = 200, {"Content-Type": "application/json; charset=utf-8"}, None
        headers |= {"x-ms-user-quota-remaining": str(self.quota[0]), "x-ms-user-quota-resets-after": self.quota[1]}
        headers["x-ms-resource-graph-request-duration"] = "0:00:00:00.0123"
        try:
            with self._lock:
                asked = self._admit(request, path, parse_qs(query), data)
                table, number = self._place(asked)
                answer = self._broken_answer(table, number)
                if answer and answer.hide:
                    self._hiding = True
                if answer and answer.first:
                    answer.first()
                document = self._answer(asked)
            if answer and answer.repeat:
                self._repeated = table, asked["options"].get("$skipToken") or _token(asked, 0)
            if self._repeated and self._repeated[0] == table:
                document["$skipToken"] = self._repeated[1]
            if answer and answer.change:
                answer.change(document)
        except ArmProblem as problem:
            status, document = problem.status, problem.body
            headers |= problem.headers
        sent = json.dumps(document).encode()
        if answer:
            if self._hangs_up(request, answer):
                return
            headers |= answer.more
            if not (answer.right or answer.repeat or answer.change or answer.hide or answer.first):
                status, sent, headers = answer.status, answer.body, dict(answer.headers)
        send(request, status, headers.items(), sent, broken=answer)

    def _sign_in(self, request: BaseHTTPRequestHandler, tenant: str, form: dict[str, str]) -> None:
        """The authority: where its token endpoint is, and a token for a secret or a certificate (RFC 6749, RFC 7523)."""
        status, told = 200, {}
        secret = self.apps.get(form.get("client_id", ""))
        self.tenants.append(tenant)
        if self.sign_in_page is not None:
            send(request, 200, [("Content-Type", "text/html")], self.sign_in_page)
            return
        if request.command == "GET":
            told = {
                "token_endpoint": f"{self.url}/{tenant}/oauth2/v2.0/token",
                "authorization_endpoint": f"{self.url}/{tenant}/oauth2/v2.0/authorize",
                "issuer": f"{self.url}/{tenant}/v2.0",
            }
        elif self.sign_in_error:
            status, code, message = self.sign_in_error
            told = {"error": code, "error_description": message}
        elif secret is None or (secret and secret != form.get("client_secret")):
            status = 401
            told = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}
        else:
            assert form["grant_type"] == "client_credentials"
            assert form["scope"] == "https://management.azure.com/.default", form["scope"]
            if not secret:
                self.assertions.append(form["client_assertion"])
            told = self._issued()
        send(request, status, [("Content-Type", "application/json; charset=utf-8")], json.dumps(told).encode())

    def _metadata(self, request: BaseHTTPRequestHandler, query: dict[str, str]) -> None:
        """The metadata service of a machine, which knows its identities."""
        status = self.identities.get(query.get("client_id", ""), 400)
        told: dict[str, Any] = {"error": "invalid_request", "error_description": "Identity not found"}
        if request.headers.get("Metadata") != "true" or query.get("resource") != "https://management.azure.com":
            status = 400
        elif status == 200:
            told = {"client_id": query.get("client_id", "own"), "resource": query["resource"], **self._issued()}
        send(request, status, [("Content-Type", "application/json; charset=utf-8")], json.dumps(told).encode())

    def _issued(self) -> dict[str, str]:
        self.signed_in += 1
        self.token = f"issued-{uuid.uuid4().hex}"
        return {"token_type": "Bearer", "expires_in": "3599", "access_token": self.token}

    def _admit(
        self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]], data: bytes
    ) -> dict[str, Any]:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise ArmProblem(401, "InvalidAuthenticationToken", "The access token is invalid.")
        if path != PATH:
            raise ArmProblem(404, "InvalidResourceType", f"The resource type could not be found: {path[:100]}")
        if request.command != "POST":
            raise ArmProblem(405, "HttpMethodNotAllowed", "The method is not allowed.")
        if query.get("api-version") not in (["2021-03-01"], ["2022-10-01"]):
            raise ArmProblem(400, "InvalidApiVersionParameter", "The api-version is invalid.")
        asked: dict[str, Any] = json.loads(data)
        if unknown := asked.keys() - {"query", "subscriptions", "managementGroups", "options", "facets"}:
            raise _bad(f"Unknown properties: {sorted(unknown)}")
        if asked.get("options", {}).get("resultFormat") != "objectArray":
            raise _bad("This server knows the format objectArray only.")
        self.requests.append(asked)
        if not self.positions:
            asked = {**asked, "options": {k: v for k, v in asked["options"].items() if k != "$skip"}}
        return asked

    # --- queries ----------------------------------------------------------------------------------------------------

    def _place(self, asked: dict[str, Any]) -> tuple[str, int]:
        """The table, and the page's number."""
        start, size = _start(asked), self._size(asked)
        if "$skip" in asked["options"] and size > 1:  # a page begins with the last row of the one before
            size -= 1
        return asked["query"].split("|")[0].strip().lower(), start // size + 1

    def _size(self, asked: dict[str, Any]) -> int:
        top = asked["options"].get("$top", 100)
        if not isinstance(top, int) or not 1 <= top <= 1000:
            raise _bad("$top must be from 1 to 1000.")
        return min(top, self.page)

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        rows = self._evaluate(asked["query"], self._scope(asked))
        start, size = _start(asked), self._size(asked)
        page = rows[start : start + size]
        if (bytes_ := len(json.dumps(page))) > self.most_bytes:
            message = f"Response payload size is {bytes_}, and has exceeded the limit of {self.most_bytes}."
            raise ArmProblem(400, "BadRequest", "Bad request.", ("ResponsePayloadTooLarge", message))
        document = {
            "totalRecords": len(rows),
            "count": len(page),
            "data": page,
            "facets": [],
            "resultTruncated": "false",
        }
        if start + size < len(rows):
            document["$skipToken"] = _token(asked, start + size)
        return document

    def _scope(self, asked: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
        """What may be read, of what is asked for."""
        named, groups = asked.get("subscriptions"), asked.get("managementGroups")
        if named is not None and groups is not None:
            raise _bad("Give subscriptions or managementGroups, not both.")
        if groups is not None:
            for name in groups:
                if (GROUPS + name).lower() not in self.rows["resourcecontainers"] or name in self.unseen:
                    raise ArmProblem(
                        403, "AccessDenied", f"Access is denied to the requested management groups: {name}"
                    )

        def within(row: dict[str, Any]) -> bool:
            if not (id_ := row["subscriptionId"]):
                below = [row["name"], *_chain(row)]
                seen = row["name"] not in self.unseen
                return seen and named is None and (groups is None or bool(set(groups) & set(below)))
            if self._hiding or id_ in self.unseen:
                return False
            if groups is not None:
                holder = self.rows["resourcecontainers"].get(f"/subscriptions/{id_}")
                return bool(holder and set(groups) & set(_chain(holder)))
            return named is None or id_ in {x.lower() for x in named}

        return within

    def _evaluate(self, query: str, within: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        steps = [step.strip() for step in re.findall(rf"(?:{LITERAL[:1]}(?:[^'\\]|\\.)*'|[^'|])+", query)]
        table = steps[0].lower()
        source = self.changes.get(table) or list(self.rows.get(table, {}).values())
        if table not in {*self.changes, *self.rows}:
            raise _bad(f"Table {table} is unknown.")
        rows = [row for row in source if within(row)]
        for step in steps[1:]:
            verb, _, rest = step.partition(" ")
            if verb == "where":
                rows = [row for row in rows if _condition(rest)(row)]
            elif verb == "project":
                rows = [_projected(rest, row) for row in rows]
            elif step == "summarize number = count() by id = subscriptionId":
                counts = Counter(row["subscriptionId"] for row in rows)
                rows = [{"id": id_, "number": number} for id_, number in counts.items()]
            elif step == "order by id asc":
                rows.sort(key=lambda row: row["id"].lower())
            else:
                raise _bad(f"Not understood: {step}")
        return rows


def _bad(message: str) -> ArmProblem:
    return ArmProblem(
        400, "BadRequest", "Please provide below info when asking for support.", ("InvalidQuery", message)
    )


def _chain(row: dict[str, Any]) -> list[str]:
    properties = row["properties"]
    chain = properties.get("managementGroupAncestorsChain") or properties.get("details", {}).get(
        "managementGroupAncestorsChain", []
    )
    return [one["name"] for one in chain]


def _condition(text: str) -> Callable[[dict[str, Any]], bool]:
    if match := re.fullmatch(rf"(\w+) =~ {LITERAL}", text):
        column, value = match[1], _literal(match[2]).lower()
        return lambda row: bool(row[column].lower() == value)
    if match := re.fullmatch(rf"(\w+) in~ \(({LITERAL}(?:, {LITERAL})*)\)", text):
        column, values = match[1], {_literal(m).lower() for m in re.findall(LITERAL, match[2])}
        return lambda row: row[column].lower() in values
    if match := re.fullmatch(
        r"todatetime\(([\w.]+)\) between \(datetime\(([\dTZ:-]+)\) \.\. datetime\(([\dTZ:-]+)\)\)", text
    ):
        path, since, until = match[1], datetime.fromisoformat(match[2]), datetime.fromisoformat(match[3])
        return lambda row: since <= _moment(_value(path, row)) <= until
    if match := re.fullmatch(r"hash\(tolower\(id\)\) % (\d+) == (\d+)", text):
        of, number = int(match[1]), int(match[2])
        return lambda row: crc32(row["id"].lower().encode()) % of == number
    raise _bad(f"Not understood: where {text}")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z", r"\1+00:00", text))


def _literal(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r", "t": "\t"}.get(m[1], m[1]), text)


def _value(path: str, row: dict[str, Any]) -> Any:
    if match := re.fullmatch(r"tostring\((.+)\)", path):
        value = _value(match[1], row)
        return "" if value is None else str(value)
    found: Any = row
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _projected(columns: str, row: dict[str, Any]) -> dict[str, Any]:
    pairs = (column.partition(" = ") for column in columns.split(", "))
    return {name: _value(path or name, row) for name, _, path in pairs}


def _fingerprint(asked: dict[str, Any]) -> str:
    same = [asked["query"], asked.get("subscriptions"), asked.get("managementGroups")]
    return hashlib.sha256(json.dumps(same).encode()).hexdigest()[:12]


def _token(asked: dict[str, Any], start: int) -> str:
    return base64.b64encode(json.dumps({"start": start, "of": _fingerprint(asked)}).encode()).decode()


def _start(asked: dict[str, Any]) -> int:
    token = asked["options"].get("$skipToken")
    if token is None:
        return int(asked["options"].get("$skip", 0))
    try:
        told = json.loads(base64.b64decode(token, validate=True))
    except ValueError:
        raise _bad("The skip token is not valid.") from None
    if told["of"] != _fingerprint(asked):
        raise _bad("The skip token is another query's.")
    return int(asked["options"].get("$skip", told["start"]))
