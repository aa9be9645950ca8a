"""What is said where a lookup has no answer: problem details (RFC 9457), with stable types. Pure.

The server and the direct reader of `daemon.client` both speak so; for its sake, nothing but the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]

TYPES: Mapping[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be understood"),
    "not-local": (403, "The request comes from a browser, or through another host's name"),
    "peer-not-allowed": (403, "The user of the process that asks may not"),
    "not-found": (404, "There is no such page"),
    "unknown-resource": (404, "No source has this resource"),
    "method-not-allowed": (405, "The page does not answer to this method"),
    "request-timeout": (408, "The request took too long to arrive"),
    "ambiguous-resource": (409, "Integrations disagree about this resource"),
    "cursor-expired": (410, "The cursor is older than what is kept"),
    "too-large": (413, "The request is too large"),
    "head-too-long": (431, "The request line and its headers are too long"),
    "not-yet-known": (503, "Not known yet"),
    "too-old": (503, "The answer is older than was asked for"),
    "not-ready": (503, "Not every source has been read yet"),
    "too-many-connections": (503, "Too many requests are being answered"),
    "unavailable": (503, "The database cannot be read"),
    "internal": (500, "A fault in ownerd"),
}
"""Each type's status and title."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source, as far as lookups need it. `whole`: every scope it has was read at least once; `error`: JSON."""

    id: int
    name: str
    role: str
    position: int
    prefixes: tuple[str, ...]
    whole: bool
    error: str | None

    def could_hold(self, key: str) -> bool:
        """Whether it is an integration that a resource of this key could come from."""
        return self.role == "integration" and (
            not self.prefixes or key.lower().startswith(tuple(p.lower() for p in self.prefixes))
        )


def body(kind: str, detail: str, **more: Any) -> Body:
    """A problem's body. `more` are extension members."""
    status, title = TYPES[kind]
    return {"type": f"/problems/{kind}", "title": title, "status": status, "detail": detail, **more}


def absent(
    resource: str, key: str, integration: str | None, sources: Iterable[Source], *, superseded: bool = False
) -> Body:
    """No row: unknown, or only not known yet. While a source that could have it was never read, nobody can tell.

    `superseded`: the database was set aside, and the one in its place is not filled yet.
    """
    if superseded:
        why = "the database that was set aside does not have this resource, and the new one is not filled yet"
        return body("not-yet-known", why, resource=resource, sources=[])
    known = list(sources)
    unread = [s for s in known if s.could_hold(key) and not s.whole and integration in {None, s.name}]
    if unread or not known:
        names = ", ".join(s.name for s in unread) or "no source"
        return body(
            "not-yet-known",
            f"no integration has this resource so far, and {names} has not been read whole yet",
            resource=resource,
            sources=list(map(_unread, unread)),
        )
    return body("unknown-resource", "no integration has this resource", resource=resource)


def waits(resource: str, integration: str, sources: Iterable[Source]) -> Body:
    """A row that waits for a directory that was never read."""
    unread = [s for s in sources if s.role == "directory" and not s.whole]
    names = ", ".join(s.name for s in unread) or "a directory"
    return body(
        "not-yet-known",
        f"the resource is known, its owner is not: {names} has not been read whole yet",
        resource=resource,
        integration=integration,
        reason="directory_never_synced",
        sources=list(map(_unread, unread)),
    )


def _unread(source: Source) -> Body:
    return {"name": source.name, "error": json.loads(source.error) if source.error else None}


def ambiguous(resource: str, integrations: Iterable[str]) -> Body:
    """Rows of several integrations, with different owners."""
    names: Sequence[str] = sorted(integrations)
    return body(
        "ambiguous-resource",
        f"the integrations {', '.join(names)} have this resource, and give it different owners;"
        " name one with `integration`",
        resource=resource,
        integrations=names,
    )


def too_old(resource: str, age: float, oldest: float) -> Body:
    """A row that rests on something older than was asked for, in seconds."""
    return body(
        "too-old",
        f"it rests on what was read {age:.0f} s ago; at most {oldest:.0f} s was asked for",
        resource=resource,
        age=int(age),
    )


def no_integration(name: str) -> Body:
    """An integration was named that is not configured."""
    return body("bad-request", f'no integration is named "{name}"')
