"""The `okta` connector, where Okta and its SDK mislead."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import connectors.retry
from config.secrets import resolve
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
from connectors.okta import DIRECTORY, ROLES, Okta
from connectors.okta_options import OktaOptions
from connectors.pace import Pace
from connectors.values import Bookmark, Change, Gap, Gone, Kind, Left, Members, Principal, Record, Ref
from tests.servers.okta import EVERYONE, Answer, OktaServer

ADA, BO, CHI = "00u00000000000000001", "00u00000000000000002", "00u00000000000000003"
PAYMENTS, STORAGE = "00g00000000000000001", "00g00000000000000002"


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture
def server() -> Iterator[OktaServer]:
    """An org of three users and two groups, in pages of one."""
    with OktaServer(page=1) as server:
        server.add_user(ADA, "ada@acme.example", displayName="Ada")
        server.add_user(BO, "bo@acme.example", displayName="Bo")
        server.add_user(CHI, "chi@acme.example", "DEPROVISIONED", displayName="Chi")
        server.add_group(PAYMENTS, "Team Payments")
        server.add_group(STORAGE, "Storage")
        server.add_member(PAYMENTS, ADA, BO, CHI)
        server.add_custom_role("cr0Yq6IJxGIr0ouum0g3", "Reader")
        server.add_custom_role("cr0Zq6IJxGIr0ouum0g3", "Writer")
        server.assign_role("cr0Yq6IJxGIr0ouum0g3", "Reader", user=ADA)
        server.assign_role("SUPER_ADMIN", "Super Administrator", user=BO)
        server.assign_role("SUPER_ADMIN", "Super Administrator", group=PAYMENTS)
        yield server


class Reader:
    """Builds connectors to a server, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[Okta] = []

    def options(self, server: OktaServer, **changes: Any) -> OktaOptions:
        file = self.folder / "token"
        file.write_text(server.token)
        told = {"org_url": server.url, "token": {"file": str(file)}, "ca_file": server.ca_file, "timeout": "10s"}
        options = OktaOptions.model_validate({k: v for k, v in {**told, **changes}.items() if v is not None})
        resolve(options)
        return options

    def __call__(self, server: OktaServer, **changes: Any) -> Okta:
        connector = Okta(self.options(server, **changes))
        self.open.append(connector)
        return connector


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    for connector in reader.open:
        connector.close()


def users_in(records: Sequence[Change]) -> list[str]:
    return [r.id for r in records if isinstance(r, Principal) and r.kind is Kind.USER]


def members_of(records: Sequence[Change], group: str) -> list[str]:
    return [m.id for r in records if isinstance(r, Members) and r.group.id == group for m in r.members]


# ── nothing is cut short ──


def test_a_failure_after_400_of_1000_members_is_no_list_of_400(connect: Reader) -> None:
    """The SDK's own paging ended normally here, with 400."""
    with OktaServer(page=200) as server:
        ids = [server.add_user(f"00u{n:017}", f"user{n}@acme.example") for n in range(1000)]
        server.add_group(PAYMENTS, "Team Payments")
        server.add_member(PAYMENTS, *ids)
        seen: list[Record] = []
        with server.broken(f"/api/v1/groups/{PAYMENTS}/users", 3, Answer.error("E0000009")):
            with pytest.raises(ServerFault, match=f"members of group {PAYMENTS}: HTTP 500: E0000009"):
                for record in connect(server).read(DIRECTORY):
                    seen.append(record)
        assert len(members_of(seen, PAYMENTS)) == 400
        assert members_of(list(connect(server).read(DIRECTORY)), PAYMENTS) == ids


LISTS = [
    (DIRECTORY, "/api/v1/users", 3),
    (DIRECTORY, "/api/v1/groups", 3),
    (DIRECTORY, f"/api/v1/groups/{PAYMENTS}/users", 3),
    (ROLES, "/api/v1/iam/roles", 2),
    (ROLES, "/api/v1/iam/assignees/users", 2),
    (ROLES, f"/api/v1/users/{ADA}/roles", 1),
    (ROLES, f"/api/v1/groups/{STORAGE}/roles", 1),
]
FAILURES: list[tuple[Answer, type[ConnectorError]]] = [
    (Answer(502), ServerFault),
    (Answer(500, b"<html>oops"), ServerFault),
    (Answer(503), ServerFault),
    (Answer(504, headers={"Retry-After": "1"}), ServerFault),
    (Answer(429), Throttled),
    (Answer.error("E0000011"), Unauthenticated),
    (Answer.error("E0000006"), Forbidden),
    (Answer.error("E0000001"), BadData),
    (Answer.error("E0000007"), Incomplete),
    (Answer(404, b"<html>no such page"), Misconfigured),
    (Answer(200), ServerFault),
    (Answer(200, b"   "), ServerFault),
    (Answer(200, b"<html>sign in"), ServerFault),
    (Answer(200, b'[{"id": "00u'), ServerFault),
    (Answer(200, b"null"), BadData),
    (Answer(200, b"{}"), BadData),
    (Answer(200, b'["x"]'), BadData),
    (Answer(right=True, cut=True), ServerFault),
]


@pytest.mark.parametrize(("scope", "path", "page"), LISTS, ids=[x[1].removeprefix("/api/v1/") for x in LISTS])
def test_a_bad_last_page_of_any_list_fails_the_scope(
    server: OktaServer, connect: Reader, scope: str, path: str, page: int
) -> None:
    """Each list of the API, each way to fail: an error of ours that names the place, and never a shorter list."""
    for answer, error in FAILURES:
        with server.broken(path, page, answer):
            with pytest.raises(error, match=r"^127\.0\.0\.1:\d+: ") as caught:
                list(connect(server).read(scope))
        assert type(caught.value) is error, answer


def test_each_role_list_is_read_whole(server: OktaServer, connect: Reader) -> None:
    """Roles: standard ones by their type, custom ones by their id, and what nobody holds."""
    records = list(connect(server).read(ROLES))
    assert [r for r in records if isinstance(r, Principal)] == [
        Principal(Kind.ROLE, "cr0Yq6IJxGIr0ouum0g3", "Reader"),
        Principal(Kind.ROLE, "cr0Zq6IJxGIr0ouum0g3", "Writer"),
        Principal(Kind.ROLE, "SUPER_ADMIN", "Super Administrator"),
    ]
    # Ada and Bo have SUPER_ADMIN through Payments as well; only the group's own assignment says so.
    assert [(r.group.id, r.members) for r in records if isinstance(r, Members)] == [
        ("cr0Yq6IJxGIr0ouum0g3", (Ref(Kind.USER, ADA),)),
        ("SUPER_ADMIN", (Ref(Kind.USER, BO),)),
        ("SUPER_ADMIN", (Ref(Kind.GROUP, PAYMENTS),)),
    ]


@pytest.mark.parametrize("one_header", [False, True])
def test_both_forms_of_the_link_header_are_followed(server: OktaServer, connect: Reader, one_header: bool) -> None:
    """Okta sends two Link headers, `self` first; the SDK's helper looks at the first alone, and would stop."""
    server.one_link_header = one_header
    assert users_in(list(connect(server).read(DIRECTORY))) == [ADA, BO, CHI]


@pytest.mark.parametrize(
    ("link", "error"),
    [
        ('<https://acme.okta.com/api/v1/users>; rel="next"', Incomplete),
        ('<https://acme.okta.com/api/v1/users?after=>; rel="next"', Incomplete),
    ],
)
def test_a_next_page_without_a_cursor_is_no_end(
    server: OktaServer, connect: Reader, link: str, error: type[ConnectorError]
) -> None:
    """A next page that cannot be asked for fails the scope."""
    with server.broken("/api/v1/users", 1, Answer(200, b"[]", {"Link": link})), pytest.raises(error):
        list(connect(server).read(DIRECTORY))


@pytest.mark.parametrize("body", [b'{"value": [], "_links": {"next": 7}}', b'{"value": [], "_links": {"next": {}}}'])
def test_a_next_page_in_the_body_that_makes_no_sense_is_no_end(
    server: OktaServer, connect: Reader, body: bytes
) -> None:
    """The same, where lists about roles have it."""
    with server.broken("/api/v1/iam/assignees/users", 1, Answer(200, body)), pytest.raises(BadData):
        list(connect(server).read(ROLES))


def test_a_user_deactivated_while_users_are_read_comes_once(server: OktaServer, connect: Reader) -> None:
    """With one list for the active and one for the deactivated, Bo would come twice, or not at all."""
    records = connect(server).read(DIRECTORY)
    first = next(records)
    server.update_user(BO, "DEPROVISIONED")
    server.update_user(CHI, "ACTIVE")
    assert users_in([first, *records]) == [ADA, BO, CHI]


def test_a_list_that_shows_nothing_hides_everything(server: OktaServer, connect: Reader) -> None:
    """Okta leaves out what a login may not see. No org is without users or groups, so an empty list is a refusal."""
    server.delete_group(EVERYONE)
    server.delete_group(PAYMENTS)
    server.delete_group(STORAGE)
    with pytest.raises(Forbidden, match="Okta shows no groups") as caught:
        list(connect(server).read(DIRECTORY))
    assert caught.value.permission == "okta.groups.read"
    with OktaServer() as empty:
        with pytest.raises(Forbidden, match="Okta shows no users"):
            list(connect(empty).read(DIRECTORY))
        checks = list(connect(empty).check())
    assert [(c.what, c.ok) for c in checks] == [
        ("read users", False),
        ("read groups", True),
        ("read custom roles", True),
        ("read users with roles", True),
        ("read the System Log", True),
    ]


# ── what the rows mean ──


def test_profiles_become_names_addresses_and_attributes(connect: Reader) -> None:
    """Login and e-mail both match `email`; lists stay lists, numbers and truths become text, nulls are left out."""
    with OktaServer() as server:
        server.add_user(
            ADA,
            "ada",
            email="ada@acme.example",
            secondEmail="ada@home.example",
            displayName="Ada \ud800",
            department="工程",
            floor=3,
            remote=True,
            teams=["a", "b", None],
            nothing=[],
            odd={"x": 1},
            managerId=BO,
        )
        server.add_user(BO, "bo@acme.example", firstName="Bo", lastName="Ek", managerId="4711")
        server.add_group(PAYMENTS, "Team Payments", type_="APP_GROUP", samAccountName="pay", description="Money")
        records = list(connect(server).read(DIRECTORY))
    assert records[0] == Principal(
        Kind.USER,
        ADA,
        "Ada \ud800",
        "ada@acme.example",
        manager=BO,
        aliases=("ada",),
        attributes={
            "login": "ada",
            "secondEmail": "ada@home.example",
            "displayName": "Ada \ud800",
            "department": "工程",
            "floor": "3",
            "remote": "true",
            "teams": ["a", "b"],
            "managerId": BO,
        },
    )
    assert isinstance(records[1], Principal)
    assert (records[1].name, records[1].email, records[1].manager) == ("Bo Ek", "bo@acme.example", None)
    assert records[2] == Principal(
        Kind.GROUP, PAYMENTS, "Team Payments", attributes={"samAccountName": "pay", "description": "Money"}
    )


@pytest.mark.parametrize(
    ("path", "row"),
    [
        (f"/api/v1/users/{ADA}/roles", {"type": "ORG_ADMIN"}),
        (f"/api/v1/groups/{STORAGE}/roles", {"assignmentType": "GROUP", "role": None}),
        ("/api/v1/users", {"status": "ACTIVE", "profile": {}}),
        ("/api/v1/users", {"id": "", "status": "ACTIVE", "profile": {}}),
        ("/api/v1/users", {"id": "00u1", "profile": {}}),
        ("/api/v1/users", {"id": "00u1", "status": "ACTIVE"}),
        ("/api/v1/groups", {"id": 7, "profile": {}}),
        ("/api/v1/groups", {"id": "00g1", "profile": None}),
        (f"/api/v1/groups/{PAYMENTS}/users", {"profile": {}}),
    ],
)
def test_a_row_without_what_every_row_has_is_an_error(
    server: OktaServer, connect: Reader, path: str, row: dict[str, Any]
) -> None:
    """An object that cannot be understood is never left out."""
    with server.broken(path, 1, Answer(200, json.dumps([row]).encode())), pytest.raises(BadData, match="has no"):
        list(connect(server).read(ROLES if path.endswith("roles") else DIRECTORY))


def test_a_status_nobody_knows_is_not_active(server: OktaServer, connect: Reader) -> None:
    """Only who is known to be able to act is active."""
    row = {"id": ADA, "status": "HIBERNATING", "profile": {"login": "ada"}}
    with server.broken("/api/v1/users", 1, Answer(200, json.dumps([row]).encode())):
        ada = next(connect(server).read(DIRECTORY))
    assert isinstance(ada, Principal)
    assert not ada.active


# ── only what is wanted ──


def test_nothing_is_read_that_owns_nothing(server: OktaServer, connect: Reader) -> None:
    """No roles without `role.*`, and no groups where only users own."""
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER, Kind.GROUP})
    assert connector.scopes() == [DIRECTORY]
    assert [c.what for c in connector.check()] == ["read users", "read groups", "read the System Log"]
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    server.requests.clear()
    assert users_in(list(connector.read(DIRECTORY))) == [ADA, BO, CHI]
    assert {path.partition("?")[0] for _, path in server.requests} == {"/api/v1/users", "/api/v1/logs"}
    connector.kinds = frozenset({Kind.USER, Kind.ROLE})
    assert connector.scopes() == [DIRECTORY, ROLES]
    assert members_of(list(connector.read(DIRECTORY)), PAYMENTS) == [ADA, BO, CHI]


def test_pages_are_as_large_as_okta_recommends(connect: Reader) -> None:
    """450 users take three requests, and the login's credentials are not asked for."""
    with OktaServer() as server:
        for n in range(450):
            server.add_user(f"00u{n:017}", f"user{n}@acme.example")
        connector = connect(server)
        connector.kinds = frozenset({Kind.USER})
        assert len(users_in(list(connector.read(DIRECTORY)))) == 450
        assert len([path for _, path in server.requests if path.startswith("/api/v1/users?")]) == 3


# ── who may read ──


def test_roles_may_be_forbidden_without_harm_to_the_rest(server: OktaServer, connect: Reader) -> None:
    """A login that may not see administrators reads users and groups; `check` says what is missing."""
    server.permissions.remove("okta.iam.read")
    connector = connect(server)
    assert users_in(list(connector.read(DIRECTORY))) == [ADA, BO, CHI]
    with pytest.raises(Forbidden) as caught:
        list(connector.read(ROLES))
    assert caught.value.permission == "okta.iam.read"
    assert "okta.roles.read" in caught.value.remedy
    bad = [c for c in connector.check() if not c.ok]
    assert [c.what for c in bad] == ["read custom roles", "read users with roles"]
    assert all("okta.iam.read" in c.remedy for c in bad)


@pytest.mark.parametrize("missing", ["okta.users.read", "okta.groups.read"])
def test_the_missing_permission_is_named(server: OktaServer, connect: Reader, missing: str) -> None:
    """403 names what to grant."""
    server.permissions.remove(missing)
    with pytest.raises(Forbidden, match="E0000006 You do not have permission") as caught:
        list(connect(server).read(DIRECTORY))
    assert caught.value.permission == missing
    assert missing in caught.value.remedy


def test_check_names_each_permission_of_a_login_that_has_none(server: OktaServer, connect: Reader) -> None:
    """All at once; only the System Log is optional."""
    server.permissions.clear()
    checks = list(connect(server).check())
    assert [c.ok for c in checks] == [False, False, False, False, True]
    for check, permission in zip(checks, ["users", "groups", "iam", "iam", "logs"], strict=True):
        assert f"okta.{permission}.read" in check.remedy


def test_a_wrong_token_is_said_to_be_one(server: OktaServer, connect: Reader, sleeps: list[float]) -> None:
    """401 is not tried again, in `check` as in a run."""
    server.token = "another"
    connector = Okta(connect.options(server))
    server.token = "changed"
    connect.open.append(connector)
    for ask in (lambda: list(connector.read(DIRECTORY)), lambda: list(connector.check())):
        with pytest.raises(Unauthenticated, match="E0000011 Invalid token provided"):
            ask()
    assert len(server.requests) == 2
    assert sleeps == []


# ── the token stays here ──


def test_the_token_follows_no_link_and_no_redirect(server: OktaServer, connect: Reader) -> None:
    """Of a link to the next page only the cursor is used; a redirect is an error."""
    with OktaServer() as elsewhere:
        server.link_origin = elsewhere.url
        assert users_in(list(connect(server).read(DIRECTORY))) == [ADA, BO, CHI]
        assert len([r for r in connect(server).read(ROLES) if isinstance(r, Principal)]) == 3
        for status in (301, 302, 307, 308):
            away = Answer(status, headers={"Location": f"{elsewhere.url}/api/v1/users"})
            with server.broken("/api/v1/users", 2, away), pytest.raises(Misconfigured, match=f"HTTP {status}"):
                list(connect(server).read(DIRECTORY))
        assert elsewhere.requests == []


def test_the_token_is_in_no_log_line(
    server: OktaServer, connect: Reader, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """At level DEBUG, with every logger on, through success and failure; nor in a message or a repr."""
    connector = connect(server)
    list(connector.read(DIRECTORY))  # loads the SDK, and with it its loggers
    for name in ("", *logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.disabled = False
        caplog.set_level(logging.DEBUG, logger=name)
    told = [repr(connector.options), str(connector.options)]
    list(connector.read(ROLES))
    for answer in (Answer.error("E0000011"), Answer(200), Answer(refuse=True), Answer(500)):
        with server.broken("/api/v1/users", 2, answer), pytest.raises(ConnectorError) as caught:
            list(connect(server).read(DIRECTORY))
        told += [repr(caught.value), caught.value.message, caught.value.remedy, repr(caught.value.__cause__)]
    logging.getLogger("test").debug("the log is on")
    out, err = capfd.readouterr()
    everything = "\n".join([caplog.text, out, err, *told])
    assert "the log is on" in everything
    assert server.token in server.authorizations[-1]
    for hidden in (server.token, "SSWS", "Authorization"):
        assert hidden not in everything


def test_only_our_configuration_counts(
    server: OktaServer, connect: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The SDK would read okta.yaml where it runs, and OKTA_CLIENT_*: whoever writes there would get the token."""
    Path(tmp_path, "okta.yaml").write_text("okta:\n  client:\n    orgUrl: https://127.0.0.1:1\n    token: wrong\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OKTA_CLIENT_ORGURL", "https://127.0.0.1:1")
    monkeypatch.setenv("OKTA_CLIENT_TOKEN", "wrong")
    assert users_in(list(connect(server).read(DIRECTORY))) == [ADA, BO, CHI]


# ── rate limits ──


def limits(server: OktaServer, *, limit: int, remaining: int, seconds: int) -> dict[str, str]:
    """Headers as Okta sends them, by the server's clock."""
    names = ("Limit", "Remaining", "Reset")
    return {
        f"X-Rate-Limit-{n}": str(v) for n, v in zip(names, (limit, remaining, int(server.clock) + seconds), strict=True)
    }


def test_a_429_waits_until_the_reset_by_the_servers_clock(
    server: OktaServer, connect: Reader, sleeps: list[float]
) -> None:
    """The server's clock is not ours (in these tests it stands still), yet the wait is right."""
    answer = Answer.error("E0000047", headers=limits(server, limit=600, remaining=0, seconds=37), times=1)
    with server.broken("/api/v1/users", 2, answer):
        assert users_in(list(connect(server).read(DIRECTORY))) == [ADA, BO, CHI]
    assert sleeps == [38.0]


def test_a_429_for_too_many_at_once_waits_too(server: OktaServer, connect: Reader, sleeps: list[float]) -> None:
    """The concurrency limit tells limit and remaining as 0."""
    answer = Answer.error("E0000047", headers=limits(server, limit=0, remaining=0, seconds=2), times=2)
    with server.broken("/api/v1/users", 1, answer):
        assert users_in(list(connect(server).read(DIRECTORY))) == [ADA, BO, CHI]
    assert sleeps == [3.0, 3.0]


def test_a_429_that_asks_for_too_long_fails_at_once(server: OktaServer, connect: Reader, sleeps: list[float]) -> None:
    """The scheduler comes back when the server says."""
    answer = Answer.error("E0000047", headers=limits(server, limit=600, remaining=0, seconds=900))
    with server.broken("/api/v1/users", 2, answer), pytest.raises(Throttled, match="E0000047") as caught:
        list(connect(server).read(DIRECTORY))
    assert caught.value.retry_after == 901
    assert sleeps == []


@pytest.mark.parametrize("broken", [{"X-Rate-Limit-Reset": "soon"}, {"X-Rate-Limit-Reset": ""}])
def test_a_429_with_senseless_headers_backs_off(
    server: OktaServer, connect: Reader, sleeps: list[float], broken: dict[str, str]
) -> None:
    """Without a time that makes sense, ours."""
    with server.broken("/api/v1/users", 2, Answer.error("E0000047", headers=broken)):
        with pytest.raises(Throttled) as caught:
            list(connect(server).read(DIRECTORY))
    assert caught.value.retry_after is None
    assert len(sleeps) == connectors.retry.ATTEMPTS - 1


def test_half_of_each_rate_limit_is_left_to_others(connect: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a whole read of some minutes: no 429, and in no minute more than half of a bucket's requests."""
    with OktaServer(page=1) as server:
        for n in range(25):
            server.add_user(f"00u{n:017}", f"user{n}@acme.example")
        server.limit = 20
        asked: list[float] = []

        def sleep(seconds: float) -> None:
            asked.append(seconds)
            server.advance(seconds)

        monkeypatch.setattr(connectors.retry, "sleep", sleep)
        connector = connect(server)
        assert len(users_in(list(connector.read(DIRECTORY)))) == 25
        assert server.throttled == 0
        assert max(server._used.values()) == 10
        assert len(asked) == 4  # 25 pages of users, and of Everyone's members
        assert all(1 <= seconds <= 61 for seconds in asked)


def test_what_others_use_is_heeded(server: OktaServer, connect: Reader, sleeps: list[float]) -> None:
    """With a tenth left, whoever took the rest, the next request waits for the next window, at most LONGEST_WAIT."""
    body = json.dumps([{"id": ADA, "status": "ACTIVE", "profile": {}}]).encode()
    more = {"Link": '<https://x.example/?after=++/v>; rel="next"'}
    for seconds, waits in ((20, 21), (5000, connectors.retry.LONGEST_WAIT)):
        sleeps.clear()
        answer = Answer(200, body, {**limits(server, limit=600, remaining=60, seconds=seconds), **more})
        with server.broken("/api/v1/users", 1, answer), pytest.raises(ConnectorError):
            list(connect(server).read(DIRECTORY))  # it gives a cursor that the next request is refused for
        assert sleeps == [pytest.approx(waits, abs=5)]


@pytest.mark.parametrize(("share", "most"), [(0.25, 10), (0.5, 20), (1, 40)])
def test_the_share_is_what_the_option_says(
    connect: Reader, monkeypatch: pytest.MonkeyPatch, share: float, most: int
) -> None:
    """Also when several requests go out at the same time."""
    with OktaServer() as server:
        server.add_user(ADA, "ada@acme.example")
        for n in range(90):
            server.add_group(f"00g{n:017}", f"group {n}")
        server.limit = 40
        monkeypatch.setattr(connectors.retry, "sleep", server.advance)
        records = list(connect(server, rate_share=share).read(DIRECTORY))
        assert len([r for r in records if isinstance(r, Members)]) == 91
        assert server.throttled == 0
        assert max(server._used.values()) == most


@pytest.mark.parametrize("share", [0, -0.5, 1.01, "half", float("nan")])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    """Above nothing, at most all."""
    with pytest.raises(ValidationError, match="rate_share"):
        OktaOptions.model_validate({"org_url": "https://acme.okta.com", "token": TOKEN, "rate_share": share})


def test_a_window_that_has_told_nothing_is_tried_by_one(sleeps: list[float]) -> None:
    """Of a limit that is not known, no more than one request is risked; where there is none, all may go."""
    pace = Pace(0.5)
    assert pace.keep("a", 8) == 1
    pace.untold("a")
    assert pace.keep("a", 8) == 8
    assert pace.keep("b", 8) == 1
    pace.count("b", limit=20, remaining=19, ends=60, wait=30)
    assert pace.keep("b", 20) == 9
    pace.count("b", limit=20, remaining=4, ends=60, wait=30)
    assert pace.keep("b", 8) == 2
    pace.untold("b")
    assert pace.keep("b", 8) == 2
    pace.count("b", limit=20, remaining=2, ends=60, wait=30)
    assert sleeps == []
    assert pace.keep("b", 8) == 1
    assert sleeps == [pytest.approx(30, abs=5)]


def test_an_answer_of_the_window_before_counts_for_nothing(sleeps: list[float]) -> None:
    """Answers to requests that went out together may come over the end of a window."""
    pace = Pace(1)
    pace.count("a", limit=10, remaining=9, ends=120, wait=60)
    pace.count("a", limit=10, remaining=0, ends=60, wait=0)
    assert pace.keep("a", 20) == 9
    assert sleeps == []


# ── side by side ──


def test_several_groups_members_are_read_at_the_same_time(connect: Reader) -> None:
    """Each group gets its own members, over one page or many."""
    with OktaServer(page=2) as server:
        users = [server.add_user(f"00u{n:017}", f"user{n}@acme.example") for n in range(9)]
        inside = {server.add_group(f"00g{n:017}", f"group {n}"): users[: n % 10] for n in range(30)}
        for group, members in inside.items():
            server.add_member(group, *members)
        records = list(connect(server).read(DIRECTORY))
        assert {group: members_of(records, group) for group in inside} == inside
        assert members_of(records, EVERYONE) == users
        groups = [r.id for r in records if isinstance(r, Principal) and r.kind is Kind.GROUP]
        assert groups == [*inside, EVERYONE]


def test_eight_requests_are_on_their_way_and_never_more(connect: Reader) -> None:
    """The server answers those of eight groups only when it has all eight requests."""
    with OktaServer() as server:
        server.add_user(ADA, "ada@acme.example")
        ids = [server.add_group(f"00g{n:017}", f"group {n}") for n in range(30)]
        server.meeting = {f"/api/v1/groups/{id_}/users" for id_ in ids[8:16]}
        list(connect(server).read(DIRECTORY))
        assert server.most_at_once == 8


def test_only_what_fails_is_asked_again(connect: Reader, sleeps: list[float]) -> None:
    """Of several requests at once, two are throttled: one wait for both, and the others' answers are kept."""
    with OktaServer() as server:
        server.add_user(ADA, "ada@acme.example")
        ids = [server.add_group(f"00g{n:017}", f"group {n}") for n in range(9)]
        reset = limits(server, limit=600, remaining=0, seconds=7)
        with (
            server.broken(f"/api/v1/groups/{ids[3]}/users", 1, Answer.error("E0000047", headers=reset, times=1)),
            server.broken(f"/api/v1/groups/{ids[5]}/users", 1, Answer(429, times=1)),
        ):
            records = list(connect(server).read(DIRECTORY))
        assert len([r for r in records if isinstance(r, Members)]) == 10
        asked = Counter(path.partition("?")[0] for _, path in server.requests if path.endswith("/users?limit=200"))
        assert {path.split("/")[4]: n for path, n in asked.items() if n > 1} == {ids[3]: 2, ids[5]: 2}
        assert sleeps == [8.0]


def test_of_several_failures_the_one_that_lasts_is_told(connect: Reader, sleeps: list[float]) -> None:
    """No retry helps against a refusal, whatever else would be worth one."""
    with OktaServer() as server:
        server.add_user(ADA, "ada@acme.example")
        ids = [server.add_group(f"00g{n:017}", f"group {n}") for n in range(9)]
        with (
            server.broken(f"/api/v1/groups/{ids[3]}/users", 1, Answer(503)),
            server.broken(f"/api/v1/groups/{ids[5]}/users", 1, Answer.error("E0000006")),
            pytest.raises(Forbidden, match=f"members of group {ids[5]}"),
        ):
            list(connect(server).read(DIRECTORY))
        assert sleeps == []


# ── managers ──


CHIEF, HEAD, TWIN = "00uChief000000000000", "00uHead0000000000000", "00uTwin0000000000000"
MANAGED: list[tuple[str, str | None]] = [
    # what managerId holds, and whom that means
    (CHIEF, CHIEF),
    ("chief", CHIEF),
    ("chief@acme.example", CHIEF),
    ("0042", CHIEF),
    ("部長@acme.example", HEAD),
    ("Chief", None),  # not to the letter
    ("42", None),
    ("chief@home.example", None),  # a secondEmail: users set it themselves
    ("Chief Officer", None),  # a display name
    ("4711", None),  # two users'
    ("nobody@acme.example", None),
    ('a" or profile.login eq "chief', None),
    ("a\\", None),
    ("x" * 5000, None),
    ("", None),
]


def managed(server: OktaServer) -> dict[str, str | None]:
    server.add_user(CHIEF, "chief", email="chief@acme.example", employeeNumber="0042", displayName="Chief Officer")
    server.update_user(CHIEF, secondEmail="chief@home.example")
    server.add_user(HEAD, "部長@acme.example", employeeNumber="4711")
    server.add_user(TWIN, "twin@acme.example", "DEPROVISIONED", employeeNumber="4711")
    return {
        server.add_user(f"00u{n:017}", f"user{n}@acme.example", managerId=told): manager
        for n, (told, manager) in enumerate(MANAGED)
    }


def managers_in(records: Iterable[Change]) -> dict[str, str | None]:
    return {r.id: r.manager for r in records if isinstance(r, Principal) and r.kind is Kind.USER}


def test_managers_are_found_by_what_is_one_users_alone(connect: Reader) -> None:
    """Whatever the personnel system puts into managerId; in doubt there is none. The same when changes are read."""
    with OktaServer() as server:
        expected = managed(server)
        records = list(connect(server).read(DIRECTORY))
        found = managers_in(records)
        assert {id_: found[id_] for id_ in expected} == expected
        assert len(found) == len(expected) + 3
        changes = list(connect(server).changes(DIRECTORY, bookmark_of(records)))
        assert managers_in(changes) == found
        searches = [path for _, path in server.requests if "search=" in path]
        assert len(searches) == 2  # for ten names


def test_a_manager_is_looked_up_once_for_all_reports_of_a_page(connect: Reader) -> None:
    """What is asked grows with the managers, not with their reports."""
    with OktaServer() as server:
        server.add_user(CHIEF, "chief")
        for n in range(150):
            server.add_user(f"00u{n:017}", f"user{n}@acme.example", managerId="chief")
        changes = list(connect(server).changes(DIRECTORY, ago(server, 60)))
        assert set(managers_in(changes).values()) == {CHIEF, None}
        assert len([path for _, path in server.requests if "search=" in path]) == 1


# ── what has changed ──


def ago(server: OktaServer, seconds: float) -> str:
    """A bookmark of that long ago, by the server's clock."""
    return datetime.fromtimestamp(server.clock - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def bookmark_of(records: Iterable[Change]) -> str:
    """The bookmark that counts: the last."""
    return [r for r in records if isinstance(r, Bookmark)][-1].token


def whole(connector: Okta, _server: OktaServer) -> Iterator[Change]:
    return iter(connector.read(DIRECTORY))


def changes_of_a_minute(connector: Okta, server: OktaServer) -> Iterator[Change]:
    return connector.changes(DIRECTORY, ago(server, 60))


READINGS = [whole, changes_of_a_minute]


def paths(server: OktaServer) -> list[str]:
    """What was asked since the last time, without queries."""
    found = [path.partition("?")[0].removeprefix("/api/v1/") for _, path in server.requests]
    server.requests.clear()
    return found


def settled(server: OktaServer, connector: Okta) -> str:
    """Read whole an hour after the last change: where changes go on from."""
    server.advance(3600)
    token = bookmark_of(connector.read(DIRECTORY))
    server.advance(3600)
    server.requests.clear()
    return token


def test_a_change_of_one_membership_costs_the_same_in_any_directory(connect: Reader) -> None:
    """Four requests, in an org of five groups as in one of five hundred."""
    costs = []
    for groups in (5, 500):
        with OktaServer() as server:
            users = [server.add_user(f"00u{n:017}", f"user{n}@acme.example") for n in range(20)]
            for n in range(groups):
                server.add_member(server.add_group(f"00g{n:017}", f"group {n}"), *users)
            connector = connect(server)
            since = settled(server, connector)
            server.remove_member(f"00g{3:017}", users[7])
            changes = list(connector.changes(DIRECTORY, since))
            assert members_of(changes, f"00g{3:017}") == [*users[:7], *users[8:]]
            assert Left(Ref(Kind.GROUP, f"00g{3:017}")) in changes
            assert len([c for c in changes if isinstance(c, Principal)]) == 1
            costs.append(paths(server))
    assert costs[0] == costs[1] == ["users", "groups", f"groups/00g{3:017}/users", "logs"]


def test_a_joiner_does_not_have_everyone_read_again(connect: Reader) -> None:
    """Everyone moves with every new user and holds them all; only the new one is told."""
    with OktaServer(page=1) as server:
        for n in range(20):
            server.add_user(f"00u{n:017}", f"user{n}@acme.example")
        connector = connect(server)
        since = settled(server, connector)
        server.add_user(ADA[:-1] + "x", "ada@acme.example")
        changes = list(connector.changes(DIRECTORY, since))
        assert members_of(changes, EVERYONE) == [ADA[:-1] + "x"]
        assert not any(isinstance(c, Left) for c in changes)
        assert paths(server) == ["users", "groups", "logs"]


def test_a_renamed_group_is_not_read_again(server: OktaServer, connect: Reader) -> None:
    """Its members have not moved."""
    connector = connect(server)
    since = settled(server, connector)
    server.update_group(PAYMENTS, name="Billing")
    changes = list(connector.changes(DIRECTORY, since))
    assert [c for c in changes if not isinstance(c, Bookmark)] == [Principal(Kind.GROUP, PAYMENTS, "Billing")]
    assert paths(server) == ["users", "groups", "logs"]


@pytest.mark.parametrize("status", ["SUSPENDED", "DEPROVISIONED", "STAGED"])
def test_a_user_who_may_no_longer_act_is_told(server: OktaServer, connect: Reader, status: str) -> None:
    """Suspended, deactivated: with the next poll, though still in the groups."""
    connector = connect(server)
    since = settled(server, connector)
    server.update_user(BO, status)
    told = [c for c in connector.changes(DIRECTORY, since) if isinstance(c, Principal)]
    assert [(c.id, c.active) for c in told] == [(BO, False)]


def test_what_is_gone_is_told_once_its_list_confirms_it(server: OktaServer, connect: Reader) -> None:
    """The System Log says where to look: users, groups, imported groups; over several pages; and no other event."""
    connector = connect(server)
    since = settled(server, connector)
    server.delete_user(BO)
    server.delete_group(STORAGE)
    server.log("group.lifecycle.delete", "UserGroup", PAYMENTS, "still there")
    server.log("system.import.group.delete", "UserGroup", "00gImported000000000", "imported")
    server.log("user.lifecycle.create", "User", "00uNever000000000000", "another event")
    server.log("user.lifecycle.delete.completed", "AppUser", "0ua00000000000000000", "no principal")
    changes = list(connector.changes(DIRECTORY, since))
    gone = [c.what for c in changes if isinstance(c, Gone)]
    assert gone == [
        Ref(Kind.USER, BO),
        Ref(Kind.GROUP, STORAGE),
        Ref(Kind.GROUP, "00gImported000000000"),
    ]
    assert paths(server) == ["users", "groups", *["logs"] * 5, "users", "groups"]
    assert not any(isinstance(c, Gap) for c in changes)


def test_many_deletions_are_confirmed_together(connect: Reader) -> None:
    """Forty a request."""
    with OktaServer() as server:
        users = [server.add_user(f"00u{n:017}", f"user{n}@acme.example") for n in range(101)]
        connector = connect(server)
        since = settled(server, connector)
        for user in users[:100]:
            server.delete_user(user)
        assert len([c for c in connector.changes(DIRECTORY, since) if isinstance(c, Gone)]) == 100
        assert paths(server) == ["users", "groups", "logs", "users", "users", "users"]


def test_an_empty_page_ends_the_log(server: OktaServer, connect: Reader) -> None:
    """A log that always links to a next page, as it does to those who poll it, is not read for ever."""
    link = {"Link": '<https://x.example/api/v1/logs?after=more>; rel="next"'}
    connector = connect(server)
    since = settled(server, connector)
    with server.broken("/api/v1/logs", 1, Answer(200, b"[]", link)):
        assert bookmark_of(connector.changes(DIRECTORY, since))
    assert paths(server) == ["users", "groups", "logs"]


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"target": None},
        {"target": ["x"]},
        {"target": [{"type": "UserGroup"}]},
        {"target": [{"type": "UserGroup", "id": 7}]},
        {"target": [{"type": "UserGroup", "id": 'x" or id eq "y'}]},
    ],
)
def test_a_deletion_of_nothing_is_an_error(server: OktaServer, connect: Reader, event: dict[str, Any]) -> None:
    """An event that cannot be understood is not passed over, and not sent on."""
    connector = connect(server)
    since = settled(server, connector)
    body = json.dumps([event]).encode()
    with server.broken("/api/v1/logs", 1, Answer(200, body)), pytest.raises(BadData, match="System Log"):
        list(connector.changes(DIRECTORY, since))


def test_without_the_log_deletions_wait_and_it_is_said(server: OktaServer, connect: Reader) -> None:
    """A permission for an optional part: a gap with its remedy, in a whole read, in changes, and in check."""
    server.permissions.remove("okta.logs.read")
    connector = connect(server)
    whole = list(connector.read(DIRECTORY))
    changes = list(connector.changes(DIRECTORY, bookmark_of(whole)))
    gaps = [r for r in (*whole, *changes) if isinstance(r, Gap)]
    assert [g.code for g in gaps] == ["deletions_late"] * 2
    assert "until the next whole read" in gaps[0].message
    assert "Report Administrator" in gaps[0].remedy
    assert "okta.logs.read" in gaps[0].remedy
    assert gaps[0] == gaps[1]
    assert [(c.what, c.ok, c.remedy) for c in connector.check()][-1] == ("read the System Log", True, gaps[0].remedy)


def test_an_app_without_the_scope_for_the_log_has_the_gap(
    server: OktaServer, connect: Reader, tmp_path: Path, keys: tuple[str, str]
) -> None:
    """A scope that is not granted refuses only the token that asks for it."""
    server.clients["0oaService"] = keys[1]
    server.granted.remove("okta.logs.read")
    records = list(connect(server, **oauth(tmp_path, keys[0])).read(DIRECTORY))
    assert [r.code for r in records if isinstance(r, Gap)] == ["deletions_late"]
    assert users_in(records) == [ADA, BO, CHI]


CHANGE_LISTS = [
    ("/api/v1/users", 2),
    ("/api/v1/groups", 2),
    (f"/api/v1/groups/{PAYMENTS}/users", 3),
    ("/api/v1/logs", 1),
]


@pytest.mark.parametrize(("path", "page"), CHANGE_LISTS, ids=[x[0].removeprefix("/api/v1/") for x in CHANGE_LISTS])
def test_a_bad_page_of_any_list_fails_the_changes(server: OktaServer, connect: Reader, path: str, page: int) -> None:
    """Each list, each way to fail: never fewer changes. But a log that may not be read is a gap."""
    for answer, error in FAILURES:
        if path.endswith("logs") and error is Forbidden:
            continue
        with server.broken(path, page, answer):
            with pytest.raises(error, match=r"^127\.0\.0\.1:\d+: ") as caught:
                list(connect(server).changes(DIRECTORY, ago(server, 60)))
        assert type(caught.value) is error, answer


def test_a_token_revoked_in_the_middle_fails_the_changes(server: OktaServer, connect: Reader) -> None:
    """What was read is not the end; with a good token the same changes are told again."""
    since = ago(server, 60)
    changes = connect(server).changes(DIRECTORY, since)
    next(changes)
    right, server.token = server.token, "another"
    with pytest.raises(Unauthenticated, match="E0000011"):
        list(changes)
    server.token = right
    assert users_in(list(connect(server).changes(DIRECTORY, since))) == [ADA, BO, CHI]


def test_a_group_deleted_while_changes_are_read_fails_them(server: OktaServer, connect: Reader) -> None:
    """As in a whole read; the next run is right."""
    since = ago(server, 60)
    changes = connect(server).changes(DIRECTORY, since)
    next(changes)
    gone = server.broken(f"/api/v1/groups/{PAYMENTS}/users", 1, Answer.error("E0000007"))
    with gone, pytest.raises(Incomplete, match=PAYMENTS):
        list(changes)


# ── bookmarks ──


def test_a_bookmark_is_the_servers_time_before_the_first_page(server: OktaServer, connect: Reader) -> None:
    """Less what a request may take and what the lists may lag; however long the rest takes, and whatever our clock says."""
    begun = server.clock
    for reading in READINGS:
        records = reading(connect(server), server)
        found = [next(records)]
        server.advance(7000)
        found += records
        assert bookmark_of(found) == ago(server, server.clock - begun + 10 + 300)
        begun = server.clock


def test_what_changes_while_all_is_read_is_told_next(server: OktaServer, connect: Reader) -> None:
    """A user renamed behind the reader, and a member who leaves a group that was read."""
    connector = connect(server)
    server.advance(3600)
    records = connector.read(DIRECTORY)
    found: list[Change] = [next(records)]
    for record in records:
        found.append(record)
        if record == Members(Ref(Kind.GROUP, EVERYONE), (Ref(Kind.USER, CHI),)):  # Payments' last page came before
            server.advance(1)
            server.update_user(ADA, displayName="Ada L.")
            server.remove_member(PAYMENTS, BO)
    changes = list(connector.changes(DIRECTORY, bookmark_of(found)))
    assert [c.name for c in changes if isinstance(c, Principal) and c.kind is Kind.USER] == ["Ada L."]
    assert members_of(changes, PAYMENTS) == [ADA, CHI]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        "2026-13-01T00:00:00.000Z",
        "2026-11-01",
        '2026-11-01T00:00:00.000Z" or id eq "x',
        "２０２６-11-01T00:00:00.000Z",
        "2026-11-01T00:00:00.000Z\n",
        "2026-11-01T00:00:00.000+01:00",
    ],
)
def test_a_bookmark_that_is_none_is_stale_unsent(server: OktaServer, connect: Reader, token: str) -> None:
    """Nothing of it reaches a filter."""
    with pytest.raises(StaleBookmark):
        list(connect(server).changes(DIRECTORY, token))
    assert server.requests == []


@pytest.mark.parametrize(("seconds", "stale"), [(31 * 86400, True), (29 * 86400, False), (-5, True)])
def test_a_bookmark_of_another_time_is_stale(server: OktaServer, connect: Reader, seconds: float, stale: bool) -> None:
    """Older than a month, or after the server's now: an org that was put back."""
    if not stale:
        assert users_in(list(connect(server).changes(DIRECTORY, ago(server, seconds)))) == [ADA, BO, CHI]
        return
    with pytest.raises(StaleBookmark):
        list(connect(server).changes(DIRECTORY, ago(server, seconds)))


def test_a_server_without_a_clock_is_read_whole(server: OktaServer, connect: Reader) -> None:
    """No Date, no bookmark: our clock is no substitute."""
    server.dated = False
    records = list(connect(server).read(DIRECTORY))
    assert users_in(records) == [ADA, BO, CHI]
    assert not any(isinstance(r, Bookmark) for r in records)
    with pytest.raises(StaleBookmark):
        list(connect(server).changes(DIRECTORY, ago(server, 60)))


def test_roles_give_no_bookmark(server: OktaServer, connect: Reader) -> None:
    """Nothing tells their changes: the scope is read whole each time."""
    assert not any(isinstance(r, Bookmark) for r in connect(server).read(ROLES))
    with pytest.raises(StaleBookmark):
        list(connect(server).changes(ROLES, ago(server, 60)))


def test_where_only_users_own_only_their_changes_are_read(server: OktaServer, connect: Reader) -> None:
    """No groups, no members, and no word of deleted groups."""
    connector = connect(server)
    connector.kinds = frozenset({Kind.USER})
    since = settled(server, connector)
    server.delete_group(STORAGE)
    server.delete_user(BO)
    changes = list(connector.changes(DIRECTORY, since))
    assert [c.what for c in changes if isinstance(c, Gone)] == [Ref(Kind.USER, BO)]
    assert paths(server) == ["users", "logs", "logs", "users"]


# ── the wire ──


def test_a_silent_server_is_given_up(server: OktaServer, connect: Reader) -> None:
    """The SDK's own time-out is none at all."""
    with (
        server.broken("/api/v1/users", 1, Answer(stall=True)),
        pytest.raises(Unreachable, match=r"no answer in 0\.05 s"),
    ):
        list(connect(server, timeout="50ms").read(DIRECTORY))


def test_an_unknown_authority_is_a_clear_error(server: OktaServer, connect: Reader, tmp_path: Path) -> None:
    """TLS is verified, and the remedy names the option."""
    with pytest.raises(Unreachable, match="TLS failed") as caught:
        list(connect(server, ca_file=None).read(DIRECTORY))
    assert "ca_file" in caught.value.remedy
    assert server.authorizations == []
    for wrong in (tmp_path / "missing.pem", tmp_path / "token"):
        with pytest.raises(Misconfigured, match=f"ca_file: {wrong}"):
            list(connect(server, ca_file=str(wrong)).read(DIRECTORY))


def test_refused_and_unknown_hosts_are_unreachable(connect: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both name the host."""
    server = OktaServer()

    def unknown(host: str | bytes | None, *_: Any, **__: Any) -> Any:
        if host == "127.0.0.1":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for url in ("https://127.0.0.1:1", "https://no-such-org.invalid"):
        with pytest.raises(Unreachable, match=f"cannot connect to {url[8:].partition(':')[0]}"):
            list(connect(server, org_url=url, ca_file=None).read(DIRECTORY))


def test_a_proxy_is_used(server: OktaServer, connect: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option's, else the environment's, which can except hosts."""
    dead = "http://127.0.0.1:1"
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Unreachable, match="cannot connect to 127"):
        list(connect(server, proxy=dead).read(DIRECTORY))
    monkeypatch.setenv("https_proxy", dead)
    with pytest.raises(Unreachable, match="cannot connect to 127"):
        list(connect(server).read(DIRECTORY))
    assert server.requests == []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert users_in(list(connect(server).read(DIRECTORY))) == [ADA, BO, CHI]


def test_the_endpoint_stands_in_for_the_org(server: OktaServer, connect: Reader) -> None:
    """A gateway in front of the org: requests go there."""
    connector = connect(server, org_url="https://acme.okta.com", endpoint=f"{server.url}/")
    assert users_in(list(connector.read(DIRECTORY))) == [ADA, BO, CHI]


# ── OAuth ──


@pytest.fixture(scope="module")
def keys() -> tuple[str, str]:
    """An RSA key, private and public, as PEM."""
    from jwcrypto.jwk import JWK  # type: ignore[import-untyped]

    key = JWK.generate(kty="RSA", size=2048, kid="the-key")
    return key.export_to_pem(private_key=True, password=None).decode(), key.export_to_pem().decode()


def oauth(folder: Path, key: str, **more: Any) -> dict[str, Any]:
    file = folder / "key"
    file.write_text(key)
    return {"token": None, "client_id": "0oaService", "private_key": {"file": str(file)}, **more}


@pytest.mark.parametrize("form", ["pem", "jwk"])
def test_an_app_with_a_private_key_reads_all(
    server: OktaServer, connect: Reader, tmp_path: Path, keys: tuple[str, str], form: str
) -> None:
    """The key signs for an access token, which the server verifies; one for each set of scopes, none twice."""
    from jwcrypto.jwk import JWK

    private, public = keys
    server.clients["0oaService"] = public
    key = private if form == "pem" else JWK.from_pem(private.encode()).export_private()
    connector = connect(server, **oauth(tmp_path, key))
    assert users_in(list(connector.read(DIRECTORY))) == [ADA, BO, CHI]
    assert members_of(list(connector.read(ROLES)), "SUPER_ADMIN") == [BO, PAYMENTS]
    assert [path for method, path in server.requests if method == "POST"] == ["/oauth2/v1/token"] * 3
    assert all(a.startswith("Bearer ") for a in server.authorizations if a)
    assert all(c.ok for c in connector.check())


def test_an_access_token_that_ends_is_renewed(
    server: OktaServer, connect: Reader, tmp_path: Path, keys: tuple[str, str]
) -> None:
    """In time, and with a new assertion: Okta takes each only once."""
    server.clients["0oaService"] = keys[1]
    server.token_life = 1
    assert users_in(list(connect(server, **oauth(tmp_path, keys[0])).read(DIRECTORY))) == [ADA, BO, CHI]
    posts = [path for method, path in server.requests if method == "POST"]
    assert len(posts) == len(server.requests) / 2


def test_access_tokens_that_are_revoked_are_renewed_once(
    server: OktaServer, connect: Reader, tmp_path: Path, keys: tuple[str, str]
) -> None:
    """Revoked in the middle, whatever was left of its time; whole and changes. An app that is revoked itself is refused."""
    server.clients["0oaService"] = keys[1]
    for reading in READINGS:
        records = reading(connect(server, **oauth(tmp_path, keys[0])), server)
        found: list[Change] = [next(records)]
        server.revoke_access_tokens()
        found += records
        assert users_in(found) == [ADA, BO, CHI]
        assert members_of(found, PAYMENTS) == [ADA, BO, CHI]
    records = connect(server, **oauth(tmp_path, keys[0])).read(DIRECTORY)
    next(records)
    server.revoke_access_tokens()
    server.clients.clear()
    with pytest.raises(Unauthenticated, match="invalid_client"):
        list(records)


def test_a_token_that_is_refused_when_new_is_unauthenticated(
    server: OktaServer, connect: Reader, tmp_path: Path, keys: tuple[str, str]
) -> None:
    """It is renewed once, not for ever."""
    server.clients["0oaService"] = keys[1]
    connector = connect(server, **oauth(tmp_path, keys[0]))
    with server.broken("/api/v1/users", 1, Answer.error("E0000011")), pytest.raises(Unauthenticated, match="E0000011"):
        list(connector.read(DIRECTORY))
    assert len(server.requests) == 4


def test_an_app_without_the_roles_scope_reads_the_rest(
    server: OktaServer, connect: Reader, tmp_path: Path, keys: tuple[str, str]
) -> None:
    """A token is refused whole for one scope that is not granted: hence two."""
    server.clients["0oaService"] = keys[1]
    server.granted.remove("okta.roles.read")
    connector = connect(server, **oauth(tmp_path, keys[0]))
    assert users_in(list(connector.read(DIRECTORY))) == [ADA, BO, CHI]
    with pytest.raises(Forbidden, match="access token: HTTP 400: invalid_scope"):
        list(connector.read(ROLES))


def test_an_app_that_is_not_known_is_unauthenticated(
    server: OktaServer, connect: Reader, tmp_path: Path, keys: tuple[str, str]
) -> None:
    """A wrong client id, or a key that the app does not list."""
    with pytest.raises(Unauthenticated, match="access token: HTTP 401: invalid_client") as caught:
        list(connect(server, **oauth(tmp_path, keys[0])).read(DIRECTORY))
    assert "private_key" in caught.value.remedy


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(500), ServerFault),
        (Answer(429), Throttled),
        (Answer(200), ServerFault),
        (Answer(200, b'{"access_tok'), ServerFault),
        (Answer(200, b"[]"), ServerFault),
        (Answer(200, b"{}"), BadData),
        (Answer(400, b'{"error": "invalid_dpop_proof", "error_description": "DPoP"}'), Unauthenticated),
        (Answer(302, headers={"Location": "https://127.0.0.1:1/"}), Misconfigured),
    ],
)
def test_a_token_endpoint_that_fails_is_a_clear_error(
    server: OktaServer,
    connect: Reader,
    tmp_path: Path,
    keys: tuple[str, str],
    answer: Answer,
    error: type[ConnectorError],
) -> None:
    """Whatever the SDK makes of it."""
    server.clients["0oaService"] = keys[1]
    with server.broken("/oauth2/v1/token", 1, answer), pytest.raises(error, match="access token") as caught:
        list(connect(server, **oauth(tmp_path, keys[0])).read(DIRECTORY))
    assert type(caught.value) is error


@pytest.mark.parametrize("spoilt", ["nonsense-of-a-key", '{"kty": "RSA", "n": "secretpart"}', "{true", "/"])
def test_a_spoilt_key_is_told_without_being_shown(
    server: OktaServer, connect: Reader, tmp_path: Path, spoilt: str
) -> None:
    """A parser's message can quote what it met."""
    with pytest.raises(Misconfigured, match="is no RSA private key") as caught:
        list(connect(server, **oauth(tmp_path, spoilt)).read(DIRECTORY))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert spoilt == "/" or spoilt not in str(caught.value)


def test_a_token_with_a_space_is_refused_unsent(server: OktaServer, connect: Reader) -> None:
    """As when a whole header was pasted; the value is not shown."""
    right, server.token = server.token, f"SSWS {server.token}"
    with pytest.raises(Misconfigured, match="such as a space") as caught:
        list(connect(server).read(DIRECTORY))
    assert right not in str(caught.value)
    assert server.requests == []


TOKEN, KEY = {"env": "OKTA_TOKEN"}, {"file": "/run/secrets/okta-key"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give one login: either token, or client_id with private_key"),
        ({"token": TOKEN, "client_id": "0oa", "private_key": KEY}, "give one login"),
        ({"token": TOKEN, "client_id": "0oa"}, "belong together"),
        ({"client_id": "0oa"}, "belong together"),
        ({"private_key": KEY}, "belong together"),
        ({"token": "00literal"}, "a literal secret is refused"),
        ({"token": TOKEN, "org_url": "http://acme.okta.com"}, "org_url must use https"),
        ({"token": TOKEN, "org_url": "acme.okta.com"}, "org_url must be an https:// URL"),
        ({"token": TOKEN, "org_url": "https://acme-admin.okta.com"}, "leave out -admin"),
        ({"token": TOKEN, "org_url": "https://acme.okta.com/api/v1"}, "without a path"),
        ({"token": TOKEN, "org_url": "https://me:pw@acme.okta.com"}, "without a path"),
        ({"token": TOKEN, "org_url": None}, "Field required"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], said: str) -> None:
    """One login, whole; the org's own URL, over TLS."""
    told = {"org_url": "https://acme.okta.com", **options}
    with pytest.raises(ValidationError, match=said) as caught:
        OktaOptions.model_validate({k: v for k, v in told.items() if v is not None})
    assert "00literal" not in str(caught.value)
    assert "me:pw" not in str(caught.value)


def test_closing_twice_or_unused_is_fine(server: OktaServer, connect: Reader) -> None:
    """`close` is called whatever happened."""
    connect(server).close()
    connector = connect(server)
    next(connector.read(DIRECTORY))
    connector.close()
    connector.close()


def test_the_sdk_still_misleads(server: OktaServer, caplog: pytest.LogCaptureFixture) -> None:
    """Why its paging helper and its HTTP client are not used. When this fails, look at `connectors/okta_wire.py` again."""
    from multidict import CIMultiDict
    from okta.http_client import HTTPClient
    from okta.pagination import PaginationHelper

    both = CIMultiDict([("Link", '<https://x/>; rel="self"'), ("Link", '<https://x/?after=2>; rel="next"')])
    assert PaginationHelper.extract_next_cursor(both) is None  # type: ignore[arg-type]
    caplog.set_level(logging.DEBUG, logger="okta-sdk-python")
    logging.getLogger("okta-sdk-python").disabled = False
    headers = {"Authorization": f"SSWS {server.token}"}
    client = HTTPClient({"headers": {}})  # type: ignore[no-untyped-call]
    request = {"method": "GET", "url": "https://127.0.0.1:1", "headers": headers, "data": None, "form": None}
    asyncio.run(client.send_request(request))  # type: ignore[no-untyped-call]
    assert server.token in caplog.text
