"""GroupLens' two formats, on files written by hand."""

import pytest

from data_prep.movielens import GENRES, read_1m, read_100k
from iranker_verl.errors import UserError


def item_line(item, title, *genres):
    return "|".join([item, title, "01-Jan-1995", "", "http://x", *(str(int(g in genres)) for g in GENRES)])


@pytest.fixture
def ml100k(tmp_path):
    events, items = tmp_path / "u.data", tmp_path / "u.item"
    events.write_bytes(b"1\t10\t5\t300\n2\t11\t3\t100\n\n1\t11\t1\t200\r\n")
    lines = [item_line("10", "Café au lait (1993)", "Drama", "Comedy"), item_line("11", "unknown", "unknown"), ""]
    items.write_bytes("\n".join(lines).encode("latin-1"))
    return events, items


@pytest.fixture
def ml1m(tmp_path):
    events, items = tmp_path / "ratings.dat", tmp_path / "movies.dat"
    events.write_bytes(b"1::10::5::300\n1::11::4::200\n")
    items.write_bytes("10::Amélie: Part 2 (2001)::Comedy|Romance\n11::X (1999)::(no genres listed)\n".encode("latin-1"))
    return events, items


def test_100k(ml100k):
    data = read_100k(*ml100k)
    # Genres in GroupLens' order, whatever the order of the call.
    assert data.texts == {"10": "Café au lait (1993), Comedy, Drama", "11": "unknown"}
    assert data.events == {"1": [(300.0, "10"), (200.0, "11")], "2": [(100.0, "11")]}
    assert data.dropped == {"lines: blank": 1}


def test_1m(ml1m):
    data = read_1m(*ml1m)
    assert data.texts == {"10": "Amélie: Part 2 (2001), Comedy, Romance", "11": "X (1999)"}
    assert data.events == {"1": [(300.0, "10"), (200.0, "11")]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "u.data: the file is empty"),
        (b"\n\n", "u.data: the file is empty"),
        (b"1\t10\t5\t300\n1\t10\t5", r"u.data row 2: 3 fields separated by tabs, 4 expected, in '1\\t10\\t5'"),
        (b"1,10,5,300\n", "u.data row 1: 1 fields separated by tabs, 4 expected, in '1,10,5,300'"),
        (b"1\t10\t5\tMonday\n", "u.data row 1: the time is 'Monday', not a number"),
        (b"1\t10\t5\tnan\n", "u.data row 1: the time is 'nan', not a number"),
        (b"1\t10\t5\t1\n\t10\t5\t1\n", "u.data row 2: the user is empty"),
        (b"1\t\t5\t1\n", "u.data row 1: the item is empty"),
    ],
)
def test_bad_events(ml100k, content, message):
    ml100k[0].write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_100k(*ml100k)
    assert "\n" not in str(error.value)


def test_bad_items(ml100k):
    good = item_line("10", "X", "Drama")
    ml100k[1].write_text(good + "\n" + good[:-10])
    with pytest.raises(UserError, match=r"u.item row 2: 19 fields separated by '\|', 24 expected"):
        read_100k(*ml100k)
    ml100k[1].write_text(good[:-1] + "7")
    with pytest.raises(UserError, match=r"u\.item row 1: the flag of genre Western is '7', not 0 or 1"):
        read_100k(*ml100k)


def test_bad_1m(ml1m):
    ml1m[0].write_text("1\t10\t5\t300\n")
    with pytest.raises(UserError, match=r"ratings.dat row 1: 1 fields separated by '::', 4 expected"):
        read_1m(*ml1m)
    ml1m[0].unlink()
    with pytest.raises(UserError, match=r"ratings.dat: cannot be read \(No such file"):
        read_1m(*ml1m)
