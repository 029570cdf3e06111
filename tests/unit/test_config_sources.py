"""Manifests of the project, of the user and of the machine, and what the last one locks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scalable_nb import ScalableSession, paths
from scalable_nb.errors import ManifestError, RunFolderError, UnknownNameError
from scalable_nb.manifest.load import load_manifest, load_resolved
from scalable_nb.manifest.planner import make_plan

SYSTEM = """\
version: 1
targets:
  slurm: {provider: slurm, queue: batch, account: abc, walltime: "01:00:00", max_workers: 4}
  local: {provider: local, max_workers: 2}
components:
  default: {cpus: 1, memory: 1G}
locked: [targets.slurm.account, targets.*.max_core_hours, components.default.image]
"""
PROJECT = """\
version: 1
project: {name: demo}
targets:
  slurm: {queue: long}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, beside an empty configuration of the user's and of the machine."""
    for name in ("project", "etc", "home/scalable_nb"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(paths, "_SYSTEM_FOLDER", tmp_path / "etc")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def write(system: str = SYSTEM, project: str = "", user: str = "") -> None:
    for path, text in (
        (paths.system_manifest(), system),
        (paths.user_manifest(), user),
        (Path("scalable.yaml"), project),
    ):
        if text:
            path.write_text(text)


def problems(target: str = "slurm") -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load_manifest(target=target)
    return list(caught.value.problems)


def test_the_system_file_is_enough(project: Path) -> None:
    """Where a centre describes its cluster, a user starts on it without any file."""
    write()
    loaded = load_manifest(target="slurm")
    assert (loaded.manifest.project.name, loaded.target.options["account"]) == ("project", "abc")
    assert (loaded.source, loaded.defaulted) == (paths.system_manifest(), False)
    assert load_manifest().target_name == "local"


def test_the_nearer_file_goes_first(project: Path) -> None:
    """The project's values go before the user's, and these before the system's."""
    user = 'targets: {slurm: {queue: mine, walltime: "02:00:00"}}\n'
    write(project=PROJECT, user=user)
    target = load_manifest(target="slurm").target
    assert target.options == {"queue": "long", "account": "abc", "walltime": "02:00:00"}
    assert target.max_workers == 4


def test_a_folder_inside_a_project_belongs_to_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest scalable.yaml above counts, but not one that somebody else put there."""
    write(project=PROJECT)
    below = project / "analysis" / "plots"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert load_manifest(target="slurm").source == project / "scalable.yaml"
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    if (project / "scalable.yaml").stat().st_uid:
        assert load_manifest(target="slurm").source == paths.system_manifest()


def make_writable_by_others(folder: Path) -> None:
    folder.chmod(0o777)


def give_to_another_user(folder: Path) -> None:
    if os.getuid():
        pytest.skip("only root can give a file away")
    os.chown(folder / "scalable.yaml", 24_666, -1)


@pytest.mark.parametrize("spoil", [make_writable_by_others, give_to_another_user])
def test_a_manifest_that_others_can_change_is_used_only_if_it_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    """It starts programs; the error names the owner and how to name the file."""
    write(project=PROJECT)
    path = project / "scalable.yaml"
    spoil(project)
    with pytest.raises(
        RunFolderError, match=f"not trusted: .*name the manifest: `--manifest {path}"
    ):
        load_manifest(target="slurm")
    assert load_manifest(path, target="slurm").source == path
    monkeypatch.setenv("SCALABLE_MANIFEST", str(path))
    plan = make_plan(load_manifest(target="slurm"))
    assert f"manifest   {path}" in str(plan)


def test_a_manifest_above_that_others_can_change_is_no_surprise(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused with an error, and not left out in favour of defaults."""
    write(project=PROJECT)
    make_writable_by_others(project)
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    with pytest.raises(RunFolderError, match="name the manifest"):
        load_manifest(target="slurm")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "  slurm: {account: mine}",
            "scalable.yaml:4: targets.slurm.account: is locked to 'abc' by {system}:3; remove it",
        ),
        (
            "  slurm: {account: null}",
            "scalable.yaml:4: targets.slurm.account: is locked to 'abc' by {system}:3; remove it",
        ),
        (
            "  slurm: {max_core_hours: 7.5}",
            "scalable.yaml:4: targets.slurm.max_core_hours: is locked by {system}:7; remove it",
        ),
        (
            "  local: {overlay: big}\noverlays:\n  big: {targets: {slurm: {account: mine}}}",
            "scalable.yaml:6: overlays.big.targets.slurm.account: is locked to 'abc' by "
            "{system}:3; remove it",
        ),
        (
            "  slurm: {queu: long}",
            "scalable.yaml:4: targets.slurm.queu: unknown key for provider slurm; did you mean "
            "'queue'?",
        ),
        (
            "  slurm: {max_workers: many}",
            "scalable.yaml:4: targets.slurm.max_workers: 'many' is not a whole number; expected "
            "e.g. 2",
        ),
    ],
)
def test_what_is_locked_or_wrong_is_named_with_file_and_line(line: str, expected: str) -> None:
    """A project cannot change what the centre locks, and learns where that is said."""
    write(project=PROJECT.replace("  slurm: {queue: long}", line))
    assert problems() == [expected.format(system=paths.system_manifest())]


def test_problems_of_all_files_come_at_once() -> None:
    """Each file's problems stand under its own name, the project's first."""
    write(
        SYSTEM.replace("memory: 1G", "memory: much") + "  # ends\n",
        project=PROJECT.replace("slurm:", "slurm: {queue: long, account: mine}\n  lumi:"),
        user="targets: {slurm: {interfaces: ib0}}\n",
    )
    found = problems()
    assert [line.split(": ")[0] for line in found] == [
        "scalable.yaml:4",
        "scalable.yaml:5",
        f"{paths.user_manifest()}:1",
        f"{paths.system_manifest()}:6",
    ]


@pytest.mark.parametrize(
    ("locked", "expected"),
    [
        ("locked: all", "7: locked: 'all' is not a list; expected e.g. [targets.slurm.account]"),
        (
            "locked: [target.slurm]",
            "7: locked: 'target.slurm' is no key of a manifest; did you mean 'targets'?",
        ),
    ],
)
def test_a_lock_that_cannot_hold_is_told_to_who_wrote_it(locked: str, expected: str) -> None:
    """A mistyped lock is an error of the system's file, not a lock that silently is none."""
    write("\n".join([*SYSTEM.splitlines()[:-1], locked]), project=PROJECT)
    assert problems() == [f"{paths.system_manifest()}:{expected}"]


def test_saying_what_is_locked_changes_nothing() -> None:
    """The prescribed value itself may stand in a project, e.g. in one that also runs elsewhere."""
    write(project=PROJECT.replace("{queue: long}", "{account: abc}"))
    assert load_manifest(target="slurm").target.options["account"] == "abc"


def test_only_the_system_locks() -> None:
    """`locked:` in a project is an unknown key: it would bind nobody."""
    write(project=PROJECT + "locked: [targets.slurm.queue]\n")
    assert problems()[0].startswith("scalable.yaml:5: locked: unknown key; ")


def test_the_plan_says_where_values_come_from() -> None:
    """With several files, each is listed with the keys that it decides, locked ones marked."""
    write(project=PROJECT, user="defaults: {retries: 2}\n")
    plan = make_plan(load_manifest(target="slurm"))
    says = [line.split("says", 1)[1].split() for line in str(plan).splitlines() if " says " in line]
    by_file = {words[0].rstrip(":"): " ".join(words[1:]) for words in says}
    assert by_file["scalable.yaml"] == "targets.slurm.queue, project.name"
    assert by_file[str(paths.user_manifest())] == "defaults.retries"
    assert "targets.slurm.account (locked)" in by_file[str(paths.system_manifest())]
    assert "targets.local" not in by_file[str(paths.system_manifest())]
    assert all(name in plan._repr_html_() for name in by_file)
    assert {"key": "defaults.retries", "file": str(paths.user_manifest()), "is_locked": False} in (
        plan.to_dict()["origins"]
    )


def test_the_manifest_of_a_run_holds_alone(project: Path) -> None:
    """What a run was started with is read again as it was, whatever the files say by then."""
    write(project=PROJECT)
    loaded = load_manifest(target="slurm")
    copy = project / "copy.yaml"
    copy.write_text(loaded.text)
    write(SYSTEM.replace("abc", "other"), user="defaults: {retries: 2}\n")
    assert load_resolved(copy, target="slurm").sha256 == loaded.sha256
    assert load_manifest(target="slurm").sha256 != loaded.sha256


def test_an_unknown_target_names_all_files() -> None:
    """A mistyped target is told with every file that could define it."""
    write(project=PROJECT)
    with pytest.raises(UnknownNameError) as caught:
        ScalableSession.from_yaml(target="slrum")
    assert f"{Path('scalable.yaml').absolute()} and {paths.system_manifest()}." in str(caught.value)
