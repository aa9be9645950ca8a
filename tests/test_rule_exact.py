"""The owner rule to the letter: what `test_rule.py`'s table leaves open. Each is here since a mutant lived without it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from connectors.values import Kind
from daemon.rule import (
    GROUP_RENAMED,
    OWNERLESS,
    UNIQUE_FIELDS,
    Candidate,
    Claim,
    Finding,
    Owner,
    Reason,
    Rule,
    Verdict,
    claim_of,
    fitness,
    judge,
    match,
    name_principals,
    parts_of,
)

OWNER = Rule(("owner",), "corp", "group.name")
SPLIT = Rule(("owner",), "corp", "group.name", split=",")


def candidate(i: str, matched: str = "", kind: Kind = Kind.GROUP, *, active: bool = True, alive: bool = True, former: bool = False, name: str = "", manager: str | None = None) -> Candidate:  # fmt: skip
    return Candidate(kind, i, name or i, active, alive, matched or i, manager, former)


class Told:
    """A directory that names the same candidates whatever it is asked, and remembers what it was."""

    def __init__(self, *candidates: Candidate, users: Sequence[Candidate] = ()) -> None:
        self._candidates = candidates
        self._users = {u.id: u for u in users}
        self.asked: list[tuple[str, Kind, str, str]] = []
        self.asked_users: list[str] = []

    def synced(self, directory: str, kind: Kind) -> bool:
        return True

    def candidates(self, directory: str, kind: Kind, field: str, value: str) -> Sequence[Candidate]:
        self.asked.append((directory, kind, field, value))
        return [c for c in self._candidates if c.matched.casefold() == value.casefold()]

    def user(self, directory: str, user_id: str) -> Candidate | None:
        self.asked_users.append(user_id)
        return self._users.get(user_id)


def ids(found: Sequence[Candidate] | Reason) -> list[str]:
    assert not isinstance(found, Reason), found
    return [c.id for c in found]


def judged(value: str, rule: Rule, *candidates: Candidate) -> Verdict:
    return judge(Claim(0, "owner", value), rule, Told(*candidates))


def test_the_words_of_the_contract() -> None:
    """Reasons and findings are read by other programs."""
    assert [str(r) for r in Reason] == [
        "tag_missing",
        "tag_empty",
        "value_unknown",
        "value_ambiguous",
        "principal_inactive",
        "group_empty",
        "owner_not_allowed",
        "directory_never_synced",
    ]
    assert (OWNERLESS, GROUP_RENAMED) == ("integration_owner_unknown", "group_renamed")


def test_the_defaults_claim_nothing() -> None:
    """What is not said of a candidate, a claim or a verdict is not so."""
    assert Claim(0, "k", "v").ambiguous is False
    told = Candidate(Kind.GROUP, "g", "G", active=True, alive=True, matched="g")
    assert (told.manager, told.former) == (None, False)
    assert told.former is False
    assert (Verdict().owners, Verdict().reason, Verdict().findings) == ((), None, ())
    assert (OWNER.split, OWNER.allowed) == (None, None)


def test_an_attribute_is_split_at_its_first_dot() -> None:
    """A directory may name its attributes as it likes."""
    rule = Rule((), "corp", "user.work.city")
    assert (rule.kind, rule.field, rule.by_manager) == (Kind.USER, "work.city", False)
    assert isinstance(rule.kind, Kind)
    managers = Rule((), "corp", "manager.email")
    assert (managers.kind, managers.field, managers.by_manager) == (Kind.USER, "email", True)
    assert isinstance(managers.kind, Kind)
    with pytest.raises(ValueError, match="team"):
        _ = Rule((), "corp", "team.name").kind


# --- the key ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "tag"), [("STRASSE", "straße"), ("straße", "STRASSE"), ("Owner", "oWNER"), ("ΣΑΣ", "σας")]
)
def test_case_is_folded_on_both_sides(key: str, tag: str) -> None:
    """As Unicode folds it, not only letter by letter."""
    assert claim_of({tag: "v"}, [Rule((key,), "corp", "group.name")]) == Claim(0, tag, "v")


def test_keys_are_compared_without_case_and_nothing_more() -> None:
    """A key is no value: separators, width and spaces count."""
    tags = {"own-er": "a", "own er": "a", " own_er": "a", "ｏｗｎ＿ｅｒ": "a"}
    assert claim_of(tags, [Rule(("own_er",), "corp", "group.name")]) is None


def test_two_keys_with_one_value_are_told_by_the_first() -> None:
    """Always the same one, whatever the order of the tags."""
    for tags in ({"OWNER": "v", "Owner": "v"}, {"Owner": "v", "OWNER": "v"}):
        assert claim_of(tags, [OWNER]) == Claim(0, "OWNER", "v")


def test_what_is_ambiguous_is_told_whole() -> None:
    """All values, once each and in order, under the key that was asked for."""
    tags = {"Owner": "b", "OWNER": "a", "owneR": "b"}
    claim = claim_of(tags, [Rule(("none",), "corp", "group.name"), OWNER])
    assert claim == Claim(1, "owner", "a | b", ambiguous=True)
    found = judge(claim, OWNER, Told(candidate("a | b")))
    assert found == Verdict((), Reason.VALUE_AMBIGUOUS, (Finding(Reason.VALUE_AMBIGUOUS, "a | b"),))


# --- the value --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["ops ", " ops", "\tops\n", "\u3000ops\u00a0"])
def test_both_ends_are_trimmed(value: str) -> None:
    """Of a whole value; what is asked for, and told, has no space around it."""
    told = Told()
    assert judge(Claim(0, "owner", value), OWNER, told).findings == (Finding(Reason.VALUE_UNKNOWN, "ops"),)
    assert told.asked == [("corp", Kind.GROUP, "name", "ops")]


def test_an_empty_tag_is_found_empty() -> None:
    assert judged(" ", OWNER) == Verdict((), Reason.TAG_EMPTY, (Finding(Reason.TAG_EMPTY, ""),))


def test_an_unread_directory_is_no_finding() -> None:
    """Nobody can correct it at the tag."""

    class Unread(Told):
        def synced(self, directory: str, kind: Kind) -> bool:
            assert (directory, kind) == ("corp", Kind.GROUP)
            return False

    assert judge(Claim(0, "owner", "ops"), OWNER, Unread()) == Verdict((), Reason.DIRECTORY_NEVER_SYNCED, ())


def test_parts() -> None:
    """Each once, trimmed on both sides, in order; without a separator there are none."""
    assert list(parts_of(" a , b,a,, ,c ", ",")) == ["a", "b", "c"]
    assert list(parts_of(" a b ", None)) == [" a b "]
    assert list(parts_of(",,", ",")) == []
    assert list(parts_of("a--b-c", "--")) == ["a", "b-c"]


def test_a_value_of_separators_only_is_unknown() -> None:
    """It has no parts that could be."""
    assert judged(",,", SPLIT) == Verdict((), Reason.VALUE_UNKNOWN, (Finding(Reason.VALUE_UNKNOWN, ",,"),))


@pytest.mark.parametrize("rule", [OWNER, SPLIT])
def test_a_value_without_parts_is_looked_up_once(rule: Rule) -> None:
    """Its only part is itself."""
    told = Told()
    judge(Claim(0, "owner", "ops"), rule, told)
    assert [value for *_, value in told.asked] == ["ops"]


def test_the_whole_value_decides_whatever_it_says() -> None:
    """A group named with the separator that may not own is not taken apart to find some that may."""
    found = judged("a,b", SPLIT, candidate("a,b", alive=False), candidate("a"), candidate("b"))
    assert found == Verdict((), Reason.GROUP_EMPTY, (Finding(Reason.GROUP_EMPTY, "a,b"),))


def test_parts_own_together_and_each_once() -> None:
    """In their order, beside the findings of the others in theirs."""
    found = judged("B,x,a,b,e", SPLIT, candidate("a"), candidate("b"), candidate("e", active=False))
    assert found == Verdict(
        (Owner(Kind.GROUP, "corp", "b", "b"), Owner(Kind.GROUP, "corp", "a", "a")),
        None,
        (Finding(Reason.VALUE_UNKNOWN, "x"), Finding(Reason.PRINCIPAL_INACTIVE, "e")),
    )


def test_of_parts_that_cannot_own_the_first_gives_the_reason() -> None:
    found = judged("e,x", SPLIT, candidate("e", active=False))
    assert found.reason is Reason.PRINCIPAL_INACTIVE
    assert judged("x,e", SPLIT, candidate("e", active=False)).reason is Reason.VALUE_UNKNOWN


# --- the match --------------------------------------------------------------------------------------------------------


def test_which_fields_name_one_principal() -> None:
    """Two who share a name, an id or an address are ambiguous; two who share a department own together."""
    assert set(UNIQUE_FIELDS) == {"name", "id", "email"}
    both = [candidate("1", "x"), candidate("2", "x")]
    for field in ("name", "id", "email"):
        assert match("x", both, field) is Reason.VALUE_AMBIGUOUS
    assert list(match("x", both, "department")) == both


def test_one_id_of_two_kinds_is_two_principals() -> None:
    both = [candidate("1", "x"), candidate("1", "x", Kind.USER)]
    assert match("x", both, "name") is Reason.VALUE_AMBIGUOUS


def test_one_principal_with_two_values_alike_is_one() -> None:
    """An address and its alias may differ by case only."""
    assert ids(match("X", [candidate("1", "x"), candidate("1", "x~")], "email")) == ["1"]


def test_one_spelling_that_many_share_is_not_ambiguous() -> None:
    """Though the tag spells it otherwise; two spellings are."""
    assert ids(match("ENG", [candidate("1", "eng"), candidate("2", "eng")], "department")) == ["1", "2"]
    assert match("ENG", [candidate("1", "eng"), candidate("2", "Eng")], "department") is Reason.VALUE_AMBIGUOUS
    assert ids(match("Eng", [candidate("1", "eng"), candidate("2", "Eng")], "department")) == ["2"]


def test_a_former_name_counts_where_nobody_has_it_now() -> None:
    """Even one who has it now in another spelling comes first; two who had it are ambiguous."""
    was, now = candidate("1", "ops", former=True), candidate("2", "Ops")
    assert ids(match("ops", [was], "name")) == ["1"]
    assert ids(match("ops", [was, now], "name")) == ["2"]
    assert ids(match("ops", [now, was], "name")) == ["2"]
    assert match("ops", [was, candidate("3", "ops", former=True)], "name") is Reason.VALUE_AMBIGUOUS


def test_who_owns_by_a_former_name_is_told() -> None:
    """As a finding beside the owner, and beside the reason why he may not."""
    by_former = Finding(GROUP_RENAMED, "ops")
    assert judged("ops", OWNER, candidate("1", "ops", former=True)) == Verdict(
        (Owner(Kind.GROUP, "corp", "1", "1"),), None, (by_former,)
    )
    assert judged("ops", OWNER, candidate("1", "ops", former=True, alive=False)) == Verdict(
        (), Reason.GROUP_EMPTY, (Finding(Reason.GROUP_EMPTY, "ops"), by_former)
    )
    assert judged("ops", OWNER, candidate("1", "ops")).findings == ()


# --- managers ---------------------------------------------------------------------------------------------------------


def test_a_manager_owns_by_his_own_fitness() -> None:
    """Whoever reports to him may be gone; he may not, and is named by his own id."""
    rule = Rule(("owner",), "corp", "manager.name", allowed=("boss-*",))
    report = candidate("u1", "ada", Kind.USER, active=False, alive=False, manager="u9")
    for manager, reason in (
        (candidate("u9", kind=Kind.USER, name="boss-1"), None),
        (candidate("u9", kind=Kind.USER, name="boss-1", active=False), Reason.PRINCIPAL_INACTIVE),
        (candidate("u9", kind=Kind.USER, name="other"), Reason.OWNER_NOT_ALLOWED),
    ):
        found = name_principals("ada", rule, Told(report, users=[manager]))
        assert found.reason is reason
        assert found.owners == (() if reason else (Owner(Kind.USER, "corp", "u9", "boss-1"),))


def test_who_has_no_manager_has_none_that_is_asked_for() -> None:
    """Not even one whose id is the text that stands for nothing; and one that the directory lacks is none."""
    rule = Rule(("owner",), "corp", "manager.department")
    told = Told(
        candidate("u1", "eng", Kind.USER),
        candidate("u2", "eng", Kind.USER, manager="gone"),
        candidate("u3", "eng", Kind.USER, manager="u9"),
        users=[candidate("u9", kind=Kind.USER), candidate("None", kind=Kind.USER)],
    )
    assert name_principals("eng", rule, told) == Verdict((Owner(Kind.USER, "corp", "u9", "u9"),), None, ())
    assert told.asked_users == ["gone", "u9"]
    nobody = Told(candidate("u2", "eng", Kind.USER, manager="gone"))
    unknown = Verdict((), Reason.VALUE_UNKNOWN, (Finding(Reason.VALUE_UNKNOWN, "eng"),))
    assert name_principals("eng", rule, nobody) == unknown


# --- fitness ----------------------------------------------------------------------------------------------------------


def test_of_several_who_may_not_own_the_reason_of_who_came_furthest_is_told() -> None:
    """Deactivated, then without members, then not allowed; and one who may own is enough."""
    label = Rule(("owner",), "corp", "group.label", allowed=("ok",))
    inactive, empty = candidate("1", "x", active=False, alive=False), candidate("2", "x", alive=False)
    stranger, fine = candidate("3", "x"), candidate("ok", "x")
    assert judged("x", label, inactive, empty).reason is Reason.GROUP_EMPTY
    assert judged("x", label, empty, inactive).reason is Reason.GROUP_EMPTY
    assert judged("x", label, inactive, stranger, empty).reason is Reason.OWNER_NOT_ALLOWED
    assert judged("x", label, inactive, stranger, empty).findings == (Finding(Reason.OWNER_NOT_ALLOWED, "x"),)
    assert judged("x", label, inactive, fine, stranger) == Verdict((Owner(Kind.GROUP, "corp", "ok", "ok"),), None, ())


@pytest.mark.parametrize(
    ("allowed", "reason"),
    [
        (None, None),
        ((), Reason.OWNER_NOT_ALLOWED),
        (("x", "team-*"), None),
        (("TEAM-*",), Reason.OWNER_NOT_ALLOWED),
        (("team",), Reason.OWNER_NOT_ALLOWED),
        (("*-pay",), None),
        (("?eam-pay",), None),
        (("[st]eam-pay",), None),
        (("g7",), None),
        (("g*",), Reason.OWNER_NOT_ALLOWED),
        (("G7",), Reason.OWNER_NOT_ALLOWED),
    ],
)
def test_allowed_is_ids_and_globs_over_the_name(allowed: tuple[str, ...] | None, reason: Reason | None) -> None:
    """Ids exactly, names by their case; a glob says nothing of ids."""
    assert fitness(candidate("g7", name="team-pay"), allowed) is reason
