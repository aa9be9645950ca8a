"""The bytes of an answer. Pure.

An answer is a head, rendered when the row changes, and a tail of ages, which belong to the sources and are put in when
it is read. The head ends after `changed_at`; `tail` is the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from daemon.rule import Owner, Reason
from daemon.text import json_text


def rfc3339(at: float | None) -> str | None:
    """Seconds since the epoch as `2026-11-23T08:00:00Z`; fractions are cut off."""
    return None if at is None else _rfc3339(int(at))


@lru_cache(1024)  # few moments are told often: a publish has one, and so has each scope
def _rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def outcome_fragment(owners: Sequence[Owner], source: str, *, fallback: bool, reason: Reason | None) -> str:
    """The members of an answer that many rows share, without braces."""
    who = [{"kind": o.kind, "directory": o.directory, "id": o.id, "name": o.name} for o in owners]
    return json_text({"owners": who, "source": source, "fallback": fallback, "reason": reason})[1:-1]


def answer_head(
    resource: tuple[str, str, str, str, str | None],
    outcome: str,
    tag: tuple[str, str, str] | None,
    changed_at: float,
    pending: tuple[tuple[str, str, str] | None, float, float] | None = None,
) -> bytes:
    """All of an answer but its tail.

    `resource`: id, integration, type, name, parent. `outcome`: an `outcome_fragment`. `tag`: key, value, and the id
    of the resource that has it. `pending`: the tag that waits to decide in its place, since when, and until when.
    """
    rid, integration, kind, name, parent = resource
    told = json_text({"id": rid, "integration": integration, "type": kind, "name": name, "parent": parent})
    waits = ""
    if pending is not None:
        new, since, until = pending
        waits = f',"pending":{{"tag":{_tag(new)},"since":"{rfc3339(since)}","until":"{rfc3339(until)}"}}'
    return f'{{"resource":{told},{outcome},"tag":{_tag(tag)}{waits},"changed_at":"{rfc3339(changed_at)}"'.encode()


def _tag(tag: tuple[str, str, str] | None) -> str:
    return "null" if tag is None else json_text({"key": tag[0], "value": tag[1], "resource": tag[2]})


def answer_tail(
    resource_seen_at: float | None, owners_seen_at: float | None, *, stale: bool, valid_until: float | None = None
) -> bytes:
    """The ages, and the closing brace. `valid_until` stands only in answers that hang on a schedule."""
    told: dict[str, str | bool | None] = {
        "resource_seen_at": rfc3339(resource_seen_at),
        "owners_seen_at": rfc3339(owners_seen_at),
        "stale": stale,
    }
    if valid_until is not None:
        told["valid_until"] = rfc3339(valid_until)
    return f",{json_text(told)[1:]}".encode()
