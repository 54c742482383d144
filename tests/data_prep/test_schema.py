"""The Parquet schema: tasks survive it, broken files are one clear line, and no file is ever half written."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.rows import episode_rows, write_tasks
from data_prep.schema import SCHEMA, ContentHash, read_manifest, read_rows, read_tasks
from iranker_verl.errors import UserError
from iranker_verl.files import claimed
from iranker_verl.ranking import DATASETS, Candidate, RankingTask
from iranker_verl.ranking.task import tasks_hash
from iranker_verl.ranking.templates import load, parse

LABEL, THINK = load("label"), load("think-text")


def make(id="t0", texts=("x", "y", "z"), relevance=(0.0, 1.0, 0.0), dataset="rec-movie", context="c"):
    candidates = tuple(Candidate(f"{id}-{i}", t) for i, t in enumerate(texts))
    return RankingTask(id, DATASETS[dataset], dataset, context, candidates, tuple(relevance))


TASKS = [
    make("t0"),
    make("t1", relevance=(0.25, 1.0, 0.5), dataset="router-cost", context="line\nline \u6771 {context}"),
    make("t2", texts=("same", "same"), relevance=(1.0, 0.0), dataset="passage-5", context=""),
    make("t3", texts=tuple(f"text {i}" for i in range(60)), relevance=(0.0,) * 59 + (1.0,)),
]


@pytest.fixture
def prepared(tmp_path):
    path = tmp_path / "train.parquet"
    assert write_tasks(path, iter(TASKS), LABEL, "train") == len(TASKS)
    return path


def test_tasks_survive(prepared):
    assert read_tasks(prepared, LABEL) == TASKS
    assert read_tasks(prepared) == TASKS


def test_a_row_as_verl_takes_it(prepared):
    rows = list(read_rows(prepared))
    assert [list(r) for r in rows] == [SCHEMA.names] * len(TASKS)
    assert rows[0] == {
        "data_source": "rec-movie",
        "prompt": [
            {"role": "user", "content": "History: c\nCandidates:\n[A] x\n[B] y\n[C] z\nExclude the worst:"},
        ],
        "ability": "ranking",
        "reward_model": {
            "style": "rule",
            "ground_truth": {"candidates": ["x", "y", "z"], "target": 1, "relevance": None},
        },
        "agent_name": "elimination_agent",
        "extra_info": {
            "index": 0,
            "split": "train",
            "row_kind": "episode",
            "task_id": "t0",
            "scenario": "recommendation",
            "group": "t0",
            "time": None,
            "context": "c",
            "candidate_ids": ["t0-0", "t0-1", "t0-2"],
            "history_ids": [],
            "template_id": "label",
            "template_hash": LABEL.hash,
        },
    }
    assert rows[1]["reward_model"]["ground_truth"]["relevance"] == [0.25, 1.0, 0.5]
    assert [r["extra_info"]["index"] for r in rows] == [0, 1, 2, 3]


text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
some_tasks = st.lists(
    st.tuples(
        st.lists(st.tuples(text, st.floats(-5, 5)), min_size=2, max_size=6).filter(
            lambda c: len({r for _, r in c}) > 1
        ),
        st.text(st.characters(codec="utf-8"), max_size=12),
        st.sampled_from(sorted(DATASETS)),
        st.booleans(),
    ),
    max_size=4,
)


@given(some_tasks)
@settings(max_examples=40, deadline=None)
def test_any_task_survives(tmp_path_factory, drawn):
    tasks = []
    for i, (pairs, context, dataset, plain) in enumerate(drawn):
        relevance = [r for _, r in pairs] if not plain else [float(j == 0) for j in range(len(pairs))]
        tasks.append(make(f"t{i}", [t for t, _ in pairs], relevance, dataset, context))
    path = tmp_path_factory.mktemp("any") / "x.parquet"
    write_tasks(path, tasks, THINK, "test")
    again = read_tasks(path, THINK)
    assert again == tasks
    assert tasks_hash(again) == tasks_hash(tasks)


def test_another_template_is_refused_with_both_hashes(prepared):
    with pytest.raises(UserError) as error:
        read_tasks(prepared, THINK)
    message = str(error.value)
    assert f"{prepared} row 0" in message and LABEL.hash in message and THINK.hash in message
    # the same id with other content is another template
    edited = parse(f"{(_yaml(LABEL))}", "edited")
    with pytest.raises(UserError, match=edited.hash):
        read_tasks(prepared, edited)


def _yaml(template):
    content = {k: getattr(template, k) for k in ("id", "answer", "candidate", "system", "user")}
    return json.dumps(content | {"system": "Be brief."})


# ---------------------------------------------------------------- broken files


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.parquet: no such file; run `iranker prepare` first"):
        read_tasks(tmp_path / "none.parquet")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file(prepared, share):
    content = prepared.read_bytes()
    prepared.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError) as error:
        read_tasks(prepared)
    assert str(prepared) in str(error.value) and "not a readable Parquet file" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_and_a_text_file_are_no_parquet(tmp_path):
    (tmp_path / "a.parquet").write_text("user,item\n1,2\n")
    (tmp_path / "b.parquet").mkdir()
    for name in ("a.parquet", "b.parquet"):
        with pytest.raises(UserError, match="not a readable Parquet file"):
            read_tasks(tmp_path / name)


def test_a_foreign_parquet_names_the_column(tmp_path):
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"data_source": ["x"], "question": ["y"]}), path)
    with pytest.raises(UserError, match="column 'prompt' is missing"):
        read_tasks(path)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("extra_info", pa.array(["text"])),
        ("extra_info", pa.array([None])),
        ("extra_info", pa.array([{"index": 0}])),
        ("reward_model", pa.array([3])),
        ("reward_model", pa.array([{"ground_truth": "A"}])),
    ],
)
@pytest.mark.parametrize("template", [None, LABEL])
def test_columns_of_another_type_are_one_line_with_the_row(tmp_path, column, values, template):
    path = tmp_path / "odd.parquet"
    table = episode_rows(TASKS[:1], LABEL, "train")
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, values), path)
    with pytest.raises(UserError) as error:
        read_tasks(path, template)
    assert f"{path} row 0" in str(error.value) and "\n" not in str(error.value)


def test_rows_without_a_template_are_refused_where_one_is_used(tmp_path):
    path = tmp_path / "old.parquet"
    (row,) = episode_rows(TASKS[:1], LABEL, "train").to_pylist()
    del row["extra_info"]["template_hash"]
    pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA), path)
    assert read_tasks(path) == TASKS[:1]
    with pytest.raises(UserError, match="row 0"):
        read_tasks(path, LABEL)


# ---------------------------------------------------------------- all or nothing


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def tasks():
        yield TASKS[0]
        raise UserError("row 2 is wrong")

    with pytest.raises(UserError, match="row 2"):
        write_tasks(tmp_path / "train.parquet", tasks(), LABEL, "train")
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_keeps_the_file_before(tmp_path, monkeypatch):
    with claimed(tmp_path / "ours"):
        write_tasks(tmp_path / "ours" / "train.parquet", TASKS, LABEL, "train")
    before = (tmp_path / "ours" / "train.parquet").read_bytes()

    def fail(table, where, **_):
        where.write_bytes(b"PAR1 half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(UserError, match=r"train.parquet: cannot be written \(no space left on device\)"):
        write_tasks(tmp_path / "ours" / "train.parquet", TASKS, LABEL, "train")
    assert (tmp_path / "ours" / "train.parquet").read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == [".iranker", "train.parquet"]


def test_text_that_is_no_unicode_leaves_nothing(tmp_path):
    with pytest.raises((ValueError, pa.ArrowException)):
        write_tasks(tmp_path / "train.parquet", [make(texts=("\ud800", "y", "z"))], LABEL, "train")
    assert list(tmp_path.iterdir()) == []


def test_no_tasks_is_a_file_without_rows(tmp_path):
    assert write_tasks(tmp_path / "x.parquet", [], LABEL, "train") == 0
    assert read_tasks(tmp_path / "x.parquet", LABEL) == []


# ---------------------------------------------------------------- manifest and hash


def test_a_missing_or_broken_manifest(tmp_path):
    with pytest.raises(UserError, match=r"manifest\.json: no such file"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b'{"seed": 1')
    with pytest.raises(UserError, match="not valid JSON"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not valid JSON"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"seed": 1}')
    assert read_manifest(tmp_path) == {"seed": 1}
    with pytest.raises(UserError, match="is not a folder of `iranker prepare`"):
        read_manifest(tmp_path / "manifest.json")  # a file where a folder is asked for


def test_the_hash_of_tasks_covers_content_and_order():
    reference = tasks_hash(TASKS)
    assert reference == tasks_hash(iter(list(TASKS)))
    assert len(reference) == 16
    others = [
        TASKS[::-1],
        TASKS[:-1],
        [make("t9"), *TASKS[1:]],
        [make(texts=("x", "y", "w")), *TASKS[1:]],
        [make(relevance=(1.0, 0.0, 0.0)), *TASKS[1:]],
        [make(context="d"), *TASKS[1:]],
        [make(dataset="rec-game"), *TASKS[1:]],
        [replace(TASKS[0], history=("t0-9",)), *TASKS[1:]],  # what BPR and SASRec rank from
    ]
    assert len({tasks_hash(t) for t in others} | {reference}) == len(others) + 1


def test_the_data_hash_covers_what_rows_say_whatever_the_batches():
    def digest(tasks, cut=1, template=LABEL):
        content = ContentHash()
        table = episode_rows(tasks, template, "train")
        for start in range(0, table.num_rows, cut):
            content.update(table.slice(start, cut))
        return ContentHash.of(content)

    reference = digest(TASKS)
    assert {digest(TASKS, cut) for cut in (2, 3, 9)} == {reference} == {digest(TASKS, template=THINK)}
    others = [
        TASKS[::-1],
        TASKS[:-1],
        [make("t9"), *TASKS[1:]],
        [make(texts=(*("x", "yz", "")[:2], "w")), *TASKS[1:]],
        [make(texts=("xy", "z", "z")), *TASKS[1:]],
        [make(relevance=(1.0, 0.0, 0.0)), *TASKS[1:]],
        [make(relevance=(0.0, 2.0, 0.0)), *TASKS[1:]],
        [make(context="d"), *TASKS[1:]],
        [make(dataset="rec-game"), *TASKS[1:]],
    ]
    assert len({digest(t) for t in others} | {reference}) == len(others) + 1
    one, two = ContentHash(), ContentHash()
    one.update(episode_rows(TASKS[:1], LABEL, "train"))
    two.update(episode_rows(TASKS[1:], LABEL, "train"))
    assert ContentHash.of(one, two) != ContentHash.of(two, one)
