"""RankBERT: it learns a rule, the same for a seed whatever the order shown, and says what it cuts."""

import random
import shutil
import time

import pytest
import tiny_rankers as tiny

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines import Context, Unavailable, make_baselines
from iranker_verl.evaluation.baselines.fitting import FineTuning
from iranker_verl.evaluation.baselines.pointwise import POOL, _pool
from iranker_verl.ranking import Candidate, RankingTask

FAST = FineTuning(epochs=4, rate=5e-3, batch=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.bert(tmp_path_factory.mktemp("bert"))


def baseline(folder, seed=0, settings=FAST, log=lambda line: None):
    made = make_baselines(["rankbert"], Context(seed, models={"rankbert": str(folder)}, log=log))[0]
    made.settings = settings
    return made


@pytest.fixture(scope="module")
def trained(folder):
    model = baseline(folder)
    model.fit(tiny.passages(100))
    return model


def test_it_learns_which_passage_holds_the_query(folder, trained):
    tests = tiny.passages(100, seed=1)
    untrained = baseline(folder, settings=FineTuning(epochs=0, rate=0.0))
    untrained.fit(tiny.passages(1))
    assert tiny.first_is_best(untrained, tests) < 0.5
    assert tiny.first_is_best(trained, tests) > 0.9


def test_the_order_shown_decides_nothing_in_ranking_and_in_training(folder, trained):
    tests = tiny.passages(20, seed=2)
    assert trained.rank(tests) == trained.rank([tiny.turned(t) for t in tests])
    few = tiny.passages(20)
    short = FineTuning(epochs=1, rate=1e-3, batch=4)
    one, other, another_seed = (
        baseline(folder, settings=short),
        baseline(folder, settings=short),
        baseline(folder, 1, short),
    )
    one.fit(few)
    other.fit([tiny.turned(t) for t in reversed(few)])
    another_seed.fit(few)
    pair = ("ash", "ash bay cod")
    assert one.score([pair]) == other.score([pair])
    assert one.score([pair]) != another_seed.score([pair])


def test_training_leaves_the_global_random_numbers_alone(folder):
    import torch

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    baseline(folder, settings=FineTuning(epochs=1, rate=1e-3)).fit(tiny.passages(4))
    assert torch.random.get_rng_state().equal(before)


def test_a_pair_scores_alone_what_it_scores_in_a_padded_batch(trained):
    pairs = [("ash", "ash"), ("ash", "bay cod"), ("ash bay", "cod dew elm fig gnu hen ivy jam kit log " * 2)]
    together = trained.score(pairs)
    for pair in pairs:
        assert trained.score([pair])[pair] == pytest.approx(together[pair], abs=1e-4)


def test_a_long_passage_loses_its_end_and_this_is_said(folder):
    said = []
    model = baseline(folder, log=said.append)
    model.load(tiny.passages(2))
    said.clear()
    long = "bay " * 40  # with [CLS] ash [SEP] and [SEP], 28 of its words fit in 32 tokens
    scores = model.score([("ash", long), ("ash", "bay " * 28 + "cod cod"), ("ash", "bay " * 28), ("ash", "bay")])
    assert said == ["rankbert: 2 of 4 passages were cut: 32 tokens hold a query and a passage"]
    assert scores["ash", long] == scores["ash", "bay " * 28 + "cod cod"] == scores["ash", "bay " * 28]
    with pytest.raises(UserError, match=r"rankbert reads 32 tokens, and the query 'ash ash .*leaves no room"):
        model.score([("ash " * 30, "bay cod")])


def test_other_scenarios_are_left_out(trained):
    movie = RankingTask.with_positive(
        "m", "recommendation", "rec-movie", "ash", (Candidate("a", "ash"), Candidate("b", "bay")), "a"
    )
    passage = tiny.passages(1)[0]
    first, second = trained.rank([movie, passage])
    assert first is None and sorted(second) == ["p0", "p1", "p2", "p3"]
    assert trained.rank([]) == []
    with pytest.raises(
        Unavailable, match="rankbert: it is fine-tuned, and no training task is of the passage scenario"
    ):
        make_baselines(["rankbert"], trained.context)[0].fit([movie])


def test_a_pool_holds_the_best_and_at_most_sixteen():
    candidates = tuple(Candidate(f"{i:02}", f"text {i}") for i in range(40))
    grades = tuple({3: 2.0, 30: 2.0, 5: 1.0}.get(i, 0.0) for i in range(40))
    task = RankingTask("t", "passage", "dl19", "q", candidates, grades)
    texts, best = _pool(task, random.Random(0))
    assert (texts[:2], best, len(set(texts))) == (["text 3", "text 30"], 2, POOL)
    everyone = RankingTask("t", "passage", "dl19", "q", candidates, (0.0, *[1.0] * 39))
    texts, best = _pool(everyone, random.Random(0))
    assert best == POOL - 1 and texts[-1] == "text 0"


def test_the_positive_wins_its_pool(folder):
    task = tiny.passages(1)
    model = baseline(folder, settings=FineTuning(epochs=30, rate=1e-2, batch=1))
    model.fit(task)
    scores = model.score([(task[0].context, c.text) for c in task[0].candidates])
    positive = scores[task[0].context, task[0].candidates[task[0].target].text]
    assert all(positive > score + 2 for (_, text), score in scores.items() if score != positive), scores


@pytest.mark.parametrize("broken", ["missing", "empty", "torn", "headless body", "other heads"])
def test_what_cannot_be_loaded_is_unavailable_with_a_way_out(folder, tmp_path, broken):
    at = tmp_path / "model"
    if broken == "empty":
        at.mkdir()
    elif broken != "missing":
        shutil.copytree(folder, at)
    if broken == "torn":
        (at / "model.safetensors").write_bytes(b"torn")
    if broken == "headless body":
        tiny.without_weight(at, "layer.0")
    if broken == "other heads":
        from transformers import AutoModelForSequenceClassification

        AutoModelForSequenceClassification.from_pretrained(at, num_labels=3).save_pretrained(at)
    with pytest.raises(Unavailable, match=r"(?s)^rankbert: .*model.*--models rankbert=FOLDER$") as raised:
        baseline(at).fit(tiny.passages(2))
    assert "\n" not in str(raised.value)


def test_a_pickle_of_code_is_not_run(folder, tmp_path):
    import torch

    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    at = shutil.copytree(folder, tmp_path / "model")
    (at / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Code()}, at / "pytorch_model.bin")
    with pytest.raises(Unavailable, match="cannot be loaded"):
        baseline(at).fit(tiny.passages(2))
    assert not (tmp_path / "ran").exists()


def test_a_training_that_diverges_gives_no_number(folder):
    with pytest.raises(Unavailable, match="rankbert: its training diverged in epoch 0"):
        baseline(folder, settings=FineTuning(epochs=20, rate=1e30, batch=1)).fit(tiny.passages(4))


def test_a_name_that_cannot_be_fetched_is_unavailable_at_once(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    started = time.monotonic()
    with pytest.raises(Unavailable, match="rankbert: nobody/no-such-model is no folder here and cannot be fetched"):
        baseline("nobody/no-such-model").fit(tiny.passages(2))
    assert time.monotonic() - started < 20
