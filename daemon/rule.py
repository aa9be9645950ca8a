"""The owner rule. Pure: tags and principals in, a verdict out; no I/O, no clock.

    tags ──claim_of──► Claim (which tag speaks) ──judge──► Verdict (who owns, or why nobody does)

Inheritance is not in here: it is only *whose* tags `claim_of` is asked about. The fallback to the integration
owner is `judge_fallback`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, Protocol

from connectors.values import Kind

UNIQUE_FIELDS = frozenset({"name", "id", "email"})
"""Fields that name one principal; any other names every principal that has the value."""


class Reason(StrEnum):
    """Why a resource has no owner of its own."""

    TAG_MISSING = "tag_missing"
    TAG_EMPTY = "tag_empty"
    VALUE_UNKNOWN = "value_unknown"
    VALUE_AMBIGUOUS = "value_ambiguous"
    PRINCIPAL_INACTIVE = "principal_inactive"
    GROUP_EMPTY = "group_empty"
    OWNER_NOT_ALLOWED = "owner_not_allowed"
    DIRECTORY_NEVER_SYNCED = "directory_never_synced"


_UNFIT = (Reason.PRINCIPAL_INACTIVE, Reason.GROUP_EMPTY, Reason.OWNER_NOT_ALLOWED)
"""Why a principal may not own; of several principals, the reason of the one that came furthest is told."""


class Owner(NamedTuple):
    """A principal that owns. `directory` is a directory's name."""

    kind: Kind
    directory: str
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One `resource_owner` mapping: tag keys → an attribute of a directory's principals."""

    keys: tuple[str, ...]
    directory: str
    attribute: str
    split: str | None = None
    allowed: tuple[str, ...] | None = None

    @property
    def kind(self) -> Kind:
        """The kind of principal the value is matched against: for `manager.*`, the user who has the manager."""
        prefix = self.attribute.partition(".")[0]
        return Kind.USER if prefix == "manager" else Kind(prefix)

    @property
    def field(self) -> str:
        """What of the principal the value is matched against."""
        return self.attribute.partition(".")[2]

    @property
    def by_manager(self) -> bool:
        """Whether the matched user's manager owns in his place."""
        return self.attribute.startswith("manager.")


@dataclass(frozen=True, slots=True)
class Claim:
    """The tag that speaks for a resource. `rule` is an index into the integration's rules."""

    rule: int
    key: str
    value: str
    ambiguous: bool = False
    """Two keys, equal but for case, have different values; `value` then holds them all."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A principal whose attribute equals the value in canonical form; `matched` is that attribute's own value.

    `alive`: has at least one active member, nested ones counted (groups, roles, schedules); for users, as `active`.
    """

    kind: Kind
    id: str
    name: str
    active: bool
    alive: bool
    matched: str
    manager: str | None = None
    former: bool = False
    """What matched is what the principal was called before, and it counts for a while yet."""


class Directories(Protocol):
    """What the rule asks of the directories."""

    def synced(self, directory: str, kind: Kind) -> bool:
        """Whether the directory's principals of `kind` have been read whole at least once."""
        ...

    def candidates(self, directory: str, kind: Kind, field: str, value: str) -> Sequence[Candidate]:
        """Every principal of `kind` whose `field` equals `value` in canonical form."""
        ...

    def user(self, directory: str, user_id: str) -> Candidate | None:
        """One user by id."""
        ...


OWNERLESS = "integration_owner_unknown"
GROUP_RENAMED: Literal["group_renamed"] = "group_renamed"


class Finding(NamedTuple):
    """A part of a tag that cannot own, and why; or that owns by a name that is no more (`GROUP_RENAMED`)."""

    reason: Reason | Literal["group_renamed"]
    value: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Either owners, or the reason for none. `findings` may stand beside owners: the other parts of a split value."""

    owners: tuple[Owner, ...] = ()
    reason: Reason | None = None
    findings: tuple[Finding, ...] = ()


def claim_of(tags: Mapping[str, str], rules: Sequence[Rule]) -> Claim | None:
    """The first rule whose tag is present decides; of its keys, the first present.

    A key that is equal exactly wins over one that is equal but for case.
    """
    folded: dict[str, list[str]] | None = None
    for index, rule in enumerate(rules):
        for key in rule.keys:
            if key in tags:
                return Claim(index, key, tags[key])
            if folded is None:
                folded = {}
                for name in sorted(tags):
                    folded.setdefault(name.casefold(), []).append(name)
            names = folded.get(key.casefold())
            if names:
                values = sorted({tags[name] for name in names})
                if len(values) == 1:
                    return Claim(index, names[0], values[0])
                return Claim(index, key, " | ".join(values), ambiguous=True)
    return None


def judge(claim: Claim, rule: Rule, directories: Directories) -> Verdict:
    """Who owns by `claim`, or why nobody does."""
    if claim.ambiguous:
        return _nobody(Reason.VALUE_AMBIGUOUS, claim.value)
    value = claim.value.strip()
    if not value:
        return _nobody(Reason.TAG_EMPTY, "")
    if not directories.synced(rule.directory, rule.kind):
        return Verdict(reason=Reason.DIRECTORY_NEVER_SYNCED)
    whole = name_principals(value, rule, directories)
    parts = tuple(parts_of(value, rule.split))
    if whole.reason is not Reason.VALUE_UNKNOWN or parts in {(), (value,)}:
        return whole
    found = [name_principals(part, rule, directories) for part in parts]
    owners = tuple(dict.fromkeys(owner for verdict in found for owner in verdict.owners))
    findings = tuple(finding for verdict in found for finding in verdict.findings)
    return Verdict(owners, None if owners else found[0].reason, findings)


def parts_of(value: str, split: str | None) -> Iterator[str]:
    """The parts of a value, each once, trimmed, the empty ones left out; without `split`, the value itself."""
    if split is None:
        yield value
        return
    yield from dict.fromkeys(part for piece in value.split(split) if (part := piece.strip()))


def name_principals(value: str, rule: Rule, directories: Directories) -> Verdict:
    """The principals that one value names and that may own, or why there are none."""
    matched = match(value, directories.candidates(rule.directory, rule.kind, rule.field, value), rule.field)
    if isinstance(matched, Reason):
        return _nobody(matched, value)
    renamed = (Finding(GROUP_RENAMED, value),) if matched[0].former else ()
    if rule.by_manager:
        matched = [m for c in matched if c.manager is not None and (m := directories.user(rule.directory, c.manager))]
        if not matched:
            return _nobody(Reason.VALUE_UNKNOWN, value)
    owners: dict[Owner, None] = {}
    unfit: set[Reason] = set()
    for candidate in matched:
        reason = fitness(candidate, rule.allowed)
        if reason is None:
            owners[Owner(candidate.kind, rule.directory, candidate.id, candidate.name)] = None
        else:
            unfit.add(reason)
    if not owners:
        reason = max(unfit, key=_UNFIT.index)
        return Verdict((), reason, (Finding(reason, value), *renamed))
    return Verdict(tuple(owners), None, renamed)


def match(value: str, candidates: Sequence[Candidate], field: str) -> Sequence[Candidate] | Reason:
    """Exact first, else by canonical form. Several principals are ambiguous, unless the field is one that many share.

    Where many share a field, several *values* of it with one canonical form are ambiguous in their place. What somebody
    was called before counts only where nobody is called so now.
    """
    candidates = [c for c in candidates if not c.former] or candidates
    exact = [c for c in candidates if c.matched == value]
    pool = list({(c.kind, c.id): c for c in exact or candidates}.values())
    if not pool:
        return Reason.VALUE_UNKNOWN
    if field in UNIQUE_FIELDS:
        return pool if len(pool) == 1 else Reason.VALUE_AMBIGUOUS
    if not exact and len({c.matched for c in candidates}) > 1:
        return Reason.VALUE_AMBIGUOUS
    return pool


def fitness(candidate: Candidate, allowed: Sequence[str] | None) -> Reason | None:
    """None if the principal may own, else why not."""
    if not candidate.active:
        return Reason.PRINCIPAL_INACTIVE
    if not candidate.alive:
        return Reason.GROUP_EMPTY
    if allowed is not None and not any(a == candidate.id or fnmatchcase(candidate.name, a) for a in allowed):
        return Reason.OWNER_NOT_ALLOWED
    return None


def judge_fallback(rules: Sequence[tuple[Rule, Sequence[str]]], directories: Directories) -> Verdict:
    """The integration owner: every principal that the values of its rules name.

    While any of the directories is unread the answer is not known: part of the owners would be a wrong answer.
    """
    if not all(directories.synced(rule.directory, rule.kind) for rule, _ in rules):
        return Verdict(reason=Reason.DIRECTORY_NEVER_SYNCED)
    owners: dict[Owner, None] = {}
    findings: list[Finding] = []
    for rule, values in rules:
        for value in values:
            found = name_principals(value, rule, directories)
            findings += found.findings
            owners.update(dict.fromkeys(found.owners))
    return Verdict(owners=tuple(owners), findings=tuple(findings))


def _nobody(reason: Reason, value: str) -> Verdict:
    return Verdict(reason=reason, findings=(Finding(reason, value),))
