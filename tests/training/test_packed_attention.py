"""Rows that are packed into one do not see each other."""

from __future__ import annotations

import pytest
import torch

from tests import tiny_models

pytest.importorskip("verl")

from transformers import Qwen2ForCausalLM

from iranker_verl.training import packed_attention

ROWS = [[5, 6, 7, 8, 3], [9, 10], [11, 12, 13, 14, 15, 16, 17], [4]]


def model(attention: str) -> Qwen2ForCausalLM:
    torch.manual_seed(1)
    return tiny_models.qwen2(40, attn_implementation=attention).eval()


def pack(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.tensor([[token for row in rows for token in row]]),
        "position_ids": torch.tensor([[position for row in rows for position in range(len(row))]]),
    }


def varlen(query, key, value, offsets, offsets_k, longest, longest_k, *, scale, **causal):
    """torch's varlen_attn, which has no CPU kernel, by a loop over rows."""
    assert offsets is offsets_k and offsets.dtype == torch.int32 and longest == longest_k == 7
    assert causal.pop("window_size", (-1, 0)) == (-1, 0) and all(causal.values())
    outputs = []
    for start, end in zip(offsets.tolist(), offsets.tolist()[1:], strict=False):
        row = [x[start:end].transpose(0, 1)[None] for x in (query, key, value)]
        output = torch.nn.functional.scaled_dot_product_attention(*row, is_causal=True, scale=scale, enable_gqa=True)
        outputs.append(output[0].transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("kernel", ["padded", "varlen", "varlen before grouped heads"])
def test_logits_and_gradients_of_packed_rows_are_those_of_each_row_alone(monkeypatch, kernel):
    if kernel != "padded":
        monkeypatch.setattr(packed_attention, "varlen_attn", varlen)
        monkeypatch.setattr(packed_attention, "_flash_takes", lambda query: True)
        if kernel != "varlen":
            monkeypatch.setattr(packed_attention, "_GROUPED", {})
    packed, alone = model("packed"), model("sdpa")
    found = packed(**pack(ROWS), use_cache=False).logits[0]
    expected = torch.cat([alone(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in ROWS])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, logits in ((packed, found), (alone, expected)):
        logits.log_softmax(-1)[:, 3].sum().backward()
        assert one.model.layers[0].self_attn.k_proj.weight.grad.abs().max() > 0
    for ours, theirs in zip(packed.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_a_rows_logits_do_not_depend_on_its_neighbours():
    packed = model("packed")
    before = packed(**pack(ROWS), use_cache=False).logits[0, 5:7]
    others = [[t + 1 for t in ROWS[0]], ROWS[1], [20, 21], [30] * 9]
    torch.testing.assert_close(packed(**pack(others), use_cache=False).logits[0, 5:7], before, rtol=1e-6, atol=1e-6)


def test_rows_that_are_padded_are_left_to_sdpa():
    """On the left too, as for generation, where a causal mask alone would let tokens see the padding."""
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    inputs = {
        "input_ids": ids,
        "attention_mask": (ids > 0).long(),
        "position_ids": torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]]),
    }
    found, expected = (model(name)(**inputs, use_cache=False).logits for name in ("packed", "sdpa"))
    torch.testing.assert_close(found[ids > 0], expected[ids > 0])
    alone = model("sdpa")(input_ids=torch.tensor([[5, 6]]), use_cache=False).logits[0]
    torch.testing.assert_close(found[0, 2:], alone, rtol=1e-5, atol=1e-5)


def test_rows_by_hand():
    rows = packed_attention.rows_of(torch.tensor([[0, 1, 2, 0, 0, 1]]))
    assert rows.offsets.tolist() == [0, 3, 4, 6] and rows.longest == 3
    assert rows.row.tolist() == [0, 0, 0, 1, 2, 2] and rows.column.tolist() == [0, 1, 2, 0, 0, 1]
    assert packed_attention.rows_of(torch.arange(5)[None]) is None


def test_a_sliding_window_is_refused():
    sliding = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    windowed = tiny_models.qwen2(40, attn_implementation="packed", **sliding)
    with pytest.raises(NotImplementedError, match="sliding window"):
        windowed(**pack(ROWS), use_cache=False)


def test_what_is_saved_does_not_name_the_attention(tmp_path):
    model("packed").save_pretrained(tmp_path)
    assert "packed" not in (tmp_path / "config.json").read_text()
    assert Qwen2ForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
