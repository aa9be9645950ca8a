"""A run in its child process: what can go wrong with it stays in it, and says what it was."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import connectors.registry
import daemon.runner
import daemon.spool
from config.settings import Settings, parse_settings
from connectors.registry import Entry
from connectors.values import Resource
from daemon import engine
from daemon.described import describe
from daemon.errors import OwnerdError
from daemon.pipeline import Report, Store
from daemon.runner import Runner, job_for
from daemon.store import merge
from tests.harness import configuration, integration

PRINCIPALS = {
    "principals": [
        {"kind": "user", "id": "u1", "name": "Ada"},
        {"kind": "group", "id": "g1", "name": "platform", "members": ["u1"]},
    ]
}


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """A configuration of real files."""
    (tmp_path / "p.json").write_text(json.dumps(PRINCIPALS))
    (tmp_path / "r.csv").write_text("id,tag:owner\nr1,platform\nr2,nobody\n")
    document = configuration(integration(), daemon={"state_directory": str(tmp_path / "state")})
    document["directories"][0]["path"] = str(tmp_path / "p.json")
    document["integrations"][0]["path"] = str(tmp_path / "*.csv")
    return document


def settings_of(document: dict[str, Any]) -> Settings:
    return parse_settings(document, Path("test.toml"))


def run(
    settings: Settings, *names: str, during: Any = None, whole: bool = False
) -> tuple[dict[str, Report], list[dict[str, Any]]]:
    """Run sources one after the other; the reports, and every event."""
    events: list[dict[str, Any]] = []

    async def main() -> dict[str, Report]:
        store = Store(settings.state_directory)
        runner = Runner(store, settings)
        try:
            await runner.configure(settings)
            helper = asyncio.create_task(during(events)) if during else None
            reports = {name: await runner.run(name, events.append, whole=whole) for name in names}
            if helper:
                await helper
            return reports
        finally:
            runner.close()
            store.close()

    return asyncio.run(main()), events


def test_a_whole_run(document: dict[str, Any]) -> None:
    reports, events = run(settings_of(document), "corp", "aws")
    assert (reports["aws"].state, reports["aws"].rows, reports["aws"].counts.added) == ("ok", 2, 2)
    assert [e["event"] for e in events if e["source"] == "aws"] == [
        "started",
        "scopes",
        "scope",
        "scope",
        "merging",
        "finished",
    ]
    assert events[-1]["drift_opened"] == 1
    state = settings_of(document).state_directory
    assert list((state / "spool").iterdir()) == []


def test_a_child_is_told_what_is_stored(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it finds again is not compared, unless all is asked for; anything else is."""
    compared: list[int] = []
    find = merge._find_differences

    def counted(db: sqlite3.Connection, source: int, stored: Mapping[int, int]) -> None:
        compared.append(source)
        find(db, source, stored)

    monkeypatch.setattr(merge, "_find_differences", counted)
    settings = settings_of(document)
    reports, _ = run(settings, "corp", "aws", "aws", "aws")
    assert (reports["aws"].state, reports["aws"].rows, reports["aws"].counts.added) == ("ok", 2, 0)
    assert len(compared) == 1
    run(settings, "aws", whole=True)
    assert len(compared) == 2
    (tmp_path / "r.csv").write_text("id,tag:owner\nr1,platform\nr2,platform\n")
    reports, _ = run(settings, "aws")
    assert reports["aws"].counts.changed == 1
    assert len(compared) == 3


def test_a_file_whose_name_is_no_unicode(document: dict[str, Any], tmp_path: Path) -> None:
    """It is read, and named as far as it can be."""
    name = os.fsencode(tmp_path) + b"/r\xff.csv"
    try:
        Path(os.fsdecode(name)).write_text("id,tag:owner\nr3,platform\n")
    except OSError:
        pytest.skip("this file system takes no such name")
    reports, events = run(settings_of(document), "corp", "aws", "aws")
    assert (reports["aws"].state, reports["aws"].rows) == ("ok", 3)
    assert any("\ufffd" in str(event.get("scope")) for event in events)


def test_a_file_that_is_not_there(document: dict[str, Any]) -> None:
    """No file is not an empty file: the source fails, with a remedy."""
    document["integrations"][0]["path"] = "/nonexistent/*.csv"
    reports, _ = run(settings_of(document), "aws")
    assert reports["aws"].state == "failed"
    assert reports["aws"].errors[""]["code"] == "misconfigured"
    assert reports["aws"].errors[""]["remedy"]


def test_a_missing_extra_names_itself(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A connector whose SDK is not installed says which extra to install."""
    package = tmp_path / "site"
    package.mkdir()
    (package / "missing_sdk_connector.py").write_text(
        "from connectors.file import *\n"
        "class NoSdk(ResourceFile):\n"
        "    def read(self, scope):\n"
        "        import surely_not_installed\n"
        "        yield\n"
    )
    (package / "sitecustomize.py").write_text(
        "import connectors.registry as r\n"
        "r.INTEGRATIONS['nosdk'] = r.Entry('missing_sdk_connector:NoSdk', sdk=('surely_not_installed',))\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), *sys.path]))
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setitem(
        connectors.registry.INTEGRATIONS,
        "nosdk",
        Entry("missing_sdk_connector:NoSdk", sdk=("surely_not_installed",)),
    )
    document["integrations"][0]["connector"] = "nosdk"
    reports, _ = run(settings_of(document), "aws")
    (error,) = reports["aws"].errors.values()
    assert error["code"] == "missing_extra"
    assert error["remedy"] == "pip install 'ownerd[nosdk]'"


def _children() -> list[int]:
    """Process ids of this process's children at work."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid() and b"daemon.child" in command:
            found.append(int(folder.name))
    return found


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A file that never ends: a child that reads it hangs."""
    path = tmp_path / "hang.csv"
    os.mkfifo(path)
    yield path
    path.unlink()


async def _child_at_work(events: list[dict[str, Any]]) -> int:
    while not any(e["event"] == "scope" for e in events):
        await asyncio.sleep(0.01)
    (child,) = _children()
    return child


def test_a_killed_child_fails_its_run_and_nothing_else(document: dict[str, Any], pipe: Path, tmp_path: Path) -> None:
    (tmp_path / "r.csv").unlink()

    async def kill(events: list[dict[str, Any]]) -> None:
        os.kill(await _child_at_work(events), signal.SIGKILL)

    reports, _ = run(settings_of(document), "aws", during=kill)
    assert reports["aws"].state == "failed"
    assert reports["aws"].errors[""]["message"] == "the child process ended with signal 9"
    reports, _ = run(settings_of(document), "corp")
    assert reports["corp"].state == "ok"


def test_a_run_that_hangs_is_stopped(document: dict[str, Any], pipe: Path, tmp_path: Path) -> None:
    (tmp_path / "r.csv").unlink()
    document["integrations"][0]["time_limit"] = "1s"
    reports, _ = run(settings_of(document), "aws")
    assert reports["aws"].errors[""]["code"] == "time_limit"
    assert "time_limit" in reports["aws"].errors[""]["remedy"]
    assert _children() == []


def test_the_child_dies_with_its_parent(document: dict[str, Any], pipe: Path, tmp_path: Path) -> None:
    """A poller that is killed leaves no child behind."""
    (tmp_path / "r.csv").unlink()
    config = tmp_path / "o.json"
    config.write_text(json.dumps(document))
    code = (
        "import asyncio, json, sys; from pathlib import Path; from config.settings import parse_settings\n"
        "from daemon.engine import sync\n"
        "async def main():\n"
        "    async for e in sync(parse_settings(json.load(open(sys.argv[1])), Path('t')), ['aws']):\n"
        "        print(json.dumps(e), flush=True)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(config)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    for line in parent.stdout:
        if json.loads(line)["event"] == "scope":
            break
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) == 1
    pidfd = os.pidfd_open(int(children[0]))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    import select

    assert select.select([pidfd], [], [], 30)[0], "the child outlived its parent"
    os.close(pidfd)


def _full_disk(tmp_path: Path, size: str) -> Path:
    """A file system with hardly any room."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)], capture_output=True)
    if done.returncode:
        pytest.skip("a file system of a given size can only be mounted by root")
    return mount


def test_a_full_disk_is_a_clear_error_and_loses_nothing(document: dict[str, Any], tmp_path: Path) -> None:
    """Reading more than there is room for fails the run; what was published before is still there."""
    mount = _full_disk(tmp_path, "1200k")
    try:
        document["daemon"]["state_directory"] = str(mount / "state")
        reports, _ = run(settings_of(document), "corp", "aws")
        assert reports["aws"].state == "ok"
        (tmp_path / "more.csv").write_text("id,tag:owner\n" + "".join(f"x{i},{'v' * 200}\n" for i in range(10_000)))
        reports, _ = run(settings_of(document), "aws")
        assert reports["aws"].state == "failed"
        (error,) = {e["code"]: e for e in reports["aws"].errors.values()}.values()
        assert error["code"] in {"spool", "database"}
        assert "full" in error["message"]
        assert "room" in error["remedy"]
        (tmp_path / "more.csv").unlink()
        reports, _ = run(settings_of(document), "aws")
        assert (reports["aws"].state, reports["aws"].rows) == ("ok", 2)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_child_is_told_no_secret(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets travel as references; the process that needs one reads it."""
    monkeypatch.setenv("OKTA_TOKEN", "canary-5e1f")
    document["directories"].append(
        {"name": "okta", "connector": "okta", "org_url": "https://x.okta.com", "token": {"env": "OKTA_TOKEN"}}
    )
    settings = settings_of(document)
    job = job_for(settings, next(s for s in settings.sources if s.name == "okta"))
    assert b"canary" not in job.to_json()
    assert b"OKTA_TOKEN" in job.to_json()


def test_a_child_is_told_which_kinds_own(document: dict[str, Any]) -> None:
    settings = settings_of(document)
    assert job_for(settings, settings.sources[0]).kinds == ["group"]


def test_check_says_what_is_wrong(document: dict[str, Any]) -> None:
    document["integrations"][0]["path"] = "/nonexistent.csv"

    async def main() -> list[dict[str, Any]]:
        return [event async for event in engine.check(settings_of(document))]

    good, bad = asyncio.run(main())
    assert (good["source"], good["ok"]) == ("corp", True)
    assert (bad["source"], bad["ok"]) == ("aws", False)
    assert "no such file" in bad["detail"]


def test_accepting_what_is_not_held(document: dict[str, Any]) -> None:
    async def main() -> None:
        async for _ in engine.accept(settings_of(document), "aws"):
            pass

    with pytest.raises(OwnerdError, match='nothing of "aws" is held'):
        asyncio.run(main())
    assert engine.held(settings_of(document)) == []


def test_held_and_accepted(document: dict[str, Any], tmp_path: Path) -> None:
    """What is held can be looked at, and let through, without a daemon."""
    settings = settings_of(document)
    run(settings, "corp", "aws")
    (tmp_path / "r.csv").write_text("id,tag:owner\n")
    reports, _ = run(settings, "aws")
    assert reports["aws"].state == "held"
    (report,) = engine.held(settings)
    assert (report["source"], report["why"][0]["why"]) == ("aws", "all 2 rows would go")

    async def main() -> list[dict[str, Any]]:
        return [event async for event in engine.accept(settings, "aws")]

    (event,) = asyncio.run(main())
    assert (event["event"], event["state"], event["removed"]) == ("finished", "ok", 2)
    assert engine.held(settings) == []


def test_a_run_that_leaks_is_stopped(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its process may take so much memory and no more: the run fails and says so, and nothing else notices."""
    package = tmp_path / "site"
    package.mkdir()
    (package / "leaking.py").write_text(
        "from connectors.file import *\n"
        "class Leaking(ResourceFile):\n"
        "    def read(self, scope):\n"
        "        kept = []\n"
        "        while True:\n"
        "            kept.append(bytearray(2**20))\n"
        "        yield\n"
    )
    (package / "sitecustomize.py").write_text(
        "import connectors.registry as r\nr.INTEGRATIONS['leaking'] = r.Entry('leaking:Leaking')\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), *sys.path]))
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setitem(connectors.registry.INTEGRATIONS, "leaking", Entry("leaking:Leaking"))
    document["integrations"][0] |= {"connector": "leaking", "memory_limit": "200MiB"}
    reports, _ = run(settings_of(document), "aws", "corp")
    (error,) = reports["aws"].errors.values()
    assert error["code"] == "memory_limit"
    assert "memory_limit" in error["remedy"]
    assert reports["corp"].state == "ok"


def test_a_run_takes_a_share_of_the_disk_and_no_more(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A list without end fails its run while there is room for the others."""
    monkeypatch.setattr(daemon.spool, "_LEAST_ROOM", 2**20)
    monkeypatch.setattr(daemon.spool, "SHARE_OF_ROOM", 0.0)
    writer = daemon.spool.SpoolWriter(tmp_path / "spool.db")
    with pytest.raises(sqlite3.OperationalError) as caught, writer.scope("all") as scope:
        for number in itertools.count():
            scope.add(Resource(f"endless-{number}", tags={"text": "x" * 1000}))
    assert (tmp_path / "spool.db").stat().st_size <= 2**20
    assert "needs room" in describe(caught.value)["remedy"]


def test_those_that_hang_do_not_keep_others_waiting(
    document: dict[str, Any], pipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as may run at once hang, and say nothing: their places go to those that can be read."""
    monkeypatch.setattr(daemon.runner, "SILENCE", 0.5)
    (tmp_path / "r.csv").unlink()
    settings = settings_of(document)

    async def main() -> str:
        store = Store(settings.state_directory)
        runner = Runner(store, settings, at_once=1)
        await runner.configure(settings)
        events: list[dict[str, Any]] = []
        hanging = asyncio.create_task(runner.run("aws", events.append))
        await _child_at_work(events)
        report = await runner.run("corp", events.append)
        assert not hanging.done()
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        runner.close()
        store.close()
        return report.state

    assert asyncio.run(main()) == "ok"
    assert _children() == []
