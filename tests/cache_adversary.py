"""Runs a program with a cache and without, each in a process forked from a warm parent."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache_programs import Program, programs
from hypothesis import HealthCheck, Phase, given, seed, settings

ARGUMENT = 3
_ROUND = 200


@dataclass(frozen=True)
class Outcome:
    """The answers of a program before and after its mutation.

    Attributes
    ----------
    before, after : str
        The answers, as text.
    key : str
        Key of the program before its mutation; empty if it is not cached.
    is_cached : bool
        Whether no call was reported as not cached.
    """

    before: str
    after: str
    key: str = ""
    is_cached: bool = True


def examine(program: Program, folder: Path) -> tuple[Outcome, Outcome]:
    """Return the outcomes with the cache and of the oracle."""
    cached = _in_child(lambda: _run(program, folder / "cached", is_cached=True))
    oracle = _in_child(lambda: _run(program, folder / "oracle", is_cached=False))
    return cached, oracle


def is_wrong(cached: Outcome, oracle: Outcome) -> bool:
    """Return whether the cache answered what the oracle does not."""
    return cached.is_cached and cached.after != oracle.after


def warm_up() -> None:
    """Import what programs import, once, before processes are forked."""
    for name in ("numpy", "pandas", "pydantic", "scalable_nb.cache.decorator"):
        importlib.import_module(name)


def fresh_keys(folders: list[Path], hash_seed: int) -> list[str]:
    """Return the keys of programs in a fresh process with another hash seed."""
    script = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from cache_adversary import key_of_folder, warm_up\n"
        "warm_up()\n"
        "print(json.dumps([key_of_folder(Path(each)) for each in sys.argv[1:]]))\n"
    )
    here = Path(__file__).parent
    path = os.pathsep.join((str(here.parent), str(here)))
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, folders)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


def key_of_folder(folder: Path) -> str:
    """Return the key of the program in a folder, computed in a child."""
    return _in_child(lambda: Outcome("", "", _key(_import(folder)))).key


def _run(program: Program, folder: Path, *, is_cached: bool) -> Outcome:
    write_sources(folder, program.sources)
    work = _import(folder)
    call, reports = _caller(work, folder / "store", is_cached=is_cached)
    key = _key(work) if is_cached else ""
    before = call()
    module, statement = program.statement
    if statement:
        exec(statement, vars(sys.modules[module]))
        return Outcome(before, call(), key, not reports)
    write_sources(folder, program.edited)
    if program.is_stale and is_cached:
        call()  # the loaded module is older than its file
        reports.clear()
    # The next process: it has the edited files, and the results of this one.
    after = _in_child(lambda: _again(folder, is_cached=is_cached))
    return Outcome(before, after.after, key, not reports and after.is_cached)


def _again(folder: Path, *, is_cached: bool) -> Outcome:
    for name in ("work", "tools"):
        sys.modules.pop(name, None)
    call, reports = _caller(_import(folder), folder / "store", is_cached=is_cached)
    return Outcome("", call(), "", not reports)


def _caller(work: Any, store: Path, *, is_cached: bool) -> tuple[Callable[[], str], list[Any]]:
    """Return a call of the program, and the list of its warnings."""
    from scalable_nb.cache.decorator import cacheable

    reports: list[Any] = []

    def call() -> str:
        function = cacheable(store=store)(work.run) if is_cached else work.run
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answer = repr(function(ARGUMENT))
        reports.extend(each for each in caught if "is not cached" in str(each.message))
        return answer

    return call, reports


def _key(work: Any) -> str:
    from scalable_nb.cache.keys import call_key
    from scalable_nb.errors import SubmitError

    try:
        return call_key(work.run, (ARGUMENT,), {})
    except SubmitError:
        return ""


def write_sources(folder: Path, sources: tuple[tuple[str, str], ...]) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in sources:
        (folder / f"{name}.py").write_text(text)


def _import(folder: Path) -> Any:
    sys.dont_write_bytecode = True  # in this child: two edits within a second look the same
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    return importlib.import_module("work")


def _in_child(work: Callable[[], Outcome]) -> Outcome:
    """Return what a forked child computes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            answer = work()
            with os.fdopen(writing, "w") as stream:
                json.dump(vars(answer), stream)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError("the program failed in its child; its traceback is above")
    return Outcome(**json.loads(text))


def search(folder: Path, number: int, examples: int, within_s: float) -> int:
    """Try programs of a seed; return their number.

    Raises
    ------
    AssertionError
        If the cache answered one wrongly, or did not cache one without an opaque object.
    """
    ends_at = time.monotonic() + within_s
    tried = 0
    while tried < examples and time.monotonic() < ends_at:
        # In rounds, since hypothesis ends only after its number of examples.
        tried += _search_round(folder, number + tried, min(_ROUND, examples - tried), ends_at)
    return tried


def _search_round(folder: Path, number: int, examples: int, ends_at: float) -> int:
    places = (folder / f"{number}-{count}" for count in itertools.count())
    tried = 0

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def attack(program: Program) -> None:
        nonlocal tried
        tried += 1
        if time.monotonic() > ends_at:
            return
        place = next(places)
        cached, oracle = examine(program, place)
        assert not is_wrong(cached, oracle), f"wrong result\n{program!r}\n{cached}\n{oracle}"
        has_values = not any(holder.is_opaque for holder in program.holders)
        assert not has_values or cached.is_cached, f"not cached\n{program!r}"
        shutil.rmtree(place)

    attack()
    print(f"seed {number}: {tried} programs", flush=True)
    return tried


def compare_keys(folder: Path, number: int, examples: int) -> int:
    """Compare the keys of programs with those of a fresh process; return how many have one.

    Raises
    ------
    AssertionError
        If one differs.
    """
    made: list[Path] = []

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate])
    @given(programs())
    def collect(program: Program) -> None:
        made.append(folder / str(len(made)))
        write_sources(made[-1], program.sources)

    collect()
    keys = [key_of_folder(each) for each in made]
    for each, key, fresh in zip(made, keys, fresh_keys(made, 7), strict=True):
        texts = [file.read_text() for file in each.glob("*.py")]
        assert key == fresh, "\n".join(["another key in a fresh process", *texts])
    return len([key for key in keys if key])


def main() -> None:
    """Search, and print what was found; the parent of all programs has one thread."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options.add_argument("--examples", type=int, default=1_000_000)
    options.add_argument("--within", type=float, default=1e9, help="seconds")
    options.add_argument("--keys", type=int, default=0, help="compare so many keys instead")
    given_options = options.parse_args()
    print(f"FUZZ_SEED={given_options.seed}", flush=True)
    warm_up()
    with tempfile.TemporaryDirectory(prefix="cache-adversary-") as folder:
        if given_options.keys:
            print(compare_keys(Path(folder), given_options.seed, given_options.keys), "keys")
            return
        limits = given_options.examples, given_options.within
        print(search(Path(folder), given_options.seed, *limits), "programs, no wrong result")


if __name__ == "__main__":
    main()
