"""RecBole's atomic files, written by hand, in any order of columns, and the real ones."""

from pathlib import Path

import pytest

from data_prep.sources import recbole
from iranker_verl.errors import UserError
from tests.data_prep.reading import events, interactions, texts
from tests.data_prep.source_runs import sources

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "rec"
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\t1\t3\t20\nu\t2\t3.0\t1.5e1\n"
ITEM = (
    "class:token_seq\titem_id:token\tmovie_title:token_seq\trelease_year:token\n"
    "Film-Noir Children's\t1\tToy Story\t1995\n\t2\tV\tunkonwn\nunknown\t3\t\t1990\n"
)


@pytest.fixture
def pair(tmp_path):
    inter, item = tmp_path / "ml.inter", tmp_path / "ml.item"
    inter.write_text(INTER)
    item.write_text(ITEM)
    return inter, item


def test_read(pair):
    data, files = interactions(recbole.find_recbole, pair[0].parent)
    assert (data.dataset, files) == ("rec-movie", ["ml.inter", "ml.item"])
    assert texts(data) == ([("1", "Toy Story (1995), Film-Noir, Children's"), ("2", "V"), ("3", "")], {})
    assert events(data) == ([("u", "1", 20.0), ("u", "2", 15.0)], {})


def test_only_id_and_title_and_any_order(pair):
    pair[1].write_text("title:token_seq\titem_id:token\nÜber &quot;quoted&quot;, with comma\t7\n", encoding="utf-8")
    pair[0].write_text("\ntimestamp:float\titem_id:token\tuser_id:token\n\n5\t7\tu\n")
    data, _ = interactions(recbole.find_recbole, pair[0])
    assert texts(data) == ([("7", 'Über "quoted", with comma')], {})
    assert events(data) == ([("u", "7", 5.0)], {"lines: blank": 2})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\t", ",", "row 1: not a RecBole header .* but 'user_id:token,item_id"),
        (":token", "", r"row 1: not a RecBole header \(name:type, separated by tabs\) but 'user_id"),
        ("timestamp", "when", "ml.inter: no column timestamp; its columns are user_id, item_id, rating, when"),
        ("u\t2\t3.0\t1.5e1", "u\t2", "row 3: 2 fields separated by tabs, 4 expected"),
        ("1.5e1", "yesterday", "row 3: the time is 'yesterday', not a number"),
        ("u\t2", "\t2", "row 3: the user is empty"),
        (INTER, "", "the file is empty"),
    ],
)
def test_bad_events(pair, old, new, message):
    pair[0].write_text(INTER.replace(old, new))
    with pytest.raises(UserError, match=message) as error:
        events(interactions(recbole.find_recbole, pair[0].parent)[0])
    assert "ml.inter" in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_items(pair):
    pair[1].write_text(ITEM.replace("movie_title", "label"))
    data, _ = interactions(recbole.find_recbole, pair[0].parent)
    with pytest.raises(UserError, match=r"ml.item: no column title or movie_title or name; its columns are class"):
        texts(data)
    pair[1].write_bytes(ITEM.replace("Toy", "Caf\xe9").encode("latin-1"))
    with pytest.raises(UserError, match=r"ml.item row 2: byte \d+ of the row is not utf-8 text"):
        texts(data)


def test_which_dataset_it_is(tmp_path):
    for name in ("Amazon_CDs_and_Vinyl", "rec-movie/Amazon_Video_Games.orderonly", "yelp"):
        for end, content in ((".inter", INTER), (".item", ITEM)):
            path = tmp_path / (name + end)
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.stem != "yelp")
    assert [source.datasets for source in sources(recbole.find_recbole, files, tmp_path)] == [
        ("rec-music",),
        ("rec-movie",),
    ]
    with pytest.raises(UserError, match=r"yelp.inter: which dataset is it\? Put it into a folder called rec-movie"):
        sources(recbole.find_recbole, [tmp_path / "yelp.inter"], tmp_path)


def test_half_of_a_pair(tmp_path):
    (tmp_path / "ml.x.inter").write_text(INTER)
    with pytest.raises(UserError, match=r"ml.x.inter: ml.x.item is missing beside it"):
        sources(recbole.find_recbole, [tmp_path / "ml.x.inter"], tmp_path)


def test_sequences_that_are_cut_already_are_left_alone(tmp_path):
    path = tmp_path / "Games.test.inter"
    path.write_text("user_id:token\titem_id_list:token_seq\titem_id:token\nu\t1 2\t3\n")
    assert not sources(recbole.find_recbole, [path], tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")
@pytest.mark.parametrize(
    ("path", "dataset", "untitled"),
    [
        ("ml100k_recbole/ml-100k", "rec-movie", 0),
        ("amazon/Amazon_CDs_and_Vinyl", "rec-music", 29),
        ("amazon/Amazon_Video_Games", "rec-game", 0),
        ("amazon/Amazon_Video_Games.orderonly", "rec-game", 0),
    ],
)
def test_the_real_files(path, dataset, untitled):
    data, _ = interactions(recbole.find_recbole, DATA / f"{path}.inter")
    assert data.dataset == dataset
    found, dropped = events(data)
    lines = (DATA / f"{path}.inter").read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]
    assert found == [(user, item, float(time)) for user, item, _, time in (line.split("\t") for line in lines)]
    items, _ = texts(data)
    assert len(items) == len((DATA / f"{path}.item").read_text(encoding="utf-8").rstrip("\n").split("\n")) - 1
    assert sum(not text for _, text in items) == untitled
    assert not any(("<" in text and ">" in text) or "&amp;" in text for _, text in items)
    assert not dropped
