"""The command that a batch job runs: Dask's ``dask worker``, under our nanny.

``python -m scalable_nb.worker.command ADDRESS [options]`` takes the options of ``dask worker``.
Other than there, the nanny is `ScalableNanny`, the HTTP pages of a worker do not exist, and a
SIGTERM lets what is executing end before the job does, as far as the batch system waits.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any, Final

import dask
import psutil
from distributed.comm import get_address_host
from distributed.utils import get_ip

from scalable_nb.dask_adapter import compatibility
from scalable_nb.dask_adapter.cluster import DASK_CONFIG
from scalable_nb.dask_adapter.scratch import node_scratch, private_scratch
from scalable_nb.dask_adapter.worker_hooks import parse_worker_options, split_ports
from scalable_nb.errors import DaskVersionError, RunFolderError
from scalable_nb.protocol.messages import JobBegan
from scalable_nb.protocol.operations import Operation, offer
from scalable_nb.protocol.wire import call_remote
from scalable_nb.trusted_paths import read_regular
from scalable_nb.worker.nanny import ScalableNanny
from scalable_nb.worker.plugin import TERM_VARIABLE

logger = logging.getLogger(__name__)

#: How long executing tasks may go on after SIGTERM. Slurm's default is to wait 30 s (KillWait).
TERM_GRACE_S: Final = 25.0
_LOOK_INTERVAL_S: Final = 0.1

# Options of `dask worker` that have another name or form as an argument of a nanny, or no meaning.
_TRANSLATED: Final = frozenset(
    {
        "dashboard",
        "dashboard_address",
        "dashboard_prefix",
        "n_workers",
        "name",
        "nanny",
        "nanny_port",
        "nthreads",
        "pid_file",
        "resources",
        "scheduler",
        "tls_ca_file",
        "tls_cert",
        "tls_key",
        "worker_class",
        "worker_port",
    }
)


def nanny_arguments(words: list[str]) -> Iterator[dict[str, Any]]:
    """Arguments of `ScalableNanny`, one set for each worker of the job.

    Parameters
    ----------
    words : list of str
        As after ``dask worker``, and ``--component NAME``: whose tasks it takes.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--component", default="")
    own, words = parser.parse_known_args(words)
    given = parse_worker_options(words)
    count = int(given["n_workers"] or 1)
    threads = given["nthreads"] or 1
    shared = {name: value for name, value in given.items() if name not in _TRANSLATED}
    if not (given["host"] or given["interface"] or given["listen_address"]):
        # The one address through which the scheduler is reached, not all of the machine's.
        shared["host"] = get_ip(get_address_host(given["scheduler"]))
    for number, own_ports in enumerate(split_ports(given, count)):
        yield {
            "scheduler_ip": given["scheduler"],
            "name": given["name"] if count == 1 else f"{given['name']}-{number}",
            "nthreads": threads,
            "resources": {
                "slots": threads,
                **offer(own.component),
                **_resources(given["resources"]),
            },
            "security": {
                "require_encryption": True,
                # Their contents: a worker that is restarted reads no file again.
                "tls_ca_file": _read(given["tls_ca_file"]),
                "tls_worker_cert": _read(given["tls_cert"]),
                "tls_worker_key": _read(given["tls_key"]),
            },
            "env": {TERM_VARIABLE: "1"},
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
            **shared,
            **own_ports,
        }


def _read(path: str | None) -> str | None:
    return None if path is None else read_regular(Path(path)).decode()


def _resources(text: str | None) -> dict[str, float]:
    pairs = (pair.rpartition("=") for pair in (text or "").replace(",", " ").split())
    return {name: float(amount) for name, _, amount in pairs}


async def serve(arguments: list[dict[str, Any]]) -> None:
    """Run nannies until their workers have ended or a signal comes."""
    loop = asyncio.get_running_loop()
    term = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, term.set)
    nannies = [ScalableNanny(**values) for values in arguments]
    working = asyncio.ensure_future(_until_finished(nannies))
    ending = asyncio.ensure_future(term.wait())
    await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
    if term.is_set():
        await asyncio.gather(*map(_leave, nannies))
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
    else:
        ending.cancel()
        working.result()


async def _until_finished(nannies: list[ScalableNanny]) -> None:
    await asyncio.gather(*nannies)
    # How long ago, not when: the clocks of two machines differ.
    age_s = time() - psutil.Process().create_time()
    message = JobBegan(str(nannies[0].name), age_s)
    await call_remote(nannies[0].scheduler, Operation.JOB_BEGAN, message)
    await asyncio.gather(*(nanny.finished() for nanny in nannies))


async def _leave(nanny: ScalableNanny) -> None:
    """Let what is executing end, and close."""
    if await nanny.announce_end():
        deadline = time() + TERM_GRACE_S
        while nanny.is_executing() and time() < deadline:
            await asyncio.sleep(_LOOK_INTERVAL_S)
        await nanny.hand_over()
    await nanny.close(timeout=1, reason="signal-SIGTERM")


def main() -> None:
    """Be the worker, or the workers, of a job."""
    try:
        compatibility.check((*compatibility.NAMES, *compatibility.WORKER_COMMAND))
    except DaskVersionError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    with dask.config.set(DASK_CONFIG):
        arguments = list(nanny_arguments(sys.argv[1:]))
        base = Path(arguments[0].get("local_directory") or node_scratch())
        try:
            with private_scratch(base) as scratch:
                own = {"local_directory": str(scratch)}
                asyncio.run(serve([{**values, **own} for values in arguments]))
        except RunFolderError as error:
            sys.exit(f"{type(error).__name__}: {error}")
        except TimeoutError:
            # The nanny has said it: no scheduler answered within the death timeout.
            sys.exit(1)
        finally:
            logger.info("the worker of this job has ended")


if __name__ == "__main__":
    main()
