"""Commands that look after the whole: drift, changes, and how the sources fare."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import click

from daemon.cli.options import UNICODE, with_socket
from daemon.cli.show import (
    Cell,
    Column,
    age,
    as_json_list,
    complain,
    is_terminal,
    line,
    note,
    owners_of,
    span,
    table,
)
from daemon.cli.show import as_json as show_json
from daemon.client import Owners
from daemon.errors import NotRunning
from daemon.text import csv_cell, json_text

Row = Mapping[str, Any]
PAUSE = 2.0
"""Seconds between two looks of `changes --follow`."""


@click.command()
@click.option("--integration", type=UNICODE, help="Of this integration only.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@with_socket
def pending(owners: Owners, integration: str | None, limit: int | None, as_json: bool) -> None:
    """Changes of tags that wait before they change an owner. `ownerd confirm` lets one through."""
    rows = owners.pages("/v1/pending", "pending", limit, integration=integration)
    if as_json:
        as_json_list("pending", rows)
        return
    table(
        [
            Column("RESOURCE", fold=True),
            Column("INTEGRATION"),
            Column("OWNER NOW", fold=True, under="RESOURCE"),
            Column("OWNER THEN", fold=True, under="RESOURCE"),
            Column("TAG NOW", only="pipe"),
            Column("TAG THEN", fold=True, under="RESOURCE"),
            Column("FROM"),
        ],
        (
            (
                it["resource"]["id"],
                it["resource"]["integration"],
                owners_of(it["before"]),
                owners_of(it["after"]),
                _tag_of(it["before"]),
                _tag_of(it["after"]),
                it["until"],
            )
            for it in rows
        ),
        empty="Nothing waits.",
    )
    if rows.next:
        note("There are more.")


def _tag_of(side: Row) -> str:
    return f"{side['tag']['key']}={side['tag']['value']}" if side["tag"] else "(none)"


@click.command()
@click.option("--state", type=click.Choice(["open", "resolved", "all"]), default="open", show_default=True)
@click.option("--kind", type=UNICODE, help="Only findings of this kind.")
@click.option("--integration", type=UNICODE, help="Of this integration only.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header, for a spreadsheet.")
@click.option("-v", "--verbose", is_flag=True, help="Also some of the resources.")
@with_socket
def drift(
    owners: Owners,
    state: str,
    kind: str | None,
    integration: str | None,
    limit: int | None,
    as_csv: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Tags that name nobody, or somebody they must not; and what may have been meant."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv are two formats: choose one", click.get_current_context())
    rows = owners.pages("/v1/drift", "findings", limit, state=state, kind=kind, integration=integration)
    if as_json:
        as_json_list("findings", rows)
    elif as_csv:
        _csv(rows)
    else:
        table(
            [
                Column("KIND"),
                Column("INTEGRATION"),
                Column("KEY", only="pipe"),
                Column("VALUE", only="pipe"),
                Column("TAG", fold=True, only="people"),
                Column("COUNT", right=True),
                Column("DID YOU MEAN", fold=True, under="TAG"),
                Column("FIRST"),
                Column("LAST"),
                *([Column("RESOLVED")] if state != "open" else []),
                *([Column("EXAMPLES", fold=True, under="TAG")] if verbose else []),
            ],
            (_finding(row, resolved=state != "open", examples=verbose) for row in rows),
            empty="No drift.",
        )
        if rows.next:
            note("There are more.")


def _finding(it: Row, *, resolved: bool, examples: bool) -> tuple[Cell, ...]:
    value = it["value"] or '""'
    cells: list[Cell] = [
        (it["kind"], "yellow" if it["resolved_at"] is None else "dim"),
        it["integration"],
        it["key"],
        value,
        f"{it['key']} = {value}" if it["key"] else value,
        str(it["resources"]),
        ", ".join(it["suggestions"]),
        age(it["first_seen"]),
        age(it["last_seen"]),
    ]
    if resolved:
        cells.append(age(it["resolved_at"]) if it["resolved_at"] else "")
    if examples:
        cells.append(it["examples"])
    return tuple(cells)


def _csv(rows: Iterable[Row]) -> None:
    import csv

    names = ["id", "integration", "kind", "key", "value", "resources", "examples", "suggestions"]
    names += ["first_seen", "last_seen", "resolved_at"]
    writer = csv.writer(sys.stdout)
    writer.writerow(names)
    for row in rows:
        cells = (" ".join(v) if isinstance(v := row[name], list) else "" if v is None else str(v) for name in names)
        writer.writerow(csv_cell(cell) for cell in cells)


@click.command()
@click.option("--after", metavar="CURSOR", type=UNICODE, help="Go on after this change.")
@click.option("--follow", is_flag=True, help="Stay, and show changes as they come.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@with_socket
def changes(owners: Owners, after: str | None, follow: bool, limit: int | None, as_json: bool) -> None:
    """Owner changes, oldest first. The cursor of each resumes after it."""
    if follow:
        _follow(owners, after, limit, as_json=as_json)
        return
    rows = owners.pages("/v1/changes", "changes", limit, after=after)
    if as_json:
        as_json_list("changes", rows)
        return
    table(
        [
            Column("WHEN"),
            Column("KIND"),
            Column("INTEGRATION", under="RESOURCE"),
            Column("RESOURCE", fold=True),
            Column("BEFORE", fold=True),
            Column("AFTER", fold=True),
            Column("CURSOR", only="pipe"),
        ],
        (_change(change, age(change["at"])) for change in rows),
        empty="No changes.",
    )
    if rows.next:
        note(f"There are more: ownerd changes --after {rows.next}")


def _follow(owners: Owners, after: str | None, limit: int | None, *, as_json: bool) -> None:
    left, away, reached = limit, False, False
    while True:
        try:
            for change in owners.pages("/v1/changes", "changes", left, after=after):
                sys.stdout.write(json_text(change) + "\n" if as_json else line(_change(change, change["at"])))
                after = change["cursor"]
                left = None if left is None else left - 1
            reached, away = True, False
        except NotRunning as error:
            if not reached:
                raise
            if not away:  # a restart is no reason to stop following
                complain(error.message, "waiting for it", head="")
                away = True
        sys.stdout.flush()
        if left == 0:
            return
        time.sleep(PAUSE)


def _change(it: Row, when: str) -> tuple[Cell, ...]:
    def side(outcome: Row | None) -> str:
        if outcome is None:
            return ""
        return owners_of(outcome) + (f" ({outcome['reason']})" if outcome["reason"] else "")

    resource = it["resource"]
    return (
        when,
        it["kind"],
        resource["integration"],
        resource["id"],
        side(it["before"]),
        side(it["after"]),
        it["cursor"],
    )


_COLOURS = {"ok": "green", "partial": "yellow", "held": "yellow", "failed": "red", "never": "dim"}


@click.command()
@with_socket
def status(owners: Owners, as_json: bool) -> None:
    """How every source fares."""
    told = owners.call("GET", "/v1/status")
    if as_json:
        show_json(told)
        return
    sources = told["sources"]
    table(
        [
            Column("SOURCE"),
            Column("ROLE"),
            Column("CONNECTOR"),
            Column("STATE"),
            Column("ROWS", right=True),
            Column("READ"),
            Column("STALE AFTER"),
            Column("STALE", only="pipe"),
            Column("PROBLEM", only="pipe"),
            Column("NOT SHOWN", only="pipe"),
        ],
        (
            (
                s["name"],
                s["role"],
                s["connector"],
                (s["state"], _COLOURS.get(s["state"], "")),
                str(s["rows"]),
                (f"{age(s['seen_at'])}, STALE", "red") if s["stale"] and is_terminal() else age(s["seen_at"]),
                span(s["stale_after"]),
                "STALE" if s["stale"] else "",
                "; ".join(message for message, _ in _problems(s)),
                "; ".join(gap["message"] for gap in s["gaps"]),
            )
            for s in sources
        ),
        empty="No source yet: the poller has not started, or has nothing to read.",
    )
    if (database := told.get("database", {})).get("log_held"):
        complain(
            f"the database's log has grown to {database['log_bytes'] / 2**20:.0f} MiB:"
            " a reader keeps a transaction open",
            "the poller's log names the process (database.log_grows): end it, or its transaction",
        )
    if is_terminal():
        for source in sources:
            for message, remedy in _problems(source):
                complain(f"{source['name']}: {message}", remedy, head="")
            for gap in source["gaps"]:
                of = f" (in {gap['scopes']} of {len(source['scopes'])} scopes)" if len(source["scopes"]) > 1 else ""
                note(f"{source['name']}: not shown: {gap['message']}{of}")
                if gap["remedy"]:
                    note(f"  → {gap['remedy']}")


def _problems(source: Row) -> list[tuple[str, str]]:
    """What is wrong with a source, and what to do."""
    found = [
        (f"held: {why['subject']}: {why['why']}", f"ownerd held {source['name']}")
        for why in (source["held"] or {}).get("why", ())
    ]
    times = f" ({source['failures']} times in a row)" if source["failures"] > 1 else ""
    failed = [s for s in source["scopes"] if s["state"] == "failed" and s["error"]]
    found += [(f"{s['name']}: {s['error']['message']}{times}", s["error"].get("remedy", "")) for s in failed]
    if source["error"] and not failed:
        found.append((source["error"]["message"] + times, source["error"].get("remedy", "")))
    return found
