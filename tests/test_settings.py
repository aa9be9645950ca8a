"""The configuration: every problem at once, each with its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from config.problems import ConfigurationError
from config.secrets import resolve
from config.settings import ATTRIBUTE_HELP, json_schema, load_settings, parse_settings
from connectors.errors import Misconfigured
from connectors.options import HttpOptions, Options, Secret, parse_duration
from connectors.registry import INTEGRATIONS
from tests.harness import configuration, integration, owned_by

HERE = Path("test.toml")


def problems(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_settings(document, HERE)
    return [str(p) for p in caught.value.problems]


def test_every_problem_at_once_each_with_its_place() -> None:
    document = configuration(
        integration("aws", owned_by(directory="okat"), interval="5 minutes"),
        integration("aws", {"key": [], "directory": "corp", "attribute": "groupname"}),
        directories=("corp", "okta"),
        daemon={"socket_mod": "0660"},
        guard={"max_removed": 3},
        gaurd={},
    )
    document["integrations"][1]["integration_owner"][0]["values"] = []
    assert problems(document) == [
        'gaurd: unknown table "gaurd"; did you mean "guard"?',
        'daemon.socket_mod: unknown key "socket_mod"; did you mean "socket_mode"?',
        "guard.max_removed: Input should be less than or equal to 1",
        'integrations[0].interval: not a duration: write it like "30s", "5m", "1h30m" or "14d"',
        "integrations[1].resource_owner[0].key: Value should have at least 1 item after validation, not 0",
        f"integrations[1].resource_owner[0].attribute: {ATTRIBUTE_HELP}",
        "integrations[1].integration_owner[0].values: List should have at least 1 item after validation, not 0",
        'integrations[1].name: "aws" is the name of integrations[0] too; names are unique',
        'integrations[0].resource_owner[0].directory: no directory named "okat"; did you mean "okta"?',
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"connector": "fiel"}, 'integrations[0].connector: no connector named "fiel"; did you mean "file"?'),
        ({"connector": "okta"}, 'integrations[0].connector: "okta" reads no resources'),
        ({"connector": None}, f"integrations[0].connector: missing; one of {', '.join(sorted(INTEGRATIONS))}"),
        ({"pth": "x"}, 'integrations[0].pth: unknown key "pth"; did you mean "path"?'),
        ({"name": "a b"}, "integrations[0].name: a name is 1 to 64 letters, digits, dots, hyphens and underscores, and starts with no mark"),
        ({"integration_owner": {}}, "integrations[0].integration_owner: write [[integrations.integration_owner]], with two brackets"),
        ({"integration_owner": []}, "integrations[0].integration_owner: List should have at least 1 item after validation, not 0"),
    ],
)  # fmt: skip
def test_one_problem(change: dict[str, Any], problem: str) -> None:
    assert problems(configuration({**integration(), **change})) == [problem]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "daemon.allow_uids: List should have at least 1 item after validation, not 0"),
        (["no-such-user"], 'daemon.allow_uids[0]: this host has no user "no-such-user"'),
        ([-1], "daemon.allow_uids[0]: write the number or the name of a user"),
        ([True], "daemon.allow_uids[0]: write the number or the name of a user"),
        ([2**32 - 1], "daemon.allow_uids[0]: write the number or the name of a user"),
    ],
)
def test_users_who_may_ask(value: list[Any], problem: str) -> None:
    """A name that is none must not become a list that permits nobody, or anybody."""
    assert problems(configuration(integration(), daemon={"allow_uids": value})) == [problem]


def test_users_and_groups_by_name() -> None:
    daemon = parse_settings(
        configuration(integration(), daemon={"allow_uids": ["root", 7], "allow_gids": ["root"]}), Path("test.toml")
    ).daemon
    assert (daemon.allow_uids, daemon.allow_gids) == ([0, 7], [0])


def test_an_integration_is_needed() -> None:
    assert problems({}) == ["integrations: at least one [[integrations]] table is needed"]


def test_a_literal_secret_is_refused_and_not_shown() -> None:
    document = configuration(integration())
    document["directories"] = [
        {"name": "corp", "connector": "okta", "org_url": "https://a.okta.com", "token": "s3cret"}
    ]
    found = problems(document)
    assert len(found) == 1
    assert found[0].startswith("directories[0].token: a literal secret is refused")
    assert "s3cret" not in found[0]


@pytest.mark.parametrize("url", ["http://example.org", "ftp://example.org", "https://", "example.org"])
def test_plain_http_is_for_loopback_only(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        HttpOptions(endpoint=url)
    for local in ("http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "https://example.org"):
        assert HttpOptions(endpoint=local).endpoint == local


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("14d", 1_209_600), ("250ms", 0.25), (7, 7)]
)
def test_durations(text: Any, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_unreadable_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_settings(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = [")
    with pytest.raises(ConfigurationError, match="not TOML: Invalid value"):
        load_settings(broken)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    settings = parse_settings(configuration(integration()), HERE)
    assert (settings.database, settings.socket) == (Path("var/ownerd.db"), Path("var/ownerd.sock"))
    assert settings.integrations["aws"].interval == 900
    assert settings.directories["corp"].interval == 300
    assert settings.directories["corp"].stale == 1200
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/ownerd")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/ownerd")
    assert (settings.database, settings.socket) == (Path("/var/lib/ownerd/ownerd.db"), Path("/run/ownerd/ownerd.sock"))


def test_the_schema_accepts_what_is_accepted() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    good = configuration(integration("aws", owned_by(["owner", "team"], split=","), interval="5m"))
    jsonschema.validate(good, schema)
    good["integrations"][0]["pth"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good, schema)


class Holder(Options):
    token: Secret


def test_secrets_come_from_where_they_are_said_to(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("from file\n")
    environ = {"TOKEN": "from env", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    for reference, expected in (
        ({"file": str(path)}, "from file"),
        ({"env": "TOKEN"}, "from env"),
        ({"credential": "token"}, "from file"),
    ):
        options = Holder.model_validate({"token": reference})
        resolve(options, environ)
        assert options.token.value == expected
        assert expected not in repr(options)
        assert expected not in options.model_dump_json()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"env": "NOPE"}, 'token: the environment variable "NOPE" is not set'),
        ({"credential": "x"}, r"CREDENTIALS_DIRECTORY is not set"),
        ({"file": "/nonexistent"}, "No such file"),
        ({"file": os.devnull}, "is empty"),
    ],
)
def test_a_secret_that_cannot_be_had(reference: dict[str, str], message: str) -> None:
    with pytest.raises(Misconfigured, match=message):
        resolve(Holder.model_validate({"token": reference}), {})


@pytest.mark.parametrize("reference", [{}, {"env": "A", "file": "/b"}])
def test_a_secret_names_one_place(reference: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="exactly one of"):
        Holder.model_validate({"token": reference})
