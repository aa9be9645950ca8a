"""A copy of the answers that is read whole before it is mapped, beside whatever else the process does."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from threading import Thread, get_native_id
from time import sleep

import structlog

from daemon.store import hashfile
from daemon.store.copied import Take
from daemon.store.hashfile import HashFile, NotUsable

log = structlog.get_logger()

_NICE = 10
"""Lookups go first."""


def checked(path: Path, nonce: bytes, take: Take) -> None:
    """Check a copy in a thread, and hand it over if it is good.

    A server outlives disks that give an error: what the disk does not give is not mapped, so it ends no process twice.
    """
    Thread(target=_check, args=(path, nonce, take), name="copy", daemon=True).start()


def _check(path: Path, nonce: bytes, take: Take) -> None:
    with suppress(OSError):  # of this thread alone, on Linux; a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, get_native_id(), _NICE)
    try:
        hashfile.check(path, nonce)
        file = HashFile(path, nonce)
    except FileNotFoundError:
        return  # a newer one has taken its place
    except (OSError, NotUsable) as error:
        log.warning(
            "copy.unusable",
            path=str(path),
            problem=str(error),
            remedy="look after the disk; until there is another copy lookups take longer, and the next"
            " start of `ownerd poll` makes one",
        )
        return
    for _ in file.touch():
        sleep(0)
    take(file)
