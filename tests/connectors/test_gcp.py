"""The `gcp` connector, and what it shares with others of Google's APIs: where the inventory and its client mislead."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import connectors.retry
from config.secrets import resolve
from connectors import google_api
from connectors.errors import (
    BadData,
    ConnectorError,
    Forbidden,
    Incomplete,
    Misconfigured,
    ServerFault,
    Throttled,
    Unauthenticated,
    Unreachable,
)
from connectors.gcp import Gcp, GcpOptions
from connectors.google_api import GoogleOptions
from connectors.google_assets import asset_of
from connectors.values import Resource
from tests.servers.google import CLOUD, Answer, GoogleProblem, Tunnel, description, method_of, nonconformity
from tests.servers.google_assets import MANAGER, ORGANIZATION, PERMISSION, AssetServer

OWNER = "123456789012/owner"
ROOT, FOLDER = f"{MANAGER}/{ORGANIZATION}", f"{MANAGER}/folders/42"
PAY = f"{MANAGER}/projects/acme-pay"
BUCKET, DISK = "//storage.googleapis.com/exports", "//compute.googleapis.com/projects/acme-pay/zones/z/disks/d"
LIST = f"/v1/{ORGANIZATION}:searchAllResources"
READER = "reader@acme-ops.iam.gserviceaccount.com"


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    return asked


@pytest.fixture
def server() -> Iterator[AssetServer]:
    """An organization, a folder, a project, two resources: three pages. It must stay within Google's description."""
    with AssetServer(page=2) as server:
        server.organization(displayName="acme.example")
        server.folder(42, ROOT, "Prod")
        server.project("acme-pay", 111, FOLDER)
        server.add(BUCKET, "storage.googleapis.com/Bucket", PAY, displayName="exports")
        server.add(DISK, "compute.googleapis.com/Disk", PAY, displayName="d", labels={"owner": "team-pay"})
        yield server
        assert server.problems == []


Make = Callable[..., Gcp]


@pytest.fixture
def make(server: AssetServer, tmp_path: Path) -> Iterator[Make]:
    """Builds connectors to the server, and closes them."""
    opened: list[Gcp] = []

    def one(**changes: Any) -> Gcp:
        told = {
            "scope": ORGANIZATION,
            "credentials_file": server.key_file,
            "endpoint": server.url,
            "ca_file": server.ca_file,
            "timeout": "10s",
        }
        if "access_token" in changes:
            (tmp_path / "token").write_text(changes["access_token"])
            changes |= {"access_token": {"file": str(tmp_path / "token")}, "credentials_file": None}
        options = GcpOptions.model_validate({k: v for k, v in {**told, **changes}.items() if v is not None})
        resolve(options)
        opened.append(Gcp(options))
        return opened[-1]

    yield one
    for connector in opened:
        connector.close()


def read(connector: Gcp) -> dict[str, Resource]:
    """All resources, by id."""
    return {r.id: r for scope in connector.scopes() for r in connector.read(scope) if isinstance(r, Resource)}


def failing(connector: Gcp) -> ConnectorError:
    """How a read ends."""
    with pytest.raises(ConnectorError) as caught:
        read(connector)
    return caught.value


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope", ["organizations/1", "folders/42", "projects/acme-pay", "projects/111", "projects/acme.example:old-one"]
)
def test_takes_the_scopes_there_are(make: Make, scope: str) -> None:
    """The scope is the one that is configured."""
    assert list(make(scope=scope).scopes()) == [scope]


@pytest.mark.parametrize(
    "scope",
    ["", "acme", "organizations/acme", "folders/", "projects/a/b", "projects/X", "projects/p?x=1", "folders/1\n"],
)
def test_refuses_what_is_no_scope(make: Make, scope: str) -> None:
    """What becomes part of a URL is held against its form."""
    with pytest.raises(ValidationError, match="scope"):
        make(scope=scope)


def test_one_login_only(make: Make, server: AssetServer) -> None:
    """A token beside a key would leave open who reads."""
    with pytest.raises(ValidationError, match="not both"):
        GcpOptions.model_validate(
            {"scope": ORGANIZATION, "credentials_file": server.key_file, "access_token": {"env": "X"}}
        )


@pytest.mark.parametrize("who", ["ada@acme.example", "x/../y@a.gserviceaccount.com", "reader"])
def test_impersonates_service_accounts_only(make: Make, who: str) -> None:
    """Nothing else can be impersonated, and the name becomes part of a URL."""
    with pytest.raises(ValidationError, match="impersonate"):
        make(impersonate=who)


# --- tags -------------------------------------------------------------------------------------------------------------


def test_a_label_and_a_tag_of_one_name_stand_side_by_side(make: Make, server: AssetServer) -> None:
    """Both are tags: the label by its key, the tag by its namespaced one, with its short value."""
    name = server.add(
        "//x.googleapis.com/a", "x/A", PAY, labels={"owner": "l"}, tags={OWNER: "t", "acme-pay/owner": "p"}
    )
    assert read(make())[name].tags == {"owner": "l", OWNER: "t", "acme-pay/owner": "p"}


@pytest.mark.parametrize("by_number", [True, False])
def test_what_a_listed_ancestor_has_is_not_the_resources_own(make: Make, server: AssetServer, by_number: bool) -> None:
    """The inventory tells inherited tags on the resource; they stay where they hang, so that provenance is right."""
    server.attached_by_number = by_number
    server.project("acme-shop", 222, FOLDER, tags={OWNER: "shop", "1/env": "prod"})
    name = server.add("//x.googleapis.com/a", "x/A", f"{MANAGER}/projects/acme-shop", tags={"1/env": "test"})
    found = read(make())
    assert found[name].tags == {"1/env": "test"}
    assert found[f"{MANAGER}/projects/acme-shop"].tags == {OWNER: "shop", "1/env": "prod"}


def test_a_tag_above_the_scope_is_kept(make: Make, server: AssetServer) -> None:
    """Nothing else that is read tells of it: without it, an owner would be missed."""
    server.remove(ROOT)
    server.organization(displayName="acme.example", tags={OWNER: "everybody", "1/env": "all"})
    found = read(make(scope="folders/42"))
    assert ROOT not in found
    assert found[FOLDER].tags == found[PAY].tags == found[BUCKET].tags == {OWNER: "everybody", "1/env": "all"}


def test_a_nearer_tag_hides_one_above_the_scope(make: Make, server: AssetServer) -> None:
    """Of one key only the lowest value holds: what hangs on a listed project is inherited from there."""
    server.remove(ROOT)
    server.organization(displayName="acme.example", tags={OWNER: "everybody"})
    server.project("acme-shop", 222, FOLDER, tags={OWNER: "shop"})
    name = server.add("//x.googleapis.com/a", "x/A", f"{MANAGER}/projects/acme-shop")
    assert read(make(scope="folders/42"))[name].tags == {}


def test_a_tag_on_what_is_no_project_or_folder_is_kept(make: Make, server: AssetServer) -> None:
    """Whether a dataset is listed is not known when its table comes."""
    dataset = server.add("//bigquery.googleapis.com/d", "bigquery.googleapis.com/Dataset", PAY, tags={OWNER: "data"})
    table = server.add(f"{dataset}/tables/t", "bigquery.googleapis.com/Table", dataset)
    found = read(make())
    assert (found[table].parent, found[table].tags) == (dataset, {OWNER: "data"})


def test_what_has_no_parent_keeps_all_tags_that_hold(make: Make, server: AssetServer) -> None:
    """Where there is no way up, nothing can be inherited."""
    name = server.add("//x.googleapis.com/a", "x/A", PAY)
    for key in ("parentFullResourceName", "project", "organization"):
        del server.rows[name][key]
    server.rows[name]["folders"] = ["folders/42", "folders/43"]
    server._attached[PAY] = {OWNER: "pay"}
    found = read(make(scope="folders/42"))[name]
    assert (found.parent, found.tags) == (None, {OWNER: "pay"})


def test_a_direct_tag_wins_over_what_the_index_still_says(make: Make, server: AssetServer) -> None:
    """The two fields may be of different moments."""

    def stale(document: dict[str, Any]) -> dict[str, Any]:
        for row in document["results"]:
            tag = {"tagKey": OWNER, "tagValue": f"{OWNER}/old"}
            row["effectiveTags"] = [{"attachedResource": row["name"], "effectiveTags": [tag]}]
            row["tags"] = [{"tagKey": OWNER, "tagValue": f"{OWNER}/new"}]
        return document

    with server.broken(LIST, 3, Answer(change=stale)):
        assert read(make())[DISK].tags[OWNER] == "new"


# --- ids, names, parents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_number", [True, False])
def test_parents_lead_to_the_organization(make: Make, server: AssetServer, by_number: bool) -> None:
    """Resource, project, folder, organization: each parent is a listed id, whether the inventory says id or number."""
    server.parents_by_number = by_number
    found = read(make())
    way = [BUCKET]
    while parent := found[way[-1]].parent:
        way.append(parent)
    assert way == [BUCKET, PAY, FOLDER, ROOT]


def test_an_unknown_number_stays(make: Make, server: AssetServer) -> None:
    """A parent that is not listed is told as the inventory tells it."""
    server.rows[DISK]["parentFullResourceName"] = f"{MANAGER}/projects/999"
    assert read(make())[DISK].parent == f"{MANAGER}/projects/999"


@pytest.mark.parametrize(
    ("without", "parent"),
    [
        ([], PAY),
        (["project"], FOLDER),
        (["project", "folders"], ROOT),
        (["project", "folders", "organization"], None),
    ],
)
def test_where_no_parent_is_named_the_nearest_known_is(
    make: Make, server: AssetServer, without: list[str], parent: str | None
) -> None:
    """Some types come without a parent, and yet belong to a project."""

    def less(document: dict[str, Any]) -> dict[str, Any]:
        for row in document["results"]:
            for key in ["parentFullResourceName", *without]:
                row.pop(key, None)
        return document

    with server.broken(LIST, 3, Answer(change=less)):
        assert read(make())[DISK].parent == parent


def test_a_project_is_not_its_own_parent(make: Make, server: AssetServer) -> None:
    """A project's row names its own number as the project."""
    del server.rows[PAY]["parentFullResourceName"]
    assert read(make())[PAY].parent == FOLDER


def test_cloud_sql_goes_by_the_name_of_iam(make: Make, server: AssetServer) -> None:
    """The instance's id is rewritten, where it is a parent, too; what is under it keeps its own."""
    sql = server.add(
        "//cloudsql.googleapis.com/projects/acme-pay/instances/db", "sqladmin.googleapis.com/Instance", PAY
    )
    run = server.add(f"{sql}/backupRuns/1", "sqladmin.googleapis.com/BackupRun", sql)
    found = read(make())
    assert sql not in found
    assert found["//sqladmin.googleapis.com/projects/acme-pay/instances/db"].parent == PAY
    assert found[run].parent == "//sqladmin.googleapis.com/projects/acme-pay/instances/db"


def test_a_terraform_state_names_it_alike(make: Make, server: AssetServer) -> None:
    """What a state and the inventory say of one resource is one id."""
    server.add("//cloudsql.googleapis.com/projects/acme-pay/instances/db", "sqladmin.googleapis.com/Instance", PAY)
    instance = asset_of("google_sql_database_instance", {"project": "acme-pay", "name": "db"})
    project = asset_of("google_project", {"project_id": "acme-pay", "folder_id": "folders/42"})
    assert instance and project
    found = read(make())
    for asset in (instance, project):
        same = found[asset.id]
        assert (same.type, same.name, same.parent) == (
            asset.type,
            asset.name if asset is instance else "acme-pay",
            asset.parent,
        )


@pytest.mark.parametrize(
    ("display", "name"),
    [
        (None, "b"),
        ("", "b"),
        ("projects/p/a/b", "b"),
        ("CPU / Memory", "CPU / Memory"),
        ("a", "a"),
    ],
)
def test_names(make: Make, server: AssetServer, display: str | None, name: str) -> None:
    """The display name, unless it is the path; without one, the last part of the id."""
    more: dict[str, Any] = {} if display is None else {"displayName": display}
    id_ = server.add("//x.googleapis.com/projects/p/a/b", "x/A", PAY, **more)
    assert read(make())[id_].name == name


# --- pages ------------------------------------------------------------------------------------------------------------


def test_asks_for_full_pages_of_what_is_needed(make: Make, server: AssetServer) -> None:
    """500 a page, with effective tags, which come only if asked for; one login for all of it."""
    server.page = 500
    read(make())
    asked = [r for r in server.requests if ":searchAllResources" in r]
    assert len(asked) == 2
    assert all("pageSize=500" in r for r in asked)
    assert "effectiveTags" in asked[1]
    assert server.tokens_issued == 1


def test_an_empty_page_is_not_the_end(make: Make, server: AssetServer) -> None:
    """A page may hold nothing and still have a next."""

    def none(document: dict[str, Any]) -> dict[str, Any]:
        return {"nextPageToken": document["nextPageToken"]}

    with server.broken(LIST, 2, Answer(change=none)):
        assert read(make()).keys() == {ROOT, FOLDER, DISK}


def test_nothing_at_all_is_a_failure(make: Make, server: AssetServer) -> None:
    """A scope holds at least itself: an inventory that lists nothing has not answered."""
    server.rows.clear()
    assert isinstance(failing(make()), Incomplete)


def test_a_token_that_comes_twice_ends_the_first_list_too(make: Make, server: AssetServer) -> None:
    """The list of projects is guarded like the other."""
    with server.broken(LIST, -1, Answer(repeat=True)):
        assert isinstance(failing(make()), Incomplete)


def test_tokens_too_long_for_a_url(make: Make, server: AssetServer) -> None:
    """The client then sends a POST that stands for a GET; the list is whole, and retries work."""
    server.token_length = 4000
    with server.broken(LIST, 2, Answer.of(GoogleProblem(503, "later"), times=1)):
        assert len(read(make())) == 5
    assert any(r.startswith("POST /v1/org") for r in server.requests)


# --- throttling -------------------------------------------------------------------------------------------------------


def wait_of(problem: GoogleProblem, make: Make, server: AssetServer, sleeps: list[float]) -> list[float]:
    with server.broken(LIST, 2, Answer.of(problem, times=1)):
        assert len(read(make())) == 5
    return sleeps


def test_waits_as_long_as_the_header_says(make: Make, server: AssetServer, sleeps: list[float]) -> None:
    """Retry-After is kept to."""
    assert wait_of(GoogleProblem(429, "Quota", headers={"Retry-After": "7"}), make, server, sleeps) == [7.0]


def test_waits_as_long_as_the_details_say(make: Make, server: AssetServer, sleeps: list[float]) -> None:
    """So is google.rpc.RetryInfo, without a header."""
    assert wait_of(GoogleProblem(429, "Quota", retry_delay="12.5s"), make, server, sleeps) == [12.5]


@pytest.mark.parametrize("reason", ["rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"])
def test_a_403_for_the_rate_is_no_refusal(make: Make, server: AssetServer, sleeps: list[float], reason: str) -> None:
    """The older form of errors tells quotas by 403: it passes."""
    assert len(wait_of(GoogleProblem.old(403, "Quota exceeded", reason), make, server, sleeps)) == 1


def test_a_long_wait_fails_the_scope(make: Make, server: AssetServer, sleeps: list[float]) -> None:
    """An hour is for the scheduler to wait."""
    with server.broken(LIST, 2, Answer.of(GoogleProblem(429, "Quota", headers={"Retry-After": "3600"}))):
        error = failing(make())
    assert isinstance(error, Throttled)
    assert (error.retry_after, sleeps) == (3600.0, [])


def test_a_503_that_names_a_time_is_waited_for(make: Make, server: AssetServer, sleeps: list[float]) -> None:
    """Retry-After means the same with 503."""
    assert wait_of(GoogleProblem(503, "busy", headers={"Retry-After": "9"}), make, server, sleeps) == [9.0]


# --- credentials ------------------------------------------------------------------------------------------------------


def test_a_token_that_ends_in_the_middle_is_renewed_once(make: Make, server: AssetServer) -> None:
    """What the client believes of its token's time does not count: a 401 renews it, and the list is whole."""
    with server.broken(LIST, 2, Answer(before=server.expire_tokens, right=True, times=1)):
        assert len(read(make())) == 5
    assert server.tokens_issued == 2


def test_a_key_that_is_revoked_in_the_middle(make: Make, server: AssetServer) -> None:
    """The renewal is refused: that is who we are, and is told with what to do."""
    with server.broken(LIST, 2, Answer(before=server.revoke, right=True)):
        error = failing(make())
    assert isinstance(error, Unauthenticated)
    assert "invalid_grant" in error.message
    assert "clock" in error.remedy


def test_a_refusal_after_renewal_is_final(make: Make, server: AssetServer, sleeps: list[float]) -> None:
    """One renewal, no retries."""
    with server.broken(LIST, 2, Answer.of(GoogleProblem(401, "Request had invalid authentication credentials."))):
        assert isinstance(failing(make()), Unauthenticated)
    assert server.tokens_issued == 2
    assert sleeps == []


def test_an_access_token_is_used_as_it_is(make: Make, server: AssetServer) -> None:
    """No token is asked for, and one that ends is told."""
    assert len(read(make(access_token=server.token + "\n"))) == 5
    assert set(server.authorizations) == {f"Bearer {server.token}"}
    with server.broken(LIST, 2, Answer(before=server.revoke, right=True)):
        error = failing(make(access_token=server.token))
    assert isinstance(error, Unauthenticated)
    assert server.tokens_issued == 0


def test_the_token_endpoint_is_asked_again(make: Make, server: AssetServer, sleeps: list[float]) -> None:
    """Its failures are waited for by us, not by the SDK, which would sleep on its own."""
    with server.broken("/token", 1, Answer(503, b"", times=2)):
        assert len(read(make())) == 5
    assert len(sleeps) == 2


@pytest.mark.parametrize(
    "answer",
    [Answer(500, b"oops"), Answer(200), Answer(200, b"<html>"), Answer(200, b"[]"), Answer(cut=True)],
    ids=["500", "empty", "html", "list", "cut"],
)
def test_a_token_endpoint_that_fails_for_good(make: Make, server: AssetServer, answer: Answer) -> None:
    """It is the server's fault, never an empty token."""
    with server.broken("/token", 1, answer):
        error = failing(make())
    assert isinstance(error, ServerFault)
    assert "access token" in error.message or "/token" in error.message


def test_a_token_endpoint_that_throttles(make: Make, server: AssetServer, sleeps: list[float]) -> None:
    """Its Retry-After counts as well."""
    with server.broken("/token", 1, Answer(429, b"{}", {"Retry-After": "11"}, times=1)):
        assert len(read(make())) == 5
    assert sleeps == [11.0]


def test_default_credentials_are_found(make: Make, server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an option, GOOGLE_APPLICATION_CREDENTIALS tells the file."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", server.key_file)
    assert len(read(make(credentials_file=None))) == 5


def test_no_default_credentials(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nowhere to find any is a matter of configuration."""
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    error = failing(make(credentials_file=None))
    assert isinstance(error, Misconfigured)
    assert "credentials_file" in error.remedy


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "is no JSON"),
        (b"[]", "is no JSON"),
        (b'{"type": "martian"}', "martian"),
        (b'{"type": "service_account"}', "client_email"),
        (
            b'{"type": "service_account", "client_email": "a", "token_uri": "b", "private_key": "SEKRET-KEY"}',
            "no usable private key",
        ),
        (b"\xff\xfe", "is no JSON"),
    ],
)
def test_a_credentials_file_that_is_none(make: Make, tmp_path: Path, content: bytes | None, said: str) -> None:
    """What is wrong with it is told, and nothing of what it holds."""
    path = tmp_path / "key.json"
    if content is not None:
        path.write_bytes(content)
    error = failing(make(credentials_file=str(path)))
    assert isinstance(error, Misconfigured)
    assert said in error.message
    assert str(path) in error.message
    assert "SEKRET" not in "".join(traceback.format_exception(error))


def test_a_token_that_cannot_be_sent_is_not_shown(make: Make) -> None:
    """A line break in it would otherwise come back in the HTTP client's error."""
    error = failing(make(access_token="ya29.SEKRET\nmore"))
    assert isinstance(error, Misconfigured)
    assert "SEKRET" not in "".join(traceback.format_exception(error))


def test_secrets_are_in_no_error(make: Make, server: AssetServer) -> None:
    """Whatever fails, neither token nor key is in the message, the repr, or a traceback."""
    secret = server.key["private_key"].splitlines()[1]
    for answer in (
        Answer.of(GoogleProblem(401, "no")),
        Answer.of(GoogleProblem(403, "no")),
        Answer(200, b"<html>"),
        Answer(cut=True),
        Answer(302, b"", {"Location": "https://elsewhere.example/"}),
    ):
        for more in ({}, {"access_token": server.token}):
            with server.broken(LIST, 2, answer):
                told = "".join(traceback.format_exception(failing(make(**more))))
            assert secret not in told
            assert "ya29" not in told


# --- other people's credentials ---------------------------------------------------------------------------------------


def test_impersonates_through_a_proxy(make: Make, server: AssetServer) -> None:
    """Google's own hosts, by name, through the proxy; no host but the three that are needed."""
    server.impersonable, server.readers = {READER}, {READER}
    with Tunnel(server) as tunnel:
        found = read(make(impersonate=READER, proxy=tunnel.url, endpoint=None))
    assert len(found) == 5
    assert set(tunnel.hosts) == {
        server.url.removeprefix("https://"),
        "iamcredentials.googleapis.com:443",
        "cloudasset.googleapis.com:443",
    }


def test_an_impersonated_token_is_renewed(make: Make, server: AssetServer) -> None:
    """It ends in the middle: IAM is asked for another, with the source's token, and the list is whole."""
    server.impersonable, server.readers = {READER}, {READER}
    ending = Answer(before=lambda: server.expire_tokens(READER), right=True, times=1)
    with Tunnel(server) as tunnel, server.broken(LIST, 2, ending):
        assert len(read(make(impersonate=READER, proxy=tunnel.url, endpoint=None))) == 5
    assert server.tokens_issued == 3


def test_who_may_not_impersonate_is_told(make: Make, server: AssetServer) -> None:
    """The permission is IAM's, and the role that has it is named."""
    with Tunnel(server) as tunnel:
        error = failing(make(impersonate=READER, proxy=tunnel.url, endpoint=None))
    assert isinstance(error, Forbidden)
    assert error.permission == "iam.serviceAccounts.getAccessToken"
    assert "roles/iam.serviceAccountTokenCreator" in error.remedy


def test_the_environments_proxy_is_used(make: Make, server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY, unless NO_PROXY has the host."""
    with Tunnel(server) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert len(read(make(endpoint=None))) == 5
        assert set(tunnel.hosts) == {"cloudasset.googleapis.com:443"}


def test_a_proxy_that_wants_a_login(make: Make, server: AssetServer) -> None:
    """It gets the one in the URL; a wrong one is no secret told."""
    with Tunnel(server, login="ada:right") as tunnel:
        host = tunnel.url.removeprefix("http://")
        assert len(read(make(proxy=f"http://ada:right@{host}"))) == 5
        error = failing(make(proxy=f"http://ada:SEKRET@{host}"))
    assert isinstance(error, Unreachable)
    assert "proxy" in error.message
    assert "SEKRET" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("proxy", ["proxy.example:3128", "socks5://127.0.0.1:1", "http://"])
def test_a_proxy_that_is_no_url(make: Make, proxy: str) -> None:
    """It is never gone past."""
    assert isinstance(failing(make(proxy=proxy)), Misconfigured)


# --- what may not be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "command"),
    [
        (ORGANIZATION, "gcloud organizations add-iam-policy-binding 123456789012"),
        ("folders/42", "gcloud resource-manager folders add-iam-policy-binding 42"),
        ("projects/acme-pay", "gcloud projects add-iam-policy-binding acme-pay"),
    ],
)
def test_a_denied_scope_names_permission_and_command(
    make: Make, server: AssetServer, sleeps: list[float], scope: str, command: str
) -> None:
    """The remedy can be pasted; nothing is tried again."""
    server.denied = {scope}
    error = failing(make(scope=scope))
    assert isinstance(error, Forbidden)
    assert error.permission == PERMISSION
    assert PERMISSION in error.message
    assert scope in error.message
    assert error.remedy == f"{command} --member=serviceAccount:{server.email} --role=roles/cloudasset.viewer"
    assert sleeps == []


def test_of_a_bare_token_the_holder_is_not_known(make: Make, server: AssetServer) -> None:
    """The command then has a word to replace."""
    server.denied = {ORGANIZATION}
    assert "--member=MEMBER " in failing(make(access_token=server.token)).remedy


def test_an_api_that_is_not_enabled(make: Make, server: AssetServer) -> None:
    """The command that enables it is Google's own words about service and project."""
    server.enabled = False
    error = failing(make())
    assert isinstance(error, Misconfigured)
    assert error.remedy == "gcloud services enable cloudasset.googleapis.com --project=987654321"


@pytest.mark.parametrize("project", ["$(reboot)", "1; rm -rf /", "x\ny"])
def test_no_command_is_made_of_strange_words(make: Make, server: AssetServer, project: str) -> None:
    """What is to be pasted into a shell holds only what project names hold."""
    with server.broken(LIST, 1, Answer.of(GoogleProblem.disabled("cloudasset.googleapis.com", project))):
        error = failing(make())
    assert isinstance(error, Misconfigured)
    assert project not in error.remedy
    assert error.remedy.endswith("gcloud services enable NAME")


def test_the_older_word_for_a_disabled_api(make: Make, server: AssetServer) -> None:
    """`accessNotConfigured` is the same."""
    with server.broken(LIST, 1, Answer.of(GoogleProblem.old(403, "not configured", "accessNotConfigured"))):
        assert isinstance(failing(make()), Misconfigured)


def test_a_token_with_too_narrow_a_scope(make: Make, server: AssetServer) -> None:
    """Of a virtual machine's token, not the role is missing."""
    server.grant("ya29.narrow", "https://www.googleapis.com/auth/userinfo.email")
    error = failing(make(access_token="ya29.narrow"))
    assert isinstance(error, Forbidden)
    assert "OAuth scope" in error.message


# --- answers that are none --------------------------------------------------------------------------------------------


def rows_with(**fields: Any) -> Answer:
    def change(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "results": [{**row, **fields} for row in document["results"]]}

    return Answer(change=change)


@pytest.mark.parametrize(
    "answer",
    [
        rows_with(name=None),
        rows_with(name=""),
        rows_with(name=7),
        rows_with(name="projects/p"),
        rows_with(assetType=None),
        rows_with(labels=[]),
        rows_with(labels={"a": 1}),
        rows_with(tags={}),
        rows_with(tags=["a"]),
        rows_with(tags=[{"tagKey": "1/a"}]),
        rows_with(tags=[{"tagKey": "1/a", "tagValue": "1/b/c"}]),
        rows_with(effectiveTags="x"),
        rows_with(effectiveTags=[7]),
        rows_with(effectiveTags=[{"attachedResource": 7}]),
        rows_with(effectiveTags=[{"attachedResource": "//x", "effectiveTags": [{}]}]),
        rows_with(parentFullResourceName=["x"]),
        rows_with(folders="folders/1"),
        rows_with(displayName={}),
        Answer(change=lambda d: {**d, "results": {}}),
        Answer(change=lambda d: {**d, "results": ["x"]}),
        Answer(change=lambda d: {**d, "nextPageToken": 7}),
        Answer(302, b"", {"Location": "https://elsewhere.example/"}),
        Answer(418, b"teapot"),
    ],
)
def test_an_answer_of_another_shape_fails_the_scope(make: Make, server: AssetServer, answer: Answer) -> None:
    """What is not understood is not left out."""
    with server.broken(LIST, 3, answer):
        assert isinstance(failing(make()), BadData)


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"null", b"[]", b'"x"', b'{"results": [', b"7"])
def test_a_page_that_is_no_object(make: Make, server: AssetServer, sleeps: list[float], body: bytes) -> None:
    """HTML, or JSON of another kind, is no empty list."""
    with server.broken(LIST, 3, Answer(200, body)):
        assert isinstance(failing(make()), ServerFault)


def test_an_endpoint_that_is_another_server(make: Make, server: AssetServer) -> None:
    """A 404 is a matter of configuration."""
    assert isinstance(failing(make(endpoint=f"{server.url}/elsewhere")), Misconfigured)


def test_a_page_token_that_ended_is_no_end(make: Make, server: AssetServer) -> None:
    """A 400 in the middle fails the scope."""
    with server.broken(LIST, 2, Answer.of(GoogleProblem(400, "The page token is invalid."))):
        error = failing(make())
    assert isinstance(error, BadData)
    assert "page token" in error.message


def test_what_a_server_says_is_made_fit_for_a_line(make: Make, server: AssetServer) -> None:
    """Control characters and length do not reach a message."""
    with server.broken(LIST, 2, Answer.of(GoogleProblem(403, "no\x1b[31m\n" + "x" * 10_000))):
        message = failing(make()).message
    assert message.isprintable()
    assert len(message) < 600


# --- the network ------------------------------------------------------------------------------------------------------


def test_a_stranger_is_not_trusted(make: Make) -> None:
    """Without the private authority's file, TLS fails, and the remedy says so."""
    error = failing(make(ca_file=None))
    assert isinstance(error, Unreachable)
    assert "ca_file" in error.remedy


def test_a_bundle_that_is_not_there(make: Make) -> None:
    """That is told as what it is."""
    error = failing(make(ca_file="/nowhere.pem"))
    assert isinstance(error, Misconfigured)
    assert "/nowhere.pem" in error.message


def test_silence_ends(make: Make, server: AssetServer) -> None:
    """A server that says nothing is waited for as long as configured, not longer."""
    with server.broken(LIST, 2, Answer(stall=True)):
        error = failing(make(timeout="200ms"))
    assert isinstance(error, Unreachable)
    assert "no answer in 0.2 s" in error.message


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_asks_for_one_resource(make: Make, server: AssetServer) -> None:
    """It is cheap, however large the scope."""
    server.page = 500
    lines = list(make().check())
    assert [(line.what, line.ok, line.detail) for line in lines] == [(f"read {ORGANIZATION}", True, "")]
    asked = [r for r in server.requests if ":searchAllResources" in r]
    assert len(asked) == 1
    assert "pageSize=1" in asked[0]


def test_check_names_what_is_missing(make: Make, server: AssetServer) -> None:
    """The permission, and the command that grants it."""
    server.denied = {ORGANIZATION}
    [line] = make().check()
    assert not line.ok
    assert PERMISSION in line.detail
    assert line.remedy.startswith("gcloud organizations add-iam-policy-binding")


def test_close_before_anything(make: Make) -> None:
    """Nothing is open then."""
    make().close()


# --- what Google's connectors share -----------------------------------------------------------------------------------


def google_options(server: AssetServer, **more: Any) -> GoogleOptions:
    told = {"credentials_file": server.key_file, "endpoint": server.url, "ca_file": server.ca_file, **more}
    return GoogleOptions.model_validate({k: v for k, v in told.items() if v is not None})


def call_as(server: AssetServer, options: GoogleOptions, subject: str) -> Any:
    login = google_api.credentials(options, [CLOUD], subject=subject)
    transport = google_api.http(options, login)
    try:
        inventory = google_api.service(options, "cloudasset", "v1", transport)
        return google_api.execute(inventory.v1().searchAllResources(scope=ORGANIZATION), "here", PERMISSION)
    finally:
        transport.close()


def test_a_service_account_acts_as_a_user(server: AssetServer) -> None:
    """By domain-wide delegation: the token is the user's. Document and headers come back."""
    server.delegated = {CLOUD}
    answer = call_as(server, google_options(server), "ada@acme.example")
    assert [g.subject for g in server._tokens.values()] == ["", "ada@acme.example"]
    assert len(answer.body["results"]) == 2
    assert answer.headers["content-type"].startswith("application/json")


def test_delegation_that_was_not_granted(server: AssetServer) -> None:
    """Google says `unauthorized_client`; the remedy says where to delegate."""
    with pytest.raises(Forbidden) as caught:
        call_as(server, google_options(server), "ada@acme.example")
    assert "Admin console" in caught.value.remedy


def test_only_a_service_account_acts_as_a_user(server: AssetServer, tmp_path: Path) -> None:
    """A token is somebody's already."""
    (tmp_path / "t").write_text(server.token)
    options = google_options(server, credentials_file=None, access_token={"file": str(tmp_path / "t")})
    resolve(options)
    with pytest.raises(Misconfigured, match="subject"):
        call_as(server, options, "ada@acme.example")


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "wrong"),
    [
        ({}, ""),
        ({"results": [{"name": "//x", "labels": {"a": "b"}, "folders": ["folders/1"]}]}, ""),
        ({"results": [{"nam": "//x"}]}, "$.results[0] has nam"),
        ({"results": [{"labels": {"a": 1}}]}, "$.results[0].labels.a is no string"),
        ({"results": [{"effectiveTags": [{"effectiveTags": [{"key": "x"}]}]}]}, "has key"),
        ({"results": {}}, "$.results is no array"),
        ({"nextPageToken": 1}, "$.nextPageToken is no string"),
    ],
)
def test_answers_are_held_against_googles_description(document: Any, wrong: str) -> None:
    """The test server cannot answer what Google's description does not have."""
    api = description("cloudasset", "v1")
    found = nonconformity(api, method_of(api, "cloudasset.searchAllResources")["response"], document)
    assert found == "" if not wrong else wrong in found


def test_requests_are_held_against_it_too(make: Make, server: AssetServer) -> None:
    """A parameter that the method has not is refused, and told."""
    connector = make()
    connector._service()
    assert connector._http
    status, body = connector._http.request(f"{server.url}{LIST}?pagesize=1")
    assert status.status == 400
    assert "pagesize" in json.loads(body)["error"]["message"]
    assert server.problems == ["cloudasset.searchAllResources: parameter pagesize=['1']"]
    server.problems.clear()
