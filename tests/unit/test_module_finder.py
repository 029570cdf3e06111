"""A worker process imports the user's modules from the sources of the calls."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalable_nb.protocol.module_sources import ModuleSource, pack_sources, unpack_sources
from scalable_nb.worker.module_finder import Conflict, ModuleFinder


@pytest.fixture
def finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleFinder]:
    """A finder in use; what is imported in a test is forgotten afterwards."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    finder = ModuleFinder()
    sys.meta_path.insert(0, finder)
    before = set(sys.modules)
    yield finder
    sys.meta_path.remove(finder)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def adopt(finder: ModuleFinder, **sources: str) -> tuple[str, Conflict | None]:
    """Begin an attempt with these modules; return the digest of the set and what hinders it."""
    modules = [ModuleSource(name, f"/no/{name}.py", text, False) for name, text in sources.items()]
    digest, packed = pack_sources(modules)
    finder.add(digest, unpack_sources(packed))
    return digest, finder.adopt(digest)


def test_a_module_is_imported_from_the_source_of_the_call(
    finder: ModuleFinder, tmp_path: Path
) -> None:
    """The file, which was edited since, is not read."""
    (tmp_path / "helper_a.py").write_text("FACTOR = 2\n")
    assert adopt(finder, helper_a="FACTOR = 1\n")[1] is None
    assert importlib.import_module("helper_a").FACTOR == 1


def test_tracebacks_show_the_source_of_the_call(finder: ModuleFinder, tmp_path: Path) -> None:
    """The lines of a file that was edited since are not those that ran."""
    path = tmp_path / "helper_t.py"
    path.write_text("# another line\n")
    source = "def fail():\n    raise ValueError('here')\n"
    finder.add("digest", {"helper_t": ModuleSource("helper_t", str(path), source, False)})
    finder.adopt("digest")
    with pytest.raises(ValueError, match="here") as caught:
        importlib.import_module("helper_t").fail()
    assert "    raise ValueError('here')\n" in traceback.format_tb(caught.tb)[-1]


def test_a_package_is_imported_from_its_sources(finder: ModuleFinder) -> None:
    """Relative imports and namespace packages work without any file."""
    rows = [
        ModuleSource("space_a", "/no/space_a", None, True),
        ModuleSource("space_a.lib", "/no/space_a/lib/__init__.py", "from . import one\n", True),
        ModuleSource("space_a.lib.one", "/no/space_a/lib/one.py", "X = 1\n", False),
    ]
    finder.add("digest", {row.name: row for row in rows})
    assert finder.adopt("digest") is None
    assert importlib.import_module("space_a.lib").one.X == 1


def test_an_imported_module_is_not_replaced(finder: ModuleFinder) -> None:
    """Another version of what another call has imported is a conflict."""
    finder.end(adopt(finder, helper_b="X = 1\n")[0])
    importlib.import_module("helper_b")
    _, conflict = adopt(finder, helper_b="X = 2\n", helper_c="")
    assert conflict == Conflict(("helper_b",), is_of_calls=True)
    assert importlib.import_module("helper_b").X == 1


def test_a_module_that_no_call_imported_changes_with_the_call(finder: ModuleFinder) -> None:
    """A version that was only promised to a call that has ended may be replaced."""
    former, _ = adopt(finder, helper_d="X = 1\n")
    finder.end(former)
    assert adopt(finder, helper_d="X = 2\n")[1] is None
    assert not finder.begin(former)
    assert importlib.import_module("helper_d").X == 2


def test_a_running_call_keeps_its_versions(finder: ModuleFinder) -> None:
    """A running attempt may yet import what it was promised."""
    adopt(finder, helper_e="X = 1\n")
    assert adopt(finder, helper_e="X = 2\n")[1] == Conflict(("helper_e",), is_of_calls=True)


def test_a_set_is_compared_once(finder: ModuleFinder) -> None:
    """Attempts after the first begin without a look at the modules."""
    digest, _ = adopt(finder, helper_f="X = 1\n")
    assert finder.knows(digest)
    assert finder.begin(digest)
    assert not finder.begin("another")


def test_a_module_from_its_file_is_a_conflict_if_it_differs(
    finder: ModuleFinder, tmp_path: Path
) -> None:
    """A process knows the source of what it imported from a file, edited or not."""
    (tmp_path / "helper_g.py").write_text("X = 1\n")
    (tmp_path / "helper_h.py").write_text("X = 1\n")
    importlib.import_module("helper_g")
    importlib.import_module("helper_h")
    (tmp_path / "helper_g.py").write_text("X = 2\n")
    _, conflict = adopt(finder, helper_g="X = 2\n", helper_h="X = 1\n")
    assert conflict == Conflict(("helper_g",), is_of_calls=False)


def test_a_module_imported_before_the_first_call_is_a_conflict(
    finder: ModuleFinder, tmp_path: Path
) -> None:
    """The source from which it was imported is not known."""
    (tmp_path / "helper_i.py").write_text("X = 1\n")
    sys.meta_path.remove(finder)
    importlib.import_module("helper_i")
    sys.meta_path.insert(0, finder)
    _, conflict = adopt(finder, helper_i="X = 1\n")
    assert conflict == Conflict(("helper_i",), is_of_calls=False)


def test_installed_modules_are_left_to_python(finder: ModuleFinder) -> None:
    """The finder serves modules of the user only."""
    assert finder.find_spec("json") is None
    assert finder.find_spec("numpy") is None
    assert finder.find_spec("no_such_module_at_all") is None
