"""The hash table in a file: it finds what was put in, nothing else, and knows when it is spoilt."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import zlib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.store import hashfile
from daemon.store.hashfile import NONCE, PROBES, HashFile, NotUsable, Row

NONCE_1 = bytes(range(NONCE))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
rows = st.dictionaries(texts, st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=60)


def made(path: Path, content: Iterable[Row], at_most: int = 100) -> HashFile:
    path.unlink(missing_ok=True)
    hashfile.write(path, NONCE_1, content, at_most=at_most)
    hashfile.check(path, NONCE_1)
    return HashFile(path, NONCE_1)


def alike(count: int) -> list[str]:
    """Keys of one hash: a text and the four bytes that turn its CRC into the wanted one, where they are Unicode."""
    found: list[str] = []
    for number in itertools.count():
        text = f"bucket-{number}-"
        # Backwards: which entries of the table lead to the wanted register; then which bytes choose them.
        wanted, indices = 0xFFFFFFFF ^ 0x12345678, list[int]()
        for _ in range(4):
            index = next(i for i in range(256) if TABLE[i] >> 24 == wanted >> 24)
            indices.insert(0, index)
            wanted = (wanted ^ TABLE[index]) << 8 & 0xFFFFFFFF
        register, patch = zlib.crc32(text.encode()) ^ 0xFFFFFFFF, bytearray()
        for index in indices:
            patch.append((register ^ index) & 0xFF)
            register = register >> 8 ^ TABLE[index]
        with contextlib.suppress(UnicodeDecodeError):
            found.append(text + patch.decode())
        if len(found) == count:
            break
    return found


def _entry(register: int) -> int:
    for _ in range(8):
        register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    return register


TABLE = [_entry(byte) for byte in range(256)]
"""Of CRC-32."""


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=rows, absent=st.lists(texts, max_size=20))
def test_it_finds_what_was_put_in(tmp_path: Path, content: dict[str, tuple[int, bytes]], absent: list[str]) -> None:
    """Every key, with its number and its value, and no other."""
    with closing(made(tmp_path / "f", ((k, *v) for k, v in content.items()), len(content))) as file:
        for key, value in content.items():
            assert file.find(key) == value
        for key in absent:
            assert file.find(key) == content.get(key)


def test_many_are_all_found(tmp_path: Path) -> None:
    """Tens of thousands, over several pieces; `touch` goes over all of it."""
    content = {f"arn:aws:s3:::bucket-{n}": (n, os.urandom(n % 700)) for n in range(20_000)}
    with closing(made(tmp_path / "f", ((k, *v) for k, v in content.items()), len(content))) as file:
        assert (tmp_path / "f").stat().st_size > 3 * 2**21
        assert sum(1 for _ in file.touch()) > 1
        assert all(file.find(key) == value for key, value in content.items())
        assert not any(file.find(key + "0") for key in content if key + "0" not in content)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_keys_that_were_chosen_to_collide(tmp_path: Path) -> None:
    """Of keys with one hash as many are kept as a look-up may look at; the rest is not found, and none is mistaken."""
    keys = alike(3 * PROBES)
    assert len({zlib.crc32(key.encode()) for key in keys}) == 1
    with closing(made(tmp_path / "f", ((k, n, k.encode()) for n, k in enumerate(keys)))) as file:
        found = [file.find(key) for key in keys]
        assert [f for f in found if f] == [(n, key.encode()) for n, key in enumerate(keys[:PROBES])]
        assert file.find(alike(3 * PROBES + 1)[-1]) is None


def test_what_no_record_can_hold_is_left_out(tmp_path: Path) -> None:
    """A key of 64 KiB, and a number of more than 32 bits."""
    content: list[Row] = [("k" * 2**16, 1, b"v"), ("a", 2**32, b"v"), ("b", 2**32 - 1, b"v"), ("c" * 65535, 0, b"")]
    with closing(made(tmp_path / "f", content)) as file:
        assert [file.find(key) for key, _, _ in content] == [None, None, (2**32 - 1, b"v"), (0, b"")]


def test_it_is_never_overwritten(tmp_path: Path) -> None:
    """A file of that name is an error, and stays."""
    made(tmp_path / "f", [("a", 1, b"v")]).close()
    with pytest.raises(FileExistsError):
        hashfile.write(tmp_path / "f", NONCE_1, [], at_most=0)
    hashfile.check(tmp_path / "f", NONCE_1)


def test_each_spoilt_byte_is_noticed(tmp_path: Path) -> None:
    """Whatever byte is another: `check` refuses the file. Unchecked, no key gets another's value with its own key."""
    path = tmp_path / "f"
    made(path, [(f"key {n}", n, b"value %d" % n) for n in range(5)]).close()
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :])
        with pytest.raises(NotUsable):
            hashfile.check(path, NONCE_1)


@pytest.mark.parametrize("cut", [0, 1, 63, 64, 100, -1, -8])
def test_a_file_that_is_cut_short_is_not_opened(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "f"
    made(path, [(f"key {n}", n, b"value") for n in range(50)]).close()
    os.truncate(path, cut % (path.stat().st_size + 1) if cut >= 0 else path.stat().st_size + cut)
    for use in (hashfile.check, HashFile):
        with pytest.raises(NotUsable):
            use(path, NONCE_1)


def test_another_file_of_its_name_is_not_opened(tmp_path: Path) -> None:
    """Each file tells which it is."""
    made(tmp_path / "f", [("a", 1, b"v")]).close()
    for use in (hashfile.check, HashFile):
        with pytest.raises(NotUsable):
            use(tmp_path / "f", bytes(NONCE))


def test_slots_that_lead_nowhere(tmp_path: Path) -> None:
    """In a file that nobody checked: an error, or nothing; never a crash, and never what belongs to another key."""
    path, rng = tmp_path / "f", random.Random(3)
    content = {f"key {n}": (n, b"value %d" % n) for n in range(50)}
    made(path, ((k, *v) for k, v in content.items())).close()
    good, told = path.read_bytes(), set()
    slots_at = int.from_bytes(good[40:48], "little")
    for _ in range(300):
        spoilt = bytearray(good)
        for _ in range(40):
            place = rng.randrange(slots_at, len(good))
            spoilt[place] = rng.randrange(256)
        path.write_bytes(spoilt)
        with closing(HashFile(path, NONCE_1)) as file:
            for key, value in content.items():
                try:
                    found = file.find(key)
                except ValueError:
                    told.add("error")
                    continue
                assert found in (None, value)
                told.add("nothing" if found is None else "found")
    assert told == {"error", "nothing", "found"}


def test_a_disk_with_no_room(tmp_path: Path) -> None:
    """OSError, while the file is written; who asked for it deletes it."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            hashfile.write(tmp_path / "f", NONCE_1, ((str(n), n, bytes(500)) for n in range(100)), at_most=100)
        except OSError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    with pytest.raises(NotUsable):
        HashFile(tmp_path / "f", NONCE_1)
