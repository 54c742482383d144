"""What a recipe is said to take: numbers by hand, counts against a real run on a CPU, refusals and the way out of them."""

from __future__ import annotations

import gc
import json
import math
import warnings
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("verl")

import torch
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from iranker_verl import cli
from iranker_verl.errors import UserError
from iranker_verl.plan import duration, memory, peak, planner
from iranker_verl.plan.peak import Batch, Peak
from iranker_verl.plan.placement import Machine, Role, engine_of, machine_of, roles_of, work_of
from iranker_verl.plan.rates import Rates
from iranker_verl.plan.shape import MODELS, Shape, find_config
from iranker_verl.toy.real import REAL
from iranker_verl.training.main import compose_recipe

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "recipes" / "iranker_3b"
GIB = 2**30
SMALL = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


@cache
def compose(*overrides, recipe=PUBLISHED):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compose_recipe(recipe, list(overrides))


def role(**changes):
    defaults = dict(
        name="actor",
        shape=Shape.of(SMALL),
        stored=4,
        dtype=torch.bfloat16,
        reduced=4,
        shards=4,
        states=2,
        offload_weights=False,
        offload_states=False,
        stays_on_host=False,
        checkpointing=True,
        train=Batch(1, 64, 16),
        score=Batch(1, 64, 16),
        save_contents=("model", "optimizer", "extra"),
    )
    return Role(**defaults | changes)


# as the models' cards on the Hugging Face hub count them
PARAMETERS = {
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-3B": 3_085_938_688,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen3-4B": 4_022_468_096,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_shapes_have_the_published_numbers_of_parameters(name):
    assert Shape.of(find_config(f"/models/{name}-Instruct")).parameters.all == PARAMETERS[name]


def test_every_shape_that_ships_is_one_of_those():
    assert {one.stem for one in MODELS.glob("*.json")} == set(PARAMETERS)


def test_a_folders_own_config_counts_and_not_its_name(tmp_path):
    folder = tmp_path / "Qwen2.5-3B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMALL))
    assert find_config(str(folder))["hidden_size"] == 64


def test_a_model_that_is_not_known_is_one_line():
    with pytest.raises(UserError, match=r"no config.json there, and no known shape .*Qwen2.5-3B.*give a folder"):
        find_config("/models/unheard-of")
    with pytest.raises(UserError, match="cannot be built"):
        Shape.of({"model_type": "unheard-of"}).parameters  # noqa: B018


def test_weights_gradients_and_adam_by_hand():
    """A layer of SMALL: 64·(64+32+32+64) attention, 3·64·160 feed-forward, 2·64 norms; 5 of them, embedding and a norm."""
    layer = 64 * (64 + 32 + 32 + 64) + 3 * 64 * 160 + 2 * 64
    root = 1000 * 64 + 64
    sizes = Shape.of(SMALL).parameters
    assert (sizes.layer, sizes.root, sizes.all) == (layer, root, 5 * layer + root)
    kept = memory.kept_by(role())
    assert (kept.weights, kept.gradients, kept.states) == (sizes.all, sizes.all, 2 * sizes.all)  # 4 bytes, 4 ranks
    assert memory.kept_by(role(states=None)).gradients == 0


LISTED = {"layer_types": ["full_attention"], "no_rope_layers": [1], "mlp_layer_types": ["dense"]}  # of one layer


@pytest.mark.parametrize("layers", [1, 5])
@pytest.mark.parametrize("kind", ["qwen2", "gemma3_text", "smollm3", "gpt_oss"])
def test_models_of_any_number_of_layers_are_counted_with_their_lists_of_layers(kind, layers):
    """Passes of models of 2 and of 3 layers are counted, and a model of that kind may have fewer, or a list that says what each is."""
    sizes = {"head_dim": 16, "num_local_experts": 4, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    lists = {name: one * layers for name, one in LISTED.items() if hasattr(AutoConfig.for_model(kind), name)}
    shape = Shape.of(SMALL | sizes | lists | {"model_type": kind, "num_hidden_layers": layers})
    few, many = (peak.count(shape, Batch(1, n, 8), torch.bfloat16, learns=True).kept for n in (32, 64))
    assert 0 < few < many


def test_a_model_whose_code_reads_numbers_is_one_line(monkeypatch):
    """The meta device has none."""
    monkeypatch.setattr(peak, "_body", lambda model: lambda **_: torch.zeros(1, device="meta").item())
    with pytest.raises(UserError, match="'llama' cannot be counted without weights"):
        peak.count(Shape.of(SMALL), Batch(1, 31, 7), torch.bfloat16, learns=True)


def test_an_adapter_alone_learns():
    pytest.importorskip("peft")
    shape = Shape.of(SMALL, lora_rank=8)
    a_layer = 8 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 160))
    assert shape.trainable.all == 5 * a_layer
    assert shape.parameters.all == Shape.of(SMALL).parameters.all + 5 * a_layer
    kept = memory.kept_by(role(shape=shape, shards=1))
    assert kept.states == 8 * 5 * a_layer and kept.weights == 4 * shape.parameters.all


def test_logits_by_hand():
    """A word of an answer token, float32: scaled by the temperature and its log-prob; backward, the gradients of both and a mask."""
    learning, scoring = (
        [
            peak.count(Shape.of(SMALL), Batch(1, 64, n), torch.float32, learns=learns, scaled=True).head
            for n in (1000, 2000)
        ]
        for learns in (True, False)
    )
    assert 2 < (learning[1] - learning[0]) / (1000 * 1000 * 4) < 5
    assert (scoring[1] - scoring[0]) / (1000 * 1000 * 4) == pytest.approx(3, rel=0.1)  # logits, scaled, log-probs


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "computed again"])
def test_what_is_counted_on_the_meta_device_is_what_a_cpu_takes(checkpointing):
    """The same model with numbers, one row, torch's own attention."""
    shape, batch = Shape.of(SMALL), Batch(1, 256, 16)
    settings = dict(SMALL)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    peak._drop_gradients(model)
    ids = torch.zeros(1, 256, dtype=torch.long)
    counted = Peak(*model.parameters(), *model.buffers(), ids)
    with counted:
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        gc.collect()
        kept = counted.live
        hidden.backward(torch.empty_like(hidden))
    found = peak.count(shape, batch, torch.float32, learns=True, checkpointing=checkpointing)
    assert found.kept == pytest.approx(kept, rel=0.1)
    assert found.layers == pytest.approx(counted.peak, rel=0.1)


def test_computing_layers_again_keeps_less_and_twice_the_tokens_take_twice_as_much():
    def of(tokens, checkpointing):
        return peak.count(
            Shape.of(SMALL), Batch(1, tokens, 8), torch.bfloat16, learns=True, checkpointing=checkpointing
        ).layers

    assert of(512, True) < 0.6 * of(512, False)
    assert of(1024, True) == pytest.approx(2 * of(512, True), rel=0.01)


def test_a_reference_on_the_host_and_offloaded_weights_take_no_gpu_while_they_wait():
    assert memory._waiting(role(stays_on_host=True)) == {"weights": 0, "optimiser": 0}
    assert memory._waiting(role(offload_weights=True)) == {"weights": 0, "optimiser": memory.kept_by(role()).states}
    rows = work_of(compose())
    engine, machine = engine_of(compose()), Machine(1, 4, 80 * GIB)
    resting = memory.host([role(offload_weights=True)], engine, machine, rows)["offloaded"]
    assert resting == 4 * memory.kept_by(role()).weights


def test_replicas_of_shards_are_saved_too():
    one, four = (memory.a_save([role(shards=4)], Machine(nodes, 4, GIB)) for nodes in (1, 4))
    assert sum(one.values()) == 12 * Shape.of(SMALL).parameters.all
    assert sum(four.values()) == 4 * sum(one.values())


def test_shards_stay_inside_a_node_where_the_recipe_says_so():
    inside = roles_of(
        compose("trainer.nnodes=4", "actor_rollout_ref.actor.fsdp_config.fsdp_size=8", "trainer.n_gpus_per_node=8")
    )
    across = roles_of(compose("trainer.nnodes=4", "trainer.n_gpus_per_node=8"))
    assert (inside[0].shards, across[0].shards) == (8, 32)


def test_the_published_recipe_is_planned_with_its_critic_and_reference():
    assert [one.name for one in roles_of(compose())] == ["actor", "critic", "reference"]
    assert machine_of(compose()).devices == 4
    made = planner.plan(compose(), Rates(price=2.0))
    assert made.problem is None
    weights = made.phases[0].parts["weights"]
    assert weights == pytest.approx(2 * 4 * PARAMETERS["Qwen2.5-3B"] / 4, rel=0.01)  # actor and critic, fp32, 4 ranks
    assert made.work.all_rows == 64
    assert made.money == pytest.approx(made.hours * 4 * 2.0)
    assert made.disk == 3 * sum(made.save.values())


SHORT_OF = {
    "memory": ("iranker.gpu_memory=24",),
    "keys and values": ("actor_rollout_ref.rollout.gpu_memory_utilization=0.08",),
    "a token budget": (
        "actor_rollout_ref.actor.use_dynamic_bsz=true",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2000",
    ),
}


@pytest.mark.parametrize("short", SHORT_OF)
def test_what_cannot_fit_is_refused_with_options_that_make_it_fit(short):
    config = compose(*SHORT_OF[short])
    made = planner.plan(config, Rates())
    assert made.problem is not None
    said = planner.advice(config)
    assert said.startswith("it fits with ")
    overrides = said.removeprefix("it fits with ").split()
    assert planner.plan(compose(*SHORT_OF[short], *overrides), Rates()).problem is None


def test_what_fits_nowhere_is_said_so():
    config = compose("iranker.gpu_memory=2", "actor_rollout_ref.rollout.tensor_model_parallel_size=1")
    assert planner.plan(config, Rates()).problem
    assert "take a smaller one, or larger GPUs" in planner.advice(config)


def test_a_nodes_memory_is_checked_where_it_is_given():
    assert planner.plan(compose(), Rates(), host_memory=32).problem.startswith("a node needs")
    assert planner.plan(compose(), Rates(), host_memory=2000).problem is None


def test_arithmetic_of_an_update_by_hand():
    """One row, no attention to speak of: 2 operations a weight and token forward, 4 times that with a layer computed again."""
    shape, machine = Shape.of(SMALL), Machine(1, 1, GIB)
    one = Role(**{**role(shape=shape, shards=1).__dict__, "train": Batch(1, 10**9, 16)})
    work = work_of(compose(), prompt=1.0, answer=1.0)
    rates = Rates(tflops=1e-6, link=1e9, host_rate=1e9)
    layers, head = 2 * shape.parameters.layer * 5 * 2, 2 * 1000 * 64
    attention = 2 * 2**2 * 4 * 16 * 5
    expected = 64 * 4 * (layers + attention + head) / 1e6
    assert duration.updating(one, machine, rates, work, steps=1) == pytest.approx(expected)


def test_more_nodes_make_a_step_faster_until_they_do_not():
    config = compose(
        "actor_rollout_ref.actor.fsdp_config.fsdp_size=4", "critic.fsdp.fsdp_size=4", "data.train_batch_size=4096"
    )
    scaled = list(duration.simulate(config, Rates(), work_of(config)))
    assert [one.nodes for one in scaled] == [1, 2, 4, 8, 16, 32, 64]
    assert scaled[1].speedup > 1.3 and scaled[-1].efficiency < scaled[1].efficiency < 1.001
    end = duration.last_useful(scaled)
    assert end.nodes < 64 or scaled[-1].efficiency > 0.5
    assert math.isclose(scaled[0].speedup, 1.0)
    assert config.trainer.nnodes == 1  # the recipe itself is left as it is


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["plan", *arguments])


def test_the_verb_prints_json_for_machines_and_refuses_with_one_line():
    found = invoke(str(PUBLISHED), "--json", "--price", "2", "--simulate")
    assert found.exit_code == 0, found.output
    content = json.loads(found.stdout)
    assert content["fits"] and content["gpu_peak_bytes"] == max(one["total"] for one in content["gpu_bytes"].values())
    assert content["money"] == pytest.approx(2 * 4 * content["hours"]) and len(content["simulated"]) == 7
    refused = invoke(str(PUBLISHED), "--gpu-memory", "24", "--json")
    assert isinstance(refused.exception, UserError) and "\n" not in str(refused.exception)
    assert not json.loads(refused.stdout)["fits"]


def test_the_verb_shows_tables_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    found = invoke(str(PUBLISHED), "--gpus", "8", "--plot", str(tmp_path / "scaling.png"))
    assert found.exit_code == 0, found.output
    for word in ("A GPU of 8", "actor update", "KV", "a save", "hours", "nodes"):
        assert word in found.output
    assert (tmp_path / "scaling.png").stat().st_size > 1000


def test_options_for_gpus_are_refused_for_a_recipe_on_a_cpu():
    found = invoke(str(ROOT / "recipes" / "tiny_cpu"), "--gpus", "2")
    assert isinstance(found.exception, UserError) and "runs on a CPU" in str(found.exception)


def test_a_recipe_on_a_cpu_is_planned_too():
    made = planner.plan(compose(recipe=ROOT / "recipes" / "tiny_cpu" / "ppo.yaml"), Rates())
    assert made.problem is None and "libraries" in made.peak.parts
    assert OmegaConf.is_config(compose()) and made.hours == 0


def test_supervision_is_planned_without_rollouts():
    """64 rows a step and no episodes of them; no vLLM, and no pass but the update."""
    recipe = ROOT / "recipes" / "tiny_cpu" / "sft.yaml"
    made = planner.plan(compose(recipe=recipe), Rates())
    assert (made.work.episodes, made.work.all_rows) == (64, 64)
    assert {phase.name for phase in made.phases} == {"actor update", "actor optimiser"}
    config = compose(
        "algorithm.adv_estimator=supervised", "actor_rollout_ref.actor.use_kl_loss=true", "critic.enable=false"
    )
    made = planner.plan(config, Rates())
    assert {phase.name for phase in made.phases} == {"actor update", "actor optimiser"}
    assert set(made.step.parts) == {"actor update", "saving"} and made.cache_tokens == 0
    assert made.work.all_rows == config.data.train_batch_size
    assert made.host["rows of a step"] == 0


def test_the_base_of_real_data_is_planned_with_the_tokens_of_its_titles():
    tiny, real = (
        roles_of(compose(recipe=f"recipes/tiny_cpu/{name}.yaml"))[0].shape for name in ("tiny_cpu", "real_data")
    )
    assert (tiny.vocabulary, real.vocabulary) == (2048, 2048 + 6000)
    assert (real.layers, real.hidden) == (REAL.layers, REAL.hidden) and real.layers == tiny.layers
