"""Every recipe for GPUs on every machine of the group ``cluster``: it composes, is valid, and fits by the plan."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("verl")

from omegaconf import OmegaConf

from iranker_verl.plan import planner
from iranker_verl.plan.rates import Rates
from iranker_verl.preflight import check
from iranker_verl.training.main import compose_recipe

ROOT = Path(__file__).parents[2]
PRESETS = ("1x24", "1x80", "4x80", "8x80", "4x8x80")
RECIPES = (
    "iranker_3b",
    "iranker_3b_episodes",
    "dranker_3b",
    "r1_rec_3b",
    "iranker_1_5b_single_gpu",
    "zero_shot/rec.yaml",
)
SIZES = {"0.5B": "Qwen2.5-0.5B", "1.5B": "Qwen2.5-1.5B", "3B": "Qwen2.5-3B", "4B": "Qwen3-4B", "7B": "Qwen2.5-7B"}
BEGIN, END = "<!-- made by tests/recipes/test_presets.py -->\n", "<!-- end -->"


@cache
def compose(recipe, preset):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compose_recipe(ROOT / "recipes" / recipe, [f"cluster={preset}"])


def problem(config, size=None):
    if size is not None:
        config = config.copy()
        OmegaConf.update(config, "actor_rollout_ref.model.path", size)
    return planner.plan(config, Rates()).problem


def test_there_is_a_preset_for_each_machine_and_no_other():
    folder = ROOT / "iranker_verl" / "training" / "config" / "cluster"
    assert {one.stem for one in folder.glob("*.yaml")} == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_fits_every_machine(recipe, preset):
    config = compose(recipe, preset)
    check(config)
    assert problem(config) is None


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_what_the_machine_is_and_nothing_that_changes_the_result(preset):
    path = ROOT / "iranker_verl" / "training" / "config" / "cluster" / f"{preset}.yaml"
    own = OmegaConf.to_container(OmegaConf.load(path))
    names = {name.rsplit(".", 1)[-1] for name in _leaves(own)}
    assert names <= {
        *(
            "gpu_memory",
            "n_gpus_per_node",
            "nnodes",
            "fsdp_size",
            "param_offload",
            "optimizer_offload",
            "offload_policy",
        ),
        *("ppo_max_token_len_per_gpu", "ppo_infer_max_token_len_per_gpu"),
        *("gpu_memory_utilization", "max_num_seqs", "num_workers"),
    }
    config = compose("iranker_3b", preset)
    per_node, nodes = config.trainer.n_gpus_per_node, config.trainer.nnodes
    numbers = [int(number) for number in preset.split("x")]
    assert numbers == [*([nodes] if nodes > 1 else []), per_node, int(config.iranker.gpu_memory)]
    # weights are gathered inside a node
    assert config.actor_rollout_ref.actor.fsdp_config.fsdp_size in ((per_node,) if nodes > 1 else (-1, per_node))


def _leaves(group, prefix=""):
    for name, value in group.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_fsdp2_shards_every_model_and_the_reference_is_half_as_large(recipe):
    policy, critic = compose(recipe, "8x80").actor_rollout_ref, compose(recipe, "8x80").critic
    assert {policy.actor.strategy, policy.ref.strategy, policy.ref.fsdp_config.strategy, critic.strategy} == {"fsdp2"}
    assert policy.ref.fsdp_config.model_dtype == "bf16"


def table():
    """Return which sizes fit which machine: the published recipe and that of episodes, the latter alone, or none."""
    lines = ["| machine | " + " | ".join(SIZES) + " |", "|---" * (len(SIZES) + 1) + "|"]
    for preset in PRESETS:
        cells = []
        for size in SIZES.values():
            if problem(compose("iranker_3b", preset), size) is None:
                cells.append("both")
            else:
                cells.append("–" if problem(compose("iranker_3b_episodes", preset), size) else "episodes")
        lines.append(f"| `{preset}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def test_the_readmes_table_of_machines_is_the_plans():
    text = (ROOT / "recipes" / "iranker_3b" / "README.md").read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0] == table()


def test_no_recipe_sets_what_the_machine_sets():
    """Where it did, the preset of another machine would have no effect."""
    for recipe in ("iranker_3b", "iranker_3b_episodes", "dranker_3b", "r1_rec_3b"):
        own = OmegaConf.to_container(OmegaConf.load(ROOT / "recipes" / recipe / f"{recipe}.yaml"))
        own.pop("defaults")
        machine = OmegaConf.load(ROOT / "iranker_verl" / "training" / "config" / "cluster" / "8x80.yaml")
        assert not set(_leaves(own)) & set(_leaves(OmegaConf.to_container(machine)))
