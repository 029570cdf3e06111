"""The variables of a module in the kernel's memory, to see whether they were changed.

Workers import a module from its source, so a variable that the notebook has set is not theirs.
"""

from __future__ import annotations

import ast
import functools
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, Final

_SCALARS: Final = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS: Final = (list, dict, set, tuple)
_MAX_ITEMS: Final = 1000

#: By name: a text or bytes that equal values share, or the object itself.
State = Mapping[str, Any]


class _Identity:
    """An object that equals only itself; kept alive, so that no other one gets its address."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other._value is self._value

    __hash__ = object.__hash__


def state_of(module: ModuleType) -> State:
    """Return the variables of a module, of its classes and of its functions, as they are now."""
    return dict(_variables(module.__name__, "", vars(module).copy()))


def differs_from_literals(module: ModuleType, source: str) -> bool:
    """Return whether a variable has another value than the literal that its module assigns."""
    variables = vars(module)
    return any(
        name in variables and _frozen(variables[name]) != literal
        for name, literal in _literals(source).items()
    )


@functools.lru_cache(maxsize=500)
def _literals(source: str) -> dict[str, Any]:
    """Return the variables that a source assigns once, to a scalar."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return {}
    assigned = Counter(
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    )
    return {
        target.id: _frozen(node.value.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and assigned[target.id] == 1
    }


def _variables(module: str, prefix: str, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in namespace.items():
        if (name.startswith("__") and name.endswith("__")) or isinstance(value, ModuleType):
            continue
        place = f"{prefix}{name}"
        yield place, _frozen(value)
        is_own = getattr(value, "__module__", None) == module
        if isinstance(value, type) and is_own:
            yield from _variables(module, f"{place}.", dict(vars(value)))
        elif isinstance(value, FunctionType) and is_own:
            parts = (value.__code__, value.__defaults__, value.__kwdefaults__)
            yield f"{place}()", [*map(_Identity, parts)]
            yield from _variables(module, f"{place}.", value.__dict__.copy())


def _frozen(value: Any) -> Any:
    if isinstance(value, _SCALARS):
        return type(value), repr(value)
    if isinstance(value, _CONTAINERS) and len(value) <= _MAX_ITEMS:
        try:
            return type(value), pickle.dumps(value)
        except Exception:  # noqa: BLE001 - pickling runs the user's code, which may raise anything
            return _Identity(value)
    return _Identity(value)
