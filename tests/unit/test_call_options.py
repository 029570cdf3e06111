"""What the manifest and the arguments of `submit` together say about a call."""

from __future__ import annotations

import importlib
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scalable_nb.cache.decorator import cacheable
from scalable_nb.client.call_options import CallOptions
from scalable_nb.client.context import ClientContext
from scalable_nb.errors import PolicyError, SubmitError, UnknownNameError
from scalable_nb.faults.backoff import RetryPolicy
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.faults.policy import TaskPolicy
from scalable_nb.manifest.load import load_manifest

MANIFEST = """\
version: 1
project: {name: demo, local_cache: CACHE}
targets:
  local: {provider: local, max_workers: 1, threads_per_worker: 2}
components:
  analysis: {cpus: 1, memory: 1G, tags: [fast, numpy]}
  big: {cpus: 4, memory: 8G}
tasks:
  run_analysis: {component: analysis, cache: true, retries: 3, timeout: 300s}
  send_mail: {retries: 0, idempotent: false}
defaults: {retries: 2, backoff: {base_s: 5, factor: 3, max_s: 50, jitter: 0}}
"""


def simulate(scenario: int) -> int:
    return scenario


@pytest.fixture
def context(tmp_path: Path) -> ClientContext:
    """The context of a session of this manifest."""
    path = tmp_path / "scalable.yaml"
    path.write_text(MANIFEST.replace("CACHE", str(tmp_path / "cache")))
    return ClientContext(load_manifest(path), tmp_path / "results")


def terms(options: CallOptions) -> PolicyTerms:
    """The policy as a worker reads it."""
    return PolicyTerms.from_wire(options.wire)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ("", "", "")),
        ({"tag": "analysis"}, ("", "analysis", "analysis")),
        ({"tag": "fast"}, ("", "analysis", "fast")),
        ({"task": "run_analysis"}, ("run_analysis", "analysis", "")),
        ({"task": "run_analysis", "tag": "big"}, ("run_analysis", "big", "big")),
        ({"task": "send_mail"}, ("send_mail", "", "")),
    ],
)
def test_names_lead_to_components(
    context: ClientContext, options: dict[str, str], names: tuple[str, str, str]
) -> None:
    """A tag is a component or one of its tags; it comes before the task's own component."""
    resolved = CallOptions.resolve(context, simulate, **options)
    assert (resolved.task, resolved.component, resolved.tag) == names
    batch = resolved.batch("study", simulate)
    assert (batch.task, batch.component, batch.tag) == names
    assert (batch.name, batch.function) == ("study", "simulate")
    assert batch.batch_id != resolved.batch("study", simulate).batch_id


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"task": "run_analysys"}, "no task named 'run_analysys'. Did you mean 'run_analysis'?"),
        ({"tag": "numpi"}, "no tag or component named 'numpi'. Did you mean 'numpy'?"),
        ({"tag": "bigg"}, "Did you mean 'big'? Known: analysis, big, fast, numpy."),
        ({"task": ""}, "no task named ''."),
        ({"tag": ""}, "no tag or component named ''."),
    ],
)
def test_a_name_the_manifest_lacks_is_an_error(
    context: ClientContext, options: dict[str, str], wanted: str
) -> None:
    """The closest name, the known ones and where they are defined are in the message."""
    with pytest.raises(UnknownNameError) as caught:
        CallOptions.resolve(context, simulate, **options)
    assert wanted in str(caught.value)
    assert "`scalable.yaml` defines them; `%scalable init` writes one" in str(caught.value)


def test_terms_come_from_the_nearest_place(context: ClientContext) -> None:
    """An argument comes before the policy, this before the task, this before the defaults."""
    resolve = CallOptions.resolve
    assert terms(resolve(context, simulate)).retries == 2
    task = terms(resolve(context, simulate, task="run_analysis"))
    assert (task.retries, task.timeout_s) == (3, 300.0)
    policy = TaskPolicy(retries=7, timeout_s=10)
    both = terms(resolve(context, simulate, task="run_analysis", policy=policy))
    assert (both.retries, both.timeout_s) == (7, 10)
    all_three = resolve(context, simulate, task="run_analysis", policy=policy, retries=0)
    assert (terms(all_three).retries, terms(all_three).timeout_s) == (0, 10)
    assert terms(resolve(context, simulate)).backoff.base_s == 5
    own = terms(resolve(context, simulate, retries=RetryPolicy(4, base_s=0.5)))
    assert (own.retries, own.backoff.base_s) == (4, 0.5)
    assert not terms(resolve(context, simulate, task="send_mail")).idempotent


def test_rules_travel_and_say_where_they_cannot(context: ClientContext) -> None:
    """Functions and classes of a policy are packed; one that cannot be is named as such."""
    policy = TaskPolicy(validate=lambda value: value > 0, retry_on=(KeyError,))
    rules = pickle.loads(terms(CallOptions.resolve(context, simulate, policy=policy)).code)
    assert rules["validate"](1)
    assert rules["retry_on"] == (KeyError,)
    assert terms(CallOptions.resolve(context, simulate, policy=TaskPolicy(retries=1))).code == b""
    lock = threading.Lock()
    with pytest.raises(SubmitError, match=r"rules of the policy \(.*\) cannot be sent .*lock"):
        CallOptions.resolve(context, simulate, policy=TaskPolicy(validate=lambda value: lock))


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True, None])
def test_slots_are_a_whole_number_from_one(context: ClientContext, n: Any) -> None:
    """Anything else is refused with the value and an example."""
    with pytest.raises(SubmitError) as caught:
        CallOptions.resolve(context, simulate, n=n)
    assert str(caught.value) == (
        f"n={n!r} is not a number of slots; expected an integer from 1, as n=1"
    )


def test_no_task_takes_more_slots_than_a_worker_has(context: ClientContext) -> None:
    """One slot needs no reservation, more are reserved, and too many would wait for ever."""
    assert CallOptions.resolve(context, simulate, n=1).resources == {}
    assert CallOptions.resolve(context, simulate, n=2).resources == {"slots": 2}
    with pytest.raises(SubmitError) as caught:
        CallOptions.resolve(context, simulate, n=3)
    assert str(caught.value) == (
        "n=3 slots, but a worker of target 'local' has 2; raise `threads_per_worker:` in "
        "scalable.yaml"
    )


def test_a_policy_that_makes_no_sense_is_refused(context: ClientContext) -> None:
    """Mistakes in retries are found when the call is made, not on a worker."""
    with pytest.raises(PolicyError, match="retries=-1"):
        CallOptions.resolve(context, simulate, retries=-1)


def test_results_are_kept_where_that_was_asked_for(context: ClientContext, tmp_path: Path) -> None:
    """The task's `cache: true` or `@cacheable` keeps results; equal calls have equal keys."""
    plain = CallOptions.resolve(context, simulate)
    assert plain.result_key("key-1", (1,), {}) == ""
    assert "store" not in plain.wire
    kept = CallOptions.resolve(context, simulate, task="run_analysis")
    assert kept.wire["store"] == str(tmp_path / "cache")
    keys = [kept.result_key(f"key-{n}", (value,), {}) for n, value in enumerate([1, 1, 2])]
    assert keys[0] == keys[1] != keys[2]

    @cacheable(store=tmp_path / "mine", recompute=True)
    def decorated(scenario: int) -> int:
        return scenario

    own = CallOptions.resolve(context, decorated)
    assert (own.wire["store"], own.wire["recompute"]) == (str(tmp_path / "mine"), True)
    assert own.function is not decorated
    assert own.result_key("key-1", (1,), {})
    assert own.arguments([1], {}) == ((1,), {})


# --- modules that are imported inside functions ------------------------------------------


def importing() -> object:
    """Import a module of the user when it is called."""
    import edited_helper  # type: ignore[import-not-found]

    return edited_helper.X


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a module that a function imports."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "edited_helper.py"
    path.write_text("X = 1\n")
    importlib.invalidate_caches()
    yield path
    sys.modules.pop("edited_helper", None)


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_call_of_a_stale_module_is_not_cached(
    context: ClientContext, helper: Path, idempotent: bool
) -> None:
    """Its key would be that of the file; a call that must not be repeated keeps its own store."""
    importlib.import_module("edited_helper")

    def resolve() -> CallOptions:
        policy = TaskPolicy(retries=0, idempotent=idempotent)
        return CallOptions.resolve(context, cacheable(importing), policy=policy)

    assert resolve().call_keys is not None
    helper.write_text("X = 22\n")
    options = resolve()
    assert options.call_keys is None
    stored = None if idempotent else str(context.results_dir)
    assert options.wire.get("store") == stored


def test_an_edit_during_a_submission_is_an_error(context: ClientContext, helper: Path) -> None:
    """Keys and sources may be of different versions then."""
    options = CallOptions.resolve(context, cacheable(importing))
    options.check_unedited()
    helper.write_text("X = 22\n")
    with pytest.raises(SubmitError, match="that 'importing' imports was edited while"):
        options.check_unedited()
