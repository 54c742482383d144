"""The agent loop of DRanker, IRanker's one-shot baseline (arXiv 2506.21638): one prompt, the whole ranking in one answer.

It plays rows of the kind ``direct`` (``iranker.data.options.rows=direct``, a template of the kind ``direct``) and is scored
by the recipe's reward function, e.g. ``reward.custom_reward_function.path=pkg://reward_fns.direct``. To the trainer a
direct ranking is an episode of one step, in a pool of all candidates.
"""

from __future__ import annotations

from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register

from data_prep.schema import AGENTS
from iranker_verl.ranking.direct import DirectRanking
from iranker_verl.training.agent_base import RankingAgentLoop, output


@register(AGENTS["direct"])
class DirectAgentLoop(RankingAgentLoop):
    """Asks for one ranking and returns one output, in training and in validation alike.

    Of the step's fields (:mod:`iranker_verl.training.agent_base`), ``expected`` is what the reward function says that a
    random ranking scores, 0 where it does not say; ``pool`` and ``pool_size`` are of all candidates, so that the rollouts
    of a task are one group; ``survived`` is whether the best candidate is not ranked last, since last place is what an
    elimination gives to its first exclusion from that pool; ``malformed`` is anything but every candidate once, which is
    what evaluation counts too.
    """

    async def run(  # type: ignore[override]  # verl takes a list as well (agent_loop_tq.py); its annotation does not say so
        self, sampling_params: dict[str, Any], priority: int = 0, **row: Any
    ) -> list[AgentLoopOutput]:
        state = DirectRanking(self.task_of(row))
        answer = await self.ask(state, sampling_params, priority)
        parts = await self.parts(row, answer.text, state.ground_truth())
        step = state.step(answer.text)
        relevance = dict(zip(step.pool, state.task.relevance, strict=True))
        ranked = output(
            answer,
            step.pool,
            parts,
            expected=float(parts.get("expected", 0.0)),
            malformed=step.malformed,
            survived=relevance[state.ranking()[-1]] < max(relevance.values()),
        )
        ranked.extra_fields["reward_extra_info"] = ranking_metrics(state)
        return [ranked]


def ranking_metrics(state: DirectRanking) -> dict[str, float]:
    """Reciprocal rank of the best candidate, share of malformed answers, number of LLM calls; as of an elimination."""
    best = state.task.candidates[state.task.target].id
    return {
        "rr": 1.0 / (state.ranking().index(best) + 1),
        "malformed_rate": float(any(step.malformed for step in state.steps)),
        "calls": float(len(state.steps)),
    }
