"""The `google_workspace` connector: where the Directory API and its logins mislead."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

import connectors.google_workspace
import connectors.retry
from config.secrets import resolve
from connectors.errors import (
    BadData,
    ConnectorError,
    Forbidden,
    Incomplete,
    Misconfigured,
    ServerFault,
    Throttled,
    Unauthenticated,
)
from connectors.google_workspace import (
    ASSIGNMENTS,
    AT_ONCE,
    DIRECTORY,
    GROUPS,
    MEMBERS,
    ROLE_LIST,
    ROLES,
    USERS,
    GoogleWorkspace,
    GoogleWorkspaceOptions,
    Listing,
)
from connectors.values import Kind, Members, Principal, Record, Ref
from tests.servers.google import Answer, GoogleProblem, description, method_of
from tests.servers.google_directory import (
    ACCOUNT,
    ADMIN,
    AUTH,
    BASE,
    FORBIDDEN,
    READ_GROUPS,
    READ_ROLES,
    READ_USERS,
    DirectoryServer,
)

ADA, BO, EVE = "101", "102", "103"
PAY, OPS, ALL = "01pay", "02ops", "03all"
ADMIN_ROLE = "9001"
EVERYONE = Ref(Kind.GROUP, ACCOUNT)


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    return asked


@pytest.fixture
def server() -> Iterator[DirectoryServer]:
    """Three users, two groups, a role. It must stay within Google's description, and so must what it is asked."""
    with DirectoryServer() as server:
        server.user(ADA, ADMIN, "Ada Lovelace")
        server.user(BO, "bo@acme.example", "Bo Ek")
        server.user(EVE, "eve@acme.example", "Eve", suspended=True)
        server.group(PAY, "pay@acme.example", "Team Payments")
        server.group(OPS, "ops@acme.example", "Ops")
        server.member(PAY, ADA, BO)
        server.member(OPS, PAY, EVE)
        server.role(ADMIN_ROLE, "_SEED_ADMIN_ROLE", isSystemRole=True)
        server.assign(ADMIN_ROLE, ADA)
        yield server
        assert server.problems == []


Make = Callable[..., GoogleWorkspace]


@pytest.fixture
def make(server: DirectoryServer, tmp_path: Path) -> Iterator[Make]:
    """Builds connectors to the server, and closes them."""
    opened: list[GoogleWorkspace] = []

    def one(**changes: Any) -> GoogleWorkspace:
        told = {
            "credentials_file": server.key_file,
            "subject": ADMIN,
            "endpoint": server.url,
            "ca_file": server.ca_file,
            "timeout": "10s",
        }
        if "access_token" in changes:
            (tmp_path / "token").write_text(changes["access_token"])
            token = {"access_token": {"file": str(tmp_path / "token")}}
            changes = {"credentials_file": None, "subject": None, **changes, **token}
        options = GoogleWorkspaceOptions.model_validate({k: v for k, v in {**told, **changes}.items() if v is not None})
        resolve(options)
        opened.append(GoogleWorkspace(options))
        return opened[-1]

    yield one
    for connector in opened:
        connector.close()


def read(connector: GoogleWorkspace, scope: str = DIRECTORY) -> list[Record]:
    return list(connector.read(scope))


def principals(records: list[Record]) -> dict[str, Principal]:
    """All principals, by id; none may come twice."""
    found = [r for r in records if isinstance(r, Principal)]
    assert len({p.ref for p in found}) == len(found)
    return {p.id: p for p in found}


def members(records: list[Record]) -> dict[str, set[Ref]]:
    """The members of each group and role that had any records of them."""
    found: dict[str, set[Ref]] = {}
    for record in records:
        if isinstance(record, Members):
            found.setdefault(record.group.id, set()).update(record.members)
    return found


def failing(connector: GoogleWorkspace, scope: str = DIRECTORY) -> ConnectorError:
    """How a read ends."""
    with pytest.raises(ConnectorError) as caught:
        read(connector, scope)
    return caught.value


def path(group: str) -> str:
    return f"{BASE}/groups/{group}/members"


def users(*ids: str) -> set[Ref]:
    return {Ref(Kind.USER, id_) for id_ in ids}


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("customer", ["", "acme.example", "C03/../x", "c03az79cb", "my_customer\n", "C 1"])
def test_refuses_what_is_no_account(make: Make, customer: str) -> None:
    """What becomes part of a URL is held against its form."""
    with pytest.raises(ValidationError, match="customer"):
        make(customer=customer)


@pytest.mark.parametrize("subject", ["ada", "a b@acme.example", "a@b@c", "@"])
def test_refuses_a_subject_that_is_no_address(make: Make, subject: str) -> None:
    """A user is impersonated by e-mail."""
    with pytest.raises(ValidationError, match="subject"):
        make(subject=subject)


def test_an_access_token_acts_as_nobody_else(make: Make) -> None:
    """With a subject beside a token, who reads would not be who is configured."""
    error = failing(make(access_token="ya29.x", subject=ADMIN))
    assert isinstance(error, Misconfigured)
    assert "subject" in error.message


# --- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listing", [USERS, GROUPS, MEMBERS, ROLE_LIST, ASSIGNMENTS], ids=lambda x: x.resource)
def test_what_is_asked_for_exists(listing: Listing) -> None:
    """Every field, the kind, the size of a page and the OAuth scope are in the description that Google ships."""
    api = description("admin", "directory_v1")
    method = method_of(api, f"directory.{listing.resource}.list")
    answer = api["schemas"][method["response"]["$ref"]]
    row = api["schemas"][answer["properties"][listing.rows]["items"]["$ref"]]
    assert set(listing.fields.split(",")) <= row["properties"].keys()
    assert answer["properties"]["kind"].get("default") == f"admin#directory#{listing.resource}"
    assert f"{AUTH}{listing.scope}" in method["scopes"]
    size = method["parameters"]["maxResults"]
    assert str(listing.most) == size.get("maximum", "200")
    assert listing.whose in method["parameters"]


def test_the_server_is_held_against_the_description(make: Make, server: DirectoryServer) -> None:
    """An answer that Google would not give is this server's fault, and found."""
    server.groups[PAY]["name"] = 7
    assert isinstance(failing(make()), ServerFault)
    assert {p.split(":")[0] for p in server.problems} == {"directory.groups.list"}
    server.problems.clear()


def test_asks_for_full_pages(make: Make, server: DirectoryServer) -> None:
    """One request for each list, and one for each group."""
    read(make())
    asked = [r for r in server.requests if r.startswith("GET")]
    assert len(asked) == 4
    assert "maxResults=500" in asked[0]
    assert "projection=full" in asked[0]
    assert all("maxResults=200" in r for r in asked[1:])


def test_asks_for_nothing_private(make: Make, server: DirectoryServer) -> None:
    """Telephone numbers and recovery addresses do not even come."""
    answers: list[dict[str, Any]] = []
    seen = Answer(change=lambda d: answers.append(d) or d)  # type: ignore[func-returns-value]
    with server.broken(f"{BASE}/users", 1, seen):
        read(make())
    assert {"phones", "recoveryEmail", "lastLoginTime"} <= server.users[ADA].keys()
    assert not {"phones", "recoveryEmail", "lastLoginTime"} & answers[0]["users"][0].keys()


def test_groups_are_read_only_if_they_own(make: Make, server: DirectoryServer) -> None:
    """A directory whose users own costs no request a group."""
    connector = make()
    connector.kinds = frozenset({Kind.USER})
    assert list(connector.scopes()) == [DIRECTORY]
    assert principals(read(connector)).keys() == {ADA, BO, EVE}
    assert not [r for r in server.requests if "/groups" in r]


@pytest.mark.parametrize("kind", [Kind.GROUP, Kind.ROLE])
def test_roles_are_read_only_if_they_own(make: Make, kind: Kind) -> None:
    """The groups that hold roles are read with them."""
    connector = make()
    connector.kinds = frozenset({kind})
    assert (ROLES in connector.scopes()) == (kind is Kind.ROLE)
    assert PAY in principals(read(connector))


# --- users ------------------------------------------------------------------------------------------------------------


def test_a_users_attributes(make: Make, server: DirectoryServer) -> None:
    """Lists of objects are flattened by type or by field, and what matters most has a short name."""
    server.user(
        "104",
        "zoe@acme.example",
        "Zoë 🦉",
        orgUnitPath="/Süd/Team",
        emails=[{"address": "zoe@acme.example", "primary": True}, {"address": "z@home.example", "type": "home"}],
        organizations=[
            {"department": "Pay", "title": "Lead", "costCenter": "c1", "name": "Acme", "primary": True, "type": "work"},
            {"department": "Ops", "title": "Lead", "fullTimeEquivalent": 50000, "customType": ""},
        ],
        externalIds=[
            {"value": "e7", "type": "organization"},
            {"value": "x", "type": "custom", "customType": "badge"},
            {"value": "plain"},
        ],
        keywords=[{"value": "dev", "type": "occupation"}],
        locations=[{"buildingId": "B1", "type": "desk", "area": "desk"}],
        relations=[{"value": "mum", "type": "mother"}],
    )
    told = principals(read(make()))["104"].attributes
    assert told == {
        "givenName": "Zoë",
        "familyName": "🦉",
        "orgUnitPath": "/Süd/Team",
        "isAdmin": "false",
        "isDelegatedAdmin": "false",
        "emails": ["zoe@acme.example", "z@home.example"],
        "department": ["Pay", "Ops"],
        "title": "Lead",
        "costCenter": "c1",
        "organizations.department": ["Pay", "Ops"],
        "organizations.title": "Lead",
        "organizations.costCenter": "c1",
        "organizations.name": "Acme",
        "organizations.fullTimeEquivalent": "50000",
        "externalIds.organization": "e7",
        "externalIds.badge": "x",
        "externalIds": "plain",
        "keywords.occupation": "dev",
        "locations.buildingId": "B1",
        "locations.area": "desk",
        "relations.mother": "mum",
    }


def test_custom_schemas(make: Make, server: DirectoryServer) -> None:
    """Fields go by schema and field; those of several values match by each."""
    schemas = {
        "Ownership": {
            "team": "Payments",
            "level": 3,
            "onCall": True,
            "teams": [{"value": "a", "type": "work"}, {"value": "b", "type": "custom", "customType": "x"}],
        },
        "Empty": {},
    }
    server.user("104", "z@acme.example", "Z", customSchemas=schemas)
    told = principals(read(make()))["104"].attributes
    assert {k: v for k, v in told.items() if "." in k} == {
        "Ownership.team": "Payments",
        "Ownership.level": "3",
        "Ownership.onCall": "true",
        "Ownership.teams": ["a", "b"],
    }


def test_a_custom_schema_takes_no_other_fields_name(make: Make, server: DirectoryServer) -> None:
    """A schema called `organizations` does not add to the departments that Google knows."""
    server.user(
        "104",
        "z@acme.example",
        "Z",
        organizations=[{"department": "Pay"}],
        customSchemas={"organizations": {"department": "Forged", "motto": "m"}},
    )
    told = principals(read(make()))["104"].attributes
    assert told["organizations.department"] == told["department"] == "Pay"
    assert told["organizations.motto"] == "m"


def test_only_what_google_keeps_unique_is_an_address(make: Make, server: DirectoryServer) -> None:
    """Aliases of both kinds match as e-mail; the private addresses of a profile do not."""
    server.user(
        "104",
        "z@acme.example",
        "Z",
        aliases=["zed@acme.example", "z@sub.example"],
        nonEditableAliases=["z@acme.example.test-google-a.com", "zed@acme.example"],
        emails=[{"address": "z@home.example", "type": "home"}],
    )
    found = principals(read(make()))["104"]
    assert found.email == "z@acme.example"
    assert found.aliases == ("zed@acme.example", "z@sub.example", "z@acme.example.test-google-a.com")


@pytest.mark.parametrize(
    ("more", "active"),
    [
        ({}, True),
        ({"suspended": True, "suspensionReason": "ADMIN"}, False),
        ({"archived": True}, False),
        ({"suspended": True, "archived": True}, False),
    ],
)
def test_who_is_active(make: Make, server: DirectoryServer, more: dict[str, Any], active: bool) -> None:
    """Neither suspended nor archived."""
    server.user("104", "z@acme.example", "Z", **more)
    assert principals(read(make()))["104"].active is active


def test_an_edition_without_archiving(make: Make, server: DirectoryServer) -> None:
    """Where nobody can be archived, the field may be missing."""
    del server.users[BO]["archived"]
    assert principals(read(make()))[BO].active


def test_names(make: Make, server: DirectoryServer) -> None:
    """The full name; without one, the e-mail."""
    server.user("104", "z@acme.example")
    server.user("105", "y@acme.example", "Y " + "ÿ" * 900)
    found = principals(read(make()))
    assert found["104"].name == "z@acme.example"
    assert found["105"].name == "Y " + "ÿ" * 900


# --- managers ---------------------------------------------------------------------------------------------------------


def manager_of(make: Make, server: DirectoryServer, *values: str, type_: str = "manager") -> str | None:
    relations = [{"value": v, "type": type_} for v in values]
    server.user("104", "aaa@acme.example", "Z", relations=relations)  # listed before all others
    return principals(read(make()))["104"].manager


@pytest.mark.parametrize("value", ["bo@acme.example", " BO@Acme.Example", "bo.ek@acme.example", "b@old.example"])
def test_a_manager_is_found_by_any_address(make: Make, server: DirectoryServer, value: str) -> None:
    """By the primary one and both kinds of aliases, without regard to case."""
    server.users[BO] |= {"aliases": ["bo.ek@acme.example"], "nonEditableAliases": ["b@old.example"]}
    assert manager_of(make, server, value) == BO


@pytest.mark.parametrize(
    "values",
    [
        ["nobody@acme.example"],
        ["Bo Ek"],
        [""],
        [],
        ["bo@acme.example", ADMIN],
        ["bo@home.example"],
    ],
)
def test_a_manager_who_is_not_certain_is_none(make: Make, server: DirectoryServer, values: list[str]) -> None:
    """A wrong one would own."""
    server.users[BO]["emails"].append({"address": "bo@home.example"})
    assert manager_of(make, server, *values) is None


def test_one_manager_named_twice_is_one(make: Make, server: DirectoryServer) -> None:
    """The same address in other letters is no second manager."""
    assert manager_of(make, server, "bo@acme.example", "Bo@acme.example") == BO


def test_only_managers_manage(make: Make, server: DirectoryServer) -> None:
    """Assistants and mothers do not."""
    assert manager_of(make, server, "bo@acme.example", type_="assistant") is None


def test_an_address_of_two_users_is_nobodys(make: Make, server: DirectoryServer) -> None:
    """Google keeps them unique; an answer where they are not leaves no manager."""
    server.user("105", "carl@acme.example", "C", aliases=["bo@acme.example"])
    assert manager_of(make, server, "bo@acme.example") is None


# --- groups and members -----------------------------------------------------------------------------------------------


def test_a_groups_fields(make: Make, server: DirectoryServer) -> None:
    """Its addresses match, whoever made it is told, and without a name the address is the name."""
    server.group(
        ALL,
        "all@acme.example",
        "",
        description='for "all" 🔑',
        adminCreated=False,
        aliases=["a@acme.example"],
        nonEditableAliases=["a@old.example"],
    )
    found = principals(read(make()))[ALL]
    assert (found.name, found.email) == ("all@acme.example", "all@acme.example")
    assert found.aliases == ("a@acme.example", "a@old.example")
    assert found.attributes == {"description": 'for "all" 🔑', "adminCreated": "false"}


def test_nested_groups_are_told_as_such(make: Make) -> None:
    """Members are direct; who is in them at last is not this connector's to find."""
    assert members(read(make())) == {PAY: users(ADA, BO), OPS: {Ref(Kind.GROUP, PAY), Ref(Kind.USER, EVE)}}


def test_a_large_group_is_read_to_its_last_page(make: Make, server: DirectoryServer) -> None:
    """Three pages of one group, while others are read beside it."""
    strangers = [str(n) for n in range(20_000, 20_450)]
    server.group(ALL, "all@acme.example", "all")
    server.member(ALL, *strangers)
    found = members(read(make()))
    assert found[ALL] == users(*strangers)
    assert found[PAY] == users(ADA, BO)
    assert len([r for r in server.requests if path(ALL) in r]) == 3


def test_each_group_stands_before_its_members(make: Make, server: DirectoryServer) -> None:
    """And comes once, with more groups than are read at the same time."""
    for n in range(25):
        server.group(f"g{n}", f"g{n}@acme.example", f"g{n}")
        server.member(f"g{n}", ADA, str(30_000 + n))
    told: set[Ref] = set()
    records = read(make())
    for record in records:
        if isinstance(record, Principal):
            told.add(record.ref)
        elif isinstance(record, Members):
            assert record.group in told
    assert {g: len(m) for g, m in members(records).items()} == {PAY: 2, OPS: 2} | {f"g{n}": 2 for n in range(25)}


def test_several_groups_are_read_at_once(make: Make, server: DirectoryServer) -> None:
    """As many requests are on their way at the same time as it says: each waits for all the others."""
    together = threading.Barrier(AT_ONCE)

    def meet() -> None:
        together.wait(20)

    for n in range(AT_ONCE - 2):
        server.group(f"g{n}", f"g{n}@acme.example", f"g{n}")
    with contextlib.ExitStack() as stack:
        for group in server.groups:
            stack.enter_context(server.broken(path(group), 1, Answer(before=meet, right=True)))
        assert len(members(read(make()))) == AT_ONCE


def test_no_more_groups_are_asked_than_places(make: Make, server: DirectoryServer) -> None:
    """Who reads slowly has the members of a few groups in memory, however many groups there are."""
    for n in range(40):
        server.group(f"g{n}", f"g{n}@acme.example", f"g{n}")
    records = make().read(DIRECTORY)
    seen = 0
    for record in records:
        seen += isinstance(record, Members)
        asked = len([r for r in server.requests if "/members" in r])
        assert asked <= seen + 2 * AT_ONCE
    assert seen == 42


def test_members_from_elsewhere_are_named(make: Make, server: DirectoryServer) -> None:
    """They are nobody in the directory, whatever their type; an address of ours makes them no user of ours."""
    server.member(PAY, "117", email="someone@gmail.example")
    server.member(PAY, "118", type_="EXTERNAL")
    server.member(PAY, "119", type_="SOMETHING_NEW")
    server.member(PAY, "120", email="bo@acme.example")
    server.member(PAY, "04else", type_="GROUP")
    records = read(make())
    assert members(records)[PAY] == users(ADA, BO, "117", "118", "119", "120") | {Ref(Kind.GROUP, "04else")}
    assert principals(records).keys() == {ADA, BO, EVE, PAY, OPS}


def test_all_users_as_a_member(make: Make, server: DirectoryServer) -> None:
    """The account stands for its users as a group within the group, and goes by nothing but its id."""
    more = [server.user(str(40_000 + n), f"u{n}@acme.example", f"U{n}") for n in range(1100)]
    server.group(ALL, "all@acme.example", "all")
    server.member(ALL, ACCOUNT, type_="CUSTOMER")
    records = read(make())
    assert members(records)[ALL] == {EVERYONE}
    assert members(records)[ACCOUNT] == users(ADA, BO, EVE, *more)
    everyone = principals(records)[ACCOUNT]
    assert (everyone.kind, everyone.name, everyone.email, everyone.attributes) == (Kind.GROUP, ACCOUNT, None, {})


def test_all_users_are_a_group_only_where_they_are_a_member(make: Make, server: DirectoryServer) -> None:
    """Nothing is made up for accounts that do not use it; all users of another account are nobody here."""
    server.member(PAY, "C0other", type_="CUSTOMER")
    records = read(make())
    assert ACCOUNT not in principals(records)
    assert members(records)[PAY] == users(ADA, BO) | {Ref(Kind.GROUP, "C0other")}


# --- groups that go away ----------------------------------------------------------------------------------------------


def test_a_group_deleted_since_it_was_listed_is_left_out(make: Make, server: DirectoryServer) -> None:
    """Google says twice that it is gone; the rest is whole."""
    with server.broken(f"{BASE}/groups", 1, Answer(before=lambda: server.remove_group(PAY), right=True)):
        records = read(make())
    assert principals(records).keys() == {ADA, BO, EVE, OPS}
    assert PAY not in members(records)


def test_a_group_that_is_there_without_its_members_fails(make: Make, server: DirectoryServer) -> None:
    """A group that is only half known yet is no deleted one."""
    with server.broken(path(PAY), 1, Answer.of(GoogleProblem.old(404, "Resource Not Found: groupKey", "notFound"))):
        error = failing(make())
    assert isinstance(error, Incomplete)
    assert PAY in error.message


@pytest.mark.parametrize("body", [b"null", b"{}", b'{"error": {"code": 404}}'])
def test_a_group_that_is_asked_for_in_vain_fails(make: Make, server: DirectoryServer, body: bytes) -> None:
    """Only a 404 says that there is none: an empty answer does not."""
    nothing = Answer.of(GoogleProblem.old(404, "Resource Not Found: groupKey", "notFound"))
    with server.broken(path(PAY), 1, nothing), server.broken(f"{BASE}/groups/{PAY}", 1, Answer(200, body)):
        assert isinstance(failing(make()), Incomplete)


def test_a_group_deleted_between_its_pages_fails(make: Make, server: DirectoryServer) -> None:
    """Some of its members were told already: nothing is half a group."""
    server.page = 1
    with server.broken(path(PAY), 1, Answer(before=lambda: server.remove_group(PAY), right=True)):
        assert isinstance(failing(make()), Incomplete)


def test_no_group_at_all_is_a_failure(make: Make, server: DirectoryServer) -> None:
    """Where every group that is listed is then unknown, the API is not to be believed."""

    def away() -> None:
        server.remove_group(PAY)
        server.remove_group(OPS)

    with server.broken(f"{BASE}/groups", 1, Answer(before=away, right=True)):
        assert isinstance(failing(make()), Incomplete)


@pytest.mark.parametrize("body", [b"<html>404</html>", b"", b'{"error": "not found"}', b'{"error": {"code": 403}}'])
def test_a_404_that_is_not_googles_is_no_deletion(make: Make, server: DirectoryServer, body: bytes) -> None:
    """A gateway's page says nothing of a group."""
    with server.broken(path(PAY), 1, Answer(404, body)):
        assert isinstance(failing(make()), Misconfigured)


def test_a_group_whose_members_are_hidden_fails(make: Make, server: DirectoryServer) -> None:
    """A group that may not be read is not an empty one."""
    server.hidden = {PAY}
    error = failing(make())
    assert isinstance(error, Forbidden)
    assert PAY in error.message


@pytest.mark.parametrize("id_", ["..", "a/b", "a?x=1", "", "a b", "é", "a\n"])
def test_an_id_that_is_none_is_never_asked_for(make: Make, server: DirectoryServer, id_: str) -> None:
    """An id becomes part of a path."""
    server.groups[PAY]["id"] = id_
    assert isinstance(failing(make()), BadData)
    assert not [r for r in server.requests if "/members" in r and OPS not in r]


# --- roles ------------------------------------------------------------------------------------------------------------


def test_roles_and_who_holds_them(make: Make, server: DirectoryServer) -> None:
    """Users and groups; a role without holders is told, too."""
    server.role("9002", "Nobody's", roleDescription="d")
    server.assign(ADMIN_ROLE, PAY)
    server.assign(ADMIN_ROLE, BO, assigneeType="user")
    records = read(make(), ROLES)
    found = principals(records)
    assert {p.name for p in found.values()} == {"_SEED_ADMIN_ROLE", "Nobody's"}
    assert found["9002"].attributes == {"roleDescription": "d", "isSystemRole": "false"}
    assert members(records) == {ADMIN_ROLE: {*users(ADA, BO), Ref(Kind.GROUP, PAY)}}


@pytest.mark.parametrize(
    "more",
    [
        {"scopeType": "ORG_UNIT", "orgUnitId": "03ph8a2z"},
        {"condition": "api.getAttribute('cloudidentity.googleapis.com/groups.labels', []).hasAny(['groups.security'])"},
    ],
)
def test_a_role_that_holds_only_somewhere_is_not_held(
    make: Make, server: DirectoryServer, more: dict[str, Any]
) -> None:
    """Who administers one unit does not administer the account."""
    server.assign(ADMIN_ROLE, BO, **more)
    assert members(read(make(), ROLES)) == {ADMIN_ROLE: users(ADA)}


def test_an_unconditional_role_with_an_empty_condition(make: Make, server: DirectoryServer) -> None:
    """An empty condition is none."""
    server.assign(ADMIN_ROLE, BO, condition="")
    assert members(read(make(), ROLES)) == {ADMIN_ROLE: users(ADA, BO)}


def test_roles_and_assignments_come_in_pages(make: Make, server: DirectoryServer) -> None:
    """Both lists are followed to their ends."""
    server.page = 2
    for n in range(5):
        server.role(f"80{n}", f"r{n}")
        server.assign(f"80{n}", BO)
    records = read(make(), ROLES)
    assert len(principals(records)) == len(members(records)) == 6


def test_a_directory_is_read_by_who_may_not_read_roles(make: Make, server: DirectoryServer) -> None:
    """The scopes fail apart, whether the OAuth scope or the privilege is missing."""
    server.delegated.discard(READ_ROLES)
    connector = make()
    assert isinstance(failing(connector, ROLES), Unauthenticated)
    assert PAY in principals(read(connector))
    server.delegated.add(READ_ROLES)
    server.privileges[ADMIN] = {"users", "groups"}
    connector = make()
    error = failing(connector, ROLES)
    assert isinstance(error, Forbidden)
    assert "super administrator" in error.remedy
    assert PAY in principals(read(connector))


# --- logins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scope", "listing"), [(READ_USERS, "users"), (READ_GROUPS, "groups")])
def test_a_scope_that_is_not_delegated_is_named(
    make: Make, server: DirectoryServer, sleeps: list[float], scope: str, listing: str
) -> None:
    """With the page of the Admin console where it is given; the others are not in doubt."""
    server.delegated.discard(scope)
    error = failing(make())
    assert isinstance(error, Unauthenticated)
    assert "unauthorized_client" in error.message
    assert scope in error.remedy
    assert "Manage Domain Wide Delegation" in error.remedy
    assert sleeps == []
    lacking = [c for c in make().check() if not c.ok]
    assert [c.what for c in lacking] == [f"read {listing}"]
    assert scope in lacking[0].remedy


def test_each_token_is_for_one_scope(make: Make, server: DirectoryServer) -> None:
    """No token can do more than its lists need."""
    connector = make()
    read(connector)
    read(connector, ROLES)
    issued = [g.scopes for t, g in server._tokens.items() if t != server.token]
    assert sorted(map(sorted, issued)) == [[READ_GROUPS], [READ_ROLES], [READ_USERS]]
    assert {g.subject for t, g in server._tokens.items() if t != server.token} == {ADMIN}


@pytest.mark.parametrize("subject", ["nobody@acme.example", "eve@acme.example"])
def test_a_subject_who_is_not_there(make: Make, subject: str) -> None:
    """Unknown or suspended: the remedy is about the subject, not the key."""
    error = failing(make(subject=subject))
    assert isinstance(error, Unauthenticated)
    assert "subject" in error.remedy


def test_a_subject_without_the_privilege(make: Make) -> None:
    """Who is meant and what is missing are named."""
    error = failing(make(subject="bo@acme.example"))
    assert isinstance(error, Forbidden)
    assert "Users > Read" in error.permission
    assert READ_USERS in error.permission
    assert "bo@acme.example" in error.remedy
    assert FORBIDDEN in error.message


def test_a_service_account_as_itself(make: Make, server: DirectoryServer) -> None:
    """With a role of its own it needs neither delegation nor a subject; without one, both ways are told."""
    error = failing(make(subject=None))
    assert isinstance(error, Forbidden)
    assert "set `subject`" in error.remedy
    server.delegated.clear()
    server.privileges[server.email] = {"users", "groups"}
    assert PAY in principals(read(make(subject=None, customer=ACCOUNT)))


def test_another_account_may_not_be_read(make: Make) -> None:
    """It is a refusal, never an empty directory."""
    assert isinstance(failing(make(customer="C0other")), Forbidden)


def test_an_account_without_users_is_a_failure(make: Make, server: DirectoryServer) -> None:
    """The login itself belongs to one, or is administered by one."""
    server.grant("ya29.t", READ_USERS, READ_GROUPS, email=ADMIN)
    server.users.clear()
    connector = make(access_token="ya29.t")
    assert isinstance(failing(connector), Incomplete)
    assert next(c.what for c in connector.check() if not c.ok) == "read users"


def test_an_access_token_with_too_little(make: Make, server: DirectoryServer) -> None:
    """The OAuth scope that is missing is named."""
    server.grant("ya29.narrow", READ_USERS, email=ADMIN)
    error = failing(make(access_token="ya29.narrow"))
    assert isinstance(error, Forbidden)
    assert "OAuth scope" in error.message
    assert READ_GROUPS in error.permission


def test_the_api_is_not_enabled(make: Make, server: DirectoryServer) -> None:
    """The command that enables it is told."""
    problem = GoogleProblem.disabled("admin.googleapis.com", "acme-ops")
    with server.broken(f"{BASE}/users", 1, Answer.of(problem)):
        error = failing(make())
    assert isinstance(error, Misconfigured)
    assert error.remedy == "gcloud services enable admin.googleapis.com --project=acme-ops"


def test_tokens_that_end_in_the_middle_are_renewed(make: Make, server: DirectoryServer) -> None:
    """While the members of several groups are read: the list is whole."""
    for n in range(20):
        server.group(f"g{n}", f"g{n}@acme.example", f"g{n}")
        server.member(f"g{n}", ADA)
    with server.broken(path("g7"), 1, Answer(before=server.expire_tokens, right=True, times=1)):
        found = members(read(make()))
    assert len(found) == 22
    assert server.tokens_issued > 2


def test_a_key_that_is_revoked_in_the_middle(make: Make, server: DirectoryServer) -> None:
    """The renewal is refused, in whichever thread."""
    with server.broken(path(PAY), 1, Answer(before=server.revoke, right=True)):
        error = failing(make())
    assert isinstance(error, Unauthenticated)
    assert "invalid_grant" in error.message


def test_secrets_are_in_no_error(make: Make, server: DirectoryServer) -> None:
    """Whatever fails, neither token nor key is in the message, the repr, or a traceback."""
    secret = server.key["private_key"].splitlines()[1]
    for answer in (
        Answer.of(GoogleProblem.old(401, "no", "authError")),
        Answer.of(GoogleProblem.old(403, "no", "forbidden")),
        Answer(200, b"<html>"),
        Answer(cut=True),
        Answer(302, b"", {"Location": "https://elsewhere.example/"}),
    ):
        with server.broken(path(PAY), 1, answer):
            told = "".join(traceback.format_exception(failing(make())))
        assert secret not in told
        assert "ya29" not in told


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["userRateLimitExceeded", "rateLimitExceeded", "quotaExceeded"])
def test_a_quota_is_waited_for(make: Make, server: DirectoryServer, sleeps: list[float], reason: str) -> None:
    """Google tells it by 403; it passes, and nothing is missing."""
    with server.broken(path(PAY), 1, Answer.of(GoogleProblem.old(403, "Quota", reason), times=2)):
        assert members(read(make()))[PAY] == users(ADA, BO)
    assert len(sleeps) == 2


def test_waits_as_long_as_it_is_told(make: Make, server: DirectoryServer, sleeps: list[float]) -> None:
    """Retry-After is kept to where it comes."""
    problem = GoogleProblem.old(429, "Quota", "rateLimitExceeded", {"Retry-After": "7"})
    with server.broken(path(PAY), 1, Answer.of(problem, times=1)):
        read(make())
    assert sleeps == [7.0]


def test_a_quota_that_stays_used_up(make: Make, server: DirectoryServer) -> None:
    """Five times, then the scheduler's turn."""
    with server.broken(path(PAY), 1, Answer.of(GoogleProblem.old(403, "Quota", "quotaExceeded"))):
        assert isinstance(failing(make()), Throttled)
    assert len([r for r in server.requests if path(PAY) in r]) == connectors.retry.ATTEMPTS


def test_keeps_to_half_of_the_quota(
    make: Make, server: DirectoryServer, sleeps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twenty requests a minute it makes ten, and then waits for the next minute."""
    monkeypatch.setattr(connectors.google_workspace, "A_MINUTE", 20)
    for module in ("google_workspace", "pace"):
        monkeypatch.setattr(f"connectors.{module}.time", SimpleNamespace(monotonic=lambda: 6030.0))
    for n in range(7):
        server.group(f"g{n}", f"g{n}@acme.example", f"g{n}")
    read(make())  # users, groups, and nine groups' members
    assert sleeps == [30.0]


# --- answers that are none --------------------------------------------------------------------------------------------


def rows_with(key: str, **fields: Any) -> Answer:
    return Answer(change=lambda d: {**d, key: [{**row, **fields} for row in d[key]]})


@pytest.mark.parametrize(
    ("where", "answer"),
    [
        ("users", rows_with("users", id=None)),
        ("users", rows_with("users", id=7)),
        ("users", rows_with("users", id="1\n2")),
        ("users", rows_with("users", primaryEmail="")),
        ("users", rows_with("users", suspended=None)),
        ("users", rows_with("users", suspended="false")),
        ("users", rows_with("users", archived="no")),
        ("users", rows_with("users", customerId=None)),
        ("users", rows_with("users", name="Ada")),
        ("users", rows_with("users", name={"fullName": 7})),
        ("users", rows_with("users", aliases="a@b")),
        ("users", rows_with("users", aliases=[7])),
        ("users", rows_with("users", organizations={})),
        ("users", rows_with("users", organizations=["x"])),
        ("users", rows_with("users", organizations=[{"department": {}}])),
        ("users", rows_with("users", relations=[{"type": 7}])),
        ("users", rows_with("users", relations=[{"type": "manager", "value": ["a"]}])),
        ("users", rows_with("users", customSchemas=[])),
        ("users", rows_with("users", customSchemas={"S": "x"})),
        ("users", rows_with("users", customSchemas={"S": {"f": {"value": "x"}}})),
        ("users", rows_with("users", customSchemas={"S": {"f": ["x"]}})),
        ("users", Answer(change=lambda d: {**d, "users": {}})),
        ("users", Answer(change=lambda d: {**d, "users": ["x"]})),
        ("users", Answer(change=lambda d: {**d, "nextPageToken": 7})),
        ("users", Answer(302, b"", {"Location": "https://elsewhere.example/"})),
        ("users", Answer(418, b"teapot")),
        ("groups", rows_with("groups", email=None)),
        ("groups", rows_with("groups", name=["x"])),
        ("groups", rows_with("groups", aliases={})),
        (f"groups/{PAY}/members", rows_with("members", id=None)),
        (f"groups/{PAY}/members", rows_with("members", type=None)),
        (f"groups/{PAY}/members", rows_with("members", type=1)),
        (f"groups/{PAY}/members", Answer(change=lambda d: {**d, "members": [None]})),
        ("customer/my_customer/roles", rows_with("items", roleId="a/b")),
        ("customer/my_customer/roleassignments", rows_with("items", assigneeType=None)),
        ("customer/my_customer/roleassignments", rows_with("items", assignedTo=None)),
        ("customer/my_customer/roleassignments", rows_with("items", scopeType=None)),
        ("customer/my_customer/roleassignments", rows_with("items", roleId=None)),
    ],
)
def test_an_answer_of_another_shape_fails_the_scope(
    make: Make, server: DirectoryServer, where: str, answer: Answer
) -> None:
    """What is not understood is not left out."""
    with server.broken(f"{BASE}/{where}", 1, answer):
        assert isinstance(failing(make(), ROLES if "customer" in where else DIRECTORY), BadData)


@pytest.mark.parametrize("where", ["users", "groups", f"groups/{PAY}/members", "customer/my_customer/roles"])
@pytest.mark.parametrize("body", [b"{}", b"<html>sign in</html>", b"null", b"[]", b'{"kind": "admin#directory#alias"}'])
def test_an_answer_that_is_no_list_is_no_empty_one(
    make: Make, server: DirectoryServer, where: str, body: bytes
) -> None:
    """An empty list says of what it is one; what does not say so is no answer."""
    with server.broken(f"{BASE}/{where}", 1, Answer(200, body)):
        assert isinstance(failing(make(), ROLES if "customer" in where else DIRECTORY), ServerFault)


def test_an_empty_page_is_not_the_end(make: Make, server: DirectoryServer) -> None:
    """A page may hold nothing and still have a next."""
    server.page = 1

    def none(document: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in document.items() if k not in {"users", "members"}}

    with server.broken(f"{BASE}/users", 1, Answer(change=none)), server.broken(path(PAY), 1, Answer(change=none)):
        records = read(make())
    assert {BO, EVE} <= principals(records).keys()
    assert members(records)[PAY] == users(BO)


def test_a_token_that_comes_twice_ends_every_list(make: Make, server: DirectoryServer) -> None:
    """Groups, members and roles are guarded like the users."""
    server.page = 1
    server.role("9002", "more")
    for where in ("groups", f"groups/{PAY}/members", "customer/my_customer/roles"):
        with server.broken(f"{BASE}/{where}", 1, Answer(repeat=True)):
            assert isinstance(failing(make(), ROLES if "customer" in where else DIRECTORY), Incomplete)


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_asks_for_one_entry_of_each_list(make: Make, server: DirectoryServer) -> None:
    """Five requests, and all is said."""
    told = list(make().check())
    assert [c.what for c in told] == [
        "read users",
        "read groups",
        "read members",
        "read roles",
        "read role assignments",
    ]
    assert all(c.ok for c in told)
    asked = [r for r in server.requests if r.startswith("GET")]
    assert len(asked) == 5
    assert all("maxResults=1&" in r or r.endswith("maxResults=1") for r in asked)


def test_check_names_each_missing_privilege(make: Make, server: DirectoryServer) -> None:
    """What works and what does not stand side by side; each remedy is its own."""
    server.privileges[ADMIN] = {"users"}
    told = {c.what: c for c in make().check()}
    assert {what for what, c in told.items() if c.ok} == {"read users"}
    assert "Groups > Read" in told["read groups"].remedy
    assert "super administrator" in told["read roles"].remedy


def test_check_without_roles(make: Make) -> None:
    """Roles that nobody owns by are not asked for."""
    connector = make()
    connector.kinds = frozenset({Kind.GROUP})
    assert [c.what for c in connector.check()] == ["read users", "read groups", "read members"]


def test_check_where_there_is_no_group(make: Make, server: DirectoryServer) -> None:
    """An account may have none."""
    server.groups.clear()
    assert all(c.ok for c in make().check())
    assert principals(read(make())).keys() == {ADA, BO, EVE}
