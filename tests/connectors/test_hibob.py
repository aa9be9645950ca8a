"""The `hibob` connector: what Bob leaves out, and who is active."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import connectors.retry
from config.secrets import resolve
from connectors.errors import BadData, ConnectorError, Forbidden, ServerFault, Throttled, Unauthenticated
from connectors.hibob import DIRECTORY, FIELDS, HiBob, HiBobOptions, _until_reset
from connectors.values import Gap, Kind, Members, Principal, Record, Ref
from tests.servers.hibob import HiBobServer
from tests.servers.oncall import Answer, Page


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture
def server() -> Iterator[HiBobServer]:
    """Three people, the first of whom manages the others; one department below another."""
    with HiBobServer() as server:
        backend = server.add_department("11", "Backend")
        server.add_department("10", "Engineering", backend)
        server.add_department("12", "Sales")
        server.add_person("1", "ada@acme.example", "Ada Lovelace", department="10", title="Engineer", site="London")
        server.add_person(
            "2", "bo@acme.example", "Bo", department="11", reportsTo={"id": "1", "email": "…"}, manager="1"
        )
        server.add_person("3", "chi@acme.example", "Chi", "terminated", department="11", reportsTo=None, manager="1")
        yield server


class Connect:
    """Builds connectors to a server, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[HiBob] = []

    def __call__(self, server: HiBobServer, *, secret: str | None = None, **changes: Any) -> HiBob:
        file = self.folder / "token"
        file.write_text(server.token if secret is None else secret)
        told = {
            "service_user_id": server.service_user_id, "token": {"file": str(file)}, "endpoint": server.url,
            "ca_file": server.ca_file, "timeout": "10s",
        }  # fmt: skip
        options = HiBobOptions.model_validate({**told, **changes})
        resolve(options)
        self.open.append(HiBob(options))
        return self.open[-1]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    connect = Connect(tmp_path)
    yield connect
    for connector in connect.open:
        connector.close()


def read(connector: HiBob) -> list[Record]:
    return list(connector.read(DIRECTORY))


def user(records: list[Record], id_: str) -> Principal:
    (found,) = (r for r in records if isinstance(r, Principal) and r.ref == Ref(Kind.USER, id_))
    return found


def groups(records: list[Record]) -> dict[str, tuple[str, list[str]]]:
    names = {r.id: r.name for r in records if isinstance(r, Principal) and r.kind is Kind.GROUP}
    members = {r.group.id: [f"{m.kind}:{m.id}" for m in r.members] for r in records if isinstance(r, Members)}
    assert names.keys() == members.keys()
    return {id_: (name, members[id_]) for id_, name in names.items()}


def gaps(records: list[Record]) -> list[str]:
    return [r.code for r in records if isinstance(r, Gap)]


# ── people ──


@pytest.mark.parametrize("forms", [{"flat"}, {"nested"}, {"flat", "nested"}])
def test_a_person_in_full(server: HiBobServer, connect: Connect, forms: set[str]) -> None:
    """In either form; the department by its name and its id."""
    server.forms = forms
    assert user(read(connect(server)), "1") == Principal(
        Kind.USER,
        "1",
        "Ada Lovelace",
        "ada@acme.example",
        attributes={
            "firstName": "Ada", "surname": "Lovelace", "title": "Engineer", "site": "London",
            "department": ["Engineering", "10"], "lifecycleStatus": "employed",
        },
    )  # fmt: skip


def test_what_is_asked_for(server: HiBobServer, connect: Connect) -> None:
    """Former people, too, and no more fields than are used."""
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    bodies: list[bytes | None] = []
    answer = server.answer

    def noting(path: list[str], query: dict[str, list[str]], headers: Any) -> Page:
        bodies.append(server.body)
        return answer(path, query, headers)

    server.answer = noting  # type: ignore[method-assign]
    list(connector.read(DIRECTORY))
    (body,) = bodies
    assert body is not None
    assert json.loads(body) == {"fields": list(FIELDS), "showInactive": True, "humanReadable": "APPEND"}
    assert not any("salary" in field or "home" in field for field in FIELDS)


@pytest.mark.parametrize(
    ("lifecycle", "status", "active"),
    [
        ("employed", "Active", True),
        ("Employed", "active", True),
        ("parental leave", "Active", True),
        ("hired", "Active", False),
        ("garden leave", "Active", False),
        ("gardenLeave", "Active", False),
        ("terminated", "Inactive", False),
        ("employed", "Inactive", False),
        ("terminated", None, False),
        ("employed", None, True),
        (None, "Active", True),
        (None, "Inactive", False),
    ],
)
def test_active_or_not(
    server: HiBobServer, connect: Connect, lifecycle: str | None, status: str | None, active: bool
) -> None:
    """By both statuses, or the one that is told."""
    server.people["1"] |= {"internal.lifecycleStatus": lifecycle, "internal.status": status}
    assert user(read(connect(server)), "1").active is active


def test_managers(server: HiBobServer, connect: Connect) -> None:
    """From reportsTo, an object; else from manager, an id."""
    records = read(connect(server))
    assert [user(records, id_).manager for id_ in "123"] == [None, "1", "1"]
    server.people["2"]["work.reportsTo"] = "3"
    assert user(read(connect(server)), "2").manager == "3"


def test_names_where_there_are_few(server: HiBobServer, connect: Connect) -> None:
    """Somebody is never nameless."""
    for field in ("root.displayName", "root.fullName"):
        server.hidden.add(field)
    assert user(read(connect(server)), "1").name == "Ada Lovelace"
    server.hidden |= {"root.firstName", "root.surname"}
    assert user(read(connect(server)), "1").name == "ada@acme.example"
    server.hidden.add("root.email")
    assert user(read(connect(server)), "1").name == "1"


@pytest.mark.parametrize("field", ["work.manager", "work.department"])
@pytest.mark.parametrize("told", [{"name": "x"}, ["1"], True])
def test_a_reference_that_is_none(server: HiBobServer, connect: Connect, field: str, told: Any) -> None:
    """Is not nobody."""
    server.people["1"][field] = told
    with pytest.raises(BadData, match="has no id"):
        read(connect(server))


@pytest.mark.parametrize("id_", [None, "", True, {"value": "1"}])
def test_a_person_without_id(server: HiBobServer, connect: Connect, id_: Any) -> None:
    """Is an error."""
    server.people["1"]["root.id"] = id_
    with pytest.raises(BadData, match="has no id"):
        read(connect(server))


# ── departments ──


def test_departments_are_groups(server: HiBobServer, connect: Connect) -> None:
    """With their people, and the departments below them."""
    assert groups(read(connect(server))) == {
        "10": ("Engineering", ["user:1", "group:11"]),
        "11": ("Backend", ["user:2", "user:3"]),
        "12": ("Sales", []),
    }


def test_an_archived_department_is_there_while_somebody_is_in_it(server: HiBobServer, connect: Connect) -> None:
    """And not otherwise."""
    server.add_department("13", "Old", archived=True)
    assert "13" not in groups(read(connect(server)))
    server.people["1"]["work.department"] = "13"
    assert groups(read(connect(server)))["13"] == ("Old", ["user:1"])


def test_a_list_without_items_has_values(server: HiBobServer, connect: Connect) -> None:
    """An older form of the list, which does not nest."""
    document = {"name": "department", "values": [{"id": 10, "value": "Engineering"}]}
    with server.broken("departments", 1, Answer(200, document)):
        assert groups(read(connect(server))) == {"10": ("Engineering", ["user:1"])}


@pytest.mark.parametrize("document", [{}, [], None, {"items": None, "values": []}, {"values": {}}])
def test_an_answer_that_is_no_list_of_departments(server: HiBobServer, connect: Connect, document: Any) -> None:
    """Is no empty list."""
    with server.broken("departments", 1, Answer(200, document)), pytest.raises(ServerFault):
        read(connect(server))


@pytest.mark.parametrize(
    "item", [{}, {"id": "10"}, {"id": None, "name": "x"}, "x", {"id": "10", "name": "x", "children": 1}]
)
def test_a_department_that_is_none(server: HiBobServer, connect: Connect, item: Any) -> None:
    """Is never left out."""
    with server.broken("departments", 1, Answer(200, {"items": [item]})), pytest.raises(BadData):
        read(connect(server))


def test_departments_are_read_only_if_they_own(server: HiBobServer, connect: Connect) -> None:
    """People are what makes a manager."""
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    assert {r.kind for r in connector.read(DIRECTORY) if isinstance(r, Principal)} == {Kind.USER}
    assert server.requests == ["/v1/people/search"]
    assert connector.holds(DIRECTORY) == {Kind.USER, Kind.GROUP}


# ── what Bob leaves out ──


def test_nobody_shown_is_no_empty_company(server: HiBobServer, connect: Connect) -> None:
    """A service user without access rights."""
    server.people.clear()
    with pytest.raises(Forbidden, match="Bob shows nobody") as caught:
        read(connect(server))
    assert "Access rights" in caught.value.remedy


def test_statuses_that_are_hidden_make_nobody_active(server: HiBobServer, connect: Connect) -> None:
    """Former people would own."""
    server.hidden = {"internal.status", "internal.lifecycleStatus"}
    with pytest.raises(Forbidden, match="does not tell whether it is active") as caught:
        read(connect(server))
    assert "Lifecycle" in caught.value.permission


def test_departments_that_are_hidden_are_not_empty(server: HiBobServer, connect: Connect) -> None:
    """Only if they own does it matter."""
    server.hidden = {"work.department"}
    connector = connect(server)
    with pytest.raises(Forbidden, match="no department of anybody"):
        read(connector)
    connector.kinds = frozenset({Kind.USER})
    assert len([r for r in connector.read(DIRECTORY) if isinstance(r, Principal)]) == 3


def test_managers_that_are_hidden_are_a_gap(server: HiBobServer, connect: Connect) -> None:
    """Bob leaves them out without a word."""
    assert gaps(read(connect(server))) == []
    server.hidden = {"work.reportsTo", "work.manager"}
    assert gaps(read(connect(server))) == ["managers_hidden"]


def test_check_tells_what_is_told_of_nobody(server: HiBobServer, connect: Connect) -> None:
    """With the permission that shows it."""
    server.hidden = {"internal.status", "internal.lifecycleStatus", "work.reportsTo", "work.manager"}
    checks = {c.what: c for c in connect(server).check()}
    assert {what: c.ok for what, c in checks.items()} == {
        "read people": True,
        "see who is active": False,
        "see managers": True,
        "see departments": True,
        "read the list of departments": True,
    }
    assert "Lifecycle" in checks["see who is active"].remedy
    assert (checks["see managers"].detail, "Work" in checks["see managers"].remedy) == (
        "Bob tells no manager of anybody",
        True,
    )


# ── errors ──


@pytest.mark.parametrize("document", [{}, [], None, {"employees": None}, {"employees": {}}, "x"])
def test_an_answer_that_is_no_list_of_people(server: HiBobServer, connect: Connect, document: Any) -> None:
    """Is no empty list."""
    with server.broken("people", 1, Answer(200, document)), pytest.raises(ServerFault):
        read(connect(server))


def test_a_wrong_token_is_tried_once(server: HiBobServer, connect: Connect) -> None:
    """Bob blocks addresses that try again and again."""
    with pytest.raises(Unauthenticated, match="the service user's token was refused"):
        read(connect(server, secret="wrong"))
    assert len(server.requests) == 1


def test_the_reset_is_by_bobs_clock() -> None:
    """Seconds since the epoch, less the Date of the answer; Retry-After where there is no such header."""
    date = {"date": "Sun, 29 Nov 2026 08:00:00 GMT"}
    now = 1795939200
    assert _until_reset({**date, "x-ratelimit-reset": str(now + 30)}) == 30.0
    assert _until_reset({**date, "x-ratelimit-reset": str(now - 30)}) == 0.0
    assert _until_reset({**date, "x-ratelimit-reset": "soon", "retry-after": "7"}) == 7.0
    assert _until_reset({}) is None


def test_a_429_is_waited_for(server: HiBobServer, connect: Connect, sleeps: list[float]) -> None:
    """Unless the reset is far away."""
    with server.broken("people", 1, Answer(429, {}, {"X-RateLimit-Reset": "1"}, times=1)):
        read(connect(server))
    assert sleeps == [0.0]
    with server.broken("people", 1, Answer(429, {}, {"X-RateLimit-Reset": "4102444800"})), pytest.raises(Throttled):
        read(connect(server))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_no_error_shows_the_token(server: HiBobServer, connect: Connect, status: int) -> None:
    """Nor the pair that is sent."""
    answer = Answer(status, {"error": "no\n\x1b[31mway"}, {"Retry-After": "600"})
    with server.broken("people", 1, answer), pytest.raises(ConnectorError) as caught:
        read(connect(server))
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "SECRET" not in shown
    assert "\x1b" not in caught.value.message
