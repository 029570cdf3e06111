"""The project that commit e11be3e recorded: its runs, cache and pickles, copied for a test."""

from __future__ import annotations

import pickle
import pickletools
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from zlib import crc32

RECORDED: Final = Path(__file__).parent / "data" / "recorded_e11be3e"

#: Where the project was when it was recorded. Recorded calls name their result folders by it.
RECORDED_AT: Final = "/srv/demo"

# Written down again, apart from the code that reads it: this is the format of the file.
_FRAME: Final = struct.Struct("<4sQI")


def copy_project(folder: Path) -> Path:
    """Copy the recorded project, as if it had always been in this folder.

    Parameters
    ----------
    folder : Path
        An empty folder: gets the manifest, the module, the input, and all runs and results in
        ``.scalable``.
    """
    for name in ("scalable.yaml", "demo_tasks.py", "input.csv"):
        shutil.copy(RECORDED / name, folder)
    scalable = folder / ".scalable"
    for run in RECORDED.glob("run-*"):
        shutil.copytree(run, scalable / "runs" / run.name)
    shutil.copytree(RECORDED / "cache", scalable / "cache")
    # Git keeps no modes; what others may write is refused.
    for path in (scalable, *scalable.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    for path in scalable.glob("runs/*/calls/*.calls"):
        path.write_bytes(_moved(path.read_bytes(), str(folder)))
    return folder


def recorded_runs(project: Path) -> tuple[Path, Path]:
    """Return the folders of the local run and of the run on Slurm."""
    local, cluster = sorted(path.name for path in RECORDED.glob("run-*"))
    runs = project / ".scalable" / "runs"
    return runs / local, runs / cluster


def entries(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the entries of a call record."""
    position = 0
    while position < len(data):
        mark, length, checksum = _FRAME.unpack_from(data, position)
        position += _FRAME.size
        body = data[position : position + length]
        assert (mark, checksum) == (b"CALL", crc32(body))
        position += length
        yield pickle.loads(body)


def pickled_names(data: bytes) -> set[str]:
    """Return the global names in a pickle, as ``module:name``, without unpickling it."""
    memo: dict[int, str | None] = {}
    pushed: list[str | None] = []
    found = set()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "MEMOIZE":
            memo[len(memo)] = pushed[-1]
        elif opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = pushed[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            pushed.append(memo[argument])
        elif opcode.name == "STACK_GLOBAL":
            found.add(f"{pushed[-2]}:{pushed[-1]}")
            pushed.append(None)
        elif opcode.name == "GLOBAL":
            found.add(argument.replace(" ", ":"))
            pushed.append(None)
        elif opcode.name != "FRAME":
            pushed.append(argument if isinstance(argument, str) else None)
    return found


def _moved(data: bytes, folder: str) -> bytes:
    """Rewrite the result folders in a call record."""
    return b"".join(framed(_with_store(entry, folder)) for entry in entries(data))


def _with_store(entry: dict[str, Any], folder: str) -> dict[str, Any]:
    if entry["kind"] == "batch" and "store" in entry["values"]["wire"]:
        wire = entry["values"]["wire"]
        wire["store"] = wire["store"].replace(RECORDED_AT, folder, 1)
    return entry


def framed(entry: object) -> bytes:
    """Return an entry of a call record as it was written then."""
    body = pickle.dumps(entry, protocol=5)
    return _FRAME.pack(b"CALL", len(body), crc32(body)) + body
