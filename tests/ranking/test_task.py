"""Ranking tasks: every way to get one wrong is one clear line."""

import subprocess
import sys

import pytest

from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS, SCENARIOS, Candidate, RankingTask


def make(**changes):
    fields = {
        "id": "t1",
        "scenario": "passage",
        "dataset": "passage-5",
        "context": "query",
        "candidates": (Candidate("a", "text a"), Candidate("b", "text b"), Candidate("c", "text c")),
        "relevance": (0.0, 1.0, 0.0),
    }
    return RankingTask(**fields | changes)


def test_one_positive():
    task = make()
    assert (task.target, task.graded) == (1, False)
    assert task.ground_truth() == {"candidates": ["text a", "text b", "text c"], "target": 1}
    assert RankingTask.with_positive("t1", "passage", "passage-5", "query", task.candidates, "b") == task


@pytest.mark.parametrize("relevance", [(0.0, 2.0, 0.0), (1.0, 1.0, 0.0), (0.5, 1.0, 0.0), (0.0, -1.0, 0.0)])
def test_grades(relevance):
    task = make(relevance=relevance)
    assert task.graded
    assert task.target == relevance.index(max(relevance))
    assert task.ground_truth()["relevance"] == list(relevance)


TWO = (Candidate("a", "text a"), Candidate("b", "text b"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scenario": "music"}, ["unknown scenario 'music'", "recommendation, routing, passage"]),
        ({"candidates": (), "relevance": ()}, ["0 candidate(s)", "at least 2"]),
        ({"candidates": TWO[:1], "relevance": (1.0,)}, ["1 candidate(s)"]),
        ({"candidates": (*TWO, Candidate("a", "x"))}, ["'a' occurs twice"]),
        ({"candidates": (*TWO, Candidate("c", " \n"))}, ["'c'", "empty text"]),
        ({"relevance": (1.0, 0.0)}, ["3 candidates but 2 relevance"]),
        ({"relevance": (1.0, float("nan"), 0.0)}, ["nan is not within"]),
        ({"relevance": (1.0, float("inf"), 0.0)}, ["inf is not within"]),
        ({"relevance": (1.0, -1e100, 0.0)}, ["its relevance -1e+100 is not within ±1e+100; scale the relevances down"]),
        ({"relevance": (0.0, 0.0, 0.0)}, ["no positive"]),
        ({"relevance": (1.0, 1.0, 1.0)}, ["no positive"]),
    ],
)
def test_a_wrong_task_is_one_line_that_names_it(changes, words):
    with pytest.raises(UserError) as error:
        make(**changes)
    text = str(error.value)
    assert "\n" not in text and "'t1'" in text and "'passage-5'" in text
    assert all(word in text for word in words), text


def test_a_positive_that_is_absent():
    with pytest.raises(UserError, match="its positive 'z' is not among the candidates"):
        RankingTask.with_positive("t1", "passage", "passage-5", "q", TWO, "z")


def test_the_nine_tasks_of_the_paper():
    assert len(DATASETS) == 9
    assert set(DATASETS.values()) == set(SCENARIOS)
    assert [sum(s == x for x in DATASETS.values()) for s in SCENARIOS] == [3, 3, 3]


ROW = {
    "data_source": "passage-5",
    "reward_model": {"ground_truth": {"candidates": ["x", "y"], "target": 1, "relevance": None}},
    "extra_info": {"task_id": "t1", "scenario": "passage", "context": "q", "candidate_ids": ["a", "b"]},
}


def test_a_task_from_a_row():
    task = RankingTask.from_row(ROW)
    candidates = (Candidate("a", "x"), Candidate("b", "y"))
    assert task == RankingTask("t1", "passage", "passage-5", "q", candidates, (0.0, 1.0))


def changed(path, value):
    head, *rest = path
    if not rest:
        return lambda row: {k: v for k, v in row.items() if k != head} | ({} if value is ... else {head: value})
    inner = changed(rest, value)
    return lambda row: row | {head: inner(row[head])}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["data_source"], ...),
        (["reward_model"], ...),
        (["reward_model"], None),
        (["reward_model"], "text"),
        (["reward_model", "ground_truth"], None),
        (["reward_model", "ground_truth"], []),
        (["reward_model", "ground_truth", "candidates"], ...),
        (["reward_model", "ground_truth", "candidates"], None),
        (["reward_model", "ground_truth", "candidates"], ["x"]),
        (["reward_model", "ground_truth", "target"], ...),
        (["reward_model", "ground_truth", "target"], None),
        (["reward_model", "ground_truth", "target"], "best"),
        (["reward_model", "ground_truth", "target"], 2),
        (["reward_model", "ground_truth", "target"], -1),
        (["reward_model", "ground_truth", "relevance"], ["high", "low"]),
        (["reward_model", "ground_truth", "relevance"], [1.0]),
        (["reward_model", "ground_truth", "relevance"], 1.0),
        (["extra_info"], None),
        (["extra_info", "task_id"], ...),
        (["extra_info", "scenario"], None),
        (["extra_info", "candidate_ids"], ...),
        (["extra_info", "candidate_ids"], ["a"]),
        (["extra_info", "candidate_ids"], ["a", "a"]),
    ],
)
def test_a_wrong_row_is_a_users_error(path, value):
    with pytest.raises(UserError) as error:
        RankingTask.from_row(changed(path, value)(ROW))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "module",
    ["iranker_verl", "iranker_verl.ranking", "iranker_verl.ranking.templates", "reward_fns", "reward_fns.exclusion"],
)
def test_the_domain_imports_nothing_heavy(module):
    code = f"import {module}, sys; print(*sorted({{'torch', 'verl', 'vllm', 'ray', 'transformers', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
