"""Random edits of tags through the whole pipeline: nobody is in force whom a naive oracle would not put there.

Each example is a small world (a configuration, two directories, resources in two scopes) and a row of steps: tags are
written, changed and removed, people and groups come, go and are renamed, time passes, somebody confirms, reads fail or
come back empty, the configuration changes. After each, every answer in the database must be the oracle's, and, by a
second and simpler look, every principal in it must be one that may be.

`make properties` takes more than 10,000 edits, and says how many; `make test` some 1,000. An edit is one tag of one
resource, written or removed, and read (or meant to be: the read may fail).
"""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

from connectors.errors import Unreachable
from connectors.values import Change, Kind, Members, Principal, Ref, Resource, Shift
from tests.harness import CopyReader, World, configuration, copied_often
from tests.oracle import Answer, Oracle, alike, same_id, values_of

T = TypeVar("T")
ALL = os.environ.get("OWNERD_PROPERTIES") == "all"
SEED = int(os.environ.get("OWNERD_SEED", "0"))
EXAMPLES, STEPS = (560 if ALL else 60), 25
HOLD, GRACE = 1800.0, 3600.0

FAMILIES = [
    ["Team Payments", "team-payments", "TEAM_PAYMENTS", "Ｔｅａｍ Payments", "team  payments", " team.payments\t"],
    ["ops", "OPS", "оps", "ops\u200b", "ｏｐｓ", "ops\u202e"],
    ["Größe", "GRÖSSE", "größe", "gro\u0308ße", "GRO\u0308SSE"],
    ["支払い チーム", "支払い-チーム", "支払い・チーム", "ﾁｰﾑ", "チーム"],
    ["ops,Team Payments", "ops", "Team Payments", "ops, team-payments", "ops,,nobody"],
    ["'; DROP TABLE claim; --", "None", "%", "*", "[oO]ps", "-", "_"],
    ["ﬁnance", "finance", "FINANCE", "Finance\u00a0", "fınance"],
]
BLANK = ["", "  ", "\u3000", "\t\n"]
STRANGE = ["nobody", "\x00", "\x1b[31mops", "ops\nplatform", "ops\ud800", "platform", "Platform", "g1", "G1", "u1", "u1@x.org", "u2-x-org", "Eng", "eng", "ENG,ops", "primary", "PRIMARY", "r0", ",", "x" * 300]  # fmt: skip
KEYS = ["owner", "owner", "owner", "Owner", "OWNER", "team", "TEAM", "straße", "STRASSE", "ｏｗｎｅｒ", "own\u200ber"]
IDS = ["root", "a", "b", "a/1", "a/2", "b/1", "/subscriptions/S", "/subscriptions/S/resourceGroups/G"]
PARENTS = [None, "root", "a", "b", "a/1", "/SUBSCRIPTIONS/s", "/subscriptions/S/RESOURCEGROUPS/g", "nowhere"]
NEARLY: list[Callable[[str], str]] = [
    str.upper,
    str.lower,
    lambda text: f" {text}\n",
    lambda text: text.replace(" ", "_").replace("@", "-"),
    lambda text: unicodedata.normalize("NFKD", text),
    lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    lambda text: text.replace("o", "о").replace("a", "а"),
]
"""What may come to the same: case, space, separators, composition, full width; and what may not: another script."""
BELOW: dict[str, str | None] = {
    "root": None,
    "a": "root",
    "b": "root",
    "a/1": "a",
    "a/2": "a",
    "b/1": "b",
    IDS[6]: "root",
    IDS[7]: PARENTS[5],
}
GROUPS, USERS = [f"g{i}" for i in range(5)], [f"u{i}" for i in range(5)]


def owned(key: str | list[str], attribute: str = "group.name", directory: str = "corp", **more: Any) -> dict[str, Any]:
    return {"key": key, "directory": directory, "attribute": attribute, **more}


def stands_in(attribute: str, *values: str, directory: str = "corp") -> dict[str, Any]:
    return {"directory": directory, "attribute": attribute, "values": list(values)}


MAPPINGS: list[list[dict[str, Any]]] = [
    [owned("owner")],
    [owned(["owner", "team"], split=",", allowed=["team*", "[oG]*", "g1"])],
    [owned("Owner", "user.email", allowed=["u1", "Team*", "u2"]), owned("team", allowed=["*"])],
    [owned("owner", "user.department", split=","), owned("team", "manager.email", allowed=["u[0-2]", "o*"])],
    [owned("owner", "schedule.name", "duty"), owned("TEAM", split=" ", allowed=["g*", "ops"])],
    [owned("straße", "group.id"), owned(["team", "owner"], "role.name", allowed=["r0"]), owned("owner")],
    [owned("owner", "user.name", split=","), owned("team", "manager.department")],
]
FALLBACKS = [
    [stands_in("group.id", "platform")],
    [stands_in("group.name", "platform", "nobody"), stands_in("schedule.name", "Primary", directory="duty")],
    [stands_in("user.department", "Eng"), stands_in("manager.email", "u1@x.org")],
]

HOW_OFTEN = {
    "write_tags": 18,
    "later": 3,
    "other_parent": 1,
    "come_or_go": 1,
    "confirm": 1,
    "other_rules": 1,
    "other_group": 3,
    "other_user": 2,
    "other_platform": 1,
    "other_role": 1,
    "other_shift": 1,
    "error": 1,
    "nothing": 1,
}
"""The steps, methods of `Play`."""
SOURCES = ["corp", "duty", "cloud"]


class Dice(Random):
    """Draws what happens. Hypothesis draws only the seeds: left to itself it draws the same few things most often."""

    def some(self, things: Sequence[T], most: int) -> list[T]:
        return self.sample(things, self.randint(0, most))

    def maybe(self, chance: float) -> bool:
        return self.random() < chance

    def group(self, names: Sequence[str]) -> tuple[str, list[str]]:
        """A name, and members: `u9` is nobody."""
        return self.choice(names), self.some([*GROUPS, *USERS, "u9"], 3)

    def user(self, i: str, names: Sequence[str]) -> Principal:
        name = i if self.maybe(0.5) else self.choice(names)
        manager = self.choice([None, "u9", *USERS])
        aliases = (f"{i}.x@org", "u1-x.org") if self.maybe(0.2) else ()
        department = self.choice(["Eng", "eng", "Ops", *names])
        attributes: dict[str, str | list[str]] = {"department": [department, "Ops"] if self.maybe(0.3) else department}
        return Principal(Kind.USER, i, name, f"{i}@x.org", self.maybe(0.7), manager, aliases, attributes)


class Play:
    """One world: what is out there, the pipeline that reads it, and the oracle that is told the same."""

    def __init__(self, folder: Path, number: int, seen: Counter[str]) -> None:
        self.seen = seen
        self.number = number
        dice = Dice(number)
        self.names = [name for family in dice.sample(FAMILIES, dice.choice([1, 2])) for name in family]
        self.groups = {i: dice.group(self.names) for i in GROUPS}
        self.users = {i: dice.user(i, self.names) for i in USERS}
        self.standing_by = ["u0", "u1"]
        self.role = (self.names[0], ["g1", "u2"])
        self.on_call: list[Shift] = []
        self.parents = {i: dice.choice(PARENTS) if dice.maybe(0.3) else above for i, above in BELOW.items()}
        self.there = set(IDS[:6])
        self.hold, self.grace = dice.choice([0.0, HOLD, HOLD]), dice.choice([0.0, GRACE])
        self.world = World(folder, self.document(dice.choice(MAPPINGS), dice.choice(FALLBACKS), dice.maybe(0.8)))
        self.oracle = Oracle({"corp": self.grace, "duty": self.grace}, hold=self.hold, now=self.world.clock.now)
        self.oracle.configure(self.integration)
        self.tags: dict[str, dict[str, str]] = {i: {} for i in IDS}
        for i in dice.sample(IDS, 4):
            self.tags[i].update([self.tag(dice)])
        self.log: list[str] = []
        self.copy = CopyReader(self.world.store.path)
        for source in dice.sample(SOURCES, 3):
            self.read(source)
            self.check()

    def document(self, mappings: list[dict[str, Any]], fallback: list[dict[str, Any]], inherit: bool) -> dict[str, Any]:
        self.mappings = mappings
        self.integration = {
            "name": "cloud",
            "resource_owner": mappings,
            "integration_owner": fallback,
            "inherit": inherit,
            "hold_owner_changes": self.hold,
        }
        # Only what empties a scope is held here: the shares of the guard have tests of their own.
        of_each = {"rename_grace": self.grace, "max_removed": 1}
        return configuration(self.integration, directories=("corp", "duty"), of_each=of_each)

    # --- what is out there --------------------------------------------------------------------------------------------

    def tag(self, dice: Dice) -> tuple[str, str]:
        """A key and a value that belong together, or nearly."""
        mapping = dice.choice(self.mappings)
        key: str | list[str] = mapping["key"]
        own = key if isinstance(key, str) else dice.choice(key)
        return (dice.choice(KEYS) if dice.maybe(0.25) else own), self.value(mapping, dice)

    def value(self, mapping: dict[str, Any], dice: Dice) -> str:
        """Of somebody whom the mapping could mean, as it is or nearly; several; or something else."""
        if dice.maybe(0.2 if "split" in mapping else 0.02):
            return dice.choice([",", ", ", " ", ",,"]).join(self.value(mapping, dice) for _ in range(2))
        if dice.maybe(0.2):
            return dice.choice([*self.names, *STRANGE, *BLANK])
        kind, _, what = mapping["attribute"].partition(".")
        everybody = self.people(mapping["directory"])
        known = [v for p in everybody if p.kind == {"manager": "user"}.get(kind, kind) for v in values_of(p, what)]
        value = dice.choice(known or STRANGE)
        return dice.choice(NEARLY)(value) if dice.maybe(0.3) else value

    def scope(self, resource: str) -> str:
        return "west" if resource[0] in "/b" else "east"

    def resources(self, scope: str) -> list[Resource]:
        wanted = [i for i in IDS if i in self.there and self.scope(i) == scope]
        return [Resource(i, parent=self.parents[i], tags=dict(self.tags[i])) for i in wanted]

    def people(self, directory: str) -> list[Principal]:
        if directory == "duty":
            users = [Principal(Kind.USER, i, self.names[0]) for i in ("d0", "d1")]
            return [Principal(Kind.SCHEDULE, "s0", "Primary"), Principal(Kind.SCHEDULE, "s1", self.names[1]), *users]
        found = [Principal(Kind.GROUP, "platform", "platform"), Principal(Kind.ROLE, "r0", self.role[0])]
        found += [Principal(Kind.GROUP, i, name) for i, (name, _) in self.groups.items()]
        found += self.users.values()
        return found

    def members(self, directory: str) -> dict[Ref, list[Ref]]:
        if directory == "duty":
            return {}
        inside = {Ref(Kind.GROUP, i): [_ref(m) for m in who] for i, (_, who) in self.groups.items()}
        role = {Ref(Kind.ROLE, "r0"): [_ref(m) for m in self.role[1]]}
        return inside | role | {Ref(Kind.GROUP, "platform"): [_ref(m) for m in self.standing_by]}

    # --- reading it ---------------------------------------------------------------------------------------------------

    def read(self, source: str, *, failing: str | None = None, nothing: bool = False) -> None:
        """Read a source; `failing` is a scope that fails. What would empty a scope is held, and changes nothing."""
        if source == "cloud":
            self.read_cloud(failing, nothing=nothing)
            return
        people = [] if nothing else self.people(source)
        members = {} if nothing else self.members(source)
        shifts = [] if nothing or source == "corp" else self.on_call
        told = self.oracle.directories[source]
        if failing:
            self.world.run_scopes(source, {"all": Unreachable("down")})
            return
        records: list[Change] = [*people, *(Members(g, tuple(refs)) for g, refs in members.items()), *shifts]
        report = self.world.run(source, *records)
        held = bool(told.people) and not {p.ref for p in people} & told.people.keys()
        before, after = ({(g, m) for g, refs in each.items() for m in refs} for each in (told.members, members))
        held |= len(before) >= 10 and not before & after
        assert report.state == ("held" if held else "ok"), (report, held)
        self.seen["held"] += held
        if not held:
            told.tell(people, members, shifts, self.world.clock.now)

    def read_cloud(self, failing: str | None, *, nothing: bool) -> None:
        scopes: dict[str, list[Resource]] = {s: [] if nothing else self.resources(s) for s in ("east", "west")}
        fails = {s for s in scopes if failing in {s, "all"}}
        report = self.world.run_scopes(
            "cloud", {s: Unreachable("down") if s in fails else r for s, r in scopes.items()}
        )
        now: list[Resource] = []
        for scope, found in scopes.items():
            before = [r for r in self.oracle.resources.values() if self.scope(r.id) == scope]
            held = scope not in fails and bool(before) and not {r.id for r in before} & {r.id for r in found}
            assert held == (scope in {h.subject for h in report.held}), report
            self.seen["held"] += held
            self.seen["failed"] += scope in fails
            now += before if held or scope in fails else found
        self.oracle.read(now)

    # --- the steps ----------------------------------------------------------------------------------------------------

    def step(self, number: int, seed: int) -> None:
        """One thing happens, drawn by the seed; at 0 nothing does: that is how hypothesis makes a failure short."""
        if not seed:
            return
        dice = Dice(f"{self.number} {number} {seed}")
        what = dice.choices(list(HOW_OFTEN), list(HOW_OFTEN.values()))[0]
        self.seen["steps"] += 1
        getattr(self, what)(dice)
        self.check()

    def did(self, *what: object) -> None:
        self.log.append(" ".join(map(repr, what)))

    def write_tags(self, dice: Dice) -> None:
        for _ in range(dice.choice([1, 1, 2, 2, 3, 4])):
            i, (key, value) = dice.choice(IDS), self.tag(dice)
            self.seen["edits"] += 1
            if dice.maybe(0.2):
                self.tags[i].pop(dice.choice([*self.tags[i], key]), None)
            else:
                self.tags[i][key] = value
            self.did("tags of", i, self.tags[i])
        failing = dice.choice(["east", "west"]) if dice.maybe(0.15) else None
        self.did("read", failing)
        self.read("cloud", failing=failing)

    def other_parent(self, dice: Dice) -> None:
        i, parent = dice.choice(IDS), dice.choice(PARENTS)
        self.parents[i] = None if parent == i else parent
        self.did("parent", i, parent)
        self.read("cloud")

    def come_or_go(self, dice: Dice) -> None:
        i = dice.choice(IDS)
        self.there ^= {i}
        self.did("there", sorted(self.there))
        self.read("cloud")

    def other_group(self, dice: Dice) -> None:
        i = dice.choice(GROUPS)
        it = dice.group(self.names)
        other = dice.choice(GROUPS)
        if {i, other} <= self.groups.keys() and dice.maybe(
            0.4
        ):  # two that swap their names: who was called so is not who is
            (name, inside), (name_of_other, inside_other) = self.groups[i], self.groups[other]
            self.groups[other] = (name, inside_other)
            it = (name_of_other, inside)
        if self.groups.pop(i, None) is None or dice.maybe(0.8):
            self.groups[i] = it
        self.did("groups", self.groups)
        self.read("corp")

    def other_user(self, dice: Dice) -> None:
        i = dice.choice(USERS)
        it = dice.user(i, self.names)
        if self.users.pop(i, None) is None or dice.maybe(0.8):
            self.users[i] = it
        self.did("user", self.users.get(i))
        self.read("corp")

    def other_platform(self, dice: Dice) -> None:
        self.standing_by = dice.some(USERS, 2)
        self.did("platform", self.standing_by)
        self.read("corp")

    def other_role(self, dice: Dice) -> None:
        self.role = (dice.choice(self.names), dice.some([*GROUPS, *USERS], 2))
        self.did("role", self.role)
        self.read("corp")

    def other_shift(self, dice: Dice) -> None:
        schedule, who = Ref(Kind.SCHEDULE, dice.choice(["s0", "s1"])), dice.choice(["d0", "d1", "d9"])
        start = self.world.clock.now + dice.randint(-2, 3) * 1000
        self.on_call = [s for s in self.on_call if s.schedule != schedule]
        self.on_call.append(Shift(schedule, Ref(Kind.USER, who), start, start + 2500))
        self.did("on call", self.on_call)
        self.read("duty")

    def error(self, dice: Dice) -> None:
        source = dice.choice(SOURCES)
        self.did("error", source)
        self.read(source, failing="all")

    def nothing(self, dice: Dice) -> None:
        source = dice.choice(SOURCES)
        self.did("an empty answer", source)
        self.read(source, nothing=True)

    def later(self, dice: Dice) -> None:
        seconds = dice.choice([1.0, 600.0, HOLD - 1, HOLD, GRACE, 86400.0])
        self.did("later", seconds)
        self.world.clock.now += seconds
        self.world.store.turn()
        self.oracle.pass_time(seconds)

    def confirm(self, dice: Dice) -> None:
        i = dice.choice([None, *IDS])
        self.did("confirm", i)
        self.world.store.confirm("cloud", None if i is None else [same_id(i)])
        self.oracle.confirm(i)

    def other_rules(self, dice: Dice) -> None:
        self.world.configure(self.document(dice.choice(MAPPINGS), dice.choice(FALLBACKS), dice.maybe(0.8)))
        self.did("rules", self.integration)
        self.oracle.configure(self.integration)

    # --- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        self.seen["copied"] += len(self.copy.look(*IDS))
        answers = self.world.answers()
        assert answers.keys() == {r.id for r in self.oracle.resources.values()}
        for i, row in answers.items():
            owners = frozenset((o["directory"], o["kind"], o["id"], o["name"]) for o in row["owners"])
            assert len(owners) == len(row["owners"])
            tag = row["tag"] and row["tag"]["resource"] and same_id(row["tag"]["resource"])
            said = Answer(owners, row["source"], row["fallback"], row["reason"], tag, "pending" in row)
            assert said == self.oracle.answer(i), i
            for owner in owners:
                assert self.may_be(i, owner, said), (i, owner)
            self.seen.update(("answers", said.source, str(said.reason)))
            self.seen["pending"] += said.waits
            self.seen["nobody"] += said.fallback and not owners
            self.seen["several"] += len(owners) > 1

    def may_be(self, resource: str, owner: tuple[str, str, str, str], said: Answer) -> bool:
        """A second look, without keys, order and exactness: whoever owns stands in, or a tag at hand is alike to him.

        At hand are the tags of the resource and of what is above it, and, while another waits, the one in force.
        """
        if said.fallback:
            return owner in self.oracle.integration_owners()
        key = same_id(resource)
        texts = {v for k in self.oracle.chain(key) for v in self.oracle.resources[k].tags.values()}
        if said.waits and (before := self.oracle.in_force[key]):
            texts.add(before.value)
        for mapping in self.oracle.mappings:
            told = self.oracle.directories[mapping["directory"]]
            who = told.people.get(Ref(Kind(owner[1]), owner[2]))
            if mapping["directory"] != owner[0] or who is None or self.oracle.unfit(who, mapping):
                continue
            kind, _, what = mapping["attribute"].partition(".")
            named = [p for p in told.people.values() if p.manager == who.id] if kind == "manager" else [who]
            known = {v for p in named for v in values_of(p, what)}
            known |= {v for (ref, w, v) in told.former if w == what and ref in {p.ref for p in named}}
            parts = {p for t in texts for p in (t, *(t.split(mapping["split"]) if "split" in mapping else ()))}
            if {alike(v) for v in known} & {alike(p) for p in parts}:
                return True
        return False


def _ref(member: str) -> Ref:
    return Ref(Kind.GROUP if member[0] == "g" else Kind.USER, member)


def plays() -> Generator[Path, None, None]:
    """A folder for each, in memory where there is such a place: what a disk does is not in question here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        for number in range(1_000_000):
            path = Path(folder, str(number))
            path.mkdir()
            yield path


def test_nobody_is_in_force_whom_the_contract_would_not_put_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written, in whatever order: each answer is the oracle's, from the table and from its copy.

    And each kind of answer has been seen.
    """
    copied_often(monkeypatch)
    seen: Counter[str] = Counter()
    folders = plays()

    @seed(SEED)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(1, 2**32), st.lists(st.integers(0, 2**16), min_size=STEPS, max_size=STEPS))
    def play(world: int, steps: list[int]) -> None:
        it = Play(next(folders), world, seen)
        try:
            for number, step in enumerate(steps):
                it.step(number, step)
        finally:
            for line in it.log:
                note(line)
            it.copy.close()
            it.world.close()

    try:
        play()
    finally:
        folders.close()
    print(f"\n{seen['edits']} edits of tags among {seen['steps']} steps; {seen['answers']} answers compared:")
    print(", ".join(f"{what} {number}" for what, number in sorted(seen.items())))
    assert seen["edits"] >= (10_000 if ALL else 1_000)
    reasons = {"tag_missing", "tag_empty", "value_unknown", "value_ambiguous", "principal_inactive", "group_empty", "owner_not_allowed", "directory_never_synced"}  # fmt: skip
    kinds = {"tag", "inherited", "integration", "pending", "nobody", "several", "held", "failed", "copied"}
    assert not [what for what in sorted(reasons | kinds) if seen[what] == 0]
