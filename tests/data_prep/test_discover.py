"""What is found in a tree, and how a tree that does not say what it holds is refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.discover import discover
from iranker_verl.errors import UserError

ROUTERS = ("router-performance", "router-cost", "router-balance")
PASSAGES = ("passage-5", "passage-7", "passage-9")


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            path.write_text("task_id,query,llm,effect,cost,cost_raw\n")
        elif path.suffix == ".parquet":
            row = {"query": "q", "passages": {"is_selected": [1, 0], "passage_text": ["a", "b"]}}
            pq.write_table(pa.Table.from_pylist([row]), path)
        else:
            path.write_text("x")
    return folder


def found(raw, *wanted):
    sources = discover(raw, wanted).sources
    return {source.datasets: [file.name for file in source.files] for source in sources}


@pytest.mark.parametrize(
    ("names", "dataset"),
    [
        (["u.data", "u.item"], "rec-movie"),
        (["ratings.dat", "movies.dat"], "rec-movie"),
        (["ml-100k.inter", "ml-100k.item"], "rec-movie"),
        (["MovieLens.inter", "MovieLens.item"], "rec-movie"),
        (["Amazon_CDs_and_Vinyl.inter", "Amazon_CDs_and_Vinyl.item"], "rec-music"),
        (["Digital_Music.inter", "Digital_Music.item"], "rec-music"),
        (["Amazon_Video_Games.orderonly.inter", "Amazon_Video_Games.orderonly.item"], "rec-game"),
        (["Games.inter", "Games.item"], "rec-game"),
    ],
)
def test_recommendation_by_file_name(tmp_path, names, dataset):
    touch(tmp_path, *names)
    assert found(tmp_path) == {(dataset,): names}
    assert found(tmp_path / names[0]) == {(dataset,): names}


def test_the_nearest_folder_called_like_a_dataset_goes_before_the_name(tmp_path):
    touch(tmp_path, "rec-game/deep/u.data", "rec-game/deep/u.item", "rec-music/ml.inter", "rec-music/ml.item")
    assert found(tmp_path) == {("rec-game",): ["u.data", "u.item"], ("rec-music",): ["ml.inter", "ml.item"]}
    assert found(tmp_path / "rec-music") == {("rec-music",): ["ml.inter", "ml.item"]}
    assert found(tmp_path / "rec-music" / "ml.inter") == {("rec-music",): ["ml.inter", "ml.item"]}


def test_all_nine_in_one_tree(tmp_path):
    touch(tmp_path, "a/u.data", "a/u.item", "b/CDs.inter", "b/CDs.item", "b/Games.inter", "b/Games.item")
    touch(tmp_path, "r/router.csv", "r/llm_descriptions.json", "p/train-0.parquet", "p/test-0.parquet")
    touch(tmp_path, "p/validation-0.parquet", ".hidden/u.data", ".hidden/u.item", "b/.ml.inter", "notes.txt")
    (tmp_path / "r/other.csv").write_text("uid,iid\n1,2\n")
    pq.write_table(pa.table({"data_source": ["x"]}), tmp_path / "prepared.parquet")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert found(tmp_path) == {
        ("rec-movie",): ["u.data", "u.item"],
        ("rec-music",): ["CDs.inter", "CDs.item"],
        ("rec-game",): ["Games.inter", "Games.item"],
        ROUTERS: ["router.csv", "llm_descriptions.json"],
        PASSAGES: ["train-0.parquet", "test-0.parquet"],
    }
    assert found(tmp_path, "router-cost", "passage-7") == {
        ROUTERS: ["router.csv", "llm_descriptions.json"],
        PASSAGES: ["train-0.parquet", "test-0.parquet"],
    }


def test_one_kind_of_parquet_is_one_source(tmp_path):
    touch(tmp_path, "train-00000-of-00002.parquet", "train-00001-of-00002.parquet")
    assert found(tmp_path) == {PASSAGES: ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]}
    assert found(tmp_path / "train-00001-of-00002.parquet") == {PASSAGES: ["train-00001-of-00002.parquet"]}


@pytest.mark.parametrize(
    ("first", "second", "dataset"),
    [
        ("a/u.data", "b/ratings.dat", "rec-movie"),
        ("Games.inter", "Games.orderonly.inter", "rec-game"),
        ("a.csv", "b.csv", "router-performance"),
        ("a/train.parquet", "b/train.parquet", "passage-5"),
    ],
)
def test_two_sources_of_one_dataset(tmp_path, first, second, dataset):
    partners = ["a/u.item", "b/movies.dat"] if "u.data" in first else ["Games.item", "Games.orderonly.item"]
    touch(tmp_path, first, second, *partners)
    with pytest.raises(UserError) as error:
        discover(tmp_path)
    assert f"{dataset} occurs twice, as {tmp_path / first} and as {tmp_path / second}; give the path" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("name", "partner"), [("u.data", "u.item"), ("ratings.dat", "movies.dat"), ("ml.x.inter", "ml.x.item")]
)
def test_half_of_a_pair(tmp_path, name, partner):
    touch(tmp_path, name, "train.parquet")
    with pytest.raises(UserError, match=f"{name}: {partner} is missing beside it"):
        discover(tmp_path)
    assert list(found(tmp_path, *PASSAGES)) == [PASSAGES]


def test_a_recbole_file_of_no_known_dataset(tmp_path):
    touch(tmp_path, "yelp.inter", "yelp.item")
    with pytest.raises(UserError, match=r"yelp.inter: which dataset is it\? Put it into a folder called rec-movie"):
        discover(tmp_path)


def test_nothing(tmp_path):
    touch(tmp_path, "readme.txt", "u.item", "Games.item")
    with pytest.raises(UserError, match=r"nothing to prepare for rec-movie; docs/data.md lists"):
        discover(tmp_path, ["rec-movie"])
    with pytest.raises(UserError, match="nothing to prepare"):
        discover(tmp_path / "u.item")
    with pytest.raises(UserError, match="no such file or folder"):
        discover(tmp_path / "gone")


def test_a_wrong_delimiter_is_found_so_that_its_loader_can_say_so(tmp_path):
    (tmp_path / "router.csv").write_text("task_id;query;llm;effect;cost;cost_raw\n")
    assert found(tmp_path) == {ROUTERS: ["router.csv"]}


def test_a_broken_parquet_is_named_where_passages_are_wanted(tmp_path):
    touch(tmp_path, "u.data", "u.item")
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"train.parquet: not a whole Parquet file"):
        discover(tmp_path)
    assert list(found(tmp_path, "rec-movie")) == [("rec-movie",)]


def test_a_link_to_nowhere(tmp_path):
    (tmp_path / "router.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(UserError, match=r"router.csv: a link to a file that is not there"):
        discover(tmp_path)
