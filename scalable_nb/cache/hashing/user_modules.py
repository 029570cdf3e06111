"""Tell the user's code from the standard library and installed distributions."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

_INSTALLED_FOLDERS: Final = frozenset({"site-packages", "dist-packages"})
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE


def is_user_code(code: FunctionType | type) -> bool:
    """Whether a function or class is the user's: not of Python, not installed, not ours.

    What was installed in editable mode lies outside of ``site-packages``, so it is the
    user's.
    """
    name: Any = code.__module__
    if not isinstance(code, FunctionType):
        # A class made at runtime may claim any module; those of libraries are found there.
        if not code.__flags__ & _HEAP_TYPE:
            return False
        return is_user_module_name(name) or not is_found_by_name(code)
    filename = code.__code__.co_filename
    if not filename.startswith("<"):
        # A notebook cell may have the path of a file that does not exist; it is nobody's.
        return not is_library_file(filename)
    # Made by `exec`, or frozen: of a library only where it lives in the module it names.
    module = sys.modules.get(name) if isinstance(name, str) else None
    is_at_home = module is not None and vars(module) is code.__globals__
    return not is_at_home or is_user_module_name(name)


def is_found_by_name(code: Any) -> bool:
    """Return whether a function, class or object is in its installed module under its name.

    Otherwise the name says little: lambdas, functions made by functions, wrappers that took
    the name of what they wrap.
    """
    return is_at(code, getattr(code, "__module__", None), code.__qualname__)


def is_at(value: object, module_name: Any, qualname: str) -> bool:
    """Return whether an installed module has an object under a name."""
    if not isinstance(module_name, str) or is_user_module_name(module_name):
        return False
    found: Any = sys.modules.get(module_name)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found is value


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
    """Return whether a file belongs to the standard library or an installed distribution."""
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
