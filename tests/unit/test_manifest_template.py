"""The manifest that `%scalable init` writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scalable_nb.errors import ManifestError
from scalable_nb.manifest.load import load_manifest
from scalable_nb.manifest.planner import make_plan
from scalable_nb.manifest.schema import Backoff, Component, Defaults, Manifest, Target, Task
from scalable_nb.manifest.template import write_template
from scalable_nb.manifest.yaml_document import parse_document


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory named `demo`."""
    folder = tmp_path / "demo"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_template_works_as_it_is(folder: Path) -> None:
    """It loads without a problem, is named after its folder, and both targets can be planned."""
    path = write_template("scalable.yaml")
    assert path == folder / "scalable.yaml"
    loaded = load_manifest()
    assert loaded.manifest.project.name == "demo"
    assert (loaded.target_name, list(loaded.manifest.targets)) == ("local", ["local", "slurm"])
    assert make_plan(loaded).workers == 2
    script = make_plan(load_manifest(target="slurm")).script
    assert script is not None
    assert "#SBATCH --cpus-per-task=4" in script


def test_the_template_fits_the_tutorial() -> None:
    """The component and the task that the tutorial uses are there."""
    write_template("scalable.yaml")
    manifest = load_manifest().manifest
    assert "analysis" in manifest.components
    assert manifest.tasks["run_analysis"].component == "analysis"


def test_every_key_is_shown_and_explained() -> None:
    """Each key of the schema is in the template, on a line with a comment that explains it."""
    lines = write_template("scalable.yaml").read_text().splitlines()
    for model in (Manifest, Target, Component, Task, Defaults, Backoff):
        for key in model.model_fields:
            assert any(re.search(rf"\b{key}:", line) for line in lines), key
    entries = [line for line in lines if re.match(r" {4}(# )?\w+: ", line)]
    assert [line for line in entries if not re.search(r"\S\s+# \w", line)] == [
        "    provider: local",
        "    provider: slurm",
    ]


def test_every_option_of_the_template_can_be_switched_on() -> None:
    """With all example lines uncommented the file still reads, apart from names left to choose."""
    path = write_template("scalable.yaml")
    text = re.sub(r"(?m)^( +)# (\w+: )", r"\1\2", path.read_text())
    assert parse_document(text, "scalable.yaml").data["components"]["analysis"]["fallback"]
    path.write_text(text)
    with pytest.raises(ManifestError) as caught:
        load_manifest()
    assert [problem.partition(": ")[2] for problem in caught.value.problems] == [
        "components.analysis.fallback: no component named 'small'; expected one of: analysis",
        "tasks.run_analysis.retries: a task that is not idempotent is never retried; expected 0",
    ]


def test_a_file_that_is_there_is_kept(folder: Path) -> None:
    """Nothing is overwritten unless `force` says so, and the error says how."""
    path = folder / "scalable.yaml"
    path.write_text("precious: true\n")
    with pytest.raises(ManifestError) as caught:
        write_template(path)
    assert str(caught.value) == (
        f"'{path}' is there already; `%scalable init --force` overwrites it"
    )
    assert path.read_text() == "precious: true\n"
    write_template(path, force=True)
    assert load_manifest().manifest.project.name == "demo"


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    """A path in a folder that does not exist is an error with the path and the reason."""
    with pytest.raises(ManifestError, match=r"no/scalable\.yaml' cannot be written: No such file"):
        write_template("no/scalable.yaml")


@pytest.mark.parametrize("name", ["2024", "true", "a b", "ünï", "a'b\"c", "null", "1.5"])
def test_any_folder_can_be_a_project(name: str, tmp_path: Path) -> None:
    """A folder with an odd name still gets a manifest that loads."""
    odd = tmp_path / name
    odd.mkdir()
    loaded = load_manifest(write_template(odd / "scalable.yaml"))
    assert loaded.manifest.project.name
