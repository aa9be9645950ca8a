"""Hostile text stays harmless."""

from __future__ import annotations

import json
import unicodedata

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.spool_rows import well_formed
from daemon.text import csv_cell, json_bytes, json_text, printable

anything = st.text(st.characters(exclude_categories=["Cs"]))


def unsafe(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"}


@given(anything)
def test_json_says_the_same_and_shows_nothing_unsafe(value: str) -> None:
    raw = json_text({value: [value, None, 1]})
    assert json.loads(raw) == {value: [value, None, 1]}
    assert not [c for c in raw if unsafe(c)]
    assert orjson.loads(json_bytes(value)) == value


def test_every_unsafe_character_there_is() -> None:
    """The escapes cover all of Unicode's control and format characters that this Python knows."""
    every = "".join(c for c in map(chr, range(0x110000)) if unsafe(c))
    assert not [c for c in json_text(every) if unsafe(c)]
    assert json.loads(json_text(every)) == every
    assert printable(every).isprintable()


@given(anything)
def test_a_terminal_sees_one_printable_line(value: str) -> None:
    assert printable(value).isprintable()
    if value.isprintable():
        assert printable(value) == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("Größe 資源", "Größe 資源"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("user\u202egpj.exe", r"user\u202egpj.exe"),
        ("\U000e0041", r"\U000e0041"),
        ("\x9b2J", r"\x9b2J"),
    ],
)
def test_how_it_is_shown(value: str, shown: str) -> None:
    assert printable(value) == shown


@given(anything)
def test_a_cell_is_no_formula(value: str) -> None:
    assert csv_cell(value)[:1] not in {"=", "+", "-", "@", "\t", "\r"}


def test_a_lone_surrogate_is_replaced() -> None:
    assert well_formed("a\ud800b") == "a\ufffdb"
    assert well_formed("\U0001f980 ok") == "\U0001f980 ok"
