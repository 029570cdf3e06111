"""What the tests in a real JupyterLab share."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a person take the pictures of the documentation anew."""
    parser.addoption(
        "--update-images",
        action="store_true",
        help="take the screenshots in docs/images anew",
    )
