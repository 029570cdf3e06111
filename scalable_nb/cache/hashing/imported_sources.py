"""The source of modules that are imported inside functions."""

from __future__ import annotations

import ast
import builtins
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType, ModuleType

from scalable_nb.cache.hashing.code_references import references
from scalable_nb.cache.hashing.source_ast import ParsedFile, is_in_file, parse_file, plain_digest
from scalable_nb.cache.hashing.user_modules import (
    is_library_file,
    is_user_code,
    is_user_module,
)
from scalable_nb.cache.hashing.value_writers import SCALARS, NotEncodableError


def absolute_name(name: str, level: int, package: str | None) -> str:
    """Return the name of a module imported with ``level`` leading dots from within a package."""
    if not level or not package:
        return name
    base = package.rsplit(".", level - 1)[0]
    return f"{base}.{name}" if name else base


def module_sources(name: str) -> tuple[tuple[str, str], ...]:
    """Name and syntax tree of a user's module, of its packages and of all that they import.

    Read from the files, so that it does not matter whether the module was imported already;
    nothing is imported for it. Empty for modules that are not the user's.
    """
    found: dict[str, str] = {}
    waiting = _with_packages([name])
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        file = source_file_of(current)
        if file is None:
            continue
        parsed = parse_file(file)
        found[current] = parsed.dump
        is_package = Path(file).name == "__init__.py"
        waiting.update(_imported(parsed, current if is_package else current.rpartition(".")[0]))
    return tuple(sorted(found.items()))


def is_missing(name: str) -> bool:
    """Return whether there is no module, nor a package above it, of this name now."""
    top = name.partition(".")[0]
    if not top or top in sys.stdlib_module_names or top in sys.modules:
        return False
    try:
        return importlib.util.find_spec(top) is None
    except (ImportError, ValueError):
        return True


def is_as_in_file(module: ModuleType) -> bool:
    """Return whether a loaded module certainly is what its file makes.

    That is so if it contains only functions without defaults whose code is in the file, values
    that are written there as literals, and names that are imported. Of other modules it is not
    known whether something was changed in memory.
    """
    file = source_file_of(module.__name__)
    tree = parse_file(file).tree if file else None
    literals = _literals(tree or ast.Module([], []))
    return tree is not None and all(
        _is_unchanged(name, value, module.__name__, literals)
        for name, value in list(vars(module).items())
        if not (name.startswith("__") and name.endswith("__"))
    )


def _literals(tree: ast.Module) -> dict[str, object]:
    """Return the values that are assigned to names as literals; the last assignment counts."""
    found: dict[str, object] = {}
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name):
                found.pop(target.id, None)
                try:
                    found[target.id] = ast.literal_eval(getattr(node, "value", None) or node)
                except (ValueError, TypeError, SyntaxError):
                    continue
    return found


def _is_unchanged(name: str, value: object, module: str, literals: dict[str, object]) -> bool:
    if isinstance(value, ModuleType):
        return True
    if isinstance(value, FunctionType) and value.__module__ == module:
        has_data = value.__defaults__ or value.__kwdefaults__ or value.__dict__ or value.__closure__
        is_own = value.__qualname__ == name and not has_data and is_in_file(value)
        return is_own and not _reads_outside(value)
    if isinstance(value, FunctionType | type):
        return value.__module__ != module and value.__name__ == name
    if name not in literals:
        return False
    try:
        return plain_digest(literals[name]) == plain_digest(value)
    except NotEncodableError:
        return False


def _reads_outside(function: FunctionType) -> bool:
    """Return whether a function reads a builtin or library module that may have been changed."""
    for name, chains in references(function.__code__).global_names.items():
        value = function.__globals__.get(name)
        if value is None and not hasattr(builtins, name):
            return True
        if value is None and type(getattr(builtins, name)) in SCALARS:
            return True
        if isinstance(value, ModuleType) and not is_user_module(value):
            found = (vars(value).get(chain[0]) if chain else 0 for chain in chains)
            if any(type(each) in SCALARS or _is_of_user(each) for each in found):
                return True
    return False


def _is_of_user(value: object) -> bool:
    return isinstance(value, FunctionType | type) and is_user_code(value)


def environment_names(name: str) -> set[str]:
    """Return texts in a user's module that may name environment variables that it reads."""
    file = source_file_of(name)
    parsed = parse_file(file) if file else None
    if parsed is None or parsed.tree is None:
        return set()
    if "'environ'" not in parsed.dump and "'getenv'" not in parsed.dump:
        return set()
    texts = (each.value for each in ast.walk(parsed.tree) if isinstance(each, ast.Constant))
    return {text for text in texts if isinstance(text, str) and text.isidentifier()}


def module_text(name: str) -> str:
    """Return the text of the file of a user's module."""
    file = source_file_of(name)
    return "".join(parse_file(file).lines) if file else ""


def _imported(parsed: ParsedFile, package: str) -> set[str]:
    """Return all modules that a file may import, and their packages."""
    names: list[str] = []
    for node in ast.walk(parsed.tree or ast.Module([], [])):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute_name(node.module or "", node.level, package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return _with_packages(names)


def _with_packages(names: Iterable[str]) -> set[str]:
    return {
        ".".join(parts[:end])
        for parts in (name.split(".") for name in names)
        for end in range(1, len(parts) + 1)
    }


def source_file_of(name: str) -> str | None:
    """Return the source file of a user's module, None for any other name."""
    parts = name.split(".")
    if parts[0] in sys.stdlib_module_names or not all(parts):
        return None
    try:
        spec = importlib.util.find_spec(parts[0])  # imports nothing if there is no dot
    except (ImportError, ValueError):
        return None
    for number in range(2, len(parts) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        locations = list(spec.submodule_search_locations)
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:number]), locations)
    origin = spec.origin if spec is not None else None
    if origin is None or not origin.endswith(".py") or is_library_file(origin):
        return None
    return origin
