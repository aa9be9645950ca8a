"""The `scim` connector, where services differ and where paging by index misleads."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from scim2_models import Context, EnterpriseUser, Group, ListResponse, User

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
from connectors.scim import DIRECTORY, Scim, ScimOptions
from connectors.values import Gap, Kind, Members, Principal, Record, Ref
from tests.servers.oncall import Answer
from tests.servers.scim import ENTERPRISE, RealScimServer, ScimServer


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture
def server() -> Iterator[ScimServer]:
    """Seven users, three groups, in pages of three."""
    with ScimServer(page=3) as server:
        for n in range(7):
            server.add_user(f"u{n}", f"user{n}")
        server.add_group("g1", "Payments", ("User", "u1"), ("User", "u2"))
        server.add_group("g2", "All", ("Group", "g1"), ("User", "u3"))
        server.add_group("g3", "Empty")
        yield server


class Connect:
    """Builds connectors to a server, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[Scim] = []

    def __call__(self, server: ScimServer | RealScimServer, *, secret: str | None = None, **changes: Any) -> Scim:
        file = self.folder / "token"
        file.write_text(server.token if secret is None else secret)
        told = {
            "endpoint": f"{server.url}/v2", "token": {"file": str(file)}, "ca_file": server.ca_file, "timeout": "10s",
        }  # fmt: skip
        options = ScimOptions.model_validate({**told, **changes})
        resolve(options)
        self.open.append(Scim(options))
        return self.open[-1]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    connect = Connect(tmp_path)
    yield connect
    for connector in connect.open:
        connector.close()


def read(connector: Scim) -> list[Record]:
    return list(connector.read(DIRECTORY))


def users(records: list[Record]) -> list[str]:
    return [r.id for r in records if isinstance(r, Principal) and r.kind is Kind.USER]


def user(records: list[Record], id_: str) -> Principal:
    (found,) = (r for r in records if isinstance(r, Principal) and r.ref == Ref(Kind.USER, id_))
    return found


def members(records: list[Record]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for r in records:
        if isinstance(r, Members):
            found.setdefault(r.group.id, set()).update(f"{m.kind}:{m.id}" for m in r.members)
    return found


def gaps(records: list[Record]) -> list[str]:
    return [r.code for r in records if isinstance(r, Gap)]


ALL = [f"u{n}" for n in range(7)]
TREE = {"g1": {"user:u1", "user:u2"}, "g2": {"group:g1", "user:u3"}, "g3": set()}


# ── paging ──


def test_each_page_begins_with_the_last_row_of_the_one_before(server: ScimServer, connect: Connect) -> None:
    """So that a shift is seen; and the list ends where nothing new comes."""
    assert users(read(connect(server))) == ALL
    starts = [r.partition("startIndex=")[2] for r in server.requests if "/Users" in r]
    assert starts == ["1", "3", "5", "7"]


@pytest.mark.parametrize("count", range(8))
@pytest.mark.parametrize("page", [1, 2, 3, 4, 7, 100])
def test_every_length_of_list_is_read_whole(connect: Connect, count: int, page: int) -> None:
    """Pages of one row, full last pages, no rows at all."""
    with ScimServer(page=page) as server:
        for n in range(count):
            server.add_user(f"u{n}", f"user{n}")
        assert users(read(connect(server))) == ALL[:count]


def test_a_short_page_is_no_end(server: ScimServer, connect: Connect) -> None:
    """A service may give fewer rows than asked for, at any page."""
    server.page = 100
    server.short_of = lambda size: 2
    assert users(read(connect(server))) == ALL


def test_a_page_that_holds_the_link_alone_is_no_end(server: ScimServer, connect: Connect) -> None:
    """A service may give one row where more would fit."""
    lengths = iter([3, 1, 2, 1, 2, 2, 1, 1, 1])
    server.page, server.short_of = 100, lambda size: next(lengths) if size > 1 else size
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    assert users(read(connector)) == ALL


def test_a_total_that_is_too_low_ends_nothing(server: ScimServer, connect: Connect) -> None:
    """Some services tell the rows of the page."""
    server.total = lambda _of, rows: rows
    assert users(read(connect(server))) == ALL


def test_a_total_that_is_too_high_is_incomplete(server: ScimServer, connect: Connect) -> None:
    """The service counts what it does not show: that is not read three times."""
    server.total = lambda of, _rows: of + 1
    with pytest.raises(Incomplete, match="/Users: 7 of 8, and no further page"):
        read(connect(server))
    assert len([r for r in server.requests if "startIndex=1" in r]) == 1


@pytest.mark.parametrize("total", [None, "7", 7.0])
def test_a_total_that_is_no_number_is_no_list(server: ScimServer, connect: Connect, total: Any) -> None:
    """RFC 7644 wants an integer."""
    server.total = lambda _of, _rows: total
    with pytest.raises(ServerFault, match="totalResults"):
        read(connect(server))


def once(server: ScimServer, at: int, change: Any) -> list[int]:
    """Run `change` once, just before the page of users that begins at `at`."""
    done: list[int] = []

    def before(name: str, start: int) -> None:
        if name == "Users" and start == at and not done:
            done.append(start)
            change()

    server.before = before
    return done


def test_a_user_deleted_before_the_place_hides_nobody(server: ScimServer, connect: Connect) -> None:
    """The rest moves up by one: without a link between the pages one user would be skipped."""
    assert once(server, 5, lambda: server.users.pop("u0")) == []
    assert sorted(users(read(connect(server)))) == ALL


def test_one_deleted_and_one_added_hide_nobody(server: ScimServer, connect: Connect) -> None:
    """totalResults is the same before and after; only the link tells."""

    def change() -> None:
        del server.users["u0"]
        server.add_user("u9", "new")

    assert once(server, 5, change) == []
    assert sorted(users(read(connect(server)))) == [*ALL, "u9"]


def test_a_user_added_in_front_comes_once(server: ScimServer, connect: Connect) -> None:
    """The rest moves down by one: nobody comes twice."""

    def change() -> None:
        server.users = {"u-": {**server.users["u0"], "id": "u-"}, **server.users}

    assert once(server, 3, change) == []
    assert sorted(users(read(connect(server)))) == ["u-", *ALL]


def test_a_user_added_at_the_end_costs_nothing(server: ScimServer, connect: Connect) -> None:
    """What does not shift what was read is no reason to read again."""
    assert once(server, 5, lambda: server.add_user("u7", "new")) == []
    assert users(read(connect(server))) == [*ALL, "u7"]
    assert len([r for r in server.requests if "Users" in r and "startIndex=1" in r]) == 1


def test_a_list_that_never_holds_still_is_incomplete(server: ScimServer, connect: Connect) -> None:
    """Read three times, and not for ever."""

    def before(name: str, start: int) -> None:
        if name == "Users" and start > 1:
            first = next(iter(server.users))
            server.users[first] = server.users.pop(first)

    server.before = before
    with pytest.raises(Incomplete, match="read 3 times"):
        read(connect(server))
    assert len([r for r in server.requests if "startIndex=1" in r]) == 3


@pytest.mark.parametrize("count", range(1, 8))
def test_a_service_of_whole_lists_is_read(server: ScimServer, connect: Connect, count: int) -> None:
    """One that heeds neither startIndex nor count tells all at once."""
    server.paged = False
    server.users = dict(list(server.users.items())[:count])
    assert users(read(connect(server))) == ALL[:count]


def test_as_many_as_were_asked_for_may_be_all(server: ScimServer, connect: Connect) -> None:
    """Which a service that knows no pages cannot tell otherwise."""
    server.paged, server.config = False, {"filter": {"maxResults": 7}}
    records = read(connect(server))
    assert users(records) == ALL
    assert members(records) == TREE


def test_the_first_page_again_and_again_is_incomplete(server: ScimServer, connect: Connect) -> None:
    """One that heeds count, but not startIndex, shows its first page only, even where totalResults says that it is all."""
    server.stuck, server.page = 1, 3
    server.total = lambda _of, rows: 3
    with pytest.raises(Incomplete, match="read 3 times"):
        read(connect(server))


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("page", [2, 3, 4, 100])
def test_pages_that_cannot_begin_anywhere_are_read_at_the_third_try(connect: Connect, count: int, page: int) -> None:
    """A service that counts pages, not rows, cannot link them; then totalResults must hold still."""
    with ScimServer(page=page) as server:
        server.aligned = True
        for n in range(count):
            server.add_user(f"u{n}", f"user{n}")
        assert users(read(connect(server))) == ALL[:count]


def test_pages_that_cannot_be_linked_must_hold_still(server: ScimServer, connect: Connect) -> None:
    """There, any change of totalResults is a reason to fail."""
    server.aligned = True
    server.before = lambda name, start: server.add_user(f"x{len(server.users)}", "new") if start > 1 else None
    with pytest.raises(Incomplete, match="totalResults changed"):
        read(connect(server))


def test_an_empty_page_may_leave_resources_out(server: ScimServer, connect: Connect) -> None:
    """RFC 7644, 3.4.2: "Resources" is required only if there are some."""
    server.users.clear()
    server.groups.clear()
    server.bare_ends = True
    assert read(connect(server)) == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        "x",
        {"totalResults": 3},
        {"totalResults": 3, "Resources": None},
        {"totalResults": 3, "Resources": {}},
    ],
)
def test_an_answer_that_is_no_list_is_no_empty_list(server: ScimServer, connect: Connect, document: Any) -> None:
    """Whatever else it is."""
    with server.broken("Users", 1, Answer(200, json.dumps(document).encode())), pytest.raises(ServerFault):
        read(connect(server))


@pytest.mark.parametrize("row", ["x", None, {}, {"id": ""}, {"id": 7, "userName": "x"}, {"id": "u7"}])
def test_a_row_that_is_no_user_is_bad_data(server: ScimServer, connect: Connect, row: Any) -> None:
    """`id` and `userName` are required of every user."""
    server.users["u7"] = row
    if isinstance(row, dict):
        with pytest.raises(BadData):
            read(connect(server))
        return
    page = {"totalResults": 1, "itemsPerPage": 1, "startIndex": 1, "Resources": [row]}
    with server.broken("Users", 1, Answer(200, page)), pytest.raises(BadData):
        read(connect(server))


def test_pages_are_as_large_as_the_service_allows(server: ScimServer, connect: Connect) -> None:
    """Up to a limit of ours: groups carry their members."""
    server.page, server.config = 1000, {"filter": {"supported": True, "maxResults": 1000}}
    read(connect(server))
    assert "/v2/Users?count=500&startIndex=1" in server.requests
    assert any(r.startswith("/v2/Groups?count=100&") for r in server.requests)


@pytest.mark.parametrize("config", [{}, [], {"filter": None}, {"filter": {"maxResults": 0}}, {"pagination": []}])
def test_a_configuration_that_says_nothing_changes_nothing(server: ScimServer, connect: Connect, config: Any) -> None:
    """A hundred rows a page, by index."""
    server.config = config
    assert users(read(connect(server))) == ALL
    assert "/v2/Users?count=100&startIndex=1" in server.requests


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"totalResults": "5", "Resources": []}, ServerFault),
        ({"totalResults": [5], "Resources": []}, ServerFault),
        ({"totalResults": 5, "Resources": []}, Incomplete),
        ({"totalResults": 5}, ServerFault),
        ({"Resources": [], "nextCursor": 7}, BadData),
        ({}, ServerFault),
    ],
)
def test_a_page_by_cursor_that_is_none(connect: Connect, document: Any, error: type[ConnectorError]) -> None:
    """Is no end of the list."""
    with RealScimServer(page=2, cursor=True) as server:
        with server.broken("Users", 1, Answer(200, document)), pytest.raises(error):
            read(connect(server))


def test_a_list_by_cursor_need_not_tell_its_length(connect: Connect) -> None:
    """RFC 9865, 2: totalResults may be left out."""
    with RealScimServer(page=2, cursor=True) as server:
        page = {"Resources": [{"id": "1", "userName": "ada"}]}
        with server.broken("Users", 1, Answer(200, page)):
            assert users(read(connect(server))) == ["1"]


def test_an_expired_cursor_is_incomplete(connect: Connect) -> None:
    """RFC 9865, 2.3: the service does not know its own cursor any more."""
    with RealScimServer(page=2, cursor=True) as server:
        for n in range(5):
            server.add("Users", userName=f"user{n}")
        with server.broken("Users", 2, Answer(400, {"status": "400", "scimType": "expiredCursor", "detail": "old"})):
            with pytest.raises(Incomplete, match="expiredCursor: old"):
                read(connect(server))


def test_a_service_that_refuses_to_show_so_many_is_incomplete(server: ScimServer, connect: Connect) -> None:
    """RFC 7644, 3.12: tooMany."""
    answer = Answer(400, {"status": "400", "scimType": "tooMany", "detail": "over 10000"})
    with server.broken("Users", 1, answer), pytest.raises(Incomplete, match="over 10000"):
        read(connect(server))


# ── members ──


@pytest.mark.parametrize("told", ["always", "request", "alone"])
@pytest.mark.parametrize("typed", [("type", "$ref"), ("type",), ("$ref",), ()])
def test_members_are_found_however_they_are_told(
    server: ScimServer, connect: Connect, told: str, typed: tuple[str, ...]
) -> None:
    """In lists, on request, or of each group alone; with a type, a reference, or neither."""
    server.members_told, server.typed = told, typed
    records = read(connect(server))
    assert members(records) == TREE
    assert gaps(records) == []


def test_only_groups_without_members_cost_a_request(server: ScimServer, connect: Connect) -> None:
    """An empty group has no `members` in its list, either."""
    read(connect(server))
    assert [r.partition("?")[0] for r in server.requests if "/Groups/" in r] == ["/v2/Groups/g3"]


def test_an_id_that_is_a_user_and_a_group_is_never_guessed(server: ScimServer, connect: Connect) -> None:
    """Services that count users and groups apart give the same ids twice."""
    server.typed = ()
    server.add_user("g1", "the other g1")
    with pytest.raises(BadData, match="member g1 is a user and a group"):
        read(connect(server))


def test_the_type_tells_ids_apart(server: ScimServer, connect: Connect) -> None:
    """With it, the same service is read."""
    server.add_user("g1", "the other g1")
    assert members(read(connect(server)))["g2"] == {"group:g1", "user:u3"}


def test_a_deleted_user_in_a_group_does_not_matter(server: ScimServer, connect: Connect) -> None:
    """Named, and nobody."""
    server.typed = ()
    server.add_group("g4", "Kept", ("User", "u99"))
    assert members(read(connect(server)))["g4"] == {"user:u99"}


def test_a_member_of_another_type_is_no_group(server: ScimServer, connect: Connect) -> None:
    """A device, say: told by the lists, in which it is not."""
    server.typed = ("type",)
    server.add_group("g4", "Machines", ("Device", "d1"), ("User", "u1"))
    assert members(read(connect(server)))["g4"] == {"user:d1", "user:u1"}


def test_a_service_that_tells_no_members_is_a_gap(server: ScimServer, connect: Connect) -> None:
    """AWS IAM Identity Center answers `"members": []` for each group."""
    for group in server.groups.values():
        group["members"] = []
    records = read(connect(server))
    assert gaps(records) == ["members_hidden"]
    assert members(records) == {"g1": set(), "g2": set(), "g3": set()}


def test_a_group_that_went_is_incomplete(server: ScimServer, connect: Connect) -> None:
    """Between its list and the question for its members."""
    with server.broken("group", 1, Answer(404, {"detail": "Resource g3 not found"})):
        with pytest.raises(Incomplete, match="gone since the list was read"):
            read(connect(server))


def test_another_group_than_asked_for_is_bad_data(server: ScimServer, connect: Connect) -> None:
    """Its members would be the wrong owners."""
    with server.broken("group", 1, Answer(200, server.groups["g1"])), pytest.raises(BadData, match="gave another"):
        read(connect(server))


@pytest.mark.parametrize("told", [{"value": ""}, {"display": "Ada"}, "u1", None])
def test_a_member_without_an_id_is_bad_data(server: ScimServer, connect: Connect, told: Any) -> None:
    """Never left out."""
    page = {"totalResults": 1, "itemsPerPage": 1, "startIndex": 1}
    page["Resources"] = [{"id": "g3", "displayName": "x", "members": [told]}]  # type: ignore[assignment]
    with server.broken("Groups", 1, Answer(200, page)), pytest.raises(BadData):
        read(connect(server))


def test_ids_are_quoted_in_paths(server: ScimServer, connect: Connect) -> None:
    """An id may hold what a path would take for its own."""
    server.add_group("../Users?x=1#y/é", "Odd")
    assert members(read(connect(server)))["../Users?x=1#y/é"] == set()
    assert any("/Groups/..%2FUsers%3Fx%3D1%23y%2F%C3%A9?" in r for r in server.requests)


def test_groups_are_read_only_if_they_own(server: ScimServer, connect: Connect) -> None:
    """Users are what makes a manager."""
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    assert [type(r) for r in connector.read(DIRECTORY)] == [Principal] * 7
    assert not any("Groups" in r for r in server.requests)
    assert connector.holds(DIRECTORY) == {Kind.USER, Kind.GROUP}


# ── users ──


def test_a_user_in_full(server: ScimServer, connect: Connect) -> None:
    """RFC 7643, 8.3: the enterprise user, with roles, an extension of the service's own, and two addresses."""
    server.users.clear()
    server.add_user(
        "2819c223",
        "bjensen@example.com",
        externalId="701984",
        name={"formatted": "Ms. Barbara J Jensen, III", "familyName": "Jensen", "givenName": "Barbara"},
        displayName="Babs Jensen",
        title="Tour Guide",
        active=True,
        password="t1meMa$heen",
        emails=[
            {"value": "babs@jensen.example", "type": "home"},
            {"value": "bjensen@work.example", "type": "work", "primary": True},
        ],
        phoneNumbers=[{"value": "555-555-5555", "type": "work"}],
        roles=[{"value": "admin", "primary": True}, {"value": "auditor"}],
        groups=[{"value": "g1", "display": "Payments"}],
        **{
            ENTERPRISE: {
                "employeeNumber": "701984", "costCenter": "4130", "department": "Tour Operations",
                "manager": {"value": "26118915", "$ref": "../Users/26118915", "displayName": "John Smith"},
            },
            "urn:acme:1.0:User": {"shirt": "M", "department": "not this one", "tags": ["a", "b"], "badge": 7},
        },
    )  # fmt: skip
    assert user(read(connect(server)), "2819c223") == Principal(
        Kind.USER,
        "2819c223",
        "Babs Jensen",
        "bjensen@work.example",
        active=True,
        manager="26118915",
        aliases=("babs@jensen.example", "bjensen@example.com"),
        attributes={
            "userName": "bjensen@example.com", "externalId": "701984", "displayName": "Babs Jensen",
            "title": "Tour Guide", "familyName": "Jensen", "givenName": "Barbara", "roles": ["admin", "auditor"],
            "employeeNumber": "701984", "costCenter": "4130", "department": "Tour Operations", "shirt": "M",
            "tags": ["a", "b"], "badge": "7",
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "active"), [({}, True), ({"active": None}, True), ({"active": False}, False), ({"active": "False"}, False)]
)
def test_active_or_not(server: ScimServer, connect: Connect, told: dict[str, Any], active: bool) -> None:
    """A service that tells nothing shows none but active users; some write the word."""
    server.add_user("u7", "x", **told)
    assert user(read(connect(server)), "u7").active is active


@pytest.mark.parametrize("told", ["yes", 1, 0, [], {}])
def test_an_active_that_is_none_is_bad_data(server: ScimServer, connect: Connect, told: Any) -> None:
    """Rather than true."""
    server.add_user("u7", "x", active=told)
    with pytest.raises(BadData, match='"active" is neither true nor false'):
        read(connect(server))


@pytest.mark.parametrize(
    ("told", "manager"),
    [({"value": "u1"}, "u1"), ("u1", "u1"), ({"displayName": "Ada"}, None), ("", None), (None, None)],
)
def test_managers(server: ScimServer, connect: Connect, told: Any, manager: str | None) -> None:
    """An id in an object, or bare."""
    server.add_user("u7", "x", **{ENTERPRISE: {"manager": told}})
    assert user(read(connect(server)), "u7").manager == manager


def test_a_manager_that_is_no_id_is_bad_data(server: ScimServer, connect: Connect) -> None:
    """Rather than nobody."""
    server.add_user("u7", "x", **{ENTERPRISE: {"manager": [{"value": "u1"}]}})
    with pytest.raises(BadData, match="the manager is no id"):
        read(connect(server))


# ── errors ──


def test_an_expired_token_in_the_middle(server: ScimServer, connect: Connect) -> None:
    """Fails the scope, after what was read before."""
    server.before = lambda name, start: setattr(server, "token", "other")
    seen: list[Record] = []
    with pytest.raises(Unauthenticated, match="401"):
        for record in connect(server).read(DIRECTORY):
            seen.append(record)
    assert users(seen) == ["u0", "u1", "u2"]


def test_the_wait_that_a_429_asks_for_is_kept(server: ScimServer, connect: Connect, sleeps: list[float]) -> None:
    """Retry-After, in seconds."""
    answer = Answer(429, {"detail": "slow down"}, {"Retry-After": "42"}, times=2)
    with server.broken("Groups", 1, answer):
        assert members(read(connect(server))) == TREE
    assert sleeps == [42.0, 42.0]


def test_a_wait_that_is_too_long_fails_the_scope(server: ScimServer, connect: Connect, sleeps: list[float]) -> None:
    """The scheduler comes back."""
    with server.broken("Users", 1, Answer(429, {}, {"Retry-After": "3600"})), pytest.raises(Throttled):
        read(connect(server))
    assert sleeps == []


def test_no_service_there(server: ScimServer, connect: Connect) -> None:
    """A wrong endpoint names what to look at."""
    with pytest.raises(Misconfigured, match="404") as caught:
        read(connect(server, endpoint=f"{server.url}/scim/v1"))
    assert "endpoint" in caught.value.remedy


def test_a_service_without_groups_says_so(server: ScimServer, connect: Connect) -> None:
    """501: not an empty list."""
    with server.broken("Groups", 1, Answer(501, {"detail": "no groups"})):
        with pytest.raises(Misconfigured, match=r"501 \(no groups\)"):
            read(connect(server))


def test_the_endpoint_is_required() -> None:
    """There is no vendor's default."""
    with pytest.raises(ValidationError, match="endpoint"):
        ScimOptions.model_validate({"token": {"env": "T"}})
    with pytest.raises(ValidationError, match="https"):
        ScimOptions.model_validate({"token": {"env": "T"}, "endpoint": "http://scim.example/v2"})


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_no_error_shows_the_token(server: ScimServer, connect: Connect, status: int) -> None:
    """Not even one whose sentence the server wrote over several lines."""
    answer = Answer(status, {"detail": "no\n\x1b[31mway\u202e"}, {"Retry-After": "600"})
    with server.broken("Users", 2, answer), pytest.raises(ConnectorError) as caught:
        read(connect(server))
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert server.token not in shown
    assert "\x1b" not in caught.value.message


def test_check_names_the_list_that_may_not_be_read(server: ScimServer, connect: Connect) -> None:
    """And goes on to the other one."""
    server.forbidden = {"Groups"}
    good, bad = connect(server).check()
    assert (good.what, good.ok, good.detail) == ("read /Users", True, "by index")
    assert (bad.what, bad.ok, bad.remedy) == ("read /Groups", False, "grant the right to read /Groups")
    assert len(server.requests) == 3
    server.forbidden = {"Users"}
    with pytest.raises(Forbidden, match="the right to read /Users"):
        read(connect(server))


def test_our_server_answers_as_the_models_of_scim_say(server: ScimServer, connect: Connect) -> None:
    """scim2-models, which knows the schemas of RFC 7643 and the messages of RFC 7644, takes its lists."""
    server.add_user("u7", "full", displayName="x", active=True, emails=[{"value": "a@b.example", "primary": True}])
    page = {"count": ["100"], "startIndex": ["1"]}
    headers = {"authorization": f"Bearer {server.token}"}
    server.page = 100
    for path, model in (("Users", User[EnterpriseUser]), ("Groups", Group)):
        document = server.answer(["v2", path], page, headers).document
        found: Any = ListResponse[model].model_validate(document, scim_ctx=Context.RESOURCE_QUERY_RESPONSE)  # type: ignore[valid-type]
        assert len(found.resources) == found.total_results == len(document["Resources"])
