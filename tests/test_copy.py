"""The copy of the answers: whoever reads it says what the database says, of the same generation; and nothing else."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from structlog.testing import capture_logs

from connectors.values import Kind, Principal, Record, Ref, Shift
from daemon.client import Owners, UnknownResource
from daemon.store import checked, copying, hashfile
from daemon.store.copied import Take, at_once, file_of
from daemon.store.copying import most_changed
from daemon.store.direct import DirectReader
from daemon.store.hashfile import HashFile
from daemon.store.reader import Reader
from tests.harness import CopyReader, World, configuration, integration, owned_by, resource, team
from tests.serving import Running, serving
from tests.unixhttp import call, get

PEOPLE: list[Record] = [*team("team-a", "ada"), *team("platform", "pia")]
DOCUMENT = configuration(integration("aws", hold_owner_changes=600.0), integration("gcp"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, DOCUMENT)
    yield world
    world.close()


@pytest.fixture
def filled(world: World) -> World:
    world.run("corp", *PEOPLE)
    world.run("aws", *(resource(f"r{i}", "team-a") for i in range(20)), resource("both", "team-a"))
    world.run("gcp", resource("both", "team-a"), resource("g", "platform"))
    return anew(world)


def anew(world: World) -> World:
    """Make the copy again, of what is there now."""
    world.store._db.execute("UPDATE copy SET file = NULL")
    world.store._copy._not_before = 0.0
    world.store._copy.tend()
    assert copy(world) is not None
    return world


def copy(world: World) -> Path | None:
    """The file that the database names."""
    ((name,),) = world.query("SELECT file FROM copy")
    return None if name is None else file_of(world.store.path, name)


def files(world: World) -> list[Path]:
    return sorted(world.folder.glob("answers-*"))


# --- what is in it ------------------------------------------------------------------------------------------------------


def test_it_has_the_plain_answers(filled: World) -> None:
    """One file, which has what one integration has; not what two have."""
    with CopyReader(filled.store.path) as follower:
        assert follower.look("nope") == {*(f"r{i}" for i in range(20)), "g"}
    (path,) = files(filled)
    assert path == copy(filled)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_row_that_waits_is_not_in_it(world: World) -> None:
    """Until its directory was read; from then on it is told by the table, and by the next copy."""
    world.run("aws", resource("r1", "team-a"))
    with CopyReader(anew(world).store.path) as follower:
        assert follower.look() == set()
        world.run("corp", *PEOPLE)
        assert follower.look() == set()
        anew(world)
        assert follower.look() == {"r1"}


def test_each_change_takes_its_row_out(filled: World) -> None:
    """Other owners, another name, gone, another integration's: told by the table at once, the rest by the copy."""
    rows = {f"r{i}": resource(f"r{i}", "team-a") for i in range(20)}
    everything = {*rows, "g"}
    with CopyReader(filled.store.path) as follower:
        assert follower.look() == everything

        filled.run("gcp", resource("both", "team-a"), resource("g", "team-a"), resource("r5", "platform"))
        assert follower.look() == everything - {"g", "r5"}
        del rows["r6"]
        filled.run("aws", *rows.values(), resource("both", "team-a"))
        assert follower.look("r6") == everything - {"g", "r5", "r6"}
        filled.run("aws", *rows.values(), resource("both", "team-a"), resource("new", "team-a"))
        assert follower.look("r6", "new") == everything - {"g", "r5", "r6"}
        filled.run("corp", *PEOPLE[:3], *team("platform", "pia", "bob"))
        assert follower.look("r6", "new") == everything - {"g", "r5", "r6"}
        filled.run("corp", *team("platform", "pia"), accept=True)
        assert follower.look("r6", "new") == set()
        assert filled.owners()["r1"] == "value_unknown -> platform"
        anew(filled)
        assert follower.look("r6") == {*rows, "g", "new"} - {"r5"}


def test_a_change_that_waits_takes_its_row_out(filled: World) -> None:
    """When it begins to, when it is confirmed, and when it is released by time: each is another answer."""
    with CopyReader(filled.store.path) as follower:
        steps: list[Callable[[], object]] = [
            lambda: filled.run("aws", *_but(r1="platform"), accept=True),
            lambda: filled.store.confirm("aws", ["r1"]),
            lambda: filled.run("aws", *_but(r1="platform", r2="platform"), accept=True),
            lambda: turned_after(filled, 601),
        ]
        for key, step in zip(("r1", "r1", "r2", "r2"), steps, strict=True):
            assert key in anew_look(filled, follower)
            before = filled.answers()[key]
            step()
            assert key not in follower.look()
            assert filled.answers()[key] != before


def turned_after(world: World, seconds: float) -> None:
    world.clock.now += seconds
    world.store.turn()


def _but(**owners: str) -> list[Any]:
    return [*(resource(f"r{i}", owners.get(f"r{i}", "team-a")) for i in range(20)), resource("both", "team-a")]


def anew_look(world: World, follower: CopyReader) -> set[str]:
    anew(world)
    return follower.look()


def test_hand_overs_take_their_rows_out(tmp_path: Path) -> None:
    """A schedule on which nobody is any more owns no more, without a poll."""
    world = World(tmp_path, configuration(integration("aws", owned_by("oncall", "schedule.name"))))
    ref, now = Ref(Kind.SCHEDULE, "P1"), world.clock.now
    shift = Shift(ref, Ref(Kind.USER, "ada"), now, now + 3600.0)
    world.run("corp", *PEOPLE, Principal(Kind.SCHEDULE, "P1", "primary"), shift)
    world.run("aws", resource("r", oncall="primary"), resource("other", oncall="nobody"))
    with CopyReader(anew(world).store.path) as reader:
        assert reader.look() == {"r", "other"}
        assert world.owners()["r"] == "primary"
        turned_after(world, 3601)
        assert world.owners()["r"] != "primary"
        assert reader.look() == {"other"}
    world.close()


def test_configuration_takes_its_rows_out(filled: World) -> None:
    """Other rules, and an integration that is taken out."""
    with CopyReader(filled.store.path) as follower:
        filled.configure(configuration(integration("aws", owned_by("team")), integration("gcp")))
        assert follower.look() == {"g"}
        filled.configure(configuration(integration("aws", owned_by("team"))))
        assert follower.look("g") == set()


def test_a_held_publish_takes_nothing_out(filled: World) -> None:
    """What is rolled back has changed no key."""
    with CopyReader(filled.store.path) as follower:
        before = follower.look()
        report = filled.run("corp", *team("platform", "pia"), *team("other", "ada"))
        assert report.state == "held"
        assert filled.query("SELECT count(*) FROM uncopied") == [(0,)]
        assert follower.look() == before


def test_an_edit_by_hand_takes_its_row_out(filled: World) -> None:
    """The table's triggers do it, whoever writes."""
    with CopyReader(filled.store.path) as follower, closing(sqlite3.connect(filled.store.path)) as db:
        everything = follower.look()
        db.execute("UPDATE answer SET body = x'7b7d' WHERE key = 'r1'")
        db.execute("DELETE FROM answer WHERE key = 'r2'")
        db.commit()
        assert follower.look("r2") == everything - {"r1", "r2"}


# --- generations --------------------------------------------------------------------------------------------------------


def test_a_generation_keeps_its_copy(filled: World) -> None:
    """A reader in the middle of a transaction is told what was, though the writer goes on, and makes another copy."""
    with CopyReader(filled.store.path) as old, CopyReader(filled.store.path) as new:
        old.begin()
        before = old.compare()
        filled.run("aws", *_but(r1="platform", r2=""), resource("more", "team-a"), accept=True)
        filled.store.confirm("aws", None)
        assert old.compare("more") == before
        assert new.look("more") == before - {"r1", "r2"}
        anew(filled)
        assert old.compare("more") == before
        assert new.look() == before | {"more"}
        old.end()
        assert old.look() == before | {"more"}


def test_a_file_that_comes_late_is_not_taken(filled: World) -> None:
    """It is opened beside whatever goes on: by then the database may name another."""
    coming: list[tuple[Path, bytes, Take]] = []

    def open_next() -> None:
        path, nonce, take = coming.pop(0)
        take(kept.pop(0) if kept else HashFile(path, nonce))

    first = copy(filled)
    assert first is not None
    kept = [HashFile(first, bytes.fromhex(first.name[8:-5]))]
    with CopyReader(filled.store.path, lambda *given: coming.append(given)) as reader:
        assert reader.look() == set()
        filled.run("gcp", resource("both", "team-a"), resource("g", "team-a"), accept=True)
        anew(filled)
        assert reader.look() == set()
        open_next()
        assert reader.look() == set()
        open_next()
        assert "g" in reader.look()


@pytest.mark.parametrize("direct", [True, False])
def test_a_backup_in_its_place_is_followed_anew(filled: World, direct: bool) -> None:
    """An older database has fewer changes with the same numbers: nothing of what was known of the other counts."""
    path = filled.store.path
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(backup)) as db:
        filled.store._db.backup(db)
    reader: Any = DirectReader(path, copied=True) if direct else Reader(path, opening=at_once)
    with closing(reader):

        def look() -> dict[str, bytes | None]:
            reader._look_at = 0.0
            if direct:
                with reader.generation():
                    return {key: (reader.copied(key) or [None])[0] for key in ("r1", "r2", "r3", "g")}
            reader.begin_turn()
            told = {key: (reader.copied.find(key) or [None, None])[1] for key in ("r1", "r2", "r3", "g")}
            reader.end_turn()
            return told

        before = look()
        filled.run("aws", *_but(r1="platform", r2="platform"), accept=True)
        filled.store.confirm("aws", None)
        assert look() == before | {"r1": None, "r2": None}
        filled.close()
        for suffix in ("-wal", "-shm"):
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
        backup.replace(path)
        filled.store = type(filled.store)(filled.folder, clock=filled.clock)
        filled.store.configure(filled.settings)
        filled.run("aws", *_but(r3="platform"), accept=True)
        filled.store.confirm("aws", ["r3"])
        assert look() == before | {"r3": None}


# --- when it is made, and given up --------------------------------------------------------------------------------------


def test_it_is_given_up_when_too_much_has_changed(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the transaction that changes too much; the next commit whose time has come makes another."""
    monkeypatch.setattr(copying, "most_changed", lambda rows: 5)
    filled.store._copy._not_before = float("inf")
    first = copy(filled)
    with CopyReader(filled.store.path) as follower:
        filled.run("gcp", *(resource(f"g{i}", "team-a") for i in range(5)), resource("g", "platform"), accept=True)
        assert copy(filled) is None or copy(filled) == first
        filled.run("gcp", *(resource(f"g{i}", "platform") for i in range(5)), resource("g", "platform"), accept=True)
        assert copy(filled) is None
        assert filled.query("SELECT count(*) FROM uncopied") == [(0,)]
        assert follower.look() == set()
        assert files(filled) == []
        filled.run("gcp", resource("g", "platform"), accept=True)
        assert copy(filled) is None
        filled.store._copy._not_before = 0.0
        filled.run("gcp", resource("g", "platform"), accept=True)
        assert copy(filled) not in (None, first)
        assert follower.look() == {*(f"r{i}" for i in range(20)), "g", "both"}


def test_how_much_may_change() -> None:
    """A fiftieth; as many as there are, where there are few; and no more than a server keeps in a few megabytes."""
    sizes = (0, 100, 300, 1000, 50_000, 100_000, 10**6, 10**8)
    assert [most_changed(rows) for rows in sizes] == [100, 100, 300, 1000, 1000, 2000, 20_000, 20_000]


def test_making_it_rests_for_longer_than_it_took(filled: World) -> None:
    """Twenty times; whatever changes meanwhile."""
    ticks = iter([100.0, 103.0, 103.0])
    filled.store._db.execute("UPDATE copy SET file = NULL")
    filled.store._copy._clock = lambda: next(ticks)
    filled.store._copy._not_before = 0.0
    filled.store._copy.tend()
    assert filled.store._copy._not_before == 103.0 + 60.0


def _no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [(hashfile, "_write", _no_room), (copying, "_sync", _no_room), (copying, "SHARE_OF_ROOM", 0.0)],
)
def test_a_disk_that_does_not_take_it(
    filled: World, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, value: Any
) -> None:
    """The publish is one all the same; the failure is told once, no file stays, and none is named."""
    filled.store._db.execute("UPDATE copy SET file = NULL")
    filled.store._copy._not_before = 0.0
    monkeypatch.setattr(where, name, value)
    with capture_logs() as logs:
        assert filled.run("gcp", resource("g", "team-a"), accept=True).state == "ok"
        assert filled.run("gcp", resource("g", "platform"), accept=True).state == "ok"
    assert [entry["event"] for entry in logs if entry["event"].startswith("copy.")] == ["copy.failed"]
    assert (copy(filled), files(filled)) == (None, [])
    assert filled.answers()["g"]["owners"][0]["name"] == "platform"


def test_a_writer_that_dies_before_it_names_the_file(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that nobody names goes with the next start; the one that is named stays."""
    named = copy(filled)
    left = file_of(filled.store.path, "0" * 32)
    left.write_bytes(b"half of it")
    filled.close()
    filled.store = type(filled.store)(filled.folder, clock=filled.clock)
    assert files(filled) == [named]
    with CopyReader(filled.store.path) as follower:
        assert "g" in follower.look()


@pytest.mark.parametrize("how", ["gone", "spoilt"])
def test_a_writer_that_finds_it_spoilt_makes_another(filled: World, how: str) -> None:
    """Also where a backup was put back, whose copy is gone since."""
    before = copy(filled)
    assert before is not None
    filled.close()
    if how == "gone":
        before.unlink()
    else:
        before.write_bytes(before.read_bytes().replace(b"platform", b"intruder"))
    with capture_logs() as logs:
        filled.store = type(filled.store)(filled.folder, clock=filled.clock)
        filled.store.configure(filled.settings)
    assert [e["event"] for e in logs if e["event"] == "copy.unusable"] == ["copy.unusable"] * (how == "spoilt")
    assert copy(filled) not in (None, before)
    assert files(filled) == [copy(filled)]
    with CopyReader(filled.store.path) as follower:
        assert "g" in follower.look()


def test_it_is_synced_before_it_is_named(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, then its folder, then the database: whatever the power takes, a file that is named is whole."""
    order: list[str] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        order.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
        assert copy(filled) is None
        sync(descriptor)

    filled.store._db.execute("UPDATE copy SET file = NULL")
    filled.store._copy._not_before = 0.0
    monkeypatch.setattr(os, "fsync", fsync)
    filled.store._copy.tend()
    assert order == [".copy", ""]
    assert copy(filled) is not None


# --- readers ------------------------------------------------------------------------------------------------------------


def test_a_database_that_has_none_yet(filled: World) -> None:
    """One of an earlier version, that a server opens before the poller does: there is no copy, and no error."""
    with closing(sqlite3.connect(filled.store.path)) as db:
        db.execute("DROP TABLE copy")
        db.commit()
    with CopyReader(filled.store.path) as follower:
        assert follower.look() == set()


@pytest.mark.parametrize("name", ["", "../../../../../../../etc/passwd00", "F" * 32, "zz" * 16, "0" * 31, "0" * 33])
def test_a_name_that_is_none(filled: World, name: str) -> None:
    """The table that names the copy holds anything else: nothing is opened, and the writer makes another."""
    with closing(sqlite3.connect(filled.store.path)) as db:
        db.execute("UPDATE copy SET file = ?", (name,))
        db.commit()
    with CopyReader(filled.store.path) as reader:
        assert reader.look() == set()
    with closing(Owners.direct(filled.store.path, clock=filled.clock)) as owners:
        assert owners.get("g")["owners"][0]["name"] == "platform"
    filled.store._copy._not_before = 0.0
    filled.run("gcp", resource("both", "team-a"), resource("g", "platform"))
    assert files(filled) == [copy(filled)]
    with CopyReader(filled.store.path) as reader:
        assert "g" in reader.look()


@pytest.mark.parametrize("how", ["gone", "cut", "another"])
def test_a_copy_that_cannot_be_used(filled: World, how: str) -> None:
    """The table tells all."""
    path = copy(filled)
    assert path is not None
    match how:
        case "gone":
            path.unlink()
        case "cut":
            os.truncate(path, 1000)
        case "another":
            hashfile.write(path.with_suffix(".new"), bytes(hashfile.NONCE), [("g", 1, b"{}")], at_most=1)
            path.with_suffix(".new").replace(path)
    with CopyReader(filled.store.path) as follower:
        assert follower.look() == set()
    with closing(Owners.direct(filled.store.path, clock=filled.clock)) as owners:
        assert owners.get("g")["owners"][0]["name"] == "platform"


def test_a_spoilt_copy_that_nobody_checked(filled: World) -> None:
    """The direct reader: where a slot leads nowhere, the table tells."""
    path = copy(filled)
    assert path is not None
    told = bytearray(path.read_bytes())
    slots_at = int.from_bytes(told[40:48], "little")
    for at in range(slots_at, len(told), 8):
        if any(told[at : at + 8]):
            told[at + 4 : at + 8] = b"\xff" * 4
    path.write_bytes(told)
    with closing(Owners.direct(filled.store.path, clock=filled.clock)) as owners:
        with pytest.raises(ValueError, match="nowhere"):
            owners._reader.at_hand("g")
        assert owners.get("g")["owners"][0]["name"] == "platform"
        (many,) = owners.get_many(["g"])
        assert many == owners.get("g")


class Answered:
    """A server, and the threads in which it checks copies."""

    def __init__(self, world: World, running: Running, checks: list[Thread]) -> None:
        self.world, self.running, self.checks = world, running, checks
        self.socket = world.folder / "s"
        self.reader = running.door.quick._reader

    def settle(self) -> None:
        """See what there is, wait until it was checked, and take up what came of it."""
        for _ in range(2):
            self.running.do(self.look)
            for thread in self.checks:
                thread.join()

    def look(self) -> None:
        self.reader.end_turn()
        self.reader.begin_turn()
        self.reader.end_turn()

    def told_by_copy(self, key: str) -> bool:
        def find() -> object:
            self.look()
            return self.reader.copied.find(key)

        return self.running.do(find) is not None


@pytest.fixture
def answered(filled: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answered]:
    checks: list[Thread] = []

    class Kept(Thread):
        def start(self) -> None:
            checks.append(self)
            super().start()

    monkeypatch.setattr(checked, "Thread", Kept)
    with serving(filled.store.path, filled.folder / "s", filled.clock) as running:
        yield Answered(filled, running, checks)


IDS = [*(f"r{i}" for i in range(20)), "both", "g", "nope", "r1 "]


def test_the_server_says_the_same_from_it(answered: Answered) -> None:
    """Byte for byte, alone and in batches, before the copy is there, with it, and with some of it changed."""

    def asked() -> list[Any]:
        one = [get(answered.socket, "/v1/owner", resource=rid) for rid in IDS]
        with Owners(answered.socket) as owners:  # in one piece, unlike http.client
            many = owners.get_many(IDS)
        long = call(answered.socket, "POST", "/v1/owners", {"resources": IDS}, {"Cookie": "takes the long way"})
        assert [m if isinstance(m, dict) else m.body for m in many] == long.json["answers"]
        return [*((a.status, a.body) for a in one), (long.status, long.body)]

    plain = asked()
    answered.settle()
    assert answered.told_by_copy("r1")
    assert not answered.told_by_copy("both")
    assert asked() == plain
    answered.world.run("gcp", resource("both", "team-a"), resource("g", "team-a"), accept=True)
    changed = asked()
    assert changed != plain
    assert not answered.told_by_copy("g")
    assert json.loads(changed[IDS.index("g")][1])["owners"][0]["name"] == "team-a"
    anew(answered.world)
    answered.settle()
    assert answered.told_by_copy("g")
    assert asked() == changed


def test_the_server_checks_it_first(answered: Answered) -> None:
    """Another name stands in it: the server says so, once, and answers from the table."""
    path = copy(anew(answered.world))
    assert path is not None
    told = path.read_bytes()
    assert told.count(b"platform") > 1
    path.write_bytes(told.replace(b"platform", b"intruder"))
    answered.settle()
    assert not answered.told_by_copy("g")
    assert get(answered.socket, "/v1/owner", resource="g").json["owners"][0]["name"] == "platform"
    events = [entry["event"] for entry in answered.running.logged if entry["event"] == "copy.unusable"]
    assert events == ["copy.unusable"]


def test_a_disk_that_does_not_give_it(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read before it is mapped: an error then is no end of the process."""

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hashfile, "check", refuse)
    anew(answered.world)
    answered.settle()
    assert not answered.told_by_copy("g")
    assert get(answered.socket, "/v1/owner", resource="g").status == 200
    assert "copy.unusable" in [entry["event"] for entry in answered.running.logged]


def test_a_copy_that_is_gone_before_it_was_checked(answered: Answered) -> None:
    """A newer one has taken its place: nothing to tell."""
    path = copy(anew(answered.world))
    assert path is not None
    path.unlink()
    answered.settle()
    assert not answered.told_by_copy("g")
    assert not [entry for entry in answered.running.logged if entry["event"] == "copy.unusable"]


def test_the_direct_reader_may_be_a_moment_behind_but_never_goes_back(filled: World) -> None:
    """What it has told from the table, it does not take back by the copy."""
    with closing(Owners.direct(filled.store.path, clock=filled.clock)) as owners:
        assert owners.get("r1")["owners"][0]["name"] == "team-a"
        owners._reader._follow_at = float("inf")
        filled.run("aws", *_but(r1="platform"), accept=True)
        filled.store.confirm("aws", None)
        assert owners.get("r1")["owners"][0]["name"] == "team-a"
        with pytest.raises(UnknownResource):
            owners.get("nope")  # the table is asked
        assert owners.get("r1")["owners"][0]["name"] == "platform"
