"""A notebook cell becomes a function of the names it is mapped over."""

from __future__ import annotations

import asyncio
import inspect
import math
import traceback
from typing import Any

import cloudpickle
import pytest

from scalable_nb.magics.cell_function import CellFunction, make_function
from scalable_nb.magics.subcommand import InvalidUsageError

NOTEBOOK: dict[str, Any] = {"scale": 3, "math": math, "unused": object(), "model": {"a": 1}}


def cell(text: str, *parameters: str, **variables: Any) -> CellFunction:
    return make_function(text, "cell", parameters or ("x",), {**NOTEBOOK, **variables})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x + 1", 6),
        ("y = x * 2\ny", 10),
        ("y = x * 2", None),
        ("if x > 2:\n    z = 'big'\nelse:\n    z = 'small'\nz", "big"),
        ("(\n  x\n  + scale\n)", 8),
        ("def double(v):\n    return v * 2\ndouble(x) + scale", 13),
        ("if x > 3:\n    return 'early'\nx", "early"),
        ("text = '''one\n  two\nthree'''\ntext", "one\n  two\nthree"),
        ("f'''{x}\nand {scale}'''", "5\nand 3"),
        ("import json\njson.dumps([x])", "[5]"),
        ("class Box:\n    side = scale\nBox.side * x", 15),
        ("[math.floor(x / 2) for _ in range(scale)]", [2, 2, 2]),
        ("s = 'äöü'; 'ü' in s", True),
        ("# only a comment first\n\nx  # and one behind", 5),
    ],
)
def test_the_last_line_is_the_result(text: str, expected: object) -> None:
    """As in a notebook; texts of several lines keep their shape, `return` may end it early."""
    assert cell(text).function(5) == expected


def test_it_travels_alone_with_what_it_uses() -> None:
    """Another process needs nothing of the notebook; what is not used stays at home."""
    made = cell("helper(x) + scale", helper=eval("lambda v: v * 10"))
    assert set(made.shipped) == {"helper", "scale"}
    copy = cloudpickle.loads(cloudpickle.dumps(made.function))
    assert copy(2) == 23


def test_variables_are_taken_as_they_are_now() -> None:
    """Assigning anew in the notebook afterwards changes nothing in what was submitted."""
    variables = dict(NOTEBOOK)
    function = make_function("x * scale", "cell", ["x"], variables).function
    variables["scale"] = 1000
    assert function(2) == 6


def test_several_names_are_several_arguments() -> None:
    """In the order in which they were given."""
    function = cell("f'{row}-{column}'", "row", "column").function
    assert list(inspect.signature(function).parameters) == ["row", "column"]
    assert function(1, 2) == "1-2"


def test_a_cell_that_awaits_is_a_coroutine_function() -> None:
    """`await` works as it does in a notebook."""
    function = cell("import asyncio\nawait asyncio.sleep(0)\nx").function
    assert inspect.iscoroutinefunction(function)
    assert asyncio.run(function(7)) == 7


def test_a_traceback_has_the_lines_of_the_cell() -> None:
    """Counted from the line of the magic, as the notebook counts them."""
    function = cell("y = x\n1 / (y - y)").function
    with pytest.raises(ZeroDivisionError) as caught:
        function(1)
    last = traceback.extract_tb(caught.tb)[-1]
    assert (last.lineno, last.line) == (3, "return 1 / (y - y)")
    assert inspect.getsource(function).startswith("def cell(x):")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the cell is empty"),
        ("  \n\n", "the cell is empty"),
        ("# nothing", "the cell is not Python"),
        ("x +", "the cell is not Python, line 2: invalid syntax"),
        ("ok = 1\nx = = 2", "line 3"),
        ("!ls", "Lines that begin with % or ! run in the notebook only"),
        ("yield x", "the cell uses `yield`"),
        ("scal * x", "the cell uses 'scal', which is no variable of the notebook. "
         "Did you mean 'scale'?"),
        ("display(x)", "the cell uses 'display'"),
        ("from math import *\nx", "import \\* only allowed at module level"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_function_says_why(text: str, message: str) -> None:
    """Before anything is submitted, with the line as the notebook counts it."""
    with pytest.raises(InvalidUsageError, match=message):
        cell(text)


@pytest.mark.parametrize(
    ("text", "has_value"), [("x", True), ("y = x", False), ("if x:\n    return 1", True)]
)
def test_a_cell_without_a_value_is_noticed(text: str, has_value: bool) -> None:
    """So that nobody waits an hour for a list of None."""
    assert cell(text).has_value is has_value
