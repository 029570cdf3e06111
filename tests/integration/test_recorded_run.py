"""Runs and results that commit e11be3e recorded resubmit, are found and are reproduced."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from counting import calls
from recorded import RECORDED, copy_project, recorded_runs
from sessions import processes_of
from waiting import until

from scalable_nb import File, FutureList, ScalableSession, resubmit
from scalable_nb.cache.keys import KEY_FORMAT
from scalable_nb.cache.maintenance import cache_info, trust_cache
from scalable_nb.cache.store import ResultStore
from scalable_nb.client.futures import PartialResult
from scalable_nb.errors import RunFolderError, SubmitError
from scalable_nb.paths import RunPaths
from scalable_nb.resubmission.find_call import call_of_run
from scalable_nb.resubmission.resubmit_plan import ResubmitPlan
from scalable_nb.session.session import live_sessions

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11),
    reason="the recorded functions are bytecode of Python 3.11, which other versions cannot run",
)

#: Executions per mark, once everything that failed or never ran has run. The results of all
#: others are stored: these functions are not called again.
CALLED = {
    "crash-1": 1, "flaky-1": 3, "unreachable-1": 1, "unreachable-2": 1, "slow-1": 1, "slow-2": 1,
    "slow-3": 1, "slow-4": 1, "implausible-1": 1, "odd-1": 1, "simulate-2": 1, "inc-1": 1,
    "later-1": 1, "total": 3, "mean": 2,
    # Its result of 1.6 MB was too large to be stored.
    "table": 1,
    **{f"broken-{kind}": 1 for kind in ("file", "permission", "module", "disk", "memory", "key")},
    **{f"cascade-{x}": 1 for x in range(6)},
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory: a copy of the recorded project, whose functions are repaired."""
    folder = copy_project(tmp_path_factory.mktemp("demo"))
    trust_cache(ResultStore(folder / ".scalable" / "cache"))
    marks = folder / "marks"
    marks.mkdir()
    (marks / "repaired").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DEMO_MARKS", str(marks))
        patch.syspath_prepend(folder)
        others = live_sessions()
        yield folder
        for session in live_sessions():
            if session not in others:
                session.close()
    sys.modules.pop("demo_tasks", None)
    until(lambda: processes_of(folder) == [])


@pytest.fixture(scope="module")
def demo(project: Path) -> ModuleType:
    """The module with the project's functions, as it was when they were recorded."""
    return importlib.import_module("demo_tasks")


@pytest.fixture(scope="module")
def local(project: Path) -> RunPaths:
    """The recorded run on the local target."""
    return RunPaths(recorded_runs(project)[0])


@pytest.fixture(scope="module")
def planned(local: RunPaths) -> ResubmitPlan:
    """The plan of the resubmission, made before anything ran."""
    plan = resubmit(run=local.run_id, dry_run=True)
    assert isinstance(plan, ResubmitPlan)
    return plan


@pytest.fixture(scope="module")
def futures(project: Path, planned: ResubmitPlan, local: RunPaths) -> FutureList:
    """The recorded run, resubmitted: in a session that all tests share."""
    with pytest.raises(RunFolderError, match=f"resubmit --run {local.run_id} --trust"):
        resubmit(run=local.run_id)
    with pytest.raises(RunFolderError, match="not signed with your key"):
        call_of_run(local, "unreachable")
    resubmitted = resubmit(run=local.run_id, trust=True)
    assert isinstance(resubmitted, FutureList)
    return resubmitted


@pytest.fixture(scope="module")
def session(futures: FutureList) -> ScalableSession:
    """The session that the resubmission started."""
    return futures.session


@pytest.fixture(scope="module")
def counted(futures: FutureList, project: Path) -> dict[str, int]:
    """Executions by the resubmission, counted on disk before any test calls something."""
    futures.partial()
    marks = (project / "marks").glob("calls-*")
    return {path.name.removeprefix("calls-"): path.stat().st_size for path in marks}


@pytest.fixture(scope="module")
def outcome(futures: FutureList, counted: dict[str, int]) -> PartialResult:
    """Results and failures of the resubmitted run."""
    return futures.partial()


def test_plan_counts_what_runs(planned: ResubmitPlan) -> None:
    """The plan has stored results, tasks that run again or for the first time, and the rest."""
    assert planned.from_cache == 14
    assert (len(planned.to_run), planned.never_ran) == (32, 3)
    assert planned.left_out == {
        "pay-1": "not idempotent",
        "cancelled": "cancelled",
        **dict.fromkeys(_keys_of(planned, "cascade"), "cancelled"),
    }
    (notice,) = planned.notices
    assert "is not signed with your key" in notice


def _keys_of(planned: ResubmitPlan, function: str) -> list[str]:
    keys = [key for key in planned.left_out if str(key).startswith(f"{function}-")]
    assert len(keys) == 2
    return keys


def test_only_what_has_no_result_runs(
    counted: dict[str, int], local: RunPaths, session: ScalableSession
) -> None:
    """Marks on disk count an execution for each task that runs, and none for a stored result."""
    assert counted == CALLED
    assert session.run_id != local.run_id
    counts = Counter(row["state"] for row in session.journals()[1] if row["batch"] != "")
    assert counts == {"succeeded": 14, "cached": 7, "cancelled": 2}


def test_results_are_in_input_order(futures: FutureList, outcome: PartialResult) -> None:
    """Stored and new results are joined in the order of the submission."""
    found = dict(zip(futures.keys, outcome.results, strict=True))
    assert futures.keys[:3] == ["crash", "pay-1", "inc-lost"]
    assert futures.keys[-1] == "never-ran"
    assert {failure.failure_class for failure in outcome.failures} == {"LeftOutError"}
    assert len(outcome.failures) == 4
    expected = {
        "crash": 1, "inc-lost": 2, "flaky": 1, "unreachable": 1, "slow": 1, "slow-by-task": 2,
        "total-of-failed": 2, "total-of-squares": 15, "offset": 107, "later": 2, "pay-0": 0,
        "mean-of-large": 4095.5, "('mean', 1)": 511.5, "count-lines": 3, "count-lines-again": 3,
        "letters": "ab" * 100, "letters-again": "ab" * 100, "cached-square": 81, "given-up": 2,
        "unfinished-3": 3, "unfinished-4": 4, "never-ran": 7,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


def test_batches_have_their_names(outcome: PartialResult, session: ScalableSession) -> None:
    """Batches are found by name in the new session, with all results in order."""
    assert {"squares", "sweep", "broken", "cascade", "too-large"} <= set(session.batches)
    assert session.batches["squares"].results() == [0, 1, 4, 9]
    sweep = session.batches["sweep"].results()
    # With `scale=0.5`.
    assert sweep == [{"x": x, "value": x / 2} for x in range(4)]


def test_recorded_cache_is_stale(
    outcome: PartialResult, session: ScalableSession, demo: ModuleType, project: Path
) -> None:
    """Keys have changed since: a recorded result is kept, listed as stale, and computed again."""
    (project / "copy.csv").write_bytes((RECORDED / "input.csv").read_bytes())
    client = session.client
    lines = client.submit(demo.count_lines, File("copy.csv"), key="lines-of-copy")
    text = client.submit(demo.letters, "ab", key="letters-of-now")
    assert client.gather([lines, text]) == [3, "ab" * 100]
    assert demo.count_lines(File("copy.csv")) == 3  # the new result answers
    marks = project / "marks"
    assert [calls(marks, name) for name in ("count_lines", "letters-ab")] == [1, 1]
    (marks / "calls-count_lines").unlink()
    assert cache_info(demo.count_lines.store()).stale > 0


def test_other_input_is_computed(
    outcome: PartialResult, session: ScalableSession, demo: ModuleType, project: Path
) -> None:
    """Another content of the file has another key: the function is called."""
    (project / "other.csv").write_text("a\n1\n2\n3\n")
    assert session.client.submit(demo.count_lines, File("other.csv")).result() == 4
    (project / "marks" / "calls-count_lines").unlink()


def test_failed_call_is_reproduced(local: RunPaths, outcome: PartialResult, project: Path) -> None:
    """A recorded call is called again here, with its inputs, and raises as it did."""
    (project / "marks" / "repaired").rename(project / "marks" / "kept")
    try:
        refused = call_of_run(local, "unreachable").run()
    finally:
        (project / "marks" / "kept").rename(project / "marks" / "repaired")
    assert (refused.outcome, refused.where) == ("raised", "this process")
    assert isinstance(refused.error, ConnectionRefusedError)
    assert "demo_tasks.py" in refused.details
    total = call_of_run(local, "total-of-squares").run()
    assert (total.outcome, total.value) == ("returned", 15)
    crash = call_of_run(local, "crash").run()
    assert (crash.outcome, crash.where) == ("returned", "a child process")
    with pytest.raises(SubmitError, match="not idempotent"):
        call_of_run(local, "pay-1")


def test_recorded_function_unpickles(demo: ModuleType) -> None:
    """A cacheable function that was pickled with its code runs, with keys of the present format."""
    function = pickle.loads((RECORDED / "pickles" / "cacheable-by-value.pickle").read_bytes())
    assert type(function) is type(demo.simulate)
    assert function.call_keys().about()["key_format"] == KEY_FORMAT
    assert function(1, scale=0.5) == {"x": 1, "value": 0.5}


def test_run_on_slurm_resubmits_on_another_target(
    project: Path, outcome: PartialResult, session: ScalableSession
) -> None:
    """A run on Slurm is joined by the live session: stored results, and one task that runs."""
    cluster = recorded_runs(project)[1]
    resubmitted = resubmit(run=cluster.name, trust=True)
    assert isinstance(resubmitted, FutureList)
    assert resubmitted.session is session
    assert resubmitted.results() == [0, 1, 5]
    assert calls(project / "marks", "slow-5") == 1
