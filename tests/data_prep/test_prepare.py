"""From raw files to a prepared folder: all or nothing, reproducible, and honest about what it is made of."""

import csv
import hashlib
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import assemble, spool
from data_prep import prepare as prepare_module
from data_prep.lengths import KEPT, check_files, refuse_long_rows
from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.scenarios import recommendation as sampler
from data_prep.schema import SPLITS, read_manifest, read_rows, read_tasks
from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS
from iranker_verl.ranking.templates import load

LABEL, THINK = load("label"), load("think-label")
SMALL = Options(history=2, candidates=3)


def recommendation(folder, users=10):
    folder.mkdir(parents=True)
    items = "".join(f"i{n}\tItem {n}\n" for n in range(20))
    (folder / "data.item").write_text("item_id:token\ttitle:token_seq\n" + items)
    events = "".join(f"u{u}\ti{(u + n) % 20}\t{n}\n" for u in range(users) for n in range(4))
    (folder / "data.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + events)


def routing(folder, queries=10):
    folder.mkdir(parents=True)
    with (folder / "router_data.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["task_id", "query", "llm", "effect", "cost", "cost_raw"])
        for q in range(queries):
            table.writerows(
                [["t", f"query {q} about {q * 7}", f"llm{n}", (q + n) % 4 / 4, n / 4, n / 1000] for n in range(4)]
            )


def passages(folder, queries=6, sizes=(5, 7, 9)):
    folder.mkdir(parents=True)
    rows = [
        {
            "query": f"question{q}",
            "passages": {"is_selected": [1] + [0] * (n - 1), "passage_text": [f"p{i}" for i in range(n)]},
        }
        for q in range(queries)
        for n in sizes
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data.parquet")


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    for name in ("rec-movie", "rec-music", "rec-game"):
        recommendation(folder / name)
    routing(folder / "router")
    passages(folder / "passage")
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def beside(folder):
    return sorted(path.name for path in folder.parent.iterdir())


def visible(folder):
    return [name for name in beside(folder) if not name.startswith(".")]


def work_of(folder):
    return [name for name in beside(folder) if name.startswith(f".{folder.name}.") and name.endswith(".work")]


def test_all_nine(raw, tmp_path):
    out, said = tmp_path / "deep" / "out", []
    manifest = prepare(raw, out, LABEL, SMALL, progress=said.append)
    assert manifest == read_manifest(out) == json.loads((out / "manifest.json").read_text())
    assert list(manifest["datasets"]) == manifest["tasks"] == list(DATASETS)
    # 10 users or queries: 8 and 2. 6 queries with passages: 5 and 1.
    split_of = {"recommendation": (8, 2, 3), "routing": (8, 2, 4)}
    for name, row in manifest["datasets"].items():
        size = int(name[-1]) if name.startswith("passage") else 0
        train, test, candidates = split_of.get(DATASETS[name], (5, 1, size))
        dropped = {f"queries: not {size} passages": 12} if size else {}
        assert row == {"train": train, "test": test, "candidates": candidates, "dropped": dropped}, name
    assert {key: manifest[key] for key in ("schema_version", "seed", "template_id", "template_hash")} == {
        "schema_version": 2,
        "seed": 1,
        "template_id": "label",
        "template_hash": LABEL.hash,
    }
    assert manifest["options"]["history"] == 2
    assert set(manifest["versions"]) == {"iranker-verl", "pyarrow", "numpy", "pandas", "python"}
    assert manifest["inputs"]["router/router_data.csv"] == {
        "bytes": (raw / "router/router_data.csv").stat().st_size,
        "sha256": hashlib.sha256((raw / "router/router_data.csv").read_bytes()).hexdigest(),
    }
    assert len(manifest["inputs"]) == 8
    train, test = (read_tasks(out / f"{split}.parquet", LABEL) for split in ("train", "test"))
    assert (len(train), len(test)) == (6 * 8 + 3 * 5, 6 * 2 + 3)
    assert all(check["ok"] for check in manifest["checks"]) and len(manifest["checks"]) > 5
    assert manifest["rows"] == {"train": len(train), "test": len(test)}
    assert not {t.id for t in train} & {t.id for t in test}
    assert len({t.id for t in train + test}) == len(train + test)
    # shuffled over the datasets
    assert [t.dataset for t in train] != sorted((t.dataset for t in train), key=list(DATASETS).index)
    assert said[0] == "found " + ", ".join(DATASETS)
    assert "router-cost: 8 train, 2 test; dropped nothing" in said
    assert beside(out) == ["out"]


def test_the_same_again_byte_for_byte(raw, tmp_path):
    prepare(raw, tmp_path / "one", LABEL, SMALL)
    prepare(raw, tmp_path / "two", LABEL, SMALL)
    prepare(raw, tmp_path / "other", LABEL, Options(history=2, candidates=3, seed=2))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one")["test.parquet"] != contents(tmp_path / "other")["test.parquet"]


def test_used_again_only_where_nothing_changed(raw, tmp_path):
    out, said = tmp_path / "out", []
    first = prepare(raw, out, LABEL, SMALL)
    stamp = (out / "train.parquet").stat().st_mtime_ns

    def again(template=LABEL, options=SMALL, tasks=None):
        said.clear()
        manifest = prepare(raw, out, template, options, tasks, said.append)
        return manifest, any("used again" in line for line in said)

    assert again() == (first, True)
    assert (out / "train.parquet").stat().st_mtime_ns == stamp
    assert not again(template=THINK)[1]
    assert not again(options=Options(history=2, candidates=4))[1]
    assert not again(tasks=["rec-movie"])[1]
    assert not again()[1]
    assert again()[1]
    with (raw / "rec-game" / "data.inter").open("a") as file:
        file.write("u0\ti9\t9\n")
    assert not again()[1]
    (out / "train.parquet").write_bytes(b"cut off")  # whoever damaged it
    assert not again()[1]
    assert again()[1]
    assert beside(out) == ["out", "raw"]


def test_a_failure_leaves_the_old_folder(raw, tmp_path, monkeypatch):
    out = tmp_path / "out"
    prepare(raw, out, LABEL, SMALL)
    before = contents(out)

    def full(self, table):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(assemble._Writer, "write", full)
        with pytest.raises(UserError, match=r"out: cannot be written \(No space left on device\)"):
            prepare(raw, out, THINK, SMALL)
    assert (contents(out), visible(out)) == (before, ["out", "raw"]) and work_of(out)
    said = []
    with monkeypatch.context() as patch:  # the same command goes on
        patch.setattr(assemble._Writer, "write", full)
        with pytest.raises(UserError, match="No space left"):
            prepare(raw, out, THINK, SMALL, progress=said.append)
    assert any("pieces were done before" in line for line in said)

    def stopped(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(assemble._Writer, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(raw, out, THINK, SMALL)
    assert contents(out) == before and work_of(out) and visible(out) == ["out", "raw"]  # what is done is kept
    prepare(raw, out, LABEL, SMALL)
    assert contents(out) == before and work_of(out)
    prepare(raw, out, THINK, SMALL)
    assert contents(out) != before and beside(out) == ["out", "raw"]


def test_only_the_datasets_that_are_asked_for(raw, tmp_path):
    manifest = prepare(raw, tmp_path / "out", LABEL, SMALL, ["passage-7", "rec-music"])
    assert list(manifest["datasets"]) == ["rec-music", "passage-7"]
    assert list(manifest["inputs"]) == ["passage/data.parquet", "rec-music/data.inter", "rec-music/data.item"]
    assert {r["data_source"] for r in read_rows(tmp_path / "out" / "train.parquet")} == {"rec-music", "passage-7"}


def test_one_file(raw, tmp_path):
    manifest = prepare(raw / "router" / "router_data.csv", tmp_path / "out", LABEL)
    assert list(manifest["inputs"]) == ["router_data.csv"]
    assert list(manifest["datasets"]) == ["router-performance", "router-cost", "router-balance"]


def test_names_that_do_not_fit(raw, tmp_path):
    with pytest.raises(UserError, match="nothing to prepare rec-film from; found rec-movie"):
        prepare(raw, tmp_path / "out", LABEL, SMALL, ["rec-movie", "rec-film"])
    with pytest.raises(UserError, match="nothing to prepare passage-5, router-cost from; found rec-movie"):
        prepare(raw / "rec-movie", tmp_path / "out", LABEL, SMALL, ["passage-5", "rec-movie", "router-cost"])
    assert not (tmp_path / "out").exists()


def test_places_that_must_not_be_written(raw, tmp_path):
    for out in (raw, tmp_path, raw / "rec-movie" / ".."):
        with pytest.raises(UserError, match="holds the raw data"):
            prepare(raw, out, LABEL, SMALL)
    with pytest.raises(UserError, match=r"it would be replaced, but holds .*, which iranker did not make"):
        prepare(raw, raw / "rec-movie", LABEL, SMALL)
    prepare(raw / "router" / "router_data.csv", raw / "router" / "prepared", LABEL)  # of a file all else is no raw data
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(
        UserError, match=r"mine: it would be replaced, but holds thesis.txt, which iranker did not make"
    ):
        prepare(raw, tmp_path / "mine", LABEL, SMALL)
    with pytest.raises(UserError, match="a file is in the way"):
        prepare(raw, tmp_path / "mine" / "thesis.txt", LABEL, SMALL)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    prepare(raw, tmp_path / "empty", LABEL, SMALL)


@pytest.mark.parametrize("place", ["prepared", "deep/er", "router/../out", "../link/prepared"])
def test_what_is_prepared_into_the_raw_folder_is_no_raw_data_the_next_time(raw, tmp_path, place):
    (tmp_path / "link").symlink_to(raw)
    first = prepare(raw, raw / place, LABEL, SMALL)
    told = []
    assert prepare(raw, raw / place, LABEL, SMALL, progress=told.append) == first and "used again" in told[-1]
    second = prepare(raw, raw / place, LABEL, Options(candidates=SMALL.candidates - 1))
    assert second["inputs"] == first["inputs"] and first["not_read"] == second["not_read"]


def test_no_task_at_all(raw, tmp_path):
    with pytest.raises(UserError, match=r"no task of rec-movie could be made \(users: fewer than 21 items: 10\)"):
        prepare(raw / "rec-movie", tmp_path / "out", LABEL)
    with pytest.raises(UserError, match="no task of rec-music could be made"):
        prepare(raw, tmp_path / "out", LABEL, tasks=["rec-music", "router-cost"])
    # Not asked for by name, it comes out empty beside the others, and the manifest says why.
    manifest = prepare(raw, tmp_path / "out", LABEL)
    assert manifest["datasets"]["rec-movie"] == {
        "train": 0,
        "test": 0,
        "candidates": 0,
        "dropped": {"users: fewer than 21 items": 10},
    }


def test_one_user_cannot_be_split(tmp_path):
    recommendation(tmp_path / "rec-game", users=1)
    with (tmp_path / "rec-game" / "data.inter").open("a") as file:
        file.writelines(f"short{n}\ti{n}\t0\n" for n in range(20))
    with pytest.raises(
        UserError, match="no test task could be made; give more users or queries, or one file to be split"
    ):
        prepare(tmp_path / "rec-game", tmp_path / "out", LABEL, SMALL)


def test_errors_of_the_loaders_pass_through_and_leave_nothing(raw, tmp_path):
    with (raw / "rec-music" / "data.inter").open("a") as file:
        file.write("u1\ti1")
    with pytest.raises(UserError, match=r"rec-music/data.inter row 42: 2 fields"):
        prepare(raw, tmp_path / "out", LABEL, SMALL)
    assert beside(tmp_path / "out") == ["raw"]


def words(messages):
    return sum(len(m["content"].split()) for m in messages)


@pytest.mark.parametrize("processes", [False, True])
def test_prompts_that_are_too_long(raw, tmp_path, monkeypatch, processes):
    if processes:
        monkeypatch.setattr(assemble, "ROW_GROUP", 20)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    out = tmp_path / "out"
    prepare(raw, out, LABEL, SMALL)
    files = [out / "train.parquet", out / "test.parquet"]
    rows = [row for file in files for row in read_rows(file)]
    lengths = [words(row["prompt"]) for row in rows]
    longest = max(lengths)
    assert check_files(files, LABEL, words, longest) == longest
    worst = rows[lengths.index(longest)]["extra_info"]["task_id"]
    with pytest.raises(UserError) as error:
        check_files(files, LABEL, words, longest - 1)
    assert str(error.value).startswith(
        f"the prompt of task '{worst}' has {longest} tokens, the limit is {longest - 1} ({lengths.count(longest)} prompts are too long)"
    )
    assert "prepare with a smaller" in str(error.value)
    with pytest.raises(UserError, match="this run uses think-label"):
        check_files(files, THINK, words, longest)


def test_prompts_are_counted_once_and_again_where_anything_differs(raw, tmp_path):
    """What was kept of other content, another tokenizer or another template, or was damaged, is not trusted."""
    out, counted = tmp_path / "out", []
    prepare(raw, out, LABEL, SMALL)
    files = [out / "train.parquet", out / "test.parquet"]

    def count(messages):
        counted.append(1)
        return words(messages)

    def calls(limit=10**6, counter="a tokenizer"):
        counted.clear()
        longest = check_files(files, LABEL, count, limit, {"counter": counter})
        assert longest == true
        return len(counted)

    true = check_files(files, LABEL, words, 10**6)
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    assert [calls(), calls(), calls(limit=true)] == [rows, 0, 0]
    assert calls(counter="another") == rows and calls(counter="another") == 0
    with pytest.raises(UserError, match="the limit is 5 "):
        calls(limit=5, counter="another")
    table = pq.read_table(files[1])
    pq.write_table(table.slice(1), files[1])
    true = check_files(files, LABEL, words, 10**6)
    assert [calls(), calls()] == [rows - 1, 0]
    for damage in ("", "[]", "{}", '{"tokens": 3}', (out / KEPT).read_text()[:-20]):
        (out / KEPT).write_text(damage)
        assert [calls(), calls()] == [rows - 1, 0]
    with pytest.raises(UserError, match="this run uses think-label"):
        check_files(files, THINK, words, true, {"counter": "a tokenizer"})
    prepare(raw, out, LABEL, SMALL)  # the folder is still ours, with what was kept in it


def test_prompts_are_counted_before_anything_is_published(raw, tmp_path):
    with pytest.raises(UserError, match="the limit is 5"):
        prepare(raw, tmp_path / "new", LABEL, SMALL, inspect=lambda rows: refuse_long_rows(rows, words, 5))
    assert beside(tmp_path / "new") == ["raw"]
    prepare(raw, tmp_path / "new", LABEL, SMALL, inspect=lambda rows: refuse_long_rows(rows, words, 5000))


@pytest.mark.parametrize("kind", ["episodes", "states"])
def test_the_same_bytes_on_one_process_or_many_and_in_any_pieces(raw, tmp_path, monkeypatch, kind):
    options = Options(history=2, candidates=3, rows=kind, orders=2)
    prepare(raw, tmp_path / "one", LABEL, options, processes=1)
    prepare(raw, tmp_path / "two", LABEL, options, processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    monkeypatch.setattr(sampler, "BUCKET_BYTES", 50)
    monkeypatch.setattr(prepare_module, "RANGE_BYTES", 500)
    monkeypatch.setattr(assemble, "ROW_GROUP", 7)
    prepare(raw, tmp_path / "pieces", LABEL, options)
    one, pieces = (read_manifest(tmp_path / name) for name in ("one", "pieces"))
    assert one["data_hash"] == pieces["data_hash"] and one["datasets"] == pieces["datasets"]
    assert list(read_rows(tmp_path / "one" / "train.parquet")) == list(read_rows(tmp_path / "pieces" / "train.parquet"))


def test_states_are_trained_on_and_whole_tasks_tested(raw, tmp_path):
    manifest = prepare(raw, tmp_path / "out", LABEL, Options(history=2, candidates=3, rows="states"))
    kinds = {s: {r["extra_info"]["row_kind"] for r in read_rows(tmp_path / "out" / f"{s}.parquet")} for s in SPLITS}
    assert kinds == {"train": {"state"}, "test": {"episode"}}
    # 8 users or queries a set with 3 or 4 candidates, and 5 queries each with 5, 7 and 9 passages
    assert manifest["rows"]["train"] == 3 * 8 * 2 + 3 * 8 * 3 + 5 * (4 + 6 + 8)
    # a task's states are one task, whole
    episodes = prepare(raw, tmp_path / "episodes", LABEL, SMALL)
    whole = {t.id: set(t.candidates) for t in read_tasks(tmp_path / "episodes" / "train.parquet")}
    assert {t.id: set(t.candidates) for t in read_tasks(tmp_path / "out" / "train.parquet")} == whole
    assert episodes["datasets"] == manifest["datasets"]


def test_a_template_of_another_kind_is_refused(raw, tmp_path):
    with pytest.raises(UserError, match="template label is for exclusion rows, not for direct; choose one of the kind"):
        prepare(raw, tmp_path / "out", LABEL, Options(history=2, candidates=3, rows="direct"))
    prepare(raw, tmp_path / "out", load("direct-label"), Options(history=2, candidates=3, rows="direct"))
    assert {r["agent_name"] for r in read_rows(tmp_path / "out" / "train.parquet")} == {"direct_agent"}


def test_caps_take_the_first_of_each_dataset(raw, tmp_path):
    prepare(raw, tmp_path / "all", LABEL, SMALL)
    manifest = prepare(raw, tmp_path / "few", LABEL, Options(history=2, candidates=3, max_train=2, max_test=1))
    assert {(d["train"], d["test"]) for d in manifest["datasets"].values()} == {(2, 1)}
    every, few = (read_tasks(tmp_path / name / "train.parquet") for name in ("all", "few"))
    assert few == [t for t in every if t in few]
    for dataset in DATASETS:
        own = [t for t in every if t.dataset == dataset]
        assert [t for t in few if t.dataset == dataset] == own[:2]


def test_training_queries_that_are_nearly_test_queries_are_dropped(tmp_path):
    def query(text):
        return {"query": text, "passages": {"is_selected": [1, 0, 0, 0, 0], "passage_text": list("abcde")}}

    (tmp_path / "raw").mkdir()
    train = ["what is the boiling point of water", "who wrote hamlet", "Where is Rome?", "where is rome"]
    test = ["what is the boiling point of water ?", "who wrote macbeth", "where is Rome"]
    for name, texts in (("train", train), ("test", test)):
        pq.write_table(pa.Table.from_pylist([query(t) for t in texts]), tmp_path / "raw" / f"{name}.parquet")
    manifest = prepare(tmp_path / "raw", tmp_path / "out", LABEL, tasks=["passage-5"])
    assert manifest["datasets"]["passage-5"]["train"] == 1 and manifest["datasets"]["passage-5"]["test"] == 3
    assert manifest["datasets"]["passage-5"]["dropped"] == {"tasks: of a (nearly) equal test query or user": 3}
    assert manifest["split"] == {"passage": "by the source"}
    (task,) = read_tasks(tmp_path / "out" / "train.parquet")
    assert task.context == "who wrote hamlet"


def test_all_to_test(raw, tmp_path):
    manifest = prepare(raw / "router", tmp_path / "out", LABEL, Options(split="test"))
    assert manifest["rows"] == {"train": 0, "test": 30}
    assert read_tasks(tmp_path / "out" / "train.parquet") == []


def test_an_interrupted_preparation_goes_on(raw, tmp_path, monkeypatch):
    prepare(raw, tmp_path / "whole", LABEL, SMALL)
    filled, fill = [], spool.fill

    def die_in_the_middle(folder, unit, *rest):
        if len(filled) == 3:
            raise KeyboardInterrupt
        filled.append(unit.name)
        fill(folder, unit, *rest)

    monkeypatch.setattr(spool, "fill", die_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        prepare(raw, tmp_path / "out", LABEL, SMALL)
    assert visible(tmp_path / "out") == ["raw", "whole"] and work_of(tmp_path / "out")
    again = []
    monkeypatch.setattr(spool, "fill", lambda folder, unit, *rest: (again.append(unit.name), fill(folder, unit, *rest)))
    prepare(raw, tmp_path / "out", LABEL, SMALL)
    assert filled and again and not set(filled) & set(again)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert beside(tmp_path / "out") == ["out", "raw", "whole"]
