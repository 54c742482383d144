"""transformers' own generation behind the engine's interface, one request at a time: what an exported model is checked with.

It needs no vLLM and is slow. Use :class:`iranker_verl.inference.engine.Engine` for anything else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.inference.engine import ChatTokenizer, Generation, Messages, check_model


class TransformersEngine:
    """A model folder, loaded as anyone would load it. Raise UserError where its weights are not those of its architecture."""

    def __init__(self, model: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        check_model(model)
        self.tokenizer = ChatTokenizer(model)
        load: Any = AutoModelForCausalLM.from_pretrained
        loaded, report = load(
            model, dtype="auto", trust_remote_code=False, local_files_only=True, output_loading_info=True
        )
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if report[kind]:
                raise UserError(
                    f"{model}: {len(report[kind])} {kind.replace('_', ' ')} of weights, e.g. {min(report[kind])}"
                )
        self._torch = torch
        self._model: Any = loaded.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    async def __aenter__(self) -> TransformersEngine:
        return self

    async def __aexit__(self, *_: object) -> None:
        del self._model

    async def ask(
        self, messages: Messages, max_new_tokens: int, temperature: float = 0.0, *, seed: int | None = None
    ) -> Generation:
        """Return the greedy answer to chat ``messages``. Raise ValueError for another temperature."""
        if temperature or seed is not None:
            raise ValueError("answers are greedy here")
        ids = self.tokenizer.encode(messages)
        prompt = self._torch.tensor([ids], device=self._model.device)
        mask = self._torch.ones_like(prompt)
        answer = self._model.generate(prompt, attention_mask=mask, do_sample=False, max_new_tokens=max_new_tokens)
        new = tuple(answer[0, len(ids) :].tolist())
        return Generation(self.tokenizer.decode(new), new, len(ids))

    async def rank_labels(self, messages: Messages, count: int) -> tuple[list[int], Generation]:
        """Return the indices of the first ``count`` labels, the likeliest answer first, and the one token that it cost."""
        labels = self.tokenizer.labels(count)
        ids = [*self.tokenizer.encode(messages), *labels.prefix]
        with self._torch.no_grad():
            logits = self._model(self._torch.tensor([ids], device=self._model.device)).logits[0, -1]
        found = logits[list(labels.ids)].tolist()
        order = sorted(range(count), key=lambda index: -found[index])
        return order, Generation("", (labels.ids[order[0]],), len(ids))
