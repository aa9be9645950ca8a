"""Only what depends on a change is resolved again, and that is everything that must be.

A state machine changes resources, principals and rules at random and publishes each change, read whole or as what
changed; after each, the database must say what a fresh one says that was given the same at once.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from connectors.values import Bookmark, Change, Gone, Kind, Left, Members, Principal, Record, Ref, Resource
from tests.harness import CopyReader, World, configuration, copied_often, integration, owned_by

IDS = [f"r{i}" for i in range(6)]
NAMES = ["team-a", "Team A", "team b", "ops", "OPS", "platform"]
VALUES = [*NAMES, "ops,team b", "nobody", " ", "team_a", "u1@x.org", "Eng"]
GROUPS, USERS = [f"g{i}" for i in range(4)], [f"u{i}" for i in range(4)]

RULES: list[list[dict[str, Any]]] = [
    [owned_by()],
    [owned_by(split=",")],
    [owned_by(["team", "owner"], allowed=["team*", "g0"])],
    [owned_by("owner", "user.email"), owned_by("team", "group.name")],
    [owned_by("owner", "user.department"), owned_by("team", "manager.email")],
]

resources = st.dictionaries(
    st.sampled_from(IDS),
    st.tuples(
        st.dictionaries(st.sampled_from(["owner", "Owner", "team"]), st.sampled_from(VALUES), max_size=2),
        st.none() | st.sampled_from(IDS),
    ),
    max_size=6,
)
groups = st.dictionaries(
    st.sampled_from(GROUPS),
    st.tuples(st.sampled_from(NAMES), st.lists(st.sampled_from([*GROUPS, *USERS]), max_size=3, unique=True)),
    max_size=4,
)
users = st.dictionaries(
    st.sampled_from(USERS),
    st.tuples(st.booleans(), st.none() | st.sampled_from(USERS), st.sampled_from(["Eng", "eng", "Ops"])),
    max_size=4,
)


class Publishing(RuleBasedStateMachine):
    """What is now, and a database that followed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.resources: dict[str, dict[str, Any]] = {"a": {}, "b": {}}
        self.groups: dict[str, Any] = {}
        self.users: dict[str, Any] = {}
        self.owned: list[dict[str, Any]] = RULES[0]
        self.inherit = True
        self.told: dict[str, tuple[list[Record], str]] = {}

    @initialize()
    def begin(self) -> None:
        self.world = World(Path(self.folder.name, "followed"), self.document())
        self.copy = CopyReader(self.world.store.path)

    def document(self) -> dict[str, Any]:
        # A fresh database knows nothing of former names.
        integrations = (integration(name, *self.owned, inherit=self.inherit) for name in ("a", "b"))
        return configuration(*integrations, of_each={"rename_grace": 0})

    def records(self, source: str) -> list[Record]:
        if source != "corp":
            return [Resource(i, parent=parent, tags=tags) for i, (tags, parent) in self.resources[source].items()]
        found: list[Record] = []
        for i, (active, manager, department) in self.users.items():
            attributes: dict[str, str | list[str]] = {"department": department}
            found.append(Principal(Kind.USER, i, i, f"{i}@x.org", active, manager, attributes=attributes))
        for i, (name, inside) in self.groups.items():
            found.append(Principal(Kind.GROUP, i, name))
            refs = (Ref(Kind.GROUP if m in GROUPS else Kind.USER, m) for m in inside)
            found.append(Members(Ref(Kind.GROUP, i), tuple(refs)))
        return found

    def run(self, source: str, whole: bool) -> None:
        self.world.clock.now += 1
        now = self.records(source)
        before, mark = self.told.get(source, ([], None))
        told = now if whole or mark is None else list(changes(before, now))
        following = f"bookmark {self.world.runs}"
        report = self.world.run(
            source, *told, Bookmark(following), since=None if whole else mark, accept=True, base="options"
        )
        assert report.state == "ok"
        self.told[source] = (now, following)

    @rule(whole=st.booleans(), source=st.sampled_from("ab"), drawn=resources)
    def other_resources(self, whole: bool, source: str, drawn: dict[str, Any]) -> None:
        self.resources[source] = drawn
        self.run(source, whole)

    @rule(
        whole=st.booleans(),
        source=st.sampled_from("ab"),
        i=st.sampled_from(IDS),
        value=st.none() | st.sampled_from(VALUES),
    )
    def other_tag(self, whole: bool, source: str, i: str, value: str | None) -> None:
        tags, parent = self.resources[source].get(i, ({}, None))
        tags = {k: v for k, v in tags.items() if k != "owner"} | ({} if value is None else {"owner": value})
        self.resources[source] = {**self.resources[source], i: (tags, parent)}
        self.run(source, whole)

    @rule(
        whole=st.booleans(),
        source=st.sampled_from("ab"),
        i=st.sampled_from(IDS),
        parent=st.none() | st.sampled_from(IDS),
    )
    def other_parent(self, whole: bool, source: str, i: str, parent: str | None) -> None:
        tags, _ = self.resources[source].get(i, ({}, None))
        self.resources[source] = {**self.resources[source], i: (tags, parent)}
        self.run(source, whole)

    @rule(whole=st.booleans(), drawn=groups)
    def other_groups(self, whole: bool, drawn: dict[str, Any]) -> None:
        self.groups = drawn
        self.run("corp", whole)

    @rule(whole=st.booleans(), i=st.sampled_from(GROUPS), name=st.sampled_from(NAMES), inside=st.lists(st.sampled_from([*GROUPS, *USERS]), max_size=3, unique=True))  # fmt: skip
    def other_group(self, whole: bool, i: str, name: str, inside: list[str]) -> None:
        self.groups = {**self.groups, i: (name, inside)}
        self.run("corp", whole)

    @rule(whole=st.booleans(), drawn=users)
    def other_users(self, whole: bool, drawn: dict[str, Any]) -> None:
        self.users = drawn
        self.run("corp", whole)

    @rule(rules=st.sampled_from(RULES), inherit=st.booleans())
    def other_rules(self, rules: list[dict[str, Any]], inherit: bool) -> None:
        self.owned, self.inherit = rules, inherit
        self.world.configure(self.document())

    @invariant()
    def says_what_a_fresh_database_says(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fresh = World(Path(folder), self.document())
            for source in sorted(self.told, reverse=True):
                fresh.run(source, *self.records(source), accept=True)
            assert said(self.world) == said(fresh)
            fresh.close()

    @invariant()
    def the_copy_says_what_the_table_says(self) -> None:
        self.copy.look(*IDS)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.copy.close()
            self.world.close()
        self.folder.cleanup()


def changes(before: list[Record], now: list[Record]) -> Iterator[Change]:
    """What a source tells of the way from one list to the other."""
    things = (Resource, Principal)
    old, new = ({id_of(r): r for r in records if isinstance(r, things)} for records in (before, now))
    yield from (Gone(i) for i in old.keys() - new.keys())
    yield from (r for i, r in new.items() if old.get(i) != r)
    was, are = ({r.group: r.members for r in records if isinstance(r, Members)} for records in (before, now))
    for number, group in enumerate(sorted(was.keys() & are.keys())):
        if number % 2:  # some systems tell who left, and some the whole list anew
            yield Left(group, tuple(set(was[group]) - set(are[group])))
            yield Members(group, tuple(set(are[group]) - set(was[group])))
        elif set(was[group]) != set(are[group]):
            yield Left(group)
            yield Members(group, are[group])
    yield from (Members(group, are[group]) for group in are.keys() - was.keys())


def id_of(record: Resource | Principal) -> str | Ref:
    return record.id if isinstance(record, Resource) else record.ref


def said(world: World) -> dict[str, Any]:
    """All that is served, but for times."""
    rows = {}
    for source, key, waiting, body in world.query("SELECT s.name, a.key, a.waiting, a.body FROM answer a JOIN source s ON s.id = a.source_id"):  # fmt: skip
        row = json.loads(body + b"}")
        del row["changed_at"]
        row["owners"].sort(key=lambda o: str(o["id"]))
        rows[source, key] = (waiting, row)
    findings = world.query(
        "SELECT integration, kind, key, value, resources FROM finding WHERE resolved_at IS NULL ORDER BY 1, 2, 3, 4"
    )
    names = dict(world.query("SELECT id, name FROM source"))
    fresh = world.query(
        "SELECT a.key, a.source_id, f.directories FROM answer a JOIN freshness f ON f.id = a.freshness_id"
    )
    rests_on = {
        (key, names[source]): sorted(names[d] for d in json.loads(directories)) for key, source, directories in fresh
    }
    alive = world.query("SELECT pid, alive FROM principal ORDER BY pid")
    inside = world.query(
        "SELECT group_pid, member_pid FROM member WHERE member_pid IN (SELECT pid FROM principal) ORDER BY 1, 2"
    )
    return {"members": inside, "rows": rows, "findings": findings, "rests on": rests_on, "alive": alive}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    copied_often(monkeypatch)


TestPublishing = Publishing.TestCase
TestPublishing.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
