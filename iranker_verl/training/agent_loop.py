"""The agent loop: run one ranking episode with the policy, one prompt and one response a step, each a training row.

Iterative elimination (exclusion) and DRanker's whole ranking in one response (direct; arXiv 2506.21638) are the same loop
over the state machine of the recipe's template::

    state = template.start(task)
    while not state.done:
        response = policy(template.messages(state))
        reward = reward_function(response, state.ground_truth())
        state.step(response)

verl's rollout workers run one :class:`RankingAgentLoop` an episode. :mod:`iranker_verl.training.rollout` hands its steps, and
their rewards, to the trainer. What credit and metrics read of a step is its
:class:`~iranker_verl.training.step_record.StepRecord`, in ``extra_fields["step"]``. verl overwrites ``reward_extra_info`` with
that of the last step, so it holds the metrics of the whole episode, which are equal in all its steps.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register
from verl.trainer.ppo.reward import get_custom_reward_fn

from data_prep.schema import AGENTS
from iranker_verl.errors import UserError
from iranker_verl.ranking import DirectRanking, Elimination, RankingTask
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.ranking.label_tokens import label_tokens
from iranker_verl.ranking.templates import check_hash, load
from iranker_verl.training.credit import LABEL_ESTIMATORS, ORDER_ESTIMATOR
from iranker_verl.training.curriculum import FIRST_POOL, shortened
from iranker_verl.training.step_record import StepRecord
from reward_fns.answers import label
from reward_fns.exclusion import graded_values, relevance_of

# The kinds of templates that can be trained, each with its state machine.
State = Elimination | DirectRanking


@dataclass(frozen=True)
class Response:
    """One response of the policy: the token ids to train on, and texts of prompt and response, which are only read."""

    prompt: str
    prompt_ids: list[int]
    token_ids: list[int]
    log_probs: list[float] | None
    text: str
    extra_fields: dict[str, Any]


@register(AGENTS["episode"])
@register(AGENTS["direct"])
class RankingAgentLoop(AgentLoopBase):
    """Run one task to its end and return one output a step. A row that is one elimination state is one step.

    In training, an elimination ends as soon as the remaining candidates are equally good (the positive is out): later steps
    carry no signal. In validation it runs to its end. A malformed response earns the reward function's lowest reward, and the
    state machine decides what happens then; it never ends or shortens an episode.

    Raise ValueError where the recipe has no reward function.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Load the recipe's template and reward function."""
        super().__init__(*args, **kwargs)
        self.template = load(self.config.iranker.template)
        self.chat = ChatEncoder(self.tokenizer, **self.apply_chat_template_kwargs)
        score = get_custom_reward_fn(self.config)
        if score is None:
            raise ValueError("set reward.custom_reward_function.path, e.g. pkg://reward_fns.exclusion")
        self.score = score
        ordered = self.config.algorithm.adv_estimator == ORDER_ESTIMATOR
        self.one_call = self.config.iranker.one_call if ordered else 0.0
        self.branch, self.overlong = self.config.iranker.branch, self.config.iranker.credit.overlong
        self.needs_counterfactual_rewards = self.config.algorithm.adv_estimator in LABEL_ESTIMATORS
        # what every answer begins with, so that the first token of a response is its label's own
        self.answer_prefix = list(label_tokens(self.tokenizer, 2).prefix) if self.needs_counterfactual_rewards else []

    async def run(  # type: ignore[override]  # verl takes a list as well (agent_loop_tq.py); its annotation does not say so
        self, sampling_params: dict[str, Any], priority: int = 0, **row: Any
    ) -> list[AgentLoopOutput]:
        """Run the episode of a prepared ``row`` and return its steps as verl's outputs, in order."""
        info = row["extra_info"]
        training = info["split"] == "train"
        state = self._start(row)
        single = info.get("row_kind") == "state" or not isinstance(state, Elimination)
        one_call = training and not single and self._in_one_call(row)
        longest = 1 if single or one_call else len(state.task.candidates) - 1
        steps: list[tuple[Response, StepRecord]] = []
        # verl keeps an id's requests on one vLLM replica, which has the beginning of the prompt in its cache
        session = uuid4().hex
        while len(state.steps) < longest and not state.done and not (training and _is_decided(state)):
            steps += await self._step(row, state, session, sampling_params, priority)
        metrics = episode_metrics(state)
        ended: dict[str, Any] = {
            "reciprocal_rank": metrics["rr"],
            "calls": len(state.steps),
            "most_calls": longest * (self.branch if training else 1),
            "whole": not one_call or len(state.task.candidates) == 2,
        }
        outputs = [to_output(response, replace(record, **ended), metrics) for response, record in steps]
        if steps and self.config.iranker.credit.session_reward == "sum":
            outputs[-1].reward_score = sum(record.reward for _, record in steps)
        return outputs

    def _in_one_call(self, row: dict[str, Any]) -> bool:
        """Return whether the episode of a task, in all rollouts of an RL step, ends with its first call (``iranker.one_call``)."""
        task = row["extra_info"]["task_id"]
        return Random(f"{self.config.iranker.seed}:{row['global_steps']}:{task}:calls").random() < self.one_call

    def _start(self, row: dict[str, Any]) -> State:
        """Return the state before the first prompt, of a task that the trainer's curriculum may have shortened.

        Raise UserError where the row was prepared with another template, or for another kind of template.
        """
        info, template = row["extra_info"], self.template
        where = f"training row of task {info['task_id']!r}"
        check_hash(template, info["template_id"], info["template_hash"], where)
        kind = "direct" if info.get("row_kind") == "direct" else "exclusion"
        if template.kind != kind:
            raise UserError(
                f"{where} is for a template of kind {kind}, but template {template.id} is of kind {template.kind}; "
                "prepare the data again with iranker.data.options.rows for this template"
            )
        task = RankingTask.from_row(row)
        if (size := row.get(FIRST_POOL)) is not None:
            task = shortened(task, int(size), f"{self.config.iranker.seed}:{int(row['global_steps'])}")
        state = template.start(task)
        assert isinstance(state, State)
        return state

    async def _step(
        self, row: dict[str, Any], state: State, session: str, sampling_params: dict[str, Any], priority: int
    ) -> list[tuple[Response, StepRecord]]:
        """Request the responses to a state (``iranker.branch``) and score them; advance ``state`` by the first of them."""
        count = self.branch if row["extra_info"]["split"] == "train" else 1
        # Not verl's ct_build_initial_tokens: there a text that holds <|im_end|> would end the turn.
        prompt, ids = await self.loop.run_in_executor(None, self.chat.render, self.template.messages(state))
        ids = self._cap_text_prompt_length([*ids, *self.answer_prefix])
        responses = await asyncio.gather(
            *(self._generate(prompt, ids, session, sampling_params, priority) for _ in range(count))
        )
        records = [await self._record(row, deepcopy(state), response) for response in responses[1:]]
        return list(zip(responses, [await self._record(row, state, responses[0]), *records], strict=True))

    async def _record(self, row: dict[str, Any], state: State, response: Response) -> StepRecord:
        """Return the record of a response, by which ``state`` is advanced."""
        truth = state.ground_truth()
        parts = await self._reward(row, response.prompt, response.text, truth)
        counterfactual: tuple[float, ...] = ()
        if self.needs_counterfactual_rewards and row["extra_info"]["split"] == "train":
            counterfactual = await self._counterfactual_rewards(row, response.prompt, truth)
        relevance = dict(zip((c.id for c in state.pool), relevance_of(truth)[1], strict=True))
        expected = parts.get("expected")
        if expected is None:  # a reward function of a user's own
            expected = fmean(graded_values(list(relevance.values()))) if isinstance(state, Elimination) else 0.0
        step = state.step(response.text)
        lowest = state.steps[-1].excluded if isinstance(state, Elimination) else state.ranking()[-1]
        late = 0.0
        if self.overlong is not None and row["extra_info"]["split"] == "train":
            late = overlong_penalty(len(response.token_ids), self.rollout_config.response_length, self.overlong)
            parts = {**parts, "overlong": -late}
        return StepRecord(
            task=str(row["uid"]),
            session=f"{row['uid']}_{row['session_id']}",
            candidate_ids=step.pool,
            reward=float(parts["score"]) - late,
            expected_reward=float(expected),
            counterfactual_rewards=counterfactual,
            reward_parts={name: float(value) for name, value in parts.items() if isinstance(value, int | float)},
            malformed=step.malformed,
            positive_survived=relevance[lowest] < max(relevance.values()),
            dataset=str(row["data_source"]),
        )

    async def _generate(
        self, prompt: str, prompt_ids: list[int], session: str, sampling_params: dict[str, Any], priority: int
    ) -> Response:
        """Return the policy's response to a prompt, cut to the response limit."""
        answer = await self.server_manager.generate(
            request_id=session, prompt_ids=prompt_ids, sampling_params=dict(sampling_params), priority=int(priority)
        )
        tokenizer: Any = self.tokenizer
        # Token in, token out: train on the ids that vLLM sampled, and never on the text encoded again.
        ids = list(answer.token_ids)[: self.rollout_config.response_length]
        log_probs = list(answer.log_probs)[: len(ids)] if answer.log_probs is not None else None
        if not ids:  # an aborted request; verl cannot train on an empty row
            ids, log_probs = [tokenizer.eos_token_id], [0.0] if log_probs is not None else None
        text = tokenizer.decode([*self.answer_prefix, *ids], skip_special_tokens=True)
        return Response(prompt, prompt_ids, ids, log_probs, text, answer.extra_fields)

    async def _reward(self, row: Mapping[str, Any], prompt: str, text: str, truth: dict[str, Any]) -> dict[str, Any]:
        """Return the parts of the reward of a response, among them ``score``.

        As in verl, the function gets the row's ``extra_info``, may return one number, and may be a coroutine function. Beside
        verl's, ``extra_info["prompt"]`` is the text of the step's prompt.
        """
        info = {**row["extra_info"], "prompt": prompt}
        parts = self.score(data_source=row["data_source"], solution_str=text, ground_truth=truth, extra_info=info)
        if inspect.isawaitable(parts):
            parts = await parts
        return parts if isinstance(parts, dict) else {"score": float(parts)}

    async def _counterfactual_rewards(
        self, row: dict[str, Any], prompt: str, truth: dict[str, Any]
    ) -> tuple[float, ...]:
        """Return the reward of every label, in prompt order, and of a response that names no candidate: (N + 1,)."""
        responses = [f"[{label(index)}]" for index in range(len(truth["candidates"]))] + [""]
        return tuple([float((await self._reward(row, prompt, response, truth))["score"]) for response in responses])

    def _cap_text_prompt_length(self, prompt_ids: list[int]) -> list[int]:
        """Raise ValueError for a prompt that is too long; verl would cut off its beginning with a warning."""
        if len(prompt_ids) > self.rollout_config.prompt_length:
            raise ValueError(
                f"a prompt of {len(prompt_ids)} tokens is longer than data.max_prompt_length="
                f"{self.rollout_config.prompt_length}; prepare the data again with shorter tasks, or raise the limit"
            )
        return prompt_ids


def overlong_penalty(tokens: int, most: int, buffer: int) -> float:
    """Return the penalty on a response of this many tokens: 0 until ``most - buffer`` tokens, and 1 at ``most``, linearly.

    DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13). A response of ``most`` tokens is cut off, and its reasoning may have
    been right: without a warning on the way there it is noise to be punished for it.

    >>> [overlong_penalty(tokens, 1024, 256) for tokens in (700, 768, 896, 1024)]
    [0.0, 0.0, 0.5, 1.0]
    """
    return min(1.0, max(0.0, (tokens - most + buffer) / buffer))


def _is_decided(state: State) -> bool:
    return isinstance(state, Elimination) and state.decided


def to_output(response: Response, record: StepRecord, metrics: Mapping[str, float]) -> AgentLoopOutput:
    """Return a step as verl's row: its tokens, its reward, its record, and the ``metrics`` of its episode."""
    return AgentLoopOutput(
        prompt_ids=response.prompt_ids,
        response_ids=response.token_ids,
        response_mask=[1] * len(response.token_ids),
        response_logprobs=response.log_probs,
        reward_score=record.reward,
        num_turns=2,
        metrics=AgentLoopMetrics(),
        extra_fields={
            **response.extra_fields,
            "turn_scores": [],
            "tool_rewards": [],
            "step": record.to_dict(),
            "reward_extra_info": dict(metrics),
        },
    )


def episode_metrics(state: State) -> dict[str, float]:
    """Return the reciprocal rank of the best candidate, the share of malformed responses, and the number of LLM calls.

    Where an elimination ends early, the best candidate has just been excluded, so its rank is known. While it is still in
    (an unfinished pool of equals, or a single state), its rank is the pool's last.
    """
    best = state.task.candidates[state.task.target].id
    undecided = {c.id for c in state.pool} if isinstance(state, Elimination) else set[str]()
    rank = len(undecided) if best in undecided else state.ranking().index(best) + 1
    calls = len(state.steps)
    return {
        "rr": 1.0 / rank,
        "malformed_rate": sum(step.malformed for step in state.steps) / max(1, calls),
        "calls": float(calls),
    }
