"""Builds what is in `binder/` as an ordinary user in a clean folder, and runs every notebook there.

``python -m tests.binder_check`` takes repo2docker's steps in their order: Debian's packages (they
must be there already), a fresh Python environment with the requirements, `postBuild`, `start`. Like
a Binder it has two cores; what it needs of memory is measured.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import nbformat
import psutil

ROOT: Final = Path(__file__).parents[1]
#: The user of repo2docker's images.
UID: Final = 1000
MEMORY_LIMIT_BYTES: Final = 2 * 2**30
#: The Python of Debian: root's own may be in a folder that nobody else can enter.
PYTHON: Final = os.environ.get("BINDER_PYTHON", "/usr/bin/python3")

ON_SLURM: Final = """\
%load_ext scalable_nb
%scalable start --target slurm
futures = client.map(lambda number: number**2, range(20))
assert client.gather(futures) == [number**2 for number in range(20)]
client.wait_for_workers(2)
jobs = !squeue --noheader --states=RUNNING
assert len(jobs) == 2, jobs
%scalable stop"""


class Binder:
    """A clean folder with a copy of the repository, and commands that run there as in a Binder.

    Parameters
    ----------
    folder : Path
        Empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.bin = folder / "environment" / "bin"
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listing.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.repository / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.repository / name)
        (folder / "home").mkdir()
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            self._user = {"user": UID, "group": UID, "extra_groups": []}
            subprocess.run(["chown", "-R", f"{UID}:{UID}", str(folder)], check=True)

    def run(self, *command: str | Path) -> None:
        """Run a command to its end.

        Raises
        ------
        CalledProcessError
            When it fails; what it wrote stands on the terminal.
        """
        print("$", *command, flush=True)
        subprocess.run(
            command,
            cwd=self.repository,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            check=True,
            **self._user,
        )

    def _environment(self) -> Mapping[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name.lower().startswith(("pip_", "lang", "ssl_")) or name.lower().endswith("_proxy")
        }
        return {**kept, "HOME": str(self.folder / "home"), "PATH": f"{self.bin}:/usr/bin:/bin"}

    def processes(self) -> list[psutil.Process]:
        """Everything that works in the folder."""
        found = []
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("HOME") == str(self.folder / "home"):
                found.append(process)
        return found

    def memory_bytes(self) -> int:
        """What they use together; pages that several share count once."""
        total = 0
        for process in self.processes():
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue  # it has ended meanwhile
        return total


@contextmanager
def clean_binder() -> Iterator[Binder]:
    """A Binder of which nothing stays."""
    with tempfile.TemporaryDirectory(prefix="binder-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        binder = Binder(folder)
        try:
            yield binder
        finally:
            for process in binder.processes():
                process.kill()


class Gauge:
    """The most memory that a Binder used while this was open."""

    def __init__(self, binder: Binder) -> None:
        self.peak_bytes = 0
        self._binder = binder
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._measure)

    def _measure(self) -> None:
        while not self._is_over.wait(0.5):
            self.peak_bytes = max(self.peak_bytes, self._binder.memory_bytes())

    def __enter__(self) -> Gauge:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def main() -> int:
    """Build and run; the exit code is that of the first step that fails."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with clean_binder() as binder:
        _are_installed((binder.repository / "binder" / "apt.txt").read_text().split())
        binder.run(PYTHON, "-m", "venv", binder.bin.parent)
        binder.run(binder.bin / "pip", "install", "-q", "-r", "binder/requirements.txt")
        binder.run("binder/postBuild")
        return _run_notebooks(binder)


def _are_installed(packages: list[str]) -> None:
    state = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${Status}\n", *packages],
        capture_output=True,
        text=True,
        check=True,
    )
    missing = [line for line in state.stdout.splitlines() if "install ok installed" not in line]
    if missing:
        raise SystemExit(f"not installed: {missing}")


def _run_notebooks(binder: Binder) -> int:
    own = binder.repository / "notebooks" / "on_slurm.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(ON_SLURM)])
    nbformat.write(notebook, own)
    own.chmod(0o644)
    failed = []
    for path in [own, *sorted(binder.repository.glob("notebooks/[0-9]*.ipynb"))]:
        began = time.monotonic()
        with Gauge(binder) as gauge:
            try:
                command = ["jupyter", "execute", "--timeout=600", f"notebooks/{path.name}"]
                binder.run("binder/start", *command)
            except subprocess.CalledProcessError:
                failed.append(path.name)
        peak = gauge.peak_bytes
        print(f"{path.name}: {time.monotonic() - began:.0f} s, {peak / 2**20:.0f} MiB", flush=True)
        if peak > MEMORY_LIMIT_BYTES:
            failed.append(f"{path.name}: more than {MEMORY_LIMIT_BYTES / 2**30:.0f} GiB of memory")
        binder.run("python", "-m", "scalable_nb.devslurm", "down", "--remove")
    left = [" ".join(process.cmdline()) for process in binder.processes()]
    for problem in failed + left:
        print("binder-check:", problem, file=sys.stderr)
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
