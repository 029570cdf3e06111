"""Batches over several kernels and runs: nothing is lost, repeated or put in another order."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from counting import counted, executions
from histories import ONE_WORKER, all_batches, planned, resubmitted
from IPython.core.interactiveshell import InteractiveShell
from kernels import kill_host, last_run, run_kernel
from magic_shell import make_shell
from waiting import until

from scalable_nb import FutureList, ScalableSession, TaskPolicy, cacheable, errors, resubmit
from scalable_nb.paths import RunPaths
from scalable_nb.report.build import build_report
from scalable_nb.report.run_overview import overview
from scalable_nb.telemetry.journal_replay import ledger_of_run

# --- a chain of three runs ------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Outcomes of a batch when its run ended: results, and failures by index."""

    results: list[Any]
    failures: dict[int, str]


@dataclass(frozen=True)
class Run:
    """What a run of the chain had: all results in order, and its batches by name."""

    paths: RunPaths
    everything: Batch
    batches: dict[str, Batch]
    executions: dict[str, list[int]]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Three runs: calls, of which some fail, and two resubmissions once the cause is fixed."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "scalable.yaml").write_text(ONE_WORKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with ScalableSession.from_yaml() as session:
            _first_run(session, folder)
            recorded = [_recorded(session, _all_inputs(session), folder)]
        (folder / "fixed").touch()
        for _ in range(2):
            futures = resubmitted()
            with futures.session as session:
                recorded.append(_recorded(session, futures, folder))
    return recorded


NAMES = ("ten", "doubled", "corrected", "private", "cancelled", "again")


def _first_run(session: ScalableSession, folder: Path) -> None:
    client = session.client
    two = dict.fromkeys([3, 7], ValueError)
    held = [
        client.map(counted(folder, "ten", errors=two), range(10), name="ten"),
        client.map(counted(folder, "doubled"), [1, 1, 2, 3, 3, 4], name="doubled"),
        client.map(counted(folder, "broken", errors=two), range(10), name="corrected"),
        client.map(
            counted(folder, "private", errors={2: ValueError}),
            range(6),
            name="private",
            task="secret",
        ),
        client.map(counted(folder, "again"), range(4), name="again"),
    ]
    for futures in held:
        futures.partial()
    client.map(counted(folder, "again"), [1], name="again-1").results()
    held[2].resubmit(func=counted(folder, "good")).results()
    blocked = client.map(counted(folder, "cancelled", gate="fixed"), range(3), name="cancelled")
    until(lambda: sum(executions(folder, range(3), "cancelled")) == 2)
    session.cancel("cancelled")
    blocked.partial()


def _all_inputs(session: ScalableSession) -> FutureList:
    return FutureList(future for name in NAMES for future in session.batches[name])


def _recorded(session: ScalableSession, futures: FutureList, folder: Path) -> Run:
    names = (*NAMES, "broken", "good")
    assert session.paths is not None
    return Run(
        session.paths,
        _outcomes(futures),
        {name: _outcomes(session.batches[name]) for name in NAMES},
        {name: executions(folder, range(10), name) for name in names},
    )


def _outcomes(futures: FutureList) -> Batch:
    outcome = futures.partial()
    failures = {each.index: f"{each.failure_class}: {each.error}" for each in outcome.failures}
    return Batch(outcome.results, failures)


def test_chain_of_runs_keeps_the_order_of_inputs(chain: list[Run]) -> None:
    """Inputs that ran again in the second run are in their places in the third."""
    expected = [i * 10 for i in range(10)]
    assert [run.batches["ten"].results for run in chain[1:]] == [expected, expected]
    assert [run.everything.results[:10] for run in chain[1:]] == [expected, expected]
    assert chain[2].executions["ten"] == [1, 1, 1, 2, 1, 1, 1, 2, 1, 1]


def test_chain_of_runs_keeps_inputs_that_occur_twice(chain: list[Run]) -> None:
    """Six inputs have six results, in order, though some are equal."""
    expected = [10, 10, 20, 30, 30, 40]
    assert [run.batches["doubled"].results for run in chain] == [expected] * 3
    assert [run.everything.results[10:16] for run in chain[1:]] == [expected] * 2
    assert chain[2].executions["doubled"] == [0, 1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_chain_of_runs_keeps_corrected_results(chain: list[Run]) -> None:
    """Corrected calls are the calls of their inputs in all later runs; nothing runs again."""
    expected = [i * 10 for i in range(10)]
    assert [run.batches["corrected"].results for run in chain] == [expected] * 3
    assert chain[2].executions["broken"] == [1] * 10
    assert chain[2].executions["good"] == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]


def test_chain_of_runs_keeps_what_cannot_be_called_again(chain: list[Run]) -> None:
    """A failure without recorded arguments is left out in each run, for that reason."""
    for run in chain[1:]:
        batch = run.batches["private"]
        assert batch.results == [0, 10, None, 30, 40, 50]
        assert list(batch.failures) == [2]
        assert "LeftOutError" in batch.failures[2]
        assert "arguments were not recorded" in batch.failures[2]


def test_chain_of_runs_keeps_cancelled_inputs_cancelled(chain: list[Run]) -> None:
    """What was cancelled in the first run runs in none of the later ones."""
    for run in chain[1:]:
        failures = run.batches["cancelled"].failures
        assert list(failures) == [0, 1, 2]
        assert all("cancelled" in text for text in failures.values())
    assert chain[2].executions["cancelled"] == chain[0].executions["cancelled"]


def test_input_of_a_later_batch_keeps_its_place_in_the_first(chain: list[Run]) -> None:
    """A call that was mapped again is in both batches."""
    for run in chain:
        assert run.batches["again"].results == [0, 10, 20, 30]
    for run in chain[1:]:
        assert len(run.everything.results) == 10 + 6 + 10 + 6 + 4 + 1 + 3
    assert chain[2].executions["again"] == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_counts_of_all_records_add_up_to_the_inputs(chain: list[Run]) -> None:
    """Report, overview, summary and table count each input, of the first run and the last.

    Some share a task, two were replaced by corrected calls, and some are left out.
    """
    inputs = len(chain[2].everything.results)
    assert inputs == 10 + 6 + 10 + 6 + 4 + 1 + 3
    lines = {line.run_id: line for line in overview(chain[0].paths.folder.parent).runs}
    for run in chain:
        report = build_report(run.paths)
        assert sum(report.tasks.values()) == lines[run.paths.run_id].tasks == inputs
        summary = json.loads(run.paths.summary_json.read_bytes())
        assert sum(summary["counts"].values()) == inputs
        assert sum(ledger_of_run(run.paths).count().values()) == inputs
    first = build_report(chain[0].paths)
    assert (first.tasks["succeeded"], first.tasks["failed"], first.failed_inputs) == (34, 3, 3)


def test_each_resubmission_may_choose_other_failures(here: Path) -> None:
    """What `only=` left out in one run has its failure in the next, where it can be chosen."""
    f = counted(here, errors={2: ValueError, 5: TypeError, 8: TypeError})
    with ScalableSession.from_yaml() as session:
        assert len(session.client.map(f, range(10), name="x").partial().failures) == 3
    (here / "fixed").touch()

    futures = resubmitted(only="ValueError")
    with futures.session:
        outcome = futures.partial()
        assert [failure.index for failure in outcome.failures] == [5, 8]
        assert {failure.failure_class for failure in outcome.failures} == {"LeftOutError"}
        assert "not chosen by only=" in str(outcome.failures[0].error)
        with ScalableSession.attach() as other:  # another kernel sees the same
            failures = other.batches["x"].partial().failures
            assert list(map(str, failures)) == list(map(str, outcome.failures))

    plan = planned(only="TypeError")
    assert (plan.from_cache, len(plan.to_run), plan.never_ran, len(plan.left_out)) == (8, 2, 0, 0)
    assert resubmitted(only="TypeError").results() == [i * 10 for i in range(10)]
    assert executions(here, range(10)) == [1, 1, 2, 1, 1, 2, 1, 1, 2, 1]


def test_old_and_live_batch_of_one_name_are_both_reachable(here: Path) -> None:
    """Batches of a run that is taken over do not replace those of the live session."""
    with ScalableSession.from_yaml() as session:
        session.client.map(counted(here), range(2), name="f").results()
        old = session.run_id
    session = ScalableSession.from_yaml()
    live = session.start().map(counted(here), range(2, 5))
    assert live.name == "f"
    assert live.results() == [20, 30, 40]
    taken_over = resubmit(run=old)
    assert isinstance(taken_over, FutureList)
    assert taken_over.results() == [0, 10]
    assert session.batches[live.batch_ids[0]].results() == [20, 30, 40]
    assert session.batches[taken_over.batch_ids[0]].results() == [0, 10]
    assert sorted(len(batch) for batch in all_batches(session)) == [2, 3]


def test_run_without_inputs_gives_an_empty_list(here: Path) -> None:
    """A run of only empty maps can be resubmitted: nothing runs."""
    with ScalableSession.from_yaml() as session:
        assert session.client.map(counted(here), [], name="empty") == []
    plan = planned()
    assert (plan.succeeded, plan.from_cache, plan.to_run, plan.left_out) == (0, 0, [], {})
    assert resubmitted() == []


# --- hosts that died ------------------------------------------------------------------------


def test_dead_host_leaves_values_that_the_client_has(here: Path) -> None:
    """`partial` gives what is stored, and HostDiedError for what was in the cluster's memory."""
    kept = cacheable(counted(here, "kept"))
    client = ScalableSession.from_yaml().start()
    client.map(kept, range(2)).results()
    hits = client.map(kept, range(2))
    in_memory = client.map(counted(here), range(2))
    assert (hits + in_memory).results() == [0, 10, 0, 10]
    kill_host(last_run())
    outcome = (hits + in_memory).partial()
    assert outcome.results == [0, 10, None, None]
    assert [failure.failure_class for failure in outcome.failures] == ["HostDiedError"] * 2


def test_at_most_once_is_refused_for_calls_with_a_result(here: Path) -> None:
    """An option that held calls cannot get is named in the error."""
    client = ScalableSession.from_yaml().start()
    held = client.map(counted(here), range(3))
    assert held.results() == [0, 10, 20]
    with pytest.raises(errors.SubmitError, match="idempotent"):
        client.map(counted(here), range(3), policy=TaskPolicy(idempotent=False))
    assert executions(here, range(3)) == [1, 1, 1]


def test_missing_arguments_lose_only_their_input(here: Path) -> None:
    """An input whose arguments were in a file that is missing is lost; all others are there."""
    client = ScalableSession.from_yaml().start()
    assert client.map(len, [bytes(300_000), b"small"], pure=False).results() == [300_000, 5]
    whole = client.map(counted(here, errors={1: ValueError}), range(3), name="whole")
    assert len(whole.partial().failures) == 1
    kill_host(last_run())
    (here / "fixed").touch()
    contents = (last_run().calls / "content").iterdir()
    max(contents, key=lambda path: path.stat().st_size).unlink()
    assert list(planned().left_out.values()) == ["lost: record damaged"]
    outcome = resubmitted().partial()
    assert outcome.results == [None, 5, 0, 10, 20]
    assert "lost: record damaged" in str(outcome.failures[0].error)


def test_torn_record_loses_only_its_inputs(here: Path) -> None:
    """Inputs whose calls were in the torn end of the call record are listed as lost."""
    client = ScalableSession.from_yaml().start()
    assert client.map(counted(here, "whole"), range(2)).results() == [0, 10]
    assert client.map(counted(here, "torn"), range(3)).results() == [0, 10, 20]
    kill_host(last_run())
    (record,) = last_run().calls.glob("*.calls")
    record.write_bytes(record.read_bytes()[:-1])
    assert list(planned().left_out.values()) == ["lost: record damaged"] * 3
    outcome = resubmitted().partial()
    assert outcome.results == [0, 10, None, None, None]
    assert all("lost: record damaged" in str(each.error) for each in outcome.failures)


# --- the notebook ---------------------------------------------------------------------------


def _cell(shell: InteractiveShell, text: str) -> Any:
    done = shell.run_cell(text)
    assert done.success
    return done.result


@pytest.fixture
def shell(here: Path) -> InteractiveShell:
    """A notebook with the extension loaded."""
    shell = make_shell()
    _cell(shell, "%load_ext scalable_nb")
    return shell


def test_resubmit_after_a_restart_concerns_the_whole_run(
    shell: InteractiveShell, here: Path
) -> None:
    """In a new kernel `%scalable resubmit` finds the failure of a kernel that is gone."""
    code = """
        import os
        from pathlib import Path
        from counting import counted
        from scalable_nb import ScalableSession

        f = counted(Path.cwd(), errors={17: ValueError})
        futures = ScalableSession.from_yaml().start().map(f, range(40))
        futures.partial()
        os.kill(os.getpid(), 9)
    """
    assert run_kernel(here, code) == -signal.SIGKILL
    (here / "fixed").touch()
    _cell(shell, "%scalable attach")
    plan = _cell(shell, "%scalable resubmit --dry-run")
    assert (plan.succeeded, len(plan.to_run)) == (39, 1)
    _cell(shell, "%scalable resubmit -q -o outcome")
    assert shell.user_ns["outcome"].results == [i * 10 for i in range(40)]
    assert executions(here, range(40)) == [1 + (i == 17) for i in range(40)]


def test_resubmit_names_a_function_that_has_changed(
    shell: InteractiveShell, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recorded code runs, and a notice has the option for the new code."""
    _cell(shell, "%scalable start -q")
    failing = "def work(i):\n    raise ValueError(i)\n"
    _cell(shell, f"{failing}futures = client.map(work, range(2))\nlost = futures.partial()")
    capsys.readouterr()
    _cell(shell, "def work(i):\n    return i * 10\noutcome = %scalable resubmit")
    shown = capsys.readouterr()
    assert "`work` has changed since" in shown.out + shown.err
    assert "--func work" in shown.out + shown.err
    assert len(shell.user_ns["outcome"].failures) == 2
    _cell(shell, "%scalable resubmit -q --func work -o corrected")
    assert shell.user_ns["corrected"].results == [0, 10]
