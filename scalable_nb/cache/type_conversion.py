"""Declared types of arguments and results: checked, and converted where nothing is lost."""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

from scalable_nb.cache.content import Directory, File
from scalable_nb.errors import SubmitError

# Converting to one of these and back shows whether anything was lost.
_CONVERTIBLE: Final = (bool, int, float, complex, str, list, tuple)
_PATHS: Final = (File, Directory, PurePath)


def check_declared(declared: Mapping[str, Any], function: str) -> None:
    """Refuse declarations that are no types.

    Raises
    ------
    SubmitError
        Names the declaration, what it is and what was expected.
    """
    for name, kind in declared.items():
        if kind is None:
            continue
        try:
            isinstance(None, _plain(kind))
        except TypeError:
            raise SubmitError(
                f"@cacheable on {function}(): {name}={kind!r} is no type; expected a class, "
                f"a tuple of classes or a union such as int | None, e.g. {name}=int"
            ) from None


def check_type(value: object, declared: Any, what: str) -> None:
    """Refuse a value that is not of a type.

    Raises
    ------
    TypeError
        Begins with ``what``.
    """
    if not isinstance(value, _plain(declared)):
        raise TypeError(f"{what} is {_shown(value)}; expected {_name(declared)}")


def convert(value: Any, declared: Any, what: str) -> Any:
    """A value of the declared type.

    Numpy's numbers become Python's. What is not of the type is converted where converting
    back gives the same value again.

    Raises
    ------
    SubmitError
        Begins with ``what``.
    """
    kinds = _plain(declared)
    is_number = type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0
    if is_number and any(kind in _CONVERTIBLE for kind in kinds):
        value = value.item()
    if isinstance(value, kinds):
        return value
    for kind in kinds:
        if kind in _CONVERTIBLE:
            try:
                converted = kind(value)
                if type(value)(converted) == value:
                    return converted
            except (TypeError, ValueError, OverflowError):
                continue  # the message below says it better
        elif issubclass(kind, _PATHS) and isinstance(value, str | os.PathLike):
            return kind(value)
    raise SubmitError(
        f"{what} is {_shown(value)}; expected {_name(declared)}, "
        "or what converts to it without loss"
    )


def _plain(declared: Any) -> tuple[Any, ...]:
    """What `isinstance` takes: of ``list[int]`` only ``list`` can be checked."""
    if isinstance(declared, tuple):
        return tuple(kind for each in declared for kind in _plain(each))
    origin = typing.get_origin(declared)
    if origin is types.UnionType or origin is typing.Union:
        return _plain(typing.get_args(declared))
    return (declared if origin is None else origin,)


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def _name(declared: Any) -> str:
    if isinstance(declared, tuple):
        return " or ".join(_name(each) for each in declared)
    return declared.__name__ if isinstance(declared, type) else str(declared)
