"""The description of the socket, OpenAPI 3.1: https://spec.openapis.org/oas/v3.1.0."""

from __future__ import annotations

from typing import Any

from daemon.problems import TYPES

_Json = dict[str, Any]


def _text(description: str = "", **more: Any) -> _Json:
    return {"type": "string", **({"description": description} if description else {}), **more}


def _maybe(schema: _Json) -> _Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(properties: _Json, *optional: str, closed: bool = True) -> _Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": not closed}


def _list(items: _Json) -> _Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


_TIME = _text("RFC 3339, UTC, whole seconds.", format="date-time")
_NUMBER, _WHOLE, _FLAG = {"type": "number"}, {"type": "integer"}, {"type": "boolean"}
_SOURCE = _text("What the owners come from.", enum=["tag", "inherited", "integration"])
_REASON = _text(
    "Why the resource has no owner of its own.",
    enum=[
        "tag_missing",
        "tag_empty",
        "value_unknown",
        "value_ambiguous",
        "principal_inactive",
        "group_empty",
        "owner_not_allowed",
        "directory_never_synced",
    ],
)
_NEXT = _maybe(_text("Opaque; null at the end."))
_DATABASE: _Json = _object({"bytes": _WHOLE, "log_bytes": _WHOLE, "log_held": _FLAG})
_OUTCOME: _Json = {"owners": _list(_ref("Owner")), "source": _SOURCE, "fallback": _FLAG, "reason": _maybe(_REASON)}
_ERROR = _maybe(
    _object(
        {"scope": _text(), "code": _text(), "message": _text(), "remedy": _text(), "retry_after": _NUMBER},
        "scope",
        "retry_after",
    )
)
_GAP: _Json = {"code": _text("Stable."), "message": _text(), "remedy": _text("How to close it, or empty.")}
_SOURCE_STATUS: _Json = {
    "name": _text(),
    "role": _text(enum=["integration", "directory"]),
    "connector": _text(),
    "state": _text("How the last run ended.", enum=["never", "ok", "partial", "failed", "held"]),
    "last_attempt": _maybe(_TIME),
    "last_success": _maybe(_TIME),
    "seen_at": _maybe(_TIME),
    "age": _maybe(_WHOLE),
    "stale": _FLAG,
    "rows": _WHOLE,
    "gaps": _list(_object({**_GAP, "scopes": _WHOLE})),
    "failures": _WHOLE,
    "error": _ERROR,
    "held": _maybe(
        _object(
            {
                "since": _TIME,
                "why": _list(_object({"what": _text(), "subject": _text(), "why": _text()})),
            }
        )
    ),
    "interval": _NUMBER,
    "stale_after": _NUMBER,
    "scopes": _list(
        _object(
            {
                "name": _text(),
                "state": _text(enum=["never", "ok", "failed", "held"]),
                "rows": _WHOLE,
                "seen_at": _maybe(_TIME),
                "age": _maybe(_WHOLE),
                "stale": _FLAG,
                "whole_at": _maybe(_TIME),
                "gaps": _list(_object(_GAP)),
                "error": _ERROR,
            }
        )
    ),
}

_SCHEMAS: _Json = {
    "Resource": _object(
        {
            "id": _text("The provider's own."),
            "integration": _text(),
            "type": _text("The provider's own word."),
            "name": _text(),
            "parent": _maybe(_text("A resource id.")),
        }
    ),
    "Owner": _object(
        {
            "kind": _text(enum=["group", "user", "role", "schedule"]),
            "directory": _text(),
            "id": _text("Immutable."),
            "name": _text(),
            "members": _list(_object({"id": _text(), "email": _maybe(_text()), "name": _text()})),
        },
        "members",
    ),
    "Answer": _object(
        {
            "resource": _ref("Resource"),
            **_OUTCOME,
            "tag": _maybe(_object({"key": _text(), "value": _text(), "resource": _text("The id that has the tag.")})),
            "pending": _object(
                {
                    "tag": _maybe(_object({"key": _text(), "value": _text(), "resource": _text()})),
                    "since": _TIME,
                    "until": _TIME,
                }
            ),
            "changed_at": _TIME,
            "resource_seen_at": _maybe(_TIME),
            "owners_seen_at": _maybe(_TIME),
            "stale": _FLAG,
            "valid_until": _text(
                "RFC 3339. Only in answers that hang on a schedule: its next hand-over.", format="date-time"
            ),
        },
        "valid_until",
        "pending",
    ),
    "Outcome": _object(_OUTCOME),
    "Pending": _object(
        {
            "resource": _object({"id": _text(), "integration": _text()}),
            "since": _TIME,
            "until": _text("RFC 3339: when it comes into force by itself.", format="date-time"),
            "before": _object({"tag": _maybe(_object({"key": _text(), "value": _text()})), **_OUTCOME}),
            "after": _object({"tag": _maybe(_object({"key": _text(), "value": _text()})), **_OUTCOME}),
        }
    ),
    "Change": _object(
        {
            "cursor": _text("Resumes after this change."),
            "at": _TIME,
            "kind": _text(enum=["added", "changed", "removed"]),
            "resource": _object({"id": _text(), "integration": _text()}),
            "before": _maybe(_ref("Outcome")),
            "after": _maybe(_ref("Outcome")),
        }
    ),
    "Finding": _object(
        {
            "id": _WHOLE,
            "integration": _text(),
            "kind": _text(),
            "key": _text(),
            "value": _text(),
            "resources": _WHOLE,
            "examples": _list(_text()),
            "suggestions": _list(_text()),
            "first_seen": _TIME,
            "last_seen": _TIME,
            "resolved_at": _maybe(_TIME),
        }
    ),
    "Step": _object(
        {"step": _text(enum=["key", "inherit", "value", "match", "fit", "fallback", "pending"]), "text": _text()},
        closed=False,
    ),
    "SourceStatus": _object(_SOURCE_STATUS),
    "Problem": _object(
        {
            "type": _text("Stable.", enum=[f"/problems/{kind}" for kind in TYPES]),
            "title": _text(),
            "status": _WHOLE,
            "detail": _text(),
        },
        closed=False,
    ),
}


def _parameter(name: str, description: str, schema: _Json | None = None, *, required: bool = False) -> _Json:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": description,
        "schema": schema or {"type": "string"},
    }


_RESOURCE = _parameter("resource", "Id of the resource.", {"type": "string", "minLength": 1}, required=True)
_INTEGRATION = _parameter("integration", "Name of an integration.")
_CURSOR = _parameter("cursor", "`next` of the page before.")
_LIMIT = _parameter("limit", "Rows a page.", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})
_CACHE_CONTROL: _Json = {
    "name": "Cache-Control",
    "in": "header",
    "required": False,
    "description": "`max-age=N`: an older answer is 503 too-old, unless `stale-if-error=N` allows that much more.",
    "schema": {"type": "string"},
}


_ANY = (
    "bad-request",
    "not-local",
    "peer-not-allowed",
    "method-not-allowed",
    "request-timeout",
    "head-too-long",
    "internal",
    "unavailable",
    "too-many-connections",
)
"""Problems that any call may have."""


def _call(
    summary: str, answer: _Json, *kinds: str, parameters: list[_Json] | None = None, body: _Json | None = None
) -> _Json:
    """One operation. `kinds` are the problems it may answer with, beside those that any may."""
    told: _Json = {"200": {"description": summary, "content": {"application/json": {"schema": answer}}}}
    for kind in (*kinds, *_ANY):
        status, title = TYPES[kind]
        there = told.setdefault(
            str(status),
            {"description": title, "content": {"application/problem+json": {"schema": _ref("Problem")}}},
        )
        if title not in there["description"]:
            there["description"] += f"; {title[0].lower()}{title[1:]}"
    call: _Json = {"summary": summary, "responses": told}
    if parameters:
        call["parameters"] = parameters
    if body:
        call["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return call


_LOOKUP = ("unknown-resource", "ambiguous-resource", "not-yet-known")

OPENAPI: _Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "ownerd",
        "version": "1",
        "summary": "Who owns a cloud resource.",
        "description": "HTTP/1.1 on a Unix socket. Unknown (404) and not known yet (503) are never confused.",
    },
    "servers": [{"url": "http://localhost"}],
    "paths": {
        "/v1/owner": {
            "get": _call(
                "Who owns a resource.",
                _ref("Answer"),
                *_LOOKUP,
                "too-old",
                parameters=[
                    _RESOURCE,
                    _INTEGRATION,
                    _parameter("expand", "`members` adds the active users of each owner.", {"enum": ["members"]}),
                    _CACHE_CONTROL,
                ],
            )
        },
        "/v1/owners": {
            "post": _call(
                "Who owns many resources, in the order asked.",
                _object({"answers": _list({"oneOf": [_ref("Answer"), _ref("Problem")]})}),
                "too-large",
                parameters=[_CACHE_CONTROL],
                body=_object({"resources": {**_list({"type": "string", "minLength": 1}), "maxItems": 1000}}),
            )
        },
        "/v1/resources": {
            "get": _call(
                "Owner rows, by resource id.",
                _object({"resources": _list(_ref("Answer")), "next": _NEXT}),
                parameters=[
                    _parameter("owner", "Name, id or e-mail of an owner."),
                    _INTEGRATION,
                    _parameter("type", "Type of the resource."),
                    _parameter("fallback", "Only those that fall back, or that do not.", _FLAG),
                    _parameter("reason", "Only those with this reason."),
                    _CURSOR,
                    _LIMIT,
                ],
            )
        },
        "/v1/explain": {
            "get": _call(
                "Each step of the rule for a resource.",
                _object(
                    {
                        "resource": _ref("Resource"),
                        "steps": _list(_ref("Step")),
                        "answer": _ref("Answer"),
                        "sources": _list(_ref("SourceStatus")),
                    }
                ),
                *_LOOKUP,
                parameters=[_RESOURCE, _INTEGRATION],
            )
        },
        "/v1/drift": {
            "get": _call(
                "Findings, oldest first.",
                _object({"findings": _list(_ref("Finding")), "next": _NEXT}),
                parameters=[
                    _parameter("state", "", {"enum": ["open", "resolved", "all"], "default": "open"}),
                    _parameter("kind", "Only this kind."),
                    _INTEGRATION,
                    _CURSOR,
                    _LIMIT,
                ],
            )
        },
        "/v1/pending": {
            "get": _call(
                "Changes of tags that wait (`hold_owner_changes`).",
                _object({"pending": _list(_ref("Pending")), "next": _NEXT}),
                parameters=[_parameter("integration", "Of this integration only."), _CURSOR, _LIMIT],
            )
        },
        "/v1/changes": {
            "get": _call(
                "Owner changes, oldest first.",
                _object({"changes": _list(_ref("Change")), "next": _NEXT}),
                "cursor-expired",
                parameters=[_parameter("after", "`cursor` of the last change seen, or `next`."), _LIMIT],
            )
        },
        "/v1/status": {
            "get": _call(
                "Every source.",
                _object({"now": _TIME, "database": _DATABASE, "sources": _list(_ref("SourceStatus"))}),
            )
        },
        "/healthz": {"get": _call("Alive.", _object({"status": {"const": "ok"}}))},
        "/readyz": {"get": _call("Every source has been read.", _object({"status": {"const": "ready"}}), "not-ready")},
        "/metrics": {
            "get": {
                "summary": "Prometheus text.",
                "responses": {"200": {"description": "Metrics.", "content": {"text/plain": {"schema": _text()}}}},
            }
        },
        "/openapi.json": {"get": _call("This description.", {"type": "object"})},
    },
    "components": {"schemas": _SCHEMAS},
}
