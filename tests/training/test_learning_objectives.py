"""The comparison of objectives: what makes its rows comparable, and its table by hand."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from benchmarks import learning_objectives as compared
from benchmarks.plain_loop import OBJECTIVES, Call, Policy, evaluate, few, most_calls, paid, worked
from iranker_verl.files import mark
from iranker_verl.ranking import Candidate, RankingTask
from tests.tiny_models import save

SIZES = {"passage-5": 5, "passage-7": 7, "passage-9": 9}
TASKS = [
    RankingTask.with_positive(
        f"{name}:{i}",
        "passage",
        name,
        f"query {i}",
        tuple(Candidate(str(c), f"text {c}") for c in range(size)),
        str(i % size),
    )
    for name, size in SIZES.items()
    for i in range(40)
]
BUDGETS = {"tokens": 1.0, "seconds": 0.0}


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Policy:
    return Policy(save(tmp_path_factory.mktemp("base")))


def test_rows_of_a_seed_begin_with_the_same_batch(policy):
    same = compared.ROWS["order"], compared.ROWS["expected"]
    first, second = (next(compared.batches(row, policy, TASKS, 3)) for row in same)
    torch.manual_seed(0)
    starts = [[(c.task.id, tuple(x.id for x in c.task.candidates)) for c in part] for part in (first, second)]
    assert set(starts[0]) == set(starts[1])
    assert set(starts[0]) != {
        (c.task.id, tuple(x.id for x in c.task.candidates)) for c in next(compared.batches(same[0], policy, TASKS, 4))
    }


def test_grpo_plays_every_task_as_often_and_pays_its_sessions_nothing_on_average(policy):
    row = compared.ROWS["grpo"]
    calls = next(compared.batches(row, policy, TASKS, 1))
    sessions = {c.session: c for c in calls}
    assert len(sessions) == compared.TASKS
    by_task: dict[tuple[str, int], list[float]] = {}
    for number, one in sessions.items():
        by_task.setdefault((one.task.id, int(number) // row.rollouts), []).append(one.advantage)
    assert all(len(own) == row.rollouts and abs(sum(own)) < 1e-9 for own in by_task.values())


def test_reciprocal_ranks_are_paid_against_the_tasks_other_sessions():
    calls = [Call(TASKS[0], str(i), [1], 5, 0, 4) for i in range(4)]
    # of the first task 1 and 1/2: mean 3/4, standard deviation 1/4; of the second twice the same
    assert [c.advantage for c in paid(calls, [1.0, 0.5, 0.25, 0.25], 2)] == [1.0, -1.0, 0.0, 0.0]


def test_worked_eliminations_spare_the_best_and_end_at_pairs(policy):
    calls = worked(policy, TASKS[:2], [1, "all"], random.Random(1))
    assert [c.size for c in calls] == [5, 4, 3, 2, 5]
    assert all(c.excluded != c.positive for c in calls)


@pytest.mark.parametrize("size", range(2, 30))
def test_few_calls_are_at_most_a_third_or_one(size):
    assert most_calls(size, few(size)) <= max(1, 0.35 * (size - 1))


def test_objectives_by_hand(policy):
    log_probs = torch.full((1, len(policy.tokenizer)), -50.0)
    log_probs[0, policy.labels[:3]] = torch.tensor([0.2, 0.5, 0.3]).log()
    call = Call(TASKS[0], "0", [1], 3, positive=0, most_calls=2, excluded=1)
    values = {name: objective(log_probs, [call], policy).exp().item() for name, objective in OBJECTIVES.items()}
    assert values["expected"] == pytest.approx(0.8, abs=1e-5)  # all but the best
    assert values["worked"] == pytest.approx(0.5, abs=1e-5)
    # the label excluded last: 1/.2 against 1/.5 and 1/.3
    assert values["best"] == pytest.approx(5 / (5 + 2 + 10 / 3), abs=1e-5)
    # (E[1 / rank] - 1/3) / (1 - 1/3); the first is last to leave by .5 * .3/.5 + .3 * .5/.7, and first to leave by .2
    last = 0.5 * 0.3 / 0.5 + 0.3 * 0.5 / 0.7
    assert values["order"] == pytest.approx((last + (0.8 - last) / 2 + 0.2 / 3 - 1 / 3) * 1.5, abs=1e-4)
    paid_call = replace(call, log_prob=float(torch.tensor(0.4).log()), advantage=2.0)  # a ratio of 1.25, cut at 1.2
    assert OBJECTIVES["grpo"](log_probs, [paid_call], policy).item() == pytest.approx(2.4, abs=1e-4)
    assert OBJECTIVES["grpo"](log_probs, [replace(paid_call, advantage=-2.0)], policy).item() == pytest.approx(
        -2.5, abs=1e-4
    )


def test_decoding_is_greedy_among_a_prompts_labels(policy):
    found = evaluate(policy, TASKS[::7])
    assert found == evaluate(policy, TASKS[::7])
    assert all(0 < found[column] <= 1 for column in compared.COLUMNS) and 1 <= found["calls"] < 2


def test_a_stopped_comparison_goes_on_and_asks_the_test_tasks_last(tmp_path, policy, monkeypatch):
    mark(tmp_path)
    made = compared.Seed(tmp_path, TASKS, TASKS, TASKS[:3])
    asked: list[tuple] = []

    def train(made, seed, name, lr, budgets, out):
        if len(asked) == 3 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        asked.append((seed, name, lr))
        point = {"each": lr, "once": lr, "tokens": 1.0, "seconds": 1.0}
        return {"curve": [point] * compared.POINTS, "spent": {"seconds": {"tokens": 1.0, "seconds": 1.0, "steps": 1}}}

    def tested(policy, tasks):
        assert len(asked) == 6  # two rates of two rows for the first seed, one for the second
        return {column: random.random() for column in compared.COLUMNS}

    monkeypatch.setattr(compared, "make_seed", lambda root, seed: made)
    monkeypatch.setattr(compared, "train", train)
    monkeypatch.setattr(compared, "evaluate", tested)
    monkeypatch.setattr(compared, "Policy", lambda *_: policy)
    arguments = (tmp_path, [1, 2], ["order", "grpo"], [0.1, 0.2], BUDGETS)
    with pytest.raises(KeyboardInterrupt):
        compared.run_all(*arguments)
    tests = compared.run_all(*arguments)
    assert asked == [
        (1, "order", 0.1),
        (1, "order", 0.2),
        (1, "grpo", 0.1),
        (1, "grpo", 0.2),
        (2, "order", 0.2),
        (2, "grpo", 0.2),
    ]
    assert len(tests) == 2 + 2 * 2 * 2
    assert compared.run_all(*arguments) == tests and len(asked) == 6
    assert (tmp_path / "table.md").read_text().count("| grpo | 0.2 | ") == len(BUDGETS)


def test_the_table_pairs_seeds():
    tests = [
        {"at": at, "row": row, "seed": seed, "lr": 0.1, **dict.fromkeys(compared.COLUMNS, value + seed / 10)}
        for at, row, value in (("none", "base", 0.1), ("tokens", "order", 0.5), ("tokens", "grpo", 0.4))
        for seed in (1, 2, 3)
    ]
    for test in tests:
        if test["row"] == "grpo":  # differences -.09, -.08, -.07: t = -.08 / (.01 / sqrt 3)
            test |= {column: value + test["seed"] / 100 for column, value in test.items() if column in compared.COLUMNS}
    found = compared.table(tests, [], ["order", "grpo"])
    assert "| order | 0.1 | 0.700 (0.600) | 0.700 (0.600) | 0.700 (0.600) |" in found
    # half of the interval: 4.303 * .01 / sqrt 3; p of t = 13.86 with 2 degrees of freedom is .00517, three times that by Holm
    assert found.count("0.620 (0.510); -0.080 ± 0.025, 0.016") == 3
