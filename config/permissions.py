"""Files that others may change, or secrets that others may read, are refused: as sshd and ssh do it for keys.

Whoever can write the configuration, or a secret, decides who owns what. So a file, each symbolic link on the way to it,
and each folder above it must belong to root or to the user who runs this, and nobody else may write them. A folder
with the sticky bit (`/tmp`) may be written by all: they cannot touch what is not theirs. A secret must not be readable
by others either, if it belongs to the user who runs this; one that root owns, and another user reads, is as root wants
it: so containers get theirs. What lies under a folder that nobody else may enter is out of others' reach, whatever its
own mode.

Only regular files are looked at: a pipe or a device is a thing of its own.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

_HANDED_OVER = ("/run/secrets/", "/var/run/secrets/")
"""Where container engines put secrets: readable by all in the container, and only root makes anything there."""
_LONGEST_CHAIN = 40
"""Symbolic links that Linux follows (path_resolution(7))."""


@dataclass(frozen=True, slots=True)
class Unsafe:
    """What is wrong with a file, and the command that puts it right."""

    what: str
    remedy: str


def unsafe(path: Path, *, secret: bool = False) -> Unsafe | None:
    """Why `path` is not to be trusted; None if it is, or is not there. `secret`: others must not read it either."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            return None
        links, folders = _way(path)
        real = links[-1]
        if not _ours(info.st_uid):
            return Unsafe(f"{real} belongs to {_user(info.st_uid)}, who may change it", f"chown root {real}")
        for link in links[:-1]:
            if not _ours(owner := link.lstat().st_uid):
                remedy = f"name {real} in its place, or chown --no-dereference root {link}"
                return Unsafe(f"{link} is a link of {_user(owner)}, who may point it elsewhere", remedy)
        return _unsafe_mode(real, info, folders, secret=secret)
    except OSError:  # whoever reads the file says so
        return None


def _way(path: Path) -> tuple[list[Path], list[Path]]:
    """The links on the way to a file, and at last the file; and the folders above any of these, from the root."""
    links: list[Path] = []
    folders: dict[Path, None] = {}
    for _ in range(_LONGEST_CHAIN):
        absolute = Path(os.path.abspath(path))  # noqa: PTH100  # lexically: the links are looked at one by one
        parent = absolute.parent.resolve()
        folders.update(dict.fromkeys(reversed(absolute.parents)))
        folders.update(dict.fromkeys((*reversed(parent.parents), parent)))
        links.append(parent / absolute.name)
        if not links[-1].is_symlink():
            break
        path = parent / links[-1].readlink()
    return links, list(folders)


def _unsafe_mode(real: Path, info: os.stat_result, folders: list[Path], *, secret: bool) -> Unsafe | None:
    for folder in folders:
        above = folder.stat()
        instead = f"may put another file in the place of {real}"
        if not _ours(above.st_uid):
            what = f"{folder} belongs to {_user(above.st_uid)}, who {instead}"
            return Unsafe(what, f"chown root {folder}, or move the file")
        sticky = above.st_mode & stat.S_ISVTX
        if not sticky and (writers := _who(above, stat.S_IWGRP, stat.S_IWOTH)) and not _shut(folder):
            return Unsafe(f"{folder} has mode {_mode(above)}: {writers} {instead}", f"chmod go-w {folder}")
    if _shut(real):
        return None
    if writers := _who(info, stat.S_IWGRP, stat.S_IWOTH):
        return Unsafe(f"{real} has mode {_mode(info)}: {writers} may change it", f"chmod go-w {real}")
    if secret and info.st_uid == os.geteuid() and not str(real).startswith(_HANDED_OVER):
        readers = _who(info, stat.S_IRGRP, stat.S_IROTH)
        if readers:
            return Unsafe(f"{real} has mode {_mode(info)}: {readers} may read the secret", f"chmod 600 {real}")
    return None


def _shut(path: Path) -> bool:
    """Whether some folder above lets nobody else in."""
    return any(not _who(folder.stat(), stat.S_IXGRP, stat.S_IXOTH) for folder in path.parents)


def _ours(uid: int) -> bool:
    return uid in {0, os.geteuid()}


def _who(info: os.stat_result, group: int, others: int) -> str:
    """Who else has a permission: nobody, if it is the group's, and the group is nobody else."""
    if info.st_mode & others:
        return "others"
    return f"the group {_group(info.st_gid)}" if info.st_mode & group and not _private(info.st_gid) else ""


def _private(gid: int) -> bool:
    """Whether nobody but root and this user is in a group: many systems give each user a group of his own."""
    if gid == 0:
        return True
    ours = {0, os.geteuid()}
    try:
        members = grp.getgrgid(gid).gr_mem
    except KeyError:  # without a name it has no members but those that have it as their own
        members = []
    try:
        if any(pwd.getpwnam(member).pw_uid not in ours for member in members):
            return False
    except KeyError:  # a member whom nobody knows may come to be known
        return False
    return all(user.pw_uid in ours for user in pwd.getpwall() if user.pw_gid == gid)


def _mode(info: os.stat_result) -> str:
    return f"{stat.S_IMODE(info.st_mode):04o}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
