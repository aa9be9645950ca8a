"""What the connectors that read files share."""

from __future__ import annotations

import glob
from pathlib import Path

from connectors.errors import BadData, Forbidden, Misconfigured


def matching_files(pattern: str) -> list[str]:
    """The files that a path or glob names, sorted. Misconfigured if there is none: no file is not an empty file."""
    found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207  # an absolute pattern
    if not found:
        raise Misconfigured(f'no file matches "{pattern}"', remedy="check the path; a glob must match a file")
    return found


def read_bytes(path: str) -> bytes:
    """The file's bytes; our own error, with its remedy, if they cannot be had."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise Misconfigured(f"{path}: no such file", remedy="check the path; it is read on ownerd's host") from error
    except PermissionError as error:
        raise Forbidden(f"{path}: permission denied", remedy="let ownerd's user read the file") from error
    except OSError as error:
        raise BadData(f"{path}: {error.strerror or error}") from error
