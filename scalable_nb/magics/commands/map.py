"""``map``: run the cell below once for each of many values."""

from __future__ import annotations

import itertools
import re
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scalable_nb.magics.cell_function import CellFunction, make_function
from scalable_nb.magics.completion import components, tasks
from scalable_nb.magics.subcommand import (
    Context,
    Example,
    InvalidUsageError,
    Option,
    Subcommand,
    seconds,
    whole_number,
)

if TYPE_CHECKING:
    from scalable_nb.client.futures import FutureList

_OVER_EXAMPLE = "--over x=range(100)"


def _run(context: Context, options: Namespace) -> FutureList:
    from scalable_nb.session.session import current_session

    client = current_session().client
    variables = context.variables or {}
    columns = _columns(options.over, variables)
    calls = _calls(columns, options.product)
    cell = make_function(context.cell or "", _function_name(options.name), list(columns), variables)
    context.echo(_summary(cell, columns, len(calls)))
    return client.map(
        _as_cacheable(cell, options.cache), *zip(*calls, strict=True), **_terms(options)
    )


def _columns(over: list[str] | None, variables: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values of each name that the cell is mapped over."""
    if not over:
        raise InvalidUsageError(
            f"nothing to map over; expected e.g. `%%scalable map {_OVER_EXAMPLE}`."
        )
    columns: dict[str, list[Any]] = {}
    for text in over:
        name, equals, expression = text.partition("=")
        name = name.strip()
        if not name.isidentifier():
            raise InvalidUsageError(f"--over {text}: expected NAME=VALUES, e.g. `{_OVER_EXAMPLE}`.")
        if name in columns:
            raise InvalidUsageError(
                f"--over {name}= is given twice; each name has one column of values."
            )
        columns[name] = _values(text, expression if equals else name, variables)
    return columns


def _values(text: str, expression: str, variables: Mapping[str, Any]) -> list[Any]:
    try:
        values = eval(expression, dict(variables))  # the person's own, in their own notebook
    except Exception as error:  # whatever the expression raises
        raise InvalidUsageError(
            f"--over {text}: {type(error).__name__}: {error}. Quotes keep an expression with "
            "spaces together: --over 'x=[1, 2]'."
        ) from error
    try:
        listed = list(values)
    except TypeError as error:
        raise InvalidUsageError(
            f"--over {text}: a {type(values).__name__} cannot be mapped over; expected several "
            f"values, e.g. `{_OVER_EXAMPLE}`."
        ) from error
    if not listed:
        raise InvalidUsageError(f"--over {text}: there are no values.")
    return listed


def _calls(columns: Mapping[str, list[Any]], is_product: bool) -> list[tuple[Any, ...]]:
    if is_product:
        return list(itertools.product(*columns.values()))
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
        raise InvalidUsageError(
            f"--over takes the values of all names side by side, but {sizes}; `--product` runs "
            "every combination."
        )
    return list(zip(*columns.values(), strict=True))


def _function_name(batch: str | None) -> str:
    name = re.sub(r"\W+", "_", batch or "")
    return name if name.isidentifier() else "cell"


def _as_cacheable(cell: CellFunction, is_cached: bool) -> Any:
    from scalable_nb.cache.decorator import cacheable

    return cacheable(cell.function) if is_cached else cell.function


def _terms(options: Namespace) -> dict[str, Any]:
    """What `client.map` is told, without what was not given."""
    from scalable_nb.faults.policy import TaskPolicy

    policy = None if options.timeout is None else TaskPolicy(timeout_s=options.timeout)
    given = {
        "name": options.name or "cell",
        "retries": options.retries,
        "policy": policy,
        "task": options.task,
        "tag": options.tag,
    }
    return {name: value for name, value in given.items() if value is not None}


def _summary(cell: CellFunction, columns: Mapping[str, list[Any]], count: int) -> str:
    lines = [f"{count:,} task{'' if count == 1 else 's'} over {', '.join(columns)}."]
    if cell.shipped:
        shipped = ", ".join(f"{k} ({type(v).__name__})" for k, v in cell.shipped.items())
        lines.append(f"Shipped from the notebook, as they are now: {shipped}.")
    if not cell.has_value:
        lines.append("The cell's last line is no expression: every result will be None.")
    return "\n".join(lines)


SUBCOMMAND = Subcommand(
    name="map",
    summary="run the cell once for each of many values, on the workers",
    run=_run,
    options=(
        Option(("--over",), "a name, and the values it takes", "NAME=VALUES", is_repeated=True),
        Option(("--product", "-p"), "every combination of the values, not side by side"),
        Option(("--name", "-n"), "name of the batch", "BATCH"),
        Option(("--retries", "-r"), "retries for each task", "N", whole_number),
        Option(("--timeout", "-t"), "time limit of an attempt, e.g. 90s", "S", seconds),
        Option(("--task",), "a task of the manifest", "TASK", candidates=tasks),
        Option(("--tag",), "a component or one of its tags", "TAG", candidates=components),
        Option(("--cache", "-c"), "keep results, and use those that are kept"),
    ),
    examples=(
        Example("map --over x=range(100)", "the cell below sees x, its last line is the result"),
        Example("map --over x=range(9) y=range(9) --product -o grid", "81 tasks, in `grid`"),
        Example("map --over scenario=scenarios --retries 3 --timeout 5m", "a variable's values"),
    ),
    python="client.map(function, range(100), retries=3)",
    takes_cell=True,
)
