"""A server with workers: real processes on one socket, which die, hang, restart and reload; and what they count together."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.problems import ConfigurationError
from config.settings import Settings, parse_settings
from daemon.serve import tally
from daemon.serve.tally import Tally
from daemon.serve.workers import Signs, Worker, Workers
from tests.processes import ROOT, answers, children, environment, ownerd, until
from tests.test_load import Clients, Manager
from tests.test_processes import Site
from tests.unixhttp import UnixConnection, get

WORKERS = 2
KILLS = 4

# Before a worker does anything else, it waits here for as long as there is a pipe that nobody writes to.
_HANGS = """
import os
if os.environ.get("OWNERD_WORKER") == "1" and os.path.exists(os.environ["TEST_HANG"]):
    open(os.environ["TEST_HANG"]).read()
"""


class Watcher(Manager):
    """A service manager of a server with workers."""

    def __init__(self, site: Site, path: Path) -> None:
        super().__init__(site, path)
        self.site = site

    @property
    def log(self) -> str:
        return self._site.log("serve").read_text()

    @property
    def workers(self) -> list[int]:
        return sorted(children(self.process.pid))

    def heard(self) -> list[bytes]:
        """What it was told since it listened last."""
        told = []
        self._notify.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                told.append(self._notify.recv(100))
        self._notify.settimeout(60)
        return told

    def hear(self, message: bytes) -> None:
        """Until it is told so."""
        while self._notify.recv(100) != message:
            pass

    def hear_until(self, what: Callable[[], object]) -> list[bytes]:
        """What it was told before something is so; who does not listen keeps the others from talking."""
        told: list[bytes] = []

        def look() -> bool:
            done = bool(what())
            told.extend(self.heard())
            return done

        until(look)
        return told

    def replaced(self, pids: list[int]) -> list[int]:
        """All workers once there are as many as before, and none of `pids`."""
        return until(lambda: now if len(now := self.workers) == WORKERS and not set(pids) & set(now) else None)

    @contextlib.contextmanager
    def alone(self, pid: int) -> Iterator[None]:
        """All but one worker stand still."""
        others = [p for p in self.workers if p != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
            until(lambda: state(other) == "T")  # noqa: B023  # awaited within the round
        try:
            yield
        finally:
            for other in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGCONT)

    def counted(self) -> Counter[str]:
        """The counters, as whoever answers tells them."""
        lines = get(self.path, "/metrics").body.decode().splitlines()
        names = ("ownerd_lookups_total{", "ownerd_connections_total{")
        return Counter({line.split()[0]: int(line.split()[1]) for line in lines if line.startswith(names)})


def state(pid: int) -> str:
    """What proc_pid_stat(5) says that a process does."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Watcher]:
    """Not started yet."""
    site = Site(tmp_path)
    assert ownerd("sync", "--config", str(site.config)).returncode == 0
    site.document["daemon"]["workers"] = WORKERS
    site.write()
    watcher = Watcher(site, tmp_path / "given.sock")
    yield watcher
    watcher.close()


@pytest.fixture
def watcher(stopped: Watcher) -> Watcher:
    stopped.start()
    return stopped


@pytest.fixture
def hang(tmp_path: Path, stopped: Watcher) -> Path:
    """Where a pipe makes worker 1 hang before it has begun."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_HANGS)
    stopped.more |= {"TEST_HANG": str(tmp_path / "hang"), "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}"}
    return tmp_path / "hang"


class Persistent(Clients):
    """Clients that ask a second time when a connection breaks."""

    def _ask(self, number: int) -> None:
        connection = UnixConnection(self._path)
        broken = False
        while not self._stop.is_set():
            try:
                connection.request("GET", "/v1/owner?resource=r1")
                answer = connection.getresponse()
                if answer.status != 200 or b'"id":"r1"' not in answer.read():
                    self.failed.append(f"{answer.status}")
                broken = False
            except (OSError, http.client.HTTPException) as error:
                if broken:
                    self.failed.append(repr(error))
                broken = True
                connection.close()
            else:
                self.answered[number] += 1
        connection.close()


def test_every_worker_answers(watcher: Watcher) -> None:
    """Each does when the others stand still, on the socket that the service manager handed over."""
    assert len(watcher.workers) == WORKERS
    for pid in watcher.workers:
        with watcher.alone(pid):
            assert get(watcher.path, "/v1/owner", resource="r1").status == 200
    assert watcher.path.exists()


def test_counters_are_sums_and_never_go_down(watcher: Watcher) -> None:
    """Whichever worker is asked, and when one was killed and another took its place."""
    answered = 'ownerd_lookups_total{result="answered"}'
    unknown = 'ownerd_lookups_total{result="unknown-resource"}'
    accepted = 'ownerd_connections_total{event="accepted"}'
    first, second = watcher.workers
    with watcher.alone(first):
        for _ in range(3):
            get(watcher.path, "/v1/owner", resource="r1")
        assert watcher.counted()[answered] == 3
    with watcher.alone(second):
        for resource in ("r1", "r1", "nosuch"):
            get(watcher.path, "/v1/owner", resource=resource)
        told = watcher.counted()
        assert (told[answered], told[unknown], told[accepted]) == (5, 1, 8)
    with watcher.alone(first):
        told = watcher.counted()
        assert (told[answered], told[unknown], told[accepted]) == (5, 1, 9)
        os.kill(second, signal.SIGKILL)
        third = until(lambda: set(watcher.workers) - {first, second}).pop()
        after = watcher.counted()
        assert all(after[name] >= told[name] for name in told)
    with watcher.alone(third):
        assert get(watcher.path, "/v1/owner", resource="r1").status == 200
        told = watcher.counted()
        assert (told[answered], told[unknown], told[accepted]) == (6, 1, 12)
    with watcher.alone(first):
        assert watcher.counted()[answered] == 6


def test_a_killed_worker_is_replaced_while_the_others_answer(watcher: Watcher) -> None:
    """kill -9, again and again: who asks a second time when a connection breaks never hears an error."""
    with Persistent(watcher.path) as clients:
        for number in range(KILLS):
            victim = watcher.workers[number % WORKERS]
            os.kill(victim, signal.SIGKILL)
            clients.go_on()
            watcher.replaced([victim])
            clients.go_on()
    assert clients.failed == []
    assert watcher.log.count('"code":-9') == KILLS


def test_restarts_and_reloads_fail_no_lookup(watcher: Watcher) -> None:
    """Of the whole server, and of single workers: nobody hears an error, not even once."""
    with Clients(watcher.path) as clients:
        for _ in range(3):
            clients.go_on()
            watcher.stop()
            watcher.start()
        for number in range(WORKERS):
            victim = watcher.workers[number % WORKERS]
            os.kill(victim, signal.SIGTERM)
            watcher.replaced([victim])
            clients.go_on()
        for _ in range(3):
            watcher.process.send_signal(signal.SIGHUP)
            clients.go_on()
    assert clients.failed == []


def test_a_reload_reaches_every_worker(watcher: Watcher) -> None:
    """Who may no longer ask is refused by each."""
    watcher.site.document["daemon"]["allow_uids"] = [os.geteuid() + 1]
    watcher.site.write()
    watcher.process.send_signal(signal.SIGHUP)
    until(lambda: watcher.log.count('"event":"config.reloaded"') == WORKERS)
    for pid in watcher.workers:
        with watcher.alone(pid):
            assert get(watcher.path, "/v1/owner", resource="r1").problem == "peer-not-allowed"


def test_a_bad_file_ends_no_worker(watcher: Watcher) -> None:
    """While it is bad, a worker that ends cannot be replaced; the others answer, and it is once the file is good."""
    first, second = watcher.workers
    watcher.site.config.write_text("nonsense = [")
    watcher.process.send_signal(signal.SIGHUP)
    os.kill(second, signal.SIGKILL)
    until(lambda: '"code":2' in watcher.log)
    assert get(watcher.path, "/v1/owner", resource="r1").status == 200
    watcher.site.write()
    until(lambda: watcher.log.count('"event":"server.ready"') == WORKERS + 1)
    assert first in watcher.workers


def test_it_is_ready_when_all_are(stopped: Watcher, hang: Path) -> None:
    """One worker that has not begun keeps the service manager waiting, while the other answers."""
    os.mkfifo(hang)
    stopped.launch()
    until(lambda: '"event":"server.ready"' in stopped.log)
    assert get(stopped.path, "/v1/owner", resource="r1").status == 200
    with hang.open("wb"):  # opens once somebody waits at it
        assert stopped.heard() == []
        hang.unlink()
    stopped.hear(b"READY=1")
    assert stopped.log.count('"event":"server.ready"') == WORKERS


def test_a_worker_that_hangs_is_replaced(stopped: Watcher, hang: Path) -> None:
    """Until all feed their watchdogs again, the service manager's is not fed; the other worker answers on."""
    stopped.more["WATCHDOG_USEC"] = "6000000"
    stopped.start()
    stopped.hear(b"WATCHDOG=1")
    victim = _worker(stopped, 1)
    os.mkfifo(hang)
    os.kill(victim, signal.SIGSTOP)
    stopped.hear_until(lambda: f'"worker":1,"pid":{victim},"signal":"SIGABRT"' in stopped.log)
    with hang.open("wb"):  # opens once the next one waits at it
        assert victim not in stopped.workers
        assert get(stopped.path, "/v1/owner", resource="r1").status == 200
        assert stopped.heard() == []
        hang.unlink()
    stopped.hear(b"WATCHDOG=1")
    assert stopped.log.count('"event":"server.ready"') == WORKERS + 1
    assert "SIGKILL" not in stopped.log
    assert stopped.log.count('"event":"worker.silent"') == 1, "the other was left alone"


def _worker(watcher: Watcher, number: int) -> int:
    """The process that is worker `number`."""
    for pid in watcher.workers:
        if f"OWNERD_WORKER={number}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return pid
    raise AssertionError(number)


def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    """kill -9 of the parent alone, with a socket of its own: the workers end, and the next start finds its place."""
    site = Site(tmp_path)
    site.document["daemon"]["workers"] = WORKERS
    site.write()
    with site.start("serve") as server:
        server.wait_for("workers.ready")
        pids = children(server.pid)
        assert len(pids) == WORKERS
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait()
        until(lambda: not [p for p in pids if Path(f"/proc/{p}").exists()])
    assert "Traceback" not in site.log("serve").read_text()
    with site.start("serve") as server:
        until(lambda: answers(site.socket))
        assert server.stop() == 0
    assert not site.socket.exists()


def test_run_keeps_workers_too(tmp_path: Path) -> None:
    """Under `ownerd run` there is one process more, and nothing is left of it."""
    site = Site(tmp_path)
    site.document["daemon"]["workers"] = WORKERS
    site.write()
    with site.start("run") as daemon:
        daemon.wait_for("workers.ready")
        until(lambda: site.socket.exists() and get(site.socket, "/readyz").status == 200)
        assert site.served() == 0
        group = [p for c in children(daemon.pid) for p in (c, *children(c))]
        assert len(group) >= 2 + WORKERS
        assert daemon.stop() == 0
    assert not [p for p in group if Path(f"/proc/{p}").exists()]
    assert not site.socket.exists()


def test_the_parent_imports_no_server_and_no_database(tmp_path: Path) -> None:
    """It is one process more, and should be a small one."""
    site = Site(tmp_path)
    site.document["daemon"]["workers"] = WORKERS
    site.write()
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom config.settings import load_settings\n"
        "from daemon.serve.workers import serve\nserve(load_settings(Path(sys.argv[1])))\n"
        "print(*sys.modules, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script), str(site.config)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until(lambda: answers(site.socket))
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    modules = set(out.decode().split())
    assert "daemon.serve.workers" in modules
    assert modules & {"sqlite3", "uvicorn", "uvloop", "starlette", "daemon.serve.server"} == set()


def test_no_place_for_the_workers_sockets_is_a_clear_error(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.document["daemon"]["workers"] = WORKERS
    site.write()
    (tmp_path / ("x" * 100)).mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "daemon", "serve", "--config", str(site.config)],
        env=environment(TMPDIR=str(tmp_path / ("x" * 100))),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "no place for the sockets" in done.stderr
    assert "TMPDIR" in done.stderr
    assert not site.socket.exists()


@pytest.mark.parametrize("number", [0, 65, -1, 1.5, "two"])
def test_a_wrong_number_of_workers_is_refused(number: object, tmp_path: Path) -> None:
    """With its place, like any other mistake."""
    document = {**Site(tmp_path).document, "daemon": {"workers": number}}
    with pytest.raises(ConfigurationError) as caught:
        parse_settings(document, tmp_path)
    assert [p.place for p in caught.value.problems] == ["daemon.workers"]


# --- what they count together -----------------------------------------------------------------------------------------


def test_who_takes_a_place_goes_on_from_what_is_there() -> None:
    """Two workers, of which one is replaced twice: the sums are of all five lookups and three connections."""
    shared = tally.make(2)
    other = Tally(os.dup(shared), 1)
    other.count(Counter(answered=2), Counter(accepted=1))
    for _ in range(3):
        lookups, connections = Counter[str](), Counter[str]()
        mine = Tally(os.dup(shared), 0)
        mine.count(lookups, connections)
        lookups["answered"] += 1
        connections["evicted"] += 1
        mine.close()
    assert other.sums() == (Counter(answered=5), Counter(accepted=1, evicted=3))
    other.close()
    os.close(shared)


def test_every_counter_has_a_place_of_its_own() -> None:
    """In every slot: each name's number is told under that name, once for each worker."""
    names = (tally.LOOKUP_RESULTS, tally.CONNECTION_EVENTS)
    wanted = tuple(Counter({n: at + 1000 * kind + 2**40 for at, n in enumerate(k)}) for kind, k in enumerate(names))
    shared = tally.make(3)
    all_ = [Tally(os.dup(shared), slot) for slot in range(3)]
    for one in all_:
        one.count(Counter(wanted[0]), Counter(wanted[1]))
        one.write()
    assert all_[0].sums() == tuple(Counter({n: 3 * v for n, v in w.items()}) for w in wanted)
    for one in all_:
        one.close()
    os.close(shared)


def test_what_is_no_worker_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is one says so once only: its children are none."""
    assert tally.inherited() is None
    monkeypatch.setenv(tally.WORKER, "0")
    monkeypatch.setenv(tally.SHARED, str(tally.make(1)))
    mine = tally.inherited()
    assert mine is not None
    assert tally.inherited() is None
    mine.close()


# --- signs of life ----------------------------------------------------------------------------------------------------


def test_a_worker_lives_while_it_says_so() -> None:
    """By a clock of the test's: it is alive for the time allowed after each sign, and silent past that."""
    signs = Signs(30.0)
    assert not signs.alive(0)
    assert not signs.silent(1e9), "nothing was started yet"
    signs.begin(100)
    assert not signs.alive(100), "it has only begun"
    assert not signs.silent(160)
    assert signs.silent(160.1)
    signs.hear(b"READY=1", 101)
    assert not signs.silent(130)
    assert signs.silent(130.1)
    assert signs.ready
    assert not signs.alive(101), "to be ready is no sign of life"
    signs.hear(b"STATUS=x\nWATCHDOG=1", 110)
    assert signs.alive(140)
    assert not signs.silent(140)
    assert not signs.alive(140.1)
    assert signs.silent(140.1)
    signs.hear(b"WATCHDOG=10", 141)
    assert signs.silent(141), "that is another word"


def test_who_takes_a_silent_workers_place_has_time_but_no_credit() -> None:
    """It is not ended at once, and not alive before it says so itself."""
    signs = Signs(30.0)
    signs.begin(0)
    signs.hear(b"READY=1\nWATCHDOG=1", 1)
    signs.warned = True
    signs.hear(b"WATCHDOG=1", 39)
    assert not signs.alive(39), "its last words, while it is being ended"
    signs.begin(40)
    assert not signs.warned
    assert not signs.alive(40)
    assert not signs.silent(100)
    assert signs.silent(100.1)
    signs.hear(b"WATCHDOG=1", 41)
    assert signs.alive(41)


def test_the_watchdog_is_fed_while_every_worker_feeds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before all have, and not past the time allowed after the last sign of any one."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    manager.bind(str(tmp_path / "manager"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    site = Site(tmp_path)
    settings = parse_settings(site.document, site.config)
    shared = tally.make(WORKERS)
    workers = [Worker(n, settings, shared, shared, tmp_path / str(n)) for n in range(WORKERS)]
    senders = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in workers]
    for number, sender in enumerate(senders):
        sender.connect(str(tmp_path / str(number)))
    parent = Workers(workers, settings)

    def fed(now: float) -> bool:
        parent.look(now, 1.0)
        with contextlib.suppress(BlockingIOError):
            return manager.recv(100) == b"WATCHDOG=1"
        return False

    assert not fed(time.monotonic())
    senders[0].send(b"READY=1\nWATCHDOG=1")
    assert not fed(time.monotonic()), "one of two"
    senders[1].send(b"WATCHDOG=1")
    assert fed(time.monotonic())
    assert fed(before := time.monotonic() + 20)
    senders[0].send(b"WATCHDOG=1")
    assert not fed(before + 11), "the second has said nothing since"
    manager.close()
    for sender, worker in zip(senders, workers, strict=True):
        sender.close()
        worker.close()
    os.close(shared)


class Recorded(Worker):
    """A worker whose process is said to run, and to which signals are only noted."""

    pid = 1

    def __init__(self, settings: Settings, path: Path) -> None:
        super().__init__(0, settings, 0, 0, path)
        self.sent: list[signal.Signals] = []

    def send(self, number: signal.Signals) -> None:
        self.sent.append(number)


def test_a_silent_worker_is_ended_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First so that it can be seen where it hung, then in any case; but not when the parent stood still itself."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    site = Site(tmp_path)
    settings = parse_settings(site.document, site.config)
    worker = Recorded(settings, tmp_path / "socket")
    parent = Workers([worker], settings)
    worker.starting()
    worker.signs.hear(b"READY=1\nWATCHDOG=1", now := time.monotonic())
    parent.look(now + 1000, every=1)
    parent.look(now + 1030, every=100)
    assert worker.sent == []
    parent.look(now + 1031, every=100)
    assert worker.sent == [signal.SIGCONT, signal.SIGABRT]
    parent.look(now + 2000, every=1)
    assert worker.sent == [signal.SIGCONT, signal.SIGABRT, signal.SIGCONT, signal.SIGKILL]
    worker.close()
