"""The statistics behind a finding, against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.diagnosis.argument_rates import (
    densest_interval,
    excess_p_value,
    explaining_arguments,
    failing_level,
    information,
    wilson,
)
from scalable_nb.telemetry.dataframes import parse_preview


def test_wilsons_interval_is_that_of_the_books() -> None:
    """Of 10 calls of which none failed up to 28 % may fail; of 5 in 10 it is 24 to 76 %."""
    assert wilson(0, 10) == pytest.approx((0.0, 0.0, 0.278), abs=1e-3)
    assert wilson(5, 10) == pytest.approx((0.5, 0.237, 0.763), abs=1e-3)
    assert wilson(0, 0) == (0.0, 0.0, 1.0)


@given(total=st.integers(1, 10_000), data=st.data())
def test_a_rate_lies_within_its_interval(total: int, data: st.DataObject) -> None:
    """Whatever the counts, the bounds are a share and hold the rate."""
    rate = wilson(data.draw(st.integers(0, total)), total)
    assert 0 <= rate.low <= rate.share + 1e-12 <= rate.high + 1e-9 <= 1 + 2e-9


def test_chance_is_told_from_excess() -> None:
    """Ten of ten where one in a hundred is usual is no chance; one of a hundred is."""
    assert excess_p_value(10, 10, 0.01) < 1e-19
    assert excess_p_value(1, 100, 0.01) == 1.0


def test_information_is_all_or_nothing_where_it_should_be() -> None:
    """A level that decides the outcome says everything, one drawn by lot next to nothing."""
    dice = np.random.default_rng(1)
    levels = dice.integers(0, 4, 2_000)
    decides = information(levels, levels == 2)
    assert decides.share == pytest.approx(1.0)
    assert decides.p_value == pytest.approx(1 / 500)
    lots = information(levels, dice.random(2_000) < 0.2)
    assert lots.share < 0.01
    assert lots.p_value > 0.05
    assert information(levels, np.zeros(2_000, bool)).bits == 0.0


def test_the_densest_interval_is_where_the_failures_are() -> None:
    """Failures between 3 and 5 are found there, with a few outliers elsewhere."""
    values = np.repeat(np.arange(20.0), 10)
    failed = (values >= 3) & (values <= 5)
    failed[[0, 150]] = True
    assert densest_interval(values, failed) == (3.0, 5.0)


@pytest.mark.parametrize(
    ("preview", "parts"),
    [
        ("x=1, name='a, b'", [("x", "1"), ("name", "'a, b'")]),
        ("7, [1, 2, …], (3, 4)", [("#1", "7"), ("#2", "[1, 2, …]"), ("#3", "(3, 4)")]),
        ("of={'a': 1, 'b': 2}, y=-2.5e-3", [("of", "{'a': 1, 'b': 2}"), ("y", "-2.5e-3")]),
        ("", []),
        ("'it\\'s', \"x=1\"", [("#1", "'it\\'s'"), ("#2", '"x=1"')]),
    ],
)  # fmt: skip
def test_arguments_are_read_off_a_call(preview: str, parts: list[tuple[str, str]]) -> None:
    """Names and values of a call as it is shown, commas within values left alone."""
    assert list(parse_preview(preview)) == parts


@given(previews=st.lists(st.text(max_size=40), min_size=1, max_size=20), data=st.data())
def test_any_text_is_a_call(previews: list[str], data: st.DataObject) -> None:
    """Whatever stands where arguments should, nothing fails."""
    failed = np.array([data.draw(st.booleans()) for _ in previews])
    for argument in explaining_arguments(previews, failed):
        failing_level(argument)
        assert sum(level.failed for level in argument.levels) <= failed.sum()
