"""Pickles the user's code by value, except objects that only their module can make."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle

from scalable_nb.client.project_modules import pickle_user_modules_by_value, travels_by_value
from scalable_nb.protocol.call import module_attribute


def pickle_code(value: object) -> bytes:
    """Pickle a function, or another value that contains code of the user.

    A module's lock, open file or connection has no value that could travel. The worker's import of
    the module makes it, so it travels as the name of the module's variable.
    """
    pickle_user_modules_by_value()
    try:
        return _pickle(value, {})
    except Exception:
        named = _unpicklable_variables()
        if not named:
            raise
        return _pickle(value, named)


def _pickle(value: object, named: Mapping[int, tuple[str, str]]) -> bytes:
    file = io.BytesIO()
    _CodePickler(file, named).dump(value)
    return file.getvalue()


class _CodePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles as cloudpickle does, and some objects as variables of their module.

    Parameters
    ----------
    file : BytesIO
    named : mapping of int to (str, str)
        Id of an object -> module and variable.
    """

    def __init__(self, file: io.BytesIO, named: Mapping[int, tuple[str, str]]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._named = named

    def reducer_override(self, obj: Any) -> Any:
        variable = self._named.get(id(obj))
        return super().reducer_override(obj) if variable is None else (module_attribute, variable)


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
