"""The versions of the user's modules that this worker process imports.

A call that imports modules of the user by name carries the digest of their sources. They are
imported from these sources and not from the files, which may have been edited since. A process
has one version of a module. An imported module is never replaced; the process is.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

from scalable_nb.cache.hashing.user_modules import is_library_file
from scalable_nb.protocol.module_sources import ModuleSource


class Conflict(NamedTuple):
    """Modules that this process has imported, other than in the version of a call.

    ``is_of_calls`` is False if one of them was not imported for another call, but from its file:
    a new process may import it from there, too.
    """

    names: tuple[str, ...]
    is_of_calls: bool


class ModuleFinder(importlib.abc.MetaPathFinder):
    """Imports modules from the sources of the calls that run in this process."""

    def __init__(self) -> None:
        self._modules: dict[str, ModuleSource] = {}
        self._from_files: set[str] = set()
        self._current: set[str] = set()  # digests of sets that agree with `_modules`
        self._known: dict[str, dict[str, ModuleSource]] = {}
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    # --- attempts ----------------------------------------------------------------------

    def begin(self, digest: str) -> bool:
        """Begin an attempt with a set of modules; return False unless the set is current."""
        with self._lock:
            is_current = digest in self._current
            self._running[digest] += is_current
        return is_current

    def end(self, digest: str) -> None:
        """End an attempt that `begin` began."""
        with self._lock:
            self._running[digest] -= 1

    def knows(self, digest: str) -> bool:
        """Return whether the sources of a set have arrived."""
        return digest in self._known

    def add(self, digest: str, modules: dict[str, ModuleSource]) -> None:
        """Add the sources of a set."""
        self._known[digest] = modules

    def adopt(self, digest: str) -> Conflict | None:
        """Begin an attempt with a set that becomes current, unless this process has others."""
        with self._lock:
            modules = self._known[digest]
            promised = set[str]().union(*(self._known[each] for each in +self._running))
            differing = {name for name, each in modules.items() if not self._has(each)}
            bound = {
                name
                for name in differing
                if name in promised or name in self._from_files or _is_imported(name)
            }
            if bound:
                of_calls = self._modules.keys() - self._from_files
                return Conflict(tuple(sorted(bound)), is_of_calls=bound <= of_calls)
            former = {each for each in self._current if differing & self._known[each].keys()}
            self._current -= former
            self._modules.update(modules)
            self._from_files -= differing
            self._current.add(digest)
            self._running[digest] += 1
            return None

    def _has(self, module: ModuleSource) -> bool:
        """Return whether this process imports a module from the same source."""
        own = self._modules.get(module.name)
        return own is not None and own.source == module.source

    # --- imports -----------------------------------------------------------------------

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Return how a module of the user is imported; None for any other."""
        module = self._modules.get(fullname)
        if module is None:
            module = _read_file(fullname, path)
            if module is None:
                return None
            self._from_files.add(fullname)
            self._modules[fullname] = module
        if module.source is None:
            return _namespace_spec(module, path)
        spec = importlib.machinery.ModuleSpec(
            fullname, SourceLoader(module), origin=module.path, is_package=module.is_package
        )
        spec.has_location = True
        if module.is_package:
            spec.submodule_search_locations = [str(Path(module.path).parent)]
        return spec


class SourceLoader(importlib.machinery.SourceFileLoader):
    """Runs a module's source as its file would be run.

    Parameters
    ----------
    module : ModuleSource
    """

    def __init__(self, module: ModuleSource) -> None:
        super().__init__(module.name, module.path)
        self._source = module.source or ""

    def get_source(self, fullname: str) -> str:
        """Return the source, also for tracebacks."""
        return self._source

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source; no compiled file is read or written."""
        # Tracebacks show the lines that ran. Without a time, the entry is not compared to the file.
        lines = self._source.splitlines(keepends=True)
        linecache.cache[self.path] = (len(self._source), None, lines, self.path)
        return self.source_to_code(self._source, self.path)


def _read_file(name: str, path: Sequence[str] | None) -> ModuleSource | None:
    """Return the module of the user that has this name; None for any other."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or is_library_file(_file_of(top)):
        return None
    spec = importlib.machinery.PathFinder.find_spec(name, path)
    origin = spec.origin if spec is not None else None
    if origin is None or not origin.endswith(".py") or is_library_file(origin):
        return None
    try:
        source = importlib.util.decode_source(Path(origin).read_bytes())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None  # the import reports it
    return ModuleSource(name, origin, source, is_package=Path(origin).name == "__init__.py")


def _namespace_spec(
    module: ModuleSource, path: Sequence[str] | None
) -> importlib.machinery.ModuleSpec:
    found = importlib.machinery.PathFinder.find_spec(module.name, path)
    if found is not None:
        return found  # with other parts of the namespace
    spec = importlib.machinery.ModuleSpec(module.name, None, is_package=True)
    spec.submodule_search_locations = [module.path]
    return spec


def _is_imported(name: str) -> bool:
    """Return whether a module with code was imported, not a namespace package."""
    return bool(_file_of(name))


def _file_of(name: str) -> str:
    return getattr(sys.modules.get(name), "__file__", None) or ""


@functools.cache
def own_module_finder() -> ModuleFinder:
    """Return the finder of this process, installed before all others."""
    finder = ModuleFinder()
    sys.meta_path.insert(0, finder)
    return finder
