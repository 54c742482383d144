"""MS MARCO in all its forms: what is read, which files are which side, what is refused, what a damaged file does."""

import gzip
import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.discover import discover
from data_prep.options import Options
from data_prep.readers import documents, opened, parquet
from data_prep.sources import msmarco
from iranker_verl.errors import UserError
from tests.data_prep.source_runs import find, run

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "passage" / "msmarco_v11_schema"
LISTS = pa.struct(
    [
        ("is_selected", pa.list_(pa.int32())),
        ("passage_text", pa.list_(pa.string())),
        ("url", pa.list_(pa.string())),
    ]
)
SCHEMA = pa.schema(
    [("answers", pa.list_(pa.string())), ("passages", LISTS), ("query", pa.string()), ("query_id", pa.int32())]
)


def row(query, size=5, selected=(2,), text="passage"):
    """A row in Hugging Face's form."""
    passages = {
        "is_selected": [int(i in selected) for i in range(size)],
        "passage_text": [f"{text} {i} of {query}" for i in range(size)],
        "url": [f"http://x/{i}" for i in range(size)],
    }
    return {"answers": ["yes"], "passages": passages, "query": query, "query_id": 7}


def objects(one):
    """The same in the form of MS MARCO's own JSON: a list of objects."""
    lists = one["passages"]
    return one | {"passages": [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]}


def write_parquet(path, rows, schema=SCHEMA, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, **kwargs)
    return path


def write_lines(path, rows, form=objects):
    text = "".join(json.dumps(form(one), ensure_ascii=False) + "\n" for one in rows)
    return write_bytes(path, text.encode())


def write_columns(path, rows):
    own = [objects(one) for one in rows]
    columns = {name: {str(i): one[name] for i, one in enumerate(own)} for name in ("answers", "passages", "query")}
    return write_bytes(path, json.dumps(columns, ensure_ascii=False).encode())


def write_bytes(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


FORMS = {
    "train-00000-of-00001.parquet": write_parquet,
    "train_v1.1.json": write_lines,
    "train_v1.1.json.gz": write_lines,
    "train.jsonl": lambda path, rows: write_lines(path, rows, lambda one: one),
    "train_v2.1.json": write_columns,
    "train_v2.1.json.gz": write_columns,
}


def queries(rows, dataset="passage-5", side=None):
    return sorted(one["context"] for one in rows if (one["dataset"], one["side"]) == (dataset, side))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_task(tmp_path, name):
    FORMS[name](tmp_path / name, [row("six", size=6), row("why\n is\u2028 it", selected=[3], text="a\nb\x85<p>")])
    (task,), dropped, source = run(msmarco.find_msmarco, tmp_path, datasets=["passage-5"])
    stem = name.split("-of")[0].split(".json")[0]
    assert task == {
        "task_id": f"passage-5:{stem}:2",
        "dataset": "passage-5",
        "scenario": "passage",
        "context": "why is it",
        "candidate_ids": ["0", "1", "2", "3", "4"],
        "candidates": [f"a b <p> {i} of why is it" for i in range(5)],
        "relevance": [0.0, 0.0, 0.0, 1.0, 0.0],
        "group": "why is it",
        "side": None,
        "history_ids": [],
        "time": None,
        "earlier": 0,
    }
    assert dropped == {"passage-5": {"queries: not 5 passages": 1}}
    assert (source.format, source.datasets) == ("MS MARCO", ("passage-5", "passage-7", "passage-9"))
    assert source.files == (tmp_path / name,)


@pytest.mark.parametrize("name", FORMS)
def test_the_number_of_passages_decides_the_dataset(tmp_path, name):
    FORMS[name](tmp_path / name, [row(f"q{n}", size=n, selected=[0]) for n in range(1, 12)])
    rows, dropped, _ = run(msmarco.find_msmarco, tmp_path)
    assert [(one["dataset"], one["context"], len(one["candidates"])) for one in rows] == [
        ("passage-5", "q5", 5),
        ("passage-7", "q7", 7),
        ("passage-9", "q9", 9),
    ]
    assert dropped == {f"passage-{n}": {f"queries: not {n} passages": 10} for n in (5, 7, 9)}
    rows, dropped, _ = run(msmarco.find_msmarco, tmp_path, Options(passages=10), ["passage-9"])
    assert [one["context"] for one in rows] == ["q10"]
    assert dropped == {"passage-9": {"queries: not 10 passages": 10}}


@pytest.mark.parametrize("name", FORMS)
def test_what_is_dropped(tmp_path, name):
    rows = [row("none", selected=()), row("two", selected=(1, 2)), row(" "), row("ok"), row("long", text="x" * 2000)]
    rows.append(row("blank"))
    rows[-1]["passages"]["passage_text"][1] = " \n"
    FORMS[name](tmp_path / name, rows)
    tasks, dropped, _ = run(msmarco.find_msmarco, tmp_path, datasets=["passage-5"])
    assert queries(tasks) == ["ok"]
    assert dropped["passage-5"] == {
        "queries: not exactly one selected passage": 2,
        "queries: an empty passage": 1,
        "queries: empty": 1,
        "queries: passages longer than 2600 characters": 1,
    }


def test_equal_passages_stay_apart_unless_one_of_them_is_the_selected_one(tmp_path):
    one, two = row("q"), row("r")
    best = one["passages"]["is_selected"].index(1)
    for query, text in ((one, "same"), (two, two["passages"]["passage_text"][best])):
        texts = query["passages"]["passage_text"]
        query["passages"]["passage_text"] = [own if place == best else text for place, own in enumerate(texts)]
    write_parquet(tmp_path / "a.parquet", [one, two])
    (task,), dropped, _ = run(msmarco.find_msmarco, tmp_path, datasets=["passage-5"])
    assert task["candidates"].count("same") == 4 and task["candidate_ids"] == ["0", "1", "2", "3", "4"]
    assert dropped["passage-5"] == {"queries: equal passages, selected and not": 1}


def test_blank_lines_are_counted_and_labels_may_be_absent(tmp_path):
    bare = objects(row("bare"))
    for one in bare["passages"]:
        del one["is_selected"]
    text = "\n".join(["", json.dumps(bare), "  ", json.dumps(objects(row("q"))), ""])
    write_bytes(tmp_path / "a.json", text.encode())
    tasks, dropped, _ = run(msmarco.find_msmarco, tmp_path, datasets=["passage-5"])
    assert [task["task_id"] for task in tasks] == ["passage-5:a:4"]
    assert dropped["passage-5"] == {"lines: blank": 2, "queries: not exactly one selected passage": 1}


# ------------------------------------------------------------------------------------------------------ files and sides


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        ("train-0 train-1 test-0", "train train test"),
        ("train-0 test-0 validation-0 other", "train test"),
        ("train-0 validation-0 dev", "train test test"),
        ("test-0 validation-0", "None None"),
        ("train-0 latest contest", "None None None"),
        ("train/0 test/0", "train test"),
        ("v1/train/0 v1/validation/0 v1/test/0", "train test"),
        ("train_v1.1 dev_v1.1", "train test"),
    ],
)
def test_names_decide_the_sides(tmp_path, names, sides):
    for name in names.split():
        write_parquet(tmp_path / f"{name}.parquet", [row(name)])
    tasks, _, source = run(msmarco.find_msmarco, tmp_path)
    found = {task["context"]: str(task["side"]) for task in tasks}
    expected = dict(zip([name for name in names.split() if name in found], sides.split(), strict=True))
    assert found == expected
    assert len(source.files) == len(expected)
    assert len({task["task_id"] for task in tasks}) == len(tasks)


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
def test_a_test_file_without_labels_gives_way(tmp_path, suffix):
    write = write_parquet if suffix == ".parquet" else write_columns
    write(tmp_path / f"train{suffix}", [row("t")])
    write(tmp_path / f"dev{suffix}", [row("d")])
    write(tmp_path / f"eval{suffix}", [row("e1", selected=()), row("e2", selected=())])
    tasks, _, _ = run(msmarco.find_msmarco, tmp_path)
    assert [(task["context"], task["side"]) for task in tasks] == [("t", "train"), ("d", "test")]
    write(tmp_path / f"eval{suffix}", [row("e1", selected=()), row("e2")])
    tasks, _, _ = run(msmarco.find_msmarco, tmp_path)
    assert [(task["context"], task["side"]) for task in tasks] == [("t", "train"), ("e2", "test")]


def test_a_test_file_without_labels_alone_is_read_and_counted(tmp_path):
    write_parquet(tmp_path / "test.parquet", [row("e1", selected=())])
    tasks, dropped, _ = run(msmarco.find_msmarco, tmp_path, datasets=["passage-5"])
    assert (tasks, dropped) == ([], {"passage-5": {"queries: not exactly one selected passage": 1}})


def test_folders_and_forms_are_sources_of_their_own(tmp_path):
    write_parquet(tmp_path / "v1.1" / "train.parquet", [row("a")])
    write_parquet(tmp_path / "v2.1" / "train" / "0.parquet", [row("b")])
    write_columns(tmp_path / "v2.1" / "train_v2.1.json", [row("b")])
    assert [len(source.files) for source in find(msmarco.find_msmarco, tmp_path)] == [1, 1, 1]


def test_one_file_twice_is_refused(tmp_path):
    write_lines(tmp_path / "train.json", [row("a")])
    write_lines(tmp_path / "train.json.gz", [row("a")])
    with pytest.raises(
        UserError, match=r"train.json and .*train.json.gz have one name, like the same data twice; keep"
    ):
        find(msmarco.find_msmarco, tmp_path)


def test_row_groups_are_units(tmp_path, monkeypatch):
    rows = [row(f"q{n}", size=5 if n % 3 else 6) for n in range(1, 61)]
    write_parquet(tmp_path / "train.parquet", rows, row_group_size=7)
    whole, dropped, _ = run(msmarco.find_msmarco, tmp_path)
    assert [task["task_id"] for task in whole] == [f"passage-5:train:{n}" for n in range(1, 61) if n % 3]
    monkeypatch.setattr(msmarco, "UNIT_ROWS", 14)
    (source,) = find(msmarco.find_msmarco, tmp_path)
    assert [unit.name for unit in source.units] == [f"msmarco:train:{n}" for n in (1, 15, 29, 43, 57)]
    parts = run(msmarco.find_msmarco, tmp_path)
    assert (parts[0], parts[1]) == (whole, dropped)


def test_rows_are_counted_over_batches(tmp_path):
    write_parquet(tmp_path / "train.parquet", [row("short", size=1)] * 2500 + [row("last"), row("b") | {"query": None}])
    with pytest.raises(UserError, match=r"train.parquet row 2502: query is 'None'"):
        run(msmarco.find_msmarco, tmp_path)
    write_parquet(tmp_path / "train.parquet", [row("short", size=1)] * 2500 + [row("last")])
    assert run(msmarco.find_msmarco, tmp_path)[0][0]["task_id"] == "passage-5:train:2501"


def test_the_name_of_the_folder_that_was_given_decides_nothing(tmp_path):
    raw = tmp_path / "test"
    for name in ("train", "more"):
        write_parquet(raw / f"{name}.parquet", [row(name)])
    assert {task["side"] for task in run(msmarco.find_msmarco, raw)[0]} == {None}


def test_files_of_something_else_are_left_alone(tmp_path):
    pq.write_table(pa.table({"query": ["x"], "effect": [1.0]}), tmp_path / "router.parquet")
    write_bytes(tmp_path / "hits.json", b'[{"query": "x", "hits": []}]')
    write_bytes(tmp_path / "a.jsonl", b'{"query": "x", "candidates": []}\n')
    write_bytes(tmp_path / "b.json", b'{"query": {"text": "x"}, "passages": 1}')
    write_bytes(tmp_path / "c.json", b"\x80 not JSON")
    write_bytes(tmp_path / "d.json.gz", b"")
    (tmp_path / "d.json.gz").write_bytes(b"not gzip")
    write_bytes(tmp_path / "e.txt", json.dumps(objects(row("q"))).encode())
    assert not find(msmarco.find_msmarco, tmp_path)


# -------------------------------------------------------------------------------------------------------- what is refused


def broken(**changes):
    return row("b") | changes


def lists(flags, texts):
    return {"is_selected": flags, "passage_text": texts, "url": []}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (broken(query=None), "row 2: query is 'None', not a text; correct"),
        (broken(passages=None), "row 2: passages has no lists passage_text and is_selected"),
        (broken(passages=lists([1] + [0] * 3, list("abcde"))), "row 2: 5 passages but 4 is_selected flags"),
        (broken(passages=lists([2] + [0] * 4, list("abcde"))), "row 2: is_selected is '2', not 0 or 1"),
        (broken(passages=lists([None] + [0] * 4, list("abcde"))), "row 2: is_selected is 'None', not 0 or 1"),
        (
            broken(passages=lists([1] + [0] * 4, ["a", None, "c", "d", "e"])),
            "row 2: a passage_text is 'None', not a text",
        ),
    ],
)
@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl"])
def test_a_bad_row(tmp_path, name, bad, message):
    FORMS["train.jsonl" if name == "train.jsonl" else "train-00000-of-00001.parquet"](tmp_path / name, [row("a"), bad])
    with pytest.raises(UserError, match=message) as error:
        run(msmarco.find_msmarco, tmp_path, datasets=["passage-5"])
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"query": "x", "passages": "text"}', "row 2: passages has no lists"),
        (b'{"query": "x", "passages": ["text"]}', "row 2: passages has no lists"),
        (b'{"query": "x"}', "row 2: passages has no lists"),
        (b'{"passages": []}', "row 2: query is 'None', not a text"),
        (
            b'{"query": "x", "passages": [{"passage_text": "x", "is_selected": 1}, {"passage_text": "y"}]}',
            "is_selected is 'None'",
        ),
        (b'{"query": "x", "passages": [{"is_selected": 1}]}', "row 2: a passage_text is 'None'"),
        (b"[1, 2]", "row 2: not a JSON object, but"),
        (b'{"query": "cut of', "row 2: not a JSON object, but"),
        (b'{"query": "\xff"}', "row 2: not a JSON object, but"),
    ],
)
def test_a_bad_line(tmp_path, line, message):
    write_lines(tmp_path / "train.json", [row("a")])
    with (tmp_path / "train.json").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(UserError, match=message) as error:
        run(msmarco.find_msmarco, tmp_path)
    assert "train.json row 2" in str(error.value)


def test_a_huge_line_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "MAX_TEXT", 3000)
    write_lines(tmp_path / "train.json", [row("a"), row("b", text="x" * 700)])
    with pytest.raises(UserError, match=r"train.json row 2: a line of more than"):
        run(msmarco.find_msmarco, tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.list_(pa.struct([("is_selected", pa.int32())])),
        pa.struct([("is_selected", pa.list_(pa.int32()))]),
    ],
)
def test_other_columns(tmp_path, kind):
    write_parquet(tmp_path / "train.parquet", [], pa.schema([("query", pa.string()), ("passages", kind)]))
    with pytest.raises(UserError, match=r"train.parquet: passages is .*, not a struct of the lists is_selected and"):
        run(msmarco.find_msmarco, tmp_path)


def test_columns_of_json_that_do_not_fit_together(tmp_path):
    own = json.loads(write_columns(tmp_path / "a.json", [row("a"), row("b")]).read_bytes())
    for change, message in (
        ({"query": {"0": "a"}}, "row 2: the columns do not have the same keys .query has 'None', passages has '1'."),
        ({"query": {"0": "a", "7": "b"}}, "row 2: the columns do not have the same keys"),
        ({"passages": {}}, "row 1: the columns do not have the same keys .query has '0', passages has 'None'."),
    ):
        (tmp_path / "a.json").write_text(json.dumps(own | change))
        with pytest.raises(UserError, match=message):
            run(msmarco.find_msmarco, tmp_path)


# ----------------------------------------------------------------------------------------------------------- damaged files


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(sorted(FORMS)), where=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_never_passes_for_a_whole_one(tmp_path_factory, name, where):
    raw = tmp_path_factory.mktemp("cut")
    path = FORMS[name](raw / name, [row(f"{n} \u2028", text="ä" * n) for n in range(20)])
    content = path.read_bytes()
    cut = content[: int(len(content) * where)]
    path.write_bytes(cut)
    whole_lines = (
        name.endswith((".json", ".jsonl"))
        and "v2" not in name
        and (cut.endswith(b"\n") or content[len(cut) :][:1] == b"\n")
    )
    try:
        tasks, _, _ = run(msmarco.find_msmarco, raw, datasets=["passage-5"])
    except ValueError:
        assert not find(msmarco.find_msmarco, raw)  # so little of it that it is not known for what it is
    except UserError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert whole_lines and 0 < len(tasks) <= 20  # cut between two lines: nothing tells


def test_a_damaged_byte(tmp_path):
    write_columns(tmp_path / "a.json", [row("a")])
    content = (tmp_path / "a.json").read_bytes()
    (tmp_path / "a.json").write_bytes(content.replace(b"passage 3", b"passage \xff"))
    with pytest.raises(UserError, match=r"a.json row 1: not a whole JSON file \(.*utf-8.*\); fetch it again"):
        run(msmarco.find_msmarco, tmp_path)
    path = write_columns(tmp_path / "a.json.gz", [row(f"q{n}") for n in range(50)])
    (tmp_path / "a.json").unlink()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # of the length that ends the file
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a.json.gz: gzip data cut off or damaged"):
        discover(tmp_path)


NOISE = random.Random(1)
LONG = [row(f"q{n}", text=NOISE.randbytes(1200).hex()) for n in range(700)]


def test_columns_of_json_take_the_memory_of_a_row(tmp_path):
    path = write_columns(tmp_path / "train.json", LONG)
    tracemalloc.start()
    assert sum(1 for _ in documents.json_columns(path, ("query", "passages"))) == len(LONG)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 8_000_000
    assert peak < 3_000_000  # two open files with a buffer each, and little more


def test_parquet_takes_the_memory_of_a_batch(tmp_path):
    path = write_parquet(tmp_path / "train.parquet", LONG * 4, row_group_size=10**6, use_dictionary=False)
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in parquet.parquet_batches(path, msmarco.COLUMNS)]
    assert path.stat().st_size > 9_000_000
    assert len(held) == 3
    assert max(held) < 18_000_000  # a batch of 1,024 rows is 12 MB; the row group's bytes would make it 25


# --------------------------------------------------------------------------------------------------------------- real data


@pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")
def test_real_files():
    tasks, dropped, source = run(msmarco.find_msmarco, DATA, Options(max_chars=6000))  # no query of these has so many
    assert [path.name for path in source.files] == ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"]
    used = Counter((task["dataset"], task["side"]) for task in tasks)
    expected: Counter = Counter()
    rows = 0
    for side in ("train", "test"):
        for one in pq.read_table(DATA / f"{side}-00000-of-00001.parquet").to_pylist():
            rows += 1
            flags, texts = one["passages"]["is_selected"], one["passages"]["passage_text"]
            alone = 1 in flags and texts.count(texts[flags.index(1)]) == 1
            if flags.count(1) == 1 and alone and sum(map(len, texts)) <= 6000 and len(flags) in (5, 7, 9):
                expected[f"passage-{len(flags)}", side] += 1
    assert used == expected
    assert used == {
        ("passage-5", "train"): 109,
        ("passage-5", "test"): 114,
        ("passage-7", "train"): 90,
        ("passage-7", "test"): 98,
        ("passage-9", "train"): 74,
        ("passage-9", "test"): 81,
    }
    for dataset, several in (("passage-5", 7), ("passage-7", 3), ("passage-9", 2)):
        own = sum(n for (name, _), n in used.items() if name == dataset)
        size = dataset[-1]
        assert dropped[dataset] == {
            f"queries: not {size} passages": rows - own - several - (dataset == "passage-7"),
            "queries: not exactly one selected passage": several,
        } | ({"queries: equal passages, selected and not": 1} if dataset == "passage-7" else {})
