"""R1-Rec plays a model that was trained for it, or says why not; its recipes are Rec-R1's."""

import json
import warnings
from math import log2
from pathlib import Path

import pytest
from id_worlds import task

from iranker_verl.errors import UserError
from iranker_verl.evaluation import model_runs
from iranker_verl.evaluation.baselines import Context, Unavailable, language_model, make_baselines
from iranker_verl.evaluation.evaluate import evaluate_baselines, finished_systems
from iranker_verl.evaluation.sharding import ModelJob
from iranker_verl.inference.episode import replay_episode
from iranker_verl.ranking import templates
from reward_fns import direct
from reward_fns.answers import label
from tests import tiny_models

ROOT = Path(__file__).parents[3]
RECIPES = [ROOT / "recipes" / "r1_rec_3b", ROOT / "recipes" / "tiny_cpu" / "r1_rec.yaml"]


def baseline(folder=None):
    models = {} if folder is None else {"r1-rec": str(folder)}
    return make_baselines(["r1-rec"], Context(seed=3, models=models, log=lambda _: None))[0]


def stamped(folder, id="direct-think-label"):
    folder.mkdir(exist_ok=True)
    template = templates.load(id)
    (folder / "iranker.json").write_text(json.dumps({"template_id": template.id, "template_hash": template.hash}))
    return folder


def test_without_a_model_it_says_how_to_get_one():
    with pytest.raises(Unavailable) as caught:
        baseline().system()
    assert str(caught.value) == "no model: give --models r1-rec=FOLDER (train one with recipes/r1_rec_3b)"


def test_a_folder_that_is_no_such_model_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"iranker\.json: no such file; .*recipes/r1_rec_3b"):
        baseline(tmp_path).system()
    (tmp_path / "iranker.json").write_text("[]")
    with pytest.raises(UserError, match=r"iranker\.json: it has to hold template_id and template_hash"):
        baseline(tmp_path).system()
    (tmp_path / "iranker.json").write_text('{"template_id": "nothing", "template_hash": ""}')
    with pytest.raises(UserError, match="unknown template 'nothing'"):
        baseline(tmp_path).system()
    with pytest.raises(UserError, match="template think-label, which excludes; r1-rec ranks all at once"):
        baseline(stamped(tmp_path, "think-label")).system()


def test_it_is_asked_for_recommendations_with_the_models_own_template(tmp_path, monkeypatch):
    asked = []

    async def run(job, tasks, on_done, log):
        asked.append((job, [task.id for task in tasks]))
        for index, one in enumerate(tasks):
            answer = ", ".join(f"[{label(i)}]" for i in range(len(one.candidates)))
            on_done(index, replay_episode(one, job.system.template, [answer], prompt_tokens=7, new_tokens=3, seconds=1))

    monkeypatch.setattr(ModelJob, "run", run)
    monkeypatch.setattr(model_runs, "needed_length", lambda *_: 100)
    tasks = [
        task("1", [], "b", ["a", "c"]),  # no ids are needed: the context is read
        task("2", [], "b", ["a"], scenario="passage", dataset="passage-5"),
        task("3", ["x"], "e", ["d"]),
    ]
    made = {"baselines": [baseline(stamped(tmp_path / "model"))], "context": Context(seed=3), "log": lambda _: None}
    for _ in range(2):  # the second time what was done before is read again
        [result] = evaluate_baselines([], tasks, tmp_path / "run", **made)
        assert [r.task.id for r in result.records] == ["1", "3"] and result.role == "baseline"
        assert [r.episode.new_tokens for r in result.records] == [3, 3]  # its answers count as a model's do
    [(job, ids)] = asked
    assert ids == ["1", "3"] and (job.system.model, job.seed) == (tmp_path / "model", 3)
    assert job.system.template.id == "direct-think-label"
    # beside other systems of the same tasks
    assert [found.system for found in finished_systems(tmp_path / "run", tasks)] == ["r1-rec"]
    [nothing] = evaluate_baselines([], tasks[1:2], tmp_path / "other", **made)
    assert nothing.records == () and nothing.unavailable is None and len(asked) == 1


@pytest.mark.slow
def test_a_model_is_asked_on_vllm(tmp_path, monkeypatch):
    pytest.importorskip("vllm")
    monkeypatch.setattr(language_model, "MAX_NEW_TOKENS", 16)  # the tiny model has no room for reasoning
    model = baseline(stamped(tiny_models.save(tmp_path / "model"), "direct-label"))
    tasks = [task(str(i), [], "b", ["a", "c"]) for i in range(3)]
    [result] = evaluate_baselines([], tasks, tmp_path / "run", baselines=[model], log=lambda _: None)
    assert [sorted(r.ranking) for r in result.records] == [["a", "b", "c"]] * 3
    assert all(r.episode.calls == 1 for r in result.records)


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
