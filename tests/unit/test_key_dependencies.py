"""Whatever a cached call depends on is in its key, or the call is not cached."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import queue
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import notebook_functions
import pytest

from scalable_nb.cache.decorator import cacheable
from scalable_nb.cache.function import CacheWarning
from scalable_nb.cache.hashing.dataless import DATALESS_TYPES
from scalable_nb.cache.keys import call_key
from scalable_nb.errors import NotCacheableError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Keep stored results out of the checkout."""
    monkeypatch.chdir(tmp_path)


SOURCES = {
    "lock_in_object": (
        """
        class Model:
            def __init__(self, factor): self.lock, self.factor = threading.Lock(), factor
        MODEL = Model(2)
        def run(x): return MODEL.factor * x
        """,
        "MODEL.factor = 7",
    ),
    "file_in_object": (
        """
        class Model: pass
        MODEL = Model(); MODEL.log = LOG; MODEL.factor = 2
        def run(x): return MODEL.factor * x
        """,
        "MODEL.factor = 7",
    ),
    "executor_in_default": (
        """
        from concurrent.futures import ThreadPoolExecutor
        TABLE = {"pool": ThreadPoolExecutor(1), "factor": 2}
        def run(x, table=TABLE): return table["factor"] * x
        """,
        "TABLE['factor'] = 7",
    ),
    "lock_in_dict": (
        """
        TABLE = {"lock": threading.Lock(), "factor": 2}
        def run(x): return TABLE["factor"] * x
        """,
        "TABLE['factor'] = 7",
    ),
    "lock_in_closure": (
        """
        def make(table):
            def run(x): return table[1] * x
            return run
        TABLE = [threading.Lock(), 2]
        run = make(TABLE)
        """,
        "TABLE[1] = 7",
    ),
    "struct": (
        """
        import struct
        FORMAT = struct.Struct("<i")
        def run(x): return FORMAT.size * x
        """,
        "FORMAT = struct.Struct('<q')",
    ),
    "dict_view": (
        """
        TABLE = {"factor": 2}
        VALUES = TABLE.values()
        def run(x): return sum(VALUES) * x
        """,
        "TABLE['factor'] = 7",
    ),
    "memoryview": (
        """
        DATA = bytearray([2])
        VIEW = memoryview(DATA)
        def run(x): return VIEW[0] * x
        """,
        "DATA[0] = 7",
    ),
    "function_attribute": (
        """
        def helper(x): return helper.factor * x
        helper.factor = 2
        def run(x): return helper(x)
        """,
        "helper.factor = 7",
    ),
    "own_attribute": (
        """
        def run(x): return getattr(run, "factor", 2) * x
        """,
        "run.factor = 7",
    ),
    "frompyfunc": (
        """
        import numpy
        TIMES = numpy.frompyfunc(lambda x: 2 * x, 1, 1)
        def run(x): return TIMES(x)
        """,
        "TIMES = numpy.frompyfunc(lambda x: 7 * x, 1, 1)",
    ),
    "bound_builtin": (
        """
        TABLE = {"factor": 2}
        GET = TABLE.get
        def run(x): return GET("factor") * x
        """,
        "TABLE['factor'] = 7",
    ),
    "bound_method": (
        """
        class Model:
            factor = 2
        MODEL = Model()
        TIMES = types.MethodType(lambda self, x: 2 * x, MODEL)
        def run(x): return TIMES(x)
        """,
        "TIMES = types.MethodType(lambda self, x: 7 * x, MODEL)",
    ),
    "series_add": (
        """
        import pandas
        BASE = pandas.Series([1, 2, 3])
        def run(x): return BASE.add(x)
        """,
        "BASE = pandas.Series([10, 20, 30])",
    ),
    "counting_calls": (
        """
        TABLE = {"factor": 2, "calls": 0}
        def run(x):
            TABLE["calls"] += 1
            return TABLE["factor"] * x
        """,
        "TABLE['factor'] = 7",
    ),
    "pydantic_default": (
        """
        import pydantic
        class Settings(pydantic.BaseModel):
            factor: int = 2
        def run(x): return Settings().factor * x
        """,
        """
class Settings(pydantic.BaseModel):
    factor: int = 7
""",
    ),
    "class_dunder": (
        """
        class Model:
            __factor__ = 2
        def run(x): return Model.__factor__ * x
        """,
        "Model.__factor__ = 7",
    ),
    "cached_property": (
        """
        import functools
        class Model:
            @functools.cached_property
            def factor(self): return 2
        MODEL = Model()
        def run(x): return MODEL.factor * x
        """,
        "MODEL.factor = 7",
    ),
    "name_of_a_nested_local": (
        """
        FACTOR = 2
        def run(x):
            def inner():
                FACTOR = 1
                FACTOR += 1
                def deepest():
                    nonlocal FACTOR
                    FACTOR += 1
                    return FACTOR
                return deepest()
            inner()
            return globals_factor() * x
        def globals_factor(): return FACTOR
        """,
        "FACTOR = 7",
    ),
    "nested_global": (
        """
        factor = 2
        def make(factor):
            def run(x):
                def inner():
                    global factor
                    return factor
                return inner() * x + factor
            return run
        run = make(0)
        """,
        "factor = 7",
    ),
    "wraps_of_a_cacheable": (
        """
        import functools
        def base(x): return x
        base = cacheable(base)
        FACTOR = 2
        @functools.wraps(base)
        def run(x): return FACTOR * base(x)
        """,
        "FACTOR = 7",
    ),
    "wrapper_object": (
        """
        import functools
        class Times:
            def __init__(self, function, factor):
                functools.update_wrapper(self, function)
                self.factor = factor
            def __call__(self, x): return self.factor * self.__wrapped__(x)
        TIMES = Times(lambda x: x, 2)
        def run(x): return TIMES(x)
        """,
        "TIMES.factor = 7",
    ),
    "docstring": (
        """
        def helper(): "2"
        def run(x): return int(helper.__doc__) * x
        """,
        "helper.__doc__ = '7'",
    ),
    "name": (
        """
        def helper(x): pass
        def run(x): return len(helper.__name__) * x
        """,
        "helper.__name__ = 'other_name'",
    ),
    "registered_type": (
        """
        import functools
        @functools.singledispatch
        def helper(x): return 2
        def run(x): return helper(x) * x
        """,
        "helper.register(int)(lambda x: 7)",
    ),
    "annotation": (
        """
        def helper(x: 2): pass
        def run(x): return helper.__annotations__["x"] * x
        """,
        "helper.__annotations__['x'] = 7",
    ),
    "version_of_a_helper": (
        """
        def outside(x): return x
        helper = cacheable(version=1)(outside)
        def run(x): return helper(x)
        """,
        "helper = cacheable(version=2)(outside)",
    ),
    "what_pickle_leaves_out": (
        """
        class Model:
            factor = 2
            def __getstate__(self): return {}
        MODEL = Model()
        def run(x): return MODEL.factor * x
        """,
        "MODEL.factor = 7",
    ),
    "subclass_of_an_array": (
        """
        import numpy
        class Grid(numpy.ndarray): pass
        GRID = numpy.zeros(2).view(Grid); GRID.factor = 2
        def run(x): return GRID.factor * x
        """,
        "GRID.factor = 7",
    ),
    "class_that_claims_a_library": (
        """
        class Model:
            factor = 2
        Model.__module__ = "numpy"
        def run(x): return Model.factor * x
        """,
        "Model.factor = 7",
    ),
    "attribute_of_a_library": (
        """
        import colorsys
        colorsys.FACTOR = 2
        def run(x): return colorsys.FACTOR * x
        """,
        "colorsys.FACTOR = 7",
    ),
    "patched_library": (
        """
        import colorsys
        colorsys.helper = lambda x: 2 * x
        def run(x): return colorsys.helper(x)
        """,
        "colorsys.helper = lambda x: 7 * x",
    ),
    "environment": (
        """
        os.environ["SCALABLE_TEST_FACTOR"] = "2"
        def run(x): return int(os.environ["SCALABLE_TEST_FACTOR"]) * x
        """,
        "os.environ['SCALABLE_TEST_FACTOR'] = '7'",
    ),
    "getenv": (
        """
        os.environ["SCALABLE_TEST_FACTOR"] = "2"
        def run(x): return int(os.getenv("SCALABLE_TEST_FACTOR", "1")) * x
        """,
        "del os.environ['SCALABLE_TEST_FACTOR']",
    ),
    "context_variable": (
        """
        import contextvars
        FACTOR = contextvars.ContextVar("FACTOR", default=2)
        def run(x): return FACTOR.get() * x
        """,
        "FACTOR.set(7)",
    ),
    "builtin_name": (
        """
        import builtins
        builtins.scalable_test_factor = 2
        def run(x): return scalable_test_factor * x
        """,
        "builtins.scalable_test_factor = 7",
    ),
}


def answer_and_key(namespace):
    """Return what a call returns, and its key; None if it is not cached."""
    try:
        key = call_key(namespace["run"], (3,), {})
    except NotCacheableError:
        key = None
    return repr(namespace["run"](3)), key


@pytest.mark.parametrize("name", SOURCES)
def test_a_dependency_is_in_the_key_or_the_call_is_not_cached(name, monkeypatch, request):
    """A change of the answer changes the key, unless the call is not cached."""
    source, mutation = SOURCES[name]
    namespace = {"__name__": "__main__", "threading": threading, "os": os, "types": types}
    namespace["cacheable"] = cacheable
    log = Path(os.devnull).open()  # noqa: SIM115 - closed by the finalizer
    request.addfinalizer(log.close)
    namespace["LOG"] = log
    monkeypatch.setenv("SCALABLE_TEST_FACTOR", "")
    exec(textwrap.dedent(source), namespace)
    _, before = answer_and_key(namespace)
    first, _ = answer_and_key(namespace)
    exec(mutation, namespace)
    second, after = answer_and_key(namespace)
    assert name == "version_of_a_helper" or first != second
    assert (before is None and after is None) or before != after


CACHED = [
    *("lock_in_object", "lock_in_dict", "lock_in_closure", "struct", "dict_view", "memoryview"),
    *("function_attribute", "bound_builtin", "bound_method", "series_add", "counting_calls"),
    *("pydantic_default", "class_dunder", "wraps_of_a_cacheable", "wrapper_object", "docstring"),
    *("environment", "what_pickle_leaves_out"),
]


@pytest.mark.parametrize("name", CACHED)
def test_an_object_with_a_value_stays_cached(name):
    """A lock next to data does not keep a call out of the cache."""
    source, _ = SOURCES[name]
    namespace = {"__name__": "__main__", "threading": threading, "os": os, "types": types}
    namespace["cacheable"] = cacheable
    exec(textwrap.dedent(source), namespace)
    assert len(call_key(namespace["run"], (3,), {})) == 64


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Write and import modules of a project."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        for name in set(sys.modules) - known:
            del sys.modules[name]
        importlib.invalidate_caches()
        return importlib.import_module(next(iter(sources)))

    yield write
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize(
    "body",
    [
        "return tools.FACTOR * x",
        "return getattr(tools, 'FACTOR') * x",
        "return vars(tools)['FACTOR'] * x",
        "return scale(tools, x)",
        "m = tools\n    return m.FACTOR * x",
        "return [tools][0].FACTOR * x",
    ],
)
def test_a_module_counts_however_it_is_read(modules, body):
    """A module that is used as an object counts as all of it."""
    source = f"import tools\ndef scale(m, x): return m.FACTOR * x\ndef run(x):\n    {body}\n"
    work = modules(work=source, tools="FACTOR = 2\nOTHER = 1")
    before = call_key(work.run, (3,), {})
    work.tools.FACTOR = 7
    assert call_key(work.run, (3,), {}) != before


def test_a_module_as_an_argument_counts_as_all_of_it(modules):
    """A user's module among the arguments has the key of its content."""
    tools = modules(tools="FACTOR = 2\ndef helper(): return 1")
    before = call_key(lambda m: m, ([tools],), {})
    tools.FACTOR = 7
    assert call_key(lambda m: m, ([tools],), {}) != before


def test_a_module_imported_by_a_literal_name_counts(modules):
    """`importlib.import_module("tools")` is followed as an import is."""
    source = """
        import importlib
        def run(x): return importlib.import_module("tools").FACTOR * x
    """
    before = call_key(modules(work=source, tools="FACTOR = 2").run, (3,), {})
    assert call_key(modules(work=source, tools="FACTOR = 7").run, (3,), {}) != before


def test_a_loaded_module_that_is_older_than_its_file_counts(tmp_path, modules):
    """Its key is not that of a new process, which imports the edited file."""
    sources = {
        "work": "def run(x):\n    from tools import scale\n    return scale(x)\n",
        "tools": "def factor(): return 2\ndef scale(x): return factor() * x\n",
    }
    run = modules(**sources).run
    run(3)
    call_key(run, (3,), {})
    edited = sources["tools"].replace("2", "11")
    (tmp_path / "tools.py").write_text(edited)
    stale = call_key(run, (3,), {})
    assert stale != call_key(modules(**{**sources, "tools": edited}).run, (3,), {})


def test_a_module_that_is_written_later_counts(tmp_path, modules):
    """The key is computed first before the imported module exists."""
    run = modules(work="def run(x):\n    import later\n    return later.FACTOR * x\n").run
    keys = [call_key(run, (3,), {})]
    for factor in (2, 7):
        (tmp_path / "later.py").write_text(f"FACTOR = {factor}\n# {'x' * factor}")
        importlib.invalidate_caches()
        keys.append(call_key(run, (3,), {}))
    assert len(set(keys)) == 3


def test_a_module_imported_from_a_package_counts(tmp_path, modules):
    """`from pack import inner` inside a function is followed into the module `inner`."""
    (tmp_path / "pack").mkdir()
    source = "def run(x):\n    from pack import inner\n    return inner.FACTOR * x\n"
    files = {"pack/__init__": "", "pack/inner": "FACTOR = 2"}
    before = call_key(modules(work=source, **files).run, (3,), {})
    edited = modules(work=source, **{**files, "pack/inner": "FACTOR = 7"})
    assert call_key(edited.run, (3,), {}) != before


@pytest.mark.parametrize(
    "change",
    [
        "FACTOR = 7",
        "TABLE['factor'] = 7",
        "helper.__doc__ = '7'",
        "helper.__defaults__ = (7,)",
        "helper = lambda x=7: x",
        "Model.factor = 7",
    ],
)
def test_a_change_in_memory_of_an_imported_module_counts(modules, change):
    """A module that a function imports counts as it is in memory, once it is loaded."""
    tools = """
        FACTOR = 2
        TABLE = {"factor": 2}
        def helper(x=2):
            "2"
            return x
        class Model:
            factor = 2
    """
    read = "(tools.FACTOR, tools.TABLE, helper.__doc__, helper(), tools.Model.factor)"
    source = f"""
        import tools as loaded
        def run(x):
            import tools
            from tools import helper
            return {read}
    """
    work = modules(work=source, tools=tools)
    before = call_key(work.run, (3,), {})
    exec(change, vars(work.loaded))
    assert call_key(work.run, (3,), {}) != before


@pytest.mark.parametrize(
    ("body", "change"),
    [
        ("int(os.environ['SCALABLE_TEST_FACTOR'])", "os.environ['SCALABLE_TEST_FACTOR'] = '7'"),
        ("colorsys.FACTOR", "colorsys.FACTOR = 7"),
    ],
)
def test_what_an_imported_module_reads_outside_counts(modules, monkeypatch, body, change):
    """Environment variables and patched libraries count through an import inside a function."""
    monkeypatch.setenv("SCALABLE_TEST_FACTOR", "2")
    monkeypatch.setattr("colorsys.FACTOR", 2, raising=False)
    work = modules(
        work="import tools as loaded\ndef run(x):\n    import tools\n    return tools.read()\n",
        tools=f"import colorsys, os\ndef read(): return {body}\n",
    )
    before = call_key(work.run, (3,), {})
    exec(change, vars(work.loaded))
    assert call_key(work.run, (3,), {}) != before


def test_loading_a_simple_module_keeps_the_key(modules):
    """Functions, literals and imports are what the file makes, and do not count twice."""
    source = "def run(x):\n    import tools\n    return tools.helper(x)\n"
    tools = "import math\nFACTOR = [2]\ndef helper(x): return FACTOR[0] * math.floor(x)\n"
    work = modules(work=source, tools=tools)
    before = call_key(work.run, (3,), {})
    assert work.run(3) == 6
    assert call_key(work.run, (3,), {}) == before


def test_a_script_and_its_module_make_the_same_key(modules):
    """A function of `__main__` has the key that it has when it is imported."""
    source = "FACTOR = 2\ndef helper(x): return FACTOR * x\ndef run(x): return helper(x)\n"
    imported = modules(script=source)
    main = {"__name__": "__main__", "__file__": imported.__file__}
    exec(compile(source, imported.__file__, "exec", dont_inherit=True), main)
    assert call_key(main["run"], (3,), {}) == call_key(imported.run, (3,), {})


def test_the_path_to_an_object_is_named(modules):
    """The error leads to the object, and names a library's object as its user knows it."""
    model = modules(
        model="""
        import sqlalchemy
        CONFIG = {"engine": sqlalchemy.create_engine("sqlite://")}
        def run(x): return CONFIG["engine"]
        """
    )
    with pytest.raises(NotCacheableError) as caught:
        call_key(model.run, (3,), {})
    assert "model.CONFIG['engine']: sqlalchemy Engine" in str(caught.value)
    for remedy in ("ignore=[...]", "opaque=[...]", "version=", "pass it as an argument"):
        assert remedy in str(caught.value)


class Raising:
    """An object that defies inspection."""

    def __reduce__(self):
        raise ValueError("never")

    def __eq__(self, other):
        raise ValueError("never")

    __hash__ = None


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize("make", [Raising, deep, queue.SimpleQueue])
def test_an_object_without_a_value_fails_no_call(make, monkeypatch, tmp_path):
    """The call runs normally, with one warning, as an argument or as a global."""
    monkeypatch.setenv("SCALABLE_CACHE_DIR", str(tmp_path))
    value = make()

    @cacheable
    def takes(x):
        return "done"

    @cacheable
    def reads(x):
        return "done" if value is not None else ""

    for function in (takes, reads):
        with pytest.warns(CacheWarning, match="is not cached") as caught:
            assert [function(value), function(value)] == ["done", "done"]
        assert len(caught) == 1
    while isinstance(value, list) and value:  # deallocate level by level
        value = value.pop()


def test_the_list_of_types_without_data_is_closed():
    """The list contains locks, loggers and the registry of abstract classes."""
    names = sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in DATALESS_TYPES)
    assert names == [
        *("_abc._abc_data", "_thread.RLock", "_thread.lock"),
        *("logging.Logger", "logging.RootLogger"),
    ]


def test_a_subclass_of_a_type_without_data_has_data():
    """A logger of the user's own class counts with its attributes."""

    class Mine(logging.Logger):
        factor = 2

    log = Mine("mine")
    log.factor = 3
    try:
        before = call_key(lambda x: x, (log,), {})
    except NotCacheableError:
        return  # as safe
    log.factor = 4
    assert call_key(lambda x: x, (log,), {}) != before


FUNCTIONS = [name for name in vars(notebook_functions) if name.startswith("with_")]


def test_there_are_forty_functions_of_notebooks():
    """The fixed set covers what notebooks contain."""
    assert len(FUNCTIONS) >= 40


@pytest.fixture(scope="module")
def fresh_keys():
    """Keys of the functions in a process with another hash seed."""
    script = (
        "import json, notebook_functions as module\n"
        "from scalable_nb.cache.keys import call_key\n"
        "names = [name for name in vars(module) if name.startswith('with_')]\n"
        "print(json.dumps({name: call_key(vars(module)[name], (3,), {}) for name in names}))\n"
    )
    tests = Path(__file__).parents[1]
    path = os.pathsep.join((str(tests.parent), str(tests)))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_a_notebook_stays_cached(name, fresh_keys):
    """Loggers, locks, estimators, figures, generators and sessions have the same keys anywhere."""
    assert call_key(getattr(notebook_functions, name), (3,), {}) == fresh_keys[name]


@pytest.mark.parametrize(
    "name",
    [
        *("with_simulation", "with_method_of_a_class", "with_forest", "with_pandas", "with_series"),
        *("with_merge", "with_figure", "with_numpy", "with_vectorize", "with_partial"),
        *("with_enum", "with_named_tuple", "with_dataclass", "with_pydantic", "with_decorator"),
        *("with_lru_cache", "with_singledispatch", "with_context_manager", "with_recursion"),
        *("with_executor_inside", "with_lock", "with_json", "with_closure", "with_default"),
    ],
)
def test_calling_a_function_keeps_its_key(name):
    """State that libraries keep in classes and objects after a call does not count."""
    function = getattr(notebook_functions, name)
    before = call_key(function, (0.5,), {})
    with contextlib.suppress(TypeError, ValueError):
        function(1 if name in ("with_forest", "with_lru_cache") else 0.5)
    assert call_key(function, (0.5,), {}) == before
