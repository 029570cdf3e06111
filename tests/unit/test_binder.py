"""What `binder/` asks for agrees with what the package and the Makefile know."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import click.testing
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from scalable_nb.devslurm import service
from scalable_nb.devslurm.__main__ import main

ROOT = Path(__file__).parents[2]
BINDER = ROOT / "binder"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def lines(name: str) -> list[str]:
    """A file's lines without comments."""
    text = (BINDER / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_debian_packages_are_those_that_a_small_slurm_needs() -> None:
    """The embedded Slurm without accounting finds all its programs, and the Makefile has them."""
    packages = lines("apt.txt")
    assert sorted(packages) == sorted(service._PACKAGE_OF.values())
    (known,) = re.findall(r"^SLURM_PACKAGES := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert set(packages) <= set(known.split())


def test_the_requirements_are_known_to_the_package() -> None:
    """Versions are those of constraints.txt, and every extra and requirement is there."""
    constraints, package, *others = lines("requirements.txt")
    assert (BINDER / constraints.removeprefix("-c ")).resolve() == ROOT / "constraints.txt"
    (extra,) = re.findall(r"^\.\[(.*)\]$", package)
    assert extra in PROJECT["optional-dependencies"]
    pinned = {
        line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().split("\n")
    }
    assert {Requirement(other).name for other in others} <= pinned


def test_its_python_can_run_the_package() -> None:
    """The Python that Binder takes is one that the package allows."""
    (python,) = lines("runtime.txt")
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python-"))


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_its_scripts_can_be_run(name: str) -> None:
    """Bash reads them, they may be executed, and the embedded Slurm knows what they ask of it."""
    script = BINDER / name
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    (words,) = re.findall(r"scalable_nb\.devslurm up ([-\w ]+)", script.read_text())
    asked = click.testing.CliRunner().invoke(main, ["up", *words.split(), "--help"])
    assert asked.exit_code == 0, asked.output
