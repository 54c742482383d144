"""Dense retrieval: pooling and comparison against numbers of our own, every text once, and what cannot be loaded."""

import shutil

import pytest
import tiny_rankers as tiny

from iranker_verl.evaluation.baselines import Context, Unavailable, make_baselines
from iranker_verl.evaluation.baselines.dense import Contriever, Dense
from iranker_verl.evaluation.baselines.loading import Progress, find_model
from iranker_verl.ranking import Candidate, RankingTask


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.bert(tmp_path_factory.mktemp("bert"))


def baseline(folder, name="dense", log=lambda line: None, seed=0):
    return make_baselines([name], Context(seed, models={name: str(folder)}, log=log))[0]


def task(context, texts, *, scenario="passage", dataset="passage-5"):
    candidates = tuple(Candidate(f"{i} {text}", text) for i, text in enumerate(texts))
    return RankingTask.with_positive("t", scenario, dataset, context, candidates, candidates[0].id)


def mean_of_last_layer(folder, text):
    """Mean pooling, done by hand and without a batch."""
    import torch
    from transformers import AutoTokenizer, BertModel

    inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        return BertModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0].mean(0)


TEXTS = ["ash bay", "cod", "dew elm fig gnu hen", "ivy ivy ivy jam", "kit log ash"]


def test_contriever_is_mean_pooling_and_dot_product(folder):
    model = baseline(folder, "contriever")
    model.fit([])
    query = mean_of_last_layer(folder, "cod ash")
    dots = {text: float(query @ mean_of_last_layer(folder, text)) for text in TEXTS}
    ranking = model.rank([task("cod ash", TEXTS)])[0]
    assert [name.split(" ", 1)[1] for name in ranking] == sorted(TEXTS, key=lambda text: -dots[text])


def test_dense_compares_a_plain_encoder_by_cosine_and_a_card_says_otherwise(folder, tmp_path):
    import torch
    from sentence_transformers import SentenceTransformer

    query = mean_of_last_layer(folder, "cod ash")
    vectors = {text: mean_of_last_layer(folder, text) for text in TEXTS}
    cosines = {text: float(torch.cosine_similarity(query, v, dim=0)) for text, v in vectors.items()}
    distances = {text: -float((query - v).norm()) for text, v in vectors.items()}
    model = SentenceTransformer(str(folder), similarity_fn_name="euclidean", device="cpu", local_files_only=True)
    model.save(str(tmp_path / "carded"), create_model_card=False)
    for at, scores in ((folder, cosines), (tmp_path / "carded", distances)):
        dense = baseline(at)
        dense.fit([])
        ranking = dense.rank([task("cod ash", TEXTS)])[0]
        assert [name.split(" ", 1)[1] for name in ranking] == sorted(TEXTS, key=lambda text: -scores[text])


def test_a_models_own_prompts_stand_before_queries_and_passages(folder, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder), prompts={"query": "log ", "document": "jam "}, device="cpu", local_files_only=True
    )
    model.save(str(tmp_path / "prompted"), create_model_card=False)
    said = []
    dense = baseline(tmp_path / "prompted", log=said.append)
    dense.fit([])
    seen = []
    preprocess = dense._model.preprocess
    dense._model.preprocess = lambda texts, **how: (
        seen.append((list(texts), how.get("prompt"))) or preprocess(texts, **how)
    )
    dense.rank([task("cod", ["ash", "bay"])])
    assert [(sorted(texts), prompt) for texts, prompt in seen] == [(["cod"], "log "), (["ash", "bay"], "jam ")]
    # 29 words, a prompt of one, [CLS] and [SEP] fill the 32 tokens; one word more is too much.
    said.clear()
    dense.rank([task("ash " * 29, ["bay " * 29, "bay " * 30])])
    assert said == ["dense: 1 of 2 candidates were cut at 32 tokens"]


def test_each_text_is_encoded_once(folder):
    dense = baseline(folder)
    dense.fit([])
    seen = []
    preprocess = dense._model.preprocess
    dense._model.preprocess = lambda texts, **how: seen.extend(texts) or preprocess(texts, **how)
    dense.rank([task("cod", ["ash", "bay", "ash"]), task("cod", ["bay", "dew"])])
    assert sorted(seen) == ["ash", "bay", "cod", "dew"]


@pytest.mark.parametrize("name", ["dense", "contriever"])
def test_neither_the_order_shown_nor_pads_change_a_ranking(folder, name):
    model = baseline(folder, name)
    model.fit([])
    tasks = tiny.passages(20)
    alone = [model.rank([t])[0] for t in tasks]
    beside_long_texts = model.rank([*tasks, task("kit " * 25, ["log " * 25, "jam"])])[:-1]
    assert alone == beside_long_texts == model.rank([tiny.turned(t) for t in tasks])


def test_pads_change_no_vector(folder):
    dense = baseline(folder)
    dense.fit([])
    texts = {"ash", "bay cod", "dew elm " * 14}
    together = dense._encode(texts, "candidates", ("document",))
    for text in texts:
        alone = dense._encode({text}, "candidates", ("document",))[text]
        assert (alone - together[text]).abs().max() < 1e-4


def test_candidates_of_one_text_are_ordered_by_the_seed(folder):
    firsts = set()
    for seed in range(12):
        dense = baseline(folder, seed=seed)
        dense.fit([])
        firsts.add(dense.rank([task("cod", ["ash", "ash"])])[0][0])
    assert len(firsts) == 2


def test_it_ranks_every_scenario_and_says_what_it_cuts(folder):
    said = []
    dense = baseline(folder, log=said.append)
    dense.fit([])
    tasks = [
        task("ash " * 40, ["bay", "cod"], scenario="recommendation", dataset="rec-movie"),
        task("ash", ["bay " * 40, "cod"], scenario="routing", dataset="router-cost"),
    ]
    assert [len(ranking) for ranking in dense.rank(tasks)] == [2, 2]
    assert said == ["dense: 1 of 2 contexts were cut at 32 tokens", "dense: 1 of 3 candidates were cut at 32 tokens"]


def test_a_tokenizer_without_a_limit_does_not_run_over_the_positions(folder, tmp_path):
    from transformers import AutoTokenizer

    at = shutil.copytree(folder, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(at)
    dense = baseline(at)
    dense.fit([])
    assert len(dense.rank([task("ash " * 40, ["bay", "cod"])])[0]) == 2


def test_what_is_missing_is_unavailable_with_a_way_out(folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match=r"^dense: no model is named for it; name .* --models dense=FOLDER$"):
        Dense(Context()).fit([])
    with pytest.raises(
        Unavailable, match=r"^contriever: facebook/contriever is no folder here and cannot be fetched .*"
    ):
        Contriever(Context(models={"dense": str(folder)}, log=lambda line: None)).fit([])
    with pytest.raises(Unavailable, match=r"^dense: /no/such/folder is no folder; name .* --models dense=FOLDER$"):
        baseline("/no/such/folder").fit([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(Unavailable, match=r"^dense: .*empty cannot be loaded \(.*\); name .* --models dense=FOLDER$"):
        baseline(tmp_path / "empty").fit([])


@pytest.mark.parametrize("safe", [True, False])
def test_pickles_are_fetched_only_for_a_model_without_safetensors(tmp_path, monkeypatch, safe):
    import huggingface_hub

    asked = []

    def fetch(name, *, allow_patterns, etag_timeout=None, local_files_only=False):
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        asked.append((name, allow_patterns))
        if safe:
            (tmp_path / "model.safetensors").touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert find_model(Context(models={"dense": "org/encoder"}, log=lambda line: None), "dense") == tmp_path
    assert [name for name, _ in asked] == ["org/encoder"] * (1 if safe else 2)
    assert any("safetensors" in pattern for pattern in asked[0][1]) and not any(".bin" in p for p in asked[0][1])
    assert safe or asked[1][1] == ["pytorch_model*.bin", "adapter_model.bin"]


def test_weights_that_would_begin_at_random_are_no_encoder(folder, tmp_path):
    at = tiny.without_weight(shutil.copytree(folder, tmp_path / "model"), "word_embeddings")
    with pytest.raises(Unavailable, match=r"1 weights are missing, embeddings\.word_embeddings\.weight among them"):
        baseline(at).fit([])


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    at = shutil.copytree(folder, tmp_path / "model")
    (at / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: pass\n")
    tiny.change_config(at, model_type="ours", auto_map={"AutoConfig": "code.Model", "AutoModel": "code.Model"})
    with pytest.raises(Unavailable):
        baseline(at).fit([])
    assert not (tmp_path / "ran").exists()


def test_progress_is_said_when_it_is_due(monkeypatch):
    from iranker_verl.evaluation.baselines import loading

    now = [100.0]
    monkeypatch.setattr(loading.time, "monotonic", lambda: now[0])
    said = []
    progress = Progress(said.append, "dense: encoding", 9)
    for done, at in ((1, 104.9), (2, 105.0), (3, 109.0), (4, 112.0)):
        now[0] = at
        progress(done)
    assert said == ["dense: encoding: 2/9, 5 s", "dense: encoding: 4/9, 12 s"]
