"""Several users in one test: the suite runs as root, and a child process becomes another user."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: Users without an account.
ALICE, MALLORY = 24_601, 24_666


@pytest.fixture
def commons() -> Iterator[Path]:
    """A folder of root that all users may enter; pytest's own is private."""
    if os.getuid():
        pytest.skip("only root can become another user")
    folder = Path(tempfile.mkdtemp(prefix="commons-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def run_as(uid: int, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function as another user, in a fork of this process; return or raise its outcome."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        os.umask(0o022)
        try:
            outcome = (True, function(*args))
        except Exception as error:
            outcome = (False, error)
        with os.fdopen(writing, "wb") as file:
            pickle.dump(outcome, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    is_value, outcome = pickle.loads(data)
    if not is_value:
        raise outcome
    return outcome


def make_for(uid: int, folder: Path, mode: int = 0o700) -> Path:
    """Make a folder that belongs to a user."""
    folder.mkdir(parents=True)
    os.chown(folder, uid, uid)
    folder.chmod(mode)
    return folder
