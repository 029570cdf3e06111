"""The user's own modules, which travel by value.

A module next to the notebook does not exist on a worker of another machine, and one that
was edited would be stale on every worker. So functions of such modules are pickled with
their code, as those of the notebook are. The user's modules are those that the key of a
result counts as such: wherever they are on ``sys.path``, outside of Python and of installed
packages. A package that was installed in editable mode is the user's.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import cloudpickle

from scalable_nb.cache.hashing.user_modules import is_user_module

_seen_modules: dict[str, ModuleType] = {}
_user_modules: dict[str, ModuleType] = {}
_compared: set[tuple[CodeType, float]] = set()


class StaleModuleWarning(UserWarning):
    """A module's file was edited after the kernel imported it."""


def pickle_user_modules_by_value() -> list[ModuleType]:
    """Register every imported module of the user to travel by value, and return all of them.

    Cheap when nothing new was imported; called before each pickling of a function.
    """
    # Other threads import meanwhile. A copy is one step; a list of pairs makes objects, on which
    # the collector, and with it another thread, may come in between.
    for name, module in sys.modules.copy().items():
        if _seen_modules.get(name) is not module:
            _seen_modules[name] = module
            if travels_by_value(module):
                cloudpickle.register_pickle_by_value(module)
                _user_modules[name] = module
    return list(_user_modules.values())


def travels_by_value(module: ModuleType) -> bool:
    """Return whether a module is a Python file of the user."""
    name = getattr(module, "__name__", "")
    file = getattr(module, "__file__", None)
    if not file or Path(file).suffix != ".py" or name == "__main__":
        return False
    # Known by another name, it could not be found on a worker either.
    return sys.modules.get(name) is module and is_user_module(module)


def warn_if_stale(function: object) -> None:
    """Warn when the file of a function's module was edited since it was imported.

    Workers get the function that the kernel has; a user who edited the file expects the file's.
    """
    function = inspect.unwrap(function) if callable(function) else function
    module = sys.modules.get(getattr(function, "__module__", ""))
    if not isinstance(function, FunctionType) or module is None or module.__name__ == "__main__":
        return
    file = getattr(module, "__file__", None)
    if not file or not travels_by_value(module):
        return
    path = Path(file)
    try:
        mark = (function.__code__, path.stat().st_mtime)
        if mark in _compared:
            return
        _compared.add(mark)
        code = compile(path.read_bytes(), file, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return  # unreadable or half-edited: the kernel's version is the only one there is
    if function.__code__ not in codes_of(code):
        warnings.warn(
            f"{path.name} was edited after this kernel imported it, and the kernel's version of "
            f"{function.__qualname__!r} is what runs. To use the edited one: "
            f"import importlib; importlib.reload({module.__name__})",
            StaleModuleWarning,
            stacklevel=4,
        )


def codes_of(code: CodeType) -> set[CodeType]:
    """Return all code objects inside a code object."""
    found = set()
    stack = [code]
    while stack:
        for constant in stack.pop().co_consts:
            if isinstance(constant, CodeType):
                found.add(constant)
                stack.append(constant)
    return found
