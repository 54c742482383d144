"""The reverse curriculum: which candidates an episode begins with, and when it begins with all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.training.curriculum import first_pool, shortened


def make(relevance, id="t"):
    candidates = tuple(Candidate(f"id{i}", f"text {i % 3}") for i in range(len(relevance)))
    return RankingTask(id, "passage", "passage-5", "a question", candidates, tuple(relevance))


RELEVANCES = st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2, max_size=12).filter(lambda r: len(set(r)) > 1)


def test_it_grows_from_first_to_all():
    sizes = [first_pool(step, 10, 2, 16) for step in range(1, 30)]
    assert sizes[:3] == [2, 2, 3] and sizes[15:] == [9] + [10] * 13
    assert sizes == sorted(sizes)


@given(st.integers(1, 200), st.integers(2, 30), st.integers(2, 30), st.integers(1, 100))
def test_its_bounds(step, candidates, first, steps):
    size = first_pool(step, candidates, first, steps)
    assert min(first, candidates) <= size <= candidates
    if step > steps:
        assert size == candidates


@given(RELEVANCES, st.integers(2, 12), st.text(max_size=5))
def test_a_shortened_task_is_a_task(relevance, size, seed):
    task = make(relevance)
    short = shortened(task, size, seed)  # a task that cannot be ranked would raise
    ids = [c.id for c in task.candidates]
    places = [ids.index(c.id) for c in short.candidates]
    assert len(short.candidates) == min(size, len(relevance))
    assert places == sorted(places)  # in the order shown
    assert [task.candidates[i] for i in places] == list(short.candidates)
    assert [relevance[i] for i in places] == list(short.relevance)
    assert max(short.relevance) == max(relevance)
    assert shortened(task, size, seed) == short
    assert (short.id, short.dataset, short.context, short.history) == (
        task.id,
        task.dataset,
        task.context,
        task.history,
    )


def test_every_negative_has_its_turn():
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
