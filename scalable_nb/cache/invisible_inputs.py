"""Inputs of cached calls that a key cannot contain: found when a call is submitted."""

from __future__ import annotations

import inspect
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final, NamedTuple

from scalable_nb.cache.keys import CallKeys
from scalable_nb.errors import UnknownNameError

#: Functions that reach names which the source does not show.
COMPUTED_NAMES: Final = frozenset({"__import__", "eval", "exec", "globals", "import_module"})

_MAX_PATH_CHARS: Final = 4096
_SILENT: Final = frozenset({bool, int, float, complex, bytes, type(None)})


class InvisibleInput(NamedTuple):
    """Something that a result depends on and its key does not contain.

    Attributes
    ----------
    name : str
        As ``allow=`` lists it.
    message : str
        With the remedies.
    """

    name: str
    message: str


class InvisibleInputs:
    """Finds invisible inputs of one function, each kind once.

    Parameters
    ----------
    keys : CallKeys
        Of the function.
    allow : collection of str
        Names that are known to be harmless.
    """

    def __init__(self, keys: CallKeys, allow: Collection[str] = ()) -> None:
        self._keys = keys
        self._allow = frozenset(allow)
        self._is_found = False

    def of_code(self) -> InvisibleInput | None:
        """Return that the code uses computed names; None if it does not, or if that is allowed."""
        names = sorted(self._keys.computed_names - self._allow)
        if not names:
            return None
        calls = " and ".join(f"{name}()" for name in names)
        return InvisibleInput(
            names[0],
            f"{self._keys.name}() uses {calls}, whose result depends on names that its key cannot "
            "contain: a cached result stays the same when they change. Pass the values as "
            f"arguments, or declare that this is harmless with @cacheable(allow={names!r}).",
        )

    def of_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> InvisibleInput | None:
        """Return the first argument with data elsewhere; None without one, or after the first.

        It makes at most one system call for each argument, and for few of them any.
        """
        if self._is_found:
            return None
        for value in (*args, *kwargs.values()) if kwargs else args:
            kind = type(value)
            if kind in _SILENT or (kind is str and not looks_like_path(value)):
                continue
            found = self._look_at(value, args, kwargs)
            if found is not None:
                self._is_found = True
                return found
        return None

    def _look_at(
        self, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> InvisibleInput | None:
        if isinstance(value, str | PurePath):
            text = str(value)
            if text in self._allow or not _is_file(text):
                return None
            what, remedy = f"the path {text!r}", f"Use File({text!r})"
        else:
            what = _lazy_data(value)
            text, remedy = "", "Pass the files as File(...) and open them inside the function"
            if not what:
                return None
        parameter = self._keys.parameter_of(value, args, kwargs)
        if parameter is None or parameter in self._allow:
            return None
        return InvisibleInput(
            text or parameter,
            f"{self._keys.name}() is called with {what} as {parameter!r}. Its key does not contain "
            "what is in the file, so a cached result stays the same when the file changes. "
            f"{remedy}, or declare that this is harmless with "
            f"@cacheable(allow=[{text or parameter!r}]).",
        )


def check_allowed(allow: Iterable[str], parameters: Iterable[str], function: str) -> None:
    """Refuse names that nothing could have.

    Raises
    ------
    UnknownNameError
        If a name is neither a path nor a parameter of the function nor one of `COMPUTED_NAMES`.
    """
    known = [*parameters, *sorted(COMPUTED_NAMES)]
    for name in allow:
        if name not in known and not looks_like_path(name):
            raise UnknownNameError(
                "input",
                name,
                known,
                f"@cacheable on {function}(): allow= takes parameters, paths of files such as "
                f"'data/table.csv', and {', '.join(sorted(COMPUTED_NAMES))}.",
            )


def looks_like_path(text: str) -> bool:
    """Return whether a text may be the path of a file: it has a slash or a suffix."""
    if not 0 < len(text) <= _MAX_PATH_CHARS or ("/" not in text and "." not in text):
        return False
    return "\n" not in text and "\0" not in text and not text.endswith((".", "/"))


def _is_file(text: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(text).st_mode)  # noqa: PTH116 - a Path costs more
    except (OSError, ValueError):
        return False


def _lazy_data(value: object) -> str:
    """Return what an object is whose data are read later, from files; empty for others."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if inspect.getattr_static(kind, "__dask_graph__", None) is not None:
        return f"a Dask collection ({name})"
    source = getattr(value, "encoding", None) if name.startswith("xarray.") else None
    if isinstance(source, Mapping) and source.get("source"):
        return f"a dataset of the file {str(source['source'])!r} ({name})"
    return ""
