"""The processes: start, stop, reload, crash, and what they never import."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.processes import NICE
from tests.harness import configuration, integration
from tests.processes import PATIENCE, answers, children, command, environment, ownerd, running, toml, until
from tests.unixhttp import call, get

ROWS = 40
SDKS = ("boto3", "botocore", "okta", "aiohttp", "ldap3")


class Site:
    """A folder with a configuration of real files, which change by generations."""

    def __init__(self, folder: Path, interval: str = "100ms") -> None:
        self.folder = folder
        self.state = folder / "state"
        self.socket = self.state / "ownerd.sock"
        self.config = folder / "ownerd.toml"
        self.document: dict[str, Any] = configuration(
            integration("aws", interval=interval),
            daemon={"state_directory": str(self.state)},
            guard={"max_removed": 1, "max_owner_changes": 1},
        )
        self.document["directories"][0] |= {"path": str(folder / "people.json"), "interval": interval}
        self.document["integrations"][0]["path"] = str(folder / "rows.json")
        people: list[dict[str, Any]] = [{"kind": "user", "id": "u"}]
        people += [{"kind": "group", "id": f"g{i}", "name": f"gen-{i}", "members": ["u"]} for i in range(1000)]
        people += [{"kind": "group", "id": "p", "name": "platform", "members": ["u"]}]
        self._replace("people.json", {"principals": people})
        self.generation(0)
        self.write()

    def write(self) -> None:
        self.config.write_text(toml(self.document))

    def generation(self, number: int) -> None:
        rows = [{"id": f"r{i}", "tags": {"owner": f"gen-{number}"}} for i in range(ROWS)]
        self._replace("rows.json", {"resources": rows})

    def _replace(self, name: str, content: dict[str, Any]) -> None:
        (self.folder / f"{name}.new").write_text(json.dumps(content))
        (self.folder / f"{name}.new").replace(self.folder / name)

    def served(self) -> int:
        """The one generation that all rows are of."""
        answer = call(self.socket, "POST", "/v1/owners", {"resources": [f"r{i}" for i in range(ROWS)]})
        assert answer.status == 200, answer
        assert all("owners" in a for a in answer.json["answers"]), answer.json["answers"][:2]
        names = {a["owners"][0]["name"] for a in answer.json["answers"]}
        assert len(names) == 1, f"a torn generation: {names}"
        return int(names.pop().removeprefix("gen-"))

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start(self, verb: str) -> Any:
        return running(verb, self.config, self.log(verb))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def ready(site: Site) -> bool:
    answer = answers(site.socket, "/readyz")
    return answer is not None and answer.status == 200


def test_run_polls_and_serves_and_ends(site: Site) -> None:
    """One command does it all, follows changes, and ends cleanly on SIGTERM."""
    with site.start("run") as daemon:
        until(lambda: ready(site))
        assert site.served() == 0
        site.generation(1)
        until(lambda: site.served() == 1)
        group = [daemon.pid, *children(daemon.pid)]
        assert len(group) == 3
        assert daemon.stop() == 0
    assert not site.socket.exists()
    assert not (site.state / "control.sock").exists()
    assert not [p for p in group if Path(f"/proc/{p}").exists()]


def test_killed_at_random_moments(site: Site) -> None:
    """kill -9 of child, poller and server, over and over: what is served is one whole generation, and never older."""
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    with contextlib.ExitStack() as stack:
        daemons = {verb: stack.enter_context(site.start(verb)) for verb in ("poll", "serve")}
        until(lambda: ready(site))
        last = 0
        for number in range(1, 31):
            site.generation(number)
            while dice.random() < 0.9 and site.served() == last:
                time.sleep(0.01)
            verb = dice.choice(["child", "poll", "serve"])
            poller = daemons["poll"].pid
            victim = dice.choice(children(poller) or [poller]) if verb == "child" else daemons[verb].pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            for name, daemon in daemons.items():
                if daemon.pid == victim:
                    daemon.process.wait()
                    daemons[name] = stack.enter_context(site.start(name))
            until(lambda: answers(site.socket))
            served = site.served()
            assert served >= last
            last = served
        until(lambda: site.served() == 30)


def test_run_starts_again_what_was_killed(site: Site) -> None:
    with site.start("run") as daemon:
        until(lambda: ready(site))
        before = set(children(daemon.pid))
        os.kill(min(before), signal.SIGKILL)
        until(lambda: len(children(daemon.pid)) == 2 and set(children(daemon.pid)) != before)
        site.generation(1)
        until(lambda: answers(site.socket) and site.served() == 1)


def test_directories_come_first(site: Site) -> None:
    """After a start no row is published before it can be resolved: the feed has no row that waited."""
    with site.start("run"):
        until(lambda: ready(site))
        changes = get(site.socket, "/v1/changes", limit=1000).json["changes"]
        assert {c["after"]["reason"] for c in changes} == {None}


@pytest.mark.parametrize(("before", "after"), [(0, NICE), (NICE + 3, NICE + 3)])
def test_who_polls_gives_way(before: int, after: int) -> None:
    """Whoever started it politer leaves it so; asked twice, it does not give way further."""
    code = "import os; from daemon.processes import give_way; give_way(); give_way(); print(os.nice(0))"
    words = ["nice", "-n", str(before - os.nice(0)), sys.executable, "-c", code]
    assert int(subprocess.run(words, capture_output=True, check=True, env=environment()).stdout) == after


def test_the_poller_gives_way_and_the_server_does_not(site: Site) -> None:
    """The kernel says so: proc_pid_stat(5), the nineteenth field."""
    ours = os.nice(0)
    with site.start("run") as daemon:
        until(lambda: ready(site))
        nice = {
            name: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])
            for pid in children(daemon.pid)
            for name in ("poll", "serve")
            if name in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        }
    assert nice == {"poll": max(NICE, ours), "serve": ours}


def test_nothing_outlives_a_killed_run(site: Site) -> None:
    """kill -9 of the parent alone: server and poller end, and the next `ownerd run` finds its places free."""
    with site.start("run") as daemon:
        until(lambda: ready(site))
        pids = children(daemon.pid)
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.process.wait()
        until(lambda: not [p for p in pids if Path(f"/proc/{p}").exists()])
    site.generation(1)
    with site.start("run"):
        until(lambda: answers(site.socket) and site.served() == 1)


def test_the_next_start_serves_the_last_generation_at_once(site: Site) -> None:
    """With no poller and no sources: the server answers from what was published, whatever killed the processes."""
    with site.start("run") as daemon:
        until(lambda: ready(site))
        for pid in [*children(daemon.pid), daemon.pid]:
            os.kill(pid, signal.SIGKILL)
        daemon.process.wait()
    (site.folder / "rows.json").unlink()
    (site.folder / "people.json").unlink()
    assert site.socket.exists(), "a stale socket file is left behind"
    with site.start("serve") as server:
        server.wait_for("server.ready")
        assert site.served() == 0


def test_a_stopped_poller_leaves_a_database_that_can_be_read(site: Site) -> None:
    assert ownerd("sync", "--config", str(site.config)).returncode == 0
    with site.start("serve") as server:
        server.wait_for("server.ready")
        assert site.served() == 0
        site.generation(1)
        assert ownerd("sync", "--config", str(site.config)).returncode == 0
        assert site.served() == 1


def test_sigterm_stops_a_child_at_work(site: Site) -> None:
    """A run under way is stopped, and nothing of it is published."""
    with site.start("poll") as poller:
        poller.wait_for('"source":"aws"')
        (site.folder / "rows.json").unlink()
        os.mkfifo(site.folder / "rows.json")
        (child,) = until(
            lambda: (
                [c for c in children(poller.pid) if b"aws" in Path(f"/proc/{c}/cmdline").read_bytes() or True] or None
            )
        )[:1]
        assert poller.stop() == 0
        assert not Path(f"/proc/{child}").exists()
    assert not list((site.state / "spool").iterdir())


def test_reload_takes_a_good_configuration_and_refuses_a_bad_one(site: Site) -> None:
    with site.start("run") as daemon:
        until(lambda: ready(site))
        site.config.write_text("nonsense = [")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.kept")
        assert site.served() == 0
        site.document["integrations"][0]["resource_owner"][0]["key"] = "other"
        site.write()
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: get(site.socket, "/v1/owner", resource="r1").json["reason"] == "tag_missing")


def test_a_socket_that_is_taken_is_left_alone(site: Site) -> None:
    """Somebody answers, or the path is no socket: a clear error, and nothing is removed."""
    with site.start("serve") as server:
        server.wait_for("server.ready")
        second = ownerd("serve", "--config", str(site.config))
        assert second.returncode == 1
        assert "another process answers here" in second.stderr
        assert "stop it first" in second.stderr
        assert answers(site.socket)
    site.socket.write_text("precious")
    second = ownerd("serve", "--config", str(site.config))
    assert second.returncode == 1
    assert "exists and is no socket" in second.stderr
    assert site.socket.read_text() == "precious"


def test_a_second_poller_is_refused(site: Site) -> None:
    with site.start("poll") as poller:
        poller.wait_for("poller.ready")
        second = ownerd("poll", "--config", str(site.config))
        assert second.returncode == 1
        assert f"pid {poller.pid}" in second.stderr


def test_sync_goes_through_a_running_poller(tmp_path: Path) -> None:
    site = Site(tmp_path, interval="1h")
    with site.start("poll") as poller:
        poller.wait_for('"source":"aws"')
        site.generation(1)
        done = ownerd("sync", "--config", str(site.config), "aws")
        assert done.returncode == 0, done.stderr
        with site.start("serve") as server:
            server.wait_for("server.ready")
            assert site.served() == 1


def test_a_bad_configuration_ends_everything_with_2(site: Site) -> None:
    site.document["integrations"][0]["nosuchkey"] = 1
    site.write()
    for verb in ("run", "serve", "poll", "check", "sync"):
        done = ownerd(verb, "--config", str(site.config))
        assert done.returncode == 2, verb
        assert 'integrations[0].nosuchkey: unknown key "nosuchkey"' in done.stderr


def test_an_unwritable_state_directory_is_a_clear_error(site: Site) -> None:
    site.document["daemon"]["state_directory"] = "/proc/nope"
    site.write()
    done = ownerd("poll", "--config", str(site.config))
    assert done.returncode == 1
    assert "/proc/nope" in done.stderr
    assert "state directory" in done.stderr


def _modules_of(verb: str, site: Site) -> set[str]:
    """The modules that a process has imported when it ends."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from pathlib import Path; from config.settings import load_settings\n"
        f"from {'daemon.serve.server' if verb == 'serve' else 'daemon.poller'} import {verb}\n"
        f"{verb}(load_settings(Path(sys.argv[1])))\n"
        "Path(sys.argv[2]).write_text('\\n'.join(sys.modules))\n"
    )
    out = site.folder / "modules"
    script = site.folder / "script.py"
    script.write_text(code)
    log = site.log(f"{verb}-modules").open("wb")
    process = subprocess.Popen(
        [sys.executable, str(script), str(site.config), str(out), str(Path(__file__).parents[1])],
        stderr=log,
        env=environment(),
    )
    until(lambda: b".ready" in site.log(f"{verb}-modules").read_bytes() or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, site.log(f"{verb}-modules").read_text()
    log.close()
    return {name.partition(".")[0] for name in out.read_text().split()}


def test_neither_server_nor_poller_imports_an_sdk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the configuration names connectors that have one, and the poller runs them."""
    monkeypatch.setenv("OKTA_TOKEN", "x")
    site.document["directories"] += [
        {"name": "okta", "connector": "okta", "org_url": "https://127.0.0.1:9", "token": {"env": "OKTA_TOKEN"}},
        {"name": "ldap", "connector": "ldap", "url": "ldap://127.0.0.1:9", "base": "dc=x", "schema": "ad"},
    ]
    cloud = {**site.document["integrations"][0], "name": "cloud", "connector": "aws", "endpoint": "http://127.0.0.1:9"}
    del cloud["path"]
    site.document["integrations"].append(cloud)
    site.write()
    for verb in ("serve", "poll"):
        modules = _modules_of(verb, site)
        assert "daemon" in modules
        assert modules & set(SDKS) == set()


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="an empty network namespace needs root and unshare"
)
def test_the_server_needs_no_network_and_no_secret(site: Site) -> None:
    """In a network namespace with no interface up, and an environment with nothing in it."""
    site.document["directories"].append(
        {
            "name": "okta",
            "connector": "okta",
            "org_url": "https://x.okta.com",
            "token": {"env": "SECRET_THAT_IS_NOT_SET"},
        }
    )
    site.write()
    ownerd("sync", "--config", str(site.config), "corp", "aws")
    log = site.log("bare")
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["unshare", "--net", *command("serve", "--config", str(site.config))],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": environment()["PYTHONPATH"]},
            stderr=out,
        )
    try:
        until(lambda: answers(site.socket))
        assert site.served() == 0
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_a_socket_from_the_service_manager(site: Site, tmp_path: Path) -> None:
    """systemd's protocol: file descriptor 3, LISTEN_FDS, and READY=1 on the notify socket."""
    ownerd("sync", "--config", str(site.config))
    path = tmp_path / "given.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(60)
    code = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(listening.fileno()), *command("serve", "--config", str(site.config))[1:]],
        pass_fds=[listening.fileno()],
        env=environment(LISTEN_FDS="1", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000"),
        stderr=subprocess.DEVNULL,
    )
    assert manager.recv(100) == b"READY=1" or manager.recv(100) == b"READY=1"
    assert get(path, "/v1/owner", resource="r1").status == 200
    while manager.recv(100) != b"WATCHDOG=1":
        pass
    process.terminate()
    while manager.recv(100) != b"STOPPING=1":
        pass
    assert process.wait(60) == 0
    assert path.exists(), "the service manager's socket is not ours to remove"
    listening.close()
    manager.close()


def test_the_sockets_modes(site: Site) -> None:
    """Lookups as configured; control for the owner only."""
    site.document["daemon"]["socket_mode"] = "0640"
    site.write()
    with site.start("run"):
        until(lambda: ready(site))
        assert oct(site.socket.stat().st_mode & 0o777) == "0o640"
        assert oct((site.state / "control.sock").stat().st_mode & 0o777) == "0o600"


def test_schedules_hand_over_while_nothing_is_polled(site: Site) -> None:
    """The poller keeps the time: an answer falls back in each gap of a schedule, and comes back with each shift."""
    begin = time.time() - 1
    people = json.loads((site.folder / "people.json").read_text())["principals"]
    shifts = [
        {"member": "u", "start": stamp(begin + 2 * n), "end": stamp(begin + 2 * n + 1)} for n in range(int(PATIENCE))
    ]
    people.append({"kind": "schedule", "id": "s", "name": "primary", "shifts": shifts})
    site._replace("people.json", {"principals": people})
    site._replace("rows.json", {"resources": [{"id": "r", "tags": {"owner": "primary"}}]})
    site.document["integrations"][0] |= {"interval": "1h"}
    site.document["integrations"][0]["resource_owner"] = [
        {"key": "owner", "directory": "corp", "attribute": "schedule.name"}
    ]
    site.document["directories"][0] |= {"interval": "1h"}
    site.write()

    def told() -> dict[str, Any]:
        answer = get(site.socket, "/v1/owner", resource="r")
        return answer.json if answer.status == 200 else {}

    with site.start("run"):
        until(lambda: ready(site) and told())
        polled = {s["name"]: s["last_attempt"] for s in get(site.socket, "/v1/status").json["sources"]}
        for fallback in (True, False, True):
            until(lambda: told()["fallback"] is fallback)  # noqa: B023  # awaited within the round
            assert told()["valid_until"]
        assert {s["name"]: s["last_attempt"] for s in get(site.socket, "/v1/status").json["sources"]} == polled


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
