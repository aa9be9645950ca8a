"""What a drift finding suggests. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from rapidfuzz import fuzz, process

from daemon.matching import canonical

MOST = 3
NEAR = 75.0
"""Least similarity, of 100, of what is suggested: one letter wrong in four passes."""
_SHORTEST, _LONGEST = 3, 256
"""Characters: of a shorter value anything is near."""


def suggest(value: str, known: Mapping[str, str]) -> tuple[str, ...]:
    """The nearest to `value` of the names `known`, nearest first, at most three; each name with its canonical form."""
    asked = canonical(value)[:_LONGEST]
    if len(asked) < _SHORTEST:
        return ()
    found = process.extract(asked, known, scorer=fuzz.WRatio, processor=None, limit=2 * MOST, score_cutoff=NEAR)
    ranked = sorted(found, key=lambda f: (-fuzz.ratio(asked, f[0]), f[2]))
    return tuple(name for _, _, name in ranked)[:MOST]
