"""The published benchmark: its prompts taken apart, its files in all forms, its two configs, and how it is fetched.

The prompts here are this test's own; they have the marks by which the authors' evaluation reads the published ones.
"""

import csv
import json
from pathlib import Path
from unicodedata import normalize

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.options import Options
from data_prep.scenarios import problems
from data_prep.sources import ranking_bench
from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS
from tests.data_prep.source_runs import find, run


def rec(history, candidates, gt, task="Rec-Movie"):
    def listed(items):
        return "[" + ", ".join(f"'{i}. {item}'" for i, item in enumerate(items)) + "]"

    problem = f"Seen, in order:\n{listed(history)}\n\nNow there are {len(candidates)} to choose from:\n{listed(candidates)}\n\nGo."
    return {"problem": problem, "gt": gt, "candidates": candidates, "task_name": task}


def passages(query, named, gt, task="Passage-5"):
    listing = "\n".join(f"{name}: {text}" for name, text in named.items())
    problem = f"## Here is a query: {query} and candidate passages:\n{listing}\n\nPlease think step by step and choose."
    return {"problem": problem, "gt": gt, "candidates": list(named.values()), "task_name": task}


def router(query, candidates, gt, task="Router-Cost"):
    described = "".join(f"    # {name}: Price of {name} (1.0).\n" for name in ("A (8b)", "B+", "C"))
    problem = f"# LLMs:\n{described}    ## Here is a query: {query} and LLM condidates: {candidates}. Choose."
    return {"problem": problem, "gt": gt, "candidates": candidates, "task_name": task}


FIVE = {f"passage {n}": f"text {n}" for n in range(5)}
ROWS = [
    rec(["Toy Story", "Schindler's List", "12. Angry &amp; Men"], ["Up", "Alien", "Heat"], "Alien"),
    passages("how\u2028 is it", FIVE, "passage 3"),
    router("Who, said 'it'?", ["B+", "A (8b)"], "A (8b)"),
]


def write_json(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=2), encoding="utf-8")


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_csv(path, rows, listed=str):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"candidates": listed(row["candidates"])} for row in rows)


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_arrow(path, rows):
    """As ``datasets`` saves a data set to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


FORMS = {
    "train-00000-of-00001.parquet": write_parquet,
    "train.arrow": write_arrow,
    "train.json": write_json,
    "train.jsonl": write_lines,
    "train.csv": write_csv,
    "train_json_lists.csv": lambda path, rows: write_csv(path, rows, json.dumps),
}


def short(row):
    return row["dataset"], row["context"], row["candidates"], row["candidate_ids"], row["relevance"], row["group"]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_tasks(tmp_path, name):
    FORMS[name](tmp_path / name, ROWS)
    tasks, dropped, source = run(ranking_bench.find_ranking_bench, tmp_path)
    history = "Toy Story; Schindler's List; 12. Angry & Men"
    query = "Who, said 'it'?"
    assert [short(task) for task in tasks] == [
        ("rec-movie", history, ["Up", "Alien", "Heat"], ["0", "1", "2"], [0, 1, 0], history.casefold()),
        ("passage-5", "how is it", list(FIVE.values()), list(FIVE), [0, 0, 0, 1, 0], "how is it"),
        (
            "router-cost",
            f"Query: {query}\nPreference: quality 0.2, cost 0.8",
            ["B+: Price of B+ (1.0).", "A (8b): Price of A (8b) (1.0)."],
            ["B+", "A (8b)"],
            [0, 1],
            query.casefold(),
        ),
    ]
    assert [task["scenario"] for task in tasks] == ["recommendation", "passage", "routing"]
    rows = (2, 9, 17) if name.endswith(".csv") else (1, 2, 3)  # of a CSV the line, and problems have several
    assert [task["task_id"] for task in tasks] == [
        f"{task['dataset']}:{name}:{row}" for row, task in zip(rows, tasks, strict=True)
    ]
    assert {(task["side"], task["time"], *task["history_ids"]) for task in tasks} == {(None, None)}
    assert not dropped
    assert (source.format, source.datasets, source.files) == ("Ranking-bench", tuple(DATASETS), (tmp_path / name,))


def test_only_what_is_wanted(tmp_path):
    write_parquet(tmp_path / "a.parquet", ROWS)
    tasks, dropped, _ = run(ranking_bench.find_ranking_bench, tmp_path, datasets=["router-cost"])
    assert [task["dataset"] for task in tasks] == ["router-cost"]
    assert not dropped


def test_iterative_rows_are_tasks_as_they_are(tmp_path):
    state = {"passage 4": "last", "passage 0": "first"}
    rows = [passages("q", state, "passage 4"), passages("q", state, "passage 4"), passages("q", FIVE, "passage 0")]
    write_parquet(tmp_path / "iterative" / "train.parquet", rows)
    tasks, _, _ = run(ranking_bench.find_ranking_bench, tmp_path, Options(passages=9, max_chars=1))
    assert [task["candidates"] for task in tasks] == [["last", "first"]] * 2 + [list(FIVE.values())]
    assert [task["relevance"] for task in tasks] == [[1, 0]] * 2 + [[1, 0, 0, 0, 0]]
    assert len({task["task_id"] for task in tasks}) == 3


# --------------------------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize(
    "candidates",
    [list(FIVE.values()), list(FIVE), [f"{name}: {text}" for name, text in FIVE.items()]],
)
@pytest.mark.parametrize("gt", ["passage 3", None])
def test_passages_may_be_texts_names_or_both(tmp_path, candidates, gt):
    write_parquet(tmp_path / "a.parquet", [passages("q", FIVE, gt or candidates[3]) | {"candidates": candidates}])
    (task,) = run(ranking_bench.find_ranking_bench, tmp_path)[0]
    assert (task["candidates"], task["relevance"]) == (list(FIVE.values()), [0, 0, 0, 1, 0])


def test_passages_that_are_not_the_listed_ones_have_no_names(tmp_path):
    """Names go by place, so where texts differ ``passage 3`` is nobody; a text is still found."""
    other = ["text 1", "text 0", "text 2", "text 3", "text 4"]
    rows = [passages("q", FIVE, gt) | {"candidates": other} for gt in ("passage 0", "text 0")]
    broken = passages("q", FIVE | {"passage 1": "a line\npassage 7: that misleads"}, "passage 1")
    write_parquet(tmp_path / "a.parquet", [*rows, broken])
    tasks, dropped, _ = run(ranking_bench.find_ranking_bench, tmp_path)
    assert [task["relevance"] for task in tasks] == [[0, 1, 0, 0, 0]]
    assert dropped == {"passage-5": {"rows: gt is not a candidate": 2}}


def test_passages_keep_their_own_lines(tmp_path):
    named = {"passage 1": "one\nline: more\n\nPlease think step by step\nend", "passage 0": "same", "passage 2": "same"}
    twins = named | {"passage 3": "other"}
    write_parquet(
        tmp_path / "a.parquet",
        [passages("q", twins, "passage 3"), passages("q", named, "passage 2"), passages("q", named, "same")],
    )
    (task,), dropped, _ = run(ranking_bench.find_ranking_bench, tmp_path)
    assert task["candidates"] == ["one line: more Please think step by step end", "same", "same", "other"]
    assert task["relevance"] == [0, 0, 0, 1]
    assert dropped == {"passage-5": {"rows: gt is several candidates": 2}}


TITLES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="<>&"), min_size=1).map(
        lambda text: "t" + text.replace("', '", "")
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(TITLES, st.sampled_from("'\""))
def test_any_history_is_taken_apart(titles, quote):
    listed = "[" + ", ".join(f"{quote}{i}. {title}{quote}" for i, title in enumerate(titles)) + "]"
    found = problems.read_problem("rec-game", f"Bought, in order:\n{listed}\n\nNow there are 2", ["a", "b"])
    assert found.context == normalize("NFC", "; ".join(" ".join(title.split()) for title in titles))


def test_a_history_of_another_form_stays_as_it_is():
    found = problems.read_problem(
        "rec-music", "in order: A, B <b>and</b> C\n\nNow there are 2 items", ["x &amp; y", "z"]
    )
    assert (found.context, found.candidates, found.names) == ("A, B and C", ["x & y", "z"], [])


def test_a_routing_problem_without_marks_is_the_query():
    found = problems.read_problem("router-balance", " What\nis it? ", ["A", "B"])
    assert found == problems.Problem(
        "Query: What is it?\nPreference: quality 0.5, cost 0.5", "What is it?", ["A", "B"], ["A", "B"]
    )


# ------------------------------------------------------------------------------------------- dropped, refused, left alone


def test_every_reason_to_drop(tmp_path):
    rows = [
        ROWS[0],
        rec(["A"], ["Up", "Alien"], "Heat"),
        rec(["A"], ["Up", "Up"], "Up"),
        rec(["A"], ["Up", "<b>"], "Up"),
        rec([" "], ["Up", "Alien"], "Up"),
        rec(["A"], ["Up", "Alien"], ""),
    ]
    rows[4]["problem"] = "in order: \n\nNow there are 2"
    write_parquet(tmp_path / "a.parquet", rows)
    tasks, dropped, _ = run(ranking_bench.find_ranking_bench, tmp_path)
    assert len(tasks) == 1
    assert dropped == {
        "rec-movie": {
            "rows: gt is not a candidate": 2,
            "rows: gt is several candidates": 1,
            "rows: an empty candidate": 1,
            "rows: empty context": 1,
        }
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_name": "Rec-Book"}, "task_name is 'Rec-Book', not one of rec-movie, "),
        ({"task_name": None}, "task_name is 'None', not a text"),
        ({"problem": None}, "problem is 'None', not a text"),
        ({"gt": 3}, "gt is '3', not a text"),
        ({"candidates": "Up, Alien"}, "candidates is 'Up, Alien', not a list of two texts or more"),
        ({"candidates": "['Up' 'Alien']"}, r"candidates is .*\['Up' 'Alien'\].*, not a list of two texts"),
        ({"candidates": "[" * 5000}, "not a list of two texts"),
        ({"candidates": {"a": 1}}, "not a list of two texts"),
        ({"candidates": ["Up"]}, "not a list of two texts"),
        ({"candidates": ["Up", 5]}, "not a list of two texts"),
        ({"candidates": None}, "candidates is 'None', not a list"),
        (
            {"problem": "Choose."},
            "problem is 'Choose.', without a history between 'in order:' and 'Now there are'; is it",
        ),
        ({"problem": "Choose.", "task_name": "Passage-7"}, "without a query between 'Here is a query:' and"),
        ({"split": "dev"}, "split is 'dev', not train or test"),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_bad_row(tmp_path, name, change, message):
    (write_json if name == "a.json" else write_lines)(tmp_path / name, [ROWS[0], ROWS[0] | change])
    with pytest.raises(UserError, match=f"{name} row 2: .*{message}") as error:
        run(ranking_bench.find_ranking_bench, tmp_path)
    assert "\n" not in str(error.value)


def test_blank_lines_are_counted(tmp_path):
    write_lines(tmp_path / "a.jsonl", [ROWS[0]])
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("\n")
    assert run(ranking_bench.find_ranking_bench, tmp_path, datasets=["rec-movie"])[1] == {
        "rec-movie": {"lines: blank": 1}
    }


@settings(deadline=None, max_examples=40)
@given(name=st.sampled_from(sorted(FORMS)), where=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_never_passes_for_a_whole_one(tmp_path_factory, name, where):
    raw = tmp_path_factory.mktemp("cut")
    FORMS[name](raw / name, [ROWS[0]] * 20)
    content = (raw / name).read_bytes().rstrip()
    cut = content[: int(len(content) * where)]
    (raw / name).write_bytes(cut)
    try:
        tasks, _, _ = run(ranking_bench.find_ranking_bench, raw)
    except ValueError:
        assert not find(ranking_bench.find_ranking_bench, raw)
    except UserError as error:
        assert name in str(error)
        assert "\n" not in str(error)
    else:
        # Cut between two rows of a form that does not say how many there are; an Arrow stream may lack its end alone.
        assert name.endswith((".jsonl", ".csv", ".arrow"))
        assert len(tasks) < 20 or name.endswith(".arrow")


def test_files_of_something_else_are_left_alone(tmp_path):
    write_parquet(tmp_path / "a.parquet", [{"problem": "x", "gt": "y"}])
    (tmp_path / "b.csv").write_text("query,gt,candidates\n1,2,3\n")
    (tmp_path / "c.json").write_text('{"problem": 1}')
    (tmp_path / "d.arrow").write_bytes(b"no")
    (tmp_path / "e.txt").write_text(json.dumps(ROWS))
    assert not find(ranking_bench.find_ranking_bench, tmp_path)


# ------------------------------------------------------------------------------------------------------- files and splits


def named(tmp_path, *names):
    for name in names:
        write_parquet(tmp_path / name, [rec([name], ["a", "b"], "a")])
    (source,) = find(ranking_bench.find_ranking_bench, tmp_path)
    tasks, _, _ = run(ranking_bench.find_ranking_bench, tmp_path)
    assert len({task["task_id"] for task in tasks}) == len(tasks)
    return {path.relative_to(tmp_path).as_posix() for path in source.files}, {t["context"]: t["side"] for t in tasks}


@pytest.mark.parametrize(
    ("direct", "iterative"),
    [
        ("direct/train-00000-of-00001.parquet", "iterative/train-00000-of-00001.parquet"),
        ("direct_train.parquet", "iterative_train.parquet"),
        ("data/train_direct.parquet", "data/train_iterative.parquet"),
        ("direct/train/data-0.parquet", "iterative/train/data-0.parquet"),
    ],
)
def test_configs(tmp_path, direct, iterative):
    direct_test, iterative_test = (name.replace("train", "test") for name in (direct, iterative))
    files, sides = named(tmp_path, direct, direct_test, iterative, iterative_test)
    assert files == {direct, direct_test}
    assert sides == {direct: "train", direct_test: "test"}
    for name in (direct, direct_test):
        (tmp_path / name).unlink()
    assert named(tmp_path, iterative, iterative_test)[1] == {iterative: "train", iterative_test: "test"}


def test_a_config_may_be_the_folder_itself(tmp_path):
    raw = tmp_path / "bench" / "iterative"
    assert named(raw, "train.parquet", "test.parquet")[1] == {"train.parquet": "train", "test.parquet": "test"}


def test_two_copies_are_two_sources(tmp_path):
    for copy in ("one", "two"):
        write_parquet(tmp_path / copy / "direct" / "train.parquet", ROWS)
    assert len(find(ranking_bench.find_ranking_bench, tmp_path)) == 2


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_a_column_may_decide_the_side(tmp_path, name):
    write = {".parquet": write_parquet, ".csv": write_csv, ".jsonl": write_lines}[Path(name).suffix]
    write(tmp_path / name, [ROWS[0] | {"split": side} for side in ("train", "test", "train")])
    assert [task["side"] for task in run(ranking_bench.find_ranking_bench, tmp_path)[0]] == ["train", "test", "train"]


# ------------------------------------------------------------------------------------------------------------------- hub


@pytest.mark.parametrize(
    ("name", "revision", "folder", "pattern"),
    [
        ("ulab-ai/Ranking-bench", None, "main", "**.parquet"),
        ("ulab-ai/Ranking-bench/", None, "main", "**.parquet"),
        ("ulab-ai/Ranking-bench@v1.0/iterative", "v1.0", "v1.0-iterative", "*iterative*.parquet"),
    ],
)
def test_fetch(tmp_path, monkeypatch, name, revision, folder, pattern):
    def download(repo, *, repo_type, revision, local_dir, allow_patterns):
        asked.append((repo, repo_type, revision, pattern in allow_patterns))
        write_parquet(local_dir / "iterative" / "train.parquet", ROWS)

    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    fetched = ranking_bench.fetch_from_hub(name, tmp_path)
    assert fetched == tmp_path / "ulab-ai--Ranking-bench" / folder
    assert asked == [("ulab-ai/Ranking-bench", "dataset", revision, True)]
    assert len(run(ranking_bench.find_ranking_bench, fetched)[0]) == 3


@pytest.mark.parametrize("name", ["", "Ranking-bench", "a/b/c", "../../etc/x", "a/b/iterative/more"])
def test_fetch_refuses_other_names(tmp_path, name):
    with pytest.raises(UserError, match=r"not a dataset's name; write hf://datasets/ulab-ai/Ranking-bench"):
        ranking_bench.fetch_from_hub(name, tmp_path)


def test_fetch_says_that_it_is_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"^hf://datasets/ulab-ai/Ranking-bench: cannot be fetched \(.+\); try again"
    ) as error:
        ranking_bench.fetch_from_hub("ulab-ai/Ranking-bench", tmp_path)
    assert "\n" not in str(error.value)


def test_fetch_says_that_the_client_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(
        UserError, match=r"huggingface_hub is not installed; install it, or download ulab-ai/Ranking-bench"
    ):
        ranking_bench.fetch_from_hub("ulab-ai/Ranking-bench", tmp_path)
