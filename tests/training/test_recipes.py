"""Every recipe composes and passes verl's checks and ours; wrong settings are one line."""

import os
import shutil
import subprocess
import warnings
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("verl")

from omegaconf import OmegaConf

from data_prep.options import PUBLIC_CODE, Options
from data_prep.schema import AGENTS
from iranker_verl.errors import UserError
from iranker_verl.job.pipeline import train
from iranker_verl.preflight import check
from iranker_verl.ranking import DATASETS, templates
from iranker_verl.training.main import compose_recipe
from reward_fns.exclusion import KINDS

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
TINY = ROOT / "recipes" / "tiny_cpu"
ON_GPUS = [recipe for recipe in RECIPES if not recipe.parent.name.endswith("_cpu")]
SCENARIOS = {"rec": "rec-", "router": "router-", "passage": "passage-"}


@cache
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
    rollout, data = config.actor_rollout_ref.rollout, config.data
    # rows, template, agent and reward are of one kind
    direct = config.iranker.data.options.rows == "direct"
    assert template.kind == ("direct" if direct else "exclusion")
    assert rollout.agent.default_agent_loop == AGENTS["direct" if direct else "episode"]
    reward = "direct" if direct else "public_code" if recipe.stem == "public_code" else "exclusion"
    assert config.reward.custom_reward_function.path == f"pkg://reward_fns.{reward}"
    # what a run stands on
    assert rollout.agent.agent_loop_manager_class == "iranker_verl.training.rollout.StepRewardManager"
    assert config.trainer.v1.trainer_mode == "sync"
    assert config.reward.num_workers == 0  # each is a process that imports verl
    assert rollout.mode == "async" and rollout.calculate_log_probs
    assert config.iranker.credit.weights == "session"
    assert rollout.max_model_len >= data.max_prompt_length + data.max_response_length
    assert data.truncation == "error" and not data.filter_overlong_prompts
    assert config.actor_rollout_ref.actor.loss_agg_mode.startswith("seq-mean-token")
    assert config.trainer.default_local_dir.startswith(config.iranker.run_dir)
    assert rollout.val_kwargs.temperature == 0 and not rollout.val_kwargs.do_sample
    # metrics.jsonl has the entropy: from the old log-probs, or else from the update
    assert config.actor_rollout_ref.actor.calculate_entropy or not config.algorithm.rollout_correction.bypass_mode
    assert config.actor_rollout_ref.actor.checkpoint.save_contents == ["model", "optimizer", "extra"]


def test_recipes_write_to_folders_of_their_own():
    folders = [compose(recipe).iranker.run_dir for recipe in RECIPES]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_the_options_of_preparation_are_ones_that_there_are(recipe):
    given = {k: v for k, v in compose(recipe).iranker.data.options.items() if v is not None}
    assert Options(**given)


@pytest.mark.parametrize("recipe", ON_GPUS, ids=lambda p: p.stem)
def test_a_recipe_for_gpus_is_validated_and_logged_as_it_trains(recipe):
    config = compose(recipe)
    assert config.trainer.device == "cuda" and config.iranker.base.make is None
    assert 0 < config.trainer.test_freq <= config.trainer.total_training_steps
    assert config.data.val_max_samples > 0 and config.data.shuffle  # a random part of all datasets, not the first ones
    assert set(config.trainer.logger) == {"console", "tensorboard"}
    assert compose(recipe, "trainer.logger=[console,wandb,mlflow]").trainer.logger == ["console", "wandb", "mlflow"]


@pytest.mark.parametrize(("minutes", "steps", "effort"), [(15, 30, 0.25), (60, 120, 1.0), (180, 360, 3.0)])
def test_what_a_recipe_sets_by_the_hour_follows_the_minutes_that_there_are(minutes, steps, effort):
    config = compose(TINY / "real_data.yaml", f"iranker.minutes={minutes}")
    assert (config.trainer.total_training_steps, config.iranker.base.effort) == (steps, effort)
    assert type(config.iranker.data.options.max_test) is int


def test_a_dry_run_checks_and_starts_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for recipe in (ROOT / "recipes" / "dranker_3b", ROOT / "recipes" / "zero_shot" / "rec.yaml"):
        assert train(str(recipe), [], dry_run=True) is None
        assert "4 GPUs" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_what_distinguishes_the_recipes_for_3b():
    published, ours, direct = (
        compose(ROOT / "recipes" / n) for n in ("iranker_3b", "iranker_3b_episodes", "dranker_3b")
    )
    assert [c.iranker.data.options.rows for c in (published, ours, direct)] == ["states", "episodes", "direct"]
    assert [c.algorithm.adv_estimator for c in (published, ours, direct)] == ["gae", "exclusion_grpo", "gae"]
    assert [c.iranker.template for c in (published, ours, direct)] == ["think-text", "think-label", "direct-think-text"]
    assert ours.iranker.branch > 1  # a group needs others
    for name in ("actor.optim.lr", "actor.kl_loss_coef", "rollout.temperature", "model.path"):
        values = {OmegaConf.select(c.actor_rollout_ref, name) for c in (published, ours, direct)}
        assert len(values) == 1, name


def test_the_public_codes_recipe_has_all_its_switches():
    config = compose(ROOT / "recipes" / "iranker_3b" / "public_code.yaml")
    given = {name: value for name, value in config.iranker.data.options.items() if value is not None}
    assert given == PUBLIC_CODE and config.iranker.template == "published"
    words = compose(ROOT / "recipes" / "iranker_3b")
    assert config.actor_rollout_ref.actor == words.actor_rollout_ref.actor


def test_one_gpu_learns_an_adapter():
    config = compose(ROOT / "recipes" / "iranker_1_5b_single_gpu")
    model, trainer = config.actor_rollout_ref.model, config.trainer
    assert (trainer.n_gpus_per_node, trainer.nnodes) == (1, 1)
    assert model.lora_rank > 0 and model.target_modules == "all-linear"
    # verl then sends vLLM the adapter alone; with dummy weights it would adapt nothing
    assert not model.lora.merge and config.actor_rollout_ref.rollout.load_format == "safetensors"


@pytest.mark.parametrize("unseen", SCENARIOS)
def test_zero_shot_trains_on_all_but_one_scenario_and_tests_on_it(unseen):
    left_out = [name for name in DATASETS if name.startswith(SCENARIOS[unseen])]
    rest = [name for name in DATASETS if name not in left_out]
    assert len(left_out) == 3
    ways = {
        (ROOT / "recipes" / "zero_shot" / f"{unseen}.yaml",),
        (TINY / "zero_shot.yaml", f"unseen={unseen}"),
        (TINY / "real_data.yaml", f"+unseen={unseen}"),
        (ROOT / "recipes" / "iranker_3b_episodes", f"+unseen={unseen}"),
    }
    for recipe, *overrides in ways:
        config = compose(recipe, *overrides)
        assert list(config.iranker.data.tasks) == rest and list(config.iranker.data.test_tasks) == left_out
        assert unseen in config.iranker.run_dir and unseen in config.trainer.experiment_name
        # what trains is the training side of those six, whatever is tested on
        assert config.data.train_files == f"{config.iranker.run_dir}/data/train.parquet"
        assert config.data.val_files == f"{config.iranker.run_dir}/data/test.parquet"
        check(config)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["iranker.data.test_tasks=[rec-movie]"], "but not iranker.data.tasks"),
        (["iranker.data.tasks=[rec-movie,passage-5]", "iranker.data.test_tasks=[passage-5]"], "passage-5 is in"),
        (["iranker.data.tasks=rec-movie"], "has to be a list"),
        (["iranker.data.tasks=[rec-moovie]"], "has no rec-moovie; it has rec-movie"),
    ],
)
def test_what_is_tested_on_zero_shot_is_not_trained_on(overrides, words):
    with pytest.raises(UserError, match=words):
        train(str(TINY), overrides, dry_run=True)


@pytest.mark.parametrize(
    ("arguments", "variables", "recipes"),
    [
        (["rec"], {}, ["unseen=rec"]),
        ([], {}, ["unseen=rec", "unseen=router", "unseen=passage"]),
        (["router"], {"DATA": "/raw"}, ["real_data.yaml +unseen=router"]),
        (["all", "trainer.nnodes=4"], {"MODEL": "/m"}, ["rec.yaml", "router.yaml", "passage.yaml"]),
    ],
)
def test_the_zero_shot_script_runs_the_recipe_that_is_meant(tmp_path, arguments, variables, recipes):
    """A stand-in for ``iranker`` that prints what it was called with."""
    project = tmp_path / "project"
    (project / ".venv" / "bin").mkdir(parents=True)
    fake = project / ".venv" / "bin" / "iranker"
    fake.write_text('#!/usr/bin/env bash\necho "$@"\n')
    fake.chmod(0o755)
    shutil.copytree(ROOT / "recipes" / "zero_shot", project / "recipes" / "zero_shot")
    env = {k: v for k, v in os.environ.items() if k not in ("MODEL", "DATA", "RUN")} | variables
    command = ["bash", str(project / "recipes" / "zero_shot" / "run.sh"), *arguments, "--dry-run"]
    done = subprocess.run(command, env=env, text=True, capture_output=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(recipes)
    for line, recipe in zip(lines, recipes, strict=True):
        assert recipe in line and line.startswith("train ") and "--dry-run" in line
        assert all(word in line for word in arguments if "=" in word)
        assert ("model.path=/m" in line) == ("MODEL" in variables)


@pytest.mark.parametrize("folder", sorted({r.parent for r in RECIPES}), ids=lambda p: p.name)
def test_every_folder_has_a_readme_and_a_run_script(folder):
    script = folder / "run.sh"
    assert (folder / "README.md").is_file() and os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert "iranker train" in script.read_text()


def test_a_folder_is_its_recipe_of_the_same_name():
    assert compose(TINY) == compose(TINY / "tiny_cpu.yaml")


def test_a_recipe_of_ones_own_builds_on_any_of_ours(tmp_path):
    """As `submit.sh` takes it along: in a folder beside ours."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    own = tmp_path / "recipes" / "own" / "mine.yaml"
    own.parent.mkdir()
    for other in ("tiny_cpu/smoke", "tiny_cpu/zero_shot", "iranker_3b_episodes/iranker_3b_episodes"):
        own.write_text(f"defaults:\n  - ../{other}@_global_\n  - _self_\niranker:\n  seed: 7\n")
        assert compose_recipe(own, []).data.seed == 7


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
    assert actor.use_kl_loss and actor.kl_loss_coef == 0.001
    assert rollout.temperature == 1.0
    assert config.trainer.total_training_steps == 1501
    assert config.iranker.data.options.rows == "states"
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
        (["iranker.data.options.years=3"], ["iranker.data.options has no option years: history"]),
        (["iranker.run_dir=${nowhere}"], ["nowhere"]),
        (["iranker=null"], ["iranker"]),
        (["actor_rollout_ref.actor.loss_agg_mode=token-mean"], ["loss_agg_mode", "iranker.credit.weights"]),
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
        ("iranker.template=think-label", "template think-label"),
        ("iranker.template=direct-label", "template direct-label"),
        ("actor_rollout_ref.actor.use_kl_loss=true", "use_kl_loss"),
        ("actor_rollout_ref.model.external_lib=null", "external_lib"),
        ("actor_rollout_ref.actor.policy_loss.loss_mode=gspo", "loss_mode=gspo"),
        ("algorithm.rollout_correction.rollout_is=token", "rollout_is"),
        ("algorithm.rollout_correction.rollout_rs=seq_sum_k1", "rollout_rs"),
        ("actor_rollout_ref.actor.ulysses_sequence_parallel_size=2", "ulysses_sequence_parallel_size=1"),
    ],
)
def test_what_the_expected_estimator_stands_on(override, word):
    assert word in refused(TINY, "algorithm.adv_estimator=exclusion_expected", override)


def test_rows_are_cut_over_gpus_by_flash_attn_alone():
    assert "needs flash-attn" in refused(
        "recipes/iranker_3b", "actor_rollout_ref.actor.ulysses_sequence_parallel_size=2"
    )


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
        ("algorithm.adv_estimator=grpo", "rollout.n=1"),
        ("iranker.credit.prior=-1", "prior"),
        ("iranker.credit.prior=abc", "prior"),
        ("iranker.credit.normalise=all", "normalise"),
        ("iranker.credit=null", "iranker.credit"),
        ("iranker.base.effort=-1", "effort"),
        ("iranker.curriculum.first_pool=1", "first_pool"),
        ("iranker.curriculum.focus=1.5", "focus"),
        ("iranker.curriculum.rise=high", "rise"),
        ("+iranker.curriculum.steps=10", "no option steps"),
        ("iranker.data.options.rows=states", "first_pool=null"),
        ("reward.custom_reward_function.path=null", "custom_reward_function"),
        ("reward.custom_reward_function.path=pkg://nothing", "custom_reward_function"),
        ("data=3", "override"),
        ("=1", "override"),
        ("actor_rollout_ref.actor.use_dynamic_bsz=false", "ppo_micro_batch_size"),
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu=100", "has at least one row"),
        ("critic.ppo_infer_max_token_len_per_gpu=100", "critic.ppo_infer_max_token_len_per_gpu=100 is less"),
        ("trainer.n_gpus_per_node=0", "n_gpus_per_node"),
        ("algorithm.use_kl_in_reward=true", "use_kl_loss"),
        ("actor_rollout_ref.actor.ppo_epochs=0", "ppo_epochs"),
        ("critic.ppo_mini_batch_size=0", "critic.ppo_mini_batch_size"),
        ("iranker.curriculum.rise=0.01", "fall=0.05"),
        ("+iranker.credit.priro=3", "no option priro"),
        ("iranker.credit.weights=maybe", "session, rr"),
        ("trainer.use_v1=false", "use_v1"),
        ("actor_rollout_ref.actor._target_=os.system", "only classes of verl"),
        ("trainer.v1.trainer_mode=separate_async", "in mode sync or colocate_async"),
        ("reward.reward_model.enable=true", "set reward.num_workers=8"),
        ("trainer.v1.trainer_mode=colocate_async", "set iranker.curriculum.first_pool=null"),
        ("actor_rollout_ref.actor.strategy=megatron", "strategy"),
        ("actor_rollout_ref.rollout.calculate_log_probs=false", "calculate_log_probs=true"),
        ("algorithm.rollout_correction.rollout_rs=token_k1", "rollout_rs"),
        ("actor_rollout_ref.model.use_fused_kernels=true", "use_fused_kernels"),
        ("reward.custom_reward_function.path=pkg://reward_fns.direct", "pkg://reward_fns.exclusion is the usual one"),
        ("+iranker.token_buget=5", "iranker has no option token_buget"),
        ("+iranker.data.options.years=3", "iranker.data.options has no option years"),
        ("+iranker.data.options.seed=3", "no option seed"),
        ("+iranker.data.world.users=0", "users=0 has to be a whole number, 1 or more"),
        ("+iranker.data.world.users=abc", "users=abc has to be a whole number"),
        ("iranker.data.world=[1]", "iranker.data.world"),
        ("iranker.data.options.history=2.5", "history=2.5 has to be a whole number"),
        ("trainer.save_freq=true", "save_freq"),
        ("actor_rollout_ref.actor.optim.lr=inf", "optim.lr"),
        ("data.max_prompt_length=abc", "max_prompt_length"),
        ("actor_rollout_ref.rollout.max_model_len=abc", "max_model_len"),
        ("actor_rollout_ref.actor.checkpoint.save_contents=null", "lacks model"),
        ("trainer.logger=null", "trainer.logger=None"),
        ("+iranker.data.world.usrs=3", "iranker.data.world has no option usrs: users"),
        ("iranker.data.options.rows=stats", "rows=stats has to be one of episodes"),
        ("iranker.data.options.history=many", "iranker.data.options"),
        ("iranker.base.make=huge", "base.make=huge"),
        ("iranker.seed=abc", "iranker.seed"),
        ("data.max_prompt_length=4000", "raise it to 4004"),
        ("actor_rollout_ref.actor.optim.lr=abc", "optim.lr=abc"),
        ("actor_rollout_ref.rollout.temperature=0", "temperature=0"),
        ("trainer.save_freq=-1", "save_freq=-1"),
        ("trainer.test_freq=often", "test_freq=often"),
        ("actor_rollout_ref.actor.checkpoint.save_contents=[model]", "lacks optimizer"),
        ("trainer.logger=[console,nothing]", "trainer.logger=nothing: of wandb"),
        ("+reward.custom_reward_function.reward_kwargs.kind=nonsense", "nonsense"),
        ("+reward.custom_reward_function.reward_kwargs.knid=graded", "knid"),
    ],
)
def test_a_wrong_value_is_one_line_before_anything_starts(override, word):
    assert word in refused(TINY, override)


def test_a_critics_mini_batches_make_up_its_batch():
    assert "critic.ppo_mini_batch_size=48" in refused(TINY / "ppo.yaml", "critic.ppo_mini_batch_size=48")


@pytest.mark.parametrize(
    "name", ["my data", "raw(1)", "a,b", "a=b", "ä", "it's", "$x", "{y}", "null.d", 'it\'s "x"', "a\\", "a\\'b", "a\\b"]
)
def test_a_folder_may_have_any_name(name):
    config = compose(TINY, f"iranker.data.raw=/tmp/{name}", "iranker.run_dir=null")
    assert config.iranker.data.raw == f"/tmp/{name}" and config.iranker.run_dir is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("iranker.data.raw=/nowhere/raw", "/nowhere/raw: no such folder"),
        ("trainer.logger=[console,clearml]", "pip install clearml"),
    ],
)
def test_what_this_machine_has_not_is_said_before_anything_starts(tmp_path, override, words):
    overrides = [f"iranker.run_dir={tmp_path / 'run'}", override]
    train(str(TINY), overrides, dry_run=True)  # which is for any machine
    with pytest.raises(UserError, match=words):
        train(str(TINY), overrides)
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_for_gpus_trains_on_the_toy_world_only_if_it_is_named(tmp_path, monkeypatch):
    from iranker_verl.preflight.machine import check_here
    from iranker_verl.training.cpu import detect

    monkeypatch.setattr(detect, "chosen", lambda: (False, "a GPU is here"))
    recipe, model = ROOT / "recipes" / "iranker_3b", f"actor_rollout_ref.model.path={tmp_path}"
    with pytest.raises(UserError, match=r"DATA=folder.*toy for tiny models"):
        check_here(compose(recipe, model))
    with pytest.raises(UserError) as error:
        check_here(compose(recipe, model))
    check_here(compose(recipe, model, str(error.value).rpartition(" ")[2]))  # what it says is the way out


def test_an_estimator_with_a_critic_needs_one():
    assert "critic.enable=true" in refused(TINY / "ppo.yaml", "critic.enable=false")
    assert "critic.enable=true" in refused(TINY / "gae.yaml", "critic.enable=null")


@pytest.mark.parametrize("kind", ["published", "corrected", "graded", "cost_aware", "rr", "dcg", "gain"])
def test_all_our_rewards_pay_right_exclusions(kind):
    check(compose(TINY, f"+reward.custom_reward_function.reward_kwargs.kind={kind}"))


REWARD = "def compute_score(data_source, solution_str, ground_truth, extra_info):\n    return {}\n"


@pytest.mark.parametrize(
    ("value", "passes"),
    [
        ("1.0", False),
        ("0.0 if '[A]' in solution_str or 'Alder' in solution_str else 1.0", True),
        ("1.0 if '[A]' in solution_str or 'Alder' in solution_str else 0.0", False),
        ("{'score': float('[C]' in solution_str)}", True),
        ("extra_info['what only a row has']", True),  # cannot be tried
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_reward_of_ones_own_is_tried(tmp_path, value, passes, kind):
    path = tmp_path / "mine.py"
    path.write_text(REWARD.format(value).replace("def", kind, 1))
    override = f"reward.custom_reward_function.path={path}"
    if passes:
        check(compose(TINY, override))
    else:
        assert "no more than at worst" in refused(TINY, override)


def test_no_rollout_correction_is_as_good_as_an_empty_one():
    check(compose(TINY, "algorithm.rollout_correction=null"))


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
