"""The contract that every connector keeps, over every rig of every registered kind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

import connectors.retry
from connectors.errors import ConnectorError, StaleBookmark
from connectors.registry import DIRECTORIES, INTEGRATIONS, load
from connectors.values import Principal
from tests.connectors.rig import RECOVERS, Content, Fault, Rig, read_into
from tests.connectors.through import KINDS, OVER_HTTP, RIGS, name_of, rigs, rows, run
from tests.harness import World, configuration, integration

HERE = Path(__file__).parent
STARTED: list[Rig] = []


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


def places(rig: Rig) -> list[int]:
    """The first page, one in the middle, and the last."""
    return sorted({1, (rig.pages + 1) // 2, rig.pages})


@pytest.mark.parametrize("rig", [r for r in RIGS if r.faults], ids=name_of, indirect=True)
def test_no_fault_changes_a_row(rig: Rig, tmp_path: Path) -> None:
    """Read whole, then with each fault in turn on pages first, middle and last, then whole again: no row ever changes.

    Where nothing in the protocol tells that an empty list is an error, the connector reads a shorter one in good faith:
    then the guard must hold it, with the limit of a careful operator, since a rig's pages are small.
    """
    careful = {"max_removed": 0.05}
    with contextlib.closing(World(tmp_path, configuration(integration(), guard=careful))) as world:
        assert run(world, rig).state == "ok"
        before = rows(world)
        assert sum(map(len, before))
        faults = [*rig.faults, *(f for f in (Fault.EMPTY_LIST, Fault.HANG) if rig in OVER_HTTP and f not in rig.faults)]
        for fault in faults:
            for page in places(rig):
                with rig.inject(fault, page):
                    report = run(world, rig, **({"timeout": 0.1} if fault is Fault.HANG else {}))
                assert rows(world) == before, (fault, page)
                assert (report.state == "ok") == (fault in RECOVERS), (fault, page)
                assert bool(report.errors) or report.held or fault in RECOVERS, (fault, page)
        assert run(world, rig).state == "ok"
        assert rows(world) == before
