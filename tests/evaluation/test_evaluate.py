"""Putting systems side by side: the numbers of results.json, the files of a run, and what is refused."""

import json

import pytest
from synthetic import make_tasks, play_as

from iranker_verl.errors import UserError
from iranker_verl.evaluation.evaluate import check_model_template, collect, evaluate_model, evaluate_rivals
from iranker_verl.ranking.templates import load

TEMPLATE = load("label")
KEYS = {
    *("rr", "ndcg@5", "ndcg@10", "hit@1", "n", "ci95"),
    *("malformed_rate", "calls_per_task", "prompt_tokens_per_task", "new_tokens_per_task"),
}


@pytest.fixture
def tasks():
    return make_tasks()


def test_numbers_of_models_and_rivals(tasks):
    before, after = play_as("before", tasks, knows=0, malformed=0.3), play_as("after", tasks, knows=1)
    results = collect([before, after, *evaluate_rivals(tasks, tasks, say=lambda _: None)], seed=1)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert set(results["datasets"]) == {"rec-movie", "passage-5"}
    assert set(results["datasets"]["rec-movie"]) == {"before", "after", "random", "popularity", "bm25"}
    assert "popularity" not in results["datasets"]["passage-5"]
    assert all(set(numbers) == KEYS for found in results["datasets"].values() for numbers in found.values())
    assert results["macro"]["popularity"]["n_datasets"] == 1

    perfect = results["macro"]["after"]
    assert perfect["rr"] == perfect["hit@1"] == perfect["ndcg@5"] == 1
    assert perfect["ci95"] == [1, 1]
    assert (perfect["n"], perfect["n_datasets"], perfect["malformed_rate"]) == (24, 2, 0)
    assert (perfect["calls_per_task"], perfect["prompt_tokens_per_task"], perfect["new_tokens_per_task"]) == (
        5,
        500,
        15,
    )
    assert 0.1 < results["macro"]["before"]["malformed_rate"] < 0.5
    assert results["macro"]["bm25"]["malformed_rate"] is None
    assert results["macro"]["bm25"]["calls_per_task"] is None
    assert 0 < results["paired_p"] < 0.01


def test_macro_is_the_mean_over_datasets():
    many, few = make_tasks(["rec-movie"], n=30), make_tasks(["passage-5"], n=5)
    good, bad = play_as("after", many, knows=1), play_as("after", few, knows=0)
    both = type(good)("after", (*good.records, *bad.records), 1.0)
    results = collect([both])
    parts = [results["datasets"][d]["after"]["rr"] for d in ("rec-movie", "passage-5")]
    assert results["macro"]["after"]["rr"] == pytest.approx(sum(parts) / 2)


def test_no_p_without_both(tasks):
    assert collect([play_as("after", tasks, knows=1)])["paired_p"] is None


def test_other_tasks_before_than_after_are_refused(tasks):
    with pytest.raises(ValueError, match="same tasks"):
        collect([play_as("before", tasks[1:], knows=0), play_as("after", tasks, knows=1)])


def test_rivals_leave_their_tasks_in_the_run(tasks, tmp_path):
    evaluate_rivals(tasks, tasks, run_dir=tmp_path / "run", say=lambda _: None)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        *("episodes-bm25.jsonl", "episodes-popularity.jsonl", "episodes-random.jsonl")
    ]
    lines = (tmp_path / "run" / "episodes-random.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 24 and first["task_id"] == "task 0" and "steps" not in first
    assert first["ranking"][first["rank_of_best"] - 1] == "c0"


def test_a_model_of_another_template_is_refused(tasks, tmp_path):
    check_model_template(tmp_path, TEMPLATE)  # no stamp: an untrained model
    stamp = tmp_path / "iranker.json"
    stamp.write_text(json.dumps({"template_id": TEMPLATE.id, "template_hash": TEMPLATE.hash}))
    check_model_template(tmp_path, TEMPLATE)
    stamp.write_text(json.dumps({"template_id": "label", "template_hash": "0" * 16}))
    with pytest.raises(UserError, match=f"{'0' * 16}.*{TEMPLATE.hash}"):
        evaluate_model(tmp_path, tasks, TEMPLATE, system="after")
    stamp.write_text("{}")
    with pytest.raises(UserError, match="template_id"):
        check_model_template(tmp_path, TEMPLATE)


def test_nothing_to_evaluate_is_refused(tmp_path):
    with pytest.raises(UserError, match="no task"):
        evaluate_model(tmp_path, [], TEMPLATE, system="after")
    with pytest.raises(UserError, match="no task"):
        evaluate_rivals([], [])
