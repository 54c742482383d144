"""R1-Rec plays a model that was trained for it, or says why not; its recipes are Rec-R1's."""

import inspect
import json
import warnings
from math import log2
from pathlib import Path

import pytest
from id_worlds import task

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines import Context, PromptingBaseline, Unavailable, language_model, make_baselines
from iranker_verl.evaluation.records import Record, SystemResult
from iranker_verl.inference.episode import Episode
from iranker_verl.ranking import templates
from reward_fns import direct
from tests import tiny_models

ROOT = Path(__file__).parents[3]
RECIPES = [ROOT / "recipes" / "r1_rec_3b", ROOT / "recipes" / "tiny_cpu" / "r1_rec.yaml"]


def baseline(folder=None):
    models = {} if folder is None else {"r1-rec": str(folder)}
    return make_baselines(["r1-rec"], Context(seed=3, models=models, log=lambda _: None))[0]


def stamped(folder, id="direct-think-label"):
    template = templates.load(id)
    (folder / "iranker.json").write_text(json.dumps({"template_id": template.id, "template_hash": template.hash}))
    return folder


def test_without_a_model_it_says_how_to_get_one():
    with pytest.raises(Unavailable) as caught:
        baseline().fit([])
    assert str(caught.value) == "no model: give --models r1-rec=FOLDER (train one with recipes/r1_rec_3b)"


def test_a_folder_that_is_no_such_model_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"iranker\.json: no such file; .*recipes/r1_rec_3b"):
        baseline(tmp_path).fit([])
    (tmp_path / "iranker.json").write_text("[]")
    with pytest.raises(UserError, match=r"iranker\.json: it has to hold template_id and template_hash"):
        baseline(tmp_path).fit([])
    (tmp_path / "iranker.json").write_text('{"template_id": "nothing", "template_hash": ""}')
    with pytest.raises(UserError, match="unknown template 'nothing'"):
        baseline(tmp_path).fit([])
    with pytest.raises(UserError, match="template think-label, which excludes; r1-rec ranks all at once"):
        baseline(stamped(tmp_path, "think-label")).fit([])


def test_it_plays_recommendations_with_the_models_own_template(tmp_path, monkeypatch):
    signature, asked = inspect.signature(language_model.evaluate_model), []

    def played(*args, **options):
        call = signature.bind(*args, **options).arguments
        asked.append(call)
        ranked = [tuple(sorted(c.id for c in t.candidates)) for t in call["tasks"]]
        records = [
            Record(t, r, {}, Episode(t.id, t.dataset, r, (), 7, 3, 0.5))
            for t, r in zip(call["tasks"], ranked, strict=True)
        ]
        return SystemResult("r1-rec", tuple(records), 1.0)

    monkeypatch.setattr(language_model, "evaluate_model", played)
    model = baseline(stamped(tmp_path))
    model.fit([])
    tasks = [
        task("1", [], "b", ["a", "c"]),  # no ids are needed: the context is read
        task("2", [], "b", ["a"], scenario="passage", dataset="passage-5"),
        task("3", ["x"], "e", ["d"]),
    ]
    assert isinstance(model, PromptingBaseline) and model.template().id == "direct-think-label"
    assert model.rank(tasks) == [["a", "b", "c"], None, ["d", "e"]]
    first, nothing, last = model.episodes()  # its answers count as a model's do
    assert nothing is None and (first.task_id, last.task_id, last.new_tokens) == ("1", "3", 3)
    assert model.rank(tasks[1:2]) == [None] == model.episodes()
    (call,) = asked
    system = call["system"]
    assert system.model == tmp_path and system.template.id == "direct-think-label" and call["seed"] == 3
    assert call["tasks"] == [tasks[0], tasks[2]] and call.get("run_dir") is None


@pytest.mark.slow
def test_a_model_is_played_on_vllm(tmp_path, monkeypatch):
    pytest.importorskip("vllm")
    monkeypatch.setattr(language_model, "MAX_NEW_TOKENS", 16)  # the tiny model has no room for thoughts
    model = baseline(stamped(tiny_models.save(tmp_path), "direct-label"))
    tasks = [task(str(i), [], "b", ["a", "c"]) for i in range(3)]
    model.fit([])
    rankings = model.rank(tasks)
    assert [sorted(r) for r in rankings] == [["a", "b", "c"]] * 3
    assert [list(e.ranking) for e in model.episodes()] == rankings and all(e.calls == 1 for e in model.episodes())
    assert model.rank(tasks) == rankings


# ---------------------------------------------------------------- recipes


@pytest.fixture(scope="module", params=RECIPES, ids=lambda p: p.stem)
def config(request):
    pytest.importorskip("verl")
    from iranker_verl.preflight import check
    from iranker_verl.training.main import compose_recipe

    composed = compose_recipe(request.param, [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(composed)
    return composed


def test_the_recipes_compose_and_are_of_one_kind(config):
    assert config.iranker.data.options.rows == "direct"
    assert templates.load(config.iranker.template).kind == "direct"
    assert list(config.iranker.data.tasks) == ["rec-movie", "rec-music", "rec-game"]
    assert config.algorithm.adv_estimator == "grpo" and config.actor_rollout_ref.rollout.n > 1
    assert not config.critic.enable


def test_the_published_hyper_parameters():
    pytest.importorskip("verl")
    from iranker_verl.training.main import compose_recipe

    config = compose_recipe(RECIPES[0], [])
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size * rollout.n, rollout.n) == (32, 128, 8)
    assert (actor.optim.lr, actor.kl_loss_coef, actor.kl_loss_type) == (1e-6, 0.001, "low_var_kl")
    assert actor.use_kl_loss and (rollout.temperature, rollout.top_p) == (0.6, 0.95)
    assert config.data.max_response_length == language_model.MAX_NEW_TOKENS == 1024


def test_the_reward_is_ndcg_and_a_broken_form_costs_most_of_it(config):
    settings = dict(config.reward.custom_reward_function.reward_kwargs)
    truth = {"candidates": [f"film {i}" for i in range(4)], "target": 2}

    def score(response):
        return direct.compute_score("rec-movie", response, truth, **settings)["score"]

    best, second = "[C] > [A] > [B] > [D]", "[A] > [C] > [B] > [D]"
    assert score(f"<think>t</think><answer>{best}</answer>") == pytest.approx(1.0)
    assert score(f"<think>t</think><answer>{second}</answer>") == pytest.approx(1 / log2(3))
    assert score("I cannot say") == -2.0  # as published
    worst_whole = score("<think>t</think><answer>[A] > [B] > [D] > [C]</answer>")
    for broken in (
        "<answer>[C] > [A]</answer>",  # leaves two out
        "<answer>[C] > [A] > [C] > [B] > [D] > [Z]</answer>",  # repeats and invents
        f"so: <answer>{best}</answer> that is all",  # untidy
    ):
        assert -2.0 < score(broken) < 1.0 - 0.2, broken
    assert score("<answer>[A]</answer>") < worst_whole  # the positive is left out, and so are others
