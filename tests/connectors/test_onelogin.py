"""The `onelogin` connector: who is in what comes with the users, and tokens end."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import connectors.client_credentials
import connectors.retry
from config.secrets import resolve
from connectors.errors import BadData, ConnectorError, Incomplete, ServerFault, Throttled, Unauthenticated
from connectors.onelogin import DIRECTORY, FIELDS, OneLogin, OneLoginOptions
from connectors.values import Kind, Members, Principal, Record, Ref
from tests.servers.oncall import Answer
from tests.servers.onelogin import OneLoginServer


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture
def server() -> Iterator[OneLoginServer]:
    """Five users, two roles, two groups, in pages of two."""
    with OneLoginServer(page=2) as server:
        server.add_role(1, "Payments")
        server.add_role(2, "Empty")
        server.add_group(71, "Default")
        server.add_group(72, "Nobody")
        for n in range(1, 6):
            server.add_user(n, f"u{n}@acme.example", f"User{n}", "", 1, *([1] if n > 1 else []), group_id=71)
        yield server


class Connect:
    """Builds connectors to a server, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[OneLogin] = []

    def __call__(self, server: OneLoginServer, *, secret: str | None = None, **changes: Any) -> OneLogin:
        file = self.folder / "secret"
        file.write_text(server.client_secret if secret is None else secret)
        told = {
            "endpoint": server.url, "client_id": server.client_id, "client_secret": {"file": str(file)},
            "ca_file": server.ca_file, "timeout": "10s",
        }  # fmt: skip
        options = OneLoginOptions.model_validate({**told, **changes})
        resolve(options)
        self.open.append(OneLogin(options))
        return self.open[-1]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    connect = Connect(tmp_path)
    yield connect
    for connector in connect.open:
        connector.close()


def read(connector: OneLogin) -> list[Record]:
    return list(connector.read(DIRECTORY))


def users(records: list[Record]) -> list[str]:
    return [r.id for r in records if isinstance(r, Principal) and r.kind is Kind.USER]


def members(records: list[Record], kind: Kind, id_: str) -> list[str]:
    return sorted(m.id for r in records if isinstance(r, Members) and r.group == Ref(kind, id_) for m in r.members)


def user(records: list[Record], id_: str) -> Principal:
    (found,) = (r for r in records if isinstance(r, Principal) and r.ref == Ref(Kind.USER, id_))
    return found


# ── who is in what ──


def test_the_users_tell_their_roles_and_group(server: OneLoginServer, connect: Connect) -> None:
    """Without a request for each role."""
    records = read(connect(server))
    assert members(records, Kind.ROLE, "1") == ["2", "3", "4", "5"]
    assert members(records, Kind.GROUP, "71") == ["1", "2", "3", "4", "5"]
    assert not any("/roles/" in r for r in server.requests)


def test_roles_are_asked_where_users_do_not_tell_them(server: OneLoginServer, connect: Connect) -> None:
    """A list without `role_ids` is not a list of users without roles."""
    server.roles_in_users = False
    records = read(connect(server))
    assert members(records, Kind.ROLE, "1") == ["2", "3", "4", "5"]
    assert members(records, Kind.ROLE, "2") == []
    assert len([r for r in server.requests if "/roles/2/" in r]) == 1


def test_users_whom_a_role_does_not_have_are_no_members(server: OneLoginServer, connect: Connect) -> None:
    """`assigned` may be false in a role's list."""
    server.roles_in_users = False
    rows = [{"id": 1, "assigned": False}, {"id": 2, "assigned": True}, {"id": 3}]
    with server.broken("role 2", 1, Answer(200, rows)):
        assert members(read(connect(server)), Kind.ROLE, "2") == ["2", "3"]


def test_a_role_made_meanwhile_comes_with_the_next_run(server: OneLoginServer, connect: Connect) -> None:
    """A user may be in one that the list of roles did not have yet."""
    server.users[5]["role_ids"].append(9)
    records = read(connect(server))
    assert not any(isinstance(r, Members) and r.group.id == "9" for r in records)


@pytest.mark.parametrize(
    ("kinds", "asked"),
    [
        ({Kind.USER}, {"users"}),
        ({Kind.USER, Kind.ROLE}, {"users", "roles"}),
        ({Kind.USER, Kind.GROUP}, {"users", "groups"}),
    ],
)
def test_only_what_owns_is_read(server: OneLoginServer, connect: Connect, kinds: set[Kind], asked: set[str]) -> None:
    """And told."""
    connector = connect(server)
    connector.kinds = frozenset(kinds)
    records = read(connector)
    assert {r.kind for r in records if isinstance(r, Principal)} == kinds
    assert {r.group.kind for r in records if isinstance(r, Members)} == kinds - {Kind.USER}
    lists = {r.partition("?")[0].rpartition("/")[2] for r in server.requests} - {"token"}
    assert lists == asked
    assert connector.holds(DIRECTORY) == {Kind.USER, Kind.GROUP, Kind.ROLE}


@pytest.mark.parametrize("told", [{"role_ids": "1"}, {"role_ids": [None]}, {"role_ids": ["1"]}, {"group_id": "x"}])
def test_roles_that_are_none_are_bad_data(server: OneLoginServer, connect: Connect, told: dict[str, Any]) -> None:
    """Never nobody's."""
    server.users[3].update(told)
    with pytest.raises(BadData):
        read(connect(server))


# ── users ──


def test_a_user_in_full(server: OneLoginServer, connect: Connect) -> None:
    """Named fields, custom attributes, the manager; a field wins over a custom attribute of its name."""
    server.users.clear()
    server.add_user(
        7, "ada@acme.example", "Ada", "Lovelace", username="al@corp.acme.example", department="Pay", title="Engineer",
        company="Acme", external_id="17", manager_user_id=5, samaccountname="al",
        custom_attributes={"team": "core", "department": "not this one", "empty": None},
    )  # fmt: skip
    assert user(read(connect(server)), "7") == Principal(
        Kind.USER,
        "7",
        "Ada Lovelace",
        "ada@acme.example",
        active=True,
        manager="5",
        aliases=("al@corp.acme.example",),
        attributes={
            "username": "al@corp.acme.example", "firstname": "Ada", "lastname": "Lovelace", "department": "Pay",
            "title": "Engineer", "company": "Acme", "external_id": "17", "manager_user_id": "5",
            "samaccountname": "al", "team": "core",
        },
    )  # fmt: skip


def test_what_lists_leave_out_is_asked_for_by_name(server: OneLoginServer, connect: Connect) -> None:
    """Roles, managers, custom attributes."""
    read(connect(server))
    assert {"role_ids", "manager_user_id", "custom_attributes", "state", "status"} <= set(FIELDS.split(","))
    assert all("fields=" in r for r in server.requests if "/users" in r)


@pytest.mark.parametrize(("status", "active"), [(0, False), (1, True), (2, False), (3, True), (4, True), (5, True)])
@pytest.mark.parametrize("state", [0, 1, 2, 3])
def test_active_or_not(server: OneLoginServer, connect: Connect, status: int, state: int, active: bool) -> None:
    """By the status, if the account is approved."""
    server.users[1].update(status=status, state=state)
    assert user(read(connect(server)), "1").active is (active and state == 1)


@pytest.mark.parametrize(("status", "active"), [(7, False), (8, True), (6, False), (99, False)])
def test_statuses_that_may_come_are_not_active(
    server: OneLoginServer, connect: Connect, status: int, active: bool
) -> None:
    """Password pending is not active, nor is what is not known."""
    server.users[1]["status"] = status
    assert user(read(connect(server)), "1").active is active


@pytest.mark.parametrize(("told", "manager"), [(None, None), ("", None), (5, "5"), ("5", "5")])
def test_managers(server: OneLoginServer, connect: Connect, told: Any, manager: str | None) -> None:
    """A number, or text."""
    server.users[1]["manager_user_id"] = told
    assert user(read(connect(server)), "1").manager == manager


@pytest.mark.parametrize(
    "told",
    [
        {"id": None}, {"id": "1"}, {"id": True}, {"status": None}, {"state": None}, {"manager_user_id": "CN=Ada"},
        {"manager_user_id": [5]},
        {"email": None, "username": ""},
    ],
)  # fmt: skip
def test_a_user_who_lacks_what_all_have(server: OneLoginServer, connect: Connect, told: dict[str, Any]) -> None:
    """Is an error, not a guess."""
    server.users[1].update(told)
    with pytest.raises((BadData, ServerFault)):
        read(connect(server))


def test_a_user_without_address_goes_by_the_user_name(server: OneLoginServer, connect: Connect) -> None:
    """One of both is required."""
    server.users[1].update(email=None, username="root", firstname=None, lastname=None)
    assert (user(read(connect(server)), "1").name, user(read(connect(server)), "1").email) == ("root", None)


# ── lists ──


def test_fewer_than_counted_are_incomplete(server: OneLoginServer, connect: Connect) -> None:
    """Total-Count is told in a header."""
    server.total = lambda of: of + 1
    with pytest.raises(Incomplete, match="roles: 2 of 3"):
        read(connect(server))


@pytest.mark.parametrize("name", ["users", "roles"])
@pytest.mark.parametrize("document", [{}, None, {"data": []}, "x"])
def test_an_answer_that_is_no_list(server: OneLoginServer, connect: Connect, name: str, document: Any) -> None:
    """Is no empty list."""
    with server.broken(name, 1, Answer(200, document)), pytest.raises(ServerFault):
        read(connect(server))


@pytest.mark.parametrize("document", [{}, [], None, {"data": None}, {"data": {}}])
def test_an_answer_that_is_no_list_of_groups(server: OneLoginServer, connect: Connect, document: Any) -> None:
    """API 1 has another form."""
    with server.broken("groups", 1, Answer(200, document)), pytest.raises(ServerFault):
        read(connect(server))


def test_groups_come_in_pages_too(server: OneLoginServer, connect: Connect) -> None:
    """With a cursor in the document; one that comes again is an error."""
    for n in range(73, 80):
        server.add_group(n, f"Group {n}")
    records = read(connect(server))
    assert [r.id for r in records if isinstance(r, Principal) and r.kind is Kind.GROUP] == [
        str(n) for n in range(71, 80)
    ]
    page = {"data": [], "pagination": {"after_cursor": "Ky8y"}}
    with server.broken("groups", 2, Answer(200, page)), pytest.raises(Incomplete, match="the same page token"):
        read(connect(server))


def test_a_role_that_went_is_incomplete(server: OneLoginServer, connect: Connect) -> None:
    """Between its list and that of its users."""
    server.roles_in_users = False
    with server.broken("role 2", 1, Answer(404, {"message": "not found"})), pytest.raises(Incomplete):
        read(connect(server))


# ── tokens ──


def test_one_token_serves_a_run(server: OneLoginServer, connect: Connect) -> None:
    """Taken when it is needed, with the credentials in the header and nowhere else."""
    connector = connect(server)
    assert server.tokens == 0
    read(connector)
    assert server.tokens == 1
    assert not any(server.client_secret in r for r in server.requests)


def test_a_token_that_ends_in_the_middle_is_renewed(server: OneLoginServer, connect: Connect) -> None:
    """Once; the run goes on where it was."""
    server.before = lambda name, number: server.end_tokens() if name == "users" and number == 1 else None
    assert users(read(connect(server))) == ["1", "2", "3", "4", "5"]
    assert server.tokens == 2


def test_a_new_token_that_is_refused_ends_the_run(server: OneLoginServer, connect: Connect) -> None:
    """Not renewed again and again."""
    with server.broken("users", 2, Answer(401, {"message": "Unauthorized"})):
        with pytest.raises(Unauthenticated):
            read(connect(server))
    assert server.tokens == 2


def test_a_first_token_that_is_refused_is_not_renewed(server: OneLoginServer, connect: Connect) -> None:
    """It was never good."""
    with server.broken("groups", 1, Answer(401, {"message": "Unauthorized"})), pytest.raises(Unauthenticated):
        read(connect(server))
    assert server.tokens == 1


def test_a_token_is_renewed_before_it_ends(
    server: OneLoginServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time that it was granted for."""
    connector = connect(server)
    read(connector)
    now = time.monotonic()
    monkeypatch.setattr(connectors.client_credentials.time, "monotonic", lambda: now + server.lasts - 30)  # type: ignore[attr-defined]
    read(connector)
    assert server.tokens == 2


def test_wrong_credentials(server: OneLoginServer, connect: Connect) -> None:
    """Are told as such."""
    with pytest.raises(Unauthenticated, match="the client's credentials were refused: 401") as caught:
        read(connect(server, secret="wrong"))
    assert "client_secret" in caught.value.remedy


@pytest.mark.parametrize("document", [{}, {"access_token": "x"}, {"access_token": None, "expires_in": 1}, []])
def test_an_answer_without_a_token(server: OneLoginServer, connect: Connect, document: Any) -> None:
    """Is the server's fault."""
    with server.broken("token", 1, Answer(200, document)), pytest.raises(ServerFault):
        read(connect(server))


# ── errors ──


def test_the_reset_that_a_429_tells_is_waited_for(
    server: OneLoginServer, connect: Connect, sleeps: list[float]
) -> None:
    """Seconds until the window ends; more than two minutes fail the scope."""
    with server.broken("roles", 1, Answer(429, {}, {"X-RateLimit-Reset": "17"}, times=1)):
        read(connect(server))
    assert sleeps == [17.0]
    with server.broken("roles", 1, Answer(429, {}, {"X-RateLimit-Reset": "1717"})), pytest.raises(Throttled):
        read(connect(server))


def test_a_run_leaves_a_tenth_of_the_limit(server: OneLoginServer, connect: Connect, sleeps: list[float]) -> None:
    """By the headers; whoever has used the rest."""
    server.limits |= {"X-RateLimit-Remaining": "499", "X-RateLimit-Reset": "40"}
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    read(connector)
    assert len(sleeps) == 2, "before the second page, and the third"
    assert all(30 < seconds <= 40 for seconds in sleeps)


def test_check_names_the_list_that_may_not_be_read(server: OneLoginServer, connect: Connect) -> None:
    """And the scope that covers it."""
    server.forbidden = {"roles"}
    checks = list(connect(server).check())
    assert [(c.what, c.ok) for c in checks] == [("read users", True), ("read groups", True), ("read roles", False)]
    assert checks[2].remedy == "grant the scope Read Users of the API credentials"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("name", ["users", "token"])
def test_no_error_shows_a_secret(server: OneLoginServer, connect: Connect, name: str, status: int) -> None:
    """Neither the client's nor a token."""
    answer = Answer(status, {"message": "no\n\x1b[31mway"}, {"X-RateLimit-Reset": "600"})
    with server.broken(name, 1, answer), pytest.raises(ConnectorError) as caught:
        read(connect(server))
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "SECRET" not in shown
    assert "\x1b" not in caught.value.message


def test_the_endpoint_is_required() -> None:
    """It names the account."""
    with pytest.raises(ValidationError, match="endpoint"):
        OneLoginOptions.model_validate({"client_id": "x", "client_secret": {"env": "S"}})
