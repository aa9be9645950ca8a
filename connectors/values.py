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


@dataclass(frozen=True, slots=True)
class Shift:
    """`member` is on call in `schedule` from `start` until `end`: seconds since the epoch.

    A schedule with shifts needs no `Members`: who is on call at a moment follows, so that a hand-over needs no poll.
    Yield every shift that touches the time from now to `SHIFT_HORIZON` later, as the vendor computes it (overrides
    applied). Two that overlap are two people on call.
    """

    schedule: Ref
    member: Ref
    start: float
    end: float


SHIFT_HORIZON = 7 * 86400.0
"""Seconds. How far ahead shifts are read: as long as the system may be unreachable without answers being lost."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What this scope cannot show, though nothing failed: resources that the API never lists, say.

    Coverage is shown, never assumed: status, check and metrics tell each gap. `code` is stable and snake_case;
    `remedy` says how to close it.
    """

    code: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Where `Connector.changes` goes on next time. The last one that a scope yields counts, once it was read whole.

    Take the token *before* the first page of a whole read: what changes meanwhile is then read twice, not lost.
    """

    token: str


@dataclass(frozen=True, slots=True)
class Gone:
    """Only from `changes`: a resource (by its id) or a principal that is no more."""

    what: str | Ref


@dataclass(frozen=True, slots=True)
class Left:
    """Only from `changes`: members that `group` has no longer.

    None: all that it had, before the `Members` (of a schedule: the `Shift`s) that follow.
    """

    group: Ref
    members: tuple[Ref, ...] | None = None


Record = Resource | Principal | Members | Shift | Gap | Bookmark
"""What `Connector.read` yields."""
Change = Record | Gone | Left
"""What `Connector.changes` yields: in order, the later overrides the earlier."""
