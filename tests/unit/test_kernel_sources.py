"""The sources of the modules that code may import, as the kernel knows them."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from scalable_nb.cache.hashing.function_identity import identity_of
from scalable_nb.client.packing import pack_arguments, pack_function
from scalable_nb.client.user_code import kernel_sources, project_modules
from scalable_nb.client.user_code.kernel_sources import (
    pack_modules,
    packed_sources,
    warn_of_stale,
)
from scalable_nb.client.user_code.project_modules import StaleModuleWarning
from scalable_nb.protocol.module_sources import unpack_sources

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules into a folder of the path; what a test imports is forgotten afterwards."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(kernel_sources, "_imported", {})
    monkeypatch.setattr(kernel_sources, "_reported", set())
    monkeypatch.setattr(project_modules, "_seen_modules", dict(sys.modules))
    monkeypatch.setattr(project_modules, "_user_modules", {})
    before, registered = set(sys.modules), set(cloudpickle.list_registry_pickle_by_value())

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]
    for name in cloudpickle.list_registry_pickle_by_value() - registered:
        cloudpickle.unregister_pickle_by_value(types.ModuleType(name))


def sources_of(function: Any) -> dict[str, str | None]:
    """The modules that travel with a function, and their sources."""
    modules = pack_modules(pack_function(function).imports)
    packed = packed_sources(modules.digest) if modules.digest else None
    return {name: each.source for name, each in unpack_sources(packed).items()} if packed else {}


def test_a_module_imported_inside_a_function_travels(write: Write) -> None:
    """With all modules of the user that it imports, and none of others."""
    write("inner_a.py", "import json\nimport numpy\n")
    write("outer_a.py", "def f():\n    import inner_a\n")

    def function() -> None:
        import outer_a  # noqa: F401

    assert sources_of(function) == {
        "inner_a": "import json\nimport numpy\n",
        "outer_a": "def f():\n    import inner_a\n",
    }


def test_a_function_without_such_imports_has_no_modules() -> None:
    """The kernel searches for no module and sends nothing."""

    def function(x: int) -> Any:
        import numpy as np

        return np.linalg.norm([x])

    assert sources_of(function) == {}


def test_submodules_travel_with_their_packages(write: Write) -> None:
    """Names after `from` may be modules; packages without a file are namespaces."""
    write("space_b/lib/__init__.py", "")
    write("space_b/lib/one.py", "from . import two\n")
    write("space_b/lib/two.py", "X = 2\n")

    def function() -> None:
        from space_b.lib import one  # noqa: F401

    assert sources_of(function) == {
        "space_b": None,
        "space_b.lib": "",
        "space_b.lib.one": "from . import two\n",
        "space_b.lib.two": "X = 2\n",
    }


def test_imports_of_called_helpers_travel(write: Write) -> None:
    """Code that travels by value imports what it imports on the worker, wherever it is."""
    write("deep_c.py", "X = 1\n")
    write("helper_c.py", "def scale(x):\n    from deep_c import X\n    return X * x\n")
    helper = importlib.import_module("helper_c")
    assert sources_of(helper.scale) == {"deep_c": "X = 1\n"}


def test_imports_of_code_in_arguments_travel(write: Write) -> None:
    """A method of an argument's class imports modules, too."""
    write("deep_d.py", "X = 1\n")
    write("kind_d.py", "class Kind:\n    def f(self):\n        import deep_d\n")
    value = importlib.import_module("kind_d").Kind()
    project_modules.pickle_user_modules_by_value()
    packed = pack_arguments([value], {}, print)
    assert list(unpack_sources(packed_sources(pack_modules(packed.imports).digest))) == ["deep_d"]


def import_e() -> None:
    """Import a module of the tests when it is called."""
    import helper_e  # type: ignore[import-not-found]  # noqa: F401


def test_an_imported_module_travels_as_it_was_imported(write: Write) -> None:
    """The file that was edited afterwards is sent after a reload."""
    write("helper_e.py", "X = 1\n")
    module = importlib.import_module("helper_e")
    assert sources_of(import_e) == {"helper_e": "X = 1\n"}
    write("helper_e.py", "X = 22\n")
    assert sources_of(import_e) == {"helper_e": "X = 1\n"}
    assert pack_modules(["helper_e"]).stale == ("helper_e",)
    importlib.reload(module)
    assert sources_of(import_e) == {"helper_e": "X = 22\n"}
    assert pack_modules(["helper_e"]).stale == ()


def test_a_module_that_is_not_imported_travels_as_its_file(write: Write) -> None:
    """The kernel has no other version of it."""
    write("helper_e.py", "X = 1\n")
    assert sources_of(import_e) == {"helper_e": "X = 1\n"}
    write("helper_e.py", "X = 22\n")
    assert sources_of(import_e) == {"helper_e": "X = 22\n"}


def test_comments_make_no_module_stale(write: Write) -> None:
    """Only what the code does counts."""
    write("helper_f.py", "X = 1\n")
    importlib.import_module("helper_f")
    pack_modules(["helper_f"])
    write("helper_f.py", "X = 1  # one\n")
    assert pack_modules(["helper_f"]).stale == ()


def test_a_module_edited_before_the_first_look_is_stale(write: Write) -> None:
    """Its functions are not those of its file."""
    write("helper_g.py", "def f():\n    return 1\n")
    importlib.import_module("helper_g")
    write("helper_g.py", "def f():\n    return 22\n")
    assert pack_modules(["helper_g"]).stale == ("helper_g",)


def test_a_stale_module_is_warned_of_once(write: Write) -> None:
    """The warning names the module and the remedy."""
    write("helper_h.py", "X = 1\n")
    importlib.import_module("helper_h")
    pack_modules(["helper_h"])
    write("helper_h.py", "X = 22\n")
    stale = pack_modules(["helper_h"]).stale
    with pytest.warns(StaleModuleWarning, match=r"'helper_h'.*importlib\.reload\(helper_h\)") as w:
        warn_of_stale(stale)
        warn_of_stale(stale)
    assert len(w) == 1


def test_sources_are_noted_before_a_function_needs_them(write: Write) -> None:
    """A constant that is edited before the first call that imports the module is noticed."""
    write("helper_i.py", "X = 1\n")
    importlib.import_module("helper_i")
    pack_function(len)
    write("helper_i.py", "X = 22\n")
    assert pack_modules(["helper_i"]).stale == ("helper_i",)


STATEFUL = """\
import collections
import math
import threading

FACTOR = 2
TABLE = {"a": [1]}
RECENT = collections.deque([1])


class Model:
    factor = 2


MODEL = Model()
HELD = Model()
HELD.lock = threading.Lock()
HOLDING = {"lock": HELD.lock, "factor": 2}


def scale(x, by=1):
    return FACTOR * x
"""


@pytest.mark.parametrize(
    "change",
    [
        "FACTOR = 7",
        "TABLE['a'].append(2)",
        "RECENT.append(2)",
        "MODEL.factor = 7",
        "HELD.factor = 7",
        "HOLDING['factor'] = 7",
        "Model.factor = 7",
        "scale.factor = 7",
        "scale.__defaults__ = (2,)",
        "scale = print",
        "NEW = 1",
    ],
)
def test_a_module_that_is_changed_in_memory_is_stale(write: Write, change: str) -> None:
    """Workers import the source, so its results are not those of the kernel's module."""
    write("helper_j.py", STATEFUL)
    module = importlib.import_module("helper_j")
    assert pack_modules(["helper_j"]).stale == ()
    exec(change, vars(module))
    stale = pack_modules(["helper_j"]).stale
    assert stale == ("helper_j",)
    with pytest.warns(StaleModuleWarning, match="'helper_j' was changed in the kernel's memory"):
        warn_of_stale(stale)
    importlib.reload(module)
    assert pack_modules(["helper_j"]).stale == ()


def test_a_change_before_the_first_look_is_noticed(write: Write) -> None:
    """A constant has another value than the source gives it."""
    write("helper_k.py", STATEFUL)
    importlib.import_module("helper_k").FACTOR = 7
    assert pack_modules(["helper_k"]).stale == ("helper_k",)


def test_use_makes_no_module_stale(write: Write) -> None:
    """Calls, and imports of submodules, change nothing that counts."""
    write(
        "helper_l/__init__.py", STATEFUL + "for number in range(3):\n    LAST = 0\n    LAST = 1\n"
    )
    write("helper_l/sub.py", "X = 1\n")
    module = importlib.import_module("helper_l")
    pack_modules(["helper_l"])
    assert module.scale(2) == 4
    with module.HELD.lock:
        assert module.MODEL.factor == 2
    importlib.import_module("helper_l.sub")
    assert pack_modules(["helper_l", "helper_l.sub"]).stale == ()


IMPORTS = {
    "module": "import counted_a",
    "name": "from counted_a import X",
    "submodule": "import package_a.one",
    "submodule by name": "from package_a import one",
    "submodule under another name": "from package_a import one as two",
    "module of a namespace": "from space_a import leaf",
    "nested": "import counted_b",
}


@pytest.mark.parametrize("statement", IMPORTS.values(), ids=IMPORTS)
def test_an_edit_of_what_travels_is_another_key(write: Write, statement: str) -> None:
    """Every source that a worker imports for a function is part of its identity."""
    for name in ("counted_a", "package_a/__init__", "package_a/one", "space_a/leaf"):
        write(f"{name}.py", "X = 1\n")
    write("counted_b.py", "from package_a import one\nfrom space_a import leaf\n")
    namespace: dict[str, Any] = {}
    exec(f"def function():\n    {statement}\n", namespace)
    function = namespace["function"]
    sources = {name: source for name, source in sources_of(function).items() if source}
    assert sources
    for name, source in sources.items():
        before = identity_of(function)
        path = "package_a/__init__" if name == "package_a" else name.replace(".", "/")
        write(f"{path}.py", f"{source}NAME = {name!r}\n")
        assert identity_of(function) != before, name
