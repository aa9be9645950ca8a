"""The `azure` connector and Microsoft's credentials, where Resource Graph and its SDK mislead."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

import connectors.retry
from config.secrets import resolve
from connectors import azure as module
from connectors import azure_graph as graph_module
from connectors.azure import HIERARCHY, Azure, AzureOptions
from connectors.azure_auth import credential, transport
from connectors.azure_graph import quoted
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
from connectors.values import Bookmark, Change, Gap, Gone, Record, Resource
from daemon.child import Job
from daemon.child import read as poll
from daemon.spool import SpoolWriter
from tests.harness import World, configuration, integration
from tests.servers.azure import GROUPS, Answer, ArmProblem, AzureServer

ONE, TWO = "0aaaaaaa-0000-4000-8000-000000000001", "0bbbbbbb-0000-4000-8000-000000000002"
OWN = f"/subscriptions/{ONE}"
API = f"{OWN}/resourceGroups/rg/providers/Microsoft.Web/sites/api"
SITES = [f"{API}{n}" for n in range(6)]
SECRET = "s3cret-of-the-app"


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's Azure settings, tools or metadata server."""
    import os

    for name in [x for x in os.environ if x.startswith(("AZURE_", "MSI_", "IDENTITY_", "ARM_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")


@pytest.fixture
def server() -> Iterator[AzureServer]:
    """A tenant of two subscriptions and seven sites, in pages of three."""
    with AzureServer(page=3) as server:
        server.management_group("root", "Root")
        server.management_group("corp", "Corp", "root")
        server.subscription(ONE, "One", {"owner": "ones"}, "corp", "root")
        server.subscription(TWO, "Two", None, "root")
        server.group(ONE, "rg", {"owner": "rgs"})
        server.put(API, "api", "microsoft.web/sites", {"owner": "apis"})
        for n in range(6):
            server.put(f"{API}{n}", f"api{n}", "microsoft.web/sites", None)
        server.advance(3600)
        yield server


def made(server: AzureServer, monkeypatch: pytest.MonkeyPatch | None = None, **options: Any) -> Azure:
    """A connector that logs in with the token, or as `options` say."""
    if not options.keys() & {"client_id", "access_token"}:
        Path(server.ca_file).with_name("token").write_text(server.token)
        options["access_token"] = {"file": str(Path(server.ca_file).with_name("token"))}
    if "client_id" in options and monkeypatch:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
    told = {"endpoint": server.url, "ca_file": server.ca_file, "timeout": "10s", **options}
    validated = AzureOptions.model_validate(told)
    resolve(validated)
    return Azure(validated)


@pytest.fixture
def as_app(server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options of an app with a client secret, whose authority is the server."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
    monkeypatch.setenv("APP_SECRET", SECRET)
    return {"tenant_id": "acme.example", "client_id": "app", "client_secret": {"env": "APP_SECRET"}}


def read(connector: Azure, scope: str = ONE) -> list[Record]:
    with contextlib.closing(connector):
        return list(connector.read(scope))


def followed(connector: Azure, since: str, scope: str = ONE) -> list[Change]:
    with contextlib.closing(connector):
        return list(connector.changes(scope, since))


def ids(records: list[Any]) -> list[str]:
    return [r.id for r in records if isinstance(r, Resource)]


def mark(server: AzureServer, before: float = 0) -> str:
    return datetime.fromtimestamp(server.clock - before, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def queries(server: AzureServer) -> list[str]:
    return [asked["query"] for asked in server.requests]


# --- options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"subscriptions": [ONE], "management_group": "corp"},
        {"subscriptions": []},
        {"subscriptions": [ONE, ONE.upper()]},
        {"subscriptions": ["prod"]},
        {"management_group": "/providers/Microsoft.Management/managementGroups/corp"},
        {"management_group": ""},
        {"endpoint": "http://management.azure.com"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """Not both of two choices, nothing twice, ids only, and no token in the clear."""
    with pytest.raises(ValidationError):
        AzureOptions.model_validate(options)


def test_a_subscription_may_be_written_in_capitals() -> None:
    """Scopes are named in lower case, whatever the configuration writes."""
    assert AzureOptions.model_validate({"subscriptions": [ONE.upper()]}).subscriptions == [ONE]


# --- scopes -------------------------------------------------------------------------------------------------------------


def test_all_visible_subscriptions_are_scopes(server: AzureServer) -> None:
    """By default there is a scope for each subscription that the credentials see, and one for what is above."""
    with contextlib.closing(made(server)) as connector:
        assert list(connector.scopes()) == [HIERARCHY, ONE, TWO]


def test_a_management_group_limits_the_scopes(server: AzureServer) -> None:
    """With `management_group` only subscriptions below it are read, and groups from it downwards."""
    with contextlib.closing(made(server, management_group="corp")) as connector:
        assert list(connector.scopes()) == [HIERARCHY, ONE]
        assert ids(list(connector.read(HIERARCHY))) == [f"{GROUPS}corp"]


def test_a_named_subscription_that_cannot_be_seen_fails(server: AzureServer) -> None:
    """What Resource Graph leaves out is a failed scope that names the permission, never an empty one."""
    server.unseen.add(TWO)
    with contextlib.closing(made(server, subscriptions=[ONE, TWO])) as connector:
        assert list(connector.scopes()) == [HIERARCHY, ONE, TWO]
        assert ids(list(connector.read(ONE)))
        with pytest.raises(Forbidden) as caught:
            list(connector.read(TWO))
    assert caught.value.permission == "Microsoft.ResourceGraph/resources/read"
    assert "Reader" in caught.value.message
    assert f"/subscriptions/{TWO}" in caught.value.remedy


def test_changes_of_a_subscription_that_cannot_be_seen_fail(server: AzureServer) -> None:
    """A lost right is no quiet subscription."""
    server.unseen.add(TWO)
    with pytest.raises(Forbidden):
        followed(made(server), mark(server), TWO)


def test_no_subscription_at_all_is_forbidden(server: AzureServer) -> None:
    """Credentials without any role see an empty tenant; that is no empty tenant."""
    server.unseen |= {ONE, TWO}
    with contextlib.closing(made(server)) as connector, pytest.raises(Forbidden, match="no subscription can be seen"):
        list(connector.scopes())


def test_an_unknown_management_group_is_forbidden(server: AzureServer) -> None:
    """ARM does not tell one that is not there from one that may not be seen."""
    with contextlib.closing(made(server, management_group="nope")) as connector:
        with pytest.raises(Forbidden, match="AccessDenied"):
            list(connector.scopes())


def test_more_subscriptions_than_azure_shows_fail(server: AzureServer) -> None:
    """The header that tells of a cut list of subscriptions fails the scopes."""
    hit = Answer(first=lambda: None, more={"x-ms-tenant-subscription-limit-hit": "true"})
    with server.broken("resourcecontainers", 1, hit), contextlib.closing(made(server)) as connector:
        with pytest.raises(Incomplete, match=r"10,000"):
            list(connector.scopes())


# --- what is read -------------------------------------------------------------------------------------------------------


def test_parents_lead_up_to_the_root(server: AzureServer) -> None:
    """Resource → resource group → subscription → management group → root."""
    found = {r.id: r for r in read(made(server)) if isinstance(r, Resource)}
    found |= {r.id: r for r in read(made(server), HIERARCHY) if isinstance(r, Resource)}
    chain = [API]
    while (above := found[chain[-1]].parent) is not None:
        chain.append(above)
    assert chain == [API, f"{OWN}/resourceGroups/rg", OWN, f"{GROUPS}corp", f"{GROUPS}root"]


def test_a_part_of_a_resource_belongs_to_the_resource_group(server: AzureServer) -> None:
    """A database's server may not be listed, its resource group is."""
    database = f"{OWN}/resourceGroups/rg/providers/Microsoft.Sql/servers/s/databases/d"
    server.put(database, "d", "microsoft.sql/servers/databases")
    row = next(r for r in read(made(server)) if isinstance(r, Resource) and r.id == database)
    assert row.parent == f"{OWN}/resourceGroups/rg"
    assert row.type == "microsoft.sql/servers/databases"


def test_a_resource_of_no_group_belongs_to_the_subscription(server: AzureServer) -> None:
    """Resources can hang on the subscription itself."""
    server.put(f"{OWN}/providers/Microsoft.Network/x/y", "y", "microsoft.network/x")
    rows = [r for r in read(made(server)) if isinstance(r, Resource) and r.name == "y"]
    assert rows[0].parent == OWN


def test_the_case_of_ids_is_kept(server: AzureServer) -> None:
    """Azure writes one resource group in several ways; the daemon compares without case."""
    odd = f"/subscriptions/{ONE.upper()}/RESOURCEGROUPS/RG/providers/Microsoft.Web/sites/odd"
    server.put(odd, "odd", "Microsoft.Web/SITES")
    row = next(r for r in read(made(server)) if isinstance(r, Resource) and r.name == "odd")
    assert (row.id, row.parent) == (odd, f"/subscriptions/{ONE.upper()}/RESOURCEGROUPS/RG")
    assert row.type == "microsoft.web/sites"


def test_a_subscription_without_a_chain_has_no_parent(server: AzureServer) -> None:
    """Whoever may not see the management groups is told none."""
    server.subscription(TWO, "Two")
    assert [r.parent for r in read(made(server), TWO) if isinstance(r, Resource)] == [None]


def test_without_management_groups_there_is_a_gap(server: AzureServer) -> None:
    """What cannot be seen above the subscriptions is told, and is no error."""
    server.unseen |= {"root", "corp"}
    (gap,) = read(made(server), HIERARCHY)
    assert isinstance(gap, Gap)
    assert gap.code == "management_groups"
    assert "Reader" in gap.remedy


def test_the_hierarchy_has_no_bookmark(server: AzureServer) -> None:
    """Management groups are read whole each time."""
    assert not [r for r in read(made(server), HIERARCHY) if isinstance(r, Bookmark)]


@pytest.mark.parametrize("tags", [None, {}, {"a": "b", "ключ": "\u202e"}])
def test_tags_are_taken_as_they_are(server: AzureServer, tags: dict[str, str] | None) -> None:
    """Null means none."""
    server.put(API, "api", "microsoft.web/sites", tags)
    assert next(r.tags for r in read(made(server)) if isinstance(r, Resource) and r.id == API) == (tags or {})


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(id=None),
        lambda row: row.update(id="/subscriptions/elsewhere/x"),
        lambda row: row.update(id=f"{OWN}0/resourceGroups/x"),
        lambda row: row.update(id="/providers/Microsoft.X/y"),
        lambda row: row.update(type=""),
        lambda row: row.update(name=7),
        lambda row: row.update(tags="owner=me"),
        lambda row: row.update(tags={"owner": ["a"]}),
        lambda row: row.pop("name"),
    ],
)
def test_a_row_that_is_not_as_documented_fails(server: AzureServer, change: Callable[[dict[str, Any]], Any]) -> None:
    """A missing or senseless column is no default."""
    answer = Answer(change=lambda document: change(document["data"][-1]))
    with server.broken("resources", 2, answer), pytest.raises(BadData):
        read(made(server))


@pytest.mark.parametrize("chain", ["corp", [1], [{}], [{"name": "a/b"}], [{"name": None}]])
def test_a_chain_that_is_not_as_documented_fails(server: AzureServer, chain: Any) -> None:
    """A parent is never guessed."""
    answer = Answer(change=lambda document: [row.update(chain=chain) for row in document["data"]])
    with server.broken("resourcecontainers", 1, answer), pytest.raises(BadData, match="managementGroupAncestorsChain"):
        read(made(server))


# --- pages --------------------------------------------------------------------------------------------------------------


def test_pages_are_followed_by_their_tokens(server: AzureServer) -> None:
    """Seven resources in pages of three, of which one is the last of the page before: three requests."""
    assert len(ids(read(made(server)))) == 2 + 7
    asked = [x["options"] for x in server.requests if x["query"].startswith("resources ")]
    assert [bool(x.get("$skipToken")) for x in asked] == [False, True, True]
    assert [x.get("$skip") for x in asked] == [None, 2, 4]
    assert all(x["$top"] == 1000 and x["resultFormat"] == "objectArray" for x in asked)


def test_queries_name_their_subscription(server: AzureServer) -> None:
    """No query of a scope goes beyond it."""
    read(made(server))
    assert {tuple(x["subscriptions"]) for x in server.requests} == {(ONE,)}


def truncated(document: dict[str, Any]) -> None:
    document.pop("$skipToken", None)
    document["resultTruncated"] = "true"


def test_a_truncated_result_fails(server: AzureServer) -> None:
    """`resultTruncated` without a way on is never the end."""
    with server.broken("resources", 2, Answer(change=truncated)), pytest.raises(Incomplete, match="truncated"):
        read(made(server))


@pytest.mark.parametrize(
    ("page", "change"), [(2, lambda document: document.pop("$skipToken")), (3, lambda document: document["data"].pop())]
)
def test_a_list_that_is_short_is_read_in_another_way(
    server: AzureServer, page: int, change: Callable[[dict[str, Any]], Any]
) -> None:
    """Fewer rows than `totalRecords` are not all, also where no token follows: parts by a hash show the rest."""
    with server.broken("resources", page, Answer(change=change)):
        assert sorted(ids(read(made(server)))) == sorted([OWN, f"{OWN}/resourceGroups/rg", API, *SITES])
    assert any("hash(" in query for query in queries(server))


def test_a_list_that_stays_short_fails(server: AzureServer) -> None:
    """Where no way of reading finds as many rows as there are, they are not all."""
    more = Answer(change=lambda document: document.update(totalRecords=document["totalRecords"] + 1))
    server.page = 1000
    with server.broken("resources", 1, more), pytest.raises(Incomplete, match=r"read 3 times.* 7 of 8"):
        read(made(server))


def test_a_row_that_comes_twice_has_the_list_read_again(server: AzureServer) -> None:
    """Where one row comes twice, another may have been skipped."""
    answer = Answer(change=lambda document: document["data"].__setitem__(0, document["data"][1]), times=1)
    with server.broken("resources", 2, answer):
        found = ids(read(made(server)))
    assert sorted(found) == sorted([OWN, f"{OWN}/resourceGroups/rg", API, *SITES])


def test_what_goes_between_two_pages_hides_nothing(server: AzureServer) -> None:
    """After a deletion the positions have shifted: the list is read again, and nothing is skipped."""
    with server.broken("resources", 2, Answer(first=lambda: server.delete(API), times=1)):
        found = ids(read(made(server)))
    assert {f"{API}{n}" for n in range(6)} <= set(found)
    assert len(found) == len(set(found))


def test_what_comes_and_goes_between_two_pages_hides_nothing(server: AzureServer) -> None:
    """Where as many came as went, the count is the same, and a row would be skipped without a trace."""

    def swap() -> None:
        server.delete(API)
        server.put(f"{API}z", "apiz", "microsoft.web/sites")

    with server.broken("resources", 2, Answer(first=swap, times=1)):
        found = ids(read(made(server)))
    assert {f"{API}{n}" for n in range(6)} <= set(found)


def test_a_server_that_knows_no_positions_is_read_in_parts(server: AzureServer) -> None:
    """Pages that never meet are no proof: parts need none."""
    server.positions = False
    assert len(ids(read(made(server)))) == 9


def test_a_list_that_never_rests_is_read_whole(server: AzureServer) -> None:
    """What comes and goes with every request neither hides what stays nor keeps the subscription from being read."""
    numbers = iter(range(1000))

    def churn() -> None:
        number = next(numbers)
        server.delete(f"{API}-{number - 1}")
        server.put(f"{API}-{number}", "x", "microsoft.web/sites")

    with server.broken("resources", 1, Answer(first=churn)), server.broken("resources", 2, Answer(first=churn)):
        found = ids(read(made(server)))
    assert {API, *SITES} <= set(found)
    assert len(found) == len(set(found))


def test_parts_leave_nothing_out(server: AzureServer) -> None:
    """A part that is more than a page is divided; none goes by position, and all rows come once."""
    sites = [server.put(f"{API}/{n:03}", "x", "microsoft.web/sites/slots") for n in range(200)]
    server.positions = False
    server.page = 7
    assert sorted(ids(read(made(server)))) == sorted([OWN, f"{OWN}/resourceGroups/rg", API, *SITES, *sites])
    parts = [asked for asked in server.requests if "hash(" in asked["query"]]
    assert 200 / 7 < len(parts) < 200
    assert not any("$skip" in asked["options"] or "$skipToken" in asked["options"] for asked in parts)


def test_parts_that_are_too_large_are_divided(server: AzureServer) -> None:
    """By what an answer may hold, too."""
    for n in range(6):
        server.put(f"{API}{n}", f"api{n}", "microsoft.web/sites", {"note": "x" * 250})
    server.most_bytes = 1000
    once = Answer(first=lambda: server.delete(API), times=1)
    with server.broken("resources", 2, once):
        assert {*SITES} <= set(ids(read(made(server))))
    assert any("hash(" in query for query in queries(server))


def test_a_part_that_is_truncated_fails(server: AzureServer) -> None:
    """In this way of reading, too, a list without its end is none."""
    server.positions = False

    def cut(document: dict[str, Any]) -> None:
        if "hash(" in queries(server)[-1]:
            truncated(document)

    with server.broken("resources", 1, Answer(change=cut)), pytest.raises(Incomplete, match="truncated"):
        read(made(server))


def test_pages_that_contradict_each_other_are_read_in_another_way(server: AzureServer) -> None:
    """A page that tells of another number of rows belongs to another list."""
    other = Answer(change=lambda document: document.update(totalRecords=8), times=1)
    with server.broken("resources", 2, other):
        assert len(ids(read(made(server)))) == 9
    assert any("hash(" in query for query in queries(server))


def test_parts_that_never_fit_fail(server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that always has more is not asked for ever."""
    monkeypatch.setattr(graph_module, "_MOST_PARTS", 0)
    server.positions = False
    with pytest.raises(Incomplete, match="still more than a page"):
        read(made(server))


def test_a_right_that_is_lost_between_two_pages_fails(server: AzureServer) -> None:
    """The rest of the list comes empty, as if all of it had gone."""
    with server.broken("resources", 3, Answer(hide=True)), pytest.raises(Forbidden):
        read(made(server))


def test_pages_that_are_too_large_are_asked_for_in_parts(server: AzureServer) -> None:
    """Many tags exceed what an answer may hold: smaller pages do not."""
    server.page = 1000
    for n in range(6):
        server.put(f"{API}{n}", f"api{n}", "microsoft.web/sites", {"note": "x" * 250})
    server.most_bytes = 1500
    assert len(ids(read(made(server)))) == 2 + 7


def test_a_row_that_is_too_large_fails(server: AzureServer) -> None:
    """What no page can hold ends in an error, not in a loop."""
    server.most_bytes = 300
    server.put(API, "api", "microsoft.web/sites", {"note": "x" * 250})
    with pytest.raises(BadData, match="more than an answer may hold"):
        read(made(server))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda document: document.pop("data"), ServerFault),
        (lambda document: document.update(data={}), ServerFault),
        (lambda document: document.update(data=[[]]), BadData),
        (lambda document: document.pop("totalRecords"), ServerFault),
        (lambda document: document.update(totalRecords="many"), ServerFault),
        (lambda document: document.pop("resultTruncated"), ServerFault),
        (lambda document: document.clear(), ServerFault),
    ],
)
def test_an_answer_that_lacks_a_part_fails(
    server: AzureServer, change: Callable[[dict[str, Any]], Any], error: type[ConnectorError]
) -> None:
    """An answer without its parts is no empty answer."""
    with server.broken("resources", 1, Answer(change=change)), pytest.raises(error):
        read(made(server))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>login</html>", "text/html"),
        (b"<html>login</html>", "application/json"),
        (b"[]", "application/json"),
        (b"null", "application/json"),
        (b'"x"', "application/json"),
        (b"", "application/json"),
        (b"\xff\xfe\x00", "application/json"),
        (b"{}", "application/octet-stream"),
    ],
)
def test_what_is_no_answer_fails(server: AzureServer, body: bytes, kind: str) -> None:
    """A portal's page, or anything else with a 200, is a server's fault."""
    date = {"Content-Type": kind}
    with server.broken("resources", 1, Answer(200, body, date)), pytest.raises(ServerFault):
        read(made(server))


# --- the quota ----------------------------------------------------------------------------------------------------------


def test_the_quota_is_kept_to_before_it_is_used_up(server: AzureServer, sleeps: list[float]) -> None:
    """With one query left, the next one waits for as long as the header says."""
    server.quota = (1, "00:00:05")
    read(made(server))
    assert len(sleeps) == len(server.requests) - 1
    assert all(4 < x <= 5 for x in sleeps)


def test_with_quota_left_nothing_waits(server: AzureServer, sleeps: list[float]) -> None:
    """Two queries left are enough for one."""
    server.quota = (2, "00:00:05")
    read(made(server))
    assert sleeps == []


@pytest.mark.parametrize("quota", [("", ""), ("x", "00:00:05"), ("0", "soon"), ("0", "00:00")])
def test_a_quota_that_is_no_quota_is_left_alone(
    server: AzureServer, sleeps: list[float], quota: tuple[Any, str]
) -> None:
    """Headers that are not as documented neither wait nor fail."""
    server.quota = quota
    assert ids(read(made(server)))
    assert sleeps == []


def test_a_quota_never_waits_for_hours(server: AzureServer, sleeps: list[float]) -> None:
    """A header that asks for a day is not obeyed to the letter."""
    server.quota = (0, "24:00:00")
    list(zip(range(2), made(server).read(ONE), strict=False))
    assert max(sleeps) <= connectors.retry.LONGEST_WAIT


@pytest.mark.parametrize(
    "headers", [{"Retry_After": "7"}, {"x_ms_user_quota_remaining": "0", "x_ms_user_quota_resets_after": "00:00:07"}]
)
def test_a_refusal_for_rate_waits_as_told(server: AzureServer, sleeps: list[float], headers: dict[str, str]) -> None:
    """Retry-After counts, else the quota's own header."""
    with server.broken("resources", 2, Answer.error(ArmProblem.throttled(**headers), times=2)):
        assert len(ids(read(made(server)))) == 9
    assert sleeps == [7, 7]


def test_a_refusal_for_hours_fails_at_once(server: AzureServer, sleeps: list[float]) -> None:
    """Nobody waits an hour inside of a run."""
    with server.broken("resources", 2, Answer.error(ArmProblem.throttled(Retry_After="3600"))):
        with pytest.raises(Throttled, match="RateLimiting"):
            read(made(server))
    assert sleeps == []


# --- errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "error", "words"),
    [
        (ArmProblem(403, "AuthorizationFailed", "no"), Forbidden, "AuthorizationFailed"),
        (ArmProblem(400, "BadRequest", "no", ("NoValidSubscriptionsInQueryRequest", "x")), Forbidden, "NoValid"),
        (ArmProblem(400, "BadRequest", "no", ("InvalidQuery", "why")), BadData, "InvalidQuery: why"),
        (ArmProblem(404, "NotFound", "no"), Misconfigured, "endpoint|no such thing"),
        (ArmProblem(500, "InternalServerError", "no"), ServerFault, "500"),
        (ArmProblem(408, "Timeout", "no"), ServerFault, "408"),
        (ArmProblem(503, "ServerBusy", "no", headers={"Retry-After": "1"}), Throttled, "503"),
        (ArmProblem(302, "x", "no", headers={"Location": "https://evil.example/"}), Misconfigured, "redirect"),
        (ArmProblem(307, "x", "no", headers={"Location": "https://evil.example/"}), Misconfigured, "redirect"),
        (ArmProblem(409, "MissingSubscriptionRegistration", "no"), BadData, "MissingSubscriptionRegistration"),
    ],
)
def test_errors_are_told_in_azures_words(
    server: AzureServer, problem: ArmProblem, error: type[ConnectorError], words: str
) -> None:
    """Codes of the details are told, redirects not followed, and no resource provider is registered."""
    with server.broken("resources", 2, Answer.error(problem)), pytest.raises(error, match=words) as caught:
        read(made(server))
    assert caught.value.message.startswith(f"{ONE}: resources: ")
    assert server.token not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"error": {"details": [1]}}', b"\xff"])
@pytest.mark.parametrize("kind", ["application/json", "text/html", "application/octet-stream"])
def test_errors_without_azures_format_count_by_status(server: AzureServer, body: bytes, kind: str) -> None:
    """A proxy's refusal is a refusal, too."""
    with server.broken("resources", 1, Answer(403, body, {"Content-Type": kind})), pytest.raises(Forbidden):
        read(made(server))


def test_a_server_that_says_nothing_is_unreachable(server: AzureServer) -> None:
    """The limit for a request holds."""
    with server.broken("resources", 1, Answer(stall=True)), pytest.raises(Unreachable, match=r"no answer in 0\.2 s"):
        read(made(server, timeout="200ms"))


def test_an_unknown_authority_is_unreachable(server: AzureServer) -> None:
    """Certificates are verified, and the remedy names the option."""
    with pytest.raises(Unreachable, match="TLS") as caught:
        read(made(server, ca_file=None))
    assert "ca_file" in caught.value.remedy


@pytest.mark.parametrize(("name", "words"), [("nowhere.pem", "No such file"), ("garbage.pem", "X509"), (".", "")])
def test_a_bundle_that_is_none_is_misconfigured(server: AzureServer, tmp_path: Path, name: str, words: str) -> None:
    """A wrong path, or another file, is told as such, and not tried again."""
    (tmp_path / "garbage.pem").write_text("garbage")
    with pytest.raises(Misconfigured, match=f"ca_file: .*{words}"):
        read(made(server, ca_file=tmp_path / name))


def test_the_password_of_a_netrc_is_not_sent(server: AzureServer, tmp_path: Path) -> None:
    """The library under the SDK would put it in place of the token."""
    (tmp_path / ".netrc").write_text("default login eve password hunter2\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert ids(read(made(server)))
    assert {h["authorization"] for h in server.headers} == {f"Bearer {server.token}"}


def test_plain_http_to_loopback_works() -> None:
    """The SDK's own policy would refuse the token."""
    with AzureServer(tls=False) as server:
        server.subscription(ONE, "One")
        assert ids(read(made(server, ca_file=None))) == [OWN]


def test_a_token_with_a_line_break_is_misconfigured(server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error does not show it."""
    monkeypatch.setenv("BROKEN", "eyJ0\neXAi")
    with pytest.raises(Misconfigured) as caught:
        read(made(server, access_token={"env": "BROKEN"}))
    assert "eXAi" not in str(caught.value)


def test_the_token_is_in_no_log(server: AzureServer, caplog: pytest.LogCaptureFixture) -> None:
    """Not at the most talkative level, and not in an error."""
    caplog.set_level(logging.DEBUG)
    with server.broken("resources", 2, Answer.error(ArmProblem.denied())), pytest.raises(Forbidden):
        read(made(server))
    assert server.token not in caplog.text


# --- changes ------------------------------------------------------------------------------------------------------------


def test_the_bookmark_is_older_than_the_first_page(server: AzureServer) -> None:
    """It is the server's time before anything was read, less the overlap."""
    first = next(iter(made(server).read(ONE)))
    assert first == Bookmark(mark(server, module.OVERLAP.total_seconds()))


def test_changes_cost_what_has_changed(server: AzureServer) -> None:
    """One changed tag: the row itself, the two lists of changes, one query for what they name."""
    since = mark(server)
    server.advance(60)
    server.put(API, "api", "microsoft.web/sites", {"owner": "new"})
    found = followed(made(server), since)
    assert [r.tags for r in found if isinstance(r, Resource)] == [{"owner": "new"}]
    assert len(server.requests) == 4
    assert found[-1] == Bookmark(mark(server, module.OVERLAP.total_seconds()))


@pytest.mark.parametrize("since", ["", "x", "2026", "2026-13-01T00:00:00Z", "2026-11-01T00:00:00+01:00", "') | evil"])
def test_a_bookmark_of_another_form_is_stale(server: AzureServer, since: str) -> None:
    """It never reaches a query."""
    with pytest.raises(StaleBookmark):
        followed(made(server), since)
    assert server.requests == []


@pytest.mark.parametrize("before", [6 * 86400 + 1, 13 * 86400, -1])
def test_a_bookmark_that_is_too_old_or_of_tomorrow_is_stale(server: AzureServer, before: float) -> None:
    """Azure forgets after 14 days, and has done so after 7; by its clock, not ours."""
    with pytest.raises(StaleBookmark):
        followed(made(server), mark(server, before))


def test_a_bookmark_of_six_days_is_good(server: AzureServer) -> None:
    """The last second that counts."""
    assert followed(made(server), mark(server, 6 * 86400))


def test_changes_that_come_meanwhile_are_read_next_time(server: AzureServer) -> None:
    """They would shift the pages of the list of changes; the bookmark is older than they are."""
    since = mark(server)
    server.advance(100)
    server.put(API, "api", "microsoft.web/sites", {"owner": "new"})
    server.advance(-100)
    found = followed(made(server), since)
    assert [type(c) for c in found] == [Bookmark]
    server.advance(200)
    assert isinstance(found[-1], Bookmark)
    assert ids(followed(made(server), found[-1].token)) == [API]


def test_too_many_changes_are_read_whole(server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a whole read costs less."""
    monkeypatch.setattr(module, "MOST_CHANGES", 3)
    since = mark(server)
    for n in range(4):
        server.put(f"{API}{n}", f"api{n}", "microsoft.web/sites", {"a": "b"})
    with pytest.raises(StaleBookmark, match="more than 3"):
        followed(made(server), since)


def test_what_was_deleted_is_gone(server: AzureServer) -> None:
    """By the id that its change names."""
    since = mark(server)
    server.delete(API)
    assert [c for c in followed(made(server), since) if isinstance(c, Gone)] == [Gone(API)]


def test_what_was_made_again_is_there(server: AzureServer) -> None:
    """A deletion that another change followed is none: what counts is what there is now."""
    since = mark(server)
    server.delete(API)
    server.put(API, "api", "microsoft.web/sites", {"owner": "again"})
    found = followed(made(server), since)
    assert not [c for c in found if isinstance(c, Gone)]
    assert [r.tags for r in found if isinstance(r, Resource)] == [{"owner": "again"}]


def test_what_was_made_and_deleted_is_gone(server: AzureServer) -> None:
    """Also where the deletion is not listed yet."""
    since = mark(server)
    server.put(f"{API}9", "api9", "microsoft.web/sites")
    server.rows["resources"].pop(f"{API}9".lower())
    assert [c for c in followed(made(server), since) if isinstance(c, Gone)] == [Gone(f"{API}9")]


def test_what_is_only_out_of_sight_is_not_gone(server: AzureServer) -> None:
    """Where the right is lost after the list of changes, nothing is gone."""
    since = mark(server)
    server.put(API, "api", "microsoft.web/sites", {"owner": "new"})
    with server.broken("resources", 1, Answer(hide=True)), pytest.raises(Forbidden):
        followed(made(server), since)


def test_ids_of_changes_compare_without_case(server: AzureServer) -> None:
    """The table of changes may write an id in another way than the table of resources."""
    since = mark(server)
    server.put(API, "api", "microsoft.web/sites", {"owner": "new"})
    server.changes["resourcechanges"][-1]["properties"]["targetResourceId"] = API.upper()
    found = followed(made(server), since)
    assert ids(found) == [API]
    assert not [c for c in found if isinstance(c, Gone)]


def test_changes_of_others_are_left_alone(server: AzureServer) -> None:
    """A change whose target lies in another subscription, or above, is another scope's."""
    since = mark(server)
    server.put(API, "api", "microsoft.web/sites", {"owner": "new"})
    for other in (f"/subscriptions/{TWO}/resourceGroups/x", f"{OWN}0/resourceGroups/x", f"{GROUPS}corp"):
        server.changes["resourcechanges"][-1]["properties"]["targetResourceId"] = other
        found = followed(made(server), since)
        assert [type(c) for c in found] == [Bookmark]


@pytest.mark.parametrize("name", ["it's", "back\\slash", "both\\'", "x' or '1' == '1", "a|b", "日本", "line\nbreak"])
def test_ids_are_quoted_in_queries(server: AzureServer, name: str) -> None:
    """No name ends the text that it stands in."""
    since = mark(server)
    server.put(f"{API}/{name}", "n", "microsoft.web/sites/x")
    assert ids(followed(made(server), since)) == [f"{API}/{name}"]


def test_quoted_text_is_one_literal() -> None:
    """Quotes and backslashes are escaped, and nothing else changes."""
    assert quoted("a'b\\c\td") == "'a\\'b\\\\c\\td'"


def test_many_changes_are_read_in_batches(server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids go into queries by the hundred."""
    monkeypatch.setattr(module, "_AT_ONCE", 4)
    since = mark(server)
    for n in range(6):
        server.put(f"{API}{n}", f"api{n}", "microsoft.web/sites", {"a": "b"})
    assert len(ids(followed(made(server), since))) == 6
    again = [q for q in queries(server) if "id in~" in q]
    assert len(set(again)) == 2


def test_a_change_of_the_subscription_is_followed(server: AzureServer) -> None:
    """Its tags, its name, its place."""
    since = mark(server)
    server.subscription(ONE, "Uno", {"owner": "new"}, "root")
    (row,) = [r for r in followed(made(server), since) if isinstance(r, Resource)]
    assert row == Resource(OWN, "microsoft.resources/subscriptions", "Uno", f"{GROUPS}root", {"owner": "new"})


# --- ownerd check -------------------------------------------------------------------------------------------------------


def test_check_names_each_subscription_that_cannot_be_seen(server: AzureServer) -> None:
    """And says how to grant it, while the others are well."""
    server.unseen.add(TWO)
    checks = {c.what: c for c in made(server, subscriptions=[ONE, TWO]).check()}
    assert checks[f"read {ONE}"].ok
    bad = checks[f"read {TWO}"]
    assert not bad.ok
    assert "Microsoft.ResourceGraph/resources/read" in bad.detail
    assert bad.remedy.startswith("az role assignment create --role Reader")


def test_check_is_cheap(server: AzureServer) -> None:
    """The number of subscriptions costs nothing: four hundred are not eight hundred queries."""
    server.page = 1000
    for n in range(400):
        server.subscription(f"0ddddddd-0000-4000-8000-{n:012}", f"s{n}")
    checks = list(made(server).check())
    assert len(checks) == 403
    assert all(c.ok for c in checks)
    assert len(server.requests) == 4


def test_check_names_each_of_many_that_cannot_be_seen(server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in each lot that is asked for."""
    monkeypatch.setattr(module, "_CHECKED_AT_ONCE", 1)
    server.unseen.add(TWO)
    checks = list(made(server, subscriptions=[ONE, TWO]).check())
    assert [(c.what, c.ok) for c in checks] == [(f"read {ONE}", True), (f"read {TWO}", False), ("read hierarchy", True)]


def test_check_tells_of_refused_credentials(server: AzureServer) -> None:
    """In one line, not one for each subscription."""
    with server.broken("resourcecontainers", 1, Answer.error(ArmProblem.denied())):
        (check,) = made(server, subscriptions=[ONE, TWO]).check()
    assert not check.ok
    assert "AuthorizationFailed" in check.detail


def test_check_tells_the_gap(server: AzureServer) -> None:
    """Missing management groups are no failure, and not silent."""
    server.unseen |= {"root", "corp"}
    checks = {c.what: c for c in made(server).check()}
    assert checks["read hierarchy"].ok
    assert "no management group" in checks["read hierarchy"].detail
    assert checks["read hierarchy"].remedy


def test_check_says_when_nothing_can_be_seen(server: AzureServer) -> None:
    """One line, with the remedy."""
    server.unseen |= {ONE, TWO}
    (check,) = made(server).check()
    assert not check.ok
    assert "Reader" in check.remedy


def test_check_says_when_a_subscription_is_empty(server: AzureServer) -> None:
    """Readable, and without a resource, is not the same as not readable."""
    checks = {c.what: c for c in made(server).check()}
    assert checks[f"read {TWO}"].detail == "readable, and without a resource"


# --- credentials --------------------------------------------------------------------------------------------------------


def test_an_app_signs_in_with_its_secret(server: AzureServer, as_app: dict[str, Any]) -> None:
    """One token serves the whole run."""
    assert ids(read(made(server, **as_app)))
    assert server.signed_in == 1


def test_a_token_that_ends_in_the_middle_is_taken_anew(server: AzureServer, as_app: dict[str, Any]) -> None:
    """Nothing is lost, and one more token is enough."""
    with server.broken("resources", 2, Answer.error(ArmProblem.expired_token(), times=1)):
        assert len(ids(read(made(server, **as_app)))) == 9
    assert server.signed_in == 2


def test_a_token_that_is_revoked_ends_the_scope(server: AzureServer, as_app: dict[str, Any]) -> None:
    """After one new token that is refused as well."""
    with server.broken("resources", 2, Answer.error(ArmProblem.expired_token())):
        with pytest.raises(Unauthenticated, match="ExpiredAuthenticationToken"):
            read(made(server, **as_app))
    assert server.signed_in == 2


def test_a_ready_token_is_not_taken_anew(server: AzureServer) -> None:
    """There is nothing to take it with."""
    with server.broken("resources", 2, Answer.error(ArmProblem.expired_token())), pytest.raises(Unauthenticated):
        read(made(server))
    assert len([q for q in queries(server) if q.startswith("resources ")]) == 2


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AADSTS7000215", "not its id"),
        ("AADSTS7000222", "expired"),
        ("AADSTS700016", "client_id"),
        ("AADSTS90002", "tenant_id"),
        ("AADSTS700027", "certificate"),
        ("AADSTS50000", "clock"),
    ],
)
def test_a_refused_sign_in_tells_microsofts_code(
    server: AzureServer, as_app: dict[str, Any], code: str, words: str
) -> None:
    """And what to do; never the secret."""
    server.sign_in_error = (401, "invalid_client", f"{code}: told at length. Trace ID: x")
    with pytest.raises(Unauthenticated, match=code) as caught:
        read(made(server, **as_app))
    assert words in caught.value.remedy
    assert SECRET not in repr(caught.value)


def test_a_wrong_secret_is_refused(
    server: AzureServer, as_app: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the authority itself."""
    monkeypatch.setenv("APP_SECRET", "old-secret")
    with pytest.raises(Unauthenticated, match="AADSTS7000215") as caught:
        read(made(server, **as_app))
    assert "old-secret" not in repr(caught.value)


@pytest.mark.parametrize(("status", "error"), [(500, ServerFault), (503, ServerFault), (429, Throttled)])
def test_a_sign_in_that_fails_is_tried_again(
    server: AzureServer, as_app: dict[str, Any], sleeps: list[float], status: int, error: type[ConnectorError]
) -> None:
    """What passes is not taken for wrong credentials."""
    server.sign_in_error = (status, "temporarily_unavailable", "later")
    with pytest.raises(error, match="sign-in"):
        read(made(server, **as_app))
    assert len(sleeps) == connectors.retry.ATTEMPTS - 1


def test_a_sign_in_that_failed_once_is_as_good(
    server: AzureServer, as_app: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library under the SDK would keep an answer of 500 for a minute."""
    server.sign_in_error = (500, "temporarily_unavailable", "later")
    monkeypatch.setattr(connectors.retry, "sleep", lambda _: setattr(server, "sign_in_error", None))
    assert ids(read(made(server, **as_app)))


def test_an_authority_that_is_down_is_unreachable(
    server: AzureServer, as_app: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused is not denied."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1")
    with pytest.raises(Unreachable, match="sign-in"):
        read(made(server, **as_app))


def test_an_authority_that_is_not_trusted_is_unreachable(server: AzureServer, as_app: dict[str, Any]) -> None:
    """The secret goes to nobody whose certificate is not good."""
    with pytest.raises(Unreachable, match="TLS"):
        read(made(server, **as_app, ca_file=None))
    assert server.signed_in == 0


def test_an_authority_without_tls_is_misconfigured(
    server: AzureServer, as_app: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secret in the clear; and the message names the variable, not the certificate."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "http://127.0.0.1:1")
    with pytest.raises(Misconfigured, match="AZURE_AUTHORITY_HOST"):
        read(made(server, **as_app))
    with pytest.raises(Misconfigured, match="AZURE_AUTHORITY_HOST"):
        read(made(server, access_token=None))


@pytest.mark.parametrize("page", [b"<html>please log in</html>", b"", b"[]"])
def test_a_page_in_place_of_a_token_is_a_fault(server: AzureServer, as_app: dict[str, Any], page: bytes) -> None:
    """A gateway's own page refuses no credentials."""
    server.sign_in_page = page
    with pytest.raises(ServerFault, match="no token") as caught:
        read(made(server, **as_app))
    assert "proxy" in caught.value.remedy


@pytest.fixture(scope="module")
def pair() -> tuple[rsa.RSAPrivateKey, x509.Certificate, str]:
    """A key, its certificate, and both as PEM."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ownerd")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key, certificate, (certificate.public_bytes(serialization.Encoding.PEM) + private).decode()


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_an_app_signs_in_with_a_certificate(
    server: AzureServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pair: tuple[rsa.RSAPrivateKey, x509.Certificate, str],
) -> None:
    """The authority gets a statement that the certificate's key has signed (RFC 7523)."""
    key, _, pem = pair
    (tmp_path / "app.pem").write_text(pem)
    server.apps["certified"] = ""
    options = {"tenant_id": "t", "client_id": "certified", "certificate": {"file": str(tmp_path / "app.pem")}}
    assert ids(read(made(server, monkeypatch, **options)))
    head, claims, signature = server.assertions[0].split(".")
    told = json.loads(decoded(claims))
    assert told["iss"] == told["sub"] == "certified"
    scheme: Any = padding.PKCS1v15()
    if json.loads(decoded(head))["alg"] == "PS256":
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
    key.public_key().verify(decoded(signature), f"{head}.{claims}".encode(), scheme, hashes.SHA256())


@pytest.mark.parametrize("part", ["", "nonsense", "certificate", "key"])
def test_a_certificate_that_is_none_is_misconfigured(
    server: AzureServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pair: tuple[rsa.RSAPrivateKey, x509.Certificate, str],
    part: str,
) -> None:
    """It takes both, and the error shows neither."""
    cut = pair[2].index("-----BEGIN PRIVATE KEY")
    text = {"certificate": pair[2][:cut], "key": pair[2][cut:]}.get(part, part) or "-"
    (tmp_path / "app.pem").write_text(text)
    options = {"tenant_id": "t", "client_id": "x", "certificate": {"file": str(tmp_path / "app.pem")}}
    with pytest.raises(Misconfigured, match="certificate") as caught:
        read(made(server, monkeypatch, **options))
    assert pair[2][cut + 40 : cut + 80] not in repr(caught.value)


def test_without_any_credentials_it_says_so(server: AzureServer) -> None:
    """The default chain has nothing: what to give is told."""
    told = {"endpoint": server.url, "ca_file": server.ca_file, "timeout": "2s"}
    with pytest.raises(Unauthenticated, match="no usable credentials") as caught:
        read(Azure(AzureOptions.model_validate(told)))
    assert "managed identity" in caught.value.remedy


@pytest.fixture
def in_environment(server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An app in the variables that the SDK reads; no option is given."""
    for name, value in {
        "AZURE_AUTHORITY_HOST": server.url,
        "AZURE_TENANT_ID": "acme.example",
        "AZURE_CLIENT_ID": "app",
        "AZURE_CLIENT_SECRET": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.usefixtures("in_environment")
def test_the_environment_signs_in(server: AzureServer) -> None:
    """The default chain begins with it, and one token serves the whole run."""
    assert ids(read(made(server, access_token=None)))
    assert server.signed_in == 1


@pytest.mark.usefixtures("in_environment")
def test_a_token_of_the_chain_that_ends_is_taken_anew(server: AzureServer) -> None:
    """As with an app that the options name."""
    with server.broken("resources", 2, Answer.error(ArmProblem.expired_token(), times=1)):
        assert len(ids(read(made(server, access_token=None)))) == 9
    assert server.signed_in == 2


def test_a_wrong_secret_in_the_environment_is_told(server: AzureServer, in_environment: pytest.MonkeyPatch) -> None:
    """Not as if there were none: Microsoft's code is lost in the chain's own error."""
    in_environment.setenv("AZURE_CLIENT_SECRET", "old-secret")
    with pytest.raises(Unauthenticated, match="AADSTS7000215") as caught:
        read(made(server, access_token=None))
    assert "not its id" in caught.value.remedy
    assert "old-secret" not in repr(caught.value)


@pytest.mark.parametrize(
    ("host", "ca_file", "words"), [("https://127.0.0.1:1", True, "cannot connect"), (None, False, "TLS")]
)
def test_an_authority_that_the_chain_cannot_reach_is_unreachable(
    server: AzureServer, in_environment: pytest.MonkeyPatch, host: str | None, ca_file: bool, words: str
) -> None:
    """Credentials that could not be tried were not refused."""
    in_environment.setenv("AZURE_AUTHORITY_HOST", host or server.url)
    with pytest.raises(Unreachable, match=words):
        read(made(server, access_token=None, ca_file=server.ca_file if ca_file else None))


@pytest.mark.parametrize(("status", "error"), [(500, ServerFault), (503, ServerFault), (429, Throttled)])
@pytest.mark.usefixtures("in_environment")
def test_an_authority_that_fails_the_chain_is_tried_again(
    server: AzureServer, sleeps: list[float], status: int, error: type[ConnectorError]
) -> None:
    """What passes is not taken for missing credentials."""
    server.sign_in_error = (status, "temporarily_unavailable", "later")
    with pytest.raises(error):
        read(made(server, access_token=None))
    assert len(sleeps) == connectors.retry.ATTEMPTS - 1


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureServer]:
    """A tenant, and the metadata service of one of its machines (which speaks plain http)."""
    with AzureServer(tls=False) as server:
        server.subscription(ONE, "One")
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.url)
        yield server


@pytest.mark.parametrize("options", [{}, {"client_id": "user-assigned"}, {"tenant_id": "acme.example"}])
def test_a_managed_identity_signs_in(machine: AzureServer, options: dict[str, Any]) -> None:
    """The machine's own, or the one that `client_id` names."""
    machine.identities = {options.get("client_id", ""): 200}
    assert ids(read(made(machine, ca_file=None, access_token=None, **options)))
    assert machine.signed_in == 1


def test_a_managed_identity_goes_through_no_proxy(machine: AzureServer) -> None:
    """The metadata service is the machine's own: a proxy could not reach it, and would see the token."""
    machine.identities = {"": 200}
    assert ids(read(made(machine, ca_file=None, access_token=None, proxy="http://127.0.0.1:1")))


def test_an_identity_that_the_machine_has_not_is_none(machine: AzureServer) -> None:
    """Another identity than the one asked for is never taken."""
    machine.identities = {"": 200}
    with pytest.raises(Unauthenticated, match="no usable credentials"):
        read(made(machine, ca_file=None, access_token=None, client_id="another"))
    assert machine.signed_in == 0


@pytest.mark.parametrize(
    ("status", "error"), [(500, ServerFault), (410, ServerFault), (429, Throttled), (404, Unauthenticated)]
)
def test_a_metadata_service_that_fails_is_a_fault(
    machine: AzureServer, sleeps: list[float], status: int, error: type[ConnectorError]
) -> None:
    """What passes is tried again: 410 says that it is being renewed."""
    machine.identities = {"": status}
    with pytest.raises(error):
        read(made(machine, ca_file=None, access_token=None))
    assert bool(sleeps) == (error is not Unauthenticated)


def test_a_workload_identity_signs_in(server: AzureServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the cluster's token for the pod; the app and its tenant are the options'."""
    (tmp_path / "token").write_text("token-of-the-cluster")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    server.apps["pod"] = ""
    assert ids(read(made(server, access_token=None, client_id="pod", tenant_id="acme.example")))
    assert server.assertions == ["token-of-the-cluster"]
    assert set(server.tenants) == {"acme.example"}


@pytest.mark.parametrize("tenant", [None, "acme.example"])
def test_the_command_line_signs_in(
    server: AzureServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tenant: str | None
) -> None:
    """The Azure CLI is asked for a token of the tenant that the options name, if they do."""
    az = tmp_path / "az"
    told = {"accessToken": server.token, "expires_on": 4_000_000_000, "expiresOn": "2096-10-02 07:06:40.000000"}
    az.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/asked\necho '{json.dumps(told)}'\n")
    az.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ids(read(made(server, access_token=None, tenant_id=tenant)))
    assert ("--tenant acme.example" in (tmp_path / "asked").read_text()) == bool(tenant)


@pytest.mark.parametrize(
    "options",
    [
        {"client_secret": {"env": "A"}, "certificate": {"env": "B"}, "client_id": "c", "tenant_id": "t"},
        {"client_secret": {"env": "A"}, "client_id": "c"},
        {"client_secret": {"env": "A"}, "tenant_id": "t"},
        {"access_token": {"env": "A"}, "client_id": "c"},
        {"client_secret": "literal", "client_id": "c", "tenant_id": "t"},
        {"tenant_id": "a/../b"},
    ],
)
def test_one_way_to_sign_in(options: dict[str, Any]) -> None:
    """Credentials that contradict each other are refused."""
    with pytest.raises(ValidationError):
        AzureOptions.model_validate(options)


def test_a_ready_token_is_given_as_it_is(server: AzureServer) -> None:
    """And there is no other."""
    connector = made(server)
    ready = credential(connector.options)
    assert ready.get_token("x").token == server.token
    assert not ready.renew()


def test_the_transport_keeps_to_the_options(server: AzureServer) -> None:
    """Limit and bundle are the configured ones."""
    sent = transport(made(server, timeout="7s").options)
    assert (sent.connection_config.timeout, sent.connection_config.read_timeout) == (7, 7)
    assert sent.connection_config.verify == server.ca_file
    sent.close()


def test_a_proxy_is_used(server: AzureServer) -> None:
    """Requests go through it, or not at all."""
    with pytest.raises(Unreachable, match="cannot connect"):
        read(made(server, proxy="http://127.0.0.1:1"))
    assert server.requests == []


def test_signing_in_goes_through_the_proxy(server: AzureServer, as_app: dict[str, Any]) -> None:
    """The secret takes no other way."""
    with pytest.raises(Unreachable, match="sign-in: cannot connect"):
        read(made(server, **as_app, proxy="http://127.0.0.1:1"))
    assert server.signed_in == 0


@pytest.mark.parametrize("proxy", ["", "proxy", "socks5://proxy:1", "http://", "http://proxy:99999", "http://[::1"])
def test_a_proxy_that_is_none_is_misconfigured(server: AzureServer, proxy: str) -> None:
    """A typing error is not an unreachable network; nor does anything go around the proxy."""
    with pytest.raises(Misconfigured, match="proxy"):
        read(made(server, proxy=proxy))
    assert server.requests == []


def test_options_are_checked_without_the_sdk() -> None:
    """The daemon never imports azure."""
    code = (
        "import sys, connectors.azure as m; m.AzureOptions(subscriptions=['"
        + ONE
        + "']); print('azure' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_server_speaks_as_microsofts_description(server: AzureServer) -> None:
    """Requests and answers are those of the SDK's models, which are made from the published description."""
    from azure.mgmt.resourcegraph.models import QueryRequest, QueryRequestOptions, QueryResponse

    answers: list[dict[str, Any]] = []
    with server.broken("resources", 1, Answer(change=lambda document: answers.append(dict(document)))):
        read(made(server))

    def keys(model: Any) -> set[str]:
        return {attribute["key"] for attribute in model._attribute_map.values()}

    required = {QueryResponse._attribute_map[name]["key"] for name in QueryResponse._validation}
    assert required <= answers[0].keys() <= keys(QueryResponse)
    for asked in server.requests:
        assert asked.keys() <= keys(QueryRequest)
        assert asked["options"].keys() <= keys(QueryRequestOptions)
    assert answers[0]["count"] == len(answers[0]["data"]) == 3
    assert answers[0]["totalRecords"] == 7


# --- through to the database --------------------------------------------------------------------------------------------


def test_a_subscription_that_is_no_longer_seen_keeps_its_rows(server: AzureServer, tmp_path: Path) -> None:
    """Where none are named, a lost right looks like a subscription that is gone: it is held until somebody looks."""
    with contextlib.closing(World(tmp_path, configuration(integration()))) as world:

        def run() -> str:
            world.runs += 1
            world.clock.now += 60
            path = tmp_path / f"{world.runs}.db"
            spool = SpoolWriter(path, clock=world.clock)
            with contextlib.closing(made(server)) as connector:
                list(poll(Job("aws", "integration", "azure", {}, [], str(path)), connector, spool))
            spool.finish([], None)
            return world.store.run("aws", path).state

        def rows() -> list[tuple[Any, ...]]:
            return world.query("SELECT key FROM resource ORDER BY 1")

        assert run() == "ok"
        before = rows()
        server.unseen.add(TWO)
        assert run() == "held"
        assert rows() == before
        server.unseen.clear()
        assert run() == "ok"
        assert rows() == before
