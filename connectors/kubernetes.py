"""A Kubernetes cluster: namespaces, workloads, and whatever else `resources` names; metadata only.

A scope is one kind of object in the whole cluster, `apps/v1/deployments`. It is one snapshot: all pages are of one
resourceVersion, and when the server has forgotten that one in the middle, the list begins anew. Pages wait in a
temporary file until the last has come, since nothing that was yielded could be taken back.

https://kubernetes.io/docs/reference/using-api/api-concepts/: "Retrieving large results sets in chunks", "Efficient
detection of changes", "Resource versions", "Fetch only metadata".
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import IO, Annotated, Any, NamedTuple

from pydantic import Field, StringConstraints

from connectors.contract import Check, Connector
from connectors.errors import BadData, ConnectorError, Forbidden, Incomplete, Misconfigured, ServerFault, StaleBookmark
from connectors.http import part
from connectors.kubernetes_auth import ClusterOptions
from connectors.kubernetes_kinds import Discovery, ServedKind
from connectors.kubernetes_rows import Rows, segment
from connectors.kubernetes_wire import ApiServer, Expired, NotThere
from connectors.paging import Pages
from connectors.values import Bookmark, Change, Gone, Record, Resource

CLUSTER = "cluster"
"""The scope of the cluster itself, and its type."""
DEFAULT = ("namespaces", "deployments.apps", "statefulsets.apps", "daemonsets.apps", "cronjobs.batch")
"""What people make. Pods, ReplicaSets and Jobs come and go by themselves: one rollout may replace all of them."""
PAGE = 500
"""Objects a page, as kubectl and client-go ask for."""
RESTARTS = 3
WATCH = 5
"""Seconds that a watch lasts. A server tells how far it has come 2 s before the end."""
IN_MEMORY = 1 << 20
"""Bytes of a scope that are kept in memory; what is more waits on disk."""

_META = "as={};v=v1;g=meta.k8s.io"
_LISTS = f"application/json;{_META.format('PartialObjectMetadataList')},application/json"
_OBJECTS = f"application/json;{_META.format('PartialObjectMetadata')},application/json"
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_CONTROLLERS = {
    "pods": ("replicasets.apps", "statefulsets.apps", "daemonsets.apps", "jobs.batch", "replicationcontrollers"),
    "replicasets.apps": ("deployments.apps",),
    "jobs.batch": ("cronjobs.batch",),
}
"""What controls an object may have the nearer tag: who lists the one lists the others."""
_RANK = {"pods": 0, "replicasets.apps": 1, "jobs.batch": 1, "namespaces": 4}
"""The order of scopes: what is controlled before what controls. A controller is then read after all that it controls.

Between these come Kubernetes' own kinds (2), then custom ones (3), which operators make others of.
"""


ClusterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=253)]


class KubernetesOptions(ClusterOptions):
    """Options of the `kubernetes` connector."""

    cluster: ClusterName = Field(description="The cluster's name in ids: k8s://CLUSTER/…")
    resources: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9./-]+$")]] = Field(
        default_factory=lambda: list(DEFAULT),
        min_length=1,
        description='Kinds to read: "apps/v1/deployments", "deployments.apps", "pods"; custom ones alike.',
    )


class _Page(NamedTuple):
    version: str
    items: list[dict[str, Any]]
    token: str
    left: int
    """How many are on later pages, as the server estimates; 0 if it does not tell."""


class Kubernetes(Connector):
    """Reads one cluster."""

    Options = KubernetesOptions
    incremental = True

    def __init__(self, options: KubernetesOptions) -> None:
        self.options = options
        self._id = f"k8s://{options.cluster}"
        self._server = ApiServer(options)

    def close(self) -> None:
        """Let go of connections, and of keys that had to be files."""
        self._server.close()

    # --- what there is to read --------------------------------------------------------------------------------------

    def scopes(self) -> Iterable[str]:
        """Each kind that is listed, and the cluster."""
        return [*self._kinds, CLUSTER]

    @cached_property
    def _kinds(self) -> dict[str, ServedKind]:
        """By scope, in the order in which they are read."""
        discovery = Discovery(self._discover)
        wanted = list(self.options.resources)
        found: dict[tuple[str, str], ServedKind] = {}
        for name in wanted:  # which grows
            kind = discovery.find(name)
            known = found.setdefault((kind.group, kind.kind), kind)
            if known is kind:
                wanted += _CONTROLLERS.get(kind.qualified, ())
            elif known != kind and name in self.options.resources:
                raise Misconfigured(
                    f"resources: {known.scope} and {kind.scope} are the same objects", remedy="name one of them"
                )
        ordered = sorted(found.values(), key=lambda kind: _RANK.get(kind.qualified, 3 if "." in kind.group else 2))
        return {kind.scope: kind for kind in ordered}

    @cached_property
    def _rows(self) -> Rows:
        return Rows(self._id, self._kinds.values())

    def _discover(self, path: str) -> Any:
        try:
            return self._server.get(path)
        except NotThere:
            if path in {"/api", "/apis"}:
                raise
            return None

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, scope: str) -> Iterator[Record]:
        """Yield the objects of one kind, all of one moment; or the cluster itself."""
        if scope == CLUSTER:
            yield self._cluster()
            return
        kind = self._kinds[scope]
        with tempfile.SpooledTemporaryFile(IN_MEMORY, "w+", encoding="ascii") as spool:
            version = self._snapshot(kind, spool)
            if version and "watch" in kind.verbs and self._may("watch", kind) is not False:
                yield Bookmark(f"{self._uid}/{version}")
            spool.seek(0)
            for line in spool:
                yield Resource(*json.loads(line))

    def _cluster(self) -> Resource:
        part(self._server.get("/version"), "gitVersion", str, "GET /version")
        return Resource(self._id, CLUSTER, self.options.cluster)

    def _snapshot(self, kind: ServedKind, spool: IO[str]) -> str:
        """Write all objects of a kind into `spool`; the resourceVersion that they are of."""
        expired: Expired | None = None
        for _ in range(1 + RESTARTS):
            spool.seek(0)
            spool.truncate()
            try:
                return self._list(kind, spool)
            except Expired as error:
                # The answer has a token to go on with, but from another moment: objects would be missing, or stay.
                expired = error
        raise Incomplete(
            f"{kind.scope}: the list was begun anew {RESTARTS} times, and never came to its end: {expired}",
            remedy="the server, or the way to it, is too slow: it keeps a list's state for some minutes",
        ) from expired

    def _list(self, kind: ServedKind, spool: IO[str]) -> str:
        pages = Pages(f"list {kind.scope}")
        first = page = self._page(kind, PAGE)
        while True:
            if page.version != first.version:
                raise Expired(f"{kind.scope}: the list went on from another state")
            for item in page.items:
                row = self._rows.resource(kind, item)
                spool.write(json.dumps((row.id, row.type, row.name, row.parent, row.tags)) + "\n")
            if not page.token:
                return first.version
            left = page.left
            page = self._page(kind, PAGE, pages.turn(page.token))
            if left and not page.items:  # inexact it may be, but for all of one moment some are no none
                raise Incomplete(f"list {kind.scope}: an empty page, where {left} objects were left")

    def _page(self, kind: ServedKind, limit: int, token: str = "") -> _Page:
        place = f"list {kind.scope}"
        query = {"limit": limit, **({"continue": token} if token else {})}
        document = self._server.get(kind.path, accept=_LISTS, permission=f"list {kind.qualified}", **query)
        if not str(document.get("kind")).endswith("List"):
            raise ServerFault(f"{place}: the answer is no list")
        meta = part(document, "metadata", dict, place)
        token = meta.get("continue") or ""
        left = meta.get("remainingItemCount") or 0
        if left and not token:
            raise Incomplete(f"{place}: the list ends, and {left} objects are left")
        return _Page(meta.get("resourceVersion") or "", part(document, "items", list, place), token, left)

    # --- changes ----------------------------------------------------------------------------------------------------

    def changes(self, scope: str, since: str) -> Iterator[Change]:
        """Yield what a watch tells since a resourceVersion; the last one that it tells is the new one."""
        kind = self._kinds[scope]
        uid, _, version = since.partition("/")
        if uid != self._uid:
            raise StaleBookmark(f"{scope}: that was another cluster")
        permission = f"watch {kind.qualified}"
        reached = ""
        try:
            self._refuse_rewound(kind, version)
            for event, item in self._server.watch(
                kind.path,
                accept=_OBJECTS,
                permission=permission,
                seconds=WATCH,
                resourceVersion=version,
                allowWatchBookmarks="true",
            ):
                place = f"watch {scope}"
                reached = part(part(item, "metadata", dict, place), "resourceVersion", str, place)
                if event in {"ADDED", "MODIFIED"}:
                    yield self._rows.resource(kind, item)
                elif event == "DELETED":
                    yield Gone(self._rows.resource(kind, item).id)
                elif event != "BOOKMARK":
                    raise BadData(f"{place}: an event of an unknown type")
        except Expired as error:
            raise StaleBookmark(error.message) from error
        except Forbidden as error:
            if error.permission == permission:  # a list may be allowed, and shows as much
                raise StaleBookmark(error.message) from error
            raise
        if not reached:
            # For some kinds old servers end a watch from a forgotten state so, without an error.
            raise StaleBookmark(f"{scope}: the watch told nothing, not even how far it has come")
        yield Bookmark(f"{uid}/{reached}")

    def _refuse_rewound(self, kind: ServedKind, version: str) -> None:
        """A server put back to a backup would tell nothing until it has come to that version again.

        https://github.com/kubernetes/kubernetes/issues/107457. Versions are comparable as decimal numbers.
        """
        now = self._page(kind, 1).version
        if not (version.isdecimal() and now.isdecimal()) or int(now) < int(version):
            raise StaleBookmark(f"{kind.scope}: the server is at {now[:40]}, which is before {version[:40]}")

    @cached_property
    def _uid(self) -> str:
        """What tells this cluster from the one that replaces it under its name; "" if it may not be seen."""
        query = {"fieldSelector": "metadata.name=kube-system", "limit": 1}
        try:
            document = self._server.get("/api/v1/namespaces", accept=_LISTS, permission="list namespaces", **query)
        except Forbidden:
            return ""
        place = "namespace kube-system"
        for item in part(document, "items", list, place):
            meta = part(item, "metadata", dict, place)
            if meta.get("name") == "kube-system":
                return segment(meta.get("uid"), place)
        return ""

    # --- check ------------------------------------------------------------------------------------------------------

    def check(self) -> Iterator[Check]:
        """Read a page of each kind; name the RBAC verb that is missing, and controllers that are not listed."""
        version = part(self._server.get("/version"), "gitVersion", str, "GET /version")
        yield Check(f"reach {self._id}", ok=True, detail=f"Kubernetes {version}")
        for scope, kind in self._kinds.items():
            try:
                items = self._page(kind, PAGE).items
                unlisted = self._rows.unlisted(kind, items)
            except ConnectorError as error:
                yield Check(f"list {scope}", ok=False, detail=error.message, remedy=error.remedy)
                continue
            yield Check(f"list {scope}", ok=True, detail="" if items else "readable, and empty")
            if unlisted:
                told = ", ".join(f"{count} by {name}" for name, count in sorted(unlisted.items()))
                yield Check(
                    f"parents of {scope}",
                    ok=True,
                    detail=f"controlled by what is not listed, their parent is the namespace: {told}",
                    remedy="name these kinds in `resources`, if their tags are to count",
                )
            if "watch" in kind.verbs and self._may("watch", kind) is False:
                yield Check(
                    f"watch {scope}",
                    ok=True,
                    detail=f"the verb watch on {kind.qualified} is missing: it is read whole each time",
                    remedy="allow the verb watch beside list",
                )

    def _may(self, verb: str, kind: ServedKind) -> bool | None:
        """Whether RBAC, or what else the server asks, allows `verb` in the whole cluster; None if it does not tell."""
        attributes = {"verb": verb, "group": kind.group, "resource": kind.plural}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        try:
            answer = self._server.post(_REVIEWS, review)
        except (Forbidden, NotThere):
            return None
        allowed: bool = part(part(answer, "status", dict, f"POST {_REVIEWS}"), "allowed", bool, f"POST {_REVIEWS}")
        return allowed
