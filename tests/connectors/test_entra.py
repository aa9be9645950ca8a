"""The `entra` connector, where Graph and its SDK mislead."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import connectors.retry
from config.secrets import resolve
from connectors.entra import Entra, EntraOptions
from connectors.entra_rows import GROUPS, ROLES, USERS
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
from connectors.values import Bookmark, Change, Gap, Gone, Kind, Left, Members, Principal, Ref
from tests.connectors.rig import Content
from tests.servers import graph
from tests.servers.graph import NO_ROLE, Answer, GraphProblem, GraphServer


def guid(kind: str, number: int) -> str:
    return f"{kind * 8}-0000-4000-8000-{number:012x}"


ADA, BO, CHI = (guid("a", n) for n in (1, 2, 3))
PAYMENTS, STORAGE, NESTED = (guid("b", n) for n in (1, 2, 3))
ADMINS, APP = guid("c", 1), guid("e", 1)
WRITER, READER, OFF, DAEMON = (guid("f", n) for n in (1, 2, 3, 4))
U = "/v1.0/users"


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", asked.append)
    return asked


@pytest.fixture
def server() -> Iterator[GraphServer]:
    """A tenant of three users and three groups, in pages of one."""
    with GraphServer(page=1) as server:
        server.add_user(ADA, "ada@acme.example", "Ada", department="Math", manager=BO)
        server.add_user(BO, "bo@acme.example", "Bo")
        server.add_user(CHI, "chi@acme.example", "Chi", enabled=False)
        server.add_group(STORAGE, "Storage")
        server.add_group(PAYMENTS, "Team Payments", ADA, BO)
        server.add_group(NESTED, "Nested", PAYMENTS, CHI)
        server.add_role(ADMINS, "Global Administrator", guid("6", 1), ADA, NESTED)
        server.add_app(
            APP,
            "Ledger",
            (WRITER, "Writer", ["User"], True),
            (READER, "Reader", ["User", "Application"], True),
            (OFF, "Off", ["User"], False),
            (DAEMON, "Daemon", ["Application"], True),
        )
        server.assign(APP, WRITER, ADA)
        server.assign(APP, READER, NESTED, "Group")
        server.assign(APP, NO_ROLE, BO)
        yield server


class Reader:
    """Builds connectors to a server, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[Entra] = []

    def options(self, server: GraphServer, **changes: Any) -> EntraOptions:
        file = self.folder / "token"
        file.write_text(server.token)
        told = {"endpoint": server.url, "access_token": {"file": str(file)}, "timeout": "10s"}
        told |= {"ca_file": server.ca_file} if server.tls else {}
        options: EntraOptions = EntraOptions.model_validate(
            {k: v for k, v in {**told, **changes}.items() if v is not None}
        )
        resolve(options)
        return options

    def __call__(self, server: GraphServer, **changes: Any) -> Entra:
        connector = Entra(self.options(server, **changes))
        self.open.append(connector)
        return connector

    def whole(self, server: GraphServer, scope: str) -> list[Any]:
        return list(self(server).read(scope))

    def since(self, server: GraphServer, scope: str, bookmark: str) -> list[Any]:
        return list(self(server).changes(scope, bookmark))


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    for connector in reader.open:
        connector.close()


def users_in(records: list[Change]) -> list[str]:
    return [r.id for r in records if isinstance(r, Principal) and r.kind is Kind.USER]


def one(records: list[Change], id_: str) -> Principal:
    found = [r for r in records if isinstance(r, Principal) and r.id == id_]
    assert len(found) == 1, found
    return found[0]


def members_of(records: list[Change], group: str) -> list[str]:
    return sorted(m.id for r in records if isinstance(r, Members) and r.group.id == group for m in r.members)


def bookmark_of(records: list[Change]) -> str:
    found = [r.token for r in records if isinstance(r, Bookmark)]
    assert len(found) == 1
    return found[0]


def gaps_in(records: list[Change]) -> list[Gap]:
    return [r for r in records if isinstance(r, Gap)]


# ── what is read ──


def test_a_user_is_read_with_all_that_names_it(server: GraphServer, connect: Reader) -> None:
    """Name, mail, further addresses, attributes (extension attributes beside the others), and the manager's id."""
    server.update(
        "users",
        ADA,
        mail="ada.l@acme.example",
        proxyAddresses=[
            "SMTP:ada.l@acme.example",
            "smtp:countess@acme.example",
            "X500:/o=acme",
            "SIP:ada@acme.example",
        ],
        otherMails=["ada@home.example"],
        onPremisesExtensionAttributes={"extensionAttribute1": "CC-17", "extensionAttribute2": None},
    )
    note = Answer(change=lambda page: page["value"][0].update({"@odata.id": "users/1", "@odata.type": "#user"}))
    with server.broken(U, 1, note):
        ada = one(connect.whole(server, "users"), ADA)
    assert (ada.name, ada.email, ada.active, ada.manager) == ("Ada", "ada.l@acme.example", True, BO)
    assert ada.aliases == ("ada@acme.example", "countess@acme.example")  # not one that nothing has verified
    assert ada.attributes["extensionAttribute1"] == "CC-17"
    assert ada.attributes["otherMails"] == ["ada@home.example"]
    assert ada.attributes["department"] == "Math"
    assert not {"extensionAttribute2", "manager", "id", "displayName", "mail"} & ada.attributes.keys()
    assert not [key for key in ada.attributes if "@" in key]


def test_a_user_without_mail_goes_by_the_login(server: GraphServer, connect: Reader) -> None:
    """A disabled account is inactive."""
    chi = one(connect.whole(server, "users"), CHI)
    assert (chi.email, chi.aliases, chi.active, chi.manager) == ("chi@acme.example", (), False, None)


def test_a_group_is_read_with_its_addresses(server: GraphServer, connect: Reader) -> None:
    """Mail, aliases and attributes; booleans match as text."""
    server.update(
        "groups", STORAGE, mail="s@acme.example", proxyAddresses=["smtp:old@acme.example"], groupTypes=["Unified"]
    )
    storage = one(connect.whole(server, "groups"), STORAGE)
    assert (storage.name, storage.email, storage.aliases) == ("Storage", "s@acme.example", ("old@acme.example",))
    assert storage.attributes["groupTypes"] == ["Unified"]
    assert storage.attributes["securityEnabled"] == "true"


def test_lists_ask_for_the_largest_pages_and_the_managers_ids(server: GraphServer, connect: Reader) -> None:
    """With `$expand` Graph gives 100 a page, whatever is asked for; without, 999."""
    connect.whole(server, "users")
    lists = [r for r in server.requests if r.startswith("/v1.0/users?")]
    assert all("$top=999" in r and "$expand=manager($select=id)" in r for r in lists)
    assert len(lists) == 3


def test_direct_members_of_every_kind_are_named(server: GraphServer, connect: Reader) -> None:
    """Groups as groups; a device or an application as a user that nobody lists, so that it never owns."""
    device = guid("d", 7)
    server.link("groups", NESTED, device, "device")
    server.link("groups", NESTED, APP)
    records = connect.whole(server, "groups")
    members = {m for r in records if isinstance(r, Members) and r.group.id == NESTED for m in r.members}
    assert members == {
        *(Ref(Kind.USER, id_) for id_ in (CHI, device, APP)),
        Ref(Kind.GROUP, PAYMENTS),
    }


def test_a_large_group_comes_in_parts_and_is_one_group(server: GraphServer, connect: Reader) -> None:
    """Its parts are on several pages; its name is told once, its members are all there."""
    ids = [server.add_user(guid("a", 100 + n), f"u{n}@acme.example") for n in range(25)]
    for id_ in ids:
        server.link("groups", STORAGE, id_)
    server.members_page = 4
    records = connect.whole(server, "groups")
    assert members_of(records, STORAGE) == ids
    assert one(records, STORAGE).name == "Storage"


def test_a_group_that_comes_again_later_is_one_group(server: GraphServer, connect: Reader) -> None:
    """No order of a round is promised: between a group's parts others may come."""

    def again(page: dict[str, Any]) -> None:
        page["value"].append(
            {
                "id": PAYMENTS,
                "displayName": "Team Payments",
                "members@delta": [{"@odata.type": "#microsoft.graph.user", "id": CHI}],
            }
        )

    with server.broken("/v1.0/groups/delta", 3, Answer(change=again)):
        records = connect.whole(server, "groups")
    assert one(records, PAYMENTS).name == "Team Payments"
    assert members_of(records, PAYMENTS) == [ADA, BO, CHI]


def test_what_the_first_round_tells_as_removed_is_not_there(server: GraphServer, connect: Reader) -> None:
    """Objects and members alike: a round that begins may tell them, too."""

    def more(page: dict[str, Any]) -> None:
        page["value"] += [
            {"id": guid("b", 99), "@removed": {"reason": "deleted"}},
            {
                "id": guid("b", 98),
                "displayName": "New",
                "members@delta": [
                    {"@odata.type": "#microsoft.graph.user", "id": CHI, "@removed": {"reason": "deleted"}}
                ],
            },
        ]

    with server.broken("/v1.0/groups/delta", 2, Answer(change=more)):
        records = connect.whole(server, "groups")
    assert guid("b", 99) not in [r.id for r in records if isinstance(r, Principal)]
    assert one(records, guid("b", 98)).name == "New"
    assert members_of(records, guid("b", 98)) == []


def test_directory_roles_are_held_by_users_and_groups(server: GraphServer, connect: Reader) -> None:
    """The template's id, which is the same in every tenant, matches as an attribute."""
    records = connect.whole(server, "roles")
    assert one(records, ADMINS).attributes["roleTemplateId"] == guid("6", 1)
    assert [m for r in records if isinstance(r, Members) for m in r.members] == [
        Ref(Kind.USER, ADA),
        Ref(Kind.GROUP, NESTED),
    ]


def test_app_roles_are_those_that_people_hold(server: GraphServer, connect: Reader) -> None:
    """With the application's name, since anybody may call a role anything; not what is off, or for applications."""
    records = connect.whole(server, "app_roles")
    assert {r.id: r.name for r in records if isinstance(r, Principal)} == {
        f"{APP}/{WRITER}": "Ledger/Writer",
        f"{APP}/{READER}": "Ledger/Reader",
    }
    assert one(records, f"{APP}/{WRITER}").attributes == {
        "value": "Writer",
        "app": "Ledger",
        "appId": server._objects["servicePrincipals"][APP]["appId"],
    }
    assert members_of(records, f"{APP}/{WRITER}") == [ADA]
    assert not [r for r in records if isinstance(r, Bookmark)]


def test_an_app_role_does_not_come_down_to_nested_groups(server: GraphServer, connect: Reader) -> None:
    """As Entra has it: only the direct members of the group that it is given to hold it."""
    assert members_of(connect.whole(server, "app_roles"), f"{APP}/{READER}") == [CHI]


def test_a_group_with_many_app_roles_is_asked_once(server: GraphServer, connect: Reader) -> None:
    """However many are given to it."""
    server.assign(APP, WRITER, NESTED, "Group")
    records = connect.whole(server, "app_roles")
    assert members_of(records, f"{APP}/{WRITER}") == [ADA, CHI]
    asked = [r for r in server.requests if f"/groups/{NESTED}/members" in r and "skiptoken" not in r]
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("kinds", "scopes"),
    [
        ({Kind.USER}, ["users"]),
        ({Kind.GROUP}, ["users", "groups"]),
        ({Kind.ROLE}, ["users", "groups", "roles", "app_roles"]),
        (set(Kind), ["users", "groups", "roles", "app_roles"]),
    ],
)
def test_only_what_can_own_is_read(server: GraphServer, connect: Reader, kinds: set[Kind], scopes: list[str]) -> None:
    """Roles take permissions that few logins have; they are held by groups, too."""
    connector = connect(server)
    connector.kinds = frozenset(kinds)
    assert list(connector.scopes()) == scopes
    for scope in scopes:
        assert {r.kind for r in connector.read(scope) if isinstance(r, Principal)} == connector.holds(scope)


# ── hidden memberships ──


def hide(server: GraphServer, id_: str = PAYMENTS) -> None:
    server.update("groups", id_, visibility="HiddenMembership")


def test_a_group_that_cannot_be_seen_into_does_not_look_empty(server: GraphServer, connect: Reader) -> None:
    """Without Member.Read.Hidden Graph shows no members, and no error: the group is left out, and a gap names it."""
    hide(server)
    records = connect.whole(server, "groups")
    assert PAYMENTS not in [r.id for r in records if isinstance(r, Principal)]
    assert members_of(records, PAYMENTS) == []
    (gap,) = gaps_in(records)
    assert gap.code == "hidden_membership"
    assert '"Team Payments"' in gap.message
    assert "Member.Read.Hidden" in gap.remedy


def test_with_the_permission_hidden_memberships_are_read(server: GraphServer, connect: Reader) -> None:
    """No gap then, wherever the members come in the round."""
    hide(server)
    server.permissions.add("Member.Read.Hidden")
    records = connect.whole(server, "groups")
    assert one(records, PAYMENTS).name == "Team Payments"
    assert members_of(records, PAYMENTS) == [ADA, BO]
    assert gaps_in(records) == []


def test_a_hidden_group_whose_members_come_later_is_read(server: GraphServer, connect: Reader) -> None:
    """Its first part may be without any."""
    hide(server, STORAGE)
    member = {"@odata.type": "#microsoft.graph.user", "id": CHI}

    def later(page: dict[str, Any]) -> None:
        page["value"].append({"id": STORAGE, "displayName": "Storage", "members@delta": [member]})

    with server.broken("/v1.0/groups/delta", 3, Answer(change=later)):
        records = connect.whole(server, "groups")
    assert one(records, STORAGE).name == "Storage"
    assert members_of(records, STORAGE) == [CHI]
    assert gaps_in(records) == []


def test_changes_tell_hidden_groups_as_a_whole_read_does(server: GraphServer, connect: Reader) -> None:
    """A group that becomes hidden goes; one that can be seen into stays."""
    since = bookmark_of(connect.whole(server, "groups"))
    hide(server)
    records = connect.since(server, "groups", since)
    assert [r for r in records if not isinstance(r, Bookmark | Gap)] == [Gone(Ref(Kind.GROUP, PAYMENTS))]
    assert '"Team Payments"' in gaps_in(records)[0].message
    server.permissions.add("Member.Read.Hidden")
    records = connect.since(server, "groups", since)
    assert one(records, PAYMENTS).attributes["visibility"] == "HiddenMembership"
    assert gaps_in(records) == []


def test_an_app_role_of_a_hidden_group_is_a_gap(server: GraphServer, connect: Reader) -> None:
    """The role is there; who holds it through that group cannot be told. An empty group is no gap."""
    server.assign(APP, READER, STORAGE, "Group")
    hide(server, NESTED)
    records = connect.whole(server, "app_roles")
    assert members_of(records, f"{APP}/{READER}") == []
    (gap,) = gaps_in(records)
    assert '"Nested"' in gap.message
    assert '"Storage"' not in gap.message


# ── changes ──


def test_a_user_of_whom_one_property_changed_is_told_whole(server: GraphServer, connect: Reader) -> None:
    """A round that goes on tells the changed property alone; the rest, manager included, is read again."""
    since = bookmark_of(connect.whole(server, "users"))
    server.update("users", ADA, displayName="Ada L.")
    records = connect.since(server, "users", since)
    ada = one(records, ADA)
    assert (ada.name, ada.attributes["department"], ada.manager) == ("Ada L.", "Math", BO)
    assert users_in(records) == [ADA]


@pytest.mark.parametrize("whole", [False, True])
def test_changes_of_managers_are_followed(server: GraphServer, connect: Reader, whole: bool) -> None:
    """Another, and none; in both forms of a changed object that Microsoft documents."""
    server.whole_changes = whole
    since = bookmark_of(connect.whole(server, "users"))
    server.link("users", ADA, CHI)
    records = connect.since(server, "users", since)
    assert one(records, ADA).manager == CHI
    server.unlink("users", ADA, CHI)
    records = connect.since(server, "users", bookmark_of(records))
    assert one(records, ADA).manager is None


def test_a_copy_that_lags_behind_does_not_undo_a_change(server: GraphServer, connect: Reader) -> None:
    """What the round told wins over what is read again; a list may come from a copy that does not know yet."""
    since = bookmark_of(connect.whole(server, "users"))
    server.update("users", ADA, accountEnabled=False)
    server.link("users", ADA, CHI)
    server.stale[ADA] = {"accountEnabled": True}
    ada = one(connect.since(server, "users", since), ADA)
    assert (ada.active, ada.manager) == (False, CHI)


def test_a_new_user_whom_the_list_does_not_know_yet_is_read(server: GraphServer, connect: Reader) -> None:
    """The round tells who is new whole."""
    since = bookmark_of(connect.whole(server, "users"))
    new = server.add_user(guid("a", 9), "new@acme.example", "New", manager=ADA)
    server.lags.add(new)
    told = one(connect.since(server, "users", since), new)
    assert (told.name, told.active, told.manager) == ("New", True, ADA)


@pytest.mark.parametrize(("scope", "id_"), [("users", ADA), ("groups", PAYMENTS)])
def test_what_changed_and_cannot_be_found_is_never_told_by_half(
    server: GraphServer, connect: Reader, scope: str, id_: str
) -> None:
    """One that is gone by now, or that the copy does not know: the scope is read whole."""
    since = bookmark_of(connect.whole(server, scope))
    server.update(scope, id_, mail="new@acme.example")
    server.lags.add(id_)
    with pytest.raises(StaleBookmark, match=f"{id_} has changed, and is not to be found"):
        connect.since(server, scope, since)


@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize(("scope", "id_", "kind"), [("users", ADA, Kind.USER), ("groups", PAYMENTS, Kind.GROUP)])
def test_what_is_deleted_is_gone(
    server: GraphServer, connect: Reader, scope: str, id_: str, kind: Kind, for_good: bool
) -> None:
    """For good, or to the bin, from where it can come back."""
    since = bookmark_of(connect.whole(server, scope))
    server.delete(scope, id_, for_good=for_good)
    records = connect.since(server, scope, since)
    assert Gone(Ref(kind, id_)) in records
    assert id_ not in [r.id for r in records if isinstance(r, Principal)]


def test_a_group_that_is_restored_comes_back_with_its_members(server: GraphServer, connect: Reader) -> None:
    """Deleted, followed, restored, followed: as if nothing had been."""
    content = Content()
    for record in connect.whole(server, "groups"):
        content.take("groups", record)
    before = content.keys()
    for step in (server.delete, server.restore):
        step("groups", PAYMENTS)
        for record in connect.since(server, "groups", content.bookmarks["groups"]):
            content.take("groups", record)
    own = {key for key in before if "Team Payments" in key or key.endswith(f"in group {PAYMENTS}")}
    assert len(own) == 3
    assert content.keys() >= own


def test_members_that_join_and_leave_are_told_alone(server: GraphServer, connect: Reader) -> None:
    """The group's other members are not read again."""
    since = bookmark_of(connect.whole(server, "groups"))
    server.link("groups", PAYMENTS, CHI)
    server.unlink("groups", PAYMENTS, ADA)
    records = connect.since(server, "groups", since)
    group = Ref(Kind.GROUP, PAYMENTS)
    assert [r for r in records if isinstance(r, Members | Left)] == [
        Members(group, (Ref(Kind.USER, CHI),)),
        Left(group, (Ref(Kind.USER, ADA),)),
    ]


def test_who_leaves_without_a_type_leaves_as_a_user_and_as_a_group(server: GraphServer, connect: Reader) -> None:
    """A member that is no more may be told by its id alone; one that joins may not."""
    since = bookmark_of(connect.whole(server, "groups"))
    server.unlink("groups", PAYMENTS, ADA)

    def bare(page: dict[str, Any]) -> None:
        for row in page["value"]:
            for member in row.get("members@delta", ()):
                member.pop("@odata.type")

    with server.broken("/v1.0/groups/delta", 1, Answer(change=bare)):
        records = connect.since(server, "groups", since)
    assert [r.members for r in records if isinstance(r, Left)] == [(Ref(Kind.USER, ADA), Ref(Kind.GROUP, ADA))]
    server.link("groups", PAYMENTS, CHI)
    server.delta_page = 9
    with server.broken("/v1.0/groups/delta", 1, Answer(change=bare)), pytest.raises(BadData, match=r"no @odata\.type"):
        connect.since(server, "groups", since)


def test_a_change_of_membership_costs_what_changed(connect: Reader) -> None:
    """Of 300 groups with 40 members each, one membership changes: two requests, not hundreds."""
    with GraphServer() as server:
        ids = [server.add_user(guid("a", n), f"u{n}@acme.example") for n in range(40)]
        groups = [server.add_group(guid("b", n), f"g{n}") for n in range(300)]
        for group in groups:
            for id_ in ids:
                server._links["groups"][group][id_] = "user"
        since = bookmark_of(connect.whole(server, "groups"))
        whole = len(server.requests)
        server.unlink("groups", groups[7], ids[0])
        records = connect.since(server, "groups", since)
        assert len(server.requests) - whole == 2
        assert [r for r in records if isinstance(r, Left)] == [
            Left(Ref(Kind.GROUP, groups[7]), (Ref(Kind.USER, ids[0]),))
        ]


def test_changed_objects_are_read_again_fifteen_at_once(server: GraphServer, connect: Reader) -> None:
    """What an `in` may hold; Graph refuses more."""
    server.page, server.delta_page = 999, 200
    ids = [server.add_user(guid("a", 100 + n), f"u{n}@acme.example") for n in range(31)]
    since = bookmark_of(connect.whole(server, "users"))
    for id_ in ids:
        server.update("users", id_, department="Moved")
    before = len(server.requests)
    records = connect.since(server, "users", since)
    assert users_in(records) == ids
    assert [r.count("aaaaaaaa-") for r in server.requests[before:]] == [0, 15, 15, 1]


def test_the_bookmark_is_older_than_the_first_page(server: GraphServer, connect: Reader) -> None:
    """What changes while a whole read goes on is told by the changes after it."""
    connector = connect(server)
    records: list[Change] = []
    reading = connector.read("users")
    records.append(next(reading))
    assert isinstance(records[0], Bookmark)
    records.append(next(reading))
    server.update("users", ADA, displayName="Ada the second")
    records += reading
    assert one(records, ADA).name == "Ada"
    assert one(connect.since(server, "users", bookmark_of(records)), ADA).name == "Ada the second"


def test_who_leaves_while_a_whole_read_goes_on_is_told_to_have_left(server: GraphServer, connect: Reader) -> None:
    """Though the round that was read ends after that moment, and its own delta link would say nothing of it."""
    reading = connect(server).read("groups")
    records: list[Change] = []
    for record in reading:
        records.append(record)
        if isinstance(record, Members):
            break
    server.unlink("groups", PAYMENTS, ADA)
    records += reading
    changes = connect.since(server, "groups", bookmark_of(records))
    assert Left(Ref(Kind.GROUP, PAYMENTS), (Ref(Kind.USER, ADA),)) in changes


def test_directory_roles_follow_their_holders(server: GraphServer, connect: Reader) -> None:
    """One request for the round, one for the few roles there are."""
    since = bookmark_of(connect.whole(server, "roles"))
    server.unlink("directoryRoles", ADMINS, ADA)
    before = len(server.requests)
    records = connect.since(server, "roles", since)
    assert one(records, ADMINS).name == "Global Administrator"
    assert Left(Ref(Kind.ROLE, ADMINS), (Ref(Kind.USER, ADA),)) in records
    assert len(server.requests) - before == 2


# ── bookmarks ──


def test_a_bookmark_is_a_query_and_leads_nowhere(server: GraphServer, connect: Reader) -> None:
    """Of a delta link its origin is dropped: it goes back to where the options say."""
    server.link_origin = "https://graph.microsoft.example"
    server.page = server.delta_page = 999
    for scope in ("users", "groups", "roles"):
        since = bookmark_of(connect.whole(server, scope))
        assert since.startswith("$deltatoken=")
        assert "example" not in since
        assert server.token not in since
        connect.since(server, scope, since)


@pytest.mark.parametrize("scope", ["users", "groups", "roles"])
@pytest.mark.parametrize(
    "problem",
    [
        GraphProblem(400, "syncStateNotFound", "The delta token is expired and data must be synchronized again."),
        GraphProblem(400, "Request_BadRequest", "Badly formed token."),
        GraphProblem(
            410, "resyncRequired", "Resync required.", headers={"Location": "https://x.example/?$deltatoken="}
        ),
        GraphProblem(410, "", ""),
        GraphProblem(404, "itemNotFound", "no such token"),
        GraphProblem(400, "invalidRequest", "Invalid request", inner="resyncRequired"),
    ],
    ids=lambda p: f"{p.status}-{p.body['error']['code']}",
)
def test_a_token_that_has_ended_asks_for_a_whole_read(
    server: GraphServer, connect: Reader, scope: str, problem: GraphProblem
) -> None:
    """However Graph says so, after seven days or a move of the tenant."""
    since = bookmark_of(connect.whole(server, scope))
    server.forget()
    server.forgotten_with = problem
    with pytest.raises(StaleBookmark):
        connect.since(server, scope, since)


@pytest.mark.parametrize(
    "since", ["", "$deltatoken=", "https://evil.example/?$deltatoken=x", "$skiptoken=x", "x#$deltatoken=y"]
)
def test_what_is_no_bookmark_is_not_sent(server: GraphServer, connect: Reader, since: str) -> None:
    """As one of an older version might be."""
    if since.startswith("https"):  # it is sent, as a query, to where the options say: nowhere else
        with pytest.raises(StaleBookmark):
            connect.since(server, "users", since)
        assert all(r.startswith("/v1.0/users/delta?") for r in server.requests)
        return
    with pytest.raises(StaleBookmark, match="no bookmark of users"):
        connect.since(server, "users", since)
    assert server.requests == []


@pytest.mark.parametrize(
    "problem",
    [
        GraphProblem(410, "resyncRequired", "Resync required."),
        GraphProblem(400, "syncStateNotFound", "The sync state generation is not found."),
        GraphProblem(400, "invalidRequest", "Invalid request.", inner="resyncRequired"),
    ],
    ids=lambda p: p.body["error"]["code"],
)
def test_a_round_that_is_forgotten_in_the_middle(server: GraphServer, connect: Reader, problem: GraphProblem) -> None:
    """While changes are read: read whole. While all is read: the run has failed, and the next begins anew."""
    since = bookmark_of(connect.whole(server, "groups"))
    for group in (PAYMENTS, STORAGE, NESTED):
        server.update("groups", group, description="changed")
    with server.broken("/v1.0/groups/delta", 2, Answer.error(problem)):
        with pytest.raises(StaleBookmark):
            connect.since(server, "groups", since)
        with pytest.raises(Incomplete) as caught:
            connect.whole(server, "groups")
    assert caught.value.remedy == "the next run begins anew"


def test_a_refusal_in_the_changes_is_no_stale_bookmark(server: GraphServer, connect: Reader) -> None:
    """401 and 403 say nothing of the token: a whole read would fail as well."""
    since = bookmark_of(connect.whole(server, "groups"))
    server.permissions.remove("GroupMember.Read.All")
    with pytest.raises(Forbidden):
        connect.since(server, "groups", since)


def test_a_first_round_that_ends_early_is_not_whole(server: GraphServer, connect: Reader) -> None:
    """Its last page must hold the delta link, though nothing is done with it."""
    answer = Answer(change=lambda page: page.pop("@odata.deltaLink"))
    with server.broken("/v1.0/groups/delta", 3, answer), pytest.raises(Incomplete, match="without a delta link"):
        connect.whole(server, "groups")


@pytest.mark.parametrize("scope", ["users", "groups", "roles"])
def test_a_round_without_a_delta_link_is_not_whole(server: GraphServer, connect: Reader, scope: str) -> None:
    """Neither a link to go on nor one to come back: the round was cut short."""
    path = {"roles": "directoryRoles"}.get(scope, scope)

    def ends(page: dict[str, Any]) -> None:
        page.pop("@odata.deltaLink", None)
        page.pop("@odata.nextLink", None)

    since = bookmark_of(connect.whole(server, scope))
    with server.broken(f"/v1.0/{path}/delta", 1, Answer(change=ends)):
        with pytest.raises(Incomplete, match="without a delta link"):
            connect.whole(server, scope)
        with pytest.raises(Incomplete, match="without a delta link"):
            connect.since(server, scope, since)


# ── nothing is cut short ──

LISTS = [
    ("users", "/v1.0/users/delta", 1),
    ("users", "/v1.0/users", 3),
    ("groups", "/v1.0/groups/delta", 3),
    ("roles", "/v1.0/directoryRoles/delta", 1),
    ("app_roles", "/v1.0/servicePrincipals", 1),
    ("app_roles", f"/v1.0/servicePrincipals/{APP}/appRoleAssignedTo", 3),
    ("app_roles", f"/v1.0/groups/{NESTED}/members", 2),
]
FAILURES: list[tuple[Answer, type[ConnectorError]]] = [
    (Answer(502), ServerFault),
    (Answer(500, b"<html>oops"), ServerFault),
    (Answer(503), ServerFault),
    (Answer(503, headers={"Retry-After": "1"}), Throttled),
    (Answer(504), ServerFault),
    (Answer(429), Throttled),
    (Answer.error(GraphProblem.expired_token()), Unauthenticated),
    (Answer.error(GraphProblem.denied()), Forbidden),
    (Answer.error(GraphProblem(400, "Request_BadRequest", "no")), BadData),
    (Answer.error(GraphProblem(400, "Directory_ExpiredPageToken", "no")), Incomplete),
    (Answer.error(GraphProblem(404, "Request_ResourceNotFound", "no")), Incomplete),
    (Answer(404, b"<html>no such page"), Misconfigured),
    (Answer(302, headers={"Location": "https://127.0.0.1:1/"}), BadData),
    (Answer(200), ServerFault),
    (Answer(200, b"   "), ServerFault),
    (Answer(200, b"<html>sign in"), ServerFault),
    (Answer(200, b'{"value": [{"id": "aaa'), ServerFault),
    (Answer(200, b"null"), BadData),
    (Answer(200, b"[]"), BadData),
    (Answer(200, b"{}"), ServerFault),
    (Answer(200, b'{"value": null}'), ServerFault),
    (Answer(200, b'{"value": ["x"]}'), BadData),
    (Answer(200, b'{"value": [], "@odata.nextLink": 7}'), BadData),
    (Answer(200, b'{"value": [], "@odata.nextLink": ""}'), BadData),
    (Answer(200, b'{"value": [], "@odata.nextLink": "https://[::1"}'), BadData),
    (Answer(200, b'{"value": [], "@odata.nextLink": "https://graph.microsoft.example/v1.0/users"}'), BadData),
    (Answer(right=True, cut=True), ServerFault),
    (Answer(repeat=True), Incomplete),
]


@pytest.mark.parametrize(("scope", "path", "page"), LISTS, ids=[x[1].removeprefix("/v1.0/") for x in LISTS])
def test_a_bad_page_of_any_list_fails_the_scope(
    server: GraphServer, connect: Reader, scope: str, path: str, page: int
) -> None:
    """Each list of the API, each way to fail: an error of ours that names the place, and never a shorter list."""
    for answer, error in FAILURES:
        with server.broken(path, page, answer), pytest.raises(error) as caught:
            connect.whole(server, scope)
        assert type(caught.value) is error, (answer, caught.value)
        told = (path.removeprefix("/v1.0/"), "is not followed", "a link that is no URL")
        assert any(words in caught.value.message for words in told), caught.value
        assert server.token not in str(caught.value)


@pytest.mark.parametrize("scope", ["users", "groups"])
def test_a_link_to_another_origin_is_not_followed(server: GraphServer, connect: Reader, scope: str) -> None:
    """It would be sent the token."""
    with GraphServer(page=1) as other:
        server.link_origin = other.url
        with pytest.raises(BadData, match="is not followed: it would be sent the credentials"):
            connect.whole(server, scope)
        assert other.requests == []


@pytest.mark.parametrize(
    ("scope", "path", "change", "said"),
    [
        ("users", "/v1.0/users", {"id": "../../me"}, "a user has no id that is a GUID"),
        ("users", "/v1.0/users", {"id": None}, "a user has no id"),
        ("users", "/v1.0/users", {"accountEnabled": None}, "no accountEnabled"),
        ("users", "/v1.0/users", {"accountEnabled": "true"}, "no accountEnabled"),
        ("users", "/v1.0/users", {"userPrincipalName": None}, "no userPrincipalName"),
        ("users", "/v1.0/users", {"manager": "Bo"}, "a manager has no id"),
        ("users", "/v1.0/users", {"manager": {"id": "bo"}}, "a manager has no id"),
        ("groups", "/v1.0/groups/delta", {"displayName": None}, "no displayName"),
        ("groups", "/v1.0/groups/delta", {"members@delta": {}}, "members@delta is no list"),
        ("groups", "/v1.0/groups/delta", {"members@delta": [7]}, "members@delta is no list"),
        ("groups", "/v1.0/groups/delta", {"members@delta": [{"id": "x"}]}, "a member has no id"),
        ("app_roles", "/v1.0/servicePrincipals", {"appRoles": None}, "no appRoles"),
        ("app_roles", "/v1.0/servicePrincipals", {"id": "a/b"}, "no id that is a GUID"),
        ("app_roles", f"/v1.0/servicePrincipals/{APP}/appRoleAssignedTo", {"principalId": "x"}, "no principalId"),
    ],
)
def test_a_row_that_makes_no_sense_fails_the_scope(
    server: GraphServer, connect: Reader, scope: str, path: str, change: dict[str, Any], said: str
) -> None:
    """What Graph always sends is not made up when it is missing."""
    answer = Answer(change=lambda page: page["value"] and page["value"][0].update(change))
    server.delta_page = 9
    with server.broken(path, 1, answer), pytest.raises(BadData, match=said):
        connect.whole(server, scope)


def test_no_users_at_all_is_a_refusal(connect: Reader) -> None:
    """Every tenant has some."""
    with GraphServer() as server, pytest.raises(Forbidden, match="shows no users") as caught:
        connect.whole(server, "users")
    assert caught.value.permission == "User.Read.All"


def test_user_read_basic_all_is_not_enough(server: GraphServer, connect: Reader) -> None:
    """It hides whether accounts are on; unknown is not off, nor on."""
    server.permissions.add("User.ReadBasic.All")
    with pytest.raises(BadData, match="no accountEnabled") as caught:
        connect.whole(server, "users")
    assert "User.Read.All" in caught.value.remedy


def test_a_group_deleted_while_app_roles_are_read_fails_the_scope(server: GraphServer, connect: Reader) -> None:
    """The next run is right."""
    server.assign(APP, READER, guid("b", 77), "Group")
    with pytest.raises(Incomplete, match="Request_ResourceNotFound") as caught:
        connect.whole(server, "app_roles")
    assert "next run" in caught.value.remedy


# ── who may what ──


@pytest.mark.parametrize(
    ("scope", "permission"),
    [
        ("users", "User.Read.All"),
        ("groups", "GroupMember.Read.All"),
        ("roles", "RoleManagement.Read.Directory"),
        ("app_roles", "Application.Read.All"),
    ],
)
def test_a_missing_permission_is_named(server: GraphServer, connect: Reader, scope: str, permission: str) -> None:
    """By a read, and by check, which tells the other scopes all the same."""
    server.permissions.remove(permission)
    with pytest.raises(Forbidden, match=f"Authorization_RequestDenied: .*it needs {permission}") as caught:
        connect.whole(server, scope)
    assert caught.value.permission == permission
    checks = list(connect(server).check())
    assert [c.what for c in checks if not c.ok] == [f"read {scope}"]
    assert [c.remedy for c in checks if not c.ok] == [
        f"grant the application permission {permission} of Microsoft Graph, with admin consent"
    ]
    assert len(checks) == 4


def test_check_is_cheap_and_sees_users_by_half(server: GraphServer, connect: Reader) -> None:
    """One request a scope, each for as little as there is."""
    assert all(c.ok for c in connect(server).check())
    assert len(server.requests) == 4
    server.permissions.add("User.ReadBasic.All")
    assert [c.what for c in connect(server).check() if not c.ok] == ["read users"]


def test_a_token_that_ends_in_the_middle_fails_the_scope(server: GraphServer, connect: Reader) -> None:
    """One that was given ready-made cannot be renewed; the message has Graph's words and not the token."""
    reading = connect(server).read("users")
    next(reading), next(reading)
    old, server.token = server.token, "another"
    with pytest.raises(Unauthenticated, match=r"401 .InvalidAuthenticationToken") as caught:
        list(reading)
    assert old not in str(caught.value)


def test_the_token_is_in_no_log_and_no_error(
    server: GraphServer, connect: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    """At any level, from any library."""
    caplog.set_level(logging.DEBUG)
    connector = connect(server)
    list(connector.read("groups"))
    for answer, error in FAILURES:
        with server.broken("/v1.0/groups/delta", 1, answer), pytest.raises(error) as caught:
            list(connector.read("groups"))
        assert server.token not in f"{caught.value!r} {caught.value.remedy}"
    assert server.token not in caplog.text
    assert server.token not in repr(connector.__dict__)


def as_app(server: GraphServer, folder: Path, secret: str = "The~Secret.Of-The_App") -> dict[str, Any]:
    file = folder / "secret"
    file.write_text(secret)
    client = guid("9", 1)
    server.apps = {client: "The~Secret.Of-The_App"}
    return {
        "access_token": None,
        "tenant_id": "acme.example",
        "client_id": client,
        "client_secret": {"file": str(file)},
    }


@pytest.mark.parametrize(("life", "tokens"), [(3600, 1), (1, None)])
def test_an_app_signs_in_and_renews_its_token_in_time(
    server: GraphServer,
    connect: Reader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    life: int,
    tokens: int | None,
) -> None:
    """One token for all requests, or, if it ends at once, a new one for each: no request has one that has ended."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
    server.token_life = life
    connector = connect(server, **as_app(server, tmp_path))
    assert [len(users_in(list(connector.read(scope)))) for scope in connector.scopes()] == [3, 0, 0, 0]
    assert all(c.ok for c in connector.check())
    if tokens:
        assert server.signed_in == tokens
    else:
        assert server.signed_in >= len(server.requests)
    connector.close()


def test_a_wrong_secret_is_a_refusal_that_does_not_show_it(
    server: GraphServer, connect: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Microsoft's code, and what to do."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", server.url)
    with pytest.raises(Unauthenticated, match="AADSTS7000215") as caught:
        list(connect(server, **as_app(server, tmp_path, "a-wrong-secret")).read("users"))
    assert "a-wrong-secret" not in f"{caught.value!r} {caught.value.remedy}"
    assert server.requests == []


def test_a_sign_in_that_fails_is_not_tried_over_and_over(
    server: GraphServer, connect: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeps: list[float]
) -> None:
    """As often as a request, and not that often for each attempt at a request."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1")
    with pytest.raises(Unreachable, match="sign-in"):
        list(connect(server, **as_app(server, tmp_path)).read("users"))
    assert len(sleeps) == connectors.retry.ATTEMPTS - 1


# ── rate limits ──


def test_retry_after_is_waited_for(server: GraphServer, connect: Reader, sleeps: list[float]) -> None:
    """By our clock: the SDK's own retries are left out, which would wait unseen."""
    with server.broken(U, 2, Answer.error(GraphProblem.throttled(**{"Retry-After": "37"}), times=2)):
        assert users_in(connect.whole(server, "users")) == [ADA, BO, CHI]
    assert sleeps == [37.0, 37.0]
    assert "retry-attempt" not in {name for headers in server.headers for name in headers}


def test_a_wait_that_is_too_long_fails_at_once(server: GraphServer, connect: Reader, sleeps: list[float]) -> None:
    """The scheduler comes back when the server says."""
    with server.broken(U, 2, Answer.error(GraphProblem.throttled(**{"Retry-After": "900"}))):
        with pytest.raises(Throttled, match="TooManyRequests") as caught:
            connect.whole(server, "users")
    assert (caught.value.retry_after, sleeps) == (900, [])


def test_when_a_tenant_is_throttled_ours_go_last(server: GraphServer, connect: Reader) -> None:
    """Nobody waits for what runs in the background."""
    connect.whole(server, "users")
    assert {headers["x-ms-throttle-priority"] for headers in server.headers} == {"low"}


# ── the wire ──


def test_a_silent_server_is_given_up(server: GraphServer, connect: Reader) -> None:
    """After `timeout`, as a whole."""
    with server.broken(U, 1, Answer(stall=True)), pytest.raises(Unreachable, match=r"no answer in 0\.2 s"):
        list(connect(server, timeout="200ms").read("users"))


def test_an_answer_that_drips_is_given_up(server: GraphServer, connect: Reader) -> None:
    """The limit is for the whole answer, not for each piece of it."""
    with server.broken(U, 1, Answer(drip=True)), pytest.raises(Unreachable, match=r"no answer in 0\.2 s"):
        list(connect(server, timeout="200ms").read("users"))


def test_an_unknown_authority_is_a_clear_error(server: GraphServer, connect: Reader, tmp_path: Path) -> None:
    """TLS is verified, and the remedy names the option."""
    with pytest.raises(Unreachable, match="TLS failed") as caught:
        list(connect(server, ca_file=None).read("users"))
    assert "ca_file" in caught.value.remedy
    assert server.authorizations == []
    for wrong in (tmp_path / "missing.pem", tmp_path / "token"):
        with pytest.raises(Misconfigured, match=f"ca_file: {wrong}"):
            list(connect(server, ca_file=str(wrong)).read("users"))


def test_a_refused_connection_and_a_dead_proxy_are_unreachable(
    server: GraphServer, connect: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option's proxy, else the environment's, which can except hosts."""
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Unreachable):
        list(connect(server, endpoint="https://127.0.0.1:1").read("users"))
    dead = "http://127.0.0.1:1"
    with pytest.raises(Unreachable):
        list(connect(server, proxy=dead).read("users"))
    monkeypatch.setenv("https_proxy", dead)
    with pytest.raises(Unreachable):
        connect.whole(server, "users")
    assert server.requests == []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert users_in(connect.whole(server, "users")) == [ADA, BO, CHI]


def test_plain_http_to_loopback_takes_a_ready_token(connect: Reader) -> None:
    """For gateways on the same host."""
    with GraphServer(tls=False) as server:
        server.add_user(ADA, "ada@acme.example")
        assert users_in(connect.whole(server, "users")) == [ADA]
        assert set(server.authorizations) == {f"Bearer {server.token}"}


class Asked(Exception):
    """The scopes that a token was asked for."""


@pytest.mark.parametrize(
    ("endpoint", "audience"),
    [
        (None, "https://graph.microsoft.com"),
        ("https://graph.microsoft.us", "https://graph.microsoft.us"),
        ("https://microsoftgraph.chinacloudapi.cn/v1.0", "https://microsoftgraph.chinacloudapi.cn"),
        ("https://gateway.acme.example/", "https://graph.microsoft.com"),
    ],
)
def test_each_cloud_takes_tokens_for_itself(
    server: GraphServer, connect: Reader, monkeypatch: pytest.MonkeyPatch, endpoint: str | None, audience: str
) -> None:
    """A gateway takes those of the public cloud."""

    class Credential:
        def get_token(self, *scopes: str, **_: Any) -> Any:
            raise Asked(scopes)

    monkeypatch.setattr("connectors.entra.credential", lambda _: Credential())
    with pytest.raises(Asked) as caught:
        list(connect(server, endpoint=endpoint).read("users"))
    assert caught.value.args == ((f"{audience}/.default",),)


def test_an_endpoint_may_have_the_version(server: GraphServer, connect: Reader) -> None:
    """With and without it, and with a slash at its end."""
    for endpoint in (server.url, f"{server.url}/", f"{server.url}/v1.0", f"{server.url}/v1.0/"):
        assert users_in(list(connect(server, endpoint=endpoint).read("users"))) == [ADA, BO, CHI]


def test_closing_twice_or_unused_is_fine(server: GraphServer, connect: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """`close` is called whatever happened; the credential's connections are closed with it."""
    closed: list[bool] = []
    connector = connect(server)
    monkeypatch.setattr(type(connector._graph._credential), "close", lambda _: closed.append(True))
    connect(server).close()
    reading = connector.read("users")
    next(reading), next(reading)
    connector.close()
    connector.close()
    assert len(closed) == 3


# ── against the SDK's models, which are made from Microsoft's own description ──


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    from msgraph.generated.models.directory_role import DirectoryRole
    from msgraph.generated.models.group import Group
    from msgraph.generated.models.service_principal import ServicePrincipal
    from msgraph.generated.models.user import User

    return {
        "users": User(),
        "groups": Group(),
        "directoryRoles": DirectoryRole(),
        "servicePrincipals": ServicePrincipal(),
    }


def test_every_property_is_one_of_microsofts_description(models: dict[str, Any]) -> None:
    """What is asked for, and what the server here knows, exists under that name."""
    known = {name: set(model.get_field_deserializers()) for name, model in models.items()}
    for of in (USERS, GROUPS, ROLES):
        assert {*of.select, *of.needed, of.followed} <= known[of.path]
    for name, properties in graph.COLLECTIONS.items():
        assert properties <= known[name]
    assert "appRoleAssignedTo" in known["servicePrincipals"]


def test_the_server_answers_as_the_description_says(
    server: GraphServer, connect: Reader, models: dict[str, Any]
) -> None:
    """Its pages are read through the SDK's models, and mean what the connector reads."""
    from kiota_serialization_json.json_parse_node_factory import JsonParseNodeFactory
    from msgraph.generated.groups.delta.delta_get_response import DeltaGetResponse
    from msgraph.generated.models.app_role_assignment_collection_response import AppRoleAssignmentCollectionResponse
    from msgraph.generated.models.o_data_errors.o_data_error import ODataError
    from msgraph.generated.models.user_collection_response import UserCollectionResponse

    def parse(model: Any, path: str, **query: str) -> Any:
        body = json.dumps(server._get(path, query)[0]).encode()
        return JsonParseNodeFactory().get_root_parse_node("application/json", body).get_object_value(model)

    server.page = server.delta_page = 999
    users = parse(UserCollectionResponse, "/v1.0/users", **{"$expand": "manager($select=id)"})
    ours = [r for r in connect.whole(server, "users") if isinstance(r, Principal)]
    assert [(u.id, u.display_name, u.account_enabled, u.manager and u.manager.id) for u in users.value] == [
        (u.id, u.name, u.active, u.manager) for u in ours
    ]
    groups = parse(DeltaGetResponse, "/v1.0/groups/delta", **{"$select": GROUPS.round.removeprefix("$select=")})
    assert groups.odata_delta_link.startswith(f"{server.url}/v1.0/groups/delta?")
    records = connect.whole(server, "groups")
    for group in groups.value:
        assert one(records, group.id).name == group.display_name
        told = [str(m["id"]) for m in group.additional_data.get("members@delta", [])]
        assert told == members_of(records, group.id)
    assigned = parse(AppRoleAssignmentCollectionResponse, f"/v1.0/servicePrincipals/{APP}/appRoleAssignedTo")
    assert [(str(a.app_role_id), str(a.principal_id), a.principal_type) for a in assigned.value] == [
        (WRITER, ADA, "User"),
        (READER, NESTED, "Group"),
        (NO_ROLE, BO, "User"),
    ]
    for problem in (GraphProblem.denied(), GraphProblem.throttled(), server.forgotten_with):
        node = JsonParseNodeFactory().get_root_parse_node("application/json", json.dumps(problem.body).encode())
        error = node.get_object_value(ODataError).error
        assert error and error.inner_error
        assert (error.code, error.message) == (problem.body["error"]["code"], problem.body["error"]["message"])
        assert error.inner_error.request_id


def test_no_model_is_imported_for_a_read(server: GraphServer, connect: Reader) -> None:
    """They cost seconds of CPU per thousand objects."""
    options = connect.options(server)
    code = (
        "import sys\n"
        "from config.secrets import resolve\n"
        "from connectors.entra import Entra, EntraOptions\n"
        f"options = EntraOptions.model_validate_json({options.model_dump_json(exclude_none=True)!r})\n"
        "resolve(options)\n"
        "connector = Entra(options)\n"
        "print(sum(1 for scope in connector.scopes() for _ in connector.read(scope)))\n"
        "connector.close()\n"
        "print(sorted(m for m in sys.modules if m.startswith('msgraph.')))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    count, imported = done.stdout.split("\n")[:2]
    assert int(count) > 10
    assert imported == "[]"
