"""What a piece of code refers to outside itself, read from its bytecode."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Final

_GLOBAL_READS: Final = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ENCLOSING_READS: Final = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_ATTRIBUTE_READS: Final = ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR")
_IMPORTERS: Final = frozenset({"import_module", "__import__"})
_TEXT_BUILDERS: Final = frozenset({"BINARY_OP", "BUILD_STRING", "FORMAT_SIMPLE", "FORMAT_VALUE"})
_ENVIRONMENT_READERS: Final = frozenset({"environ", "getenv"})

#: The chain of attributes that is read of a variable: ``("grid", "size")`` for
#: ``model.grid.size``. Empty if the object itself is used.
Chain = tuple[str, ...]


@dataclass(frozen=True)
class References:
    """Names that code uses and does not define.

    Attributes
    ----------
    global_names : mapping of str to set of Chain
        Globals that are read, with the attributes that are read of them.
    free_names : mapping of str to set of Chain
        Variables of enclosing functions that are read.
    names : frozenset of str
        All globals, attributes and imported names, to find what the code inspects.
    imports : frozenset of (str, int)
        Modules that may be imported inside the code: name and number of leading dots.
    environment : frozenset of str
        Names that may be those of environment variables that the code reads.
    computed_imports : frozenset of str
        Functions that import a module whose name is not a literal.
    """

    global_names: Mapping[str, frozenset[Chain]]
    free_names: Mapping[str, frozenset[Chain]]
    names: frozenset[str]
    imports: frozenset[tuple[str, int]]
    environment: frozenset[str]
    computed_imports: frozenset[str]


@functools.lru_cache(maxsize=10_000)
def references(code: CodeType) -> References:
    """Return what a code object and the ones inside it refer to."""
    global_names: dict[str, set[Chain]] = {}
    free_names: dict[str, set[Chain]] = {name: set() for name in code.co_freevars}
    names: set[str] = set()
    imports: set[tuple[str, int]] = set()
    environment: set[str] = set()
    computed_imports: set[str] = set()
    for part in _parts(code):
        instructions = [x for x in dis.get_instructions(part) if x.opname != "EXTENDED_ARG"]
        names.update(part.co_names)
        for number, each in enumerate(instructions):
            operation, name = each.opname, each.argval
            if operation in _GLOBAL_READS:
                global_names.setdefault(name, set()).add(_chain(instructions, number))
            elif operation in _ENCLOSING_READS:
                # A variable of the outermost function itself does not come from outside.
                if name in part.co_freevars and name in free_names:
                    free_names[name].add(_chain(instructions, number))
            elif operation == "IMPORT_NAME":
                # The two instructions before it push the number of dots and the names.
                level, wanted = (each.argval for each in instructions[number - 2 : number])
                level = level if isinstance(level, int) else 0
                imports.add((name, level))
                if isinstance(wanted, tuple):  # any of them may be a module
                    imports.update((f"{name}.{each}".lstrip("."), level) for each in wanted)
            if name in _IMPORTERS and _has_computed_argument(instructions[number + 1 :]):
                computed_imports.add(name)
        texts = {each for each in part.co_consts if isinstance(each, str)}
        if not _IMPORTERS.isdisjoint(part.co_names):
            imports.update((text, 0) for text in texts if text.replace(".", "_").isidentifier())
        if not _ENVIRONMENT_READERS.isdisjoint(part.co_names):
            environment.update(text for text in texts if text.isidentifier())
    return References(
        {name: frozenset(chains) for name, chains in global_names.items()},
        {name: frozenset(chains) for name, chains in free_names.items()},
        frozenset(names),
        frozenset(imports),
        frozenset(environment),
        frozenset(computed_imports),
    )


def _has_computed_argument(following: list[dis.Instruction]) -> bool:
    """Return whether a function that was just loaded is called, and not with a literal text."""
    arguments = []
    for each in following:
        if each.opname.startswith(("CALL", "PRECALL")):
            break
        arguments.append(each)
    else:
        return False
    first = next((each for each in arguments if each.opname != "PUSH_NULL"), None)
    is_literal = (
        first is not None and first.opname == "LOAD_CONST" and isinstance(first.argval, str)
    )
    return not is_literal or any(each.opname in _TEXT_BUILDERS for each in arguments)


def _parts(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)


def _chain(instructions: list[dis.Instruction], number: int) -> Chain:
    chain = []
    for each in instructions[number + 1 :]:
        if each.opname not in _ATTRIBUTE_READS:
            break
        chain.append(each.argval)
        if each.opname.startswith(("STORE", "DELETE")):
            break
    return tuple(chain)
