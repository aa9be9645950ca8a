"""Why a resource has the owner it has: the rule's steps, one by one, over the database of the moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from daemon.answers import rfc3339
from daemon.rule import Claim, Reason, Rule, claim_of, fitness, judge, judge_fallback, match, parts_of
from daemon.rules import Rules
from daemon.store.directory import SqlDirectories
from daemon.store.reader import Reader

Step = dict[str, Any]
_LONGEST_CHAIN = 64


@dataclass(frozen=True, slots=True)
class _Node:
    rid: str
    tags: dict[str, str]
    parent: str | None
    parent_key: str | None


def explain(reader: Reader, key: str, source_id: int) -> list[Step]:
    """Each step as `{"step", "text", …}`: key, inherit, value, match, fit, fallback; in the rule's order."""
    with reader.generation() as db:
        rules = Rules.from_json(db.execute("SELECT rules FROM source WHERE id = ?", (source_id,)).fetchone()[0])
        directories = SqlDirectories(db)
        chain: list[tuple[str, _Node]] = []
        at: str | None = key
        while at is not None and len(chain) < _LONGEST_CHAIN and at not in [n[0] for n in chain]:
            row = db.execute(
                "SELECT rid, tags, parent, parent_key FROM resource WHERE source_id = ? AND key = ?", (source_id, at)
            ).fetchone()
            if row is None:
                break
            chain.append((at, _Node(row[0], orjson.loads(row[1]), row[2], row[3])))
            at = row[3]
        steps, claim = _which_tag([node for _, node in chain], rules)
        reason: Reason | None = Reason.TAG_MISSING
        if claim is not None:
            rule = rules.resource_owner[claim.rule]
            steps += _what_it_names(claim, rule, directories)
            reason = judge(claim, rule, directories).reason
        if reason is not None:
            steps.append(_fallback(reason, rules, directories))
        waits = db.execute(
            "SELECT r.pending_until, c.rule, c.key, c.value FROM resource r JOIN claim c ON c.id = r.claim_id"
            " WHERE r.source_id = ? AND r.key = ? AND r.pending_until IS NOT NULL",
            (source_id, key),
        ).fetchone()
        if waits is not None:
            steps.append(_waits(*waits))
        return steps


def _waits(until: float, rule: int, key: str, value: str) -> Step:
    in_force = f"{key}: {value}" if rule >= 0 else "that there is no tag"
    text = f"this waits until {rfc3339(until)}, or for `ownerd confirm`; what decides until then is {in_force}"
    return {"step": "pending", "text": text, "until": rfc3339(until)}


def _which_tag(chain: list[_Node], rules: Rules) -> tuple[list[Step], Claim | None]:
    keys = [key for rule in rules.resource_owner for key in rule.keys]
    steps: list[Step] = []
    for depth, node in enumerate(chain):
        claim = claim_of(node.tags, rules.resource_owner)
        kind = "inherit" if depth else "key"
        told = {"resource": node.rid, "keys": keys, "tags": sorted(node.tags)}
        if claim is None:
            above = f"its parent is {node.parent}" if node.parent else "it has no parent"
            text = f"{node.rid} has no tag {' or '.join(keys) or '(there are no rules)'}; {above}"
            steps.append({"step": kind, "text": text, **told})
            if not rules.inherit:
                steps.append({"step": "inherit", "text": "the integration does not inherit"})
                break
            continue
        if claim.ambiguous:
            text = f"{node.rid} has keys equal to {claim.key} but for case, with different values: {claim.value}"
        else:
            text = f"the tag {claim.key} of {node.rid} decides: {claim.value}"
        steps.append({"step": kind, "text": text, **told, "key": claim.key, "value": claim.value, "rule": claim.rule})
        return steps, claim
    if chain and chain[-1].parent and rules.inherit:
        steps.append({"step": "inherit", "text": f"{chain[-1].parent} is not known; nobody above has the tag"})
    return steps, None


def _what_it_names(claim: Claim, rule: Rule, directories: SqlDirectories) -> list[Step]:
    if claim.ambiguous:
        return []
    value = claim.value.strip()
    if not value:
        return [{"step": "value", "text": "the value is empty"}]
    if not directories.synced(rule.directory, rule.kind):
        return [{"step": "match", "text": f"the directory {rule.directory} has not been read yet; the row waits"}]
    steps = [_match_step(value, rule, directories)]
    if steps[0]["reason"] == Reason.VALUE_UNKNOWN and rule.split is not None:
        parts = list(parts_of(value, rule.split))
        steps.append({"step": "value", "text": f"split into {len(parts)} parts", "parts": parts})
        steps += [_match_step(part, rule, directories) for part in parts if part != value]
    return steps


def _match_step(value: str, rule: Rule, directories: SqlDirectories) -> Step:
    candidates = directories.candidates(rule.directory, rule.kind, rule.field, value)
    found = match(value, candidates, rule.field)
    told = [
        {
            "kind": c.kind,
            "id": c.id,
            "name": c.name,
            "matched": c.matched,
            "exact": c.matched == value,
            "active": c.active,
            "has_active_members": c.alive,
            "unfit": fitness(c, rule.allowed),
        }
        for c in candidates
    ]
    where = f"{rule.attribute} in {rule.directory}"
    text: str
    reason: Reason | None
    if found is Reason.VALUE_AMBIGUOUS:
        text, reason = f"{value} could be any of {len(candidates)} by {where}", found
    elif isinstance(found, Reason):
        text, reason = f"nobody has {value} as {where}", found
    else:
        names = ", ".join(c.name for c in found)
        unfit = [fitness(c, rule.allowed) for c in found]
        reason = None if rule.by_manager or not all(unfit) else next((u for u in unfit if u), None)
        text = f"{value} names {names} by {where}" + (f", who may not own: {reason}" if reason else "")
        if rule.by_manager:
            text += "; the manager owns"
    return {"step": "match", "text": text, "value": value, "reason": reason, "candidates": told}


def _fallback(reason: Reason, rules: Rules, directories: SqlDirectories) -> Step:
    if reason is Reason.DIRECTORY_NEVER_SYNCED:
        return {"step": "fallback", "text": "nothing is decided before that directory has been read", "reason": reason}
    verdict = judge_fallback(rules.integration_owner, directories)
    names = ", ".join(o.name for o in verdict.owners)
    unknown = [f"{f.value} ({f.reason})" for f in verdict.findings]
    if verdict.reason:
        text = "the integration owner's directory has not been read yet; the row waits"
    elif names:
        text = f"{reason}, so the integration owner owns: {names}"
    else:
        text = f"{reason}, and no integration owner can be found"
    if unknown:
        text += f"; not found: {', '.join(unknown)}"
    return {"step": "fallback", "text": text, "reason": reason}
