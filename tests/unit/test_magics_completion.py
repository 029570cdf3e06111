"""What the Tab key offers, as words and through IPython's own completer."""

from __future__ import annotations

from pathlib import Path

import pytest
from IPython.core.completer import Completion, provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from magic_shell import make_shell

from scalable_nb.magics import completion
from scalable_nb.magics.commands import NOTEBOOK, SHELL, SUBCOMMANDS
from scalable_nb.magics.completion import Offer, complete_line, complete_words

RUNS = ["run-20260101T000000Z-demo-00000001", "run-20260102T000000Z-demo-00000002"]
SHARED = ("--quiet", "--out", "--help")


@pytest.fixture
def shell() -> InteractiveShell:
    """A shell of its own."""
    return make_shell()


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest of two targets, another of one, and two runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("SCALABLE_MANIFEST", "SCALABLE_TARGET", "SCALABLE_RUNS_DIR"):
        monkeypatch.delenv(name, raising=False)
    head = "version: 1\nproject: {name: demo}\ncomponents: {a: {cpus: 1}}\ntargets:\n"
    local, slurm = "  {}: {{provider: local}}\n", "  {}: {{provider: slurm, queue: batch}}\n"
    Path("scalable.yaml").write_text(head + local.format("local") + slurm.format("lumi"))
    Path("other.yaml").write_text(head + slurm.format("mahti"))
    Path("broken.yaml").write_text("targets: [")
    for run in RUNS:
        Path(".scalable/runs", run).mkdir(parents=True, mode=0o700)
    Path(".scalable/runs", RUNS[1], "logs").mkdir(mode=0o700)
    Path(".scalable/runs", RUNS[1], "logs", "worker-0.log").write_text("ready\n")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "fragment", "words"),
    [
        ("%scalable ", "", tuple(name for name in SUBCOMMANDS if name != "map")),
        ("%%scalable ", "", ("map",)),
        ("%%scalable map --pr", "--pr", ("--product",)),
        ("%scalable sta", "sta", ("start", "status")),
        ("  %scalable re", "re", ("report", "resubmit", "resume")),
        ("results = %scalable resu", "resu", ("resubmit", "resume")),
        ("%scalable start --", "--", ("--target", "--manifest", *SHARED)),
        ("%scalable start --ta", "--ta", ("--target",)),
        ("%scalable start -q --target local ", "", ("--manifest", "--out", "--help")),
        ("%scalable start --target ", "", ("local", "lumi")),
        ("%scalable start -t lu", "lu", ("lumi",)),
        ("%scalable plan --target=l", "l", ("local", "lumi")),
        ("%scalable start --manifest other.yaml --target ", "", ("mahti",)),
        ("%scalable start -m broken.yaml --target ", "", ()),
        ("%scalable start -m missing.yaml --target ", "", ()),
        ("%scalable start --manifest ", "", ()),
        ("%scalable failures --run ", "", (RUNS[1], RUNS[0])),
        ("%scalable report --run-id run-20260101", "run-20260101", (RUNS[0],)),
        ("%scalable report --format ", "", ("text", "json", "html")),
        ("%scalable resubmit --only ti", "ti", ("timeout",)),
        ("%scalable resubmit --only resource tr", "tr", ("transient",)),
        ("%scalable resubmit --only timeout --dr", "--dr", ("--dry-run",)),
        ("%scalable resume ", "", ("--run", "--run-id", *SHARED)),
        ("%scalable logs --last wo", "wo", ("worker-0",)),
        (
            f"%scalable logs --run {RUNS[0]} ",
            "",
            ("--task", "--lines", "--last", "--latest", *SHARED),
        ),
        ("%scalable help st", "st", ("start", "status", "stop")),
        ("%scalable help start ", "", SHARED),
        ("%scalable nonsense --", "", ()),
        ("%scalable status -o ", "", ()),
        ("x = 5 %scalable ", "", ()),
        ("print('%scalable ", "", ()),
        ("%time st", "", ()),
    ],
)
def test_what_is_offered_at_the_cursor(line: str, fragment: str, words: tuple[str, ...]) -> None:
    """Subcommands, options not given yet, and values that exist here; nothing on other lines."""
    assert complete_line(line, NOTEBOOK) == Offer(fragment, words)


def test_shell_offers_only_its_own_subcommands() -> None:
    """On the command line the subcommands that need a notebook are not offered."""
    assert complete_words([], "", SHELL).words == tuple(SHELL.subcommands)
    assert complete_words(["report"], "--q", SHELL).words == ()


def test_runs_folder_that_cannot_be_read_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A completion never fails because of the environment."""
    monkeypatch.setenv("SCALABLE_RUNS_DIR", "/proc/1/root")
    monkeypatch.setenv("SCALABLE_LINGER_S", "soon")
    assert completion.run_ids([]) == []


def offered(shell: InteractiveShell, cell: str) -> list[Completion]:
    """What the shell offers at the end of a cell, asked the way a kernel asks."""
    with provisionalcompleter():
        return list(shell.Completer.completions(cell, len(cell)))


@pytest.mark.parametrize(
    ("cell", "word"),
    [
        ("%scalable sta", "start"),
        ("x = 1\nfound = %scalable report --fo", "--format"),
        ("%scalable start --target l", "lumi"),
        ("%scalable start --target=l", "lumi"),
        ("%scalable report --run run-2026010", RUNS[0]),
    ],
)
def test_completer_of_ipython_offers_our_words_alone(
    shell: InteractiveShell, cell: str, word: str
) -> None:
    """The word replaces exactly the fragment, and nothing else is offered."""
    shell.run_cell("%load_ext scalable_nb")
    shell.user_ns["start_of_mine"] = 1
    found = offered(shell, cell)
    finished = {cell[: one.start] + one.text for one in found}
    fragment = cell.replace("=", " ").split()[-1]
    assert cell.removesuffix(fragment) + word in finished
    assert {one._origin for one in found} == {"ScalableMagics.complete"}


def test_other_lines_are_completed_as_before(shell: InteractiveShell) -> None:
    """Our matcher stays silent where it has nothing to say."""
    shell.run_cell("%load_ext scalable_nb")
    shell.user_ns["a_variable_of_mine"] = 1
    assert {one.text for one in offered(shell, "a_variable_of")} == {"a_variable_of_mine"}


def test_unloading_takes_the_completion_away(shell: InteractiveShell) -> None:
    """After `%unload_ext` no matcher of ours is left, however often it was loaded."""
    before = list(shell.Completer.custom_matchers)
    shell.run_cell("%load_ext scalable_nb")
    shell.run_cell("%reload_ext scalable_nb")
    assert len(shell.Completer.custom_matchers) == len(before) + 1
    shell.run_cell("%unload_ext scalable_nb")
    assert shell.Completer.custom_matchers == before
