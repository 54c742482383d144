"""What the agent loops share: asking the policy for one answer, scoring it, and handing verl a row.

A loop plays a state machine of :mod:`iranker_verl.ranking` and returns a list of outputs, one a step, which
:mod:`iranker_verl.training.rollout` brings to the trainer. Every answer is scored by the recipe's reward function
(``reward.custom_reward_function``), against what its step has seen.

``extra_fields["shown"]`` holds the ids of the step's pool, in order, and ``extra_fields["step"]`` is what credit and metrics read of
a step. verl overwrites ``reward_extra_info`` with the last
row's, so that holds the metrics of the whole episode, equal in all its rows.

==============  ======================================================================================================
``expected``    what a random valid answer scores on average
``pool_size``   candidates shown
``pool``        16 hex digits that are equal where the same candidates are shown in the same order
``malformed``   1 where the answer is not one of the form asked for
``survived``    1 where the best candidate is still in after the exclusion; of a direct ranking, where it is not ranked last
``score``       the reward
``what_if``     in training by ``exclusion_expected``: what each label would have earned, and any other answer; otherwise empty
``parts``       all numbers that the reward function returned, by name
==============  ======================================================================================================
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.reward import get_custom_reward_fn

from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.ranking.templates import State, check_hash, load
from iranker_verl.training.credit import EXPECTED_ESTIMATOR
from iranker_verl.training.curriculum import FIRST_POOL, shortened


@dataclass(frozen=True)
class Answer:
    """What the policy was asked and what it said: the ids that are trained on, and the text that is only read."""

    prompt_ids: list[int]
    ids: list[int]
    log_probs: list[float] | None
    text: str
    extra_fields: dict[str, Any]


class RankingAgentLoop(AgentLoopBase):
    """The base of our agent loops. ValueError where the recipe has no reward function."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.template = load(self.config.iranker.template)
        self.chat = ChatEncoder(self.tokenizer, **self.apply_chat_template_kwargs)
        score = get_custom_reward_fn(self.config)
        if score is None:
            raise ValueError("set reward.custom_reward_function.path, e.g. pkg://reward_fns.exclusion")
        self.score = score
        self.looks_around = self.config.algorithm.adv_estimator == EXPECTED_ESTIMATOR

    def task_of(self, row: dict[str, Any]) -> RankingTask:
        """The task of a row of prepared data, shortened where the trainer's curriculum says so.

        UserError where it was prepared with another template.
        """
        info = row["extra_info"]
        where = f"training row of task {info['task_id']!r}"
        check_hash(self.template, info["template_id"], info["template_hash"], where)
        task = RankingTask.from_row(row)
        if (size := row.get(FIRST_POOL)) is None:
            return task
        return shortened(task, int(size), f"{self.config.iranker.seed}:{int(row['global_steps'])}")

    async def ask(self, state: State, sampling_params: dict[str, Any], priority: int) -> Answer:
        """The policy's answer to the state's present prompt, cut to the response limit."""
        # Not verl's ct_build_initial_tokens: there a text that holds <|im_end|> would end the turn.
        prompt_ids = await self.loop.run_in_executor(None, self.chat.encode, self.template.messages(state))
        prompt_ids = self._cap_text_prompt_length(prompt_ids)
        answer = await self.server_manager.generate(
            request_id=uuid4().hex, prompt_ids=prompt_ids, sampling_params=dict(sampling_params), priority=int(priority)
        )
        tokenizer: Any = self.tokenizer
        # Token in, token out: the ids that vLLM sampled are trained on; the text is only read.
        ids = list(answer.token_ids)[: self.rollout_config.response_length]
        log_probs = list(answer.log_probs)[: len(ids)] if answer.log_probs is not None else None
        if not ids:  # an aborted request; verl cannot train on an empty row
            ids, log_probs = [tokenizer.eos_token_id], [0.0] if log_probs is not None else None
        return Answer(prompt_ids, ids, log_probs, tokenizer.decode(ids, skip_special_tokens=True), answer.extra_fields)

    async def parts(self, row: Mapping[str, Any], text: str, truth: dict[str, Any]) -> dict[str, Any]:
        """The reward function's parts, for an answer to ``truth``'s pool; ``score`` alone where it returns a number. As verl
        does, it gets the row's ``extra_info``, and may be a coroutine function."""
        parts = self.score(
            data_source=row["data_source"], solution_str=text, ground_truth=truth, extra_info=dict(row["extra_info"])
        )
        if inspect.isawaitable(parts):
            parts = await parts
        return parts if isinstance(parts, dict) else {"score": float(parts)}

    def _cap_text_prompt_length(self, prompt_ids: list[int]) -> list[int]:
        """verl cuts the beginning off a long prompt with a warning; here it is an error (checked at preparation)."""
        if len(prompt_ids) > self.rollout_config.prompt_length:
            raise ValueError(
                f"a prompt of {len(prompt_ids)} tokens is longer than data.max_prompt_length="
                f"{self.rollout_config.prompt_length}; prepare the data again with shorter tasks, or raise the limit"
            )
        return prompt_ids


def output(
    answer: Answer,
    pool: Sequence[str],
    parts: Mapping[str, Any],
    *,
    expected: float,
    malformed: bool,
    survived: bool,
    what_if: Sequence[float] = (),
) -> AgentLoopOutput:
    """A step as verl's row. ``pool`` holds the ids shown, in order, ``parts`` what the reward function returned. Its episode's
    metrics are still to be added."""
    score = float(parts["score"])
    return AgentLoopOutput(
        prompt_ids=answer.prompt_ids,
        response_ids=answer.ids,
        response_mask=[1] * len(answer.ids),
        response_logprobs=answer.log_probs,
        reward_score=score,
        num_turns=2,
        metrics=AgentLoopMetrics(),
        extra_fields={
            **answer.extra_fields,
            "turn_scores": [],
            "tool_rewards": [],
            "shown": list(pool),
            "step": {
                "expected": expected,
                "pool_size": len(pool),
                "pool": hashlib.sha256("\0".join(pool).encode()).hexdigest()[:16],
                "malformed": float(malformed),
                "survived": float(survived),
                "what_if": list(what_if),
                "score": score,
                "parts": {name: float(value) for name, value in parts.items() if isinstance(value, int | float)},
            },
        },
    )
