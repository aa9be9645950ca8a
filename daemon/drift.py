"""What a drift finding suggests. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz import fuzz, process

from daemon.matching import canonical

MOST = 3
NEAR = 75.0
"""Least similarity, of 100, of what is suggested: one letter wrong in four passes."""


def suggest(value: str, known: Sequence[str]) -> tuple[str, ...]:
    """The nearest of `known` to `value`, nearest first, at most three."""
    found = process.extract(
        canonical(value)[:256], known, scorer=fuzz.WRatio, processor=canonical, limit=MOST * 2, score_cutoff=NEAR
    )
    ranked = sorted(found, key=lambda f: (-fuzz.ratio(canonical(value)[:256], canonical(f[0])), f[0]))
    return tuple(dict.fromkeys(name for name, _, _ in ranked))[:MOST]
