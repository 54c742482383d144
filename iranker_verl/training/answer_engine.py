"""verl's FSDP engine with the log-probs of response tokens only, of packed rows and of padded ones.

verl 0.9.1 computes logits for every token of prompt and response: for Qwen2.5's vocabulary of 152,000, 10 GB in float32 for
16,384 tokens. On a CPU it computes log-probs by a Python loop over tokens (``verl.utils.torch_functional.logprobs_from_logits_v2``),
most of a small model's update. Only the response tokens are ever read from the result (``response_from_nested``,
``no_padding_2_padding``), so the others stay 0 here, and the language model's head is not applied to them.

For ``exclusion_expected`` and ``exclusion_order`` it is the only place with the log-probs of all labels (:mod:`iranker_verl.training.policy_loss`).

Importing this module, ``actor_rollout_ref.model.external_lib=iranker_verl.training.answer_engine``, registers the engine and so
chooses it: of the engines of the device "cuda" (which the plug-in has verl look for on a CPU too) verl prefers one for the
present vendor. It also registers :mod:`iranker_verl.training.packed_attention`, and has checkpoints of another number of ranks
load (:mod:`iranker_verl.training.resharding`).
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from iranker_verl.training import packed_attention as _packed_attention  # noqa: F401 (registers it)
from iranker_verl.training import policy_loss
from iranker_verl.training import resharding as _resharding  # noqa: F401
from iranker_verl.training.optimizer_steps import COMPUTED_TOKENS


def answer_positions(lengths: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(row, column)`` of every position whose logits predict a response token.

    ``lengths``, ``answers``: (batch,), tokens of prompt and response together, and of the response. Row i's are its columns
    ``lengths[i] - answers[i] - 1`` to ``lengths[i] - 2``; both results have ``answers.sum()`` entries, row by row.
    """
    rows = torch.repeat_interleave(torch.arange(len(answers), device=answers.device), answers)
    within = torch.arange(len(rows), device=answers.device) - torch.repeat_interleave(
        answers.cumsum(0) - answers, answers
    )
    return rows, (lengths - answers - 1)[rows] + within


def temperatures(micro_batch: TensorDict) -> torch.Tensor:
    """Return the temperature of each row, (batch,)."""
    ids = micro_batch["input_ids"].values()
    given = torch.as_tensor(micro_batch["temperature"], dtype=torch.float32, device=ids.device)
    return given.expand(len(micro_batch))


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["cpu", "nvidia"]
)
class AnswerOnlyEngine(FSDPEngineWithLMHead):
    """Engine of actor and reference policy; verl's own where an option needs more than log-probs and entropy."""

    _answers: tuple[torch.Tensor, torch.Tensor] | None = None  # rows and columns of the present micro-batch
    _computed_tokens = 0  # of the present micro-batch, padding included
    use_ulysses_sp = False  # verl sets it

    def initialize(self) -> None:
        """Build the model as verl does, and hook its head."""
        super().initialize()
        self.forget_attention()
        self.hook_head()

    def forget_attention(self) -> None:
        """Keep the name of the attention out of saved configurations: verl writes it there, and other programs do not have ours."""
        vars(self.module.config).pop("attn_implementation", None)

    def hook_head(self) -> None:
        """Give the language model's head the hidden states that predict responses, (1, tokens, hidden), in place of all.

        A hook, since ``logits_to_keep`` keeps the same columns of every row: of prompts of different lengths, most of them.
        """

        def only_answers(_: torch.nn.Module, hidden: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor] | None:
            return None if self._answers is None else (hidden[0][self._answers][None],)

        self.module.get_output_embeddings().register_forward_pre_hook(only_answers)

    def _is_plain(self, micro_batch: TensorDict) -> bool:
        options = ("use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk", "distillation_only")
        others = [tu.get_non_tensor_data(data=micro_batch, key=key, default=False) for key in options]
        return not self.use_ulysses_sp and not any(others) and "responses" in micro_batch

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return verl's model inputs and output arguments, and with the latter the positions of the responses."""
        inputs, arguments = super().prepare_model_inputs(micro_batch)
        self._answers, self._computed_tokens = None, inputs["input_ids"].numel()
        if self._is_plain(micro_batch):
            offsets = micro_batch["input_ids"].offsets()
            rows, columns = answer_positions(offsets.diff(), micro_batch["responses"].offsets().diff())
            positions = offsets[rows] + columns  # in the packed row
            packed = tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True)
            self._answers = (torch.zeros_like(rows), positions) if packed else (rows, columns)
            arguments |= {"rows": rows, "positions": positions, "temperature": temperatures(micro_batch)}
        return inputs, arguments

    def forward_step(
        self, micro_batch: TensorDict, loss_function: Any, forward_only: bool
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return verl's loss and output; in training with the tokens that the model has computed, padding included."""
        loss, output = super().forward_step(micro_batch, loss_function, forward_only)
        if not forward_only:
            output["metrics"][COMPUTED_TOKENS] = self._computed_tokens
        return loss, output

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """Return jagged ``log_probs`` and ``entropy`` (where it is requested) of all tokens, 0 outside the responses.

        Raise RuntimeError where ``exclusion_expected`` or ``exclusion_order`` meets an option that needs verl's own log-probs.
        """
        if "rows" not in output_args:
            if policy_loss.LABEL_TOKENS in micro_batch:
                raise RuntimeError(
                    "exclusion_expected and exclusion_order need this engine's own log-probs, and an option (fused kernels, distillation, "
                    "sequence parallelism) needs verl's; turn it off, or take exclusion_grpo"
                )
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        self._answers = None
        rows, positions = output_args["rows"], output_args["positions"]
        ids, offsets = micro_batch["input_ids"].values(), micro_batch["input_ids"].offsets()
        logits = output.logits[0].float()
        log_probs = torch.log_softmax(logits / output_args["temperature"][rows, None], dim=-1)
        sampled = log_probs.gather(1, ids[positions + 1][:, None])[:, 0]
        results = {"log_probs": policy_loss.substitute_log_probs(sampled, log_probs, micro_batch)}
        if tu.get_non_tensor_data(data=micro_batch, key="calculate_entropy", default=False):
            results["entropy"] = -(log_probs.exp() * log_probs).sum(-1)
        return {
            name: torch.nested.nested_tensor_from_jagged(
                values.new_zeros(len(ids)).scatter(0, positions, values), offsets
            )
            for name, values in results.items()
        }
