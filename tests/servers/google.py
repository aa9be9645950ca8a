"""What Google's APIs have in common, on loopback over TLS: tokens, errors, pages, and faults on them.

Built from Google's published pages: "Using OAuth 2.0 for Server to Server Applications" (the token endpoint, signed
assertions, delegation to a user), IAM Service Account Credentials `generateAccessToken`, AIP-193 (errors, with
`google.rpc.ErrorInfo` and `RetryInfo`), AIP-158 (pages), and the older form of errors that Workspace's APIs have.

A server of one API registers its methods by their id in the description (discovery document) that
google-api-python-client ships: each request is held against the method's parameters, and each answer against its
schema, so that what this server says is what Google says it says. The clock of its tokens stands still, unless moved.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.servers.base import Broken, HttpsServer, Listener, body_of, send

WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
CLOUD = "https://www.googleapis.com/auth/cloud-platform"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class GoogleProblem(Exception):
    """An error of a Google API, in the form of AIP-193; `reason` makes an ErrorInfo."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_delay: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        details: list[dict[str, Any]] = []
        if reason:
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
            details.append({**info, "metadata": dict(metadata or {})})
        if retry_delay:
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": retry_delay})
        fault: dict[str, Any] = {"code": status, "message": message, "status": WORDS[status]}
        self.body: dict[str, Any] = {"error": {**fault, "details": details} if details else fault}

    @classmethod
    def old(cls, status: int, message: str, reason: str, headers: Mapping[str, str] | None = None) -> Self:
        """The older form: a list `errors`, each with a `reason`."""
        problem = cls(status, message, headers=headers)
        one = {"message": message, "domain": "global", "reason": reason}
        problem.body = {"error": {"code": status, "message": message, "errors": [one]}}
        return problem

    @classmethod
    def disabled(cls, service: str, project: str) -> Self:
        """The API is not enabled in the project of the credentials."""
        return cls(
            403,
            f"Cloud API has not been used in project {project} before or it is disabled.",
            reason="SERVICE_DISABLED",
            metadata={"service": service, "consumer": f"projects/{project}"},
        )


class TokenProblem(Exception):
    """An error of the token endpoint (RFC 6749, 5.2)."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.status = status
        self.headers: dict[str, str] = {}
        self.body = {"error": error, "error_description": description}


@dataclass
class Answer(Broken):
    """What a broken page answers in place of the right thing; what is `cut` or comes again is the right page."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    right: bool = False
    """The right page (after `before` ran)."""
    before: Callable[[], None] | None = None
    """Runs before the answer."""
    change: Callable[[Any], Any] | None = None
    """Makes of the right document what is answered; it is then held against no schema."""

    @classmethod
    def of(cls, problem: GoogleProblem, *, times: int = 1_000_000) -> Answer:
        """One of Google's errors."""
        return cls(problem.status, json.dumps(problem.body).encode(), problem.headers, times=times)


@dataclass(frozen=True)
class Granted:
    """Who holds an access token, and for what. `subject`: the user whom a service account acts as."""

    email: str
    scopes: frozenset[str]
    subject: str = ""
    ends: float = float("inf")


@dataclass(frozen=True)
class Call:
    """A request to a method of the API, its parameters checked."""

    path: str
    query: Mapping[str, list[str]]
    token: Granted

    def one(self, name: str, default: str = "") -> str:
        """A parameter's value."""
        return self.query.get(name, [default])[0]


Handler = Callable[..., tuple[Any, int]]
"""Given the call and the pattern's groups: the document, and the number of its page (from 1)."""


@cache
def description(name: str, version: str) -> dict[str, Any]:
    """The description of an API that google-api-python-client ships."""
    from googleapiclient import discovery_cache

    folder = Path(discovery_cache.__file__).parent / "documents"
    found: dict[str, Any] = json.loads((folder / f"{name}.{version}.json").read_text())
    return found


def method_of(api: Mapping[str, Any], id_: str) -> dict[str, Any]:
    """A method of an API by its id, wherever it stands."""

    def under(node: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        yield from node.get("methods", {}).values()
        for child in node.get("resources", {}).values():
            yield from under(child)

    return next(m for m in under(api) if m["id"] == id_)


def nonconformity(api: Mapping[str, Any], schema: Mapping[str, Any], value: Any, place: str = "$") -> str:
    """What in `value` does not follow a schema of the API's description; "" if it does."""
    if "$ref" in schema:
        schema = api["schemas"][schema["$ref"]]
    kind = schema.get("type", "any")
    if kind == "any":
        return ""
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
    }
    if not isinstance(value, types[kind]) or (kind in {"integer", "number"} and isinstance(value, bool)):
        return f"{place} is no {kind}"
    if kind == "array":
        return next(
            (w for i, v in enumerate(value) if (w := nonconformity(api, schema["items"], v, f"{place}[{i}]"))), ""
        )
    if kind == "object":
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, inner in value.items():
            if key not in known and others is None:
                return f"{place} has {key}, which {schema.get('id')} has not"
            if wrong := nonconformity(api, known.get(key, others), inner, f"{place}.{key}"):
                return wrong
    if kind == "string" and "enum" in schema and value not in schema["enum"]:
        return f"{place} is {value!r}, which is none of its values"
    return ""


class GoogleServer(HttpsServer[Answer]):
    """One API. Use it as a context manager; then `url`, `ca_file`, `token` and `key_file` say how to log in."""

    names = ("localhost", "127.0.0.1", "*.googleapis.com")
    methods = ("GET", "POST")

    def __init__(self, *, page: int = 500, token: str = "ya29.SecretTokenOfTests-aBcDeF_1234567890") -> None:
        super().__init__()
        self.page = page
        """The server's own limit of entries a page."""
        self.token = token
        """An access token that lives for ever, of `email`."""
        self.email = "ownerd@acme-ops.iam.gserviceaccount.com"
        self.delegated: set[str] = set()
        """OAuth scopes for which the service account may act as users."""
        self.impersonable: set[str] = set()
        """Service accounts whose tokens `email` may make."""
        self.clock = 1_795_000_000.0
        self.token_life = 3600
        self.token_length = 0
        """Page tokens are at least this long."""
        self.requests: list[str] = []
        """Method, path and query of every request."""
        self.authorizations: list[str] = []
        self.tokens_issued = 0
        self.problems: list[str] = []
        """Where this server itself, or a client, strayed from the description."""
        self._tokens = {token: Granted(self.email, frozenset({CLOUD}))}
        self._routes: list[tuple[re.Pattern[str], dict[str, Any], dict[str, Any], Handler]] = []
        self._spent: set[str] = set()
        self.key_file = ""

    # ── what an API adds ──

    def route(self, api: str, version: str, method: str, pattern: str, handler: Handler) -> None:
        """Answer requests whose path matches `pattern` as the method with this id, by `handler`."""
        found = description(api, version)
        self._routes.append((re.compile(pattern), found, method_of(found, method), handler))

    def paged(
        self, call: Call, key: str, rows: Sequence[Any], *, most: int, size: str = "pageSize"
    ) -> tuple[dict[str, Any], int]:
        """The page of `rows` that `call` asks for, under `key`, and its number. A token serves only its own query."""
        asked = int(call.one(size, "0") or 0)
        if asked < 0:
            raise GoogleProblem(400, f"{size} is negative")
        length = min(asked or most, most, self.page)
        same = json.dumps({k: v for k, v in call.query.items() if k != "pageToken"}, sort_keys=True)
        start = _position(call.one("pageToken"), call.path + same) if "pageToken" in call.query else 0
        document: dict[str, Any] = {key: list(rows[start : start + length])} if rows[start:] else {}
        if start + length < len(rows):
            document["nextPageToken"] = _cursor(start + length, call.path + same, self.token_length)
        return document, start // length + 1

    def grant(self, token: str, *scopes: str, email: str = "", subject: str = "") -> None:
        """Have an access token that lives for ever: of the service account, unless another's `email` is given."""
        self._tokens[token] = Granted(email or self.email, frozenset(scopes), subject)

    def expire_tokens(self, email: str = "") -> None:
        """End every token that was issued (to one service account): what its holder thinks of its time does not count."""
        with self._lock:
            kept = {t: g for t, g in self._tokens.items() if t == self.token or (email and g.email != email)}
            self._tokens = kept

    def revoke(self) -> None:
        """End every token, and give no new ones."""
        with self._lock:
            self._tokens = {}
            self._public = rsa.generate_private_key(65537, 2048).public_key()

    # ── the server ──

    def __enter__(self) -> Self:
        super().__enter__()
        private, self._public = _key()
        self.key = {
            "type": "service_account",
            "project_id": "acme-ops",
            "private_key_id": "0123456789abcdef",
            "private_key": private,
            "client_email": self.email,
            "client_id": "103456789012345678901",
            "token_uri": f"{self.url}/token",
        }
        self.key_file = str(Path(self._folder.name, "key.json"))
        Path(self.key_file).write_text(json.dumps(self.key))
        return self

    def date(self) -> str:
        return formatdate(self.clock, usegmt=True)

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = body_of(request)
        path, _, query = request.path.partition("?")
        if request.headers.get("X-HTTP-Method-Override") == "GET":  # what was too long for a URL
            query, body = body.decode(), b""
        self.requests.append(f"{request.command} {path}?{query}")
        self.authorizations.append(request.headers.get("Authorization", ""))
        answer = None
        status, headers = 200, {}
        document: Any = None
        try:
            if path == "/token":
                answer = self._broken_answer(path, 1)
                document = self._token(parse_qs(body.decode()))
            elif match := re.fullmatch(r"/v1/projects/-/serviceAccounts/([^/:]+):generateAccessToken", path):
                answer = self._broken_answer(path, 1)
                document = self._impersonate(self._holder(request), unquote(match[1]), json.loads(body))
            else:
                document, answer = self._call(request, path, parse_qs(query, keep_blank_values=True))
        except (GoogleProblem, TokenProblem) as problem:
            status, document, headers = problem.status, problem.body, problem.headers
        except Exception as error:  # this server's own mistake: let it not look like a broken connection
            self.problems.append(f"{path}: {error!r}")
            raise
        data = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if answer:
            if self._hangs_up(request, answer):
                return
            if not (answer.right or answer.repeat or answer.cut or answer.change or answer.empty):
                status, data, headers = answer.status, answer.body, dict(answer.headers)
        if "gzip" in request.headers.get("Accept-Encoding", "") and not (answer and answer.empty):
            data, headers = gzip.compress(data, mtime=0), {**headers, "Content-Encoding": "gzip"}
        told = [("Content-Type", "application/json; charset=UTF-8"), *headers.items()]
        send(request, status, told, data, broken=answer)

    def _call(
        self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]]
    ) -> tuple[Any, Answer | None]:
        path = unquote(path)
        found = next((r for r in self._routes if r[0].fullmatch(path)), None)
        if found is None:
            raise GoogleProblem(404, "Method not found.")
        pattern, api, method, handler = found
        groups = pattern.fullmatch(path).groups()  # type: ignore[union-attr]
        self._hold_against(api, method, query)
        with self._lock:
            document, number = handler(Call(path, query, self._holder(request)), *groups)
            answer = self._broken_answer(path, number)
        if answer and answer.before:
            answer.before()
            self._holder(request)
        if answer and answer.repeat:
            document["nextPageToken"] = query.get("pageToken", [_cursor(0, "")])[0]
        if wrong := nonconformity(api, method["response"], document):
            self.problems.append(f"{method['id']}: {wrong}")
            raise GoogleProblem(500, wrong)
        if answer and answer.change:
            document = answer.change(document)
        return document, answer

    def _hold_against(self, api: Mapping[str, Any], method: Mapping[str, Any], query: Mapping[str, list[str]]) -> None:
        known = {k: p for k, p in method["parameters"].items() if p["location"] == "query"} | api["parameters"]
        for name, values in query.items():
            told = known.get(name)
            if told is None or (len(values) > 1 and not told.get("repeated")):
                self.problems.append(f"{method['id']}: parameter {name}={values}")
                raise GoogleProblem(
                    400, f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.'
                )
            for value in values:
                number = told["type"] != "integer" or re.fullmatch(r"-?\d+", value)
                if not number or ("enum" in told and value not in told["enum"]):
                    raise GoogleProblem(400, f"Invalid value at '{name}'")
        for name, told in known.items():
            if told.get("required") and name not in query:
                raise GoogleProblem(400, f"Missing {name}")

    # ── tokens ──

    def _holder(self, request: BaseHTTPRequestHandler) -> Granted:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        granted = self._tokens.get(token)
        if scheme != "Bearer" or granted is None or granted.ends <= self.clock:
            raise GoogleProblem(
                401,
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
                "valid authentication credential.",
                reason="ACCESS_TOKEN_EXPIRED" if granted else "ACCESS_TOKEN_TYPE_UNSUPPORTED",
                headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/", error="invalid_token"'},
            )
        return granted

    def _issue(self, granted: Granted) -> str:
        with self._lock:
            self.tokens_issued += 1
            token = f"ya29.issued-{self.tokens_issued}-Secret"
            self._tokens[token] = granted
        return token

    def _token(self, form: Mapping[str, list[str]]) -> dict[str, Any]:
        if form.get("grant_type") != [_GRANT]:
            raise TokenProblem("unsupported_grant_type", "Invalid grant_type")
        head, payload, signature = form["assertion"][0].split(".")
        claims = json.loads(_unbase(payload))
        try:
            self._public.verify(_unbase(signature), f"{head}.{payload}".encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise TokenProblem("invalid_grant", "Invalid JWT Signature.") from None
        now = time.time()
        if claims["aud"] not in {f"{self.url}/token", "https://oauth2.googleapis.com/token"} or not (
            claims["iat"] - 300 <= now <= claims["exp"] <= claims["iat"] + 3600
        ):
            raise TokenProblem("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes).")
        if claims["iss"] != self.email:
            raise TokenProblem("invalid_grant", "Invalid grant: account not found")
        scopes = frozenset(claims.get("scope", "").split())
        subject = claims.get("sub", "")
        if subject and not scopes <= self.delegated:
            raise TokenProblem(
                "unauthorized_client",
                "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any "
                "of the scopes requested.",
                401,
            )
        granted = Granted(self.email, scopes, subject, self.clock + self.token_life)
        return {"access_token": self._issue(granted), "expires_in": self.token_life, "token_type": "Bearer"}

    def _impersonate(self, by: Granted, email: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        if by.email != self.email or email not in self.impersonable:
            raise GoogleProblem(
                403,
                "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).",
                reason="IAM_PERMISSION_DENIED",
                metadata={"permission": "iam.serviceAccounts.getAccessToken"},
            )
        granted = Granted(email, frozenset(asked["scope"]), "", self.clock + self.token_life)
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.token_life))
        return {"accessToken": self._issue(granted), "expireTime": ends}


class Tunnel:
    """An HTTP proxy on loopback that takes every CONNECT to one server, whatever host it names."""

    def __init__(self, server: GoogleServer, *, login: str = "") -> None:
        self.hosts: list[str] = []
        self.target = ("127.0.0.1", server._port)
        self.login = f"Basic {base64.b64encode(login.encode()).decode()}" if login else ""
        self.url = ""

    def __enter__(self) -> Self:
        tunnel = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                tunnel.hosts.append(self.path)
                if tunnel.login and self.headers.get("Proxy-Authorization") != tunnel.login:
                    self.send_error(407)
                    return
                with socket.create_connection(tunnel.target) as other:
                    self.send_response(200)
                    self.end_headers()
                    pairs = {self.connection: other, other: self.connection}
                    while ready := select.select(list(pairs), [], [], 30)[0]:
                        for end in ready:
                            if not (data := end.recv(1 << 16)):
                                self.close_connection = True
                                return
                            pairs[end].sendall(data)

            def log_message(self, *args: Any) -> None:
                pass

        self._httpd = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"
        self._httpd.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()


@cache
def _key() -> tuple[str, rsa.RSAPublicKey]:
    private = rsa.generate_private_key(65537, 2048)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return private.private_bytes(*form).decode(), private.public_key()


def _unbase(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _cursor(start: int, query: str, length: int = 0) -> str:
    # Opaque, and with characters that must survive encoding: +, / and =.
    return base64.b64encode(b"\xfb\xef\xff" + json.dumps([start, query]).encode().ljust(length)).decode()


def _position(cursor: str, query: str) -> int:
    try:
        data = base64.b64decode(cursor, validate=True)
        start, of = json.loads(data.removeprefix(b"\xfb\xef\xff"))
    except ValueError:
        raise GoogleProblem(400, "The page token is invalid.") from None
    if of not in {query, ""}:
        raise GoogleProblem(400, "The page token is of another request.")
    return int(start)
