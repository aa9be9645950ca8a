"""What the contract suite does not ask of the `ldap` connector: names, schemas, result codes, ranges, TLS."""

from __future__ import annotations

import contextlib
import socket
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import connectors.ldap_wire
import connectors.retry
from config.secrets import resolve
from connectors.dn import dn_key, normal_dn
from connectors.errors import (
    BadData,
    ConnectorError,
    Forbidden,
    Incomplete,
    Misconfigured,
    ServerFault,
    Unauthenticated,
    Unreachable,
)
from connectors.ldap import Ldap
from connectors.ldap_errors import AD_BIND, judge
from connectors.ldap_options import LdapOptions
from connectors.ldap_wire import Wire
from connectors.values import Kind, Members, Principal, Record, Ref
from tests.servers.active_directory import ActiveDirectory
from tests.servers.slapd import MISSING, Slapd

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
        yield server


@pytest.fixture
def slapd() -> Iterator[Slapd]:
    with Slapd(BASE) as server:
        server.add(f"ou=people,{BASE}", {"objectClass": ["organizationalUnit"]})
        yield server


def person(server: Slapd, uid: str, **attributes: Any) -> str:
    dn = f"uid={uid},ou=people,{BASE}"
    server.add(dn, {"objectClass": ["inetOrgPerson"], "cn": uid, "sn": "x", **attributes})
    return server.get(dn, "entryUUID")


@contextlib.contextmanager
def connected(server: Any, schema: str = "ad", **changes: Any) -> Iterator[Ldap]:
    given = {"url": server.url, "base": BASE, "schema": schema, "bind_dn": server.bind_dn, "timeout": 10.0}
    options = LdapOptions.model_validate({**given, "password": {"env": "PASSWORD"}, **changes})
    resolve(options, {"PASSWORD": server.password, "WRONG": "wrong-secret"})
    connector = Ldap(options)
    connector.page_size = 3
    try:
        yield connector
    finally:
        connector.close()


def read(server: Any, schema: str = "ad", **changes: Any) -> list[Record]:
    with connected(server, schema, **changes) as connector:
        return list(connector.read(BASE))


def fails(
    server: Any, error: type[ConnectorError], match: str | None, schema: str = "ad", **changes: Any
) -> ConnectorError:
    with pytest.raises(error, match=match) as caught:
        read(server, schema, **changes)
    assert server.password not in str(caught.value)
    return caught.value


def principals(records: list[Record]) -> dict[str, Principal]:
    return {r.name: r for r in records if isinstance(r, Principal)}


def members(records: list[Record]) -> dict[str, list[str]]:
    names = {r.ref: r.name for r in records if isinstance(r, Principal)}
    found: dict[str, list[str]] = {}
    for record in records:
        if isinstance(record, Members):
            found.setdefault(names[record.group], []).extend(names[m] for m in record.members)
    return found


# Distinguished names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CN=Ada,DC=corp", "cn=ada,dc=CORP"),
        ("cn=Ada , dc = corp", "cn=Ada,dc=corp"),
        ("cn=Ada  L,dc=corp", "cn=ada l,dc=corp"),
        (r"cn=Ek\, Bo,dc=corp", r"cn=ek\2C bo,dc=corp"),
        (r"cn=\C3\89ve", "cn=éve"),
        ('cn="Ek, Bo",dc=corp', r"cn=Ek\, Bo,dc=corp"),
        ("cn=a;dc=corp", "cn=a,dc=corp"),
        ("cn=a+uid=b,dc=corp", "UID=b + CN=a,dc=corp"),
        (r"cn=\ a\ ", "cn=a"),
        ("OID.2.5.4.3=a", "2.5.4.3=a"),
        ("cn=STRAßE", "cn=straße"),
        ("cn=ΑΣ", "cn=ασ"),
        ("cn=ｗｉｄｅ", "cn=wide"),
    ],
)  # fmt: skip
def test_spellings_of_one_name_are_one_name(one: str, other: str) -> None:
    assert normal_dn(one) == normal_dn(other)
    assert dn_key(one) == dn_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"cn=a\,dc=b", "cn=a,dc=b"),
        (r"cn=a\+b=c", "cn=a+b=c"),
        ("cn=a,dc=b", "cn=ab"),
        ("cn=a", "uid=a"),
        ("cn=a,cn=b", "cn=b,cn=a"),
        (r"cn=a\\,dc=b", r"cn=a\,dc=b"),
        (r"cn=a\00\2Cdc=b", "cn=a,dc=b"),
        (r"cn=a\00\2Bcn=b", "cn=a+cn=b"),
        (r"cn=a\00", "cn=a"),
        ("cn=Weiß", "cn=Weiss"),
        ("cn=a\tb", "cn=a b"),
        ("cn=ΑΣ", "cn=ας"),
    ],
)
def test_other_names_stay_other_names(one: str, other: str) -> None:
    assert normal_dn(one) != normal_dn(other)


@pytest.mark.parametrize("text", ["nobody", "cn", "=a", "cn=a,", "cn=a,,dc=b", 'cn="a', "cn=a\\"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a distinguished name"):
        normal_dn(text)


@given(st.lists(st.text(string.printable + "äß€🦉", min_size=1), min_size=1, max_size=4))
def test_hex_and_backslash_escapes_mean_the_same(values: list[str]) -> None:
    """Whatever a value holds: each octet as \\XX, or each special character behind a backslash, is one name."""
    hexed = ",".join("cn=" + "".join(f"\\{b:02x}" for b in v.encode()) for v in values)
    slashed = ",".join("cn=" + "".join(f"\\{c}" if c in ' "#+,;<=>\\' else c for c in v) for v in values)
    assert normal_dn(hexed) == normal_dn(slashed)


@given(
    st.lists(
        st.text(string.ascii_letters + string.digits + " .-_@'()/:,+=;\\\"#<>\t", min_size=1), min_size=1, max_size=3
    )
)
def test_the_short_way_for_plain_names_says_the_same(values: list[str]) -> None:
    """`normal_dn` takes a short way for most names: escaped octets force the long one."""
    escaped = ["".join(f"\\{c}" if c in ' "#+,;<=>\\' else c for c in v) for v in values]
    plain = ",".join(
        "OU=" + (v if e.replace("\\ ", " ") == v and v == v.strip() else e)
        for v, e in zip(values, escaped, strict=True)
    )
    hexed = ",".join("ou=" + "".join(f"\\{b:02X}" for b in v.encode()) for v in values)
    assert normal_dn(plain) == normal_dn(hexed)


# Options


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"url": "ldap://ldap.corp.example"}, "plain ldap is accepted to loopback only"),
        ({"url": "ldaps://h", "start_tls": True}, "start_tls is for ldap://"),
        ({"url": "https://h"}, "url must be like"),
        ({"url": "ldaps://h/dc=x"}, "url must be like"),
        ({"url": "ldaps://h:port"}, "url must be like"),
        ({"url": "ldaps://me:secret@h"}, "url must be like"),
        ({"bind_dn": "cn=x"}, "belong together"),
        ({"password": {"env": "P"}}, "belong together"),
        ({"bind_dn": "cn=x", "password": "secret"}, "literal secret"),
        ({"schema": "rfc2307BIS"}, "rfc2307bis"),
        ({"base": "corp"}, "base is no DN"),
        ({"user_filter": "uid=*"}, "user_filter must be in parentheses"),
    ],
)
def test_options_that_cannot_work_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        LdapOptions.model_validate({"url": "ldaps://h", "base": BASE, "schema": "ad", **changes})


def test_an_empty_password_never_reaches_the_server(ad: ActiveDirectory) -> None:
    """RFC 4513 5.1.2: a server would take it for an anonymous bind that worked."""
    options = LdapOptions.model_validate(
        {"url": ad.url, "base": BASE, "schema": "ad", "bind_dn": ad.bind_dn, "password": {"env": "P"}}
    )
    assert options.password
    options.password._value = ""
    with pytest.raises(Misconfigured, match="empty"):
        list(Ldap(options).read(BASE))


def test_the_schema_option_is_in_the_json_schema() -> None:
    assert LdapOptions.model_json_schema()["properties"]["schema"]["enum"] == ["rfc2307bis", "rfc2307", "ad"]


# Result codes


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1, ServerFault), (2, ServerFault), (3, Incomplete), (4, Incomplete), (8, Unauthenticated), (9, Incomplete),
        (10, Incomplete), (11, Incomplete), (12, Incomplete), (13, Unauthenticated), (32, Misconfigured),
        (34, Misconfigured), (48, Unauthenticated), (49, Unauthenticated), (50, Forbidden), (51, ServerFault),
        (52, ServerFault), (53, ServerFault), (80, ServerFault), (16, BadData), (4096, BadData),
    ],
)  # fmt: skip
def test_every_result_code_but_success_is_an_error(code: int, error: type[ConnectorError]) -> None:
    with pytest.raises(error, match=f"{code}.*told so"):
        judge("here", {"result": code, "description": "x", "message": "told so"}, "users")


@pytest.mark.parametrize("data", AD_BIND)
def test_a_refused_bind_says_why(ad: ActiveDirectory, data: str) -> None:
    ad.add_user("Ada")
    with ad.refusing(data):
        fails(ad, Unauthenticated, AD_BIND[data])


@pytest.mark.parametrize(
    ("what", "error"),
    [
        *((x, ServerFault) for x in ("1", "51", "52", "53", "80", "garbage", "cut", "close", "notice")),
        *((x, Incomplete) for x in ("3", "4", "10", "11", "nocontrol", "repeat")),
        ("50", Forbidden),
    ],
)
def test_a_list_that_breaks_on_its_second_page_fails(
    ad: ActiveDirectory, what: str, error: type[ConnectorError]
) -> None:
    for number in range(7):
        ad.add_user(f"U{number}")
    with ad.broken(2, what):
        fails(ad, error, None)
    assert len(principals(read(ad))) == 7


def test_a_list_that_stops_in_the_middle_is_unreachable(ad: ActiveDirectory) -> None:
    for number in range(7):
        ad.add_user(f"U{number}")
    with ad.broken(2, "hang"):
        fails(ad, Unreachable, "timed out", timeout=0.5)


def test_empty_pages_without_end_are_an_error(ad: ActiveDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connectors.ldap_wire, "MAX_EMPTY_PAGES", 5)
    for number in range(7):
        ad.add_user(f"U{number}")
    with ad.broken(2, "empty"):
        fails(ad, Incomplete, "6 empty pages in a row")


def test_a_cookie_that_never_changes_may_still_lead_on(ad: ActiveDirectory) -> None:
    """389 Directory Server's: a guard that wants each cookie new would refuse it."""
    ad.static_cookies = True
    for number in range(10):
        ad.add_user(f"U{number}")
    assert len(principals(read(ad))) == 10


def test_a_search_by_nobody_is_unauthenticated(ad: ActiveDirectory) -> None:
    fails(ad, Unauthenticated, "successful bind must be completed", bind_dn=None, password=None)


def test_a_password_that_none_may_have_is_misconfigured(ad: ActiveDirectory, waits: list[float]) -> None:
    ad.password = "pass\x07word"
    fails(ad, Misconfigured, "the password holds a character")
    assert waits == []


def test_a_wrong_password_is_not_tried_again(ad: ActiveDirectory, waits: list[float]) -> None:
    error = fails(ad, Unauthenticated, "wrong user or password", password={"env": "WRONG"})
    assert "wrong-secret" not in str(error)
    assert waits == []


def test_active_directory_takes_a_user_principal_name(ad: ActiveDirectory) -> None:
    ad.add_user("Ada")
    assert "Ada" in principals(read(ad, bind_dn=ad.upn))
    fails(ad, Unauthenticated, "wrong user", bind_dn="no name at all")


def test_connecting_is_tried_again(ad: ActiveDirectory, waits: list[float]) -> None:
    ad.add_user("Ada")
    with ad.stopped():
        fails(ad, Unreachable, "refused")
    assert len(waits) == connectors.retry.ATTEMPTS - 1


def test_an_address_of_version_6_is_an_address() -> None:
    with pytest.raises(Unreachable, match=r"(?i)refused|unreachable|cannot assign|not supported"):
        Wire("ldap://[::1]:1", "here", user=None, password=None, start_tls=False, ca_file=None, timeout=5)


def test_a_server_that_never_answers_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ldap://127.0.0.1:{silent.getsockname()[1]}"
        for start_tls in (False, True):
            with pytest.raises(Unreachable, match="timed out"):
                Wire(url, "here", user=None, password=None, start_tls=start_tls, ca_file=None, timeout=0.5)
        with pytest.raises(Unreachable, match="timed out") as caught:  # in the handshake
            Wire(f"ldaps{url[4:]}", "here", user=None, password=None, start_tls=False, ca_file=None, timeout=0.5)
        assert "ca_file" not in caught.value.remedy


# Active Directory


def test_ids_are_the_guids_that_administrators_see(ad: ActiveDirectory) -> None:
    """objectGUID's first three parts are little-endian."""
    guid = ad.add_user("Ada", objectGUID=bytes.fromhex("33221100554477668899aabbccddeeff"))
    assert principals(read(ad))["Ada"].id == "00112233-4455-6677-8899-aabbccddeeff" != guid


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_member_ranges_are_read_to_their_end(ad: ActiveDirectory, count: int) -> None:
    """The server gives two values at a time."""
    names = [f"U{n}" for n in range(5)]
    for name in names:
        ad.add_user(name)
    ad.add_group("G")
    ad.set_members("G", [ad.dn(n).lower() for n in names[:count]])
    assert members(read(ad)).get("G", []) == names[:count]


def test_a_group_of_more_than_1500_members_is_read_whole(ad: ActiveDirectory) -> None:
    """Active Directory's own MaxValRange, at the connector's own page size."""
    ad.range_size = 1500
    names = [f"U{n}" for n in range(3001)]
    for name in names:
        ad.add_user(name)
    ad.add_group("G")
    ad.set_members("G", [ad.dn(name) for name in names])
    with connected(ad) as connector:
        connector.page_size = Ldap.page_size
        assert members(list(connector.read(BASE)))["G"] == names


@pytest.mark.parametrize(
    ("what", "error"),
    [("gone", Incomplete), ("missing", Incomplete), ("shifted", Incomplete), ("51", ServerFault), ("50", Forbidden)],
)
def test_a_range_that_fails_never_shortens_a_group(ad: ActiveDirectory, what: str, error: type[ConnectorError]) -> None:
    ad.add_user("U")
    ad.add_group("G")
    ad.set_members("G", [ad.dn("U"), *(f"CN=Device {n},{BASE}" for n in range(4))])
    with ad.broken_ranges(what):
        fails(ad, error, None)


def test_any_attribute_may_come_in_ranges(ad: ActiveDirectory) -> None:
    """MaxValRange is for all of them."""
    ad.add_user("Ada", otherMailbox=[f"{n}@x" for n in range(7)])
    assert principals(read(ad))["Ada"].attributes["otherMailbox"] == [f"{n}@x" for n in range(7)]
    with ad.broken_ranges("missing"):
        fails(ad, Incomplete, "otherMailbox")


def test_primary_groups_circles_and_strangers(ad: ActiveDirectory) -> None:
    ad.add_group("Domain Users", rid=513)
    ad.add_group("Other", rid=600)
    ad.add_user("Ada")
    ad.add_user("Bo", primaryGroupID=600, manager=ad.dn("ada"))
    ad.add_group("A")
    ad.add_group("B")
    ad.set_members("A", [ad.dn("B"), "CN=S-1-5-11,CN=ForeignSecurityPrincipals,DC=corp,DC=example"])
    ad.set_members("B", [ad.dn("A"), ad.dn("Ada")])
    found = read(ad)
    assert members(found) == {"Domain Users": ["Ada"], "Other": ["Bo"], "A": ["B"], "B": ["A", "Ada"]}
    assert principals(found)["Bo"].manager == principals(found)["Ada"].id


@pytest.mark.parametrize(("flags", "active"), [(512, True), (514, False), (66048, True), (66050, False), (546, False)])
def test_a_disabled_account_is_inactive(ad: ActiveDirectory, flags: int, active: bool) -> None:
    ad.add_user("Ada", userAccountControl=flags)
    assert principals(read(ad))["Ada"].active is active


@pytest.mark.parametrize("name", ["userAccountControl", "primaryGroupID", "objectSid"])
def test_what_every_account_has_must_be_readable(ad: ActiveDirectory, name: str) -> None:
    """Hidden is not absent: an unknown state is not active, an unknown primary group not none."""
    ad.add_user("Ada", **{name: None})
    fails(ad, Forbidden, f"shows no {name}")


def test_users_that_vanish_while_they_are_read_are_not_taken_for_none(ad: ActiveDirectory) -> None:
    ad.add_user("Ada")
    ad.add_group("G")
    with connected(ad) as connector, pytest.raises(Forbidden, match="shows no users"):
        attributes = connector._attributes

        def hide(kind: Kind) -> list[str]:
            found = attributes(kind)
            del ad.entries[ad.dn("Ada")]
            return found

        connector._attributes = hide  # type: ignore[method-assign]
        list(connector.read(BASE))


def test_addresses(ad: ActiveDirectory) -> None:
    ad.add_user("Ada", mail="ada@x", proxyAddresses=["SMTP:ada@x", "smtp:a.l@x", "X500:/o=x", "sip:ada@x"])
    user = principals(read(ad))["Ada"]
    assert (user.email, user.aliases) == ("ada@x", ("a.l@x",))


@pytest.mark.parametrize("part", ["DC=DomainDnsZones", "DC=ForestDnsZones", "CN=Configuration"])
def test_references_to_its_own_partitions_are_normal(ad: ActiveDirectory, part: str) -> None:
    ad.add_user("Ada")
    ad.references = [f"ldap://corp.example/{part},DC=corp,DC=example"]
    assert "Ada" in principals(read(ad))


def test_a_reference_to_another_domain_is_incomplete(ad: ActiveDirectory) -> None:
    ad.add_user("Ada")
    ad.references = ["ldap://child.corp.example/DC=child,DC=corp,DC=example"]
    assert "base" in fails(ad, Incomplete, "DC=child,DC=corp,DC=example is on another server").remedy


def test_secrets_and_pictures_are_never_asked_for(ad: ActiveDirectory) -> None:
    """Their names come once, without values; all else is asked for by name."""
    secrets = ["userPassword", "unicodePwd", "ms-Mcs-AdmPwd", "thumbnailPhoto", "userCertificate", "sambaNTPassword"]
    ad.add_user("Ada", department="R&D", **dict.fromkeys(secrets, "x"))
    found = principals(read(ad))["Ada"]
    assert found.attributes["department"] == "R&D"
    asked = {name for names, types_only in ad.searches if not types_only for name in names}
    assert asked & {"*", "+", *secrets} == set()
    assert not set(secrets) & found.attributes.keys()


def test_another_domain_controller_changes_no_user(ad: ActiveDirectory) -> None:
    """What each keeps for itself is left out: it would rewrite every row."""
    ad.add_user("Ada", department="R&D", uSNChanged=1, uSNCreated=1, whenChanged="20260101000000.0Z", lastLogon=1)
    before = principals(read(ad))
    entry = ad.entries[ad.dn("Ada")]
    entry.update(uSNChanged=[b"9"], uSNCreated=[b"8"], whenChanged=[b"20261231000000.0Z"], lastLogon=[b"7"])
    entry["dSCorePropagationData"] = [b"16010101000000.0Z"]
    assert principals(read(ad)) == before
    assert before["Ada"].attributes["department"] == "R&D"


def test_a_user_and_a_group_of_one_name_are_never_taken_for_each_other(ad: ActiveDirectory) -> None:
    ad.add_user("Ada")
    ad.add_user("Bo")
    with connected(ad) as connector, pytest.raises(BadData, match=r"CN=Ada,.*a user and a group have this name"):
        learn = connector._learn

        def then_replace(kind: Kind, known: Any) -> None:
            learn(kind, known)
            if kind is Kind.USER:
                del ad.entries[ad.dn("Ada")]
                ad.add_group("Ada")

        connector._learn = then_replace  # type: ignore[method-assign]
        list(connector.read(BASE))


def test_one_entry_may_be_a_user_and_a_group(ad: ActiveDirectory) -> None:
    ad.add_user("Ada")
    ad.add_group("G")
    ad.set_members("G", [ad.dn("Ada")])
    found = read(ad, group_filter="(|(objectClass=group)(cn=Ada))")
    ada = {r.kind for r in found if isinstance(r, Principal) and r.name == "Ada"}
    assert ada == {Kind.USER, Kind.GROUP}
    assert {m.kind for r in found if isinstance(r, Members) for m in r.members} == {Kind.USER}


def test_nothing_but_text_is_stored(ad: ActiveDirectory) -> None:
    ad.add_user("Ada", blob=[b"\xff\xfe", b"a\0b", b""], mixed=[b"\xff", b"text"], many=["a", "b"])
    found = principals(read(ad))["Ada"].attributes
    assert "blob" not in found
    assert (found["mixed"], found["many"]) == ("text", ["a", "b"])


@pytest.mark.parametrize(("guid", "problem"), [(None, "no objectGUID"), (b"short", "objectGUID cannot be understood")])
def test_an_entry_without_its_id_is_named(ad: ActiveDirectory, guid: bytes | None, problem: str) -> None:
    ad.add_user("Ada", objectGUID=guid)
    assert fails(ad, BadData, f"CN=Ada,CN=Users,{BASE}: {problem}").remedy


def test_groups_are_left_alone_where_nobody_asks(ad: ActiveDirectory) -> None:
    ad.add_user("Ada")
    ad.add_group("G")
    with connected(ad) as connector:
        connector.kinds = frozenset({Kind.USER})
        assert set(principals(list(connector.read(BASE)))) == {"Ada"}


def test_filters_choose(ad: ActiveDirectory) -> None:
    ad.add_user("Ada", department="a")
    ad.add_user("Bo", department="b")
    ad.add_group("G")
    ad.add_group("H")
    found = read(ad, user_filter="(&(objectClass=user)(department=b))", group_filter="(!(|(cn=H)(objectClass=user)))")
    assert set(principals(found)) == {"Bo", "G"}
    fails(ad, Misconfigured, "filter", user_filter="(&(a=b)(c=d)")


def test_check_names_what_is_missing(ad: ActiveDirectory) -> None:
    with connected(ad) as connector:
        assert [(c.what, c.ok) for c in connector.check()][2:4] == [("read users", False), ("read groups", True)]
    ad.add_user("Ada", userAccountControl=None)
    ad.controls = ["1.2.3"]
    with connected(ad) as connector:
        checks = {c.what: c for c in connector.check()}
    assert not checks["root DSE"].ok and checks["root DSE"].remedy
    assert "userAccountControl" in checks["read users"].detail
    assert checks["read groups"].detail == "readable, and empty"


# slapd


@needs_slapd
def test_changes_are_seen_and_ids_survive_a_rename(slapd: Slapd) -> None:
    ada = person(slapd, "ada")
    person(slapd, "bo")
    group = f"cn=team,{BASE}"
    slapd.add(group, {"objectClass": ["groupOfNames"], "member": [f"uid=ada,ou=people,{BASE}"]})
    assert members(read(slapd, "rfc2307bis")) == {"team": ["ada"]}
    slapd.modify(group, {"member": [f"uid=bo,ou=people,{BASE}"]})
    assert members(read(slapd, "rfc2307bis")) == {"team": ["bo"]}
    slapd.rename(f"uid=ada,ou=people,{BASE}", "uid=lovelace")
    assert Ref(Kind.USER, ada) in {r.ref for r in read(slapd, "rfc2307bis") if isinstance(r, Principal)}
    slapd.delete(group)
    assert members(read(slapd, "rfc2307bis")) == {}


@needs_slapd
@pytest.mark.parametrize("records", [1, 4, 7])
def test_a_restart_in_the_middle_fails_the_read(slapd: Slapd, records: int) -> None:
    """Its place in the list is lost: what a new connection would give is another list."""
    for number in range(8):
        person(slapd, f"u{number}")
    with connected(slapd, "rfc2307bis") as connector:
        reading = connector.read(BASE)
        for _ in range(records):
            next(reading)
        slapd.stop()
        slapd.start()
        with pytest.raises(ServerFault, match="ended the connection"):
            list(reading)
    assert len(principals(read(slapd, "rfc2307bis"))) == 8


@needs_slapd
def test_a_part_on_another_server_is_incomplete(slapd: Slapd) -> None:
    person(slapd, "ada")
    referral = {"objectClass": ["referral", "extensibleObject"], "ref": "ldap://other.example/ou=far,dc=corp"}
    slapd.add(f"ou=far,{BASE}", referral)
    fails(slapd, Incomplete, "is on another server", "rfc2307bis")


@needs_slapd
def test_what_slapd_holds_apart_is_held_apart(slapd: Slapd) -> None:
    """Two names that a server tells apart are two people."""
    from ldap3.core.exceptions import LDAPEntryAlreadyExistsResult

    pairs = ["ßs", "ÉE", "Éé", "éé", "ﬁf", "ｗw", "Жж", "Σσ", "σς", "ſs", "ıi", "\u2167x", "\ti", "\u00a0\u3000", "\x85 ",
             "\u2028 ", "\u00ad\u200b", "\0\x01", "\u01c4\u01c6", "Ωω", "²2", "\u0345ι"]  # fmt: skip
    apart = together = 0
    for number, pair in enumerate(pairs):
        folder = f"ou=p{number},{BASE}"
        slapd.add(folder, {"objectClass": ["organizationalUnit"]})
        names = ["cn=a" + "".join(f"\\{b:02x}" for b in c.encode()) + f"b,{folder}" for c in pair]
        slapd.add(names[0], {"objectClass": ["inetOrgPerson"], "sn": "x"})
        try:
            slapd.add(names[1], {"objectClass": ["inetOrgPerson"], "sn": "x"})
        except LDAPEntryAlreadyExistsResult:
            together += 1
        else:
            apart += 1
            assert dn_key(names[0]) != dn_key(names[1]), repr(pair)
    assert apart and together
    assert len(read(slapd, "rfc2307bis")) == len(pairs) + apart


@needs_slapd
def test_a_member_who_is_gone_is_nobody_else(slapd: Slapd) -> None:
    for name in ("Anna Weiß", "Anna Weiss"):
        slapd.add(f"cn={name},ou=people,{BASE}", {"objectClass": ["inetOrgPerson"], "sn": "x"})
    slapd.add(f"cn=g,{BASE}", {"objectClass": ["groupOfNames"], "member": [f"cn=Anna Weiss,ou=people,{BASE}"]})
    assert members(read(slapd, "rfc2307bis")) == {"g": ["Anna Weiss"]}
    slapd.delete(f"cn=Anna Weiss,ou=people,{BASE}")
    assert members(read(slapd, "rfc2307bis")) == {}


@needs_slapd
def test_nobody_takes_a_groups_place_by_a_crafted_name(slapd: Slapd) -> None:
    person(slapd, "boss")
    slapd.add(f"ou=groups,{BASE}", {"objectClass": ["organizationalUnit"]})
    for group, member in (("admins", "uid=boss,ou=people"), ("top", "cn=admins,ou=groups")):
        slapd.add(f"cn={group},ou=groups,{BASE}", {"objectClass": ["groupOfNames"], "member": [f"{member},{BASE}"]})
    crafted = {"objectClass": ["inetOrgPerson"], "sn": "x", "displayName": "Mallory"}
    slapd.add(rf"cn=admins\00\2Cou=groups,{BASE}", crafted)
    found = read(slapd, "rfc2307bis")
    assert "Mallory" in principals(found)
    assert members(found) == {"admins": ["boss"], "top": ["admins"]}


@needs_slapd
def test_a_user_twice_under_one_login_is_an_error(slapd: Slapd) -> None:
    person(slapd, "ada")
    slapd.add(f"cn=other,{BASE}", {"objectClass": ["inetOrgPerson"], "sn": "x", "uid": "ada"})
    fails(slapd, BadData, "two entries have the uid ada", "rfc2307")


@needs_slapd
def test_nobody_to_be_seen_is_forbidden(slapd: Slapd) -> None:
    assert "bind_dn" in fails(slapd, Forbidden, "shows no users", "rfc2307bis").remedy


@needs_slapd
@pytest.mark.parametrize("schema", ["rfc2307", "rfc2307bis"])
def test_a_base_that_is_not_there_is_misconfigured(slapd: Slapd, schema: str) -> None:
    assert "base" in fails(slapd, Misconfigured, "noSuchObject", schema, base=f"ou=nowhere,{BASE}").remedy


@needs_slapd
def test_no_anonymous_bind(slapd: Slapd) -> None:
    """slapd's `disallow bind_anon` answers 48; without it, an anonymous bind reads what anonymous may."""
    person(slapd, "ada")
    with slapd.configured(olcAccess=["to * by * read"]):
        assert "ada" in principals(read(slapd, "rfc2307bis", bind_dn=None, password=None))
    with slapd.configured(olcRequires=["authc"]):
        fails(slapd, Unauthenticated, None, "rfc2307bis", bind_dn=None, password=None)
    with slapd.configured(olcSecurity=["tls=1"]):
        assert "start_tls" in fails(slapd, Unauthenticated, None, "rfc2307bis").remedy


@needs_slapd
@pytest.mark.parametrize(
    "limit", ["size.prtotal=disabled", "size.pr=2", "size.prtotal=4", "size.prtotal=4 size.hard=9"]
)
def test_limits_of_slapd_end_in_an_error(slapd: Slapd, limit: str) -> None:
    for number in range(7):
        person(slapd, f"u{number}")
    with slapd.configured(olcLimits=[f"* {limit}"]):
        fails(slapd, Incomplete, "limit|paged", "rfc2307bis")


@needs_slapd
@pytest.mark.parametrize("limit", ["size=4", "size.soft=4", "size.hard=4 size.prtotal=hard", "size.prtotal=unlimited"])
def test_whatever_the_limit_no_list_is_short(slapd: Slapd, limit: str) -> None:
    """Which limits slapd applies to pages is its affair; a list that ends without an error is whole."""
    for number in range(7):
        person(slapd, f"u{number}")
    with slapd.configured(olcLimits=[f"* {limit}"]), contextlib.suppress(Incomplete):
        assert len(principals(read(slapd, "rfc2307bis"))) == 7


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """The server's certificate and key, its authority, and another authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority, other = trustme.CA(), trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other.pem"))
    return str(folder / "server.pem"), str(folder / "ca.pem"), str(folder / "other.pem")


@needs_slapd
def test_tls_is_verified(tls_files: tuple[str, str, str], tmp_path: Path) -> None:
    """Authority and name, from the start and by StartTLS."""
    certificate, authority, other = tls_files
    with Slapd(BASE, tls=(certificate, authority)) as server:
        server.add(f"ou=people,{BASE}", {"objectClass": ["organizationalUnit"]})
        person(server, "ada")
        ldaps = f"ldaps://127.0.0.1:{server.tls_port}"
        for changes in ({"url": ldaps}, {"start_tls": True}):
            assert "ada" in principals(read(server, "rfc2307bis", ca_file=authority, **changes))
            for trusted in (other, None):
                error = fails(server, Unreachable, "(?i)certificate", "rfc2307bis", ca_file=trusted, **changes)
                assert "ca_file" in error.remedy
            url = str(changes.get("url", server.url)).replace("127.0.0.1", "localhost")
            fails(
                server,
                Unreachable,
                "(?i)certificate|hostname",
                "rfc2307bis",
                **{**changes, "ca_file": authority, "url": url},
            )
        # nothing but plain text there
        fails(server, Unreachable, None, "rfc2307bis", url=ldaps.replace(str(server.tls_port), str(server.port)))
        with pytest.raises(Misconfigured, match="ca_file"):
            read(server, "rfc2307bis", url=ldaps, ca_file=str(tmp_path / "none.pem"))


@needs_slapd
def test_a_server_without_tls_is_not_spoken_to_in_the_clear(slapd: Slapd) -> None:
    fails(slapd, Unreachable, None, "rfc2307bis", start_tls=True)
