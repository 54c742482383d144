"""The engine's log-probs and gradients are verl's own, for the answer's tokens."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict

from tests import tiny_models

pytest.importorskip("verl")


def nested(rows: list[list[int]]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(r) for r in rows], layout=torch.jagged)


PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16]]
ANSWERS = [[3, 2], [4], [17, 18, 2]]


def micro_batch(packed: bool = False) -> TensorDict:
    from verl.utils import tensordict_utils as tu

    rows = [p + a for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    batch = TensorDict(
        {
            "input_ids": nested(rows),
            "responses": nested(ANSWERS),
            "position_ids": nested([list(range(len(r))) for r in rows]),
        },
        batch_size=len(rows),
    )
    for key, value in {
        "use_remove_padding": packed,
        "use_fused_kernels": False,
        "calculate_entropy": True,
        "temperature": 0.7,
    }.items():
        tu.assign_non_tensor_data(batch, key, value)
    return batch


def watch(engine, model) -> None:
    engine.module = model
    engine.hook_head()


@pytest.mark.parametrize("packed", [False, True])
def test_the_head_sees_the_answers_alone(packed: bool) -> None:
    """Of prompts of all lengths: what costs memory with 152,000 words is the answers' tokens, and nothing of the prompts'."""
    from iranker_verl.training.answer_engine import AnswerOnlyEngine

    engine, model = object.__new__(AnswerOnlyEngine), tiny_models.qwen2(40, attn_implementation="packed")
    engine.__dict__.update(pad_to_length=False, engine_config=SimpleNamespace(entropy_checkpointing=False))
    watch(engine, model)
    inputs, _ = engine.prepare_model_inputs(micro_batch(packed))
    assert model(**inputs, use_cache=False).logits.shape == (1, sum(map(len, ANSWERS)), 40)
    # and where an option asks verl's own engine, it is left alone
    batch = micro_batch(packed)
    batch.pop("responses")
    inputs, _ = engine.prepare_model_inputs(batch)
    assert model(**inputs, use_cache=False).logits.shape == ((1, 18, 40) if packed else (3, 9, 40))


def test_a_saved_configuration_names_no_attention(tmp_path) -> None:
    """What is trained with ours is loaded, exported and served by those who do not know it."""
    from transformers import AutoConfig
    from verl.utils.model import update_model_config

    from iranker_verl.training.answer_engine import AnswerOnlyEngine

    engine, model = object.__new__(AnswerOnlyEngine), tiny_models.qwen2(40, attn_implementation="packed")
    update_model_config(model.config, {"attn_implementation": "packed"})  # as verl does with override_config
    assert "packed" in model.config.to_json_string()
    engine.module = model
    engine.forget_attention()
    model.config.save_pretrained(tmp_path)
    assert "packed" not in (tmp_path / "config.json").read_text()
    assert AutoConfig.from_pretrained(tmp_path)._attn_implementation is None
    assert model.config._attn_implementation == "packed"  # for training


def test_answer_positions_by_hand() -> None:
    from iranker_verl.training.answer_engine import answer_positions

    rows, columns = answer_positions(torch.tensor([6, 3, 9]), torch.tensor([2, 1, 3]))
    assert rows.tolist() == [0, 0, 1, 2, 2, 2]
    assert columns.tolist() == [3, 4, 1, 5, 6, 7]


def test_same_log_probs_entropy_and_gradients_as_verls_own() -> None:
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    from iranker_verl.training.answer_engine import AnswerOnlyEngine

    results = {}
    for engine_class, packed in ((FSDPEngineWithLMHead, False), (AnswerOnlyEngine, False), (AnswerOnlyEngine, True)):
        torch.manual_seed(1)
        model = tiny_models.qwen2(40, attn_implementation="packed" if packed else "sdpa")
        engine = object.__new__(engine_class)
        engine.__dict__.update(pad_to_length=False, engine_config=SimpleNamespace(entropy_checkpointing=False))
        if engine_class is AnswerOnlyEngine:
            watch(engine, model)
        batch = micro_batch(packed)
        inputs, arguments = engine.prepare_model_inputs(batch)
        outputs = engine.prepare_model_outputs(model(**inputs, use_cache=False), arguments, batch, None)
        picked = {}
        for name in ("log_probs", "entropy"):
            parts = [
                row[len(p) - 1 : len(p) + len(a) - 1]
                for row, p, a in zip(outputs[name].unbind(), PROMPTS, ANSWERS, strict=True)
            ]
            picked[name] = torch.cat(parts)
        picked["log_probs"].sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
        results[engine_class, packed] = (picked["log_probs"].detach(), picked["entropy"].detach(), gradients)
    for theirs, padded, packed in zip(*results.values(), strict=True):
        torch.testing.assert_close(padded, theirs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(packed, theirs, rtol=1e-4, atol=1e-5)
    assert len(results[AnswerOnlyEngine, True][0]) == 6


def reference(model, prompt: list[int], answer: list[int], tokens: list[int], values: list[float]) -> torch.Tensor:
    """The logarithm of the mean value of the first answer token, by a softmax over all words and a loop."""
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1] / 0.7
    chances = logits.softmax(-1)
    known = dict(zip(tokens[:-1], values[:-1], strict=True))
    return sum(chance * known.get(word, values[-1]) for word, chance in enumerate(chances)).log()


@pytest.mark.parametrize("packed", [False, True])
def test_the_first_token_stands_for_all_exclusions(packed: bool) -> None:
    """verl's loss over what the engine returns has the gradient of the mean value's logarithm, and of the answer's end as it was sampled."""
    from iranker_verl.training import policy_loss
    from iranker_verl.training.answer_engine import AnswerOnlyEngine

    tokens = [
        [3, 4, 17, policy_loss.ANY_OTHER],
        [3, 4, policy_loss.ANY_OTHER],
        [policy_loss.ANY_OTHER],
    ]  # three candidates, two, a padding row
    values = [[1.0, 0.0, 0.4, 0.0], [0.0, 1.0, 0.25], [1.0]]
    weights = torch.tensor([0.5, 2.0, 0.0])
    old = [[-0.4, -0.1], [-2.0], [-0.3, -0.2, -0.7]]
    gradients = []
    for ours in (True, False):
        torch.manual_seed(1)
        model = tiny_models.qwen2(40, attn_implementation="packed")
        if ours:
            engine = object.__new__(AnswerOnlyEngine)
            engine.__dict__.update(pad_to_length=False, engine_config=SimpleNamespace(entropy_checkpointing=False))
            watch(engine, model)
            batch = micro_batch(packed)
            batch["old_log_probs"] = nested(old)
            batch[policy_loss.LABEL_TOKENS], batch[policy_loss.LABEL_VALUES] = nested(tokens), nested(values)
            inputs, arguments = engine.prepare_model_inputs(batch)
            found = engine.prepare_model_outputs(model(**inputs, use_cache=False), arguments, batch, None)["log_probs"]
            rows = [r[len(p) - 1 :] for r, p in zip(found.unbind(), PROMPTS, strict=True)]
            assert [r[0].item() for r in rows] == pytest.approx([-0.4, -2.0, -0.3])  # a ratio of 1
            ratios = torch.stack([(r[0] - o[0]).exp() for r, o in zip(rows, old, strict=True)])
            loss = -(weights * ratios).sum() - 1.5 * rows[0][1]
        else:
            expected = [reference(model, *row) for row in zip(PROMPTS, ANSWERS, tokens, values, strict=True)]
            loss = -(weights * torch.stack(expected)).sum()
            ends = model(input_ids=torch.tensor([PROMPTS[0] + ANSWERS[0]])).logits[0, len(PROMPTS[0])] / 0.7
            loss -= 1.5 * ends.log_softmax(-1)[ANSWERS[0][1]]
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    with pytest.raises(RuntimeError, match="exclusion_expected and exclusion_order need"):
        engine.prepare_model_outputs(None, {}, batch, None)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    assert gradients[0].abs().max() > 0.01
