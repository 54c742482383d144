"""Which tests may run side by side."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of whole jobs first and in one process, one Ray at a time, beside all others; a file of those stays in one
    process, with its fixtures."""
    whole = {item.nodeid for item in items if item.path.parent.name == "end_to_end" and item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.nodeid not in whole)
    for item in items:
        item.add_marker(pytest.mark.xdist_group("jobs" if item.nodeid in whole else str(item.path)))
