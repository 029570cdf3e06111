"""`cacheable`: keep the results of a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, overload

from scalable_nb.cache.function import CacheableFunction, CacheSpec, CacheWarning, check_declared
from scalable_nb.cache.invisible_inputs import check_allowed
from scalable_nb.cache.store import ResultStore
from scalable_nb.errors import SubmitError, UnknownNameError

__all__ = ["CacheSpec", "CacheWarning", "CacheableFunction", "cacheable"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def cacheable(func: Callable[P, T], /) -> CacheableFunction[P, T]: ...


@overload
def cacheable(
    *,
    return_type: Any = None,
    recompute: bool = False,
    store: str | Path | ResultStore | None = None,
    compress: bool = False,
    version: str | int | None = None,
    ignore: Iterable[str] = (),
    opaque: Iterable[type] = (),
    allow: Iterable[str] = (),
    **arg_types: Any,
) -> Callable[[Callable[P, T]], CacheableFunction[P, T]]: ...


def cacheable(
    func: Callable[..., Any] | None = None,
    /,
    *,
    return_type: Any = None,
    recompute: bool = False,
    store: str | Path | ResultStore | None = None,
    compress: bool = False,
    version: str | int | None = None,
    ignore: Iterable[str] = (),
    opaque: Iterable[type] = (),
    allow: Iterable[str] = (),
    **arg_types: Any,
) -> Any:
    """Keep the results of a function, so that no call is ever computed twice.

    ``@cacheable`` or ``@cacheable(return_type=dict, scenario_id=int)``. A call is the same
    when the function (its source and that of the helpers it calls, comments aside) and the
    arguments (their values and types) are; see `scalable_nb.cache.keys.CallKeys`.

    Parameters
    ----------
    return_type : type, optional
        What the function must return; anything else is a `TypeError` and not stored.
    recompute : bool
        Call although a result is stored, and replace it.
    store : path, optional
        Folder of the results; otherwise ``SCALABLE_CACHE_DIR``, or ``.scalable/cache``.
    compress : bool
        Whether results are compressed: less room, for more time at each hit.
    version : str or int, optional
        Part of every key, in addition to the source: change it when something changed that
        the source does not show.
    ignore : iterable of str
        Parameters that do not count, such as ``verbose``.
    opaque : iterable of type
        Types whose objects hold no data that a result depends on, such as a connection: they
        count as their type. Without, a call that depends on such an object is not cached.
    allow : iterable of str
        Inputs that the key does not contain and that cause no warning: a path as it is passed, a
        parameter, or ``"eval"``, ``"exec"``, ``"globals"``, ``"import_module"``.
    **arg_types : type
        Parameter -> type. An argument of another type is converted where nothing is lost
        (``"7"`` or ``7.0`` to ``int``, a path to `File`), so that both spellings are one
        call, and refused where something would be (``7.5``, ``"seven"``). A parameter with
        the name of an option above cannot be declared.

    Returns
    -------
    CacheableFunction
        To be called as before.

    Raises
    ------
    SubmitError
        When the function cannot be called, gives a generator or coroutine (which cannot be
        stored), or a declared type is none.
    UnknownNameError
        When an option or declared type names a parameter that the function does not have.

    Examples
    --------
    >>> import tempfile
    >>> @cacheable(store=tempfile.mkdtemp(), x=int)
    ... def square(x):
    ...     print("computing")
    ...     return x * x
    >>> square(3), square("3")
    computing
    (9, 9)
    """
    folder = store.folder if isinstance(store, ResultStore) else store
    spec = CacheSpec(
        version=version,
        ignore=frozenset([ignore] if isinstance(ignore, str) else ignore),
        recompute=recompute,
        store=Path(folder).expanduser().absolute() if folder is not None else None,
        compress=compress,
        arg_types=arg_types,
        return_type=return_type,
        opaque=(opaque,) if isinstance(opaque, type) else tuple(opaque),
        allow=frozenset([allow] if isinstance(allow, str) else allow),
    )
    if func is None:
        return functools.partial(_decorate, spec=spec)
    return _decorate(func, spec=spec)


def _decorate(func: Callable[P, T], *, spec: CacheSpec) -> CacheableFunction[P, T]:
    if not callable(func) or isinstance(func, type):
        raise SubmitError(f"@cacheable keeps the results of functions, not of {func!r}")
    name = getattr(func, "__qualname__", repr(func))
    if inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func):
        raise SubmitError(f"@cacheable: {name}() is async; keep the results of what it awaits")
    if inspect.isgeneratorfunction(func):
        raise SubmitError(f"@cacheable: {name}() is a generator; let it return a list")
    parameters = inspect.signature(func).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for option in sorted({*spec.arg_types, *spec.ignore}):
        if option not in parameters and not (takes_any and option in spec.ignore):
            raise UnknownNameError(
                "parameter",
                option,
                parameters,
                f"@cacheable takes parameters of {name}() and its own options return_type, "
                "recompute, store, compress, version, ignore, opaque and allow.",
            )
    check_allowed(spec.allow, parameters, name)
    for kind in spec.opaque:
        if not isinstance(kind, type):
            raise SubmitError(
                f"@cacheable on {name}(): opaque=[{kind!r}] is not a type; expected classes, "
                f"as opaque=[{type(kind).__name__}]"
            )
    check_declared({**spec.arg_types, "return_type": spec.return_type}, name)
    return CacheableFunction(func, spec)
