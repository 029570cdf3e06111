"""A notebook cell as a function of the names it is mapped over."""

from __future__ import annotations

import ast
import builtins
import difflib
import dis
import hashlib
import io
import linecache
import tokenize
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scalable_nb.magics.subcommand import InvalidUsageError

_INDENT: Final = "    "


@dataclass(frozen=True)
class CellFunction:
    """What a cell became.

    Attributes
    ----------
    function : callable
        Takes one value per parameter; gives the value of the cell's last expression.
    shipped : mapping
        The notebook's variables that the cell uses, by name. They travel with the function as
        they are now.
    has_value : bool
        Whether the cell ends with an expression or returns something itself.
    """

    function: Callable[..., Any]
    shipped: Mapping[str, Any]
    has_value: bool


def make_function(
    cell: str, name: str, parameters: Sequence[str], variables: Mapping[str, Any]
) -> CellFunction:
    """Make a function of a cell's text.

    Parameters
    ----------
    cell : str
        Python, as typed below the line of the magic.
    name : str
        Of the function.
    parameters : sequence of str
        Names that each call sets anew.
    variables : mapping
        The notebook's.

    Raises
    ------
    InvalidUsageError
        When the cell is no Python, is empty, yields, or uses a name that nobody defined.
    """
    tree = _parse(cell)
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in _own(tree)):
        raise InvalidUsageError(
            "the cell uses `yield`; expected a cell whose last line is the result."
        )
    text = _text(cell, tree, name, parameters)
    code = _function_code(text, name)
    shipped = _shipped(code, variables)
    # The name of the module makes it travel by value, as everything of the notebook's does.
    namespace = {**shipped, "__name__": "__main__"}
    exec(compile(text, code.co_filename, "exec", dont_inherit=True), namespace)
    has_value = isinstance(tree.body[-1], ast.Expr) or any(
        isinstance(node, ast.Return) for node in ast.walk(tree)
    )
    return CellFunction(namespace[name], shipped, has_value)


def _parse(cell: str) -> ast.Module:
    try:
        # As the body of a function, so that `return` and `await` are what they are there.
        wrapped = ast.parse(f"async def cell():\n{_indented(cell)}\n")
    except (SyntaxError, tokenize.TokenError) as error:
        words = getattr(error, "msg", None) or str(error)
        # The head stands where the line of the magic is, so the numbers are those of the cell.
        number = error.lineno if isinstance(error, SyntaxError) else None
        line = f", line {number}" if number else ""
        hint = " Lines that begin with % or ! run in the notebook only." if _is_magic(cell) else ""
        raise InvalidUsageError(f"the cell is not Python{line}: {words}.{hint}") from error
    (function,) = wrapped.body
    assert isinstance(function, ast.AsyncFunctionDef)
    return ast.Module(function.body, [])


def _is_magic(cell: str) -> bool:
    return any(line.lstrip().startswith(("%", "!")) for line in cell.splitlines())


def _text(cell: str, tree: ast.Module, name: str, parameters: Sequence[str]) -> str:
    """The function's text; its lines have the numbers that they have in the cell."""
    is_async = any(
        isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith) for node in _own(tree)
    )
    head = f"{'async ' if is_async else ''}def {name}({', '.join(parameters)}):"
    lines = _indented(cell).splitlines()
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        # Positions are those in the indented text, below a head of one line.
        encoded = lines[last.lineno - 2].encode()
        start = last.col_offset
        lines[last.lineno - 2] = (encoded[:start] + b"return " + encoded[start:]).decode()
    return "\n".join([head, *lines, ""])


def _own(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a body without those of the functions defined in it."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from _own(node)


def _indented(cell: str) -> str:
    """Each line set in, but for those that continue a text of several lines."""
    if not cell.strip():
        raise InvalidUsageError("the cell is empty; expected what is to be done for each item.")
    inside: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(cell).readline):
            if token.type in (tokenize.STRING, _FSTRING_MIDDLE):
                inside.update(range(token.start[0] + 1, token.end[0] + 1))
    except (tokenize.TokenError, SyntaxError):
        inside = set()  # the parser says better what is wrong
    return "\n".join(
        line if number in inside or not line.strip() else _INDENT + line
        for number, line in enumerate(cell.splitlines(), 1)
    )


#: What is defined everywhere; IPython adds what is defined in a notebook only.
_BUILTINS: Final = frozenset(vars(builtins)) - {"display", "get_ipython"} | {"__name__"}

#: From Python 3.12 on an f-string is several tokens.
_FSTRING_MIDDLE: Final = getattr(tokenize, "FSTRING_MIDDLE", -1)


def _function_code(text: str, name: str) -> types.CodeType:
    filename = f"<{name} {hashlib.sha256(text.encode()).hexdigest()[:8]}>"
    try:
        module = compile(text, filename, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise InvalidUsageError(f"the cell cannot be a function: {error.msg}.") from error
    # So that tracebacks, and the cache, which compares sources, can read it.
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    return next(
        each
        for each in module.co_consts
        if isinstance(each, types.CodeType) and each.co_name == name
    )


def _shipped(code: types.CodeType, variables: Mapping[str, Any]) -> dict[str, Any]:
    used = dict.fromkeys(_globals_of(code))
    missing = [name for name in used if name not in variables and name not in _BUILTINS]
    if missing:
        name = missing[0]
        close = difflib.get_close_matches(name, variables, n=1)
        raise InvalidUsageError(
            f"the cell uses {name!r}, which is no variable of the notebook."
            + (f" Did you mean {close[0]!r}?" if close else "")
            + " The cell runs on the workers: define it before, or in the cell itself."
        )
    # Of a class in the cell it is not known before it runs which names are its own.
    used.update(dict.fromkeys(_globals_of(code, "LOAD_NAME")))
    return {name: variables[name] for name in used if name in variables}


def _globals_of(code: types.CodeType, opname: str = "LOAD_GLOBAL") -> Iterator[str]:
    """The global names that a function reads, those of the functions in it included."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == opname:
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_of(constant, opname)
