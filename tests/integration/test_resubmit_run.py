"""Kernel and host are gone: the run goes on from its folder."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import calls, mark
from kernels import kill_host, last_run, run_kernel, start_kernel
from waiting import until

from scalable_nb import ScalableSession, errors, resubmit
from scalable_nb.cache.maintenance import cache_info
from scalable_nb.cache.store import ResultStore
from scalable_nb.resubmission.resubmit_plan import ResubmitPlan
from scalable_nb.session.session import live_sessions

Start = Callable[..., ScalableSession]

#: Ten calls: 0-3 are done, 4 failed, 5 is running when all dies, 6-9 never ran.
HALFWAY = """
    import os, time
    from pathlib import Path
    from counting import mark
    from scalable_nb import ScalableSession, cacheable

    HERE = Path.cwd()

    @cacheable
    def simulate(x):
        mark(HERE, f"simulate-{x}")
        if x == 4 and not (HERE / "repaired").exists():
            raise ValueError("number four")
        if x == 5 and not (HERE / "repaired").exists():
            (HERE / "halfway").touch()
            time.sleep(600)
        return {"x": x, "square": x * x}

    def total(parts):
        mark(HERE, "total")
        return sum(part["square"] for part in parts)

    if __name__ == "__main__":
        session = ScalableSession.from_yaml()
        client = session.start()
        futures = client.map(simulate, range(10), name="sweep", resources={"slots": 1})
        sum_of_all = client.submit(total, list(futures))
        time.sleep(600)
"""


def die_halfway(folder: Path) -> None:
    """Run the script above, and kill the kernel and the host while number five runs."""
    manifest = folder / "scalable.yaml"
    manifest.write_text(manifest.read_text().replace("max_workers: 2", "max_workers: 1"))
    kernel = start_kernel(folder, HALFWAY)
    until((folder / "halfway").exists, timeout_s=60)
    until(lambda: b'"failed"' in last_run().tasks.read_bytes())
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    kill_host(last_run())
    (folder / "repaired").touch()


def test_a_run_goes_on_from_its_folder(start: Start, folder: Path) -> None:
    """What is kept is taken, the rest runs, also what never ran and what takes its results."""
    die_halfway(folder)
    plan = resubmit(run="last", dry_run=True)
    assert isinstance(plan, ResubmitPlan)
    assert re.match(r"4 from cache, 2 to run again, 5 never ran, about \S+ core-hours", str(plan))

    futures = resubmit(run="last")
    session = futures.session
    assert session in live_sessions()
    *squares, total = futures.results()
    assert squares == [{"x": x, "square": x * x} for x in range(10)]
    assert total == sum(x * x for x in range(10))
    counted = [calls(folder, f"simulate-{x}") for x in range(10)]
    assert counted == [1, 1, 1, 1, 2, 2, 1, 1, 1, 1]
    assert session.batches["sweep"].results() == squares
    counts = session.status().counts
    assert (counts["cached"], counts["succeeded"]) == (4, 7)
    # A result that is kept after all is one of the same function.
    ((function, (count, _)),) = cache_info(
        ResultStore(session.settings.cache_dir)
    ).by_function.items()
    assert (function.rpartition(".")[2], count) == ("simulate", 10)

    # The new run is the last one now, and everything in it is there.
    again = resubmit(run="last")
    assert again.results() == [*squares, total]
    assert [calls(folder, f"simulate-{x}") for x in range(10)] == counted


def test_corrected_code_and_other_terms(
    start: Start, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`func=` runs in the places of what failed or never ran; `only=` leaves the rest out."""
    die_halfway(folder)

    def simulate(x: int) -> dict[str, int]:
        return {"x": x, "square": -1}

    start()
    futures = resubmit(run="last", only="ValueError", func=simulate, retries=1, timeout_s=60)
    outcome = futures.partial()
    assert [result and result["square"] for result in outcome.results[:10]] == [
        *(0, 1, 4, 9, -1),
        *(None,) * 5,
    ]
    assert {failure.failure_class for failure in outcome.failures} == {"LeftOutError"}
    assert "not chosen by only=" in str(outcome.failures[0])
    assert len(live_sessions()) == 1  # the one that was live is used
    with pytest.raises(errors.UnknownNameError, match="KeyError"):
        resubmit(run=str(last_run().run_id), only="KeyError")


#: Takes a run over, and is killed when the first of its batches is recorded.
TORN = """
    import os
    from scalable_nb import resubmit
    from scalable_nb.client.submitter import Submitter

    sent, send = [], Submitter.submit_packed

    def die_at_the_second(*args, **options):
        if sent:
            os.kill(os.getpid(), 9)
        sent.append(args)
        return send(*args, **options)

    Submitter.submit_packed = die_at_the_second
    resubmit(run="last")
"""


def test_a_notebook_whose_host_died_goes_on(start: Start, folder: Path) -> None:
    """Another host is started, here with more memory; a torn attempt before it loses nothing."""

    def square(x: int) -> int:
        mark(folder, f"square-{x}")
        return x * x

    session = start()
    squares = session.client.map(square, range(6), name="squares")
    assert session.client.submit(sum, list(squares)).result() == 55
    assert session.paths is not None
    kill_host(session.paths)
    assert run_kernel(folder, TORN) == -signal.SIGKILL
    assert last_run().run_id != session.run_id
    kill_host(last_run())

    futures = resubmit(run="last", memory="500M")
    futures.session.client.wait_for_workers(1)
    assert futures.session.status().workers[0]["memory_limit_bytes"] == 500_000_000
    assert futures.results() == [*(x * x for x in range(6)), 55]
    assert [calls(folder, f"square-{x}") for x in range(6)] == [1] * 6
    assert live_sessions() == [futures.session]
    assert str(resubmit(run="last", dry_run=True)).startswith("7 results are there")


def test_secrets_are_kept_out_and_said(folder: Path) -> None:
    """With `record_args: false` no byte of an argument is in the run folder."""
    manifest = folder / "scalable.yaml"
    manifest.write_text(manifest.read_text().replace("{backoff:", "{record_args: false, backoff:"))
    code = """
        import os
        from scalable_nb import ScalableSession
        def login(password, fails):
            if fails:
                raise RuntimeError("refused")
            return len(password)
        client = ScalableSession.from_yaml().start()
        futures = client.map(login, ["open sesame"] * 2, [False, True], name="logins")
        futures.partial()
        os.kill(os.getpid(), 9)
    """
    assert run_kernel(folder, code) == -signal.SIGKILL
    paths = last_run()
    kill_host(paths)
    # Functions are the person's own text; here the script names the password itself.
    found = [p for p in paths.folder.rglob("*") if p.is_file() and b"sesame" in p.read_bytes()]
    assert found == []
    plan = resubmit(run="last", dry_run=True)
    assert "1 from cache" in str(plan)
    assert "1 left out (its arguments were not recorded)" in str(plan)


def test_a_task_that_must_not_run_twice_is_left_out(start: Start, folder: Path) -> None:
    """Nobody knows whether it ran: it is named in the plan, and runs only when it is named."""
    code = """
        import os, time
        from pathlib import Path
        from counting import mark
        from scalable_nb import ScalableSession, TaskPolicy
        HERE = Path.cwd()
        def pay(x):
            mark(HERE, f"pay-{x}")
            if x and not (HERE / "repaired").exists():
                (HERE / "paying").touch()
                time.sleep(600)
            return x
        client = ScalableSession.from_yaml().start()
        keys = [f"pay-{x}" for x in range(2)]
        futures = client.map(pay, range(2), key=keys, policy=TaskPolicy(idempotent=False))
        time.sleep(600)
    """
    kernel = start_kernel(folder, code)
    until((folder / "paying").exists, timeout_s=60)
    until(lambda: b'"succeeded"' in last_run().tasks.read_bytes())
    kernel.kill()
    kernel.wait()
    kill_host(last_run())
    (folder / "repaired").touch()
    run = last_run().run_id
    assert "1 from cache" in str(resubmit(run=run, dry_run=True))
    assert "1 left out (not idempotent)" in str(resubmit(run=run, dry_run=True))
    start()
    futures = resubmit(run=run)
    assert futures[0].result() == 0
    assert (calls(folder, "pay-0"), calls(folder, "pay-1")) == (1, 1)
