"""The agent loop that plays elimination episodes: one prompt and one answer a step, each a training row of its own.

verl's rollout workers run one :class:`EliminationAgentLoop` an episode; :mod:`iranker_verl.training.rollout` brings it to
them and keeps its rewards.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register

from data_prep.schema import AGENT_NAME
from iranker_verl.ranking import Elimination
from iranker_verl.training.agent_base import RankingAgentLoop, output
from reward_fns.answers import label
from reward_fns.exclusion import relevance_of, worths


@register(AGENT_NAME)
class EliminationAgentLoop(RankingAgentLoop):
    """Plays one task to its end and returns one output a step; of a row that is one elimination state, one step.

    In training an episode ends as soon as nothing can be regretted any more (the positive is out): later steps carry no
    signal. In validation it is played out. A malformed answer never ends or shortens an episode in silence: it earns the
    reward function's worst reward, and :class:`~iranker_verl.ranking.Elimination` removes the last shown candidate.
    """

    async def run(  # type: ignore[override]  # verl takes a list as well (agent_loop_tq.py); its annotation does not say so
        self, sampling_params: dict[str, Any], priority: int = 0, **row: Any
    ) -> list[AgentLoopOutput]:
        info = row["extra_info"]
        task = self.task_of(row)
        state = Elimination(task)
        play_out = info["split"] != "train"
        most = 1 if info.get("row_kind") == "state" else len(task.candidates)
        outputs: list[AgentLoopOutput] = []
        while len(outputs) < most and not state.done and (play_out or not state.decided):
            outputs.append(await self._step(row, state, sampling_params, priority))
        metrics = episode_metrics(state)
        for step in outputs:
            step.extra_fields["reward_extra_info"] = metrics
        return outputs

    async def _step(
        self, row: dict[str, Any], state: Elimination, sampling_params: dict[str, Any], priority: int
    ) -> AgentLoopOutput:
        answer = await self.ask(state, sampling_params, priority)
        truth = state.ground_truth()
        parts = await self.parts(row, answer.text, truth)
        learns = self.looks_around and row["extra_info"]["split"] == "train"
        what_if = await self._what_if(row, truth) if learns else ()
        relevance = relevance_of(truth)[1]
        step = state.step(answer.text)
        return output(
            answer,
            step.pool,
            parts,
            expected=float(parts["expected"] if "expected" in parts else fmean(worths(relevance))),
            malformed=step.malformed,
            survived=relevance[step.pool.index(step.excluded)] < max(relevance),
            what_if=what_if,
        )

    async def _what_if(self, row: dict[str, Any], truth: dict[str, Any]) -> list[float]:
        """What each label would earn in the answer's place, in the order shown, and an answer that names none."""
        answers = [f"[{label(place)}]" for place in range(len(truth["candidates"]))] + [""]
        return [float((await self.parts(row, answer, truth))["score"]) for answer in answers]


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
