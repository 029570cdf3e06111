"""Record the runs of this folder; see README.md.

``python record.py SOURCE VENV`` as root on Linux, with a checkout of the version to record and a
virtual environment with its dependencies. The recording happens in a mount and host name space of
its own, so that every name in the files is neutral: the project is ``/srv/demo``, the host is
``login1`` and the user is ``demo``.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROJECT = Path("/srv/demo")
TOKEN = "0123456789abcdef"


def enter(source: Path, venv: Path) -> None:
    """Run this script again where all names are neutral."""
    python = Path(sys.executable).resolve().parents[1]
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = {
        source: "/srv/source", venv: "/srv/venv", python: "/srv/python", HERE: "/srv/out",
    }  # fmt: skip
    binds = "".join(
        f"mkdir {there}; mount --bind {here} {there}\n" for here, there in folders.items()
    )
    script = (
        "set -e\nhostname login1\nmount -t tmpfs tmpfs /srv\n"
        f"{binds}mkdir -p {PROJECT} /srv/home /srv/tmp\ncd {PROJECT}\n"
        f"exec /srv/python/bin/{name} /srv/out/record.py"
    )
    environment = {
        "PATH": "/srv/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": f"/srv/source:/srv/venv/lib/{name}/site-packages",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/srv/home",
        "TMPDIR": "/srv/tmp",
        "LOGNAME": "demo",
        "DEMO_MARKS": "/srv/demo/marks",
        "LANG": "C.UTF-8",
    }
    command = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "sh", "-c", script]
    subprocess.run(command, env=environment, check=True)


MANIFEST = """\
version: 1
project: {name: demo}
targets:
  local: {provider: local, max_workers: 2, threads_per_worker: 1}
  cluster: {provider: slurm, max_workers: 2, threads_per_worker: 1, walltime: "00:10:00",
            host: job, interface: lo}
components:
  analysis: {cpus: 1, memory: 400M, tags: [small]}
tasks:
  kept: {component: analysis, keep_results: true}
  cached: {component: analysis, cache: true, version: "1"}
  limited: {component: analysis, timeout: 1s, retries: 1}
  once: {idempotent: false}
defaults: {max_identical_failures: 3, backoff: {base_s: 0.05, factor: 2, max_s: 1, jitter: 0.25}}
"""


def record() -> None:
    """Record everything into ``/srv/out``."""
    # The folder of this script is not part of the project.
    sys.path[:] = [str(PROJECT), *(entry for entry in sys.path if entry != "/srv/out")]
    Path("scalable.yaml").write_text(MANIFEST)
    Path("marks").mkdir()
    shutil.copy("/srv/out/demo_tasks.py", PROJECT)
    Path("input.csv").write_text("a,b\n1,2\n3,4\n")
    out = Path("/srv/out")
    for name in ("run", "cache", "pickles"):
        for folder in out.glob(f"{name}*"):
            shutil.rmtree(folder)
    live = record_local()
    (out / "session-live.json").write_text(live)
    record_pickles()
    record_slurm()
    for run in Path(".scalable/runs").iterdir():
        shutil.copytree(run, out / run.name)
    shutil.copytree(".scalable/cache", out / "cache")
    for name in ("input.csv", "scalable.yaml"):
        shutil.copy(name, out)
    tidy(out)


def record_local() -> str:
    """Record a run on the local target; returns ``session.json`` as it was meanwhile."""
    from scalable_nb import ScalableSession

    session = ScalableSession.from_yaml(target="local")
    client = session.start()
    client.wait_for_workers(2)
    assert session.paths is not None
    live = without_secrets(session.paths.session_json.read_text())
    # Workers die first, while they hold nothing that would be computed again.
    lose_workers(session, client)
    failed = fail(client)
    squares = succeed(client)
    cached = fill_cache(client)
    outcome = client.partial([*squares[:2], *failed[1:3]])
    Path("pickles").mkdir()
    Path("pickles/partial-result.pickle").write_bytes(pickle.dumps(outcome, protocol=5))
    pending = end_early(session, client)
    session.journals()
    session.close()
    del pending, cached
    return live


def lose_workers(session: Any, client: Any) -> None:
    """Kill workers with a task, with one that is not idempotent, and with a result."""
    import demo_tasks as demo

    from scalable_nb import TaskPolicy

    client.partial([client.submit(demo.crash, 1, key="crash", policy=TaskPolicy(worker_losses=0))])
    client.wait_for_workers(2)
    client.partial([client.submit(demo.pay, 1, key="pay-1", task="once")])
    client.wait_for_workers(2)
    lost = client.submit(demo.inc, 1, key="inc-lost")
    lost.result()
    (address,) = client.who_has(lost)[lost.key]
    (pid,) = client.run(os.getpid, workers=[address]).values()
    os.kill(pid, signal.SIGKILL)

    def is_recomputed() -> bool:
        session.journals()
        return "recomputed" in session.paths.tasks.read_text()

    until(is_recomputed)
    lost.result()
    client.wait_for_workers(2)


def fail(client: Any) -> list[Any]:
    """Fail in every category, with retries and without."""
    import demo_tasks as demo

    from scalable_nb import RetryPolicy, TaskPolicy

    quick = RetryPolicy(1, base_s=0.05)
    is_positive = TaskPolicy(validate=demo.is_positive)
    failed = [
        client.submit(demo.flaky, 1, key="flaky", retries=RetryPolicy(3, base_s=0.05)),
        client.submit(demo.unreachable, 1, key="unreachable", retries=quick),
        client.submit(demo.slow, 1, key="slow", policy=TaskPolicy(timeout_s=0.5)),
        client.submit(demo.slow, 2, key="slow-by-task", task="limited"),
        client.submit(demo.implausible, 1, key="implausible", policy=is_positive),
        client.submit(demo.odd, 1, key="odd"),
    ]
    kinds = ["file", "permission", "module", "disk", "memory", "key"]
    failed += client.map(demo.broken, kinds, name="broken")
    failed.append(client.submit(demo.total, [failed[1], 1], key="total-of-failed"))
    client.partial(failed)
    client.wait_for_workers(2)
    return failed


def succeed(client: Any) -> Any:
    """Succeed with results that are kept and that are not, with inputs and without."""
    import demo_tasks as demo
    import numpy as np
    from dask import delayed

    from scalable_nb import TaskPolicy

    def offset(x: int) -> int:
        return x + 100

    squares = client.map(demo.square, range(4), name="squares")
    tables = client.submit(demo.table, 1024, task="kept", key="table")
    client.gather(
        [
            *squares,
            client.submit(demo.total, list(squares), bonus=1, key="total-of-squares"),
            client.submit(offset, 7, key="offset", tag="small", priority=5),
            client.submit(demo.later, 1, key="later"),
            client.submit(demo.mean, np.arange(8192, dtype="float64"), key="mean-of-large"),
            client.submit(demo.mean, tables, key=("mean", 1)),
            client.submit(demo.pay, 0, key="pay-0", policy=TaskPolicy(idempotent=False)),
            client.compute(delayed(demo.inc)(41, dask_key_name="plain-inc")),
            *client.map(demo.table, [200_000], name="too-large"),
        ]
    )
    return squares


def fill_cache(client: Any) -> list[Any]:
    """Keep results, find them again, and compute one again although it is kept."""
    import demo_tasks as demo

    from scalable_nb import File

    first = [
        *client.map(demo.simulate, range(4), scale=0.5, name="sweep"),
        client.submit(demo.count_lines, File("input.csv"), key="count-lines"),
        client.submit(demo.letters, "ab", verbose=True, key="letters"),
        client.submit(demo.square, 9, task="cached", key="cached-square"),
    ]
    client.partial(first)
    again = [
        client.submit(demo.count_lines, File("input.csv"), key="count-lines-again"),
        client.submit(demo.letters, "ab", key="letters-again", refresh=True),
    ]
    client.gather(again)
    return [*first, *again]


def end_early(session: Any, client: Any) -> list[Any]:
    """Give a task up, cancel one, pause a batch, and leave three tasks unfinished."""
    import demo_tasks as demo

    from scalable_nb import RetryPolicy

    stubborn = client.submit(demo.unreachable, 2, key="given-up", retries=RetryPolicy(1, base_s=60))
    until(lambda: client.give_up([stubborn]) == 1)
    sleeping = client.submit(time.sleep, 2, key="cancelled")
    until(lambda: sleeping.key in str(client.processing()))
    client.cancel([sleeping])
    cascade = client.map(demo.cascade, range(8), name="cascade")
    until(lambda: session.status().pauses)
    session.cancel("cascade", only_paused=True)
    unfinished = [client.submit(demo.slow, x, key=f"unfinished-{x}") for x in (3, 4)]
    until(lambda: demo.count("slow-3") and demo.count("slow-4"))
    return [*cascade, *unfinished, client.submit(demo.total, unfinished, key="never-ran")]


def record_pickles() -> None:
    """Pickle what users may have pickled."""
    import cloudpickle
    import demo_tasks as demo

    from scalable_nb import Directory, File, RetryPolicy, TaskPolicy, errors

    # The session has registered the module; a notebook without one has not.
    cloudpickle.unregister_pickle_by_value(demo)
    values = {
        "file": File("input.csv"),
        "directory": Directory("marks"),
        "retry-policy": RetryPolicy(3, base_s=0.5),
        "task-policy": TaskPolicy(retries=2, timeout_s=60, retry_on="sqlite3.OperationalError"),
        "cacheable": demo.simulate,  # by name, of the project's module
    }
    made = {
        "ManifestError": ("two problems", ("scalable.yaml:3: one", "scalable.yaml:4: two")),
        "UnknownNameError": ("target", "clutser", ("cluster", "local"), "Nothing was run."),
        "NoRunError": ("run", "last", (), "`%scalable start` begins a run."),
        "BatchCommandError": (("sbatch", "job.sh"), 1, "", "sbatch: error: invalid partition"),
        "RemoteError": ("demo_tasks.OddError", "odd code 1", "Traceback: ..."),
    }
    values["errors"] = {
        name: getattr(errors, name)(*made.get(name, (f"a {name}",))) for name in errors.__all__
    }
    for name, value in values.items():
        Path(f"pickles/{name}.pickle").write_bytes(pickle.dumps(value, protocol=5))
    cloudpickle.register_pickle_by_value(demo)
    Path("pickles/cacheable-by-value.pickle").write_bytes(cloudpickle.dumps(demo.simulate))
    shutil.copytree("pickles", "/srv/out/pickles")


def record_slurm() -> None:
    """Record a run whose host and workers are jobs of a real Slurm."""
    import demo_tasks as demo

    from scalable_nb import ScalableSession
    from scalable_nb.devslurm.service import DevSlurm

    slurm = DevSlurm(Path("/srv/slurm"))
    slurm.up(nodes=2, cpus=4, memory_mb=4000, accounting=False, enforce_memory=False)
    os.environ["SLURM_CONF"] = str(slurm.layout.slurm_conf)
    try:
        session = ScalableSession.from_yaml(target="cluster")
        client = session.start()
        client.wait_for_workers(1)
        client.gather(client.map(demo.square, range(2), name="squares"))
        hung = client.submit(demo.slow, 5, key="slow")
        until(lambda: demo.count("slow-5"))
        jobs = {row["name"]: row["job_id"] for row in session.status().jobs}
        (address,) = [
            worker for worker, keys in client.processing().items() if hung.key in str(keys)
        ]
        (name,) = [w["name"] for w in session.status().workers if w["address"] == address]
        demo.marks().joinpath("repaired").touch()
        slurm.ask("scancel", jobs[name])
        assert hung.result(timeout=60) == 5
        session.close()
    finally:
        slurm.down(remove=True)


def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.05)


def without_secrets(text: str) -> str:
    """Replace the secret part of the dashboard's address by one of the same shape."""
    contact = json.loads(text)
    scheme, _, address, *prefix, page = contact["dashboard"].split("/")
    fake = ["".join(TOKEN[n % 16] for n in range(len(part))) for part in prefix]
    contact["dashboard"] = "/".join([scheme, "", address, *fake, page])
    return json.dumps(contact, indent=1)


def tidy(out: Path) -> None:
    """Remove what no test needs, and refuse what must not be published."""
    for path in [*out.glob("run-*/logs"), *out.glob("run-*/jobs"), *out.glob("cache/index*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in out.glob("run-*/calls/*.calls"):  # named by a client, whose id has the machine's
        path.rename(path.with_name("ScalableClient-00000000-0000-11f0-8000-000000000001.calls"))
    for path in out.glob("run-*/host.log"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    found = re.compile(rb"/work/|/root|PRIVATE KEY|BEGIN CERT")
    for path in out.rglob("*"):
        if path.is_file() and path.name != Path(__file__).name:
            assert not found.search(path.read_bytes()), path


if __name__ == "__main__":
    if len(sys.argv) == 3:
        enter(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
    else:
        record()
