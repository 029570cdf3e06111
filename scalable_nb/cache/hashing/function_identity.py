"""What a function is: its own code, that of the user's helpers it reaches, and what they read.

Counted: the syntax trees of the function and of every user-level function, class and method
that it refers to, directly or through other helpers (of a module only the attributes that
are used; of a module imported inside a function the whole file and the user's modules it
imports); default values; and the values of global and enclosing variables that are read.

Not counted: comments, layout, docstrings, our own decorators; the code of Python and of
installed packages, which goes by its name (``version=`` is for those); a variable that the
code itself rebinds or changes in place, such as a list it appends to, and one that has no
canonical bytes, such as a lock: of these only the type.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import PurePath
from types import BuiltinFunctionType, CellType, FunctionType, ModuleType
from typing import Any, Final

from scalable_nb.cache.hashing.code_references import References, references
from scalable_nb.cache.hashing.encoder import Encoder
from scalable_nb.cache.hashing.source_ast import code_value
from scalable_nb.cache.hashing.user_modules import (
    absolute_name,
    is_found_by_name,
    is_user_code,
    is_user_module,
    module_sources,
)
from scalable_nb.cache.hashing.value_writers import SCALARS, NotEncodableError

_MISSING: Final = object()
# What cannot change while it is bound to a name (of the user's classes, see `_visit_class`).
_FIXED: Final = (FunctionType, BuiltinFunctionType, type, PurePath)
# What Python or a class decorator derives from the rest of a class.
_DERIVED: Final = frozenset({"__module__", "__dict__", "__weakref__", "__doc__", "__qualname__"})
_BEHAVIOUR_DUNDERS: Final = frozenset({"__annotations__", "__slots__", "__match_args__"})


class Identity:
    """The digest of a callable, and whether it still holds.

    Parameters
    ----------
    function : callable
        Anything that can be called.

    Raises
    ------
    NotEncodableError
        When it is an object without canonical bytes.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._walk = _Walk()
        self.digest: bytes = self._walk.run(function)

    def parts(self) -> dict[str, str]:
        """Name of each function of the user's that takes part -> short digest of its own code."""
        return self._walk.parts()

    def refresh(self) -> bytes:
        """The digest as of now; walks again only where something was rebound, or may differ."""
        if not self._walk.is_current():
            walk = _Walk()
            self.digest = walk.run(self._function)
            self._walk = walk
        return self.digest


@functools.lru_cache(maxsize=256)
def _identity(function: FunctionType) -> Identity:
    return Identity(function)


def identity_of(function: Any) -> bytes:
    """Digest (32 bytes) of what a callable is, now.

    A function's is remembered, and only looked at again where a global or helper it uses
    was rebound, or holds something that can change.

    Raises
    ------
    NotEncodableError
        When it is an object without canonical bytes.
    """
    if isinstance(function, FunctionType):
        return _identity(function).refresh()
    return Identity(function).digest


def parts_of(function: Any) -> dict[str, str]:
    """See `Identity.parts`."""
    return _identity(function).parts() if isinstance(function, FunctionType) else {}


class _Walk:
    """Visits everything that a callable reaches, each function and class once.

    In order of appearance, so that the result is the same in every process; with a queue
    instead of recursion, since whole packages may hang together. What is met inside a set
    gets a walk of its own; inside a set within that, only its own code is read, since the
    sets may contain each other.
    """

    def __init__(self, *, is_within_set: bool = False) -> None:
        self._is_within_set = is_within_set
        self._found: list[Any] = []
        self._number_of: dict[int, int] = {}
        self._encoder = Encoder(self._describe)
        # What was read where, to see whether it is still there.
        self._variables: list[tuple[Mapping[str, Any], str, Any]] = []
        self._cells: list[tuple[CellType, Any]] = []
        self._functions: list[tuple[FunctionType, Any, Any, Any]] = []
        self._modules: set[tuple[str, frozenset[str]]] = set()
        self._may_change = False

    def run(self, function: Any) -> bytes:
        self._encoder.add(function)
        visited = 0
        while visited < len(self._found):
            found = self._found[visited]
            visited += 1
            if isinstance(found, FunctionType):
                self._visit_function(found)
            else:
                self._visit_class(found)
        return self._encoder.digest()

    def parts(self) -> dict[str, str]:
        """Names of the functions that were visited, with a short digest of each one's code."""
        return {
            each.__qualname__: Encoder(self._describe).digest_of(code_value(each)).hex()[:16]
            for each in self._found
            if isinstance(each, FunctionType)
        }

    def is_current(self) -> bool:
        """Whether everything that was read is what it was."""
        return (
            not self._may_change
            and all(names.get(name, _MISSING) is value for names, name, value in self._variables)
            and all(_content(cell) is value for cell, value in self._cells)
            and all(
                function.__code__ is code
                and function.__defaults__ is defaults
                and function.__kwdefaults__ is kwdefaults
                for function, code, defaults, kwdefaults in self._functions
            )
        )

    def _describe(self, code: Any, is_in_set: bool) -> bytes:
        """Name a function or class; the user's are queued for a visit."""
        name = f"{code.__module__}:{code.__qualname__}".encode("utf-8", "surrogatepass")
        if not is_user_code(code) and (isinstance(code, type) or is_found_by_name(code)):
            return name
        if is_in_set:  # where numbers would follow the order of the set
            if not self._is_within_set:
                return name + _Walk(is_within_set=True).run(code)
            own = code_value(code) if isinstance(code, FunctionType) else ()
            return name + Encoder(self._describe).digest_of(own)
        number = self._number_of.get(id(code))
        if number is None:
            number = self._number_of[id(code)] = len(self._found)
            self._found.append(code)
        return b"%s#%d" % (name, number)

    def _visit_function(self, function: FunctionType) -> None:
        add = self._encoder.add
        code = function.__code__
        add((function.__module__, function.__qualname__))
        self._functions.append((function, code, function.__defaults__, function.__kwdefaults__))
        used = references(code)
        add(code_value(function))
        for default in function.__defaults__ or ():
            self._data(default)
        for name, default in sorted((function.__kwdefaults__ or {}).items()):
            add(name)
            self._data(default)
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        for name, cell in sorted(cells.items()):
            value = _content(cell)
            self._cells.append((cell, value))
            self._read(name, value, used)
        if not is_user_code(function):
            return  # made by an installed package: what it calls there counts by name
        for name in sorted(used.names - cells.keys()):
            self._read_global(function, name, used)
        package = function.__globals__.get("__package__")
        for name, level in sorted(used.imports):
            sources = module_sources(absolute_name(name, level, package))
            add(sources)
            self._may_change = self._may_change or bool(sources)  # as any file

    def _read_global(self, function: FunctionType, name: str, used: References) -> None:
        namespace = function.__globals__
        value = namespace.get(name, _MISSING)
        self._variables.append((namespace, name, value))
        if value is not _MISSING:
            self._read(name, value, used)

    def _read(self, name: str, value: Any, used: References) -> None:
        """Count a variable that a function reads."""
        self._encoder.add(name)
        if isinstance(value, ModuleType):
            self._read_module(value, used)
        elif name in used.changed and not _is_code(value):
            self._encoder.add(("changed", type(value).__qualname__))
        else:
            self._data(value)

    def _read_module(self, module: ModuleType, used: References) -> None:
        self._encoder.add(module)
        visit = (module.__name__, used.attributes)
        if visit in self._modules or not is_user_module(module):
            return
        self._modules.add(visit)
        namespace = vars(module)
        for name in sorted(used.attributes & namespace.keys()):
            value = namespace[name]
            self._variables.append((namespace, name, value))
            self._encoder.add(name)
            if isinstance(value, ModuleType):
                self._read_module(value, used)
            else:
                self._data(value)

    def _data(self, value: Any) -> None:
        """Count a value, or its type where it has no canonical bytes."""
        if type(value) not in SCALARS and not isinstance(value, _FIXED):
            self._may_change = True
        before = len(self._found)
        try:
            self._encoder.add(value)
        except (NotEncodableError, OSError):
            for code in self._found[before:]:  # nothing was said of them
                del self._number_of[id(code)]
            del self._found[before:]
            kind = type(value)
            self._encoder.add(("opaque", kind.__module__, kind.__qualname__))

    def _visit_class(self, kind: type) -> None:
        add = self._encoder.add
        self._may_change = True
        add((kind.__module__, kind.__qualname__))
        for base in (type(kind), *kind.__bases__):
            self._data(base)
        for name, attribute in sorted(vars(kind).items()):
            is_dunder = name.startswith("__") and name.endswith("__")
            plain = _undecorated(attribute)
            if name in _DERIVED or (
                is_dunder and name not in _BEHAVIOUR_DUNDERS and not isinstance(plain, FunctionType)
            ):
                continue
            add((name, type(attribute).__qualname__))
            for part in plain if isinstance(attribute, property) else (plain,):
                self._data(part)


def _undecorated(attribute: Any) -> Any:
    """The function, or functions, that a class attribute is made of."""
    if isinstance(attribute, property):
        return attribute.fget, attribute.fset, attribute.fdel
    if isinstance(attribute, staticmethod | classmethod):
        return attribute.__func__
    if isinstance(attribute, functools.cached_property):
        return attribute.func
    return attribute


def _is_code(value: Any) -> bool:
    return isinstance(value, FunctionType | type)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable is not bound yet
        return _MISSING
