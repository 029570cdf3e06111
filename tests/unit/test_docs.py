"""The documentation: it can be built and read offline, and nothing is left out of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from doc_blocks import PAGES, ROOT, blocks

import scalable_nb
from scalable_nb import errors, paths
from scalable_nb.magics.commands import SUBCOMMANDS
from scalable_nb.manifest.load import load_manifest
from scalable_nb.manifest.schema import Manifest

SITE = ROOT / "mkdocs.yml"
#: What a block of a page leaves out.
BASE = """\
version: 1
project: {name: docs}
targets: {local: {provider: local, max_workers: 2}}
components: {default: {}}
"""


@pytest.mark.timeout(240)
def test_the_site_is_complete_and_needs_no_network(tmp_path: Path) -> None:
    """Built with warnings as errors, with all subcommands; nothing is loaded from elsewhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    # Whatever would look at the network must fail.
    env = {**os.environ, "https_proxy": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    pages = {path: path.read_text() for path in tmp_path.rglob("*.html")}
    loaded = (
        r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?(https?:)?//|<link[^>]*\shref=\"?(https?:)?//"
    )
    assert [path.name for path, text in pages.items() if re.search(loaded, text)] == []
    styles = [path.read_text() for path in tmp_path.rglob("*.css")]
    assert styles and not any(re.search(r"(@import|url\()[\s\"']*(https?:)?//", s) for s in styles)

    subcommands = pages[tmp_path / "reference" / "subcommands.html"]
    for subcommand in SUBCOMMANDS.values():
        assert f'id="{subcommand.name}"' in subcommands
        for option in subcommand.options:
            assert all(f"<code>{name}</code>" in subcommands for name in option.names), (
                subcommand.name
            )
    python = pages[tmp_path / "reference" / "python.html"]
    missing = [name for name in set(scalable_nb.__all__) - {"errors"} if f">{name}<" not in python]
    assert missing == []
    of_errors = pages[tmp_path / "reference" / "errors.html"]
    reported = [name for name in errors.__all__ if f">{name}<" in of_errors]
    assert {"OutOfMemoryError", "ManifestError", "HostDiedError"} <= set(reported)
    assert "live-table.png" in pages[tmp_path / "index.html"]
    assert "The path of a failed attempt" in pages[tmp_path / "explanation" / "architecture.html"]


def test_every_page_is_in_the_menu() -> None:
    """A page that nobody can find is no documentation; decisions are found through their index."""
    reported = re.findall(r": (\S+\.md)$", SITE.read_text(), re.M)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES if path.parent != ROOT}
    assert set(reported) - {"adr/README.md"} == pages


def test_every_key_of_the_manifest_is_documented() -> None:
    """The reference of scalable.yaml is made from the models, all of which it names."""
    page = (ROOT / "docs/reference/manifest.md").read_text()
    named = re.findall(r"^::: scalable_nb\.manifest\.schema\.(\w+)$", page, re.M)
    for section in ("project", "targets", "components", "tasks", "defaults"):
        model = str(Manifest.model_fields[section].annotation)
        assert any(f".{name}" in model for name in named), section


@pytest.mark.parametrize(
    "block",
    [block for page in PAGES for block in blocks(page, "yaml")],
    ids=lambda block: f"{block.page.name}-{block.line}",
)
def test_every_manifest_of_the_documentation_is_one(
    block: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is shown as YAML can be pasted into a scalable.yaml, or into that of a centre."""
    text = block.text  # type: ignore[attr-defined]
    monkeypatch.setattr(paths, "_SYSTEM_FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("project").mkdir()
    monkeypatch.chdir("project")
    (tmp_path / "scalable.yaml").write_text(text)
    Path("scalable.yaml").write_text(BASE)
    for target in yaml.safe_load(text).get("targets", {"local": None}):
        assert load_manifest(target=target).target_name == target


def test_documentation_names_subcommands_and_options_that_exist() -> None:
    """Each `%scalable ...` in a page is a subcommand, with options that the subcommand has."""
    wrong = []
    for page in PAGES:
        for prompt, line in re.findall(
            r"(%%?scalable|\bscalable) ([a-z]+[^`#\n]*)", page.read_text()
        ):
            words = line.split()
            if prompt == "scalable" and words[0] not in SUBCOMMANDS:
                continue  # a sentence about the package
            subcommand = SUBCOMMANDS.get(words[0])
            names = (
                {name for option in subcommand.options for name in option.names}
                if subcommand
                else set()
            )
            options = [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]
            wrong += [f"{page.name}: {line}"] if subcommand is None else []
            wrong += [f"{page.name}: {o}" for o in options if o not in names | {"--help", "--out"}]
    assert wrong == []
