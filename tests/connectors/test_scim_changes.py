"""What the `scim` connector follows, and what it does not trust."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import connectors.retry
from config.secrets import resolve
from connectors.errors import ConnectorError, Forbidden, Incomplete, ServerFault, StaleBookmark
from connectors.scim import DIRECTORY, Scim, ScimOptions
from connectors.values import Bookmark, Change, Kind, Principal, Ref
from tests.connectors.rig import Content
from tests.servers.oncall import Answer
from tests.servers.scim import RealScimServer, ScimServer

MINUTE, HOUR = 60.0, 3600.0


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connectors.retry, "sleep", lambda _seconds: None)


@pytest.fixture
def server() -> Iterator[ScimServer]:
    """Seven users, three groups, each an hour younger than the one before; some were modified since."""
    with ScimServer(page=100) as server:
        fill(server, 7)
        yield server


def fill(server: ScimServer, users: int, *, apart: float = HOUR) -> None:
    server.config = {"filter": {"supported": True, "maxResults": 500}}
    for n in range(users):
        server.add_user(f"u{n}", f"user{n}")
        server.advance(apart)
    for id_, name in (("g1", "Payments"), ("g2", "All"), ("g3", "Empty")):
        server.add_group(id_, name)
        server.advance(HOUR)
    server.set_members("g1", ("User", "u1"), ("User", "u2"))
    server.set_members("g2", ("Group", "g1"), ("User", "u3"))
    server.add_user("u0", "user0", displayName="Zero")
    server.advance(HOUR)


class Directory:
    """What the runs of a connector know of a server, each a connector of its own, with time in between."""

    def __init__(self, server: ScimServer | RealScimServer, folder: Path) -> None:
        self.server = server
        self.token = folder / "token"
        self.token.write_text(server.token)
        self.content = Content()

    def connector(self, **kinds: Any) -> Scim:
        told = {"endpoint": f"{self.server.url}/v2", "token": {"file": str(self.token)}, "ca_file": self.server.ca_file}
        options = ScimOptions.model_validate({**told, "timeout": "10s"})
        resolve(options)
        return Scim(options)

    @property
    def bookmark(self) -> str | None:
        return self.content.bookmarks.get(DIRECTORY)

    def whole(self) -> int:
        """Read all; how many requests that took."""
        self.content = Content()
        return self._take(lambda connector: connector.read(DIRECTORY))

    def follow(self) -> int:
        """Read what has changed; how many requests that took."""
        bookmark = self.bookmark
        assert bookmark is not None
        return self._take(lambda connector: connector.changes(DIRECTORY, bookmark))

    def _take(self, read: Callable[[Scim], Iterator[Change]]) -> int:
        before = len(self.server.requests)
        self.content.seen = []
        with contextlib.closing(self.connector()) as connector:
            for record in read(connector):
                self.content.take(DIRECTORY, record)
        return len(self.server.requests) - before

    def agrees(self) -> bool:
        """Whether a whole read would find the same."""
        other = Directory(self.server, self.token.parent)
        other.whole()
        return other.content.keys() == self.content.keys()


@pytest.fixture
def directory(server: ScimServer, tmp_path: Path) -> Directory:
    directory = Directory(server, tmp_path)
    directory.whole()
    assert directory.bookmark
    return directory


# ── what it costs ──


@pytest.mark.parametrize(("users", "requests"), [(1_000, 24), (10_000, 114)])
def test_a_change_of_one_member_costs_the_same_in_any_directory(tmp_path: Path, users: int, requests: int) -> None:
    """A whole read takes a request for each 99 users; the change of a membership seven, however many there are."""
    with ScimServer(page=100) as server:
        fill(server, users, apart=1)
        for n in range(200):
            server.add_group(f"team{n}", f"Team {n}", *(("User", f"u{m}") for m in range(n, users, 200)))
        server.advance(HOUR)
        directory = Directory(server, tmp_path)
        assert directory.whole() == requests
        directory.follow()  # those of the last minutes come twice
        server.advance(HOUR)
        directory.follow()
        server.set_members("team7", ("User", "u8"))
        server.advance(HOUR)
        assert directory.follow() == 7
        assert directory.content.seen == [Ref(Kind.GROUP, "team7")]
        assert directory.agrees()


def test_nothing_new_costs_seven_requests(directory: Directory) -> None:
    """One for the configuration; for each list what is new, whether it still filters, and its length."""
    for _ in range(3):
        directory.server.advance(HOUR)
        requests = directory.follow()
    assert requests == 7
    assert directory.content.seen == []
