"""Files that others may write, and secrets that others may read, are refused; what containers hand over is not."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config import permissions
from config.permissions import unsafe
from config.problems import ConfigurationError
from config.secrets import resolve
from config.settings import load_settings
from connectors.errors import Misconfigured
from connectors.options import HttpOptions, Secret
from tests.harness import configuration, integration
from tests.processes import ownerd, toml

SOMEBODY = 61184
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others may enter: pytest's own are shut."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "file"
    path.write_text("s3cr3t\n")
    path.chmod(0o600)
    return path


def told(path: Path, *, secret: bool = False) -> str:
    found = unsafe(path, secret=secret)
    return f"{found.what}; {found.remedy}" if found else ""


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_what_is_ours_alone_is_good(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert told(file, secret=True) == ""


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o606, 0o777])
def test_a_file_that_others_may_write_is_refused(file: Path, mode: int) -> None:
    """Its name, its mode, and the command that mends it."""
    file.chmod(mode)
    expected = f"{file} has mode {mode:04o}: others may change it; chmod go-w {file}"
    assert told(file) == told(file, secret=True) == expected


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o444])
def test_a_secret_that_others_may_read_is_refused(file: Path, mode: int) -> None:
    """As ssh does it for a key; a configuration may be read by all."""
    file.chmod(mode)
    assert told(file) == ""
    assert told(file, secret=True) == f"{file} has mode {mode:04o}: others may read the secret; chmod 600 {file}"


def group_of(monkeypatch: pytest.MonkeyPatch, members: list[str], **users: tuple[int, int]) -> None:
    """Have every group hold these members, and the system have these users, each with uid and gid."""
    rows = {name: SimpleNamespace(pw_name=name, pw_uid=uid, pw_gid=gid) for name, (uid, gid) in users.items()}
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name="staff", gr_mem=members))
    monkeypatch.setattr(pwd, "getpwall", lambda: list(rows.values()))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: rows[name])


@needs_root
def test_a_group_counts_if_others_are_in_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each user has a group of his own, a umask of 002 is usual: such a group is nobody else."""
    os.chown(file, 0, SOMEBODY)
    file.chmod(0o660)
    group_of(monkeypatch, [], me=(0, SOMEBODY))
    assert told(file, secret=True) == ""
    group_of(monkeypatch, ["me"], me=(0, SOMEBODY))
    assert told(file, secret=True) == ""
    for members, users in (
        (["eve"], {"eve": (7, 7)}),
        ([], {"eve": (7, SOMEBODY)}),
        (["nobody-knows"], {}),
    ):
        if members == ["nobody-knows"]:
            monkeypatch.setattr(pwd, "getpwnam", {}.__getitem__)
        else:
            group_of(monkeypatch, members, **users)
        assert told(file) == f"{file} has mode 0660: the group staff may change it; chmod go-w {file}"
    group_of(monkeypatch, ["eve"], eve=(7, 7))
    file.chmod(0o640)
    assert told(file, secret=True) == f"{file} has mode 0640: the group staff may read the secret; chmod 600 {file}"


@needs_root
def test_a_file_of_somebody_else_is_refused(file: Path) -> None:
    os.chown(file, SOMEBODY, 0)
    assert told(file) == f"{file} belongs to the user {SOMEBODY}, who may change it; chown root {file}"


def test_a_folder_that_all_may_write_is_refused(file: Path) -> None:
    """Whoever can rename can replace; in /tmp and the like, with the sticky bit, nobody can."""
    file.parent.chmod(0o777)
    expected = (
        f"{file.parent} has mode 0777: others may put another file in the place of {file}; chmod go-w {file.parent}"
    )
    assert told(file) == expected
    file.parent.chmod(0o1777)
    assert told(file) == ""


@needs_root
def test_a_folder_of_somebody_else_is_refused(file: Path) -> None:
    os.chown(file.parent, SOMEBODY, 0)
    assert told(file).startswith(f"{file.parent} belongs to the user {SOMEBODY}, who may put another file in the place")


def test_what_lies_under_a_shut_folder_is_out_of_reach(folder: Path) -> None:
    """Whatever its own mode, and that of the folders between."""
    (folder / "shut" / "open").mkdir(parents=True)
    path = folder / "shut" / "open" / "file"
    path.write_text("x")
    path.chmod(0o666)
    (folder / "shut" / "open").chmod(0o777)
    assert told(path, secret=True) != ""
    (folder / "shut").chmod(0o700)
    assert told(path, secret=True) == ""


def test_the_target_of_a_link_counts_and_each_link_on_the_way(folder: Path) -> None:
    """A link to a file that others may write; a good file behind a link in a folder that others may write."""
    (folder / "target").write_text("x")
    (folder / "target").chmod(0o666)
    (folder / "link").symlink_to("target")
    assert told(folder / "link").startswith(f"{folder / 'target'} has mode 0666")
    (folder / "target").chmod(0o600)
    assert told(folder / "link") == ""
    (folder / "drop").mkdir()
    (folder / "drop" / "second").symlink_to(folder / "target")
    (folder / "first").symlink_to(folder / "drop" / "second")
    (folder / "drop").chmod(0o777)
    assert told(folder / "first").startswith(f"{folder / 'drop'} has mode 0777: others may put another file")
    (folder / "way").symlink_to(folder)
    (folder / "drop" / "way").symlink_to(folder)
    assert told(folder / "way" / "target") == ""
    assert told(folder / "drop" / "way" / "target").startswith(f"{folder / 'drop'} has mode 0777")


def test_a_shut_target_does_not_excuse_an_open_link(folder: Path) -> None:
    """The file is out of reach, but whoever owns the link's folder names another file."""
    (folder / "shut").mkdir(mode=0o700)
    (folder / "shut" / "file").write_text("x")
    (folder / "shut" / "link").symlink_to(folder / "drop" / "link")
    (folder / "drop").mkdir()
    (folder / "drop" / "link").symlink_to(folder / "shut" / "file")
    (folder / "drop").chmod(0o777)
    assert told(folder / "shut" / "link").startswith(f"{folder / 'drop'} has mode 0777")


@needs_root
def test_a_link_of_somebody_else_is_refused(folder: Path) -> None:
    """Even in a folder with the sticky bit: he may point it elsewhere."""
    (folder / "target").write_text("x")
    (folder / "link").symlink_to("target")
    os.chown(folder / "link", SOMEBODY, 0, follow_symlinks=False)
    assert told(folder / "link").startswith(f"{folder / 'link'} is a link of the user {SOMEBODY}")


def test_a_loop_and_what_is_not_there_are_left_to_whoever_reads(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    assert told(folder / "loop") == told(folder / "nothing") == told(Path(os.devnull)) == ""


def test_a_kubernetes_volume(folder: Path) -> None:
    """Two links, a folder with the sticky bit that all may write, and files of root's with mode 0644."""
    (folder / "volume" / "..2026_11_23").mkdir(parents=True)
    (folder / "volume").chmod(0o1777)
    (folder / "volume" / "..2026_11_23" / "token").write_text("x")
    (folder / "volume" / "..2026_11_23" / "token").chmod(0o644)
    (folder / "volume" / "..data").symlink_to("..2026_11_23")
    (folder / "volume" / "token").symlink_to("..data/token")
    assert told(folder / "volume" / "token") == ""


@needs_root
def test_a_secret_that_root_hands_to_another_user(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker (0444), Kubernetes (0644): root's choice, as for ssh. Running as root, it must be root's alone."""
    file.chmod(0o444)
    assert "others may read the secret" in told(file, secret=True)
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    assert told(file, secret=True) == ""
    file.chmod(0o446)
    assert "others may change it" in told(file, secret=True)


def test_where_container_engines_put_secrets_all_may_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/run/secrets, with mode 0444, also for who runs as root."""
    file.chmod(0o444)
    monkeypatch.setattr(permissions, "_HANDED_OVER", (f"{file.parent}/",))
    assert told(file, secret=True) == ""


@pytest.fixture
def config(file: Path) -> Path:
    file.write_text(toml(configuration(integration())))
    return file


def test_a_configuration_that_others_may_write_is_no_configuration(config: Path) -> None:
    """Exit code 2, and one line that says what to do; the same file with a good mode is read."""
    assert load_settings(config).integrations
    config.chmod(0o666)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config)
    assert [str(p) for p in caught.value.problems] == [
        f"{config} has mode 0666: others may change it; chmod go-w {config}"
    ]
    done = ownerd("check", "--config", str(config))
    assert done.returncode == 2
    assert f"chmod go-w {config}" in done.stderr


def options_of(**options: Any) -> HttpOptions:
    class Holder(HttpOptions):
        token: Secret | None = None
        key_file: Path | None = None

    return Holder.model_validate(options)


def test_secrets_and_the_files_of_options(file: Path) -> None:
    """A secret, a key's file and a bundle of authorities; the last may be read by all, and written by nobody."""
    named = {"file": str(file)}
    assert resolve(options_of(token=named, ca_file=str(file), key_file=str(file)), {}) == ["s3cr3t"]
    file.chmod(0o644)
    for option, value in (("token", named), ("key_file", str(file))):
        with pytest.raises(Misconfigured, match=rf"{option}: .* has mode 0644: others may read the secret") as caught:
            resolve(options_of(**{option: value}), {})
        assert caught.value.remedy == f"chmod 600 {file}"
    resolve(options_of(ca_file=str(file)), {})
    file.chmod(0o666)
    with pytest.raises(Misconfigured, match=r"ca_file: .* others may change it"):
        resolve(options_of(ca_file=str(file)), {})


def test_a_credential_of_systemd(file: Path) -> None:
    """As LoadCredential= hands it over: mode 0400 in a folder of mode 0500."""
    file.chmod(0o400)
    file.parent.chmod(0o500)
    options = options_of(token={"credential": "file"})
    assert resolve(options, {"CREDENTIALS_DIRECTORY": str(file.parent)}) == ["s3cr3t"]
    file.parent.chmod(0o700)


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ('{"private_key_id": "1", "private_key": "-----BEGIN\\nMIIabc\\n"}', ["-----BEGIN\nMIIabc\n"]),
        ("users:\n- user:\n    token: abcdefgh-1\n    client-key-data: TUlJRXZR\n", ["abcdefgh-1", "TUlJRXZR"]),
        ("[default]\naws_access_key_id = AKIA1\naws_secret_access_key = wJalrXUt/x+y\n", ["wJalrXUt/x+y"]),
        ('{"client_secret": \'quoted in one\', "token_uri": "https://x.example"}', ["quoted in one"]),
        ("tokenFile: /var/run/token\n", []),
    ],
)
def test_secrets_in_files_that_sdks_read(file: Path, text: str, secrets: list[str]) -> None:
    """Keys of Google, kubeconfigs, AWS's credentials: what is in them is to be kept out of texts as well."""
    file.write_text(text)
    assert resolve(options_of(key_file=str(file)), {}) == secrets
    assert resolve(options_of(), {"AWS_SHARED_CREDENTIALS_FILE": str(file)}) == secrets


def test_secrets_in_variables_that_sdks_read() -> None:
    """By their names; not what names a file, nor what is too short to be one."""
    environ = {
        "AZURE_CLIENT_SECRET": "a-secret-1", "AWS_SESSION_TOKEN": "a-secret-2", "AWS_SECRET_ACCESS_KEY": "a-secret-3",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token", "TOKEN": "short", "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    assert resolve(options_of(), environ) == ["a-secret-1", "a-secret-2", "a-secret-3"]
