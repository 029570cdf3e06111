"""The key of a call: what makes it another one, and what does not."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import math
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.cache.keys import CallKeys, call_key
from scalable_nb.errors import SubmitError, UnknownNameError


def take(value, other=None):
    return value, other


KEYS = CallKeys(take)


def key(value):
    return KEYS.key((value,))


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


Point = namedtuple("Point", "x y")


@dataclasses.dataclass
class Config:
    rate: float = 0.1
    layers: list[int] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def total(self):
        return sum(self.layers)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    size: int = 3


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a, self.b = a, b


# --- an independent account of when two values are the same --------------------------------


def account(value):
    """A hashable description of a value, by its type and parts."""
    kind = type(value).__name__
    if isinstance(value, list | tuple):
        return (kind, tuple(account(each) for each in value))
    if isinstance(value, dict):
        return (kind, tuple((account(k), account(v)) for k, v in value.items()))
    if isinstance(value, set | frozenset):
        return (kind, frozenset(Counter(account(each) for each in value).items()))
    return (kind, repr(value))


HASHABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
VALUES = st.recursive(
    HASHABLE | st.complex_numbers() | st.builds(bytearray, st.binary()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_equal_values_have_equal_keys(value):
    """A copy of a value, and one that was pickled, give the key of the value itself."""
    assert key(copy.deepcopy(value)) == key(value)
    assert key(pickle.loads(pickle.dumps(value, protocol=5))) == key(value)


@given(VALUES, VALUES)
def test_keys_are_equal_only_for_the_same_value(one, other):
    """Two values share a key exactly when types, parts and order are the same."""
    assert (key(one) == key(other)) == (account(one) == account(other))


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_parts_do_not_flow_into_each_other(one, other):
    """What belongs to the first argument never counts as part of the second."""
    same = account(one) == account(other)
    assert (KEYS.key((one, other)) == KEYS.key((other, one))) == same


DISTINCT = [
    1, 1.0, True, "1", b"1", 1 + 0j, Decimal(1), Fraction(1), np.int64(1), np.int32(1),
    np.float64(1), np.float32(1), np.bool_(True), Level.LOW, Color.RED, [1], (1,), {1},
    frozenset({1}), {1: None}, [[1]], np.array(1), np.array([1]), np.array([[1]]),
    np.array([1.0]), np.array([1], ">i8"), np.array([1], dtype=object), bytearray(b"1"),
    0.0, -0.0, float("nan"), math.inf, -math.inf, 0, False, None, "", b"", [], (), {}, set(),
    frozenset(), "None", "nan", np.float64("nan"), -1, 2**64, 10**5000, -(10**5000),
    complex(0.0, -0.0), 0j, "é", "e\u0301", "\ud800", "a\0b",
    [1, 2], [2, 1], [[1], 2], [[1, 2]], ("ab", "c"), ("a", "bc"), {"a": 1, "b": 2},
    {"b": 2, "a": 1}, OrderedDict(a=1, b=2), defaultdict(int, a=1, b=2), Counter(a=1, b=2),
    Point(1, 2), (1, 2), deque([1, 2]), deque([1, 2], maxlen=2), range(1, 3), slice(1, 2),
    date(2024, 1, 1), datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Paris")),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1))), timedelta(1),
    datetime(2024, 1, 1, fold=1), Path("a"), Path("a/b"), "a", Color.BLUE, Color, Level,
    Config(), Config(0.2), Config(0.1, [1]), Frozen("a"), Frozen("a", 4), Plain(a=1), Plain(b=1),
    Slotted(1, 2), Slotted(2, 1), int, float, len, max, take, account, str.join, ...,
    functools.partial(take, 1), functools.partial(take, 2), functools.partial(take, other=1),
    Config(1).__eq__, Config(2).__eq__, np.arange(6), np.arange(6).reshape(2, 3),
    np.arange(6).reshape(3, 2), np.array(["a", "b"]), np.array(["ab", ""]),
    np.array(["a", "b"], dtype=object), np.array(["ab", ""], dtype=object),
    np.array(["a", None], dtype=object), np.array([], "f8"), np.array([], "f4"),
    np.zeros((0, 3)), np.zeros((3, 0)), np.datetime64("2024-01-01", "D"),
    np.datetime64("2024-01-01", "s"), np.array(["2024"], "M8[D]"), np.dtype("f8"), np.sin, np.cos,
    np.array([(1, 2.0)], "i4,f8"), np.array([(1, 2.0)], [("x", "i4"), ("y", "f8")]),
    np.array(["a", "b"], dtype=np.dtypes.StringDType()), np.float64, np.random.default_rng(1),
    np.random.default_rng(2), np.random.RandomState(1),
    pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"b": [1, 2]}),
    pd.DataFrame({"a": [1, 2]}, index=[1, 2]), pd.DataFrame({"a": [1, 2]}, index=["x", "y"]),
    pd.DataFrame({"a": [1, 2], "b": [3, 4]}), pd.DataFrame({"b": [3, 4], "a": [1, 2]}),
    pd.DataFrame({"a": ["x", "y"]}, dtype="string"), pd.DataFrame({"a": ["x", None]}),
    pd.DataFrame({"a": ["x", "y"]}, dtype=object),
    pd.DataFrame({"a": ["x", "y"]}, dtype="category"),
    pd.DataFrame(), pd.DataFrame(index=[1]), pd.Series([1, 2]), pd.Series([1, 2], name="a"),
    pd.Series([1, 2], dtype="Int64"), pd.Series([1, None], dtype="Int64"), pd.Index([1, 2]),
    pd.Index([1, 2], name="a"), pd.RangeIndex(1, 3), pd.NA, pd.NaT, pd.Timestamp("2024"),
    pd.Timestamp("2024", tz="UTC"), pd.Timedelta("1D"), pd.Interval(0, 1), pd.Period("2024", "Y"),
    pd.MultiIndex.from_tuples([(1, 2)]), pd.Categorical(["a"]), pd.Categorical(["a"], ["a", "b"]),
    pd.date_range("2024", periods=2), pd.date_range("2024", periods=2, tz="UTC"),
    pd.Series(["2024", "2025"], dtype="datetime64[ns]"), pd.Series([[1], [2]]), pd.Series([1j]),
]  # fmt: skip


def test_no_two_of_many_different_values_share_a_key():
    """Values that differ in type, order, shape, dtype, name or content have different keys."""
    keys = {}
    for number, value in enumerate(DISTINCT):
        found = keys.setdefault(key(value), number)
        assert found == number, f"{DISTINCT[found]!r} and {value!r} share a key"


@pytest.mark.parametrize("value", DISTINCT, ids=lambda value: f"{type(value).__name__}")
def test_each_kind_of_value_keeps_its_key_when_it_travels(value):
    """A value that was pickled, as on its way to a worker, has the key it had before."""
    assert key(pickle.loads(pickle.dumps(value, protocol=5))) == key(value)
    assert key([value, value]) == key([value, pickle.loads(pickle.dumps(value, protocol=5))])


def test_how_a_call_is_spelled_does_not_matter():
    """Positional, by keyword, in any order, or by default: one call has one key."""

    def run(a, b=2, *, c=None, **more):
        return a, b, c, more

    keys = CallKeys(run)
    expected = keys.key((1,))
    assert keys.key((1, 2)) == expected
    assert keys.key((), {"b": 2, "a": 1}) == expected
    assert keys.key((1,), {"c": None}) == expected
    assert keys.key((1,), {"x": 1, "y": 2}) == keys.key((1,), {"y": 2, "x": 1})
    assert keys.key((1,), {"x": 1}) != expected
    assert call_key(run, (1,), {}) == expected


def test_the_order_of_arguments_matters():
    """f(1, 2) and f(2, 1) are two calls, also where all go into *args."""

    def spread(*values, **named):
        return values, named

    keys = CallKeys(spread)
    assert KEYS.key((1, 2)) != KEYS.key((2, 1))
    assert keys.key((1, 2)) != keys.key((2, 1))
    assert keys.key((), {"a": 1, "b": 2}) != keys.key((), {"a": 2, "b": 1})
    assert keys.key(((1, 2),)) != keys.key((1, 2))
    assert keys.key((), {"values": (1,)}) != keys.key((1,))


def test_a_key_is_a_full_sha256_in_hex():
    """A key has 64 hex digits, nothing is cut off."""
    assert len(key(1)) == 64
    assert set(key(1)) <= set("0123456789abcdef")


def test_version_and_ignored_parameters():
    """A new version makes new keys, and ignored parameters make none."""

    def run(x, verbose=False, **more):
        return x

    plain, second = CallKeys(run), CallKeys(run, version=2)
    assert plain.key((1,)) != second.key((1,))
    assert CallKeys(run, version="2").key((1,)) != second.key((1,))
    quiet = CallKeys(run, ignore=["verbose", "note"])
    assert quiet.key((1, True), {"note": 1}) == quiet.key((1, threading.Lock()))
    assert quiet.key((1,)) != quiet.key((2,))
    assert quiet.key((1,), {"other": 1}) != quiet.key((1,))


def test_an_ignored_parameter_that_does_not_exist_is_refused():
    """A typo in ignore= names the closest parameter."""

    def run(x, verbose=False):
        return x

    with pytest.raises(UnknownNameError, match="Did you mean 'verbose'"):
        CallKeys(run, ignore=["verbos"])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (queue.SimpleQueue(), "SimpleQueue"),
        ((each for each in ()), "generator"),
        ({"deep": [iter([]), (each for each in ())]}, r"\['deep'\]\[1\]: generator"),
        (sys.__stdin__.buffer.raw, "FileIO"),
    ],
    ids=["queue", "generator", "nested", "file"],
)
def test_an_argument_without_a_value_is_refused_by_name(value, why):
    """What cannot be compared by value is an error that names argument, type and way out."""
    with pytest.raises(SubmitError, match=f"'other'.*({why})") as caught:
        KEYS.key((1,), {"other": value})
    assert "ignore=['other']" in str(caught.value)


def test_a_future_has_no_key():
    """A Dask future is not taken for its value: its name may stand for another one tomorrow."""
    from distributed import Future

    with pytest.raises(SubmitError, match="stands for something on a cluster"):
        key([Future("some-key")])


def test_a_call_that_does_not_fit_the_function_is_refused():
    """A missing or superfluous argument is told before anything runs."""
    with pytest.raises(SubmitError, match=r"take\(\) cannot be called like this: .*'value'"):
        KEYS.key(())
    with pytest.raises(SubmitError, match="cannot be called"):
        KEYS.key((1, 2, 3))
    with pytest.raises(SubmitError, match="no function"):
        CallKeys(3)


def test_a_list_that_contains_itself_has_a_key():
    """Recursive values are told apart by their structure, and come to an end."""

    def ring(size, last):
        nodes = [[number] for number in range(size)]
        for number, node in enumerate(nodes):
            node.append(nodes[(number + 1) % size])
        nodes[-1].append(last)
        return nodes[0]

    assert key(ring(3, "x")) == key(ring(3, "x"))
    assert key(ring(3, "x")) == key(copy.deepcopy(ring(3, "x")))
    assert len({key(ring(3, "x")), key(ring(4, "x")), key(ring(3, "y"))}) == 3


def test_a_graph_of_objects_does_not_take_for_ever():
    """A densely linked graph of objects costs as much as it has nodes, not paths."""
    nodes = [Plain(number=number) for number in range(60)]
    for node in nodes:
        node.others = list(nodes)
    assert key(nodes) == key(copy.deepcopy(nodes))


def test_a_cycle_by_way_of_a_set_is_refused():
    """Where no order can be made, the key is refused instead of being another one each time."""
    one, other = Plain(), Plain()
    one.neighbours, other.neighbours = {other}, {one}
    with pytest.raises(SubmitError, match="contains itself, by way of a set"):
        key(one)


def test_a_value_nested_too_deeply_is_refused():
    """A list ten thousand levels deep is an error, not a crash."""
    value = []
    for _ in range(10_000):
        value = [value]
    with pytest.raises(SubmitError, match="nested too deeply"):
        key(value)
    # deallocate level by level
    while value:
        value = value.pop()


def test_after_a_refused_argument_keys_are_as_before():
    """A failed key leaves nothing behind that would change the next one."""
    before = key([1, [2]])
    for bad in (queue.SimpleQueue(), [[queue.SimpleQueue()]], {1: {2: queue.SimpleQueue()}}):
        with pytest.raises(SubmitError):
            key(bad)
    assert key([1, [2]]) == before


def test_a_cached_property_counts_since_it_may_be_assigned():
    """An assigned cached property changes the key, like any attribute."""
    config, other = Config(layers=[1, 2]), Config(layers=[1, 2])
    before = key(config)
    config.total, other.total = 3, 4
    assert len({before, key(config), key(other)}) == 3


def test_the_order_of_attributes_does_not_count():
    """Setting attributes in another order changes no key; another attribute does."""
    config = Config(layers=[1, 2])
    before = key(config)
    assert key(Plain(a=1, b=2)) == key(Plain(b=2, a=1))
    config.extra = 1
    assert key(config) != before


def test_arrays_count_by_value_not_by_layout():
    """Views, Fortran order, memory maps and read-only arrays have the key of a plain copy."""
    array = np.arange(5_000.0).reshape(50, 100)
    expected = key(array)
    fixed = array.copy()
    fixed.flags.writeable = False
    assert key(np.asfortranarray(array)) == expected
    assert key(np.repeat(array, 2, axis=1)[:, ::2]) == expected
    assert key(np.ascontiguousarray(array.T).T) == expected
    assert key(fixed) == expected
    assert key(array.T) != expected
    changed = array.copy()
    changed[49, 99] += 1
    assert key(changed) != expected
    for dtype in ("U5", "S5", "M8[s]", "c16", "?", object, "i4,f8"):
        other = array.astype("i8").astype(dtype)
        assert key(np.asfortranarray(other)) == key(other), dtype


def test_a_memory_map_has_the_key_of_its_content(tmp_path):
    """An array on disk and the same array in memory are one argument."""
    array = np.arange(10.0)
    np.save(tmp_path / "a.npy", array)
    assert key(np.load(tmp_path / "a.npy", mmap_mode="r")) == key(array)


def test_bytes_between_the_fields_of_a_record_do_not_count():
    """Records with padding are told apart by their fields alone."""
    layout = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    one = np.zeros(3, layout)
    other = np.frombuffer(bytearray(b"\xff" * 3 * layout.itemsize), layout)  # a copy loses padding
    other["a"], other["b"] = 0, 0.0
    assert one.tobytes() != other.tobytes()
    assert key(one) == key(other)


def test_frames_count_by_value_not_by_blocks():
    """A frame put together column by column has the key of one made at once."""
    whole = pd.DataFrame({"a": [1, 2], "b": [3, 4], "c": ["x", None]})
    parts = pd.DataFrame({"a": [1, 2]})
    parts["b"] = [3, 4]
    parts["c"] = ["x", None]
    assert key(parts) == key(whole)
    assert key(whole.iloc[:1]) == key(pd.DataFrame({"a": [1], "b": [3], "c": ["x"]}))
    longer = pd.concat([whole, whole], ignore_index=True)
    assert key(longer.iloc[:2]) == key(whole)
    noted = whole.copy()
    noted.attrs["unit"] = "K"
    assert key(noted) != key(whole)


def test_estimators_count_by_parameters_and_fit():
    """A scikit-learn estimator is keyed by what it is set to and what it has learned."""
    from sklearn.tree import DecisionTreeClassifier

    X, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    blank = DecisionTreeClassifier(random_state=0)
    assert key(blank) == key(DecisionTreeClassifier(random_state=0))
    assert key(blank) != key(DecisionTreeClassifier(random_state=1))
    fitted = DecisionTreeClassifier(random_state=0).fit(X, y)
    assert key(fitted) != key(blank)
    assert key(fitted) == key(pickle.loads(pickle.dumps(fitted)))


def test_functions_as_arguments_count_by_their_code():
    """Two lambdas are two arguments, and a lambda written twice is one."""
    assert key(lambda x: x + 1) != key(lambda x: x + 2)
    assert key(lambda x: x + 1) == key(lambda x: x + 1)

    def adder(amount):
        return lambda x: x + amount

    assert key(adder(1)) != key(adder(2))
    assert key([adder(1), adder(2)]) != key([adder(2), adder(1)])
    assert key(adder(1)) == key(adder(1))


def test_callables_other_than_functions_have_keys():
    """Partials, bound methods, C functions and callable objects can be keyed as functions."""

    class Scale:
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, x):
            return x * self.factor

        def twice(self, x):
            return 2 * x * self.factor

    two, three = Scale(2), Scale(3)
    keys = {
        call_key(two, (1,), {}),
        call_key(three, (1,), {}),
        call_key(two.twice, (1,), {}),
        call_key(three.twice, (1,), {}),
        call_key(functools.partial(take, 5), (1,), {}),
        call_key(functools.partial(take, 6), (1,), {}),
        call_key(math.sqrt, (1,), {}),
        call_key(max, (1, 2), {}),
        call_key(max, (2, 1), {}),
    }
    assert len(keys) == 9
    assert call_key(Scale(2), (1,), {}) == call_key(two, (), {"x": 1})


SCRIPT = """
import datetime, enum, json, pathlib, sys
import numpy as np, pandas as pd
from scalable_nb.cache.keys import CallKeys

class Kind(enum.Enum):
    A = "a"; B = "b"

class Item:
    def __init__(self, **kw): self.__dict__.update(kw)
    def size(self): return len(self.__dict__)

NAMES = {"x", "y", "z", "w"}
TABLE = {"rate": 0.1, "names": {"p", "q", "r"}}
HANDLERS = {len, max, sorted}

def helper(x): return x + TABLE["rate"]
def run(x, *rest, **more):
    "Text."
    return helper(x), NAMES, HANDLERS, Item, [y for y in rest]

keys = CallKeys(run)
for value in (
    1, "text", {"b", "a", "c"}, frozenset({("a", 1), ("b", 2)}), {"k": {1, 2, 3}}, Kind.A,
    Item(a=1, b={"u", "v"}), np.arange(3), pd.DataFrame({"a": ["x", "y"]}), lambda v: v in NAMES,
    {Kind.A, Kind.B}, {int, str, float}, datetime.date(2024, 1, 2), pathlib.Path("a"), helper, Item,
    {helper, run}, {frozenset({"a", "b"}), frozenset({"c"})},
):
    print(keys.key((value, 1), {"z": 1, "y": 2}))
"""


def test_keys_are_the_same_in_every_process(tmp_path):
    """Another process with another hash seed gives the same keys, from a file or its bytecode."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])

    def keys(seed, *command):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}
        done = subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    from_file = keys("1", str(script))
    assert len(set(from_file)) == 18
    assert keys("2", str(script)) == from_file
    from_bytecode = keys("1", "-c", SCRIPT)
    assert keys("3", "-c", SCRIPT) == from_bytecode


def test_making_a_key_imports_neither_numpy_nor_pandas():
    """The cache can be used without loading the libraries of values that do not occur."""
    code = (
        "import sys, scalable_nb.errors\n"
        "before = set(sys.modules)\n"
        "import scalable_nb.cache.decorator\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert not new & {'numpy', 'pandas', 'diskcache', 'sqlite3', 'pyarrow'}, new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
