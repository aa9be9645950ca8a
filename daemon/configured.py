"""Settings, as the rule, the guard and the store want them."""

from __future__ import annotations

from typing import Any

import orjson

from config.settings import Configured, Directory, Integration, Settings
from daemon.guard import Limits
from daemon.rule import Rule
from daemon.rules import Rules
from daemon.store.sources import SourceRow


def rules_of(integration: Integration) -> Rules:
    """An integration's settings, as the rule wants them."""
    return Rules(
        integration.inherit,
        tuple(
            Rule(r.key, r.directory, r.attribute, r.split, None if r.allowed is None else tuple(r.allowed))
            for r in integration.resource_owner
        ),
        tuple((Rule((), o.directory, o.attribute), tuple(o.values)) for o in integration.integration_owner),
    )


def limits_of(source: Configured, settings: Settings) -> Limits:
    """The guard's limits for a source: its own, else everybody's."""
    removed, changes = source.settings.max_removed, None
    if isinstance(source.settings, Integration):
        changes = source.settings.max_owner_changes
    return Limits(
        settings.guard.max_removed if removed is None else removed,
        settings.guard.max_owner_changes if changes is None else changes,
    )


def source_row(source: Configured, rules: dict[str, Rules], used: set[tuple[str, Any, str]]) -> SourceRow:
    """A source as the store has it. `rules`: by integration; `used`: directory, kind and field of what they match."""
    if source.role == "integration":
        text = rules[source.name].to_json()
    else:
        text = orjson.dumps(sorted((str(k), f) for d, k, f in used if d == source.name)).decode()
    it = source.settings
    return SourceRow(
        source.name,
        source.role,
        it.connector,
        it.interval,
        it.stale,
        source.entry.prefixes,
        text,
        rename_grace=it.rename_grace if isinstance(it, Directory) else 0.0,
        hold=it.hold_owner_changes if isinstance(it, Integration) else 0.0,
    )
