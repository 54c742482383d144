"""What may change between two starts of a run, and what is kept of each start."""

import json
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("verl")

from iranker_verl.errors import UserError
from iranker_verl.evaluation.journal import Journal, of_system
from iranker_verl.files import mark, write_json
from iranker_verl.job import pipeline, starts
from iranker_verl.job.starts import LENGTHS, MAY_CHANGE, may_change, result_hash, settings
from iranker_verl.training.main import compose_recipe

TINY = "recipes/tiny_cpu"
STEPS = "trainer.total_training_steps"


@cache
def compose(*overrides, recipe=TINY):
    return compose_recipe(recipe, list(overrides))


@pytest.fixture
def run(tmp_path):
    """The folder of a run that is done, at step 20."""
    folder = tmp_path / "run"
    for name in ("data", "stages", "checkpoints"):
        (folder / name).mkdir(parents=True)
    mark(folder)
    (folder / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("20")
    for name in pipeline.STAGES:
        write_json(folder / "stages" / f"{name}.json", {"done": True, "seconds": 5.0})
    start(folder)
    return folder


def start(run, *overrides):
    pipeline._same_run(compose(f"iranker.run_dir={run}", *overrides), run)


def done(run):
    return {name for name in pipeline.STAGES if pipeline.Stage(name, run).record()["done"]}


HARMLESS = (
    "actor_rollout_ref.actor.fsdp_config.param_offload=true",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload=true",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.actor.use_dynamic_bsz=false",
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=999",
    "actor_rollout_ref.rollout.gpu_memory_utilization=0.1",
    "actor_rollout_ref.rollout.max_num_seqs=7",
    "actor_rollout_ref.model.enable_gradient_checkpointing=true",
    "iranker.max_restarts=5",
    "trainer.save_freq=7",
    "trainer.test_freq=5",
    "trainer.logger=[console,tensorboard]",
    "trainer.max_actor_ckpt_to_keep=1",
    "trainer.v1.sampler.sampler_kwargs.deadline_s=60",
    "ray_kwargs.ray_init.num_cpus=32",
    "+ray_kwargs.ray_init.log_to_driver=true",
)
HARMFUL = (
    "iranker.seed=7",
    "iranker.template=think-label",
    "iranker.data.tasks=[rec-movie]",
    "iranker.curriculum.first_pool=3",
    "iranker.credit.prior=2",
    "algorithm.adv_estimator=exclusion_grpo",
    "algorithm.gamma=0.9",
    "data.train_batch_size=64",
    "data.max_response_length=5",
    "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.rollout.temperature=0.5",
    "actor_rollout_ref.actor.optim.lr=1e-5",
    "actor_rollout_ref.actor.ppo_mini_batch_size=32",
    "actor_rollout_ref.actor.ppo_epochs=1",
    "actor_rollout_ref.model.lora_rank=8",
    "reward.custom_reward_function.path=pkg://reward_fns.direct",
)


@pytest.mark.parametrize("override", HARMLESS)
def test_what_does_not_change_the_result_may_change_and_is_kept(run, capsys, override):
    start(run, override)
    name, value = override.lstrip("+").split("=")
    assert done(run) == set(pipeline.STAGES)
    kept = json.loads((run / "run.json").read_text())
    assert [len(one["changed"]) > 0 for one in kept["starts"]] == [False, True] and kept["starts"][1]["step"] == 20
    assert name in kept["starts"][1]["changed"]
    assert f"{name} was" in capsys.readouterr().out
    assert value.strip("[]").split(",")[-1] in (run / "config.yaml").read_text()
    assert kept["hash"] == result_hash(settings(compose()))


@pytest.mark.parametrize("override", HARMFUL)
def test_what_changes_the_result_is_refused_and_nothing_is_written(run, override):
    before = {path: path.read_text() for path in (run / "run.json", run / "config.yaml")}
    with pytest.raises(UserError, match="holds a run with other settings") as error:
        start(run, override, "trainer.save_freq=3")
    assert "save_freq" not in str(error.value)  # that alone would be well
    assert "\n" not in str(error.value)
    assert before == {path: path.read_text() for path in before}
    assert result_hash(settings(compose(override))) != result_hash(settings(compose()))


def test_the_number_of_gpus_may_change(run):
    start(run, "trainer.n_gpus_per_node=2", "trainer.nnodes=4")
    changed = json.loads((run / "run.json").read_text())["starts"][1]["changed"]
    assert changed["trainer.n_gpus_per_node"] == [1, 2] and changed["trainer.nnodes"] == [1, 4]


def test_more_steps_train_on_and_evaluate_the_trained_model_again(run, capsys):
    for system in ("before", "after"):
        Journal(of_system(run, system), {"model": system}).finish([{"a": 1}], {"seconds": 1})
    start(run, f"{STEPS}=40")
    assert done(run) == {"prepare", "base"} and f"{STEPS} was 16, is now 40" in capsys.readouterr().out
    assert of_system(run, "before").exists() and not list(run.glob("episodes-after*"))
    assert pipeline.Stage("rl", run).record()["seconds"] == 5.0


def test_fewer_steps_than_are_taken_are_refused(run):
    with pytest.raises(UserError, match=rf"{STEPS} was 16, is now 10: it may only grow"):
        start(run, f"{STEPS}=10")


def test_fewer_steps_than_planned_are_well_before_they_are_taken(run):
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("10")
    start(run, f"{STEPS}=15")
    assert done(run) == set(pipeline.STAGES)


def test_more_steps_are_refused_where_the_learning_rate_depends_on_their_number(run):
    cosine = "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine"
    (run / "run.json").unlink()
    start(run, cosine)
    with pytest.raises(UserError, match=r"on which actor_rollout_ref.actor.optim.lr_scheduler_type depends"):
        start(run, cosine, f"{STEPS}=40")


def test_more_steps_train_nothing_where_tokens_had_ended_training(run):
    (run / "run.json").unlink()
    start(run, f"{STEPS}=1000", "iranker.token_budget=100")
    start(run, f"{STEPS}=2000", "iranker.token_budget=100")
    assert done(run) == set(pipeline.STAGES)
    start(run, f"{STEPS}=2000", "iranker.token_budget=200")
    assert done(run) == {"prepare", "base"}


def test_a_run_goes_on_from_another_present_folder_with_absolute_paths(tmp_path, monkeypatch):
    """As under ``submit.sh``, whose job starts in a folder of Ray's."""
    run = tmp_path / "runs" / "one"
    (run / "data").mkdir(parents=True)
    (tmp_path / "raw").mkdir()
    mark(run)
    monkeypatch.chdir(tmp_path)
    recipe = str(Path(__file__).parents[2] / TINY)
    pipeline._same_run(compose("iranker.run_dir=runs/one", "iranker.data.raw=raw", recipe=recipe), run)
    monkeypatch.chdir("/")
    pipeline._same_run(compose(f"iranker.run_dir={run}", f"iranker.data.raw={tmp_path / 'raw'}", recipe=recipe), run)
    assert [one["changed"] for one in json.loads((run / "run.json").read_text())["starts"]] == [{}, {}]


def test_every_pattern_names_an_option_that_there_is():
    known = settings(compose()) | settings(compose(recipe="recipes/iranker_3b"))
    for pattern in (pattern for patterns in MAY_CHANGE.values() for pattern in patterns):
        assert any(starts.fnmatchcase(name, pattern) for name in known), pattern
    assert set(LENGTHS) <= set(known) and not any(map(may_change, LENGTHS))
