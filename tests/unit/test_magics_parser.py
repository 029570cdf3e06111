"""From a line to a subcommand and its options: what is read, and what is said of mistakes."""

from __future__ import annotations

import ast
import builtins
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.magics.commands import NOTEBOOK, SHELL, SUBCOMMANDS
from scalable_nb.magics.commands.help import overview, subcommand_help, usage
from scalable_nb.magics.parser import parse, split_cell_line, split_line
from scalable_nb.magics.subcommand import InvalidUsageError, Subcommand, Surface

SUBCOMMAND_NAMES = ", ".join(sorted(SUBCOMMANDS))


@pytest.mark.parametrize(
    ("line", "subcommand", "values"),
    [
        ("", "help", {"subcommand": None, "help": False}),
        ("--help", "help", {"subcommand": None}),
        ("help start", "help", {"subcommand": "start"}),
        ("start --target slurm", "start", {"target": "slurm", "manifest": None}),
        ("start -t slurm -m a.yaml", "start", {"target": "slurm", "manifest": Path("a.yaml")}),
        ("start --target=slurm", "start", {"target": "slurm"}),
        ("init --force", "init", {"force": True, "path": None}),
        ("report --latest --failures", "report", {"last": True, "failures": True}),
        ("report --run-id run-1", "report", {"run": "run-1", "last": False, "format": "text"}),
        ("report --format json", "report", {"format": "json"}),
        ("resubmit --only A B --retries 2", "resubmit", {"only": ["A", "B"], "retries": 2}),
        ("resubmit --only A --only B", "resubmit", {"only": ["A", "B"]}),
        ("resubmit --timeout 5m -n", "resubmit", {"timeout": 300.0, "dry_run": True}),
        ("resubmit --timeout 90 --no-wait", "resubmit", {"timeout": 90.0, "no_wait": True}),
        ("resubmit -q -o results", "resubmit", {"quiet": True, "out": "results", "only": None}),
        ("resume", "resume", {"batches": [], "run": None}),
        ("scale 4 -c big", "scale", {"count": "4", "component": "big", "min": None}),
        ("scale --min 0 --max 9", "scale", {"count": None, "min": 0, "max": 9}),
        ("cancel a --paused b", "cancel", {"batches": ["a", "b"], "paused": True, "all": False}),
    ],
)
def test_line_becomes_subcommand_and_values(
    line: str, subcommand: str, values: dict[str, Any]
) -> None:
    """Long and short options, their values and the defaults arrive as the table says."""
    found, options = parse(line.split(), NOTEBOOK)
    assert found is SUBCOMMANDS[subcommand]
    assert {name: getattr(options, name) for name in values} == values


WRONG = [
    (
        "strat",
        f"no subcommand named 'strat'. Did you mean 'start'? Known: {SUBCOMMAND_NAMES}. "
        "`%scalable help` explains them.",
    ),
    (
        "xyzzy",
        f"no subcommand named 'xyzzy'. Known: {SUBCOMMAND_NAMES}. `%scalable help` explains them.",
    ),
    (
        "start --tagret slurm",
        "no option of `start` named '--tagret'. Did you mean '--target'? Known: --help, "
        "--manifest, --out, --quiet, --target. `%scalable start --help` explains them.",
    ),
    (
        "start --tagret=slurm",
        "no option of `start` named '--tagret'. Did you mean '--target'? Known: --help, "
        "--manifest, --out, --quiet, --target. `%scalable start --help` explains them.",
    ),
    (
        "start --targ slurm",
        "no option of `start` named '--targ'. Did you mean '--target'? Known: --help, "
        "--manifest, --out, --quiet, --target. `%scalable start --help` explains them.",
    ),
    (
        "tasks -x",
        "no option of `tasks` named '-x'. Known: --help, --last, --out, --quiet, "
        "--run. `%scalable tasks --help` explains them.",
    ),
    (
        "start slurm",
        "`%scalable start` has no place for 'slurm'. Did you mean "
        "`%scalable start --target slurm`? `%scalable start --help` explains what it takes.",
    ),
    (
        "help start stop",
        "`%scalable help` has no place for 'stop'. `%scalable help --help` explains what it takes.",
    ),
    ("start --target", "--target needs a value: `%scalable start --target NAME`."),
    ("start -t", "--target needs a value: `%scalable start --target NAME`."),
    ("resubmit --only", "--only needs a value: `%scalable resubmit --only CLASS`."),
    ("init --force=yes", "--force takes no value."),
    ("resubmit --retries -1", "--retries -1: expected a whole number, 0 or more."),
    ("resubmit --retries many", "--retries many: expected a whole number, 0 or more."),
    (
        "resubmit --timeout soon",
        "--timeout soon: expected a time above zero, e.g. 90, 90s or 5m.",
    ),
    ("resubmit --timeout 0", "--timeout 0: expected a time above zero, e.g. 90, 90s or 5m."),
    ("resubmit --timeout nan", "--timeout nan: expected a time above zero, e.g. 90, 90s or 5m."),
    ("report --format xml", "--format xml: expected text or json or html."),
    ("status -o 2nd", "--out 2nd: expected the name of a variable, e.g. results."),
    ("status -o class", "--out class: expected the name of a variable, e.g. results."),
]


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_mistake_is_named_with_the_way_out(line: str, message: str) -> None:
    """Each kind of mistake gets exactly this sentence."""
    with pytest.raises(InvalidUsageError) as caught:
        parse(line.split(), NOTEBOOK)
    assert str(caught.value) == message


def test_help_wins_over_mistakes_on_the_line() -> None:
    """Somebody who asks for help gets it, whatever else stands on the line."""
    subcommand, options = parse(["start", "--tagret", "x", "--help"], NOTEBOOK)
    assert (subcommand.name, options.help) == ("start", True)


def test_subcommand_of_the_notebook_is_explained_in_the_shell() -> None:
    """A subcommand that exists but needs a notebook is not called unknown."""
    with pytest.raises(InvalidUsageError, match=r"`failures` needs a notebook: type `%scalable"):
        parse(["failures"], SHELL)


# --- the table ---------------------------------------------------------------


@pytest.mark.parametrize("surface", [NOTEBOOK, SHELL], ids=lambda surface: surface.prompt)
def test_spellings_of_a_subcommand_are_unambiguous(surface: Surface) -> None:
    """No two options of a subcommand share a spelling or the name of their value."""
    for subcommand in surface.subcommands.values():
        options = surface.options(subcommand)
        spellings = [name for option in options for name in option.names]
        attributes = [option.attribute for option in options]
        attributes += [argument.attribute for argument in subcommand.arguments]
        assert len(spellings) == len(set(spellings)), subcommand.name
        assert len(attributes) == len(set(attributes)), subcommand.name


@pytest.mark.parametrize("subcommand", SUBCOMMANDS.values(), ids=lambda subcommand: subcommand.name)
def test_every_subcommand_explains_itself(subcommand: Subcommand) -> None:
    """Help shows usage, every option with its summary, an example and the Python for it."""
    text = subcommand_help(subcommand, NOTEBOOK)
    assert text.startswith(usage(subcommand, NOTEBOOK))
    assert subcommand.examples and subcommand.python in text
    for option in NOTEBOOK.options(subcommand):
        assert all(name in text for name in option.names)
        assert option.summary in text
    for example in subcommand.examples:
        assert f"%scalable {example.line}" in text and example.effect in text


@pytest.mark.parametrize("subcommand", SUBCOMMANDS.values(), ids=lambda subcommand: subcommand.name)
def test_the_python_of_a_subcommand_can_be_typed_as_it_stands(subcommand: Subcommand) -> None:
    """It imports, by names that exist, what `%scalable start` does not put into the namespace."""
    program = ast.parse(subcommand.python)
    namespace = dict.fromkeys(("session", "client", "function", "simulate"))
    imports = [node for node in program.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), subcommand.name, "exec"), namespace)
    names = [node.id for node in ast.walk(program) if isinstance(node, ast.Name)]
    assert [name for name in names if name not in namespace and not hasattr(builtins, name)] == []


@pytest.mark.parametrize(
    ("surface", "subcommand", "line"),
    [
        (surface, subcommand, example.line)
        for surface in (NOTEBOOK, SHELL)
        for subcommand in surface.subcommands.values()
        for example in subcommand.examples
    ],
    ids=lambda value: getattr(value, "prompt", getattr(value, "name", value)),
)
def test_examples_of_the_help_are_right(
    surface: Surface, subcommand: Subcommand, line: str
) -> None:
    """Every line that the help recommends is understood as the subcommand that it explains."""
    assert parse(line.split(), surface)[0] is subcommand


def test_overview_lists_what_can_be_typed() -> None:
    """The short help has a line for each subcommand of the place where it is asked for."""
    for surface in (NOTEBOOK, SHELL):
        lines = overview(surface).splitlines()
        assert lines[0] == f"{surface.prompt} SUBCOMMAND [options]"
        assert [line.split()[0] for line in lines if line.startswith("  ")] == [
            *surface.subcommands
        ]


# --- expansion ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("start --target $where", ["start", "--target", "my cluster"]),
        ("start --target '$where'", ["start", "--target", "$where"]),
        ('start --target "$where"', ["start", "--target", "my cluster"]),
        ("init -p {folder}/x.yaml", ["init", "-p", '/data/O\'Brien "1"/x.yaml']),
        ("init -p $folder/x.yaml", ["init", "-p", '/data/O\'Brien "1"/x.yaml']),
        ("resubmit --retries {n + 1}", ["resubmit", "--retries", "4"]),
        ("resubmit --only $names", ["resubmit", "--only", "KeyError", "timeout"]),
        ("resubmit --only {names[:1]}", ["resubmit", "--only", "KeyError"]),
        ("report --run $evil", ["report", "--run", "{n} $n `id`"]),
        ("init --path 'a b.yaml'", ["init", "--path", "a b.yaml"]),
        ("init --path $$n", ["init", "--path", "$n"]),
        ("init --path {{n}}", ["init", "--path", "{n}"]),
        ("start --target $where  # where it's {fast}", ["start", "--target", "my cluster"]),
        ("init --path '# 1' -q", ["init", "--path", "# 1", "-q"]),
        ("init --path a#b.yaml", ["init", "--path", "a#b.yaml"]),
        ("", []),
    ],
)
def test_variables_fill_single_words(line: str, words: list[str]) -> None:
    """A value is one word whatever it contains, a list is one word per item, none is evaluated."""
    variables = {
        "where": "my cluster",
        "folder": '/data/O\'Brien "1"',
        "n": 3,
        "names": ["KeyError", "timeout"],
        "evil": "{n} $n `id`",
    }
    assert split_line(line, variables) == words


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "start --target $where",
            "cannot fill in the variables of 'start --target $where': NameError: name 'where' "
            "is not defined. Write {name} where letters follow the name, $$name or {{ for the "
            "signs themselves.",
        ),
        (
            "init --path $name.yaml",
            "cannot fill in the variables of 'init --path $name.yaml': AttributeError: 'str' "
            "object has no attribute 'yaml'. Write {name} where letters follow the name, $$name or "
            "{{ for the signs themselves.",
        ),
        (
            "resubmit --retries {1 // 0}",
            "cannot fill in the variables of 'resubmit --retries {1 // 0}': ZeroDivisionError: "
            "integer division or modulo by zero.",
        ),
        (
            "init --path 'a b",
            'cannot split "init --path \'a b" into words: No closing quotation.',
        ),
    ],
)
def test_line_that_cannot_be_split_is_explained(line: str, message: str) -> None:
    """An unknown variable, a failing expression and an open quote are told as they are."""
    with pytest.raises(InvalidUsageError) as caught:
        split_line(line, {"name": "a"})
    assert str(caught.value) == message


@given(st.text())
def test_any_value_arrives_unchanged(value: str) -> None:
    """Whatever text a variable holds, the option gets exactly that text as one word."""
    assert split_line("report --run $value", {"value": value}) == ["report", "--run", value]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("map --over x=[1, 2] -q", ["map", "--over", "x=[1, 2]", "-q"]),
        ("map --over s=list('a b') t={1, 2}", ["map", "--over", "s=list('a b')", "t={1, 2}"]),
        ('map --over s=["it\'s", "\\" ]"]', ["map", "--over", 's=["it\'s", "\\" ]"]']),
        ("map --over x=items", ["map", "--over", "x=items"]),
        ("map --over 'x=a + b' --name $name", ["map", "--over", "x=a + b", "--name", "night run"]),
        ("map --over x=f(a, [b, c])  --product", ["map", "--over", "x=f(a, [b, c])", "--product"]),
        ("map --over x=[1,", ["map", "--over", "x=[1,"]),
        ("map --over x=['# 1'] -q  # two", ["map", "--over", "x=['# 1']", "-q"]),
    ],
)
def test_expressions_above_a_cell_need_no_quotes(line: str, words: list[str]) -> None:
    """Brackets and quotes hold an expression together, and braces are Python's there."""
    assert split_cell_line(line, {"name": "night run"}) == words
