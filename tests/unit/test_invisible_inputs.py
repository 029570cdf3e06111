"""Inputs that a key cannot contain cause one warning, with a name that silences it."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import dask.array
import pytest

from scalable_nb import File, cacheable
from scalable_nb.cache.function import CacheWarning
from scalable_nb.cache.invisible_inputs import InvisibleInputs, looks_like_path
from scalable_nb.cache.keys import CallKeys
from scalable_nb.client.call_options import CallOptions
from scalable_nb.client.context import ClientContext
from scalable_nb.errors import UnknownNameError
from scalable_nb.manifest.load import load_manifest


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An existing file, by its relative path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCALABLE_CACHE_DIR", str(tmp_path / "cache"))
    Path("table.csv").write_text("1")
    return "table.csv"


def warnings_of(call: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught if each.category is CacheWarning]


def make(**options: Any) -> Any:
    """A cacheable function that no other test has called."""

    @cacheable(**options)
    def load(data: Any, other: Any = None) -> int:
        return len(str(data))

    return load


@pytest.mark.parametrize("kind", [str, Path, os.path.abspath])
def test_path_of_a_file_is_reported_once(table: str, kind: Callable[[str], Any]) -> None:
    """A path whose file exists causes one warning per function, which names `File`."""
    load = make()
    Path("other.csv").write_text("2")
    (message,) = warnings_of(lambda: (load(kind(table)), load(kind("other.csv"))))
    assert f"File({str(kind(table))!r})" in message and "'data'" in message


@pytest.mark.parametrize("value", ["missing.csv", "cache", "no path", ".", "", "a\0.b", "x" * 9999])
def test_other_texts_are_not_reported(value: str) -> None:
    """A text that names no file, or a folder, causes no warning."""
    load = make()
    assert warnings_of(lambda: load(value)) == []


def test_file_and_ignored_parameter_are_not_reported(table: str) -> None:
    """The content counts, or the user has said that the argument does not."""
    load, ignoring = make(), make(ignore=["other"])
    assert warnings_of(lambda: load(File(table))) == []
    assert warnings_of(lambda: ignoring(1, other=table)) == []


@pytest.mark.parametrize("name", ["table.csv", "data"])
def test_allow_silences_by_path_or_parameter(table: str, name: str) -> None:
    """`allow=` takes the path as it is passed, or the parameter."""
    load = make(allow=[name])
    assert warnings_of(lambda: load(table)) == []


def test_lazy_data_are_reported() -> None:
    """A Dask collection, or a dataset of a file, is not what its files contain."""
    load = make()
    (message,) = warnings_of(lambda: load(dask.array.ones(3)))
    assert "a Dask collection (dask.array" in message
    lazy = type("Dataset", (SimpleNamespace,), {"__module__": "xarray.core.dataset"})
    inputs = InvisibleInputs(CallKeys(make()))
    found = inputs.of_call((lazy(encoding={"source": "a.nc"}),), {})
    assert found is not None and "a dataset of the file 'a.nc'" in found.message
    assert InvisibleInputs(CallKeys(make())).of_call((lazy(encoding={}),), {}) is None


def calls_eval(x: int) -> Any:
    return eval("x + 1")


def calls_helper(x: int) -> Any:
    return calls_eval(x)


def calls_exec(x: int) -> int:
    exec("pass")
    return x


def reads_globals(x: str) -> Any:
    return globals()[x]


def imports_computed(x: str) -> Any:
    return importlib.import_module(f"os.{x}").__name__


def imports_by_name(x: str) -> Any:
    name = "os." + x
    return importlib.import_module(name).__name__


def imports_concatenated(x: str) -> Any:
    return __import__("os." + x).__name__


COMPUTED = {
    calls_eval: "eval",
    calls_helper: "eval",
    calls_exec: "exec",
    reads_globals: "globals",
    imports_computed: "import_module",
    imports_by_name: "import_module",
    imports_concatenated: "__import__",
}


@pytest.mark.parametrize(("function", "name"), COMPUTED.items())
def test_computed_name_is_reported_once(function: Any, name: str) -> None:
    """`eval` and its like cause one warning per function, which their name silences."""
    argument = "path" if "import" in name else "table" if name == "globals" else 1
    run = cacheable(function)
    (message,) = warnings_of(lambda: (run(argument), run(argument)))
    assert f"{name}()" in message and f"allow=['{name}']" in message
    assert warnings_of(lambda: cacheable(allow=[name])(function)(argument)) == []


def test_literal_name_is_not_reported() -> None:
    """A module that is imported by a literal name is in the key."""

    @cacheable
    def run(x: int) -> str:
        return importlib.import_module("os.path", package="os").__name__ * x

    assert warnings_of(lambda: run(1)) == []


def plain(path: str) -> Any:
    return eval("path")


@pytest.mark.parametrize("is_cached", [True, False])
def test_submission_reports_inputs_of_cached_calls_only(table: str, is_cached: bool) -> None:
    """Submitted calls cause the warnings of direct ones; a call that is not cached causes none."""
    Path("scalable.yaml").write_text(
        "version: 1\nproject: {name: demo}\ntargets: {local: {provider: local}}\n"
        f"components: {{any: {{}}}}\ntasks: {{load: {{cache: {str(is_cached).lower()}}}}}\n"
    )
    context = ClientContext(load_manifest(), Path("results"))

    def submit() -> None:
        function = FunctionType(plain.__code__, globals(), "plain")
        for _ in range(2):
            options = CallOptions.resolve(context, function, task="load")
            options.result_key("key", (table,), {})

    found = warnings_of(submit)
    assert len(found) == (2 if is_cached else 0)
    assert not is_cached or ("eval()" in found[0] and f"File('{table}')" in found[1])


@pytest.mark.parametrize("allow", ["tabel", "evall"])
def test_unknown_name_is_refused(allow: str) -> None:
    """A name that is neither a parameter nor a path is an error with the closest match."""

    def load(table: str) -> str:
        return table

    with pytest.raises(UnknownNameError, match=f"'{allow}'.*Did you mean"):
        cacheable(allow=[allow])(load)


@pytest.mark.parametrize(
    ("text", "is_path"),
    [("a.csv", True), ("a/b", True), ("~/x", True), ("abc", False), ("The end.", False),
     ("a\nb.c", False), ("", False), ("x/", False)],
)  # fmt: skip
def test_few_texts_look_like_paths(text: str, is_path: bool) -> None:
    """Others cost no system call."""
    assert looks_like_path(text) is is_path


def test_calls_after_the_first_find_cost_no_system_call(
    table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look for each argument with the form of a path, and none after the first warning."""
    looked: list[str] = []
    stat = os.stat

    def counting(path: Any, **kwargs: Any) -> os.stat_result:
        looked.append(path)
        return stat(path, **kwargs)

    inputs = InvisibleInputs(CallKeys(make()))
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", counting)
        assert inputs.of_call(("missing.csv", "plain"), {"other": 3}) is None
        assert inputs.of_call((table,), {}) is not None
        assert inputs.of_call((table,), {}) is None
    assert looked == ["missing.csv", table]
