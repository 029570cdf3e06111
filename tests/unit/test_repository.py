"""What the repository promises about itself."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import scalable_nb

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = sorted((ROOT / "scalable_nb").rglob("*.py"))
TEST_FILES = sorted((ROOT / "tests").rglob("test_*.py"))

_CODE = {".py", ".js", ".mjs"}
_DATA_FILES = (".conf", ".json", ".jsonl", ".toml", ".yaml")
_DOTTED_NAME = re.compile(r"(?<!`)`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\(\))?`(?!`)")

#: Names of folders that stand for an object in examples.
_VARIABLES = {
    "client": "scalable_nb.client.client.ScalableClient",
    "futures": "scalable_nb.client.futures.FutureList",
    "session": "scalable_nb.session.session.ScalableSession",
}


# --- what is in the files ------------------------------------------------------


def test_no_file_names_a_registry_or_a_place_on_somebodys_machine() -> None:
    """No committed file holds a registry's address or an absolute path of this checkout."""
    # Put together here, so that this file does not find itself.
    hosts = [
        ".".join(words)
        for words in [
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "org"),
            ("yarnpkg", "com"),
            ("deb", "debian", "org"),
            ("archive", "ubuntu", "com"),
            ("conda", "anaconda", "org"),
        ]
    ]
    options = ["--" + name for name in ("index-url", "extra-index-url", "find-links")]
    places = ["file:" + "///", f"{ROOT}/", f"{Path.home()}/"]
    found = [
        f"{path.relative_to(ROOT)}: {needle}"
        for path in _committed_files()
        for text in [path.read_bytes().decode("utf-8", "replace")]
        for needle in hosts + options + places
        if needle in text
    ]
    assert found == []


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link in a Markdown file names a file that exists."""
    broken = [
        f"{path.relative_to(ROOT)} -> {target}"
        for path in _committed_files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
        if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists()
    ]
    assert broken == []


def test_modules_are_named_after_their_subject() -> None:
    """No module is a drawer for whatever is left over."""
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    assert [path for path in MODULES if path.stem in drawers] == []


def test_no_code_uses_an_old_term() -> None:
    """No identifier and no file of code has a name that `tests/old_terms.txt` lists."""
    lines = (ROOT / "tests" / "old_terms.txt").read_text().splitlines()
    old = {line for line in lines if line and not line.startswith("#")}
    files = [
        path
        for folder in ("scalable_nb", "tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if ROOT / "tests" / "data" not in path.parents
    ]
    used = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files
        for name, line in [(path.name, 1), *_identifiers(path)]
        if name in old
    ]
    assert used == []


def test_names_in_docstrings_and_comments_exist() -> None:
    """A name in backticks that leads into the package can be resolved, and a path exists."""
    classes = {
        node.name: f"{_module_name(path)}.{node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    package = ROOT / "scalable_nb"
    texts = {path: path.read_text() for path in package.rglob("*.*") if path.suffix in _CODE}
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in texts.items()
        for name in _DOTTED_NAME.findall(text)
        if not name.endswith(_DATA_FILES) and _is_missing(name, path, classes)
    ]
    missing += [
        f"{path.relative_to(ROOT)}: {name}"
        for path, text in texts.items()
        for name in re.findall(r"\b(?<!/)(?:\w+/)+\w+\.(?:py|mjs)\b", text)
        if (package / name.partition("/")[0]).is_dir() and not (package / name).is_file()
    ]
    assert missing == []


def test_packages_are_small_and_the_top_level_is_fixed() -> None:
    """A package has at most 15 modules, all packages 266, and the top level eight and packages."""
    package = ROOT / "scalable_nb"
    per_folder = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    # One file per subcommand.
    del per_folder[package / "magics" / "commands"]
    assert {folder: count for folder, count in per_folder.items() if count > 15} == {}
    assert len(MODULES) <= 266
    top = {path.stem for path in MODULES if path.parent == package}
    assert top == {"__init__", "__main__", "cli", "paths", "settings", "signing", "trusted_paths"}
    assert (package / "errors" / "__init__.py").is_file()


def test_modules_have_names_of_their_own() -> None:
    """Two modules never share a name; those of the subcommands are the subcommands' names."""
    names = Counter(
        path.stem
        for path in MODULES
        if not path.stem.startswith("__") and path.parent.name != "commands"
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_every_folder_of_the_package_is_seen_by_the_import_contracts() -> None:
    """Import-linter sees exactly the modules that are in the tree; a folder is a package."""
    graph = grimp.build_graph("scalable_nb", cache_dir=None)
    assert graph.modules == {_module_name(path) for path in MODULES}


def test_every_test_states_its_promise() -> None:
    """Every test function has a docstring that says what is promised."""
    silent = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in TEST_FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_make_help_lists_every_command() -> None:
    """`make help` names every target that is a command for a person."""
    makefile = (ROOT / "Makefile").read_text()
    commands = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.M)) - {"chromium", "node", "slurm"}
    shown = _run(["make", "help"], cwd=ROOT).stdout
    assert commands == set(re.findall(r"^  make (\S+)", shown, re.M))
    for promised in ("demo", "test", "lab", "check", "bench"):
        assert promised in commands


def test_changelog_tells_of_this_version() -> None:
    """The version of the package has a section in the changelog."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{scalable_nb.__version__}]" in changelog


def test_decisions_are_complete_and_listed() -> None:
    """Decision records are numbered without gaps, have all sections and stand in the index."""
    folder = ROOT / "docs" / "adr"
    records = sorted(folder.glob("[0-9]*.md"))
    index = (folder / "README.md").read_text()
    assert [path.name[:4] for path in records] == [f"{n + 1:04}" for n in range(len(records))]
    for path in records:
        sections = re.findall(r"^## (.+)$", path.read_text(), re.M)
        assert sections == ["Context", "Verified facts", "Decision", "Consequences"], path.name
        assert f"]({path.name})" in index, f"{path.name} is not in {folder / 'README.md'}"


# --- what the package needs ----------------------------------------------------


def test_constraints_pin_every_dependency() -> None:
    """Each dependency has exactly one pinned version, and one that its requirement allows."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]
    assert [str(pin) for pin in pins if not re.fullmatch(r"==[\w.+!]+", str(pin.specifier))] == []
    version_of = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pins}
    assert len(version_of) == len(pins)

    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in (Requirement(text) for group in groups for text in group):
        name = canonicalize_name(requirement.name)
        if name != "scalable-nb":
            assert requirement.specifier.contains(version_of.get(name, "0")), str(requirement)


def test_every_import_is_a_declared_dependency() -> None:
    """What the package imports, installing the package installs."""
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    providers = importlib.metadata.packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in MODULES
        for name in _imported_packages(path)
        if name not in sys.stdlib_module_names and name != "scalable_nb"
        if not declared & {canonicalize_name(provider) for provider in providers.get(name, [])}
    }
    assert missing == set()


def test_distributions_hold_all_that_is_needed(tmp_path: Path) -> None:
    """Wheel and source archive carry every module, the views' files, marker and license."""
    source = tmp_path / "source"
    keep_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "scalable_nb", source / "scalable_nb", ignore=keep_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist"], cwd=source)

    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "scalable_nb").rglob("*")
        if path.is_file()
    }
    assert "scalable_nb/py.typed" in expected
    assert any(name.startswith("scalable_nb/widgets/static/") for name in expected)
    (wheel,) = (source / "dist").glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert expected - packed == set()
    assert {name for name in packed if name.endswith(".py")} == {
        path.relative_to(ROOT).as_posix() for path in MODULES
    }
    assert any(name.endswith("/LICENSE") for name in packed)
    (archive,) = (source / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        unpacked = {name.partition("/")[2] for name in tar.getnames()}
    assert (expected | {"LICENSE", "pyproject.toml"}) - unpacked == set()


# --- how it is tested ----------------------------------------------------------


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [
        ("true", "1 failed, 1 passed, 1 xfailed, 2 errors"),
        ("", "1 passed, 3 skipped, 1 xfailed"),
    ],
)
def test_nothing_is_skipped_in_ci(tmp_path: Path, ci: str, outcome: str) -> None:
    """Where CI=true a skipped test or module is a failure; elsewhere it is only skipped."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_parts.py").write_text(
        "import pytest\n"
        "def test_runs(): pass\n"
        "def test_in_body(): pytest.skip('no such thing here')\n"
        "@pytest.mark.skip(reason='no such thing here')\n"
        "def test_by_mark(): pass\n"
        "@pytest.mark.xfail\n"
        "def test_known(): assert False\n"
    )
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.importorskip('no_such_thing')\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--continue-on-collection-errors", "."],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in run.stdout.splitlines()[-1], run.stdout


# --- reading -------------------------------------------------------------------


@cache
def _committed_files() -> list[Path]:
    """Every file under version control, and those that would be with the next commit."""
    if not ((ROOT / ".git").exists() and shutil.which("git")):
        pytest.skip("this is no git checkout, or git is missing: apt-get install git")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = _run(command, cwd=ROOT).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def _identifiers(path: Path) -> Iterator[tuple[str, int]]:
    """Names of variables, attributes, parameters, functions, classes and imports, with lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            names = getattr(node, field, None)
            if isinstance(names, str):
                for name in names.split("."):
                    yield name, getattr(node, "lineno", 1)


def _is_missing(name: str, path: Path, classes: dict[str, str]) -> bool:
    """Return whether a dotted name seems to lead into the package, but does not."""
    first, second = name.split(".")[:2]
    if first == "scalable_nb":
        return not _resolves(name)
    if first in _VARIABLES:
        return not (_resolves(f"{_VARIABLES[first]}.{second}") or _resolves(f"scalable_nb.{name}"))
    if (ROOT / "scalable_nb" / first).is_dir():
        return not _resolves(f"scalable_nb.{name}")
    if first in classes:
        return not _resolves(classes[first] + name.removeprefix(first))
    if second in classes or first in {module.parent.name for module in MODULES}:
        folders = [_module_name(folder) for folder in path.parents if ROOT in folder.parents]
        return not any(_resolves(f"{folder}.{name}") for folder in folders)
    return False


@cache
def _resolves(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        owner, _, attribute = name.rpartition(".")  # a field of a dataclass has no default
        try:
            return attribute in getattr(pkgutil.resolve_name(owner), "__annotations__", {})
        except (ImportError, AttributeError):
            return False
    return True


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def _run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{command} ended with {run.returncode}:\n{run.stdout}{run.stderr}"
    return run
