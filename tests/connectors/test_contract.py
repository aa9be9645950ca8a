"""The contract that every connector keeps, over every rig of every registered kind."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

import connectors.retry
import daemon.guard
from connectors.errors import ConnectorError, StaleBookmark
from connectors.registry import DIRECTORIES, INTEGRATIONS, load
from connectors.values import Kind, Principal
from daemon.child import Job, read
from daemon.spool import SpoolWriter
from tests.connectors.rig import RECOVERS, Content, Fault, Rig, read_into
from tests.harness import World, configuration, integration

HERE = Path(__file__).parent
KINDS = [("integration", kind) for kind in INTEGRATIONS] + [("directory", kind) for kind in DIRECTORIES]


def rigs(role: str, kind: str) -> list[Rig]:
    """The rigs of a kind; none if nobody wrote them, which `test_every_kind_has_a_rig` reports."""
    path = HERE / "rigs" / f"{kind}.py"
    name = f"tests.connectors.rigs.{kind}"
    if not path.exists():
        return []
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return [rig for rig in sys.modules[name].RIGS if rig.role == role]


STARTED: list[Rig] = []
RIGS = [rig for role, kind in KINDS for rig in rigs(role, kind)]


def name_of(rig: Rig) -> str:
    return "-".join(x for x in (rig.role, rig.kind, rig.name) if x)


@pytest.fixture(scope="session")
def servers() -> Iterator[contextlib.ExitStack]:
    """What runs until the session's end: pytest would start a rig anew for every other test."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def rig(request: pytest.FixtureRequest, servers: contextlib.ExitStack) -> Rig:
    rig: Rig = request.param
    if rig.missing:
        pytest.skip(rig.missing)
    if rig not in STARTED:
        servers.enter_context(rig.running())
        STARTED.append(rig)
    return rig


every_rig = pytest.mark.parametrize("rig", RIGS, ids=name_of, indirect=True)


@pytest.mark.parametrize(("role", "kind"), KINDS)
def test_every_kind_has_a_rig(role: str, kind: str) -> None:
    """No connector escapes this suite."""
    assert rigs(role, kind), f'write tests/connectors/rigs/{kind}.py with a rig for the {role} "{kind}"'


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(connectors.retry, "sleep", waits.append)
    return waits


def read_content(rig: Rig, **changes: object) -> Content:
    with contextlib.closing(rig.connector(**changes)) as connector:
        return read_into(Content(), connector)


def read_all(rig: Rig, **changes: object) -> set[str]:
    return read_content(rig, **changes).keys()


def follow(rig: Rig, content: Content) -> Content:
    """Read what has changed since `content` was read; a scope that gave no bookmark is read whole each time."""
    with contextlib.closing(rig.connector()) as connector:
        for scope in connector.scopes():
            since = content.bookmarks.get(scope)
            if since is None:
                content.forget(scope)
            for record in connector.read(scope) if since is None else connector.changes(scope, since):
                content.take(scope, record)
    return content


@every_rig
def test_reads_every_record_there_is(rig: Rig) -> None:
    """Every page is read: what comes back is what the rig holds, to the last record and its content."""
    found = read_all(rig)
    expected = rig.expected()
    assert len(expected) >= 3
    assert sorted(expected - found) == [], "not read"
    assert sorted(found - expected) == [], "made up"


@every_rig
def test_ids_are_unique_in_a_scope(rig: Rig) -> None:
    """No id comes twice from one scope."""
    with contextlib.closing(rig.connector()) as connector:
        for scope in connector.scopes():
            content = Content()
            for record in connector.read(scope):
                content.take(scope, record)
            assert [x for x, n in Counter(content.seen).items() if n > 1] == []


@every_rig
def test_scopes_hold_what_they_say(rig: Rig) -> None:
    """What `holds` leaves out never comes: a directory counts as knowing all groups by it."""
    with contextlib.closing(rig.connector()) as connector:
        for scope in connector.scopes():
            found = {r.kind for r in connector.read(scope) if isinstance(r, Principal)}
            assert found <= set(connector.holds(scope))


@every_rig
def test_a_second_read_says_the_same(rig: Rig) -> None:
    """Reading changes nothing, and keeps nothing that would change the next read."""
    assert read_all(rig) == read_all(rig)


@pytest.mark.parametrize(
    ("rig", "fault"),
    [pytest.param(rig, fault, id=f"{name_of(rig)}-{fault.name.lower()}") for rig in RIGS for fault in rig.faults],
    indirect=["rig"],
)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_fault_raises_and_never_shortens(rig: Rig, fault: Fault, where: str) -> None:
    """A fault on any page ends in the scope's error of the right type, or, where it passes, in the whole list."""
    page = {"first": 1, "middle": (rig.pages + 1) // 2, "last": rig.pages}[where]
    with rig.inject(fault, page):
        if fault in RECOVERS:
            assert read_all(rig) == rig.expected()
            return
        with pytest.raises(ConnectorError) as caught:
            read_all(rig)
    assert isinstance(caught.value, rig.faults[fault]), repr(caught.value)
    assert caught.value.message
    assert read_all(rig) == rig.expected(), "the rig did not recover"


INCREMENTAL = [r for r in RIGS if load(r.entry).incremental]
incremental = pytest.mark.parametrize("rig", INCREMENTAL, ids=name_of, indirect=True)


@incremental
def test_changes_lead_to_what_a_whole_read_finds(rig: Rig) -> None:
    """Following a source's changes ends where reading it whole does, there and back."""
    content = read_content(rig)
    before = rig.expected()
    with rig.changed():
        after = rig.expected()
        assert before - after, "the rig takes nothing away"
        assert after - before, "the rig adds nothing"
        found = follow(rig, content).keys()
        assert sorted(after - found) == [], "not followed"
        assert sorted(found - after) == [], "made up, or kept"
    assert follow(rig, content).keys() == rig.expected()


@incremental
def test_when_nothing_changed_the_changes_say_nothing(rig: Rig) -> None:
    """Content that stays yields no more than what must be read twice, and a bookmark that goes on."""
    content = read_content(rig)
    first = len(content.seen)
    follow(rig, content)
    again = len(content.seen)
    follow(rig, content)
    assert len(content.seen) == again, "the same things were read again and again"
    assert again - first < first, "nothing changed, and all was read again"
    assert content.keys() == rig.expected()


@incremental
def test_a_bookmark_that_is_forgotten_says_so(rig: Rig) -> None:
    """A point that the server does not know is `StaleBookmark`, so that the scope is read whole: never nothing new."""
    assert rig.stale_bookmark is not None
    scopes = read_content(rig).bookmarks
    assert scopes
    with contextlib.closing(rig.connector()) as connector:
        for scope in scopes:
            with pytest.raises(StaleBookmark):
                list(connector.changes(scope, rig.stale_bookmark))


@pytest.mark.parametrize(
    ("rig", "fault"),
    [pytest.param(r, f, id=f"{name_of(r)}-{f.name.lower()}") for r in INCREMENTAL for f in r.change_faults],
    indirect=["rig"],
)
def test_a_fault_in_the_changes_raises(rig: Rig, fault: Fault) -> None:
    """A fault while changes are read fails the scope, or passes; the changes are told again the next time."""
    content = read_content(rig)
    with rig.changed():
        with rig.inject_into_changes(fault):
            if fault in RECOVERS:
                assert follow(rig, content).keys() == rig.expected()
                return
            with pytest.raises(rig.change_faults[fault]) as caught:
                follow(rig, Content.again(content))
            assert caught.value.message
        assert follow(rig, content).keys() == rig.expected()


@pytest.mark.parametrize("rig", [r for r in RIGS if r.kind not in {"file", "terraform"}], ids=name_of)
def test_a_rig_with_credentials_denies_them(rig: Rig) -> None:
    """A rig that has credentials has faults that refuse them and that find them lacking."""
    assert {Fault.UNAUTHENTICATED, Fault.FORBIDDEN} <= rig.faults.keys()


@every_rig
def test_unknown_options_are_refused(rig: Rig) -> None:
    """An option that the connector does not know is an error, not a silence."""
    with pytest.raises(ValidationError, match="nosuchoption"):
        rig.connector(nosuchoption=1)


@every_rig
def test_check_finds_nothing_wrong(rig: Rig) -> None:
    """`ownerd check` is content with good credentials."""
    connector = rig.connector()
    checks = list(connector.check())
    connector.close()
    assert checks
    assert [c for c in checks if not c.ok] == []


@pytest.mark.parametrize(("role", "kind"), KINDS)
def test_importing_a_connector_imports_no_sdk(role: str, kind: str) -> None:
    """The daemon imports connectors to check their options; the SDK comes only with a run."""
    entry = (INTEGRATIONS if role == "integration" else DIRECTORIES)[kind]
    code = (
        f"import sys; from connectors.registry import load, {role.upper().replace('Y', 'IE')}S as kinds; "
        f"load(kinds[{kind!r}]); print(sorted(set({entry.sdk!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("role", "kind"), KINDS)
def test_every_kind_has_its_page_in_the_docs(role: str, kind: str) -> None:
    """docs/connectors/KIND.md exists and names every option."""
    page = (HERE.parents[1] / "docs" / "connectors" / f"{kind}.md").read_text()
    entry = (INTEGRATIONS if role == "integration" else DIRECTORIES)[kind]
    for option in load(entry).Options.model_fields:
        assert f"`{option}`" in page, option


@pytest.mark.parametrize(("role", "kind"), KINDS)
def test_every_kind_is_listed_in_the_docs(role: str, kind: str) -> None:
    """docs/connectors/README.md has a row for each, which tells whether changes are read, and the extra."""
    page = (HERE.parents[1] / "docs" / "connectors" / "README.md").read_text()
    following = {"integration": "| directory ", "directory": "On-call systems"}[role]
    table = page[page.index(f"| {role} ") : page.index(following)]
    (row,) = (line for line in table.splitlines() if line.startswith(f"| [{kind}]({kind}.md) |"))
    entry = (INTEGRATIONS if role == "integration" else DIRECTORIES)[kind]
    changes, extra = (cell.strip() for cell in row.strip("|").split("|")[2:4])
    assert (changes == "yes") == load(entry).incremental
    assert extra == (f"`{kind}`" if entry.sdk else "")


# --- through to the database ------------------------------------------------------------------------------------------

SOURCES = {"integration": "aws", "directory": "corp"}


def run(world: World, rig: Rig, **options: object) -> str:
    """One run of the rig's connector, as a child process makes it; how it ended."""
    world.runs += 1
    world.clock.now += 60
    path = world.folder / "spool" / f"{world.runs}.db"
    spool = SpoolWriter(path, clock=world.clock)
    error: Exception | None = None
    source = SOURCES[rig.role]
    try:
        with contextlib.closing(rig.connector(**options)) as connector:
            list(read(Job(source, rig.role, rig.kind, {}, [], str(path)), connector, spool))
    except Exception as caught:
        error = caught
    spool.finish([str(k) for k in Kind], error)
    return world.store.run(source, path).state


def rows(world: World) -> list[list[tuple[object, ...]]]:
    """All that was read, and what is answered."""
    return [
        world.query("SELECT key, hash FROM resource ORDER BY 1"),
        world.query("SELECT pid, hash, alive FROM principal ORDER BY 1"),
        world.query("SELECT group_pid, member_pid FROM member ORDER BY 1, 2"),
        world.query("SELECT schedule_pid, member_pid, start, until FROM shift ORDER BY 1, 2, 3"),
        world.query("SELECT key, body FROM answer ORDER BY 1"),
    ]


OVER_HTTP = [r for r in RIGS if Fault.THROTTLED_BARE in r.faults]


@pytest.mark.parametrize("rig", OVER_HTTP, ids=name_of, indirect=True)
def test_a_server_that_says_nothing_changes_no_row(rig: Rig, tmp_path: Path) -> None:
    """It takes the request, on a page in the middle, and keeps its client waiting: the scope fails after `timeout`."""
    with contextlib.closing(World(tmp_path, configuration(integration()))) as world:
        assert run(world, rig) == "ok"
        before = rows(world)
        with rig.inject(Fault.HANG, (rig.pages + 1) // 2):
            state = run(world, rig, timeout=0.2)
        assert rows(world) == before
        assert state in {"failed", "partial"}
        assert run(world, rig) == "ok"
        assert rows(world) == before


@pytest.mark.parametrize("rig", OVER_HTTP, ids=name_of, indirect=True)
def test_an_empty_page_changes_no_row(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200, and nothing in the list, where an API hides an error: it is noticed, or else the guard holds what would go.

    Where nothing in the protocol tells, the connector reads a shorter list in good faith. A rig has few rows: so the
    guard counts all of them here, and lets none go.
    """
    monkeypatch.setattr(daemon.guard, "COUNTED_FROM", 1)
    with contextlib.closing(World(tmp_path, configuration(integration(), guard={"max_removed": 0}))) as world:
        assert run(world, rig) == "ok"
        before, noticed = rows(world), set()
        for page in sorted({1, (rig.pages + 1) // 2, rig.pages}):
            with rig.inject(Fault.EMPTY_LIST, page):
                state = run(world, rig)
            print(name_of(rig), page, state)
            assert rows(world) == before, page
            noticed |= {state} & {"failed", "held", "partial"}
        assert noticed
        assert run(world, rig) == "ok"
        assert rows(world) == before


@pytest.mark.parametrize("rig", [r for r in RIGS if r.faults], ids=name_of, indirect=True)
def test_no_fault_changes_a_row(rig: Rig, tmp_path: Path) -> None:
    """Read whole, then with each fault in turn on a page in the middle, then whole again: no row ever changes."""
    with contextlib.closing(World(tmp_path, configuration(integration()))) as world:
        assert run(world, rig) == "ok"
        before = rows(world)
        assert sum(map(len, before))
        for fault in rig.faults:
            with rig.inject(fault, (rig.pages + 1) // 2):
                state = run(world, rig)
            assert rows(world) == before, fault
            assert (state == "ok") == (fault in RECOVERS), fault
        assert run(world, rig) == "ok"
        assert rows(world) == before
