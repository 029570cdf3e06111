"""What a piece of code refers to outside itself, read from its bytecode."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Final

# Methods that change the object they are called on.
_MUTATORS: Final = frozenset(
    (
        *("add", "append", "appendleft", "clear", "difference_update", "discard", "extend"),
        *("extendleft", "insert", "intersection_update", "move_to_end", "pop", "popitem"),
        *("popleft", "put", "put_nowait", "remove", "reverse", "rotate", "setdefault", "sort"),
        *("subtract", "symmetric_difference_update", "update"),
    )
)
_GLOBAL_READS: Final = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ENCLOSING_READS: Final = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_REBINDS: Final = ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF")
_CHANGES: Final = ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_ATTR", "DELETE_ATTR")


@dataclass(frozen=True)
class References:
    """Names that code uses and does not define.

    Attributes
    ----------
    names : frozenset of str
        Globals and variables of enclosing functions that are read.
    changed : frozenset of str
        Those among them that the code rebinds or changes in place (``log.append(x)``,
        ``counts[key] += 1``): they take part in what the code leaves behind, not in what it
        starts from.
    attributes : frozenset of str
        Names of all attributes that are read of anything.
    imports : frozenset of (str, int)
        Modules imported inside the code: name and number of leading dots.
    """

    names: frozenset[str]
    changed: frozenset[str]
    attributes: frozenset[str]
    imports: frozenset[tuple[str, int]]


@functools.lru_cache(maxsize=10_000)
def references(code: CodeType) -> References:
    """What a code object and the ones inside it refer to."""
    names: set[str] = set()
    changed: set[str] = set()
    attributes: set[str] = set()
    imports: set[tuple[str, int]] = set()
    for part in _parts(code):
        # Where an expression begins -> the outside name it begins with.
        starts: dict[tuple[int, int], str] = {}
        instructions = [x for x in dis.get_instructions(part) if x.opname != "EXTENDED_ARG"]
        for number, each in enumerate(instructions):
            operation, name, start = each.opname, each.argval, _start(each)
            if operation in _GLOBAL_READS or (
                operation in _ENCLOSING_READS and name in code.co_freevars
            ):
                names.add(name)
                if start is not None:
                    starts[start] = name
            elif operation in _REBINDS:
                changed.add(name)
            elif operation in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"):
                attributes.add(name)
                if name in _MUTATORS and start in starts:
                    changed.add(starts[start])
            elif operation in _CHANGES and start in starts:
                changed.add(starts[start])
            elif operation.startswith("CALL") and start in starts:
                del starts[start]  # `CONFIG.copy().update(x)` changes what the call returned
            elif operation == "IMPORT_NAME":
                # The two instructions before it push the number of dots and the names.
                level = instructions[number - 2].argval
                imports.add((name, level if isinstance(level, int) else 0))
    return References(
        frozenset(names), frozenset(changed), frozenset(attributes), frozenset(imports)
    )


def _parts(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)


def _start(instruction: dis.Instruction) -> tuple[int, int] | None:
    """Line and column where the expression of an instruction begins, where Python kept them."""
    position = instruction.positions
    if position is None or position.lineno is None or position.col_offset is None:
        return None
    return position.lineno, position.col_offset
