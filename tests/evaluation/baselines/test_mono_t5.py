"""MonoT5: the prompt and the probability of its paper, with a tiny T5 of our own."""

import shutil

import pytest
import tiny_rankers as tiny

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines import Context, Unavailable, make_baselines
from iranker_verl.ranking import Candidate, RankingTask


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.t5(tmp_path_factory.mktemp("t5"))


def baseline(folder, log=lambda line: None):
    return make_baselines(["monot5"], Context(models={"monot5": str(folder)}, log=log))[0]


@pytest.fixture(scope="module")
def loaded(folder):
    model = baseline(folder)
    model.fit([])  # nothing is trained
    return model


def test_the_score_is_the_log_odds_of_true_against_false(folder, loaded):
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()
    inputs = tokenizer("Query: ash bay Document: cod dew elm Relevant:", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
    true, false = (tokenizer.convert_tokens_to_ids(word) for word in ("▁true", "▁false"))
    probability = logits[[true, false]].softmax(0)[0].item()
    score = loaded.score([("ash bay", "cod dew elm")])["ash bay", "cod dew elm"]
    assert 1 / (1 + 2.718281828459045**-score) == pytest.approx(probability, abs=1e-5)


def test_the_parts_have_the_tokens_of_the_whole(folder, loaded):
    from transformers import AutoTokenizer

    whole = AutoTokenizer.from_pretrained(folder)("Query: ash bay Document: cod dew Relevant:")["input_ids"]
    assert loaded.encode("ash bay", "cod dew") == ({"input_ids": whole}, False)
    assert loaded.encode(" ash  bay", "cod\ndew ") == ({"input_ids": whole}, False)


def test_what_is_cut_is_the_passages_end_and_this_is_said(folder):
    said = []
    model = baseline(folder, log=said.append)
    model.fit([])
    # Query: ash Document: … Relevant: </s> leaves 59 of 64 tokens.
    ids, cut = model.encode("ash", "bay " * 59)
    assert len(ids["input_ids"]) == 64 and not cut
    scores = model.score([("ash", "bay " * 59), ("ash", "bay " * 59 + "cod"), ("ash", "cod")])
    assert said == ["monot5: 1 of 3 passages were cut: 64 tokens hold a query and a passage"]
    assert scores["ash", "bay " * 59] == scores["ash", "bay " * 59 + "cod"]
    with pytest.raises(UserError, match=r"monot5 reads 64 tokens, and the query 'ash ash .*leaves no room"):
        model.score([("ash " * 60, "bay")])


def test_neither_order_nor_pads_change_a_ranking(loaded):
    tasks = tiny.passages(20)
    assert loaded.rank(tasks) == loaded.rank([tiny.turned(t) for t in reversed(tasks)])[::-1]
    pairs = [("ash", "bay"), ("ash", "bay cod"), ("ash", "dew elm " * 25)]
    together = loaded.score(pairs)
    for pair in pairs:
        assert loaded.score([pair])[pair] == pytest.approx(together[pair], abs=1e-4)


def test_other_scenarios_are_left_out(loaded):
    movie = RankingTask.with_positive(
        "m", "recommendation", "rec-movie", "ash", (Candidate("a", "ash"), Candidate("b", "bay")), "a"
    )
    assert loaded.rank([movie]) == [None]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("no words", "its vocabulary has no '▁true'; this is no T5"),
        ("no encoder", "weights are missing, encoder.block.0"),
        ("a BERT", "its vocabulary has no '▁true'"),
        ("empty", "cannot be loaded"),
        ("torn", "cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_unavailable_with_a_way_out(folder, tmp_path, broken, why):
    at = tmp_path / "model"
    if broken == "no words":
        tiny.t5(at, words=["▁yes", "▁no"])
    elif broken == "a BERT":
        tiny.bert(at)
    elif broken == "empty":
        at.mkdir()
    else:
        shutil.copytree(folder, at)
    if broken == "no encoder":
        tiny.without_weight(at, "encoder.block.0")
    if broken == "torn":
        (at / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(Unavailable, match=why) as raised:
        baseline(at).fit([])
    assert str(raised.value).endswith("name a model folder with --models monot5=FOLDER")


def test_the_default_needs_the_hub(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        Unavailable, match=r"^monot5: castorini/monot5-base-msmarco is no folder here and cannot be fetched"
    ):
        make_baselines(["monot5"], Context(log=lambda line: None))[0].fit([])
