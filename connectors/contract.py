"""What a connector is.

A connector is built from its validated, secret-resolved options and asked for its scopes; each scope is then read by
iterating `read`. The iterator either ends (the scope was read whole) or raises a `ConnectorError` (the scope failed,
and what it had yielded is thrown away). There is no third way: a connector never skips a page, an object or an
error to go on.

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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from connectors.options import Options
from connectors.values import Kind, Record


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `ownerd check`: what was tried, whether it works, and what to do if not."""

    what: str
    ok: bool
    detail: str = ""
    remedy: str = ""


class Connector(ABC):
    """Reads one system. Not thread-safe; lives for one run."""

    Options: ClassVar[type[Options]] = Options
    """The model of this connector's own options."""

    kinds: frozenset[Kind] = frozenset(Kind)
    """Directories: the kinds of principal that own by the configuration. What serves only others need not be read.

    Set before `scopes` is called. Users are always wanted: they are what makes a group active.
    """

    @abstractmethod
    def scopes(self) -> Iterable[str]:
        """Name every scope there is now; raise if that cannot be told.

        A scope that was here before and is no longer named is taken as gone, with all it held.
        """

    @abstractmethod
    def read(self, scope: str) -> Iterator[Record]:
        """Yield all that `scope` holds, or raise a `ConnectorError`."""

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
