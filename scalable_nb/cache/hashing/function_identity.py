"""What a function is: its own code, that of the user's helpers it reaches, and what they read.

Counted: the syntax trees of the function and of every user-level function, class and method
that it refers to, directly or through other helpers (of a module the attributes that are read;
of a module imported inside a function the whole file and the user's modules it imports);
default values and attributes of functions; the values of global and enclosing variables that
are read; environment variables that are read by a literal name; name, distribution and
version of what is installed.

Not counted: comments, layout, docstrings that no code reads, our own decorators.

An object that has no canonical bytes is an error that names the path to it: nothing is left
out, or reduced to its type or name.
"""

from __future__ import annotations

import builtins
import functools
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, Final

from scalable_nb.cache.hashing.code_references import Chain, References, references
from scalable_nb.cache.hashing.distributions import distribution_of
from scalable_nb.cache.hashing.encoder import Encoder
from scalable_nb.cache.hashing.imported_sources import (
    absolute_name,
    environment_names,
    is_as_in_file,
    is_missing,
    module_sources,
    module_text,
)
from scalable_nb.cache.hashing.source_ast import bytecode_digest, code_value
from scalable_nb.cache.hashing.user_modules import is_found_by_name, is_user_code, is_user_module
from scalable_nb.cache.hashing.value_writers import SCALARS, NotEncodableError

_MISSING: Final = object()
# What Python or a library derives from the rest of a class.
_DERIVED: Final = frozenset(
    (
        *("__module__", "__dict__", "__weakref__", "__doc__", "__qualname__"),
        *("__slotnames__", "__firstlineno__", "__static_attributes__", "__signature__"),
        *("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__"),
        *("__pydantic_setattr_handlers__", "__pydantic_parent_namespace__"),
        "__pydantic_complete__",
    )
)
_OF_THE_LOADER: Final = frozenset(
    (
        *("__builtins__", "__cached__", "__doc__", "__file__", "__loader__", "__name__"),
        *("__package__", "__path__", "__spec__"),
    )
)
# What `functools.singledispatch` remembers of its calls.
_DISPATCH_MEMORY: Final = frozenset({"dispatch_cache", "cache_token", "_clear_cache"})
_DOCUMENTATION_READERS: Final = frozenset({"__doc__", "getdoc"})
_NAME_READERS: Final = frozenset({"__name__", "__qualname__", "__module__"})
_ANNOTATION_READERS: Final = frozenset(
    {"__annotations__", "get_type_hints", "get_annotations", "signature"}
)
_NAME_COMPUTERS: Final = (eval, exec, globals)
_TEXT_READERS: Final = _DOCUMENTATION_READERS | _NAME_READERS | _ANNOTATION_READERS
# Functions within sets are walked one by one, for which sets that refer to each other may be
# walked again and again.
_NESTED_SETS: Final = 3
_LONGEST_SHOWN: Final = 40
_SECRET: Final = re.compile("token|secret|passw|credential|key", re.IGNORECASE)


class Identity:
    """The digest of a callable, and whether it still holds.

    Parameters
    ----------
    function : callable
        Anything that can be called.
    opaque : tuple of type
        See `encoder.Encoder`.

    Raises
    ------
    NotEncodableError
        When something that it reaches has no canonical bytes.
    """

    def __init__(self, function: Any, opaque: tuple[type, ...] = ()) -> None:
        self._function = function
        self._opaque = opaque
        self._walk = _Walk(opaque)
        self.digest: bytes = self._walk.run(function)

    @property
    def parts(self) -> Mapping[str, str]:
        """Each function, variable and distribution that takes part -> its value or digest."""
        return self._walk.parts

    @property
    def computed_names(self) -> frozenset[str]:
        """Functions such as ``eval`` that it calls with names the source does not show."""
        return frozenset(self._walk.computed_names)

    def refresh(self) -> bytes:
        """Return the current digest; walk again only if something was, or may be, changed.

        Raises
        ------
        NotEncodableError
            As for a new one.
        """
        if not self._walk.is_current():
            walk = _Walk(self._opaque)
            self.digest = walk.run(self._function)
            self._walk = walk
        return self.digest


@functools.lru_cache(maxsize=256)
def _identity(function: FunctionType, opaque: tuple[type, ...]) -> Identity:
    return Identity(function, opaque)


def find_identity(function: Any, opaque: tuple[type, ...] = ()) -> Identity:
    """Return what a callable is, now.

    A function's identity is remembered, and the function is only walked again if a global or
    helper that it uses was rebound, or contains something that can change.

    Raises
    ------
    NotEncodableError
        When something that it reaches has no canonical bytes.
    """
    if not isinstance(function, FunctionType):
        return Identity(function, opaque)
    identity = _identity(function, opaque)
    identity.refresh()
    return identity


def identity_of(function: Any) -> bytes:
    """Return the digest (32 bytes) of a callable; see `find_identity`."""
    return find_identity(function).digest


class _Walk:
    """Visits everything that a callable reaches, each function, class and module once.

    In order of appearance, so that the result is the same in every process; with a queue
    instead of recursion, since whole packages may hang together. What is met inside a set
    gets a walk of its own, for which the functions of the ``outer`` walks are names.
    """

    def __init__(
        self, opaque: tuple[type, ...] = (), outer: frozenset[int] = frozenset(), depth: int = 0
    ) -> None:
        self.parts: dict[str, str] = {}
        self.computed_names: set[str] = set()
        self._opaque = opaque
        self._outer = outer
        self._depth = depth
        self._found: list[Any] = []
        self._number_of: dict[int, int] = {}
        self._in_sets: dict[int, bytes] = {}
        self._encoder = Encoder(self._describe, opaque=opaque)
        # What was read where, to see whether it is still there.
        self._variables: list[tuple[Mapping[str, Any], str, Any]] = []
        self._cells: list[tuple[CellType, Any]] = []
        self._functions: list[tuple[FunctionType, Any, Any, Any]] = []
        self._chains: set[tuple[int, Chain]] = set()
        self._names: set[str] = set()
        self._sources: set[tuple[str, str]] = set()
        self._visited = 0
        self._annotated = 0
        self._may_change = False

    def run(self, function: Any) -> bytes:
        self._encoder.add(function)
        self._visit_found()
        self._add_modules_in_memory()
        if self._are_read(_ANNOTATION_READERS):
            self._may_change = True
            self._add_annotations()
        if self._are_read(_NAME_READERS):
            self._may_change = True
            for found in self._found:
                names = tuple(getattr(found, name, None) for name in sorted(_NAME_READERS))
                self._part(f"{_full_name(found)}.__name__", names)
        if self._are_read(_DOCUMENTATION_READERS):
            self._may_change = True
            self._add_documentation()
        return self._encoder.digest()

    def is_current(self) -> bool:
        """Return whether everything that was read is what it was."""
        return (
            not self._may_change
            and all(_value_of(names, name) is value for names, name, value in self._variables)
            and all(_content(cell) is value for cell, value in self._cells)
            and all(
                function.__code__ is code
                and function.__defaults__ is defaults
                and function.__kwdefaults__ is kwdefaults
                and not function.__dict__
                for function, code, defaults, kwdefaults in self._functions
            )
        )

    # --- functions, classes and modules among values ----------------------------------

    def _describe(self, code: Any, is_in_set: bool) -> bytes:
        """Name a function, class or module; the user's are queued for a visit."""
        if isinstance(code, CodeType):
            return bytecode_digest(code)
        if isinstance(code, ModuleType):
            name = code.__name__
            is_users = is_user_module(code)
        else:
            name = code.__qualname__
            is_users = is_user_code(code) or (
                isinstance(code, FunctionType) and not is_found_by_name(code)
            )
        if not is_users:
            module = name if isinstance(code, ModuleType) else str(code.__module__)
            return f"{self._distribution(module)}:{module}:{name}".encode()
        encoded = str(name).encode("utf-8", "surrogatepass")
        if is_in_set:  # where numbers would follow the order of the set
            return encoded + self._in_set(code)
        number = self._number_of.get(id(code))
        if number is None:
            number = self._number_of[id(code)] = len(self._found)
            self._found.append(code)
        return b"%s#%d" % (encoded, number)

    def _in_set(self, code: Any) -> bytes:
        known = self._in_sets.get(id(code))
        if known is None:
            outer = self._outer | self._number_of.keys()
            if id(code) in outer:
                # Those walks contain all that it reaches.
                own = code_value(code) if isinstance(code, FunctionType) else ()
                known = Encoder(self._describe).digest_of(own)
            elif self._depth >= _NESTED_SETS:
                raise NotEncodableError(f"{code!r} in sets of functions that refer to each other")
            else:
                walk = _Walk(self._opaque, outer | {id(code)}, self._depth + 1)
                known = walk.run(code)
                self.computed_names |= walk.computed_names
            self._in_sets[id(code)] = known
        return known

    def _distribution(self, module: str) -> str:
        distribution = distribution_of(module)
        name, _, version = distribution.partition(" ")
        self.parts[f"distribution {name}"] = version
        return distribution

    # --- visits -----------------------------------------------------------------------

    def _visit_found(self) -> None:
        while self._visited < len(self._found):
            found = self._found[self._visited]
            self._visited += 1
            if isinstance(found, FunctionType):
                self._visit_function(found)
            elif isinstance(found, ModuleType):
                self._visit_module(found)
            else:
                self._visit_class(found)

    def _visit_function(self, function: FunctionType) -> None:
        code, name = function.__code__, _full_name(function)
        defaults, kwdefaults = function.__defaults__, function.__kwdefaults__
        self._functions.append((function, code, defaults, kwdefaults))
        self._part(f"{name}()", (function.__qualname__, code_value(function)))
        used = references(code)
        self._names |= used.names
        first = code.co_argcount - len(defaults or ())
        positional = code.co_varnames[first : code.co_argcount]
        for parameter, default in [
            *zip(positional, defaults or (), strict=True),
            *sorted((kwdefaults or {}).items()),
        ]:
            self._data(f"{name}({parameter}=)", default)
        is_dispatcher = function.__globals__ is vars(functools)
        for attribute, value in sorted(function.__dict__.items()):
            if not (is_dispatcher and attribute in _DISPATCH_MEMORY):
                self._data(f"{name}.{attribute}", value)
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        for variable, cell in sorted(cells.items()):
            if not (is_dispatcher and variable in _DISPATCH_MEMORY):
                value = _content(cell)
                self._cells.append((cell, value))
                self._read(f"{name}: {variable}", value, used.free_names[variable])
        if is_user_code(function):
            self._visit_globals(function, used)
        else:  # made by an installed package: what it calls there counts by its version
            self._encoder.add(self._distribution(str(function.__module__)))

    def _visit_globals(self, function: FunctionType, used: References) -> None:
        module = "" if function.__module__ == "__main__" else f"{function.__module__}."
        for name, chains in sorted(used.global_names.items()):
            value = _value_of(function.__globals__, name)
            self._variables.append((function.__globals__, name, value))
            self._read(f"{module}{name}", value, chains)
            if any(value is each for each in _NAME_COMPUTERS):
                self.computed_names.add(name)
        self.computed_names |= used.computed_imports
        for name in sorted(used.environment):
            self._may_change = True
            self._part(f"environment variable {name}", os.environ.get(name))
        package = function.__globals__.get("__package__")
        sources: dict[str, str] = {}
        for name, level in used.imports:
            imported = absolute_name(name, level, package)
            sources.update(module_sources(imported))
            self._may_change |= is_missing(imported)
        for imported, dump in sorted(sources.items()):
            self._part(f"module {imported}", dump)
            self._may_change = True  # as any file
            for variable in sorted(environment_names(imported)):
                self._part(f"environment variable {variable}", os.environ.get(variable))
        self._sources.update(sources.items())

    def _visit_class(self, kind: type) -> None:
        self._may_change = True
        name = f"{kind.__module__}.{kind.__qualname__}"
        self._part(f"class {name}", (kind.__module__, kind.__qualname__))
        for base in (type(kind), *kind.__bases__):
            self._data(name, base)
        for attribute, value in sorted(vars(kind).items()):
            if attribute not in _DERIVED:
                self._data(f"{name}.{attribute}", value)

    def _visit_module(self, module: ModuleType) -> None:
        self._may_change = True
        self._encoder.add(module.__name__)
        for name, value in sorted(vars(module).items()):
            if name not in _OF_THE_LOADER:
                self._data(f"{module.__name__}.{name}", value)

    # --- variables --------------------------------------------------------------------

    def _read(self, path: str, value: Any, chains: Iterable[Chain]) -> None:
        """Count a variable that a function reads."""
        if value is _MISSING:
            self._encoder.add((path.rpartition(".")[2], "missing"))
        elif isinstance(value, ModuleType):
            self._encoder.add(path.rpartition(".")[2])
            self._read_module(value, chains)
        else:
            self._data(path, value)

    def _read_module(self, module: ModuleType, chains: Iterable[Chain]) -> None:
        namespace = vars(module)
        is_users = is_user_module(module)
        if is_users:
            self._encoder.add(module.__name__)
        else:
            self._encoder.add((self._distribution(module.__name__), module.__name__))
        for chain in sorted(chains):
            if (id(module), chain) in self._chains:
                continue
            self._chains.add((id(module), chain))
            name = chain[0] if chain else ""
            value = namespace.get(name, _MISSING)
            if not chain or (value is _MISSING and "__getattr__" in namespace):
                self._data(module.__name__, module)
                continue
            self._variables.append((namespace, name, value))
            if isinstance(value, ModuleType):
                self._encoder.add(name)
                self._read_module(value, [chain[1:]])
            elif is_users or _is_users_own(value):
                self._read(f"{module.__name__}.{name}", value, ())

    def _data(self, path: str, value: Any) -> None:
        """Count a value.

        Raises
        ------
        NotEncodableError
            If a part of it has no canonical bytes.
        """
        if type(value) not in SCALARS and not _is_fixed(value):
            self._may_change = True
        self._part(path, value)

    def _part(self, path: str, value: Any) -> None:
        try:
            digest = self._encoder.digest_of(value)
        except NotEncodableError as error:
            error.prepend(path)
            raise
        self._encoder.add((path.rpartition(".")[2], digest))
        short = _short(path, value, digest)
        self.parts[path] = short if path not in self.parts else f"{self.parts[path]} {short}"

    def _add_modules_in_memory(self) -> None:
        """Count modules that are imported inside functions, where they may differ from files."""
        done: set[str] = set()
        while waiting := sorted({name for name, _ in self._sources} - done):
            done.update(waiting)
            for name in waiting:
                module = sys.modules.get(name)
                # It may be older than its file, or have been changed since.
                if module is not None and (
                    self._are_read(_TEXT_READERS) or not is_as_in_file(module)
                ):
                    self._data(f"module {name} in memory", module)
            self._visit_found()

    # --- texts that code may read -----------------------------------------------------

    def _are_read(self, readers: frozenset[str]) -> bool:
        """Return whether code of the user reads docstrings, or annotations."""
        # A module that reads its own name, as for a logger, reads it of no object.
        return not readers.isdisjoint(self._names) or any(
            f"'{reader}'" in dump.replace("id='__name__'", "")
            for _, dump in self._sources
            for reader in readers
        )

    def _add_annotations(self) -> None:
        while any(isinstance(each, FunctionType) for each in self._found[self._annotated :]):
            functions = self._found[self._annotated :]
            self._annotated = len(self._found)
            for each in functions:
                if isinstance(each, FunctionType):
                    self._data(f"{_full_name(each)}.__annotations__", each.__annotations__)
            self._visit_found()

    def _add_documentation(self) -> None:
        for each in self._found:
            self._part(f"{_full_name(each)}.__doc__", getattr(each, "__doc__", None))
        for name, _ in sorted(self._sources):
            self._part(f"module {name}, its text", module_text(name))


def _short(path: str, value: Any, digest: bytes) -> str:
    """Return a value as text if it is a short one and no secret, else its digest."""
    if isinstance(value, bool | int | float | str | None) and not _SECRET.search(path):
        text = repr(value)
        if len(text) <= _LONGEST_SHOWN:
            return text
    return "#" + digest.hex()[:16]


def _full_name(code: Any) -> str:
    name = str(getattr(code, "__qualname__", code.__name__))
    module = str(code.__module__) if hasattr(code, "__qualname__") else "__main__"
    return name if module == "__main__" else f"{module}.{name}"


def _is_fixed(value: object) -> bool:
    """Return whether an object cannot change while it is bound to a name.

    The user's classes can, see `_visit_class`.
    """
    if isinstance(value, BuiltinFunctionType):
        return value.__self__ is None or isinstance(value.__self__, ModuleType)
    return isinstance(value, FunctionType | type | PurePath)


def _is_users_own(value: object) -> bool:
    """Return whether the user may have put a value in a library's module."""
    if isinstance(value, FunctionType | type):
        return is_user_code(value)
    return type(value) in SCALARS


def _value_of(namespace: Mapping[str, Any], name: str) -> Any:
    """Return the value of a global or builtin name."""
    value = namespace.get(name, _MISSING)
    return vars(builtins).get(name, _MISSING) if value is _MISSING else value


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable is not bound yet
        return _MISSING
