"""The socket: every call of the contract, over a real server on a real Unix socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from connectors.errors import Forbidden, Unreachable
from connectors.values import Gap, Record
from daemon.pipeline import Store
from tests.harness import Clock, World, configuration, group, integration, members, owned_by, resource, team, user
from tests.serving import serving
from tests.unixhttp import Answer, call, get

PEOPLE: list[Record] = [
    *team("team-a", "ada"),
    *team("platform", "pia"),
    group("outer", "Outer"),
    members("outer", "g:[team-a]", "bob", "zed", "g:outer"),
    user("bob", "Bob", email="bob@x.org"),
    user("zed", active=False),
]


class Served(World):
    """A world with a server beside it."""

    def __init__(self, folder: Path, document: dict[str, Any]) -> None:
        super().__init__(folder, document)
        self.socket = folder / "ownerd.sock"

    def get(self, page: str, headers: dict[str, str] | None = None, **query: Any) -> Answer:
        return get(self.socket, page, headers, **query)

    def owner(self, rid: str, **query: Any) -> Answer:
        return self.get("/v1/owner", resource=rid, **query)

    def pages(self, page: str, name: str, **query: Any) -> list[Any]:
        """A whole list, page by page."""
        found: list[Any] = []
        cursor: dict[str, Any] = {}
        while True:
            answer = self.get(page, **query, **cursor).json
            assert answer.keys() == {name, "next"}
            assert len(answer[name]) <= query.get("limit", 100)
            found += answer[name]
            if answer["next"] is None:
                return found
            cursor = {"after" if name == "changes" else "cursor": answer["next"]}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Served]:
    document = configuration(integration("aws"), integration("gcp", owned_by("team")))
    world = Served(tmp_path, document)
    with serving(world.store.path, world.socket, world.clock):
        yield world
    world.close()


@pytest.fixture
def filled(world: Served) -> Served:
    world.run("corp", *PEOPLE)
    rows = [resource(f"r{i:02}", "team-a" if i % 3 else "nobody") for i in range(20)]
    world.run("aws", *rows, resource("out", "outer"), resource("vm", type="x"), resource("disk", parent="out"))
    world.run("gcp", resource("g1", team="Outer"))
    return world


def test_the_answer_has_the_shape_of_the_contract(filled: Served) -> None:
    answer = filled.owner("disk")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {
        "resource": {"id": "disk", "integration": "aws", "type": "", "name": "", "parent": "out"},
        "owners": [{"kind": "group", "directory": "corp", "id": "outer", "name": "Outer"}],
        "source": "inherited",
        "fallback": False,
        "reason": None,
        "tag": {"key": "owner", "value": "outer", "resource": "out"},
        "changed_at": "2023-11-14T22:13:20Z",
        "resource_seen_at": "2023-11-14T22:13:20Z",
        "owners_seen_at": "2023-11-14T22:13:20Z",
        "stale": False,
    }
    assert list(answer.json) == [
        "resource",
        "owners",
        "source",
        "fallback",
        "reason",
        "tag",
        "changed_at",
        "resource_seen_at",
        "owners_seen_at",
        "stale",
    ]


def test_a_fallback_says_so(filled: Served) -> None:
    answer = filled.owner("r00").json
    assert (answer["source"], answer["fallback"], answer["reason"]) == ("integration", True, "value_unknown")
    assert [o["name"] for o in answer["owners"]] == ["platform"]
    assert filled.owner("vm").json["tag"] is None


def test_members_are_active_and_flattened(filled: Served) -> None:
    answer = filled.owner("out", expand="members").json
    assert answer["owners"][0]["members"] == [
        {"id": "bob", "email": "bob@x.org", "name": "Bob"},
        {"id": "ada", "email": None, "name": "ada"},
    ]


def test_unknown_is_not_unavailable(world: Served) -> None:
    """404 only when every integration that could have it was read whole; 503 before."""
    assert world.owner("nope").problem == "not-yet-known"
    world.run("corp", *PEOPLE)
    world.run_scopes("aws", {"us": [resource("r1", "team-a")], "eu": Forbidden("no")})
    assert world.owner("r1").status == 200
    answer = world.owner("nope")
    assert (answer.status, answer.problem) == (503, "not-yet-known")
    assert [s["name"] for s in answer.json["sources"]] == ["aws", "gcp"]
    assert answer.json["sources"][0]["error"]["code"] == "forbidden"
    assert world.owner("nope", integration="gcp").json["sources"] == [{"name": "gcp", "error": None}]
    world.run_scopes("aws", {"us": [resource("r1", "team-a")], "eu": []})
    assert world.owner("nope", integration="aws").problem == "unknown-resource"
    world.run("gcp")
    answer = world.owner("nope")
    assert (answer.status, answer.problem) == (404, "unknown-resource")
    world.run_scopes("aws", {"us": Unreachable("down"), "eu": Unreachable("down")})
    assert world.owner("nope").problem == "unknown-resource"


def test_a_row_that_waits_has_no_answer_yet(world: Served) -> None:
    world.run("aws", resource("r1", "team-a"))
    answer = world.owner("r1")
    assert (answer.status, answer.problem, answer.json["reason"]) == (503, "not-yet-known", "directory_never_synced")
    rows = world.pages("/v1/resources", "resources", reason="directory_never_synced")
    assert [(r["resource"]["id"], r["owners"]) for r in rows] == [("r1", [])]


def test_a_publish_is_seen_at_once(filled: Served) -> None:
    assert filled.owner("vm").json["fallback"] is True
    filled.run("gcp", resource("vm", team="team-a"), resource("g1"))
    assert filled.owner("vm", integration="gcp").json["owners"][0]["name"] == "team-a"


def test_integrations_that_disagree_are_not_chosen_between(filled: Served) -> None:
    filled.run("gcp", resource("out", team="team-a"), resource("r01", team="team-a"), resource("g1"))
    answer = filled.owner("out")
    assert (answer.status, answer.problem, answer.json["integrations"]) == (409, "ambiguous-resource", ["aws", "gcp"])
    assert filled.owner("out", integration="gcp").json["owners"][0]["name"] == "team-a"
    assert filled.owner("r01").json["resource"]["integration"] == "aws", "they agree: the first one configured"


def test_ages(filled: Served) -> None:
    """Ages follow the polls without a row being rewritten; stale past `stale_after` of either source."""
    filled.clock.now += 1000
    answer = filled.owner("r01").json
    assert (answer["resource_seen_at"], answer["stale"]) == ("2023-11-14T22:13:20Z", False)
    filled.clock.now += 201
    assert filled.owner("r01").json["stale"] is True, "the directory's 20 minutes are over"
    filled.run("corp", *PEOPLE)
    answer = filled.owner("r01").json
    assert (answer["owners_seen_at"], answer["stale"]) == ("2023-11-14T22:33:21Z", False)
    filled.clock.now += 2400
    filled.run("corp", *PEOPLE)
    assert filled.owner("r01").json["stale"] is True, "the integration's hour is over"


@pytest.mark.parametrize(
    ("header", "status"),
    [("max-age=100", 200), ("max-age=99", 503), ("no-cache", 200), ("max-age=0, stale-if-error=100", 200), ('MAX-AGE="1", stale-if-error=98', 503), ("stale-if-error=1", 200), ("max-age=x", 400), ("max-age=-1", 400), ("max-age=²", 400)],
)  # fmt: skip
def test_how_old_an_answer_may_be(filled: Served, header: str, status: int) -> None:
    filled.clock.now += 100
    answer = filled.get("/v1/owner", {"Cache-Control": header.encode().decode("latin-1")}, resource="r01")
    assert answer.status == status
    if status == 503:
        assert answer.problem == "too-old"
        assert answer.json["age"] == 100


def test_many_at_once_in_the_order_asked(filled: Served) -> None:
    answer = call(filled.socket, "POST", "/v1/owners", {"resources": ["r02", "nope", "r00", "r02"]})
    first, second, third, fourth = answer.json["answers"]
    assert (first, third) == (filled.owner("r02").json, filled.owner("r00").json)
    assert second["type"] == "/problems/unknown-resource"
    assert fourth == first
    assert call(filled.socket, "POST", "/v1/owners", {"resources": []}).json == {"answers": []}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"resources": "r1"}', b'{"resources": [1]}', b'{"resources": [""]}', b'{"resources": [], "x": 1}', json.dumps({"resources": ["x"] * 1001}).encode()],
)  # fmt: skip
def test_a_bad_batch(filled: Served, body: bytes) -> None:
    assert call(filled.socket, "POST", "/v1/owners", body).problem == "bad-request"


def test_a_batch_that_is_too_large(filled: Served) -> None:
    answer = call(filled.socket, "POST", "/v1/owners", b'{"resources": ["' + b"x" * 2**23 + b'"]}')
    assert (answer.status, answer.problem) == (413, "too-large")


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_lists_are_whole_page_by_page(filled: Served, limit: int) -> None:
    rows = filled.pages("/v1/resources", "resources", limit=limit)
    assert [r["resource"]["id"] for r in rows] == sorted(filled.answers())
    assert rows[0] == filled.owner(rows[0]["resource"]["id"]).json


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"integration": "gcp"}, ["g1"]),
        ({"owner": "outer"}, ["disk", "g1", "out"]),
        ({"owner": "Outer", "integration": "aws"}, ["disk", "out"]),
        ({"owner": "OUTER"}, ["disk", "g1", "out"]),
        ({"owner": "nobody at all"}, []),
        ({"reason": "tag_missing"}, ["vm"]),
        ({"fallback": "true", "reason": "value_unknown"}, ["r00", "r03", "r06", "r09", "r12", "r15", "r18"]),
        ({"fallback": "1", "integration": "gcp"}, []),
        ({"fallback": "0", "integration": "gcp"}, ["g1"]),
        ({"type": "nothing"}, []),
    ],
)
@pytest.mark.parametrize("limit", [2, 1000])
def test_filters(filled: Served, query: dict[str, str], expected: list[str], limit: int) -> None:
    rows = filled.pages("/v1/resources", "resources", limit=limit, **query)
    assert [r["resource"]["id"] for r in rows] == expected


def test_changes_are_resumable(filled: Served) -> None:
    seen = filled.pages("/v1/changes", "changes", limit=5)
    assert {c["kind"] for c in seen} == {"added"}
    assert len(seen) == 24
    filled.run("gcp", resource("g1", team="team-a"))
    filled.run("gcp", resource("g2", team="team-a"), resource("g1", team="team-a"))
    later = filled.get("/v1/changes", after=seen[-1]["cursor"]).json["changes"]
    assert [(c["kind"], c["resource"]["id"]) for c in later] == [("changed", "g1"), ("added", "g2")]
    assert [o["name"] for o in later[0]["before"]["owners"]] == ["Outer"]
    assert [o["name"] for o in later[0]["after"]["owners"]] == ["team-a"]


def test_drift(filled: Served) -> None:
    filled.clock.now += 50
    filled.run("aws", *[resource(f"r{i:02}", "team-b" if i % 3 else "nobody") for i in range(20)], resource("out", "outer"), resource("vm", type="x"), resource("disk", parent="out"))  # fmt: skip
    assert filled.store.accept("aws")
    (nobody, team_b) = filled.pages("/v1/drift", "findings", limit=1)
    assert nobody == {
        "id": 1,
        "integration": "aws",
        "kind": "value_unknown",
        "key": "owner",
        "value": "nobody",
        "resources": 7,
        "examples": ["r00", "r03", "r06"],
        "suggestions": [],
        "first_seen": "2023-11-14T22:13:20Z",
        "last_seen": "2023-11-14T22:14:10Z",
        "resolved_at": None,
    }
    assert team_b["suggestions"] == ["team-a"]
    filled.run("corp", *PEOPLE, *team("team-b", "ada2"), accept=True)
    resolved = filled.pages("/v1/drift", "findings", state="resolved")
    assert [(f["value"], f["resolved_at"]) for f in resolved] == [("team-b", "2023-11-14T22:14:10Z")]
    assert len(filled.pages("/v1/drift", "findings", state="all")) == 2
    assert filled.pages("/v1/drift", "findings", kind="tag_empty") == []
    assert filled.pages("/v1/drift", "findings", integration="gcp") == []


def test_explain_tells_each_step(filled: Served) -> None:
    told = filled.get("/v1/explain", resource="disk").json
    assert [s["step"] for s in told["steps"]] == ["key", "inherit", "match"]
    assert told["steps"][2]["candidates"][0]["name"] == "Outer"
    assert told["answer"] == filled.owner("disk").json
    assert {s["name"] for s in told["sources"]} == {"corp", "aws"}
    told = filled.get("/v1/explain", resource="r00").json
    assert [s["step"] for s in told["steps"]] == ["key", "match", "fallback"]
    assert "platform" in told["steps"][-1]["text"]
    assert filled.get("/v1/explain", resource="nope").problem == "unknown-resource"


def test_status_says_how_each_source_fares(filled: Served) -> None:
    filled.clock.now += 100
    filled.run_scopes("gcp", {"all": Forbidden("who are you", remedy="grant it")})
    filled.run("aws")
    told = {s["name"]: s for s in filled.get("/v1/status").json["sources"]}
    assert list(told) == ["corp", "aws", "gcp"]
    assert (told["corp"]["state"], told["corp"]["age"], told["corp"]["rows"]) == ("ok", 100, 7)
    assert told["aws"]["state"] == "held"
    assert told["aws"]["held"]["why"][0]["why"] == "all 23 rows would go"
    assert (told["gcp"]["state"], told["gcp"]["error"]["remedy"]) == ("failed", "grant it")
    assert told["gcp"]["scopes"][0]["error"]["code"] == "forbidden"


def test_status_tells_what_is_not_shown(world: Served) -> None:
    """A gap is told once a source, with how many of its scopes have it, and counted in the metrics."""
    gap = Gap("never_tagged", "what never had a tag is not listed", "turn it on")
    world.run_scopes("aws", {"one": [gap], "two": [gap], "three": []})
    told = {s["name"]: s for s in world.get("/v1/status").json["sources"]}
    assert told["aws"]["gaps"] == [{"code": gap.code, "message": gap.message, "remedy": gap.remedy, "scopes": 2}]
    assert [s["name"] for s in told["aws"]["scopes"] if s["gaps"]] == ["one", "two"]
    text = world.get("/metrics").body.decode()
    assert 'ownerd_source_gaps{source="aws",role="integration",gap="never_tagged"} 2\n' in text


def test_ready_once_every_source_was_read(world: Served) -> None:
    assert world.get("/healthz").status == 200
    assert world.get("/readyz").problem == "not-ready"
    world.run("corp", *PEOPLE)
    world.run("aws")
    assert world.get("/readyz").json["sources"] == ["gcp"]
    world.run("gcp")
    assert world.get("/readyz").status == 200


def test_metrics(filled: Served) -> None:
    filled.owner("r01")
    filled.owner("nope")
    text = filled.get("/metrics").body.decode()
    assert 'ownerd_lookups_total{result="answered"} 1\n' in text
    assert 'ownerd_lookups_total{result="unknown-resource"} 1\n' in text
    assert 'ownerd_owner_rows{integration="aws",fallback="true",reason="value_unknown"} 7\n' in text
    assert 'ownerd_drift_open{integration="aws",kind="value_unknown"} 1\n' in text
    assert "ownerd_changes_pending{" not in text, "no integration holds changes"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("/v1/owner", "bad-request"),
        ("/v1/owner?resource=", "bad-request"),
        ("/v1/owner?resource=a&resource=b", "bad-request"),
        ("/v1/owner?resource=a&integartion=x", "bad-request"),
        ("/v1/owner?resource=a&integration=nope", "bad-request"),
        ("/v1/owner?resource=%ff", "bad-request"),
        ("/v1/owner?resource=r01&expand=all", "bad-request"),
        ("/v1/resources?limit=0", "bad-request"),
        ("/v1/resources?limit=1001", "bad-request"),
        ("/v1/resources?limit=٣", "bad-request"),
        ("/v1/resources?cursor=xyz", "bad-request"),
        ("/v1/resources?cursor=WyJkIiwxXQ", "bad-request"),
        ("/v1/resources?fallback=maybe", "bad-request"),
        ("/v1/drift?state=x", "bad-request"),
        ("/v1/drift?kind=x", "bad-request"),
        ("/v1/changes?after=WyJjIiwtMV0", "bad-request"),
        ("/v1/nope", "not-found"),
        ("/", "not-found"),
        ("/v1/owners", "method-not-allowed"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(filled: Served, target: str, problem: str) -> None:
    answer = call(
        filled.socket, "GET", target.encode().decode("latin-1") if target.isascii() else "/v1/resources?limit=%D9%A3"
    )
    assert answer.problem == problem
    assert answer.json["detail"]
    assert answer.json["status"] == answer.status


def test_every_answer_is_as_described(filled: Served) -> None:
    """Each page's answer fits its schema in /openapi.json."""
    described = filled.get("/openapi.json").json
    asked: dict[str, dict[str, Any]] = {
        "/v1/owner": {"resource": "out", "expand": "members"},
        "/v1/explain": {"resource": "disk"},
    }
    filled.run_scopes("gcp", {"all": Forbidden("no")})
    for page, methods in described["paths"].items():
        content = methods.get("get", {}).get("responses", {}).get("200", {}).get("content", {})
        if "application/json" not in content:
            continue
        schema = {**content["application/json"]["schema"], "components": described["components"]}
        jsonschema.validate(filled.get(page, **asked.get(page, {})).json, schema)
    batch = described["paths"]["/v1/owners"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    answer = call(filled.socket, "POST", "/v1/owners", {"resources": ["r01", "nope"]}).json
    jsonschema.validate(answer, {**batch, "components": described["components"]})
    problem = {"$ref": "#/components/schemas/Problem", "components": described["components"]}
    jsonschema.validate(filled.owner("nope").json, problem)


def test_there_is_no_database_yet(tmp_path: Path) -> None:
    """The server may start before the first poll: it lives, and knows nothing yet."""
    with serving(tmp_path / "ownerd.db", tmp_path / "s", Clock()):
        assert get(tmp_path / "s", "/healthz").status == 200
        assert get(tmp_path / "s", "/v1/owner", resource="x").problem == "not-yet-known"
        assert get(tmp_path / "s", "/v1/status").status == 503
        Store(tmp_path).close()
        assert get(tmp_path / "s", "/readyz").problem == "not-ready", "it has tables, and nothing in them"


def test_a_thousand_hostile_values(tmp_path: Path) -> None:
    """They come back as they were, and no byte of an answer is raw control or bidi."""
    bad = ["\x00", "\x1b[2J", "\r\n", "\u202e", "\u2028", "'; DROP TABLE answer;--", "<script>", "{{7*7}}", "$(id)", "=1+1", "\ufeff", "%s%n", "\U000e0041", "🦀", "e\u0301"]  # fmt: skip
    values = [f"{bad[i % len(bad)]}{i}{bad[(i * 7) % len(bad)]}" for i in range(1000)]
    values[0] = "x" * 256
    values[1] = "y" * 100_000
    world = Served(tmp_path, configuration(integration()))
    world.run("corp", *PEOPLE)
    world.run("aws", *(resource(f"r{i}\u202e", v) for i, v in enumerate(values)))
    with serving(world.store.path, world.socket, world.clock):
        for i, value in enumerate(values):
            answer = world.owner(f"r{i}\u202e")
            assert answer.json["tag"]["value"] == value
            assert answer.json["resource"]["id"] == f"r{i}\u202e"
            assert answer.json["reason"] in {"value_unknown", "tag_empty"}
            assert not {c for c in answer.body.decode() if c in "\u202e\u2028\ufeff\x1b\r\n\x00\U000e0041"}
        findings = world.pages("/v1/drift", "findings", limit=1000)
        assert {f["value"] for f in findings} == {v.strip() for v in values}
    world.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "ownerd"}, 200),
        ({"Host": ""}, 200),
        ({"Host": "127.0.0.1:8080"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "rebound.example:8080"}, 403),
        ({"Host": "10.0.0.1"}, 403),
        ({"Host": "[2001:db8::1]"}, 403),
        ({"Host": "127.0.0.1.rebound.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost"}, 403),
    ],
    ids=str,
)
def test_a_browser_does_not_reach_it(filled: Served, headers: dict[str, str], status: int) -> None:
    """What a page on the web could have somebody's browser ask is refused, whatever name it was led to."""
    answer = filled.get("/v1/owner", headers, resource="r01")
    assert answer.status == status
    if status == 403:
        assert answer.problem == "not-local"
