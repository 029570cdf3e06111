"""The user's own modules travel with their code, and an edited file is noticed."""

from __future__ import annotations

import gc
import importlib
import itertools
import os
import pickle
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest

import scalable_nb
from scalable_nb.client.call_options import _pack_rules
from scalable_nb.client.packing import pack_function
from scalable_nb.client.user_code import project_modules
from scalable_nb.client.user_code.project_modules import (
    StaleModuleWarning,
    pickle_user_modules_by_value,
    travels_by_value,
    warn_if_stale,
)
from scalable_nb.faults.policy import TaskPolicy

MODEL = """\
import math

LIMIT = 10


def simulate(n):
    if n > LIMIT:
        return None
    total = 0
    for i in range(n):
        total += math.floor(scale(i))
    return total


def scale(x):
    return 2.5 * x
"""

Load = Callable[..., ModuleType]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project folder; what a test imports and registers is forgotten afterwards."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(project_modules, "_seen_modules", dict(sys.modules))
    monkeypatch.setattr(project_modules, "_user_modules", {})
    monkeypatch.setattr(project_modules, "_compared", set())
    before, registered = set(sys.modules), set(cloudpickle.list_registry_pickle_by_value())
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]
    for name in cloudpickle.list_registry_pickle_by_value() - registered:
        cloudpickle.unregister_pickle_by_value(ModuleType(name))


@pytest.fixture
def load(folder: Path) -> Load:
    """Writes a module into the project folder and imports it."""

    def load(text: str = MODEL, name: str = "model") -> ModuleType:
        edit(folder / f"{name}.py", text)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return load


def edit(path: Path, text: str) -> None:
    """Write a file, a second later than it was written before."""
    at = path.stat().st_mtime + 1 if path.exists() else 1.7e9
    path.write_text(text)
    os.utime(path, (at, at))


def stale(function: Any) -> list[str]:
    """The warnings about a function."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_stale(function)
    assert {warning.category for warning in caught} <= {StaleModuleWarning}
    return [str(warning.message) for warning in caught]


# --- which modules are the user's ----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file", "is_own"),
    [
        ("model", "{root}/model.py", True),
        ("lib.model", "{root}/src/lib/model.py", True),
        ("lib", "{root}/lib/__init__.py", True),
        ("model", "{root}/../other/model.py", True),
        ("editable", "/opt/checkouts/editable/src/editable/__init__.py", True),
        ("fast", "{root}/fast.cpython-311-x86_64-linux-gnu.so", False),
        ("numpy_like", "{root}/.venv/lib/python3.11/site-packages/numpy/__init__.py", False),
        ("yaml_like", "{root}/venv/lib/python3/dist-packages/yaml/__init__.py", False),
        ("json_like", sysconfig.get_path("stdlib") + "/json/__init__.py", False),
        ("ours", str(Path(scalable_nb.__file__).parent / "protocol" / "call.py"), False),
        ("namespace", None, False),
    ],
)
def test_which_modules_travel_by_value(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str | None, is_own: bool
) -> None:
    """Python files travel, wherever they are; installed packages and this one do not."""
    module = ModuleType(name)
    module.__file__ = file and file.format(root=folder)
    monkeypatch.setitem(sys.modules, name, module)
    assert travels_by_value(module) is is_own


def test_the_notebook_itself_is_no_module() -> None:
    """Functions of `__main__` travel by value anyway."""
    assert not travels_by_value(sys.modules["__main__"])


def test_a_module_elsewhere_on_the_path_travels_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of `../src` is pickled with its code, with which the kernel would call it."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "beside.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path / "src")
    assert b"beside.py" in pack_function(importlib.import_module("beside").simulate).pickled


LOCKED = """\
import threading

LOCK = threading.Lock()
FACTOR = 2


def scale(x):
    with LOCK:
        return FACTOR * x
"""


def test_an_unpicklable_variable_travels_as_its_name(load: Load) -> None:
    """A function that uses its module's lock is sent; the lock is that of the module there."""
    module = load(LOCKED, "locked")
    module.FACTOR = 3
    function = pickle.loads(pack_function(module.scale).pickled)
    assert (function(7), function.__globals__["LOCK"]) == (21, module.LOCK)


def test_a_module_with_an_unpicklable_variable_travels_by_value(load: Load) -> None:
    """The variables next to a lock are those of the kernel."""
    module = load(LOCKED, "locked_too")
    module.FACTOR = 3
    sent = pickle.loads(pack_function(lambda: module).pickled)()
    assert sent is not module
    assert (sent.FACTOR, sent.LOCK) == (3, module.LOCK)


def test_a_function_of_the_project_runs_where_its_file_is_missing(
    load: Load, folder: Path, tmp_path: Path
) -> None:
    """A worker elsewhere runs a module's function, with all it calls, without the module."""
    packed = tmp_path / "function.pickle"
    packed.write_bytes(pack_function(load().simulate).pickled)
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))(5))"
    run = subprocess.run(
        [sys.executable, "-c", code, str(packed)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.stdout, run.stderr) == ("24\n", "")


def test_a_module_that_is_imported_later_travels_too(load: Load) -> None:
    """Before each function is packed, what was imported since the last one is looked at."""
    pack_function(len)
    function = load(name="late").simulate
    assert b"late.py" in pack_function(function).pickled
    assert b"late.py" in pack_function(importlib.reload(sys.modules["late"]).simulate).pickled


def test_imports_of_other_threads_do_not_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the collector lets another thread import something, shipping goes on."""
    added = (f"imported_meanwhile_{number}" for number in itertools.count())

    def import_something(phase: str, info: dict[str, int]) -> None:
        monkeypatch.setitem(sys.modules, next(added), ModuleType("meanwhile"))

    before = gc.get_threshold()
    gc.callbacks.append(import_something)
    gc.set_threshold(1)
    try:
        pickle_user_modules_by_value()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(import_something)


def test_the_rules_of_a_policy_travel_with_their_code(load: Load) -> None:
    """A validating function of a project module need not exist on a worker either."""
    packed = _pack_rules(TaskPolicy(validate=load(name="rules").scale))
    assert b"rules.py" in packed


def test_functions_of_installed_packages_travel_by_name() -> None:
    """What every worker has installed is sent as a name."""
    assert len(pack_function(scalable_nb.partial).pickled) < 100


# --- what was edited since ------------------------------------------------------------


def test_an_edited_function_is_warned_of(load: Load, folder: Path) -> None:
    """The warning says the file, the function, and how to use the edited one."""
    model = load()
    assert stale(model.scale) == []
    edit(folder / "model.py", MODEL.replace("2.5", "3.5"))
    assert stale(model.scale) == [
        "model.py was edited after this kernel imported it, and the kernel's version of 'scale' "
        "is what runs. To use the edited one: import importlib; importlib.reload(model)"
    ]


@pytest.mark.parametrize(
    ("edited", "warned"),
    [
        (MODEL, []),
        (MODEL.replace("2.5", "3.5"), ["scale"]),
        (MODEL.replace("return total", "return  total  # the sum"), ["simulate"]),
        (MODEL.replace("return total", "return total  # the sum"), []),
        (MODEL + "\n\ndef another():\n    pass\n", []),
        (MODEL.replace("LIMIT = 10", "LIMIT = 20"), []),
        (MODEL.replace("def scale", "# doubles and more\ndef scale"), ["scale"]),
        (f"# a title\n{MODEL}", ["simulate", "scale"]),
        (MODEL.replace("def scale(x)", "def scale(y)").replace("* x", "* y"), ["scale"]),
        (MODEL.replace("def scale", "def rescale"), ["scale"]),
        ("", ["simulate", "scale"]),
        (MODEL.replace("return 2.5 * x", "return 2.5 *"), []),
        (MODEL.replace("LIMIT = 10", "LIMIT = '\0'"), []),
    ],
    ids=[
        "saved unchanged", "another number", "moved within the line", "comment behind",
        "new function below", "a global alone", "comment above", "line above all", "renamed local",
        "renamed function", "emptied", "half-edited", "damaged",
    ],
)  # fmt: skip
def test_what_counts_as_edited(load: Load, folder: Path, edited: str, warned: list[str]) -> None:
    """A function is stale when its code or its lines differ from the file's: tracebacks would."""
    model = load()
    for _ in range(50):  # a warm function is the same function
        model.simulate(10)
    edit(folder / "model.py", edited)
    names = ["simulate", "scale"]
    assert [name for name in names if stale(getattr(model, name))] == warned


def test_a_reloaded_module_is_up_to_date(load: Load, folder: Path) -> None:
    """After the advice was followed there is no warning, and the old function is still stale."""
    model = load()
    former = model.scale
    edit(folder / "model.py", MODEL.replace("2.5", "3.5"))
    importlib.reload(model)
    assert model.scale(2) == 7
    assert stale(model.scale) == []
    assert len(stale(former)) == 1


def test_one_edit_is_warned_of_once(load: Load, folder: Path) -> None:
    """The file is compared once for each time it was saved, however often is submitted."""
    model = load()
    edit(folder / "model.py", MODEL.replace("2.5", "3.5"))
    assert len(stale(model.scale)) == 1
    assert stale(model.scale) == []
    edit(folder / "model.py", MODEL.replace("2.5", "4.5"))
    assert len(stale(model.scale)) == 1
    edit(folder / "model.py", MODEL)
    assert stale(model.scale) == []


def test_nested_and_wrapped_functions_are_found(load: Load, folder: Path) -> None:
    """Methods, closures and what a decorator wraps are compared with their own code."""
    text = (
        "import functools\n"
        "def plain(function):\n"
        "    @functools.wraps(function)\n"
        "    def wrapper(*args):\n"
        "        return function(*args)\n"
        "    return wrapper\n"
        "def maker():\n"
        "    def made(x):\n"
        "        return 1\n"
        "    return made\n"
        "class Model:\n"
        "    @staticmethod\n"
        "    def run(x):\n"
        "        return 2\n"
        "@plain\n"
        "def wrapped(x):\n"
        "    return 3\n"
        "anonymous = lambda x: 4\n"
    )
    module = load(text)
    functions = [module.maker(), module.Model.run, module.wrapped, module.anonymous]
    assert [stale(function) for function in functions] == [[], [], [], []]
    for number, function in enumerate(functions, start=1):
        edit(folder / "model.py", text.replace(str(number), "99"))
        assert [len(stale(other)) for other in functions] == [
            int(other is function) for other in functions
        ]


@pytest.mark.parametrize("function", [len, str.upper, print, int, subprocess.run, 42, object()])
def test_other_peoples_functions_are_not_compared(function: Any) -> None:
    """Built-ins, types and functions of installed packages give no warning."""
    assert stale(function) == []


def test_a_file_that_is_gone_gives_no_warning(load: Load, folder: Path) -> None:
    """Where there is no file to prefer, the kernel's version is the only one."""
    model = load()
    (folder / "model.py").unlink()
    assert stale(model.scale) == []
