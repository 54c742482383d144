"""Which traces are retrieved: by words, and by an encoder; within the scenario, and the same every time."""

import numpy as np
import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines import loading
from iranker_verl.evaluation.cot.retrieve import Bm25Retriever, EmbeddingRetriever, load_encoder
from tests.evaluation.cot.samples import store, task, trace

STORE = store(
    trace("how long can swifts fly"),
    trace("how long is the river Nile"),
    trace("Star Courier; Void Miner; swifts fly long", dataset="rec-game"),  # another scenario
    trace("who wrote Gulliver's Travels", dataset="passage-9"),
    trace("how long can swifts fly"),
)


@pytest.mark.parametrize(
    ("context", "k", "places"),
    [
        ("SWIFTS that fly", 2, [0, 4]),  # equal: the store's order
        ("SWIFTS that fly", 1, [0]),
        ("SWIFTS that fly", 5, [0, 4]),  # the others share no word
        ("the river and swifts", 5, [1, 0, 4]),
        ("how long did Gulliver travel?", 9, [3, 0, 4, 1]),  # a rare word is worth most; then the shorter context
        ("nothing in common", 5, []),
        ("?!", 5, []),
        ("", 5, []),
    ],
)
def test_golden_retrieval_by_words(context, k, places):
    assert Bm25Retriever(STORE).nearest(task(context), k) == places


def test_another_scenario_is_another_world():
    assert Bm25Retriever(STORE).nearest(task("swifts fly", "rec-movie"), 5) == [2]
    assert Bm25Retriever(STORE).nearest(task("swifts fly", "router-cost"), 5) == []
    assert Bm25Retriever(store()).nearest(task("swifts"), 5) == []
    assert Bm25Retriever(store(trace("?!"))).nearest(task("swifts"), 5) == []


def letters(texts):
    """How often a, b and c occur."""
    return np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=np.float32)


def test_golden_retrieval_by_embeddings():
    made = store(trace("aab"), trace("c"), trace("ab"), trace("aabaab"), trace("xyz"), trace("b", dataset="rec-game"))
    near = EmbeddingRetriever(made, letters, "letters")
    assert near.name == "embeddings:letters"
    assert near.nearest(task("a"), 9) == [0, 3, 2, 1, 4]  # cosines .894, .894, .707, 0 and 0 of a vector without length
    assert near.nearest(task("ccc"), 2) == [1, 0]
    assert near.nearest(task("?"), 1) == [0]
    assert near.nearest(task("c", "rec-music"), 3) == [5]
    assert near.nearest(task("c", "router-cost"), 3) == []


def test_a_model_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError) as error:
        load_encoder(str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in str(error.value) and "\n" not in str(error.value)


def test_a_model_is_asked_for_arrays(monkeypatch):
    asked = []

    class Model:
        def encode(self, texts, **options):
            asked.append((texts, options["convert_to_numpy"]))
            return letters(texts)

    def load(context, baseline):
        asked.append((dict(context.models), context.device, baseline))
        return Model()

    monkeypatch.setattr(loading, "load_sentence_encoder", load)
    encode = load_encoder("some/model", "cuda")
    assert EmbeddingRetriever(store(trace("ab"), trace("c")), encode, "some/model").nearest(task("cc"), 1) == [1]
    assert asked == [({"retriever": "some/model"}, "cuda", "retriever"), (["ab", "c"], True), (["cc"], True)]
