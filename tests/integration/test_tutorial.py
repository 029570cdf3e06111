"""Every block of code in the tutorial on error handling runs, and its promises are true.

Nothing is changed but the name of the import, and in one block the indentation (see `mend`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from distributed import wait

from scalable_nb import RetryPolicy, ScalableSession
from scalable_nb.faults.backoff import delay_s
from scalable_nb.session.session import live_sessions

TUTORIAL = Path(__file__).parents[1] / "data" / "tutorial_7_error_handling.rst"
PRELUDE = Path(__file__).with_name("tutorial_prelude.py")
TIMEOUT_S = 3
# Alone it takes a minute altogether, most of it for real timeouts and a worker out of memory.
pytestmark = pytest.mark.timeout(300)
MANIFEST = f"""
version: 1
project: {{name: tutorial}}
targets:
  local: {{provider: local, max_workers: 2}}
components:
  analysis: {{memory: 400MB}}
tasks:
  run_analysis: {{component: analysis, timeout: {TIMEOUT_S}s}}
defaults: {{backoff: {{base_s: 0.05, factor: 2, max_s: 1}}}}
"""


# --- reading the tutorial ------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A block of code, as it stands in the tutorial."""

    language: str
    line: int
    text: str


def code_blocks(source: str) -> list[Block]:
    """All ``.. code-block::`` directives, their contents without the indentation."""
    lines = source.splitlines()
    blocks = []
    for number, line in enumerate(lines):
        found = re.fullmatch(r"( *)\.\. code-block:: (\w+)", line)
        if found:
            outer, content = len(found[1]), []
            for inner in lines[number + 1 :]:
                if inner.strip() and len(inner) - len(inner.lstrip()) <= outer:
                    break
                content.append(inner)
            text = textwrap.dedent("\n".join(content)).strip("\n")
            blocks.append(Block(found[2], number + 2, text))
    return blocks


def mend(code: str) -> str:
    """Give two lines of Step 6 the indentation of the function body they stand in.

    In the text ``plan = ...`` and ``client = ...`` stand at the left margin in the middle of
    ``run_workflow``, which is Python nowhere. Every other block is left as it is.
    """
    try:
        compile(code, "<tutorial>", "exec")
    except IndentationError:
        return re.sub(r"(?m)^(plan|client) = ", r"    \1 = ", code)
    return code


BLOCKS = code_blocks(TUTORIAL.read_text())
# Each block has a name here, and each name is used below: a block more or less is an error.
DIVIDE, DIVIDE_CAUGHT, STEP_1, STEP_2, RETRY_SAFE, STEP_3, STEP_6 = (
    block for block in BLOCKS if block.language == "python"
)
(STEP_5_COMMAND,) = (block for block in BLOCKS if block.language == "bash")
_, STEP_5_OUTPUT = (block for block in BLOCKS if block.language == "text")


# --- following it --------------------------------------------------------------------


class Reader:
    """Somebody who types in what the tutorial says, in a folder with a manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__"}
        (folder / "scalable.yaml").write_text(MANIFEST)
        for name in ("visits", "inputs", "outputs"):
            (folder / name).mkdir()
        exec(compile(PRELUDE.read_text(), PRELUDE, "exec"), self.names)

    def type(self, block: Block) -> None:
        """Run a block of Python, with our name in its imports and nothing else changed."""
        code = re.sub(r"(?m)^from scalable import", "from scalable_nb import", mend(block.text))
        file = self.folder / f"tutorial_line_{block.line}.py"
        file.write_text(code)
        exec(compile(code, file, "exec"), self.names)

    def run(self, block: Block) -> str:
        """Run a block of shell commands; returns what they print."""
        scripts = Path(sys.executable).parent
        env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
        command = ["bash", "-eu", "-c", block.text]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def start(self) -> Any:
        """Begin a session outside of any block."""
        return ScalableSession.from_yaml("./scalable.yaml", target="local").start()

    def trouble(self, **scenarios: str) -> None:
        """Put something wrong into the input of scenarios: ``s47="slow"``."""
        for name, trouble in scenarios.items():
            (self.folder / "inputs" / name.removeprefix("s")).write_text(trouble)

    def mend_inputs(self) -> None:
        """Nothing is wrong with any scenario any more."""
        for path in (self.folder / "inputs").iterdir():
            path.unlink()

    def visits(self, function: str) -> dict[int, int]:
        """How often a function was called, by scenario, counted on disk."""
        return {
            int(path.name.rpartition("-")[2]): path.stat().st_size
            for path in (self.folder / "visits").glob(f"{function}-*")
        }


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A reader who closes every session at the end, which the tutorial forgets."""
    monkeypatch.chdir(tmp_path)
    yield Reader(tmp_path)
    for session in live_sessions():
        session.close()


def test_every_block_is_valid_python_but_one() -> None:
    """Only Step 6 cannot be run as written, for two lines that lost their indentation."""
    changed = {block: mend(block.text) for block in BLOCKS if block.language == "python"}
    (mended,) = [block for block, text in changed.items() if text != block.text]
    assert mended is STEP_6
    before, after = STEP_6.text.splitlines(), changed[STEP_6].splitlines()
    differing = [new for old, new in zip(before, after, strict=True) if old != new]
    assert differing == ["    plan = session.plan()", "    client = session.start(plan)"]


def test_exceptions_in_python(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    """The two blocks on exceptions print what their comment says."""
    reader.type(DIVIDE)
    reader.type(DIVIDE_CAUGHT)
    assert capsys.readouterr().out == "Error: Cannot divide by zero\n"


# --- steps 1 to 3 --------------------------------------------------------------------


def test_step_1_errors_come_back_to_the_client(
    reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error of the 13th task is raised by gather, leads to its line and is recorded."""
    reader.type(STEP_1)
    assert capsys.readouterr().out == "A task failed: Unlucky number: 13\n"

    futures = reader.names["futures"]
    with pytest.raises(ValueError, match="Unlucky number: 13") as caught:
        futures[13].result()
    assert "risky_function" in {frame.name for frame in traceback.extract_tb(caught.tb)}
    others = [future.result() for i, future in enumerate(futures) if i != 13]
    assert others == [i * 2 for i in range(20) if i != 13]
    (row,) = reader.names["session"].failures()
    assert (row["failure_class"], row["message"]) == ("ValueError", "Unlucky number: 13")
    assert (row["args_preview"], row["component"]) == ("x=13", "analysis")


def test_step_2_retries(reader: Reader) -> None:
    """retries=3 means at most four calls, with growing waits, each retry recorded."""
    reader.type(STEP_2)
    *futures, hopeless = reader.names["futures"]

    assert [future.result() for future in futures] == [i * 10 for i in range(19)]
    with pytest.raises(ConnectionError, match="scenario 19"):
        hopeless.result()
    expected = {i: 3 if i % 3 == 0 else 1 for i in range(19)} | {19: 4}
    assert reader.visits("sometimes_fails") == expected

    rows = reader.names["session"].failures()
    assert Counter(row["args_preview"] for row in rows if row["will_retry"]) == {
        f"i={i}": calls - 1 for i, calls in expected.items() if calls > 1
    }
    assert [row["args_preview"] for row in rows if row["is_final"]] == ["i=19"]
    waits = [row["retry_in_s"] for row in rows if row["args_preview"] == "i=19"]
    assert waits[0] < waits[1] < waits[2]
    assert waits[3] is None


def test_step_2_waits_double_and_have_jitter() -> None:
    """By default the waits are 1, 2, 4 and 8 seconds, less a share that chance takes away."""
    policy = RetryPolicy(5)
    assert [delay_s(policy, attempt, lambda: 0.0) for attempt in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert delay_s(policy, 3, lambda: 0.3) != delay_s(policy, 3, lambda: 0.7)
    # The answer on how many retries to set: with a base of two seconds up to 32 of waiting.
    assert delay_s(RetryPolicy(5, base_s=2), 5, lambda: 0.0) == 32


@pytest.fixture
def api(reader: Reader) -> Iterator[list[str]]:
    """A server in the place of api.example.com; gives the paths that it was asked for.

    It answers the first two requests with 503.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if len(asked) <= 2:
                self.send_error(503)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"path": "%s"}' % self.path.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        (reader.folder / "api_address").write_text(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield asked
        server.shutdown()
        thread.join()


def test_step_2_retry_safe_functions(reader: Reader, api: list[str]) -> None:
    """An API that is unavailable at first is asked again; a saved file is the same each time."""
    reader.type(RETRY_SAFE)
    client = reader.start()

    fetched = client.submit(reader.names["fetch_data_from_api"], 7, retries=3)
    assert fetched.result() == {"path": "/scenarios/7"}
    assert api == ["/scenarios/7"] * 3
    failures = [row for row in client.attempts(fetched) if row["outcome"] == "failed"]
    assert {(row["failure_class"], row["category"]) for row in failures} == {
        ("HTTPError", "transient")
    }

    process_and_save = reader.names["process_and_save"]
    saved = reader.folder / "outputs" / "scenario_5.json"
    assert client.submit(process_and_save, 5, pure=False).result()["value"] == 25
    first = saved.read_text()
    assert client.submit(process_and_save, 5, pure=False).result()["value"] == 25
    assert saved.read_text() == first == '{"scenario": 5, "value": 25}'


def test_step_3_partial_success(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    """One failure in ten costs no result, and the failures alone run again."""
    reader.type(STEP_3)
    assert capsys.readouterr().out == "Succeeded: 90\nFailed: 10\n"
    assert reader.names["results"] == [i * 100 for i in range(100) if i % 10 != 7]
    assert reader.names["failures"][0] == {"index": 7, "error": "scenario 7 is not ready"}

    client = reader.names["client"]
    recovered = client.gather(reader.names["retry_futures"])
    assert recovered == [i * 100 for i in range(7, 100, 10)]
    assert reader.visits("maybe_fails") == {i: 2 if i % 10 == 7 else 1 for i in range(100)}


# --- steps 4 and 5 -------------------------------------------------------------------


def imports_what_is_missing() -> None:
    """A dependency that no worker has."""
    import no_such_module  # noqa: F401


def reads_what_is_missing() -> str:
    """An input file that nobody made."""
    return Path("no_such_input.csv").read_text()


def test_step_4_symptoms(reader: Reader) -> None:
    """A missing module and a missing file are what the table of failure modes says they are."""
    client = reader.start()
    for function, error in (
        (imports_what_is_missing, ModuleNotFoundError),
        (reads_what_is_missing, FileNotFoundError),
    ):
        future = client.submit(function, retries=3)
        with pytest.raises(error):
            future.result()
        (row,) = client.attempts(future)
        assert (row["failure_class"], row["category"]) == (error.__name__, "permanent")


def test_step_4_a_worker_that_disappears(reader: Reader) -> None:
    """A task whose worker goes away in the middle of it runs again on another one."""

    def lose_the_worker_once() -> str:
        if reader_visit("lost", 0) == 1:
            os._exit(1)
        return "done"

    reader_visit = reader.names["visit"]
    client = reader.start()
    future = client.submit(lose_the_worker_once)
    assert future.result() == "done"
    assert reader.visits("lost") == {0: 2}
    lost, done = client.attempts(future)
    assert (lost["failure_class"], lost["category"]) == ("WorkerLostError", "infrastructure")
    assert done["outcome"] == "succeeded"
    client.wait_for_workers(2)  # the lost one is replaced


def in_form(report: str) -> list[str]:
    """A report with names and numbers taken out that differ from run to run."""
    for pattern, placeholder in (
        (r"Error: \w+ — .+", "Error: CLASS — MESSAGE"),
        (r"Worker: worker-\d+", "Worker: WORKER"),
        (r"failure: <?[\d.]+s", "failure: TIME"),
    ):
        report = re.sub(pattern, placeholder, report)
    return report.strip().splitlines()


def test_step_5_report(reader: Reader) -> None:
    """The report of a run with the tutorial's three failures has the form that it shows."""
    reader.type(STEP_6)
    reader.trouble(s47="far too large", s92="slow", s13="invalid")
    run_simulation, client = reader.names["run_simulation"], reader.start()

    def submit(scenario_id: int, retries: int = 3) -> Any:
        return client.submit(
            run_simulation, scenario_id=scenario_id, task="run_analysis", retries=retries
        )

    # One after the other, for the order of the list; 92 is not tried again there.
    wait(submit(47))
    wait(submit(92, retries=0))
    wait([submit(i) for i in range(100) if i not in (47, 92)])
    client.session.close()

    report = reader.run(STEP_5_COMMAND)
    assert in_form(report) == in_form(STEP_5_OUTPUT.text)
    errors = re.findall(r"Error: (\w+) — (.+)", report)
    (memory, memory_text), (slow, slow_text), invalid = errors
    assert memory.endswith("MemoryError")
    assert "unable to allocate" in memory_text.lower()
    assert slow.endswith("TimeoutError")
    assert f"limit of {TIMEOUT_S} s" in slow_text
    assert invalid == ("ValueError", "invalid input data")
    durations = [float(text) for text in re.findall(r"failure: <?([\d.]+)s", report)]
    assert TIMEOUT_S <= durations[1] <= TIMEOUT_S + 2
    assert durations[2] <= 0.5


# --- step 6 --------------------------------------------------------------------------


def test_step_6_workflow(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    """97 of 100 scenarios complete; once the inputs are mended only the other three are run."""
    reader.type(STEP_6)
    reader.trouble(s47="too large", s92="slow", s13="invalid", s5="unreachable at first")

    results = reader.names["run_workflow"]()
    expected = {i: {"id": i, "result": i**2} for i in range(100)}
    assert results == {i: expected[i] for i in expected if i not in (13, 47, 92)}
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["Completed: 97 / 100", "Failed: 3"]
    # Its worker was killed for its memory, and `except MemoryError` is told so.
    assert "  Scenario 47: OOM — needs more memory" in printed
    assert "  Scenario 13: invalid input data" in printed
    before = reader.visits("compute")
    assert before[13] == 1  # permanent: not tried again
    assert before[5] == 3  # transient: tried until it succeeded

    reader.mend_inputs()
    assert reader.names["run_workflow"]() == expected
    after = reader.visits("compute")
    called = {i: after[i] - before[i] for i in after if after[i] != before[i]}
    assert called == {13: 1, 47: 1, 92: 1}  # all others were kept, also what a retry made good
    assert capsys.readouterr().out == "Completed: 100 / 100\nFailed: 0\n"


# --- "Try it" ------------------------------------------------------------------------


def test_closing_exercise(reader: Reader) -> None:
    """The telemetry of 50 tasks that fail at random says how many retries there were, and more."""
    import random

    def randomly_fails(i: int) -> int:
        visit("randomly_fails", i)
        if random.random() < 0.2:
            raise RuntimeError("bad luck")
        return i

    visit = reader.names["visit"]
    client = reader.start()
    futures = [client.submit(randomly_fails, i, retries=3) for i in range(50)]
    failed = len(client.partial(futures).failures)

    calls = sum(reader.visits("randomly_fails").values())
    final = [row["is_final"] for row in client.session.failures()]
    assert calls == 50 - failed + len(final)  # each failed call has a row
    client.session.close()
    assert final.count(True) == failed
    report = reader.run(Block("bash", 0, "scalable report --last"))
    assert re.findall(r"(?m)^Retries: +(\d+)", report) == [str(final.count(False))]
    assert f"{50 - failed} succeeded" in report
