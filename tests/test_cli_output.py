"""What every command prints, to a pipe and to a terminal, for answers that a test chooses: hostile, long, broken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import main
from daemon.errors import OwnerdError
from tests.harness import configuration, integration
from tests.processes import command, environment, toml
from tests.servers.socket_stub import (
    HANG_UP,
    MOMENT,
    Canned,
    Stub,
    answer,
    change,
    finding,
    outcome,
    owner,
    problem,
    socket_stub,
    source,
)

HOSTILE = "[red]x[/red][/]\\[b]\x1b[2J\x1b]0;t\x07\x9b31m\u202e\u2066\u200b\r\n\t\x00\u2028end"
LONG = "arn:" + "0123456789" * 1000
SGR = re.compile(r"\x1b\[[0-9;]*m")
LIVE = re.compile(r"\x1b\[\?25[lh]|\x1b\[1A|\x1b\[2K|\r")
"""What a progress bar writes to draw itself again."""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    with socket_stub(tmp_path / "s") as stub:
        yield stub


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that asks the stub."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--socket", str(tmp_path / "s")])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[int], None]:
    """Makes standard output a terminal so wide."""

    def become(columns: int) -> None:
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    return become


def rows(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()]


# --- pipes: what scripts rely on --------------------------------------------------------------------------------------


def test_who_is_a_line_each_however_many(stub: Stub, run: Run) -> None:
    """Resource, owner, source, seen, stale: the same for one id as for several."""
    one = answer("r1", owner("a"), owner("Ada", kind="user"))
    stub.on("/v1/owner", one)
    stub.on("/v1/owners", {"answers": [one, answer("r2", owner("p"), reason="tag_missing", stale=True)]})
    line = ["r1", "a, Ada (user)", "tag", "2026-11-23T09:00:00Z", "-"]
    assert run("who", "r1") == (0, "\t".join(line) + "\n", "")
    code, out, _ = run("who", "r1", "r2")
    assert (code, rows(out)) == (
        0,
        [line, ["r2", "p", "FALLBACK: tag_missing", "2026-11-23T09:00:00Z", "STALE"]],
    )


def test_who_asks_as_it_was_told(stub: Stub, run: Run) -> None:
    member = {"id": "u1", "email": "ada@x.org", "name": "Ada"}
    stub.on("/v1/owner", answer("r&1 é", owner("a", members=[member, {"id": "u2", "email": None, "name": ""}])))
    _, out, _ = run("who", "r&1 é", "--integration", "aws", "--members", "--max-age", "5m")
    assert rows(out)[0][-1] == "Ada <ada@x.org>, u2"
    assert stub.asked[0].query == {"resource": "r&1 é", "integration": "aws", "expand": "members"}
    assert stub.asked[0].headers["cache-control"] == "max-age=300"
    stub.on("/v1/owners", {"answers": [answer("r1"), answer("r1")]})
    run("who", "r1", "r1", "--max-age", "90")
    assert stub.asked[1].body == {"resources": ["r1", "r1"]}
    assert stub.asked[1].headers["cache-control"] == "max-age=90"
    run("who", "r1", "r2", "--integration", "aws")
    assert [a.query["resource"] for a in stub.asked[2:]] == ["r1", "r2"]


def test_an_answer_without_owners_or_ages(stub: Stub, run: Run) -> None:
    stub.on("/v1/owner", answer("r1", reason="tag_missing", tag=None, owners_seen_at=None, resource_seen_at=None))
    assert rows(run("who", "r1")[1]) == [["r1", "nobody", "FALLBACK: tag_missing", "never", "-"]]


@pytest.mark.parametrize(
    ("tag", "said"),
    [({"key": "owner", "value": HOSTILE, "resource": "r1"}, "owner = [red]x"), (None, "no tag, to decide in")],
    ids=["a tag", "none"],
)
def test_who_tells_what_waits(
    stub: Stub, run: Run, terminal: Callable[[int], None], tag: dict[str, str] | None, said: str
) -> None:
    """Who decides on a request sees that the owner is about to change, and how long the answer is good for."""
    terminal(120)
    waits = {"tag": tag, "since": MOMENT, "until": "2999-01-01T00:00:00Z"}
    stub.on("/v1/owner", answer("r1", owner("a"), pending=waits, valid_until="2020-01-01T00:00:00Z"))
    code, out, _ = run("who", "r1")
    shown = SGR.sub("", out)
    assert code == 0
    assert said in shown
    assert harmless(shown, "\n")
    assert "ownerd confirm" in shown
    assert "now, when a shift ends or begins" in shown


def test_explain_numbers_its_steps(stub: Stub, run: Run) -> None:
    stub.on("/v1/explain", explained("r1"))
    _, out, _ = run("explain", "r1")
    assert rows(out) == [
        ["resource", "r1"],
        ["1. key", "the tag owner decides: taem"],
        ["2. match", "nobody has taem"],
        ["candidate", "group team (g1), alike: Team, may not own: group_empty"],
        ["owner", "p"],
        ["source", "FALLBACK: value_unknown"],
        ["directory", f"corp: read {MOMENT}"],
    ]
    stub.on("/v1/explain", explained("r1") | {"answer": None})
    assert "owner" not in dict(rows(run("explain", "r1")[1]))


def explained(text: str) -> dict[str, Any]:
    given = {"kind": "group", "id": "g1", "name": "team", "matched": "Team", "exact": False, "unfit": "group_empty"}
    told = answer(text, owner("p"), reason="value_unknown")
    return {
        "resource": told["resource"],
        "steps": [
            {"step": "key", "text": "the tag owner decides: taem"},
            {"step": "match", "text": "nobody has taem", "candidates": [given]},
        ],
        "answer": told,
        "sources": [source("corp", role="directory")],
    }


def test_owned_by_follows_every_page(stub: Stub, run: Run) -> None:
    pages = [{"resources": [answer(f"r{i}", owner("a"))], "next": f"c{i}" if i < 3 else None} for i in (1, 2, 3)]
    stub.on("/v1/resources", *pages)
    _, out, _ = run("owned-by", "a", "--integration", "aws")
    assert rows(out) == [[f"r{i}", "rds:db", "aws", "tag"] for i in (1, 2, 3)]
    assert [a.query.get("cursor") for a in stub.asked] == [None, "c1", "c2"]
    assert stub.asked[2].query == {"owner": "a", "integration": "aws", "limit": "1000", "cursor": "c2"}


def test_a_list_cut_short_says_so(stub: Stub, run: Run, terminal: Callable[[int], None]) -> None:
    """In JSON by the cursor of what is left, to a person in words."""
    stub.on("/v1/resources", {"resources": [answer("r1"), answer("r2")], "next": "c2"})
    told = json.loads(run("owned-by", "a", "--limit", "2", "--json")[1])
    assert (len(told["resources"]), told["next"]) == (2, "c2")
    assert stub.asked[0].query["limit"] == "2"
    terminal(80)
    assert "There are more." in run("owned-by", "a", "--limit", "2")[1]


def test_a_list_that_breaks_off_is_no_list(stub: Stub, run: Run) -> None:
    stub.on("/v1/resources", {"resources": [answer("r1")], "next": "c1"}, problem("internal", 500, "it broke"))
    code, out, err = run("owned-by", "a", "--json")
    assert (code, "it broke" in err) == (1, True)
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(out)


def test_drift(stub: Stub, run: Run) -> None:
    stub.on("/v1/drift", {"findings": [finding("taem"), finding("", suggestions=[])], "next": None})
    _, out, _ = run("drift", "-v")
    seen = [MOMENT, "2026-11-23T09:00:00Z"]
    assert rows(out) == [
        ["value_unknown", "aws", "owner", "taem", "12", "Team Payments, Team Payroll", *seen, "r1, r2"],
        ["value_unknown", "aws", "owner", '""', "12", "-", *seen, "r1, r2"],
    ]
    assert stub.asked[0].query == {"state": "open", "limit": "1000"}
    stub.on("/v1/drift", {"findings": [finding("taem", resolved_at=MOMENT)], "next": None})
    assert rows(run("drift", "--state", "all", "--kind", "value_unknown")[1])[0][-1] == MOMENT
    assert stub.asked[1].query == {"state": "all", "kind": "value_unknown", "limit": "1000"}
    assert run("drift", "--csv", "--json")[0] == 2


def test_changes(stub: Stub, run: Run) -> None:
    a, p = outcome(owner("a")), outcome(owner("p"), reason="group_empty")
    stub.on(
        "/v1/changes", {"changes": [change("r1", None, a), change("r1", a, p), change("r1", p, None)], "next": None}
    )
    assert rows(run("changes", "--after", "c0")[1]) == [
        [MOMENT, "added", "aws", "r1", "-", "a", "c1"],
        [MOMENT, "changed", "aws", "r1", "a", "p (group_empty)", "c1"],
        [MOMENT, "removed", "aws", "r1", "p (group_empty)", "-", "c1"],
    ]
    assert stub.asked[0].query == {"after": "c0", "limit": "1000"}


def test_following_outlives_a_restart(stub: Stub, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on after the last change seen, and says once that it waits."""
    monkeypatch.setattr("daemon.cli.review.PAUSE", 0)
    first, second = (change(f"r{i}", None, outcome(owner("a")), f"c{i}") for i in (1, 2))
    nothing: dict[str, Any] = {"changes": [], "next": None}
    stub.on("/v1/changes", {"changes": [first], "next": None}, nothing, *[HANG_UP] * 5, nothing, {"changes": [second], "next": None})  # fmt: skip
    code, out, err = run("changes", "--follow", "--limit", "2")
    assert (code, [row[3] for row in rows(out)]) == (0, ["r1", "r2"])
    assert err.count("waiting") == 1
    assert {a.query.get("after") for a in stub.asked[1:]} == {"c1"}
    stub.on("/v1/changes", HANG_UP)
    assert run("changes", "--follow")[0] == 1


def test_status(stub: Stub, run: Run) -> None:
    stub.on("/v1/status", {"now": MOMENT, "sources": sources("no access")})
    code, out, err = run("status")
    assert (code, err) == (0, "")
    assert rows(out) == [
        ["corp", "integration", "aws", "ok", "42", MOMENT, "60m", "-", "-", "-"],
        ["new", "integration", "aws", "never", "0", "never", "60m", "-", "-", "-"],
        ["down", "integration", "aws", "failed", "42", MOMENT, "60m", "STALE", "no access (3 times in a row)", "-"],
        ["some", "integration", "aws", "partial", "42", MOMENT, "60m", "-", "eu: no access", "-"],
        ["much", "integration", "aws", "held", "42", MOMENT, "60m", "-", "held: eu: no access", "not all: no access"],
    ]


def sources(why: str) -> list[dict[str, Any]]:
    error = {"code": "forbidden", "message": why, "remedy": f"grant {why}"}
    scope = {"name": "eu", "state": "failed", "rows": 0, "seen_at": None, "age": None, "stale": False, "error": error}
    return [
        source("corp"),
        source("new", "never", seen_at=None, age=None, rows=0, scopes=[]),
        source("down", "failed", error=error, failures=3, stale=True, scopes=[]),
        source("some", "partial", scopes=[scope]),
        source(
            "much",
            "held",
            held={"since": MOMENT, "why": [{"what": "scope", "subject": "eu", "why": why}]},
            gaps=[{"code": "never_tagged", "message": f"not all: {why}", "remedy": f"turn on {why}", "scopes": 1}],
        ),
    ]


# --- problems ---------------------------------------------------------------------------------------------------------

FAILED_READ = {"name": "aws-prod", "error": {"code": "forbidden", "message": "no access", "remedy": "grant tag:Get"}}


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (problem("unknown-resource", 404), 3, ["as it is", "check the id", "ownerd status"]),
        (problem("not-yet-known", 503, sources=[FAILED_READ]), 4, ["aws-prod failed: no access; grant tag:Get"]),
        (problem("not-yet-known", 503, sources=[{"name": "corp", "error": None}]), 4, ["corp: its first reading has"]),
        (problem("not-yet-known", 503), 4, ["ownerd status"]),
        (problem("too-old", 503, age=70), 4, ["ownerd sync"]),
        (problem("ambiguous-resource", 409, integrations=["a", "b"]), 1, ["--integration a or --integration b"]),
        (problem("bad-request", 400), 2, ["as it is"]),
        (problem("internal", 500), 1, ["journalctl"]),
        (problem("from-the-future", 599), 1, ["as it is"]),
        (HANG_UP, 1, ["ended the connection", "try again"]),
        (Canned(200, b"hello"), 1, ["no answer of ownerd's", "ownerd.sock"]),
        (Canned(200, []), 1, ["no answer of ownerd's"]),
        (Canned(200, {"a": 1}), 1, ["no answer of ownerd's"]),
        (Canned(502, b"<html>"), 1, ["no answer of ownerd's"]),
        (Canned(404, {"error": "x"}), 1, ["no answer of ownerd's"]),
    ],
    ids=str,
)
def test_each_problem_says_what_to_do(stub: Stub, run: Run, given: Canned, code: int, said: list[str]) -> None:
    stub.on("/v1/owner", given)
    found, out, err = run("who", "r1")
    assert (found, out) == (code, "")
    assert err.startswith("ownerd: ")
    assert [text for text in said if text not in err] == []


def test_among_several_a_problem_is_told_once(stub: Stub, run: Run) -> None:
    gone, unread = (
        c.body for c in (problem("unknown-resource", 404), problem("not-yet-known", 503, sources=[FAILED_READ]))
    )
    stub.on("/v1/owners", {"answers": [gone, unread, gone, answer("r4", owner("a"))]})
    code, out, err = run("who", "r1", "r2", "r3", "r4")
    assert code == 4
    assert [row[2] for row in rows(out)] == ["unknown-resource", "not-yet-known", "unknown-resource", "tag"]
    assert (err.count("check the id"), err.count("aws-prod failed")) == (1, 1)


def test_an_answer_too_few_is_an_error(stub: Stub, run: Run) -> None:
    stub.on("/v1/owners", {"answers": [answer("r1")]})
    assert run("who", "r1", "r2")[0] == 1


def test_a_cursor_that_expired(stub: Stub, run: Run) -> None:
    stub.on("/v1/changes", problem("cursor-expired", 410))
    code, _, err = run("changes", "--after", "c1")
    assert (code, "without --after" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["whoo", "r1"], "Did you mean 'who'?"),
        (["drift", "--satte", "open"], "Did you mean '--state'?"),
        (["drift", "--state", "opn"], "'opn' is not one of"),
        (["who", "a\udcff"], r"a\udcff is not UTF-8"),
        (["who", "r1", "--max-age", "5x"], "write 90, 90s, 5m, 1h or 2d"),
        (["owned-by", "a", "--limit", "0"], "0 is not in the range"),
        (["completion"], "bash, zsh, fish"),
        (["\x1b[2J\u202e\n"], r"\x1b[2J\u202e"),
        (["who", "--\x1b[2J\n[/]"], r"\x1b[2J"),
    ],
    ids=str,
)
def test_usage(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    _, err = capsys.readouterr()
    assert said in err
    assert not [c for c in err if not c.isprintable() and c != "\n"]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for name in ("run", "serve", "poll", "who", "explain", "owned-by", "drift", "changes", "status", "check", "sync", "held", "accept", "schema", "completion"):  # fmt: skip
        assert f"  {name} " in told
        assert main([name, "-h"]) == 0
    assert "\n  bash: ownerd completion bash > ~/.local/share/bash-completion" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ownerd ")


# --- hostile and long text --------------------------------------------------------------------------------------------


def hostile_pages(stub: Stub, text: str) -> None:
    member = {"id": "u1", "email": text, "name": text}
    full = answer(text, owner(text, id=text, members=[member]), reason=text, stale=True)
    full["resource"] |= {"type": text, "integration": text, "parent": text}
    full["tag"] = {"key": text, "value": text, "resource": f"parent of {text}"}
    steps = [{"step": "key", "text": text}]
    bad = problem("not-yet-known", 503, text, sources=[{"name": text, "error": {"message": text, "remedy": text}}])
    side = outcome(owner(text), reason=text)
    stub.on("/v1/owner", full)
    stub.on("/v1/owners", {"answers": [full, bad.body]})
    stub.on("/v1/explain", explained(text) | {"steps": steps, "answer": full, "sources": [source(text, stale=True)]})
    stub.on("/v1/resources", {"resources": [full], "next": None})
    stub.on("/v1/drift", {"findings": [finding(text, key=text, examples=[text], suggestions=[text])], "next": None})
    stub.on("/v1/changes", {"changes": [change(text, side, side, text)], "next": None})
    tagged = {"tag": {"key": text, "value": text}, **side}
    waiting = {"resource": {"id": text, "integration": text}, "since": MOMENT, "until": MOMENT}
    stub.on("/v1/pending", {"pending": [waiting | {"before": tagged, "after": tagged}], "next": None})
    stub.on("/v1/status", {"now": MOMENT, "sources": [s | {"name": text, "connector": text} for s in sources(text)]})


READING = [
    ["who", "r1"],
    ["who", "r1", "--members"],
    ["who", "r1", "r2"],
    ["who", "r1", "r2", "--members"],
    ["explain", "r1"],
    ["owned-by", "a"],
    ["drift", "-v", "--state", "all"],
    ["pending"],
    ["changes"],
    ["changes", "--follow", "--limit", "1"],
    ["status"],
]


def harmless(out: str, allowed: str) -> bool:
    return not [c for c in out if not c.isprintable() and c not in allowed]


@pytest.mark.parametrize("words", [*READING, ["drift", "--csv"]], ids=" ".join)
def test_hostile_text_in_a_pipe(stub: Stub, run: Run, words: list[str]) -> None:
    """No control or bidi character, no line or cell more than there should be, nothing cut."""
    hostile_pages(stub, "plain")
    _, calm, _ = run(*words)
    hostile_pages(stub, HOSTILE)
    code, out, err = run(*words)
    assert code in {0, 4}
    assert harmless(out, "\r\n\t" if "--csv" in words else "\n\t")
    assert harmless(err, "\n")
    assert [len(row) for row in rows(out)] == [len(row) for row in rows(calm)]
    assert r"[red]x[/red][/]\[b]\x1b[2J\x1b]0;t\x07\x9b31m\u202e\u2066\u200b\r\n\t\x00\u2028end" in out
    hostile_pages(stub, LONG)
    assert LONG in run(*words)[1]


@pytest.mark.parametrize("words", [w for w in READING if w[0] != "changes" or len(w) == 1], ids=" ".join)
@pytest.mark.parametrize("columns", [80, 120, 400])
def test_hostile_text_on_a_terminal(
    stub: Stub, run: Run, terminal: Callable[[int], None], words: list[str], columns: int
) -> None:
    """Only colours beside the text; no markup taken; no line over the edge, however long a value is."""
    terminal(columns)
    hostile_pages(stub, HOSTILE)
    _, out, err = run(*words)
    shown = SGR.sub("", out)
    assert harmless(shown, "\n")
    assert harmless(err, "\n")
    assert "\x1b[31mx" not in out
    assert "[red]x[/red]" in "".join(shown.split()) + "".join(err.split())
    hostile_pages(stub, LONG)
    _, out, _ = run(*words)
    assert max(map(len, SGR.sub("", out).splitlines())) <= columns
    assert len(out) < 100_000
    if words[0] in {"drift", "owned-by", "changes"}:
        assert "characters" in "".join(out.split())


@pytest.mark.parametrize("words", [w for w in READING if "--follow" not in w], ids=" ".join)
def test_hostile_text_in_json(stub: Stub, run: Run, terminal: Callable[[int], None], words: list[str]) -> None:
    """Escaped, and the same document, indented or not."""
    hostile_pages(stub, HOSTILE + " Zürich")
    _, piped, _ = run(*words, "--json")
    terminal(80)
    _, shown, _ = run(*words, "--json")
    assert harmless(piped, "\n")
    assert harmless(shown, "\n")
    assert json.loads(piped) == json.loads(shown)
    assert "Zürich" in shown
    assert f"{HOSTILE} Zürich" in strings(json.loads(piped))


def strings(value: Any) -> list[str]:
    """Every text in a document."""
    if isinstance(value, dict | list):
        return [text for part in (value.values() if isinstance(value, dict) else value) for text in strings(part)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("columns", [80, 120])
def test_a_narrow_terminal_puts_columns_under_others(
    stub: Stub, run: Run, terminal: Callable[[int], None], columns: int
) -> None:
    rid = "//compute.googleapis.com/projects/acme-data-lake/zones/europe-west1-b/instances/checkout"
    row = answer(rid, owner("a"))
    stub.on("/v1/resources", {"resources": [row], "next": None})
    terminal(columns)
    head, *body = SGR.sub("", run("owned-by", "a")[1]).splitlines()
    assert ("TYPE" in head) == (columns == 120)
    if columns == 80:
        assert "".join(line.split("  ")[0] for line in body) == rid + "type rds:db"


# --- what works on the daemon itself ----------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "ownerd.toml"
    path.write_text(toml(configuration(integration("aws"), daemon={"state_directory": str(tmp_path / "state")})))
    return path


def finished(state: str, source: str = "aws", **more: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("added", "changed", "removed", "owner_changes", "drift_opened", "drift_resolved"), 0)
    ending = {"errors": {}, "held": [], "released": False, "seconds": 1.25}
    return {"source": source, "event": "finished", "state": state, "rows": 10, **counts, **ending, **more}


def events_of(text: str) -> list[dict[str, Any]]:
    error = {"code": "forbidden", "message": text, "remedy": text}
    held = [{"what": "scope", "subject": text, "why": text}]
    return [
        {"source": "corp", "event": "started"},
        {"source": "corp", "event": "scope", "scope": text, "rows": 5},
        {"source": "corp", "event": "scope", "scope": text, "rows": 10, "done": True},
        {"source": "corp", "event": "merging"},
        finished("ok", "corp", added=10, drift_opened=2),
        {"source": "aws", "event": "started"},
        {"source": "aws", "event": "scope", "scope": text, "rows": 3, "error": error},
        finished("partial", errors={text: error}, held=held),
    ]


def playing(events: list[dict[str, Any]]) -> Callable[..., AsyncIterator[dict[str, Any]]]:
    async def play(_settings: Any, *_names: Any, **_more: Any) -> AsyncIterator[dict[str, Any]]:
        for event in events:
            yield event

    return play


def test_sync_in_a_pipe(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("daemon.engine.sync", playing(events_of("us-east-1")))
    assert main(["sync", "--config", str(config)]) == 1
    out, err = capsys.readouterr()
    assert rows(out) == [
        ["corp", "read", "us-east-1", "10 rows"],
        ["corp", "ok", "10 rows", "10 added, 2 drift opened", "1.2 s"],
        ["aws", "partial", "10 rows", "partial", "1.2 s"],
    ]
    assert "ownerd: aws: us-east-1: us-east-1\n  → us-east-1\n" in err
    assert "ownerd accept aws lets it through" in err
    assert main(["sync", "--json", "--config", str(config)]) == 1
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == events_of("us-east-1")


@pytest.mark.parametrize(
    ("states", "code"),
    [(["ok"], 0), (["ok", "held"], 5), (["held", "failed"], 1), (["partial"], 1), (["ok", "ok"], 0)],
    ids=str,
)
@pytest.mark.parametrize("words", [["sync"], ["accept", "aws"]], ids=" ".join)
def test_exit_codes_of_runs(
    config: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], states: list[str], code: int
) -> None:
    monkeypatch.setattr(f"daemon.engine.{words[0]}", playing([finished(state) for state in states]))
    assert main([*words, "--config", str(config)]) == code


def test_what_the_engine_refuses(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(_settings: Any, _name: str) -> AsyncIterator[dict[str, Any]]:
        raise OwnerdError(f"nothing is held {HOSTILE}", remedy=HOSTILE)
        yield {}

    monkeypatch.setattr("daemon.engine.accept", refuse)
    assert main(["accept", "aws", "--config", str(config)]) == 1
    _, err = capsys.readouterr()
    assert "nothing is held" in err
    assert harmless(err, "\n")


@pytest.mark.parametrize("columns", [0, 80, 120])
@pytest.mark.parametrize("words", [["sync"], ["accept", "aws"], ["check"], ["held"]], ids=" ".join)
def test_hostile_text_from_the_engine(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: Callable[[int], None],
    words: list[str],
    columns: int,
) -> None:
    if columns:
        terminal(columns)
    examples = [HOSTILE, {"resource": HOSTILE, "before": [HOSTILE], "after": []}]
    why = {"what": "scope", "subject": HOSTILE, "why": HOSTILE, "examples": examples}
    held = [{"source": "aws", "at": 1.7e9, "why": [why]}]
    checked = {"source": "aws", "what": HOSTILE, "ok": False, "detail": HOSTILE, "remedy": HOSTILE}
    for verb in ("sync", "accept"):
        monkeypatch.setattr(f"daemon.engine.{verb}", playing(events_of(HOSTILE)))
    monkeypatch.setattr("daemon.engine.check", playing([checked]))
    monkeypatch.setattr("daemon.engine.held", lambda _settings: held)
    assert main([*words, "--config", str(config)]) == {"held": 5}.get(words[0], 1)
    out, err = capsys.readouterr()
    assert "\x1b[2J" not in out + err
    assert "\x1b]0" not in out + err
    assert harmless(LIVE.sub("", SGR.sub("", out)), "\n\t" if not columns else "\n")
    assert harmless(err, "\n")
    assert "[red]x[/red]" in "".join(SGR.sub("", out).split()) + "".join(err.split())


def test_confirm(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is in force now is told a line each; nothing to confirm is an error, and so is not to say what."""
    done = {"event": "confirmed", "source": "aws", "owner_changes": 1}
    row = {"id": f"r{HOSTILE}", "old": "team-a", "new": HOSTILE}
    monkeypatch.setattr("daemon.engine.confirm", playing([done | {"resources": [row]}]))
    assert main(["confirm", "aws", "r1", "--config", str(config)]) == 0
    out, _ = capsys.readouterr()
    assert harmless(out, "\n\t")
    assert [len(r) for r in rows(out)] == [4]
    assert main(["confirm", "aws", "--all", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out)["resources"] == [row]
    monkeypatch.setattr("daemon.engine.confirm", playing([done | {"resources": []}]))
    assert main(["confirm", "aws", "r1", "--config", str(config)]) == 1
    assert "nothing of that waits" in capsys.readouterr().err
    for wrong in (["aws"], ["aws", "r1", "--all"], ["corp", "--all"]):
        assert main(["confirm", *wrong, "--config", str(config)]) == 2


def test_names_are_known_or_guessed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["sync", "crop"], ["check", "crop"], ["accept", "crop"], ["held", "crop"]):
        assert main([*words, "--config", str(config)]) == 2
        assert 'no source is named "crop"; did you mean "corp"?' in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["run", "serve", "poll"])
def test_every_problem_of_a_configuration(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All at once, on standard error, harmless: a configuration can be generated from anything."""
    bad = tmp_path / "bad.toml"
    bad.write_text('[daemon]\nstate_dir = "/x"\n[guard]\nmax_removed = 7\n["\\u001b[2J"]\n')
    assert main([verb, "--config", str(bad)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "4 problems" in err
    for text in ("daemon.state_dir", "guard.max_removed", "integrations", r"\x1b[2J"):
        assert text in err
    assert harmless(err, "\n")


@pytest.mark.parametrize(
    ("verb", "target"),
    [("run", "daemon.supervisor.run"), ("serve", "daemon.serve.server.serve"), ("poll", "daemon.poller.poll")],
)
def test_the_daemons_end_as_they_say(
    verb: str, target: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def end(settings: Any) -> int:
        seen.append(settings.path)
        return 7

    def fail(_settings: Any) -> int:
        raise OwnerdError("it is taken", remedy="stop the other")

    monkeypatch.setattr(target, end)
    assert main([verb, "--config", str(config)]) == 7
    assert seen == [config]
    monkeypatch.setattr(target, fail)
    assert main([verb, "--config", str(config)]) == 1
    assert capsys.readouterr().err == "ownerd: it is taken\n  → stop the other\n"


def test_completion_never_disturbs(tmp_path: Path, config: Path) -> None:
    """Names not given yet; nothing where the configuration cannot be read."""

    def completed(words: str, config: Path) -> list[str]:
        environ = environment(_OWNERD_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
        environ["OWNERD_CONFIG"] = str(config)
        done = subprocess.run(command(), env=environ, capture_output=True, text=True)
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("ownerd sync corp ", config) == ["plain,aws"]
    assert completed("ownerd accept a", config) == ["plain,aws"]
    assert completed("ownerd ow", config) == ["plain,owned-by"]
    (tmp_path / "bad.toml").write_text("directories = 7")
    assert completed("ownerd sync ", tmp_path / "bad.toml") == []


def test_a_full_disk_is_said(stub: Stub, tmp_path: Path) -> None:
    hostile_pages(stub, "x")
    for words in (["who", "r1"], ["drift"], ["drift", "--json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command(*words, "--socket", str(tmp_path / "s")),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
        assert (done.returncode, done.stderr) == (
            1,
            "ownerd: the output cannot be written: No space left on device\n",
        )


def test_a_locale_without_a_name_s_letters(stub: Stub, tmp_path: Path) -> None:
    stub.on("/v1/owner", answer("r1", owner("Zürich")))
    done = subprocess.run(
        command("who", "r1", "--socket", str(tmp_path / "s")),
        capture_output=True,
        text=True,
        env=environment(PYTHONIOENCODING="ascii"),
    )
    assert (done.returncode, done.stdout.split("\t")[1]) == (0, r"Z\xfcrich")
