"""What the contract suite needs to know of a connector: a *rig* is a real (or faithful) server with known content.

A kind's rigs live in `tests/connectors/rigs/KIND.py`, in a list named `RIGS`. A rig that needs something the machine
lacks (slapd) sets `missing` to a reason; the suite then skips it with that reason.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Literal

from connectors.contract import Connector
from connectors.errors import (
    ConnectorError,
    Forbidden,
    Incomplete,
    ServerFault,
    Throttled,
    Unauthenticated,
    Unreachable,
)
from connectors.options import Options
from connectors.registry import DIRECTORIES, INTEGRATIONS, Entry, load
from connectors.values import Bookmark, Change, Gap, Gone, Left, Members, Principal, Ref, Resource, Shift


class Fault(StrEnum):
    """What can go wrong on one page. Unless it says otherwise, a fault stays for as long as it is injected."""

    UNAUTHENTICATED = "credentials are refused"
    FORBIDDEN = "credentials lack a permission"
    SERVER_ERROR = "the server answers 500, or its protocol's like"
    UNAVAILABLE = "503, or its protocol's like"
    THROTTLED_ONCE = "one refusal for rate, then as usual"
    THROTTLED_BARE = "429 without any header that says how long"
    EMPTY_BODY = "success with an empty body"
    CUT_BODY = "the body ends in the middle"
    EMPTY_LIST = "success with an empty list in place of an error the vendor hides"
    HANG = "the server takes the request and says nothing"
    REPEATED_TOKEN = "the next-page token never changes"
    REFUSED = "connection refused"
    SIZE_LIMIT = "the server's own limit ends the list early"


RECOVERS = frozenset({Fault.THROTTLED_ONCE})
"""Faults after which the scope must still be read whole."""

Errors = Mapping[Fault, type[ConnectorError] | tuple[type[ConnectorError], ...]]

USUAL_FAULTS: Errors = {
    Fault.UNAUTHENTICATED: Unauthenticated,
    Fault.FORBIDDEN: Forbidden,
    Fault.SERVER_ERROR: ServerFault,
    Fault.UNAVAILABLE: ServerFault,
    Fault.THROTTLED_ONCE: Throttled,
    Fault.THROTTLED_BARE: Throttled,
    Fault.EMPTY_BODY: ServerFault,
    Fault.CUT_BODY: ServerFault,
    Fault.REPEATED_TOKEN: Incomplete,
    Fault.REFUSED: Unreachable,
}
"""The faults that every server of pages over HTTP can be given, and the error each must end as."""


class Rig(ABC):
    """One server with known content, and the faults that can be put on its pages."""

    kind: ClassVar[str]
    role: ClassVar[Literal["integration", "directory"]]
    name: ClassVar[str] = ""
    missing: ClassVar[str | None] = None
    """Why this rig cannot run here, or None."""

    faults: Errors = {}
    """The faults this rig can inject, and the error each must end as (faults that recover: any value, unused).

    One that has THROTTLED_BARE, which all over HTTP do, injects EMPTY_LIST and HANG too.
    """

    pages: int = 1
    """Pages of the longest list of a whole read. Faults are tried on the first, a middle and the last."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the server. Once; content does not change."""
        yield

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The connector's own options, as TOML would give them (secret references point at what `running` set up)."""

    @abstractmethod
    def expected(self) -> set[str]:
        """Every record there is, by `key_of`. Computed from the rig's own content, never by the connector."""

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        """Make page number `page` (from 1) of the longest list suffer `fault`."""
        raise NotImplementedError(f"{self.kind} rig has no fault {fault.name}")
        yield

    stale_bookmark: str | None = None
    """Incremental connectors: a bookmark that the server has forgotten, or never gave."""

    @contextlib.contextmanager
    def changed(self) -> Iterator[None]:
        """Incremental connectors: other content, which `expected` follows: some added, edited and gone, members too.

        Undone at the end.
        """
        raise NotImplementedError(f"{self.kind} rig has no changes")
        yield

    change_faults: Errors = {}
    """Incremental connectors: the faults that can be put on a read of changes, and the error each must end as."""

    @contextlib.contextmanager
    def inject_into_changes(self, fault: Fault) -> Iterator[None]:
        """Make the read of changes suffer `fault`, on some page of it."""
        raise NotImplementedError(f"{self.kind} rig has no fault {fault.name} in its changes")
        yield

    @property
    def entry(self) -> Entry:
        return (INTEGRATIONS if self.role == "integration" else DIRECTORIES)[self.kind]

    def connector(self, **changes: Any) -> Connector:
        """A connector over this rig's options, with some changed; its secrets resolved."""
        from config.secrets import resolve

        cls = load(self.entry)
        options: Options = cls.Options.model_validate({**self.options(), **changes})
        resolve(options)
        return cls(options)  # type: ignore[call-arg]


def key_of(record: Resource | Principal) -> str:
    """A record as one comparable line, with its content."""
    if isinstance(record, Resource):
        tags = sorted(record.tags.items())
        return f"resource {record.id} {record.type} {record.name!r} in {record.parent} {tags}"
    return f"{record.kind} {record.id} {record.name} {record.email} {'active' if record.active else 'inactive'}"


def member_key(group: Ref, member: Ref) -> str:
    """A membership as one comparable line."""
    return f"{member.kind} {member.id} in {group.kind} {group.id}"


def shift_key(shift: Shift) -> str:
    """A shift as one comparable line, to the second."""
    return f"{shift.member.kind} {shift.member.id} on {shift.schedule.id} {shift.start:.0f} {shift.end:.0f}"


class Content:
    """What a source holds, as the records of a read and of the changes after it tell."""

    def __init__(self) -> None:
        self._things: dict[str | Ref, str] = {}
        self._members: dict[Ref, set[Ref]] = {}
        self._shifts: dict[Ref, set[str]] = {}
        self._told: dict[str, set[str | Ref]] = {}
        self.bookmarks: dict[str, str] = {}
        """By scope."""
        self.gaps: list[Gap] = []
        self.seen: list[str | Ref] = []
        """The ids of all records, in their order."""

    @classmethod
    def again(cls, other: Content) -> Content:
        """A new one that goes on from the bookmarks of `other`."""
        content = cls()
        content.bookmarks = dict(other.bookmarks)
        return content

    def take(self, scope: str, record: Change) -> None:
        """Bring one record in; the later overrides the earlier."""
        told = self._told.setdefault(scope, set())
        match record:
            case Resource():
                told.add(record.id)
                self.seen.append(record.id)
                self._things[record.id] = key_of(record)
            case Principal():
                told.add(record.ref)
                self.seen.append(record.ref)
                self._things[record.ref] = key_of(record)
            case Members():
                told.add(record.group)
                self._members.setdefault(record.group, set()).update(record.members)
            case Shift():
                told.add(record.schedule)
                self._shifts.setdefault(record.schedule, set()).add(shift_key(record))
            case Bookmark():
                self.bookmarks[scope] = record.token
            case Gap():
                self.gaps.append(record)
            case Left(group, None):
                self._members.pop(group, None)
                self._shifts.pop(group, None)
            case Left(group, members) if members is not None:
                self._members.get(group, set()).difference_update(members)
            case Gone(what):
                self._things.pop(what, None)
                if isinstance(what, Ref):
                    self._members.pop(what, None)
                    self._shifts.pop(what, None)
                    for others in self._members.values():
                        others.discard(what)

    def forget(self, scope: str) -> None:
        """Take out all that a scope has told, as what is read whole again replaces it."""
        told = self._told.pop(scope, set())
        for what in told:
            self._things.pop(what, None)
            if isinstance(what, Ref):
                self._members.pop(what, None)
                self._shifts.pop(what, None)
        self.seen = [what for what in self.seen if what not in told]

    def keys(self) -> set[str]:
        """All of it, each thing, membership and shift a line."""
        members = {member_key(group, m) for group, all_of in self._members.items() for m in all_of}
        return {*self._things.values(), *members, *(key for of in self._shifts.values() for key in of)}


def read_into(content: Content, connector: Connector) -> Content:
    """Read every scope whole."""
    for scope in connector.scopes():
        for record in connector.read(scope):
            content.take(scope, record)
    return content
