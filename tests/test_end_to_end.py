"""The main job on real servers: AWS (moto), an Okta over TLS with its real paging, a slapd with nested groups.

One `ownerd run` polls them. Who owns what is computed here a second time, from what the test put into the servers and
by other code than ownerd's; then the servers change, and the answers must follow.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Daemon, ownerd, running, toml, until
from tests.servers.aws_faults import AwsFaults
from tests.servers.moto_aws import REGIONS, Estate, MotoAws, aws_environment, fill, moto_aws
from tests.servers.okta import OktaServer
from tests.servers.slapd import Slapd
from tests.unixhttp import get

OWNERS = ("Team Payments", "nested", "team-payments", "platform", "data-eng", "ghosts", "nobody-knows", "twins")

pytestmark = pytest.mark.skipif(Slapd.missing is not None, reason=str(Slapd.missing))


@dataclass
class Groups:
    """One directory as the test knows it: each group's users and groups, and the users that are active."""

    directory: str
    inside: dict[str, set[str]] = field(default_factory=dict)
    active: set[str] = field(default_factory=set)

    def alive(self, name: str, seen: frozenset[str] = frozenset()) -> bool:
        """Whether an active user is in a group, at any depth."""
        if name in self.active:
            return True
        return name not in seen and any(self.alive(m, seen | {name}) for m in self.inside.get(name, ()))

    def owner(self, value: str) -> str:
        """The owner that a tag value names here, or the reason why there is none."""
        names = [name for name in self.inside if name == value] or [n for n in self.inside if fold(n) == fold(value)]
        if not names:
            return "value_unknown"
        if len(names) > 1:
            return "value_ambiguous"
        return f"{self.directory}:{names[0]}" if self.alive(names[0]) else "group_empty"


def fold(text: str) -> str:
    return re.sub(r"[ _-]+", "-", text.lower())


@dataclass
class Site:
    """The servers, what they hold, and the daemon."""

    okta: OktaServer
    slapd: Slapd
    aws: MotoAws
    estate: Estate
    corp: Groups
    posix: Groups
    config: Path
    socket: Path

    def expected(self) -> dict[str, str]:
        """For each resource that AWS lists: its owner, or the reason for the fallback."""
        found = {}
        for arn, tags in self.estate.listed().items():
            folded = {k.lower(): v for k, v in tags.items()}
            if "owner" in folded:
                found[arn] = self.corp.owner(tags.get("owner", folded["owner"]))
            elif "team" in folded:
                found[arn] = self.posix.owner(folded["team"])
            else:
                found[arn] = "tag_missing"
        return found

    def served(self) -> dict[str, str]:
        """The same, from the socket."""
        found: dict[str, str] = {}
        cursor: dict[str, Any] = {}
        while True:
            told = get(self.socket, "/v1/resources", limit=1000, **cursor).json
            for row in told["resources"]:
                owners = [f"{o['directory']}:{o['name']}" for o in row["owners"]]
                assert row["fallback"] == (row["reason"] is not None)
                if row["fallback"]:
                    assert owners == ["posix:cloud-platform"]
                assert len(owners) == 1
                found[row["resource"]["id"]] = row["reason"] or owners[0]
            if told["next"] is None:
                return found
            cursor = {"cursor": told["next"]}

    def sync(self, *names: str) -> None:
        done = ownerd("sync", *names, "--config", str(self.config))
        assert done.returncode == 0, done.stdout + done.stderr

    def drift(self, state: str = "open") -> Counter[tuple[str, str]]:
        """Resources by kind and value, over all keys."""
        found: Counter[tuple[str, str]] = Counter()
        for finding in get(self.socket, "/v1/drift", state=state, limit=1000).json["findings"]:
            found[finding["kind"], finding["value"]] += finding["resources"]
        return found


def fill_okta(server: OktaServer) -> Groups:
    """450 users and 260 groups, so that every list has several pages; among them those that tags name."""
    corp = Groups("corp")
    for i in range(450):
        status = "DEPROVISIONED" if i % 9 == 0 else "ACTIVE"
        uid = server.add_user(f"00u{i:017d}", f"user{i}@acme.example", status)
        if status == "ACTIVE":
            corp.active.add(uid)
    named = {
        "Team Payments": [1, 2, 3],
        "platform": range(10, 260),
        "data-eng": [0, 9, 18],  # all of them deactivated
        "ghosts": [],
        "Twins": [4],
        "TWINS": [5],
    }
    for number, (name, people) in enumerate([*named.items(), *((f"filler {i}", [i]) for i in range(250))]):
        gid = server.add_group(f"00g{number:017d}", name)
        users = [f"00u{i:017d}" for i in people]
        if users:
            server.add_member(gid, *users)
        corp.inside[name] = set(users)
    return corp


def fill_slapd(server: Slapd) -> Groups:
    """Groups in groups, in a circle too; names that Okta has as well."""
    people, groups = f"ou=people,{server.suffix}", f"ou=groups,{server.suffix}"
    posix = Groups("posix")
    for ou in (people, groups):
        server.add(ou, {"objectClass": ["organizationalUnit"]})
    for uid in ("ada", "bo", "chi"):
        server.add(
            f"uid={uid},{people}",
            {"objectClass": ["inetOrgPerson"], "cn": uid, "sn": uid, "mail": f"{uid}@acme.example"},
        )
        posix.active.add(uid)

    def group(name: str, *inside: str) -> None:
        member = [f"uid={m},{people}" if m in posix.active else f"cn={m},{groups}" for m in inside]
        server.add(f"cn={name},{groups}", {"objectClass": ["groupOfMembers"], **({"member": member} if member else {})})
        posix.inside[name] = set(inside)

    group("inner", "ada")
    group("nested", "middle")
    group("middle", "inner", "nested")
    group("platform", "bo")
    group("cloud-platform", "chi")
    group("ghosts")
    return posix


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with (
        OktaServer() as okta,
        Slapd() as slapd,
        moto_aws() as aws,
        aws_environment(),
        AwsFaults(aws.endpoint, "").running() as aws_api,
    ):
        estate = fill(aws, owners=OWNERS)
        document = {
            "daemon": {"state_directory": str(folder / "state")},
            "guard": {"max_removed": 1, "max_owner_changes": 1},
            "directories": [
                {
                    "name": "corp",
                    "connector": "okta",
                    "org_url": okta.url,
                    "token": {"file": str(folder / "token")},
                    "ca_file": okta.ca_file,
                },
                {
                    "name": "posix",
                    "connector": "ldap",
                    "url": slapd.url,
                    "bind_dn": slapd.bind_dn,
                    "password": {"file": str(folder / "password")},
                    "base": slapd.suffix,
                    "schema": "rfc2307bis",
                },
            ],
            "integrations": [
                {
                    "name": "aws",
                    "connector": "aws",
                    "regions": list(REGIONS),
                    "endpoint": aws_api.endpoint,
                    "resource_owner": [
                        {"key": "owner", "directory": "corp", "attribute": "group.name"},
                        {"key": "team", "directory": "posix", "attribute": "group.name"},
                    ],
                    "integration_owner": [
                        {"directory": "posix", "attribute": "group.name", "values": ["cloud-platform"]}
                    ],
                }
            ],
        }
        (folder / "token").write_text(okta.token)
        (folder / "password").write_text(slapd.password)
        config = folder / "ownerd.toml"
        config.write_text(toml(document))
        site = Site(
            okta, slapd, aws, estate, fill_okta(okta), fill_slapd(slapd), config, folder / "state" / "ownerd.sock"
        )
        with running("run", config, folder / "log") as daemon:
            wait_until_ready(site, daemon)
            yield site


def wait_until_ready(site: Site, daemon: Daemon) -> None:
    from tests.processes import answers

    def ready() -> bool:
        assert daemon.process.poll() is None, daemon.log.read_text()
        answer = answers(site.socket, "/readyz")
        return answer is not None and answer.status == 200

    until(ready)


def test_the_estate_is_as_large_as_it_must_be(site: Site) -> None:
    everything = len(site.estate.tagged) + len(site.estate.emptied) + len(site.estate.untagged)
    assert everything >= 300
    assert len(site.estate.services) >= 8
    assert {arn.split(":")[3] for arn in site.estate.tagged} >= set(REGIONS)
    assert any("after=" in path for _, path in site.okta.requests if path.startswith("/api/v1/users")), "paged"
    assert any("after=" in path for _, path in site.okta.requests if path.startswith("/api/v1/groups?")), "paged"


def test_every_resource_has_the_owner_that_the_rule_gives(site: Site) -> None:
    expected = site.expected()
    assert len(expected) >= 300
    assert set(expected.values()) == {
        "corp:Team Payments",
        "corp:platform",
        "posix:platform",
        "posix:nested",
        "group_empty",
        "value_unknown",
        "value_ambiguous",
        "tag_missing",
    }
    assert site.served() == expected


def test_a_membership_change_is_followed(site: Site) -> None:
    """In Okta a first active member, in LDAP the loss of the last one, three groups deep."""
    gid = next(g for g, name in ((f"00g{i:017d}", n) for i, n in enumerate(site.corp.inside)) if name == "data-eng")
    site.okta.add_member(gid, "00u00000000000000007")
    site.corp.inside["data-eng"].add("00u00000000000000007")
    site.slapd.modify(f"cn=inner,ou=groups,{site.slapd.suffix}", {"member": []})
    site.posix.inside["inner"].clear()
    site.sync("corp", "posix")
    expected = site.expected()
    assert "corp:data-eng" in expected.values()
    assert "posix:nested" not in expected.values()
    assert site.served() == expected
    site.slapd.modify(f"cn=inner,ou=groups,{site.slapd.suffix}", {"member": [f"uid=bo,ou=people,{site.slapd.suffix}"]})
    site.posix.inside["inner"].add("bo")
    site.sync("posix")
    assert site.served() == site.expected()


def test_a_tag_change_is_followed(site: Site) -> None:
    arn = next(a for a, t in site.estate.tagged.items() if t.get("owner") == "nobody-knows" and ":rds:" in a)
    client = site.aws.client("resourcegroupstaggingapi", arn.split(":")[3])
    client.tag_resources(ResourceARNList=[arn], Tags={"owner": "platform"})
    site.estate.tagged[arn]["owner"] = "platform"
    before = get(site.socket, "/v1/owner", resource=arn).json
    assert (before["fallback"], before["reason"]) == (True, "value_unknown")
    site.sync("aws")
    after = get(site.socket, "/v1/owner", resource=arn, expand="members").json
    assert [o["name"] for o in after["owners"]] == ["platform"]
    assert len(after["owners"][0]["members"]) == len(site.corp.inside["platform"] & site.corp.active)
    assert site.served() == site.expected()


def test_a_group_deleted_and_recreated(site: Site) -> None:
    """Its resources fall back and drift opens; with the group back, under another id, drift resolves."""
    concerned = [arn for arn, owner in site.expected().items() if owner == "corp:Team Payments"]
    assert len(concerned) > 20
    site.okta.delete_group("00g00000000000000000")
    del site.corp.inside["Team Payments"]
    site.sync("corp")
    assert site.served() == site.expected()
    drift = site.drift()
    assert drift["value_unknown", "Team Payments"] + drift["value_unknown", "team-payments"] == len(concerned)
    site.okta.add_group("00gRecreated00000000", "Team Payments")
    site.okta.add_member("00gRecreated00000000", "00u00000000000000001")
    site.corp.inside["Team Payments"] = {"00u00000000000000001"}
    site.sync("corp")
    assert site.served() == site.expected()
    assert ("value_unknown", "Team Payments") not in site.drift()
    assert ("value_unknown", "team-payments") in site.drift("resolved")
    changes: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        told = get(site.socket, "/v1/changes", limit=1000, **cursor).json
        changes += told["changes"]
        if told["next"] is None:
            break
        cursor = {"after": told["next"]}
    mine = [c for c in changes if c["resource"]["id"] == concerned[0]]
    assert mine[0]["kind"] == "added"
    assert [c["after"]["reason"] for c in mine[-2:]] == ["value_unknown", None]


def test_everything_down_still_answers(site: Site) -> None:
    """With a wrong credential in one place and nobody home in another, the answers stay, and status says why."""
    before = site.served()
    (site.config.parent / "token").write_text("00WrongToken")
    site.slapd.stop()
    try:
        done = ownerd("sync", "corp", "posix", "--config", str(site.config))
        assert done.returncode == 1
        assert site.served() == before
        status = {s["name"]: s for s in get(site.socket, "/v1/status").json["sources"]}
        assert status["corp"]["error"]["code"] == "unauthenticated"
        assert status["posix"]["error"]["code"] == "unreachable"
        for source in ("corp", "posix"):
            assert status[source]["state"] == "failed"
            assert status[source]["error"]["remedy"]
            assert status[source]["error"]["remedy"] in done.stderr
        assert "00WrongToken" not in done.stderr + (site.config.parent / "log").read_text()
        check = ownerd("check", "--config", str(site.config))
        assert check.returncode == 1
        assert {line.split("\t")[0] for line in check.stdout.splitlines() if line.split("\t")[1] == "corp"} == {
            "failed"
        }
    finally:
        site.slapd.start()
        (site.config.parent / "token").write_text(site.okta.token)
    site.sync()
    assert site.served() == site.expected()
