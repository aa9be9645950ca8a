"""The options every connector builds on: strict models, durations, secret references, HTTP settings."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(value: Any) -> Any:
    """Seconds from `"90s"`, `"5m"`, `"1h30m"` or a number of seconds."""
    if isinstance(value, str):
        if not _DURATION.fullmatch(value):
            raise PydanticCustomError("duration", 'not a duration: write it like "30s", "5m", "1h30m" or "14d"')
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    return value


_WRITTEN = {"type": "string", "pattern": f"^{_DURATION.pattern}$"}
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0, allow_inf_nan=False),
    WithJsonSchema({"anyOf": [_WRITTEN, {"type": "number", "exclusiveMinimum": 0}]}),
]
"""A length of time in seconds; written `"5m"` in the configuration."""
DurationOrNone = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0, allow_inf_nan=False),
    WithJsonSchema({"anyOf": [_WRITTEN, {"type": "number", "minimum": 0}]}),
]
"""The same, where 0 means not at all."""


_SIZES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"(\d{1,6})(KiB|MiB|GiB)")


def _parse_size(value: Any) -> Any:
    """Bytes from `"512MiB"` or a number of bytes."""
    if isinstance(value, str):
        found = _SIZE.fullmatch(value)
        if found is None:
            raise PydanticCustomError("size", 'not a size: write it like "512MiB" or "2GiB"')
        return int(found[1]) * _SIZES[found[2]]
    return value


Size = Annotated[
    int,
    BeforeValidator(_parse_size),
    Field(gt=0),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{_SIZE.pattern}$"}, {"type": "integer", "minimum": 1}]}),
]
"""A number of bytes; written `"512MiB"` in the configuration."""


class Strict(BaseModel):
    """A model that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Secret(Strict):
    """A reference to a secret. The value comes from `config.secrets.resolve`, in the process that needs it."""

    credential: str | None = Field(None, description="Name of a systemd credential (LoadCredential=).")
    env: str | None = Field(None, description="Name of an environment variable.")
    file: Path | None = Field(None, description="Path of a file that holds the secret and nothing else.")

    _value: str | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _no_literal(cls, data: Any) -> Any:
        if isinstance(data, str):
            raise PydanticCustomError(
                "literal_secret",
                "a literal secret is refused, since configuration files are copied and logged: write "
                '{{ credential = "NAME" }}, {{ env = "NAME" }} or {{ file = "/path" }}',
            )
        return data

    @model_validator(mode="after")
    def _one_of(self) -> Secret:
        if sum(x is not None for x in (self.credential, self.env, self.file)) != 1:
            raise PydanticCustomError("secret_reference", "name exactly one of credential, env and file")
        return self

    @property
    def value(self) -> str:
        """The secret itself. RuntimeError before `config.secrets.resolve` has run over the options."""
        if self._value is None:
            msg = "secret read before it was resolved"
            raise RuntimeError(msg)
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.place})"

    __str__ = __repr__

    @property
    def place(self) -> str:
        """Where the secret comes from, for messages: `credential "okta-token"`."""
        for name in ("credential", "env", "file"):
            if (value := getattr(self, name)) is not None:
                return f'{name} "{value}"'
        return "nowhere"


class Options(Strict):
    """The base of every connector's own options."""


class HttpOptions(Options):
    """What every connector that speaks HTTP takes."""

    endpoint: str | None = Field(None, description="Base URL; default: the vendor's. Plain http only to loopback.")
    ca_file: Path | None = Field(None, description="PEM bundle to trust instead of the system's.")
    proxy: str | None = Field(None, description="URL of an HTTP proxy.")
    timeout: Duration = Field(30.0, description="Limit for one request.")

    @model_validator(mode="after")
    def _tls(self) -> HttpOptions:
        for name in ("endpoint", "org_url"):
            url = getattr(self, name, None)
            if url is not None:
                require_tls(url, name)
        return self


def require_tls(url: str, option: str) -> None:
    """Refuse a URL that would send credentials in the clear; plain http is for loopback only."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or not parts.hostname:
        raise PydanticCustomError("url", "{option} must be an https:// URL", {"option": option})
    host = parts.hostname
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise PydanticCustomError(
            "plain_http", "{option} must use https: plain http is accepted to loopback only", {"option": option}
        )
