"""Rules that hold for every test: marks by folder, and no skipping where CI=true."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

_MARK_OF_FOLDER = {
    "integration": "integration",
    "browser": "browser",
    "notebooks": "notebook",
    "slurm": "slurm",
}
_HERE = Path(__file__).parent


def pytest_configure() -> None:
    """Make a run independent of what the person who starts it has set."""
    for name in [name for name in os.environ if name.startswith("SCALABLE_")]:
        del os.environ[name]
    if not _is_ci():  # there, Hypothesis has a reproducible profile of its own
        # The time limit of a test is pytest-timeout's; a busy machine is no counterexample.
        settings.register_profile("local", deadline=None)
        settings.load_profile("local")


@pytest.fixture(scope="module", autouse=True)
def restored_main() -> Iterator[None]:
    """Put back the ``__main__`` module, which an `InteractiveShell` replaces by its own."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder; without chromium those that need it say so."""
    chromium = shutil.which("chromium")
    for item in items:
        folder = item.path.relative_to(_HERE).parts[0] if item.path.is_relative_to(_HERE) else ""
        if folder in _MARK_OF_FOLDER:
            item.add_marker(_MARK_OF_FOLDER[folder])
        if not chromium and item.get_closest_marker("browser"):
            item.add_marker(
                pytest.mark.skip(
                    reason="chromium is not on the PATH: apt-get install chromium fonts-dejavu-core"
                )
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test into a failure where CI=true."""
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure where CI=true."""
    report = yield
    _forbid_skip(report)
    return report


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped too, but it did run.
    if _is_ci() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: nothing may be skipped where CI=true. {reason}"


def _is_ci() -> bool:
    return os.environ.get("CI") == "true"
