"""What is installed is pinned, locked and hashed: the check that CI makes, on good trees and on bad ones."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def locks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("locks", ROOT / ".ci" / "locks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["locks"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the check looks at."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert re.search(old, text), old
    path.write_text(re.sub(old, new, text, count=1))


def test_everything_is_pinned_and_locked(locks: ModuleType, tree: Path) -> None:
    """As it is committed, there is nothing to complain of."""
    assert locks.problems(tree) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("pyproject.toml", r'"click==[\d.]+"', '"click>=8"', 'project.dependencies: "click>=8" is not pinned'),
        ("pyproject.toml", r'"ldap3==[\d.]+"', '"ldap3"', 'optional-dependencies.ldap: "ldap3" is not pinned'),
        ("pyproject.toml", r'"ruff==[\d.]+"', '"ruff~=0.1"', 'dependency-groups.lint: "ruff~=0.1" is not pinned'),
        ("pyproject.toml", r'"hatchling==[\d.]+"', '"hatchling"', 'build-system.requires: "hatchling" is not pinned'),
        ("pyproject.toml", r'"click==[\d.]+"', '"click==1.0"', "but pyproject.toml has 1.0"),
        ("pyproject.toml", r'"click==', '"colorama==1.0", "click==', "not of this pyproject.toml"),
        (
            "requirements/core.txt",
            r"click==[\d.]+ \\\n(    --hash=\S+( \\)?\n)+",
            "click==8.5.1\n",
            "no pin with a hash",
        ),
        ("requirements/core.txt", r"click==", "click>=", "no pin with a hash"),
        ("requirements/all.txt", r"anyio==[\d.]+", "anyio==1.0", "another lock has"),
        ("requirements/test.txt", r"\A", "--index-url https://example.org/simple\n", "names where packages come from"),
        ("requirements/test.txt", r"\A", "x @ https://example.org/x.whl\n", "names where packages come from"),
    ],
)
def test_what_is_not_pinned_or_locked_is_found(
    locks: ModuleType, tree: Path, file: str, old: str, new: str, told: str
) -> None:
    """Each way in which a pin or a lock can be wrong is told."""
    edit(tree / file, old, new)
    assert [problem for problem in locks.problems(tree) if told in problem]


def test_a_lock_that_is_missing_is_found(locks: ModuleType, tree: Path) -> None:
    """A deleted lock is no lock that has nothing to complain of."""
    (tree / "requirements" / "build.txt").unlink()
    assert "requirements/build.txt: missing; run `make lock`" in locks.problems(tree)


def test_a_subset_holds_what_its_extras_need(locks: ModuleType) -> None:
    """What aws and ldap need, each with its pin and hashes, and nothing of okta's; "all" is all."""
    whole = {it.name for it in locks.entries((ROOT / "requirements" / "all.txt").read_text())}
    core = {it.name for it in locks.entries((ROOT / "requirements" / "core.txt").read_text())}
    chosen = list(locks.entries(locks.subset(["aws", "ldap"], ROOT)))
    names = {it.name for it in chosen}
    assert core | {"boto3", "botocore", "jmespath", "s3transfer", "ldap3", "pyasn1"} <= names
    assert names.isdisjoint({"okta", "aiohttp", "kubernetes", "google-api-python-client"})
    assert all(it.version for it in chosen)
    assert {it.name for it in locks.entries(locks.subset(["all"], ROOT))} == whole


def test_every_extra_can_be_chosen(locks: ModuleType) -> None:
    """Each extra's own requirements are in its subset."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, requirements in project["optional-dependencies"].items():
        names = {it.name for it in locks.entries(locks.subset([extra], ROOT))}
        for requirement in requirements:
            name = locks.canonical(re.split(r"[\[=]", requirement)[0])
            assert name in names or name == project["name"], extra
