"""Log lines: structlog, to standard error; JSON for machines, aligned text for people.

The libraries' own loggers go through the same formatter. No value reaches a line raw, see `daemon.text`, and no secret
at all, see `daemon.redact`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from daemon.redact import redacted
from daemon.text import json_text, printable

_QUIET = ("apscheduler", "uvicorn", "asyncio", "urllib3", "botocore", "boto3", "okta", "aiohttp", "httpx", "ldap3")
"""Loggers that may only warn: what they say below that is noise, and may hold credentials."""


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    safe: MutableMapping[str, Any] = redacted(dict(event))
    return safe


def _harmless(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: _safe(value) for key, value in event.items()}


def _safe(value: Any) -> Any:
    match value:
        case str():
            return "\n".join(map(printable, value.split("\n"))) if "Traceback" in value else printable(value)
        case list() | tuple():
            return [_safe(item) for item in value]
        case dict():
            return {key: _safe(item) for key, item in value.items()}
        case _:
            return value


def _json(event: Any, **_options: Any) -> str:
    return json_text(
        {k: v if isinstance(v, str | int | float | list | dict | None) else str(v) for k, v in event.items()}
    )


def configure(log_format: str, log_level: str) -> None:
    """Set logging up, once a process."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    final: list[Any] = (
        [
            structlog.processors.UnicodeDecoder(),
            structlog.processors.EventRenamer("event"),
            structlog.processors.JSONRenderer(serializer=_json),
        ]
        if log_format == "json"
        else [
            _harmless,
            # The default one shows the variables of every frame, where structlog finds rich.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
    # A traceback is made text here, before secrets are taken out, since errors quote what they were given.
    final = [structlog.processors.format_exc_info, _without_secrets, *final]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(log_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(log_level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns of every run that is skipped since the one before is still at work, which is as it should be.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
