"""Every block of Python in the documentation runs, as a reader would type it in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_blocks import PAGES, ROOT, blocks
from IPython.core.interactiveshell import InteractiveShell
from magic_shell import make_shell
from sessions import processes_of
from waiting import until

from scalable_nb.session.session import live_sessions

# Twenty seconds altogether on two cores that have nothing else to do.
pytestmark = pytest.mark.timeout(300)

WITH_CODE = [page for page in PAGES if blocks(page, "python")]
# The tutorial counts what is in its session, and ends it.
WITH_CODE.sort(key=lambda page: page.name != "tutorial.md")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the reader works; one session serves the tutorial, another all else."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
        for session in live_sessions():
            session.close()
    until(lambda: processes_of(folder) == [], timeout_s=30)


@pytest.fixture
def shell(reader: Path) -> InteractiveShell:
    """A shell in which the session is there already, as after a page before."""
    shell = make_shell()
    assert shell.run_cell("%load_ext scalable_nb\n%scalable start -q").success
    return shell


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_a_page_runs(shell: InteractiveShell, page: Path) -> None:
    """From the first block to the last nothing fails, and what is asserted is true."""
    for block in blocks(page, "python"):
        done = shell.run_cell(block.text)
        error = done.error_before_exec or done.error_in_exec
        assert error is None, f"{page.name}:{block.line}: {type(error).__name__}: {error}"
