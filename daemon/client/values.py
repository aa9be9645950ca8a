"""What an answer is, and what can be asked. docs/api.md tells what each member means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NotRequired, Protocol, TypedDict

if TYPE_CHECKING:
    from daemon.client.problems import LookupProblem

Row = dict[str, Any]


class Member(TypedDict):
    """An active user of an owning group."""

    id: str
    email: str | None
    name: str


class Owner(TypedDict):
    """A principal that owns. `members` is there when it was asked for."""

    kind: str
    directory: str
    id: str
    name: str
    members: NotRequired[list[Member]]


class Resource(TypedDict):
    """What is owned."""

    id: str
    integration: str
    type: str
    name: str
    parent: str | None


class Tag(TypedDict):
    """The tag that decided, and the resource that has it."""

    key: str
    value: str
    resource: str


class Pending(TypedDict):
    """The tag that waits to decide, since when, and until when."""

    tag: Tag | None
    since: str
    until: str


class Answer(TypedDict):
    """Who owns a resource. Moments are RFC 3339. The caller may keep and change it: no two answers share a part."""

    resource: Resource
    owners: list[Owner]
    source: str
    fallback: bool
    reason: str | None
    tag: Tag | None
    pending: NotRequired[Pending]
    changed_at: str
    resource_seen_at: str | None
    owners_seen_at: str | None
    stale: bool
    valid_until: NotRequired[str]


class Lookups(Protocol):
    """What can be asked, over the socket or of the file. Threads may share one; their calls take turns."""

    def get(
        self, resource: str, integration: str | None = None, *, members: bool = False, max_age: int | None = None
    ) -> Answer:
        """Who owns a resource. `max_age`: seconds past which an answer is refused (`TooOld`)."""
        ...

    def get_many(self, resources: Sequence[str], *, max_age: int | None = None) -> list[Answer | LookupProblem]:
        """Who owns many resources, in the order asked; a problem in the place of each that has no answer.

        Each thousand are of one generation.
        """
        ...

    def close(self) -> None:
        """Let go of what is open; the next call opens it again."""
        ...
