"""The key of a call: which function, with which arguments."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from scalable_nb.cache.content import Directory, File
from scalable_nb.cache.hashing.encoder import Encoder
from scalable_nb.cache.hashing.function_identity import Identity, find_identity
from scalable_nb.cache.hashing.value_writers import SCALARS, NotEncodableError, TransparentWrapper
from scalable_nb.errors import NotCacheableError, SubmitError, UnknownNameError

__all__ = ["CallKeys", "Directory", "File", "call_key", "own_result_key"]

#: Part of every key and of what is stored next to a result: another number where the meaning
#: of a key's bytes changes. Results under keys of another format are stale.
KEY_FORMAT: Final = 2
_FORMAT: Final = b"scalable_nb key %d\n" % KEY_FORMAT
_NOTHING: Final[Mapping[str, Any]] = {}
_PLAIN: Final = frozenset(SCALARS)
_BY_POSITION: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def call_key(
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    version: str | int | None = None,
    ignore: Iterable[str] = (),
    opaque: Iterable[type] = (),
) -> str:
    """The key of one call; see `CallKeys`, which is faster for many calls of one function.

    Returns
    -------
    str
        64 hex digits.

    Raises
    ------
    NotCacheableError
        When something that the call depends on has no value to key on.
    SubmitError
        When the arguments do not fit the function.
    UnknownNameError
        When ``ignore`` names a parameter that the function does not have.

    Examples
    --------
    >>> def area(width, height=1): return width * height
    >>> call_key(area, (2,), {}) == call_key(area, (), {"height": 1, "width": 2})
    True
    >>> call_key(area, (1, 2), {}) == call_key(area, (2, 1), {})
    False
    """
    return CallKeys(func, version=version, ignore=ignore, opaque=opaque).key(args, kwargs)


def own_result_key(key: object, batch_id: str = "") -> str:
    """Return the key of a result that belongs to one task of one run, whatever it calls.

    Parameters
    ----------
    key : object
        The task's key.
    batch_id : str
        Where the task may be submitted again as another one: of which submission.

    Returns
    -------
    str
        64 hex digits.
    """
    text = f"{batch_id} {key!r}" if batch_id else repr(key)
    return hashlib.sha256(text.encode()).hexdigest()


class CallKeys:
    """Makes the keys of calls of one function.

    A key is a SHA-256 over the function (see `cache.hashing.function_identity`), ``version`` and
    the bound arguments with their names, types and values (see `cache.hashing.encoder`),
    defaults filled in: how a call is spelled does not matter, neither does the order of
    keywords. The function is looked at once, when this is made; `refresh` looks again.

    Parameters
    ----------
    func : callable
        The function. Of a `cacheable` one, the plain function inside it is taken.
    version : str or int, optional
        Goes into every key. To be changed for what the source does not show: a new release
        of a library, other data on a server.
    ignore : iterable of str
        Parameters that do not count, such as ``verbose`` or ``n_jobs``.
    opaque : iterable of type
        Types whose objects hold no data that a result depends on.
    identity : bytes, optional
        The function's digest where it was taken before (by `identity`), in another process.

    Raises
    ------
    NotCacheableError
        When the function reaches something without a value to key on.
    SubmitError
        When ``func`` cannot be called.
    UnknownNameError
        When ``ignore`` names a parameter that the function does not have.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        *,
        version: str | int | None = None,
        ignore: Iterable[str] = (),
        opaque: Iterable[type] = (),
        identity: bytes | None = None,
    ) -> None:
        if not callable(func):
            raise SubmitError(f"{func!r} is no function: a {type(func).__name__} cannot be called")
        # A function that only copies the attributes of a cacheable one is not cacheable.
        plain: Any = func.key_parts()[0] if isinstance(func, TransparentWrapper) else func
        if isinstance(ignore, str):
            ignore = (ignore,)
        self._func = plain
        self._name = getattr(plain, "__qualname__", None) or repr(plain)
        self._version = version
        self._ignore = frozenset(ignore)
        self._opaque = tuple(opaque)
        self._signature = _signature(plain)
        self._spread = _spread(self._signature)
        self._names = _positional(self._signature)
        self._check_ignored()
        self._code: dict[int, tuple[Any, bytes]] = {}
        self._found = self._find() if identity is None else None
        self._start(identity if self._found is None else self._found.digest)

    @property
    def identity(self) -> bytes:
        """Digest (32 bytes) of what the function is."""
        return self._digest

    def refresh(self) -> None:
        """Look again at the function, its helpers and the variables it reads.

        Raises
        ------
        NotCacheableError
            If one of them no longer has a value that can be keyed.
        """
        if self._found is not None:
            self._code.clear()
            self._found = self._find()
            if self._found.digest != self._digest:
                self._start(self._found.digest)

    def key(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = _NOTHING) -> str:
        """The key of one call.

        Returns
        -------
        str
            64 hex digits.

        Raises
        ------
        NotCacheableError
            When an argument has no value to key on; names it.
        SubmitError
            When the arguments do not fit the function, or a `File` cannot be read.
        """
        arguments = self._bind(args, kwargs)
        if _PLAIN.issuperset(map(type, arguments.values())):
            # What an encoder would feed, at a third of the time.
            digest, ignore = self._prefix.copy(), self._ignore
            for name, value in arguments.items():
                if name not in ignore:
                    digest.update(_name_bytes(name) + SCALARS[type(value)](value))
            return digest.hexdigest()
        encoder = Encoder(self._describe, self._prefix.copy(), opaque=self._opaque)
        for name, value in arguments.items():
            if name in self._ignore:
                continue
            try:
                encoder.add(name)
                encoder.add(value)
            except OSError as error:  # of a File or Directory
                raise SubmitError(
                    f"no cache key for this call of {self._name}(): argument {name!r} cannot be "
                    f"read: {error}"
                ) from error
            except NotEncodableError as error:
                error.prepend(f"argument {name!r}")
                raise NotCacheableError(_reason(error, self._name, parameter=name)) from error
        return encoder.hexdigest()

    @property
    def parts(self) -> Mapping[str, str]:
        """Each function, variable and distribution that counts -> its value or digest."""
        return {} if self._found is None else self._found.parts

    @property
    def name(self) -> str:
        """The qualified name of the function."""
        return self._name

    @property
    def computed_names(self) -> frozenset[str]:
        """Functions such as ``eval`` that it calls with names the source does not show."""
        return frozenset() if self._found is None else self._found.computed_names

    def parameter_of(
        self, value: object, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> str | None:
        """Return the parameter that an object is passed to; None if it does not count."""
        for name, given in self._bind(args, kwargs).items():
            if given is value or (isinstance(given, tuple) and any(x is value for x in given)):
                return None if name in self._ignore else name.lstrip("*")
        return None

    def about(self) -> dict[str, Any]:
        """What is known of the function, in plain values, to compare a later one with."""
        return {
            "function": f"{getattr(self._func, '__module__', '')}.{self._name}".lstrip("."),
            "identity": self._digest.hex(),
            "version": self._version,
            "parts": dict(self.parts),
            "key_format": KEY_FORMAT,
        }

    def argument_digests(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = _NOTHING
    ) -> dict[str, str]:
        """Name -> short digest of each argument that counts."""
        encoder = Encoder(self._describe, opaque=self._opaque)
        return {
            name: encoder.digest_of(value).hex()[:16]
            for name, value in self._bind(args, kwargs).items()
            if name not in self._ignore
        }

    def describe(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = _NOTHING
    ) -> dict[str, Any]:
        """What is known of a call: `about` with the arguments."""
        return {**self.about(), "arguments": self.argument_digests(args, kwargs)}

    # --- internals -------------------------------------------------------------------

    def _start(self, digest: bytes | None) -> None:
        self._digest = digest or b""
        prefix = Encoder(self._describe, hashlib.sha256(_FORMAT))
        prefix.add(self._digest)
        prefix.add(self._version)
        self._prefix = hashlib.sha256(_FORMAT + prefix.digest())

    def _find(self) -> Identity:
        try:
            return find_identity(self._func, self._opaque)
        except NotEncodableError as error:
            raise NotCacheableError(_reason(error, self._name)) from error
        except OSError as error:
            raise NotCacheableError(f"{self._name}() is not cached: {error}") from error

    def _describe(self, code: Any, is_in_set: bool) -> bytes:
        """A function or class among the arguments: what it is counts, as for the function."""
        known = self._code.get(id(code))
        if known is None:
            known = self._code[id(code)] = (code, Identity(code, self._opaque).digest)
        return known[1]

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._signature is None:  # some C functions do not tell theirs
            return {"*": tuple(args), **dict(sorted(kwargs.items()))}
        if len(args) == len(self._names) and not kwargs:
            return dict(zip(self._names, args))  # noqa: B905 - as many, and `strict` takes time
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            # A decorated function shows the parameters of what it wraps, and may take others.
            own = inspect.signature(self._func, follow_wrapped=False)
            try:
                bound = own.bind(*args, **kwargs)
            except TypeError:
                raise SubmitError(f"{self._name}() cannot be called like this: {error}") from None
        bound.apply_defaults()
        arguments = bound.arguments
        if self._spread is not None and self._spread in arguments:
            # Marked, since no other parameter's name begins with a star.
            more = arguments.pop(self._spread)
            for name in sorted(more.keys() - self._ignore):
                arguments[f"**{name}"] = more[name]
        return arguments

    def _check_ignored(self) -> None:
        if self._signature is None or self._spread is not None:
            return
        for name in sorted(self._ignore):
            if name not in self._signature.parameters:
                raise UnknownNameError(
                    "parameter",
                    name,
                    self._signature.parameters,
                    f"ignore= lists parameters of {self._name}().",
                )


def _reason(error: NotEncodableError, function: str, *, parameter: str | None = None) -> str:
    """Return why a call is not cached, and the remedies."""
    first = (
        f"leave it out of the key with ignore=[{parameter!r}]"
        if parameter
        else "pass it as an argument that ignore=[...] leaves out of the key"
    )
    return (
        f"{function}() is not cached: {error}. A result may depend on this object, and it has no "
        f"value that a key could contain. Pass plain data instead, {first}, or declare with "
        "opaque=[...] that objects of its type hold no such data (then change version= when what "
        "is behind it changes)."
    )


#: What an encoder would feed of a parameter's name.
_name_bytes: Final = functools.lru_cache(maxsize=4096)(SCALARS[str])


def _signature(func: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(func)
    except (ValueError, TypeError):
        return None


def _positional(signature: inspect.Signature | None) -> tuple[str, ...]:
    """The names of the parameters, where all of them may be given by position, and no more."""
    parameters = {} if signature is None else signature.parameters
    is_simple = all(each.kind in _BY_POSITION for each in parameters.values())
    return tuple(parameters) if is_simple else ()


def _spread(signature: inspect.Signature | None) -> str | None:
    """The name of ``**kwargs``."""
    if signature is not None:
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                return name
    return None
