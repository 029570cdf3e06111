"""Files and the public surface of commit e11be3e stay readable and unchanged.

The expected values are in ``tests/data/recorded_e11be3e/golden.json``. To write them again, after a
change that is meant, run this file alone with ``REGENERATE_GOLDEN=1`` and review the diff. Nothing
here unpickles a function by value: its bytecode is that of Python 3.11.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pickle
import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from recorded import RECORDED, copy_project, entries, pickled_names, recorded_runs

import scalable_nb
from scalable_nb import errors
from scalable_nb.cache.keys import own_result_key
from scalable_nb.cache.maintenance import cache_info, trust_cache, verify_cache
from scalable_nb.cache.store import ResultStore
from scalable_nb.client.call_log import read_call_log
from scalable_nb.client.client import ScalableClient
from scalable_nb.client.futures import FutureList, PartialResult, TaskFailure
from scalable_nb.client.submission import SchedulingOptions
from scalable_nb.diagnosis.diagnose import diagnose
from scalable_nb.faults.categories import Category
from scalable_nb.magics.commands import NOTEBOOK, SHELL, SUBCOMMANDS
from scalable_nb.manifest.load import load_resolved
from scalable_nb.manifest.schema import Manifest
from scalable_nb.paths import RunPaths, find_run
from scalable_nb.protocol.connection_file import HostState, read_connection_info, read_state
from scalable_nb.report import build_report, overview
from scalable_nb.report.run_report import diagnosis_text
from scalable_nb.session.host_job import HostJob, sign_host_job
from scalable_nb.session.session import ScalableSession
from scalable_nb.telemetry.aggregates import (
    failure_classes,
    failure_groups,
    place_table,
    retry_table,
    timeline_table,
)
from scalable_nb.telemetry.journal_reader import read_rows
from scalable_nb.telemetry.journal_replay import attempts_of_run, ledger_of_run
from scalable_nb.telemetry.ledger import COLUMNS
from scalable_nb.telemetry.rows import GIVEN_UP, TaskState
from scalable_nb.telemetry.run_tables import RunRecords

GOLDEN = RECORDED / "golden.json"
JOURNALS = ("tasks", "failures", "workers", "cache")

#: Columns whose values are one of a few words.
ENUMERATED = {
    "tasks": ("event_type", "state", "reason", "failure_class", "schema_version"),
    "failures": (
        "event_type",
        "category",
        "failure_class",
        "provider",
        "job_state",
        "error_module",
    ),
    "workers": ("event_type", "phase", "job_state", "component"),
    "cache": ("event_type",),
}

#: Public exceptions that were added since.
NEW_ERRORS = {
    *("LeftOutError", "DaskVersionError", "NotCacheableError", "ProtocolError"),
    "ProtocolVersionError",
}
#: Of `cacheable`.
NEW_PARAMETERS = "opaque=(), allow=(), "

Check = Callable[[str, Any], None]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the recorded project, for tests that leave it as it is."""
    return copy_project(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def local(project: Path) -> RunPaths:
    """The recorded run on the local target."""
    return RunPaths(recorded_runs(project)[0])


@pytest.fixture(scope="module")
def cluster(project: Path) -> RunPaths:
    """The recorded run on Slurm, whose host was a job."""
    return RunPaths(recorded_runs(project)[1])


@pytest.fixture(scope="module")
def check(project: Path) -> Check:
    """Compares a value with the golden one of this name."""

    def check(name: str, found: Any) -> None:
        found = json.loads(json.dumps(_plain(found)).replace(str(project), "/srv/demo"))
        if os.environ.get("REGENERATE_GOLDEN"):
            known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
            GOLDEN.write_text(_written({**known, name: found}))
        assert found == json.loads(GOLDEN.read_text())[name]

    return check


def _written(golden: dict[str, Any]) -> str:
    """Return the golden values as JSON with a line for each item."""
    parts = []
    for name, value in sorted(golden.items()):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        lines = [json.dumps(item, ensure_ascii=False) for _, item in pairs]
        if isinstance(value, dict):
            lines = [f"{json.dumps(key)}: {line}" for key, line in zip(value, lines, strict=True)]
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        body = ",\n  ".join(lines)
        parts.append(f"{json.dumps(name)}: {opening}\n  {body}\n {closing}")
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def _plain(value: Any) -> Any:
    """Turn a value into what JSON has; floats with six digits."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value))
    if isinstance(value, bytes):
        return "<bytes>" if value else ""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value if isinstance(value, str | int | None) else str(value)


# --- the run folder --------------------------------------------------------------


def test_run_folder_has_the_same_files(local: RunPaths, cluster: RunPaths, check: Check) -> None:
    """The names of the run folder's files are those that `RunPaths` gives, and are unchanged."""
    properties = inspect.getmembers(RunPaths, lambda member: isinstance(member, property))
    values = [getattr(local, name) for name, _ in properties]
    named = {path.name for path in values if isinstance(path, Path)}
    check("names of files", named)
    for run in (local, cluster):
        assert {path.name for path in run.folder.iterdir()} <= named


@pytest.mark.parametrize("name", JOURNALS)
def test_journal_has_the_same_columns_and_words(
    local: RunPaths, cluster: RunPaths, check: Check, name: str
) -> None:
    """Every line is a row with the recorded columns, and enumerated columns hold known words."""
    rows = []
    for run in (local, cluster):
        read = read_rows(getattr(run, name))
        assert read.skipped == 0
        assert read.rows
        rows += read.rows
    kinds = {row["event_type"] for row in rows}
    for kind in kinds:
        shapes = {tuple(row) for row in rows if row["event_type"] == kind}
        check(f"{name}: columns of {kind}", [list(shape) for shape in sorted(shapes)])
    for column in ENUMERATED[name]:
        counts = Counter(str(row.get(column)) for row in rows)
        check(f"{name}: values of {column}", dict(sorted(counts.items())))
    assert {row["run_id"] for row in rows} == {local.run_id, cluster.run_id}


def test_failure_details_have_the_same_keys(
    local: RunPaths, cluster: RunPaths, check: Check
) -> None:
    """The details of failures have the recorded keys, by class of the error."""
    found: dict[str, set[str]] = {}
    for run in (local, cluster):
        for row in read_rows(run.failures).rows:
            found.setdefault(row["failure_class"], set()).update(row["details"])
    check("failures: keys of details", found)


def test_documents_have_the_same_keys(local: RunPaths, cluster: RunPaths, check: Check) -> None:
    """run.json, plan.json, summary.json, session.json and host-job.json have the same keys."""
    files = {
        "run.json": local.run_json,
        "plan.json": local.plan_json,
        "summary.json": local.summary_json,
        "plan.json of a cluster": cluster.plan_json,
        "run.json of a cluster": cluster.run_json,
        "session.json of a live session": RECORDED / "session-live.json",
        "host-job.json": cluster.host_job_json,
    }
    check("documents", {name: _keys(json.loads(path.read_bytes())) for name, path in files.items()})
    assert not local.session_json.exists()
    assert not cluster.session_json.exists()


def _keys(value: Any) -> Any:
    """Return the keys of nested objects, with the types of what they hold."""
    if isinstance(value, dict):
        return {key: _keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_keys(value[0])] if value else []
    return type(value).__name__


def test_live_session_is_read(local: RunPaths, tmp_path: Path) -> None:
    """The contact of a live host is found in the recorded session.json."""
    run = RunPaths(tmp_path / local.run_id)
    run.folder.mkdir()
    run.session_json.write_bytes((RECORDED / "session-live.json").read_bytes())
    run.session_json.chmod(0o600)
    contact = read_connection_info(run)
    assert contact is not None
    assert contact == {**read_state(run.session_json), "state": "open", "host": "login1"}
    assert contact["run_id"] == local.run_id
    assert re.fullmatch(r"tls://127\.0\.0\.1:\d+", contact["address"])
    assert build_report(run).state == "running"


def test_host_job_is_read(cluster: RunPaths) -> None:
    """The batch job of a host is known from the recorded host-job.json once it is signed."""
    with pytest.raises(errors.RunFolderError, match="--trust"):
        HostJob.of(cluster)
    sign_host_job(cluster)
    host = HostJob.of(cluster)
    assert host is not None
    assert (host.job_id, host.system) == ("1", "Slurm")


def test_manifests_load(local: RunPaths, cluster: RunPaths, check: Check) -> None:
    """The manifest in a run folder loads, and its lock is its SHA-256."""
    for run, target in ((local, "local"), (cluster, "cluster")):
        loaded = load_resolved(run.manifest_yaml, target=target)
        assert run.manifest_lock.read_text() == f"{loaded.sha256}\n"
        check("manifest", loaded.manifest.model_dump(mode="json"))


def test_states_and_words_are_unchanged(check: Check) -> None:
    """States keep their numbers and labels; categories and host states keep their words."""
    check(
        "words",
        {
            "task states": {state.label: int(state) for state in TaskState},
            "final states": [state.label for state in TaskState if state.is_final],
            "categories": [str(category) for category in Category],
            "host states": [str(state) for state in HostState],
            "given up": GIVEN_UP,
            "ledger columns": COLUMNS,
        },
    )


# --- the call record -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["local", "cluster"])
def test_call_record_reads(request: pytest.FixtureRequest, check: Check, name: str) -> None:
    """All calls, batches and members are read, with their terms, in order."""
    run: RunPaths = request.getfixturevalue(name)
    record = read_call_log(run.calls)
    assert record.torn == 0
    check(f"calls of {name}: tasks", [_task(task) for task in record.tasks.values()])
    batches = {id(task.batch): task.batch for task in record.tasks.values()}
    check(f"calls of {name}: batches", [_batch(vars(batch)) for batch in batches.values()])
    listed = [each for each in record.history.batches.values() if not each.is_single]
    check(f"calls of {name}: members", {each.name: each.keys for each in listed})
    for task in record.tasks.values():
        call = record.load_call(task, task.result_key)
        assert call is not None
        assert call.function == task.function
    assert all(len(batch.identity) == 64 for batch in batches.values())


def _task(task: Any) -> dict[str, Any]:
    values = {
        "key": task.key,
        "call": f"{task.batch.function_name}({task.preview})",
        "batch": task.batch.name,
        "result_key": task.result_key,
        "input_keys": task.input_keys,
        "arguments": task.packed if isinstance(task.packed, list) else [],
        "about": sorted(orjson.loads(task.about)) if task.about else [],
    }
    return {name: value for name, value in values.items() if value}


def _batch(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a batch has, apart from what is random and what is the default."""
    left_out = ("batch_id", "at", "identity")
    found = {name: value for name, value in values.items() if value and name not in left_out}
    usual = vars(SchedulingOptions())
    placing = {name: value for name, value in found.pop("placing").items() if value != usual[name]}
    return {**found, **({"placing": placing} if placing else {})}


def test_call_record_has_the_same_entries(local: RunPaths, check: Check) -> None:
    """The entries of a call record have the recorded kinds and keys."""
    (path,) = local.calls.glob("*.calls")
    found: dict[str, list[str]] = {}
    for entry in entries(path.read_bytes()):
        found.setdefault(entry["kind"], []).append(" ".join(entry))
    check("calls: entries", {kind: Counter(shapes) for kind, shapes in found.items()})


def test_arguments_unpickle(local: RunPaths) -> None:
    """Arguments are unpickled on every version of Python: plain, large, files, with inputs."""
    record = read_call_log(local.calls)

    def arguments(key: Any, *inputs: Any) -> Any:
        call = record.load_call(record.tasks[key], "")
        assert call is not None
        return call.load_arguments(inputs)

    assert arguments("total-of-squares", 1, 2, 3, 4) == (([1, 2, 3, 4],), {"bonus": 1})
    assert arguments("letters") == (("ab",), {"verbose": True})
    assert arguments("count-lines") == ((scalable_nb.File("/srv/demo/input.csv"),), {})
    (values,), _ = arguments("mean-of-large")
    assert values.tolist() == list(range(8192))


# --- reports -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["local", "cluster"])
def test_report_builds(request: pytest.FixtureRequest, check: Check, name: str) -> None:
    """The report of a recorded run has the same numbers and the same failed tasks."""
    report = build_report(request.getfixturevalue(name))
    found = report.to_dict()
    names = ("task_id", "failure_class", "category", "retries", "duration_s", "worker")
    failed = [[task[name] for name in names] for task in found["failed"]]
    check(f"report of {name}", {**found, "failed": failed})
    assert [task.label for task in report.failed][:1] == (["crash(x=1)"] if failed else [])
    assert report.skipped == 0
    assert report.run_id in report.to_text()
    assert report.to_text(failures=True).count("Error:") == len(report.failed)


def test_runs_are_listed(project: Path, check: Check) -> None:
    """The overview shows both runs, and the newest is found."""
    runs = overview(project / ".scalable" / "runs")
    check("overview", runs.to_dict())
    assert str(runs).count("finished") == 2
    found = find_run(project / ".scalable" / "runs")
    assert found.folder == recorded_runs(project)[1]


@pytest.mark.parametrize("name", ["local", "cluster"])
def test_diagnosis_has_its_findings(
    request: pytest.FixtureRequest, check: Check, name: str
) -> None:
    """The diagnosis finds the recorded causes, from the messages that were written then."""
    run: RunPaths = request.getfixturevalue(name)
    records = RunRecords(run)
    records.poll()
    findings = diagnose(records.failures, tasks=records.tasks, workers=records.workers)
    check(f"findings of {name}", [finding.to_dict() for finding in findings])
    text = diagnosis_text(run.run_id, findings)
    assert len(re.findall(r"^ +Do: ", text, re.MULTILINE)) == len(findings)


def test_tables_have_the_same_columns(local: RunPaths, cluster: RunPaths, check: Check) -> None:
    """Data frames of a run have the same columns, types and lengths."""
    records = RunRecords(local, cluster)
    records.poll()
    failures, tasks = records.failures, records.tasks
    tables = {
        "failures": failures,
        "tasks": tasks,
        "groups": failure_groups(failures),
        "classes": failure_classes(failures),
        "places": place_table(failures, "worker"),
        "retries": retry_table(failures, tasks),
        "timeline": timeline_table(failures, tasks, records.workers),
    }
    check("tables", {name: _shape(table) for name, table in tables.items()})
    assert records.problems == {}
    assert records.row(0)["traceback"] == read_rows(local.failures).rows[0]["traceback"]


def _shape(table: Any) -> dict[str, Any]:
    # Texts have a type of their own since pandas 3.
    types = {str(name): str(kind).replace("object", "str") for name, kind in table.dtypes.items()}
    return {"rows": len(table), "index": str(table.index.name), "columns": types}


def test_ledger_and_attempts_are_replayed(local: RunPaths, check: Check) -> None:
    """The ledger and the attempts of a task come from the recorded journals."""
    ledger = ledger_of_run(local)
    check("replayed ledger", ledger.count())
    labels = dict(zip(ledger.keys, ledger.labels, strict=True))
    assert labels["('mean', 1)"] == "mean(values=<result of table>)"
    keys = ("flaky", "given-up", "inc-lost", "crash", "count-lines-again")
    attempts = {key: attempts_of_run(local, key) for key in keys}
    names = ("attempt", "outcome", "failure_class", "will_retry", "worker", "reason")
    check(
        "replayed attempts",
        {
            key: [[row.get(name) for name in names] for row in rows]
            for key, rows in attempts.items()
        },
    )


# --- pickles ---------------------------------------------------------------------------


def test_pickled_names_resolve(project: Path, check: Check) -> None:
    """Every name of scalable_nb in a pickle on disk is still found in its module."""
    found = {name for data in _pickles(project) for name in pickled_names(data)}
    ours = sorted(name for name in found if name.partition(":")[0].startswith("scalable_nb"))
    check("pickled names", ours)
    for name in ours:
        module, _, path = name.partition(":")
        value: Any = importlib.import_module(module)
        for part in path.split("."):
            value = getattr(value, part)
        assert callable(value), name


def _pickles(project: Path) -> list[bytes]:
    """Return all pickles on disk: of users, in call records and in result files."""
    found = [path.read_bytes() for path in (RECORDED / "pickles").glob("*.pickle")]
    for path in project.glob(".scalable/runs/*/calls/*.calls"):
        for entry in entries(path.read_bytes()):
            if entry["kind"] == "function":
                found.append(entry["function"])
            elif entry["kind"] == "calls":
                found += [packed for packed in entry["arguments"] if isinstance(packed, bytes)]
            elif entry["kind"] == "batch":
                wire = entry["values"]["wire"]
                found += [value for value in wire.values() if isinstance(value, bytes)]
    return found


def test_pickled_names_are_read() -> None:
    """The names in a pickle are found, also those that stand in its memo."""
    values = [scalable_nb.File("a"), scalable_nb.Directory("a"), scalable_nb.File("b"), Counter()]
    expected = {f"scalable_nb.cache.content:{name}" for name in ("File", "Directory")}
    for protocol in (2, 4, 5):
        names = pickled_names(pickle.dumps(values, protocol=protocol))
        assert names == {*expected, "collections:Counter"}


def test_errors_unpickle(check: Check) -> None:
    """Every public exception unpickles, with its class, bases, text and attributes."""
    found = _unpickled("errors")
    assert sorted(found) == [name for name in errors.__all__ if name not in NEW_ERRORS]
    for name, error in found.items():
        assert type(error) is getattr(errors, name)
    check(
        "errors",
        {
            name: {
                "text": str(error),
                "attributes": vars(error),
                "bases": [base.__name__ for base in type(error).__mro__[1:]],
            }
            for name, error in found.items()
        },
    )


def test_partial_result_unpickles() -> None:
    """A pickled `PartialResult` has its results and failures."""
    outcome = _unpickled("partial-result")
    assert type(outcome) is PartialResult
    assert outcome.results == [0, 1, None, None]
    assert outcome.succeeded == [0, 1]
    refused, late = outcome.failures
    assert type(refused) is TaskFailure
    assert (refused.index, refused.key, refused.attempts) == (2, "unreachable", 2)
    assert refused.label == "unreachable(x=1)"
    assert refused.failure_class == "ConnectionRefusedError"
    assert type(late.error) is errors.TaskTimeoutError
    assert (
        str(late)
        == "slow(x=1): TaskTimeoutError: slow(x=1) ran longer than its limit of 0.5 s (attempt 1)"
    )


def test_arguments_and_policies_unpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """`File`, `Directory`, policies and a cacheable function of a module unpickle."""
    assert _unpickled("file") == scalable_nb.File("/srv/demo/input.csv")
    assert _unpickled("directory") == scalable_nb.Directory("/srv/demo/marks")
    assert _unpickled("retry-policy") == scalable_nb.RetryPolicy(3, base_s=0.5)
    assert _unpickled("task-policy") == scalable_nb.TaskPolicy(
        retries=2, timeout_s=60, retry_on="sqlite3.OperationalError"
    )
    monkeypatch.syspath_prepend(RECORDED)
    try:
        assert repr(_unpickled("cacheable")) == "<cacheable demo_tasks.simulate>"
    finally:
        sys.modules.pop("demo_tasks", None)


def _unpickled(name: str) -> Any:
    return pickle.loads((RECORDED / "pickles" / f"{name}.pickle").read_bytes())


# --- the cache -------------------------------------------------------------------------


def test_cache_opens(tmp_path: Path, check: Check) -> None:
    """A copy of the recorded cache is counted, found whole, and its results are read."""
    store = ResultStore(copy_project(tmp_path) / ".scalable" / "cache")
    info = cache_info(store)
    check("cache: functions", info.by_function)
    assert info.count == 6
    verified = verify_cache(store)
    assert (verified.whole, verified.damaged, verified.unreadable) == (6, (), ())
    assert (verified.unsigned, trust_cache(store).count) == (6, 6)
    found = {key: store.get(key) for key in store.iter_keys()}
    check("cache: results", found)
    metas = {key: dict(store.meta(key).meta) for key in found}
    for meta in metas.values():
        assert isinstance(meta.pop("created_at"), float)
    check("cache: what is known", metas)


@pytest.mark.parametrize("name", ["local", "cluster"])
def test_stored_results_are_read(request: pytest.FixtureRequest, check: Check, name: str) -> None:
    """Results in the run folder are read by the keys of the call record."""
    run: RunPaths = request.getfixturevalue(name)
    store = ResultStore(run.results)
    trust_cache(store)
    record = read_call_log(run.calls)
    wanted = {task.result_key: task.key for task in record.tasks.values()}
    found = {wanted[key]: store.get(key) for key in store.iter_keys()}
    for key, value in found.items():
        found[key] = value.tolist()[:3] if hasattr(value, "tolist") else value
    check(f"stored results of {name}", found)


def test_own_result_keys_are_unchanged(local: RunPaths, cluster: RunPaths) -> None:
    """Results of a task that no other call shares have the keys that are made today."""
    found = {}
    for run in (local, cluster):
        for task in read_call_log(run.calls).tasks.values():
            wire = task.batch.wire
            if wire.get("store", "").endswith("/results"):
                shared = task.batch.batch_id if wire.get("idempotent", True) else ""
                assert task.result_key == own_result_key(task.key, shared)
                found[task.key] = shared
    assert (found["pay-0"], bool(found["table"])) == ("", True)


def test_result_file_has_the_same_head() -> None:
    """A result file begins with its magic, version and compression."""
    heads = Counter(
        struct.unpack_from("<8sHH", path.read_bytes()) for path in RECORDED.rglob("*.result")
    )
    assert heads == {(b"\x89SNBRES\n", 1, 0): 13, (b"\x89SNBRES\n", 1, 1): 1}


# --- what users type -------------------------------------------------------------------


def test_public_names_are_unchanged(check: Check) -> None:
    """The package has the same public names, and each resolves."""
    check("public names", scalable_nb.__all__)
    check("names of errors", [name for name in errors.__all__ if name not in NEW_ERRORS])
    for name in scalable_nb.__all__:
        assert getattr(scalable_nb, name) is not None
    functions = ("cacheable", "partial", "progress", "resubmit", "RetryPolicy", "TaskPolicy")
    check(
        "signatures of functions",
        {
            name: _signature(getattr(scalable_nb, name)).replace(NEW_PARAMETERS, "")
            for name in functions
        },
    )


#: What each class offers to users, whichever class of ours defines it.
PUBLIC_MEMBERS: dict[type, str] = {
    ScalableSession: (
        "from_yaml attach target_name settings run_id is_live plan start close connect client "
        "worker_threads dashboard_link status failures attempts tasks batches unfinished resume "
        "cancel scale adapt"
    ),
    ScalableClient: (
        "dashboard_link submit map gather partial attempts held_keys retry_now give_up resume"
    ),
    FutureList: "session failed succeeded results partial resubmit to_dataframe",
    PartialResult: "succeeded",
}


@pytest.mark.parametrize("kind", PUBLIC_MEMBERS)
def test_public_methods_are_unchanged(check: Check, kind: type) -> None:
    """Public methods keep names, parameters and defaults; properties keep their names."""
    found = {
        name: _member(inspect.getattr_static(kind, name)) for name in PUBLIC_MEMBERS[kind].split()
    }
    check(f"members of {kind.__qualname__}", found)


def _member(member: Any) -> str:
    plain = getattr(member, "__func__", member)
    return _signature(plain) if inspect.isfunction(plain) else "attribute"


def _signature(function: Any) -> str:
    """Return the parameters and their defaults, without annotations."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
    ]
    return str(inspect.Signature(parameters))


def test_subcommands_are_unchanged(check: Check) -> None:
    """Every subcommand keeps its options, arguments and places."""
    check(
        "subcommands",
        {
            name: {
                "options": [
                    " ".join([*option.names, option.value]).strip() for option in subcommand.options
                ],
                "arguments": [argument.usage for argument in subcommand.arguments],
                "in a shell": name in SHELL.subcommands,
                "takes a cell": subcommand.takes_cell,
            }
            for name, subcommand in SUBCOMMANDS.items()
        },
    )
    for surface in (NOTEBOOK, SHELL):
        names = [" ".join(option.names) for option in surface.shared]
        check(f"options of every {surface.prompt}", names)


def test_manifest_keys_are_unchanged(check: Check) -> None:
    """A manifest has the same keys, with the same defaults and choices."""
    schema = Manifest.model_json_schema()
    check("manifest keys", dict(_manifest_keys(schema, schema["$defs"], "")))


def _manifest_keys(part: dict[str, Any], models: dict[str, Any], path: str) -> Any:
    if "$ref" in part:
        part = {**models[part["$ref"].rpartition("/")[2]], **part}
    for name, value in part.get("properties", {}).items():
        said = [f"{word}={value[word]!r}" for word in ("default", "enum", "const") if word in value]
        need = ["required"] if name in part.get("required", ()) else []
        yield f"{path}{name}", " ".join([*need, *said])
        for each in (value, *value.get("anyOf", ()), *value.get("allOf", ())):
            yield from _manifest_keys(_target(each, models), models, f"{path}{name}.")
            items = each.get("additionalProperties")
            if isinstance(items, dict):
                yield from _manifest_keys(_target(items, models), models, f"{path}{name}.*.")


def _target(part: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    return dict(models[part["$ref"].rpartition("/")[2]]) if "$ref" in part else part


def test_environment_variables_are_unchanged(check: Check) -> None:
    """The package reads the same environment variables of its own."""
    folder = Path(str(scalable_nb.__file__)).parent
    found = {
        name
        for path in folder.rglob("*.py")
        for name in re.findall(r"SCALABLE_[A-Z][A-Z_]*[A-Z]", path.read_text())
    }
    check("environment variables", found)
