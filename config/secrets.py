"""The one place where a secret reference becomes a secret."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from config.permissions import unsafe
from connectors.errors import Misconfigured
from connectors.options import Secret

_SECRET_NAME = re.compile(r"(?:SECRET|ACCESS_KEY|TOKEN|PASSWORD|PASSWD|API_?KEY|PRIVATE_?KEY)$", re.IGNORECASE)
_SECRET_LINE = re.compile(
    r"""(?:secret|access_key|token|password|private_key|key-data)["']?\s*[:=]\s*"""
    r"""(?:("(?:[^"\\]|\\.){8,}")|'([^']{8,})'|([^\s"',}-][^\s"',}]{7,}))""",
    re.IGNORECASE,
)
"""As JSON, YAML and INI files have it."""
_CREDENTIAL_FILES = ("AWS_SHARED_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "KUBECONFIG")
_PUBLIC = "ca_file"


def resolve(options: BaseModel, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Read every secret that `options` refer to, in place. Misconfigured names the one that cannot be had.

    It names a file as well that others may read, or write: see `config.permissions`. What comes back is every secret
    that there is to be kept out of texts: those, and what SDKs read by themselves from their variables and files.
    """
    found = _others(options, environ)
    for option, secret in _secrets(options, ""):
        secret._value = _read(option, secret, environ)  # noqa: SLF001  # the holder is ours to fill
        found.append(secret._value)  # noqa: SLF001
    for option, path in _files(options, ""):
        _refuse_unsafe(option, path, secret=not option.endswith(_PUBLIC))
    return found


def _others(options: BaseModel, environ: Mapping[str, str]) -> list[str]:
    found = [value for name, value in environ.items() if _SECRET_NAME.search(name) and len(value) >= 8]
    named = [Path(path) for name in _CREDENTIAL_FILES for path in environ.get(name, "").split(os.pathsep) if path]
    for path in [*named, *(path for option, path in _files(options, "") if not option.endswith(_PUBLIC))]:
        with contextlib.suppress(OSError):  # its connector says what is wrong
            for quoted, *others in _SECRET_LINE.findall(path.read_text(encoding="utf-8", errors="replace")):
                found += [_unquoted(quoted)] if quoted else filter(None, others)
    return found


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return text[1:-1]


def _secrets(model: BaseModel, path: str) -> Iterator[tuple[str, Secret]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        place = f"{path}.{name}" if path else name
        if isinstance(value, Secret):
            yield place, value
        elif isinstance(value, BaseModel):
            yield from _secrets(value, place)


def _files(model: BaseModel, path: str) -> Iterator[tuple[str, Path]]:
    """The files of options that say whom to trust, or hold credentials as their vendor writes them."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        place = f"{path}.{name}" if path else name
        if isinstance(value, Path):
            yield place, value
        elif isinstance(value, BaseModel) and not isinstance(value, Secret):
            yield from _files(value, place)


def _refuse_unsafe(option: str, path: Path, *, secret: bool) -> None:
    if wrong := unsafe(path, secret=secret):
        raise Misconfigured(f"{option}: {wrong.what}", remedy=wrong.remedy)


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
    _refuse_unsafe(option, path, secret=True)
    return text
