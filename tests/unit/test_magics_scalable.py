"""The magic in a real IPython shell: what cells return, say, store and refuse.

The subcommands that need a session run against a small stand-in here; with the real one they run
in tests/integration/test_magics.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from IPython.core.interactiveshell import InteractiveShell
from magic_shell import make_shell, usage_error

from scalable_nb import errors
from scalable_nb.magics.commands import NOTEBOOK, SUBCOMMANDS
from scalable_nb.magics.commands.help import overview, subcommand_help
from scalable_nb.magics.completion import complete_line
from scalable_nb.manifest.load import load_manifest

MANIFEST = """
version: 1
project: {name: demo}
components: {a: {cpus: 1}}
targets: {local: {provider: local}, lumi: {provider: local}}
"""


class Session:
    """Stands in for `ScalableSession`: knows its target and what was done to it."""

    live: ClassVar[list[Session]] = []
    died = False
    ends_with = ""

    def __init__(self, target: str, runs_dir: Path) -> None:
        self.target_name, self.run_id, self.client = target, f"run-of-{target}", Client()
        self.paths = SimpleNamespace(folder=runs_dir / self.run_id)
        self.manifest = load_manifest(target=target)
        self.done: list[tuple[str, ...]] = []

    @classmethod
    def from_yaml(cls, path: Path | None = None, *, target: str | None = None) -> Session:
        return cls(target or "local", Path("runs"))

    def start(self) -> Client:
        Session.live.append(self)
        return self.client

    def check_alive(self) -> None:
        if self.died:
            raise errors.HostDiedError("the host is gone")

    def status(self) -> str:
        return f"{self.target_name} is fine"

    def unfinished(self) -> dict[str, Counter[str]]:
        return {
            "": Counter(running=1),
            "night run": Counter(queued=2, paused=40),
            "sweep": Counter(running=1),
        }

    def resume(self, *batches: str) -> int:
        self.done.append(("resume", *batches))
        return 0 if "sweep" in batches else 40

    def scale(self, n: int, component: str | None = None) -> dict[str, int]:
        self.done.append(("scale", n, component))
        return {component or "": n}

    def adapt(
        self, minimum: int, maximum: int | None, component: str | None = None
    ) -> dict[str, int]:
        self.done.append(("adapt", minimum, maximum, component))
        return {"small": minimum, "big": 1}

    def cancel(self, *batches: str, only_paused: bool = False) -> int:
        self.done.append(("cancel", *batches, *["only paused"] * only_paused))
        return 1 if batches else 44


class Client:
    """Stands in for `ScalableClient`."""


def current_session() -> Session:
    if not Session.live:
        raise errors.NoSessionError("no session is live. `%scalable start` starts one.")
    return Session.live[-1]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> InteractiveShell:
    """A shell with the extension loaded, in a folder with a manifest, without any session."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCALABLE_MANIFEST", raising=False)
    monkeypatch.delenv("SCALABLE_TARGET", raising=False)
    Path("scalable.yaml").write_text(MANIFEST)
    monkeypatch.setattr(Session, "live", [])
    for name, members in {
        "session.session": {
            "ScalableSession": Session,
            "current_session": current_session,
            "live_sessions": lambda: Session.live,
        },
        "client.client": {"ScalableClient": Client},
    }.items():
        module = ModuleType(f"scalable_nb.{name}")
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    shell = make_shell()
    assert shell.run_cell("%load_ext scalable_nb").success
    return shell


def value(shell: InteractiveShell, cell: str) -> Any:
    """Run a cell that must succeed, and give its value."""
    result = shell.run_cell(cell)
    assert result.success
    return result.result


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%scalable stop now", "`%scalable stop` has no place for 'now'."),
        ("%scalable strat", "no subcommand named 'strat'. Did you mean 'start'?"),
        ("%scalable start -t $where", "cannot fill in the variables of 'start -t $where': "),
        ("%scalable start -t luni", "no target named 'luni'. Did you mean 'lumi'? Known: local, "),
        ("%scalable status", "no session is live. `%scalable start` starts one."),
        ("%%scalable map --over x=[1]\nx", "no session is live. `%scalable start` starts one."),
        ("%scalable map --over x=[1]", "`map` runs the cell below it: begin "),
        ("%%scalable status\nx", "`status` has no use for a cell: write `%scalable status`"),
        ("%scalable tasks", "no session is live. `%scalable start` starts one."),
        ("%scalable stop", "no session is live. `%scalable start` starts one."),
        ("%scalable resubmit", "no session is live. `%scalable start` starts one."),
        (
            "%scalable resubmit --trust",
            "--trust signs the records of a run: `resubmit --run ID --trust`.",
        ),
        (
            "%scalable attach --trust",
            "--trust signs the records of one run: `attach RUN --trust`.",
        ),
        ("%scalable resume", "no session is live. `%scalable start` starts one."),
        ("%scalable cancel --all", "no session is live. `%scalable start` starts one."),
        ("%scalable cancel sweep --all", "sweep and --all: give one of them."),
        (
            "%scalable scale four",
            "'four' is no number of workers: expected a whole number, 0 or more.",
        ),
        (
            "%scalable scale 4 --max 9",
            "4 and --min or --max: a fixed number, or limits between which the work decides. "
            "Give one of them.",
        ),
        (
            "%scalable scale",
            "how many workers? `%scalable scale 4` is a fixed number, `%scalable scale --min 0 "
            "--max 10` lets the work decide.",
        ),
        ("%scalable stop -r run-1", "no live session of this notebook named 'run-1'. Known: none"),
        ("%scalable failures --last", "there is no run yet. Looked in "),
        ("%scalable report --run ../x", "no run named '../x'. Known: none is defined. Looked in "),
        (
            "%scalable report --run a --last",
            "--run a and --last name two runs: give one of them.",
        ),
    ],
)
def test_wrong_use_is_one_sentence_without_traceback(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], cell: str, message: str
) -> None:
    """Mistakes and our own errors end the cell as a `UsageError` that is shown as its text."""
    assert usage_error(shell, cell).startswith(message)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert shown.err.startswith(f"UsageError: {message}")


def test_unknown_exception_keeps_its_traceback(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that is not ours is nothing a person did wrong: it stays what it is."""
    monkeypatch.setattr(Session, "status", lambda self: 1 // 0)
    shell.run_cell("%scalable start -q")
    result = shell.run_cell("%scalable status")
    assert type(result.error_in_exec) is ZeroDivisionError
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_start_puts_session_and_client_into_the_namespace(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """`start` returns the session and says which names it made and where the files are."""
    session = value(shell, "%scalable start --target lumi")
    assert shell.user_ns["session"] is session and shell.user_ns["client"] is session.client
    assert capsys.readouterr().out.splitlines()[:2] == [
        "Started target 'lumi'.",
        "`session` and `client` are in the namespace. Files: runs/run-of-lumi",
    ]


def test_start_without_a_file_says_what_it_chose(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first line that anybody types tells how many workers it gives, and what is next."""
    Path("scalable.yaml").unlink()
    value(shell, "%scalable start")
    _, chosen, *_ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"There is no scalable\.yaml: \d workers?, 1 thread each, [\d.]+ GiB in all\. "
        r"`%scalable init` writes one to edit\.",
        chosen,
    )


def test_start_again_gives_the_live_session(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cell run twice starts nothing twice, named or not, and says that it did not."""
    session = value(shell, "%scalable start -q -o first --target local") or shell.user_ns["first"]
    assert value(shell, "%scalable start") is session
    assert value(shell, "%scalable start --target local") is session
    assert "Target 'local' is live already: this is its session." in capsys.readouterr().out
    assert len(Session.live) == 1


def test_start_of_another_target_is_refused(shell: InteractiveShell) -> None:
    """The error names the live target, the other one, and the way out; nothing is started."""
    shell.run_cell("%scalable start -q --target local")
    assert usage_error(shell, "%scalable start --target lumi") == (
        "cannot start target 'lumi': a session on target 'local' is live (run run-of-local). "
        "`%scalable stop` ends it."
    )
    assert len(Session.live) == 1


def test_start_says_which_variables_it_replaces(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable of the user's is named when it is replaced; our own are not worth a word."""
    shell.run_cell("client = 'Mrs Jones'")
    value(shell, "%scalable start")
    assert "They replace variables of yours: `client` (a str)." in capsys.readouterr().out
    value(shell, "%scalable start")
    assert "replace" not in capsys.readouterr().out


def test_value_can_be_assigned_after_other_statements(shell: InteractiveShell) -> None:
    """The magic is an expression: its object can be assigned anywhere in a cell."""
    shell.run_cell("%scalable start -q")
    value(shell, "before = 1\nnow = %scalable status\nafter = 2")
    assert shell.user_ns["now"] == "local is fine"
    assert shell.user_ns["after"] == 2


def test_out_stores_and_quiet_silences(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-o NAME` keeps the object under that name; `-q` shows and returns nothing."""
    shell.run_cell("%scalable start -q")
    assert value(shell, "%scalable status -q -o now") is None
    assert shell.user_ns["now"] == "local is fine"
    assert capsys.readouterr().out == ""
    assert value(shell, "%scalable status --out later") == "local is fine"
    assert shell.user_ns["later"] == "local is fine"


def test_variables_are_looked_up_where_the_magic_is_used(shell: InteractiveShell) -> None:
    """A magic inside a function sees the function's variables, and the notebook's."""
    shell.run_cell("prefix = 'lu'")
    shell.run_cell("def begin():\n    rest = 'mi'\n    x = %scalable start -q -t {prefix}$rest")
    shell.run_cell("begin()")
    assert Session.live[0].target_name == "lumi"


@pytest.mark.parametrize("cell", ["%scalable", "%scalable help", "%scalable --help"])
def test_bare_magic_shows_the_short_help(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], cell: str
) -> None:
    """Without a subcommand the help is the cell's value, shown as plain text."""
    assert value(shell, cell) == overview(NOTEBOOK)
    assert overview(NOTEBOOK) in capsys.readouterr().out


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_a_subcommand_comes_both_ways(shell: InteractiveShell, name: str) -> None:
    """`help SUBCOMMAND` and `SUBCOMMAND --help` give the same text."""
    text = subcommand_help(SUBCOMMANDS[name], NOTEBOOK)
    assert value(shell, f"%scalable help {name}") == text
    assert value(shell, f"%scalable {name} --help") == text


def test_question_mark_shows_the_subcommands(shell: InteractiveShell) -> None:
    """`%scalable?` finds the same list."""
    found = shell.object_inspect("scalable")
    assert found["docstring"].strip() == overview(NOTEBOOK)


def test_start_tells_that_the_manifest_has_changed(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Running the cell again after an edit does not silently keep the old settings."""
    value(shell, "%scalable start -q")
    Path("scalable.yaml").write_text(MANIFEST.replace("cpus: 1", "cpus: 2"))
    value(shell, "%scalable start")
    assert "It has the manifest of its start; " in capsys.readouterr().out


def test_start_beside_a_dead_host_says_so(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session whose host is gone is not handed out as if it were live."""
    shell.run_cell("%scalable start -q")
    monkeypatch.setattr(Session, "died", True)
    assert usage_error(shell, "%scalable start") == "the host is gone"


def test_init_writes_the_manifest_once(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest that is there is not overwritten unless forced, and the next step is told."""
    assert "scalable.yaml" in usage_error(shell, "%scalable init")
    assert Path("scalable.yaml").read_text() == MANIFEST
    path = value(shell, "%scalable init --force")
    assert path.name == "scalable.yaml" and path.read_text() != MANIFEST
    assert f"Wrote {path}. Edit it, then look at `%scalable plan`." in capsys.readouterr().out
    assert value(shell, "%scalable init -q -o other -p other.yaml") is None
    assert shell.user_ns["other"].is_file()


def test_plan_touches_nothing(shell: InteractiveShell, tmp_path: Path) -> None:
    """`plan` works without a file, names the target, and leaves the folder as it was."""
    Path("scalable.yaml").unlink()
    plan = value(shell, "%scalable plan")
    assert plan.target == "local"
    assert "local" in str(plan)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "done", "reported"),
    [
        ("resume", ("resume",), "40 paused tasks go on."),
        ("resume sweep", ("resume", "sweep"), "Nothing is paused."),
        ("cancel sweep", ("cancel", "sweep"), "1 task was cancelled."),
        ("cancel 'night run' -p", ("cancel", "night run", "only paused"),
         "1 paused task was cancelled."),
        ("cancel --paused", ("cancel", "only paused"), "44 paused tasks were cancelled."),
        ("cancel --all", ("cancel",), "44 tasks were cancelled."),
        ("scale 4", ("scale", 4, None), "Wanted: 4 workers."),
        ("scale 1 -c big", ("scale", 1, "big"), "Wanted: 1 worker of big."),
        ("scale --max 9", ("adapt", 0, 9, None),
         "The work decides how many workers there are. Now wanted: 0 workers of small, "
         "1 worker of big."),
    ],
)  # fmt: skip
def test_batches_go_on_or_are_cancelled(
    shell: InteractiveShell, line: str, done: tuple[str, ...], reported: str
) -> None:
    """`resume` and `cancel` act on the batches that are named, and say on how many tasks."""
    shell.run_cell("%scalable start -q")
    assert value(shell, f"%scalable {line}") == reported
    assert Session.live[0].done == [done]


def test_a_bare_cancel_cancels_nothing(shell: InteractiveShell) -> None:
    """Without a word it says what could be cancelled and how, and touches nothing."""
    shell.run_cell("%scalable start -q")
    assert value(shell, "%scalable cancel").splitlines() == [
        "Nothing was cancelled. Not done are:",
        "  single tasks: 1 running",
        "  'night run': 2 queued, 40 paused",
        "  'sweep': 1 running",
        "`%scalable cancel 'night run'` cancels a batch, results that are there stay;",
        "`%scalable cancel --paused` what is paused, `%scalable cancel --all` all of it.",
    ]
    assert Session.live[0].done == []


def test_batches_are_offered_at_the_tab_key(shell: InteractiveShell) -> None:
    """`cancel` offers the batches with work to do, `resume` those that are paused."""
    shell.run_cell("%scalable start -q")
    assert complete_line("%scalable cancel s", NOTEBOOK).words == ("sweep",)
    assert complete_line("%scalable cancel sweep s", NOTEBOOK).words == ()
    assert complete_line("%scalable resume n", NOTEBOOK).words == ("night run",)
    assert complete_line("%scalable resume s", NOTEBOOK).words == ()


def test_loading_twice_and_unloading(shell: InteractiveShell) -> None:
    """Loading again is harmless; after unloading the magic is unknown."""
    assert shell.run_cell("%reload_ext scalable_nb").success
    assert shell.run_cell("%load_ext scalable_nb").success
    assert shell.run_cell("%unload_ext scalable_nb").success
    assert usage_error(shell, "%scalable help").startswith("Line magic function `%scalable` not")


def test_loading_imports_neither_dask_nor_widgets() -> None:
    """`%load_ext scalable_nb` stays fast because the heavy parts wait for the first subcommand."""
    code = (
        "from magic_shell import make_shell\n"
        "shell = make_shell()\n"
        "import sys; before = set(sys.modules)\n"
        "assert shell.run_cell('%load_ext scalable_nb').success\n"
        "assert shell.run_cell('%scalable start --help').success\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new & {'dask', 'distributed', 'pandas', 'plotly', 'ipywidgets'}))\n"
    )
    paths = [str(Path(__file__).parents[1]), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_ipython_loads_it_at_its_start(tmp_path: Path) -> None:
    """One line of IPython's configuration makes `%scalable` known without `%load_ext`."""
    profile = tmp_path / "profile_default"
    profile.mkdir()
    line = 'c.InteractiveShellApp.extensions = ["scalable_nb"]\n'
    (profile / "ipython_config.py").write_text(line)
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "-c", "%scalable help start"],
        env={**os.environ, "IPYTHONDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert subcommand_help(SUBCOMMANDS["start"], NOTEBOOK).splitlines()[0] in done.stdout
