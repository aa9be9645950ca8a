"""Users, groups, memberships and administrator roles of an Okta org.

The SDK's request executor authenticates; paging, retries, pace and the judging of answers are ours, over raw bodies.
The SDK's are not to be trusted: errors are returned and get lost, the paging helper reads only the first of two Link
headers, the token is logged, redirects are followed, waits have no limit.
API reference: https://developer.okta.com/docs/api/openapi/okta-management/management/
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from connectors.aio import Wire, failures, open_wire
from connectors.answers import attributes_of, one_line, parse_json, plain
from connectors.contract import Check, Connector
from connectors.errors import BadData, Forbidden, Incomplete, Misconfigured, ServerFault, Throttled, Unauthenticated
from connectors.options import HttpOptions, Secret
from connectors.pace import Pace
from connectors.paging import Pages
from connectors.retry import retrying
from connectors.values import Kind, Members, Principal, Record, Ref

DIRECTORY, ROLES = "directory", "roles"

CAN_ACT = frozenset({"ACTIVE", "LOCKED_OUT", "PASSWORD_EXPIRED", "RECOVERY"})
"""Statuses of users whose account works, or will once they have signed in again or changed their password.

Not so: STAGED and PROVISIONED (not activated yet), SUSPENDED, DEPROVISIONED, and whatever Okta may add.
https://help.okta.com/en-us/Content/Topics/users-groups-profiles/usgp-end-user-states.htm
"""


@dataclass(frozen=True)
class _Api:
    """A list of the API. `permission` is what a custom admin role needs, `oauth` the scopes of an OAuth app."""

    what: str
    path: str
    permission: str
    oauth: tuple[str, ...]
    key: str = ""
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


_READ, _READ_ROLES = ("okta.users.read", "okta.groups.read"), ("okta.roles.read",)
_LIMIT = ("limit", "200")  # what Okta recommends for all three; above it, requests time out

# A filter, since the plain list leaves out deactivated users; this one, since a user whose status changes between two
# lists would be in both or in neither. Unlike `search`, `filter` reads the most recent data.
_EVERY = ("filter", 'lastUpdated gt "1970-01-01T00:00:00.000Z"')
_SLIM = ("Content-Type", "application/json; okta-response=omitCredentials,omitCredentialsLinks")

USERS = _Api("users", "/api/v1/users", "okta.users.read", _READ, query=(_EVERY, _LIMIT), headers=(_SLIM,))
GROUPS = _Api("groups", "/api/v1/groups", "okta.groups.read", _READ, query=(_LIMIT,))
MEMBERS = _Api("members of group {}", "/api/v1/groups/{}/users", "okta.groups.read", _READ, query=(_LIMIT,))
CUSTOM_ROLES = _Api("custom roles", "/api/v1/iam/roles", "okta.iam.read", _READ_ROLES, key="roles")
ADMINS = _Api("users with roles", "/api/v1/iam/assignees/users", "okta.iam.read", _READ_ROLES, key="value")
ROLES_OF_USER = _Api("roles of user {}", "/api/v1/users/{}/roles", "okta.iam.read", _READ_ROLES)
ROLES_OF_GROUP = _Api("roles of group {}", "/api/v1/groups/{}/roles", "okta.iam.read", _READ_ROLES)


class OktaOptions(HttpOptions):
    """Options of the `okta` connector."""

    org_url: str = Field(description="URL of the org: https://acme.okta.com")
    token: Secret | None = Field(None, description="API token (SSWS).")
    client_id: str | None = Field(None, min_length=1, description="Id of an API services app; with private_key.")
    private_key: Secret | None = Field(None, description="The app's RSA private key: PEM, or a JWK as JSON.")

    @model_validator(mode="after")
    def _sound(self) -> OktaOptions:
        if (self.client_id is None) != (self.private_key is None):
            raise PydanticCustomError("okta_login", "client_id and private_key belong together: give both")
        if (self.token is None) == (self.client_id is None):
            raise PydanticCustomError("okta_login", "give one login: either token, or client_id with private_key")
        parts = urlsplit(self.org_url)
        if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
            raise PydanticCustomError("org_url", "org_url is the org's bare URL, without a path: https://acme.okta.com")
        if "-admin." in (parts.hostname or ""):
            raise PydanticCustomError("org_url", "org_url is the org's URL, not the admin console's: leave out -admin")
        return self


class Okta(Connector):
    """Reads one Okta org. Users, groups and members are one scope, since they belong together; roles are another."""

    Options = OktaOptions

    def __init__(self, options: OktaOptions) -> None:
        self.options = options
        self._org = options.org_url.rstrip("/")
        self._host = urlsplit(self._org).netloc
        self._pace = Pace()
        self._runner: asyncio.Runner | None = None
        self._wire: Wire | None = None
        self._executors: dict[tuple[str, ...], Any] = {}

    def scopes(self) -> Iterable[str]:
        """The directory; and the roles, if any own: few logins may read them, and each takes a request a group."""
        return [DIRECTORY, ROLES] if Kind.ROLE in self.kinds else [DIRECTORY]

    def read(self, scope: str) -> Iterator[Record]:
        """Yield all that `scope` holds."""
        yield from self._roles() if scope == ROLES else self._directory()

    def _directory(self) -> Iterator[Record]:
        users = 0
        for users, row in enumerate(self._rows(USERS), 1):  # noqa: B007  # counted
            yield self._user(row)
        if not users:  # the login itself belongs to one
            raise self._sees_none(USERS)
        if not self.kinds & {Kind.GROUP, Kind.ROLE}:
            return
        groups = 0
        for groups, row in enumerate(self._rows(GROUPS), 1):  # noqa: B007
            group = self._group(row)
            yield group
            # Each group is asked: the counts of `expand=stats` may lag, and an empty group is a finding.
            for page in self._pages(MEMBERS, group.id):
                yield Members(group.ref, tuple(Ref(Kind.USER, self._text(it, "id", "a member")) for it in page))
        if not groups:  # every org has Everyone
            raise self._sees_none(GROUPS)

    def _sees_none(self, api: _Api) -> Forbidden:
        return Forbidden(
            f"{self._host}: Okta shows no {api.what}, and every org has some",
            permission=api.permission,
            remedy=f"grant {api.permission} for all {api.what}: Okta leaves out of a list what the login may not see",
        )

    def _roles(self) -> Iterator[Record]:
        known: set[str] = set()
        for row in self._rows(CUSTOM_ROLES):  # those that nobody holds, too
            known.add(id_ := self._text(row, "id", "a custom role"))
            yield Principal(Kind.ROLE, id_, plain(row.get("label")) or id_)
        for holders, api, kind in ((ADMINS, ROLES_OF_USER, Kind.USER), (GROUPS, ROLES_OF_GROUP, Kind.GROUP)):
            for holder in self._rows(holders):
                ref = Ref(kind, self._text(holder, "id", f"a {kind}"))
                for row in self._rows(api, ref.id):
                    # A user's list also tells what comes through groups, which are asked themselves.
                    through = self._text(row, "assignmentType", f"a role of {ref.id}")
                    if through != kind.upper() or row.get("status") == "INACTIVE":
                        continue
                    role = Ref(Kind.ROLE, self._text(row, "role" if row.get("role") else "type", "a role"))
                    if role.id not in known:
                        known.add(role.id)
                        yield Principal(Kind.ROLE, role.id, plain(row.get("label")) or role.id)
                    yield Members(role, (ref,))

    def check(self) -> Iterator[Check]:
        """Ask each list for one entry, and tell every permission that is missing."""
        for api in (USERS, GROUPS, *((CUSTOM_ROLES, ADMINS) if Kind.ROLE in self.kinds else ())):
            try:
                query = dict(api.query)
                rows, _ = self._page(api, "", {**query, "limit": "1"} if "limit" in query else query)
                if not rows and api in {USERS, GROUPS}:
                    raise self._sees_none(api)
            except Forbidden as error:
                yield Check(f"read {api.what}", ok=False, detail=error.message, remedy=error.remedy)
            else:
                yield Check(f"read {api.what}", ok=True)

    def close(self) -> None:
        """Close the connections, and the event loop that they live in."""
        if self._runner is not None:
            if self._wire is not None:
                self._runner.run(self._wire.close())
            self._runner.close()
            self._runner = self._wire = None

    # What the rows mean

    def _text(self, row: Mapping[str, Any], key: str, what: str) -> str:
        if not isinstance(value := row.get(key), str) or not value:
            raise BadData(f'{self._host}: {what} has no "{key}"')
        return value

    def _profile(self, row: Mapping[str, Any], what: str) -> Mapping[str, Any]:
        if not isinstance(profile := row.get("profile"), dict):
            raise BadData(f"{self._host}: {what} has no profile")
        return profile

    def _user(self, row: Mapping[str, Any]) -> Principal:
        id_ = self._text(row, "id", "a user")
        profile = self._profile(row, f"user {id_}")
        login, email = plain(profile.get("login")), plain(profile.get("email"))
        names = (plain(profile.get("firstName")), plain(profile.get("lastName")))
        manager = plain(profile.get("managerId")) or ""
        return Principal(
            Kind.USER,
            id_,
            plain(profile.get("displayName")) or " ".join(filter(None, names)) or login or "",
            email or login,
            self._text(row, "status", f"user {id_}") in CAN_ACT,
            # managerId is free text: an Okta id, a login, a number of the personnel system. Only an id is certain.
            manager if re.fullmatch(r"00u[0-9A-Za-z]{17}", manager) else None,
            (login,) if login and email and login != email else (),
            attributes_of(profile),
        )

    def _group(self, row: Mapping[str, Any]) -> Principal:
        id_ = self._text(row, "id", "a group")
        profile = self._profile(row, f"group {id_}")
        return Principal(Kind.GROUP, id_, plain(profile.get("name")) or "", attributes=attributes_of(profile))

    # Lists and pages

    def _rows(self, api: _Api, subject: str = "") -> Iterator[dict[str, Any]]:
        for page in self._pages(api, subject):
            yield from page

    def _pages(self, api: _Api, subject: str = "") -> Iterator[list[dict[str, Any]]]:
        query = dict(api.query)
        pages = Pages(f"{self._host}: {api.what.format(subject)}")
        while True:
            rows, after = self._page(api, subject, query)
            yield rows
            if after is None:
                return
            query["after"] = pages.turn(after)

    def _page(self, api: _Api, subject: str, query: Mapping[str, str]) -> tuple[list[dict[str, Any]], str | None]:
        """One page's rows, and the cursor of the next."""
        place = f"{self._host}: {api.what.format(subject)}"
        path = f"{api.path.format(quote(subject, safe=''))}?{urlencode(query, quote_via=quote)}"

        def once() -> tuple[Any, str | None]:
            self._pace.keep(api.path)
            if self._runner is None:
                self._runner = asyncio.Runner()
            with failures(place, self.options):
                response, body = self._runner.run(self._send(path, api))
            _judge(place, response, body, api)
            self._count(api, response.headers)
            document = parse_json(place, body)
            return document, _next(place, response, document)

        document, after = retrying(once)
        rows = document.get(api.key) if api.key and isinstance(document, dict) else document
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise BadData(f"{place}: expected a list of objects")
        return rows, after

    def _count(self, api: _Api, headers: Mapping[str, str]) -> None:
        wait = _until_reset(headers)
        names = ("X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset")
        told = [headers.get(name, "") for name in names]
        if wait is not None and all(x.isdecimal() for x in told):
            limit, remaining, ends = map(int, told)
            self._pace.count(api.path, limit=limit, remaining=remaining, ends=ends, wait=wait)

    # The wire

    async def _send(self, path: str, api: _Api) -> tuple[Any, bytes]:
        """The response to a GET, whatever its status, and its body."""
        if self._wire is None:
            self._wire = open_wire(self.options, self.options.endpoint or self._org)
        if api.oauth not in self._executors:
            self._executors[api.oauth] = self._executor(api.oauth, self._wire)
        executor = self._executors[api.oauth]
        try:
            request, error = await executor.create_request("GET", path, headers=dict(api.headers))
        except (ValueError, AttributeError) as caught:  # the SDK met something else than a JSON object
            raise ServerFault(f"{self._host}: access token: the answer is no JSON object") from caught
        if error is not None:
            raise BadData(f"{self._host}: access token: the answer holds none")
        _, response, body, _ = await executor.fire_request_helper(request, 0, time.time())
        return response, body

    def _executor(self, scopes: tuple[str, ...], wire: Wire) -> Any:
        """The SDK's request executor: without retries, and without its own configuration files and variables.

        One for each set of OAuth scopes: a token is refused whole if the app lacks one of them.
        """
        from okta.cache.no_op_cache import NoOpCache
        from okta.request_executor import RequestExecutor

        client: dict[str, Any] = {"orgUrl": self._org, "requestTimeout": 0, "rateLimit": {"maxRetries": 0}}
        if (token := self.options.token) is not None:
            if not re.fullmatch(r"[!-~]+", token.value):
                raise Misconfigured(f"token: {token.place} holds what no token has, such as a space")
            client |= {"authorizationMode": "SSWS", "token": token.value}
        elif (key := self.options.private_key) is not None:
            client |= {"authorizationMode": "PrivateKey", "clientId": self.options.client_id, "scopes": list(scopes)}
            client |= {"privateKey": _rsa_key(key), "oauthTokenRenewalOffset": 5}
        base = (self.options.endpoint or self._org).rstrip("/")
        transport = _transport(wire.session, self._org, base)
        return RequestExecutor({"client": client}, NoOpCache(), transport)  # type: ignore[no-untyped-call]


def _transport(session: Any, org: str, base: str) -> Callable[[dict[str, Any]], Any]:
    """The SDK's HTTP client with our session: silent (its own logs the token), no redirects, errors raised."""
    from okta.http_client import HTTPClient
    from yarl import URL

    class Transport(HTTPClient):
        def _setup_proxy(self, proxy: Any) -> None:
            """The session has it."""

        async def send_request(self, request: dict[str, Any]) -> tuple[Any, Any, bytes, None]:
            url = URL(base + request["url"].removeprefix(org), encoded=True)
            headers, form = request["headers"], request["form"] or None
            async with session.request(
                request["method"], url, headers=headers, data=form, allow_redirects=False
            ) as response:
                body = await response.read()
            if form:  # the token endpoint: the SDK would keep what it says to itself
                _judge(f"{urlsplit(org).netloc}: access token", response, body, None)
            return response.request_info, response, body, None

    return Transport


def _rsa_key(secret: Secret) -> str:
    from okta.jwt import JWT

    try:
        JWT.get_PEM_JWK(secret.value)  # type: ignore[no-untyped-call]
    except Exception:  # noqa: BLE001  # a parser's complaint may quote the key
        raise Misconfigured(
            f"private_key: {secret.place} is no RSA private key",
            remedy="give the app's key as PEM without a passphrase, or as a JWK in JSON",
        ) from None
    return secret.value


def _judge(place: str, response: Any, body: bytes, api: _Api | None) -> None:
    """Raise what a status other than success means. `api` is None for the token endpoint.

    https://developer.okta.com/docs/reference/error-codes/, RFC 6749 section 5.2
    """
    status: int = response.status
    if 200 <= status < 300:
        return
    code, said = _error_of(body)
    told = f"{place}: HTTP {status}{': ' if said else ''}{said}"
    if api is None and status in {400, 401}:
        if code in {"invalid_scope", "consent_required"}:
            raise Forbidden(told, permission=code, remedy="grant the app the Okta API scopes that it asks for")
        dpop = "turn off the app's setting that requires DPoP: it is not supported" if "dpop" in code else ""
        raise Unauthenticated(told, remedy=dpop or "check client_id, and that private_key is an active key of that app")
    if status == 401:
        raise Unauthenticated(told, remedy="check the login: an API token ends with its user, or after 30 days unused")
    if status == 403:
        permission, scopes = (api.permission, " and ".join(api.oauth)) if api else ("", "")
        remedy = f"give the login an admin role with {permission}; an OAuth app also needs the scopes {scopes}"
        raise Forbidden(told, permission=permission, remedy=remedy)
    if status == 429:
        raise Throttled(told, retry_after=_until_reset(response.headers))
    if status >= 500:
        raise ServerFault(told)
    if code == "E0000007":
        raise Incomplete(told, remedy="it was deleted while the org was read: the next run is right")
    if status == 404 or status < 400:
        raise Misconfigured(told, remedy="check org_url: no Okta org answers there")
    raise BadData(told)


def _error_of(body: bytes) -> tuple[str, str]:
    """Okta's error code, and all it says in one line."""
    try:
        document = parse_json("", body)
    except ServerFault:
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    code = str(document.get("errorCode") or document.get("error") or "")
    summary = str(document.get("errorSummary") or document.get("error_description") or "")
    return code, one_line(f"{code} {summary}".strip())


def _next(place: str, response: Any, document: Any) -> str | None:
    """The cursor of the next page, from the Link headers or, in lists about roles, from the body; None at the end.

    Nothing else of that link is used: it may lead anywhere, and the token shall not follow.
    """
    from yarl import URL

    link = response.links.get("next")
    try:
        if link is None:
            if not isinstance(document, dict) or "next" not in (document.get("_links") or {}):
                return None
            link = {"url": document["_links"]["next"]["href"]}
        cursor = URL(link["url"]).query.get("after")
    except (KeyError, TypeError, ValueError) as error:
        raise BadData(f"{place}: the link to the next page cannot be understood") from error
    if not cursor:
        raise Incomplete(f"{place}: the link to the next page holds no cursor")
    return cursor


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until the rate limit is whole again, by the server's clock, since ours may be wrong; None if untold.

    https://developer.okta.com/docs/reference/rl-best-practices/
    """
    try:
        now = parsedate_to_datetime(headers["Date"]).timestamp()
        return max(0.0, int(headers["X-Rate-Limit-Reset"]) - now) + 1  # both are whole seconds
    except (KeyError, ValueError):
        return None
