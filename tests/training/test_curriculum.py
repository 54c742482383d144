"""The reverse curriculum: which tasks a batch has, and which candidates an episode begins with."""

import json
from dataclasses import replace
from statistics import fmean

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from iranker_verl.files import mark, write_jsonl
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.training.curriculum import Curriculum, pool_sizes, shortened, skill
from iranker_verl.training.metrics_log import MetricsLog


def make(relevance, id="t"):
    candidates = tuple(Candidate(f"id{i}", f"text {i % 3}") for i in range(len(relevance)))
    return RankingTask(id, "passage", "passage-5", "a question", candidates, tuple(relevance))


RELEVANCES = st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2, max_size=12).filter(lambda r: len(set(r)) > 1)


def curriculum(**options):
    """Two datasets of ten candidates, of 30 and 10 tasks."""
    rows = {"a": dict.fromkeys(range(30), 10), "b": dict.fromkeys(range(100, 110), 10)}
    settings = {"first_pool": 2, "rise": 0.5, "fall": 0.2, "patience": None, "focus": 0.75, "seed": 1} | options
    return Curriculum(rows, **settings)


def earned(**datasets):
    """A step's metrics of datasets: reciprocal rank, and candidates begun with."""
    return {f"episode/rr/{name}": rr for name, (rr, _) in datasets.items()} | {
        f"episode/candidates/{name}": began for name, (_, began) in datasets.items()
    }


@given(st.integers(2, 50))
def test_skill_is_zero_at_random_and_one_at_best(size):
    assert skill(fmean(1 / rank for rank in range(1, size + 1)), size) == pytest.approx(0, abs=1e-12)
    assert skill(1.0, size) == 1.0


def test_pools_grow_and_shrink_with_what_their_dataset_earned():
    plan = curriculum()
    assert plan.size == {"a": 2, "b": 2}
    plan.observe(earned(a=(0.875, 2), b=(0.874, 2)))  # of pairs .75 is chance: skills .5 and below
    assert plan.size == {"a": 3, "b": 2}
    plan.observe(earned(a=(1.0, 3)))  # b had no episodes
    assert plan.size == {"a": 4, "b": 2}
    plan.observe(earned(a=(0.53, 4), b=(0.5, 2)))  # chance of four is .5208
    assert plan.size == {"a": 3, "b": 2}  # no fewer than the first
    for size in range(3, 15):
        plan.observe(earned(a=(1.0, min(size, 10))))
    assert plan.size["a"] == 10  # no more than there are


def test_few_tasks_are_judged_together():
    plan = curriculum()
    sizes = []
    for rr in (1.0, 0.6, 1.0, 0.8):  # of five tasks each: .8 over the first ten, a skill of .2; then .9, of .6
        plan.observe(earned(a=(rr, 2)) | {"episode/tasks/a": 5.0})
        sizes.append(plan.size["a"])
    assert sizes == [2, 2, 2, 3]


def test_what_nobody_can_learn_grows_all_the_same():
    stuck = curriculum(patience=None, rise=0.25, fall=0.05)
    grows = curriculum(patience=128, rise=0.25, fall=0.05)
    for _ in range(100):  # 1,400 tasks at chance
        for plan in (stuck, grows):
            n = plan.size["a"]
            plan.observe(earned(a=(sum(1 / k for k in range(1, n + 1)) / n, n)) | {"episode/tasks/a": 14.0})
    assert (stuck.size["a"], grows.size["a"]) == (2, 10)


def test_pairs_that_noise_hides_in_part_are_left():
    """The better of two can be told with .8: log J's optimum samples it with .8, so it is right in .8² + .2² = .68."""
    right = 0.8**2 + 0.2**2
    for rise, grows in ((0.5, False), (0.25, True)):  # a skill of .36
        plan = curriculum(rise=rise, fall=0.05)
        plan.observe(earned(a=(1 - (1 - right) / 2, 2)) | {"episode/tasks/a": 14.0})
        assert (plan.size["a"] > 2) == grows


def test_pools_grow_to_the_largest_task():
    plan = Curriculum({"a": {0: 4, 1: 16}}, first_pool=2, rise=0.5, fall=0.2, patience=None, focus=0.75, seed=1)
    for _ in range(20):
        plan.observe(earned(a=(1.0, fmean(min(plan.size["a"], n) for n in (4, 16)))))
    assert plan.size == {"a": 16} and plan.left == {"a": 0}


def test_what_is_learned_gives_way():
    plan = curriculum()
    assert plan.shares() == pytest.approx({"a": 0.75, "b": 0.25})  # by their numbers of tasks
    plan.observe(earned(a=(1.0, 10), b=(0.75, 2)))  # all of the focus would go to b, .8125 in all
    assert plan.shares() == pytest.approx({"a": 0.5, "b": 0.5})  # but no more than twice its share of the tasks
    plan.observe(earned(b=(1.0, 10)))  # nothing left to learn
    assert plan.shares() == pytest.approx({"a": 0.75, "b": 0.25})
    half = curriculum(focus=0.5)
    half.observe(earned(a=(1.0, 4), b=(0.1, 2)))  # a has a third of the way behind it; b is worse than chance
    assert half.shares() == pytest.approx({"a": 0.5 * 0.75 + 0.5 * 20 / 30, "b": 0.5 * 0.25 + 0.5 * 10 / 30})


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=9), st.floats(0, 1))
def test_no_dataset_takes_the_batch(datasets, focus):
    rows = {str(i): {(i, row): 10 for row in range(count)} for i, (count, _) in enumerate(datasets)}
    plan = Curriculum(rows, first_pool=2, rise=0.5, fall=0.2, patience=None, focus=focus, seed=1)
    plan.left = {str(i): left for i, (_, left) in enumerate(datasets)}
    shares, tasks = plan.shares(), sum(count for count, _ in datasets)
    assert sum(shares.values()) == pytest.approx(1)
    assert (
        all(shares[str(i)] <= 2 * count / tasks + 1e-9 for i, (count, _) in enumerate(datasets)) or len(datasets) == 1
    )


def test_a_batch_has_the_shares():
    plan = curriculum()
    drawn = plan.draw(16)
    assert len(drawn) == 16 and sum(row < 100 for row in drawn) == 12
    plan.observe(earned(a=(1.0, 10)))
    assert sum(row < 100 for row in plan.draw(16)) == 8


@given(st.integers(1, 60), st.lists(st.floats(0, 1), min_size=2, max_size=2), st.floats(0, 1), st.integers(0, 99))
def test_a_batch_is_whole_and_near_its_shares(size, rrs, focus, seed):
    plan = curriculum(focus=focus, seed=seed)
    plan.observe(earned(a=(rrs[0], 10), b=(rrs[1], 10)))
    shares = plan.shares()
    assert sum(shares.values()) == pytest.approx(1)
    drawn = plan.draw(size)
    assert len(drawn) == size
    assert abs(sum(row < 100 for row in drawn) - shares["a"] * size) < 1 + 1e-6


def test_every_task_has_its_turn_before_any_a_second_time():
    plan = curriculum()
    drawn = [row for _ in range(10) for row in plan.draw(12)]
    assert sorted(drawn) == sorted([*range(30), *range(100, 110)] * 3)
    first, second, _ = ([row for row in drawn if row < 100][turn : turn + 30] for turn in (0, 30, 60))
    assert sorted(first) == sorted(second) == list(range(30)) and first != second


def test_a_resumed_run_draws_what_it_would_have_drawn():
    lines = [earned(a=(0.9, 2), b=(0.8, 2)), earned(a=(0.95, 3)), earned(a=(0.6, 4), b=(0.9, 2))]
    whole, resumed = curriculum(), curriculum()
    for line in lines:
        whole.draw(8)
        whole.observe(line)
    resumed.replay(json.loads(json.dumps(lines)), batch_size=8)
    assert (whole.size, whole.left, whole.draw(8)) == (resumed.size, resumed.left, resumed.draw(8))
    assert curriculum(seed=2).draw(8) != curriculum().draw(8)


@given(RELEVANCES, st.integers(2, 12), st.text(max_size=5))
def test_a_shortened_task_is_a_task(relevance, size, seed):
    task = make(relevance)
    short = shortened(task, size, seed)  # a task that cannot be ranked would raise
    ids = [c.id for c in task.candidates]
    indices = [ids.index(c.id) for c in short.candidates]
    assert len(short.candidates) == min(size, len(relevance))
    assert indices == sorted(indices)  # in the order of the prompt
    assert [task.candidates[i] for i in indices] == list(short.candidates)
    assert [relevance[i] for i in indices] == list(short.relevance)
    assert max(short.relevance) == max(relevance)
    assert shortened(task, size, seed) == short
    assert (short.id, short.dataset, short.context, short.history) == (
        task.id,
        task.dataset,
        task.context,
        task.history,
    )


def test_every_negative_is_drawn_sometimes():
    task = make([0.0, 1.0, 0.0, 0.0])
    drawn = {next(c.id for c in shortened(task, 2, str(seed)).candidates if c.id != "id1") for seed in range(40)}
    assert drawn == {"id0", "id2", "id3"}


def test_tasks_of_one_step_are_drawn_apart():
    kept = {tuple(c.id for c in shortened(make([1.0] + [0.0] * 9, f"t{i}"), 3, "1:7").candidates) for i in range(20)}
    assert len(kept) > 10


@pytest.mark.parametrize("size", [4, 5, 99])
def test_nothing_to_take_away(size):
    task = make([0.0, 1.0, 0.0, 0.0])
    assert shortened(task, size, "") is task


@pytest.mark.parametrize("block", [1, 2, 100])
def test_pool_sizes_are_by_dataset_and_row(monkeypatch, block):
    monkeypatch.setattr("iranker_verl.training.curriculum.BLOCK", block)
    sizes = [("rec-movie", 3), ("passage-5", 2), ("rec-movie", 4)]
    rows = [{"data_source": d, "reward_model": {"ground_truth": {"candidates": ["x"] * n}}} for d, n in sizes]
    assert pool_sizes(Dataset.from_list(rows)) == {"rec-movie": {0: 3, 2: 4}, "passage-5": {1: 2}}


class Rows(list):
    """Prepared rows as verl's data set holds them."""

    @property
    def dataframe(self):
        return Dataset.from_list([dict(row) for row in self])


def trainer_of(tmp_path, **options):
    """A trainer without workers, whose recipe has a curriculum: two tasks of one data set, one of another."""
    trainer = pytest.importorskip("iranker_verl.training.trainer")
    tasks = [make([1.0] + [0.0] * (n - 1), f"t{n}") for n in (3, 5)] + [replace(make([1.0, 0.0]), dataset="passage-7")]
    own = object.__new__(trainer.EliminationTrainer)
    own.train_dataset = Rows(
        {
            "data_source": t.dataset,
            "raw_prompt": [],
            "reward_model": {"ground_truth": {"candidates": list(t.relevance)}},
        }
        for t in tasks
    )
    curriculum = {"first_pool": 2, "rise": 0.5, "fall": 0.2, "patience": None, "focus": 0.5} | options
    own.config = OmegaConf.create({"iranker": {"curriculum": curriculum, "seed": 1}, "data": {"train_batch_size": 3}})
    own.metrics_log = MetricsLog(tmp_path / "metrics.jsonl", last_step=9)
    own.global_steps = 4
    own.curriculum = own._resume_curriculum()
    return own


def test_the_trainer_fills_a_batch_as_the_curriculum_says(tmp_path):
    own = trainer_of(tmp_path)
    assert own.curriculum.rows == {"passage-5": {0: 3, 1: 5}, "passage-7": {2: 2}}
    own.curriculum.observe({"episode/rr/passage-5": 1.0, "episode/candidates/passage-5": 2.0})
    batch = own._next_train_batch()
    assert len(batch) == 3 and len(set(batch["uid"])) == 3 and batch["global_steps"] == 4
    sizes = dict(zip(batch["data_source"], batch["first_pool"], strict=True))
    assert sizes == {"passage-5": 3, "passage-7": 2}


def test_the_trainer_takes_the_curriculum_up_where_the_steps_have_brought_it(tmp_path):
    lines = [{"step": 1, "episode/rr/passage-5": 1.0, "episode/candidates/passage-5": 2.0}]
    mark(tmp_path)
    write_jsonl(tmp_path / "metrics.jsonl", lines)
    resumed = trainer_of(tmp_path).curriculum
    assert resumed.size == {"passage-5": 3, "passage-7": 2}
    whole = trainer_of(tmp_path / "new").curriculum
    whole.draw(3)
    whole.observe(lines[0])
    assert resumed.draw(3) == whole.draw(3)


def test_no_curriculum_is_verls_own_order(tmp_path):
    assert trainer_of(tmp_path, first_pool=None).curriculum is None
