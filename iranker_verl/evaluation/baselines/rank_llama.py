"""RankLLaMA (Ma et al., arXiv 2310.08319): a linear head over an LLM's last token of ``query: q document: d</s>``.

The folder may hold

- a causal LM (Llama, Qwen, …): LoRA adapters on all linear layers and the head are trained on the training passage
  tasks, with the softmax over a task's passages (the paper's loss);
- a sequence classifier with one score, which is not trained;
- a LoRA adapter of such a classifier (as the published castorini/rankllama-v1-7b-lora-passage), which is merged into its
  base model, named in its configuration, and not trained.

There is no default, because these models are large. Weights are float32 on a CPU, elsewhere bfloat16 with the trained part
in float32. A pair has at most 512 tokens, or the model's limit; a longer passage loses its end, and the end token stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from iranker_verl.evaluation.baselines import loading
from iranker_verl.evaluation.baselines.fitting import FineTuning
from iranker_verl.evaluation.baselines.pointwise import Features, Pointwise
from iranker_verl.ranking import RankingTask


class RankLlama(Pointwise):
    """An LLM with a scoring head. Passages."""

    name = "rankllama"
    settings: FineTuning = FineTuning(epochs=3, rate=1e-4)

    def load(self, train: Sequence[RankingTask]) -> None:
        """Load the model, and fine-tune it where it is a causal LM."""
        folder = loading.find_model(self.context, self.name)
        with loading.unavailable_on_error(self.name, folder), loading.seeded(self.context.seed, self.context.device):
            from transformers import AutoConfig

            adapter = (folder / "adapter_config.json").is_file()
            base = self._base_of(folder) if adapter else folder
            own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))
            self.tokenizer = loading.load_tokenizer(folder if own else base)
            if self.tokenizer.eos_token_id is None:
                raise ValueError("its tokenizer has no end token, over which the score is read")
            config = AutoConfig.from_pretrained(str(base), local_files_only=True, trust_remote_code=False)
            kind = (config.architectures or [""])[0]
            headless = not kind.endswith("ForSequenceClassification")
            if headless and not kind.endswith("ForCausalLM"):
                raise ValueError(f"it holds a {kind or 'model of no named kind'}: no causal LM and no classifier")
            model = self._classifier(base, headless)
            if adapter:
                model = _merged(model, folder, headless)
            elif headless:
                model = _with_lora(model)
            self.model = model.to(self.context.device)
            self.limit = loading.max_tokens(self.model, self.tokenizer)
        if headless and not adapter:
            self.fine_tune(train)

    def encode(self, query: str, passage: str) -> tuple[Features, bool]:
        """Return the tokens of query, passage and the end token, and whether the passage was cut."""
        self.room(query, len(self._ids(f"query: {query} document:")) + 1)
        ids = self._ids(f"query: {query} document: {passage}")
        return {"input_ids": [*ids[: self.limit - 1], self.tokenizer.eos_token_id]}, len(ids) >= self.limit

    def scores_of(self, batch: dict[str, Any]) -> Any:
        """Return the head's scores at the end token."""
        half = self._dtype() is torch.bfloat16
        with torch.autocast(torch.device(self.context.device).type, dtype=torch.bfloat16, enabled=half):
            return self.model(**batch, use_cache=False).logits[:, 0]

    def _dtype(self) -> torch.dtype:
        return torch.float32 if self.context.device == "cpu" else torch.bfloat16

    def _ids(self, text: str) -> list[int]:
        ids = list(self.tokenizer(text, truncation=False, verbose=False)["input_ids"])
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids  # some add an end token

    def _base_of(self, folder: Path) -> Path:
        from peft import PeftConfig

        base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
        if not base:
            raise ValueError("its adapter_config.json names no base model")
        return loading.resolve_model(str(base), self.name, self.context.log)

    def _classifier(self, folder: Path, headless: bool) -> Any:
        from transformers import AutoModelForSequenceClassification

        head: dict[str, Any] = {"fresh": ("score",), "num_labels": 1} if headless else {}
        model = loading.load_weights(AutoModelForSequenceClassification, folder, dtype=self._dtype(), **head)
        if model.config.num_labels != 1:
            raise ValueError(f"it gives {model.config.num_labels} scores a text; one is needed")
        # The head reads the last token that is not padding, so the end token must not be the padding token too (as it
        # is in many LLMs). Any other token will do: causal attention never reads behind the end.
        self.pad = int(self.tokenizer.eos_token_id == 0)
        model.config.get_text_config().pad_token_id = self.pad
        return model


def _merged(model: Any, adapter: Path, headless: bool) -> Any:
    """Return the model with the adapter's weights in its own. Raise ValueError where neither it nor the adapter has a head."""
    from peft import PeftModel

    before = model.score.weight.detach().clone()
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    if headless and before.equal(merged.score.weight):
        raise ValueError("this adapter has no weights for the score's head; save it with modules_to_save=['score']")
    return merged


def _with_lora(model: Any) -> Any:
    """Trainable: rank-32 adapters on all linear layers, and the head. The other weights stay as they are."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=32, lora_alpha=64, lora_dropout=0.1, target_modules="all-linear", task_type="SEQ_CLS")
    adapted = get_peft_model(model, config)
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()  # steps of 1e-4 vanish in bfloat16
    return adapted
