"""Commands for shells and editors."""

from __future__ import annotations

import click


@click.command()
def schema() -> None:
    """JSON Schema of the configuration, for an editor."""
    import json

    from config.settings import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


_COMPLETION = """Completion script for a shell: of commands, options, and sources' names.

Write it to where the shell looks, and open a new one:

\b
bash: ownerd completion bash > ~/.local/share/bash-completion/completions/ownerd
zsh:  ownerd completion zsh  > "${fpath[1]}/_ownerd"
fish: ownerd completion fish > ~/.config/fish/completions/ownerd.fish
"""


@click.command(help=_COMPLETION)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell."""
    from click.shell_completion import get_completion_class

    from daemon.cli import cli

    found = get_completion_class(shell)
    assert found
    click.echo(found(cli, {}, "ownerd", "_OWNERD_COMPLETE").source())
