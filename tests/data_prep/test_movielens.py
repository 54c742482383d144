"""GroupLens' formats, on files written by hand and on the real ones."""

from pathlib import Path

import pytest

from data_prep.sources import movielens
from data_prep.sources.movielens import GENRES
from iranker_verl.errors import UserError
from tests.data_prep.reading import events, interactions, texts
from tests.data_prep.source_runs import sources

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "rec"


def item_line(item, title, *genres):
    return "|".join([item, title, "01-Jan-1995", "", "http://x", *(str(int(g in genres)) for g in GENRES)])


@pytest.fixture
def ml100k(tmp_path):
    (tmp_path / "u.data").write_bytes(b"1\t10\t5\t300\n2\t11\t3\t100\n\n1\t11\t1\t200\r\n")
    lines = [item_line("10", "Café au lait (1993)", "Drama", "Comedy"), item_line("11", "unknown", "unknown"), ""]
    (tmp_path / "u.item").write_bytes("\n".join(lines).encode("latin-1"))
    return tmp_path


@pytest.fixture
def ml1m(tmp_path):
    (tmp_path / "ratings.dat").write_bytes(b"1::10::5::300\n1::11::4::200\n")
    movies = "10::Amélie: Part 2 (2001)::Comedy|Romance\n11::X (1999)::(no genres listed)\n"
    (tmp_path / "movies.dat").write_bytes(movies.encode("latin-1"))
    return tmp_path


@pytest.fixture
def ml25m(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,5.0,300\n1,11,0.5,200\n")
    movies = 'movieId,title,genres\n10,"American President, The (1995)",Comedy|Drama\n11,Amélie (2001),Romance\n'
    (tmp_path / "movies.csv").write_text(movies, encoding="utf-8")
    (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,10,x,300\n")
    return tmp_path


def test_100k(ml100k):
    data, files = interactions(movielens.find_movielens, ml100k)
    assert (data.dataset, files) == ("rec-movie", ["u.data", "u.item"])
    # Genres in GroupLens' order, whatever the order of the call.
    assert texts(data) == ([("10", "Café au lait (1993), Comedy, Drama"), ("11", "unknown")], {})
    assert events(data) == ([("1", "10", 300.0), ("2", "11", 100.0), ("1", "11", 200.0)], {"lines: blank": 1})
    alone, files = interactions(movielens.find_movielens, ml100k / "u.data")
    assert (alone.events, files) == (data.events, ["u.data", "u.item"])


def test_1m(ml1m):
    data, files = interactions(movielens.find_movielens, ml1m)
    assert (data.dataset, files) == ("rec-movie", ["ratings.dat", "movies.dat"])
    assert texts(data)[0] == [("10", "Amélie: Part 2 (2001), Comedy, Romance"), ("11", "X (1999)")]
    assert events(data) == ([("1", "10", 300.0), ("1", "11", 200.0)], {})


def test_a_file_that_somebody_has_converted_to_utf_8(ml1m):
    path = ml1m / "movies.dat"
    path.write_bytes("\ufeff".encode() + path.read_bytes().decode("latin-1").encode())
    assert texts(interactions(movielens.find_movielens, ml1m)[0])[0][0] == (
        "10",
        "Amélie: Part 2 (2001), Comedy, Romance",
    )


def test_csv(ml25m):
    data, files = interactions(movielens.find_movielens, ml25m)
    assert (data.dataset, files) == ("rec-movie", ["ratings.csv", "movies.csv"])
    assert texts(data)[0] == [
        ("10", "American President, The (1995), Comedy, Drama"),
        ("11", "Amélie (2001), Romance"),
    ]
    assert events(data) == ([("1", "10", 300.0), ("1", "11", 200.0)], {})


def test_a_folder_called_like_another_dataset(ml1m):
    folder = ml1m / "rec-game"
    folder.mkdir()
    for name in ("ratings.dat", "movies.dat"):
        (ml1m / name).rename(folder / name)
    assert interactions(movielens.find_movielens, ml1m)[0].dataset == "rec-game"


@pytest.mark.parametrize(
    ("name", "partner"), [("u.data", "u.item"), ("ratings.dat", "movies.dat"), ("ratings.csv", "movies.csv")]
)
def test_half_of_a_pair(tmp_path, name, partner):
    (tmp_path / name).write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(UserError, match=f"{name}: {partner} is missing beside it"):
        sources(movielens.find_movielens, [tmp_path / name], tmp_path)


def test_what_is_somebody_else_s(tmp_path):
    (tmp_path / "ratings.csv").write_text("user_id,item_id,timestamp\n")
    for name in ("u.item", "movies.dat", "movies.csv", "x.data"):
        (tmp_path / name).write_text("x")
    assert not sources(movielens.find_movielens, sorted(tmp_path.iterdir()), tmp_path)


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
        (b"1\t\xe9\t5\t1\n", "u.data row 1: byte 3 of the row is not utf-8 text"),
    ],
)
def test_bad_events(ml100k, content, message):
    (ml100k / "u.data").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        events(interactions(movielens.find_movielens, ml100k)[0])
    assert "\n" not in str(error.value)


def test_bad_items(ml100k):
    good = item_line("10", "X", "Drama")
    for content, message in (
        (good + "\n" + good[:-10], r"u.item row 2: 19 fields separated by '\|', 24 expected"),
        (good[:-1] + "7", r"u\.item row 1: the flag of genre Western is '7', not 0 or 1"),
        (good[2:], r"u\.item row 1: the item is empty"),
    ):
        (ml100k / "u.item").write_text(content)
        with pytest.raises(UserError, match=message):
            texts(interactions(movielens.find_movielens, ml100k)[0])


def test_bad_1m(ml1m):
    data, _ = interactions(movielens.find_movielens, ml1m)
    (ml1m / "ratings.dat").write_text("1\t10\t5\t300\n")
    with pytest.raises(UserError, match=r"ratings.dat row 1: 1 fields separated by '::', 4 expected"):
        events(data)
    (ml1m / "ratings.dat").unlink()
    with pytest.raises(UserError, match=r"ratings.dat: cannot be read \(No such file"):
        events(data)


def test_bad_csv(ml25m):
    data, _ = interactions(movielens.find_movielens, ml25m)
    (ml25m / "ratings.csv").write_text("userId,movieId,rating\n1,10,5.0\n")
    with pytest.raises(UserError, match=r"ratings.csv: no column timestamp; its columns are userId, movieId, rating"):
        events(data)
    (ml25m / "movies.csv").write_text("movieId,title,genres\n10,American President, The (1995),Comedy\n")
    with pytest.raises(UserError, match=r"movies.csv row 2: 4 fields separated by commas, 3 expected"):
        texts(data)


@pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")
def test_the_real_100k():
    data, _ = interactions(movielens.find_movielens, DATA / "ml100k_grouplens")
    found, dropped = events(data)
    # Independent of the readers: the file's own words.
    lines = (DATA / "ml100k_grouplens" / "u.data").read_text().split("\n")
    assert found == [(user, item, float(time)) for user, item, _, time in (line.split("\t") for line in lines if line)]
    assert dropped == {"lines: blank": 1}
    items, dropped = texts(data)
    assert (len(items), len(dict(items)), dropped) == (1682, 1682, {})
    assert len(items) - len({text for _, text in items}) == 18  # titles that occur twice
    assert dict(items)["1"] == "Toy Story (1995), Animation, Children's, Comedy"
    assert dict(items)["543"].startswith("Misérables, Les (1995)")  # latin-1
