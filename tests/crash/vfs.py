"""Between SQLite and its files: sees every read, write and sync, and can make each fail.

SQLite reaches its files through a table of functions, its VFS (https://www.sqlite.org/vfs.html). Those that matter are
replaced in the very library that Python's own `sqlite3` has loaded, so the daemon's code runs as it is.
"""

from __future__ import annotations

import _sqlite3
import contextlib
import ctypes
from collections.abc import Callable, Iterator
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FULL, IOERR = 13, 10
IOERR_READ, IOERR_WRITE, IOERR_FSYNC, IOERR_TRUNCATE = (IOERR | n << 8 for n in (1, 3, 4, 6))
IOERR_DELETE = IOERR | 10 << 8


@dataclass(frozen=True, slots=True)
class Op:
    """What SQLite is about to do. `kind`: open, read, write, sync, truncate, delete, or shm (a step with the index)."""

    kind: str
    path: Path
    at: int = 0
    """The offset; of a truncation, the size."""
    data: bytes = b""

    @property
    def changes(self) -> bool:
        return self.kind in {"write", "sync", "truncate", "delete"}


@dataclass(frozen=True, slots=True)
class Fail:
    """Let it fail with SQLite's result code; of a write, the first `written` bytes get through."""

    code: int
    written: int = 0


Policy = Callable[[Op], Fail | None]
_File = POINTER(c_void_p)
_READ = CFUNCTYPE(c_int, _File, c_void_p, c_int, c_int64)
_WRITE = _READ
_TRUNCATE = CFUNCTYPE(c_int, _File, c_int64)
_SYNC = CFUNCTYPE(c_int, _File, c_int)
_SHM_LOCK = CFUNCTYPE(c_int, _File, c_int, c_int, c_int)
_SHM_BARRIER = CFUNCTYPE(None, _File)
# Names as pointers: SQLite keeps the one that it opens a file by.
_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, _File, c_int, c_void_p)
_DELETE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)


class _Methods(ctypes.Structure):
    _fields_ = [("version", c_int)] + [
        (name, c_void_p)
        for name in (
            *("close", "read", "write", "truncate", "sync", "file_size", "lock", "unlock", "check_reserved_lock"),
            *("file_control", "sector_size", "device_characteristics", "shm_map", "shm_lock", "shm_barrier"),
            *("shm_unmap", "fetch", "unfetch"),
        )
    ]


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("version", c_int),
        ("size_of_file", c_int),
        ("longest_path", c_int),
        ("following", c_void_p),
        ("name", c_char_p),
        ("app_data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
    ]


def _default() -> Any:
    """SQLite's default VFS; None where the library that Python uses does not show it."""
    try:
        # Through the module, which is linked to it; where Python has it built in, through Python.
        find = ctypes.CDLL(getattr(_sqlite3, "__file__", None)).sqlite3_vfs_find
    except (AttributeError, OSError):
        return None
    find.restype = POINTER(_Vfs)
    return find(None).contents


_VFS = _default()
MISSING = None if _VFS else "Python's sqlite3 hides the SQLite library it was built with: nothing can be put in between"


class _Between:
    """The functions that stand in for SQLite's. They live as long as the process: open files keep them."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.policy: Policy | None = None
        self._paths: dict[int, Path] = {}
        self._methods: dict[int, _Methods] = {}
        self._kept: list[Any] = []
        self._really_open = _OPEN(_VFS.open)
        self._really_delete = _DELETE(_VFS.delete)
        self._places = (_VFS.open, _VFS.delete)
        self._ours = (_OPEN(self._open), _DELETE(self._delete))

    def install(self) -> None:
        _VFS.open, _VFS.delete = (ctypes.cast(f, c_void_p).value for f in self._ours)

    def remove(self) -> None:
        _VFS.open, _VFS.delete = self._places
        self.folder = self.policy = None

    def _ask(self, op: Op) -> Fail | None:
        return None if self.policy is None else self.policy(op)

    def _watched(self, name: int | None) -> Path | None:
        path = Path(ctypes.string_at(name).decode()) if name else None
        return path if path and self.folder and path.parent == self.folder else None

    def _open(self, vfs: int, name: int | None, file: Any, flags: int, told: int) -> int:
        path = self._watched(name)
        if path and (fail := self._ask(Op("open", path))):
            return fail.code
        code: int = self._really_open(vfs, name, file, flags, told)
        if code == 0 and path and file[0]:
            self._paths[ctypes.addressof(file.contents)] = path
            file[0] = ctypes.addressof(self._instead_of(file[0]))
        return code

    def _delete(self, vfs: int, name: int, sync: int) -> int:
        path = self._watched(name)
        if path and path.exists() and (fail := self._ask(Op("delete", path))):
            return fail.code
        code: int = self._really_delete(vfs, name, sync)
        return code

    def _instead_of(self, address: int) -> _Methods:
        """SQLite's own functions for a kind of file, but for those that are watched."""
        if address in self._methods:
            return self._methods[address]
        real = _Methods.from_address(address)
        made = _Methods.from_buffer_copy(real)
        really_read, really_write = _READ(real.read), _WRITE(real.write)
        really_truncate, really_sync = _TRUNCATE(real.truncate), _SYNC(real.sync)

        def path_of(file: Any) -> Path:
            return self._paths[ctypes.addressof(file.contents)]

        def read(file: Any, into: int, size: int, at: int) -> int:
            fail = self._ask(Op("read", path_of(file), at))
            return fail.code if fail else int(really_read(file, into, size, at))

        def write(file: Any, data: int, size: int, at: int) -> int:
            fail = self._ask(Op("write", path_of(file), at, ctypes.string_at(data, size)))
            if fail and fail.written:
                really_write(file, data, fail.written, at)
            return fail.code if fail else int(really_write(file, data, size, at))

        def truncate(file: Any, size: int) -> int:
            fail = self._ask(Op("truncate", path_of(file), size))
            return fail.code if fail else int(really_truncate(file, size))

        def sync(file: Any, flags: int) -> int:
            fail = self._ask(Op("sync", path_of(file)))
            return fail.code if fail else int(really_sync(file, flags))

        functions: list[tuple[str, Any]] = [
            ("read", _READ(read)),
            ("write", _WRITE(write)),
            ("truncate", _TRUNCATE(truncate)),
            ("sync", _SYNC(sync)),
        ]
        if real.shm_lock:
            really_lock, really_barrier = _SHM_LOCK(real.shm_lock), _SHM_BARRIER(real.shm_barrier)

            def shm_lock(file: Any, offset: int, number: int, flags: int) -> int:
                self._ask(Op("shm", path_of(file), offset))
                return int(really_lock(file, offset, number, flags))

            def shm_barrier(file: Any) -> None:
                self._ask(Op("shm", path_of(file), -1))
                really_barrier(file)

            functions += [("shm_lock", _SHM_LOCK(shm_lock)), ("shm_barrier", _SHM_BARRIER(shm_barrier))]
        for name, function in functions:
            setattr(made, name, ctypes.cast(function, c_void_p).value)
            self._kept.append(function)
        self._methods[address] = made
        return made


_BETWEEN = _Between() if _VFS else None


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[None]:
    """Stand between SQLite and the files that it opens in `folder` from now on."""
    assert _BETWEEN, MISSING
    assert _BETWEEN.folder is None
    _BETWEEN.folder = folder
    _BETWEEN.install()
    try:
        yield
    finally:
        _BETWEEN.remove()


@contextlib.contextmanager
def asking(policy: Policy) -> Iterator[None]:
    """Ask `policy` about all that SQLite does to those files."""
    assert _BETWEEN, MISSING
    before, _BETWEEN.policy = _BETWEEN.policy, policy
    try:
        yield
    finally:
        _BETWEEN.policy = before
