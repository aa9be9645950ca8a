"""Two SCIM services on loopback, over TLS: a real one, scim2-server, behind a proxy that makes faults; and one of our own.

Ours follows RFC 7644 (3.4.2 lists, filters and paging, 3.9 `attributes`, 3.12 errors), RFC 7643 (4 resources, 5
ServiceProviderConfig, 7 "returned"), and, where its flags say so, what services in use do differently.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from http.client import HTTPConnection
from typing import Any, Self
from urllib.parse import urlencode
from wsgiref.simple_server import WSGIRequestHandler, make_server

from tests.servers.oncall import OnCallServer, Page, Refusal, whole

CORE = "urn:ietf:params:scim:schemas:core:2.0"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
MESSAGES = "urn:ietf:params:scim:api:messages:2.0"
TOKEN = "h480djs93hd8-SECRET"


def problem(status: int, detail: str, scim_type: str = "", headers: Mapping[str, str] | None = None) -> Refusal:
    """An error as RFC 7644, 3.12 words it."""
    document = {"schemas": [f"{MESSAGES}:Error"], "status": str(status), "detail": detail}
    return Refusal(status, document | ({"scimType": scim_type} if scim_type else {}), headers)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


class Clocked(OnCallServer):
    """A server of a time of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = datetime(2026, 11, 23, 8, tzinfo=UTC).timestamp()
        self.says_date = True

    def date(self) -> str | None:
        return formatdate(self.clock, usegmt=True) if self.says_date else "never"

    def advance(self, seconds: float) -> None:
        self.clock += seconds


class RealScimServer(Clocked):
    """scim2-server, as its command would run it, and a proxy before it. `page` is its `maxResults`."""

    def __init__(self, *, page: int, cursor: bool = False) -> None:
        super().__init__()
        self.token = TOKEN
        self.page, self.cursor = page, cursor
        self.stuck: tuple[str, int] | None = None
        """A list and the number of a page, after which no other one comes."""
        self._numbers: dict[str, int] = {"": 1}
        """Of pages, by their cursors."""

    def __enter__(self) -> Self:
        from scim2_models import ScimProvider, ServiceProviderConfig
        from scim2_server.memory import InMemoryStorage
        from scim2_server.service import ScimService
        from scim2_server.testserver.application import BEARER_TOKEN_SCHEME, BearerTokenApplication
        from scim2_server.testserver.cli import ThreadingWSGIServer
        from scim2_server.utils import load_default_resource_types, load_default_schemas, load_json_resource

        told = load_json_resource("default-service-provider-config.json")
        told["filter"]["maxResults"] = self.page
        if self.cursor:
            told["pagination"] = {"cursor": True, "index": False, "maxPageSize": self.page}
        config = ServiceProviderConfig.model_validate(told)
        config.authentication_schemes = [BEARER_TOKEN_SCHEME]
        provider = ScimProvider.from_discovery(
            load_default_schemas().values(), load_default_resource_types().values(), config=config
        )
        app = BearerTokenApplication(
            InMemoryStorage(lambda: datetime.fromtimestamp(self.clock, UTC)),
            provider,
            service=ScimService(provider, secret="s3"),
            bearer_tokens=[self.token],
        )
        self._real = make_server("127.0.0.1", 0, app, server_class=ThreadingWSGIServer, handler_class=_Quiet)
        threading.Thread(target=self._real.serve_forever, args=(0.01,), daemon=True).start()
        return super().__enter__()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._real.shutdown()
        self._real.server_close()

    def add(self, path: str, **attributes: Any) -> str:
        """POST a user or a group, as a client of the service does; the id that it gave."""
        schemas = [f"{CORE}:{path.removesuffix('s')}", *(key for key in attributes if key.startswith("urn:"))]
        status, _, body = self._ask("POST", f"/v2/{path}", {"schemas": schemas, **attributes}, f"Bearer {self.token}")
        assert status == 201, body
        return str(json.loads(body)["id"])

    def edit(self, path: str, id_: str, **attributes: Any) -> None:
        """PUT other attributes in place of all that it has."""
        schemas = [f"{CORE}:{path.removesuffix('s')}", *(key for key in attributes if key.startswith("urn:"))]
        document = {"schemas": schemas, "id": id_, **attributes}
        status, _, body = self._ask("PUT", f"/v2/{path}/{id_}", document, f"Bearer {self.token}")
        assert status == 200, body

    def patch(self, path: str, id_: str, *operations: dict[str, Any]) -> None:
        """PATCH an object."""
        document = {"schemas": [f"{MESSAGES}:PatchOp"], "Operations": operations}
        status, _, body = self._ask("PATCH", f"/v2/{path}/{id_}", document, f"Bearer {self.token}")
        assert status in {200, 204}, body

    def delete(self, path: str, id_: str) -> None:
        """DELETE an object."""
        status, _, body = self._ask("DELETE", f"/v2/{path}/{id_}", None, f"Bearer {self.token}")
        assert status == 204, body

    def _ask(self, method: str, path: str, document: Any, authorization: str) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self._real.server_port, timeout=10)
        headers = {"Authorization": authorization, "Content-Type": "application/scim+json"}
        connection.request(method, path, json.dumps(document) if document is not None else None, headers)
        response = connection.getresponse()
        answer = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return answer

    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        name, asked = path[-1], {key: values[0] for key, values in query.items()}
        cursor, start = asked.get("cursor"), int(asked.get("startIndex", 1))
        number = self._numbers[cursor] if cursor is not None else (start - 1) // (self.page - 1) + 1
        if self.stuck and name == self.stuck[0] and cursor is None:
            asked["startIndex"] = str(min(start, (self.stuck[1] - 1) * (self.page - 1) + 1))
        status, _, body = self._ask(
            "GET", f"/{'/'.join(path)}?{urlencode(asked)}", None, headers.get("authorization", "")
        )
        document = json.loads(body)
        if status != 200:
            raise Refusal(status, document)
        if following := document.get("nextCursor"):
            self._numbers[following] = number + 1
        if self.stuck and name == self.stuck[0] and number >= self.stuck[1] and cursor:
            document["nextCursor"] = cursor
        return Page(document, name, number)


class ScimServer(Clocked):
    """Ours. `page` is the most rows that it gives at once."""

    def __init__(self, *, page: int = 100) -> None:
        super().__init__()
        self.token = TOKEN
        self.page = page
        self.users: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.config: dict[str, Any] | None = None
        """ServiceProviderConfig; many services have none."""
        self.members_told = "always"
        """In lists: "always", on "request" (by `attributes`), "alone" (never in a list, always in the group's own answer)."""
        self.typed: tuple[str, ...] = ("type", "$ref")
        """How members tell what they are."""
        self.paged = True
        """Otherwise it heeds neither startIndex nor count."""
        self.aligned = False
        """Whether startIndex leads to the page that holds that place, and not to the place."""
        self.bare_ends = False
        """Whether `Resources` is left out of an empty page."""
        self.total: Callable[[int, int], Any] = lambda of, _rows: of
        """What totalResults tells of so many, on a page of so many."""
        self.before: Callable[[str, int], None] = lambda _name, _start: None
        """Called before each page of a list is made, with its name and startIndex."""
        self.filtering = "honoured"
        """What a filter does: it is "honoured", "ignored", "refused", or finds "nothing", or "one" at most."""
        self.stamp: Callable[[float], Any] = lambda clock: datetime.fromtimestamp(clock, UTC).isoformat()
        """How a moment is told, in an answer and to a filter; None if it is not told."""
        self.notes_members = True
        """Whether a change of members counts as a modification of the group."""
        self.forbidden: set[str] = set()
        self.short_of: Callable[[int], int] = lambda size: size
        """How many rows a page really has, of so many that it could have."""
        self.stuck: int | None = None
        """The startIndex from which on each page of users is the one that begins there."""

    def add_user(self, id_: str, user_name: str, **more: Any) -> None:
        schemas = [f"{CORE}:User", *(key for key in more if key.startswith("urn:"))]
        meta = self._meta("User", id_, self.users.get(id_))
        self.users[id_] = {"schemas": schemas, "id": id_, "userName": user_name, "meta": meta, **more}

    def add_group(self, id_: str, name: str, *members: tuple[str, str], **more: Any) -> None:
        """`members` are ("User" or "Group", id)."""
        meta = self._meta("Group", id_, self.groups.get(id_))
        rows = [
            {"value": m, "type": kind, "$ref": f"https://scim.example/v2/{kind}s/{m}", "display": "…"}
            for kind, m in members
        ]
        self.groups[id_] = {"schemas": [f"{CORE}:Group"], "id": id_, "displayName": name, "meta": meta, **more}
        if rows:
            self.groups[id_]["members"] = rows

    def _meta(self, kind: str, id_: str, before: Mapping[str, Any] | None) -> dict[str, Any]:
        """With moments by our clock; whoever was there already was created then."""
        created = before["meta"]["created"] if before else self.clock
        meta = {"resourceType": kind, "location": f"https://scim.example/v2/{kind}s/{id_}"}
        return {**meta, "created": created, "lastModified": self.clock}

    def set_members(self, id_: str, *members: tuple[str, str]) -> None:
        """Who is in a group from now on."""
        before = self.groups[id_]["meta"]
        self.add_group(id_, self.groups[id_]["displayName"], *members)
        if not self.notes_members:
            self.groups[id_]["meta"] = before

    def answer(self, path: list[str], query: dict[str, list[str]], headers: Mapping[str, str]) -> Page:
        if headers.get("authorization") != f"Bearer {self.token}":
            raise problem(401, "Authorization failure. The authorization header is invalid or missing.")
        match path[1:] if path[:1] == ["v2"] else path:
            case ["ServiceProviderConfig"] if self.config is not None:
                return Page(self.config, "ServiceProviderConfig")
            case [("Users" | "Groups") as name, *_] if name in self.forbidden:
                raise problem(403, "Operation is not permitted based on the supplied authorization")
            case [("Users" | "Groups") as name]:
                return self._list(name, query)
            case ["Users", id_] if id_ in self.users:
                return Page(self._shown(self.users[id_], query), "user")
            case ["Groups", id_] if id_ in self.groups:
                return Page(self._shown(self.groups[id_], query, alone=True), "group")
        raise problem(404, f"Resource {path[-1]} not found")

    def _list(self, name: str, query: dict[str, list[str]]) -> Page:
        start, count = whole(query, "startIndex", 1), whole(query, "count", self.page)
        self.before(name, start)
        rows = list((self.users if name == "Users" else self.groups).values())
        if "filter" in query:
            rows = self._filtered(rows, query["filter"][0])
        size = min(max(count, 0), self.page)
        if not self.paged:
            start, size = 1, len(rows)
        if self.aligned:
            start = (start - 1) // max(size, 1) * size + 1
        if name == "Users" and self.stuck is not None:
            start = min(start, self.stuck)
        found = [self._shown(row, query) for row in rows[start - 1 : start - 1 + self.short_of(size)]]
        document = {
            "schemas": [f"{MESSAGES}:ListResponse"], "totalResults": self.total(len(rows), len(found)),
            "itemsPerPage": len(found), "startIndex": start, "Resources": found,
        }  # fmt: skip
        if not found and self.bare_ends:
            del document["Resources"]
        return Page(document, name, (start - 1) // max(size - 1, 1) + 1)

    def _filtered(self, rows: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
        asked = re.fullmatch(r'meta\.lastModified ge "(.+)"', text)
        if asked is None or self.filtering == "refused":
            raise problem(400, "The specified filter is not supported", "invalidFilter")
        if self.filtering == "ignored":
            return rows
        if self.filtering == "nothing":
            return []
        found = [row for row in rows if _moment(self.stamp(row["meta"]["lastModified"])) >= _moment(asked[1])]
        return found[:1] if self.filtering == "one" else found

    def _shown(self, row: dict[str, Any], query: dict[str, list[str]], *, alone: bool = False) -> dict[str, Any]:
        asked = query.get("attributes", [""])[0].split(",")
        shown = {k: v for k, v in row.items() if k in {"schemas", "id", *asked} or asked == [""]}
        if "meta" in shown:
            moments = {key: self.stamp(row["meta"][key]) for key in ("created", "lastModified")}
            shown["meta"] = {**row["meta"], **moments}
            shown["meta"] = {key: value for key, value in shown["meta"].items() if value is not None}
        told = {"always": True, "request": "members" in asked, "alone": alone}[self.members_told]
        if "members" in shown:
            kept = {"value", "display", *self.typed}
            shown["members"] = [{k: v for k, v in m.items() if k in kept} for m in shown["members"]]
            if not told:
                del shown["members"]
        return shown


def _moment(told: str) -> float:
    moment = datetime.fromisoformat(told)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
