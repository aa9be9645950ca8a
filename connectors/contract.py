"""What a connector is.

A connector is built from its validated, secret-resolved options and asked for its scopes; each scope is then read by
iterating `read`, or `changes` where the system tells those. The iterator either ends (the scope was read whole) or
raises a `ConnectorError` (the scope failed, and what it had yielded is thrown away). There is no third way: a connector
never skips a page, an object or an error to go on.

To write one:

- a module in this package with an `Options` model and a `Connector` subclass, and a line in `registry`;
- import the SDK inside methods, never at the module's top: the daemon imports the module to check options;
- turn the SDK's failures into `connectors.errors`; whatever else escapes is reported as an unexpected failure;
- yield as you read: a page at a time, so that memory does not grow with the source;
- guard every paging loop with `paging.Pages`; retry with `retry.retrying`;
- add a rig to `tests/connectors/rigs/`: the contract suite fails for a kind that has none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from connectors.options import Options
from connectors.values import Change, Kind, Record


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `ownerd check`: what was tried, whether it works, and what to do if not."""

    what: str
    ok: bool
    detail: str = ""
    remedy: str = ""


class Connector(ABC):
    """Reads one system; lives for one run."""

    Options: ClassVar[type[Options]] = Options
    """The model of this connector's own options."""

    at_once: ClassVar[int] = 1
    """How many scopes may be read at the same time. More than one: `read` and `changes` run in several threads."""

    incremental: ClassVar[bool] = False
    """Whether `changes` works. Of such a connector no two scopes may hold the same id."""

    kinds: frozenset[Kind] = frozenset(Kind)
    """Directories: the kinds of principal that own by the configuration. What serves only others need not be read.

    Set before `scopes` is called. Users are always wanted: they are what makes a group active.
    """

    @abstractmethod
    def scopes(self) -> Iterable[str]:
        """Name every scope there is now; raise if that cannot be told.

        A scope that was here before and is no longer named is taken as gone, with all it held.
        """

    def holds(self, scope: str) -> Collection[Kind]:
        """Directories: the kinds of principal that `scope` may hold; default: all.

        Whether a directory knows all groups then does not depend on a scope that holds only roles.
        """
        del scope
        return frozenset(Kind)

    @abstractmethod
    def read(self, scope: str) -> Iterator[Record]:
        """Yield all that `scope` holds, or raise a `ConnectorError`."""

    def changes(self, scope: str, since: str) -> Iterator[Change]:
        """Yield what has changed in `scope` since the `Bookmark` whose token is `since`, and a new `Bookmark`.

        A `Resource` or `Principal` replaces the one of its id; `Gone` and `Left` take away; all else stays as it was.
        `StaleBookmark`, if the system no longer knows that point: the scope is then read whole, in the same run. A
        whole read at a longer interval corrects whatever the system's changes do not tell.
        """
        raise NotImplementedError(f"{type(self).__name__} has no changes of {scope}")

    def check(self) -> Iterator[Check]:
        """Try what a run needs, as cheaply as possible, and say what the credentials lack.

        The default reads the first record of each scope. Failures may be raised as `ConnectorError`.
        """
        for scope in self.scopes():
            records = self.read(scope)
            first = next(iter(records), None)
            yield Check(f"read {scope}", ok=True, detail="" if first is not None else "readable, and empty")

    def close(self) -> None:  # noqa: B027  # most have nothing to close
        """Let go of connections. Called once, whatever happened."""
