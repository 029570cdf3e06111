"""Journals as columns: fast where all is well, and never fatal where it is not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_rows import failure, task, tutorial_failures, tutorial_tasks, write_run
from test_journal_reader import ANY_ROWS, SIBLING

from scalable_nb.telemetry.dataframes import FAILURES, failures_frame, tasks_frame
from scalable_nb.telemetry.run_tables import FollowedTable, RowRecords, RunRecords


def table_of(folder: Path, data: bytes) -> FollowedTable:
    path = folder / "failures.jsonl"
    path.write_bytes(data)
    table = FollowedTable(FAILURES, [path])
    table.poll()
    return table


def lines(rows: list[Any]) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def test_a_file_gives_the_table_of_its_rows(tmp_path: Path) -> None:
    """Whether a block is taken apart at once or line by line, the table is the same."""
    rows = [failure(n, duration_s=n / 7, worker=f"worker-{n % 5}") for n in range(1000)]
    whole = table_of(tmp_path, lines(rows))
    assert whole.problems == Counter()
    pd.testing.assert_frame_equal(whole.frame, failures_frame(rows), check_categorical=False)
    assert whole.frame["message"].cat.categories.tolist() == ["invalid input data"]


def test_lines_that_are_no_rows_cost_only_themselves(tmp_path: Path) -> None:
    """Torn, blank and foreign lines are counted, their neighbours read, whole rows found."""
    good = [failure(n) for n in range(600)]
    data = lines(good[:300]) + b'\n[1]\n{"torn\n' + lines(good[300:]) + b'{"being wr'
    table = table_of(tmp_path, data)
    assert table.frame["task_id"].tolist() == [row["task_id"] for row in good]
    assert table.problems == {"no JSON object": 3}
    for place in (0, 299, 300, 599):
        assert table.row(place) == good[place]


def test_invalid_utf8_costs_letters_not_the_row(tmp_path: Path) -> None:
    """A message in another encoding is a row with a mark in the place of the letter."""
    data = lines([failure(1, message="caf?")]).replace(b"caf?", b"caf\xe9")
    table = table_of(tmp_path, data)
    assert table.frame["message"].tolist() == ["caf\ufffd"]
    assert table.row(0)["message"] == "caf\ufffd"


def test_damage_in_what_is_not_read_does_no_harm(tmp_path: Path) -> None:
    """A traceback in another encoding leaves the columns alone, and is shown with a mark."""
    data = lines([failure(1, traceback="caf?"), failure(2)]).replace(b"caf?", b"caf\xe9")
    table = table_of(tmp_path, data)
    assert table.problems == Counter()
    assert len(table.frame) == 2
    assert table.row(0)["traceback"] == "caf\ufffd"


def test_odd_types_and_newer_versions_are_counted(tmp_path: Path) -> None:
    """What has another type is missing, what is newer is read as far as known; both are told."""
    rows = [
        failure(1, schema_version=9, news=[1]),
        failure(2, worker=["w"], attempt=2.5),
        failure(3, attempt=2**60, duration_s=1e305),
    ]
    table = table_of(tmp_path, lines(rows))
    assert table.problems == {"a newer schema version": 1, "a value of another type": 1}
    assert table.frame["attempt"].tolist() == [1, 1, 1]
    assert table.frame["duration_s"].isna().tolist() == [False, False, True]


def test_a_growing_file_is_followed(tmp_path: Path) -> None:
    """A poll takes whole lines that are new; a file that became shorter is read from its start."""
    path = tmp_path / "failures.jsonl"
    table = FollowedTable(FAILURES, [path])
    assert not table.poll()
    whole = lines([failure(1), failure(2)])
    path.write_bytes(whole[:-5])
    assert table.poll()
    assert len(table.frame) == 1
    assert not table.poll()
    path.write_bytes(whole)
    assert table.poll()
    assert table.frame["args_preview"].tolist() == ["scenario_id=1", "scenario_id=2"]
    path.write_bytes(lines([failure(7)]))
    assert table.poll()
    assert table.frame["args_preview"].tolist() == ["scenario_id=7"]


def test_several_runs_are_one_table(tmp_path: Path) -> None:
    """Failures of several runs, the package `scalable`'s among them, stand in one table."""
    ours = write_run(tmp_path / "a", tutorial_failures(), tutorial_tasks())
    theirs = write_run(tmp_path / "b", [SIBLING])
    records = RunRecords(ours, theirs)
    assert records.poll()
    assert len(records.failures) == 10
    assert len(records.tasks) == 100
    assert records.failures["run_id"].nunique() == 2
    assert records.row(9) == SIBLING
    assert RowRecords(tutorial_failures()).row(8)["args_preview"] == "scenario_id=13"


def test_the_last_attempt_of_a_task_that_was_given_up_is_final(tmp_path: Path) -> None:
    """Its row was written while a retry was to come; what a person did since counts."""
    rows = [
        failure(task_id=name, attempt=attempt, is_final=False, will_retry=True)
        for name in ("given-up", "retried")
        for attempt in (1, 2)
    ]
    endings = [
        task(task_id="given-up", state="failed", attempts=2, reason="given up by a person"),
        task(task_id="retried", state="succeeded", attempts=3),
    ]
    records = RunRecords(write_run(tmp_path, rows, endings))
    assert records.poll()
    assert list(records.failures["is_final"]) == [False, True, False, False]
    assert list(records.failures["will_retry"]) == [True, False, True, True]


def test_a_megabyte_of_message_is_cut_in_the_table(tmp_path: Path) -> None:
    """A table holds the beginning of a long text; the row itself has all of it."""
    table = table_of(tmp_path, lines([failure(1, message="x" * 1_000_000)]))
    assert len(table.frame["message"][0]) == 4_001
    assert len(table.row(0)["message"]) == 1_000_000


def test_nested_names_do_not_confuse(tmp_path: Path) -> None:
    """Names of ours within details or texts are not taken for those of the row."""
    inner = {"a": 1, "traceback": "x", "worker": "inner"}
    rows = [
        failure(1, details=inner),
        failure(2, details={"a": {"b": 0, "traceback": "t"}, "c": {"d": "e", "worker": "inner"}}),
        failure(3, message='said ,"traceback":"here","worker":"there"'),
    ]
    table = table_of(tmp_path, lines(rows))
    assert table.frame["worker"].tolist() == ["worker-2"] * 3
    assert table.frame["message"].tolist() == [row["message"] for row in rows]


def test_tasks_are_columns_too() -> None:
    """Ended tasks have a table of their own: states, attempts, durations, times."""
    frame = tasks_frame([task(1, attempts=0, state="cached"), task(2, started_at=None)])
    assert frame["state"].tolist() == ["cached", "succeeded"]
    assert frame["attempts"].tolist() == [0, 1]
    assert frame["started_at"].isna().tolist() == [False, True]


@given(junk=st.binary(max_size=400), rows=ANY_ROWS)
def test_no_bytes_are_fatal(
    junk: bytes, rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a file holds, each whole line is a row of the table or a counted problem."""
    known = [json.loads(json.dumps(row)) for row in rows]
    data = lines([failure(1), *known]) + junk
    table = table_of(tmp_path_factory.mktemp("junk"), data)
    torn = 0 if data.endswith(b"\n") else 1
    whole = len(data.split(b"\n")) - 1
    assert len(table.frame) + table.problems["no JSON object"] == whole
    assert torn in (0, 1)
    assert table.row(0) == failure(1)


@given(rows=ANY_ROWS)
def test_files_and_rows_agree(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any JSON objects give the same table from a file as from memory."""
    written = lines(rows)
    read = [orjson.loads(line) for line in written.splitlines()]
    table = table_of(tmp_path_factory.mktemp("rows"), written)
    expected = failures_frame(read)
    for name in ("attempt", "is_final", "duration_s", "timestamp", "task_id", "failure_class"):
        assert (
            table.frame[name].tolist() == pytest.approx(expected[name].tolist(), nan_ok=True)
            if name == "duration_s"
            else table.frame[name].astype(str).tolist() == expected[name].astype(str).tolist()
        )
