"""verl's FSDP engine, with log-probabilities computed for the answer's tokens only, where rows are padded (no flash attention).

verl 0.9.1 then computes logits for every token of prompt and answer: for Qwen2.5's 152,000 words 10 GB in float32 for 16,384
tokens; and on a CPU log-probs by a Python loop over tokens (``verl.utils.torch_functional.logprobs_from_logits_v2``), which
took most of a small model's update. Nothing but the answer's tokens is ever read from the result (``response_from_nested``,
``no_padding_2_padding``), so the others stay zero here, and the language model's head is not even applied to them.

With ``exclusion_expected`` it is the place where all labels' log-probs are at hand.

Importing this module registers it, ``actor_rollout_ref.model.external_lib=iranker_verl.training.answer_engine``, and that chooses
it: of the engines of the device "cuda" (which the plug-in has verl look for on a CPU too) verl prefers one for the present
vendor.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from iranker_verl.training import credit

# a mean worth below this teaches nothing: its logarithm's gradient would be noise
SMALLEST = 1e-30


def answer_positions(lengths: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``(row, column)`` of every position whose logits predict a token of an answer.

    ``lengths``, ``answers``: (batch,), tokens of prompt and answer together, and of the answer. Row i's are its columns
    ``lengths[i] - answers[i] - 1`` to ``lengths[i] - 2``; both results have ``answers.sum()`` entries, row by row.
    """
    rows = torch.repeat_interleave(torch.arange(len(answers), device=answers.device), answers)
    within = torch.arange(len(rows), device=answers.device) - torch.repeat_interleave(
        answers.cumsum(0) - answers, answers
    )
    return rows, (lengths - answers - 1)[rows] + within


def log_expected(log_probs: torch.Tensor, tokens: torch.Tensor, worths: torch.Tensor) -> torch.Tensor:
    """(batch,): the logarithm of an answer's mean worth under the policy (:mod:`iranker_verl.training.credit.expected`).

    ``log_probs``: (batch, words), of the answer's first token; ``tokens``, ``worths``: (batch, most), where the entry of the token
    ``REST`` counts for all words that are not listed; entries after it are padding, of worth 0.
    """
    listed = tokens != credit.REST
    odds = log_probs.gather(1, tokens.clamp(min=0)).exp() * listed
    rest = (worths * ~listed).sum(1)
    mean = (odds * worths).sum(1) + (1 - odds.sum(1)).clamp(min=0) * rest
    return mean.clamp(min=SMALLEST).log()


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["cpu", "nvidia"]
)
class AnswerOnlyEngine(FSDPEngineWithLMHead):
    """Actor and reference policy. Falls back on verl's own where an option asks for more than log-probs and entropy."""

    _answers: tuple[torch.Tensor, torch.Tensor] | None = None  # rows and columns of the micro-batch under way

    def initialize(self) -> None:
        super().initialize()
        self.watch_head()

    def watch_head(self) -> None:
        """Have the language model's head see the hidden states that predict answers, (1, answers, hidden), in place of all.

        A hook, since ``logits_to_keep`` keeps the same columns of every row: of prompts of different lengths, most of them.
        """

        def only_answers(_: torch.nn.Module, hidden: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor] | None:
            return None if self._answers is None else (hidden[0][self._answers][None],)

        self.module.get_output_embeddings().register_forward_pre_hook(only_answers)

    @staticmethod
    def _plain(micro_batch: TensorDict) -> bool:
        options = ("use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk", "distillation_only")
        asked = [tu.get_non_tensor_data(data=micro_batch, key=key, default=False) for key in options]
        packed = tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True)
        return not packed and not any(asked) and "responses" in micro_batch

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        inputs, arguments = super().prepare_model_inputs(micro_batch)
        self._answers = None
        if self._plain(micro_batch):
            lengths = micro_batch["input_ids"].offsets().diff()
            self._answers = rows, columns = answer_positions(lengths, micro_batch["responses"].offsets().diff())
            arguments |= {"rows": rows, "columns": columns, "padded_ids": inputs["input_ids"]}
        return inputs, arguments

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        if "rows" not in output_args:
            if credit.WHAT_IF_WORTHS in micro_batch:
                raise RuntimeError(
                    "exclusion_expected needs this engine's own log-probs, and an option (fused kernels, distillation, packed "
                    "rows) asks for verl's; turn it off, or take exclusion_grpo"
                )
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        self._answers = None
        rows, columns = output_args["rows"], output_args["columns"]
        offsets = micro_batch["input_ids"].offsets()
        logits = output.logits[0].float()
        log_probs = torch.log_softmax(logits / output_args["temperature"][rows, None], dim=-1)
        labels = output_args["padded_ids"][rows, columns + 1]
        chosen = log_probs.gather(1, labels[:, None])[:, 0]
        if credit.WHAT_IF_WORTHS in micro_batch:
            first = micro_batch["responses"].offsets()[:-1]
            expected = log_expected(
                log_probs[first],
                micro_batch[credit.WHAT_IF_TOKENS].to_padded_tensor(credit.REST),
                micro_batch[credit.WHAT_IF_WORTHS].to_padded_tensor(0.0),
            )
            # verl's loss is -advantage * exp(log_prob - old_log_prob), and the trainer gives this token the advantage 1 (times
            # the session's weight): a ratio of 1 whose gradient is that of the logarithm of the mean worth
            old = micro_batch["old_log_probs"].values()[first]
            chosen = chosen.index_put((first,), old + expected - expected.detach())
        results = {"log_probs": chosen}
        if tu.get_non_tensor_data(data=micro_batch, key="calculate_entropy", default=False):
            results["entropy"] = -(log_probs.exp() * log_probs).sum(-1)
        places = offsets[rows] + columns
        total = int(offsets[-1])
        return {
            name: torch.nested.nested_tensor_from_jagged(values.new_zeros(total).scatter(0, places, values), offsets)
            for name, values in results.items()
        }
