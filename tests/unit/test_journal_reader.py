"""Reading journals that are torn, growing, damaged or another package's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_rows import attempts, failure, tutorial_failures

from scalable_nb.telemetry.aggregates import failure_classes, failure_groups
from scalable_nb.telemetry.dataframes import FAILURES, failures_frame
from scalable_nb.telemetry.journal_reader import JournalTail, is_final, read_rows, with_given_up
from scalable_nb.telemetry.rows import GIVEN_UP, FailureRow
from scalable_nb.telemetry.sanitize import one_line, plain_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from([*FailureRow.__annotations__, "something_else"])
ANY_ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=12), max_size=8)
OBJECTS = st.lists(
    st.dictionaries(st.text(alphabet=st.characters(codec="utf-8")), st.integers(0, 9), max_size=3),
    max_size=6,
)

SIBLING = {
    "run_id": "run-20260101T000000Z-x-0123abcd",
    "failure_class": "KeyError",
    "message": "'year'",
    "timestamp": "2026-01-01T00:00:05Z",
    "provider": "local",
    "task_id": "f-12",
    "details": {},
    "event_type": "failure",
    "schema_version": 1,
}


@given(objects=OBJECTS, data=st.data())
def test_any_torn_prefix_is_readable(
    objects: list[dict[str, int]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A journal cut anywhere yields a prefix of its rows and at most one skipped line."""
    whole = b"".join(orjson.dumps(value) + b"\n" for value in objects)
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.mktemp("torn") / "failures.jsonl"
    path.write_bytes(whole[:cut])
    read = read_rows(path)
    assert read.rows == objects[: len(read.rows)]
    assert len(read.rows) >= whole[:cut].count(b"\n")
    assert read.skipped <= 1


@given(junk=st.binary(max_size=300))
def test_no_bytes_are_fatal(junk: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever a file holds, every line is either a row or counted."""
    path = tmp_path_factory.mktemp("junk") / "tasks.jsonl"
    path.write_bytes(b'{"a":1}\n' + junk)
    read = read_rows(path)
    lines = junk.split(b"\n")
    assert len(read.rows) + read.skipped == 1 + len(lines) - (lines[-1] == b"")
    assert read.rows[0] == {"a": 1}


def test_lines_that_are_no_rows_are_counted(tmp_path: Path) -> None:
    """Blank lines, other JSON values, invalid UTF-8 and a torn line are skipped and counted."""
    path = tmp_path / "failures.jsonl"
    path.write_bytes(b'{"a":1}\n\n[1]\n"text"\n{"a":"\xff"}\n{"a":2}\n{"a":')
    assert read_rows(path).rows == [{"a": 1}, {"a": 2}]
    assert read_rows(path).skipped == 5


def test_a_missing_journal_has_no_rows(tmp_path: Path) -> None:
    """A run that has not failed yet has no failures.jsonl, and that is no error."""
    assert read_rows(tmp_path / "failures.jsonl").rows == []
    assert JournalTail(tmp_path / "failures.jsonl").poll() == []


def test_the_tail_gives_every_row_once_and_whole(tmp_path: Path) -> None:
    """A reader of a growing file gets each row once, when its line is complete."""
    path = tmp_path / "failures.jsonl"
    tail = JournalTail(path)
    path.write_bytes(b'{"a":1}\n{"a"')
    assert tail.poll() == [{"a": 1}]
    assert tail.poll() == []
    with path.open("ab") as file:
        file.write(b':2}\nbroken\n{"a":3}\n')
    assert tail.poll() == [{"a": 2}, {"a": 3}]
    assert tail.skipped == 1
    path.write_bytes(b'{"a":9}\n')
    assert tail.poll() == [{"a": 9}]


@given(objects=OBJECTS, cuts=st.lists(st.integers(0, 400), max_size=5))
def test_the_tail_reads_what_read_rows_reads(
    objects: list[dict[str, int]], cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However a file grows, polling it gives the rows of the whole file."""
    whole = b"".join(orjson.dumps(value) + b"\n" for value in objects)
    path = tmp_path_factory.mktemp("tail") / "failures.jsonl"
    tail = JournalTail(path)
    polled: list[Any] = []
    for end in [*sorted(min(cut, len(whole)) for cut in cuts), len(whole)]:
        path.write_bytes(whole[:end])
        polled += tail.poll()
    assert polled == read_rows(path).rows


def test_rows_of_the_package_scalable_become_full_rows() -> None:
    """A row with the nine old names is a task that failed for good, with a kind of its own."""
    frame = failures_frame([SIBLING, {**SIBLING, "task_id": "f-13", "timestamp": "nonsense"}])
    only_in_the_file = {"traceback", "details", "started_at"}
    assert set(frame.columns) == {*FailureRow.__annotations__} - only_in_the_file
    assert set(frame.columns) == set(FAILURES.names)
    assert frame["is_final"].all()
    assert frame["attempt"].tolist() == [1, 1]
    assert frame["category"].tolist() == ["unknown", "unknown"]
    assert frame["fingerprint"].str.fullmatch("[0-9a-f]{16}").all()
    assert frame["fingerprint"].nunique() == 1
    assert frame["timestamp"][0] == pd.Timestamp("2026-01-01T00:00:05", tz="UTC")
    assert pd.isna(frame["timestamp"][1])
    assert frame["duration_s"].isna().all()


def test_a_row_that_does_not_say_is_final() -> None:
    """Where `is_final` is missing, only an announced retry makes a row not final."""
    assert is_final({})
    assert is_final({"will_retry": False})
    assert not is_final({"will_retry": True})
    assert not is_final({"is_final": False})


def test_values_of_a_wrong_type_are_missing_values() -> None:
    """A text in a column of numbers, or a number in one of texts, costs no row."""
    row = failure(1, duration_s="soon", attempt="two", message=None, worker=7, details=[1])
    frame = failures_frame([row | {"tag": "\ud800"}])
    assert frame["tag"][0] == "\\ud800"
    assert pd.isna(frame["duration_s"][0])
    assert frame["attempt"][0] == 1
    assert frame["message"][0] == ""
    assert frame["worker"][0] == "7"


@given(rows=ANY_ROWS)
def test_no_row_is_fatal_to_the_tables(rows: list[dict[str, Any]]) -> None:
    """Any JSON objects make tables whose counts add up to the number of rows."""
    frame = failures_frame(rows)
    assert len(frame) == len(rows)
    groups = failure_groups(frame)
    assert groups["attempts"].sum() == len(rows)
    assert groups["fingerprint"].is_unique
    classes = failure_classes(frame)
    assert (classes["final"] + classes["retried"]).sum() == len(rows)


def test_groups_are_the_kinds_of_failure() -> None:
    """Equal fingerprints are one group, with its share, its tasks, its workers, an example."""
    rows = [*tutorial_failures(), *attempts(48, 2, False, failure_class="MemoryError",
            category="resource", worker="worker-9", message="other", host="n2")]  # fmt: skip
    groups = failure_groups(failures_frame(rows)).set_index("failure_class")
    assert list(groups.index) == ["MemoryError", "ConnectionError", "TimeoutError", "ValueError"]
    memory = groups.loc["MemoryError"]
    assert memory["attempts"] == 6
    assert memory["share"] == pytest.approx(6 / 11)
    assert (memory["tasks"], memory["failed_tasks"]) == (2, 1)
    assert memory["workers"] == ["worker-3", "worker-9"]
    assert memory["hosts"] == ["n1", "n2"]
    assert memory["message"] == "unable to allocate 4.2GB"
    assert groups.loc["ConnectionError", "failed_tasks"] == 0


def test_plain_text_shows_what_would_act() -> None:
    """Terminal escapes go; directional marks, controls and surrogates are shown by number."""
    text = plain_text("a\x1b[31mred\x1b[0m\x1b]8;;http://x\x07 \u202eb\x00\ud800\u200b\n\tc")
    assert text == "ared \\u202eb\\x00\\ud800\\u200b\n\tc"
    assert plain_text(None) == ""
    assert plain_text("שלום") == "שלום"


@given(text=st.text(alphabet=st.characters()), most=st.integers(5, 60))
def test_plain_text_is_bounded_and_encodable(text: str, most: int) -> None:
    """Whatever the text, what is shown is bounded and valid UTF-8 without escapes."""
    shown = plain_text(text, most)
    assert len(shown) <= most + 40
    assert "\x1b" not in shown
    assert shown.encode().decode() == shown
    assert len(one_line(text, most)) <= most
    assert "\n" not in one_line(text, most)


def test_a_megabyte_is_cut_and_says_so() -> None:
    """A message of a megabyte is cut, and the cut names what is missing."""
    shown = plain_text("x" * 1_000_000, 100)
    assert shown == "x" * 100 + "… (999,900 more characters)"
    assert json.dumps(one_line("x" * 1_000_000, 100)) == json.dumps("x" * 99 + "…")


def test_a_task_that_was_given_up_has_a_final_attempt() -> None:
    """The attempt after which a person gave up is the last one; others stay as written."""
    announced = {"is_final": False, "will_retry": True, "retry_in_s": 9.0}
    failures = [
        {"task_id": "a", "attempt": 1, **announced},
        {"task_id": "a", "attempt": 2, **announced},
        {"task_id": "b", "attempt": 2, **announced},
    ]
    endings = [
        {"task_id": "a", "attempts": 2, "state": "failed", "reason": GIVEN_UP},
        {"task_id": "b", "attempts": 3, "state": "succeeded", "reason": None},
    ]
    seen = with_given_up(failures, endings)
    assert [row["will_retry"] for row in seen] == [True, False, True]
    assert (seen[1]["is_final"], seen[1]["retry_in_s"]) == (True, None)
    assert with_given_up(failures, endings[1:]) is failures
    assert failures[1]["will_retry"]
