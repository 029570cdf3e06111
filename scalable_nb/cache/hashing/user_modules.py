"""Which code is the user's, and the source of modules that are imported inside functions."""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from scalable_nb.cache.hashing.source_ast import ParsedFile, parse_file

_INSTALLED_FOLDERS: Final = frozenset({"site-packages", "dist-packages"})
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE


def is_user_code(code: FunctionType | type) -> bool:
    """Whether a function or class is the user's: not of Python, not installed, not ours.

    What was installed in editable mode lies outside of ``site-packages``, so it is the
    user's.
    """
    name: Any = code.__module__
    if not isinstance(code, FunctionType):
        # A class made by `exec` may claim to be a builtin; those are all made in C.
        is_made_in_python = bool(code.__flags__ & _HEAP_TYPE)
        return (name == "builtins" and is_made_in_python) or is_user_module_name(name)
    filename = code.__code__.co_filename
    if not filename.startswith("<"):
        # A notebook cell may have the path of a file that does not exist; it is nobody's.
        return not is_library_file(filename)
    # Made by `exec`, or frozen: of a library only where it lives in the module it names.
    module = sys.modules.get(name) if isinstance(name, str) else None
    is_at_home = module is not None and vars(module) is code.__globals__
    return not is_at_home or is_user_module_name(name)


def is_found_by_name(function: FunctionType) -> bool:
    """Whether a function is what its installed module has under its name.

    Otherwise the name says little: lambdas, functions made by functions, wrappers that took
    the name of what they wrap.
    """
    if is_user_module_name(function.__module__):
        return False
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is function


def is_user_module(module: ModuleType) -> bool:
    """Whether an imported module is the user's."""
    return is_user_module_name(module.__name__)


def is_user_module_name(name: Any) -> bool:
    """Whether the module of this name, imported or not, is the user's."""
    if not isinstance(name, str):  # some C types answer with something else
        return False
    if name == "__main__":
        return True
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file:
        return not is_library_file(file)
    # Built in, frozen, a namespace of other modules, or made by `exec`.
    top = name.partition(".")[0]
    return top not in sys.stdlib_module_names and top not in sys.builtin_module_names


@functools.lru_cache(maxsize=10_000)
def is_library_file(filename: str) -> bool:
    """Whether a file belongs to Python, to an installed package or to this one."""
    path = Path(filename).absolute()
    if _INSTALLED_FOLDERS & set(path.parts):
        return True
    return any(path.is_relative_to(folder) for folder in _library_folders())


@functools.cache
def _library_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {Path(sysconfig.get_path(name)) for name in names}
    folders.add(Path(os.__file__).parent)
    folders.add(Path(__file__).parents[2])  # this package
    return tuple(folders | {folder.resolve() for folder in folders})


def absolute_name(name: str, level: int, package: str | None) -> str:
    """The name of a module imported with ``level`` leading dots from within a package."""
    if not level or not package:
        return name
    base = package.rsplit(".", level - 1)[0]
    return f"{base}.{name}" if name else base


def module_sources(name: str) -> tuple[tuple[str, str], ...]:
    """Name and syntax tree of a user's module and of all the user's modules it imports.

    Read from the files, so that it does not matter whether the module was imported already;
    nothing is imported for it. Empty for modules that are not the user's.
    """
    found: dict[str, str] = {}
    waiting = [name]
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
        waiting.extend(_imported(parsed, current if is_package else current.rpartition(".")[0]))
    return tuple(sorted(found.items()))


def _imported(parsed: ParsedFile, package: str) -> set[str]:
    """All modules that a file may import, and the packages they lie in."""
    names: list[str] = []
    for node in ast.walk(parsed.tree or ast.Module([], [])):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute_name(node.module or "", node.level, package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return {
        ".".join(parts[:end])
        for parts in (name.split(".") for name in names)
        for end in range(1, len(parts) + 1)
    }


def source_file_of(name: str) -> str | None:
    """The source file of a user's module, None for any other name."""
    parts = name.split(".")
    if parts[0] in sys.stdlib_module_names or not all(parts):
        return None
    try:
        spec = importlib.util.find_spec(parts[0])  # imports nothing, where there is no dot
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
