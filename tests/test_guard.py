"""The guard: what is plausible, and what is held."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.guard import (
    COUNTED_FROM,
    Emptied,
    Limits,
    OutOfSight,
    OwnerChange,
    ScopeChange,
    TooManyOwnerChanges,
    TooMuchRemoved,
    judge_owners,
    judge_scopes,
)

FIFTH = Limits(0.2, 0.2)


@pytest.mark.parametrize(
    ("rows", "removed", "held"),
    [
        (0, 0, None),
        (1, 0, None),
        (1, 1, Emptied),
        (9, 8, None),
        (9, 9, Emptied),
        (10, 2, None),
        (10, 3, TooMuchRemoved),
        (100, 20, None),
        (100, 21, TooMuchRemoved),
        (100, 100, Emptied),
    ],
)
def test_what_a_scope_may_lose(rows: int, removed: int, held: type | None) -> None:
    found = [type(h) for h in judge_scopes([ScopeChange("s", rows, removed)], FIFTH)]
    assert found == ([] if held is None else [held])


@pytest.mark.parametrize(
    ("members", "gone", "held"),
    [(0, 0, None), (9, 9, None), (10, 2, None), (10, 3, TooMuchRemoved), (10, 10, Emptied), (100, 20, None)],
)
def test_memberships_are_counted_as_rows_are(members: int, gone: int, held: type | None) -> None:
    """Few are not counted: a group of a small company may be emptied."""
    found = [type(h) for h in judge_scopes([ScopeChange("s", 30, 0, members, gone)], FIFTH)]
    assert found == ([] if held is None else [held])


@pytest.mark.parametrize(
    ("rows", "changed", "held"),
    [(9, 9, False), (10, 2, False), (10, 3, True), (1000, 200, False), (1000, 201, True), (0, 0, False)],
)
def test_how_much_may_be_reowned(rows: int, changed: int, held: bool) -> None:
    found = list(judge_owners([OwnerChange("i", rows, changed)], FIFTH))
    assert [type(h) for h in found] == ([TooManyOwnerChanges] if held else [])


def test_it_says_how_much_and_what_the_limit_is() -> None:
    assert (
        next(judge_scopes([ScopeChange("eu", 40, 10)], FIFTH)).why == "10 of 40 rows would go (25%; the limit is 20%)"
    )
    assert next(judge_owners([OwnerChange("aws", 40, 10)], FIFTH)).why.startswith(
        "10 of 40 rows would get other owners"
    )


shares = st.floats(0, 1)
counts = st.integers(0, 10_000)


@given(counts, counts, shares, shares)
def test_a_stricter_limit_holds_no_less(rows: int, removed: int, a: float, b: float) -> None:
    """Whatever a lax limit holds, a strict one holds; and losing more is never less suspicious."""
    removed = min(rows, removed)
    strict, lax = (Limits(x, x) for x in sorted((a, b)))
    change = [ScopeChange("s", rows, removed)]
    assert bool(list(judge_scopes(change, lax))) <= bool(list(judge_scopes(change, strict)))
    more = [ScopeChange("s", rows, min(rows, removed + 1))]
    assert bool(list(judge_scopes(change, lax))) <= bool(list(judge_scopes(more, lax)))


@given(st.integers(1, 10_000), shares)
def test_to_none_is_held_at_any_size_and_limit(rows: int, share: float) -> None:
    assert [type(h) for h in judge_scopes([ScopeChange("s", rows, rows)], Limits(share, share))] == [Emptied]


@given(st.integers(0, COUNTED_FROM - 1), st.integers(0, COUNTED_FROM), shares)
def test_shares_are_counted_from_ten_up(rows: int, removed: int, share: float) -> None:
    if removed < rows:
        assert not list(judge_scopes([ScopeChange("s", rows, removed)], Limits(share, share)))
    assert not list(judge_owners([OwnerChange("i", rows, removed)], Limits(share, share)))


@given(st.lists(st.tuples(counts, counts), max_size=5), shares)
def test_each_scope_is_judged_by_itself(drawn: list[tuple[int, int]], share: float) -> None:
    changes = [ScopeChange(str(i), max(p), min(p)) for i, p in enumerate(drawn)]
    limits = Limits(share, share)
    together = {h.subject for h in judge_scopes(changes, limits)}
    alone = {c.scope for c in changes if list(judge_scopes([c], limits))}
    assert together == alone


@pytest.mark.parametrize(
    ("change", "held"),
    [
        (ScopeChange("eu", 3, 3), Emptied("eu", "all 3 rows would go")),
        (ScopeChange("eu", 3, 3, 10, 10, ("hidden",)), Emptied("eu", "all 3 rows would go")),
        (ScopeChange("eu", 30, 1, 10, 10, ("hidden",)), Emptied("eu", "all 10 memberships would go")),
        (
            ScopeChange("eu", 30, 1, gaps=("hidden", "denied")),
            OutOfSight(
                "eu", "1 of 30 rows would go, and the scope can no longer show all there is: hidden, denied"
            ),
        ),
        (ScopeChange("eu", 30, 0, gaps=("hidden",)), None),
        (ScopeChange("eu", 40, 10), TooMuchRemoved("eu", "10 of 40 rows would go (25%; the limit is 20%)")),
        (
            ScopeChange("eu", 40, 1, 1000, 999),
            TooMuchRemoved("eu", "999 of 1000 memberships would go (100%; the limit is 20%)"),
        ),
        (ScopeChange("eu", 0, 0, 10, 3), TooMuchRemoved("eu", "3 of 10 memberships would go (30%; the limit is 20%)")),
    ],
)  # fmt: skip
def test_what_people_read(change: ScopeChange, held: object) -> None:
    """The worst is told, once, with what it is about and how much; the text is what `ownerd held` shows."""
    assert list(judge_scopes([ScopeChange("quiet", 5, 0), change], Limits(0.2, 0.9))) == ([held] if held else [])


def test_what_people_read_of_owners() -> None:
    """By the limit for owners, not by that for rows."""
    changes = [OwnerChange("quiet", 100, 10), OwnerChange("aws", 200, 100)]
    why = "100 of 200 rows would get other owners (50%; the limit is 10%)"
    assert list(judge_owners(changes, Limits(0.9, 0.1))) == [TooManyOwnerChanges("aws", why)]
    assert not list(judge_scopes([ScopeChange("aws", 200, 100)], Limits(0.9, 0.1)))


def test_an_integration_has_no_memberships_or_gaps_unless_it_is_said() -> None:
    """What is not told of a scope is none."""
    assert ScopeChange("s", 1, 0) == ScopeChange("s", 1, 0, members=0, members_removed=0, gaps=())


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_the_ends_of_the_limits(limit: float) -> None:
    """At 0 nothing may go, at 1 all but everything may."""
    held = bool(list(judge_scopes([ScopeChange("s", 10, 1)], Limits(limit, limit))))
    assert held == (limit == 0.0)
    assert not list(judge_scopes([ScopeChange("s", 10, 0)], Limits(limit, limit)))
    assert not list(judge_scopes([ScopeChange("s", 10, 9)], Limits(1.0, limit)))
    assert not list(judge_owners([OwnerChange("i", 10, 10)], Limits(limit, 1.0)))
