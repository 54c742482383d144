"""RecBole's atomic files, written by hand, in any order of columns."""

import pytest

from data_prep.recbole import read
from iranker_verl.errors import UserError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\t1\t3\t20\nu\t2\t3.0\t1.5e1\n"
ITEM = (
    "class:token_seq\titem_id:token\tmovie_title:token_seq\trelease_year:token\n"
    "Film-Noir Children's\t1\tToy Story\t1995\n\t2\tV\tunkonwn\nunknown\t3\t\t1990\n"
)


@pytest.fixture
def pair(tmp_path):
    events, items = tmp_path / "ml.inter", tmp_path / "ml.item"
    events.write_text(INTER)
    items.write_text(ITEM)
    return events, items


def test_read(pair):
    data = read(*pair)
    assert data.texts == {"1": "Toy Story (1995), Film-Noir, Children's", "2": "V"}
    assert data.events == {"u": [(20.0, "1"), (15.0, "2")]}
    assert data.dropped == {"items: no title": 1}


def test_only_id_and_title(pair):
    pair[1].write_text("item_id:token\ttitle:token_seq\n7\tÜber &quot;quoted&quot;, with comma\n", encoding="utf-8")
    assert read(*pair).texts == {"7": 'Über "quoted", with comma'}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\t", ",", "row 1: not a RecBole header .* but 'user_id:token,item_id"),
        (":token", "", r"row 1: not a RecBole header \(name:type, separated by tabs\) but 'user_id"),
        ("timestamp", "when", "row 1: no column timestamp; its columns are user_id, item_id, rating, when"),
        ("u\t2\t3.0\t1.5e1", "u\t2", "row 3: 2 fields separated by tabs, 4 expected"),
        ("1.5e1", "yesterday", "row 3: the time is 'yesterday', not a number"),
        ("u\t2", "\t2", "row 3: the user is empty"),
        (INTER, "", "the file is empty"),
    ],
)
def test_bad_events(pair, old, new, message):
    pair[0].write_text(INTER.replace(old, new))
    with pytest.raises(UserError, match=message) as error:
        read(*pair)
    assert "ml.inter" in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_items(pair):
    pair[1].write_text(ITEM.replace("movie_title", "label"))
    with pytest.raises(
        UserError, match=r"ml.item row 1: no column title or movie_title or name; its columns are class"
    ):
        read(*pair)
    pair[1].write_bytes(ITEM.replace("Toy", "Caf\xe9").encode("latin-1"))
    with pytest.raises(UserError, match=r"ml.item: byte \d+ is not utf-8 text"):
        read(*pair)
