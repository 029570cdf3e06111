"""`cacheable`: functions whose results are kept, called directly."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from scalable_nb import File, cacheable
from scalable_nb.cache.function import CacheableFunction, CacheSpec, CacheWarning
from scalable_nb.cache.keys import CallKeys, call_key
from scalable_nb.cache.store import ResultStore
from scalable_nb.errors import SubmitError, UnknownNameError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("SCALABLE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def note(tmp_path):
    """Note an execution on disk; ``note.count()`` counts them."""
    folder = tmp_path / "executions"
    folder.mkdir()

    def note(name="call"):
        number = len(list(folder.iterdir()))
        (folder / f"{number}-{name}").touch(exist_ok=False)

    note.count = lambda: len(list(folder.iterdir()))
    return note


@cacheable
def at_module_level(x):
    return x + 1


def test_a_call_is_executed_once(note):
    """The same call again, however it is spelled, executes nothing."""

    @cacheable
    def run(x, y=2):
        note()
        return {"sum": x + y}

    assert run(1) == run(1, 2) == run(y=2, x=1) == {"sum": 3}
    assert note.count() == 1
    assert run(2, 1) == {"sum": 3}
    assert note.count() == 2


def test_none_is_a_result_like_any_other(note):
    """A function that returns nothing is not called again either."""

    @cacheable()
    def run(x):
        note()

    assert run(1) is None and run(1) is None
    assert note.count() == 1


def test_a_failure_is_not_kept(note):
    """A call that raised is executed again."""

    @cacheable
    def run(x):
        note()
        raise ValueError(x)

    for _ in range(2):
        with pytest.raises(ValueError, match="7"):
            run(7)
    assert note.count() == 2


def test_declared_types_make_one_call_of_many_spellings(note):
    """A text or numpy number that is an int without loss is that int, for key and function."""

    @cacheable(return_type=dict, scenario_id=int)
    def run(scenario_id: int) -> dict:
        note()
        return {"id": scenario_id}

    spellings = [3, "3", 3.0, np.int64(3), np.float32(3), np.array(3), 3 + 0j]
    assert all(run(each) == {"id": 3} for each in spellings[:-1])
    assert all(type(run(each)["id"]) is int for each in spellings[:-1])
    assert note.count() == 1


@pytest.mark.parametrize("value", [3.5, "3.5", "three", None, [3], "03", float("nan"), 3 + 1j])
def test_what_would_lose_something_is_refused(value, note):
    """An argument that is no such value names parameter, value and expected type."""

    @cacheable(scenario_id=int)
    def run(scenario_id):
        note()

    with pytest.raises(SubmitError, match=r"run\(\): argument 'scenario_id' is .*; expected int"):
        run(value)
    assert note.count() == 0


def test_unions_containers_and_paths_can_be_declared(tmp_path, note):
    """A declared type may be a union, a generic or a `File`."""
    (tmp_path / "data").write_text("1")

    @cacheable(x=int | None, names=list[str], data=File)
    def run(x, names, data):
        note()
        return x, names, Path(data).read_text()

    assert run(None, ("a",), str(tmp_path / "data")) == (None, ["a"], "1")
    assert run(None, ["a"], tmp_path / "data") == (None, ["a"], "1")
    assert note.count() == 1
    (tmp_path / "data").write_text("2")
    assert run(None, ["a"], tmp_path / "data") == (None, ["a"], "2")


def test_a_result_of_another_type_is_refused_and_not_kept(cache_dir):
    """What return_type= forbids is a TypeError that names function, value and type."""

    @cacheable(return_type=dict)
    def run(x):
        return [x]

    with pytest.raises(TypeError, match=r"result of .*run\(\).* is \[1\] \(list\); expected dict"):
        run(1)
    assert list(ResultStore(cache_dir).iter_keys()) == []


def test_a_kept_result_of_another_type_is_refused(note):
    """A declaration that was added later holds for what was kept before."""

    def run(x):
        note()
        return x

    assert cacheable(run)(1) == 1
    with pytest.raises(TypeError, match="expected str"):
        cacheable(return_type=str)(run)(1)
    assert note.count() == 1


def test_recompute_store_version_and_ignore(tmp_path, cache_dir, note):
    """Each option does what it says, and nothing to the results of the plain function."""

    def run(x, verbose=False):
        note()
        return note.count()

    assert cacheable(run)(1) == 1
    assert cacheable(version=2)(run)(1) == 2
    assert cacheable(store=tmp_path / "own")(run)(1) == 3
    assert len(list(ResultStore(tmp_path / "own").iter_keys())) == 1
    quiet = cacheable(ignore=["verbose"])(run)
    assert quiet(1, verbose=True) == quiet(1) == 4
    again = cacheable(recompute=True)(run)
    assert (again(1), again(1)) == (5, 6)
    assert cacheable(run)(1) == 6
    assert cacheable(version=2)(run)(1) == 2
    assert cacheable(store=ResultStore(tmp_path / "own"))(run)(1) == 3


def test_other_processes_find_the_results(tmp_path, note):
    """A script run twice executes its calls once, and once more when its source changed."""
    script = tmp_path / "script.py"
    source = """
        import sys
        from pathlib import Path
        from scalable_nb import cacheable
        def helper(x):
            return x * FACTOR
        @cacheable(x=int)
        def run(x):
            with open(sys.argv[1], "a") as log:
                log.write(f"{x}\\n")
            return helper(x)
        print([run(x) for x in range(5)])
    """
    log = tmp_path / "log"

    def execute(factor):
        script.write_text(textwrap.dedent(source).replace("FACTOR", str(factor)))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(script), str(log)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip(), len(log.read_text().split())

    assert execute(2) == ("[0, 2, 4, 6, 8]", 5)
    assert execute(2) == ("[0, 2, 4, 6, 8]", 5)
    assert execute(3) == ("[0, 3, 6, 9, 12]", 10)
    assert execute(2) == ("[0, 2, 4, 6, 8]", 10)


def test_a_result_that_cannot_be_kept_is_returned_with_a_warning():
    """The call succeeds, and the person is told why its result is not kept."""

    @cacheable
    def run(x):
        return threading.Lock()

    with pytest.warns(
        CacheWarning, match=r"run\(\): a result of type _thread\.lock cannot be kept"
    ):
        assert isinstance(run(1), type(threading.Lock()))


def test_a_damaged_result_is_computed_again_with_a_warning(cache_dir, note):
    """A torn file is never returned; the function is called and the file mended."""

    @cacheable
    def run(x):
        note()
        return "right"

    assert run(1) == "right"
    file = ResultStore(cache_dir).path(run.key(1))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(CacheWarning, match="is damaged"):
        assert run(1) == "right"
    assert run(1) == "right"
    assert note.count() == 2


def test_an_argument_without_a_value_is_called_uncached(note):
    """A generator as an argument: the call runs each time, with one warning for the function."""

    @cacheable
    def run(x):
        note()
        return list(x)

    with pytest.warns(
        CacheWarning, match=r"run\(\) is not cached: argument 'x': generator"
    ) as caught:
        assert [run(each for each in (1, 2)) for _ in range(3)] == [[1, 2]] * 3
    assert len(caught) == 1
    assert note.count() == 3


def test_an_opaque_type_counts_as_its_type(note):
    """A type in opaque= makes calls cached whose other parts still count."""

    class Engine:
        def __reduce__(self):
            raise TypeError("not here")

    settings = {"engine": Engine(), "factor": 2}

    def run(x):
        note()
        return settings["factor"] * x

    with pytest.warns(CacheWarning, match=r"settings\['engine'\]: .*Engine .*opaque="):
        assert cacheable(run)(3) == 6
    declared = cacheable(opaque=[Engine])(run)
    assert declared(3) == declared(3) == 6
    settings["factor"] = 7
    assert declared(3) == 21
    assert note.count() == 3


def test_a_variable_that_the_function_changes_makes_each_call_another(note):
    """The second call is a miss that has no other cause; one warning names the variable."""
    counts = {"calls": 0, "factor": 2}

    @cacheable
    def run(x):
        note()
        counts["calls"] += 1
        return counts["factor"] * x

    assert run(3) == 6
    with pytest.warns(
        CacheWarning, match=r"because it changes .*counts, which it also reads"
    ) as caught:
        assert (run(3), run(3)) == (6, 6)
    assert len(caught) == 1
    counts["factor"] = 7
    assert run(3) == 21


def test_recursion_uses_what_is_kept(note):
    """A cacheable function that calls itself executes each call once."""

    @cacheable
    def fib(n):
        note(n)
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(15) == 610
    assert note.count() == 16


def test_methods_are_keyed_by_their_object(note):
    """A cacheable method is bound as any method, and its object is an argument."""

    class Model:
        def __init__(self, rate):
            self.rate = rate

        @cacheable
        def run(self, x):
            note()
            return self.rate * x

    assert Model(2).run(3) == Model(2).run(3) == 6
    assert Model(3).run(3) == 9
    assert note.count() == 2


def test_it_looks_like_the_function_it_keeps():
    """Name, documentation and signature are those of the function."""

    @cacheable
    def run(x: int) -> int:
        """Run it."""
        return x

    import inspect

    assert isinstance(run, CacheableFunction)
    assert run.__name__ == "run"
    assert run.__doc__ == "Run it."
    assert str(inspect.signature(run)) == "(x: 'int') -> 'int'"
    assert "cacheable" in repr(run) and "run" in repr(run)


def test_the_engine_sees_how_results_are_kept(tmp_path):
    """Options, keys and the plain function are there for whoever submits the function."""

    @cacheable(version="v", ignore="y", store=tmp_path, return_type=int, x=int)
    def run(x, y=0):
        return x

    assert run.cache_spec == CacheSpec("v", frozenset({"y"}), False, tmp_path, {"x": int}, int)
    keys = run.call_keys()
    assert keys.key((1,)) == run.key("1") == run.key(1, y=5)
    assert keys.key((1,)) == CallKeys(run.__wrapped__, version="v", ignore=["y"]).key((1,))
    assert call_key(run, (1,), {}) == call_key(run.__wrapped__, (1,), {})
    assert run.convert(("1",), {"y": 2}) == ((1, 2), {})
    assert run.compute(4) == 4
    assert run.store().folder == tmp_path


def test_functions_of_modules_travel_by_name():
    """What another process can import is pickled as its name."""
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level
    assert len(pickle.dumps(at_module_level)) < 200


def test_functions_of_a_notebook_travel_by_value_and_keep_their_keys(tmp_path):
    """A worker without the source gives the very keys that the notebook gives."""
    script = tmp_path / "notebook.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, cloudpickle
            from scalable_nb import cacheable
            def helper(x): return x
            @cacheable(x=int)
            def run(x):
                return helper(x) if x < 2 else run(x - 1)
            print(run.key(1), run.__wrapped__.__module__)
            sys.stdout.flush()
            sys.stdout.buffer.write(cloudpickle.dumps(run))
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True)
    first, _, pickled = done.stdout.partition(b"\n")
    arrived = pickle.loads(pickled)
    key, module = first.decode().split()
    assert module == "__main__"
    assert arrived.key(1) == key
    assert arrived(5) == 1
    assert cloudpickle.loads(cloudpickle.dumps(arrived)).key(1) == key


def test_modules_that_are_registered_travel_by_value(monkeypatch, tmp_path):
    """A function of a module that workers do not have is pickled with its code."""
    (tmp_path / "beside_notebook.py").write_text(
        "from scalable_nb import cacheable\n@cacheable\ndef run(x): return x + 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import beside_notebook

    cloudpickle.register_pickle_by_value(beside_notebook)
    try:
        pickled = cloudpickle.dumps(beside_notebook.run)
    finally:
        cloudpickle.unregister_pickle_by_value(beside_notebook)
    key = beside_notebook.run.key(1)
    monkeypatch.delitem(sys.modules, "beside_notebook")
    arrived = pickle.loads(pickled)
    assert "beside_notebook" not in sys.modules
    assert arrived.key(1) == key
    assert arrived(1) == 2


@pytest.mark.parametrize(
    ("decorate", "error", "message"),
    [
        (cacheable(scenaro_id=int), UnknownNameError, "Did you mean 'scenario_id'"),
        (
            cacheable(ignore=["verbos"]),
            UnknownNameError,
            "no parameter named 'verbos'",
        ),
        (cacheable(scenario_id="int"), SubmitError, "scenario_id='int' is no type"),
        (cacheable(opaque=[3]), SubmitError, r"opaque=\[3\] is not a type"),
        (cacheable(return_type=3), SubmitError, "return_type=3 is no type"),
        (lambda f: cacheable(3), SubmitError, "functions, not of 3"),
        (lambda f: cacheable(dict), SubmitError, "functions, not of <class 'dict'>"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused_at_once(decorate, error, message):
    """A typo in the decorator is told where the function is defined, not at its first call."""

    def run(scenario_id, verbose=False):
        return scenario_id

    with pytest.raises(error, match=message):
        decorate(run)


def test_results_are_compressed_where_the_decorator_says_so(tmp_path):
    """The option changes what the file takes, and neither the key nor the result."""

    def zeros(count):
        return bytes(count)

    plain = cacheable(zeros)
    small = cacheable(store=tmp_path, compress=True)(zeros)
    assert small(100_000) == small(100_000) == bytes(100_000)
    (file,) = tmp_path.rglob("*.result")
    assert file.stem == plain.key(100_000)
    assert file.stat().st_size < 2_000


def test_generators_and_coroutines_are_refused():
    """What gives no value that could be kept is refused with the way out."""

    def generate(x):
        yield x

    async def wait(x):
        return x

    with pytest.raises(SubmitError, match="is a generator; let it return a list"):
        cacheable(generate)
    with pytest.raises(SubmitError, match="is async"):
        cacheable(wait)
