"""An integration's rules as the database keeps them."""

from __future__ import annotations

import json

from connectors.values import Kind
from daemon.rule import Rule
from daemon.rules import Rules

RULES = Rules(
    inherit=False,
    resource_owner=(
        Rule(("owner", "team"), "corp", "group.name", ",", ("team-*", "g1")),
        Rule(("mail",), "hr", "manager.email"),
        Rule(("none",), "hr", "user.department", allowed=()),
    ),
    integration_owner=(
        (Rule((), "corp", "role.id"), ("r1", "r2")),
        (Rule((), "calls", "schedule.name"), ("on call",)),
    ),
)


def test_they_come_back_as_they_were() -> None:
    """Nothing is lost on the way through the database: who is allowed, least of all."""
    assert Rules.from_json(RULES.to_json()) == RULES
    nothing = Rules(inherit=True, resource_owner=(), integration_owner=())
    assert Rules.from_json(nothing.to_json()) == nothing


def test_nobody_allowed_is_not_everybody() -> None:
    """An empty list and none at all stay apart."""
    closed, open_ = Rules.from_json(RULES.to_json()).resource_owner[2], Rule(("none",), "hr", "user.department")
    assert closed.allowed == ()
    assert closed != open_


def test_the_text_is_what_older_databases_hold() -> None:
    """Its names and their order are a format: rules are taken for changed where the text differs."""
    assert RULES.to_json() == json.dumps(
        {
            "inherit": False,
            "resource_owner": [
                {
                    "keys": ["owner", "team"],
                    "directory": "corp",
                    "attribute": "group.name",
                    "split": ",",
                    "allowed": ["team-*", "g1"],
                },
                {"keys": ["mail"], "directory": "hr", "attribute": "manager.email", "split": None, "allowed": None},
                {"keys": ["none"], "directory": "hr", "attribute": "user.department", "split": None, "allowed": []},
            ],
            "integration_owner": [
                {"directory": "corp", "attribute": "role.id", "values": ["r1", "r2"]},
                {"directory": "calls", "attribute": "schedule.name", "values": ["on call"]},
            ],
        },
        separators=(",", ":"),
    )


def test_what_is_matched_against() -> None:
    """Of each directory the fields that any rule looks at, the integration owner's too; a manager is found by a user."""
    assert RULES.used() == {
        ("corp", Kind.GROUP, "name"),
        ("hr", Kind.USER, "email"),
        ("hr", Kind.USER, "department"),
        ("corp", Kind.ROLE, "id"),
        ("calls", Kind.SCHEDULE, "name"),
    }
    assert RULES.kinds() == {
        ("corp", Kind.GROUP),
        ("hr", Kind.USER),
        ("corp", Kind.ROLE),
        ("calls", Kind.SCHEDULE),
    }
