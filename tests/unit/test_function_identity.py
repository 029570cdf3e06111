"""The function's part of a key: what edit makes it another function, and what does not."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from scalable_nb.cache.decorator import cacheable
from scalable_nb.cache.hashing.function_identity import Identity
from scalable_nb.cache.keys import CallKeys, call_key


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder whose modules can be written, edited and imported afresh."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)

    def write(**sources):
        """Write modules, import the one called `work` anew and give its function `run`."""
        for name, source in sources.items():
            file = tmp_path / f"{name}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(textwrap.dedent(source))
        for name in set(sys.modules) - known:
            del sys.modules[name]
        sys.path_importer_cache.clear()
        importlib.invalidate_caches()
        # Two edits within one second may leave a stale .pyc behind.
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return importlib.import_module("work").run

    yield write
    for name in set(sys.modules) - known:
        del sys.modules[name]


def key(function):
    return call_key(function, (1,), {})


BASE = """
    LIMIT = 3

    def helper(x):
        "What it does."
        return x + 1

    def run(x):
        if x > LIMIT:
            return 0
        return helper(x) * 2
"""


def test_comments_layout_and_docstrings_do_not_count(project):
    """An edit that changes nothing of what is computed keeps the key."""
    before = key(project(work=BASE))
    same = """
    # A new comment at the top, and another function in between.
    LIMIT = 3


    def unrelated():
        return 5


    def helper(x):  # adds one
        '''Another
        text.'''

        return (x +
                1)

    def run(x):
        "Now with a docstring."
        if (x > LIMIT): return 0
        # the rest
        return (helper(x)
            * 2)
    """
    assert key(project(work=same)) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("helper(x) * 2", "helper(x) * 3"),
        ("x + 1", "x + 2"),
        ("x + 1", "x + 1.0"),
        ("x + 1", "x + True"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("def helper(x):", "def helper(x, y=2):"),
        ("x > LIMIT", "x >= LIMIT"),
        ("def run(x):", "def run(x, more=None):"),
        ("    def helper(x):", "    @staticmethod\n    def helper(x):"),
    ],
)
def test_an_edit_of_function_helper_or_constant_changes_the_key(project, old, new):
    """Whatever can change the result changes the key."""
    before = key(project(work=BASE))
    assert old in BASE
    assert key(project(work=BASE.replace(old, new))) != before


def test_helpers_are_followed_through_modules_and_classes(project):
    """The key changes with a helper three steps away, and with nothing else in its module."""
    files = {
        "work": """
            import tools
            from models import Model
            def run(x):
                return Model(x).fit() + tools.scale(x)
        """,
        "models": """
            from maths import square
            class Base:
                def fit(self):
                    return self.step()
            class Model(Base):
                rate = 0.5
                def __init__(self, x):
                    self.x = x
                def step(self):
                    return square(self.x) * self.rate
                @property
                def size(self):
                    return 1
                @classmethod
                def make(cls):
                    return cls(1)
        """,
        "maths": """
            def square(x):
                return x * x
            def cube(x):
                return x * x * x
        """,
        "tools": """
            import maths
            def scale(x):
                return 10 * maths.square(x)
            def unused(x):
                return 1
        """,
    }
    before = key(project(**files))

    def edited(name, old, new):
        assert old in files[name]
        return key(project(**{**files, name: files[name].replace(old, new)}))

    assert key(project(**files)) == before
    assert edited("maths", "x * x * x", "x ** 3") == before
    assert edited("tools", "return 1\n", "return 2\n") == before
    assert edited("models", "def step(self):", "def step(self):  # a comment") == before
    for name, old, new in [
        ("maths", "return x * x\n", "return x ** 2\n"),
        ("tools", "10 * maths", "11 * maths"),
        ("models", "self.step()", "self.step() + 1"),
        ("models", "rate = 0.5", "rate = 0.6"),
        ("models", "return 1", "return 2"),
        ("models", "cls(1)", "cls(2)"),
        ("models", "self.x = x", "self.x = x + 1"),
    ]:
        assert edited(name, old, new) != before, (name, old)


def test_modules_imported_inside_a_function_are_followed(project):
    """An import in the body counts, with what that module imports, imported yet or not."""
    files = {
        "work": """
            def run(x):
                from pack.inner import compute
                import json
                return compute(x)
        """,
        "pack/__init__": "",
        "pack/inner": """
            from . import deep
            def compute(x):
                "Text."
                return deep.value(x)
        """,
        "pack/deep": """
            def value(x):
                return x
        """,
    }
    run = project(**files)
    before = key(run)
    assert run(1) == 1
    assert "pack.deep" in sys.modules
    assert key(run) == before
    commented = files["pack/deep"].replace("return x", "return x  # so it is")
    assert key(project(**{**files, "pack/deep": commented})) == before
    changed = files["pack/deep"].replace("return x", "return -x")
    assert key(project(**{**files, "pack/deep": changed})) != before


def test_recursion_and_mutual_recursion_have_keys(project):
    """Functions that call each other in a circle have keys that notice every edit."""
    source = """
        def run(n):
            return n if n < 2 else other(n - 1)
        def other(n):
            return run(n - 1) + 1
    """
    before = key(project(work=source))
    assert key(project(work=source)) == before
    assert key(project(work=source.replace("+ 1", "+ 2"))) != before


def test_a_large_circle_of_helpers_is_walked_once(project):
    """Two hundred functions that all call each other cost a moment, and no stack."""
    names = [f"f{number}" for number in range(200)]
    body = "\n".join(
        f"def {name}(x):\n    return ({', '.join(names)}) if x else {number}"
        for number, name in enumerate(names)
    )
    source = f"{body}\ndef run(x):\n    return f0(x)\n"
    before = key(project(work=source))
    assert key(project(work=source.replace("else 199", "else -1"))) != before


def test_an_edited_file_that_was_not_imported_again_is_not_believed(project, tmp_path):
    """A key belongs to the code in memory, not to a file that was edited since."""
    edited = BASE.replace("x + 1", "x + 2")
    of_edited = key(project(work=edited))
    run = project(work=BASE)
    (tmp_path / "work.py").write_text(textwrap.dedent(edited))
    stale = key(run)
    assert run(1) == 4
    assert stale != of_edited
    moved = project(work=BASE)
    (tmp_path / "work.py").write_text("# a line above\n" + textwrap.dedent(BASE))
    assert key(moved) == key(project(work=BASE))


def test_rebinding_a_helper_or_global_is_noticed():
    """In a notebook a cell run again makes new keys, and the old cell makes the old ones."""
    namespace = {}
    exec("def helper(x): return x\ndef run(x): return helper(x) + SHIFT\nSHIFT = 1", namespace)
    run = namespace["run"]
    keys = CallKeys(run)
    before = keys.key((1,))
    namespace["SHIFT"] = 2
    assert keys.key((1,)) == before  # as it was when the batch began
    assert key(run) != before
    keys.refresh()
    assert keys.key((1,)) != before
    namespace["SHIFT"] = 1
    keys.refresh()
    assert keys.key((1,)) == before
    exec("def helper(x): return -x", namespace)
    assert key(run) != before
    del namespace["helper"]
    assert key(run) != before


def test_a_changed_container_that_is_only_read_is_noticed():
    """A setting changed in a global dict makes another call."""
    namespace = {"CONFIG": {"rate": [1, 2]}}
    exec("def run(x): return x * CONFIG['rate'][0]", namespace)
    before = key(namespace["run"])
    namespace["CONFIG"]["rate"][0] = 5
    assert key(namespace["run"]) != before
    namespace["CONFIG"]["rate"][0] = 1
    assert key(namespace["run"]) == before


@pytest.mark.parametrize(
    "statement",
    [
        "LOG.append(x)",
        "LOG[0] = x",
        "LOG[0] += x",
        "LOG[0]['n'] = x",
        "DEEP['log'].append(x)",
        "DEEP.setdefault('log', []).append(x)",
        "DEEP['log'] += [x]",
        "del LOG[:]",
        "global COUNT; COUNT += 1",
    ],
)
def test_what_a_function_writes_counts_as_it_is(statement):
    """A variable that a function changes is keyed on its value, like any other."""
    namespace = {"LOG": [{}], "DEEP": {"log": [1]}, "COUNT": 0}
    exec(f"def run(x):\n    {statement}\n    return x", namespace)
    before = key(namespace["run"])
    namespace["LOG"].append(5)
    namespace["DEEP"]["log"].append(5)
    namespace["COUNT"] += 1
    assert key(namespace["run"]) != before


def test_variables_of_enclosing_functions_count():
    """Closures over different values are different functions."""

    def make(amount):
        def run(x):
            return x + amount

        return run

    assert len({key(make(1)), key(make(2)), key(make(1.0))}) == 3
    assert key(make(1)) == key(make(1))


def test_functions_in_a_global_set_count_whole():
    """Functions in a set are told apart by their variables and helpers, in any order."""

    def adder(amount):
        return lambda x: helper(x) + amount

    def helper(x):
        return x

    def make(*amounts):
        steps = {adder(amount) for amount in amounts}
        return lambda x: [step(x) for step in steps]

    assert key(make(1, 2, 3)) == key(make(3, 2, 1))
    assert key(make(1, 2, 3)) != key(make(1, 2, 4))
    namespace = {}
    exec("def run(x): return ALL\ndef other(x): return ALL\nALL = {run, other}", namespace)
    assert key(namespace["run"]) != key(namespace["other"])


def test_default_values_count():
    """A default that was evaluated to something else makes another function."""

    def make(table):
        def run(x, *, table=table):
            return x

        return run

    assert key(make({"a": 1})) != key(make({"a": 2}))
    assert key(make({"a": 1})) == key(make({"a": 1}))


def test_decorators_count_unless_they_are_ours():
    """A decorator that changes the result changes the key; `cacheable` and its options do not."""

    def times(factor):
        def decorate(function):
            @functools.wraps(function)
            def wrapper(*args):
                return factor * function(*args)

            return wrapper

        return decorate

    def make(*decorators):
        def run(x):
            return x

        for decorator in decorators:
            run = decorator(run)
        return run

    plain = key(make())
    assert key(make(times(2))) != plain
    assert key(make(times(2))) != key(make(times(3)))
    assert key(make(cacheable)) == plain
    assert key(make(cacheable(return_type=int, recompute=True))) == plain
    assert key(make(functools.cache)) == key(make(functools.cache)) != plain


def test_the_line_of_a_decorator_of_ours_does_not_count(project):
    """Adding options to `@cacheable` in the source keeps what was computed."""
    source = """
        import scalable_nb
        from scalable_nb import cacheable
        from functools import lru_cache

        @DECORATOR
        def run(x):
            return x
    """
    keys = {
        key(project(work=source.replace("DECORATOR", decorator)))
        for decorator in ("cacheable", "cacheable(recompute=True)", "scalable_nb.cacheable(x=int)")
    }
    assert len(keys) == 1
    assert key(project(work=source.replace("DECORATOR", "lru_cache"))) not in keys
    assert key(project(work=source.replace("@DECORATOR", ""))) in keys


def test_a_global_without_a_value_does_not_stand_in_the_way():
    """A lock among the globals counts as its type."""
    namespace = {"LOCK": threading.Lock(), "LOCAL": threading.local()}
    exec("def run(x):\n    with LOCK: return x, LOCAL", namespace)
    before = key(namespace["run"])
    namespace["LOCK"] = threading.Lock()
    assert key(namespace["run"]) == before
    namespace["LOCK"] = threading.RLock()
    assert key(namespace["run"]) != before


def test_a_helper_behind_an_opaque_global_is_still_followed():
    """A function first met inside something without a value is not forgotten."""
    namespace = {"LOCK": threading.Lock()}
    exec(
        "def helper(x): return x\nA_TABLE = [helper, LOCK]\ndef run(x): return A_TABLE, helper(x)",
        namespace,
    )
    before = key(namespace["run"])
    namespace["helper"].__code__ = (lambda x: x + 1).__code__
    assert key(namespace["run"]) != before


def test_installed_code_counts_by_name_only():
    """Helpers from installed packages are named, not read: the walk stays with the user's."""
    import numpy
    import pandas

    def run(x):
        return pandas.DataFrame(x), numpy.sum(x)

    assert [found.__name__ for found in Identity(run)._walk._found] == ["run"]


def test_functions_made_by_installed_code_count_by_what_they_hold():
    """Two wrappers or closures of one installed factory are told apart by their variables."""
    from dask.utils import itemgetter

    def run(x):
        return x

    def other(x):
        return x + 1

    assert key(contextlib.contextmanager(run)) != key(contextlib.contextmanager(other))
    assert call_key(run, (itemgetter(1),), {}) != call_key(run, (itemgetter(2),), {})
    assert key(functools.singledispatch(run)) != key(functools.singledispatch(other))
    assert key(functools.singledispatch(run)) == key(functools.singledispatch(run))
    made = [functools.total_ordering, functools.partialmethod(run, [1]), functools.lru_cache(3)]
    assert len({call_key(run, (each,), {}) for each in made}) == 3
    assert call_key(run, (functools.lru_cache(3),), {}) != call_key(
        run, (functools.lru_cache(4),), {}
    )


def test_code_made_by_exec_is_nobodys_library():
    """A function without a module of its own is read, not taken by its name."""
    keys = {key(_made("def run(x): return x")), key(_made("def run(x): return x + 1"))}
    assert len(keys) == 2
    classes = [_made(f"class run:\n    def size(self): return {n}") for n in (1, 2)]
    assert call_key(id, (classes[0],), {}) != call_key(id, (classes[1],), {})


def _made(source):
    namespace = {}
    exec(source, namespace)
    return namespace["run"]


def test_an_unchanged_function_is_not_walked_again(monkeypatch):
    """Ten thousand keys of one function look at its code once."""
    walks = []
    original = Identity.__init__

    def counted(self, function, *opaque):
        walks.append(function)
        original(self, function, *opaque)

    monkeypatch.setattr(Identity, "__init__", counted)

    def helper(x):
        return x

    def run(x):
        return helper(x)

    keys = CallKeys(run)
    assert len({keys.key((number,)) for number in range(10_000)}) == 10_000
    for number in range(100):
        call_key(run, (number,), {})
    assert walks == [run]


def test_a_notebook_cell_gives_the_key_of_its_text():
    """Functions of cells are keyed by their source, cell numbers and comments aside."""
    script = textwrap.dedent(
        """
        from IPython.core.interactiveshell import InteractiveShell
        from scalable_nb.cache.keys import call_key
        shell = InteractiveShell()
        shell.run_cell("def helper(x): return x + 1")
        shell.run_cell("def run(x):\\n    return helper(x)")
        one = call_key(shell.user_ns["run"], (1,), {})
        shell.run_cell("# again\\n\\ndef run(x):\\n    'text'\\n    return helper(x)  # same")
        assert call_key(shell.user_ns["run"], (1,), {}) == one
        shell.run_cell("def helper(x): return x + 2")
        assert call_key(shell.user_ns["run"], (1,), {}) != one
        shell.run_cell("def helper(x):\\n    return x + 1")
        assert call_key(shell.user_ns["run"], (1,), {}) == one
        """
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
