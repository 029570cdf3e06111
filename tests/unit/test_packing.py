"""Calls travel as bytes: futures are found, arguments come back, a person can read them."""

from __future__ import annotations

import functools
import pickle
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from distributed import Future
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb import File
from scalable_nb.client.futures import FutureList
from scalable_nb.client.packing import Preview, pack_arguments, pack_function
from scalable_nb.errors import SubmitError
from scalable_nb.protocol.call import Call


class Pair(NamedTuple):
    left: Any
    right: Any


class Hostile:
    """An object whose every special method fails."""

    def _fail(self, *args: Any) -> Any:
        raise RuntimeError("must not be called")

    __repr__ = __str__ = __len__ = __iter__ = __eq__ = __bool__ = _fail  # type: ignore[assignment]
    __hash__ = _fail  # type: ignore[assignment]

    @property
    def shape(self) -> Any:
        raise RuntimeError("must not matter")


def simulate(scenario_id: int, horizon: int = 10, *rest: Any, scale: float = 1.0) -> None:
    """The function of the calls below."""


def future(key: Any = "input-1") -> Future[Any]:
    """A future; without a client, for none is asked."""
    return Future(key)


def arrive(args: Sequence[Any], kwargs: Mapping[str, Any], results: Mapping[Any, Any]) -> Any:
    """The arguments as the function gets them, with results in the place of futures."""
    packed, inputs, *_ = pack_arguments(args, kwargs, simulate)
    call = Call(pack_function(simulate).pickled, packed)
    return call.load_arguments([results[item.key] for item in inputs])


# --- futures among the arguments ----------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda item: item,
        lambda item: [1, item],
        lambda item: (item, 2),
        lambda item: {item},
        lambda item: {"a": item, "b": 1},
        lambda item: Pair(1, item),
        lambda item: OrderedDict(a=item),
        lambda item: defaultdict(list, a=item),
        lambda item: [{"a": [({"b": item},)]}],
    ],
    ids=["itself", "list", "tuple", "set", "dict", "namedtuple", "ordered", "default", "nested"],
)
def test_futures_are_found_where_dask_finds_them(wrap: Any) -> None:
    """A future inside the usual collections is an input, and its result stands in its place."""
    args, kwargs = arrive([wrap(future())], {"scale": wrap(future())}, {"input-1": 42})
    assert (args, kwargs) == ((wrap(42),), {"scale": wrap(42)})
    assert type(args[0]) is type(wrap(42))


def test_a_list_of_futures_arrives_as_a_plain_list() -> None:
    """What `map` returned can be an argument; the function gets a list of results."""
    futures = FutureList(future(f"input-{n}") for n in range(3))
    args, _ = arrive([futures], {}, {f"input-{n}": n * n for n in range(3)})
    assert args == ([0, 1, 4],)
    assert type(args[0]) is list


def test_inputs_are_in_the_order_of_the_arguments() -> None:
    """Each future is one input, in the order met, however often it occurs."""
    a, b, c = future("a"), future("b"), future("c")
    _, inputs, *_ = pack_arguments([[b, a], b, {"x": c}], {"scale": a}, simulate)
    assert [item.key for item in inputs] == ["b", "a", "c"]


def test_thousands_of_inputs_are_packed_at_once() -> None:
    """The arguments of a reduction over many tasks are packed in time that grows with them."""
    futures = [future(f"input-{n}") for n in range(20_000)]
    packed, inputs, *_ = pack_arguments([futures], {}, simulate)
    assert inputs == futures
    args, _ = Call(b"", packed).load_arguments(range(20_000))
    assert args == (list(range(20_000)),)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(),
        st.binary(), st.dates(), st.integers(0, 9).map(lambda n: ("future", n)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=10,
)  # fmt: skip


def with_futures(value: Any) -> Any:
    """The same value with a future in the place of each ``("future", n)``."""
    if isinstance(value, tuple) and value[:1] == ("future",):
        return future(value)
    if isinstance(value, list | tuple):
        return type(value)(map(with_futures, value))
    if isinstance(value, dict):
        return {key: with_futures(item) for key, item in value.items()}
    return value


@given(args=st.lists(VALUES, max_size=4), kwargs=st.dictionaries(st.text(), VALUES, max_size=3))
def test_arguments_come_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    """Any arguments arrive as they were, with the results of futures in their places."""
    results = {("future", n): ("future", n) for n in range(10)}
    arrived = arrive(with_futures(args), with_futures(kwargs), results)
    assert arrived == (tuple(args), kwargs)


def test_shared_arguments_stay_shared() -> None:
    """An object that is passed twice arrives as one object."""
    shared = [1]
    (first, second), _ = arrive([shared, shared], {}, {})
    assert first is second


def test_packing_leaves_the_arguments_alone() -> None:
    """The caller's own collections still hold the futures afterwards."""
    item = future()
    args = [[item]]
    pack_arguments(args, {}, simulate)
    assert args[0][0] is item


# --- functions ----------------------------------------------------------------------


def test_a_function_of_the_notebook_travels_with_what_it_uses() -> None:
    """Closures and bound arguments come along."""
    offset = 40

    def add(a: int, b: int) -> int:
        return a + b + offset

    packed = pack_function(functools.partial(add, 1)).pickled
    assert Call(packed, b"").load_function()(b=1) == 42


def test_what_a_function_keeps_in_itself_ends_with_the_attempt() -> None:
    """Each attempt gets the function as it was submitted, whatever the one before did to it."""
    seen: list[int] = []
    call = Call(pack_function(lambda n: seen.append(n) or list(seen)).pickled, b"")
    assert [call.load_function()(n) for n in range(3)] == [[0], [1], [2]]


def test_the_error_names_what_a_function_cannot_take_along() -> None:
    """The message says which name of which function stands in the way, and what to do."""
    connection = threading.Lock()

    def load(n: int) -> int:
        with connection:
            return n

    with pytest.raises(SubmitError) as caught:
        pack_function(load)
    assert str(caught.value) == (
        "the function 'load' cannot be sent to a worker: cannot pickle '_thread.lock' object. "
        "It uses 'connection', a lock, which cannot be pickled. Open such things (locks, files, "
        "connections) inside the function instead."
    )


@pytest.mark.parametrize("place", ["closure", "default", "list"])
def test_function_that_refers_to_a_future_is_refused(place: str) -> None:
    """The error names the future and tells the user to pass it as an argument."""
    held = future("simulate-1")

    def in_closure() -> object:
        return held

    def in_default(x: object = held) -> object:
        return x

    several = [held]

    def in_list() -> object:
        return several

    functions = {"closure": in_closure, "default": in_default, "list": in_list}
    with pytest.raises(SubmitError, match=r"future \(simulate-1\).*as an argument"):
        pack_function(functions[place])


def test_a_callable_that_cannot_be_looked_into_is_refused_too() -> None:
    """Without a name to blame, the message still says the function and the reason."""
    with pytest.raises(SubmitError, match=r"the function 'acquire' .* cannot pickle"):
        pack_function(threading.Lock().acquire)


@pytest.mark.parametrize(
    ("args", "kwargs", "culprit"),
    [
        ([1, threading.Lock()], {}, "It is argument number 2, a lock."),
        ([1], {"scale": [threading.Lock()]}, "It is argument 'scale', a list."),
        ([[future()], threading.Lock()], {}, "It is argument number 2, a lock."),
        ([(n for n in [])], {}, "It is argument number 1, a generator."),
    ],
)
def test_the_error_names_the_argument_that_cannot_travel(
    args: list[Any], kwargs: dict[str, Any], culprit: str
) -> None:
    """The message says which argument it is, counted from 1, and what type it has."""
    with pytest.raises(SubmitError) as caught:
        pack_arguments(args, kwargs, simulate)
    message = str(caught.value)
    assert message.startswith("an argument of 'simulate' cannot be sent to a worker: cannot pickle")
    assert f"{culprit} Pass what it is made from, and make it inside the function." in message


def test_the_host_sees_bytes_only() -> None:
    """A call is pickled without the user's classes, so that the host need not have them."""
    call = Call(
        pack_function(simulate).pickled, pack_arguments([Pair(1, 2)], {}, simulate)[0], "key"
    )
    unpickled = pickle.loads(pickle.dumps(call))
    assert unpickled == call
    assert {type(getattr(unpickled, name)) for name in ("function", "arguments")} == {bytes}


# --- what a person sees ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ([], {}, ""),
        ([47], {}, "scenario_id=47"),
        ([47, 5], {"scale": 0.5}, "scenario_id=47, horizon=5, scale=0.5"),
        ([1, 2, 3, 4], {}, "scenario_id=1, horizon=2, 3, 4"),
        (["a'b\n"], {}, 'scenario_id="a\'b\\n"'),
        ([None, True], {}, "scenario_id=None, horizon=True"),
        ([float("nan")], {}, "scenario_id=nan"),
        ([1 + 2j], {}, "scenario_id=(1+2j)"),
        ([b"\x00ab"], {}, "scenario_id=b'\\x00ab'"),
        ([b"x" * 10**6], {}, "scenario_id=<bytes 1000000>"),
        (["x" * 10**6], {}, f"scenario_id='{'x' * 27}...{'x' * 28}'"),
        ([10**5000], {}, "scenario_id=<int of 16610 bits>"),
        ([Path("data/x.nc")], {}, "scenario_id='data/x.nc'"),
        ([PurePosixPath("/a")], {}, "scenario_id='/a'"),
        ([File("/data/x.nc")], {}, "scenario_id='/data/x.nc'"),
        ([[1, 2]], {}, "scenario_id=[1, 2]"),
        ([(1,)], {}, "scenario_id=(1)"),
        ([{1}], {}, "scenario_id={1}"),
        ([list(range(10**6))], {}, "scenario_id=[0, 1, 2, 3, …]"),
        ([[[[1]]]], {}, "scenario_id=[[<list>]]"),
        ([{"a": 1, "b": [2]}], {}, "scenario_id={'a': 1, 'b': [2]}"),
        ([dict.fromkeys(range(9))], {}, "scenario_id={0: None, 1: None, 2: None, 3: None, …}"),
        ([{(1, 2): 3}], {}, "scenario_id={<tuple>: 3}"),
        ([np.zeros((3, 4))], {}, "scenario_id=<ndarray 3x4>"),
        ([np.float64(1.5), np.int32(7)], {}, "scenario_id=1.5, horizon=7"),
        ([np.datetime64("2026-03-01")], {}, "scenario_id=<datetime64>"),
        ([np.array(True)], {}, "scenario_id=True"),
        ([np.longdouble(1)], {}, "scenario_id=<longdouble>"),
        ([pd.DataFrame({"a": [1, 2]})], {}, "scenario_id=<DataFrame 2x1>"),
        ([future("simulate-" + "0" * 64)], {}, f"scenario_id=<result of simulate-{'0' * 31}>"),
        ([future(("block", 1))], {}, "scenario_id=<result of ('block', 1)>"),
        ([simulate], {}, "scenario_id=<function>"),
        ([Pair(1, 2)], {}, "scenario_id=<Pair>"),
        ([Hostile()], {}, "scenario_id=<Hostile>"),
        ([[Hostile(), 1]], {"scale": {"a": Hostile()}},
         "scenario_id=[<Hostile>, 1], scale={'a': <Hostile>}"),
    ],
)  # fmt: skip
def test_a_call_in_a_line(args: list[Any], kwargs: dict[str, Any], text: str) -> None:
    """Plain values are written out, short; of everything else there is the type alone."""
    assert Preview(simulate)(args, kwargs) == text


def test_a_long_line_is_cut() -> None:
    """Many arguments make no more than 200 characters, and the cut is marked."""
    text = Preview(simulate)(["x" * 50] * 100, {})
    assert len(text) == 200
    assert text.endswith("…")


def test_a_function_without_names_shows_its_values() -> None:
    """Where a callable does not tell its parameters, the values stand alone."""
    assert Preview(print)([1, "a"], {"sep": ""}) == "1, 'a', sep=''"
    assert Preview(dict)([[1]], {}) == "[1]"
    assert Preview(functools.partial(simulate, 1))([5], {}) == "horizon=5"


@given(args=st.lists(VALUES, max_size=6), kwargs=st.dictionaries(st.text(), VALUES, max_size=3))
def test_any_call_fits_a_line(args: list[Any], kwargs: dict[str, Any]) -> None:
    """Whatever the arguments, the text has at most 200 characters."""
    assert len(Preview(simulate)(args, kwargs)) <= 200
