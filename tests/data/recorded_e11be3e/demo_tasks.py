"""The functions of the recorded run: the notebook module of a project in ``/srv/demo``.

Each call leaves a mark in the folder that ``DEMO_MARKS`` names, where a test counts them. What
fails while the run is recorded succeeds once that folder has a file ``repaired``.

Do not edit this module: cache keys are made from its source.
"""

import errno
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np

from scalable_nb import cacheable


def marks():
    return Path(os.environ["DEMO_MARKS"])


def mark(name):
    with (marks() / f"calls-{name}").open("a") as file:
        file.write("x")


def count(name):
    path = marks() / f"calls-{name}"
    return path.stat().st_size if path.exists() else 0


def is_repaired():
    return (marks() / "repaired").exists()


def square(x):
    mark(f"square-{x}")
    return x * x


def total(parts, bonus=0):
    mark("total")
    return sum(parts) + bonus


async def later(x):
    mark(f"later-{x}")
    return x + 1


@cacheable(x=int, return_type=dict)
def simulate(x, scale=1.0):
    mark(f"simulate-{x}")
    if x == 2 and not is_repaired():
        raise ValueError(f"scenario {x} does not converge")
    return {"x": x, "value": x * scale}


@cacheable
def count_lines(data):
    mark("count_lines")
    return len(Path(data).read_text().splitlines())


@cacheable(version="2", ignore=["verbose"], compress=True)
def letters(text, verbose=False):
    mark(f"letters-{text}")
    return text * 100


def table(rows):
    mark("table")
    return np.arange(rows, dtype="float64")


def mean(values):
    mark("mean")
    return float(np.mean(values))


def flaky(x):
    mark(f"flaky-{x}")
    if count(f"flaky-{x}") < 3:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    return x


def unreachable(x):
    mark(f"unreachable-{x}")
    if not is_repaired():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    return x


def slow(x):
    mark(f"slow-{x}")
    if not is_repaired():
        time.sleep(600)
    return x


def crash(x):
    mark(f"crash-{x}")
    if not is_repaired():
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def pay(x):
    mark(f"pay-{x}")
    if x == 1 and not is_repaired():
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def implausible(x):
    mark(f"implausible-{x}")
    return x if is_repaired() else -x


def is_positive(result):
    return result > 0


class OddError(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, code):
        super().__init__(f"odd code {code}")
        self.lock = threading.Lock()


def odd(x):
    mark(f"odd-{x}")
    if not is_repaired():
        raise OddError(x)
    return x


def broken(kind):
    mark(f"broken-{kind}")
    if is_repaired():
        return kind
    if kind == "file":
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/srv/demo/missing.csv")
    if kind == "permission":
        raise PermissionError(errno.EACCES, "Permission denied", "/srv/demo/secret.csv")
    if kind == "module":
        raise ModuleNotFoundError("No module named 'rasterio'", name="rasterio")
    if kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "/srv/scratch/out.nc")
    if kind == "memory":
        raise MemoryError("Unable to allocate 64.0 GiB for an array")
    raise KeyError(kind)


def cascade(x):
    mark(f"cascade-{x}")
    if not is_repaired():
        raise RuntimeError(f"no licence for scenario {x}")
    return x


def inc(x):
    mark(f"inc-{x}")
    return x + 1
