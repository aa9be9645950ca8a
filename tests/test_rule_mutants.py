"""`make mutation` changes what it says it changes: a tool that changed nothing would find no survivor."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.operators import mutants_of

SOURCE = '''"""Text."""
from x import y

def f(a: int = 3) -> bool:
    """Text."""
    for b in g(a):
        if not b or a < 2:
            continue
        return b == "x"
    return False
'''


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("3", "4"),
        ("3", "2"),
        ("a < 2", "a <= 2"),
        ("a < 2", "a >= 2"),
        ("not b or a < 2", "not b and a < 2"),
        ("not b or a < 2", "a < 2"),
        ("not b", "b"),
        ("if not b or a < 2:", "if True:"),
        ("continue", "break"),
        ("continue", "pass"),
        ("return b == 'x'", "return None"),
        ("b == 'x'", "b != 'x'"),
        ("'x'", "''"),
        ("False", "True"),
        ("for b in g(a):", "for b in ():"),
        ("g(a)", "a"),
    ],
)
def test_each_kind_of_change_is_made(before: str, after: str) -> None:
    """Once, in its place, and the rest of the module stays."""
    (mutant,) = [m for m in mutants_of(SOURCE) if (m.before, m.after) == (before, after)]
    lines = ast.unparse(ast.parse(SOURCE)).splitlines()
    changed = [(old, new) for old, new in zip(lines, mutant.source.splitlines(), strict=True) if old != new]
    assert len(changed) == 1
    assert mutant.function == "f"


def test_no_two_are_the_same_and_all_compile() -> None:
    """And what only people and type checkers read stays as it is."""
    sources = [m.source for m in mutants_of(SOURCE)]
    assert len(set(sources)) == len(sources)
    for source in sources:
        compile(source, "mutant", "exec")
        assert '"""Text."""\nfrom x import y' in source
        assert "-> bool:" in source
        assert "a: int" in source


def test_patterns_lose_a_character_at_a_time() -> None:
    """Each of a class's members is a mutant of its own; what is no pattern any more is none."""
    after = {m.after for m in mutants_of('import re\nP = re.compile("[a-]+")\n') if m.before == "'[a-]+'"}
    assert {"'[a]+'", "'[-]+'", "'[a-]'"} <= after
    assert "'[a-+'" not in after
