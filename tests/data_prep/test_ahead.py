"""Items made ahead: the same ones in the same order, and errors where they happen."""

import threading

import pytest

from data_prep.ahead import ahead


def test_the_same_items_whatever_they_are():
    assert list(ahead(iter([]))) == []
    assert list(ahead(iter([None, 0, "", [], 5]))) == [None, 0, "", [], 5]


def test_the_next_one_is_made_meanwhile_and_no_more_than_that():
    made, second = [], threading.Event()

    def items():
        for number in range(5):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    coming = ahead(items())
    assert next(coming) == 0
    assert second.wait(60)
    assert made == [0, 1]
    assert list(coming) == [1, 2, 3, 4]


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        yield 2
        raise ValueError("the third")

    got = []
    with pytest.raises(ValueError, match="the third"):
        for item in ahead(items()):
            got.append(item)
    assert got == [1, 2]


def test_who_stops_early_leaves_no_thread():
    before = threading.active_count()
    coming = ahead(iter(range(100)))
    assert next(coming) == 0
    coming.close()
    assert threading.active_count() == before
