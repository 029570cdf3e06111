"""Kill host, kernel and workers at a random moment, resubmit, and count every call on disk.

``python -m tests.chaos.resume_kills`` does it again and again; the integration tests do a few.
One round: a script maps kept calls of random lengths and a sum over them; after a
random time some of its processes get SIGKILL; then ``resubmit(run="last")`` in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import chdir, suppress
from pathlib import Path

import psutil

from scalable_nb import resubmit
from scalable_nb.cache.store import ResultStore
from scalable_nb.errors import ScalableError
from scalable_nb.paths import RunPaths, list_runs
from scalable_nb.settings import load_settings

TASKS, THREADS = 24, 4
#: Who dies. The host always does: without it nothing goes on by itself.
VICTIMS = ("host", "host and kernel", "host, kernel and workers")

MANIFEST = """
version: 1
project: {name: chaos}
targets:
  local: {provider: local, max_workers: WORKERS, threads_per_worker: PER_WORKER}
components:
  default: {}
"""

KERNEL = f"""
import os, time
from pathlib import Path
from scalable_nb import ScalableSession, cacheable

HERE = Path.cwd()

def note(what):
    # One write of a whole line: it is there entirely or not at all.
    descriptor = os.open(HERE / "calls.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, (what + "\\n").encode())
    os.close(descriptor)

@cacheable
def work(x):
    note(f"work-{{x}}")
    time.sleep(0.02 + (x * 7919 % 13) / 100)
    return {{"x": x, "payload": bytes(1000 * x)}}

def total(parts):
    note("total")
    return sum(part["x"] for part in parts)

client = ScalableSession.from_yaml().start()
(HERE / "started").touch()
parts = client.map(work, range({TASKS}), name="parts")
whole = client.submit(total, list(parts))
(HERE / "submitted").touch()
time.sleep(600)
"""


def run_round(folder: Path, seed: int, workers: int = 2) -> str:
    """One round in an empty folder; gives what happened in words.

    Each of the workers has its part of the threads: one worker starts sooner than two.

    Raises
    ------
    AssertionError
        When a result is wrong, or a call ran again that must not.
    """
    dice = random.Random(seed)
    victims = dice.choice(VICTIMS)
    # From before the first call is recorded until after the last one is done.
    begun, delay_s = dice.randint(0, TASKS), dice.uniform(0, 0.2)
    manifest = MANIFEST.replace("PER_WORKER", str(THREADS // workers))
    (folder / "scalable.yaml").write_text(manifest.replace("WORKERS", str(workers)))
    (folder / "kernel.py").write_text(KERNEL)
    kernel = subprocess.Popen(
        [sys.executable, "kernel.py"], cwd=folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        _await((folder / "started").exists)
        _await(lambda: sum(_calls(folder).values()) >= begun)
        time.sleep(delay_s)
        with chdir(folder):
            (run,) = list_runs(load_settings().runs_dir)
            _kill(run, kernel, victims)
            stored = _stored_calls(folder)
            before = _calls(folder)
            message = _resume(folder)
    finally:
        kernel.kill()
        kernel.wait()
    after = _calls(folder)
    again = [name for name, count in after.items() if count > 1 and name != "total"]
    assert not stored & set(again), f"seed {seed}: kept results were computed again"
    assert len(again) <= THREADS, f"seed {seed}: {again} ran twice"
    assert max(after.values(), default=0) <= 2, f"seed {seed}: {after}"
    return (
        f"seed {seed}: {victims} killed when {len(before)} calls had begun and {len(stored)} were "
        f"kept, {len(again)} ran twice; {message}"
    )


def _resume(folder: Path) -> str:
    try:
        futures = resubmit(run="last")
    except ScalableError as error:
        # Killed before the first call was recorded: nothing ran, and nothing may have.
        assert not (folder / "submitted").exists(), error
        assert not _calls(folder)
        return "nothing had been called"
    with futures.session:
        *parts, whole = futures.results() if len(futures) > TASKS else [*futures.results(), None]
        assert parts == [{"x": x, "payload": bytes(1000 * x)} for x in range(TASKS)]
        assert whole in (None, sum(range(TASKS)))
        assert [part["x"] for part in futures.session.batches["parts"].results()] == list(
            range(TASKS)
        )
    return f"all {len(futures)} results are right"


def _kill(run: RunPaths, kernel: subprocess.Popen[bytes], victims: str) -> None:
    host = psutil.Process(json.loads(run.session_json.read_bytes())["pid"])
    below = host.children(recursive=True)
    to_kill = [host]
    if "workers" in victims:
        to_kill += below
    if "kernel" in victims:
        os.kill(kernel.pid, signal.SIGKILL)
    for process in to_kill:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    # Workers end by themselves when their host is gone; what they had begun may still be kept.
    _await(lambda: not any(map(_lives, [host, *below])))


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _stored_calls(folder: Path) -> set[str]:
    store = ResultStore(folder / ".scalable" / "cache")
    return {f"work-{store.get(key)['x']}" for key in store.iter_keys()}


def _calls(folder: Path) -> Counter[str]:
    path = folder / "calls.txt"
    return Counter(path.read_text().split() if path.exists() else ())


def _await(condition: object, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def main() -> None:
    """Do as many rounds as are asked for, each with a seed of its own, and tell of each."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.resume_kills")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, help="of the first round; the others follow")
    options = parser.parse_args()
    first = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    for seed in range(first, first + options.rounds):
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            print(run_round(Path(folder), seed), flush=True)


if __name__ == "__main__":
    main()
