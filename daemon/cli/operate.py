"""Commands that work on the daemon itself."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any

import click

from daemon.cli.exits import FAILED, HELD
from daemon.cli.options import UNICODE, as_json_option, as_lines_option, known_sources, source_names, with_settings
from daemon.cli.progress import Progress
from daemon.cli.show import Column, age, complain, console, is_terminal, line, note, table
from daemon.cli.show import as_json as show_json
from daemon.text import json_text, printable

Event = dict[str, Any]


@click.command()
@with_settings
def run(settings: Any) -> int:
    """Poll and serve, both, in the foreground: for a laptop, a container, the demo."""
    from daemon.supervisor import run as supervise

    return supervise(settings)


@click.command()
@with_settings
def serve(settings: Any) -> int:
    """Answer lookups on the socket."""
    from daemon.serve.workers import serve as answer

    return answer(settings)


@click.command()
@with_settings
def poll(settings: Any) -> int:
    """Read every source on its schedule."""
    from daemon.poller import poll as go

    return go(settings)


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=source_names)
@as_lines_option
@with_settings
def check(settings: Any, names: tuple[str, ...], as_json: bool) -> int:
    """Check the configuration, then each source's credentials and permissions."""
    from daemon.engine import check as engine

    known = known_sources(settings, names)
    bad = 0

    def one(event: Event) -> None:
        nonlocal bad
        bad += not event["ok"]
        if as_json:
            sys.stdout.write(json_text(event) + "\n")
        elif is_terminal():
            _checked(event)
        else:
            state = "ok" if event["ok"] else "failed"
            sys.stdout.write(line((state, event["source"], event["what"], event["detail"], event["remedy"])))
        sys.stdout.flush()

    if is_terminal() and not as_json:
        count = len(settings.sources)
        console().print(f"{printable(str(settings.path))}: good; {count} source{'s' * (count != 1)}")
    _each(engine(settings, known), one)
    return FAILED if bad else 0


def _checked(event: Event) -> None:
    from rich.text import Text

    mark = Text("ok    ", "green") if event["ok"] else Text("FAILED", "red")
    out = console()
    out.print(mark, Text(printable(f"{event['source']}: {event['what']}")), Text(printable(event["detail"]), "dim"))
    if event["remedy"]:
        out.print("        →", Text(printable(event["remedy"])))


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=source_names)
@click.option("--whole", is_flag=True, help="Read all there is, also where what has changed would do.")
@as_lines_option
@with_settings
def sync(settings: Any, names: tuple[str, ...], whole: bool, as_json: bool) -> int:
    """Read sources now: all, or those named. Goes through a running poller, and needs none."""
    from daemon.engine import sync as engine

    known = known_sources(settings, names)
    return _watch(engine(settings, known, whole=whole), as_json)


@click.command()
@click.argument("name", shell_complete=source_names)
@as_lines_option
@with_settings
def accept(settings: Any, name: str, as_json: bool) -> int:
    """Let the held snapshot of a source through, whatever it removes or re-owns."""
    from daemon.engine import accept as engine

    known_sources(settings, (name,))
    return _watch(engine(settings, name), as_json)


@click.command()
@click.argument("integration", shell_complete=source_names)
@click.argument("ids", metavar="[ID]...", nargs=-1, type=UNICODE)
@click.option("--all", "everything", is_flag=True, help="All that waits in the integration.")
@as_lines_option
@with_settings
def confirm(settings: Any, integration: str, ids: tuple[str, ...], everything: bool, as_json: bool) -> int:
    """Let changes of tags through that wait: of these resources, and of what inherits from them."""
    from daemon.engine import confirm as engine

    if bool(ids) == everything:
        raise click.UsageError("name resources, or say --all", click.get_current_context())
    known_sources(settings, (integration,))
    if integration not in settings.integrations:
        raise click.UsageError(f'"{integration}" is a directory: only integrations have tags')
    done = 0

    def one(event: Event) -> None:
        nonlocal done
        done += len(event["resources"])
        if as_json:
            sys.stdout.write(json_text(event) + "\n")
            return
        for it in event["resources"]:
            sys.stdout.write(line(("confirmed", it["id"], it["old"], it["new"])))

    _each(engine(settings, integration, None if everything else ids), one)
    if not done and not as_json:
        complain("nothing of that waits", "ownerd pending shows what does")
    return 0 if done else FAILED


def _example(it: Any) -> str:
    """One of what would go, or get other owners."""
    if isinstance(it, str):
        return f"would go: {it}"
    before, after = (", ".join(it[when]) or "nobody" for when in ("before", "after"))
    return f"{it['resource']}: {before} → {after}"


def _watch(events: AsyncGenerator[Event, None], as_json: bool) -> int:
    states = set()

    def one(event: Event) -> None:
        if event["event"] == "finished":
            states.add(event["state"])

    if as_json:

        def line(event: Event) -> None:
            one(event)
            sys.stdout.write(json_text(event) + "\n")
            sys.stdout.flush()

        _each(events, line)
    else:
        with Progress() as progress:

            def shown(event: Event) -> None:
                one(event)
                progress.show(event)

            _each(events, shown)
    if states & {"failed", "partial"}:
        return FAILED
    return HELD if "held" in states else 0


def _each(events: AsyncGenerator[Event, None], one: Callable[[Event], None]) -> None:
    import asyncio

    async def main() -> None:
        try:
            async for event in events:
                one(event)
        finally:
            await events.aclose()

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        raise click.Abort from None


@click.command()
@click.argument("name", required=False, shell_complete=source_names)
@as_json_option
@with_settings
def held(settings: Any, name: str | None, as_json: bool) -> int:
    """What the guard holds, and why. `ownerd accept NAME` lets it through."""
    from daemon.answers import rfc3339
    from daemon.engine import held as engine

    known_sources(settings, (name,) if name else ())
    found = [report for report in engine(settings) if name in {None, report["source"]}]
    if as_json:
        show_json({"held": found})
        return HELD if found else 0
    table(
        [Column("SOURCE"), Column("SUBJECT", fold=True), Column("WHY", fold=True), Column("SINCE")],
        ((r["source"], why["subject"], why["why"], age(rfc3339(r["at"]))) for r in found for why in r["why"]),
        empty="Nothing is held.",
    )
    if found and is_terminal():
        for report in found:
            for why in report["why"]:
                for example in why.get("examples", ())[:5]:
                    note(f"  {report['source']}: {_example(example)}")
        accepts = (f"ownerd accept {report['source']}" for report in found)
        complain("What was published before is still served. To let a snapshot through:", *accepts, head="")
    return HELD if found else 0
