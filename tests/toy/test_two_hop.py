"""The world of two hops: what its tasks say, and what its base is, and is not, taught."""

from __future__ import annotations

from random import Random

import pytest

from iranker_verl.toy import two_hop
from reward_fns.answers import parse_exclusion

TASKS = [two_hop.make_task(Random(seed), seed) for seed in range(60)]


@pytest.mark.parametrize("task", TASKS[:20], ids=lambda task: task.id)
def test_the_best_candidate_is_of_the_asked_keys_kind_and_every_kind_has_a_key(task):
    kinds = dict(two_hop.facts(task))
    assert task.candidates[task.target].text == kinds[two_hop.asked_key(task)]
    assert sorted(kinds.values()) == sorted(c.text for c in task.candidates) and sum(task.relevance) == 1
    assert two_hop.is_right(task, f" {two_hop.asked_key(task)} {kinds[two_hop.asked_key(task)]}")


def test_the_asked_key_is_anywhere_in_the_map_and_the_best_anywhere_in_the_list():
    assert {[key for key, _ in two_hop.facts(t)].index(two_hop.asked_key(t)) for t in TASKS} == set(range(6))
    assert {t.target for t in TASKS} == set(range(6))


def test_a_taught_thought_is_right_as_often_as_by_chance_and_its_label_is_of_another_kind():
    random, right, positive = Random(1), 0, 0
    for number in range(600):
        task = two_hop.make_task(random, number)
        sample = two_hop.exclusion(random, task, think=True)
        thought = sample.answer.partition("<think>")[2].partition("</think>")[0]
        shown = [
            line.removeprefix("- ").partition("[")[0] for line in sample.messages[-1]["content"].splitlines()[2:-1]
        ]
        answer = parse_exclusion(sample.answer, shown)
        assert tuple(thought.split()) in two_hop.facts(task) and answer.status == "ok"
        assert shown[answer.index] != thought.split()[1]
        right += two_hop.is_right(task, thought)
        positive += shown[answer.index] == task.candidates[task.target].text
    assert 70 < right < 130  # of 600, one of six
    assert positive > 100


def test_the_hops_are_asked_apart():
    task = TASKS[0]
    kinds = dict(two_hop.facts(task))
    first, second = two_hop.look_up(Random(1), task), two_hop.find(Random(1), task)
    assert first.answer.split() == [two_hop.asked_key(task), kinds[two_hop.asked_key(task)]]
    assert not any(c.text + "[" in first.messages[0]["content"] for c in task.candidates)
    assert two_hop.asked_key(task) not in second.messages[0]["content"].split()
