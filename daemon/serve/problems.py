"""Errors as RFC 9457 problem details, with stable types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemon.text import json_bytes

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


class Problem(Exception):
    """A request that has no answer, and why. `more` are extension members of the body."""

    def __init__(self, kind: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status, title = TYPES[kind]
        self.body = {"type": f"/problems/{kind}", "title": title, "status": self.status, "detail": detail, **more}

    def to_json(self) -> bytes:
        """The body."""
        return json_bytes(self.body)
