"""Functions as users write them in notebooks; each of them is to be cached."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import enum
import functools
import itertools
import json
import logging
import math
import operator
import random
import re
import statistics
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pydantic
import requests
import yaml
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

log = logging.getLogger(__name__)
LOCK = threading.Lock()
GENERATOR = np.random.default_rng(7)
RANDOM = random.Random(7)
SESSION = requests.Session()
SESSION.headers["Accept"] = "application/json"
MODEL = make_pipeline(StandardScaler(), LinearRegression())
FITTED = LinearRegression().fit(np.arange(6.0).reshape(3, 2), np.arange(3.0))
FIGURE = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
TABLE = pd.DataFrame({"x": [1, 2, 3], "name": ["a", "b", "c"]})
PRICES = pd.Series([1.0, 2.0], index=pd.date_range("2024", periods=2), name="price")
GRID = np.linspace(0, 1, 11)
PATTERN = re.compile(r"(\d+)")
SETTINGS = {"rate": 0.1, "layers": [1, 2], "start": datetime.date(2024, 1, 1)}
CONFIG = yaml.safe_load("rate: 0.1\nnames: [a, b]")
FOLDER = Path("data")
BOUNDS = collections.OrderedDict(low=0, high=1)
COUNTS: collections.Counter[str] = collections.Counter()
SQUARE = np.vectorize(lambda value: value**2)
SCALE = functools.partial(operator.mul, 3)
FIRST = operator.itemgetter(0)


class Kind(enum.Enum):
    """How to compute."""

    FAST = 1
    EXACT = 2


class Point(NamedTuple):
    """A point."""

    x: float
    y: float = 0.0


@dataclasses.dataclass
class Scenario:
    """Assumptions."""

    rate: float = 0.1
    years: list[int] = dataclasses.field(default_factory=list)


class Parameters(pydantic.BaseModel):
    """Checked parameters."""

    rate: float = pydantic.Field(default=0.1, ge=0)

    @pydantic.field_validator("rate")
    @classmethod
    def check(cls, value: float) -> float:
        """Return the value."""
        return value


class Simulation:
    """A model with a lock and a logger."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.lock = threading.Lock()
        self.log = logging.getLogger("simulation")

    def run(self, x: float) -> float:
        """Return a result."""
        with self.lock:
            return self.rate * x


SIMULATION = Simulation(0.1)


def timed(function):
    """Return a wrapper, as every project has one."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        log.info("calls %s", function.__name__)
        return function(*args, **kwargs)

    return wrapper


@functools.cache
def remembered(x):
    return x + 1


@functools.singledispatch
def shown(value):
    return str(value)


@shown.register
def _(value: int):
    return f"{value:d}"


@contextlib.contextmanager
def locked():
    with LOCK:
        yield


def with_logger(x):
    log.info("x is %s", x)
    return x


def with_lock(x):
    with LOCK:
        return x


def with_simulation(x):
    return SIMULATION.run(x)


def with_method_of_a_class(x):
    return Simulation(x).run(2)


def with_scikit_learn(x):
    return MODEL.fit(x, x)


def with_fitted_model(x):
    return FITTED.predict(x)


def with_forest(x):
    return RandomForestRegressor(n_estimators=x, random_state=0)


def with_pandas(x):
    return TABLE.assign(y=x).groupby("name").sum()


def with_series(x):
    return PRICES.add(x).rolling(2).mean()


def with_merge(x):
    return pd.merge(TABLE, TABLE, on="name").query("x_x > @x")


def with_figure(x):
    return go.Figure(FIGURE).add_scatter(y=[x])


def with_generator(x):
    return np.random.default_rng(x).normal(size=3)


def with_global_generator(x):
    return GENERATOR.normal(x)


def with_random(x):
    return RANDOM.choice([x])


def with_session(x):
    return SESSION.get(x)


def with_requests(x):
    return requests.get(x, timeout=3).json()


def with_numpy(x):
    return np.sum(np.sin(GRID) * x)


def with_vectorize(x):
    return SQUARE(x)


def with_partial(x):
    return SCALE(x)


def with_itemgetter(x):
    return FIRST([x])


def with_pattern(x):
    return PATTERN.findall(x)


def with_settings(x):
    return SETTINGS["rate"] * x


def with_yaml(x):
    return CONFIG["rate"] * x


def with_path(x):
    return (FOLDER / x).read_text()


def with_enum(x):
    return Kind.FAST if x else Kind.EXACT


def with_named_tuple(x):
    return Point(x)


def with_dataclass(x):
    return Scenario(rate=x)


def with_pydantic(x):
    return Parameters(rate=x)


@timed
def with_decorator(x):
    return x


def with_lru_cache(x):
    return remembered(x)


def with_singledispatch(x):
    return shown(x)


def with_context_manager(x):
    with locked():
        return x


def with_executor_inside(x):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(math.sqrt, [x]))


def with_ordered_dict(x):
    return BOUNDS["low"] + x


def with_counter(x):
    return COUNTS + collections.Counter(x)


def with_comprehension(x):
    return {key: [value + 1 for value in range(x)] for key, _ in itertools.product("ab", "c")}


def with_json(x):
    return json.dumps({"x": x}, default=str)


def with_standard_output(x):
    print(x, file=sys.stdout)
    return statistics.mean([x])


def with_closure(x):
    def inner(y):
        return x + y

    return inner(1)


def with_exception(x):
    try:
        return 1 / x
    except ZeroDivisionError as error:
        raise ValueError(f"{x} is zero") from error


def with_recursion(x):
    return 1 if x < 2 else x * with_recursion(x - 1)


def with_default(x, *, names=("a", "b"), weights=GRID):
    return dict(zip(names, weights * x, strict=False))
