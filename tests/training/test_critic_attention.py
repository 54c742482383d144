"""A critic without the package flash_attn; with it, nothing is changed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

from iranker_verl.training import critic_attention


@pytest.mark.parametrize("installed", [False, True])
def test_the_critic_asks_for_flash_attention_only_where_it_is_installed(monkeypatch, installed):
    import transformers

    auto = transformers.AutoModelForTokenClassification
    seen = []
    monkeypatch.setattr(auto, "from_pretrained", classmethod(lambda cls, *a, **k: seen.append((cls, a, k)) or "model"))
    monkeypatch.setattr(critic_attention, "find_spec", lambda name: name if installed else None)
    critic_attention.apply()
    critic_attention.apply()  # a second time changes nothing more
    assert auto.from_pretrained("path", attn_implementation="flash_attention_2", torch_dtype="x") == "model"
    auto.from_pretrained("path", attn_implementation="eager")
    auto.from_pretrained("path")
    named = SimpleNamespace(_attn_implementation="packed")
    auto.from_pretrained("path", config=named, attn_implementation="flash_attention_2")
    wanted = "flash_attention_2" if installed else "sdpa"
    assert seen == [
        (auto, ("path",), {"attn_implementation": wanted, "torch_dtype": "x"}),
        (auto, ("path",), {"attn_implementation": "eager"}),
        (auto, ("path",), {}),
        (auto, ("path",), {"config": named, "attn_implementation": "flash_attention_2" if installed else "packed"}),
    ]
