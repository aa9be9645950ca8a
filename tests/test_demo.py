"""The demo that `make run` shows: real input, and something of everything to see."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings, load_settings
from daemon.engine import sync
from daemon.matching import resource_key

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "config" / "demo"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """The demo's database, after one run of each source."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(DEMO, folder / "demo")
    config = folder / "demo" / "ownerd.toml"
    text = config.read_text().replace("config/demo", str(folder / "demo")).replace("./var", str(folder / "var"))
    config.write_text(text)
    settings: Settings = load_settings(config)

    async def main() -> dict[str, str]:
        return {e["source"]: e["state"] async for e in sync(settings) if e["event"] == "finished"}

    states = asyncio.run(main())
    assert set(states.values()) == {"ok"}
    assert len(states) == len(settings.sources)
    with contextlib.closing(sqlite3.connect(folder / "var" / "ownerd.db")) as db:
        yield db


def test_a_few_hundred_resources_of_several_clouds(demo: sqlite3.Connection) -> None:
    ids = [r for (r,) in demo.execute("SELECT resource FROM owners")]
    assert len(ids) >= 300
    for start in ("arn:aws:", "/subscriptions/", "//", "k8s://", "vm-"):
        assert any(i.startswith(start) for i in ids), start


def test_every_kind_of_answer_can_be_seen(demo: sqlite3.Connection) -> None:
    seen = set(demo.execute("SELECT DISTINCT source, reason FROM owners"))
    assert {source for source, _ in seen} == {"tag", "inherited", "integration"}
    assert {reason for _, reason in seen} == {
        None,
        "tag_missing",
        "tag_empty",
        "value_unknown",
        "value_ambiguous",
        "principal_inactive",
        "group_empty",
        "owner_not_allowed",
    }
    assert demo.execute("SELECT count(*) FROM owners WHERE owners = '[]'").fetchone() == (0,)


def test_drift_has_something_to_suggest(demo: sqlite3.Connection) -> None:
    found = demo.execute("SELECT count(*) FROM finding WHERE suggestions != '[]'").fetchone()[0]
    assert found >= 5


@pytest.mark.parametrize("text", [DEMO / "WHAT-TO-TRY.txt", ROOT / "README.md"], ids=lambda p: p.name)
def test_what_the_texts_tell_to_try_is_there(demo: sqlite3.Connection, text: Path) -> None:
    """Every id and team that a newcomer is told to type exists."""
    said = text.read_text()
    ids = set(re.findall(r"(?:arn:aws:rds:|k8s://)[^\s'&\"`]+", said))
    known = {resource_key(r) for (r,) in demo.execute("SELECT resource FROM owners")}
    assert ids
    assert {i for i in ids if resource_key(i) not in known} == set()
    for team in re.findall(r'owned-by "([^"]+)"', said):
        assert demo.execute("SELECT 1 FROM owners WHERE owners LIKE '%' || (SELECT external_id FROM principal WHERE name = ?) || '%'", (team,)).fetchone()  # fmt: skip


def test_the_edits_that_the_text_tells_to_try(tmp_path: Path) -> None:
    """One opens drift and changes no owner, the other is held: as the text says."""
    shutil.copytree(DEMO, tmp_path / "demo")
    config = tmp_path / "demo" / "ownerd.toml"
    text = config.read_text().replace("config/demo", str(tmp_path / "demo"))
    config.write_text(text.replace("./var", str(tmp_path / "var")))
    settings = load_settings(config)
    people = tmp_path / "demo" / "people.json"
    whole = people.read_text()

    def after(*names: str) -> dict[str, Any]:
        async def main() -> list[dict[str, Any]]:
            return [e async for e in sync(settings, names) if e["event"] == "finished"]

        return asyncio.run(main())[-1]

    after()
    told = (DEMO / "WHAT-TO-TRY.txt").read_text()
    ((old, new),) = re.findall(r'rename the group "([^"]+)" to "([^"]+)"', told)
    ((emptied,),) = [(name,) for name in re.findall(r'empty the members of "([^"]+)"', told)]
    people.write_text(whole.replace(f'"name": "{old}"', f'"name": "{new}"'))
    renamed = after("corp")
    assert (renamed["state"], renamed["owner_changes"]) == ("ok", 0)
    assert renamed["drift_opened"] > 0
    people.write_text(whole)
    assert after("corp")["drift_resolved"] > 0
    document = json.loads(whole)
    (group,) = (p for p in document["principals"] if p.get("name") == emptied)
    group["members"] = []
    people.write_text(json.dumps(document))
    assert after("corp")["state"] == "held"
