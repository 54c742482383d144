"""An adapter merged into the exported weights, against peft's own merge."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import peft
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from iranker_verl.training.lora import merge_adapter
from tests.tiny_models import qwen2

ALPHA, RANK = 32, 4


def saved_by_verl(folder, **config):
    """A model with an adapter as verl 0.9.1 saves it, as ``hf_model``: the plain model's config, peft's names."""
    torch.manual_seed(1)
    plain = qwen2(64, **config)
    plain.config.save_pretrained(folder)
    adapter = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", init_lora_weights=False)
    adapted = peft.get_peft_model(plain, adapter)
    tensors = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    save_file(tensors, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    return adapted


@pytest.mark.parametrize("tied", [True, False])
def test_the_merged_model_loads_as_any_other_and_answers_as_the_adapted_one(tmp_path, tied):
    adapted = saved_by_verl(tmp_path, tie_word_embeddings=tied).eval()
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        wanted = adapted(tokens).logits
        with adapted.disable_adapter():
            before = adapted(tokens).logits
    assert merge_adapter(tmp_path, ALPHA) == 2 * 7  # layers, each with four matrices of attention and three of its MLP
    assert [f.name for f in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    merged, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        found = merged.eval()(tokens).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert (found - before).abs().max() > 0.01


def test_a_folder_without_an_adapter_is_left_as_it_is(tmp_path):
    qwen2(64).save_pretrained(tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    assert merge_adapter(tmp_path, ALPHA) == 0
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
