"""``%%scalable map``: a cell runs once for each of many values, on the workers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from magic_shell import make_shell, usage_error

from scalable_nb import ScalableSession
from scalable_nb.client.futures import FutureList


@pytest.fixture(scope="module")
def notebook(shared_session: ScalableSession) -> Iterator[InteractiveShell]:
    """A shell with the extension, some variables, and a live session."""
    shell = make_shell()
    assert shell.run_cell("%load_ext scalable_nb").success
    assert shell.run_cell("import os\nscale = 10\ndef shifted(v):\n    return v + scale").success
    yield shell
    shell.run_cell("%unload_ext scalable_nb")


def mapped(shell: InteractiveShell, cell: str) -> FutureList:
    """Run a cell that must succeed, and give its futures."""
    result = shell.run_cell(cell)
    assert result.success
    assert isinstance(result.result, FutureList)
    return result.result


def test_the_cell_runs_for_every_value_elsewhere(
    notebook: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in the notebook's process; what it ships is named; `-o` keeps the futures."""
    futures = mapped(
        notebook,
        "%%scalable map --over x=range(5) -o sweep --name sweep\n"
        "y = shifted(x)\n"
        "y * 2, os.getpid()",
    )
    values, pids = zip(*futures.results(), strict=True)
    assert values == (20, 22, 24, 26, 28)
    assert notebook.user_ns["sweep"] is futures
    assert futures.name == "sweep"
    assert os.getpid() not in pids
    said = capsys.readouterr().out
    assert "5 tasks over x." in said
    assert re.search(r"Shipped from the notebook.*shifted \(function\).*os \(module\)", said)
    assert "y" not in notebook.user_ns  # nothing of the cell stays in the notebook


@pytest.mark.parametrize(
    ("options", "count", "last"),
    [("", 3, (2, "c")), ("--product ", 9, (2, "c"))],
    ids=["side by side", "product"],
)
def test_several_names_go_together_or_in_every_combination(
    notebook: InteractiveShell, options: str, count: int, last: Any
) -> None:
    """Like zip, or like nested loops."""
    line = f"%%scalable map {options}--over a=range(3) b=list('abc')\n(a, b)"
    results = mapped(notebook, line).results()
    assert (len(results), results[-1]) == (count, last)


def test_terms_of_the_tasks_are_those_of_the_line(notebook: InteractiveShell) -> None:
    """Retries, a timeout and a task of the manifest hold for each call."""
    futures = mapped(
        notebook,
        "%%scalable map --over x=[1] --retries 2 --timeout 20s --task run_analysis\n"
        "raise ConnectionError('never')",
    )
    (failure,) = futures.partial().failures
    assert (failure.failure_class, failure.attempts) == ("ConnectionError", 3)


def test_kept_results_of_a_cell_are_found_again(notebook: InteractiveShell, tmp_path: Path) -> None:
    """With --cache the same cell with the same values computes nothing."""
    notebook.user_ns["folder"] = tmp_path
    cell = (
        "%%scalable map --over x=[1, 2] --cache\n"
        "import uuid\n(folder / uuid.uuid4().hex).touch()\nx * scale"
    )
    for _ in range(2):
        assert mapped(notebook, cell).results() == [10, 20]
        notebook.run_cell("del _, __, ___")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "nothing to map over; expected e.g. `%%scalable map --over x=range(100)`"),
        ("--over 3", "--over 3: expected NAME=VALUES"),
        ("--over x=5", "a int cannot be mapped over"),
        ("--over x=[]", "there are no values"),
        ("--over x=[1] x=[2]", "--over x= is given twice"),
        ("--over x=rnage(3)", "NameError: name 'rnage' is not defined"),
        ("--over x=[1,", "SyntaxError"),
        ("--over x=range(3) y=range(2)", "x has 3, y has 2; `--product` runs every combination"),
        ("--over x=[1] --task nonsense", "no task named 'nonsense'"),
        ("--over x=[1] --retries many", "--retries many: expected a whole number"),
    ],
)
def test_a_wrong_line_submits_nothing(
    notebook: InteractiveShell, shared_session: ScalableSession, line: str, message: str
) -> None:
    """Each mistake gets a sentence with the way out."""
    before = sum(shared_session.status().counts.values())
    assert message in usage_error(notebook, f"%%scalable map {line}\nx")
    assert sum(shared_session.status().counts.values()) == before
