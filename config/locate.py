"""Where the socket is, without checking the whole configuration: a lookup should not wait for that."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from config.problems import ConfigurationError, Problem

DEFAULT = Path("/etc/ownerd/ownerd.toml")


def config_path(given: Path | None) -> Path:
    """The configuration file: as given, else `$OWNERD_CONFIG`, else the default."""
    return given or Path(os.environ.get("OWNERD_CONFIG") or DEFAULT)


def socket_path(path: Path) -> Path:
    """The lookup socket of the configuration at `path`, as `Settings.socket` tells it."""
    try:
        daemon = tomllib.loads(path.read_text(encoding="utf-8")).get("daemon", {})
        state = daemon.get("state_directory") or os.environ.get("STATE_DIRECTORY") or "var"
        return Path(daemon.get("runtime_directory") or os.environ.get("RUNTIME_DIRECTORY") or state) / "ownerd.sock"
    except OSError as error:
        remedy = "name the file with --config or $OWNERD_CONFIG, or the socket with --socket"
        raise ConfigurationError(path, [Problem("", f"cannot be read: {error.strerror}; {remedy}")]) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(path, [Problem("", f"not TOML: {error}")]) from error
    except (AttributeError, TypeError) as error:
        raise ConfigurationError(path, [Problem("daemon", "is not a table of paths")]) from error
