"""Amazon's files of three years, written by hand as they are published."""

import gzip
import json

import pytest

from data_prep.readers import opened
from data_prep.sources import amazon
from iranker_verl.errors import UserError
from tests.data_prep.reading import events, interactions, texts
from tests.data_prep.source_runs import sources

REVIEWS_2018 = [
    {"reviewerID": "A2", "asin": "B000000001", "overall": 5.0, "reviewText": "a\u2028b", "unixReviewTime": 1393545600},
    {"reviewerID": "A1", "asin": "B000000002", "overall": 1.0, "summary": "x", "unixReviewTime": 1393545500},
]
REVIEWS_2023 = [
    {"user_id": "AE2", "asin": "B00000000X", "parent_asin": "B000000001", "timestamp": 1588687728923, "text": "a"},
    {"user_id": "AE1", "asin": "B000000002", "parent_asin": "B000000002", "timestamp": 1588615855070, "text": "b"},
]
EVENTS_2018 = [("A2", "B000000001", 1393545600.0), ("A1", "B000000002", 1393545500.0)]
EVENTS_2023 = [("AE2", "B000000001", 1588687728923.0), ("AE1", "B000000002", 1588615855070.0)]
META_2014 = (
    "{'asin': 'B000000001', 'title': \"Don't Stop\", 'related': {'also_bought': ['B1', 'B2']}, 'price': 9.5}\n"
    "{'asin': 'B000000002', 'description': 'no title'}\n"
)
META_2018 = [
    {"asin": "B000000001", "title": "Don&#39;t <b>Stop</b>", "category": ["CDs & Vinyl"], "also_buy": []},
    {"asin": "B000000002", "title": '<span class="a-size-medium'},
]
META_2023 = [{"parent_asin": "B000000001", "title": "Don't Stop"}, {"parent_asin": "B000000002", "title": None}]
TEXTS = [("B000000001", "Don't Stop"), ("B000000002", "")]


def write(path, content):
    """Text, or objects as JSON lines; gzipped where the name says so."""
    if isinstance(content, list):
        content = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in content)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content", "meta", "told", "expected"),
    [
        ("reviews_CDs_and_Vinyl_5.json", REVIEWS_2018, "meta_CDs_and_Vinyl.json", META_2014, EVENTS_2018),
        ("reviews_CDs_and_Vinyl.json", REVIEWS_2018, "meta_CDs_and_Vinyl.json", META_2014, EVENTS_2018),
        ("CDs_and_Vinyl_5.json", REVIEWS_2018, "meta_CDs_and_Vinyl.json", META_2018, EVENTS_2018),
        ("CDs_and_Vinyl.json", REVIEWS_2018, "meta_CDs_and_Vinyl.json", META_2018, EVENTS_2018),
        ("CDs_and_Vinyl.jsonl", REVIEWS_2023, "meta_CDs_and_Vinyl.jsonl", META_2023, EVENTS_2023),
    ],
)
def test_reviews(tmp_path, name, content, meta, told, expected, end):
    write(tmp_path / (name + end), content)
    write(tmp_path / (meta + end), told)
    data, files = interactions(amazon.find_amazon, tmp_path)
    assert (data.dataset, files) == ("rec-music", [name + end, meta + end])
    assert events(data) == (expected, {})
    assert texts(data) == (TEXTS, {})


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("ratings_Video_Games.csv", "A2,B000000001,5.0,20\nA1,B000000002,1.0,10\n", None),
        ("Video_Games.csv", "B000000001,A2,5.0,20\nB000000002,A1,1.0,10\n", None),
        ("Video_Games.csv", "user_id,parent_asin,rating,timestamp\nA2,B000000001,5.0,20\nA1,B000000002,1.0,10\n", None),
        (
            "Video_Games.csv.gz",
            "user_id,parent_asin,rating,timestamp,history\nA2,B000000001,5.0,20,\nA1,B000000002,1.0,10,B1 B2\n",
            None,
        ),
        # Users may look like items here and there, as long as not all do.
        ("Video_Games.csv", "A000000000,B000000001,5.0,20\nA1,B000000002,1.0,10\n", "A000000000"),
    ],
)
def test_ratings(tmp_path, name, content, expected):
    write(tmp_path / name, content)
    write(tmp_path / "meta_Video_Games.json.gz", META_2018)
    data, files = interactions(amazon.find_amazon, tmp_path)
    assert (data.dataset, files) == ("rec-game", [name, "meta_Video_Games.json.gz"])
    assert events(data) == ([(expected or "A2", "B000000001", 20.0), ("A1", "B000000002", 10.0)], {})


@pytest.mark.parametrize("line", ["B000000003,B000000001,5.0,20", "A1,A2,5.0,20"])
def test_columns_that_cannot_be_told_apart(tmp_path, line):
    write(tmp_path / "Video_Games.csv", line + "\n")
    write(tmp_path / "meta_Video_Games.json", META_2018)
    data, _ = interactions(amazon.find_amazon, tmp_path)
    with pytest.raises(UserError, match=f"Video_Games.csv row 1: '{line}': it is unclear which column is the item"):
        events(data)


def test_the_three_parts_of_a_split_are_one(tmp_path):
    for number, part in enumerate(("valid", "train", "test")):
        write(
            tmp_path / f"CDs_and_Vinyl.{part}.csv",
            f"user_id,parent_asin,rating,timestamp\nA1,B00000000{number},5.0,{number}\n",
        )
    write(tmp_path / "meta_CDs_and_Vinyl.jsonl", META_2023)
    data, files = interactions(amazon.find_amazon, tmp_path)
    assert files == [f"CDs_and_Vinyl.{part}.csv" for part in ("train", "valid", "test")] + ["meta_CDs_and_Vinyl.jsonl"]
    assert [time for *_, time in events(data)[0]] == [1.0, 0.0, 2.0]
    assert interactions(amazon.find_amazon, tmp_path / "CDs_and_Vinyl.valid.csv")[1] == files
    (tmp_path / "CDs_and_Vinyl.test.csv").unlink()
    with pytest.raises(UserError, match=r"CDs_and_Vinyl.train.csv: CDs_and_Vinyl.test.csv is missing beside it"):
        interactions(amazon.find_amazon, tmp_path)


def test_the_meta_file_may_lie_elsewhere_but_once(tmp_path):
    path = write(tmp_path / "review_categories" / "Video_Games.jsonl", REVIEWS_2023)
    with pytest.raises(UserError, match=r"Video_Games.jsonl: meta_Video_Games.json or .jsonl is missing beside it"):
        interactions(amazon.find_amazon, tmp_path)
    meta = write(tmp_path / "meta_categories" / "meta_Video_Games.jsonl", META_2023)
    assert interactions(amazon.find_amazon, tmp_path)[0].items == (meta,)
    write(tmp_path / "old" / "meta_Video_Games.json.gz", META_2014)
    with pytest.raises(UserError, match="is there 2 times, but not beside it"):
        interactions(amazon.find_amazon, tmp_path)
    beside = write(path.with_name("meta_Video_Games.json"), META_2018)
    assert interactions(amazon.find_amazon, tmp_path)[0].items == (beside,)


def test_other_categories_need_a_folder_that_says_what_they_are(tmp_path):
    for folder in ("x", "rec-movie"):
        write(tmp_path / folder / "Movies_and_TV_5.json.gz", REVIEWS_2018)
        write(tmp_path / folder / "meta_Movies_and_TV.json.gz", META_2018)
        write(tmp_path / folder / "unrelated.jsonl", REVIEWS_2023)
        write(tmp_path / folder / "unrelated.csv", "1,2,3.0,4\n")
    data, files = interactions(amazon.find_amazon, tmp_path)
    assert (data.dataset, files) == ("rec-movie", ["Movies_and_TV_5.json.gz", "meta_Movies_and_TV.json.gz"])
    assert data.events[0].parent.name == "rec-movie"


def test_what_is_somebody_else_s(tmp_path):
    write(tmp_path / "video_games.csv", "user_id,item_id,timestamp,title\n1,2,3,x\n")
    write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,2,3,4\n")
    write(tmp_path / "meta_Video_Games.json", META_2018)
    assert not sources(amazon.find_amazon, sorted(tmp_path.iterdir()), tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"reviewerID": "A1", "asin": "B1"', 'row 2: not a JSON object, but \'{"reviewerID"'),
        ("{'reviewerID': __import__('os')}", "row 2: not a JSON object"),
        ("{'reviewerID': " + "(" * 5000, "row 2: not a JSON object"),
        ("<html>", "row 2: not a JSON object, but '<html>'"),
        ('{"asin": "B1", "unixReviewTime": 1}', "row 2: the user is empty"),
        ('{"reviewerID": "A1", "unixReviewTime": 1}', "row 2: the item is empty"),
        ('{"reviewerID": "A1", "asin": "B1"}', "row 2: the time is 'None', not a number"),
        ('{"user_id": "A1", "parent_asin": "B1", "timestamp": "now"}', "row 2: the time is 'now', not a number"),
        ('{"user_id": ["A1"], "parent_asin": "B1", "timestamp": 1}', r"row 2: the user is \"\['A1'\]\", not a text"),
    ],
)
def test_bad_reviews(tmp_path, line, message):
    write(tmp_path / "Video_Games_5.json", json.dumps(REVIEWS_2018[0]) + "\n" + line)
    write(tmp_path / "meta_Video_Games.json", META_2018)
    with pytest.raises(UserError, match="Video_Games_5.json " + message) as error:
        events(interactions(amazon.find_amazon, tmp_path)[0])
    assert "\n" not in str(error.value)


def test_a_truncated_download(tmp_path):
    path = write(tmp_path / "Video_Games_5.json.gz", [{**REVIEWS_2018[0], "n": i} for i in range(5000)])
    write(tmp_path / "meta_Video_Games.json", META_2018)
    data, _ = interactions(amazon.find_amazon, tmp_path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"Video_Games_5.json.gz: gzip data cut off or damaged; \d{4} rows were readab"):
        events(data)
    path.write_bytes(gzip.decompress(gzip.compress(json.dumps(REVIEWS_2018[1]).encode())))  # unpacked, but not renamed
    assert events(data) == (EVENTS_2018[1:], {})


def test_a_huge_line(tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "MAX_TEXT", 1 << 20)
    write(tmp_path / "Video_Games_5.json", [REVIEWS_2018[0], {"reviewText": "x" * (1 << 20)}])
    write(tmp_path / "meta_Video_Games.json", META_2018)
    with pytest.raises(UserError, match=r"row 2: a line of more than 1 MB, beginning with '{\"reviewText\": \"xx"):
        events(interactions(amazon.find_amazon, tmp_path)[0])


def test_a_huge_literal_is_no_food_for_python_s_parser(tmp_path, monkeypatch):
    monkeypatch.setattr(amazon, "_LITERAL", 100)
    write(tmp_path / "Video_Games_5.json", REVIEWS_2018)
    write(tmp_path / "meta_Video_Games.json", "{'asin': 'B1', 'title': '%s'}" % ("x" * 100))
    with pytest.raises(UserError, match="row 1: not a JSON object"):
        texts(interactions(amazon.find_amazon, tmp_path)[0])


def test_blank_lines_and_half_characters(tmp_path):
    write(tmp_path / "Video_Games_5.json", json.dumps(REVIEWS_2018[0])[:-1] + ', "summary": "cut \\ud83d"}\n\n')
    write(tmp_path / "meta_Video_Games.json", '{"asin": "B1", "title": "half \\ud83d"}')
    data, _ = interactions(amazon.find_amazon, tmp_path)
    assert events(data) == (EVENTS_2018[:1], {"lines: blank": 1})
    assert texts(data)[0] == [("B1", "half ?")]
