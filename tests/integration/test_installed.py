"""The package as people get it: a wheel in an environment of its own, far from the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)
#: First steps: the subcommands of a notebook, then the same files in a shell afterwards.
FIRST_STEPS = """
import sys
import scalable_nb
assert ROOT not in scalable_nb.__file__, scalable_nb.__file__
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in (
    "%load_ext scalable_nb",
    "%scalable start -q",
    "futures = client.map(lambda x: 1 // (x - 3), range(5), name='sweep')",
    "assert len(futures.partial().results) == 5",
    "futures._repr_mimebundle_()",
    "explorer = %scalable failures",
    "assert list(explorer.frame['failure_class']) == ['ZeroDivisionError']",
    "%scalable stop -q",
):
    assert shell.run_cell(cell).success, cell
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel, which finds what it depends on here.

    Another package with a command `scalable` is installed there first.
    """
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    keep_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "scalable_nb", source / "scalable_nb", ignore=keep_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    other = folder / "other"
    (other / "scalable").mkdir(parents=True)
    (other / "scalable" / "__init__.py").write_text("def main():\n    print('the other one')\n")
    (other / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
        "[project]\nname = 'scalable'\nversion = '2.0'\n"
        "[project.scripts]\nscalable = 'scalable:main'\n"
    )
    for project in (source, other):
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", cwd=project)
    environment = folder / "environment"
    run(
        sys.executable,
        "-m",
        "uv",
        "venv",
        "--quiet",
        "--python",
        sys.executable,
        environment,
        cwd=folder,
    )
    python = environment / "bin" / "python"
    for project in (other, source):
        (wheel,) = (project / "dist").glob("*.whl")
        pip = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps")
        run(*pip, "--python", python, wheel, cwd=folder)
    # A .pth adds these packages; the editable install of the source is a .pth, too, and of those
    # only what lies in the environment itself is read.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; without what would lead back to the source tree."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_wheel_works_without_the_source(installed: Path, tmp_path: Path) -> None:
    """A session starts, draws its table and the explorer, and both commands read its run."""
    code = FIRST_STEPS.replace("ROOT", repr(str(ROOT)), 1)
    run(installed / "python", "-c", code, cwd=tmp_path)
    reports = [
        run(installed / name, "report", "--last", "--failures", cwd=tmp_path)
        for name in ("scalable", "scalable-nb")
    ]
    assert reports[0] == reports[1]
    assert "ZeroDivisionError" in reports[0]
    assert "scalable-nb" in run(
        installed / "python", "-m", "scalable_nb", "--version", cwd=tmp_path
    )


def test_another_package_named_scalable_is_left_alone(installed: Path, tmp_path: Path) -> None:
    """Both modules can be imported; the command belongs to whoever was installed last."""
    code = "import scalable, scalable_nb; scalable.main()"
    assert run(installed / "python", "-c", code, cwd=tmp_path) == "the other one\n"
    assert "scalable report" in (ROOT / "docs/how-to/from-scalable.md").read_text()
    assert "subcommand" in run(installed / "scalable", "help", cwd=tmp_path).lower()
