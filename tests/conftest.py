"""The order of tests, with Ctrl-C enabled and one thread for torch."""

from __future__ import annotations

import signal
import sys
import threading

import pytest

JOBS = "tests/end_to_end/"

# A shell lets what it starts in the background (`make test &`) ignore Ctrl-C, which tests of Ctrl-C, and the processes that
# they start, would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of whole jobs first: they take longest, and mostly wait for processes to start."""
    items.sort(key=lambda item: not item.nodeid.startswith(JOBS))


@pytest.fixture(autouse=True)
def one_thread_for_torch() -> None:
    """Models of a few thousand parameters are many times slower on two threads where another worker runs beside them.

    The CPU platform of verl takes all cores as soon as a test imports it.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
