"""Putting systems side by side: the numbers of results.json, the files of a run, and what is refused."""

import dataclasses
import json
import re

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines import Unavailable
from iranker_verl.evaluation.evaluate import evaluate_baselines, evaluate_systems
from iranker_verl.evaluation.metrics import measure
from iranker_verl.evaluation.model_runs import check_model_template, evaluate_model
from iranker_verl.evaluation.prices import Price
from iranker_verl.evaluation.records import Record, SystemResult, write_trec
from iranker_verl.evaluation.results import collect
from iranker_verl.evaluation.systems import ModelSystem, Role
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.inference.episode import Episode
from iranker_verl.ranking import Candidate, RankingTask, Step
from iranker_verl.ranking.templates import load
from tests.evaluation.synthetic import make_tasks, play_as
from tests.fake_openai import FakeServer, answer

TEMPLATE = load("label")
KEYS = {
    *("rr", "ndcg@5", "ndcg@10", "hit@1", "rr_strict", "n", "ci95", "fit_seconds", "rank_seconds"),
    *("malformed_rate", "calls_per_task", "prompt_tokens_per_task", "new_tokens_per_task"),
    *("seconds_p50", "seconds_p95", "dollars_per_task", "orders"),
}


@pytest.fixture
def tasks():
    return make_tasks()


def test_numbers_of_models_and_baselines(tasks, tmp_path):
    before, after = play_as("before", tasks, knows=0, malformed=0.3), play_as("after", tasks, knows=1)
    results = collect([before, after, *evaluate_baselines(tasks, tasks, tmp_path, log=lambda _: None)], seed=1)
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
    assert results["macro"]["bm25"]["calls_per_task"] is results["macro"]["bm25"]["orders"] is None
    assert results["macro"]["bm25"]["rr_strict"] == results["macro"]["bm25"]["rr"]
    assert results["macro"]["bm25"]["fit_seconds"] >= 0 and perfect["fit_seconds"] is None
    assert perfect["orders"]["k"] == 1 and perfect["orders"]["sd"] is perfect["dollars_per_task"] is None
    assert results["unavailable"] == {}
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
    with pytest.raises(ValueError, match="tasks"):
        collect([play_as("before", tasks[1:], knows=0), play_as("after", tasks, knows=1)])


def test_baselines_leave_their_tasks_in_the_run(tasks, tmp_path):
    evaluate_baselines(tasks, tasks, tmp_path / "run", log=lambda _: None)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        *("episodes-bm25.header.json", "episodes-bm25.jsonl", "episodes-constant.header.json"),
        *("episodes-constant.jsonl", "episodes-popularity.header.json"),
        *("episodes-popularity.jsonl", "episodes-random.header.json", "episodes-random.jsonl"),
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
        evaluate_model(ModelSystem("after", tmp_path, TEMPLATE), tasks, tmp_path)
    stamp.write_text("{}")
    with pytest.raises(UserError, match="template_id"):
        check_model_template(tmp_path, TEMPLATE)


def test_nothing_to_evaluate_is_refused(tmp_path):
    with pytest.raises(UserError, match="no task"):
        evaluate_model(ModelSystem("after", tmp_path, TEMPLATE), [], tmp_path)
    with pytest.raises(UserError, match="no task"):
        evaluate_baselines([], [], tmp_path)


def test_a_task_twice_is_refused(tasks, tmp_path):
    with pytest.raises(UserError, match=r"'task 0' of 'rec-movie' occurs twice"):
        evaluate_baselines([], [*tasks, tasks[0]], tmp_path)


def test_relevances_that_cannot_be_measured_are_refused_before_anything_is_ranked(tasks, tmp_path):
    first = tasks[0]
    for relevance, words in (((1e308, *first.relevance[1:]), "1e\\+308"), ((-1.0, *[-2.0] * 5), "above 0")):
        with pytest.raises(UserError, match=f"'task 0' of 'rec-movie'.*{words}"):
            evaluate_baselines(tasks, [dataclasses.replace(first, relevance=relevance)], tmp_path, baselines=[Never()])


class Never:
    name = "never"

    def fit(self, train):
        raise AssertionError("fitted")


def record(seconds, *statuses, positive=0, size=4):
    """A task whose ranking puts the positive at its place; a step a status."""
    candidates = tuple(Candidate(f"c{i}", f"text {i}") for i in range(size))
    task = RankingTask.with_positive(
        f"t{seconds}", "recommendation", "rec-movie", "context", candidates, f"c{positive}"
    )
    ranking = tuple(c.id for c in candidates)
    steps = tuple(Step(ranking, "c0", status, "[A]") for status in statuses)
    episode = Episode(task.id, task.dataset, ranking, steps, 1000, 100, seconds)
    return Record(task, ranking, measure([task], [ranking])[0], episode)


def test_strict_lenient_seconds_and_dollars_by_hand():
    records = (
        record(1.0, "ok", "ok", "ok"),  # rank 1
        record(2.0, "ok", "missing", "ok"),  # rank 1, but a malformed answer: strictly 1/4
        record(3.0, "ok", "ok", "ok", positive=1),  # rank 2
        record(4.0, "missing", "missing", "missing", positive=3),  # rank 4 either way
    )
    result = SystemResult("after", records, 1.0, price=Price(input=2.0, output=10.0))
    numbers = collect([result])["datasets"]["rec-movie"]["after"]
    assert numbers["rr"] == pytest.approx((1 + 1 + 1 / 2 + 1 / 4) / 4)
    assert numbers["rr_strict"] == pytest.approx((1 + 1 / 4 + 1 / 2 + 1 / 4) / 4)
    assert numbers["malformed_rate"] == pytest.approx(4 / 12)
    assert (numbers["seconds_p50"], numbers["seconds_p95"]) == pytest.approx((2.5, 3.85))
    assert numbers["dollars_per_task"] == pytest.approx(1000 * 2e-6 + 100 * 10e-6)


class Fixed:
    """A baseline that counts how often it is fitted."""

    name = "fixed"
    fitted = 0

    def fit(self, train):
        type(self).fitted += 1

    def rank(self, tasks):
        return [[c.id for c in task.candidates] if task.scenario == "passage" else None for task in tasks]


class Missing(Fixed):
    name = "missing"

    def fit(self, train):
        raise Unavailable("no weights; give --models missing=FOLDER")


def test_a_baseline_that_cannot_run_has_a_reason_and_no_number(tasks, tmp_path):
    said = []
    results = evaluate_baselines(tasks, tasks, run_dir=tmp_path, baselines=[Missing(), "random"], log=said.append)
    content = collect(results)
    assert content["unavailable"] == {"missing": "no weights; give --models missing=FOLDER"}
    assert set(content["macro"]) == {"random"}
    assert not (tmp_path / "episodes-missing.jsonl").exists()
    assert "missing: unavailable, no weights" in said[0]


def test_a_baseline_that_is_done_is_not_run_again(tasks, tmp_path):
    Fixed.fitted = 0
    [first] = evaluate_baselines(tasks, tasks, run_dir=tmp_path, baselines=[Fixed()], log=lambda _: None)
    [second] = evaluate_baselines(tasks, tasks, run_dir=tmp_path, baselines=[Fixed()], log=lambda _: None)
    assert Fixed.fitted == 1 and second == first and len(first.records) == 12
    with pytest.raises(UserError, match=r"train_hash was .*remove .*fixed\.header\.json and .*fixed\.jsonl"):
        evaluate_baselines(tasks[1:], tasks, run_dir=tmp_path, baselines=[Fixed()])


def spares_the_first(request, number):
    """Excludes the last one shown, in words that are malformed for every third prompt."""
    prompt = request["messages"][-1]["content"]
    labels = re.findall(r"^\[([A-Z])\]", prompt, flags=re.MULTILINE)
    return 200, answer("I cannot say" if len(prompt) % 3 == 0 else f"[{labels[-1]}]")


def served(server, **options):
    return ModelSystem("after", Endpoint(server.url, "fake", retries=0), TEMPLATE, **{"max_new_tokens": 8, **options})


def evaluate(server, tasks, folder, log=lambda _: None, **options):
    with server.serving():
        return evaluate_model(served(server, **options), tasks, run_dir=folder, log=log)


def stable(folder):
    """The lines without what time does to them."""
    lines = [json.loads(line) for line in (folder / "episodes-after.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_an_evaluation_interrupted_by_an_error_goes_on_and_ends_as_if_nothing_had_happened(tmp_path):
    tasks = make_tasks(n=5)
    whole = FakeServer(spares_the_first)
    evaluate(whole, tasks, tmp_path / "whole", orders=2)

    failing = FakeServer(lambda request, n: spares_the_first(request, n) if n < 45 else (500, {"error": "gone"}))
    with pytest.raises(UserError, match="continues from here"):
        evaluate(failing, tasks, tmp_path / "cut", orders=2, concurrency=4)
    half = len((tmp_path / "cut" / "episodes-after.jsonl.unfinished").read_text().splitlines())
    assert 4 < half < 20 and not (tmp_path / "cut" / "episodes-after.jsonl").exists()

    with pytest.raises(UserError, match="endpoint"):
        evaluate(FakeServer(spares_the_first), tasks, tmp_path / "cut", orders=2)
    said, header = [], tmp_path / "cut" / "episodes-after.header.json"
    second = FakeServer(spares_the_first)
    header.write_text(header.read_text().replace(failing.url, second.url))
    result = evaluate(second, tasks, tmp_path / "cut", orders=2, log=said.append)
    assert f"{half}/20 tasks completed before, resuming" in said[0]
    assert len(second.requests) == (20 - half) * 5
    assert stable(tmp_path / "cut") == stable(tmp_path / "whole")
    assert [r.key for r in result.records[:2]] == [(0, "rec-movie", "task 0"), (0, "rec-movie", "task 1")]
    assert result.records[-1].order == 1

    third = FakeServer(spares_the_first)
    header.write_text(header.read_text().replace(second.url, third.url))
    assert evaluate(third, tasks, tmp_path / "cut", orders=2).records == result.records and third.requests == []


def test_what_may_and_what_may_not_change_in_between(tasks, tmp_path):
    server = FakeServer(spares_the_first)
    with server.serving():
        same = {"run_dir": tmp_path, "log": lambda _: None}
        evaluate_model(served(server), tasks, **same)
        asked = len(server.requests)
        evaluate_model(served(server, concurrency=3, price=Price(1, 1), role=Role.AFTER), tasks, **same)
        assert len(server.requests) == asked
        for change, name in (
            ({"temperature": 0.5}, "temperature"),
            ({"orders": 2}, "orders"),
            ({"max_new_tokens": 9}, "max_new_tokens"),
        ):
            with pytest.raises(UserError, match=f"{name} was"):
                evaluate_model(served(server, **change), tasks, **same)
        with pytest.raises(UserError, match="seed was"):
            evaluate_model(served(server), tasks, **same, seed=3)
        with pytest.raises(UserError, match=r"template_id was 'label', is now 'direct-label'"):
            evaluate_model(dataclasses.replace(served(server), template=load("direct-label")), tasks, **same)
        with pytest.raises(UserError, match=r"\(tasks was"):
            evaluate_model(served(server), tasks[1:], **same)
        with pytest.raises(UserError, match="shards have no effect with an endpoint"):
            evaluate_model(served(server, shards=2), tasks, **same)
        with pytest.raises(UserError, match="orders is at least 1"):
            evaluate_model(served(server, orders=0), tasks, **same)


def test_lines_of_other_tasks_are_refused(tasks, tmp_path):
    server = FakeServer(spares_the_first)
    evaluate(server, tasks[:2], tmp_path)
    path = tmp_path / "episodes-after.jsonl"
    first, second = map(json.loads, path.read_text().splitlines())
    for spoilt in (first | {"task_id": "none"}, first | {"steps": first["steps"][:-1]}, {"order": 0}):
        path.write_text(json.dumps(second) + "\n" + json.dumps(spoilt) + "\n")
        again = FakeServer(spares_the_first)
        header = tmp_path / "episodes-after.header.json"
        header.write_text(re.sub(r"http://[^\"]*", again.url, header.read_text()))
        with pytest.raises(UserError, match=r"episodes-after\.jsonl row 2: .*remove episodes-after\.\*"):
            evaluate(again, tasks[:2], tmp_path)


def test_one_orchestrator_puts_baselines_models_and_what_is_finished_side_by_side(tasks, tmp_path):
    server, said = FakeServer(spares_the_first), []
    with server.serving():
        base = dataclasses.replace(served(server), name="base-7b", role=Role.BEFORE)
        first = evaluate_systems(["random", base], tasks, tmp_path, log=said.append)
        model = dataclasses.replace(served(server), name="mine", role=Role.AFTER)
        both = evaluate_systems(
            ["bm25", model], tasks, tmp_path, train=tasks, made_of={"data_hash": "d"}, log=said.append
        )
        with pytest.raises(
            UserError, match="base-7b and mine both have the role before; give one of them --role model"
        ):
            evaluate_systems([base, dataclasses.replace(model, role=Role.BEFORE)], tasks, tmp_path / "none")
        asked = len(server.requests)
        with pytest.raises(UserError, match="mine and other both have the role after"):  # before it is asked
            evaluate_systems([dataclasses.replace(model, name="other")], tasks, tmp_path, log=said.append)
        assert len(server.requests) == asked
    assert both == json.loads((tmp_path / "results.json").read_text())
    assert first["roles"] == {"random": "baseline", "base-7b": "before"} and first["paired_p"] is None
    assert both["roles"] == {"bm25": "baseline", "mine": "after", "base-7b": "before", "random": "baseline"}
    assert both["paired_p"] is not None and {c["against"] for c in both["comparisons"]} == {"mine"}
    assert both["macro"]["base-7b"] == first["macro"]["base-7b"] and both["data_hash"] == "d"
    assert set(both["diagnosis"]) == set(both["macro"])
    assert (tmp_path / "runs" / "rec-movie" / "base-7b.run").is_file()


def test_a_folder_of_an_earlier_version_is_refused_in_one_line_and_left_as_it_is(tasks, tmp_path):
    """Its headers say "rival" where the baseline is named, know no role, and bear no mark."""
    header = tmp_path / "episodes-random.header.json"
    header.write_text(json.dumps({"fingerprint": {"rival": "random"}, "took": {"seconds": 1.0}}))
    (tmp_path / "episodes-random.jsonl").write_text("{}\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        UserError, match=r"it holds episodes-random\.header\.json, .* which iranker did not write"
    ) as error:
        evaluate_systems(["random"], tasks, tmp_path, log=lambda _: None)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in before} == before


def test_a_record_is_its_line_and_back(tasks):
    for record in play_as("after", tasks[:3], knows=0.5, malformed=0.3).records:
        line = json.loads(json.dumps(record.to_json()))
        assert Record.from_json(line, TEMPLATE) == record
        read = Record.from_json(line)  # without the template: the steps are what the line says of them
        assert json.loads(json.dumps(read.to_json())) == line and read.episode.malformed == record.episode.malformed


def test_runs_and_qrels_are_scored_as_here(tasks, tmp_path):
    from iranker_verl.evaluation.trec import read_qrels, read_run, score

    results = [play_as("after", tasks, knows=0.5), *evaluate_baselines(tasks, tasks, tmp_path, log=lambda _: None)]
    write_trec(results, tmp_path)
    numbers = collect(results)["datasets"]
    for dataset, systems in numbers.items():
        qrels = read_qrels(tmp_path / dataset / "qrels.txt")
        assert {grade for grades in qrels.values() for grade in grades.values()} == {0, 1}
        assert {p.name for p in (tmp_path / dataset).iterdir()} == {"qrels.txt", *(f"{s}.run" for s in systems)}
        for system, own in systems.items():
            scores = score(read_run(tmp_path / dataset / f"{system}.run"), qrels, ["RR", "nDCG@10"])
            assert scores.means == pytest.approx({"RR": own["rr"], "nDCG@10": own["ndcg@10"]})


def test_graded_relevance_in_qrels(tmp_path):
    task = RankingTask("t 1", "routing", "router-cost", "c", (Candidate("a b", "x"), Candidate("c", "y")), (0.5, 1.0))
    ranking = ("c", "a b")
    write_trec([SystemResult("s", (Record(task, ranking, {}),), 1.0)], tmp_path)
    assert (tmp_path / "router-cost" / "qrels.txt").read_text() == "t%201 0 a%20b 500\nt%201 0 c 1000\n"
    assert (tmp_path / "router-cost" / "s.run").read_text() == "t%201 Q0 c 1 2 s\nt%201 Q0 a%20b 2 1 s\n"
