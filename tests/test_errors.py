"""The first line of an error stands in one-line messages."""

import pytest

from iranker_verl.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n one\rtwo"), "one"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (ValueError(b"lexical error\n  ^"), "lexical error"),  # as ijson raises it
        (OSError(2, "no such file"), "[Errno 2] no such file"),
        (ValueError("x" * 300), "x" * 200),
    ],
)
def test_the_first_line_of_an_error_is_one_short_line(error, line):
    assert first_line(error) == line
