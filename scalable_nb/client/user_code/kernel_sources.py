"""The sources of the user's modules that code imports by name, as the kernel knows them.

Of a module that the kernel has imported, that is the source which it imported; of any other, its
file. They travel with the call, so that no worker imports a file that was edited meanwhile.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import NamedTuple

from scalable_nb.cache.hashing.code_references import references
from scalable_nb.cache.hashing.imported_sources import absolute_name, source_file_of
from scalable_nb.cache.hashing.user_modules import is_user_module
from scalable_nb.client.user_code.module_state import State, differs_from_literals, state_of
from scalable_nb.client.user_code.project_modules import (
    StaleModuleWarning,
    codes_of,
    travels_by_value,
)
from scalable_nb.protocol.module_sources import ModuleSource, pack_sources


class PackedModules(NamedTuple):
    """The modules that a call imports by name.

    Attributes
    ----------
    digest : str
        Empty for no modules.
    stale : tuple of str
        Those that the kernel imported before their files were edited, or that were changed in its
        memory since: their results are not those of the sources.
    """

    digest: str = ""
    stale: tuple[str, ...] = ()


class _Imported(NamedTuple):
    """A module as the kernel imported it; another spec means that it was reloaded."""

    spec: object
    source: str
    is_stale: bool
    state: State


_imported: dict[str, _Imported] = {}
_reported: set[tuple[str, str]] = set()
_packed: dict[str, bytes] = {}


# --- sets of modules ---------------------------------------------------------------------


def packed_sources(digest: str) -> bytes:
    """Return a set of sources that was packed, or remembered, in this process."""
    return _packed[digest]


def remember_sources(digest: str, packed: bytes) -> None:
    """Remember a set of sources that another kernel had packed."""
    if digest:
        _packed.setdefault(digest, packed)


def pack_modules(names: Iterable[str]) -> PackedModules:
    """Pack the sources of modules and of all the user's modules that they import."""
    looked_up: dict[str, ModuleSource | None] = {}
    stale = []
    waiting = [*names]
    while waiting:
        name = waiting.pop()
        if name in looked_up:
            continue
        parent = _parent(name)
        if parent and parent not in looked_up:
            waiting += [name, parent]
            continue
        module = looked_up[name] = _look_up(name, looked_up.get(parent))
        if module is not None:
            waiting += imports_of(str(module.source), name if module.is_package else parent)
            if is_stale(name) or is_changed(name):
                stale.append(name)
    found = {name: module for name, module in looked_up.items() if module is not None}
    namespaces = {module.name: module for module in _namespaces(found.values())}
    digest, packed = pack_sources({**namespaces, **found}.values())
    remember_sources(digest, packed)
    return PackedModules(digest, tuple(sorted(stale)))


def imported_by(functions: Iterable[FunctionType]) -> set[str]:
    """Return the names of all modules that functions may import when they are called."""
    return {
        absolute_name(name, level, function.__globals__.get("__package__"))
        for function in functions
        for name, level in references(function.__code__).imports
    }


def _look_up(name: str, parent: ModuleSource | None) -> ModuleSource | None:
    is_attribute = parent is not None and not parent.is_package
    return _source_of(name) if not is_attribute and _may_be_of_user(name) else None


@functools.lru_cache(maxsize=500)
def imports_of(source: str, package: str) -> frozenset[str]:
    """Return the names of all modules that a source may import."""
    names: set[str] = set()
    for node in ast.walk(_parse(source) or ast.Module([], [])):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute_name(node.module or "", node.level, package)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return frozenset(names)


def _parents(name: str) -> Iterator[str]:
    while name := _parent(name):
        yield name


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


# --- one module --------------------------------------------------------------------------


def note_imported(modules: Iterable[ModuleType]) -> None:
    """Read the sources of modules that were imported, or reloaded, since the last time."""
    for module in modules:
        spec = getattr(module, "__spec__", None)
        known = _imported.get(module.__name__)
        if known is None or known.spec is not spec:
            source = _read(module.__file__ or "")
            if source is not None:
                is_stale = not _is_compiled_from(module, source)
                _imported[module.__name__] = _Imported(spec, source, is_stale, state_of(module))


def is_stale(name: str) -> bool:
    """Return whether the file of an imported module was edited since."""
    module, known = sys.modules.get(name), _imported.get(name)
    if module is None or known is None:
        return False
    now = _read(module.__file__ or "")
    if now is None or now == known.source:
        return known.is_stale and now is not None
    return _tree(now) != _tree(known.source)


def is_changed(name: str) -> bool:
    """Return whether variables of an imported module were set, or functions replaced, since."""
    module, known = sys.modules.get(name), _imported.get(name)
    if module is None or known is None or known.is_stale:
        return False
    return state_of(module) != known.state or differs_from_literals(module, known.source)


def warn_of_stale(names: Iterable[str]) -> None:
    """Warn of modules whose sources are not what the kernel has, once for each edit."""
    for name in names:
        mark = (name, _read(sys.modules[name].__file__ or "") or "")
        if mark in _reported:
            continue
        _reported.add(mark)
        if is_stale(name):
            text = (
                f"the file of module {name!r} was edited after this kernel imported it. Workers "
                "run the kernel's version, and its results are not cached. To use the edited one: "
                f"import importlib; importlib.reload({name})"
            )
        else:
            text = (
                f"module {name!r} was changed in the kernel's memory. Workers import its source, "
                "without these changes, and results are not cached. Pass such values as arguments"
            )
        warnings.warn(text, StaleModuleWarning, stacklevel=5)


def _source_of(name: str) -> ModuleSource | None:
    """Return the source of a module of the user; None for any other name."""
    module = sys.modules.get(name)
    if module is not None and travels_by_value(module):
        note_imported([module])
        known = _imported.get(name)
        path, source = str(module.__file__), known and known.source
    else:
        path = source_file_of(name) or ""
        source = _read(path) if path else None
    if source is None:
        return None
    return ModuleSource(name, path, source, is_package=Path(path).name == "__init__.py")


def _namespaces(found: Iterable[ModuleSource]) -> Iterator[ModuleSource]:
    """Yield the packages above modules; those with a source of their own are found before."""
    for module in found:
        folder = Path(module.path).parent
        if module.is_package:
            folder = folder.parent
        for name in _parents(module.name):
            yield ModuleSource(name, str(folder), None, is_package=True)
            folder = folder.parent


def _may_be_of_user(name: str) -> bool:
    """Return whether a module may be the user's, without looking for its file."""
    top = name.partition(".")[0]
    if not top or top in sys.stdlib_module_names:
        return False
    module = sys.modules.get(top)
    is_file = getattr(module, "__file__", None) is not None
    return module is None or not is_file or is_user_module(module)


def _read(path: str) -> str | None:
    """Return the text of a Python file, or None if it cannot be read."""
    try:
        stat = Path(path).stat()
        return _decode(path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


@functools.lru_cache(maxsize=1000)
def _decode(path: str, *mark: int) -> str:
    return importlib.util.decode_source(Path(path).read_bytes())


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None  # half-edited


@functools.lru_cache(maxsize=500)
def _tree(source: str) -> str:
    """Return what comments and layout do not change."""
    tree = _parse(source)
    return source if tree is None else ast.dump(tree)


def _is_compiled_from(module: ModuleType, source: str) -> bool:
    """Return whether the functions of a module are those of a source."""
    try:
        codes = codes_of(compile(source, str(module.__file__), "exec", dont_inherit=True))
    except (SyntaxError, ValueError, RecursionError):
        return False
    return all(function.__code__ in codes for function in _functions_of(module))


def _functions_of(module: ModuleType) -> Iterator[FunctionType]:
    """Yield the functions and methods that a module defines."""
    scopes = [vars(module).copy()]
    while scopes:
        for value in scopes.pop().values():
            if isinstance(value, type) and value.__module__ == module.__name__:
                scopes.append(dict(vars(value)))
            elif isinstance(value, FunctionType) and value.__code__.co_filename == module.__file__:
                yield value
