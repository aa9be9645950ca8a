"""The values that connectors yield. Immutable, and free of any SDK's types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a principal is."""

    GROUP = "group"
    USER = "user"
    ROLE = "role"
    SCHEDULE = "schedule"


class Ref(NamedTuple):
    """A principal of the same directory: its kind and immutable id."""

    kind: Kind
    id: str


@dataclass(frozen=True, slots=True)
class Resource:
    """One cloud resource. `id` and `type` are in the provider's own words; `parent` is a resource id."""

    id: str
    type: str = ""
    name: str = ""
    parent: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Principal:
    """A group, user, role or schedule.

    `id` is immutable: it survives a rename. `aliases` are further addresses that `email` matches.
    `manager` is the id of a user of the same directory. `attributes` are matchable by their name
    (`user.department`); a list is matched by each of its elements.
    """

    kind: Kind
    id: str
    name: str = ""
    email: str | None = None
    active: bool = True
    manager: str | None = None
    aliases: tuple[str, ...] = ()
    attributes: Mapping[str, str | list[str]] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        """What members and managers name this principal by."""
        return Ref(self.kind, self.id)


@dataclass(frozen=True, slots=True)
class Members:
    """Direct members of a group, role or schedule; several of one `group` add up.

    A member that the directory does not return as a principal (a device, a foreign user) may be named: it
    never counts as active.
    """

    group: Ref
    members: tuple[Ref, ...]


Record = Resource | Principal | Members
