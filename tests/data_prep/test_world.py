"""The toy world: the same bytes for a seed, nothing shared between train and test, and no gift to a counter of words."""

import math
from collections import Counter
from pathlib import Path

import pytest

from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.schema import read_tasks
from data_prep.world import WorldSize, words, write_world
from iranker_verl.ranking import DATASETS, RankingTask
from iranker_verl.ranking.templates import load

SIZE = WorldSize(users=400, queries=400, passage_train=80, passage_test=60)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "raw", 1, SIZE)
    options = Options(history=5, candidates=6, test_fraction=0.2, seed=1)
    prepare(folder / "raw", folder / "data", load("label"), options)
    return read_tasks(folder / "data" / "train.parquet"), read_tasks(folder / "data" / "test.parquet")


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    small = WorldSize(users=20, queries=20, passage_train=5, passage_test=2)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_world(tmp_path / name, seed, small)
    a, b, c = (files(tmp_path / name) for name in "abc")
    assert a == b
    assert len(a) == 10 and all(a[name] != c[name] for name in a)


def test_the_size_of_one_set_changes_no_other(tmp_path):
    write_world(tmp_path / "a", 1, WorldSize(20, 20, 5, 2))
    write_world(tmp_path / "b", 1, WorldSize(20, 25, 5, 2))
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert {name for name in a if a[name] != b[name]} == {"router/router_data.csv"}


def test_the_real_loaders_make_all_nine_datasets_of_it(world):
    train, test = world
    for tasks in (train, test):
        assert set(Counter(t.dataset for t in tasks)) == set(DATASETS)
        assert min(Counter(t.dataset for t in tasks).values()) >= 60
    assert {len(t.candidates) for t in test if t.scenario != "passage"} == {6}


def test_train_and_test_share_no_user_query_or_passage(world):
    train, test = world
    assert not {t.id for t in train} & {t.id for t in test}
    contexts = [{t.context for t in tasks if t.scenario != "recommendation"} for tasks in world]
    assert not contexts[0] & contexts[1]
    texts = [{c.text for t in tasks if t.scenario == "passage" for c in t.candidates} for tasks in world]
    assert not texts[0] & texts[1]


def test_topics_have_no_word_in_common():
    counted = Counter(word for topic in words.TOPICS for word in words.WORDS[topic])
    assert set(counted.values()) == {1}
    assert not set(counted) & set(words.NEUTRAL)


def overlap_mrr(tasks: list[RankingTask]) -> float:
    """Candidates by how many rare words they share with the context, ties in expectation: what BM25 sees."""

    def split(text: str) -> set[str]:
        return set("".join(c if c.isalnum() else " " for c in text.lower()).split())

    frequency = Counter(word for t in tasks for c in t.candidates for word in split(c.text))
    total = sum(len(t.candidates) for t in tasks)
    result = 0.0
    for task in tasks:
        asked = split(task.context)
        scores = [sum(math.log(total / frequency[w]) for w in sorted(split(c.text) & asked)) for c in task.candidates]
        own = scores[task.target]
        above, ties = sum(s > own for s in scores), sum(s == own for s in scores)
        result += sum(1 / (above + i + 1) for i in range(ties)) / ties
    return result / len(tasks)


def test_common_words_tell_little(world):
    by_dataset: dict[str, list[RankingTask]] = {}
    for task in world[1]:
        by_dataset.setdefault(task.dataset, []).append(task)
    scores = {dataset: overlap_mrr(tasks) for dataset, tasks in by_dataset.items()}
    assert sum(scores.values()) / 9 < 0.55, scores  # dice: .39; the best that can be had: above .95
    assert max(scores.values()) < 0.7, scores


def test_the_topic_tells_nearly_everything(world):
    topic_of = {word: topic for topic in words.TOPICS for word in words.WORDS[topic]}

    def topics(text: str) -> Counter[str]:
        cleaned = "".join(c if c.isalnum() else " " for c in text.lower())
        return Counter(topic_of[w] for w in cleaned.split() if w in topic_of)

    for dataset in [d for d, scenario in DATASETS.items() if scenario != "routing"]:
        right = total = 0.0
        for task in [t for t in world[1] if t.dataset == dataset]:
            asked = topics(task.context).most_common(1)[0][0]
            scores = [topics(c.text)[asked] for c in task.candidates]
            own = scores[task.target]
            above, ties = sum(s > own for s in scores), sum(s == own for s in scores)
            right += sum(1 / (above + i + 1) for i in range(ties)) / ties
            total += 1
        assert right / total > 0.9, dataset
