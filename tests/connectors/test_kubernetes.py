"""The `kubernetes` connector: snapshots, parents, tags, kinds, watches, credentials."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import connectors.kubernetes
import connectors.retry
from connectors.contract import Check
from connectors.errors import (
    BadData,
    ConnectorError,
    Forbidden,
    Incomplete,
    Misconfigured,
    ServerFault,
    StaleBookmark,
    Throttled,
    Unauthenticated,
    Unreachable,
)
from connectors.kubernetes import CLUSTER, Kubernetes, KubernetesOptions
from connectors.kubernetes_kinds import ServedKind
from connectors.kubernetes_rows import Rows
from connectors.values import Bookmark, Change, Gone, Record, Resource
from tests.servers.kubernetes import Answer, KubernetesServer, Problem

NS, DEPLOYMENTS, PODS = "v1/namespaces", "apps/v1/deployments", "v1/pods"
LIST = "/apis/apps/v1/deployments"
ROOT = "k8s://prod"


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two objects a page."""
    monkeypatch.setattr(connectors.kubernetes, "PAGE", 2)


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    """A cluster with five Deployments in the namespace `pay`: a, b, c, d, e."""
    with KubernetesServer() as server:
        server.put("v1", "Namespace", "pay", labels={"owner": "payments"})
        for name in "abcde":
            server.put("apps/v1", "Deployment", name, "pay", labels={"app": name})
        yield server


def kubeconfig(server: KubernetesServer, **user: Any) -> dict[str, Any]:
    return {
        "current-context": "main",
        "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.url, "certificate-authority": server.ca_file}}],
        "users": [{"name": "u", "user": user or {"token": server.token}}],
    }


class Reader:
    """Builds connectors to a server, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "kubeconfig"
        self.open: list[Kubernetes] = []

    def __call__(self, server: KubernetesServer, config: dict[str, Any] | None = None, **changes: Any) -> Kubernetes:
        self.file.write_text(json.dumps(config or kubeconfig(server)))
        return self.with_options(kubeconfig=str(self.file), **changes)

    def with_options(self, **options: Any) -> Kubernetes:
        told = {"cluster": "prod", "timeout": "10s", **options}
        connector = Kubernetes(KubernetesOptions.model_validate(told))
        self.open.append(connector)
        return connector


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    for connector in reader.open:
        connector.close()


def rows(records: Iterator[Record] | Iterator[Change]) -> dict[str, Resource]:
    return {r.id: r for r in records if isinstance(r, Resource)}


def names(records: Iterator[Record]) -> str:
    return "".join(sorted(r.name for r in records if isinstance(r, Resource)))


def bookmark(records: Iterator[Any]) -> str:
    *_, found = (r.token for r in records if isinstance(r, Bookmark))
    return str(found)


def asked(server: KubernetesServer, path: str) -> list[dict[str, str]]:
    return [query for _, at, query in server.requests if at == path]


# ── one snapshot ──


def test_a_list_is_asked_for_in_pages_and_for_metadata_only(server: KubernetesServer, connect: Reader) -> None:
    """What comes is a PartialObjectMetadataList, without specs, in as many pages as it takes."""
    assert names(connect(server).read(DEPLOYMENTS)) == "abcde"
    assert [q["limit"] for q in asked(server, LIST)] == ["2", "2", "2"]
    accepts = {h["accept"] for h, r in zip(server.headers, server.requests, strict=True) if r[1] == LIST}
    assert accepts == {"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"}


def test_when_the_snapshot_is_forgotten_the_list_begins_anew(server: KubernetesServer, connect: Reader) -> None:
    """After a 410 comes what there is then: nothing of before stays, nothing is left out, nothing comes twice."""

    def meanwhile() -> None:
        server.delete("apps/v1", "Deployment", "a", "pay")
        server.put("apps/v1", "Deployment", "aa", "pay", labels={"new": "yes"})
        server.put("apps/v1", "Deployment", "b", "pay", labels={"edited": "yes"})
        server.compact()

    with server.broken(LIST, 3, Answer(before=meanwhile, right=True, times=1)):
        records = list(connect(server).read(DEPLOYMENTS))
    found = [r for r in records if isinstance(r, Resource)]
    assert [r.name for r in found] == ["aa", "b", "c", "d", "e"]
    assert found[1].tags == {"edited": "yes"}
    assert bookmark(iter(records)).endswith(f"/{server.rv}")
    assert [bool(q.get("continue")) for q in asked(server, LIST)] == [False, True, True, False, True, True]


def test_a_list_that_never_ends_in_one_snapshot_is_incomplete(server: KubernetesServer, connect: Reader) -> None:
    """Four times at most; the continue token that the 410 offers is not used."""
    with server.broken(LIST, 2, Answer(before=server.compact, right=True)), pytest.raises(Incomplete, match="anew"):
        list(connect(server).read(DEPLOYMENTS))
    assert len(asked(server, LIST)) == 8


def test_pages_of_two_snapshots_are_never_mixed(server: KubernetesServer, connect: Reader) -> None:
    """A server that goes on in another state without saying so is read anew, and then given up."""

    def other(document: dict[str, Any]) -> None:
        document["metadata"]["resourceVersion"] = "77"

    with server.broken(LIST, 2, Answer(change=other, right=True, times=1)):
        assert names(connect(server).read(DEPLOYMENTS)) == "abcde"
    with server.broken(LIST, 2, Answer(change=other, right=True)), pytest.raises(Incomplete):
        list(connect(server).read(DEPLOYMENTS))


def test_a_list_that_ends_with_objects_left_is_incomplete(server: KubernetesServer, connect: Reader) -> None:
    """The server tells how many remain; no token to go on with is then no end."""
    cut = Answer(change=lambda document: document["metadata"].pop("continue"), right=True)
    with server.broken(LIST, 2, cut), pytest.raises(Incomplete, match="1 objects are left"):
        list(connect(server).read(DEPLOYMENTS))


def test_an_empty_page_where_objects_were_left_is_incomplete(server: KubernetesServer, connect: Reader) -> None:
    """The page before told that there are more, of the same moment."""
    with server.broken(LIST, 3, Answer(empty=True)), pytest.raises(Incomplete, match="where 1 objects were left"):
        list(connect(server).read(DEPLOYMENTS))


def test_nothing_is_yielded_before_the_last_page_came(server: KubernetesServer, connect: Reader) -> None:
    """A failure on the last page comes before the first record."""
    with server.broken(LIST, 3, Answer.problem(403)):
        records = connect(server).read(DEPLOYMENTS)
        with pytest.raises(Forbidden):
            next(records)


def test_what_does_not_fit_into_memory_waits_on_disk(
    server: KubernetesServer, connect: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And comes back as it was: text of any script, lone surrogates too."""
    monkeypatch.setattr(connectors.kubernetes, "IN_MEMORY", 1)
    odd = {"note": 'команда "x"\n\u2028🦉', "lone": "\ud800"}
    server.put("apps/v1", "Deployment", "odd", "pay", annotations=odd)
    found = rows(connect(server).read(DEPLOYMENTS))
    assert len(found) == 6
    assert found[f"{ROOT}/apis/apps/v1/namespaces/pay/deployments/odd"].tags == odd


def test_an_empty_list_is_an_empty_scope(server: KubernetesServer, connect: Reader) -> None:
    """None there are, and that is told: with a bookmark, and no row."""
    assert [type(r) for r in connect(server).read("apps/v1/statefulsets")] == [Bookmark]


def test_large_pages_come_compressed(
    server: KubernetesServer, connect: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a real server, from 128 KiB up."""
    monkeypatch.setattr(connectors.kubernetes, "PAGE", 500)
    for n in range(300):
        server.put("apps/v1", "Deployment", f"x{n:03}", "pay", annotations={"long": "x" * 500})
    assert len(rows(connect(server).read(DEPLOYMENTS))) == 305
    assert "gzip" in server.headers[-1]["accept-encoding"]


def test_a_server_that_knows_no_partial_metadata_is_read_all_the_same(
    server: KubernetesServer, connect: Reader
) -> None:
    """An aggregated one, say: it answers with whole objects."""
    server.partial = False
    connector = connect(server)
    found = rows(connector.read(DEPLOYMENTS))
    assert {r.type for r in found.values()} == {"apps/v1/Deployment"}
    assert len(found) == 5
    since = bookmark(connector.read(DEPLOYMENTS))
    server.put("apps/v1", "Deployment", "f", "pay")
    assert [r.name for r in rows(connector.changes(DEPLOYMENTS, since)).values()] == ["f"]


def test_what_has_no_versions_is_read_whole_each_time(server: KubernetesServer, connect: Reader) -> None:
    """metrics.k8s.io lists without a resourceVersion, and has no watch."""
    assert list(connect(server, resources=["pods.metrics.k8s.io"]).read("metrics.k8s.io/v1beta1/pods")) == []


def test_the_cluster_itself_has_a_row(server: KubernetesServer, connect: Reader) -> None:
    """So that it can be looked up, once the server has answered."""
    connector = connect(server)
    assert list(connector.read(CLUSTER)) == [Resource(ROOT, "cluster", "prod")]
    with server.broken("/version", 1, Answer(200, b"{}")), pytest.raises(ServerFault, match="gitVersion"):
        list(connector.read(CLUSTER))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(200, b"<html>sign in</html>"), ServerFault),
        (Answer(200, b"[]"), ServerFault),
        (Answer(200, b"{}"), ServerFault),
        (Answer(200, json.dumps(Problem(200, "fine").status).encode()), ServerFault),
        (Answer(200, b'{"kind":"DeploymentList","metadata":{}}'), ServerFault),
        (Answer(200, b'{"kind":"DeploymentList","items":[]}'), ServerFault),
        (Answer(200, b'{"kind":"DeploymentList","metadata":{},"items":[{}]}'), ServerFault),
        (Answer(200, b'{"kind":"DeploymentList","metadata":{},"items":[7]}'), ServerFault),
        (Answer(502, b"<html>bad gateway</html>"), ServerFault),
        (Answer(400, b"what"), BadData),
        (Answer.problem(406), BadData),
        (Answer.problem(504, "Timeout", Retry_After="600"), Throttled),
        (Answer.problem(404), Misconfigured),
        (Answer(302, headers={"Location": "https://127.0.0.1:1/"}), BadData),
    ],
)
def test_odd_answers_are_errors(
    server: KubernetesServer, connect: Reader, answer: Answer, error: type[ConnectorError]
) -> None:
    """Nothing that is not a list is taken for an empty one; no message tells the token."""
    with server.broken(LIST, 1, answer), pytest.raises(error) as caught:
        list(connect(server).read(DEPLOYMENTS))
    assert server.token not in f"{caught.value} {caught.value.remedy} {caught.value!r}"


def test_throttling_waits_as_long_as_the_server_says(
    server: KubernetesServer, connect: Reader, sleeps: list[float]
) -> None:
    """API Priority and Fairness sends Retry-After."""
    with server.broken(LIST, 2, Answer.problem(429, times=2, Retry_After="7")):
        assert names(connect(server).read(DEPLOYMENTS)) == "abcde"
    assert sleeps == [7, 7]


def test_a_bookmark_is_of_the_first_page(server: KubernetesServer, connect: Reader) -> None:
    """What changes while pages are read is not in them, and is told by the changes after."""
    connector = connect(server)

    def meanwhile() -> None:
        server.put("apps/v1", "Deployment", "e", "pay", labels={"edited": "yes"})
        server.delete("apps/v1", "Deployment", "a", "pay")

    with server.broken(LIST, 2, Answer(before=meanwhile, right=True, times=1)):
        records = list(connector.read(DEPLOYMENTS))
    assert names(iter(records)) == "abcde"
    told = list(connector.changes(DEPLOYMENTS, bookmark(iter(records))))
    assert [r.tags for r in told if isinstance(r, Resource)] == [{"edited": "yes"}]
    assert [g.what for g in told if isinstance(g, Gone)] == [f"{ROOT}/apis/apps/v1/namespaces/pay/deployments/a"]


# ── rows ──

DEPLOYMENT = ServedKind("apps", "v1", "deployments", "Deployment", True, frozenset({"list"}), frozenset())
REPLICASET = ServedKind("apps", "v1", "replicasets", "ReplicaSet", True, frozenset({"list"}), frozenset())
TENANT = ServedKind("acme.example", "v1", "tenants", "Tenant", False, frozenset({"list"}), frozenset())
MAKE = Rows(ROOT, [DEPLOYMENT, REPLICASET, TENANT]).resource
PAY = f"{ROOT}/api/v1/namespaces/pay"


def replicaset(**meta: Any) -> Resource:
    return MAKE(REPLICASET, {"metadata": {"name": "x", "namespace": "pay", **meta}})


def owned_by(api: str, kind: str, name: Any = "api", **more: Any) -> Any:
    return [{"apiVersion": api, "kind": kind, "name": name, "uid": "1", "controller": True, **more}]


def test_a_label_wins_over_an_annotation_in_whatever_case() -> None:
    """Labels come first: an annotation of the same key, but for case, would make the value ambiguous."""
    made = replicaset(labels={"Owner": "label"}, annotations={"owner": "a", "OWNER": "b", "team": "c"})
    assert made.tags == {"Owner": "label", "team": "c"}


def test_the_copy_of_the_object_is_no_tag() -> None:
    """kubectl's last-applied-configuration is left out, and nothing else, however long."""
    long = {"a": "x" * 200_000, "kubectl.kubernetes.io/default-container": "web"}
    assert replicaset(annotations={**long, "kubectl.kubernetes.io/last-applied-configuration": "{}"}).tags == long


@pytest.mark.parametrize(
    ("references", "parent"),
    [
        (None, PAY),
        ([], PAY),
        (owned_by("apps/v1", "Deployment"), f"{ROOT}/apis/apps/v1/namespaces/pay/deployments/api"),
        (owned_by("apps/v1beta2", "Deployment"), f"{ROOT}/apis/apps/v1/namespaces/pay/deployments/api"),
        (owned_by("apps/v1", "Deployment", controller=False), PAY),
        (owned_by("apps/v1", "Deployment", controller=None), PAY),
        (owned_by("argoproj.io/v1alpha1", "Rollout"), PAY),
        (owned_by("extensions/v1beta1", "Deployment"), PAY),
        (owned_by("v1", "Deployment"), PAY),
        (owned_by("acme.example/v1", "Tenant", "eu"), f"{ROOT}/apis/acme.example/v1/tenants/eu"),
        (
            [*owned_by("v1", "ConfigMap", controller=False), *owned_by("apps/v1", "Deployment")],
            f"{ROOT}/apis/apps/v1/namespaces/pay/deployments/api",
        ),
    ],
)
def test_parents(references: Any, parent: str) -> None:
    """The controller, if its kind is listed, whatever version it is named in; else the namespace."""
    assert replicaset(ownerReferences=references).parent == parent


def test_parents_of_what_is_in_no_namespace() -> None:
    """The cluster; what is in a namespace controls nothing outside."""
    assert MAKE(TENANT, {"metadata": {"name": "eu"}}) == Resource(
        f"{ROOT}/apis/acme.example/v1/tenants/eu", "acme.example/v1/Tenant", "eu", ROOT, {}
    )
    odd = {"name": "eu", "ownerReferences": owned_by("apps/v1", "Deployment")}
    assert MAKE(TENANT, {"metadata": odd}).parent == ROOT


@pytest.mark.parametrize("name", ["", None, 7, ".", "..", "a/b", "../a", "a%2fb", "a b", "a\n", "a\x7f", "\x00"])
def test_a_name_that_can_be_no_part_of_a_path_is_refused(name: Any) -> None:
    """Of the object, its namespace and its controller alike: it would lead to another object's id."""
    for meta in (
        {"name": name},
        {"namespace": name},
        {"ownerReferences": owned_by("apps/v1", "Deployment", name)},
    ):
        with pytest.raises(BadData):
            replicaset(**meta)


def test_a_name_is_kept_as_it_is() -> None:
    """RBAC's names have colons."""
    assert MAKE(TENANT, {"metadata": {"name": "system:a.b-c"}}).id.endswith("/tenants/system:a.b-c")


@pytest.mark.parametrize("wrong", [[], "x", {"a": 1}, {"a": None}])
@pytest.mark.parametrize("which", ["labels", "annotations"])
def test_tags_that_are_not_texts_are_refused(which: str, wrong: Any) -> None:
    """Null is none."""
    with pytest.raises(BadData, match=which):
        replicaset(**{which: wrong})
    assert replicaset(**{which: None}).tags == {}


@pytest.mark.parametrize("wrong", ["x", {}, [7], [None], [{"controller": True}]])
def test_owner_references_of_a_wrong_shape_are_refused(wrong: Any) -> None:
    """None of them is taken for no owner."""
    with pytest.raises((BadData, ServerFault)):
        replicaset(ownerReferences=wrong)


# ── kinds ──


def scopes(connector: Kubernetes) -> list[str]:
    return list(connector.scopes())


def test_the_default_is_what_people_make(server: KubernetesServer, connect: Reader) -> None:
    """Namespaces and lasting workloads; then the cluster."""
    assert scopes(connect(server)) == [
        DEPLOYMENTS,
        "apps/v1/statefulsets",
        "apps/v1/daemonsets",
        "batch/v1/cronjobs",
        NS,
        CLUSTER,
    ]


def test_a_kind_that_its_group_prefers_to_serve_otherwise(connect: Reader) -> None:
    """Of Kubernetes 1.20: the group batch prefers v1, in which there is no CronJob."""
    with KubernetesServer("v1.20.15") as server:
        assert "batch/v1beta1/cronjobs" in scopes(connect(server))


@pytest.mark.parametrize(
    ("word", "scope"),
    [
        ("apps/v1/deployments", DEPLOYMENTS),
        ("apps/v1/Deployment", DEPLOYMENTS),
        ("deployments.apps", DEPLOYMENTS),
        ("deployments", DEPLOYMENTS),
        ("deployment", DEPLOYMENTS),
        ("Deployment", DEPLOYMENTS),
        ("deploy", DEPLOYMENTS),
        ("v1/namespaces", NS),
        ("databases.acme.example", "acme.example/v1/databases"),
        ("acme.example/v1beta1/databases", "acme.example/v1beta1/databases"),
        ("tenants", "acme.example/v1beta1/tenants"),
        ("po.metrics.k8s.io", None),
        ("pods.metrics.k8s.io", "metrics.k8s.io/v1beta1/pods"),
    ],
)
def test_names_of_kinds(server: KubernetesServer, connect: Reader, word: str, scope: str | None) -> None:
    """A kind is named as in an API path, with its group, or alone."""
    connector = connect(server, resources=[word])
    if scope is None:
        with pytest.raises(Misconfigured):
            scopes(connector)
    else:
        assert scopes(connector)[-2:] == [scope, CLUSTER]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("deploymnets", 'did you mean "deployments"?'),
        ("deploymnets.apps", 'did you mean "deployments.apps"?'),
        ("deployments.app", 'did you mean "deployments.apps"?'),
        ("apps/v2/deployments", 'did you mean "apps/v1/deployments"?'),
        ("v1/deployments", 'deployments"?'),
        ("apps/v1/deployments/status", 'did you mean "apps/v1/deployments"?'),
        ("pods/log", 'did you mean "pods"?'),
        ("zzzzzzzz", "deployments.apps"),
    ],
)
def test_a_kind_that_is_not_there_is_told_with_what_is_near(
    server: KubernetesServer, connect: Reader, word: str, hint: str
) -> None:
    """Where the group is known, though another one is down."""
    if "." in word or "/" in word:
        server.down = {"metrics.k8s.io"}
    with pytest.raises(Misconfigured) as caught:
        scopes(connect(server, resources=["namespaces", word]))
    assert f'"{word}"' in caught.value.message
    assert hint in caught.value.remedy


def test_a_name_of_several_kinds_is_asked_back(server: KubernetesServer, connect: Reader) -> None:
    """Which is meant cannot be guessed."""
    with pytest.raises(Misconfigured, match=r"databases\.acme\.example, databases\.other\.example"):
        scopes(connect(server, resources=["databases"]))


def test_of_one_name_kubernetes_own_kind_comes_first(server: KubernetesServer, connect: Reader) -> None:
    """A custom resource of the same name takes nobody's place."""
    from tests.servers.kubernetes import Served

    server.kinds += [
        Served("evil.example", "v1", "pods", "Pod"),
        Served("evil.example", "v1", "deployments", "Deployment"),
    ]
    found = scopes(connect(server, resources=["pods", "deployments"]))
    assert PODS in found
    assert DEPLOYMENTS in found
    assert not [s for s in found if s.startswith("evil")]


def test_what_cannot_be_listed_is_refused(server: KubernetesServer, connect: Reader) -> None:
    """A review is no object."""
    with pytest.raises(Misconfigured, match="cannot be listed"):
        scopes(connect(server, resources=["selfsubjectaccessreviews"]))


def test_one_kind_in_two_versions_is_refused(server: KubernetesServer, connect: Reader) -> None:
    """The same objects would have two ids; the same version twice is one scope."""
    with pytest.raises(Misconfigured, match="are the same objects"):
        scopes(connect(server, resources=["acme.example/v1/databases", "acme.example/v1beta1/databases"]))
    assert scopes(connect(server, resources=["deploy", "deployments.apps"])) == [DEPLOYMENTS, CLUSTER]


def test_an_aggregated_server_that_is_down_stops_only_what_it_serves(server: KubernetesServer, connect: Reader) -> None:
    """Nothing is asked of it for other kinds; for its own, or one that nobody has, its failure is told."""
    server.down = {"metrics.k8s.io"}
    assert scopes(connect(server, resources=["deploy", "tenants"]))
    for word in ("pods.metrics.k8s.io", "nosuchkind"):
        with pytest.raises(ServerFault, match="metrics"):
            scopes(connect(server, resources=[word]))


def test_a_version_that_lost_its_resources_is_not_passed_over(server: KubernetesServer, connect: Reader) -> None:
    """The kind in another version has other ids: an empty list of what is served is none to believe."""
    with server.broken("/apis/acme.example/v1", 1, Answer(empty=True)), pytest.raises(Incomplete, match="no resources"):
        scopes(connect(server, resources=["databases.acme.example"]))


def test_only_the_groups_that_are_named_are_asked_for(server: KubernetesServer, connect: Reader) -> None:
    """A large cluster has a hundred."""
    scopes(connect(server))
    assert [path for _, path, _ in server.requests] == ["/api", "/apis", "/api/v1", "/apis/apps/v1", "/apis/batch/v1"]


def test_who_lists_pods_lists_their_controllers_before_whom_they_are_read(
    server: KubernetesServer, connect: Reader
) -> None:
    """A controller may have the nearer tag; and one that is read after all that it controls is there for each."""
    assert scopes(connect(server, resources=["namespaces", "pods"])) == [
        PODS,
        "apps/v1/replicasets",
        "batch/v1/jobs",
        "apps/v1/statefulsets",
        "apps/v1/daemonsets",
        "v1/replicationcontrollers",
        DEPLOYMENTS,
        "batch/v1/cronjobs",
        NS,
        CLUSTER,
    ]


def test_custom_kinds_are_read_after_what_they_may_control(server: KubernetesServer, connect: Reader) -> None:
    """Whatever their order in the options."""
    found = scopes(connect(server, resources=["namespaces", "databases.acme.example", "deployments"]))
    assert found == [DEPLOYMENTS, "acme.example/v1/databases", NS, CLUSTER]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cluster", ""),
        ("cluster", "a/b"),
        ("cluster", "-a"),
        ("cluster", "a b"),
        ("cluster", "x" * 254),
        ("cluster", None),
        ("resources", []),
        ("resources", ["a b"]),
        ("resources", ["a?b"]),
        ("endpoint", "http://k8s.acme.example"),
    ],
)
def test_options_that_are_refused(option: str, value: Any) -> None:
    """Ids and paths are made of them."""
    with pytest.raises(ValidationError):
        KubernetesOptions.model_validate({"cluster": "prod", option: value})


# ── changes ──


def test_a_watch_has_its_limits(server: KubernetesServer, connect: Reader) -> None:
    """It asks for bookmarks, and to be ended by the server."""
    connector = connect(server)
    since = bookmark(connector.read(DEPLOYMENTS))
    list(connector.changes(DEPLOYMENTS, since))
    watch = asked(server, LIST)[-1]
    assert watch == {
        "watch": "true",
        "timeoutSeconds": "5",
        "allowWatchBookmarks": "true",
        "resourceVersion": since.partition("/")[2],
    }
    assert server.headers[-1]["accept"].startswith("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,")


def test_a_bookmark_moves_on_where_nothing_happens(server: KubernetesServer, connect: Reader) -> None:
    """Else the server would forget it, while only others' objects change."""
    connector = connect(server)
    since = bookmark(connector.read(NS))
    server.put("apps/v1", "Deployment", "z", "pay")
    after = list(connector.changes(NS, since))
    assert [type(r) for r in after] == [Bookmark]
    assert bookmark(iter(after)) == f"{since.partition('/')[0]}/{server.rv}"


def test_the_last_event_is_where_it_goes_on(server: KubernetesServer, connect: Reader) -> None:
    """A server that sends no bookmarks is followed, too."""
    server.bookmarks = False
    connector = connect(server)
    since = bookmark(connector.read(DEPLOYMENTS))
    server.put("apps/v1", "Deployment", "f", "pay")
    server.delete("apps/v1", "Deployment", "f", "pay")
    last = server.rv
    server.put("v1", "Namespace", "other")
    told = list(connector.changes(DEPLOYMENTS, since))
    assert [type(r) for r in told] == [Resource, Gone, Bookmark]
    assert bookmark(iter(told)).endswith(f"/{last}")


def test_a_watch_without_a_word_proves_nothing(server: KubernetesServer, connect: Reader) -> None:
    """Some servers end one from a forgotten state so: https://github.com/kubernetes/kubernetes/issues/137089."""
    server.bookmarks = False
    connector = connect(server)
    since = bookmark(connector.read(DEPLOYMENTS))
    with pytest.raises(StaleBookmark, match="told nothing"):
        list(connector.changes(DEPLOYMENTS, since))


@pytest.mark.parametrize("as_event", [True, False])
def test_a_forgotten_version_is_stale(server: KubernetesServer, connect: Reader, as_event: bool) -> None:
    """The 410 comes as a status, or as an event inside of a success."""
    server.gone_as_event = as_event
    connector = connect(server)
    since = bookmark(connector.read(DEPLOYMENTS))
    server.compact()
    with pytest.raises(StaleBookmark, match="410"):
        list(connector.changes(DEPLOYMENTS, since))


def test_a_server_put_back_to_a_backup_is_read_whole(server: KubernetesServer, connect: Reader) -> None:
    """Its versions are below ours: it would tell nothing until they have come up to it."""
    connector = connect(server)
    since = bookmark(connector.read(DEPLOYMENTS))
    server.rv -= 2
    with pytest.raises(StaleBookmark, match="is before"):
        list(connector.changes(DEPLOYMENTS, since))


def test_another_cluster_under_the_same_address_is_read_whole(server: KubernetesServer, connect: Reader) -> None:
    """Its changes are none of the old one's; it is told by the uid of kube-system."""
    since = bookmark(connect(server).read(DEPLOYMENTS))
    server.delete("v1", "Namespace", "kube-system")
    server.put("v1", "Namespace", "kube-system")
    with pytest.raises(StaleBookmark, match="another cluster"):
        list(connect(server).changes(DEPLOYMENTS, since))


def test_where_namespaces_may_not_be_seen_changes_are_followed_all_the_same(
    server: KubernetesServer, connect: Reader
) -> None:
    """Then nothing tells one cluster from another."""
    server.denied = {("list", "namespaces")}
    connector = connect(server, resources=["deployments"])
    since = bookmark(connector.read(DEPLOYMENTS))
    assert since.startswith("/")
    server.put("apps/v1", "Deployment", "f", "pay")
    assert len(rows(connector.changes(DEPLOYMENTS, since))) == 1


@pytest.mark.parametrize("token", ["", "x", "1", "{uid}/", "{uid}/abc", "{uid}/-1", "{uid}/1/2"])
def test_a_bookmark_that_is_none_is_stale(server: KubernetesServer, connect: Reader, token: str) -> None:
    """Whatever was stored."""
    connector = connect(server)
    uid = bookmark(connector.read(DEPLOYMENTS)).partition("/")[0]
    with pytest.raises(StaleBookmark):
        list(connector.changes(DEPLOYMENTS, token.format(uid=uid)))


def test_what_may_be_listed_and_not_watched_is_read_whole_each_time(server: KubernetesServer, connect: Reader) -> None:
    """No bookmark, since no watch would be allowed."""
    server.denied = {("watch", "deployments.apps")}
    connector = connect(server)
    assert {type(r) for r in connector.read(DEPLOYMENTS)} == {Resource}
    assert Bookmark in {type(r) for r in connector.read(NS)}


def test_where_nobody_tells_what_is_allowed_the_watch_is_tried(server: KubernetesServer, connect: Reader) -> None:
    """And its refusal leads to a whole read."""
    server.reviews = False
    server.denied = {("watch", "deployments.apps")}
    connector = connect(server)
    since = bookmark(connector.read(DEPLOYMENTS))
    with pytest.raises(StaleBookmark, match="cannot watch"):
        list(connector.changes(DEPLOYMENTS, since))


def test_what_may_no_longer_be_listed_is_a_failure(server: KubernetesServer, connect: Reader) -> None:
    """Not a stale bookmark: a whole read would say the same."""
    connector = connect(server)
    since = bookmark(connector.read(DEPLOYMENTS))
    server.denied = {("list", "deployments.apps")}
    with pytest.raises(Forbidden) as caught:
        list(connector.changes(DEPLOYMENTS, since))
    assert caught.value.permission == "list deployments.apps"


def test_a_watch_cut_short_fails(server: KubernetesServer, connect: Reader) -> None:
    """Between pieces of an event, and where the stream has no end."""
    connector = connect(server)
    since = bookmark(connector.read(DEPLOYMENTS))
    server.put("apps/v1", "Deployment", "f", "pay")
    with server.broken(LIST, 0, Answer(cut=True)), pytest.raises(ServerFault):
        list(connector.changes(DEPLOYMENTS, since))
    assert len(rows(connector.changes(DEPLOYMENTS, since))) == 1


def test_a_watch_that_falls_silent_is_ended(
    server: KubernetesServer, connect: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is half open tells nothing, for ever."""
    since = bookmark(connect(server).read(DEPLOYMENTS))
    server.put("apps/v1", "Deployment", "f", "pay")
    monkeypatch.setattr(connectors.kubernetes, "WATCH", 0)
    with server.broken(LIST, 0, Answer(half=True)), pytest.raises(Unreachable, match=r"no answer in 0\.5 s"):
        list(connect(server, timeout="500ms").changes(DEPLOYMENTS, since))


def event(kind: Any, thing: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["events"].insert(0, {"type": kind, "object": thing})


@pytest.mark.parametrize(
    ("kind", "thing", "error"),
    [
        ("ERROR", Problem(500, "etcd has gone").status, ServerFault),
        ("ERROR", Problem(429, "slower").status, Throttled),
        ("ERROR", Problem(403, "no more").status, StaleBookmark),
        ("ERROR", {}, ServerFault),
        ("RENAMED", {"metadata": {"resourceVersion": "5", "name": "a", "namespace": "b"}}, BadData),
        (7, {}, BadData),
        ("ADDED", [], BadData),
        ("ADDED", {}, ServerFault),
        ("ADDED", {"metadata": {"resourceVersion": "5"}}, BadData),
        ("ADDED", {"metadata": {"name": "a", "namespace": "b"}}, ServerFault),
    ],
)
def test_odd_events_are_errors(
    server: KubernetesServer, connect: Reader, kind: Any, thing: Any, error: type[ConnectorError]
) -> None:
    """None of them is passed over."""
    connector = connect(server)
    since = bookmark(connector.read(DEPLOYMENTS))
    with server.broken(LIST, 0, Answer(change=event(kind, thing), right=True)), pytest.raises(error):
        list(connector.changes(DEPLOYMENTS, since))


# ── credentials ──


def test_the_clients_global_configuration_stays_as_it_is(server: KubernetesServer, connect: Reader) -> None:
    """Other clusters are read by the same process's other connectors."""
    from kubernetes.client import Configuration

    list(connect(server).read(NS))
    assert Configuration._default is None


def test_a_token_that_ends_in_the_middle_is_read_again(
    server: KubernetesServer, connect: Reader, tmp_path: Path
) -> None:
    """From its file, which the kubelet or a vault's agent writes."""
    file = tmp_path / "token"
    file.write_text("first\n")
    server.uses = {"first": 7, "second": 100}
    connector = connect(server, kubeconfig(server, tokenFile="token"))
    assert len(scopes(connector)) == 6
    file.write_text("second\n")
    assert names(connector.read(DEPLOYMENTS)) == "abcde"
    assert server.uses["first"] < 0
    assert server.uses["second"] < 100


def test_a_token_that_ended_for_good_is_unauthenticated(server: KubernetesServer, connect: Reader) -> None:
    """Renewed once, and refused again; asked no more."""
    server.uses = {"short": 7}
    connector = connect(server, kubeconfig(server, token="short"))
    scopes(connector)
    with pytest.raises(Unauthenticated) as caught:
        list(connector.read(DEPLOYMENTS))
    assert "short" not in str(caught.value)
    assert len(asked(server, LIST)) == 4  # two pages, and the third twice


def test_a_token_that_never_worked_is_not_renewed(server: KubernetesServer, connect: Reader) -> None:
    """One request tells."""
    with pytest.raises(Unauthenticated):
        scopes(connect(server, kubeconfig(server, token="wrong")))
    assert len(server.requests) == 1


def pod_files(monkeypatch: pytest.MonkeyPatch, server: KubernetesServer, folder: Path) -> Path:
    """What a pod has: variables, a token, an authority."""
    from kubernetes.config import incluster_config

    token = folder / "pod-token"
    token.write_text(server.token + "\n")
    host, _, port = server.url.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", server.ca_file)
    return token


def test_in_a_pod_the_service_account_is_used(
    server: KubernetesServer, connect: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And its token read again when it has been replaced."""
    token = pod_files(monkeypatch, server, tmp_path)
    connector = connect.with_options()
    assert names(connector.read(DEPLOYMENTS)) == "abcde"
    server.token = "another"
    token.write_text("another")
    assert names(connector.read(DEPLOYMENTS)) == "abcde"


def test_outside_of_a_pod_there_is_no_service_account(connect: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to set is told."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Misconfigured, match="in-cluster") as caught:
        scopes(connect.with_options())
    assert "`kubeconfig`" in caught.value.remedy


def client_certificate(server: KubernetesServer, folder: Path) -> tuple[Path, Path]:
    issued = server.authority.issue_cert("ownerd.acme.example", common_name="ownerd")
    certificate, key = folder / "client.pem", folder / "client.key"
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return certificate, key


def test_client_certificates_as_files_beside_the_kubeconfig(
    server: KubernetesServer, connect: Reader, tmp_path: Path
) -> None:
    """Relative paths start from the kubeconfig's folder."""
    client_certificate(server, tmp_path)
    config = kubeconfig(server, **{"client-certificate": "client.pem", "client-key": "client.key"})
    assert names(connect(server, config).read(DEPLOYMENTS)) == "abcde"


def test_client_certificates_inside_the_kubeconfig_leave_no_key_behind(
    server: KubernetesServer, connect: Reader, tmp_path: Path
) -> None:
    """OpenSSL wants files: they are ours alone, and gone at the end."""
    data = [base64.b64encode(p.read_bytes()).decode() for p in client_certificate(server, tmp_path)]
    config = kubeconfig(server, **dict(zip(("client-certificate-data", "client-key-data"), data, strict=True)))
    connector = connect(server, config)
    assert names(connector.read(DEPLOYMENTS)) == "abcde"
    assert connector._server._folder
    folder = Path(connector._server._folder.name)
    keys = [p for p in folder.rglob("*") if p.is_file()]
    assert keys
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in keys)
    connector.close()
    assert not folder.exists()


def test_a_key_with_a_passphrase_is_refused_at_once(server: KubernetesServer, connect: Reader, tmp_path: Path) -> None:
    """OpenSSL would ask the terminal for it, and wait."""
    from cryptography.hazmat.primitives import serialization

    _, key = client_certificate(server, tmp_path)
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    how = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, form, how))
    config = kubeconfig(server, **{"client-certificate": "client.pem", "client-key": "client.key"})
    with pytest.raises(Misconfigured, match="passphrase"):
        scopes(connect(server, config))


def plugin(folder: Path, body: str, api: str = "client.authentication.k8s.io/v1", **more: Any) -> dict[str, Any]:
    """A user whose credentials a small program prints."""
    script = folder / "plugin"
    script.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{body}\n")
    script.chmod(0o755)
    return {"exec": {"apiVersion": api, "command": "./plugin", "args": ["get-token"], **more}}


def says(status: dict[str, Any], api: str = "client.authentication.k8s.io/v1") -> str:
    return f"print(json.dumps({ {'apiVersion': api, 'kind': 'ExecCredential', 'status': status}!r}))"


def test_an_exec_plugin_gives_the_token(server: KubernetesServer, connect: Reader, tmp_path: Path) -> None:
    """As `aws eks get-token` does; again, when that has ended."""
    (tmp_path / "count").write_text("")
    body = (
        f"open({str(tmp_path / 'count')!r}, 'a').write('x')\n"
        "assert sys.argv[1:] == ['get-token'] and os.environ['FOR'] == 'me'\n"
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        f"assert info['spec']['cluster']['server'] == {server.url!r} and info['spec']['interactive'] is False\n"
        f"token = 'one' if open({str(tmp_path / 'count')!r}).read() == 'x' else 'two'\n"
        "print(json.dumps({'apiVersion': info['apiVersion'], 'kind': 'ExecCredential', 'status': {'token': token}}))"
    )
    server.uses = {"one": 7, "two": 100}
    user = plugin(tmp_path, body, provideClusterInfo=True, env=[{"name": "FOR", "value": "me"}])
    connector = connect(server, kubeconfig(server, **user))
    scopes(connector)
    assert names(connector.read(DEPLOYMENTS)) == "abcde"
    assert (tmp_path / "count").read_text() == "xx"


def test_an_exec_plugin_gives_a_certificate(server: KubernetesServer, connect: Reader, tmp_path: Path) -> None:
    """And its key."""
    certificate, key = (p.read_text() for p in client_certificate(server, tmp_path))
    user = plugin(tmp_path, says({"clientCertificateData": certificate, "clientKeyData": key}))
    assert names(connect(server, kubeconfig(server, **user)).read(DEPLOYMENTS)) == "abcde"


@pytest.mark.parametrize(
    ("body", "error", "told"),
    [
        (
            "sys.stderr.write('\\nUnable to locate credentials\\nTraceback\\n'); sys.exit(253)",
            Unauthenticated,
            "ended with 253: Unable to locate credentials",
        ),
        ("print('secret-nonsense')", Misconfigured, "no ExecCredential"),
        ("print(json.dumps(['secret-nonsense']))", Misconfigured, "no ExecCredential"),
        (
            says({"token": "secret-nonsense"}, "client.authentication.k8s.io/v1beta1"),
            Misconfigured,
            "no ExecCredential of",
        ),
        (says({}), Unauthenticated, "no credentials"),
        (says({"token": ""}), Unauthenticated, "no credentials"),
        (says({"clientCertificateData": "x"}), Unauthenticated, "no credentials"),
        (says({"token": "secret-nonsense\nx"}), Misconfigured, "cannot be sent"),
        (says({"clientCertificateData": "x", "clientKeyData": "secret-nonsense"}), Misconfigured, "client certificate"),
    ],
)
def test_an_exec_plugin_that_fails(
    server: KubernetesServer, connect: Reader, tmp_path: Path, body: str, error: type[ConnectorError], told: str
) -> None:
    """Nothing is asked of the server then, as nobody; what the plugin printed is shown to nobody."""
    with pytest.raises(error) as caught:
        scopes(connect(server, kubeconfig(server, **plugin(tmp_path, body))))
    assert told in caught.value.message
    assert "Traceback" not in caught.value.message
    assert "secret-nonsense" not in f"{caught.value} {caught.value.__cause__}"
    assert server.requests == []


def test_an_exec_plugin_that_hangs_is_stopped_with_all_that_it_started(
    server: KubernetesServer, connect: Reader, tmp_path: Path
) -> None:
    """A child that holds its output would keep it open."""
    child = tmp_path / "child"
    body = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(child)!r}, 'w').write(str(child.pid))\n"
        "child.wait()"
    )
    with pytest.raises(Unauthenticated, match="was stopped after"):
        scopes(connect(server, kubeconfig(server, **plugin(tmp_path, body)), timeout="2s"))
    pid = int(child.read_text())
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        state = "Z"
    assert state in "ZX"


@pytest.mark.parametrize(
    ("spec", "told", "remedy"),
    [
        ({"command": "no-such-plugin", "installHint": "apt install it"}, "is not there", "apt install it"),
        ({"command": "no-such-plugin"}, "is not there", "PATH"),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "apiVersion", ""),
        ({"command": None}, "wants a command", ""),
        ({"interactiveMode": "Always"}, "wants a terminal", ""),
    ],
)
def test_an_exec_plugin_that_cannot_be_run(
    server: KubernetesServer, connect: Reader, tmp_path: Path, spec: dict[str, Any], told: str, remedy: str
) -> None:
    """What is wrong, and what to do."""
    user = plugin(tmp_path, "")
    user["exec"] |= spec
    with pytest.raises(Misconfigured, match=told) as caught:
        scopes(connect(server, kubeconfig(server, **user)))
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ({"auth-provider": {"name": "oidc", "config": {"id-token": "hunter2"}}}, "auth-provider"),
        ({"token": "hunter2", "as": "admin"}, "impersonation"),
        ({"token": "hunter2", "as-groups": ["system:masters"]}, "impersonation"),
        ({"token": "hunter2\nX-Evil: 1"}, "cannot be sent"),
        ({"tokenFile": "nowhere"}, "nowhere: No such file"),
        ({"client-certificate": "nowhere", "client-key": "nowhere"}, "nowhere"),
        ({"client-certificate-data": "hunter2!", "client-key-data": "hunter2!"}, "not base64|client certificate"),
    ],
)
def test_users_that_are_refused(server: KubernetesServer, connect: Reader, user: dict[str, Any], told: str) -> None:
    """Never passed over, and never shown."""
    with pytest.raises(Misconfigured, match=told) as caught:
        scopes(connect(server, kubeconfig(server, **user)))
    assert "hunter2" not in f"{caught.value} {caught.value.remedy} {caught.value.__cause__}"
    assert server.requests == []


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ({"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify"),
        ({"server": "http://k8s.acme.example"}, "https"),
        ({"server": "k8s.acme.example"}, "https"),
        ({"certificate-authority": "/nowhere"}, "/nowhere"),
        ({"certificate-authority": None, "certificate-authority-data": "bm8="}, "PEM|certificate"),
        ({"proxy-url": "socks5://127.0.0.1:1"}, "proxy"),
    ],
)
def test_clusters_that_are_refused(
    server: KubernetesServer, connect: Reader, cluster: dict[str, Any], told: str
) -> None:
    """TLS is always verified."""
    config = kubeconfig(server)
    content = config["clusters"][0]["cluster"] | cluster
    config["clusters"][0]["cluster"] = {k: v for k, v in content.items() if v is not None}
    with pytest.raises(Misconfigured, match=told):
        scopes(connect(server, config))
    assert server.requests == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no kubeconfig"),
        ("- a", "is no kubeconfig"),
        ("users:\n- name: 'secret", "not YAML, line 2"),
        ("\x80abc", "not YAML"),
        ("{}", "no context is chosen"),
        ("current-context: main", 'no context "main"'),
        ("current-context: main\ncontexts: {}", 'no context "main"'),
        ("current-context: main\ncontexts: [{name: main, context: {cluster: c}}]", 'no cluster "c"'),
        ("current-context: main\ncontexts: [{name: main, context: {}}]", "no cluster is chosen"),
        (
            "current-context: main\ncontexts: [{name: main, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: 'https://x'}}]",
            'no user "u"',
        ),
    ],
)
def test_kubeconfigs_that_are_none(connect: Reader, tmp_path: Path, text: str, told: str) -> None:
    """Where and what is told, and nothing of what is in it."""
    file = tmp_path / "kubeconfig"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(Misconfigured, match=told) as caught:
        scopes(connect.with_options(kubeconfig=str(file)))
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"


def test_a_context_that_is_not_there(server: KubernetesServer, connect: Reader, tmp_path: Path) -> None:
    """Those that are there are told; and a file that is not is told by its path."""
    with pytest.raises(Misconfigured) as caught:
        scopes(connect(server, context="mian"))
    assert "it has: main" in caught.value.remedy
    with pytest.raises(Misconfigured, match="nowhere: No such file"):
        scopes(connect.with_options(kubeconfig=str(tmp_path / "nowhere")))


def test_a_context_alone_is_looked_for_where_kubectl_does(
    server: KubernetesServer, connect: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$KUBECONFIG may name several files: of one name, the first that has it counts."""
    first, second = tmp_path / "a" / "one", tmp_path / "b" / "two"
    for file in (first, second):
        file.parent.mkdir()
    whole = kubeconfig(server, tokenFile="token")
    (second.parent / "token").write_text(server.token)
    second.write_text(json.dumps({**whole, "clusters": [{"name": "c", "cluster": {"server": "https://wrong"}}]}))
    first.write_text(json.dumps({"clusters": whole["clusters"], "users": None}))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, ["/nowhere", first, second])))
    assert names(connect.with_options(context="main").read(DEPLOYMENTS)) == "abcde"
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(Misconfigured, match="no such file: /nowhere"):
        scopes(connect.with_options(context="main"))


def test_the_options_come_before_the_kubeconfig(server: KubernetesServer, connect: Reader) -> None:
    """Where requests go, and whom to trust."""
    config = kubeconfig(server)
    config["clusters"][0]["cluster"] = {"server": "https://127.0.0.1:1"}
    connector = connect(server, config, endpoint=f"{server.url}/", ca_file=server.ca_file)
    assert names(connector.read(DEPLOYMENTS)) == "abcde"


def test_a_path_before_the_api_is_kept(server: KubernetesServer, connect: Reader) -> None:
    """As a gateway in front of several clusters has: /k8s/clusters/c-1."""
    with pytest.raises(ConnectorError):
        scopes(connect(server, endpoint=f"{server.url}/k8s/clusters/c-1"))
    assert server.requests[0][1] == "/k8s/clusters/c-1/api"


def test_an_unknown_authority_is_told(server: KubernetesServer, connect: Reader) -> None:
    """And what to set."""
    config = kubeconfig(server)
    del config["clusters"][0]["cluster"]["certificate-authority"]
    with pytest.raises(Unreachable, match="TLS") as caught:
        scopes(connect(server, config))
    assert "`ca_file`" in caught.value.remedy


class Elsewhere:
    """A host that writes down what it is sent: the target of a redirect, or a proxy."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.requestline, dict(self.headers.items())))
                self.send_error(407)

            do_CONNECT = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_follows_no_redirect(server: KubernetesServer, connect: Reader, status: int) -> None:
    """It would be sent elsewhere."""
    with closing(Elsewhere()) as other:
        where = Answer(status, headers={"Location": f"{other.url}/apis/apps/v1/deployments"})
        with server.broken(LIST, 1, where), pytest.raises(BadData, match="redirect"):
            list(connect(server).read(DEPLOYMENTS))
        assert other.asked == []


def test_a_proxy_is_used(server: KubernetesServer, connect: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option's, with its password, which no message tells; else the environment's."""
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with closing(Elsewhere()) as proxy:
        told = proxy.url.replace("//", "//me:secret@")
        monkeypatch.setenv("no_proxy", "127.0.0.1")  # the option counts all the same
        with pytest.raises(Unreachable, match="proxy") as caught:
            scopes(connect(server, proxy=told))
        assert "secret" not in f"{caught.value} {caught.value.__cause__}"
        line, headers = proxy.asked[0]
        assert line.startswith("CONNECT 127.0.0.1:")
        assert headers["proxy-authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()
        assert server.token not in str(proxy.asked)
        proxy.asked.clear()
        monkeypatch.setenv("https_proxy", proxy.url.removeprefix("http://"))
        assert scopes(connect(server))
        monkeypatch.delenv("no_proxy")
        with pytest.raises(Unreachable, match="proxy"):
            scopes(connect(server))
        assert proxy.asked
    assert server.requests


def test_no_answer_in_time_is_unreachable(connect: Reader, server: KubernetesServer) -> None:
    """A server that accepts and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unreachable, match=r"no answer in 0\.05 s"):
            scopes(connect(server, endpoint=f"https://127.0.0.1:{port}", timeout="50ms"))


# ── check ──


def checks(connector: Kubernetes) -> dict[str, Check]:
    return {check.what: check for check in connector.check()}


def test_check_names_the_verb_that_is_missing(server: KubernetesServer, connect: Reader) -> None:
    """In RBAC's words; the other kinds are checked, too."""
    server.denied = {("list", "deployments.apps"), ("watch", "namespaces")}
    found = checks(connect(server))
    refused = found["list apps/v1/deployments"]
    assert not refused.ok
    assert "list deployments.apps" in refused.detail
    assert "ClusterRole" in refused.remedy
    assert found["list v1/namespaces"].ok
    assert found["watch v1/namespaces"].ok
    assert "watch on namespaces is missing" in found["watch v1/namespaces"].detail
    assert [what for what, check in found.items() if not check.ok] == ["list apps/v1/deployments"]


def test_check_tells_the_server(server: KubernetesServer, connect: Reader) -> None:
    """And what is readable, and empty."""
    found = checks(connect(server))
    assert found["reach k8s://prod"].detail == "Kubernetes v1.36.1"
    assert found["list apps/v1/statefulsets"].detail == "readable, and empty"
    assert all(check.ok for check in found.values())


def test_check_names_controllers_that_are_not_listed(server: KubernetesServer, connect: Reader) -> None:
    """Their tags do not count, and the namespace's do: coverage is shown, never assumed."""
    server.put("apps/v1", "StatefulSet", "a", "pay", owner=("argoproj.io/v1alpha1", "Rollout", "r"))
    server.put("apps/v1", "StatefulSet", "b", "pay", owner=("v1", "Node", "n"))
    told = checks(connect(server))["parents of apps/v1/statefulsets"]
    assert told.ok
    assert told.detail.endswith(": 1 by Rollout.argoproj.io")
    listed = checks(connect(server, resources=["statefulsets.apps", "rollouts.argoproj.io"]))
    assert "parents of apps/v1/statefulsets" not in listed


# ── the server ──


def test_the_servers_documents_are_kubernetes_own(server: KubernetesServer) -> None:
    """Each fits the model of Kubernetes' API description that ships in the `kubernetes` package."""
    import urllib.request
    from ssl import create_default_context
    from urllib.error import HTTPError

    from kubernetes import client

    trust = create_default_context(cafile=server.ca_file)

    def get(path: str, accept: str = "application/json", body: Any = None, token: str = server.token) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Accept": accept, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(server.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, context=trust) as answer:
                text = answer.read()
        except HTTPError as error:
            with error:
                return json.load(error)
        return [json.loads(line) for line in text.splitlines()] if "watch" in path else json.loads(text)

    api: Any = client.ApiClient()

    def fits(model: Any, document: Any) -> Any:
        made = model.from_dict(document)
        plain = api.sanitize_for_serialization(made)
        kept = json.loads(json.dumps(plain).replace("+00:00", "Z"))
        assert _without_empty(kept) == _without_empty(document), model.__name__
        return made

    fits(client.V1APIVersions, get("/api"))
    fits(client.V1APIGroupList, get("/apis"))
    for path in ("/api/v1", "/apis/apps/v1", "/apis/metrics.k8s.io/v1beta1"):
        assert fits(client.V1APIResourceList, get(path)).resources
    fits(client.VersionInfo, get("/version"))
    server.put("apps/v1", "Deployment", "f", "pay", annotations={"a": "б"}, owner=("v1", "ConfigMap", "x"))
    as_list = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    listed = get(f"{LIST}?limit=5", as_list)
    fits(client.V1ListMeta, listed["metadata"])
    assert listed["metadata"]["continue"]
    assert len(listed["items"]) == 5
    for item in listed["items"]:
        fits(client.V1ObjectMeta, item["metadata"])
    watched = get(f"{LIST}?watch=true&resourceVersion={server.rv - 1}&timeoutSeconds=5&allowWatchBookmarks=true")
    assert [e["type"] for e in watched] == ["ADDED", "BOOKMARK"]
    for each in watched:
        client.V1WatchEvent.from_dict(each)
        client.V1ObjectMeta.from_dict(each["object"]["metadata"])
    spec = {"resourceAttributes": {"verb": "list", "group": "apps", "resource": "deployments"}}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
    reviewed = get("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
    assert fits(client.V1SelfSubjectAccessReview, reviewed).status.allowed is True
    server.compact()
    for failed in (
        get(f"{LIST}?limit=5&continue={listed['metadata']['continue']}"),
        get("/apis/apps/v1/nosuch"),
        get("/api", token="wrong"),
    ):
        assert fits(client.V1Status, failed).code in {401, 404, 410}


def _without_empty(document: Any) -> Any:
    """Models leave out what is empty or null."""
    if isinstance(document, dict):
        kept = {key: _without_empty(value) for key, value in document.items()}
        return {key: value for key, value in kept.items() if value not in (None, {}, [], "")}
    if isinstance(document, list):
        return [_without_empty(x) for x in document]
    return document
