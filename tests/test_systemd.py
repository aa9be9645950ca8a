"""The units: valid, and as hardened as they say."""

from __future__ import annotations

import re
import shutil
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
