"""The command line. `main` is the entry point; each module holds the commands of one kind of user.

`lookups` ask who owns what, `review` looks after the whole, `operate` works on the daemon itself, `about` is for
shells and editors. `show` is how things look.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from config.problems import ConfigurationError
from daemon.cli.exits import FAILED, INTERRUPTED, USAGE, exit_code, remedies
from daemon.cli.show import complain
from daemon.errors import OwnerdError

_COMMANDS = {
    "run": "operate",
    "serve": "operate",
    "poll": "operate",
    "who": "lookups",
    "explain": "lookups",
    "owned-by": "lookups",
    "drift": "review",
    "changes": "review",
    "pending": "review",
    "status": "review",
    "check": "operate",
    "sync": "operate",
    "held": "operate",
    "accept": "operate",
    "confirm": "operate",
    "schema": "about",
    "completion": "about",
}
"""Each command's module. Only the one that is asked for is imported: a lookup should be quick."""


class _Commands(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"daemon.cli.{_COMMANDS[name]}"), name.replace("-", "_"))
        return found

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, arguments)
        except click.exceptions.NoSuchCommand as error:  # it knows of none that is not imported
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=_COMMANDS, ctx=context) from None


def _version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    from daemon.version import version

    click.echo(f"ownerd {version()}")
    context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and exit."
)
def cli() -> None:
    """Tell who owns a cloud resource, and whether that answer is a fallback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code: 0, 1 failed, 2 configuration or usage, 3 unknown, 4 not yet known, 5 held."""
    with contextlib.suppress(AttributeError):  # not a stream of ours
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a name may not fit the locale
    try:
        code = cli.main(arguments, prog_name="ownerd", standalone_mode=False)
        sys.stdout.flush()
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        _usage(error)
        return error.exit_code
    except ConfigurationError as error:
        complain(f"{error.path}: {len(error.problems)} problem{'s' * (len(error.problems) != 1)}")
        for problem in error.problems:
            complain(f"  {problem}", head="")
        return USAGE
    except OwnerdError as error:
        complain(error.message, *remedies(error))
        return exit_code(error)
    except OSError as error:
        if error.filename is not None or error.errno not in {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO}:
            raise
        # What is left in the buffer must not be tried again when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:  # else whoever read has seen enough
            complain(f"the output cannot be written: {error.strerror}")
        return FAILED
    return int(code or 0)


def _usage(error: click.ClickException) -> None:
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    # What was typed may come from a tag: `ownerd who $(…)`.
    message = " ".join(line.strip() for line in error.format_message().splitlines())
    complain(message, f"`{context.command_path} --help` tells what there is" if context else "")
