"""Options and arguments that many commands share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from config.locate import config_path, socket_path
from daemon.client import Owners

F = TypeVar("F", bound=Callable[..., Any])
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_CONFIG = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file.  [default: $OWNERD_CONFIG, else /etc/ownerd/ownerd.toml]",
)
as_json_option = click.option("--json", "as_json", is_flag=True, help="JSON, as the socket gives it.")
as_lines_option = click.option("--json", "as_json", is_flag=True, help="JSON, an event a line.")


class Unicode(click.ParamType[str]):
    """Text that JSON and a URL can carry: a shell passes any bytes."""

    name = "text"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """The text; a usage error if it is none."""
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{text} is not UTF-8", parameter, context)
        return text


class Age(click.ParamType[int]):
    """Seconds: `90`, `90s`, `5m`, `1h`, `2d`."""

    name = "age"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """The seconds; a usage error if it is no age."""
        match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", str(value))
        if not match:
            self.fail(f"{value!r} is no age: write 90, 90s, 5m, 1h or 2d", parameter, context)
        return int(match[1]) * _UNITS[match[2] or "s"]


UNICODE = Unicode()
AGE = Age()


def with_settings(command: F) -> F:
    """Give a command the checked configuration, as `settings`."""

    @_CONFIG
    @functools.wraps(command)
    def wrapped(config: Path | None, **options: Any) -> Any:
        from config.settings import load_settings

        return command(settings=load_settings(config_path(config)), **options)

    return wrapped  # type: ignore[return-value]  # click's decorators keep no types


def with_socket(command: F) -> F:
    """Give a command a client of the running server, as `owners`."""

    @_CONFIG
    @click.option("--socket", type=click.Path(path_type=Path), help="The socket itself; no configuration is read.")
    @as_json_option
    @functools.wraps(command)
    def wrapped(config: Path | None, socket: Path | None, **options: Any) -> Any:
        with Owners(socket or socket_path(config_path(config))) as owners:
            return command(owners=owners, **options)

    return wrapped  # type: ignore[return-value]


def source_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completion: the sources of the configuration, as far as it can be read."""
    import tomllib

    try:
        document = tomllib.loads(config_path(context.params.get("config")).read_text(encoding="utf-8"))
        rows = [*document.get("directories", []), *document.get("integrations", [])]
        names = [row["name"] for row in rows if isinstance(row.get("name"), str) and row["name"].isprintable()]
        return [name for name in names if name.startswith(incomplete) and name not in context.params.get("names", ())]
    except Exception:  # noqa: BLE001  # a shell that completes must not be disturbed
        return []


def known_sources(settings: Any, names: tuple[str, ...]) -> list[str]:
    """The names, if each is a source; UsageError with the nearest if not."""
    from config.problems import nearest

    known = [source.name for source in settings.sources]
    for name in names:
        if name not in known:
            hint = nearest(name, known) or f"; there are {', '.join(known)}"
            raise click.UsageError(f'no source is named "{name}"{hint}', click.get_current_context())
    return list(dict.fromkeys(names))
