"""Pickles the user's code by value, except objects that only their module can make."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Mapping
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, NamedTuple

import cloudpickle
from distributed import Future

from scalable_nb.cache.hashing.dataless import is_dataless
from scalable_nb.cache.hashing.user_modules import is_user_code
from scalable_nb.client.user_code.kernel_sources import imported_by, note_imported
from scalable_nb.client.user_code.project_modules import (
    pickle_user_modules_by_value,
    travels_by_value,
)
from scalable_nb.errors import SubmitError
from scalable_nb.protocol.call import module_attribute
from scalable_nb.telemetry.rows import key_text


class PickledCode(NamedTuple):
    """A pickle, and what workers import for it.

    Attributes
    ----------
    pickled : bytes
    imports : frozenset of str
        Names of the modules that the code may import.
    imported_data : mapping of str to type
        Variables with data that the worker's import of their module makes, as
        ``module.variable``, and their types.
    """

    pickled: bytes
    imports: frozenset[str]
    imported_data: Mapping[str, type] = MappingProxyType({})


def pickle_code(value: object) -> PickledCode:
    """Pickle a function, or another value that contains code of the user.

    A module's lock, open file or connection has no value that could travel. The worker's import of
    the module makes it, so it travels as the name of the module's variable.

    Raises
    ------
    SubmitError
        If the code refers to a future.
    """
    note_user_modules()
    try:
        return _pickle(value, {})
    except SubmitError:
        raise
    except Exception:
        named = _unpicklable_variables()
        if not named:
            raise
        return _pickle(value, named)


def note_user_modules() -> None:
    """Let the user's modules travel by value, and remember the sources that were imported."""
    note_imported(pickle_user_modules_by_value())


def _pickle(value: object, named: Mapping[int, tuple[str, str]]) -> PickledCode:
    file = io.BytesIO()
    pickler = _FunctionPickler(file, named=named)
    pickler.dump(value)
    return PickledCode(file.getvalue(), pickler.imports(), pickler.imported_data)


class CodePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles as cloudpickle does, and notes which modules the code imports.

    Parameters
    ----------
    file : BytesIO
    buffer_callback : callable, optional
        As in `pickle.Pickler`.
    named : mapping of int to (str, str)
        Id of an object that travels as the name of a variable -> module and variable.

    Attributes
    ----------
    imported_data : dict
        As in `PickledCode`.
    """

    def __init__(
        self,
        file: io.BytesIO,
        buffer_callback: Callable[[pickle.PickleBuffer], bool] | None = None,
        named: Mapping[int, tuple[str, str]] = MappingProxyType({}),
    ) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=buffer_callback)
        self._named = named
        self._functions: list[FunctionType] = []
        self._by_name: set[str] = set()
        self.imported_data: dict[str, type] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Called by `pickle` for each object that is not built in."""
        if type(obj) is FunctionType and is_user_code(obj):
            self._functions.append(obj)
        variable = self._named.get(id(obj))
        if variable is None:
            return super().reducer_override(obj)
        self._by_name.add(variable[0])
        if not is_dataless(obj):
            self.imported_data[".".join(variable)] = type(obj)
        return module_attribute, variable

    def imports(self) -> frozenset[str]:
        """Return the names of the modules that are imported with, or by, what was pickled."""
        return frozenset(imported_by(self._functions) | self._by_name)


class _FunctionPickler(CodePickler):
    """Pickles functions, whose futures cannot be found and replaced as those of arguments."""

    def reducer_override(self, obj: Any) -> Any:
        """Called by `pickle` for each object that is not built in."""
        if isinstance(obj, Future):
            raise SubmitError(
                f"the function refers to a future ({key_text(obj.key)}) in its closure, its "
                "defaults or a global variable. Pass the future as an argument, as in "
                "`client.submit(function, future)`: the function gets its result."
            )
        return super().reducer_override(obj)


def _unpicklable_variables() -> dict[int, tuple[str, str]]:
    """Return the variables of the user's modules whose values cannot be pickled, by their ids."""
    return {
        id(value): (module.__name__, name)
        for module in sys.modules.copy().values()
        if isinstance(module, ModuleType) and travels_by_value(module)
        for name, value in vars(module).copy().items()
        if not isinstance(value, FunctionType | ModuleType | type) and not is_picklable(value)
    }


def is_picklable(value: Any) -> bool:
    """Return whether a value can be sent to another process."""
    try:
        cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001 - pickling runs the user's code, which may raise anything
        return False
    return True
