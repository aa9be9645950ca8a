"""The `pingone` connector: links, filters, nesting, and what makes a user active."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import connectors.retry
from config.secrets import resolve
from connectors.errors import (
    BadData,
    ConnectorError,
    Incomplete,
    Misconfigured,
    ServerFault,
    Throttled,
    Unauthenticated,
)
from connectors.pingone import DIRECTORY, PingOne, PingOneOptions
from connectors.values import Gap, Kind, Members, Principal, Record, Ref
from tests.servers.oncall import Answer
from tests.servers.pingone import ENVIRONMENT, POPULATION, PingOneServer


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture
def server() -> Iterator[PingOneServer]:
    """Five users; a group in another one; pages of two."""
    with PingOneServer(page=2) as server:
        server.add_group("g1", "Payments", "g2")
        server.add_group("g2", "All")
        server.add_group("g3", "Empty")
        for n in range(1, 6):
            server.add_user(f"u{n}", f"user{n}", f"User{n}", "", f"u{n}@acme.example", *(["g1"] if n > 1 else ["g2"]))
        yield server


class Connect:
    """Builds connectors to a server, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[PingOne] = []

    def __call__(self, server: PingOneServer, *, secret: str | None = None, **changes: Any) -> PingOne:
        file = self.folder / "secret"
        file.write_text(server.client_secret if secret is None else secret)
        told = {
            "environment_id": ENVIRONMENT, "endpoint": server.url, "client_id": server.client_id,
            "client_secret": {"file": str(file)}, "ca_file": server.ca_file, "timeout": "10s",
        }  # fmt: skip
        options = PingOneOptions.model_validate({**told, **changes})
        resolve(options)
        self.open.append(PingOne(options))
        return self.open[-1]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    connect = Connect(tmp_path)
    yield connect
    for connector in connect.open:
        connector.close()


def read(connector: PingOne) -> list[Record]:
    return list(connector.read(DIRECTORY))


def users(records: list[Record]) -> list[str]:
    return [r.id for r in records if isinstance(r, Principal) and r.kind is Kind.USER]


def members(records: list[Record]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for r in records:
        if isinstance(r, Members):
            found.setdefault(r.group.id, []).extend(m.id for m in r.members)
    return found


def user(records: list[Record], id_: str) -> Principal:
    (found,) = (r for r in records if isinstance(r, Principal) and r.ref == Ref(Kind.USER, id_))
    return found


def gaps(records: list[Record]) -> list[str]:
    return [r.code for r in records if isinstance(r, Gap)]


# ── groups ──


def test_each_group_is_asked_for_its_users(server: PingOneServer, connect: Connect) -> None:
    """All pages of them; and nested groups are members."""
    records = read(connect(server))
    assert members(records) == {"g1": ["u2", "u3", "u4", "u5"], "g2": ["u1", "g1"], "g3": []}
    assert Members(Ref(Kind.GROUP, "g2"), (Ref(Kind.GROUP, "g1"),)) in records
    assert gaps(records) == []


def test_a_link_that_drops_the_filter_makes_nobody_a_member(server: PingOneServer, connect: Connect) -> None:
    """Without the filter the second page of members would be one of all users."""
    server.links_keep_filters = False
    assert members(read(connect(server)))["g1"] == ["u2", "u3", "u4", "u5"]


def test_parents_are_asked_only_if_there_are_nested_groups(server: PingOneServer, connect: Connect) -> None:
    """PingOne counts them."""
    server.within["g1"] = []
    assert members(read(connect(server)))["g2"] == ["u1"]
    assert not any("memberOfGroups?" in r and "/groups/" in r for r in server.requests)


def test_parents_are_asked_if_nested_groups_are_not_counted(server: PingOneServer, connect: Connect) -> None:
    """Unknown is not none."""
    server.uncounted = True
    assert members(read(connect(server)))["g2"] == ["u1", "g1"]


def test_an_empty_page_short_of_the_count_is_incomplete(server: PingOneServer, connect: Connect) -> None:
    """Of users, of members, of groups: PingOne counts what there is."""
    for name, page in (("users", 2), ("members of g1", 1), ("groups", 1)):
        with server.broken(name, page, Answer(empty=True)), pytest.raises(Incomplete, match="an empty page after"):
            read(connect(server))


def test_a_circle_of_groups_ends(server: PingOneServer, connect: Connect) -> None:
    """Each group is asked once."""
    server.within["g2"] = ["g1"]
    found = members(read(connect(server)))
    assert (found["g1"][-1], found["g2"][-1]) == ("g2", "g1")


def test_fewer_members_than_counted_are_a_gap(server: PingOneServer, connect: Connect) -> None:
    """A role for one population shows a part."""
    server.miscounted = 1
    (gap,) = (r for r in read(connect(server)) if isinstance(r, Gap))
    assert gap.code == "members_lag"
    assert "of group g1 4 of 5" in gap.message


def test_groups_are_read_only_if_they_own(server: PingOneServer, connect: Connect) -> None:
    """Each costs a request."""
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    assert users(list(connector.read(DIRECTORY))) == ["u1", "u2", "u3", "u4", "u5"]
    assert not any("roups" in r for r in server.requests)
    assert connector.holds(DIRECTORY) == {Kind.USER, Kind.GROUP}


@pytest.mark.parametrize("id_", ['x"] or name pr or memberOfGroups[id eq "g1', "../users", ""])
def test_an_id_that_would_be_a_filter_is_refused(server: PingOneServer, connect: Connect, id_: str) -> None:
    """Ids are put into filters and paths."""
    server.add_group(id_, "Odd")
    with pytest.raises(BadData):
        read(connect(server))


def test_a_group_that_went_is_incomplete(server: PingOneServer, connect: Connect) -> None:
    """Between its list and that of its parents."""
    with server.broken("parents of g2", 1, Answer(404, {"message": "not found"})), pytest.raises(Incomplete):
        read(connect(server))


# ── users ──


def test_a_user_in_full(server: PingOneServer, connect: Connect) -> None:
    """The population goes by its id and its name."""
    server.users.clear()
    server.add_user(
        "u9", "ada@corp.acme.example", "Ada", "Lovelace", "ada@acme.example", nickname="Al", title="Engineer",
        type="Employee", externalId="17", department="Pay", teams=["core", "web"], address={"locality": "London"},
    )  # fmt: skip
    assert user(read(connect(server)), "u9") == Principal(
        Kind.USER,
        "u9",
        "Ada Lovelace",
        "ada@acme.example",
        aliases=("ada@corp.acme.example",),
        attributes={
            "username": "ada@corp.acme.example", "given": "Ada", "family": "Lovelace", "nickname": "Al",
            "title": "Engineer", "type": "Employee", "externalId": "17", "department": "Pay", "teams": ["core", "web"],
            "createdAt": "2026-01-02T03:04:05.678Z", "verifyStatus": "NOT_INITIATED",
            "population": [POPULATION, "Staff"],
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "active"),
    [
        ({}, True),
        ({"enabled": False}, False),
        ({"lifecycle": {"status": "VERIFICATION_REQUIRED"}}, False),
        ({"lifecycle": {"status": "WHATEVER_COMES"}}, False),
        ({"lifecycle": None}, True),
        ({"account": {"canAuthenticate": False, "status": "LOCKED"}}, True),
    ],
)
def test_active_or_not(server: PingOneServer, connect: Connect, told: dict[str, Any], active: bool) -> None:
    """Disabled, or self-registered and not verified."""
    server.users["u1"].update(told)
    assert user(read(connect(server)), "u1").active is active


@pytest.mark.parametrize(
    "told", [{"id": None}, {"username": ""}, {"enabled": None}, {"population": None}, {"enabled": "true"}]
)
def test_a_user_who_lacks_what_all_have(server: PingOneServer, connect: Connect, told: dict[str, Any]) -> None:
    """Is an error, not a guess."""
    server.users["u1"].update(told)
    with pytest.raises((BadData, ServerFault)):
        read(connect(server))


def test_names_and_addresses_where_there_are_few(server: PingOneServer, connect: Connect) -> None:
    """The user name stands in."""
    server.add_user("u6", "root", "", "", None, name=None)
    server.add_user("u7", "x@acme.example", "", "", None)
    records = read(connect(server))
    assert (user(records, "u6").name, user(records, "u6").email) == ("root", None)
    assert (user(records, "u7").email, user(records, "u7").aliases) == ("x@acme.example", ())


# ── lists ──


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:9", "https://127.0.0.1:9"])
def test_the_token_follows_no_link_to_another_origin(server: PingOneServer, connect: Connect, origin: str) -> None:
    """A next page elsewhere is refused."""
    server.link_origin = origin
    with pytest.raises(BadData, match="not followed"):
        read(connect(server))
    assert len(server.requests) == 3, "the token, the populations, and one page of users"


@pytest.mark.parametrize(
    "document",
    [{}, [], None, {"_embedded": {}}, {"_embedded": {"users": None}, "_links": {}}, {"_embedded": {"users": []}}],
)
@pytest.mark.parametrize("name", ["users", "members of g1"])
def test_an_answer_that_is_no_list(server: PingOneServer, connect: Connect, name: str, document: Any) -> None:
    """Is no empty list; nor is one without links the last page."""
    with server.broken(name, 1, Answer(200, document)), pytest.raises(ServerFault):
        read(connect(server))


@pytest.mark.parametrize("link", [{}, {"href": ""}, {"href": 1}])
def test_a_link_that_leads_nowhere(server: PingOneServer, connect: Connect, link: Any) -> None:
    """Is no end of the list."""
    document = {"_embedded": {"users": []}, "_links": {"next": link}}
    with server.broken("users", 1, Answer(200, document)), pytest.raises(BadData):
        read(connect(server))


# ── tokens and errors ──


def test_a_token_that_ends_in_the_middle_is_renewed(server: PingOneServer, connect: Connect) -> None:
    """Once; the run goes on where it was."""
    server.before = lambda name, number: server.end_tokens() if name == "users" and number == 1 else None
    assert users(read(connect(server))) == ["u1", "u2", "u3", "u4", "u5"]
    assert server.tokens == 2


def test_wrong_credentials(server: PingOneServer, connect: Connect) -> None:
    """Are told as such, in PingOne's words."""
    with pytest.raises(Unauthenticated, match=r"refused: 401 \(Request denied: Invalid client credentials\)"):
        read(connect(server, secret="wrong"))


def test_another_environment(server: PingOneServer, connect: Connect) -> None:
    """Is not there."""
    other = "abfba8f6-49eb-49f5-a5d9-80ad5c98f9f7"
    with pytest.raises((Misconfigured, Unauthenticated)):
        read(connect(server, environment_id=other))


@pytest.mark.parametrize("told", [{"environment_id": "../x"}, {"environment_id": "acme"}, {"region": "us"}])
def test_options_that_cannot_be(told: dict[str, str]) -> None:
    """The id goes into paths, the region into a host name."""
    good = {"environment_id": ENVIRONMENT, "client_id": "x", "client_secret": {"env": "S"}}
    with pytest.raises(ValidationError):
        PingOneOptions.model_validate({**good, **told})


@pytest.mark.parametrize("region", ["com", "ca", "eu", "com.au", "sg", "asia"])
def test_each_region_has_its_hosts(region: str, tmp_path: Path) -> None:
    """One for the API, one for tokens."""
    (tmp_path / "s").write_text("s")
    told = {"environment_id": ENVIRONMENT, "client_id": "x", "client_secret": {"file": str(tmp_path / "s")}}
    options = PingOneOptions.model_validate({**told, "region": region})
    resolve(options)
    client = PingOne(options)._client
    assert (client._api.base, client._issuer.base) == (
        f"https://api.pingone.{region}/",
        f"https://auth.pingone.{region}/",
    )


def test_the_wait_that_a_429_asks_for_is_kept(server: PingOneServer, connect: Connect, sleeps: list[float]) -> None:
    """And one that is too long fails the scope."""
    with server.broken("groups", 1, Answer(429, {}, {"Retry-After": "11"}, times=1)):
        read(connect(server))
    assert sleeps == [11.0]
    with server.broken("groups", 1, Answer(429, {}, {"Retry-After": "999"})), pytest.raises(Throttled):
        read(connect(server))


def test_check_names_the_list_that_may_not_be_read(server: PingOneServer, connect: Connect) -> None:
    """And the role that may."""
    server.forbidden = {"groups"}
    checks = list(connect(server).check())
    assert [(c.what, c.ok) for c in checks] == [
        ("read users", True),
        ("read populations", True),
        ("read groups", False),
    ]
    assert "Identity Data Read Only" in checks[2].remedy


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("name", ["users", "token"])
def test_no_error_shows_a_secret(server: PingOneServer, connect: Connect, name: str, status: int) -> None:
    """Neither the client's nor a token."""
    answer = Answer(status, {"message": "no\n\x1b[31mway"}, {"Retry-After": "600"})
    with server.broken(name, 1, answer), pytest.raises(ConnectorError) as caught:
        read(connect(server))
    assert "SECRET" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
