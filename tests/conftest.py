"""In which order tests run."""

from __future__ import annotations

import pytest

JOBS = "tests/end_to_end/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of whole jobs first: they take longest, and mostly wait for processes to start."""
    items.sort(key=lambda item: not item.nodeid.startswith(JOBS))
