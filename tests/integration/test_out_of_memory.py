"""Too little memory, whoever notices it: the nanny, the kernel or Python itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scalable_nb import ScalableSession, TaskPolicy, errors

Start = Callable[..., ScalableSession]
ONCE = TaskPolicy(worker_losses=0)
_LIMIT_BYTES = 900_000_000


@pytest.fixture
def small_machine() -> Iterator[Callable[[], None]]:
    """Limit what is started from here to 900 MB, all together; yield a function that leaves.

    Else the kernel may kill the process of the tests as well, before a worker's memory is free.
    """
    group = Path(f"/sys/fs/cgroup/memory/scalable-test-{os.getpid()}")
    entries = [line.split(":") for line in Path("/proc/self/cgroup").read_text().splitlines()]
    here = next(("memory" + path for _, kind, path in entries if kind == "memory"), None)
    if here is None or os.getuid() != 0:
        pytest.skip("making a control group for memory takes root and cgroup v1")
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(_LIMIT_BYTES))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    home = Path("/sys/fs/cgroup", here, "cgroup.procs")

    def leave() -> None:
        home.write_text(str(os.getpid()))

    yield leave
    for pid in (group / "cgroup.procs").read_text().split():
        home.write_text(pid)
    group.rmdir()


def test_the_kernel_is_named_when_it_was_the_kernel(
    small_machine: Callable[[], None], folder: Path, start: Start
) -> None:
    """A worker below its own limit that the kernel ends is out of memory, not just killed."""
    manifest = folder / "scalable.yaml"
    manifest.write_text(manifest.read_text().replace("memory: 400M", "memory: 8G"))
    session = start()
    small_machine()

    def greedy(megabytes: int) -> int:
        held = bytearray(megabytes * 1_000_000)
        held[::4096] = b"x" * len(held[::4096])  # memory counts once it is touched
        return len(held)

    future = session.client.submit(greedy, 2_000, policy=ONCE)
    with pytest.raises(MemoryError, match="by the kernel for want of memory"):
        future.result(timeout=90)
    (row,) = session.client.attempts(future)
    assert (row["failure_class"], row["category"]) == ("OutOfMemoryError", "resource")
    assert abs((row["memory_limit_bytes"] or 0) - _LIMIT_BYTES) < 10_000
    assert session.client.submit(abs, -1).result(timeout=60) == 1


def test_a_memory_error_of_pythons_own_keeps_its_worker(shared_session: ScalableSession) -> None:
    """An array that cannot be had at all is an error of the task, retried as asked for."""
    future = shared_session.client.submit(bytearray, 2**62, retries=1, policy=ONCE)
    with pytest.raises(MemoryError):
        future.result(timeout=60)
    assert not isinstance(future.exception(), errors.WorkerLostError)
    rows = shared_session.client.attempts(future)
    assert [row["category"] for row in rows] == ["resource"] * 2
