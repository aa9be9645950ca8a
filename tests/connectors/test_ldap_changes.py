"""Following the changes of an LDAP server: what it costs, what only a whole read can tell, and what is never invented."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import connectors.ldap_changes
import connectors.ldap_feed
import connectors.retry
from config.secrets import resolve
from connectors.errors import BadData, ConnectorError, Forbidden, Incomplete, ServerFault, StaleBookmark, Unreachable
from connectors.ldap import Ldap
from connectors.ldap_options import LdapOptions
from connectors.ldap_wire import Wire
from connectors.values import Change, Gone, Kind, Left, Members, Principal, Record
from tests.connectors.rig import Content
from tests.harness import World, configuration, integration
from tests.servers.active_directory import ActiveDirectory
from tests.servers.slapd import ACCESS, MISSING, Slapd

BASE = "dc=corp,dc=example"
needs_slapd = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", waits.append)
    return waits


@pytest.fixture
def ad() -> Iterator[ActiveDirectory]:
    with ActiveDirectory(BASE, range_size=2) as server:
        server.add_group("Domain Users", rid=513)
        for name in ("Ada", "Bo", "Chi"):
            server.add_user(name)
        yield server


@pytest.fixture
def slapd() -> Iterator[Slapd]:
    with Slapd(BASE, session_log=1000) as server:
        for name in ("people", "groups"):
            server.add(f"ou={name},{BASE}", {"objectClass": ["organizationalUnit"]})
        for name in ("ada", "bo", "chi"):
            person(server, name)
        yield server


def dn(uid: str) -> str:
    return f"uid={uid},ou=people,{BASE}"


def group_dn(cn: str) -> str:
    return f"cn={cn},ou=groups,{BASE}"


def person(server: Slapd, uid: str, **attributes: Any) -> None:
    server.add(dn(uid), {"objectClass": ["inetOrgPerson"], "cn": uid, "sn": "x", **attributes})


def group(server: Slapd, cn: str, *members: str) -> None:
    server.add(group_dn(cn), {"objectClass": ["groupOfMembers"], **({"member": list(members)} if members else {})})


def posix(server: Slapd, uid: str, number: int, gid: int) -> None:
    more = {"uidNumber": number, "gidNumber": gid, "homeDirectory": "/", "cn": uid, "sn": "x"}
    server.add(dn(uid), {"objectClass": ["inetOrgPerson", "posixAccount"], **more})


class Traffic:
    """Counts the searches of a connection, and the entries that they bring."""

    def __init__(self, wire: Wire) -> None:
        self.requests = self.entries = 0
        connection = wire._connection
        search = connection.search

        def counted(*args: Any, **kwargs: Any) -> Any:
            done = search(*args, **kwargs)
            self.requests += 1
            self.entries += sum(row["type"] == "searchResEntry" for row in connection.response)
            return done

        connection.search = counted


class Directory:
    """What was read of a server whole, and then followed."""

    def __init__(self, server: Any, schema: str, **changes: Any) -> None:
        given = {"url": server.url, "base": BASE, "schema": schema, "bind_dn": server.bind_dn, "timeout": 10.0}
        self.options = LdapOptions.model_validate({**given, "password": {"env": "PASSWORD"}, **changes})
        resolve(self.options, {"PASSWORD": server.password})
        self.page_size = 3
        self.kinds = frozenset(Kind)
        self.content = Content()
        self.whole_told: list[Record] = []
        self.told: list[Change] = []
        self.whole()

    @contextlib.contextmanager
    def connector(self) -> Iterator[Ldap]:
        connector = Ldap(self.options)
        connector.page_size = self.page_size
        connector.kinds = self.kinds
        try:
            yield connector
        finally:
            connector.close()

    @property
    def bookmark(self) -> str | None:
        return self.content.bookmarks.get(self.options.base)

    def whole(self) -> Traffic:
        self.content = Content()
        with self.connector() as connector:
            traffic = Traffic(connector._wire)
            self.whole_told = list(connector.read(self.options.base))
        for record in self.whole_told:
            self.content.take(self.options.base, record)
        return traffic

    def changes(self) -> list[Change]:
        """What has changed, not taken in."""
        assert self.bookmark
        with self.connector() as connector:
            return list(connector.changes(self.options.base, self.bookmark))

    def follow(self) -> Traffic:
        assert self.bookmark
        with self.connector() as connector:
            traffic = Traffic(connector._wire)
            self.told = list(connector.changes(self.options.base, self.bookmark))
        for record in self.told:
            self.content.take(self.options.base, record)
        return traffic

    def agrees(self) -> None:
        """Followed, it is what a whole read finds."""
        other = Content()
        with self.connector() as connector:
            for record in connector.read(self.options.base):
                other.take(self.options.base, record)
        followed, whole = self.content.keys(), other.keys()
        assert sorted(followed - whole) == [], "kept, or made up"
        assert sorted(whole - followed) == [], "not followed"

    def stale(self, match: str) -> None:
        with pytest.raises(StaleBookmark, match=match):
            self.changes()


def names(told: list[Change]) -> set[str]:
    return {record.name for record in told if isinstance(record, Principal)}


# What it costs

USERS, GROUPS, IN_A_GROUP = 10_000, 2_000, 10


def fill(server: Slapd) -> None:
    """10,000 users, 2,000 groups of ten."""
    person = {"objectClass": ["inetOrgPerson"], "sn": "x"}
    server.add_all([(dn(f"u{n}"), {**person, "cn": f"u{n}"}) for n in range(USERS)])
    server.add_all(
        [
            (group_dn(f"g{n}"), {"objectClass": ["groupOfMembers"], "member": [dn(f"u{(n * IN_A_GROUP + i) % USERS}") for i in range(IN_A_GROUP)]})
            for n in range(GROUPS)
        ]
    )  # fmt: skip


@needs_slapd
def test_one_membership_costs_what_it_is_and_not_what_the_directory_is(slapd: Slapd) -> None:
    """Of 10,000 users and 2,000 groups, over slapd."""
    fill(slapd)
    directory = Directory(slapd, "rfc2307bis", user_filter="(objectClass=inetOrgPerson)")
    directory.page_size = Ldap.page_size
    whole = directory.whole()
    assert whole.entries >= 3 * (USERS + GROUPS)
    nothing = directory.follow()
    slapd.modify(group_dn("g7"), {"member": [dn(f"u{n}") for n in range(9)]})
    one = directory.follow()
    print(f"\nslapd: whole {vars(whole)}, nothing {vars(nothing)}, one membership {vars(one)}")
    assert (nothing.requests, nothing.entries) < (5, 10)
    assert one.requests <= 15 and one.entries <= 40
    assert names(directory.told) == {"g7"}
    slapd.modify(dn("u5"), {"title": ["Boss"]})
    user = directory.follow()
    print(f"one user {vars(user)}")
    slapd.delete(dn("u6"))
    gone = directory.follow()
    print(f"one gone {vars(gone)}")
    directory.agrees()


def test_one_membership_costs_what_it_is_in_active_directory(ad: ActiveDirectory) -> None:
    """Of 2,000 users and 400 groups."""
    users, groups = USERS // 5, GROUPS // 5
    for number in range(users):
        ad.add_user(f"u{number}", primaryGroupID=999)
    for number in range(groups):
        ad.add_group(f"g{number}")
        ad.entries[ad.dn(f"g{number}")]["member"] = [ad.dn(f"u{number * 5 + i}").encode() for i in range(2)]
    directory = Directory(ad, "ad")
    directory.page_size = Ldap.page_size
    whole = directory.whole()
    assert whole.entries >= 3 * (users + groups)
    nothing = directory.follow()
    ad.set_members("g7", [ad.dn("u1"), ad.dn("u2")])
    one = directory.follow()
    print(f"\nAD: whole {vars(whole)}, nothing {vars(nothing)}, one membership {vars(one)}")
    assert one.requests <= 16 and one.entries <= 30
    assert names(directory.told) == {"g7"}
    directory.agrees()


# OpenLDAP


@needs_slapd
def test_who_is_deleted_is_gone_at_once(slapd: Slapd) -> None:
    group(slapd, "team", dn("ada"), dn("bo"))
    directory = Directory(slapd, "rfc2307bis")
    ada = slapd.get(dn("ada"), "entryUUID")
    team = slapd.get(group_dn("team"), "entryUUID")
    slapd.delete(dn("ada"))
    directory.follow()
    assert {record.what for record in directory.told if isinstance(record, Gone)} >= {(Kind.USER, ada)}
    slapd.delete(group_dn("team"))
    directory.follow()
    assert {record.what for record in directory.told if isinstance(record, Gone)} >= {(Kind.GROUP, team)}
    directory.agrees()


@needs_slapd
def test_who_takes_a_name_takes_its_memberships_and_reports(slapd: Slapd) -> None:
    """A rename that nothing mends: the groups, and those who have a manager of that name, now mean another one."""
    group(slapd, "team", dn("ada"))
    slapd.modify(dn("chi"), {"manager": [dn("ada")]})
    directory = Directory(slapd, "rfc2307bis")
    slapd.rename(dn("ada"), "uid=lovelace")
    directory.follow()
    assert not [record for record in directory.told if isinstance(record, Members)]
    assert [record for record in directory.told if isinstance(record, Left)]
    person(slapd, "ada")
    directory.follow()
    directory.agrees()
    slapd.rename(dn("lovelace"), "uid=byron")
    slapd.rename(dn("ada"), "uid=lovelace")
    slapd.rename(dn("byron"), "uid=ada")
    directory.follow()
    directory.agrees()


@needs_slapd
def test_an_entry_that_a_filter_no_longer_matches_is_gone(slapd: Slapd) -> None:
    slapd.modify(dn("ada"), {"title": ["staff"]})
    slapd.modify(dn("bo"), {"title": ["staff"]})
    group(slapd, "team", dn("ada"), dn("bo"), dn("chi"))
    directory = Directory(slapd, "rfc2307bis", user_filter="(&(objectClass=inetOrgPerson)(title=staff))")
    slapd.modify(dn("ada"), {"title": []})
    slapd.modify(dn("chi"), {"title": ["staff"]})
    directory.follow()
    directory.agrees()
    slapd.modify(dn("ada"), {"title": ["staff"]})
    directory.follow()
    directory.agrees()


@needs_slapd
def test_who_leaves_the_base_is_gone_and_who_comes_is_there(slapd: Slapd) -> None:
    slapd.add(f"ou=old,{BASE}", {"objectClass": ["organizationalUnit"]})
    directory = Directory(slapd, "rfc2307bis", base=f"ou=people,{BASE}")
    slapd.move(dn("ada"), f"ou=old,{BASE}")
    directory.follow()
    directory.agrees()
    slapd.move(f"uid=ada,ou=old,{BASE}", f"ou=people,{BASE}")
    directory.follow()
    directory.agrees()


@needs_slapd
@pytest.mark.parametrize("where", ["inside", "out"])
def test_a_container_that_moves_takes_a_whole_read(slapd: Slapd, where: str) -> None:
    """What is in it has another name, or is out of the base, and does not change itself."""
    for name in (f"ou=a,ou=people,{BASE}", f"ou=old,{BASE}"):
        slapd.add(name, {"objectClass": ["organizationalUnit"]})
    slapd.add(f"uid=di,ou=a,ou=people,{BASE}", {"objectClass": ["inetOrgPerson"], "cn": "di", "sn": "x"})
    directory = Directory(slapd, "rfc2307bis", base=f"ou=people,{BASE}")
    if where == "out":
        slapd.move(f"ou=a,ou=people,{BASE}", f"ou=old,{BASE}")
    else:
        slapd.rename(f"ou=a,ou=people,{BASE}", "ou=b")
    directory.stale("may have been moved")


@needs_slapd
def test_a_container_without_people_may_change(slapd: Slapd) -> None:
    slapd.add(f"ou=printers,{BASE}", {"objectClass": ["organizationalUnit"]})
    slapd.add(f"cn=p1,ou=printers,{BASE}", {"objectClass": ["device"]})
    directory = Directory(slapd, "rfc2307bis")
    slapd.modify(f"ou=printers,{BASE}", {"description": ["x"]})
    slapd.modify(BASE, {"description": ["the root cannot move"]})
    directory.follow()
    assert names(directory.told) == set()


@needs_slapd
def test_a_restart_forgets_the_session_log(slapd: Slapd) -> None:
    """It is in memory. What has not changed needs none."""
    directory = Directory(slapd, "rfc2307bis")
    slapd.stop()
    with pytest.raises(Unreachable):
        directory.changes()
    slapd.start()
    directory.follow()
    slapd.modify(dn("ada"), {"title": ["x"]})
    slapd.stop()
    slapd.start()
    directory.stale("no session log")
    directory.whole()
    slapd.modify(dn("ada"), {"title": ["y"]})
    directory.follow()
    directory.agrees()


@needs_slapd
@pytest.mark.parametrize("length", [0, 3])
def test_a_session_log_that_does_not_reach_back_takes_a_whole_read(length: int) -> None:
    with Slapd(BASE, session_log=length) as server:
        server.add(f"ou=people,{BASE}", {"objectClass": ["organizationalUnit"]})
        for number in range(9):
            person(server, f"u{number}")
        directory = Directory(server, "rfc2307bis")
        assert directory.follow().requests < 5
        for number in range(8):
            server.delete(dn(f"u{number}"))
        directory.stale("no session log")


@needs_slapd
def test_without_syncprov_every_read_is_whole() -> None:
    """modifyTimestamp tells no deletion: nobody may own on because nobody was told."""
    with Slapd(BASE) as server:
        server.add(f"ou=people,{BASE}", {"objectClass": ["organizationalUnit"]})
        person(server, "ada")
        directory = Directory(server, "rfc2307bis")
        assert directory.bookmark is None
        with directory.connector() as connector:
            check = list(connector.check())[-1]
            assert check.ok and "syncprov" in check.detail and check.remedy
            with pytest.raises(StaleBookmark, match="syncprov"):
                list(connector.changes(BASE, "20200101000000.000000Z#000000#000#000000"))


@needs_slapd
def test_a_replica_that_is_behind_takes_a_whole_read(slapd: Slapd) -> None:
    directory = Directory(slapd, "rfc2307bis")
    directory.content.bookmarks[BASE] = "20990101000000.000000Z#000000#000#000000"
    directory.stale("newer than provider")


@needs_slapd
@pytest.mark.parametrize("bookmark", ["", "garbage", "20200101000000.000000Z#000000#000#000000,rid=1", "ab:12"])
def test_a_bookmark_of_another_kind_is_never_sent(slapd: Slapd, bookmark: str) -> None:
    """slapd takes a cookie that it cannot read for none, and would tell all there is and no deletion."""
    directory = Directory(slapd, "rfc2307bis")
    directory.content.bookmarks[BASE] = bookmark
    with directory.connector() as connector:
        connector._wire.raw = None  # type: ignore[assignment, method-assign]
        connector._feed = lambda: connectors.ldap_feed.Sync(connector._wire, "here", BASE, "x")  # type: ignore[method-assign]
        with pytest.raises(StaleBookmark, match="none of this server's"):
            list(connector.changes(BASE, bookmark))


@needs_slapd
def test_a_limit_on_searches_without_pages_takes_a_whole_read(slapd: Slapd) -> None:
    directory = Directory(slapd, "rfc2307bis")
    for number in range(9):
        person(slapd, f"u{number}")
    with slapd.configured(olcLimits=["* size.soft=4 size.hard=4 size.prtotal=unlimited"]):
        directory.stale("sizeLimitExceeded")


@needs_slapd
def test_many_changes_take_a_whole_read(slapd: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    group(slapd, "team")
    directory = Directory(slapd, "rfc2307bis")
    for name in ("ada", "bo", "chi"):
        slapd.modify(dn(name), {"title": ["x"]})
    with monkeypatch.context() as patched:
        patched.setattr(connectors.ldap_changes, "MOST_LEFT", 2)
        directory.stale("may have left")
    monkeypatch.setattr(connectors.ldap_feed, "MOST", 2)
    directory.stale("more than 2 entries")


@needs_slapd
def test_a_large_group_is_read_by_a_list_of_ids(slapd: Slapd, monkeypatch: pytest.MonkeyPatch) -> None:
    """One search for so many members would cost more than the list."""
    monkeypatch.setattr(connectors.ldap_changes, "MOST_NAMES", 2)
    group(slapd, "team")
    group(slapd, "inner")
    directory = Directory(slapd, "rfc2307bis")
    slapd.modify(group_dn("team"), {"member": [dn("ada"), dn("bo"), dn("chi"), dn("nobody"), group_dn("inner")]})
    directory.follow()
    directory.agrees()


@needs_slapd
def test_nobody_to_be_seen_is_never_no_change(slapd: Slapd) -> None:
    directory = Directory(slapd, "rfc2307bis")
    hidden = f'to dn.subtree="ou=people,{BASE}" by * none'
    with slapd.configured(olcAccess=[ACCESS[0], hidden, ACCESS[1]]), pytest.raises(Forbidden, match="shows no users"):
        directory.changes()


@needs_slapd
def test_only_users_where_nobody_asks_for_groups(slapd: Slapd) -> None:
    group(slapd, "team", dn("ada"))
    directory = Directory(slapd, "rfc2307bis")
    directory.kinds = frozenset({Kind.USER})
    directory.whole()
    slapd.modify(group_dn("team"), {"member": [dn("bo")]})
    slapd.modify(dn("bo"), {"manager": [dn("ada")]})
    slapd.delete(dn("chi"))
    directory.follow()
    assert not [record for record in directory.told if isinstance(record, Left | Members)]
    directory.agrees()


@needs_slapd
def test_a_login_that_two_come_to_have_is_an_error(slapd: Slapd) -> None:
    directory = Directory(slapd, "rfc2307")
    slapd.add(f"cn=other,{BASE}", {"objectClass": ["inetOrgPerson"], "sn": "x", "uid": "ada"})
    with pytest.raises(BadData, match="two entries have the uid ada"):
        directory.changes()


@needs_slapd
def test_a_bookmark_is_a_position_and_no_secret(slapd: Slapd) -> None:
    bookmark = Directory(slapd, "rfc2307bis").bookmark
    assert bookmark == slapd.get(BASE, "contextCSN")


@needs_slapd
@pytest.mark.parametrize("value", [b"", b"0\x05\x04", b"\x30\x84\xff"])
def test_a_sync_control_that_is_cut_is_a_fault(slapd: Slapd, value: bytes) -> None:
    directory = Directory(slapd, "rfc2307bis")
    slapd.modify(dn("ada"), {"title": ["x"]})
    with directory.connector() as connector:
        raw = connector._wire.raw

        def cut(*args: Any, **kwargs: Any) -> Any:
            result, rows = raw(*args, **kwargs)
            if controls := result.get("controls"):
                controls[connectors.ldap_feed.SYNC_DONE]["value"] = value
            return result, rows

        connector._wire.raw = cut  # type: ignore[method-assign]
        with pytest.raises(ServerFault, match="cannot be understood"):
            list(connector.changes(BASE, str(directory.bookmark)))


# Active Directory


def test_a_bookmark_is_of_one_domain_controller(ad: ActiveDirectory) -> None:
    """Its numbers mean nothing to another one, nor to the same one once its database was restored."""
    directory = Directory(ad, "ad")
    assert directory.bookmark == f"{ad.invocation.hex()}:{ad.usn}"
    ad.usn -= 1
    directory.stale("another domain controller")
    ad.usn += 1
    ad.invocation = bytes(16)
    directory.stale("another domain controller")


def test_without_deleted_objects_every_read_is_whole(ad: ActiveDirectory) -> None:
    """Whoever may not see them would not hear of a deletion."""
    ad.shows_deleted = False
    directory = Directory(ad, "ad")
    assert directory.bookmark is None
    with directory.connector() as connector:
        check = list(connector.check())[-1]
    assert check.ok and "CN=Deleted Objects" in check.detail and check.remedy


@pytest.mark.parametrize("lacks", ["invocationId", "control", "context"])
def test_a_server_that_does_not_say_who_it_is_is_read_whole(ad: ActiveDirectory, lacks: str) -> None:
    if lacks == "invocationId":
        ad.service = ""
    elif lacks == "control":
        ad.controls = ad.controls[:1]
    else:
        ad.domain = "dc=other,dc=example"
    assert Directory(ad, "ad").bookmark is None


def test_a_right_that_is_taken_away_ends_the_changes(ad: ActiveDirectory) -> None:
    directory = Directory(ad, "ad")
    ad.shows_deleted = False
    ad.delete("Bo")
    directory.stale("deletions would not be seen")


@pytest.mark.parametrize(
    ("query", "word"),
    [
        (f"(&(objectClass=user)(memberOf=cn=staff,{BASE}))", "memberOf"),
        (f"(&(objectClass=user)(!(memberOf:1.2.840.113556.1.4.1941:=cn=staff,{BASE})))", "memberOf"),
        ("(&(objectClass=user)(!(lastLogon=0)))", "lastLogon"),
    ],
)
def test_a_filter_that_others_decide_on_takes_whole_reads(ad: ActiveDirectory, query: str, word: str) -> None:
    """Who leaves a group leaves the filter, and no entry of theirs changes."""
    with Directory(ad, "ad").connector() as connector:
        connector._filters[Kind.USER] = query
        assert f"a filter asks for {word}" in str(connector._feed())
        with pytest.raises(StaleBookmark, match=word):
            list(connector.changes(BASE, f"{ad.invocation.hex()}:{ad.usn}"))


def test_deleted_and_restored(ad: ActiveDirectory) -> None:
    """An object that comes back from the dead comes without the links that led to it."""
    ad.add_group("team")
    ad.set_members("team", [ad.dn("Ada"), ad.dn("Bo")])
    directory = Directory(ad, "ad")
    entry = dict(ad.entries[ad.dn("Bo")])
    ad.delete("Bo")
    directory.follow()
    directory.agrees()
    ad.deleted.clear()
    ad.entries[ad.dn("Bo")] = entry
    ad.touch(ad.dn("Bo"))
    directory.follow()
    directory.agrees()


def test_a_rename_ends_no_membership(ad: ActiveDirectory) -> None:
    """Links follow their target; no group changes."""
    ad.add_group("team")
    ad.set_members("team", [ad.dn("Ada")])
    ad.edit("Bo", manager=ad.dn("Ada"))
    directory = Directory(ad, "ad")
    ad.rename(ad.dn("Ada"), ad.dn("Ada King"))
    directory.follow()
    assert "team" not in names(directory.told)
    directory.agrees()


def test_who_moves_out_of_the_base_is_gone(ad: ActiveDirectory) -> None:
    """It is found in the domain, and not below the base."""
    ad.entries[f"OU=Old,{BASE}"] = {"objectClass": [b"organizationalUnit"], "objectGUID": [b"o" * 16]}
    ad.add_group("team")
    ad.set_members("team", [ad.dn("Ada"), ad.dn("Bo")])
    ad.base = f"CN=Users,{BASE}"
    directory = Directory(ad, "ad", base=ad.base, bind_dn=ad.upn)
    ad.base = BASE
    ad.rename(f"CN=Ada,CN=Users,{BASE}", f"CN=Ada,OU=Old,{BASE}")
    ad.base = f"CN=Users,{BASE}"
    directory.follow()
    directory.agrees()
    assert not [key for key in sorted(directory.content.keys()) if "Ada" in key]


def test_a_unit_that_moves_takes_a_whole_read(ad: ActiveDirectory) -> None:
    """Whoever is in it leaves the base with no change of its own; a policy container or a zone holds nobody."""
    ad.entries[f"OU=In,{BASE}"] = {"objectClass": [b"organizationalUnit"], "objectGUID": [b"o" * 16]}
    ad.entries[f"CN=Policy,{BASE}"] = {"objectClass": [b"container"], "objectGUID": [b"p" * 16]}
    ad.rename(ad.dn("Ada"), f"CN=Ada,OU=In,{BASE}")
    directory = Directory(ad, "ad")
    ad.touch(f"CN=Policy,{BASE}")
    directory.follow()
    assert names(directory.told) == set()
    ad.touch(f"OU=In,{BASE}")
    directory.stale("may have been moved")


def test_computers_and_records_come_and_go_unheard(ad: ActiveDirectory) -> None:
    directory = Directory(ad, "ad")
    ad.add("PC1", ["person", "user", "computer"], objectCategory="computer")
    ad.add("dns", ["dnsNode"])
    directory.follow()
    assert not [record for record in directory.told if isinstance(record, Principal | Members | Left)]
    directory.agrees()


def test_a_primary_group_that_changes(ad: ActiveDirectory) -> None:
    """Active Directory puts the user among the former one's members, and takes it from the new one's."""
    ad.add_group("Other", rid=600)
    ad.set_members("Other", [ad.dn("Ada")])
    directory = Directory(ad, "ad")
    ad.edit("Ada", primaryGroupID=600)
    ad.set_members("Other", [])
    ad.set_members("Domain Users", [ad.dn("Ada")])
    directory.follow()
    directory.agrees()
    ad.set_members("Domain Users", [])
    directory.follow()
    directory.agrees()


def test_a_server_that_finds_nobody_by_name_takes_a_whole_read(ad: ActiveDirectory) -> None:
    """Else members would seem to be strangers, and the group would be told without them."""
    ad.add_group("team")
    directory = Directory(ad, "ad")
    for entry in ad.entries.values():
        entry.pop("distinguishedName", None)
    ad.set_members("team", [ad.dn("Ada")])
    directory.stale("does not find .* by distinguishedName")


def test_members_in_ranges_are_read_to_their_end(ad: ActiveDirectory) -> None:
    """The server gives two at a time; a range that fails never shortens the group."""
    ad.add_group("team")
    directory = Directory(ad, "ad")
    ad.set_members("team", [ad.dn(name) for name in ("Ada", "Bo", "Chi", "Domain Users")])
    for what, error in (("gone", Incomplete), ("missing", Incomplete), ("51", ServerFault)):
        with ad.broken_ranges(what), pytest.raises(error):
            directory.changes()
    directory.follow()
    directory.agrees()


def test_a_list_of_changes_of_many_pages(ad: ActiveDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connectors.ldap_feed, "_PAGE", 2)
    directory = Directory(ad, "ad")
    for number in range(7):
        ad.add_user(f"u{number}")
    ad.delete("Chi")
    directory.follow()
    directory.agrees()
    for number in range(7):
        ad.edit(f"u{number}", title="x")
    faults: list[tuple[str, type[ConnectorError]]] = [("51", ServerFault), ("cut", ServerFault), ("4", Incomplete)]
    for what, error in faults:
        with ad.broken(2, what), pytest.raises(error):
            directory.changes()


# Through to the database


@needs_slapd
def test_the_database_follows(slapd: Slapd, tmp_path: Path) -> None:
    """Merged as changes, the store holds what it does after a whole read: a rename took a membership, a deletion all."""
    for number in range(30):
        person(slapd, f"u{number}")
    group(slapd, "team", *(dn(f"u{n}") for n in range(30)))
    group(slapd, "outer", group_dn("team"), dn("ada"))

    def stored(world: World) -> list[list[tuple[Any, ...]]]:
        return [
            world.query("SELECT pid, hash, alive FROM principal ORDER BY 1"),
            world.query(
                "SELECT group_pid, member_pid FROM member WHERE member_pid IN (SELECT pid FROM principal) ORDER BY 1, 2"
            ),
        ]

    with (
        contextlib.closing(World(tmp_path / "followed", configuration(integration()))) as followed,
        contextlib.closing(World(tmp_path / "whole", configuration(integration()))) as whole,
    ):
        directory = Directory(slapd, "rfc2307bis")
        assert followed.run("corp", *directory.whole_told, base="options").state == "ok"
        slapd.rename(dn("u3"), "uid=renamed")
        slapd.delete(dn("u4"))
        slapd.modify(group_dn("outer"), {"member": [group_dn("team"), dn("bo")]})
        person(slapd, "late", manager=dn("u5"))
        bookmark = directory.bookmark
        directory.follow()
        report = followed.run("corp", *directory.told, since=bookmark, base="options")
        assert report.state == "ok", report
        directory.whole()
        assert whole.run("corp", *directory.whole_told, base="options").state == "ok"
        assert stored(followed) == stored(whole)
        assert len(stored(whole)[1]) == 28 + 2


# At random


@needs_slapd
@pytest.mark.parametrize("schema", ["rfc2307bis", "rfc2307"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_done_to_slapd_is_followed(schema: str, seed: int) -> None:
    """Added, deleted, renamed, moved, edited, joined and left at random: followed, it is what a whole read finds."""
    dice = random.Random(seed)
    with Slapd(BASE, session_log=1000) as server:
        for name in ("people", "groups", "other"):
            server.add(f"ou={name},{BASE}", {"objectClass": ["organizationalUnit"]})
        users = [f"u{n}" for n in range(6)]
        groups = [f"g{n}" for n in range(4)]

        def names_of(kind: str) -> list[str]:
            place, rdn, all_ = ("people", "uid", users) if kind == "user" else ("groups", "cn", groups)
            return [x for x in all_ if server.has(f"{rdn}={x},ou={place},{BASE}")]

        def some_members() -> dict[str, list[str]]:
            if schema == "rfc2307":
                return {"memberUid": dice.sample(users, dice.randrange(4))}
            chosen = [
                *map(dn, dice.sample(users, dice.randrange(4))),
                *map(group_dn, dice.sample(groups, dice.randrange(2))),
            ]
            return {"member": chosen}

        def step() -> None:
            there, teams = names_of("user"), names_of("group")
            free = [x for x in users if x not in there]
            match dice.randrange(8):
                case 0 | 1 if free:
                    posix(server, dice.choice(free), dice.randrange(9999), dice.randrange(4))
                case 2 if len(there) > 1:
                    server.delete(dn(dice.choice(there)))
                case 3 if free and there:
                    server.rename(dn(dice.choice(there)), f"uid={dice.choice(free)}")
                case 4 if there:
                    boss = {"manager": [dn(dice.choice(users))], "gidNumber": [str(dice.randrange(4))]}
                    server.modify(dn(dice.choice(there)), boss)
                case 5 if len(teams) < len(groups):
                    new = dice.choice([x for x in groups if x not in teams])
                    classes = ["posixGroup"] if schema == "rfc2307" else ["groupOfMembers"]
                    number = {"gidNumber": groups.index(new)} if schema == "rfc2307" else {}
                    server.add(
                        group_dn(new),
                        {"objectClass": classes, **number, **{k: v for k, v in some_members().items() if v}},
                    )
                case 6 if teams and dice.random() < 0.3:
                    server.delete(group_dn(dice.choice(teams)))
                case _ if teams:
                    server.modify(group_dn(dice.choice(teams)), some_members())

        posix(server, "u0", 1, 1)
        directory = Directory(server, schema)
        for _ in range(25):
            for _ in range(dice.randrange(1, 4)):
                step()
            directory.follow()
            directory.agrees()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_done_to_active_directory_is_followed(ad: ActiveDirectory, seed: int) -> None:
    dice = random.Random(seed)
    directory = Directory(ad, "ad")
    users, groups = ["Ada", "Bo", "Chi"], ["Domain Users"]
    for number in range(60):
        match dice.randrange(7):
            case 0:
                users.append(f"u{number}")
                ad.add_user(users[-1], manager=ad.dn(dice.choice(users)))
            case 1:
                groups.append(f"g{number}")
                ad.add_group(groups[-1])
            case 2 if len(users) > 2:
                ad.delete(users.pop(dice.randrange(len(users))))
            case 3 if len(groups) > 2:
                ad.delete(groups.pop(dice.randrange(1, len(groups))))
            case 4:
                index = dice.randrange(len(users))
                ad.rename(ad.dn(users[index]), ad.dn(f"r{number}"))
                users[index] = f"r{number}"
            case 5:
                ad.edit(
                    dice.choice(users), userAccountControl=dice.choice([512, 514]), manager=ad.dn(dice.choice(users))
                )
            case _:
                chosen = dice.sample([*users, *groups], dice.randrange(min(6, len(users))))
                ad.set_members(dice.choice(groups), [ad.dn(name) for name in chosen])
        if dice.random() < 0.5:
            directory.follow()
            directory.agrees()
