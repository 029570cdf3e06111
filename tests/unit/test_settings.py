"""What the environment, the manifest and the defaults say, in this order."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from users import MALLORY, commons, make_for

from scalable_nb.errors import ScalableError, SettingsError
from scalable_nb.paths import create_run
from scalable_nb.settings import Settings, load_settings, state_folder

__all__ = ["commons"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; the environment says nothing yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    return tmp_path


def test_defaults_lie_in_the_working_directory(folder: Path) -> None:
    """Where nothing is said, runs and results go below the working directory."""
    assert load_settings() == Settings(
        manifest=None,
        target=None,
        runs_dir=folder / ".scalable" / "runs",
        cache_dir=folder / ".scalable" / "cache",
        start_timeout_s=60.0,
        linger_s=600.0,
    )


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("SCALABLE_MANIFEST", "/data/a b.yaml", "manifest", Path("/data/a b.yaml")),
        ("SCALABLE_MANIFEST", "~/scalable.yaml", "manifest", Path("/home/ada/scalable.yaml")),
        ("SCALABLE_MANIFEST", "", "manifest", None),
        ("SCALABLE_TARGET", "slurm", "target", "slurm"),
        ("SCALABLE_TARGET", "", "target", None),
        ("SCALABLE_RUNS_DIR", "/scratch/runs", "runs_dir", Path("/scratch/runs")),
        ("SCALABLE_RUNS_DIR", "~/runs", "runs_dir", Path("/home/ada/runs")),
        ("SCALABLE_CACHE_DIR", "/scratch/cache", "cache_dir", Path("/scratch/cache")),
        ("SCALABLE_START_TIMEOUT_S", "7.5", "start_timeout_s", 7.5),
        ("SCALABLE_START_TIMEOUT_S", "", "start_timeout_s", 60.0),
        ("SCALABLE_LINGER_S", "0", "linger_s", 0.0),
        ("SCALABLE_LINGER_S", " 1e3 ", "linger_s", 1000.0),
    ],
)
def test_the_environment_is_heard(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, name: str, value: object
) -> None:
    """Each variable sets its value; an empty one says nothing."""
    monkeypatch.setenv(variable, text)
    assert getattr(load_settings(), name) == value


def test_relative_folders_start_at_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is made absolute, so that a later `cd` does not move it."""
    monkeypatch.setenv("SCALABLE_RUNS_DIR", "runs")
    monkeypatch.setenv("SCALABLE_MANIFEST", "deep/scalable.yaml")
    settings = load_settings(local_cache="kept")
    assert settings.runs_dir == folder / "runs"
    assert settings.manifest == folder / "deep" / "scalable.yaml"
    assert settings.cache_dir == folder / "kept"


def test_the_environment_comes_before_the_manifest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest overrides a default, the environment overrides the manifest."""
    settings = load_settings(local_cache="~/kept", linger_s=0.0)
    assert (settings.cache_dir, settings.linger_s) == (Path("/home/ada/kept"), 0.0)
    monkeypatch.setenv("SCALABLE_CACHE_DIR", "/scratch")
    monkeypatch.setenv("SCALABLE_LINGER_S", "5")
    settings = load_settings(local_cache="~/kept", linger_s=0.0)
    assert (settings.cache_dir, settings.linger_s) == (Path("/scratch"), 5.0)


def test_settings_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set later counts from then on."""
    before = load_settings()
    monkeypatch.setenv("SCALABLE_TARGET", "slurm")
    assert (before.target, load_settings().target) == (None, "slurm")


@pytest.mark.parametrize("text", ["soon", "10s", "-1", "-0.5", "nan", "inf", "-inf", "1,5", "0x10"])
@pytest.mark.parametrize(
    ("variable", "example"), [("SCALABLE_START_TIMEOUT_S", "60"), ("SCALABLE_LINGER_S", "600")]
)
def test_what_is_no_number_of_seconds_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, example: str, text: str
) -> None:
    """The message names the variable, the value and an example that works."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == (
        f"{variable}={text!r} is not a number of seconds; expected e.g. {variable}={example}"
    )
    assert isinstance(caught.value, ScalableError)


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_number_of_seconds_is_finite_and_not_negative(text: str) -> None:
    """Whatever is set, the result is a usable duration or a `SettingsError`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALABLE_LINGER_S", text)
        try:
            linger_s = load_settings().linger_s
        except SettingsError as error:
            assert repr(text) in str(error)
        else:
            assert math.isfinite(linger_s)
            assert linger_s >= 0


@pytest.mark.parametrize("kind", ["group-writable", "of another user", "planted"])
def test_a_project_folder_of_several_users_is_not_written(
    commons: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    """Runs and cache are below XDG_STATE_HOME, which one notice reports until the first start."""
    project = make_for(MALLORY if kind == "of another user" else 0, commons / "project", 0o755)
    if kind == "group-writable":
        os.chown(project, 0, 54_321)
        project.chmod(0o2775)
    if kind == "planted":
        project.chmod(0o1777)
        make_for(MALLORY, project / ".scalable", 0o755)
    monkeypatch.chdir(project)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with caplog.at_level(logging.WARNING):
        settings = load_settings()
        assert load_settings() == settings
    home = state_folder(project)
    assert home.parent == tmp_path / "state" / "scalable_nb"
    assert (settings.runs_dir, settings.cache_dir) == (home / "runs", home / "cache")
    assert [record.getMessage().count(str(home)) for record in caplog.records] == [1]
    assert create_run(settings.runs_dir, "demo").folder.is_relative_to(home)


def test_a_project_folder_that_was_repaired_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command in the notice works in the same kernel."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "project").mkdir()
    (tmp_path / "project").chmod(0o777)
    monkeypatch.chdir(tmp_path / "project")
    assert load_settings().runs_dir.is_relative_to(tmp_path / "state")
    (tmp_path / "project").chmod(0o755)
    assert load_settings().runs_dir == tmp_path / "project" / ".scalable" / "runs"


def test_a_folder_that_is_named_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing replaces the user's choice: using the folder raises the error."""
    tmp_path.chmod(0o777)
    monkeypatch.setenv("SCALABLE_RUNS_DIR", "mine")
    assert load_settings(local_cache="kept").runs_dir == tmp_path / "mine"
    assert load_settings(local_cache="kept").cache_dir == tmp_path / "kept"
