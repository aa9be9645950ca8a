"""What the rigs and the tests of on-call systems share: a clock that stands still, and the usual faults."""

from __future__ import annotations

import contextlib
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from connectors.contract import Connector
from connectors.shifts import OnCallSystem
from tests.connectors.rig import USUAL_FAULTS, Fault, Rig
from tests.servers.oncall import Answer, OnCallServer, Refusal

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC).timestamp()
"""A Monday."""


def iso(hours: float, offset: str = "Z") -> str:
    """The moment so many hours from `NOW`, as these APIs write it."""
    return datetime.fromtimestamp(NOW + hours * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%S") + offset


def at(hours: float) -> float:
    """The same, in seconds since the epoch."""
    return NOW + hours * 3600


class OnCallRig(Rig):
    """A rig over an `OnCallServer`, `self.server`; its faults are put on the list `longest`."""

    role = "directory"
    pages = 3
    longest: ClassVar[str]
    server: OnCallServer
    refusals: ClassVar[dict[Fault, Refusal]]
    """How the vendor words UNAUTHENTICATED, FORBIDDEN, THROTTLED_ONCE."""
    faults = USUAL_FAULTS

    @abstractmethod
    def make(self) -> OnCallServer:
        """The server, with its content."""

    def secret(self) -> str:
        """What the file `self.secret_file` is to hold."""
        return str(getattr(self.server, "token", getattr(self.server, "api_key", "")))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with self.make() as self.server, tempfile.TemporaryDirectory() as folder:
            self.secret_file = Path(folder, "secret")
            self.secret_file.write_text(self.secret() + "\n")
            yield

    def http(self) -> dict[str, Any]:
        """The HTTP options that lead to the server."""
        return {"endpoint": self.server.url, "ca_file": self.server.ca_file, "timeout": "10s"}

    def connector(self, **changes: Any) -> Connector:
        connector = super().connector(**changes)
        assert isinstance(connector, OnCallSystem)
        connector.clock = lambda: NOW
        return connector

    @contextlib.contextmanager
    def inject(self, fault: Fault, page: int) -> Iterator[None]:
        usual = {
            Fault.SERVER_ERROR: Answer(500, {"message": "Internal Server Error"}),
            Fault.UNAVAILABLE: Answer(503, b"<html>Service Unavailable</html>"),
            Fault.THROTTLED_BARE: Answer(429),
            Fault.EMPTY_BODY: Answer(200),
            Fault.EMPTY_LIST: Answer(empty=True),
            Fault.CUT_BODY: Answer(cut=True),
            Fault.REPEATED_TOKEN: Answer(repeat=True),
            Fault.REFUSED: Answer(refuse=True),
            Fault.HANG: Answer(stall=True),
        }
        if (refusal := self.refusals.get(fault)) is not None:
            answer = Answer(refusal.status, refusal.document, refusal.headers)
            answer.times = 1 if fault is Fault.THROTTLED_ONCE else answer.times
        else:
            answer = usual[fault]
        with self.server.broken(self.longest, page, answer):
            yield
