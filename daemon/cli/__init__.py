"""The command line. `main` is the entry point; each module holds the commands of one kind of user.

`lookups` ask the socket, `operate` work on the daemon itself, `show` is how things look.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from config.problems import ConfigurationError
from daemon.cli.lookups import changes, drift, explain, owned_by, status, who
from daemon.cli.operate import accept, check, completion, held, poll, run, schema, serve, sync
from daemon.cli.show import complain
from daemon.client import AmbiguousResource, LookupProblem, NotYetKnown, TooOld, UnknownResource
from daemon.errors import OwnerdError

FAILED, USAGE, UNKNOWN, NOT_YET, HELD = 1, 2, 3, 4, 5
"""Exit codes."""

_REMEDIES: dict[type[OwnerdError], str] = {
    UnknownResource: "check the id: it is the provider's own, to the letter; `ownerd status` shows what is read",
    NotYetKnown: "`ownerd status` shows what has not been read, and why",
    TooOld: "`ownerd status` shows why its source was not read since; `ownerd sync` reads it now",
    AmbiguousResource: "name one with --integration",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ownerd", prog_name="ownerd")
def cli() -> None:
    """Tell who owns a cloud resource, and whether that answer is a fallback."""


for command in (
    run, serve, poll, who, explain, owned_by, drift, changes, status, check, sync, held, accept, schema, completion,
):  # fmt: skip
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code: 0, 1 failed, 2 configuration or usage, 3 unknown, 4 not yet known, 5 held."""
    try:
        code = cli.main(arguments, prog_name="ownerd", standalone_mode=False)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ConfigurationError as error:
        complain(f"{error.path}: {len(error.problems)} problem{'s' * (len(error.problems) != 1)}")
        for problem in error.problems:
            complain(f"  {problem}", head="")
        return USAGE
    except OwnerdError as error:
        complain(error.message, error.remedy or _REMEDIES.get(type(error), ""))
        return exit_code(error)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read has seen enough
        return 0
    return int(code or 0)


def exit_code(error: OwnerdError) -> int:
    """The exit code for an error."""
    if isinstance(error, UnknownResource):
        return UNKNOWN
    if isinstance(error, NotYetKnown | TooOld):
        return NOT_YET
    if isinstance(error, LookupProblem) and error.kind == "bad-request":
        return USAGE
    return FAILED
