"""The description of the socket, fuzzed by schemathesis against the real server."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from daemon.serve.openapi import OPENAPI
from tests.harness import World, configuration, integration, owned_by, resource, team, user
from tests.serving import serving_on

EXAMPLES = int(os.environ.get("OWNERD_FUZZ_EXAMPLES", "60"))
"""Requests of each kind, a page."""

schema = schemathesis.openapi.from_dict(OPENAPI)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server over a world in which all is known. On a TCP port: what fuzzes speaks no Unix sockets."""
    world = World(
        tmp_path_factory.mktemp("world"), configuration(integration("aws"), integration("gcp", owned_by("team")))
    )
    world.run("corp", *team("team-a", "ada"), *team("platform", "pia"), user("zed", active=False))
    world.run("aws", *(resource(f"r{i}", "team-a" if i % 2 else f"nobody-{i}") for i in range(250)))
    world.run("gcp", resource("r1", team="team-b"), resource("0", team="team-a"))
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    with serving_on(listening, world.store.path, world.clock):
        yield f"http://127.0.0.1:{port}"
    world.close()


@schema.parametrize()
@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_described(url: str, case: schemathesis.Case[Any]) -> None:
    """Whatever is asked, by the description or against it: no fault, and no answer that it does not know."""
    # A name of no integration or a cursor of no list is a string as any other, and refused all the same.
    case.call_and_validate(base_url=url, excluded_checks=[positive_data_acceptance])
