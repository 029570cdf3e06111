"""The modules of a view as one text."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from scalable_nb.widgets.asset_bundle import bundle_modules, bundle_styles
from scalable_nb.widgets.task_table import widget

FOLDER = Path(widget.__file__).parents[1] / "static" / "task_table"
_DECLARED = re.compile(
    r"^(?:export )?(?:async )?(?:function|class|const|let) (?:\{([^}]*)\}|(\w+))", re.M
)


def test_modules_come_once_and_after_those_they_import(tmp_path: Path) -> None:
    """One text without imports, comments and exports, but for the entry's default."""
    (tmp_path / "a.mjs").write_text("/** Not shipped. */\nexport const a = 1;\n")
    (tmp_path / "b.mjs").write_text('import { a } from "./a.mjs";\n// why\nexport const b = a;\n')
    (tmp_path / "c.mjs").write_text(
        'import { a } from "./a.mjs";\nimport {\n  b,\n} from "./b.mjs";\nexport default a + b;\n'
    )
    text = bundle_modules(tmp_path / "c.mjs")
    assert text == "const a = 1;\nconst b = a;\nexport default a + b;"


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ('import { a as b } from "./other.mjs";\n', "renames what it imports"),
        ('import a from "elsewhere";\n', "expected `import"),
        ('import { a } from "./first.mjs";\n', "first.mjs -> first.mjs"),
    ],
)
def test_an_import_that_would_not_survive_is_refused(
    tmp_path: Path, text: str, reported: str
) -> None:
    """Renaming, other folders and circles are errors that show the line."""
    (tmp_path / "other.mjs").write_text("export const a = 1;\n")
    (tmp_path / "first.mjs").write_text(text)
    with pytest.raises(ValueError, match=reported):
        bundle_modules(tmp_path / "first.mjs")


def test_no_two_modules_of_the_table_declare_the_same_name() -> None:
    """They share one scope, in which each name means one thing."""
    names = Counter(
        name
        for path in FOLDER.glob("*.mjs")
        for found in _DECLARED.findall(path.read_text())
        for name in re.findall(r"\w+", "".join(found))
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_every_module_of_the_table_is_shipped_and_none_writes_markup() -> None:
    """The bundle holds all of them; what others wrote only ever becomes text."""
    sources = {path.name: path.read_text() for path in FOLDER.glob("*.mjs")}
    imported = set(re.findall(r'from "\./([\w.]+)"', "".join(sources.values())))
    assert imported | {"view.mjs"} == set(sources)
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in bundle_modules(FOLDER / "view.mjs")
    assert ".snb-grid" in bundle_styles(FOLDER)
