"""The command line, as people and scripts meet it: real commands against a real server."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import configuration, integration
from tests.processes import command, environment, ownerd, running, toml

HOSTILE = "[red]x[/red]\x1b[2J\u202e\r\nend"
PRINCIPALS = [
    {"kind": "user", "id": "u1", "name": "Ada", "email": "ada@x.org"},
    {"kind": "group", "id": "g1", "name": "platform", "members": ["u1"]},
    {"kind": "group", "id": "g2", "name": "Team A", "members": ["u1"]},
    {"kind": "group", "id": "g3", "name": f"evil {HOSTILE}", "members": ["u1"]},
]
RESOURCES: list[dict[str, Any]] = [
    {"id": "r1", "type": "rds:db", "tags": {"owner": "team-a"}},
    {"id": "r2", "parent": "r1"},
    {"id": "r3", "tags": {"owner": "taem-a"}},
    {"id": f"r4{HOSTILE}", "tags": {"owner": HOSTILE}},
    {"id": "r5", "tags": {"owner": f"evil {HOSTILE}"}},
    {"id": "r6", "tags": {"owner": "=cmd()"}},
]


class Cli:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "ownerd.toml"
        self.document = configuration(integration(interval="1h"), daemon={"state_directory": str(folder / "state")})
        self.document["directories"][0] |= {"path": str(folder / "p.json"), "interval": "1h"}
        self.document["integrations"][0]["path"] = str(folder / "r.json")
        (folder / "p.json").write_text(json.dumps({"principals": PRINCIPALS}))
        (folder / "r.json").write_text(json.dumps({"resources": RESOURCES}))
        self.config.write_text(toml(self.document))

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return ownerd(*words, "--config", str(self.config))

    def on_terminal(self, *words: str, columns: int = 100) -> str:
        """What a person sees, colours and all."""
        controller, terminal = pty.openpty()
        environ = environment(COLUMNS=str(columns), TERM="xterm-256color")
        environ.pop("NO_COLOR", None)
        process = subprocess.Popen(
            command(*words, "--config", str(self.config)), stdin=terminal, stdout=terminal, stderr=terminal, env=environ
        )
        os.close(terminal)
        seen = b""
        while True:
            try:
                part = os.read(controller, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not part:
                break
            seen += part
        os.close(controller)
        process.wait(60)
        return seen.decode()


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    cli = Cli(tmp_path_factory.mktemp("cli"))
    done = cli("sync")
    assert done.returncode == 0, done.stderr
    with running("serve", cli.config, cli.folder / "log") as server:
        server.wait_for("server.ready")
        yield cli


def lines(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_who_tells_one_whole(cli: Cli) -> None:
    assert lines(cli("who", "r2"))[0][:3] == ["r2", "Team A", "inherited"]
    assert lines(cli("who", "r1", "--members"))[0][-1] == "Ada <ada@x.org>"
    seen = cli.on_terminal("who", "r2", "--members")
    for text in ("Team A", "group g2 of corp", "inherited", "owner = team-a  of r1", "Ada <ada@x.org>"):
        assert text in seen


def test_who_tells_many_a_line_each(cli: Cli) -> None:
    done = cli("who", "r1", "nope", "r3")
    assert [row[:3] for row in lines(done)] == [
        ["r1", "Team A", "tag"],
        ["nope", "-", "unknown-resource"],
        ["r3", "platform", "FALLBACK: value_unknown"],
    ]
    assert done.returncode == 3


def test_json_is_the_sockets_own(cli: Cli) -> None:
    answer = json.loads(cli("who", "r1", "--json").stdout)
    assert answer["owners"][0]["id"] == "g2"
    both = json.loads(cli("who", "r1", "nope", "--json").stdout)["answers"]
    assert (both[0], both[1]["type"]) == (answer, "/problems/unknown-resource")
    assert len(json.loads(cli("owned-by", "platform", "--json").stdout)["resources"]) == 3
    drift = json.loads(cli("drift", "--json").stdout)
    assert (len(drift["findings"]), drift["next"]) == (3, None)
    assert json.loads(cli("status", "--json").stdout)["sources"][0]["name"] == "corp"
    assert json.loads(cli("explain", "r1", "--json").stdout)["steps"]
    assert len(json.loads(cli("changes", "--json").stdout)["changes"]) == len(RESOURCES)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["who", "nope"], 3, "no integration has this resource"),
        (["who", "r1", "--max-age", "0"], 4, "at most 0 s was asked for"),
        (["who", "r1", "--integration", "nope"], 2, 'no integration is named "nope"'),
        (["sync", "awss"], 2, 'no source is named "awss"; did you mean "aws"?'),
        (["accept", "aws"], 1, 'nothing of "aws" is held'),
        (["drift", "--kind", "nope"], 2, "kind is one of"),
        (["changes", "--after", "nope"], 2, "the cursor is not one"),
    ],
)
def test_exit_codes(cli: Cli, words: list[str], code: int, said: str) -> None:
    done = cli(*words)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_answers(cli: Cli) -> None:
    done = ownerd("who", "r1", "--socket", "/nonexistent/ownerd.sock")
    assert done.returncode == 1
    assert "no ownerd answers on /nonexistent/ownerd.sock" in done.stderr
    assert "ownerd run" in done.stderr


def test_no_configuration_names_the_remedy() -> None:
    done = ownerd("who", "r1", "--config", "/nonexistent.toml")
    assert done.returncode == 2
    assert "$OWNERD_CONFIG" in done.stderr


def test_drift_suggests(cli: Cli) -> None:
    rows = lines(cli("drift"))
    assert [row[:6] for row in rows if row[3] == "taem-a"] == [
        ["value_unknown", "aws", "owner", "taem-a", "1", "Team A"]
    ]
    done = cli("drift", "--csv")
    assert "'=cmd()" in done.stdout
    assert done.stdout.startswith("id,integration,kind")


def test_explain_is_a_story(cli: Cli) -> None:
    told = [row[0] for row in lines(cli("explain", "r2"))]
    assert told[:4] == ["resource", "1. key", "2. inherit", "3. match"]


def test_schema_and_completion(cli: Cli) -> None:
    assert json.loads(ownerd("schema").stdout)["$defs"]
    for shell in ("bash", "zsh", "fish"):
        assert "_OWNERD_COMPLETE" in ownerd("completion", shell).stdout
    done = subprocess.run(
        command(),
        env=environment(
            _OWNERD_COMPLETE="bash_complete", COMP_WORDS="ownerd sync ", COMP_CWORD="2", OWNERD_CONFIG=str(cli.config)
        ),
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["plain,corp", "plain,aws"]


def test_check_says_each_source(cli: Cli) -> None:
    assert [row[:2] for row in lines(cli("check"))] == [["ok", "corp"], ["ok", "aws"]]


def test_held_is_shown_and_accepted(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    assert cli("sync").returncode == 0
    assert cli("held").returncode == 0
    (tmp_path / "r.json").write_text('{"resources": []}')
    done = cli("sync", "aws")
    assert done.returncode == 5
    assert "all 6 rows would go" in done.stderr
    assert "ownerd accept aws" in done.stderr
    done = cli("held")
    assert done.returncode == 5
    assert lines(done)[0][:3] == ["aws", str(tmp_path / "r.json"), "all 6 rows would go"]
    assert cli("accept", "aws").returncode == 0
    assert cli("held").returncode == 0


@pytest.mark.parametrize("words", [["who", "r1", "r3", f"r4{HOSTILE}", "r5"], ["owned-by", "platform"], ["drift", "-v"], ["changes"], ["explain", f"r4{HOSTILE}"], ["explain", "r5"], ["who", f"r4{HOSTILE}"]], ids=" ".join)  # fmt: skip
def test_hostile_text_is_shown_harmless(cli: Cli, words: list[str]) -> None:
    """In a pipe and on a terminal: no raw control or bidi character, no markup taken, no line broken."""
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert not [c for c in done.stdout if not c.isprintable() and c not in "\n\t"]
    assert r"\x1b[2J\u202e\r\nend" in done.stdout
    assert all(len(row) > 1 for row in lines(done))
    seen = cli.on_terminal(*words, columns=300)
    assert "\x1b[2J" not in seen
    assert "\u202e" not in seen
    assert "[red]x[/red]" in seen


def test_a_terminal_gets_colours_and_a_pipe_none(cli: Cli) -> None:
    assert "\x1b[" in cli.on_terminal("who", "r1", "r3")
    assert "\x1b" not in cli("who", "r1", "r3").stdout
    assert "FALLBACK" in cli.on_terminal("who", "r1", "r3")
    seen = cli.on_terminal("sync")
    assert "3 rows" in seen or "6 rows" in seen


def test_looking_is_quick(cli: Cli) -> None:
    """A lookup imports neither pydantic nor rich nor an SDK: a script may ask in a loop."""
    code = (
        "import sys; from daemon.cli import main\n"
        "main(['who', 'r1', '--config', sys.argv[1]])\n"
        "print(sorted({'pydantic', 'rich', 'asyncio', 'daemon.rule', 'boto3', 'okta', 'apscheduler', 'starlette', 'sqlite_utils'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(cli.config)], capture_output=True, text=True, env=environment()
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_changes_can_be_followed(cli: Cli) -> None:
    process = subprocess.Popen(
        command("changes", "--follow", "--json", "--config", str(cli.config)),
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout
    seen = [json.loads(process.stdout.readline()) for _ in RESOURCES]
    assert {c["kind"] for c in seen} == {"added"}
    process.terminate()
    process.wait(60)
    process.stdout.close()


def test_a_reader_that_has_seen_enough(cli: Cli) -> None:
    done = subprocess.run(
        f"{' '.join(command('changes', '--config', str(cli.config)))} | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
