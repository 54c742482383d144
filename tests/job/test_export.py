"""The last checkpoint as a Hugging Face folder that anyone can load."""

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM

from iranker_verl.errors import UserError
from iranker_verl.inference.ranker import AsyncRanker
from iranker_verl.job.stages import export
from tests import tiny_models


def declare(model, dtype):
    """What verl writes into an ``hf_model``'s config is bfloat16, whatever the weights are."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"dtype": dtype}))


def exported(run, dtype, estimator="exclusion_grpo"):
    base, step = tiny_models.save(run / "base"), run / "checkpoints" / "global_step_3"
    declare(base, dtype)
    saved = step / "actor" / "huggingface"
    saved.mkdir(parents=True)
    trained = tiny_models.save(saved)
    declare(trained, "bfloat16")
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("3")
    config = {
        "iranker": {"template": "label"},
        "algorithm": {"adv_estimator": estimator},
        "data": {"max_response_length": 4},
        "trainer": {"default_local_dir": str(run / "checkpoints")},
        "actor_rollout_ref": {"model": {"path": str(base), "lora_rank": 0}},
    }
    export(OmegaConf.create(config), run)
    return AutoModelForCausalLM.from_pretrained(run / "model", dtype="auto"), trained


def test_where_nothing_was_saved_there_is_nothing_to_export(tmp_path):
    config = OmegaConf.create({"trainer": {"default_local_dir": str(tmp_path / "checkpoints")}})
    with pytest.raises(UserError, match="no checkpoint"):
        export(config, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_loads_in_the_precision_of_its_base(tmp_path, dtype):
    model, trained = exported(tmp_path, dtype)
    assert model.dtype == getattr(torch, dtype)
    wanted = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32).state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, wanted[name].to(weight.dtype))


def test_it_says_what_it_was_trained_with(tmp_path):
    exported(tmp_path, "float32")
    stamp = json.loads((tmp_path / "model" / "iranker.json").read_text())
    assert (stamp["template_id"], stamp["step"], stamp["max_new_tokens"]) == ("label", 3, 4)
    assert not (tmp_path / "model.part").exists()


@pytest.mark.parametrize(("estimator", "constrained"), [("exclusion_grpo", False), ("exclusion_expected", True)])
def test_one_that_learned_what_follows_the_beginning_of_a_label_is_ranked_with_so(tmp_path, estimator, constrained):
    exported(tmp_path, "float32", estimator)
    assert AsyncRanker(tmp_path / "model").constrained is constrained
