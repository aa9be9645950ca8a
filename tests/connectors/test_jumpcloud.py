"""The `jumpcloud` connector, where JumpCloud's lists mislead."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import connectors.retry
from config.secrets import resolve
from connectors.errors import BadData, ConnectorError, Forbidden, Incomplete, ServerFault, Throttled, Unauthenticated
from connectors.jumpcloud import DIRECTORY, JumpCloud, JumpCloudOptions
from connectors.values import Kind, Members, Principal, Record, Ref
from tests.servers.jumpcloud import JumpCloudServer
from tests.servers.oncall import Answer


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


ALL = [f"u{n}" for n in range(7)]


@pytest.fixture
def server() -> Iterator[JumpCloudServer]:
    """Seven users and two groups."""
    with JumpCloudServer() as server:
        for id_ in ALL:
            server.add_user(id_, f"name-{id_}", f"{id_}@acme.example")
        server.add_group("g1", "Payments", *[("user", id_) for id_ in ALL])
        server.add_group("g2", "Empty")
        yield server


class Connect:
    """Builds connectors to a server, in pages of three, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[JumpCloud] = []

    def __call__(self, server: JumpCloudServer, *, limit: int = 3, **changes: Any) -> JumpCloud:
        file = self.folder / "key"
        file.write_text(server.api_key)
        told = {"api_key": {"file": str(file)}, "endpoint": server.url, "ca_file": server.ca_file, "timeout": "10s"}
        options = JumpCloudOptions.model_validate({**told, **changes})
        resolve(options)
        connector = JumpCloud(options)
        connector.limit = limit  # type: ignore[misc]
        self.open.append(connector)
        return connector


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    connect = Connect(tmp_path)
    yield connect
    for connector in connect.open:
        connector.close()


def read(connector: JumpCloud) -> list[Record]:
    return list(connector.read(DIRECTORY))


def users(records: list[Record]) -> list[str]:
    return [r.id for r in records if isinstance(r, Principal) and r.kind is Kind.USER]


def members(records: list[Record], group: str) -> list[str]:
    return [m.id for r in records if isinstance(r, Members) and r.group.id == group for m in r.members]


# ── lists ──


@pytest.mark.parametrize("limit", [2, 3, 7, 8, 100])
@pytest.mark.parametrize("counted", [True, False])
def test_every_size_of_page_reads_all(server: JumpCloudServer, connect: Connect, limit: int, counted: bool) -> None:
    """Full last pages, and lists that do not tell their length."""
    server.counted = counted
    records = read(connect(server, limit=limit))
    assert users(records) == ALL
    assert members(records, "g1") == ALL


def test_a_hundred_entries_are_asked_for(server: JumpCloudServer, connect: Connect) -> None:
    """The most there is; a group of up to a hundred members takes one request."""
    read(connect(server, limit=JumpCloud.limit))
    assert [r for r in server.requests if "g1" in r] == ["/api/v2/usergroups/g1/members?limit=100&skip=0"]
    assert server.requests[0] == "/api/systemusers?limit=100&skip=0&sort=_id"


@pytest.mark.parametrize("counted", [True, False])
def test_members_after_those_that_are_not_shown(server: JumpCloudServer, connect: Connect, counted: bool) -> None:
    """A short page is no end: places that hold nobody are counted."""
    server.counted = counted
    server.add_group(
        "g3", "Old", None, ("user", "u1"), None, ("user", "u2"), None, None, ("user", "u3"), ("user", "u4")
    )
    assert members(read(connect(server)), "g3") == ["u1", "u2", "u3", "u4"]


def test_a_whole_page_of_nobody_is_no_end(server: JumpCloudServer, connect: Connect) -> None:
    """Where the list tells its length."""
    server.add_group("g3", "Old", None, None, None, ("user", "u3"))
    assert members(read(connect(server)), "g3") == ["u3"]


def test_a_user_deleted_meanwhile_hides_nobody(server: JumpCloudServer, connect: Connect) -> None:
    """The others move up by one."""

    def before(name: str, skip: int) -> None:
        if name == "users" and skip > 1:
            server.users.pop("u0", None)

    server.before = before
    assert sorted(users(read(connect(server)))) == ALL


def test_one_deleted_and_one_added_hide_nobody(server: JumpCloudServer, connect: Connect) -> None:
    """The count stays the same."""

    def before(name: str, skip: int) -> None:
        if name == "users" and skip > 1 and "u0" in server.users:
            del server.users["u0"]
            server.add_user("u9", "new", "new@acme.example")

    server.before = before
    assert sorted(users(read(connect(server)))) == [*ALL, "u9"]


def test_a_member_who_leaves_meanwhile_hides_nobody(server: JumpCloudServer, connect: Connect) -> None:
    """The list of members is read again."""

    def before(name: str, skip: int) -> None:
        if name == "members of g1" and skip > 1 and ("user", "u0") in server.members["g1"]:
            server.members["g1"].remove(("user", "u0"))

    server.before = before
    assert sorted(members(read(connect(server)), "g1")) == ALL


def test_a_list_that_never_holds_still_is_incomplete(server: JumpCloudServer, connect: Connect) -> None:
    """Read three times, and not for ever."""

    def before(name: str, skip: int) -> None:
        if name == "members of g1" and skip:
            server.members["g1"].append(server.members["g1"].pop(0))

    server.before = before
    with pytest.raises(Incomplete, match="members of group g1: read 3 times"):
        read(connect(server))


def test_fewer_users_than_counted_are_incomplete(server: JumpCloudServer, connect: Connect) -> None:
    """JumpCloud tells `totalCount`."""
    server.total = lambda of: of + 1
    with pytest.raises(Incomplete, match="users: 7 of 8"):
        read(connect(server))


def test_the_same_members_again_and_again_are_incomplete(server: JumpCloudServer, connect: Connect) -> None:
    """A list of members that never goes on."""
    server.stuck = ("members of g1", 0)
    with pytest.raises(Incomplete):
        read(connect(server))


@pytest.mark.parametrize("document", [{}, {"results": None, "totalCount": 1}, {"results": []}, [], None, "x"])
def test_an_answer_that_is_no_list_of_users(server: JumpCloudServer, connect: Connect, document: Any) -> None:
    """Is no empty list."""
    with server.broken("users", 1, Answer(200, document)), pytest.raises(ServerFault):
        read(connect(server))


@pytest.mark.parametrize("name", ["groups", "members of g1"])
@pytest.mark.parametrize("document", [{}, {"results": []}, None, "x"])
def test_an_answer_that_is_no_list(server: JumpCloudServer, connect: Connect, name: str, document: Any) -> None:
    """API 2.0 answers with bare lists."""
    with server.broken(name, 1, Answer(200, document)), pytest.raises(ServerFault):
        read(connect(server))


@pytest.mark.parametrize(
    "row", [{}, {"to": None}, {"to": {}}, {"to": {"id": "u1"}}, {"to": {"id": "u1", "type": "system"}}, "x", None]
)
def test_a_member_that_is_none_is_no_member_less(server: JumpCloudServer, connect: Connect, row: Any) -> None:
    """Never left out."""
    with server.broken("members of g1", 1, Answer(200, [row])), pytest.raises((BadData, ServerFault)):
        read(connect(server))


# ── rows ──


def test_a_user_in_full(server: JumpCloudServer, connect: Connect) -> None:
    """Fields, custom attributes, the manager; nothing that a login moves."""
    server.users.clear()
    server.add_user(
        "u1", "ada", "ada@acme.example", firstname="Ada", lastname="Lovelace", department="Pay", costCenter="4130",
        jobTitle="Engineer", manager="u2", employeeIdentifier="17", alternateEmail="ada@home.example",
        attributes=[{"name": "team", "value": "core"}, {"name": "department", "value": "not this one"}],
        addresses=[{"type": "work"}], ssh_keys=[{"name": "k", "public_key": "…"}], password_expiration_date="2027-01-01",
    )  # fmt: skip
    (user,) = (r for r in read(connect(server)) if isinstance(r, Principal) and r.kind is Kind.USER)
    assert user == Principal(
        Kind.USER, "u1", "Ada Lovelace", "ada@acme.example", active=True, manager="u2",
        attributes={
            "username": "ada", "firstname": "Ada", "lastname": "Lovelace", "department": "Pay", "costCenter": "4130",
            "jobTitle": "Engineer", "employeeIdentifier": "17", "alternateEmail": "ada@home.example", "team": "core",
            "state": "ACTIVATED", "sudo": "false", "unix_uid": "5000", "created": "2026-01-02T03:04:05.678Z",
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "active"),
    [
        ({}, True),
        ({"account_locked": True}, True),
        ({"state": None}, True),
        ({"activated": False}, False),
        ({"suspended": True}, False),
        ({"state": "STAGED"}, False),
        ({"state": "WHATEVER COMES"}, False),
    ],
)
def test_active_or_not(server: JumpCloudServer, connect: Connect, told: dict[str, Any], active: bool) -> None:
    """Staged, suspended, or never signed in."""
    server.users["u0"].update(told)
    (user,) = (r for r in read(connect(server)) if isinstance(r, Principal) and r.ref == Ref(Kind.USER, "u0"))
    assert user.active is active


@pytest.mark.parametrize(
    "told", [{"activated": None}, {"suspended": "no"}, {"state": 1}, {"email": None}, {"manager": 7}]
)
def test_a_user_who_lacks_what_all_have_is_bad_data(
    server: JumpCloudServer, connect: Connect, told: dict[str, Any]
) -> None:
    """Rather than active, or without address."""
    server.users["u0"].update(told)
    with pytest.raises(BadData):
        read(connect(server))


def test_a_group_has_an_address_if_it_tells_one(server: JumpCloudServer, connect: Connect) -> None:
    """And may hold groups."""
    server.add_group("g3", "All", ("user_group", "g1"), email="all@acme.example", description="everyone")
    records = read(connect(server))
    (group,) = (r for r in records if isinstance(r, Principal) and r.id == "g3")
    assert (group.email, group.attributes) == (
        "all@acme.example",
        {"description": "everyone", "membershipMethod": "STATIC"},
    )
    assert Members(Ref(Kind.GROUP, "g3"), (Ref(Kind.GROUP, "g1"),)) in records


def test_groups_are_read_only_if_they_own(server: JumpCloudServer, connect: Connect) -> None:
    """Each costs a request."""
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    assert users(list(connector.read(DIRECTORY))) == ALL
    assert not any("usergroups" in r for r in server.requests)


def test_ids_are_quoted_in_paths(server: JumpCloudServer, connect: Connect) -> None:
    """An id may hold what a path would take for its own."""
    server.add_group("../x?y=1#z", "Odd", ("user", "u1"))
    assert members(read(connect(server)), "../x?y=1#z") == ["u1"]


# ── errors ──


def test_the_organization_is_named_if_it_is_told(server: JumpCloudServer, connect: Connect) -> None:
    """A key that sees several needs it."""
    read(connect(server))
    assert not any("x-org-id" in told for told in server.headers)
    server.org_id = "o7"
    assert users(read(connect(server, org_id="o7"))) == ALL
    with pytest.raises(BadData, match="x-org-id is required"):
        read(connect(server))


def test_a_key_that_is_revoked_in_the_middle(server: JumpCloudServer, connect: Connect) -> None:
    """Fails the scope, after what was read before."""
    server.before = lambda name, skip: setattr(server, "api_key", "other")
    seen: list[Record] = []
    with pytest.raises(Unauthenticated, match="the API key was refused: 401"):
        for record in connect(server).read(DIRECTORY):
            seen.append(record)
    assert users(seen) == ["u0", "u1", "u2"]


def test_a_group_that_went_is_incomplete(server: JumpCloudServer, connect: Connect) -> None:
    """Between its list and that of its members."""
    with server.broken("members of g1", 1, Answer(404, {"message": "Not Found"})), pytest.raises(Incomplete):
        read(connect(server))


def test_the_wait_that_a_429_asks_for_is_kept(server: JumpCloudServer, connect: Connect, sleeps: list[float]) -> None:
    """And one that is too long fails the scope."""
    with server.broken("groups", 1, Answer(429, {}, {"Retry-After": "11"}, times=1)):
        assert users(read(connect(server))) == ALL
    assert sleeps == [11.0]
    with server.broken("groups", 1, Answer(429, {}, {"Retry-After": "999"})), pytest.raises(Throttled):
        read(connect(server))


def test_check_names_the_list_that_may_not_be_read(server: JumpCloudServer, connect: Connect) -> None:
    """And the role that may."""
    server.forbidden = {"usergroups"}
    good, bad = connect(server).check()
    assert (good.what, good.ok) == ("read users", True)
    assert (bad.what, bad.ok, bad.remedy) == ("read groups", False, "grant the admin role Read Only")
    with pytest.raises(Forbidden):
        read(connect(server))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_no_error_shows_the_key(server: JumpCloudServer, connect: Connect, status: int) -> None:
    """Whatever the answer."""
    answer = Answer(status, {"message": "no\n\x1b[31mway"}, {"Retry-After": "600"})
    with server.broken("users", 2, answer), pytest.raises(ConnectorError) as caught:
        read(connect(server))
    assert server.api_key not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
