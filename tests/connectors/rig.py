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
from connectors.errors import ConnectorError
from connectors.options import Options
from connectors.registry import DIRECTORIES, INTEGRATIONS, Entry, load
from connectors.values import Members, Principal, Record, Ref, Resource


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
    REPEATED_TOKEN = "the next-page token never changes"
    REFUSED = "connection refused"
    SIZE_LIMIT = "the server's own limit ends the list early"


RECOVERS = frozenset({Fault.THROTTLED_ONCE})
"""Faults after which the scope must still be read whole."""


class Rig(ABC):
    """One server with known content, and the faults that can be put on its pages."""

    kind: ClassVar[str]
    role: ClassVar[Literal["integration", "directory"]]
    name: ClassVar[str] = ""
    missing: ClassVar[str | None] = None
    """Why this rig cannot run here, or None."""

    faults: Mapping[Fault, type[ConnectorError] | tuple[type[ConnectorError], ...]] = {}
    """The faults this rig can inject, and the error each must end as (faults that recover: any value, unused)."""

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


def key_of(record: Record) -> str:
    """A record as one comparable line, with its content."""
    match record:
        case Resource():
            return f"resource {record.id} {record.type} {sorted(record.tags.items())}"
        case Principal():
            return f"{record.kind} {record.id} {record.name} {record.email} {'active' if record.active else 'inactive'}"
        case Members():
            raise TypeError("members are compared one by one: use keys_of")


def keys_of(record: Record) -> Iterator[str]:
    """`key_of`, with a line for each member of a `Members`."""
    if isinstance(record, Members):
        for member in record.members:
            yield member_key(record.group, member)
    else:
        yield key_of(record)


def member_key(group: Ref, member: Ref) -> str:
    """A membership as one comparable line."""
    return f"{member.kind} {member.id} in {group.kind} {group.id}"
