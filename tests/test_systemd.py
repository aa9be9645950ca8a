"""The units: valid, and as hardened as they say."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[1] / "systemd"
EXPOSURE = {"ownerd.service": 0.5, "ownerd-poll.service": 1.3}
"""The most that `systemd-analyze security` may find, of 10."""

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as they would be installed, but for the program's path, which must exist."""
    for unit in UNITS.glob("*.s*"):
        if unit.suffix in {".service", ".socket"}:
            text = unit.read_text().replace("/opt/ownerd/bin/ownerd", sys.executable)
            (tmp_path / unit.name).write_text(text)
    return tmp_path


def test_systemd_finds_nothing_wrong(installed: Path) -> None:
    units = sorted(map(str, installed.iterdir()))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "ownerd" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unit", EXPOSURE)
def test_exposure(installed: Path, unit: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(installed / unit)],
        capture_output=True,
        text=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE[unit]


def test_the_server_has_no_network_and_no_credentials() -> None:
    text = (UNITS / "ownerd.service").read_text()
    assert "PrivateNetwork=yes" in text
    assert "LoadCredential" not in text
    assert "PrivateUsers" not in text, "it would hide who asks"


def test_the_server_may_do_what_workers_need() -> None:
    """Sockets and a file in memory to hear of them and count with them; signals and processes; a folder of its own."""
    text = (UNITS / "ownerd.service").read_text()
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    filters = re.findall(r"^SystemCallFilter=(.*)$", text, re.MULTILINE)
    allowed: set[str] = set()
    for line in filters:
        for name in line.removeprefix("~").split():
            calls = _calls(name)
            allowed = allowed - calls if line.startswith("~") else allowed | calls
    assert {
        "memfd_create",
        "ftruncate",
        "mmap",
        "madvise",
        "socket",
        "bind",
        "kill",
        "execve",
        "prctl",
        "wait4",
    } <= allowed
    assert "setrlimit" not in allowed, "the filter is read as systemd reads it"
    assert "AF_UNIX" in settings["RestrictAddressFamilies"].split()
    assert settings["PrivateTmp"] == "yes"
    assert "NotifyAccess" not in settings, "the workers speak to their parent only"


def _calls(name: str) -> set[str]:
    """The system calls of a set of systemd's, with those of the sets in it."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    found = {word for line in done.stdout.splitlines()[1:] if (word := line.strip()) and word[0] != "#"}
    return {call for word in found for call in _calls(word)}


def test_the_user_and_the_directories(tmp_path: Path) -> None:
    """systemd takes the user's and the directories' files, and makes of them what docs/deploy.md says."""
    if os.geteuid() != 0 or not shutil.which("systemd-sysusers") or not shutil.which("systemd-tmpfiles"):
        pytest.skip("needs root, systemd-sysusers and systemd-tmpfiles")
    root = f"--root={tmp_path}"
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", root, UNITS / "ownerd.sysusers.conf"], check=True, capture_output=True)
    made = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc" / "passwd").read_text().splitlines()}
    assert made["ownerd"][5:] == ["/var/lib/ownerd", "/usr/sbin/nologin"]
    subprocess.run(
        ["systemd-tmpfiles", root, "--create", UNITS / "ownerd.tmpfiles.conf"], check=True, capture_output=True
    )
    modes = {d: stat.S_IMODE((tmp_path / d).stat().st_mode) for d in ("run/ownerd", "etc/ownerd/credentials")}
    assert modes == {"run/ownerd": 0o755, "etc/ownerd/credentials": 0o700}
    assert (tmp_path / "run/ownerd").stat().st_uid == int(made["ownerd"][2])


def test_every_file_is_installed_by_the_instructions() -> None:
    """docs/deploy.md names each file of systemd/."""
    page = (UNITS.parent / "docs" / "deploy.md").read_text()
    assert [f.name for f in sorted(UNITS.iterdir()) if f"systemd/{f.name}" not in page] == []
