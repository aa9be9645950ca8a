"""The owner rule, as a table that reads like documentation, and as properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.values import Kind
from daemon.matching import canonical, resource_key
from daemon.rule import (
    Candidate,
    Owner,
    Reason,
    Rule,
    Verdict,
    claim_of,
    fitness,
    judge,
    judge_fallback,
    match,
    parts_of,
)


@dataclass
class People:
    """Directories in memory: per (kind, field), each value's principals."""

    everybody: Sequence[tuple[Candidate, Mapping[str, Sequence[str]]]]
    unread: frozenset[tuple[str, Kind]] = frozenset()
    asked: list[str] = field(default_factory=list)

    def synced(self, directory: str, kind: Kind) -> bool:
        return (directory, kind) not in self.unread

    def candidates(self, directory: str, kind: Kind, field: str, value: str) -> list[Candidate]:
        self.asked.append(value)
        return [
            Candidate(c.kind, c.id, c.name, c.active, c.alive, known, c.manager)
            for c, fields in self.everybody
            if c.kind == kind
            for known in fields.get(field, ())
            if canonical(known) == canonical(value)
        ]

    def user(self, directory: str, user_id: str) -> Candidate | None:
        return next((c for c, _ in self.everybody if (c.kind, c.id) == (Kind.USER, user_id)), None)


def person(
    i: str,
    kind: Kind = Kind.GROUP,
    *,
    name: str = "",
    active: bool = True,
    alive: bool = True,
    manager: str | None = None,
    **fields: Sequence[str],
) -> tuple[Candidate, Mapping[str, Sequence[str]]]:
    name = name or i
    return Candidate(kind, i, name, active, alive, "", manager), {"name": [name], "id": [i], **fields}


CAST = People(
    [
        person("g1", name="team-payments"),
        person("g2", name="Team Payments EU"),
        person("g3", name="Ops"),
        person("g4", name="OPS"),
        person("g5", name="ghosts", alive=False),
        person("g6", name="a,b"),
        person("g7", name="twin"),
        person("g8", name="twin"),
        person("g9", name="Größe"),
        person("u1", Kind.USER, name="Ada", email=["ada@x.org", "a.lovelace@x.org"], department=["Eng"], manager="u3"),
        person(
            "u2",
            Kind.USER,
            name="Bob",
            email=["bob@x.org"],
            department=["Eng"],
            active=False,
            alive=False,
            manager="u3",
        ),
        person("u3", Kind.USER, name="Cy", email=["cy@x.org"], department=["ENG"]),
        person("u4", Kind.USER, name="Dee", email=["dee@x.org"], department=["Old"], active=False, alive=False),
        person("r1", Kind.ROLE, name="admin"),
        person("s1", Kind.SCHEDULE, name="on call", alive=False),
    ]
)

OWNER = Rule(("owner",), "corp", "group.name")
SPLIT = Rule(("owner",), "corp", "group.name", split=",")
TEAMS = Rule(("owner",), "corp", "group.name", allowed=("team-*", "g2"))
MAIL = Rule(("owner",), "corp", "user.email")
DEPARTMENT = Rule(("owner",), "corp", "user.department")
MANAGER = Rule(("owner",), "corp", "manager.email")


# What the tags are, what the rules are, and who owns, or why nobody does.
CASES: list[tuple[str, dict[str, str], list[Rule], str]] = [
    # --- the key
    ("the tag names a group", {"owner": "team-payments"}, [OWNER], "team-payments"),
    ("no tag", {"other": "team-payments"}, [OWNER], "tag_missing"),
    ("a key equal but for case", {"OWNER": "team-payments"}, [OWNER], "team-payments"),
    (
        "an exact key wins over one equal but for case",
        {"OWNER": "Ops", "owner": "team-payments"},
        [OWNER],
        "team-payments",
    ),
    ("two such keys with different values", {"OWNER": "Ops", "Owner": "team-payments"}, [OWNER], "value_ambiguous"),
    ("two such keys with the same value", {"OWNER": "Ops", "Owner": "Ops"}, [OWNER], "Ops"),
    (
        "of several keys the first present",
        {"team": "Ops", "owner": "team-payments"},
        [Rule(("team", "owner"), "corp", "group.name")],
        "Ops",
    ),
    (
        "the first rule whose tag is present decides",
        {"mail": "ada@x.org", "owner": "nobody"},
        [OWNER, Rule(("mail",), "corp", "user.email")],
        "value_unknown",
    ),
    (
        "a rule whose tag is absent is passed over",
        {"mail": "ada@x.org"},
        [OWNER, Rule(("mail",), "corp", "user.email")],
        "Ada",
    ),
    # --- the value
    ("it is trimmed", {"owner": "  team-payments\t"}, [OWNER], "team-payments"),
    ("empty", {"owner": ""}, [OWNER], "tag_empty"),
    ("nothing but space", {"owner": " \n "}, [OWNER], "tag_empty"),
    ("several owners in one value", {"owner": "team-payments, Ops"}, [SPLIT], "team-payments+Ops"),
    ("the whole value is tried first", {"owner": "a,b"}, [SPLIT], "a,b"),
    ("each owner once", {"owner": "Ops,Ops, team-payments,,Ops"}, [SPLIT], "Ops+team-payments"),
    ("the parts that match own", {"owner": "nobody,Ops,ghosts"}, [SPLIT], "Ops"),
    ("no part matches", {"owner": "nobody,ghosts"}, [SPLIT], "value_unknown"),
    ("without split a separator is a character", {"owner": "team-payments,Ops"}, [OWNER], "value_unknown"),
    # --- the match
    ("canonical form: case and separators", {"owner": "TEAM_payments"}, [OWNER], "team-payments"),
    ("canonical form: a GCP label", {"owner": "team-payments-eu"}, [OWNER], "Team Payments EU"),
    ("canonical form: runs of separators are one", {"owner": "team -_- payments"}, [OWNER], "team-payments"),
    ("canonical form: compatibility characters", {"owner": "ｔｅａｍ－ｐａｙｍｅｎｔｓ"}, [OWNER], "team-payments"),
    ("canonical form: full case folding", {"owner": "GRÖSSE"}, [OWNER], "Größe"),
    ("a look-alike in another script is not the same", {"owner": "tеam-payments"}, [OWNER], "value_unknown"),
    ("a zero-width character is not nothing", {"owner": "team\u200b-payments"}, [OWNER], "value_unknown"),
    ("exact wins among those alike", {"owner": "OPS"}, [OWNER], "OPS"),
    ("alike, and none exact", {"owner": "ops"}, [OWNER], "value_ambiguous"),
    ("several exact", {"owner": "twin"}, [OWNER], "value_ambiguous"),
    ("nobody", {"owner": "team-payment"}, [OWNER], "value_unknown"),
    ("by id", {"owner": "g7"}, [Rule(("owner",), "corp", "group.id")], "twin"),
    ("by e-mail, in a label that cannot hold @", {"owner": "ada-x-org"}, [MAIL], "Ada"),
    ("by an e-mail alias", {"owner": "a.lovelace@x.org"}, [MAIL], "Ada"),
    ("a group is not a user", {"owner": "team-payments"}, [Rule(("owner",), "corp", "user.name")], "value_unknown"),
    ("a role", {"owner": "admin"}, [Rule(("owner",), "corp", "role.name")], "admin"),
    ("everybody who shares an attribute, if active", {"owner": "Eng"}, [DEPARTMENT], "Ada"),
    ("an attribute that is alike in two spellings", {"owner": "eng"}, [DEPARTMENT], "value_ambiguous"),
    ("the manager, for a user who is active or not", {"owner": "bob@x.org"}, [MANAGER], "Cy"),
    ("a user without a manager", {"owner": "cy@x.org"}, [MANAGER], "value_unknown"),
    # --- fit to own
    ("a deactivated user", {"owner": "bob@x.org"}, [MAIL], "principal_inactive"),
    ("nobody of a department is active", {"owner": "Old"}, [DEPARTMENT], "principal_inactive"),
    ("a group without active members", {"owner": "ghosts"}, [OWNER], "group_empty"),
    ("a gap in a schedule", {"owner": "on call"}, [Rule(("owner",), "corp", "schedule.name")], "group_empty"),
    ("allowed by a glob over the name", {"owner": "team-payments"}, [TEAMS], "team-payments"),
    ("allowed by id", {"owner": "Team Payments EU"}, [TEAMS], "Team Payments EU"),
    ("not allowed", {"owner": "Ops"}, [TEAMS], "owner_not_allowed"),
    (
        "globs are over the principal's name, not the tag's value",
        {"owner": "team-ops"},
        [Rule(("owner",), "corp", "group.name", allowed=("team-*",))],
        "value_unknown",
    ),
]


@pytest.mark.parametrize(("title", "tags", "rules", "expected"), CASES, ids=[c[0] for c in CASES])
def test_the_table(title: str, tags: dict[str, str], rules: list[Rule], expected: str) -> None:
    claim = claim_of(tags, rules)
    if claim is None:
        assert expected == "tag_missing"
        return
    verdict = judge(claim, rules[claim.rule], CAST)
    assert (verdict.reason or "+".join(o.name for o in verdict.owners)) == expected
    assert bool(verdict.owners) != bool(verdict.reason)


def test_the_parts_that_do_not_match_are_drift() -> None:
    """Beside owners too: each unusable part, with its own reason."""
    claim = claim_of({"owner": "nobody,Ops,ghosts"}, [SPLIT])
    assert claim
    assert judge(claim, SPLIT, CAST).findings == ((Reason.VALUE_UNKNOWN, "nobody"), (Reason.GROUP_EMPTY, "ghosts"))


def test_an_unread_directory_is_not_asked() -> None:
    """Unknown is not absent."""
    unread = People(CAST.everybody, frozenset({("corp", Kind.GROUP)}))
    claim = claim_of({"owner": "team-payments"}, [OWNER])
    assert claim
    assert judge(claim, OWNER, unread) == Verdict(reason=Reason.DIRECTORY_NEVER_SYNCED)
    assert unread.asked == []


def test_the_integration_owner_is_everybody_it_names() -> None:
    """Several rules and values add up; what names nobody is a finding; while one directory is unread nothing is known."""
    rules = [
        (Rule((), "corp", "group.name"), ("Ops", "nobody", "team-payments")),
        (Rule((), "corp", "user.email"), ("ada@x.org",)),
    ]
    verdict = judge_fallback(rules, CAST)
    assert [o.name for o in verdict.owners] == ["Ops", "team-payments", "Ada"]
    assert verdict.findings == ((Reason.VALUE_UNKNOWN, "nobody"),)
    unread = People(CAST.everybody, frozenset({("corp", Kind.USER)}))
    assert judge_fallback(rules, unread) == Verdict(reason=Reason.DIRECTORY_NEVER_SYNCED)


def test_a_principal_that_two_rules_name_owns_once() -> None:
    verdict = judge_fallback(
        [(Rule((), "corp", "group.name"), ("Ops",)), (Rule((), "corp", "group.id"), ("g3",))], CAST
    )
    assert verdict.owners == (Owner(Kind.GROUP, "corp", "g3", "Ops"),)


# --- properties ------------------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.one_of(text, st.sampled_from(["team-a", "Team A", "TEAM_A", "team.a", "ops", "Ops", "ﬁn", "fin", "", " "]))
groups = st.lists(st.tuples(names, st.booleans(), st.booleans()), max_size=6)
rules = st.builds(
    Rule,
    st.lists(st.sampled_from(["owner", "Owner", "team"]), min_size=1, max_size=2).map(tuple),
    st.just("corp"),
    st.sampled_from(["group.name", "group.id", "group.label"]),
    st.sampled_from([None, ",", "/", "-"]),
    st.sampled_from([None, ("*",), ("team*",), ("0", "Ops")]),
)
tags = st.dictionaries(st.sampled_from(["owner", "Owner", "OWNER", "team", "x"]), names, max_size=4)


def people(drawn: list[tuple[str, bool, bool]]) -> People:
    return People([person(str(i), name=n, active=a, alive=b, label=[n]) for i, (n, a, b) in enumerate(drawn)])


@given(text)
def test_canonical_form_is_stable(value: str) -> None:
    """It is a normal form: applied again it changes nothing; separators and outer space do not matter."""
    once = canonical(value)
    assert canonical(once) == once
    assert canonical(f" {value}\n") == once
    assert canonical(value.strip().replace("_", "-").replace(" ", ".")) == once


@given(tags, st.lists(rules, min_size=1, max_size=3), groups)
def test_whoever_owns_is_fit_to_own_and_named_by_the_tag(
    tags: dict[str, str], rules: list[Rule], drawn: list[tuple[str, bool, bool]]
) -> None:
    """No owner without a tag that names it, active, with active members, and allowed; and never two by one value of name or id."""
    cast = people(drawn)
    claim = claim_of(tags, rules)
    if claim is None:
        assert not {k.casefold() for k in tags} & {k.casefold() for r in rules for k in r.keys}
        return
    rule = rules[claim.rule]
    verdict = judge(claim, rule, cast)
    assert bool(verdict.owners) != bool(verdict.reason)
    said = {canonical(v) for v in (claim.value, *parts_of(claim.value.strip(), rule.split))}
    by_id = {c.id: (c, f) for c, f in cast.everybody}
    for owner in verdict.owners:
        candidate, fields = by_id[owner.id]
        assert fitness(candidate, rule.allowed) is None
        assert said & {canonical(v) for v in fields[rule.field]}
        assert not claim.ambiguous
    if rule.split is None and rule.field in {"name", "id"}:
        assert len(verdict.owners) <= 1


@given(tags, st.lists(rules, min_size=1, max_size=3), groups, st.randoms(use_true_random=False))
def test_order_does_not_matter(
    tags: dict[str, str], rules: list[Rule], drawn: list[tuple[str, bool, bool]], random: object
) -> None:
    """Neither the order of tags nor that of principals decides who owns."""
    claim = claim_of(tags, rules)
    assert claim_of(dict(reversed(tags.items())), rules) == claim
    if claim is None:
        return
    cast = people(drawn)
    turned = People(list(reversed(cast.everybody)))
    a, b = (judge(claim, rules[claim.rule], c) for c in (cast, turned))
    assert (set(a.owners), a.reason) == (set(b.owners), b.reason)


@given(names, groups)
def test_adding_a_stranger_changes_nothing(value: str, drawn: list[tuple[str, bool, bool]]) -> None:
    """A principal whose name is not alike bears on nobody else's resources."""
    stranger = ("\U0001f980stranger", True, True)
    claim = claim_of({"owner": value}, [OWNER])
    assert claim
    assert judge(claim, OWNER, people(drawn)) == judge(claim, OWNER, people([*drawn, stranger]))


@given(
    st.lists(st.tuples(st.sampled_from(["A", "a", "b"]), st.integers(0, 3)), max_size=6),
    st.sampled_from(["name", "department"]),
)
def test_a_match_is_exact_or_unambiguous(drawn: list[tuple[str, int]], field: str) -> None:
    """What is matched has the value exactly, or no candidate has and all are of one principal or one spelling."""
    candidates = [Candidate(Kind.GROUP, str(i), str(i), True, True, v) for v, i in drawn if v != "b"]
    found = match("a", candidates, field)
    exact = {c.id for c in candidates if c.matched == "a"}
    if isinstance(found, Reason):
        pool = exact or {c.id for c in candidates}
        assert (found is Reason.VALUE_UNKNOWN) == (not pool)
        return
    ids = {c.id for c in found}
    assert ids == (exact or {c.id for c in candidates})
    assert len(found) == len(ids)
    assert field != "name" or len(ids) == 1


@given(text)
def test_only_azure_ids_lose_their_case(value: str) -> None:
    assert resource_key(f"arn:{value}") == f"arn:{value}"
    assert resource_key(f"//x/{value}") == f"//x/{value}"
    assert resource_key(f"/subscriptions/{value}".upper()) == resource_key(f"/Subscriptions/{value.upper()}")
