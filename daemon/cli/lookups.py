"""Commands that ask the socket."""

from __future__ import annotations

import sys
import time
from typing import Any
from urllib.parse import urlencode

import click

from daemon.cli.options import with_socket
from daemon.cli.show import Cell, age, as_json, complain, owners_of, seen, source_of, span, story, table
from daemon.client import LookupProblem, Owners
from daemon.text import csv_cell, json_text

Answer = dict[str, Any]


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--integration", help="Ask this integration only.")
@click.option("--members", is_flag=True, help="Also who is in each owning group now.")
@click.option("--max-age", type=click.IntRange(0), metavar="SECONDS", help="Refuse an older answer.")
@with_socket
def who(
    owners: Owners, ids: tuple[str, ...], integration: str | None, members: bool, max_age: int | None, as_json: bool
) -> int:
    """Who owns these resources. One ID tells all; several, a line each."""
    from daemon.cli import exit_code

    if len(ids) == 1:
        answer = owners.get(ids[0], integration, members=members, max_age=max_age)
        _json(answer) if as_json else _one(answer)
        return 0
    answers: list[Answer | LookupProblem] = []
    if integration or members:
        for rid in ids:
            try:
                answers.append(owners.get(rid, integration, members=members, max_age=max_age))
            except LookupProblem as problem:
                answers.append(problem)
    else:
        answers = owners.get_many(ids, max_age=max_age)
    if as_json:
        _json({"answers": [a.body if isinstance(a, LookupProblem) else a for a in answers]})
    else:
        table(
            ("RESOURCE", "OWNER", "SOURCE", "SEEN"),
            (_row(rid, answer) for rid, answer in zip(ids, answers, strict=True)),
            wide=("RESOURCE", "OWNER"),
        )
    return max((exit_code(a) for a in answers if isinstance(a, LookupProblem)), default=0)


_json = as_json


def _row(rid: str, answer: Answer | LookupProblem) -> tuple[Cell, ...]:
    if isinstance(answer, LookupProblem):
        return rid, "-", (answer.kind, "red"), "-"
    return rid, owners_of(answer), source_of(answer), seen(answer)


def _one(answer: Answer) -> None:
    resource, tag = answer["resource"], answer["tag"]
    lines: list[tuple[str, Cell]] = [
        ("resource", resource["id"]),
        ("integration", resource["integration"] + (f" ({resource['type']})" if resource["type"] else "")),
        ("owner", (owners_of(answer), "bold")),
        ("source", source_of(answer)),
    ]
    if tag:
        of = "" if tag["resource"] == resource["id"] else f"  of {tag['resource']}"
        lines.append(("tag", f"{tag['key']} = {tag['value']}{of}"))
    members = [m for owner in answer["owners"] for m in owner.get("members", ())]
    lines += [("member", f"{m['name']} <{m['email']}>" if m["email"] else m["name"]) for m in members]
    lines += [("since", age(answer["changed_at"])), ("seen", seen(answer))]
    story(lines)


@click.command()
@click.argument("resource", metavar="ID")
@click.option("--integration", help="Ask this integration only.")
@with_socket
def explain(owners: Owners, resource: str, integration: str | None, as_json: bool) -> None:
    """Why a resource has the owner it has: each step of the rule."""
    query = {"resource": resource, **({"integration": integration} if integration else {})}
    told = owners.call("GET", f"/v1/explain?{urlencode(query)}")
    if as_json:
        _json(told)
        return
    answer = told["answer"]
    lines: list[tuple[str, Cell]] = [("resource", answer["resource"]["id"])]
    for number, step in enumerate(told["steps"], 1):
        lines.append((f"{number}. {step['step']}", step["text"]))
        lines += [("", (_candidate(candidate), "dim")) for candidate in step.get("candidates", ())]
    lines += [("owner", (owners_of(answer), "bold")), ("source", source_of(answer))]
    lines += [
        (f"{s['role']}", f"{s['name']}: read {age(s['seen_at'])}{', STALE' if s['stale'] else ''}")
        for s in told["sources"]
    ]
    story(lines)


def _candidate(it: dict[str, Any]) -> str:
    alike = "exactly" if it["exact"] else f"alike: {it['matched']}"
    unfit = f", may not own: {it['unfit']}" if it["unfit"] else ""
    return f"candidate: {it['kind']} {it['name']} ({it['id']}), {alike}{unfit}"


@click.command("owned-by")
@click.argument("name")
@click.option("--integration", help="Of this integration only.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@with_socket
def owned_by(owners: Owners, name: str, integration: str | None, limit: int | None, as_json: bool) -> None:
    """What the principal with this name, id or e-mail owns."""
    rows = owners.pages("/v1/resources", "resources", limit, owner=name, integration=integration)
    if as_json:
        _stream("resources", rows)
        return
    table(
        ("RESOURCE", "TYPE", "INTEGRATION", "SOURCE"),
        ((r["resource"]["id"], r["resource"]["type"], r["resource"]["integration"], source_of(r)) for r in rows),
        wide=("RESOURCE",),
        empty="Nobody of this name, id or e-mail owns anything.",
    )


@click.command()
@click.option("--state", type=click.Choice(["open", "resolved", "all"]), default="open", show_default=True)
@click.option("--kind", help="Only findings of this kind.")
@click.option("--integration", help="Of this integration only.")
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
    rows = owners.pages("/v1/drift", "findings", limit, state=state, kind=kind, integration=integration)
    if as_json:
        _stream("findings", rows)
        return
    if as_csv:
        _csv(rows)
        return
    columns = ["KIND", "INTEGRATION", "KEY", "VALUE", "RESOURCES", "DID YOU MEAN", "SINCE"]
    columns += ["RESOLVED"] if state != "open" else []
    columns += ["EXAMPLES"] if verbose else []

    def line(it: dict[str, Any]) -> tuple[Cell, ...]:
        cells: list[Cell] = [
            (it["kind"], "yellow" if it["resolved_at"] is None else "dim"),
            it["integration"],
            it["key"],
            it["value"] or '""',
            str(it["resources"]),
            ", ".join(it["suggestions"]),
            age(it["first_seen"]),
        ]
        cells += [age(it["resolved_at"]) if it["resolved_at"] else ""] if state != "open" else []
        cells += [" ".join(it["examples"])] if verbose else []
        return tuple(cells)

    table(columns, map(line, rows), wide=("VALUE", "DID YOU MEAN", "EXAMPLES"), empty="No drift.")


def _csv(rows: Any) -> None:
    import csv

    names = ["id", "integration", "kind", "key", "value", "resources", "examples", "suggestions"]
    names += ["first_seen", "last_seen", "resolved_at"]
    writer = csv.writer(sys.stdout)
    writer.writerow(names)
    for row in rows:
        cells = (" ".join(v) if isinstance(v := row[name], list) else "" if v is None else str(v) for name in names)
        writer.writerow(csv_cell(cell) for cell in cells)


@click.command()
@click.option("--after", metavar="CURSOR", help="Go on after this change.")
@click.option("--follow", is_flag=True, help="Stay, and show changes as they come.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@with_socket
def changes(owners: Owners, after: str | None, follow: bool, limit: int | None, as_json: bool) -> None:
    """Owner changes, oldest first. The cursor of each resumes after it."""
    while True:
        found = list(owners.pages("/v1/changes", "changes", limit, after=after))
        if as_json and follow:
            for change in found:
                sys.stdout.write(json_text(change) + "\n")
        elif as_json:
            _json({"changes": found, "next": None})
        elif found or not follow:
            table(
                ("WHEN", "KIND", "INTEGRATION", "RESOURCE", "BEFORE", "AFTER", "CURSOR"),
                map(_change, found),
                wide=("RESOURCE", "BEFORE", "AFTER"),
                empty="No changes.",
            )
        if not follow:
            return
        sys.stdout.flush()
        after = found[-1]["cursor"] if found else after
        time.sleep(2)


def _change(it: dict[str, Any]) -> tuple[Cell, ...]:
    def side(outcome: dict[str, Any] | None) -> str:
        if outcome is None:
            return "-"
        return owners_of(outcome) + (f" ({outcome['reason']})" if outcome["reason"] else "")

    resource = it["resource"]
    return (
        age(it["at"]),
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
        _json(told)
        return
    sources = told["sources"]
    table(
        ("SOURCE", "ROLE", "CONNECTOR", "STATE", "ROWS", "READ", "STALE AFTER"),
        (
            (
                s["name"],
                s["role"],
                s["connector"],
                (s["state"], _COLOURS[s["state"]]),
                str(s["rows"]),
                (f"{age(s['seen_at'])}, STALE", "red") if s["stale"] else age(s["seen_at"]),
                span(s["stale_after"]),
            )
            for s in sources
        ),
    )
    for source in sources:
        for why in (source["held"] or {}).get("why", ()):
            complain(
                f"{source['name']}: held: {why['subject']}: {why['why']}", f"ownerd held {source['name']}", head=""
            )
        failed = [s for s in source["scopes"] if s["state"] == "failed" and s["error"]]
        for scope in failed:
            complain(
                f"{source['name']}: {scope['name']}: {scope['error']['message']}", scope["error"]["remedy"], head=""
            )
        if source["error"] and not failed:
            complain(f"{source['name']}: {source['error']['message']}", source["error"]["remedy"], head="")


def _stream(name: str, rows: Any) -> None:
    """A list of any length as one JSON document in the socket's shape, a row a line."""
    sys.stdout.write(f'{{"{name}":[')
    for number, row in enumerate(rows):
        sys.stdout.write(("," if number else "") + "\n" + json_text(row))
    sys.stdout.write('\n],"next":null}\n')
