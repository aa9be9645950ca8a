"""Rigs of the `kubernetes` connector: clusters on `tests.servers.kubernetes`, which names the pages it follows."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from connectors.errors import (
    ServerFault,
    StaleBookmark,
    Throttled,
    Unauthenticated,
    Unreachable,
)
from connectors.values import Resource
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig, key_of
from tests.servers.kubernetes import Answer, KubernetesServer

ROOT = "k8s://prod-eu"
LIST = "/apis/apps/v1/deployments"
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Thing(NamedTuple):
    """An object, and what the connector should make of it: the path of its parent, and its tags."""

    api: str
    kind: str
    path: str
    name: str
    namespace: str
    parent: str
    tags: dict[str, str]
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner: tuple[str, str, str] | None = None

    @property
    def resource(self) -> Resource:
        return Resource(ROOT + self.path, f"{self.api}/{self.kind}", self.name, ROOT + self.parent, self.tags)

    def put(self, server: KubernetesServer) -> None:
        server.put(
            self.api,
            self.kind,
            self.name,
            self.namespace,
            labels=self.labels,
            annotations=self.annotations,
            owner=self.owner,
        )


def namespace(name: str, tags: dict[str, str], **more: Any) -> Thing:
    return Thing("v1", "Namespace", f"/api/v1/namespaces/{name}", name, "", "", tags, **more)


def things(beta: bool) -> list[Thing]:
    """What the cluster holds; with `beta`, CronJob is as of 1.20."""
    pay, data = "/api/v1/namespaces/pay", "/api/v1/namespaces/data"
    apps, batch = "/apis/apps/v1/namespaces", "/apis/batch/v1/namespaces"
    cron = "batch/v1beta1" if beta else "batch/v1"
    both = {"owner": "команда: оплата", "note": 'a "b" <c> 🦉 \u202e\u2066', "long": "x" * 70_000}
    rows = [
        namespace("kube-system", {}),
        namespace("pay", {"owner": "team-payments", "cost": "17"}, labels={"owner": "team-payments", "cost": "17"}),
        namespace("data", both, annotations=both),
        namespace("empty", {"a": "1", "B": "2"}, labels={"a": "1"}, annotations={"A": "9", "a": "8", "B": "2"}),
        Thing(
            "apps/v1",
            "Deployment",
            f"{apps}/pay/deployments/api",
            "api",
            "pay",
            pay,
            {"Owner": "team-x", "acme.example/owner": "a@b.example"},
            labels={"Owner": "team-x"},
            annotations={"owner": "team-y", "acme.example/owner": "a@b.example", APPLIED: "{}"},
        ),
        Thing(
            "apps/v1",
            "ReplicaSet",
            f"{apps}/pay/replicasets/api-7d",
            "api-7d",
            "pay",
            f"{apps}/pay/deployments/api",
            {},
            owner=("apps/v1", "Deployment", "api"),
        ),
        Thing(
            "v1",
            "Pod",
            f"{pay}/pods/api-7d-x",
            "api-7d-x",
            "pay",
            f"{apps}/pay/replicasets/api-7d",
            {"app": "api"},
            labels={"app": "api"},
            owner=("apps/v1", "ReplicaSet", "api-7d"),
        ),
        Thing("v1", "Pod", f"{pay}/pods/alone", "alone", "pay", pay, {}),
        # static: a node controls it
        Thing(
            "v1",
            "Pod",
            "/api/v1/namespaces/kube-system/pods/etcd-a",
            "etcd-a",
            "kube-system",
            "/api/v1/namespaces/kube-system",
            {},
            owner=("v1", "Node", "a"),
        ),
        # controlled by what is not listed
        Thing(
            "apps/v1",
            "StatefulSet",
            f"{apps}/data/statefulsets/pg",
            "pg",
            "data",
            data,
            {},
            owner=("argoproj.io/v1alpha1", "Rollout", "pg"),
        ),
        Thing(
            "v1",
            "Pod",
            f"{data}/pods/pg-0",
            "pg-0",
            "data",
            f"{apps}/data/statefulsets/pg",
            {},
            owner=("apps/v1", "StatefulSet", "pg"),
        ),
        Thing("apps/v1", "DaemonSet", f"{apps}/data/daemonsets/logs", "logs", "data", data, {}),
        Thing(cron, "CronJob", f"/apis/{cron}/namespaces/data/cronjobs/nightly", "nightly", "data", data, {}),
        # the reference names another version than the one that is listed
        Thing(
            "batch/v1",
            "Job",
            f"{batch}/data/jobs/nightly-1",
            "nightly-1",
            "data",
            f"/apis/{cron}/namespaces/data/cronjobs/nightly",
            {},
            owner=("batch/v2alpha1", "CronJob", "nightly"),
        ),
        Thing(
            "v1",
            "Pod",
            f"{data}/pods/nightly-1-z",
            "nightly-1-z",
            "data",
            f"{batch}/data/jobs/nightly-1",
            {},
            owner=("batch/v1", "Job", "nightly-1"),
        ),
        Thing(
            "acme.example/v1",
            "Database",
            "/apis/acme.example/v1/namespaces/data/databases/orders",
            "orders",
            "data",
            data,
            {},
        ),
        Thing(
            "acme.example/v1beta1",
            "Tenant",
            "/apis/acme.example/v1beta1/tenants/acme:eu",
            "acme:eu",
            "",
            "",
            {"owner": "sales"},
            labels={"owner": "sales"},
        ),
    ]
    for number in range(1060):
        inside, name = ("pay", "data", "empty")[number % 3], f"svc-{number:04}"
        labels = {"app": name, "owner": f"team-{number % 40}"}
        where = f"{apps}/{inside}/deployments/{name}"
        rows.append(Thing("apps/v1", "Deployment", where, name, inside, f"/api/v1/namespaces/{inside}", labels, labels))
    return rows


class KubernetesRig(Rig):
    kind = "kubernetes"
    role = "integration"
    pages = 3
    faults = USUAL_FAULTS
    change_faults = {
        Fault.UNAUTHENTICATED: Unauthenticated,
        Fault.FORBIDDEN: StaleBookmark,  # a watch that is denied: a list may still be allowed
        Fault.SERVER_ERROR: ServerFault,
        Fault.UNAVAILABLE: ServerFault,
        Fault.THROTTLED_ONCE: Throttled,
        Fault.THROTTLED_BARE: Throttled,
        Fault.EMPTY_BODY: StaleBookmark,  # a watch that ends without a word proves nothing
        Fault.CUT_BODY: ServerFault,
        Fault.REFUSED: Unreachable,
    }

    def __init__(self, version: str) -> None:
        self.version = version

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with KubernetesServer(self.version) as self.server, tempfile.TemporaryDirectory() as folder:
            self.things = {t.path: t for t in things(beta=self.version.startswith("v1.20"))}
            for thing in self.things.values():
                if thing.name != "kube-system":
                    thing.put(self.server)
            # not listed, and so not read
            self.server.put("v1", "ConfigMap", "elsewhere", "pay", labels={"owner": "nobody"})
            self.server.put("other.example/v1", "Database", "other", "pay")
            self.server.compact()
            uid = self.server.state(("", "Namespace"), self.server.rv)["/kube-system"]["uid"]
            self.stale_bookmark = f"{uid}/7"
            self.kubeconfig = Path(folder, "kubeconfig")
            self.kubeconfig.write_text(json.dumps(kubeconfig_of(self.server)))  # JSON is YAML
            yield

    def options(self) -> dict[str, Any]:
        return {
            "cluster": "prod-eu",
            "kubeconfig": str(self.kubeconfig),
            "resources": [
                "ns",
                "apps/v1/deployments",
                "statefulsets.apps",
                "DaemonSet",
                "cronjobs.batch",
                "v1/pods",
                "databases.acme.example",
                "tenants",
            ],
            "timeout": "10s",
        }

    def expected(self) -> set[str]:
        cluster = Resource(ROOT, "cluster", "prod-eu")
        return {key_of(cluster), *(key_of(thing.resource) for thing in self.things.values())}

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        with self.server.broken(LIST, page, answer_of(fault)):
            yield

    @contextlib.contextmanager
    def inject_into_changes(self, fault: Fault) -> Iterator[None]:
        with self.server.broken(LIST, 0, answer_of(fault)):
            yield

    @contextlib.contextmanager
    def changed(self) -> Iterator[None]:
        """Labels edited, a controller lost, objects gone, made, and made again; a namespace with all it holds."""
        before = dict(self.things)
        api = "/apis/apps/v1/namespaces/pay/deployments/api"
        edited = [
            self.things[api]._replace(tags={"owner": "team-z"}, labels={"owner": "team-z"}, annotations=None),
            self.things["/api/v1/namespaces/pay/pods/alone"]._replace(tags={"a": "b"}, annotations={"a": "b"}),
            self.things["/apis/apps/v1/namespaces/pay/replicasets/api-7d"]._replace(
                parent="/api/v1/namespaces/pay", owner=None
            ),
            namespace("new", {"owner": "новая"}, annotations={"owner": "новая"}),
            Thing(
                "apps/v1",
                "Deployment",
                "/apis/apps/v1/namespaces/new/deployments/a",
                "a",
                "new",
                "/api/v1/namespaces/new",
                {},
            ),
        ]
        gone = ["/api/v1/namespaces/data/pods/pg-0", "/apis/apps/v1/namespaces/data/statefulsets/pg"]
        gone += [path for path in self.things if path.startswith("/apis/apps/v1/namespaces/empty/deployments/svc-00")]
        for path in gone:
            self.delete(path)
        for thing in edited:
            self.put(thing)
        again = self.things["/apis/apps/v1/namespaces/data/daemonsets/logs"]
        self.delete(again.path)
        self.put(again)
        self.put(passing := namespace("passing", {}))
        self.delete(passing.path)
        try:
            yield
        finally:
            for path in [p for p in self.things if p not in before]:
                self.delete(path)
            for path, thing in before.items():
                if self.things.get(path) is not thing:
                    self.put(thing)
            assert self.things == before

    def put(self, thing: Thing) -> None:
        thing.put(self.server)
        self.things[thing.path] = thing

    def delete(self, path: str) -> None:
        thing = self.things.pop(path)
        self.server.delete(thing.api, thing.kind, thing.name, thing.namespace)


def kubeconfig_of(server: KubernetesServer, **user: Any) -> dict[str, Any]:
    """A kubeconfig for the server; with its token, or another `user`."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "prod",
        "contexts": [{"name": "prod", "context": {"cluster": "eu", "user": "ownerd"}}],
        "clusters": [{"name": "eu", "cluster": {"server": server.url, "certificate-authority": server.ca_file}}],
        "users": [{"name": "ownerd", "user": user or {"token": server.token}}],
    }


def answer_of(fault: Fault) -> Answer:
    """What the server answers."""
    return {
        Fault.UNAUTHENTICATED: Answer.problem(401, "Unauthorized"),
        Fault.FORBIDDEN: Answer.problem(403, 'deployments.apps is forbidden: User "ownerd" cannot list resource'),
        Fault.SERVER_ERROR: Answer.problem(500, "etcdserver: leader changed"),
        Fault.UNAVAILABLE: Answer.problem(503, "apiserver not ready"),
        Fault.THROTTLED_ONCE: Answer.problem(
            429, "too many requests, please try again later", times=1, Retry_After="1"
        ),
        Fault.THROTTLED_BARE: Answer(429),
        Fault.EMPTY_BODY: Answer(200),
        Fault.EMPTY_LIST: Answer(empty=True),
        Fault.CUT_BODY: Answer(cut=True),
        Fault.REPEATED_TOKEN: Answer(repeat=True),
        Fault.REFUSED: Answer(refuse=True),
        Fault.HANG: Answer(stall=True),
    }[fault]


class Kubernetes120Rig(KubernetesRig):
    name = "1.20"


RIGS: list[Rig] = [KubernetesRig("v1.36.1"), Kubernetes120Rig("v1.20.15")]
