"""A Kubernetes API server on loopback, over TLS: discovery, lists in chunks, watches, access reviews. Reads only.

Built from Kubernetes' published reference: "Kubernetes API Concepts" (Resource URIs; Efficient detection of changes;
Watch bookmarks; Retrieving large results sets in chunks; Fetch only metadata; Resource versions), "The Kubernetes API"
(Discovery API, both forms), "API Priority and Fairness" (429 with Retry-After), "Authorization" (SelfSubjectAccessReview,
the words of a refusal), "Authenticating" (bearer tokens, client certificates), and the definitions of ObjectMeta,
ListMeta, Status, APIGroupList, APIResourceList and WatchEvent, whose models ship in the `kubernetes` package.

Every write moves the resourceVersion of the whole store on by one; lists and watches can go back to any that was not
compacted. Time stands still: a watch has lasted as long as it was asked to once it has told all there is.
"""

from __future__ import annotations

import base64
import gzip
import json
import ssl
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from tests.servers.base import Broken, HttpsServer, body_of, send

READ = ("get", "list", "watch")
WRITE = ("create", "delete", "deletecollection", "patch", "update")
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Served(NamedTuple):
    """A kind, as discovery tells it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = (*WRITE, *READ)
    sub: tuple[str, ...] = ("status",)

    @property
    def api(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path(self) -> str:
        return f"{'/apis' if self.group else '/api'}/{self.api}/{self.plural}"

    @property
    def key(self) -> tuple[str, str]:
        """What is stored: versions are views of the same objects."""
        return self.group, self.kind


COMMON = (
    Served("", "v1", "configmaps", "ConfigMap", short=("cm",), sub=()),
    Served("", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",), sub=("finalize", "status")),
    Served("", "v1", "nodes", "Node", namespaced=False, short=("no",)),
    Served("", "v1", "pods", "Pod", short=("po",), sub=("log", "status")),
    Served("", "v1", "replicationcontrollers", "ReplicationController", short=("rc",)),
    Served("apps", "v1", "daemonsets", "DaemonSet", short=("ds",)),
    Served("apps", "v1", "deployments", "Deployment", short=("deploy",), sub=("scale", "status")),
    Served("apps", "v1", "replicasets", "ReplicaSet", short=("rs",), sub=("scale", "status")),
    Served("apps", "v1", "statefulsets", "StatefulSet", short=("sts",)),
    Served("batch", "v1", "jobs", "Job"),
    Served("networking.k8s.io", "v1", "ingresses", "Ingress", short=("ing",)),
    Served(
        "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, (), ("create",), ()
    ),
    Served("acme.example", "v1", "databases", "Database", short=("db",)),
    Served("acme.example", "v1beta1", "databases", "Database", short=("db",)),
    Served("acme.example", "v1beta1", "tenants", "Tenant", namespaced=False),
    Served("argoproj.io", "v1alpha1", "rollouts", "Rollout", short=("ro",)),
    Served("other.example", "v1", "databases", "Database"),
    Served("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", verbs=("get", "list"), sub=()),
)
KINDS = {
    "v1.36.1": (*COMMON, Served("batch", "v1", "cronjobs", "CronJob", short=("cj",))),
    "v1.20.15": (
        *COMMON,
        Served("batch", "v1beta1", "cronjobs", "CronJob", short=("cj",)),
        Served("extensions", "v1beta1", "ingresses", "Ingress", short=("ing",)),
    ),
}
"""What servers of these versions serve, and some custom resources. Of 1.20: CronJob is beta, Ingress is in two groups."""


class Problem(Exception):
    """A failure, as a Status."""

    def __init__(self, code: int, message: str, *, headers: dict[str, str] | None = None, token: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers or {}
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": token} if token else {},
            "status": "Failure",
            "message": message,
            "reason": REASONS.get(code, "Unknown"),
            "code": code,
        }


@dataclass
class Answer(Broken):
    """What a broken page answers in place of the right thing; what is `cut` or comes again is the right page."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    right: bool = False
    """The right page, after `change`."""
    change: Callable[[dict[str, Any]], object] | None = None
    """Changes the document of the right page."""
    before: Callable[[], object] | None = None
    """Called before the right page is made."""
    half: bool = False
    """The right watch, without its end: the connection stays open, and silent."""

    @classmethod
    def problem(cls, code: int, message: str = "no", *, times: int = 1_000_000, **headers: str) -> Answer:
        """A Status."""
        body = json.dumps(Problem(code, message).status).encode()
        return cls(code, body, {k.replace("_", "-"): v for k, v in headers.items()}, times=times)


class KubernetesServer(HttpsServer[Answer]):
    """The API server. Use it as a context manager; then `url`, `ca_file` and `token` say how to log in."""

    client_certificates = True

    def __init__(self, version: str = "v1.36.1") -> None:
        super().__init__()
        self.version = version
        self.kinds = list(KINDS[version])
        self.token = "eyJhbGciOiJSUzI1NiJ9.secret-of-the-service-account.sig"
        self.uses: dict[str, int] = {}
        """Tokens that end after so many requests."""
        self.denied: set[tuple[str, str]] = set()
        """Verbs that RBAC does not allow, and resources: ("list", "deployments.apps")."""
        self.reviews = True
        """Whether anybody may ask what he may do."""
        self.partial = True
        """Whether metadata alone can be asked for."""
        self.bookmarks = True
        self.gone_as_event = True
        """A watch from a forgotten version: an ERROR event, or the status 410."""
        self.down: set[str] = set()
        """Groups whose aggregated server is down."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and query of every request."""
        self.headers: list[dict[str, str]] = []
        """The headers of every request, names in lower case."""
        self.rv = 1000
        self.compacted = 0
        self._log: dict[tuple[str, str], list[tuple[int, str, dict[str, Any] | None]]] = {}
        """By what is stored: version, key, and the object then, or None where it was deleted."""
        self.put("v1", "Namespace", "kube-system")

    # ── content ──

    def kind_of(self, api: str, kind: str) -> Served:
        return next(k for k in self.kinds if (k.api, k.kind) == (api, kind))

    def put(
        self,
        api: str,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
        owner: tuple[str, str, str] | None = None,
        **more: Any,
    ) -> None:
        """Create or replace an object. `owner`: apiVersion, kind and name of its controller."""
        served = self.kind_of(api, kind)
        assert bool(namespace) is served.namespaced
        with self._lock:
            self.rv += 1
            was = self.state(served.key, self.rv).get(f"{namespace}/{name}")
            meta: dict[str, Any] = {
                "name": name,
                "uid": was["uid"]
                if was
                else str(uuid.uuid5(uuid.NAMESPACE_URL, f"{api} {kind} {namespace}/{name} {self.rv}")),
                "resourceVersion": str(self.rv),
                "generation": 1,
                "creationTimestamp": "2026-11-01T08:00:00Z",
                "managedFields": [
                    {
                        "manager": "kubectl",
                        "operation": "Update",
                        "apiVersion": api,
                        "time": "2026-11-01T08:00:00Z",
                        "fieldsType": "FieldsV1",
                        "fieldsV1": {"f:metadata": {"f:labels": {}}},
                    }
                ],
                **more,
            }
            if namespace:
                meta["namespace"] = namespace
            if labels is not None:
                meta["labels"] = labels
            if annotations is not None:
                meta["annotations"] = annotations
            if owner is not None:
                meta["ownerReferences"] = [
                    # one more owner, which controls nothing
                    {"apiVersion": "v1", "kind": "ConfigMap", "name": "elsewhere", "uid": str(uuid.UUID(int=1))},
                    {
                        "apiVersion": owner[0],
                        "kind": owner[1],
                        "name": owner[2],
                        "uid": str(uuid.UUID(int=2)),
                        "controller": True,
                        "blockOwnerDeletion": True,
                    },
                ]
            self._log.setdefault(served.key, []).append((self.rv, f"{namespace}/{name}", meta))

    def delete(self, api: str, kind: str, name: str, namespace: str = "") -> None:
        """Delete an object."""
        with self._lock:
            self.rv += 1
            self._log[self.kind_of(api, kind).key].append((self.rv, f"{namespace}/{name}", None))

    def state(self, key: tuple[str, str], version: int) -> dict[str, dict[str, Any]]:
        """The metadata of all objects of a kind, as they were at a version; in the order of their keys."""
        found: dict[str, dict[str, Any]] = {}
        for rv, name, meta in self._log.get(key, ()):
            if rv > version:
                break
            if meta is None:
                found.pop(name, None)
            else:
                found[name] = meta
        return dict(sorted(found.items()))

    def compact(self) -> None:
        """Forget every state but the present one, as etcd does every five minutes."""
        with self._lock:
            self.rv += 1
            self.compacted = self.rv

    # ── the server ──

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = body_of(request)
        path, _, query_string = request.path.partition("?")
        query = dict(parse_qsl(query_string, keep_blank_values=True))
        self.requests.append((request.command, path, query))
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        watching = query.get("watch") in {"1", "true"}
        page = 0 if watching else _page_of(query)  # what faults of watches are put on
        answer = self._broken_answer(path, page)
        if answer and self._hangs_up(request, answer):
            return
        status, headers, data = 200, {}, b""
        right = answer is None or answer.cut or answer.right or answer.repeat or answer.half or answer.empty
        if right:
            if answer and answer.before:
                answer.before()
            try:
                self._authenticate(request)
                with self._lock:
                    status, document = self._answer(request, path, query, body)
            except Problem as problem:
                status, document, headers, watching = problem.code, problem.status, problem.headers, False
            if answer and answer.change:
                answer.change(document)
            if answer and answer.repeat:
                document["metadata"]["continue"] = query.get("continue") or _token(self.rv, "", 1)
            if watching:
                self._stream(request, document["events"], answer)
                return
            data = json.dumps(document).encode()
        elif answer:
            status, data, headers = answer.status, answer.body, dict(answer.headers)
        told = [("Content-Type", "application/json"), ("Audit-Id", str(uuid.UUID(int=len(self.requests))))]
        if (
            "gzip" in request.headers.get("Accept-Encoding", "")
            and len(data) > 128 * 1024
            and not (answer and answer.empty)
        ):
            data = gzip.compress(data, 1)
            told.append(("Content-Encoding", "gzip"))
        send(request, status, [*told, *headers.items()], data, broken=answer)

    def _stream(self, request: BaseHTTPRequestHandler, events: list[dict[str, Any]], answer: Answer | None) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/json;stream=watch")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        lines = [json.dumps(event).encode() + b"\n" for event in events]
        if answer and answer.cut:  # in the middle of an event
            lines[-1] = lines[-1][: len(lines[-1]) * 2 // 3]
        for line in lines:
            half = len(line) // 2  # events come in whatever pieces
            for piece in (line[:half], line[half:]):
                request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if answer and answer.half:
            request.wfile.flush()
            self._stopping.wait(30)
        if answer and (answer.cut or answer.half):
            request.close_connection = True
            return
        request.wfile.write(b"0\r\n\r\n")

    # ── who may ──

    def _authenticate(self, request: BaseHTTPRequestHandler) -> None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            if token in self.uses:
                self.uses[token] -= 1
                if self.uses[token] >= 0:
                    return
            elif token == self.token:
                return
            raise Problem(401, "Unauthorized")
        connection = request.connection
        certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
        subject = [v for rdn in (certificate or {}).get("subject", ()) for k, v in rdn if k == "commonName"]  # type: ignore[str-unpack]
        if subject != ["ownerd"]:
            raise Problem(401, "Unauthorized")

    def _allow(self, verb: str, served: Served) -> None:
        qualified = f"{served.plural}.{served.group}" if served.group else served.plural
        if (verb, qualified) in self.denied:
            raise Problem(
                403,
                f'{qualified} is forbidden: User "system:serviceaccount:ownerd:ownerd" cannot {verb} resource'
                f' "{served.plural}" in API group "{served.group}" at the cluster scope',
            )

    # ── the API ──

    def _answer(
        self, request: BaseHTTPRequestHandler, path: str, query: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, Any]]:
        accept = request.headers.get("Accept", "*/*")
        if request.command == "POST" and path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            return 201, self._review(json.loads(body))
        if request.command != "GET":
            raise Problem(405, "this server is for reading only")
        if path == "/version":
            major, minor = self.version[1:].split(".")[:2]
            names = ("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform")
            return 200, {"major": major, "minor": minor, "gitVersion": self.version, **dict.fromkeys(names, "x")}
        parts = path.strip("/").split("/")
        if parts[0] in {"api", "apis"} and len(parts) < 4:
            found = self._discovery(parts, accept)
            if found is not None:
                return 200, found
        for served in self.kinds:
            if served.path == path and "list" in served.verbs:
                if served.group in self.down:
                    raise Problem(503, "the server is currently unable to handle the request")
                if query.get("watch") in {"1", "true"}:
                    self._allow("watch", served)
                    return 200, {"events": self._watch(served, query, accept)}
                self._allow("list", served)
                return 200, self._list(served, query, accept)
        raise Problem(404, "the server could not find the requested resource")

    def _review(self, review: dict[str, Any]) -> dict[str, Any]:
        assert (review["apiVersion"], review["kind"]) == ("authorization.k8s.io/v1", "SelfSubjectAccessReview")
        if not self.reviews:
            raise Problem(403, "selfsubjectaccessreviews.authorization.k8s.io is forbidden")
        asked = review["spec"]["resourceAttributes"]
        qualified = f"{asked['resource']}.{asked['group']}" if asked["group"] else asked["resource"]
        allowed = (asked["verb"], qualified) not in self.denied
        return {**review, "metadata": {}, "status": {"allowed": allowed, "reason": "RBAC: …" if allowed else ""}}

    def _discovery(self, parts: list[str], accept: str) -> dict[str, Any] | None:
        if "as=APIGroupDiscoveryList" in accept and self.version != "v1.20.15" and len(parts) == 1:
            raise NotImplementedError("nobody asks for the aggregated form")
        match parts:
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
            case ["apis"]:
                groups: dict[str, list[str]] = {}
                for k in self.kinds:
                    if k.group and k.version not in groups.setdefault(k.group, []):
                        groups[k.group].append(k.version)
                rows = []
                for group, versions in groups.items():
                    told = [{"groupVersion": f"{group}/{v}", "version": v} for v in reversed(versions)]
                    rows.append({"name": group, "versions": told, "preferredVersion": told[-1]})
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": rows}
            case ["api", version]:
                group = ""
            case ["apis", group, version]:
                pass
            case _:
                return None
        if group in self.down:
            raise Problem(503, "the server is currently unable to handle the request")
        resources: list[dict[str, Any]] = []
        for k in self.kinds:
            if (k.group, k.version) == (group, version):
                row = {"name": k.plural, "singularName": k.kind.lower(), "namespaced": k.namespaced, "kind": k.kind}
                resources.append({**row, "verbs": list(k.verbs), **({"shortNames": list(k.short)} if k.short else {})})
                for sub in k.sub:
                    name = {"name": f"{k.plural}/{sub}", "singularName": "", "verbs": ["get", "patch", "update"]}
                    resources.append({**row, **name, "kind": "Scale" if sub == "scale" else k.kind})
        if not resources:
            return None
        named = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": named, "resources": resources}

    def _as(self, served: Served, meta: dict[str, Any], accept: str, wanted: str) -> dict[str, Any]:
        first = accept.partition(",")[0].replace(" ", "")
        if f"as={wanted}" in first and self.partial and served.group != "metrics.k8s.io":
            assert "v=v1" in first, "the beta form has gone"
            assert "g=meta.k8s.io" in first
            return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        if "as=" in first and "application/json" not in accept.split(",")[1:]:
            raise Problem(406, "only the following media types are accepted: application/json")
        return {"kind": served.kind, "apiVersion": served.api, "metadata": meta, "spec": {"replicas": 1}, "status": {}}

    def _list(self, served: Served, query: dict[str, str], accept: str) -> dict[str, Any]:
        paged = served.group != "metrics.k8s.io"
        limit = int(query.get("limit") or 0) if paged else 0
        start, version, number = "", self.rv, 1
        if query.get("continue"):
            try:
                token = json.loads(base64.urlsafe_b64decode(query["continue"] + "=="))
                start, number = token["start"], token["page"]
            except ValueError as error:
                raise Problem(400, "continue key is not valid") from error
            version = token["rv"] if token["rv"] >= 0 else self.rv
            if version < self.compacted:
                raise Problem(
                    410, "the continue parameter is too old for a consistent list", token=_token(-1, start, number)
                )
        rows = self.state(served.key, version)
        if (selector := query.get("fieldSelector")) is not None:
            name, _, value = selector.partition("=")
            assert name == "metadata.name"
            rows = {k: m for k, m in rows.items() if m["name"] == value}
        rest = [(key, meta) for key, meta in rows.items() if key > start]
        page = rest[:limit] if limit else rest
        meta: dict[str, Any] = {"resourceVersion": str(version) if paged else ""}
        if len(rest) > len(page):
            meta["continue"] = _token(version, page[-1][0], number + 1)
            if selector is None:
                meta["remainingItemCount"] = len(rest) - len(page)
        items = [self._as(served, m, accept, "PartialObjectMetadataList") for _, m in page]
        if items and items[0]["kind"] == "PartialObjectMetadata":
            kind, api = "PartialObjectMetadataList", "meta.k8s.io/v1"
        else:
            kind, api = f"{served.kind}List", served.api
        return {"kind": kind, "apiVersion": api, "metadata": meta, "items": items}

    def _watch(self, served: Served, query: dict[str, str], accept: str) -> list[dict[str, Any]]:
        text = query.get("resourceVersion", "")
        if not text.isdecimal():
            raise Problem(400, f'resourceVersion: Invalid value: "{text}"')
        since, events = int(text), []
        if since < self.compacted:
            problem = Problem(410, f"too old resource version: {since} ({self.compacted})")
            if not self.gone_as_event:
                raise problem
            return [{"type": "ERROR", "object": problem.status}]
        known = self.state(served.key, since)
        for rv, key, now in self._log.get(served.key, ()):
            if rv <= since:
                continue
            kind = "DELETED" if now is None else "MODIFIED" if key in known else "ADDED"
            meta = {**known.pop(key), "resourceVersion": str(rv)} if now is None else now
            if now is not None:
                known[key] = now
            events.append({"type": kind, "object": self._as(served, meta, accept, "PartialObjectMetadata")})
        lasts = int(query.get("timeoutSeconds") or 3600)
        if self.bookmarks and query.get("allowWatchBookmarks") == "true" and lasts > 2 and since <= self.rv:
            mark = {"resourceVersion": str(self.rv), "creationTimestamp": None}
            events.append({"type": "BOOKMARK", "object": self._as(served, mark, accept, "PartialObjectMetadata")})
        return events


def _token(version: int, start: str, page: int) -> str:
    """Opaque, in URL-safe base64 without its padding."""
    told = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start, "page": page})
    return base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")


def _page_of(query: dict[str, str]) -> int:
    try:
        return int(json.loads(base64.urlsafe_b64decode(query.get("continue", "") + "=="))["page"])
    except (ValueError, KeyError):
        return 1
