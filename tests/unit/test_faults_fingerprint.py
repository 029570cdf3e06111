"""Failures of one cause have one fingerprint, those of different causes do not."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_nb.faults.fingerprint import fingerprint, fingerprint_of, normalise_message
from scalable_nb.faults.tracebacks import Frame

WORDS = st.text("abcdefghijklmnop", min_size=1, max_size=12)
NUMBERS = (
    st.integers(-(10**12), 10**12).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(str)
    | st.integers(0, 10**9).map("{:,}".format)
)
PATHS = st.lists(st.text("abcXYZ019_-.", min_size=1, max_size=10), min_size=1, max_size=5).map(
    lambda parts: "/" + "/".join(parts)
)
ADDRESSES = st.integers(0, 2**64).map(hex)
IDS = st.uuids().map(str) | st.binary(min_size=16, max_size=16).map(bytes.hex)


@pytest.mark.parametrize(
    ("message", "normal"),
    [
        ("scenario 47 diverged after 1.5e-05 s", "scenario # diverged after # s"),
        ("scenario_47 diverged", "scenario_# diverged"),
        ("Unable to allocate 4.2 GiB for (1000, 20)", "Unable to allocate # for (#)"),
        ("Unable to allocate 512. MiB for (5,)", "Unable to allocate # for (#,)"),
        ("<Model object at 0x7f3a2c>", "<Model object at #>"),
        (
            "[Errno 2] No such file or directory: '/data/my runs/47.nc'",
            "[Errno #] No such file or directory: <path>",
        ),
        ("cannot read C:\\data\\a.nc now", "cannot read <path> now"),
        ("503 for url: http://127.0.0.1:8123/x?id=7", "# for url: <path>"),
        ("job 3f2b8c9a-1111-2222-3333-444455556666 failed", "job # failed"),
        ("key simulate-8f14e45fceea167a5a36dedd4bea2543 lost", "key simulate-# lost"),
        ("got [1, 2.5, -3]", "got [#]"),
        ("'temperature'", "'temperature'"),
        ("No module named 'xarray'", "No module named 'xarray'"),
        ("two\n  lines", "two lines"),
        ("", ""),
    ],
)
def test_what_differs_from_task_to_task_is_taken_out(message: str, normal: str) -> None:
    """Numbers, paths, ids and addresses go; the words that name the cause stay."""
    assert normalise_message(message) == normal


@given(st.lists(WORDS, min_size=2, max_size=6), st.data())
def test_messages_that_differ_in_values_only_belong_together(
    words: list[str], data: st.DataObject
) -> None:
    """Whatever numbers, paths, addresses and ids two messages show, the fingerprint is one."""
    slots = [data.draw(st.sampled_from([NUMBERS, PATHS, ADDRESSES, IDS])) for _ in words]

    def message() -> str:
        return " ".join(
            f"{word} {data.draw(slot)}" for word, slot in zip(words, slots, strict=True)
        )

    first, second = message(), message()
    assert fingerprint("ValueError", first, ()) == fingerprint("ValueError", second, ())


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_has_a_fingerprint(name: str, message: str) -> None:
    """Sixteen hex digits come out of whatever goes in, and always the same."""
    made = fingerprint(name, message, ())
    assert re.fullmatch("[0-9a-f]{16}", made)
    assert made == fingerprint(name, message, ())


def test_class_place_and_words_tell_causes_apart() -> None:
    """Another class, file, function or missing key is another cause; another line is not."""
    here = Frame("/home/a/model.py", 10, "simulate")
    base = fingerprint("KeyError", "'temperature'", [here])
    assert base == fingerprint("KeyError", "'temperature'", [here._replace(line=99)])
    assert base == fingerprint("KeyError", "'temperature'", [here._replace(file="/b/model.py")])
    assert base == fingerprint("KeyError", "'temperature'", [Frame("main.py", 1, "run"), here])
    others = [
        fingerprint("ValueError", "'temperature'", [here]),
        fingerprint("KeyError", "'pressure'", [here]),
        fingerprint("KeyError", "'temperature'", [here._replace(function="load")]),
        fingerprint("KeyError", "'temperature'", [here._replace(file="/home/a/data.py")]),
        fingerprint("KeyError", "'temperature'", ()),
    ]
    assert len({base, *others}) == 6


def test_notebook_cell_is_the_same_place_after_a_restart() -> None:
    """The file of a cell is named after kernel and text; the function in it counts."""
    before = Frame("/tmp/ipykernel_812/1234.py", 3, "simulate")
    after = Frame("/tmp/ipykernel_999/77.py", 4, "simulate")
    assert fingerprint("ValueError", "no", [before]) == fingerprint("ValueError", "no", [after])


def parse(text: str) -> Any:
    return json.loads(text)


def check(number: int) -> None:
    if number % 2:
        raise ValueError(f"odd number {number}")
    raise ValueError(f"even number {number}")


def failure(function: Any, *args: Any) -> BaseException:
    with pytest.raises(ValueError) as caught:
        function(*args)
    return caught.value


def test_place_is_the_innermost_frame_of_the_user() -> None:
    """Inside a library the user's own call counts, and line numbers of it do not."""
    assert fingerprint_of(failure(check, 1)) == fingerprint_of(failure(check, 33))
    assert fingerprint_of(failure(check, 1)) != fingerprint_of(failure(check, 2))
    expected = fingerprint(
        "JSONDecodeError",
        "Expecting value: line 1 column 1 (char 0)",
        [Frame(__file__, 0, "parse")],
    )
    assert fingerprint_of(failure(parse, "?")) == expected


@pytest.mark.timeout(20)
@pytest.mark.parametrize("part", ["a", "/", "'/", "a-", "0", "1,", "a1", "# ", "'", "x.y://", "e5"])
def test_no_message_is_slow(part: str) -> None:
    """Fifty megabytes of anything cost no more than their beginning."""
    message = part * (50_000_000 // len(part))
    started = time.perf_counter()
    normalise_message(message)
    assert time.perf_counter() - started < 1
