#!/usr/bin/env python3
"""The lock files in requirements/: checks them, makes them anew, and picks from them what some extras need.

    locks.py                        fail if a dependency is not pinned, not hashed, or not what pyproject.toml asks for
    locks.py write [--upgrade]      resolve and write them; needs uv, which `make lock` installs
    locks.py subset EXTRA...        what ownerd needs with these extras, as a lock file, to standard output

A lock holds for Python 3.11 to 3.13 and says, for every file of a package that may be installed, its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCKS: Mapping[str, tuple[str, ...]] = {
    "core": ("pyproject.toml",),
    "all": ("pyproject.toml", "--extra", "all"),
    "test": ("--group", "test"),
    "bench": ("--group", "bench"),
    "lint": ("--group", "lint"),
    "build": ("--group", "build"),
    "release": ("--group", "release"),
}
"""By name of a lock, what uv is to resolve."""

_PINNED = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)(?P<extras>\[[\w,.-]+\])?==(?P<version>[\w.!+]+)(?P<marker>\s*;.*)?")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")
_HEAD = "# Made by `make lock`, and never by hand. Of pyproject.toml "


@dataclass(frozen=True)
class Locked:
    """One entry of a lock file."""

    name: str
    version: str
    asked_by: frozenset[str]
    """Names of the packages that need it; `ownerd` for ownerd itself."""
    text: str


def canonical(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def digest(project: Mapping[str, Any]) -> str:
    """What changes whenever the locks may have to."""
    table = project["project"]
    asked = [
        table["requires-python"],
        table["dependencies"],
        table.get("optional-dependencies", {}),
        project.get("dependency-groups", {}),
        project["build-system"]["requires"],
    ]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def entries(text: str) -> Iterator[Locked]:
    """The entries of a lock file; those without a pin or a hash too, with an empty version."""
    for block in re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE):
        if not block.strip() or block.startswith("#"):
            continue
        told, _, comment = block.partition("# via")
        first = told.splitlines()[0].removesuffix("\\").strip()
        pinned = _PINNED.fullmatch(first)
        asked_by = frozenset(canonical(word) for line in comment.splitlines() for word in line.strip(" #").split()[:1])
        if pinned is None or not _HASH.search(told):
            yield Locked(first, "", asked_by, block)
        else:
            yield Locked(canonical(pinned["name"]), pinned["version"], asked_by, block)


def _asked(project: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every requirement that pyproject.toml has, with its place."""
    table = project["project"]
    yield from (("build-system.requires", it) for it in project["build-system"]["requires"])
    yield from (("project.dependencies", it) for it in table["dependencies"])
    for extra, listed in table.get("optional-dependencies", {}).items():
        yield from ((f"project.optional-dependencies.{extra}", it) for it in listed)
    for group, listed in project.get("dependency-groups", {}).items():
        yield from ((f"dependency-groups.{group}", it) for it in listed)


def _ours(requirement: str, project: Mapping[str, Any]) -> bool:
    return bool(re.match(rf"{re.escape(project['project']['name'])}\[", requirement))


def problems(root: Path = ROOT) -> list[str]:
    """What is wrong with the pins and the locks, each with its remedy."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    found: list[str] = []
    wanted: dict[str, str] = {}
    for place, requirement in _asked(project):
        if _ours(requirement, project):
            continue
        if pinned := _PINNED.fullmatch(requirement):
            wanted[canonical(pinned["name"])] = pinned["version"]
        else:
            found.append(f'pyproject.toml: {place}: "{requirement}" is not pinned; write NAME==VERSION')
    seen: dict[str, dict[str, str]] = {}
    for lock in LOCKS:
        path = root / "requirements" / f"{lock}.txt"
        try:
            text = path.read_text()
        except FileNotFoundError:
            found.append(f"requirements/{lock}.txt: missing; run `make lock`")
            continue
        if f"{_HEAD}{digest(project)}\n" not in text:
            found.append(f"requirements/{lock}.txt: not of this pyproject.toml; run `make lock`")
        if re.search(r"^\s*(-i|-f|--(index|extra-index|find-links|trusted-host)\b|.*://)", text, re.MULTILINE):
            found.append(f"requirements/{lock}.txt: names where packages come from; that is for pip's configuration")
        for it in entries(text):
            if not it.version:
                found.append(f'requirements/{lock}.txt: "{it.name}" has no pin with a hash; run `make lock`')
            elif it.version != wanted.get(it.name, it.version):
                other = wanted[it.name]
                found.append(f"requirements/{lock}.txt: {it.name}=={it.version}, but pyproject.toml has {other}")
            for marker, other in seen.setdefault(it.name, {}).items():
                if marker == _marker(it) and other != it.version:
                    found.append(f"requirements/{lock}.txt: {it.name}=={it.version}, another lock has {other}")
            seen[it.name][_marker(it)] = it.version
    return [*found, *(f"requirements: nothing locks {name}; run `make lock`" for name in wanted if name not in seen)]


def _marker(it: Locked) -> str:
    return it.text.splitlines()[0].partition(";")[2].removesuffix("\\").strip()


def write(*more: str, root: Path = ROOT) -> None:
    """Resolve all at once, so that no two locks differ, then write each."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    folder = root / "requirements"
    folder.mkdir(exist_ok=True)
    everything = ["pyproject.toml", "--all-extras", *(f"--group={group}" for group in project["dependency-groups"])]
    with tempfile.TemporaryDirectory() as temporary:
        master = Path(temporary, "master.txt")
        # What a file holds already is what uv prefers: an unrelated change moves no version.
        master.write_text("".join(path.read_text() for path in sorted(folder.glob("*.txt"))))
        _compile(root, master, everything, *more)
        for lock, what in LOCKS.items():
            made = Path(temporary, f"{lock}.txt")
            made.write_text(master.read_text())
            _compile(root, made, what)
            (folder / f"{lock}.txt").write_text(f"{_HEAD}{digest(project)}\n{made.read_text()}")


def _compile(root: Path, output: Path, what: Iterable[str], *more: str) -> None:
    environ = {**os.environ}
    if "UV_DEFAULT_INDEX" not in environ and (index := _pips_index()):
        environ["UV_DEFAULT_INDEX"] = index
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11",
         "--generate-hashes", "--no-header", f"--output-file={output}", *more, *what],
        cwd=root, env=environ, check=True,
    )  # fmt: skip


def _pips_index() -> str:
    """The index that pip is told to use, if it is told: uv does not look there."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    return os.environ.get("PIP_INDEX_URL") or told.stdout.strip()


def subset(extras: Iterable[str], root: Path = ROOT) -> str:
    """The part of requirements/all.txt that ownerd needs with some extras: a lock file. KeyError for an unknown extra.

    May hold a package too many, where one asks for it by an extra of its own; never one too few.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    listed = list(entries((root / "requirements" / "all.txt").read_text()))
    asked = list(project["dependencies"])
    for extra in extras:
        asked += project["optional-dependencies"][extra]
    if any(requirement.startswith(f"{project['name']}[") for requirement in asked):  # the extra "all"
        return "".join(it.text for it in listed)
    needed = {canonical(re.split(r"[\[=]", requirement)[0]) for requirement in asked}
    while more := {it.name for it in listed if it.name not in needed and it.asked_by & needed}:
        needed |= more
    return "".join(it.text for it in listed if it.name in needed)


def main(arguments: list[str]) -> int:
    """Do as the module says."""
    match arguments:
        case []:
            found = problems()
            sys.stderr.writelines(f"{problem}\n" for problem in found)
            return 1 if found else 0
        case ["write", *more]:
            write(*more)
            return 0
        case ["subset", *extras]:
            try:
                sys.stdout.write(subset(extras))
            except KeyError as error:
                sys.stderr.write(f"there is no extra {error}; see pyproject.toml\n")
                return 2
            return 0
    sys.stderr.write(__doc__ or "")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
