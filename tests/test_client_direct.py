"""The direct reader: whatever the server says of a resource, it says too."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.errors import Forbidden
from connectors.values import Kind, Principal, Record, Ref, Shift
from daemon.client import (
    AmbiguousResource,
    Answer,
    DatabaseUnusable,
    LookupProblem,
    Lookups,
    NotYetKnown,
    Owners,
    TooOld,
    UnknownResource,
)
from daemon.client.direct import DirectOwners
from daemon.store import schema
from daemon.store.direct import KNOWN, MOST, NEEDED
from tests.harness import World, configuration, group, integration, members, owned_by, resource, team, user
from tests.serving import serving

ON_CALL = owned_by("oncall", "schedule.name")
AZURE = "/subscriptions/0a/resourceGroups/Pay/providers/Microsoft.Sql/servers/Orders"
ODD = [
    "ärn:größe",
    "日本",
    "emoji🙂",
    "new\nline",
    'quote"\\',
    "},{",
    "a b",
    "a+b&c=d",
    "\u202eevil",
    "\ud7ff",
    "x" * 3000,
]
PEOPLE: list[Record] = [
    *team("team-a", "ada", "bob"),
    *team("platform", "pia"),
    group("[outer]", "outer"),
    members("[outer]", "g:[team-a]", "zoë"),
    user("zoë", "Zoë", email="z@x.org"),
]


def shifts(start: float) -> list[Record]:
    """A schedule: ada is on call for two hours, then pia."""
    ref = Ref(Kind.SCHEDULE, "P1")
    return [
        Principal(Kind.SCHEDULE, "P1", "primary"),
        Shift(ref, Ref(Kind.USER, "ada"), start - 3600, start + 7200),
        Shift(ref, Ref(Kind.USER, "pia"), start + 7200, start + 90000),
    ]


class Asked:
    """A world, its server, and the file asked directly."""

    def __init__(self, world: World, socket: Path) -> None:
        self.world = world
        self.served = Owners(socket)
        self.direct = Owners.direct(world.store.path, clock=world.clock)
        self.table = Owners.direct(world.store.path, copied=False, clock=world.clock)

    def close(self) -> None:
        self.served.close()
        self.direct.close()
        self.table.close()

    def same(self, ids: Sequence[str], **more: Any) -> Any:
        """What all say of these ids, which must be the same: alone, and in a batch. The batch is given back."""
        everybody: tuple[Lookups, ...] = (self.served, self.direct, self.table)
        if "integration" not in more and "members" not in more:
            told = [[said(a) for a in owners.get_many(ids, **more)] for owners in everybody]
            assert told[0] == told[1] == told[2]
        for rid in ids:
            by_server, from_copy, from_table = (one(owners, rid, **more) for owners in everybody)
            assert from_copy == by_server == from_table
        return [one(self.direct, rid, **more) for rid in ids]


def said(answer: Answer | LookupProblem) -> Any:
    """An answer in the order of its members, or a problem's kind and body."""
    return (type(answer), answer.kind, answer.body) if isinstance(answer, LookupProblem) else json.dumps(answer)


def one(owners: Lookups, rid: str, **more: Any) -> Any:
    try:
        return said(owners.get(rid, **more))
    except LookupProblem as problem:
        return said(problem)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    document = configuration(
        integration("aws", ON_CALL, owned_by(), hold_owner_changes=1800.0, stale_after="1h"),
        integration("twin", stale_after="2h"),
        integration("azure", owned_by("team")),
    )
    world = World(tmp_path, document)
    with serving(world.store.path, tmp_path / "s", world.clock):
        both = Asked(world, tmp_path / "s")
        yield both
        both.close()
    world.close()


@pytest.fixture
def filled(asked: Asked) -> Asked:
    world = asked.world
    world.run("corp", *PEOPLE, *shifts(world.clock.now))
    world.clock.now += 60
    world.run(
        "aws",
        *(resource(f"r{i}", ("team-a", "outer", "nobody", None)[i % 4]) for i in range(20)),
        resource("child", parent="r0"),
        resource("paged", oncall="primary"),
        resource("agreed", "team-a"),
        resource("disputed", "team-a"),
        resource("waits", "team-a"),
        *(resource(i, "team-a", note=i) for i in ODD),
    )
    world.clock.now += 60
    world.run("twin", resource("agreed", "team-a"), resource("disputed", "platform"), resource("only", "team-a"))
    world.clock.now += 60
    world.run("aws", *rows_of(world, waits="platform"), accept=True)
    return asked


def rows_of(world: World, **owners: str) -> list[Any]:
    """The resources of `aws`, as they are but for the owner tags of some."""
    found = world.query(
        "SELECT rid, parent, tags FROM resource r JOIN source s ON s.id = source_id WHERE s.name = 'aws'"
    )
    return [
        resource(rid, parent=parent, **{**json.loads(tags), **({"owner": owners[rid]} if rid in owners else {})})
        for rid, parent, tags in found
    ]


IDS = [*(f"r{i}" for i in range(20)), "child", "paged", "agreed", "disputed", "waits", "only", "nope", AZURE, *ODD]


def test_it_says_what_the_server_says(filled: Asked) -> None:
    """Of every kind of row, of any age, with members, of one integration, and when all is stale."""
    told = dict(zip(IDS, filled.same(IDS), strict=True))
    assert json.loads(told["waits"])["pending"]["tag"]["value"] == "platform"
    assert json.loads(told["child"])["source"] == "inherited"
    assert json.loads(told["paged"])["valid_until"]
    assert json.loads(told["r2"])["reason"] == "value_unknown"
    assert told["disputed"][0] is AmbiguousResource
    assert told["nope"][0] is NotYetKnown
    assert [json.loads(told[i])["resource"]["id"] for i in ODD] == ODD
    for more in ({"members": True}, {"integration": "aws"}, {"integration": "twin"}, {"integration": "none"}):
        filled.same(IDS, **more)
    assert "ada" in filled.same(["r0"], members=True)[0]
    assert filled.same(["r0"], integration="none")[0][1] == "bad-request"
    for later in (60, 3500, 200, 3600, 90000):
        filled.world.clock.now += later
        filled.same(IDS)
        filled.same(["paged", "r1"], members=True)
    assert json.loads(filled.same(["r0"])[0])["stale"] is True


def test_what_is_absent_is_told_from_what_is_not_known(filled: Asked) -> None:
    """A failed source, a source read at last, and a directory that never was."""
    filled.world.run_scopes("azure", {"all": Forbidden("the key is wrong")})
    (before,) = filled.same(["nope"])
    assert before[2]["sources"] == [{"name": "azure", "error": before[2]["sources"][0]["error"]}]
    filled.world.run("azure", resource(AZURE, team="platform"))
    assert filled.same(["nope"])[0][0] is UnknownResource
    for rid in (AZURE, AZURE.upper(), AZURE.lower()):
        assert "platform" in filled.same([rid])[0]


def test_rows_wait_for_a_directory_that_was_never_read(asked: Asked) -> None:
    """Known, but not its owner; and before anything is configured, nothing is absent."""
    asked.world.run("aws", resource("r", "team-a"))
    (told,) = asked.same(["r"])
    assert told[0] is NotYetKnown
    assert told[2]["reason"] == "directory_never_synced"


def test_the_age_is_refused_alike(filled: Asked) -> None:
    """`max_age`, alone and in batches, at its edge too."""
    filled.world.clock.now += 100
    for most in (0, 99, 100, 159, 160, 161, 219, 220, 221, 279, 280, 281, 2**40):
        filled.same(IDS, max_age=most)
    assert filled.same(["r0"], max_age=10)[0][0] is TooOld


@pytest.mark.parametrize("most", [-1, 1.5, True])
def test_an_age_that_is_no_whole_number(filled: Asked, most: Any) -> None:
    """Both refuse it."""
    for owners in (filled.served, filled.direct):
        assert one(owners, "r0", max_age=most)[1] == "bad-request"
        with pytest.raises(LookupProblem, match="whole number"):
            owners.get_many(["r0"], max_age=most)


@pytest.mark.parametrize("rid", ["", "a\udcff"])
def test_what_is_no_id(filled: Asked, rid: str) -> None:
    """Both refuse what is empty, or no Unicode text."""
    for owners in (filled.served, filled.direct):
        assert one(owners, rid)[1] == "bad-request"
        with pytest.raises(LookupProblem) as caught:
            owners.get_many(["r0", rid])
        assert caught.value.kind == "bad-request"
        with pytest.raises(TypeError):
            owners.get_many("r0")
        assert owners.get_many([]) == []


def test_an_id_with_a_null_character(filled: Asked) -> None:
    """It is another id than what comes before the character, alone and in a batch."""
    filled.world.run("azure", resource("r0\0x", team="platform"))
    told = filled.same(["r0", "r0\0x", "r1\0x", "r1"])
    assert json.loads(told[1])["resource"]["id"] == "r0\0x"
    assert told[2][0] is UnknownResource


def test_many_come_in_the_order_asked(filled: Asked) -> None:
    """More than one statement's worth, each id many times; and no answer shares a part with another."""
    ids = [IDS[i * 7 % len(IDS)] for i in range(2 * MOST + 17)]
    told = filled.direct.get_many(ids)
    assert list(map(said, told)) == list(map(said, filled.served.get_many(ids)))
    first, second = filled.direct.get_many(["r0", "r0"])
    assert isinstance(first, dict) and isinstance(second, dict)
    first["owners"].clear()
    first["resource"]["id"] = "changed"
    assert said(second) == filled.same(["r0"])[0]


def test_what_is_published_is_seen_at_once(filled: Asked) -> None:
    """After every publish: rows, owners, ages, sources. No connection is made anew."""
    filled.same(IDS)
    connection = filled.direct._reader._db
    for turn in range(4):
        filled.world.clock.now += 50
        filled.world.run("corp", *team("team-a", f"new{turn}"), *team("platform", "pia"), accept=True)
        filled.same(IDS)
        filled.world.run("aws", *(resource(f"r{i}", "platform") for i in range(turn, 20)), accept=True)
        filled.same(IDS)
        filled.world.store.turn()
        filled.same(IDS, members=False)
    assert filled.direct._reader._db is connection


IDS_ASKED = st.lists(st.sampled_from([*IDS, "never", "r0 ", "R0"]), max_size=30)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=IDS_ASKED, later=st.integers(0, 4000), most=st.none() | st.integers(0, 5000), again=st.booleans())
def test_whatever_is_asked(filled: Asked, ids: list[str], later: int, most: int | None, again: bool) -> None:
    """Any ids, at any time, after any publish."""
    filled.world.clock.now += later
    if again:
        filled.world.run(
            "twin", resource("agreed", ("team-a", "platform")[later % 2]), resource("only", "team-a"), accept=True
        )
    filled.same(ids, max_age=most)


def test_while_something_is_published(tmp_path: Path) -> None:
    """No answer mixes generations, none goes back, and the writer never waits for the reader."""
    world = World(tmp_path, configuration(integration()))
    world.run("corp", *team("team-a", "a"), *team("platform", "p"))
    ids = [f"r{i}" for i in range(200)]
    world.run("aws", *(resource(i, "team-a") for i in ids))
    done = threading.Event()
    failed: list[BaseException] = []

    def ask(batch: bool) -> None:
        try:
            with Owners.direct(world.store.path, clock=lambda: 0.0) as owners:
                seen = 0
                while not done.is_set():
                    found = owners.get_many(ids) if batch else [owners.get(ids[seen % 200])]
                    told = {
                        (a["owners"][0]["name"], a["changed_at"], a["resource_seen_at"])
                        for a in found
                        if isinstance(a, dict)
                    }
                    assert len(found) == (200 if batch else 1)
                    assert len(told) == 1, told
                    ((_, changed, read),) = told
                    assert changed <= str(read)
                    seen += 1
                assert seen
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(batch,)) for batch in (True, False)]
    for thread in threads:
        thread.start()
    for turn in range(30):
        world.clock.now += 1
        world.run("aws", *(resource(i, ("platform", "team-a")[turn % 2]) for i in ids), accept=True)
    done.set()
    for thread in threads:
        thread.join()
    assert not failed, failed
    world.close()


def test_it_holds_no_transaction(filled: Asked) -> None:
    """The writer can empty its log between two calls, whatever was asked and whatever came of it."""
    filled.same(["r0", "nope", "disputed"], members=True)
    filled.direct.get_many(IDS)
    with closing(sqlite3.connect(filled.world.store.path)) as db:
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        filled.direct._reader.db.execute("DELETE FROM answer")


def test_a_database_that_takes_the_place(filled: Asked, tmp_path: Path) -> None:
    """It is taken up when it knows all that the sources have; until then what is absent is not known."""
    filled.same(["r0"])
    old, folder = filled.world.store.path, tmp_path / "new"
    world = World(folder, configuration(integration("aws")))
    os.replace(old, tmp_path / "aside")
    os.link(world.store.path, old)
    for name in ("-wal", "-shm"):
        os.replace(f"{old}{name}", tmp_path / f"aside{name}")
        os.link(f"{world.store.path}{name}", f"{old}{name}")
    reader = filled.direct._reader
    reader._look_at = 0.0
    assert "team-a" in one(filled.direct, "r0")
    assert one(filled.direct, "nope")[:2] == (NotYetKnown, "not-yet-known")
    assert "set aside" in one(filled.direct, "nope")[2]["detail"]
    world.run("corp", *team("team-b", "b"), *team("platform", "p"))
    world.run("aws", resource("r0", "team-b"))
    reader._look_at = 0.0
    assert "team-b" in one(filled.direct, "r0")
    assert one(filled.direct, "nope")[0] is UnknownResource
    world.close()


def test_no_database_and_no_right_to_it(tmp_path: Path) -> None:
    """None yet: not known. What is no database: unavailable, as the server says. A folder: an error."""
    with DirectOwners(tmp_path / "ownerd.db") as owners:
        with pytest.raises(NotYetKnown, match="ownerd poll"):
            owners.get("r")
        with pytest.raises(NotYetKnown):
            owners.get_many(["r"])
    (tmp_path / "text").write_text("this is no database, and long enough to be looked at" * 99)
    with DirectOwners(tmp_path / "text") as owners, pytest.raises(LookupProblem) as caught:
        owners.get("r")
    assert caught.value.kind == "unavailable"
    with DirectOwners(tmp_path) as owners, pytest.raises(DatabaseUnusable, match=r"ownerd\.db"):
        owners.get("r")


def test_a_file_that_may_not_be_read(filled: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says to ask over the socket. (Root may read everything, so SQLite's refusal is played.)"""

    def refuse(*_: Any, **__: Any) -> None:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    monkeypatch.setattr("daemon.store.direct.sqlite3.connect", refuse)
    for readable, says in ((False, "only ownerd's own user"), (True, "ownerd.db-shm")):
        monkeypatch.setattr("daemon.store.direct.os.access", lambda *_, readable=readable: readable)
        with pytest.raises(DatabaseUnusable) as caught:
            filled.direct.get("r0")
        assert "over the socket" in caught.value.remedy
        assert says in caught.value.remedy


def test_the_schema_it_reads_is_the_schema_that_is_written() -> None:
    """A new migration must be looked at: does it change what `daemon.store.lookups` reads, or is it for `KNOWN`?"""
    assert NEEDED <= {m.name for m in schema.migrations._migrations} <= KNOWN


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("INSERT INTO _sqlite_migrations VALUES (99, 'ownerd', 'm999_new', '')", "later"),
        ("DELETE FROM _sqlite_migrations WHERE name = 'm004_pending'", "earlier"),
    ],
)
def test_another_version_wrote_the_file(filled: Asked, change: str, says: str) -> None:
    """Even when the poller is upgraded under an open connection, and even if the column that is read has gone."""
    filled.same(["r0"])
    with closing(sqlite3.connect(filled.world.store.path, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute(change)
        db.execute("ALTER TABLE answer RENAME COLUMN waiting TO waits")
        db.execute("COMMIT")
    for ask in (lambda: filled.direct.get("r0"), lambda: filled.direct.get_many(["r0"])):
        with pytest.raises(DatabaseUnusable, match=f"{says} ownerd") as caught:
            ask()
        assert "socket" in caught.value.remedy


def test_rows_that_are_damaged_say_so(filled: Asked) -> None:
    """A row that is no JSON, or holds two: unavailable, and its neighbours are answered as ever."""
    with closing(sqlite3.connect(filled.world.store.path)) as db:
        (body,) = db.execute("SELECT body FROM answer WHERE key = 'r1'").fetchone()
        db.execute("UPDATE answer SET body = ? WHERE key = 'r1'", (body + b"},{" + body[1:],))
        db.execute("UPDATE answer SET body = x'ff7b' WHERE key = 'r4'")
        db.execute("UPDATE answer SET body = (SELECT body FROM answer WHERE key = 'r6') WHERE key = 'r5'")
        db.commit()
    told = filled.direct.get_many(["r0", "r1", "r4", "r5", "r6", "nope"])
    assert [a["resource"]["id"] if isinstance(a, dict) else a.kind for a in told] == [
        "r0", "unavailable", "unavailable", "unavailable", "r6", "not-yet-known",
    ]  # fmt: skip
    for rid in ("r1", "r4", "r5"):
        assert one(filled.direct, rid)[1] == "unavailable"


def test_a_child_opens_the_file_anew(filled: Asked) -> None:
    """SQLite's connections must not pass a fork: the child has one of its own, and leaves the parent's alone."""
    filled.direct.get("r0")
    reader = filled.direct._reader
    before = reader._db
    monkey = "daemon.store.direct"
    sys.modules[monkey]._forked()  # what Python calls in the child
    assert filled.direct.get("r0")["resource"]["id"] == "r0"
    assert reader._db is not before
    assert before is not None
    assert before.execute("SELECT 1").fetchone() == (1,)  # not closed: that is the parent's to do
    before.close()


def test_threads_take_turns(filled: Asked) -> None:
    """Threads that share one get each their own answers."""
    ids = [f"r{i}" for i in range(20)]
    wrong: list[Any] = []

    def ask(owners: Lookups, rid: str) -> None:
        for _ in range(50):
            if owners.get(rid)["resource"]["id"] != rid:
                wrong.append(rid)

    for owners in (filled.direct, filled.served):
        threads = [threading.Thread(target=ask, args=(owners, rid)) for rid in ids[:8]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_the_client_imports_the_standard_library_only() -> None:
    """Whoever asks, over the socket or the file, needs to install nothing."""
    code = (
        "import sys; before = set(sys.modules); import daemon.client, daemon.client.direct\n"
        "print([m for m in set(sys.modules) - before"
        " if m.partition('.')[0] not in {*sys.stdlib_module_names, 'daemon'}])"
    )
    told = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[]"
