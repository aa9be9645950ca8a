"""Exit codes, and what to do about each error. Scripts rely on the codes."""

from __future__ import annotations

from typing import Any

from daemon.client import AmbiguousResource, LookupProblem, NotYetKnown, TooOld, UnknownResource
from daemon.errors import OwnerdError

FAILED, USAGE, UNKNOWN, NOT_YET, HELD = 1, 2, 3, 4, 5
INTERRUPTED = 130

_REMEDIES = {
    "unknown-resource": "check the id: it is the provider's own, to the letter; `ownerd status` shows what is read",
    "not-yet-known": "`ownerd status` shows what has not been read",
    "too-old": "`ownerd status` shows why its source was not read since; `ownerd sync` reads it now",
    "ambiguous-resource": "name one of them with --integration",
    "cursor-expired": "read everything again (`ownerd changes` without --after), and go on from its last cursor",
    "unavailable": "the server's log says more: `journalctl -u ownerd`",
    "internal": "the server's log says more: `journalctl -u ownerd`",
}


def exit_code(error: OwnerdError) -> int:
    """The exit code for an error."""
    if isinstance(error, UnknownResource):
        return UNKNOWN
    if isinstance(error, NotYetKnown | TooOld):
        return NOT_YET
    if isinstance(error, LookupProblem) and error.kind == "bad-request":
        return USAGE
    return FAILED


def remedies(error: OwnerdError) -> list[str]:
    """What to do, a line each."""
    if error.remedy or not isinstance(error, LookupProblem):
        return [error.remedy]
    told = [_unread(source) for source in error.body.get("sources", ()) if isinstance(source, dict)]
    if isinstance(error, AmbiguousResource) and (names := error.body.get("integrations")):
        return [f"name one of them: --integration {' or --integration '.join(map(str, names))}"]
    return [*told, _REMEDIES.get(error.kind, "")]


def _unread(source: dict[str, Any]) -> str:
    """Why a source has not been read yet: `{"name", "error": {"code", "message", "remedy"} or null}`."""
    name, why = source.get("name"), source.get("error")
    if not isinstance(why, dict):
        return f"{name}: its first reading has not ended; try again soon"
    remedy = f"; {why['remedy']}" if why.get("remedy") else ""
    return f"{name} failed: {why.get('message')}{remedy}"
