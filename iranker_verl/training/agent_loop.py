"""The agent loop that plays elimination episodes: one prompt and one answer a step, each a training row of its own.

verl's rollout workers run one :class:`EliminationAgentLoop` an episode; :mod:`iranker_verl.training.rollout` brings it to
them and keeps its rewards. Every exclusion is scored by the recipe's reward function
(``reward.custom_reward_function``), against the pool that the step has seen.
"""

from __future__ import annotations

import hashlib
from statistics import fmean
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register
from verl.trainer.ppo.reward import get_custom_reward_fn

from data_prep.schema import AGENT_NAME
from iranker_verl.ranking import Elimination, RankingTask
from iranker_verl.ranking.templates import check_hash, load
from reward_fns.exclusion import relevance_of, worths


@register(AGENT_NAME)
class EliminationAgentLoop(AgentLoopBase):
    """Plays one task to its end and returns one output a step; of a row that is one elimination state, one step.

    In training an episode ends as soon as nothing can be regretted any more (the positive is out): later steps carry no
    signal. In validation it is played out. A malformed answer never ends or shortens an episode in silence: it earns the
    reward function's worst reward, and :class:`~iranker_verl.ranking.Elimination` removes the last shown candidate.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.template = load(self.config.iranker.template)
        score = get_custom_reward_fn(self.config)
        if score is None:
            raise ValueError("set reward.custom_reward_function.path, e.g. pkg://reward_fns.exclusion")
        self.score = score

    async def run(  # type: ignore[override]  # verl takes a list as well (agent_loop_tq.py); its annotation does not say so
        self, sampling_params: dict[str, Any], priority: int = 0, **row: Any
    ) -> list[AgentLoopOutput]:
        info = row["extra_info"]
        check_hash(
            self.template, info["template_id"], info["template_hash"], f"training row of task {info['task_id']!r}"
        )
        task = RankingTask.from_row(row)
        state = Elimination(task)
        play_out = info["split"] != "train"
        most = 1 if info.get("row_kind") == "state" else len(task.candidates)
        outputs: list[AgentLoopOutput] = []
        while len(outputs) < most and not state.done and (play_out or not state.decided):
            outputs.append(await self._step(state, sampling_params, priority))
        metrics = episode_metrics(state)
        for output in outputs:
            output.extra_fields["reward_extra_info"] = metrics
        return outputs

    def _cap_text_prompt_length(self, prompt_ids: list[int]) -> list[int]:
        """verl cuts the beginning off a long prompt with a warning; here it is an error (checked at preparation)."""
        if len(prompt_ids) > self.rollout_config.prompt_length:
            raise ValueError(
                f"a prompt of {len(prompt_ids)} tokens is longer than data.max_prompt_length="
                f"{self.rollout_config.prompt_length}; prepare the data again with shorter tasks, or raise the limit"
            )
        return prompt_ids

    async def _step(self, state: Elimination, sampling_params: dict[str, Any], priority: int) -> AgentLoopOutput:
        prompt_ids = await self.ct_build_initial_tokens(self.template.messages(state))
        answer = await self.server_manager.generate(
            request_id=uuid4().hex, prompt_ids=prompt_ids, sampling_params=dict(sampling_params), priority=int(priority)
        )
        tokenizer: Any = self.tokenizer
        # Token in, token out: the ids that vLLM sampled are trained on; the text is only read.
        ids = list(answer.token_ids)[: self.rollout_config.response_length]
        log_probs = list(answer.log_probs)[: len(ids)] if answer.log_probs is not None else None
        if not ids:  # an aborted request; verl cannot train on an empty row
            ids, log_probs = [tokenizer.eos_token_id], [0.0] if log_probs is not None else None
        text = tokenizer.decode(ids, skip_special_tokens=True)
        truth = state.ground_truth()
        parts = self.score(data_source=state.task.dataset, solution_str=text, ground_truth=truth, extra_info={})
        parts = parts if isinstance(parts, dict) else {"score": float(parts)}
        relevance = relevance_of(truth)[1]
        step = state.step(text)
        excluded = relevance[step.pool.index(step.excluded)]
        return AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=ids,
            response_mask=[1] * len(ids),
            response_logprobs=log_probs,
            reward_score=float(parts["score"]),
            num_turns=2,
            metrics=AgentLoopMetrics(),
            extra_fields={
                **answer.extra_fields,
                "turn_scores": [],
                "tool_rewards": [],
                # What belongs to this step. verl overwrites reward_extra_info with the last row's, so that holds the
                # episode's metrics, equal in all rows.
                "step": {
                    "expected": float(parts["expected"] if "expected" in parts else fmean(worths(relevance))),
                    "pool_size": len(step.pool),
                    "pool": hashlib.sha256("\0".join(step.pool).encode()).hexdigest()[:16],
                    "malformed": float(step.malformed),
                    "survived": float(excluded < max(relevance)),
                    "score": float(parts["score"]),
                },
            },
        )


def episode_metrics(state: Elimination) -> dict[str, float]:
    """Reciprocal rank of the best candidate, share of malformed answers, number of LLM calls.

    Where an episode ends early, the best candidate has just been excluded, so its rank is known; while it is still in
    (an unfinished pool of equals, or a single state) its rank is that of the pool's last place.
    """
    best = state.task.candidates[state.task.target].id
    alive = [c.id for c in state.pool]
    rank = len(alive) if best in alive else state.ranking().index(best) + 1
    calls = max(1, len(state.steps))
    return {
        "rr": 1.0 / rank,
        "malformed_rate": sum(s.malformed for s in state.steps) / calls,
        "calls": float(len(state.steps)),
    }
