"""Tables and JSON lines, row by row: what is text stays text, and what is broken is named."""

import csv
import gzip
import io
import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.readers import opened
from data_prep.readers.documents import json_records, parse_json
from data_prep.readers.lines import identifier, number, places, table_columns, table_rows
from iranker_verl.errors import UserError

NO_SURROGATES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def write(folder, content, name="file"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(path, separator, columns=None, encoding="utf-8"):
    dropped = Counter()
    return list(table_rows(path, separator, columns, dropped, encoding)), dropped


def test_rows_are_lines_of_the_file(tmp_path):
    path = write(tmp_path, "\ufeffa::b:c\r\n\n  \n1::\u20282\u0085\n::\n")
    found, dropped = table(path, "::")
    assert found == [(1, ["a", "b:c"]), (4, ["1", "\u20282\x85"])]
    assert dropped == {"lines: blank": 3}


def test_csv_rows_are_called_by_the_line_they_begin_in(tmp_path):
    path = write(tmp_path, 'a,b\n"x, ""y""\r\n\nz",1\n,\n\n2,3')
    found, dropped = table(path, ",")
    assert found == [(1, ["a", "b"]), (2, ['x, "y"\r\n\nz', "1"]), (7, ["2", "3"])]
    assert dropped == {"lines: blank": 2}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NO_SURROGATES.map("x".__add__), NO_SURROGATES), min_size=1), st.booleans())
def test_csv_that_is_written_is_read(tmp_path, table_, packed):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(table_)
    content = text.getvalue().encode()
    path = write(tmp_path, gzip.compress(content) if packed else content)
    assert [tuple(fields) for _, fields in table_rows(path, ",", 2, Counter())] == table_


@pytest.mark.parametrize(
    ("content", "separator", "message"),
    [
        ("", "\t", "file: the file is empty"),
        ("\n , \n", ",", "file: the file is empty"),
        ("a\tb\nc\n", "\t", r"file row 2: 1 fields separated by tabs, 2 expected, in 'c'"),
        ("a|b\n1|2|3\n", "|", r"file row 2: 3 fields separated by '\|', 2 expected"),
        ("a,b\n1;2\n", ",", "file row 2: 1 fields separated by commas, 2 expected, in '1;2'"),
        ('a,b\n"1"x,2\n', ",", "file row 2: not well-formed CSV"),
        ('a,b\n\n"1,2\n3,4\n', ",", "file row 3: not well-formed CSV"),
        ("a,b\rc,d\r", ",", "file row 1: not well-formed CSV"),
        (b"a\tb\n\xe9\tb\n", "\t", "file row 2: byte 1 of the row is not utf-8 text"),
        ("a,b\n".encode("utf-16")[:-1], ",", "file: not whole utf-16 text; save it as UTF-8"),
    ],
)
def test_what_is_refused(tmp_path, content, separator, message):
    with pytest.raises(UserError, match=message) as error:
        table(write(tmp_path, content), separator)
    assert "\n" not in str(error.value)


def test_a_quote_that_is_never_closed_is_not_followed_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "MAX_TEXT", 5000)
    content = b'a,b\n"1,2\n' + b"3,4\n" * 100_000
    with pytest.raises(
        UserError, match=r"row 2: not well-formed CSV \(a record of more than 0 MB; is a quote not closed"
    ):
        table(write(tmp_path, content), ",")


def test_columns_are_found_by_name(tmp_path):
    path = write(tmp_path, " b ,a,unread\n1,2,3\n")
    assert list(table_columns(path, ",", (("a",), ("x", "b"), ("gone",)), 2, Counter())) == [(2, ["2", "1", ""])]
    with pytest.raises(UserError, match=r"file: no column x or y; its columns are b, a, unread"):
        list(table_columns(path, ",", (("a",), ("x", "y")), 2, Counter()))
    # The earlier name goes before the later one.
    assert places(path, ["title", "name"], (("name", "title"),), 1) == [1]
    with pytest.raises(UserError, match="file: the column a occurs twice"):
        places(path, ["a", "b", "a"], (("a",),), 1)


def test_blank_lines_are_counted_once_where_there_is_a_header(tmp_path):
    dropped = Counter()
    path = write(tmp_path, "\n\na,b\n\n1,2\n")
    assert list(table_columns(path, ",", (("b",),), 1, dropped)) == [(5, ["2"])]
    assert dropped == {"lines: blank": 3}


def test_json_lines(tmp_path):
    content = (
        '\ufeff{"a": "x\u2028y\x85z"}\r\n\n {"a": 12345678901234567890}\n{"a": "\\ud83d"}\n{"a": "\\ud83d\\ude00"}'
    )
    dropped = Counter()
    assert list(json_records(write(tmp_path, content), dropped)) == [
        (1, {"a": "x\u2028y\x85z"}),
        (3, {"a": 12345678901234567890}),
        (4, {"a": "?"}),
        (5, {"a": "😀"}),
    ]
    assert dropped == {"lines: blank": 1}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers(-(2**63), 2**63) | st.none()), min_size=1))
def test_json_that_is_written_is_read(tmp_path, objects):
    path = write(tmp_path, "".join(json.dumps(one) + "\n" for one in objects))
    found = [record for _, record in json_records(path, Counter())]
    assert found == json.loads(json.dumps(objects, ensure_ascii=False).encode(errors="replace"))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("[1]", r"'\[1\]'"),
        ('{"a": 1', """'{"a": 1'"""),
        ("{'a': 1}", """"{'a': 1}\""""),
        ('{"a": NaN}', "NaN"),
        ("[" * 100_000, r"\[\[\["),
        (b'{"a": "\xe9"}', "�"),
    ],
)
def test_what_is_no_json_object(tmp_path, line, shown):
    path = write(tmp_path, b'{"a": 1}\n' + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with pytest.raises(UserError, match=f"file row 2: not a JSON object, but .*{shown}") as error:
        list(json_records(path, Counter()))
    assert len(str(error.value)) < 300
    with pytest.raises(UserError, match="the file is empty"):
        list(json_records(write(tmp_path, "\n"), Counter()))


def test_parse_json_takes_no_other_liberties():
    for line in (b"", b"nul", b"{'a': 1}", b'{"a": 1e999}', b'{"a": Infinity}'):
        with pytest.raises(ValueError):
            parse_json(line)


@pytest.mark.parametrize("text", ["", "x", "nan", "-inf", "1e999", "1_000", "1,5", "0x10"])
def test_what_is_no_number(tmp_path, text):
    with pytest.raises(UserError, match=f"f row 3: the time is {text!r}, not a number"):
        number(text, "f", 3, "the time")
    assert number(" 1.5e3 ", "f", 3, "the time") == 1500.0


def test_identifiers():
    assert [identifier(value, "f", 1, "user") for value in ("007", 7, " ", "Nan")] == ["007", "7", " ", "Nan"]
    missing = [(value, f"'{value}', a missing value as pandas writes it") for value in ("nan", "NaN", "<NA>", "NaT")]
    for value, message in (("", "empty"), (None, "empty"), (True, "'True', not"), (1.5, "'1.5', not"), *missing):
        with pytest.raises(UserError, match=f"f row 1: the user is {message}"):
            identifier(value, "f", 1, "user")
