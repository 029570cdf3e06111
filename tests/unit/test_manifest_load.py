"""Which manifest is used, what it says once resolved, and that its lock is stable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.system
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from scalable_nb.errors import ManifestError, UnknownNameError
from scalable_nb.manifest.checks import merged
from scalable_nb.manifest.load import load_manifest, project_name

FULL = """\
version: 1
project: {name: demo}
targets:
  local: {provider: local, max_workers: 2, threads_per_worker: 1, processes: true, containers: none}
  slurm: {provider: slurm, queue: batch, account: abc, walltime: "01:00:00", interface: ib0,
          max_workers: 20, overlay: big}
components:
  analysis: {cpus: 1, memory: 1G, image: /containers/x.sif, runtime: apptainer, mounts: {}, env: {},
             tags: [], preload_script: null}
tasks:
  run_analysis: {component: analysis, cache: true, retries: 3, timeout: 300s}
defaults: {retries: 0, backoff: {base_s: 1, factor: 2, max_s: 60, jitter: 0.25}}
overlays:
  big: {components: {analysis: {cpus: 16, memory: 64G}}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, path: str = "scalable.yaml") -> Path:
    file = Path(path).absolute()
    file.write_text(text, encoding="utf-8")
    return file


# --- what it says ----------------------------------------------------------------


def test_the_documented_manifest_reads_as_documented(folder: Path) -> None:
    """The example of the documentation loads, each value in its place and unit."""
    source = write(FULL)
    loaded = load_manifest()
    assert (loaded.source, loaded.target_name, loaded.defaulted) == (source, "local", False)
    assert loaded.target is loaded.manifest.targets["local"]
    component = loaded.manifest.components["analysis"]
    assert (component.cpus, component.memory_bytes, component.image) == (
        1,
        10**9,
        "/containers/x.sif",
    )
    task = loaded.manifest.tasks["run_analysis"]
    assert (task.component, task.cache, task.retries, task.timeout_s) == ("analysis", True, 3, 300)
    assert task.idempotent
    assert loaded.manifest.defaults.backoff.model_dump() == {
        "base_s": 1, "factor": 2, "max_s": 60, "jitter": 0.25,
    }  # fmt: skip
    assert loaded.manifest.defaults.max_identical_failures == 20


def test_only_provider_options_are_left_to_dask_jobqueue() -> None:
    """Keys of a job-queue target that are not ours arrive as its options, unchanged."""
    write(FULL)
    target = load_manifest(target="slurm").target
    assert target.options == {"queue": "batch", "account": "abc", "walltime": "01:00:00"}
    assert (target.interface, target.max_workers) == ("ib0", 20)


def test_an_overlay_changes_its_target_alone() -> None:
    """The overlay's values hold on the target that names it, beside what it leaves alone."""
    write(FULL)
    local, slurm = load_manifest(target="local"), load_manifest(target="slurm")
    assert local.manifest.components["analysis"].memory == "1G"
    changed = slurm.manifest.components["analysis"]
    assert (changed.cpus, changed.memory, changed.runtime) == (16, "64G", "apptainer")
    assert local.sha256 != slurm.sha256


def test_an_overlay_can_take_a_value_away() -> None:
    """Nothing (null) in an overlay brings a value back to its default."""
    write(FULL.replace("{cpus: 16, memory: 64G}", "{image: null, runtime:}"))
    component = load_manifest(target="slurm").manifest.components["analysis"]
    assert (component.image, component.runtime, component.memory) == (None, None, "1G")


def test_times_stay_as_they_are_written() -> None:
    """A walltime without quotes is text, not the number that YAML 1.1 makes of 12:00:00."""
    write(FULL.replace('"01:00:00"', "12:00:00"))
    loaded = load_manifest(target="slurm")
    assert loaded.target.options["walltime"] == "12:00:00"
    assert load_manifest(write(loaded.text, "copy.yaml"), target="slurm").sha256 == loaded.sha256


def test_names_that_yaml_takes_for_something_else_are_names() -> None:
    """A component may be called 1 or on; whole numbers in env become text."""
    write(
        "version: 1\nproject: {name: demo}\ntargets: {local: {provider: local}}\n"
        "components: {1: {env: {OMP_NUM_THREADS: 4}}, on: }\ntasks: {run: {component: 'on'}}\n"
    )
    components = load_manifest().manifest.components
    assert list(components) == ["1", "on"]
    assert components["1"].env == {"OMP_NUM_THREADS": "4"}


def test_anchors_and_merge_keys_work() -> None:
    """YAML's own way of sharing values is understood; what stands beside it wins."""
    write(
        "version: 1\nproject: {name: demo}\ntargets: {local: {provider: local}}\n"
        "components:\n  small: &small {cpus: 2, memory: 1G}\n  big: {<<: *small, memory: 8G}\n"
    )
    big = load_manifest().manifest.components["big"]
    assert (big.cpus, big.memory) == (2, "8G")


def test_a_loaded_manifest_cannot_be_changed() -> None:
    """Nobody who is handed a manifest can alter it for the others."""
    write(FULL)
    loaded = load_manifest()
    with pytest.raises(ValidationError, match="frozen"):
        loaded.manifest.components["analysis"].cpus = 3  # type: ignore[misc]


# --- which one ---------------------------------------------------------------------


def test_without_a_file_there_is_a_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder a local target with one component is ready, and it says so."""
    monkeypatch.setattr("scalable_nb.manifest.load.CPU_COUNT", 64)
    nested = folder / "my project!"
    nested.mkdir()
    monkeypatch.chdir(nested)
    loaded = load_manifest()
    assert loaded.defaulted
    assert loaded.source is None
    assert loaded.manifest.project.name == "my-project"
    assert (loaded.target_name, loaded.target.provider, loaded.target.max_workers) == (
        "local",
        "local",
        4,
    )
    assert list(loaded.manifest.components) == ["default"]


def test_the_default_reloads_from_its_text() -> None:
    """The text of the embedded default is a manifest file like any other."""
    loaded = load_manifest()
    again = load_manifest(write(loaded.text, "copy.yaml"))
    assert (again.manifest, again.sha256) == (loaded.manifest, loaded.sha256)
    assert loaded.target.max_workers == min(4, dask.system.CPU_COUNT)


def test_argument_goes_before_environment_before_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is given wins over SCALABLE_MANIFEST, which wins over ./scalable.yaml."""
    for name in ("scalable", "setting", "argument"):
        write(FULL.replace("name: demo", f"name: {name}"), f"{name}.yaml")
    assert load_manifest().manifest.project.name == "scalable"
    monkeypatch.setenv("SCALABLE_MANIFEST", "setting.yaml")
    assert load_manifest().manifest.project.name == "setting"
    assert load_manifest("argument.yaml").manifest.project.name == "argument"


def test_a_missing_file_is_named_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that leads nowhere is an error with the path, never the embedded default."""
    with pytest.raises(ManifestError) as caught:
        load_manifest("no/such.yaml")
    assert str(caught.value) == "there is no manifest 'no/such.yaml'; `%scalable init` writes one"
    monkeypatch.setenv("SCALABLE_MANIFEST", "elsewhere.yaml")
    with pytest.raises(ManifestError, match=r"elsewhere\.yaml', which SCALABLE_MANIFEST names"):
        load_manifest()


def test_a_target_is_chosen_or_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, then SCALABLE_TARGET, then the only one, then local; else the choices are told."""
    write(FULL)
    assert load_manifest().target_name == "local"
    monkeypatch.setenv("SCALABLE_TARGET", "slurm")
    assert load_manifest().target_name == "slurm"
    assert load_manifest(target="local").target_name == "local"
    monkeypatch.delenv("SCALABLE_TARGET")
    write(FULL.replace("  local:", "  laptop:"))
    with pytest.raises(ManifestError, match=r"has the targets laptop, slurm: name one, e\.g\. "):
        load_manifest()
    write("\n".join(line for line in FULL.splitlines() if not line.startswith("  local:")))
    assert load_manifest().target_name == "slurm"


def test_an_unknown_target_is_told_with_the_closest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped target names the closest, and where the names come from."""
    source = write(FULL)
    with pytest.raises(UnknownNameError) as caught:
        load_manifest(target="slrum")
    assert str(caught.value) == (
        "no target named 'slrum'. Did you mean 'slurm'? Known: local, slurm. "
        f"They are defined in {source}."
    )
    source.unlink()
    monkeypatch.setenv("SCALABLE_TARGET", "slrum")
    with pytest.raises(UnknownNameError) as caught:
        load_manifest()
    assert str(caught.value) == (
        "no target named 'slrum'. Known: local. There is no scalable.yaml here: "
        "`%scalable init` writes one. SCALABLE_TARGET asks for it."
    )


def test_local_work_does_not_touch_dask_jobqueue(folder: Path) -> None:
    """Loading and planning a local manifest leaves dask-jobqueue and IPython unimported."""
    write("\n".join(line for line in FULL.splitlines() if "slurm" not in line and "ib0" not in line
                    and "max_workers: 20" not in line))  # fmt: skip
    code = (
        "import sys\n"
        "from scalable_nb.manifest.load import load_manifest\n"
        "from scalable_nb.manifest.planner import make_plan\n"
        "make_plan(load_manifest())\n"
        "print([m for m in ('dask_jobqueue', 'IPython', 'plotly') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


# --- invariants --------------------------------------------------------------------

NAMES = st.text("abcXYZ019_.-", min_size=1, max_size=6)
WORDS = st.text(max_size=8)
COMPONENTS = (
    st.fixed_dictionaries(
        {},
        optional={
            "cpus": st.integers(1, 99),
            "memory": st.sampled_from(["1G", "500 MB", "2GiB", "3e9"]),
            "image": WORDS,
            "runtime": st.sampled_from(["apptainer", "docker"]),
            "mounts": st.dictionaries(WORDS, WORDS, max_size=2),
            "env": st.dictionaries(st.text("AB_", min_size=1), WORDS | st.integers(), max_size=2),
            "tags": st.lists(WORDS, max_size=2),
            "preload_script": st.none() | WORDS,
        },
    )
    | st.none()
)
TASKS = (
    st.fixed_dictionaries(
        {},
        optional={
            "cache": st.booleans(),
            "retries": st.integers(0, 9),
            "timeout": st.sampled_from(["300s", "5m", 60]),
            "keep_results": st.booleans(),
            "version": WORDS | st.integers(),
        },
    )
    | st.none()
)
TARGETS = st.fixed_dictionaries(
    {"provider": st.just("local")},
    optional={
        "max_workers": st.integers(1, 9),
        "processes": st.booleans(),
        "adaptive": st.fixed_dictionaries({"minimum": st.integers(0, 1)}),
        "linger_s": st.floats(0, 1e9) | st.integers(0, 9),
    },
) | st.fixed_dictionaries(
    {"provider": st.sampled_from(["slurm", "pbs", "oar"])},
    optional={
        "queue": WORDS,
        "walltime": st.sampled_from(["01:00:00", "12:30", 30]),
        "job_extra_directives": st.lists(WORDS, max_size=2),
        "processes": st.integers(1, 4),
    },
)


@st.composite
def manifests(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """A manifest without mistakes, and one of its targets."""
    data: dict[str, Any] = {
        "version": 1,
        "project": {"name": draw(st.text(min_size=1, max_size=8))},
        "targets": draw(st.dictionaries(NAMES, TARGETS, min_size=1, max_size=3)),
        "components": draw(st.dictionaries(NAMES, COMPONENTS, min_size=1, max_size=3)),
        "tasks": draw(st.none() | st.dictionaries(NAMES, TASKS, max_size=2)),
    }
    target = draw(st.sampled_from(list(data["targets"])))
    if draw(st.booleans()):
        component = draw(st.sampled_from(list(data["components"])))
        change = draw(COMPONENTS)
        data["overlays"] = {"change": {"components": {component: change}}}
        data["targets"][target]["overlay"] = "change"
    return data, target


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(manifests())
def test_the_resolved_text_is_a_fixed_point(case: tuple[dict[str, Any], str]) -> None:
    """Loading the resolved text again gives the same manifest, text and lock."""
    data, target = case
    loaded = load_manifest(write(yaml.safe_dump(data, allow_unicode=True)), target=target)
    again = load_manifest(write(loaded.text, "copy.yaml"), target=target)
    assert again.manifest == loaded.manifest
    assert again.text == loaded.text
    assert again.sha256 == loaded.sha256


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(manifests(), st.booleans())
def test_the_lock_knows_values_not_spelling(case: tuple[dict[str, Any], str], flow: bool) -> None:
    """Comments and YAML style do not change the lock; another value does."""
    data, target = case
    loaded = load_manifest(write(yaml.safe_dump(data, sort_keys=False)), target=target)
    styled = "# a comment\n" + yaml.safe_dump(data, sort_keys=False, default_flow_style=flow)
    assert load_manifest(write(styled), target=target).sha256 == loaded.sha256
    data["defaults"] = {"retries": 7}
    changed = load_manifest(write(yaml.safe_dump(data, sort_keys=False)), target=target)
    assert changed.sha256 != loaded.sha256


TREES = st.recursive(
    st.none() | st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner)
)


@given(TREES, TREES)
def test_merging_twice_is_merging_once(base: Any, change: Any) -> None:
    """An overlay that is already applied changes nothing when it is applied again."""
    once = merged(base, change)
    assert merged(once, change) == once
    assert merged(base, {}) == base or not isinstance(base, dict)


@given(st.text(alphabet=st.characters(exclude_characters="/\x00"), max_size=20))
def test_every_folder_makes_a_project_name(name: str) -> None:
    """Whatever a folder is called, the name made of it is safe in a file name, and not empty."""
    made = project_name(Path("/work") / name)
    assert made
    assert all(letter.isascii() and (letter.isalnum() or letter in "_.-") for letter in made)
