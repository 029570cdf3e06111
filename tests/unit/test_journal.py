"""What is written into a journal is there, whole, private and readable."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from full_disk import files_end_at
from hypothesis import given
from hypothesis import strategies as st
from journal_rows import failure

from scalable_nb.telemetry.journal import JournalFile
from scalable_nb.telemetry.journal_reader import read_rows

# Any text, lone surrogates included: a message is what somebody's program printed.
ANY_TEXT = st.text(alphabet=st.characters(), max_size=20)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.floats(), ANY_TEXT, st.binary(max_size=5), st.datetimes(),
        st.integers(), st.integers(0, 20_000).map(lambda n: -(2**n)),
        ANY_TEXT.map(lambda text: Path(text.replace("\0", ""))),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(st.one_of(ANY_TEXT, st.integers(), st.none(), st.dates()), inner),
    ),
    max_leaves=8,
)  # fmt: skip
ROWS = st.dictionaries(ANY_TEXT, VALUES, max_size=4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal lies."""
    return tmp_path / "failures.jsonl"


def write(path: Path, *rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write rows and read them back."""
    journal = JournalFile(path)
    for row in rows:
        journal.append(row)
    journal.close()
    found = read_rows(path)
    assert found.skipped == 0
    return found.rows


@given(rows=st.lists(ROWS, max_size=5))
def test_every_row_is_a_readable_line(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """Whatever a row holds, it is one line of the file, and the reader reads it."""
    path = tmp_path_factory.mktemp("journal") / "any.jsonl"
    assert len(write(path, *rows)) == len(rows)


def test_plain_values_come_back_as_they_were(path: Path) -> None:
    """Texts of any script, numbers, truth values and nothing survive unchanged."""
    row = failure(47, message='«é» 漢字 😀 "quoted"\n\ttab\0', memory_bytes=2**63, exit_code=-9)
    assert write(path, row, {}) == [row, {}]
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("caf\udce9", "caf\\udce9"),
        ({"\ud800": 1}, {"\\ud800": 1}),
        (Path("caf\udce9"), "caf\\udce9"),
        ({1: 2, None: 3, ("a", 1): 4}, {"1": 2, "None": 3, "('a', 1)": 4}),
        (float("nan"), None),
        (float("-inf"), None),
        (2**64 - 1, 2**64 - 1),
        (-(10**20), -1e20),
        (2**2000, hex(2**2000)),
        (datetime(2026, 3, 1, 12, 30, tzinfo=UTC), "2026-03-01T12:30:00+00:00"),
        (b"\xff", "b'\\xff'"),
        ({"deep": [("\ud800",)]}, {"deep": [["\\ud800"]]}),
        (ValueError("so"), "so"),
    ],
    ids=str,
)
def test_what_json_cannot_say_is_shown_otherwise(path: Path, value: Any, shown: Any) -> None:
    """A value JSON has no way to write becomes the nearest thing it has, and costs no row."""
    assert write(path, {"value": value, "other": "é"}) == [{"value": shown, "other": "é"}]


def test_rows_reach_the_file_with_flush(path: Path) -> None:
    """Rows wait for `flush`, which tells how many it wrote; rows may be made only then."""
    journal = JournalFile(path)
    made = []
    journal.append({"n": 1})
    journal.append(lambda: made.append("now") or {"n": 2})  # type: ignore[func-returns-value]
    assert (path.read_bytes(), made) == (b"", [])
    assert journal.flush() == 2
    assert (path.read_bytes(), made) == (b'{"n":1}\n{"n":2}\n', ["now"])
    assert journal.flush() == 0
    journal.append({"n": 3})
    journal.close()
    journal.close()
    assert [row["n"] for row in read_rows(path).rows] == [1, 2, 3]


def test_a_journal_is_appended_to(path: Path) -> None:
    """What a former writer wrote stays."""
    write(path, {"n": 1})
    assert write(path, {"n": 2}) == [{"n": 1}, {"n": 2}]


def test_a_journal_is_private(path: Path) -> None:
    """Only the owner may read a journal, whatever the umask allows."""
    before = os.umask(0)
    try:
        write(path, {"n": 1})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_journal_is_no_link_elsewhere(path: Path) -> None:
    """A link in the place of the file is refused, and what it leads to stays untouched."""
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text("mine")
    path.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links") as caught:
        JournalFile(path)
    assert caught.value.errno == errno.ELOOP
    assert elsewhere.read_text() == "mine"


@pytest.mark.parametrize("free_bytes", [0, 1, 7, 8, 9, 100])
def test_a_full_disk_loses_and_tears_nothing(path: Path, free_bytes: int) -> None:
    """A write that fails leaves the file as it was, and all rows wait for the next flush."""
    journal = JournalFile(path)
    journal.append({"n": 0})
    journal.flush()
    for n in range(1, 50):
        journal.append({"n": n})
    with files_end_at(path.stat().st_size + free_bytes):
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                journal.flush()
            assert path.read_bytes() == b'{"n":0}\n'
    journal.append({"n": 50})
    assert journal.flush() == 50
    journal.close()
    assert [row["n"] for row in read_rows(path).rows] == list(range(51))


def test_a_writer_that_is_interrupted_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take a few bytes at a time; the file holds all of them in order."""
    write_some = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write_some(fd, data[:3]))
    rows = [{"n": n, "text": "é" * n} for n in range(9)]
    assert write(path, *rows) == rows


def test_a_file_is_closed_also_when_the_last_write_fails(path: Path) -> None:
    """Closing on a full disk says so and leaves no open file behind."""
    journal = JournalFile(path)
    journal.append({"n": 1})
    before = len(list(Path("/proc/self/fd").iterdir()))
    with files_end_at(0), pytest.raises(OSError, match="File too large"):
        journal.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    journal.close()
