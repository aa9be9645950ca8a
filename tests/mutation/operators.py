"""Mutants of a module's source: each is the module with one thing changed that a test should notice.

What is changed: comparisons, boolean and arithmetic operators, conditions, constants (defaults of arguments and fields
too), elements of literals, slices, calls and their arguments, returned and yielded values, assignments, statements,
loops, and single characters of regular expressions.

What is not: annotations, docstrings, imports, base classes, decorators, and `None` where it is a constant.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_NAMED = {
    "any": ("all",),
    "all": ("any",),
    "min": ("max",),
    "max": ("min",),
    "lower": ("upper", "casefold"),
    "casefold": ("lower",),
    "strip": ("lstrip", "rstrip"),
    "partition": ("rpartition",),
    "startswith": ("endswith",),
    "fnmatchcase": ("str.startswith",),
}
"""Functions and methods, and what each could have been mistaken for."""

_NOT_MUTATED = {"annotation", "returns", "decorator_list", "bases", "type_comment", "op", "ops", "ctx"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """`before` and `after` are the text of the part that differs; `source` that of the whole module."""

    line: int
    function: str
    before: str
    after: str
    source: str


def mutants_of(source: str) -> Iterator[Mutant]:
    """Every mutant of a module that compiles, in the order of its lines; none twice."""
    tree = ast.parse(source)
    seen = {_syntax(ast.unparse(tree))}
    for place in _places(tree, ""):
        for changed in _changes(place.node, place.parent):
            place.put(changed)
            text = ast.unparse(ast.fix_missing_locations(tree))
            place.put(place.node)
            syntax = _syntax(text)
            if syntax is not None and syntax not in seen:
                seen.add(syntax)
                yield Mutant(place.line, place.function, _shown(place.node), _shown(changed), text)


def _shown(node: ast.AST) -> str:
    """The text of a node; of a compound statement only its head."""
    if isinstance(node, ast.If | ast.While | ast.For):
        head = ast.fix_missing_locations(_like(node, body=[ast.Pass()], orelse=[]))
        return ast.unparse(head).partition("\n")[0]
    return " ".join(ast.unparse(node).split())


def _syntax(source: str) -> str | None:
    """The source's syntax, without places; None if it does not compile."""
    try:
        tree = ast.parse(source)
        compile(tree, "m", "exec")
    except SyntaxError:
        return None
    return ast.dump(tree)


@dataclass(frozen=True, slots=True)
class _Place:
    """A node, and how to put another in its place."""

    node: ast.AST
    parent: ast.AST
    line: int
    function: str
    put: Callable[[ast.AST], None]


def _places(parent: ast.AST, function: str) -> Iterator[_Place]:
    for name, value in ast.iter_fields(parent):
        if name in _NOT_MUTATED or (isinstance(parent, ast.ClassDef) and name == "keywords"):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, ast.AST) or isinstance(node, ast.Import | ast.ImportFrom) or _is_docstring(node):
                continue

            def put(other: ast.AST, *, name: str = name, index: int = index, value: Any = value) -> None:
                if isinstance(value, list):
                    value[index] = other
                else:
                    setattr(parent, name, other)

            inside = function
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                inside = f"{function}.{node.name}".lstrip(".")
            yield _Place(node, parent, getattr(node, "lineno", 0) or getattr(parent, "lineno", 0), inside, put)
            yield from _places(node, inside)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _like(node: ast.AST, **fields: Any) -> Any:
    """A copy of a node with other fields."""
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


def _without(values: list[Any], index: int) -> list[Any]:
    return values[:index] + values[index + 1 :]


def _changes(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.expr):
        yield from _of_expression(node, parent)
    elif isinstance(node, ast.stmt):
        yield from _of_statement(node)
    elif isinstance(node, ast.comprehension):
        for index, test in enumerate(node.ifs):
            yield _like(node, ifs=_without(node.ifs, index))
            yield _like(node, ifs=[*node.ifs[:index], ast.UnaryOp(ast.Not(), test), *node.ifs[index + 1 :]])
    elif isinstance(node, ast.Slice):
        for part in ("lower", "upper", "step"):
            if getattr(node, part) is not None:
                yield _like(node, **{part: None})


def _of_statement(node: ast.stmt) -> Iterator[ast.AST]:
    nothing = ast.Pass()
    match node:
        case ast.If():
            for forced in (True, False):
                yield _like(node, test=ast.Constant(forced))
        case ast.While():
            yield _like(node, test=ast.Constant(False))
        case ast.For():
            yield _like(node, iter=ast.Tuple([], ast.Load()))
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Return():
            yield nothing
        case ast.Assign(targets=[ast.Name()]) | ast.AnnAssign(value=ast.expr()):
            yield _like(node, value=ast.Constant(None))
        case ast.Assign() | ast.AugAssign() | ast.Expr() | ast.Raise():
            yield nothing
        case ast.Break():
            yield from (ast.Continue(), nothing)
        case ast.Continue():
            yield from (ast.Break(), nothing)


def _of_expression(node: ast.expr, parent: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=ops):
            for index, op in enumerate(ops):
                for other in _COMPARED[type(op)]:
                    yield _like(node, ops=[*ops[:index], other(), *ops[index + 1 :]])
        case ast.BoolOp(op=op, values=values):
            yield _like(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
            for index in range(len(values)):
                rest = _without(values, index)
                yield rest[0] if len(rest) == 1 else _like(node, values=rest)
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.BinOp(op=op) if type(op) in _COMPUTED:
            yield _like(node, op=_COMPUTED[type(op)]())
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.Constant(value=value):
            yield from map(ast.Constant, _other_constants(value, parent))
        case ast.Tuple(elts=elts, ctx=ast.Load()) | ast.List(elts=elts, ctx=ast.Load()) | ast.Set(elts=elts):
            for index in range(len(elts)):
                yield _like(node, elts=_without(elts, index))
        case ast.Dict(keys=keys, values=values):
            for index in range(len(keys)):
                yield _like(node, keys=_without(keys, index), values=_without(values, index))
        case ast.Yield() if not isinstance(parent, ast.Expr):
            yield ast.Constant(None)
        case ast.Call():
            yield from _of_call(node)
        case ast.Name(id=name) if name in _NAMED and isinstance(parent, ast.Call) and parent.func is node:
            yield from (ast.parse(other, mode="eval").body for other in _NAMED[name])
        case ast.Attribute(attr=name) if name in _NAMED and isinstance(parent, ast.Call) and parent.func is node:
            yield from (_like(node, attr=other) for other in _NAMED[name])


def _of_call(node: ast.Call) -> Iterator[ast.AST]:
    if isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
        yield node.func.value  # x.strip() → x
    if len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Starred):
        yield node.args[0]  # tuple(x) → x
    for index in range(len(node.args)):
        yield _like(node, args=_without(node.args, index))
    for index in range(len(node.keywords)):
        yield _like(node, keywords=_without(node.keywords, index))


def _other_constants(value: object, parent: ast.AST) -> Iterator[Any]:
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, value - 1)
        case "":
            yield "~"
        case str():
            yield from ("", f"{value}~")
            if isinstance(parent, ast.Call) and ast.unparse(parent.func) == "re.compile":
                shorter = (value[:i] + value[i + 1 :] for i in range(len(value)))
                yield from (pattern for pattern in cast("Iterator[str]", shorter) if _is_pattern(pattern))


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
