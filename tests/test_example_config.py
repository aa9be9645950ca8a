"""config/example.toml and docs/configuration.md: complete, and true."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from config.settings import (
    ROLES,
    Daemon,
    Directory,
    Guard,
    Integration,
    IntegrationOwner,
    ResourceOwner,
    Role,
    load_settings,
    parse_settings,
    source_model,
)
from connectors.options import HttpOptions
from connectors.registry import load

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "config" / "example.toml"
PAGE = ROOT / "docs" / "configuration.md"
TABLES: dict[Role, str] = {"directory": "directories", "integration": "integrations"}
KINDS = [(role, kind) for role, kinds in ROLES.items() for kind in kinds]


def uncommented() -> dict[str, Any]:
    """The example with every option on: `#option`, not `# text for people`."""
    return tomllib.loads(re.sub(r"^#(?=[^ \n#])", "", EXAMPLE.read_text(), flags=re.MULTILINE))


def tables_of(role: Role, kind: str) -> list[dict[str, Any]]:
    return [table for table in uncommented()[TABLES[role]] if table["connector"] == kind]


def defaults_shown(model: type[BaseModel], table: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Option, default, and the value shown, of each option that has a default."""
    shown = model.model_validate(table)
    for name, field in model.model_fields.items():
        if name in table and field.default not in {None, PydanticUndefined}:
            yield name, field.default, getattr(shown, name)


def test_it_loads() -> None:
    """As it stands it is a configuration: AWS and Okta."""
    settings = load_settings(EXAMPLE)
    assert [source.settings.connector for source in settings.sources] == ["okta", "aws"]


def test_with_every_option_on_it_loads() -> None:
    """Nothing that it offers is refused."""
    settings = parse_settings(uncommented(), EXAMPLE)
    assert {(s.role, s.settings.connector) for s in settings.sources} == set(KINDS)


@pytest.mark.parametrize(("role", "kind"), KINDS)
def test_it_has_every_option_of_every_connector(role: Role, kind: str) -> None:
    """An option that is added is missed here. What all, or all that speak HTTP, take stands once."""
    tables = tables_of(role, kind)
    assert tables, f"no {role} of connector {kind}"
    own = set(load(ROLES[role][kind]).Options.model_fields) - set(HttpOptions.model_fields)
    assert own <= {name for table in tables for name in table}


@pytest.mark.parametrize(("role", "model"), [("directory", Directory), ("integration", Integration)])
def test_it_has_every_option_that_all_sources_take(role: Role, model: type[BaseModel]) -> None:
    """Once a role."""
    shown = {name for table in uncommented()[TABLES[role]] for name in table}
    assert {*model.model_fields, *HttpOptions.model_fields} <= shown


@pytest.mark.parametrize("model", [Daemon, Guard, ResourceOwner, IntegrationOwner])
def test_it_has_every_option_of_every_other_table(model: type[BaseModel]) -> None:
    """So are those of the daemon, the guard and the mappings."""
    document = uncommented()
    found: dict[type[BaseModel], list[dict[str, Any]]] = {
        Daemon: [document["daemon"]],
        Guard: [document["guard"]],
        ResourceOwner: [m for i in document["integrations"] for m in i["resource_owner"]],
        IntegrationOwner: [m for i in document["integrations"] for m in i["integration_owner"]],
    }
    assert set(model.model_fields) == {name for table in found[model] for name in table}


def test_the_defaults_shown_are_the_defaults() -> None:
    """What stands after a `#` is what holds without it."""
    document = uncommented()
    shown = [*defaults_shown(Daemon, document["daemon"]), *defaults_shown(Guard, document["guard"])]
    for role, kind in KINDS:
        for table in tables_of(role, kind):
            shown += defaults_shown(source_model(role, kind), table)
            if "stale_after" in table:
                settings = source_model(role, kind).model_validate(table)
                assert settings.stale == 4 * settings.interval
    assert len(shown) > 12
    assert [(name, value) for name, default, value in shown if value != default] == []


@pytest.mark.parametrize("model", [Daemon, Guard, Directory, Integration, ResourceOwner, IntegrationOwner])
def test_the_page_tells_every_option_and_its_default(model: type[BaseModel]) -> None:
    """docs/configuration.md has a row for each; connectors' own options have pages of their own."""
    rows = {m[1]: m[0] for m in re.finditer(r"^\| `(\w+)` \|.*$", PAGE.read_text(), re.MULTILINE)}
    for name, field in model.model_fields.items():
        assert name in rows, name
        if isinstance(field.default, str):
            assert f"`{field.default}`" in rows[name] or f'`"{field.default}"`' in rows[name], name
