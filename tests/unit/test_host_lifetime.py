"""What is said where a session would end with something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalable_nb.session.host_lifetime import find_lifetime_limit


def test_on_a_plain_machine_there_is_nothing_to_say(tmp_path: Path) -> None:
    """A host that lives as long as it likes is worth no word."""
    assert find_lifetime_limit({}, tmp_path) is None


def test_a_notebook_that_is_a_job_takes_the_session_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """System and number of the job are named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Slurm job 75" in str(find_lifetime_limit({"SLURM_JOB_ID": "75"}, tmp_path))
    assert "PBS job 9.srv" in str(find_lifetime_limit({"PBS_JOBID": "9.srv"}, tmp_path))


def test_a_container_ends_what_is_in_it(tmp_path: Path) -> None:
    """In a container the session ends with it."""
    (tmp_path / ".dockerenv").touch()
    assert "in a container" in str(find_lifetime_limit({}, tmp_path))


@pytest.mark.parametrize(
    ("text", "is_killed"),
    [("KillUserProcesses=yes", True), ("#KillUserProcesses=yes", False),
     ("KillUserProcesses=yes\nKillUserProcesses=no", False)],
)  # fmt: skip
def test_a_machine_that_kills_at_logout_is_recognised(
    tmp_path: Path, text: str, is_killed: bool
) -> None:
    """The last word of logind's configuration counts, unless the user lingers."""
    folder = tmp_path / "etc/systemd"
    folder.mkdir(parents=True)
    (folder / "logind.conf").write_text(f"[Login]\n{text}\n")
    said = find_lifetime_limit({"USER": "me"}, tmp_path)
    assert (said is not None and "KillUserProcesses" in said) == is_killed
    (tmp_path / "var/lib/systemd/linger").mkdir(parents=True)
    (tmp_path / "var/lib/systemd/linger/me").touch()
    assert find_lifetime_limit({"USER": "me"}, tmp_path) is None
