"""Finding the socket without checking the whole configuration: the same answer, sooner."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.locate import config_path, socket_path
from config.problems import ConfigurationError
from config.settings import load_settings
from tests.harness import configuration, integration
from tests.processes import toml


@pytest.mark.parametrize(
    "daemon",
    [{}, {"state_directory": "/s"}, {"runtime_directory": "/r"}, {"state_directory": "/s", "runtime_directory": "/r"}],
    ids=str,
)
@pytest.mark.parametrize("variables", [{}, {"STATE_DIRECTORY": "/vs"}, {"RUNTIME_DIRECTORY": "/vr"}, {"STATE_DIRECTORY": "/vs", "RUNTIME_DIRECTORY": "/vr"}], ids=str)  # fmt: skip
def test_as_the_settings_tell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, daemon: dict[str, str], variables: dict[str, str]
) -> None:
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "o.toml"
    path.write_text(toml(configuration(integration("aws"), daemon=daemon)))
    assert socket_path(path) == load_settings(path).socket


def test_which_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """As given, else as the environment tells, else the default."""
    monkeypatch.setenv("OWNERD_CONFIG", "/from/environment")
    assert config_path(Path("/given")) == Path("/given")
    assert config_path(None) == Path("/from/environment")
    monkeypatch.setenv("OWNERD_CONFIG", "")
    assert config_path(None) == Path("/etc/ownerd/ownerd.toml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "--socket"),
        (b"a = ", "not TOML"),
        (b"\xff", "not TOML"),
        (b"daemon = 7", "daemon"),
        (b"[daemon]\nstate_directory = 7", "daemon"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "o.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=said) as caught:
        socket_path(path)
    assert caught.value.path == path
