"""A hash table in a file that never changes, mapped into memory: from a key to bytes. Standard library only.

After D. J. Bernstein's cdb (https://cr.yp.to/cdb.html): a page of slots, one of the record, and no call of the kernel.

    header    magic, form, nonce, size, where the slots begin, how many there are, checksum, checksum of the header
    records   number, length of the value, length of the key, key, value, padding to 8 bytes
    slots     8 bytes each: where the record begins (in units of 8 bytes), and the key's hash; 0 if there is none

Numbers are in the machine's own order: a file of another kind of machine has another magic. A key that finds no slot
near its own is left out, since who chooses keys can choose them of one hash; so `find` takes no longer for them either.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

Row = tuple[str, int, bytes]
"""Key, number, value."""
Find = Callable[[str], tuple[int, bytes] | None]

NONCE = 16
"""Bytes that tell a file from every other one."""
PROBES = 32
"""Slots that are looked at for one key, at most."""
_HEADER = struct.Struct("=QI4x16sQQQII")
_MAGIC = 0x6F776E6572646874
_FORM = 1
_RECORD = struct.Struct("=IIH")
_PADDING = tuple(bytes(n) for n in range(8))
_TOGETHER = 1000
_PIECE = 2 * 2**20
"""Bytes that are written, or read, at once. Where a file system keeps them as one (ext4 from Linux 6.16, XFS), they are
mapped as one, too: that is a tenth of a look-up's time."""
_NEAR = 16 * mmap.PAGESIZE
"""What the kernel maps at one fault (`fault_around_bytes`)."""


class NotUsable(Exception):
    """The file is cut short, spoilt, or not the one that was meant."""


# --- writing ----------------------------------------------------------------------------------------------------------


def write(path: Path, nonce: bytes, rows: Iterable[Row], *, at_most: int) -> int:
    """Make a new file of distinct keys, and sync it; how many it holds. OSError if that fails.

    `at_most`: how many rows come, or more. What no record can hold is left out.
    """
    slots = array("Q", bytes(8 * _slots_for(at_most)))
    mask, place, held, crc = len(slots) - PROBES - 1, _HEADER.size, 0, 0
    hash_of, record, coming = zlib.crc32, _RECORD.pack, iter(rows)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    with FileIO(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o640)
        waiting = bytearray(_HEADER.size)
        while some := list(islice(coming, _TOGETHER)):
            parts: list[bytes] = []
            for key, number, value in some:
                name = key.encode()
                hashed = hash_of(name)
                at = hashed & mask
                end = at + PROBES
                while at < end and slots[at]:
                    at += 1
                length, of_key = len(value), len(name)
                if at == end or of_key >= 2**16 or length >= 2**32 or number >= 2**32 or place >= 2**35:
                    continue
                padding = -(_RECORD.size + of_key + length) % 8
                parts += record(number, length, of_key), name, value, _PADDING[padding]
                slots[at] = place >> 3 << 32 | hashed
                place += _RECORD.size + of_key + length + padding
                held += 1
            chunk = b"".join(parts)
            crc = hash_of(chunk, crc)
            waiting += chunk
            while len(waiting) >= _PIECE:
                _write(file, waiting[:_PIECE])
                del waiting[:_PIECE]
        crc = hash_of(slots, crc)
        _write(file, waiting)
        _write(file, slots)
        head = _HEADER.pack(_MAGIC, _FORM, nonce, place + 8 * len(slots), place, len(slots), crc, 0)[:-4]
        file.seek(0)
        file.write(head + struct.pack("=I", hash_of(head)))
        os.fsync(descriptor)
    return held


def _write(file: FileIO, data: bytearray | array[int]) -> None:
    left = memoryview(data).cast("B")
    while left:  # a full disk takes what it has room for, and says so the next time
        left = left[file.write(left) or 0 :]


def _slots_for(rows: int) -> int:
    """Two thirds of them full, at most; and some behind the last one, so that looking on needs no turning round."""
    return (1 << max(3, (rows + rows // 2).bit_length())) + PROBES


# --- reading ----------------------------------------------------------------------------------------------------------


def check(path: Path, nonce: bytes) -> None:
    """Read all of it. NotUsable if it is spoilt; OSError if the disk does not give it.

    Where the disk does not give bytes that are mapped, the process ends (SIGBUS): so they are read before.
    """
    with FileIO(path) as file:
        told = _header(file, nonce)
        left, crc = told.size - _HEADER.size, 0
        chunk = memoryview(bytearray(_PIECE))
        while left and (got := file.readinto(chunk[: min(left, _PIECE)])):
            crc = zlib.crc32(chunk[:got], crc)
            left -= got
        if left or crc != told.checksum:
            raise NotUsable("it is not what was written")


class _Header(NamedTuple):
    size: int
    slots_at: int
    slots: int
    checksum: int
    """Of all but the header."""


def _header(file: FileIO, nonce: bytes) -> _Header:
    head = file.read(_HEADER.size)
    if len(head) == _HEADER.size:
        magic, form, told, size, slots_at, slots, checksum, own = _HEADER.unpack(head)
        good = own == zlib.crc32(head[:-4]) and (magic, form, told) == (_MAGIC, _FORM, nonce)
        if good and os.fstat(file.fileno()).st_size == size == slots_at + 8 * slots:
            return _Header(size, slots_at, slots, checksum)
    raise NotUsable("it is cut short, or another file")


class HashFile:
    """An open file. OSError, or NotUsable, if it cannot be used; its records are looked at when they are read."""

    def __init__(self, path: Path, nonce: bytes) -> None:
        with FileIO(path) as file:
            told = _header(file, nonce)
            self._map = mmap.mmap(file.fileno(), told.size, prot=mmap.PROT_READ)
        self._map.madvise(mmap.MADV_RANDOM)
        self._slots = memoryview(self._map)[told.slots_at :].cast("Q")
        self.find: Find = _finder(self._map, self._slots, told.slots - PROBES - 1)
        """The number and the value of a key, or None; ValueError if the file is spoilt there."""

    def touch(self) -> Iterator[None]:
        """Map what the page cache has, so that no lookup has to; a little at each step."""
        for place in range(0, len(self._map), _NEAR):
            self._map[place]
            if place % (64 * _NEAR) == 0:
                yield

    def close(self) -> None:
        """Let it go; `find` must not be called again."""
        del self.find
        self._slots.release()
        with suppress(BufferError):  # somebody is in the middle of `find`: it goes with that
            self._map.close()


def _finder(mapped: mmap.mmap, slots: memoryview, mask: int) -> Find:
    hash_of, record, size = zlib.crc32, _RECORD.unpack_from, _RECORD.size

    def find(key: str) -> tuple[int, bytes] | None:
        name = key.encode()
        hashed = hash_of(name)
        at = hashed & mask
        end = at + PROBES
        while slot := slots[at]:
            if slot & 0xFFFFFFFF == hashed:
                place = slot >> 32 << 3
                try:
                    number, length, of_key = record(mapped, place)
                except struct.error as error:
                    raise ValueError("a slot that leads nowhere") from error
                start = place + size
                value = start + of_key
                if mapped[start:value] == name:
                    return number, mapped[value : value + length]
            at += 1
            if at == end:
                break
        return None

    return find
