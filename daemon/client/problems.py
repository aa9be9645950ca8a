"""The errors of lookups, and what both ways of asking refuse alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daemon import problems
from daemon.errors import OwnerdError


class LookupProblem(OwnerdError):
    """A request that has no answer. `kind` is the problem's type without `/problems/`; `body` is all of it."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = dict(body)
        self.kind = str(body.get("type", "")).rpartition("/")[2]
        super().__init__(str(body.get("detail") or body.get("title") or "the server failed"))


class UnknownResource(LookupProblem):
    """Every integration that could have it was read whole, and none has it."""


class NotYetKnown(LookupProblem):
    """A source that bears on the answer was never read whole."""


class TooOld(LookupProblem):
    """The answer is older than was asked for."""


class AmbiguousResource(LookupProblem):
    """Several integrations have it, and give it different owners."""


_PROBLEMS: Mapping[str, type[LookupProblem]] = {
    "unknown-resource": UnknownResource,
    "not-yet-known": NotYetKnown,
    "too-old": TooOld,
    "ambiguous-resource": AmbiguousResource,
}


def problem_of(body: Mapping[str, Any]) -> LookupProblem:
    """The error for a problem's body."""
    kind = str(body.get("type", "")).rpartition("/")[2]
    return _PROBLEMS.get(kind, LookupProblem)(body)


def bad_request(detail: str) -> LookupProblem:
    """What cannot be asked at all."""
    return problem_of(problems.body("bad-request", detail))


def check_ids(resources: Sequence[str]) -> None:
    """LookupProblem for an id that is empty or no Unicode text; TypeError for one text in place of a list."""
    if isinstance(resources, str):
        raise TypeError("get_many takes a list of ids, not one id")
    if not all(resources):
        raise bad_request("an id is empty")
    try:
        "".join(resources).encode()
    except UnicodeEncodeError as error:
        raise bad_request(f"{error.object[error.start : error.end]!r} is not Unicode text") from error
