"""MS MARCO v1.1's Parquet: which queries make a task, how they are split, what is refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.msmarco import load
from data_prep.sampling import Options
from iranker_verl.errors import UserError

PASSAGES = pa.struct([("is_selected", pa.list_(pa.int32())), ("passage_text", pa.list_(pa.string()))])


def row(query, size=5, selected=(2,), text="passage"):
    texts = [f"{text} {i} of {query}" for i in range(size)]
    return {
        "query": query,
        "passages": {"is_selected": [int(i in selected) for i in range(size)], "passage_text": texts},
    }


def write(path, rows, schema=None):
    schema = schema or pa.schema([("query", pa.string()), ("passages", PASSAGES), ("query_id", pa.int32())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


def split(tmp_path, train, test, options=None, **kwargs):
    files = [write(tmp_path / "train-00000-of-00001.parquet", train)], [write(tmp_path / "test.parquet", test)]
    return load(*files, options or Options(), **kwargs)


def queries(tasks):
    return sorted(task.context for task in tasks)


def test_a_task(tmp_path):
    result = split(tmp_path, [row("no", size=6), row("why\n is  it", selected=[3], text="a\nb")], [row("who")])
    (task,) = result["passage-5"].train
    assert task.id == "passage-5:train-00000:2"
    assert (task.scenario, task.context) == ("passage", "why is it")
    assert {c.id: c.text for c in task.candidates} == {str(i): f"a b {i} of why is it" for i in range(5)}
    assert task.candidates[task.target].id == "3"
    assert [t.id for t in result["passage-5"].test] == ["passage-5:test:1"]


def test_the_number_of_passages_decides_the_dataset(tmp_path):
    rows = [row(f"q{n}", size=n, selected=[0]) for n in range(1, 12)]
    result = split(tmp_path, rows, [row("t5"), row("t7", 7), row("t9", 9), row("t9b", 9)])
    for size, dataset in ((5, "passage-5"), (7, "passage-7"), (9, "passage-9")):
        made = result[dataset]
        assert queries(made.train) == [f"q{size}"]
        assert queries(made.test) == [f"t{size}", f"t{size}b"][: 2 if size == 9 else 1]
        assert {len(t.candidates) for t in made.train + made.test} == {size}
        # 10 of the 11 training rows, and the test rows of the other two.
        assert +made.dropped == {f"queries: not {size} passages": 10 + (2 if size == 9 else 3)}


def test_every_reason_to_drop(tmp_path):
    blank = row("blank")
    blank["passages"]["passage_text"][1] = " \n"
    long = row("long")  # 5 times "passage i of long", 17 characters: 85
    exact = row("exac")  # 85 too
    longer = row("longer")
    rows = [
        row("none", selected=()),
        row("two", selected=(1, 2)),
        blank,
        row(" "),
        long,
        exact,
        longer,
        row("BOTH  of"),
    ]
    result = split(tmp_path, rows, [row("both of"), row("t")], Options(max_chars=85))
    assert queries(result["passage-5"].train) == ["exac", "long"]
    assert queries(result["passage-5"].test) == ["t"]
    assert +result["passage-5"].dropped == {
        "queries: not exactly one selected passage": 2,
        "queries: an empty passage": 1,
        "queries: empty": 1,
        # "longer", and both rows of "both of", 20 characters a passage.
        "queries: passages longer than 85 characters": 3,
    }


def test_a_query_in_train_and_test_leaves_train(tmp_path):
    train = [row("Both  of them"), row("only train"), row("in a dropped test row")]
    test = [row("both of THEM"), row("only test"), row("in a dropped test row", size=4)]
    result = split(tmp_path, train, test)["passage-5"]
    assert queries(result.train) == ["only train"]
    assert queries(result.test) == ["both of THEM", "only test"]
    assert +result.dropped == {"queries: in train and test": 2, "queries: not 5 passages": 1}


@pytest.mark.parametrize("side", ["train", "test"])
def test_one_kind_of_file_is_split_by_query(tmp_path, side):
    rows = [row(f"q{n}", size) for n in range(60) for size in (5, 7, 9)]
    path = write(tmp_path / "data.parquet", rows)
    result = load([path], [], Options()) if side == "train" else load([], [path], Options())
    for made in result.values():
        assert (len(made.train), len(made.test)) == (48, 12)
        assert not set(queries(made.train)) & set(queries(made.test))
    # One split for the three: no query trains in one and tests in another.
    tests = [queries(made.test) for made in result.values()]
    assert tests[0] == tests[1] == tests[2]


def test_shards_caps_and_selection(tmp_path):
    shards = [write(tmp_path / f"train-0000{n}-of-00002.parquet", [row(f"{n} {q}") for q in range(10)]) for n in (0, 1)]
    test = [write(tmp_path / "test-00000-of-00001.parquet", [row(f"t{q}") for q in range(9)])]
    whole = load(shards, test, Options(), ["passage-5"])
    assert list(whole) == ["passage-5"]
    assert len({t.id for t in whole["passage-5"].train}) == 20
    capped = load(shards, test, Options(max_train=4, max_test=3), ["passage-5"])["passage-5"]
    assert capped.train == whole["passage-5"].train[:4]
    assert capped.test == whole["passage-5"].test[:3]


def test_the_selected_passage_stands_anywhere(tmp_path):
    rows = [row(f"q{n}", selected=[0]) for n in range(600)]
    tasks = split(tmp_path, rows, [row("t")])["passage-5"].train
    places = [sum(t.target == place for t in tasks) for place in range(5)]  # 120 each, standard deviation 10
    assert all(70 <= n <= 170 for n in places), places


def passages_schema(type_):
    return pa.schema([("query", pa.string()), ("passages", type_)])


@pytest.mark.parametrize(
    ("rows", "schema", "message"),
    [
        ([{"text": "x"}], pa.schema([("text", pa.string())]), "no column 'query'"),
        ([{"query": "x"}], pa.schema([("query", pa.string())]), "no column 'passages'"),
        ([row("a"), row("b") | {"query": None}], None, "row 2: query is 'None', not a text"),
        ([row("a"), {"query": "b", "passages": None}], None, "row 2: passages is not a struct"),
        ([{"query": "b", "passages": "x"}], passages_schema(pa.string()), "row 1: passages is not a struct"),
        (
            [{"query": "b", "passages": [{"passage_text": "x", "is_selected": 1}]}],
            passages_schema(pa.list_(pa.struct([("is_selected", pa.int32()), ("passage_text", pa.string())]))),
            "row 1: passages is not a struct of the lists passage_text and is_selected",
        ),
        (
            [{"query": "b", "passages": {"is_selected": [1], "passage_text": ["x", "y"]}}],
            None,
            "row 1: 2 passages but 1",
        ),
        ([{"query": "b", "passages": {"is_selected": [2], "passage_text": ["x"]}}], None, "row 1: is_selected is '2'"),
        (
            [{"query": "b", "passages": {"is_selected": [1], "passage_text": [None]}}],
            None,
            "row 1: a passage_text is not",
        ),
    ],
)
def test_what_is_refused(tmp_path, rows, schema, message):
    path = write(tmp_path / "train.parquet", rows, schema)
    with pytest.raises(UserError, match=message) as error:
        load([path], [], Options())
    assert "train.parquet" in str(error.value)
    assert "\n" not in str(error.value)


def test_broken_files(tmp_path):
    path = write(tmp_path / "train.parquet", [row("a")])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train.parquet: not a whole Parquet file .*; fetch it again"):
        load([path], [], Options())
    path.write_bytes(b"")
    with pytest.raises(UserError, match="not a whole Parquet file"):
        load([path], [], Options())
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        load([path], [], Options())
