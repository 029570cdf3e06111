"""What Slurm's commands and a job's output say, read as facts (texts of a Slurm 22.05)."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.batch_system.slurm_query import (
    parse_log,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
)

MEBI = 2**20


def test_squeue_tells_why_a_job_waits_and_when_it_may_start() -> None:
    """A pending job has its reason and Slurm's estimate; a running one its node, start and end."""
    jobs = parse_squeue(
        "7|PENDING|Resources|1795692287|n/a|0:00|N/A\n"
        "8|PENDING|Priority|N/A|n/a|0:00|N/A\n"
        "9|RUNNING|None|1795692245|n1|1-02:03:04|1795799999\n"
    )
    assert (jobs["7"].reason, jobs["7"].estimated_start_at) == ("Resources", 1795692287.0)
    assert (jobs["8"].reason, jobs["8"].estimated_start_at) == ("Priority", None)
    assert jobs["7"].node is None
    running = jobs["9"]
    assert (running.state, running.reason, running.node) == ("RUNNING", None, "n1")
    assert (running.started_at, running.estimated_start_at) == (1795692245.0, None)
    assert (running.ends_at, jobs["7"].ends_at) == (1795799999.0, None)
    assert running.elapsed_s == ((24 + 2) * 60 + 3) * 60 + 4


def test_what_a_centre_adds_to_the_answer_is_passed_over() -> None:
    """Wrappers around Slurm's commands print greetings and warnings."""
    assert set(parse_squeue("Welcome to Ada | the cluster\n\n9|RUNNING|None|1|n1|0:01|5\n")) == {
        "9"
    }
    assert set(parse_sacct("Welcome to Ada | the cluster\n\n8|FAILED|3:0|0||n1|5|6\n")) == {"8"}


def test_sacct_tells_of_each_run_of_a_job() -> None:
    """A preempted job that ran again and was cancelled has two runs, each with its own end."""
    first, second = parse_sacct(
        "4|PREEMPTED|0:0|3||n[1-2]|1795692290|1795692293\n"
        "4.batch|CANCELLED|0:15|3|56169K|n1|1795692290|1795692293\n"
        "4|CANCELLED by 0|0:0|0||n[1-2]|1795692299|1795692301\n"
        "4.batch|CANCELLED|0:15|0||n1|1795692299|1795692301\n"
    )["4"]
    assert (first.state, first.exit_code, first.signal) == ("PREEMPTED", None, 15)
    assert (first.max_rss_bytes, first.node, first.elapsed_s) == (56169 * 1024, "n1", 3.0)
    assert (first.started_at, first.ended_at) == (1795692290.0, 1795692293.0)
    assert (second.state, second.max_rss_bytes) == ("CANCELLED", None)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("8|FAILED|3:0|0||n1|5|6\n8.batch|FAILED|3:0|0||n1|5|6", (3, None)),
        ("7|COMPLETED|0:0|2||n1|5|7\n7.batch|COMPLETED|0:0|2|410K|n1|5|7", (0, None)),
        ("6|NODE_FAIL|0:0|3||n1|5|8\n6.batch|CANCELLED||3||n1|5|8", (None, None)),
        ("9|FAILED|0:9|1||n1|5|6\n9.batch|CANCELLED by 0|0:9|1|495886K|n1|5|6", (None, 9)),
        (
            "5|OUT_OF_MEMORY|0:125|9||n1|5|14\n5.batch|OUT_OF_MEMORY|0:125|9|9K|n1|5|14",
            (None, None),
        ),
    ],
)
def test_an_exit_code_is_no_signal(lines: str, expected: tuple[int | None, int | None]) -> None:
    """``code:signal`` is told apart, and the script's own stands before the job's 0:0."""
    ((facts,),) = parse_sacct(lines).values()
    assert (facts.exit_code, facts.signal) == expected


def test_a_job_that_accounting_has_only_heard_of_has_not_ended() -> None:
    """A record that lags behind says PENDING, and has no end."""
    (facts,) = parse_sacct("1|PENDING|0:0|3||None assigned|Unknown|Unknown")["1"]
    assert not facts.has_ended
    assert (facts.started_at, facts.ended_at, facts.node) == (None, None, None)


def test_scontrol_tells_the_last_run_of_all_jobs() -> None:
    """State, reason, exit code and host; text that is no job is passed over."""
    jobs = parse_scontrol(
        "JobId=2 JobName=a=b UserId=ada(1) JobState=TIMEOUT Reason=TimeLimit Restarts=0 "
        "ExitCode=0:15 RunTime=00:00:24 StartTime=1795692251 EndTime=1795692275 NodeList=n1 "
        "BatchHost=n1 WorkDir=/work\n"
        "JobId=3 JobState=PENDING Reason=BeginTime Restarts=1 ExitCode=0:0 RunTime=00:00:00 "
        "StartTime=1795692287 EndTime=Unknown NodeList= \n"
        "No jobs in the system\n"
    )
    ended, waiting = jobs["2"], jobs["3"]
    assert (ended.state, ended.reason, ended.signal, ended.node) == (
        "TIMEOUT",
        "TimeLimit",
        15,
        "n1",
    )
    assert (ended.elapsed_s, ended.ended_at) == (24.0, 1795692275.0)
    assert (waiting.started_at, waiting.estimated_start_at) == (None, 1795692287.0)
    assert set(jobs) == {"2", "3"}


AT = "2026-11-26T11:24:41"
SINCE = datetime.fromisoformat(AT).timestamp() - 10
OOM_KILL = (
    "slurmstepd-n1: error: Detected 1 oom_kill event in StepId=9.batch. "
    "Some of the step tasks have been OOM Killed."
)


@pytest.mark.parametrize(
    ("why", "state"),
    [
        ("", "CANCELLED"),
        (" DUE TO TIME LIMIT", "TIMEOUT"),
        (" DUE TO PREEMPTION", "PREEMPTED"),
        (" DUE TO JOB REQUEUE", "REQUEUED"),
        (" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS", "NODE_FAIL"),
    ],
)
def test_a_log_says_why_its_job_ended(why: str, state: str) -> None:
    """The step daemon's last line names the job, the node and the reason."""
    line = f"slurmstepd-n1: error: *** JOB 75 ON n1 CANCELLED AT {AT}{why} ***"
    facts = parse_log(["begun", line], "75", SINCE)
    assert (facts.state, facts.node, facts.ended_at) == (state, "n1", SINCE + 10)
    assert facts.log_tail == ("begun", line)
    assert parse_log([line], "76", SINCE).state == ""


def test_the_end_of_an_earlier_run_does_not_count() -> None:
    """Where a requeued job goes on in the same log, only what came after the worker counts."""
    line = f"slurmstepd-n1: error: *** JOB 75 ON n1 CANCELLED AT {AT} DUE TO PREEMPTION ***"
    assert parse_log([line, "begun again"], "75", SINCE + 60).state == ""


def test_what_only_looks_like_such_a_line_is_passed_over() -> None:
    """A task may print a time that is none."""
    line = "*** JOB 75 ON n1 CANCELLED AT 2026-99-99T00:00:00 DUE TO TIME LIMIT ***"
    assert parse_log([line], "75", SINCE).state == ""


def test_a_log_tells_of_a_kill_for_memory() -> None:
    """What was used, and the limit, whatever the job's state says."""
    killed = "slurmstepd-n1: error: StepId=9.batch exceeded memory limit (507787264 > 314572800)"
    facts = parse_log([f"{killed}, being killed"], "9", SINCE)
    assert facts.is_out_of_memory
    assert (facts.max_rss_bytes, facts.memory_limit_bytes) == (507787264, 300 * MEBI)
    assert parse_log([OOM_KILL], "9", 0).is_out_of_memory


def test_a_process_that_was_killed_long_before_is_not_why_a_job_ended() -> None:
    """Slurm counts the kernel's kills at the job's end, whatever that came from."""
    line = f"slurmstepd-n1: error: *** JOB 9 ON n1 CANCELLED AT {AT} DUE TO PREEMPTION ***"
    facts = parse_log([line, OOM_KILL], "9", SINCE)
    assert (facts.state, facts.is_out_of_memory) == ("PREEMPTED", False)


def test_slurms_own_word_for_out_of_memory() -> None:
    """Where cgroups hold the limit, accounting and controller say OUT_OF_MEMORY."""
    ((recorded,),) = parse_sacct(
        "5|OUT_OF_MEMORY|0:125|9||n1|1795692245|1795692254\n"
        "5.batch|OUT_OF_MEMORY|0:125|9|307200K|n1|1795692245|1795692254"
    ).values()
    assert (recorded.state, recorded.is_out_of_memory) == ("OUT_OF_MEMORY", True)
    assert (recorded.max_rss_bytes, recorded.elapsed_s) == (300 * MEBI, 9.0)
    remembered = parse_scontrol(
        "JobId=5 JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:125 RunTime=00:00:09 "
        "StartTime=1795692245 EndTime=1795692254 BatchHost=n1"
    )["5"]
    assert remembered.is_out_of_memory
    assert remembered.has_ended
    assert remembered.signal is None


@given(st.lists(st.text()), st.integers(0, 10**9))
def test_any_output_is_readable(lines: list[str], since: int) -> None:
    """A task may print whatever it likes into the log of its job."""
    assert parse_log(lines, "1", float(since)).log_tail == tuple(lines)
