"""An adapter merged into the exported weights, against peft's own merge."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import peft
import torch

from iranker_verl.training.lora import merge_adapter
from tests.tiny_models import qwen2

ALPHA, RANK = 32, 4


def adapted(**config):
    """A model with an adapter, and its tensors under peft's names, as verl 0.9.1 saves them."""
    torch.manual_seed(1)
    adapter = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", init_lora_weights=False)
    model = peft.get_peft_model(qwen2(64, **config), adapter).eval()
    return model, {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("tied", [True, False])
def test_the_merged_weights_load_as_any_others_and_answer_as_the_adapted_ones(tied):
    model, weights = adapted(tie_word_embeddings=tied)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        wanted = model(tokens).logits
        with model.disable_adapter():
            before = model(tokens).logits
    assert merge_adapter(weights, ALPHA) == 2 * 7  # layers, each with four matrices of attention and three of its MLP
    merged = qwen2(64, tie_word_embeddings=tied).eval()
    merged.load_state_dict(weights)
    with torch.no_grad():
        found = merged(tokens).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert (found - before).abs().max() > 0.01


def test_weights_without_an_adapter_are_left_as_they_are():
    weights = qwen2(64).state_dict()
    before = dict(weights)
    assert merge_adapter(weights, ALPHA) == 0
    assert list(weights) == list(before) and all(weights[name] is before[name] for name in before)
