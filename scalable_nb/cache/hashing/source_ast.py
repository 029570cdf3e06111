"""The code of a function in a form that only changes when the function does.

That is its syntax tree without comments, layout, docstrings and our own decorators. The
source is believed only where it compiles to the very code that would run: a file edited
after the import, a reused cell number or a rewritten module would otherwise give the key of
one function to the result of another. Where there is no such source (a terminal, ``exec``,
a lambda, a worker), the bytecode stands in, with the version of Python it belongs to.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import linecache
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any, Final

from scalable_nb.cache.hashing.encoder import Encoder
from scalable_nb.cache.hashing.value_writers import NotEncodableError

#: A plain value (tuples, strings, numbers) that stands for a function's code.
CodeValue = tuple[Any, ...]

_CACHED_FILES: Final = 500  # a notebook makes one of each executed cell
_OWN_PACKAGE: Final = __name__.partition(".")[0]
_Def = ast.FunctionDef | ast.AsyncFunctionDef
_Documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)

_files: dict[str, ParsedFile] = {}
# By identity: equal code objects may stem from different sources. The file may have changed
# since, but what was found for a code object stays true.
_found: dict[int, tuple[weakref.ref[CodeType], CodeValue]] = {}
_lock = threading.RLock()


@dataclass
class ParsedFile:
    """A source text, parsed once.

    Attributes
    ----------
    lines : list of str
        The very list that `linecache` holds; another list means another text.
    tree : ast.Module or None
        Without docstrings; None where the text is no Python.
    definitions : mapping
        (first line, name) -> the node of a function.
    codes : mapping
        Qualified name -> the code objects that the text compiles to.
    contains : mapping
        Code object of a function -> whether the text contains it; filled by `is_in_file`.
    """

    lines: list[str]
    tree: ast.Module | None = None
    definitions: dict[tuple[int, str], _Def] = field(default_factory=dict)
    codes: dict[str, list[CodeType]] = field(default_factory=dict)
    contains: dict[CodeType, bool] = field(default_factory=dict)

    @functools.cached_property
    def dump(self) -> str:
        """The whole text as a syntax tree; as it is, where it is no Python."""
        return "".join(self.lines) if self.tree is None else ast.dump(self.tree)


def code_value(function: FunctionType) -> CodeValue:
    """What stands for the code of a function (not for that of the functions it calls).

    Returns
    -------
    tuple
        ``("source", dump, level)`` or ``("bytecode", ...)``, of plain values only.
    """
    code = function.__code__
    with _lock:
        known = _found.get(id(code))
        if known is not None and known[0]() is code:
            return known[1]
        node = _definition(function)
        value: CodeValue
        if node is None:
            value = ("bytecode", importlib.util.MAGIC_NUMBER, _bytecode(code, function.__doc__))
        else:
            # `python -O` leaves out what the source contains.
            value = ("source", _dump(node, function.__globals__), sys.flags.optimize)
        identity = id(code)
        reference = weakref.ref(code, lambda _: _found.pop(identity, None))
        _found[identity] = (reference, value)
        return value


def is_in_file(function: FunctionType) -> bool:
    """Return whether the file of a function contains its code now.

    Unlike what `code_value` returns, which is remembered: a module may be older than its file.
    """
    code = function.__code__
    with _lock:
        contains = parse_file(code.co_filename, function.__globals__).contains
        if code not in contains:
            contains[code] = _definition(function) is not None
        return contains[code]


def bytecode_digest(code: CodeType) -> bytes:
    """Return a digest (32 bytes) of what a code object does."""
    return _bytecode(code, None)


def plain_digest(value: object) -> bytes:
    """Return a digest (32 bytes) of a value that contains no code.

    Raises
    ------
    NotEncodableError
        If it does.
    """
    return Encoder(_no_code).digest_of(value)


def parse_file(filename: str, module_globals: dict[str, Any] | None = None) -> ParsedFile:
    """The parsed text of a file or notebook cell, as it is now."""
    with _lock:
        linecache.checkcache(filename)
        lines = linecache.getlines(filename, module_globals)
        parsed = _files.get(filename)
        if parsed is None or parsed.lines is not lines:
            if len(_files) >= _CACHED_FILES:
                _files.clear()
            parsed = _files[filename] = _parse(filename, lines)
        return parsed


def _parse(filename: str, lines: list[str]) -> ParsedFile:
    parsed = ParsedFile(lines)
    try:
        tree = ast.parse("".join(lines), filename)
        compiled = compile(tree, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return parsed  # half-edited, or no Python at all
    for code in _codes_within(compiled):
        parsed.codes.setdefault(code.co_qualname, []).append(code)
    for node in ast.walk(tree):
        if isinstance(node, _Documented):
            _drop_docstring(node)
        if isinstance(node, _Def):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            parsed.definitions[first, node.name] = node
    parsed.tree = tree
    return parsed


def _codes_within(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes_within(constant)


def _drop_docstring(node: ast.AST) -> None:
    if isinstance(node, _Documented) and ast.get_docstring(node, clean=False) is not None:
        node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]


def _definition(function: FunctionType) -> _Def | None:
    """The node that compiles to the function's code, wherever in its file it stands now."""
    code = function.__code__
    parsed = parse_file(code.co_filename, function.__globals__)
    own = _bytecode(code, None)
    for candidate in parsed.codes.get(code.co_qualname, ()):
        if _bytecode(candidate, None) == own:
            return parsed.definitions.get((candidate.co_firstlineno, candidate.co_name))
    return None


def _bytecode(code: CodeType, docstring: str | None) -> bytes:
    """Digest of all that decides what a code object does; no names of files, no lines."""
    constants = tuple(
        _bytecode(each, None) if isinstance(each, CodeType) else (each,) for each in code.co_consts
    )
    if docstring is not None and code.co_consts and code.co_consts[0] == docstring:
        constants = constants[1:]
    value = (
        code.co_code,
        constants,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        code.co_exceptiontable,
    )
    return plain_digest(value)


def _no_code(code: Any, is_in_set: bool) -> bytes:
    raise NotEncodableError(f"{code!r}, which is code")


def _dump(node: _Def, namespace: Mapping[str, Any]) -> str:
    """The tree as text, without decorators of ours: they say how to keep, not what to do."""
    all_decorators = node.decorator_list
    node.decorator_list = [each for each in all_decorators if not _is_ours(each, namespace)]
    try:
        return ast.dump(node)
    finally:
        node.decorator_list = all_decorators


def _is_ours(decorator: ast.expr, namespace: Mapping[str, Any]) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    names: list[str] = []
    while isinstance(target, ast.Attribute):
        names.append(target.attr)
        target = target.value
    if not isinstance(target, ast.Name):
        return False
    if target.id not in namespace:  # a local name of an enclosing function
        return (names or [target.id])[0] == "cacheable"
    found = namespace[target.id]
    for name in reversed(names):
        found = getattr(found, name, None)
    return str(getattr(found, "__module__", "")).partition(".")[0] == _OWN_PACKAGE
