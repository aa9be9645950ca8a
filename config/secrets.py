"""The one place where a secret reference becomes a secret."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from connectors.errors import Misconfigured
from connectors.options import Secret


def resolve(options: BaseModel, environ: Mapping[str, str] = os.environ) -> None:
    """Read every secret that `options` refer to, in place. Misconfigured names the one that cannot be had."""
    for option, secret in _secrets(options, ""):
        secret._value = _read(option, secret, environ)  # noqa: SLF001  # the holder is ours to fill


def _secrets(model: BaseModel, path: str) -> Iterator[tuple[str, Secret]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        place = f"{path}.{name}" if path else name
        if isinstance(value, Secret):
            yield place, value
        elif isinstance(value, BaseModel):
            yield from _secrets(value, place)


def _read(option: str, secret: Secret, environ: Mapping[str, str]) -> str:
    if secret.env is not None:
        if not (found := environ.get(secret.env)):
            raise Misconfigured(
                f'{option}: the environment variable "{secret.env}" is not set',
                remedy=f"set {secret.env} for the process that polls",
            )
        return found
    if secret.credential is not None:
        folder = environ.get("CREDENTIALS_DIRECTORY")
        if folder is None:
            raise Misconfigured(
                f'{option}: no credential "{secret.credential}": $CREDENTIALS_DIRECTORY is not set',
                remedy=f"add LoadCredential={secret.credential}:/path to ownerd-poll.service",
            )
        path = Path(folder, secret.credential)
    else:
        path = secret.file or Path()
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{option}: {path} is not UTF-8 text") from error
    except OSError as error:
        raise Misconfigured(
            f"{option}: {secret.place}: {error.strerror}: {path}",
            remedy="the file must exist and be readable by ownerd's user",
        ) from error
    text = text.rstrip("\r\n")
    if not text:
        raise Misconfigured(f"{option}: {secret.place} is empty")
    return text
