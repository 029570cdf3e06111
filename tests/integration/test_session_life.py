"""A session's life: start, attach, a vanished kernel, a dead host, the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import distributed
import psutil
import pytest
from counting import calls, mark
from distributed import as_completed, wait
from kernels import last_run, run_kernel
from waiting import until

from scalable_nb import ScalableSession, errors

Start = Callable[..., ScalableSession]


def test_the_host_is_another_process_and_listens_on_loopback_only(start: Start) -> None:
    """Scheduler and pages live in the host, bound to 127.0.0.1 and encrypted."""
    session = start()
    status = session.status()
    assert status.host_pid != os.getpid()
    host = psutil.Process(status.host_pid)
    everybody = [host, *host.children(recursive=True)]
    listening = [c.laddr.ip for p in everybody for c in p.net_connections() if c.status == "LISTEN"]
    assert set(listening) == {"127.0.0.1"}
    assert session.client.scheduler.address.startswith("tls://")  # type: ignore[union-attr]


def test_the_pages_answer_under_their_secret_prefix_only(start: Start) -> None:
    """The dashboard opens by its link; neither `/` nor the map of the site betrays it."""
    session = start()
    link = session.dashboard_link
    until(lambda: _answers(link))
    with urllib.request.urlopen(link) as page:
        assert "Dask Diagnostic UI" in page.read().decode()
    root = link.split("/s-")[0]
    for path in ("/", "/status", "/sitemap.json", "/info/main/workers.html", "/json/counts.json"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(root + path)
        with refused.value as answer:
            assert answer.code == 404


def _answers(link: str) -> bool:
    try:
        with urllib.request.urlopen(link):
            return True
    except urllib.error.HTTPError as refused:
        refused.close()
        return False


def test_files_that_hold_secrets_are_private(start: Start) -> None:
    """Nobody else may read the session's address, key and records."""
    paths = start().paths
    assert paths is not None
    private = [paths.session_json, paths.tls / "key.pem", paths.failures, paths.host_log]
    assert [path.stat().st_mode & 0o077 for path in private] == [0] * len(private)
    assert paths.folder.stat().st_mode & 0o077 == 0


def test_one_worker_process_with_threads_where_processes_is_false(
    start: Start, folder: Path
) -> None:
    """`processes: false` gives one worker process, never a worker inside the host."""
    manifest = folder / "scalable.yaml"
    manifest.write_text(
        manifest.read_text().replace("max_workers: 2", "max_workers: 2, processes: false")
    )
    session = start()
    pids = session.client.map(lambda _: os.getpid(), range(4), pure=False)
    seen = set(pids.results())
    assert len(seen) == 1
    assert session.status().host_pid not in seen
    (worker,) = session.status().workers
    assert worker["threads"] == 2


def test_another_kernel_attaches_to_a_live_run(start: Start) -> None:
    """A second connection sees the same tasks and may submit its own."""
    first = start()
    first.client.map(abs, range(-5, 0)).results()
    second = ScalableSession.attach(first.run_id)
    assert second.status().counts["succeeded"] == 5
    assert second.client.submit(abs, -7).result(timeout=30) == 7


def test_a_run_goes_on_when_its_kernel_is_killed(folder: Path) -> None:
    """SIGKILL to the kernel ends nothing: the tasks finish, then the host ends itself."""
    code = """
        import os, time
        from pathlib import Path
        from scalable_nb import ScalableSession
        def slow(x):
            time.sleep(0.3)
            (Path(os.getcwd()) / f"done-{x}").touch()
        client = ScalableSession.from_yaml().start()
        futures = client.map(slow, range(6))
        futures[0].result()
        os.kill(os.getpid(), 9)
    """
    assert run_kernel(folder, code, SCALABLE_LINGER_S="1") == -signal.SIGKILL
    until(lambda: len(list(folder.glob("done-*"))) == 6)
    paths = last_run()
    until(paths.summary_json.exists)
    assert '"succeeded": 6' in paths.summary_json.read_text()
    assert "no client and no work" in paths.summary_json.read_text()


def test_a_host_whose_folder_is_gone_works_for_nobody(folder: Path) -> None:
    """Whoever removes the folder of a run that has no kernel ends it, and its tasks."""
    code = """
        import os, time
        from pathlib import Path
        from scalable_nb import ScalableSession
        def hang():
            Path("begun").touch()
            time.sleep(600)
        future = ScalableSession.from_yaml().start().submit(hang)
        while not Path("begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), 9)
    """
    assert run_kernel(folder, code, SCALABLE_LINGER_S="1") == -signal.SIGKILL
    paths = last_run()
    host = psutil.Process(json.loads(paths.session_json.read_bytes())["pid"])
    workers = host.children(recursive=True)

    def is_gone() -> bool:
        shutil.rmtree(paths.folder, ignore_errors=True)  # the host may be writing a file there
        return not paths.folder.exists()

    until(is_gone)
    assert psutil.wait_procs([host, *workers], timeout=30)[1] == []


def test_a_dead_host_is_said_at_once(start: Start) -> None:
    """Whoever waits for a result learns within seconds that the host is gone, and what to do."""
    import time

    session = start()
    future = session.client.submit(time.sleep, 600)
    os.kill(session.status().host_pid, signal.SIGKILL)
    with pytest.raises(errors.HostDiedError, match="%scalable start"):
        future.result(timeout=20)
    with pytest.raises(errors.HostDiedError):
        session.client.submit(abs, -1)
    assert session.paths is not None
    assert not session.paths.tls.exists()  # the kernel that notices removes the private key
    session.close()
    assert session.paths.workspace.exists()
    start()  # the next start removes the rest
    assert not session.paths.workspace.exists()
    assert not session.paths.session_json.exists()


def test_results_outlive_a_killed_host_if_they_are_stored(start: Start) -> None:
    """Stored results are returned, failures keep their errors, and the rest is HostDiedError."""
    session = start()
    client = session.client

    def invert(x: int) -> float:
        return 1 / x

    named = client.map(invert, range(3), name="named")
    unnamed = client.map(abs, range(-2, 0))
    wait(named)
    wait(unnamed)
    os.kill(session.status().host_pid, signal.SIGKILL)
    lost = unnamed.partial()
    assert [type(failure.error) for failure in lost.failures] == [errors.HostDiedError] * 2
    found = named.partial()
    assert found.results == [None, 1.0, 0.5]
    assert [type(failure.error) for failure in found.failures] == [ZeroDivisionError]
    assert named[1].result(timeout=20) == 1.0
    assert named[1:].results() == [1.0, 0.5]
    with pytest.raises(errors.HostDiedError, match="%scalable start"):
        unnamed[0].result(timeout=20)
    with pytest.raises(errors.HostDiedError, match="%scalable start"):
        unnamed.results()
    with pytest.raises(ZeroDivisionError):
        named.results()
    assert client.gather([*named, *unnamed], errors="skip") == [1.0, 0.5]


def test_a_result_is_not_waited_for_after_the_kill_of_a_host(start: Start) -> None:
    """A gather that begins just when the host dies ends with HostDiedError within seconds."""
    session = start()
    futures = session.client.map(abs, range(-50, 0))
    wait(futures)
    os.kill(session.status().host_pid, signal.SIGKILL)
    for future in futures:
        with pytest.raises(errors.HostDiedError):
            future.result(timeout=10)


def test_a_start_that_fails_says_why_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error carries the last lines of the host's log, and the host is gone."""
    # A certificate folder that cannot be made: something else has its name.
    from scalable_nb.session import host_launcher

    prepare = host_launcher.prepare_run

    def prepare_badly(paths: object, *args: object) -> None:
        prepare(paths, *args)  # type: ignore[arg-type]
        paths.tls.write_text("in the way")  # type: ignore[attr-defined]

    monkeypatch.setattr(host_launcher, "prepare_run", prepare_badly)
    session = ScalableSession.from_yaml()
    with pytest.raises(errors.StartError, match=r"(?s)exit code 1\. .* RunFolderError"):
        session.start()
    assert not session.is_live


def test_start_with_another_dask_fails_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel names what is missing, and the host that it had started ends."""
    monkeypatch.delattr(distributed.Scheduler, "transitions")
    session = ScalableSession.from_yaml()
    with pytest.raises(
        errors.DaskVersionError, match=r"^.*Scheduler\.transitions is missing in .*$"
    ):
        session.start()
    assert session.paths is not None
    assert not session.paths.session_json.exists()


def test_host_with_another_dask_fails_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's log, which the error shows, has no traceback."""
    # Of the host alone: it finds the module at its start.
    code = "import distributed; del distributed.Scheduler.transitions"
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    with pytest.raises(errors.StartError, match=r"DaskVersionError: .*tested with") as caught:
        ScalableSession.from_yaml().start()
    assert "Traceback" not in str(caught.value)


def test_dask_functions_take_a_list_of_ours(start: Start) -> None:
    """`wait` and `as_completed` see the futures in what `map` gives."""
    futures = start().client.map(abs, range(-20, 0))
    done, not_done = wait(futures, timeout=30)
    assert (len(done), len(not_done)) == (20, 0)
    assert sum(future.result() for future in as_completed(futures)) == 210


def test_a_released_result_is_forgotten_and_a_cancelled_task_counted(
    start: Start, folder: Path
) -> None:
    """The host keeps nothing that a live client let go; cancelled tasks never run."""
    import time

    session = start()
    client = session.client
    futures = client.map(lambda x: mark(folder, f"c{x}") or time.sleep(0.5), range(30))
    futures[0].result(timeout=30)
    client.cancel(futures[10:])
    until(lambda: session.status().counts["cancelled"] == 20)
    futures[:10].partial()
    assert sum(calls(folder, f"c{x}") for x in range(30)) <= 12
    del futures
    until(lambda: client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0)


def test_submitting_a_failed_call_again_runs_it_again(start: Start, folder: Path) -> None:
    """An old failed future does not answer for a new call; a succeeded one does."""

    def function(x: int) -> int:
        if mark(folder, x) == 0 and x == 1:
            raise RuntimeError("the first time")
        return x

    client = start().client
    old = [client.submit(function, x) for x in (0, 1)]
    with pytest.raises(RuntimeError):
        client.gather(old)
    new = [client.submit(function, x) for x in (0, 1)]
    assert client.gather(new) == [0, 1]
    assert (calls(folder, 0), calls(folder, 1)) == (1, 2)


def test_modules_beside_the_notebook_travel(start: Start, folder: Path) -> None:
    """A function of a module in the project folder runs on the workers, helpers included."""
    (folder / "my_model.py").write_text("OFFSET = 10\ndef helper(x): return x + OFFSET\n"
                                        "def model(x): return helper(x) * 2\n")  # fmt: skip
    sys.path.insert(0, str(folder))
    try:
        import my_model  # type: ignore[import-not-found]

        assert start().client.map(my_model.model, range(3)).results() == [20, 22, 24]
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("my_model", None)


def test_coroutine_functions_are_attempts_too(start: Start, folder: Path) -> None:
    """An async function runs, fails, is retried and succeeds like any other."""

    async def function(x: int) -> int:
        if mark(folder, x) == 0:
            raise ConnectionError("not yet")
        return x

    assert start().client.map(function, range(3), retries=1).results() == [0, 1, 2]
