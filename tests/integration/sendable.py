"""What tests send to workers; a module of its own because each worker imports it."""

from __future__ import annotations

import time
from collections import namedtuple
from pathlib import Path
from typing import Any

from distributed import get_client, get_worker, rejoin, secede, worker_client

Point = namedtuple("Point", "x y")


def inc(x: int) -> int:
    return x + 1


async def inc_async(x: int) -> int:
    return x + 1


def add(*numbers: int) -> int:
    return sum(numbers)


def fail_on_odd(x: int) -> int:
    if x % 2:
        raise KeyError(f"odd {x}")
    return x


def where(x: int = 0) -> str:
    return str(get_worker().name)


def wait_for(path: Path) -> str:
    while not path.exists():
        time.sleep(0.01)
    return "done"


def fib_seceding(n: int) -> int:
    if n < 2:
        return n
    client = get_client()
    parts = client.map(fib_seceding, [n - 1, n - 2])
    secede()
    results = client.gather(parts)
    rejoin()
    return sum(results)


def sum_by_worker_client(n: int) -> int:
    with worker_client() as client:
        return sum(client.gather(client.map(inc, range(n))))


class Scale:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return self.factor * x

    def plus(self, x: int) -> int:
        return self.factor + x


class Counter:
    n = 0

    def __init__(self, start: int = 0) -> None:
        self.n = start

    def increment(self, by: int = 1) -> int:
        self.n += by
        return self.n

    def fail(self) -> None:
        raise ValueError("no more")

    async def later(self) -> int:
        return self.n


class Odd(Exception):
    """Has a constructor of its own."""

    def __init__(self, code: int, *, text: str = "") -> None:
        super().__init__(code)
        self.code, self.text = code, text

    def __reduce__(self) -> Any:
        return _odd, (self.code, self.text)


def _odd(code: int, text: str) -> Odd:
    return Odd(code, text=text)
