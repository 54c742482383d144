"""RankLLaMA: what each kind of folder leads to, the last token's head, and a rule learned through adapters."""

import shutil

import pytest
import tiny_rankers as tiny

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines import Context, Unavailable, make_baselines
from iranker_verl.evaluation.baselines.fitting import FineTuning

FAST = FineTuning(epochs=4, rate=5e-3, batch=4)
NONE = FineTuning(epochs=0, rate=0.0)


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return tiny.llama(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return tiny.llama(tmp_path_factory.mktemp("classifier"), kind="LlamaForSequenceClassification", num_labels=1)


def baseline(folder, seed=0, settings=NONE, log=lambda line: None):
    made = make_baselines(["rankllama"], Context(seed, models={"rankllama": str(folder)}, log=log))[0]
    made.settings = settings
    return made


def by_hand(folder, text):
    """The head over the end token, with no batch, no pad and none of the model's own search for its last token."""
    import torch
    from transformers import AutoTokenizer, LlamaForSequenceClassification

    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"] + [1]
    with torch.no_grad():
        return model.score(model.model(torch.tensor([ids])).last_hidden_state[0, -1]).item()


def test_a_classifier_is_used_as_it_is_and_reads_its_end_token(classifier):
    model = baseline(classifier)
    model.fit([])  # no training tasks are needed
    pairs = [("ash", "bay cod"), ("ash", "dew elm fig gnu"), ("hen ivy", "jam")]
    scores = model.score(pairs)
    for query, passage in pairs:
        expected = by_hand(classifier, f"query: {query} document: {passage}")
        assert scores[query, passage] == pytest.approx(expected, abs=1e-4)
        # The end token is the pad in this tokenizer: a search for the last token that is no pad would miss it.
        assert model.score([(query, passage)])[query, passage] == pytest.approx(expected, abs=1e-4)


def test_neither_order_nor_pads_change_a_ranking(classifier):
    model = baseline(classifier)
    model.fit([])
    tasks = tiny.passages(20)
    assert model.rank(tasks) == model.rank([tiny.turned(t) for t in reversed(tasks)])[::-1]


def test_a_causal_lm_learns_which_passage_says_the_query(causal):
    model = baseline(causal, settings=FAST)
    tests = tiny.passages(60, seed=1)
    model.fit(tiny.passages(100))
    assert tiny.first_is_best(model, tests) > 0.9
    trained = {name for name, weight in model.model.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name or ".score." in name for name in trained)


def test_training_is_the_same_for_a_seed_whatever_the_order_shown(causal):
    few, pair = tiny.passages(8), ("ash", "ash bay")
    short = FineTuning(epochs=1, rate=1e-3, batch=4)
    scores = []
    for seed, tasks in ((0, few), (0, [tiny.turned(t) for t in reversed(few)]), (1, few)):
        model = baseline(causal, seed, short)
        model.fit(tasks)
        scores.append(model.score([pair])[pair])
    assert scores[0] == scores[1] != scores[2]


def adapter_of(base, folder, **config):
    """A LoRA adapter of random weights over a classifier made of ``base``, and the classifier itself."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **config)
    model = get_peft_model(model, lora)
    model.save_pretrained(folder)
    return model.eval()


def test_an_adapter_is_merged_into_the_base_that_it_names(causal, tmp_path):
    adapted = adapter_of(causal, tmp_path / "adapter", task_type="SEQ_CLS")
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    shutil.copy(causal / "tokenizer.json", tmp_path / "merged")
    shutil.copy(causal / "tokenizer_config.json", tmp_path / "merged")
    model = baseline(tmp_path / "adapter")
    model.fit([])
    expected = by_hand(tmp_path / "merged", "query: ash document: bay cod")
    assert model.score([("ash", "bay cod")])["ash", "bay cod"] == pytest.approx(expected, abs=1e-4)


def test_an_adapter_without_a_head_would_score_at_random(causal, tmp_path):
    adapter_of(causal, tmp_path / "adapter", task_type="FEATURE_EXTRACTION", exclude_modules=["score"])
    with pytest.raises(Unavailable, match="this adapter has no weights for the score's head"):
        baseline(tmp_path / "adapter").fit([])


def test_what_is_cut_is_the_passages_end_and_this_is_said(classifier):
    said = []
    model = baseline(classifier, log=said.append)
    model.fit([])
    # <s> query: ash document: … </s> leaves 59 of 64 tokens.
    assert model.encode("ash", "bay " * 59)[1] is False
    scores = model.score([("ash", "bay " * 59), ("ash", "bay " * 59 + "cod dew"), ("ash", "cod")])
    assert said == ["rankllama: 1 of 3 passages were cut: 64 tokens hold a query and a passage"]
    assert scores["ash", "bay " * 59] == scores["ash", "bay " * 59 + "cod dew"]
    ids, cut = model.encode("ash", "bay " * 60)
    assert cut and len(ids["input_ids"]) == 64 and ids["input_ids"][-1] == model.tokenizer.eos_token_id
    with pytest.raises(UserError, match=r"rankllama reads 64 tokens, and the query 'ash ash .*leaves no room"):
        model.score([("ash " * 60, "bay")])


def test_a_tokenizer_that_ends_texts_itself_gives_one_end(classifier):
    model = baseline(classifier)
    model.fit([])
    before = model.encode("ash", "bay")[0]["input_ids"]
    plain = model.tokenizer
    model.tokenizer = lambda text, **how: {"input_ids": [*plain(text, **how)["input_ids"], plain.eos_token_id]}
    model.tokenizer.eos_token_id = plain.eos_token_id
    assert model.encode("ash", "bay")[0]["input_ids"] == before


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("nothing named", "no model is named for it"),
        ("three scores", "it gives 3 scores a text; one is needed"),
        ("a BERT", "its tokenizer has no end token"),
        ("a T5", "it holds a T5ForConditionalGeneration: no causal LM and no classifier"),
        ("a classifier without its head", "1 weights are missing, score.weight"),
        ("an LM without a layer", "weights are missing, model.layers.1"),
        ("an adapter of nothing", "is no folder"),
        ("empty", "cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_unavailable_with_a_way_out(causal, classifier, tmp_path, broken, why):
    at = tmp_path / "model"
    if broken == "three scores":
        tiny.llama(at, kind="LlamaForSequenceClassification", num_labels=3)
    elif broken == "a BERT":
        tiny.bert(at)
    elif broken == "a T5":
        tiny.t5(at)
    elif broken == "a classifier without its head":
        tiny.without_weight(shutil.copytree(classifier, at), "score")
    elif broken == "an LM without a layer":
        tiny.without_weight(shutil.copytree(causal, at), "layers.1")
    elif broken == "an adapter of nothing":
        adapter_of(causal, at)
        config = at / "adapter_config.json"
        config.write_text(config.read_text().replace(str(causal), "/no/such/base"))
    elif broken == "empty":
        at.mkdir()
    with pytest.raises(Unavailable, match=why) as raised:
        baseline("" if broken == "nothing named" else at).fit(tiny.passages(2))
    assert str(raised.value).endswith("name a model folder with --models rankllama=FOLDER")


def test_a_causal_lm_needs_training_tasks(causal):
    with pytest.raises(
        Unavailable, match="rankllama: it is fine-tuned, and no training task is of the passage scenario"
    ):
        baseline(causal).fit([])
