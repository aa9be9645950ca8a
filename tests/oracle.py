"""The owner rule once more: naive, slow, and written from the contract's text alone, to compare the real one with.

Nothing is kept that could be worked out anew, but for what only the past tells: which tag was in force, what waits and
until when, and what somebody was called before. Nothing of `daemon` is used.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from connectors.values import Kind, Principal, Ref, Resource, Shift

OwnerOf = tuple[str, str, str, str]
"""Directory, kind, id, name."""


def alike(text: str) -> str:
    """Two texts that give the same are alike: NFKC, casefold, runs of space and `-_./:@+` as one `-`."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.strip()).casefold()).strip()
    form = ""
    for character in text:
        if not (character.isspace() or character in "-_./:@+"):
            form += character
        elif not form.endswith("-"):
            form += "-"
    return form


def same_id(resource: str) -> str:
    """Azure's ids are compared without case."""
    return resource.lower() if resource.lower().startswith(("/subscriptions/", "/providers/")) else resource


class Said(NamedTuple):
    """What speaks for a resource: a mapping's tag, as it is written, and the resource that has it."""

    mapping: int
    key: str
    value: str
    ambiguous: bool
    of: str


class Answer(NamedTuple):
    """Who owns, and why."""

    owners: frozenset[OwnerOf]
    source: str
    fallback: bool
    reason: str | None
    tag_of: str | None
    waits: bool


@dataclass
class Told:
    """What a directory said when it was read last."""

    grace: float
    people: dict[Ref, Principal] = field(default_factory=dict)
    members: dict[Ref, frozenset[Ref]] = field(default_factory=dict)
    shifts: list[Shift] = field(default_factory=list)
    former: dict[tuple[Ref, str, str], float] = field(default_factory=dict)
    read: bool = False

    def tell(self, people: Iterable[Principal], members: Mapping[Ref, Iterable[Ref]], shifts: Iterable[Shift], now: float) -> None:  # fmt: skip
        """It was read whole; former names are kept for a while, but not of who is gone or is called so again."""
        before, self.people = self.people, {p.ref: p for p in people}
        self.members = {group: frozenset(refs) for group, refs in members.items()}
        self.shifts = list(shifts)
        self.read = True
        for ref in before.keys() & self.people.keys():
            for what in ("name", "email"):
                was, now_is = getattr(before[ref], what), getattr(self.people[ref], what)
                if was != now_is and was and self.grace:
                    self.former[ref, what, was] = now + self.grace
                self.former.pop((ref, what, now_is), None)
        self.former = {k: until for k, until in self.former.items() if k[0] in self.people}

    def inside(self, group: Ref, now: float) -> set[Ref]:
        """Everybody in a group, at any depth; of a schedule who is on call."""
        found: set[Ref] = set()
        left = [group]
        while left:
            one = left.pop()
            on_call = {s.member for s in self.shifts if s.schedule == one and s.start <= now < s.end}
            new = (self.members.get(one, frozenset()) | on_call) - found
            found |= new
            left += [ref for ref in new if ref in self.people]
        return found

    def has_active(self, group: Ref, now: float) -> bool:
        """Whether somebody in it is an active user."""
        inside = (self.people.get(ref) for ref in self.inside(group, now) if ref.kind is Kind.USER)
        return any(p is not None and p.active for p in inside)


def values_of(principal: Principal, what: str) -> list[str]:
    """The values that a principal has of one field."""
    match what:
        case "id":
            found = [principal.id]
        case "name":
            found = [principal.name]
        case "email":
            found = [principal.email or "", *principal.aliases]
        case _:
            given = principal.attributes.get(what, [])
            found = [given] if isinstance(given, str) else given
    return [value.strip() for value in found if value.strip()]


class Oracle:
    """Everything that was told, and what follows from it now."""

    def __init__(self, directories: Mapping[str, float], *, hold: float, now: float) -> None:
        self.directories = {name: Told(grace) for name, grace in directories.items()}
        self.hold = hold
        self.now = now
        self.mappings: Sequence[Mapping[str, Any]] = ()
        self.fallback: Sequence[Mapping[str, Any]] = ()
        self.inherit = True
        self.resources: dict[str, Resource] = {}
        self.in_force: dict[str, Said | None] = {}
        self.waiting: dict[str, tuple[Said | None, float]] = {}

    # --- what happens -------------------------------------------------------------------------------------------------

    def configure(self, integration: Mapping[str, Any]) -> None:
        """Other rules count at once."""
        told = (integration["resource_owner"], integration["integration_owner"], integration["inherit"])
        if told != (self.mappings, self.fallback, self.inherit):
            self.mappings, self.fallback, self.inherit = told
            self.waiting = {}
            self.in_force = {key: self.speaks(key) for key in self.resources}

    def read(self, resources: Iterable[Resource]) -> None:
        """These are the resources now. What has an owner keeps it while another tag waits."""
        self.resources = {same_id(r.id): r for r in resources}
        for known in (self.in_force, self.waiting):
            for key in known.keys() - self.resources.keys():
                del known[key]
        for key in self.resources:
            said = self.speaks(key)
            if not self.hold or key not in self.in_force or _text(said) == _text(self.in_force[key]):
                self.in_force[key] = said
                self.waiting.pop(key, None)
            elif key not in self.waiting or self.waiting[key][0] != said:
                self.waiting[key] = (said, self.now + self.hold)

    def pass_time(self, seconds: float) -> None:
        """What has waited long enough counts; former names run out."""
        self.now += seconds
        for directory in self.directories.values():
            directory.former = {k: until for k, until in directory.former.items() if until > self.now}
        self._apply([key for key, (_, until) in self.waiting.items() if until <= self.now])

    def confirm(self, resource: str | None) -> None:
        """What waits for it counts, and for what inherits from it, or did; with None, all."""
        key = None if resource is None else same_id(resource)
        named = [k for k, (said, _) in self.waiting.items() if key in {None, k, _of(said), _of(self.in_force[k])}]
        self._apply(named)

    def _apply(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.in_force[key], _ = self.waiting.pop(key)

    # --- the rule -----------------------------------------------------------------------------------------------------

    def chain(self, key: str) -> list[str]:
        """The resource and what is above it, the nearest first."""
        found: list[str] = []
        here: str | None = key
        while here is not None and here in self.resources and here not in found:
            found.append(here)
            parent = self.resources[here].parent
            here = None if parent is None else same_id(parent)
        return found

    def speaks(self, key: str) -> Said | None:
        """1 and 2: its own tag, else the nearest ancestor's."""
        for above in self.chain(key) if self.inherit else [key]:
            tags = self.resources[above].tags
            for number, mapping in enumerate(self.mappings):
                keys = [mapping["key"]] if isinstance(mapping["key"], str) else mapping["key"]
                for wanted in keys:
                    if wanted in tags:
                        return Said(number, wanted, tags[wanted], False, above)
                    same = sorted(k for k in tags if k.casefold() == wanted.casefold())
                    values = {tags[k] for k in same}
                    if len(values) == 1:
                        return Said(number, same[0], values.pop(), False, above)
                    if values:
                        return Said(number, wanted, " | ".join(sorted(values)), True, above)
        return None

    def answer(self, resource: str) -> Answer:
        """6: who owns a resource now, or who stands in."""
        key = same_id(resource)
        said, waits = self.in_force[key], key in self.waiting
        owners, reason = self._judge(said)
        of = None if said is None else said.of
        if reason is None or reason == "directory_never_synced":
            return Answer(owners, "tag" if _of(said) == key else "inherited", False, reason, of, waits)
        if not all(self.directories[f["directory"]].read for f in self.fallback):
            return Answer(frozenset(), "integration", True, "directory_never_synced", of, waits)
        return Answer(self.integration_owners(), "integration", True, reason, of, waits)

    def integration_owners(self) -> frozenset[OwnerOf]:
        """Everybody whom the fallback names and who can own."""
        found: set[OwnerOf] = set()
        for mapping in self.fallback:
            for value in mapping["values"]:
                found |= self._named(value, mapping)[0]
        return frozenset(found)

    def _judge(self, said: Said | None) -> tuple[frozenset[OwnerOf], str | None]:
        nobody: frozenset[OwnerOf] = frozenset()
        if said is None:
            return nobody, "tag_missing"
        if said.ambiguous:
            return nobody, "value_ambiguous"
        value = said.value.strip()
        if not value:
            return nobody, "tag_empty"
        mapping = self.mappings[said.mapping]
        if not self.directories[mapping["directory"]].read:
            return nobody, "directory_never_synced"
        whole, reason = self._named(value, mapping)
        if reason != "value_unknown" or not mapping.get("split"):
            return whole, reason
        each = [self._named(part.strip(), mapping) for part in value.split(mapping["split"]) if part.strip()]
        owners = frozenset(owner for named, _ in each for owner in named)
        return owners, None if owners else each[0][1] if each else reason

    def _named(self, value: str, mapping: Mapping[str, Any]) -> tuple[frozenset[OwnerOf], str | None]:
        """4 and 5: whom a value names, and which of them may own."""
        directory = self.directories[mapping["directory"]]
        kind, _, what = mapping["attribute"].partition(".")
        found = self._match(value, directory, Kind.USER if kind == "manager" else Kind(kind), what)
        if isinstance(found, str):
            return frozenset(), found
        if kind == "manager":
            managers = {Ref(Kind.USER, p.manager) for p in found if p.manager is not None}
            found = [directory.people[ref] for ref in managers if ref in directory.people]
        reasons = {p.ref: self.unfit(p, mapping) for p in found}
        owners = frozenset((mapping["directory"], str(p.kind), p.id, p.name) for p in found if reasons[p.ref] is None)
        if owners:
            return owners, None
        for reason in ("owner_not_allowed", "group_empty", "principal_inactive"):
            if reason in reasons.values():
                return owners, reason
        return owners, "value_unknown"

    def _match(self, value: str, directory: Told, kind: Kind, what: str) -> list[Principal] | str:
        everybody = [p for p in directory.people.values() if p.kind is kind]
        known = [(p, v) for p in everybody for v in values_of(p, what) if alike(v) == alike(value)]
        if not known:  # what somebody was called before counts only where nobody is called so now
            former = [(directory.people[r], v.strip()) for r, w, v in directory.former if w == what and r.kind is kind]
            known = [(p, v) for p, v in former if v and alike(v) == alike(value)]
        exact = [(p, v) for p, v in known if v == value]
        found = list({p.ref: p for p, _ in exact or known}.values())
        if not found:
            return "value_unknown"
        if what in {"name", "id", "email"}:
            return found if len(found) == 1 else "value_ambiguous"
        return "value_ambiguous" if not exact and len({v for _, v in known}) > 1 else found

    def unfit(self, principal: Principal, mapping: Mapping[str, Any]) -> str | None:
        """5: why a principal may not own, if so."""
        if not principal.active:
            return "principal_inactive"
        directory = self.directories[mapping["directory"]]
        if principal.kind is not Kind.USER and not directory.has_active(principal.ref, self.now):
            return "group_empty"
        allowed = mapping.get("allowed")
        if allowed is None or any(one == principal.id or fnmatchcase(principal.name, one) for one in allowed):
            return None
        return "owner_not_allowed"


def _text(said: Said | None) -> Said | None:
    """What the tag says, wherever it stands: a tag that says the same from elsewhere re-owns nobody."""
    return None if said is None else said._replace(of="")


def _of(said: Said | None) -> str | None:
    return None if said is None else said.of
