"""Errors as RFC 9457 problem details, with stable types."""

from __future__ import annotations

from typing import Any

from daemon import problems
from daemon.text import json_bytes


class Problem(Exception):
    """A request that has no answer, and why. `more` are extension members of the body."""

    def __init__(self, kind: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status = problems.TYPES[kind][0]
        self.body = problems.body(kind, detail, **more)

    @classmethod
    def of(cls, body: problems.Body) -> Problem:
        """The problem with this body."""
        told = {name: value for name, value in body.items() if name not in {"type", "title", "status", "detail"}}
        return cls(body["type"].rpartition("/")[2], body["detail"], **told)

    def to_json(self) -> bytes:
        """The body."""
        return json_bytes(self.body)
