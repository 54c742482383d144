"""What an item is shown as, and which dataset some files are."""

import pickle
from functools import partial
from pathlib import Path

import pytest

from data_prep.scenarios.interactions import Interactions, Item, dataset_of, folder_dataset, item_text, titles_of
from iranker_verl.errors import UserError


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("Toy Story", "1995", ("Animation", "Comedy")), "Toy Story (1995), Animation, Comedy"),
        (("Toy Story (1995)", "1995"), "Toy Story (1995)"),
        (("Nadja (1994)", "", ("Drama", "unknown", "", "(no genres listed)")), "Nadja (1994), Drama"),
        (("Memory for Wii &amp; Gamecube",), "Memory for Wii & Gamecube"),
        (("Rock &amp;amp; Roll",), "Rock & Roll"),
        (("  two\t lines \n<br/> and <b>bold</b>",), "two lines and bold"),
        (("a\u2028b\x85c",), "a b c"),
        (('<span class="a-size-medium a-text-normal',), ""),
        (("I <3 You",), "I <3 You"),
        (("1 < 2 > 0",), "1 < 2 > 0"),
        (("V", "V", ("unknown",)), "V"),
        (("M", "95"), "M"),
        (("", "1995", ("Drama",)), ""),
    ],
)
def test_item_text(given, text):
    assert item_text(Item("1", *given)) == text


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("ml-100k", "rec-movie"),
        ("ML-1M", "rec-movie"),
        ("MovieLens", "rec-movie"),
        ("Amazon_CDs_and_Vinyl", "rec-music"),
        ("Digital_Music", "rec-music"),
        ("Amazon_Video_Games.orderonly", "rec-game"),
    ],
)
def test_dataset_by_name(tmp_path, name, dataset):
    assert dataset_of(tmp_path / "x.inter", tmp_path, name) == dataset


def test_the_nearest_folder_called_like_a_dataset_goes_before_the_name(tmp_path):
    raw = tmp_path / "rec-movie"
    path = raw / "rec-game" / "passage-5" / "deep" / "ml.inter"
    path.parent.mkdir(parents=True)
    path.touch()
    assert dataset_of(path, raw, "CDs") == folder_dataset(path, raw) == "rec-game"
    assert folder_dataset(raw / "x", raw) == "rec-movie"
    assert folder_dataset(path, path) == ""  # of a single file its own folder says it, and no other
    (raw / "x").touch()
    assert folder_dataset(raw / "x", raw / "x") == "rec-movie"
    assert folder_dataset(raw / "x", tmp_path) == "rec-movie"


def test_a_dataset_that_nothing_tells(tmp_path):
    with pytest.raises(
        UserError, match=r"yelp.inter: which dataset is it\? Put it into a folder called rec-movie, rec-"
    ):
        dataset_of(tmp_path / "yelp.inter", tmp_path, "yelp")


def test_titles_have_to_be_there(tmp_path):
    with pytest.raises(UserError, match=r"u.data: u.item is missing beside it; the items' titles are needed"):
        titles_of(tmp_path / "u.data", "u.item")
    for name in ("u.item.gz", "u.item"):
        (tmp_path / name).touch()
        assert titles_of(tmp_path / "u.data", "u.item") == tmp_path / name


def test_interactions_travel_to_other_processes():
    from data_prep.sources import movielens

    read = partial(movielens.read_events, "::")
    data = Interactions("rec-movie", (Path("a"),), (Path("b"),), read, movielens.read_1m_items)
    there = pickle.loads(pickle.dumps(data))
    assert (there.dataset, there.events, there.read_items) == (data.dataset, data.events, data.read_items)
    assert (there.read_events.func, there.read_events.args) == (read.func, read.args)
