"""`hold_owner_changes`: a changed tag waits, and the old owner stays in force."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.values import Resource
from daemon.explain import explain
from daemon.serve.metrics import metrics
from daemon.serve.pending import pending
from daemon.store.reader import Reader
from tests.harness import World, configuration, group, integration, members, resource, team, user

HOLD = 1800.0
PEOPLE = [*team("team-a", "u1"), *team("mallory", "m"), *team("platform", "p1")]


def hold(folder: Path, **more: Any) -> World:
    made = World(folder, configuration(integration(hold_owner_changes=HOLD, **more)))
    made.run("corp", *PEOPLE)
    return made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = hold(tmp_path)
    yield made
    made.close()


def waiting(world: World, query: bytes = b"") -> list[tuple[str, Any, Any, list[str], list[str]]]:
    """Resource, old tag and new, old owners and new."""
    with contextlib.closing(Reader(world.store.path)) as reader:
        return [
            (
                it["resource"]["id"],
                it["before"]["tag"] and it["before"]["tag"]["value"],
                it["after"]["tag"] and it["after"]["tag"]["value"],
                [o["name"] for o in it["before"]["owners"]],
                [o["name"] for o in it["after"]["owners"]],
            )
            for it in pending(reader, query)["pending"]
        ]


def test_a_changed_tag_waits(world: World) -> None:
    """The old owner stays until the time has passed; the answer tells what waits, the feed what happened."""
    world.run("aws", resource("r", "team-a"))
    report = world.run("aws", resource("r", "mallory"))
    assert report.owner_changes == 0
    assert [w[:4] for w in report.waiting] == [("aws", "r", "team-a", "mallory")]
    assert world.owners() == {"r": "team-a"}
    told = world.answers()["r"]
    assert told["tag"] == {"key": "owner", "value": "team-a", "resource": "r"}
    assert told["pending"]["tag"] == {"key": "owner", "value": "mallory", "resource": "r"}
    assert told["pending"]["until"] == "2023-11-14T22:43:20Z"
    assert waiting(world) == [("r", "team-a", "mallory", ["team-a"], ["mallory"])]

    world.clock.now += HOLD - 1
    assert world.store.turn() == []
    assert world.owners() == {"r": "team-a"}
    assert world.store.next_turn() == world.clock.now + 1
    world.clock.now += 1
    (turned,) = world.store.turn()
    assert turned.applied == [("r", "team-a", "mallory")]
    assert turned.owner_changes == 1
    assert world.owners() == {"r": "mallory"}
    assert "pending" not in world.answers()["r"]
    assert waiting(world) == []


def test_a_removed_tag_and_one_that_is_new_wait_too(world: World) -> None:
    """Taking a tag away re-owns, and so does adding one."""
    world.run("aws", resource("gone", "team-a"), resource("new"))
    world.run("aws", resource("gone"), resource("new", "mallory"))
    assert world.owners() == {"gone": "team-a", "new": "tag_missing -> platform"}
    assert waiting(world) == [
        ("gone", "team-a", None, ["team-a"], ["platform"]),
        ("new", None, "mallory", ["platform"], ["mallory"]),
    ]


def test_a_tag_that_is_put_back_is_as_if_nothing_happened(world: World) -> None:
    """Nothing waits any more, and nothing is confirmed later."""
    world.run("aws", resource("r", "team-a"))
    world.run("aws", resource("r", "mallory"))
    world.run("aws", resource("r", "team-a"))
    assert waiting(world) == []
    assert "pending" not in world.answers()["r"]
    world.clock.now += 2 * HOLD
    assert world.store.turn() == []
    assert world.owners() == {"r": "team-a"}


def test_a_third_value_waits_its_own_time(world: World) -> None:
    """Otherwise one could wait with a harmless value, and change it at the last moment."""
    world.run("aws", resource("r", "team-a"))
    world.run("aws", resource("r", "platform"))
    world.clock.now += HOLD - 1
    world.run("aws", resource("r", "mallory"))
    world.clock.now += 2
    assert world.store.turn() == []
    assert world.owners() == {"r": "team-a"}
    world.clock.now += HOLD
    world.store.turn()
    assert world.owners() == {"r": "mallory"}


def test_polls_in_between_do_not_start_the_time_anew(world: World) -> None:
    """What waits is the change, however often it is read."""
    world.run("aws", resource("r", "team-a"))
    for _ in range(4):
        world.run("aws", resource("r", "mallory", other=str(world.runs)))
        world.clock.now += HOLD / 4
    world.store.turn()
    assert world.owners() == {"r": "mallory"}


def test_a_new_resource_takes_its_tags_at_once(world: World) -> None:
    """There is no owner before it that could stay."""
    world.run("aws", resource("r", "team-a"))
    assert world.owners() == {"r": "team-a"}


def test_the_directory_is_followed_at_once(world: World) -> None:
    """Only tags wait: a group that loses its last member owns no more; not even while something waits."""
    world.run("aws", resource("r", "team-a"))
    world.run("aws", resource("r", "mallory"))
    world.run("corp", group("[team-a]", "team-a"), *team("mallory", "m"), *team("platform", "p1"), user("u1"))
    assert world.owners() == {"r": "group_empty -> platform"}
    world.run("corp", *PEOPLE)
    assert world.owners() == {"r": "team-a"}


def test_what_is_inherited_waits_with_it(world: World) -> None:
    """A tag of a parent re-owns everything below: all of it waits, and comes into force together."""
    below = [resource(f"r{n}", parent="p") for n in range(3)]
    world.run("aws", resource("p", "team-a"), *below)
    world.run("aws", resource("p", "mallory"), *below)
    assert set(world.owners().values()) == {"team-a"}
    assert len(waiting(world)) == 4
    world.clock.now += HOLD
    (turned,) = world.store.turn()
    assert len(turned.applied) == 4
    assert set(world.owners().values()) == {"mallory"}


def test_confirming_a_parent_confirms_what_inherits_from_it(world: World) -> None:
    """One change is confirmed once; others go on waiting."""
    below = [resource(f"r{n}", parent="p") for n in range(3)]
    world.run("aws", resource("p", "team-a"), resource("x", "team-a"), *below)
    world.run("aws", resource("p", "mallory"), resource("x", "mallory"), *below)
    done = world.store.confirm("aws", ["p"])
    assert {rid for rid, _, _ in done.applied} == {"p", "r0", "r1", "r2"}
    assert world.owners() == {"p": "mallory", "x": "team-a", "r0": "mallory", "r1": "mallory", "r2": "mallory"}
    assert [w[0] for w in waiting(world)] == ["x"]
    assert {rid for rid, _, _ in world.store.confirm("aws", None).applied} == {"x"}
    assert world.store.confirm("aws", None).applied == []


def test_taking_a_parents_tag_away_can_be_confirmed_too(world: World) -> None:
    """What inherited from it is known by what is in force."""
    world.run("aws", resource("p", "team-a"), resource("r", parent="p"))
    world.run("aws", resource("p"), resource("r", parent="p"))
    assert {rid for rid, _, _ in world.store.confirm("aws", ["p"]).applied} == {"p", "r"}
    assert set(world.owners().values()) == {"tag_missing -> platform"}


def test_a_resource_that_goes_while_it_waits(world: World) -> None:
    """Nothing is left of it."""
    world.run("aws", resource("r", "team-a"), resource("s"))
    world.run("aws", resource("r", "mallory"), resource("s"))
    world.run("aws", resource("s"))
    assert waiting(world) == []
    world.clock.now += HOLD
    assert world.store.turn() == []
    assert world.query("SELECT value FROM claim WHERE value = 'mallory'") == []


def test_drift_is_of_what_is_in_force(world: World) -> None:
    """A new value that names nobody is drift from the moment on that it decides."""
    world.run("aws", resource("r", "team-a"))
    world.run("aws", resource("r", "nobody"))
    assert world.drift() == set()
    world.clock.now += HOLD
    world.store.turn()
    assert world.drift() == {("value_unknown", "nobody", 1)}


def test_too_many_changes_are_held_before_they_wait(world: World) -> None:
    """The guard counts what would be re-owned, now or later; the report tells whom."""
    world.run("aws", *(resource(f"r{n:02d}", "team-a") for n in range(20)))
    report = world.run("aws", *(resource(f"r{n:02d}", "mallory" if n < 8 else "team-a") for n in range(20)))
    assert report.state == "held"
    assert waiting(world) == []
    (held,) = world.store.held.reports()
    (why,) = held["why"]
    assert why["what"] == "TooManyOwnerChanges"
    assert why["examples"][0] == {"resource": "r00", "before": ["team-a"], "after": ["mallory"]}
    assert len(why["examples"]) == 8


def test_a_held_report_names_what_would_go(tmp_path: Path) -> None:
    """Some of it: people want to see what a snapshot lacks."""
    world = hold(tmp_path)
    world.run("aws", *(resource(f"r{n:02d}") for n in range(20)))
    world.run("aws", *(resource(f"r{n:02d}") for n in range(5, 20)))
    (held,) = world.store.held.reports()
    assert held["why"][0]["examples"] == [f"r{n:02d}" for n in range(5)]
    world.close()


def test_limits_of_a_source_of_its_own(tmp_path: Path) -> None:
    """`max_removed` and `max_owner_changes` of a source stand in for everybody's."""
    lenient = integration("lenient", max_removed=0.9, max_owner_changes=0.9)
    world = World(tmp_path, configuration(integration("strict"), lenient))
    world.run("corp", *PEOPLE)
    for name in ("strict", "lenient"):
        world.run(name, *(resource(f"r{n:02d}", "team-a") for n in range(20)))
    states = {
        name: world.run(name, *(resource(f"r{n:02d}", "team-a") for n in range(10))).state
        for name in ("strict", "lenient")
    }
    assert states == {"strict": "held", "lenient": "ok"}
    world.close()


def test_explain_says_what_waits(world: World) -> None:
    """Whoever asks why sees the tag as it is, and that it does not decide yet."""
    world.run("aws", resource("r", "team-a"))
    world.run("aws", resource("r", "mallory"))
    ((source,),) = world.query("SELECT id FROM source WHERE name = 'aws'")
    with contextlib.closing(Reader(world.store.path)) as reader:
        last = explain(reader, "r", source)[-1]
    assert last["step"] == "pending"
    assert "owner: team-a" in last["text"]


def test_pages_of_what_waits(world: World) -> None:
    """A cursor goes on where the page before ended."""
    world.run("aws", *(resource(f"r{n}", "team-a") for n in range(5)))
    world.run("aws", *(resource(f"r{n}", "mallory") for n in range(5)), accept=True)
    seen, query = [], b"limit=2"
    with contextlib.closing(Reader(world.store.path)) as reader:
        while True:
            page = orjson.loads(orjson.dumps(pending(reader, query)))
            seen += [it["resource"]["id"] for it in page["pending"]]
            if page["next"] is None:
                break
            query = f"limit=2&cursor={page['next']}".encode()
    assert seen == [f"r{n}" for n in range(5)]


# --- whatever somebody who can write tags does ------------------------------------------------------------------------

edits = st.lists(
    st.tuples(
        st.sampled_from(["root", "r0", "r1", "r2"]),
        st.sampled_from([None, "", "mallory", "Mallory", "nobody", "team-a"]),
        st.floats(0, HOLD / 4),
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=150, deadline=None)
@given(edits)
def test_no_edit_of_tags_re_owns_before_its_time(tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]) -> None:
    """Whatever is written, and in whatever order: what owned owns, until an edit has stood for the whole time."""
    world = hold(tmp_path_factory.mktemp("w"), max_owner_changes=1)
    tags: dict[str, str | None] = {"root": "team-a", "r0": None, "r1": "team-a", "r2": None}
    since = dict.fromkeys(tags, world.clock.now - HOLD)

    def read() -> None:
        rows = [resource(i, owner, parent=None if i == "root" else "root") for i, owner in tags.items()]
        world.run("aws", *rows)

    def stood() -> set[str]:
        """The resources for which what speaks has spoken for the whole time."""
        return {i for i in tags if world.clock.now - since[i if tags[i] is not None else "root"] >= HOLD}

    read()
    earned: set[str] = set()
    for who, value, later in drawn:
        world.clock.now += later
        world.store.turn()
        earned |= stood()  # and to take that back must wait in its turn
        if tags[who] != value:
            tags[who], since[who] = value, world.clock.now
        read()
        mallorys = {i for i, row in world.answers().items() if row["owners"][0]["name"] == "mallory"}
        earned &= mallorys | stood()
        assert mallorys <= earned | stood(), (tags, since)
    world.clock.now += HOLD
    world.store.turn()
    told = {i: (row["source"], row["tag"] and row["tag"]["value"]) for i, row in world.answers().items()}
    for i, value in tags.items():
        decides = value if value is not None else tags["root"]
        assert told[i][1] == decides
    world.close()


def test_what_waits_survives_a_restart(tmp_path: Path) -> None:
    """It is in the database, not in somebody's memory."""
    world = hold(tmp_path)
    world.run("aws", resource("r", "team-a"))
    world.run("aws", resource("r", "mallory"))
    world.store.close()
    again = World(tmp_path, configuration(integration(hold_owner_changes=HOLD)))
    assert json.dumps(waiting(again)[0][:3]) == '["r", "team-a", "mallory"]'
    again.clock.now += HOLD
    again.store.turn()
    assert again.owners() == {"r": "mallory"}
    again.close()


def test_members_are_no_tags(world: World) -> None:
    """A group's members change at once, also while its resource waits."""
    world.run("aws", resource("r", "team-a"))
    world.run("aws", Resource("r", tags={"owner": "mallory"}))
    world.run("corp", *PEOPLE, user("u9"), members("[team-a]", "u9"))
    with contextlib.closing(Reader(world.store.path)) as reader:
        assert [m["id"] for m in reader.members("corp", "group:[team-a]", world.clock())] == ["u1", "u9"]


def test_metrics_count_what_waits(tmp_path: Path) -> None:
    """By integration; one that holds changes and has none shows 0."""
    world = hold(tmp_path)
    reader = Reader(world.store.path)
    world.run("aws", resource("r", "team-a"), resource("s", "team-a"))
    assert 'ownerd_changes_pending{integration="aws"} 0\n' in metrics(reader, Counter(), Counter(), world.clock.now)
    world.run("aws", resource("r", "mallory"), resource("s", "team-a"))
    assert 'ownerd_changes_pending{integration="aws"} 1\n' in metrics(reader, Counter(), Counter(), world.clock.now)
    reader.close()
    world.close()


def test_the_loss_of_what_is_inherited_from_waits_too(tmp_path: Path) -> None:
    """The answer still names the resource whose tag decides, though that is gone."""
    world = hold(tmp_path)
    world.run("aws", resource("a", "team-a"), resource("r", parent="a"), *(resource(f"x{i}") for i in range(9)))
    world.run("aws", resource("r", parent="a"), *(resource(f"x{i}") for i in range(9)))
    row = world.answers()["r"]
    assert (row["owners"][0]["name"], row["tag"]) == ("team-a", {"key": "owner", "value": "team-a", "resource": "a"})
    assert row["pending"]["tag"] is None
    world.close()
