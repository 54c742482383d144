"""Every recipe composes and passes verl's checks and ours; wrong settings are one line."""

import warnings
from pathlib import Path

import pytest

pytest.importorskip("verl")

from omegaconf import OmegaConf

from iranker_verl.errors import UserError
from iranker_verl.ranking import templates
from iranker_verl.training.main import check, compose_recipe
from reward_fns.exclusion import KINDS

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
TINY = ROOT / "recipes" / "tiny_cpu"


def compose(recipe, *overrides):
    return compose_recipe(recipe, list(overrides))


def refused(recipe, *overrides):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError) as error:
            check(compose(recipe, *overrides))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_recipe_composes_and_is_valid(recipe):
    config = compose(recipe)
    check(config)
    assert OmegaConf.missing_keys(config) <= {"reward.reward_model.rollout.name"}  # verl's own, for a reward model
    template = templates.load(config.iranker.template)
    assert template.hash
    rollout, data = config.actor_rollout_ref.rollout, config.data
    # what an elimination run stands on
    assert rollout.agent.agent_loop_manager_class == "iranker_verl.training.rollout.StepRewardManager"
    assert config.reward.custom_reward_function.path == "pkg://reward_fns.exclusion"
    assert config.trainer.v1.trainer_mode == "sync"
    assert rollout.mode == "async" and rollout.calculate_log_probs
    assert config.iranker.credit.balance_sessions
    assert rollout.max_model_len >= data.max_prompt_length + data.max_response_length
    assert data.truncation == "error" and not data.filter_overlong_prompts
    assert config.actor_rollout_ref.actor.loss_agg_mode == "seq-mean-token-mean"
    assert config.iranker.metrics_file == f"{config.iranker.run_dir}/metrics.jsonl"
    assert config.trainer.default_local_dir.startswith(config.iranker.run_dir)
    assert rollout.val_kwargs.temperature == 0 and not rollout.val_kwargs.do_sample
    assert "hf_model" in config.actor_rollout_ref.actor.checkpoint.save_contents


def test_recipes_write_to_folders_of_their_own():
    folders = [compose(recipe).iranker.run_dir for recipe in RECIPES]
    assert len(set(folders)) == len(folders)


def test_a_folder_is_its_recipe_of_the_same_name():
    assert compose(TINY) == compose(TINY / "tiny_cpu.yaml")


def test_a_recipe_of_ones_own_anywhere(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("defaults:\n  - ppo_trainer\n  - iranker\n  - cpu\n  - _self_\niranker:\n  seed: 7\n")
    config = compose(path, "iranker.run_dir=/elsewhere")
    assert (config.data.seed, config.actor_rollout_ref.rollout.seed) == (7, 7)
    assert config.data.train_files == "/elsewhere/data/train.parquet"
    assert config.trainer.device == "cpu"


def test_the_published_hyper_parameters():
    config = compose(ROOT / "recipes" / "iranker_3b")
    model, rollout, actor = (config.actor_rollout_ref[k] for k in ("model", "rollout", "actor"))
    assert Path(model.path).name == "Qwen2.5-3B-Instruct"
    assert config.critic.model.path == model.path
    assert config.algorithm.adv_estimator == "gae"
    assert (config.trainer.n_gpus_per_node, config.trainer.nnodes) == (4, 1)
    assert (config.data.train_batch_size, actor.ppo_mini_batch_size) == (64, 32)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (1400, 1024)
    assert (actor.optim.lr, config.critic.optim.lr) == (1e-6, 2e-6)
    assert actor.use_kl_loss and actor.kl_loss_coef == 0.001 and config.algorithm.kl_ctrl.kl_coef == 0.001
    assert rollout.temperature == 1.0
    assert config.trainer.total_training_steps == 1501
    # and the published format of answers
    template = templates.load(config.iranker.template)
    assert template.answer == "text" and "<think>" in template.system and "<answer>" in template.system
    # the published reward is the default
    assert KINDS[0] == "published"
    assert not config.reward.custom_reward_function.get("reward_kwargs")


def test_verl_never_cuts_a_critics_batch_to_another_size_than_the_actors():
    for recipe in RECIPES:
        config = compose(recipe)
        assert config.critic.ppo_mini_batch_size == config.actor_rollout_ref.actor.ppo_mini_batch_size


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["nokey=1"], ["nokey"]),
        (["data.nokey=1"], ["data.nokey"]),
        (["foo"], ["foo", "EQUAL"]),
        (["iranker.data.options.years=3"], ["iranker.data.options.years"]),
        (["iranker.run_dir=${nowhere}"], ["nowhere"]),
        (["iranker=null"], ["iranker"]),
        (["actor_rollout_ref.actor.loss_agg_mode=token-mean"], ["loss_agg_mode", "balance_sessions=false"]),
        (["data.train_batch_size=25"], ["train_batch_size=25", "ppo_mini_batch_size"]),
        (["actor_rollout_ref.actor.ppo_mini_batch_size=48"], ["ppo_mini_batch_size=48"]),
    ],
)
def test_a_wrong_override_is_one_line_that_names_it(overrides, words):
    message = refused(TINY, *overrides)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("data.train_batch_size=abc", "train_batch_size"),
        ("data.train_batch_size=null", "train_batch_size"),
        ("data.train_batch_size=0", "train_batch_size"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=0", "ppo_mini_batch_size"),
        ("actor_rollout_ref.rollout.n=0", "rollout.n"),
        ("trainer.total_training_steps=abc", "total_training_steps"),
        ("algorithm.adv_estimator=nothing", "adv_estimator"),
        ("iranker.credit.prior=-1", "prior"),
        ("iranker.credit.prior=abc", "prior"),
        ("iranker.credit.normalise=all", "normalise"),
        ("iranker.credit=null", "iranker.credit"),
        ("iranker.base.effort=-1", "effort"),
        ("reward.custom_reward_function.path=null", "custom_reward_function"),
        ("reward.custom_reward_function.path=pkg://nothing", "custom_reward_function"),
        ("data=3", "override"),
        ("=1", "override"),
        ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=null", "ppo_micro_batch_size"),
        ("trainer.n_gpus_per_node=0", "n_gpus_per_node"),
        ("algorithm.use_kl_in_reward=true", "use_kl_loss"),
    ],
)
def test_a_wrong_value_is_one_line_before_anything_starts(override, word):
    assert word in refused(TINY, override)


def test_recipes_that_are_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("recipes/none.yaml", str(tmp_path / "empty"), ""):
        assert "no such recipe" in refused(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1\n", ["DictConfig"]),
        ("x: ${y}\n", ["'y'"]),
        ("defaults:\n  - nothing\n", ["'nothing'"]),
    ],
)
def test_a_recipe_that_is_none(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    message = refused(path)
    assert str(path) in message and all(word in message for word in words), message


@pytest.mark.parametrize("content", [b"a: [", b"x: caf\xe9\n", b"", b"defaults:\n  - ppo_trainer\n"])
def test_a_recipe_that_is_no_yaml_or_lacks_the_defaults(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert str(path) in refused(path)
