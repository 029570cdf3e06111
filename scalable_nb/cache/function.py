"""A function whose results are stored: the return value of `cacheable`."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import time
import types
import typing
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import MethodType
from typing import Any, Final, Generic, ParamSpec, TypeVar

import cloudpickle

from scalable_nb.cache.content import Directory, File
from scalable_nb.cache.hashing.value_writers import TransparentWrapper
from scalable_nb.cache.invisible_inputs import InvisibleInput, InvisibleInputs
from scalable_nb.cache.keys import KEY_FORMAT, CallKeys
from scalable_nb.cache.lookup import cached_call
from scalable_nb.cache.output_files import find_written_path, written_path_message
from scalable_nb.cache.store import ResultStore
from scalable_nb.errors import NotCacheableError, SubmitError
from scalable_nb.settings import load_settings

# Converting to one of these and back shows whether anything was lost.
_CONVERTIBLE: Final = (bool, int, float, complex, str, list, tuple)
_PATHS: Final = (File, Directory, PurePath)
_REMEMBERED_CALLS: Final = 1000
_FORMAT: Final = "key_format"  # in the state of a pickled function


P = ParamSpec("P")
T = TypeVar("T")


class CacheWarning(UserWarning):
    """A result could not be looked up or stored; the call itself is unaffected."""


@dataclass(frozen=True)
class CacheSpec:
    """How the results of a function are stored.

    Attributes
    ----------
    version : str, int or None
        Goes into every key.
    ignore : frozenset of str
        Parameters that do not count.
    recompute : bool
        Whether the function is called although a result is stored; the new one replaces it.
    store : Path or None
        Folder of the results; None: the one of the settings.
    arg_types : mapping
        Parameter -> type its argument must have, or be convertible to without loss.
    return_type : type or None
        What the function must return.
    compress : bool
        Whether results are compressed.
    opaque : tuple of type
        Objects of these types count as their type.
    allow : frozenset of str
        Inputs that the key does not contain and that cause no warning.
    """

    version: str | int | None = None
    ignore: frozenset[str] = frozenset()
    recompute: bool = False
    store: Path | None = None
    arg_types: Mapping[str, Any] = field(default_factory=dict)
    return_type: Any = None
    compress: bool = False
    opaque: tuple[type, ...] = ()
    allow: frozenset[str] = frozenset()


_warned: Final[weakref.WeakKeyDictionary[Any, set[str]]] = weakref.WeakKeyDictionary()


def warn_once(function: Any, subject: str, message: str, *, stacklevel: int = 2) -> None:
    """Issue a `CacheWarning`, once for each function and subject."""
    try:
        subjects = _warned.setdefault(function, set())
    except TypeError:  # an object that has no hash, or no weak references
        subjects = _warned.setdefault(type(function), set())
    if subject not in subjects:
        subjects.add(subject)
        warnings.warn(message, CacheWarning, stacklevel=stacklevel + 1)


def warn_not_cached(function: Any, error: NotCacheableError, *, stacklevel: int = 2) -> None:
    """Issue a `CacheWarning`, once for each function, that calls of it are not cached."""
    warn_once(function, "not cached", str(error), stacklevel=stacklevel + 1)


def warn_of_input(
    function: Any, kind: str, found: InvisibleInput | None, *, stacklevel: int = 2
) -> None:
    """Issue a `CacheWarning`, once for each function and kind, of an input that no key contains."""
    if found is not None:
        warn_once(function, kind, found.message, stacklevel=stacklevel + 1)


class CacheableFunction(TransparentWrapper, Generic[P, T]):
    """A function whose results are stored; made by `cacheable`.

    Called directly it looks in the folder of stored results, and calls the function only
    if there is none. Submitted to a session, the same results are used.

    Attributes
    ----------
    cache_spec : CacheSpec
        The options.
    __wrapped__ : callable
        The plain function.
    """

    # Not in the attributes, which `functools.wraps` copies to functions that are not cacheable.
    __slots__ = ("__dict__", "__weakref__", "_changes", "_identity", "_keys", "cache_spec")

    cache_spec: CacheSpec
    __wrapped__: Callable[P, T]
    __name__: str
    __qualname__: str

    def __init__(self, func: Callable[P, T], spec: CacheSpec) -> None:
        functools.update_wrapper(self, func)
        self.cache_spec = spec
        self._keys: CallKeys | None = None
        self._identity: bytes | None = None  # taken where it was pickled
        self._changes = ChangedVariables()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the stored result of this call, or call the function and store its result.

        A call that depends on something without a value to key on is not cached, with one
        `CacheWarning` for each function.

        Raises
        ------
        SubmitError
            When the arguments do not fit the function, or a `File` cannot be read.
        TypeError
            When an argument or the result is not of the declared type.
        """
        bound_args, bound_kwargs = self.convert(args, kwargs)
        try:
            keys = self._current_keys()
            key = keys.key(bound_args, bound_kwargs)
        except NotCacheableError as error:
            warn_not_cached(self, error)
            return self.compute(*bound_args, **bound_kwargs)
        inputs = InvisibleInputs(keys, self.cache_spec.allow)
        warn_of_input(self, "code", inputs.of_code())
        warn_of_input(self, "argument", inputs.of_call(bound_args, bound_kwargs))
        meta: dict[str, Any] = {}

        def call() -> T:
            meta.update(keys.describe(bound_args, bound_kwargs))  # the call may change them
            return self.compute(*bound_args, **bound_kwargs)

        recompute, started_at = self.cache_spec.recompute, time.time()
        outcome = cached_call(self.store(), key, call, recompute=recompute, meta=lambda: meta)
        if outcome.problem is not None:
            warnings.warn(f"{self.__name__}(): {outcome.problem}", CacheWarning, stacklevel=2)
        if outcome.was_hit:
            return self.check_result(outcome.value)
        path = find_written_path(outcome.value, started_at, self.cache_spec.allow)
        if path:
            warn_once(self, "path", f"{self.__name__}(): {written_path_message(path)}")
        self._note_changes(meta)
        return outcome.value

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<cacheable {self.__module__}.{self.__qualname__}>"

    def compute(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function without looking up a stored result.

        Raises
        ------
        TypeError
            When the result is not of the declared type.
        """
        return self.check_result(self.__wrapped__(*args, **kwargs))

    def key_parts(self) -> tuple[Any, ...]:
        """Return the function, and those options that decide about a result."""
        spec = self.cache_spec
        declared = {name: each for name, each in spec.arg_types.items() if each is not None}
        return (self.__wrapped__, spec.version, declared)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key under which the result of this call is stored (64 hex digits).

        Raises
        ------
        NotCacheableError
            When something that the call depends on has no value to key on.
        """
        return self._current_keys().key(*self.convert(args, kwargs))

    def call_keys(self) -> CallKeys:
        """Makes keys for many calls; the function is looked at once, now."""
        spec = self.cache_spec
        return CallKeys(
            self.__wrapped__,
            version=spec.version,
            ignore=spec.ignore,
            opaque=spec.opaque,
            identity=self._identity,
        )

    def store(self) -> ResultStore:
        """The folder of results that a direct call uses."""
        spec, variable = self.cache_spec, os.environ.get("SCALABLE_CACHE_DIR")
        return _store_at(spec.store, spec.compress, variable, os.getcwd())  # noqa: PTH109

    def convert(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The arguments of a call with their declared types.

        Raises
        ------
        SubmitError
            When one is not of its type, nor convertible without loss; names it.
        """
        arg_types = self.cache_spec.arg_types
        if not arg_types:
            return args, kwargs
        signature = inspect.signature(self.__wrapped__)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise SubmitError(
                f"{self.__qualname__}() cannot be called like this: {error}"
            ) from None
        for name, declared in arg_types.items():
            if name in bound.arguments:
                bound.arguments[name] = convert(
                    bound.arguments[name], declared, f"{self.__qualname__}(): argument {name!r}"
                )
        return bound.args, bound.kwargs

    def check_result(self, result: T) -> T:
        """The result, where it is of the declared type.

        Raises
        ------
        TypeError
            When it is not.
        """
        if self.cache_spec.return_type is not None:
            what = f"the result of {self.__qualname__}(), declared with return_type=,"
            check_type(result, self.cache_spec.return_type, what)
        return result

    def _current_keys(self) -> CallKeys:
        if self._keys is None:
            self._keys = self.call_keys()
        else:
            self._keys.refresh()
        return self._keys

    def _note_changes(self, meta: Mapping[str, Any]) -> None:
        """Warn of a miss that has no other cause than variables that the function changes."""
        if self._keys is None or self._identity is not None:
            return
        causes = self._changes.causes_of(meta)
        if causes:
            warn_once(
                self,
                "changes",
                f"{self.__name__}() was called again because it changes {' and '.join(causes)}, "
                "which it also reads: each call is another one. Pass what it reads as an "
                "argument, and let it return what it changes.",
                stacklevel=3,
            )
        try:
            self._keys.refresh()
        except NotCacheableError:
            return  # the next call warns
        self._changes.note_call(meta, self._keys.parts)

    # --- travelling --------------------------------------------------------------------

    def __reduce__(self) -> Any:
        if _is_importable(self):
            return self.__qualname__
        # Empty at first, since the function may refer to this object.
        return _empty, (), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        # Where it arrives there is no source: its keys shall be those of here.
        try:
            identity = self._current_keys().identity
        except NotCacheableError:
            identity = None  # nor has it keys there
        return {
            **self.__dict__,
            "cache_spec": self.cache_spec,
            "_identity": identity,
            _FORMAT: KEY_FORMAT,
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._keys = None
        self._changes = ChangedVariables()
        for name, value in state.items():
            if name != _FORMAT:
                setattr(self, name, value)
        if state.get(_FORMAT) != KEY_FORMAT:
            self._identity = None  # of a version whose digests left things out


class ChangedVariables:
    """The variables that the calls of one function changed, in this process."""

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._parts: dict[str, Mapping[str, str]] = {}  # by the arguments of a call

    def causes_of(self, meta: Mapping[str, Any]) -> list[str]:
        """Return the variables that made another call of one with the same arguments.

        Empty if something else differs, too.
        """
        before, now = self._parts.get(repr(meta["arguments"])), meta["parts"]
        differing = set() if before is None else _differing(before, now)
        return sorted(differing) if differing and differing <= self._changed else []

    def note_call(self, meta: Mapping[str, Any], after: Mapping[str, str]) -> None:
        """Note what a call began with, and what it left."""
        if len(self._parts) >= _REMEMBERED_CALLS:
            self._parts.clear()
        self._parts[repr(meta["arguments"])] = meta["parts"]
        self._changed |= _differing(meta["parts"], after)


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


@functools.lru_cache(maxsize=64)
def _store_at(
    cache_dir: Path | None, compress: bool, variable: str | None, working_directory: str
) -> ResultStore:
    """The store of a direct call; what decides it is in the arguments, so it may be remembered."""
    return ResultStore(cache_dir or load_settings().cache_dir, compress=compress)


def _empty() -> CacheableFunction[Any, Any]:
    return CacheableFunction.__new__(CacheableFunction)


def _is_importable(function: CacheableFunction[Any, Any]) -> bool:
    """Whether another process finds the function in its module."""
    name = function.__module__
    module = sys.modules.get(name)
    if name == "__main__" or module is None:
        return False
    parents = {name.rsplit(".", count)[0] for count in range(name.count(".") + 1)}
    if parents & cloudpickle.list_registry_pickle_by_value():
        return False
    found: Any = module
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is function


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
