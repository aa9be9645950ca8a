"""Commands that ask who owns what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

import click

from daemon.cli.exits import exit_code, remedies
from daemon.cli.options import AGE, UNICODE, with_socket
from daemon.cli.show import (
    Cell,
    Column,
    age,
    ahead,
    as_json_list,
    complain,
    is_terminal,
    note,
    owners_of,
    seen_at,
    source_of,
    story,
    table,
)
from daemon.cli.show import as_json as show_json
from daemon.client import Answer, LookupProblem, Owners


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=UNICODE)
@click.option("--integration", type=UNICODE, help="Ask this integration only.")
@click.option("--members", is_flag=True, help="Also who is in each owning group now.")
@click.option("--max-age", type=AGE, metavar="AGE", help="Refuse an older answer: 90, 90s, 5m, 1h, 2d.")
@with_socket
def who(
    owners: Owners, ids: tuple[str, ...], integration: str | None, members: bool, max_age: int | None, as_json: bool
) -> int:
    """Who owns these resources. One ID tells all; several, a line each."""
    if len(ids) == 1:
        answer = owners.get(ids[0], integration, members=members, max_age=max_age)
        if as_json:
            show_json(answer)
        elif is_terminal():
            story(_whole(answer))
        else:
            _table(ids, [answer], members=members)
        return 0
    answers = _ask(owners, ids, integration, members=members, max_age=max_age)
    if as_json:
        show_json({"answers": [a.body if isinstance(a, LookupProblem) else a for a in answers]})
    else:
        _table(ids, answers, members=members)
    problems = [a for a in answers if isinstance(a, LookupProblem)]
    for problem in {(p.kind, *remedies(p)): p for p in problems}.values():  # one of each kind says it for all
        complain(problem.message, *remedies(problem))
    return max(map(exit_code, problems), default=0)


def _ask(
    owners: Owners, ids: Sequence[str], integration: str | None, *, members: bool, max_age: int | None
) -> list[Answer | LookupProblem]:
    if not integration and not members:
        return owners.get_many(ids, max_age=max_age)
    answers: list[Answer | LookupProblem] = []
    for rid in ids:  # the batch call knows neither
        try:
            answers.append(owners.get(rid, integration, members=members, max_age=max_age))
        except LookupProblem as problem:
            answers.append(problem)
    return answers


def _table(ids: Sequence[str], answers: Sequence[Answer | LookupProblem], *, members: bool) -> None:
    columns = [Column("RESOURCE", fold=True), Column("OWNER", fold=True), Column("SOURCE"), Column("SEEN")]
    columns += [Column("STALE", only="pipe"), *([Column("MEMBERS", fold=True, under="OWNER")] if members else [])]

    def row(rid: str, answer: Answer | LookupProblem) -> Iterator[Cell]:
        yield rid
        if isinstance(answer, LookupProblem):
            yield from ("-", (answer.kind, "red"), "-", "-")
        else:
            yield from (owners_of(answer), source_of(answer), _seen(answer), "STALE" if answer["stale"] else "")
        if members:
            yield [] if isinstance(answer, LookupProblem) else _members(answer)

    table(columns, (tuple(row(rid, answer)) for rid, answer in zip(ids, answers, strict=True)))


def _seen(answer: Answer) -> Cell:
    """The age of the older of the two readings; stale stands out."""
    at = age(seen_at(answer))
    return (f"{at}, STALE", "red") if answer["stale"] and is_terminal() else at


def _members(answer: Answer) -> list[str]:
    found = [m for owner in answer["owners"] for m in owner.get("members", ())]
    return list(dict.fromkeys(f"{m['name']} <{m['email']}>" if m["email"] else m["name"] or m["id"] for m in found))


def _whole(answer: Answer) -> Iterator[tuple[str, Cell]]:
    resource, tag = answer["resource"], answer["tag"]
    yield "resource", resource["id"]
    yield "integration", resource["integration"] + (f" ({resource['type']})" if resource["type"] else "")
    if not answer["owners"]:
        yield "owner", ("nobody", "bold red")
    for owner in answer["owners"]:
        yield "owner", (owner["name"] or owner["id"], "bold")
        yield "", (f"{owner['kind']} {owner['id']} of {owner['directory']}", "dim")
    yield "source", source_of(answer)
    if tag:
        of = "" if tag["resource"] == resource["id"] else f"  of {tag['resource']}"
        yield "tag", f"{tag['key']} = {tag['value']}{of}"
    for member in _members(answer):
        yield "member", member
    if "pending" in answer:
        new = answer["pending"]["tag"]
        told = f"{new['key']} = {new['value']}" if new else "no tag"
        yield "waits", (f"{told}, to decide {ahead(answer['pending']['until'])}", "yellow")
        yield "", ("`ownerd pending` tells who would own; `ownerd confirm` lets it through", "dim")
    yield "since", age(answer["changed_at"])
    if "valid_until" in answer:
        yield "until", f"{ahead(answer['valid_until'])}, when a shift ends or begins"
    yield "seen", _seen(answer)
    if answer["fallback"]:
        yield "", ("`ownerd explain` with this id tells why, step by step", "dim")


@click.command()
@click.argument("resource", metavar="ID", type=UNICODE)
@click.option("--integration", type=UNICODE, help="Ask this integration only.")
@with_socket
def explain(owners: Owners, resource: str, integration: str | None, as_json: bool) -> None:
    """Why a resource has the owner it has: each step of the rule."""
    query = {"resource": resource, **({"integration": integration} if integration else {})}
    told = owners.call("GET", f"/v1/explain?{urlencode(query)}")
    if as_json:
        show_json(told)
    else:
        story(_steps(told))


def _steps(told: dict[str, Any]) -> Iterator[tuple[str, Cell]]:
    yield "resource", told["resource"]["id"]
    for number, step in enumerate(told["steps"], 1):
        yield f"{number}. {step['step']}", step["text"]
        for candidate in step.get("candidates", ()):
            yield "candidate", (_candidate(candidate), "dim")
    answer = told["answer"]
    if answer:
        yield "owner", (owners_of(answer), "bold" if answer["owners"] else "bold red")
        yield "source", source_of(answer)
    for source in told["sources"]:
        read = f"{source['name']}: read {age(source['seen_at'])}"
        yield source["role"], (f"{read}, STALE", "red") if source["stale"] else read


def _candidate(it: dict[str, Any]) -> str:
    alike = "exactly" if it["exact"] else f"alike: {it['matched']}"
    unfit = f", may not own: {it['unfit']}" if it["unfit"] else ""
    return f"{it['kind']} {it['name']} ({it['id']}), {alike}{unfit}"


@click.command("owned-by")
@click.argument("name", type=UNICODE)
@click.option("--integration", type=UNICODE, help="Of this integration only.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@with_socket
def owned_by(owners: Owners, name: str, integration: str | None, limit: int | None, as_json: bool) -> None:
    """What the principal with this name, id or e-mail owns."""
    rows = owners.pages("/v1/resources", "resources", limit, owner=name, integration=integration)
    if as_json:
        as_json_list("resources", rows)
        return
    table(
        [
            Column("RESOURCE", fold=True),
            Column("TYPE", fold=True, under="RESOURCE"),
            Column("INTEGRATION"),
            Column("SOURCE"),
        ],
        ((r["resource"]["id"], r["resource"]["type"], r["resource"]["integration"], source_of(r)) for r in rows),
        empty="Nobody of this name, id or e-mail owns anything.",
    )
    if rows.next:
        note("There are more.")
