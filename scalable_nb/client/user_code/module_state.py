"""The variables of a module in the kernel's memory, to see whether they were changed.

Workers import a module from its source, so a variable that the notebook has set is not theirs.
"""

from __future__ import annotations

import ast
import functools
import io
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, Final

from scalable_nb.cache.hashing.dataless import is_dataless
from scalable_nb.cache.hashing.user_modules import is_user_code

_SCALARS: Final = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS: Final = (dict, list, tuple)
#: Larger values are compared by identity, and so are those that are nested deeper.
_MAX_BYTES: Final = 1_000_000
_MAX_ITEMS: Final = 1000
_MAX_DEPTH: Final = 4

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


def _frozen(value: Any, depth: int = 0) -> Any:
    """Return what equal values share, and values that were changed in place do not."""
    if isinstance(value, _SCALARS):
        return type(value), repr(value)
    if isinstance(value, FunctionType | type) or is_dataless(value):
        return _Identity(value)
    try:
        return type(value), _pickled(value)
    except Exception:  # noqa: BLE001 - pickling runs the user's code, which may raise anything
        return _parts(value, depth + 1) if _is_walked(value, depth) else _Identity(value)


def _is_walked(value: Any, depth: int) -> bool:
    """Return whether the parts of an object without a small pickle are compared."""
    if isinstance(value, _CONTAINERS) and len(value) > _MAX_ITEMS:
        return False
    return depth < _MAX_DEPTH and (is_user_code(type(value)) or isinstance(value, _CONTAINERS))


def _pickled(value: Any) -> bytes:
    """Return a pickle; raise `ValueError` as soon as it becomes too large."""
    file = _LimitedFile()
    pickle.Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


class _LimitedFile(io.BytesIO):
    def write(self, data: Any, /) -> int:
        if self.tell() + memoryview(data).nbytes > _MAX_BYTES:
            raise ValueError("the pickle is too large to be compared")
        return super().write(data)


def _parts(value: Any, depth: int) -> list[Any]:
    """Return the items and attributes of an object without a small pickle."""
    parts: list[Any] = [_Identity(value)]
    if isinstance(value, dict):
        parts += [(_frozen(key, depth), _frozen(item, depth)) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        parts += [_frozen(item, depth) for item in value]
    attributes = getattr(value, "__dict__", {})
    parts += [(name, _frozen(item, depth)) for name, item in list(attributes.items())]
    return parts
