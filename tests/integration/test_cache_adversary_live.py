"""Random programs with one mutation never get a wrong result from live workers."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from cache_adversary import ARGUMENT, write_sources
from cache_programs import Program, programs
from hypothesis import HealthCheck, Phase, given, seed, settings

from scalable_nb import ScalableSession, cacheable
from scalable_nb.cache.function import CacheWarning
from scalable_nb.cache.store import ResultStore
from scalable_nb.client.user_code.kernel_sources import StaleModuleWarning

# Set these variables to try other programs.
FUZZ_SEED = int(os.environ.get("FUZZ_SEED", "20261130"))
FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "30"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on `sys.path`; its modules are removed from `sys.modules` after the test."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        module = sys.modules.pop(name)
        if name in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.unregister_pickle_by_value(module)


class LiveProgram:
    """A program with unique names of its modules, run by a session.

    Parameters
    ----------
    program : Program
    number : int
        Part of the names of the modules.
    folder : Path
        For the files of the modules.
    session : ScalableSession
    """

    def __init__(
        self, program: Program, number: int, folder: Path, session: ScalableSession
    ) -> None:
        self.program = _renamed(program, number)
        self.errors: list[str] = []
        self.is_reported = False
        self._folder = folder
        self._session = session

    def mutate(self) -> None:
        """Make the mutation; an edit reaches the kernel at the next `load`."""
        module, statement = self.program.statement
        if statement:
            exec(statement, vars(sys.modules[module]))
        write_sources(self._folder, self.program.edited)
        importlib.invalidate_caches()

    def load(self) -> None:
        """Import the modules from their files."""
        write_sources(self._folder, self.program.sources)
        self.reload()

    def reload(self) -> None:
        """Import the modules again, as the next process would."""
        for name, _ in self.program.sources:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        importlib.import_module(self._work)

    def answer_of_worker(self) -> str:
        """Return the answer of a worker or the cache; note reports and errors."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                run = cacheable(self._module().run)
                answer = repr(self._session.client.submit(run, ARGUMENT).result(timeout=60))
            except TimeoutError:
                raise
            except Exception as error:  # not all data can travel to a worker
                self.errors.append(f"{type(error).__name__}: {error}")
                answer = ""
        kinds = (CacheWarning, StaleModuleWarning)
        self.is_reported |= any(issubclass(each.category, kinds) for each in caught)
        return answer

    def answer_of_kernel(self) -> str:
        """Return the answer without a cache."""
        return repr(self._module().run(ARGUMENT))

    @property
    def _work(self) -> str:
        return self.program.sources[0][0]

    def _module(self) -> Any:
        return sys.modules[self._work]


def _renamed(program: Program, number: int) -> Program:
    """Return a program whose modules have the number in their names."""

    def rename(text: str) -> str:
        return re.sub(r"\b(work|tools)\b", rf"\1_{number}", text)

    return replace(
        program,
        sources=tuple((rename(name), rename(text)) for name, text in program.sources),
        edited=tuple((rename(name), rename(text)) for name, text in program.edited),
        statement=(rename(program.statement[0]), program.statement[1]),
    )


def test_no_program_gets_a_wrong_result(shared_session: ScalableSession, place: Path) -> None:
    """Each answer equals the kernel's own, or the call was reported as not cached."""
    numbers = itertools.count()
    errors: list[str] = []
    compared: list[Program] = []

    @seed(FUZZ_SEED)
    @settings(
        max_examples=FUZZ_EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(programs().filter(lambda program: not any(h.is_opaque for h in program.holders)))
    def attack(program: Program) -> None:
        live = LiveProgram(program, next(numbers), place, shared_session)
        live.load()
        live.answer_of_worker()
        live.mutate()
        if not program.statement[1]:
            if program.is_stale:
                live.answer_of_worker()  # what is stored now has the code that is loaded
                live.is_reported = False
            live.reload()
        answer = live.answer_of_worker()
        errors.extend(live.errors)
        if not live.errors and not live.is_reported:
            assert answer == live.answer_of_kernel(), repr(live.program)
            compared.append(program)

    attack()
    print("\n".join(errors))
    assert len(compared) > FUZZ_EXAMPLES // 2


HOLDING = """
import threading

class Settings: ...

lock = threading.Lock()
settings = Settings()
settings.factor, settings.lock = 2, lock

def scale(x):
    return settings.factor * x

def locked(x):
    with lock:
        return 2 * x
"""


def test_data_that_workers_import_is_in_no_cached_result(
    shared_session: ScalableSession, place: Path
) -> None:
    """The kernel's data next to a lock cannot travel; a lock alone has no data."""
    (place / "holding.py").write_text(HOLDING)
    importlib.invalidate_caches()
    holding = importlib.import_module("holding")
    client = shared_session.client
    scale, locked = cacheable(holding.scale), cacheable(holding.locked)
    holding.settings.factor = 11
    with pytest.warns(CacheWarning, match=r"scale\(\) is not cached: holding\.settings, Settings,"):
        client.submit(scale, 3).result(timeout=30)
    assert client.submit(locked, 3).result(timeout=30) == 6
    store = ResultStore(client.context.cache_dir)
    keys = [each.call_keys().key((3,), {}) for each in (scale, locked)]
    assert store.contained(set(keys)) == {keys[1]}
