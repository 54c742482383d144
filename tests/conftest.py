"""In which order tests run, and with Ctrl-C heard."""

from __future__ import annotations

import signal
import threading

import pytest

JOBS = "tests/end_to_end/"

# A shell starts what it puts in the background (`make test &`) deaf to Ctrl-C, which tests of Ctrl-C, and the processes that
# they start, would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of whole jobs first: they take longest, and mostly wait for processes to start."""
    items.sort(key=lambda item: not item.nodeid.startswith(JOBS))
