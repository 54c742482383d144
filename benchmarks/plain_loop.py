"""Learning to exclude by labels in plain torch on one CPU thread, without Ray and vLLM: the policy, its episodes, losses and steps.

Used by :mod:`benchmarks.learning_objectives`. Batches, optimiser steps and losses are those of ``recipes/tiny_cpu``. Decoding is
constrained to the labels of the prompt, for every way to learn and in every evaluation.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from iranker_verl.ranking import Elimination, RankingTask, by_dataset
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.ranking.elimination import Share, leaving
from iranker_verl.ranking.label_tokens import label_tokens
from iranker_verl.ranking.templates import load
from iranker_verl.training import credit, policy_loss
from iranker_verl.training.plackett_luce import draw_order
from iranker_verl.training.step_record import StepRecord

TEMPLATE = load("label")
LARGEST = 9  # candidates of a task
FORWARD = 128  # prompts of a forward pass without gradients
CLIP = 0.2  # of the ratio of sampled exclusions' probabilities, as PPO


@dataclass(frozen=True)
class Call:
    """One prompt of an episode, and the candidate that was excluded first.

    ``excluded`` and ``positive`` are indices of the ``size`` candidates; ``log_prob`` is that of ``excluded`` among the labels when it
    was drawn, and ``advantage`` what a sampled exclusion is paid.
    """

    task: RankingTask
    session: str
    ids: list[int]
    size: int
    positive: int
    most_calls: int
    excluded: int = 0
    log_prob: float = 0.0
    advantage: float = 0.0

    @property
    def record(self) -> StepRecord:
        """Return what losses and weights read of it, with the published reward."""
        rewards = tuple(float(i != self.positive) for i in range(self.size))
        names = tuple(str(i) for i in range(self.size))
        return StepRecord(self.task.id, self.session, names, 0.0, 0.0, (*rewards, -0.5), most_calls=self.most_calls)


class Policy:
    """A model that answers with a label."""

    def __init__(self, base: Path, weights: Path | None = None) -> None:
        """Load the tokenizer of a base, and its weights or others."""
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
        self.model: Any = AutoModelForCausalLM.from_pretrained(weights or base, dtype=torch.float32)
        self.chat = ChatEncoder(self.tokenizer)
        self.labels = torch.tensor(label_tokens(self.tokenizer, LARGEST).ids)

    def log_probs(self, prompts: Sequence[list[int]]) -> torch.Tensor:
        """Return the log-probs of the first token of the responses, (prompts, vocabulary)."""
        width = max(map(len, prompts))
        ids = torch.tensor([p + [0] * (width - len(p)) for p in prompts])  # padded behind, which attention does not see
        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        last = torch.tensor([len(p) - 1 for p in prompts])
        return torch.log_softmax(self.model.lm_head(hidden[torch.arange(len(last)), last]).float(), dim=-1)

    @torch.no_grad()
    def orders(self, prompts: Sequence[list[int]], sizes: Sequence[int], greedy: bool) -> list[tuple[list[int], float]]:
        """Return an order of exclusion for each prompt, greedy or drawn without replacement, and the log-prob of its first."""
        found: list[tuple[list[int], float]] = [([], 0.0)] * len(prompts)
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for first in range(0, len(by_length), FORWARD):
            rows = by_length[first : first + FORWARD]
            scores = among_labels(self.log_probs([prompts[i] for i in rows])[:, self.labels], [sizes[i] for i in rows])
            order = scores.argsort(dim=1, descending=True) if greedy else draw_order(scores, scores > -torch.inf)
            firsts = scores.gather(1, order[:, :1])[:, 0].tolist()
            for row, ranks, log_prob in zip(rows, order.tolist(), firsts, strict=True):
                found[row] = ranks[: sizes[row]], log_prob
        return found

    def prompt(self, state: Elimination) -> list[int]:
        """Return the prompt's tokens."""
        return self.chat.encode(TEMPLATE.messages(state))

    def episodes(
        self, tasks: Sequence[RankingTask], schedules: Sequence[int | Share], *, greedy: bool
    ) -> tuple[list[float], list[Call]]:
        """Run an episode of each task; return the reciprocal ranks and the calls.

        ``schedules`` say how many candidates leave a call of each. Sampled episodes end where the positive leaves.
        """
        states = [Elimination(task, per_call=each) for task, each in zip(tasks, schedules, strict=True)]
        calls: list[Call] = []
        while live := [i for i, s in enumerate(states) if not (s.done or (s.decided and not greedy))]:
            asked = [call(self, states[i], i) for i in live]
            orders = self.orders([c.ids for c in asked], [c.size for c in asked], greedy)
            for i, one, (order, log_prob) in zip(live, asked, orders, strict=True):
                calls.append(replace(one, excluded=order[0], log_prob=log_prob))
                states[i].step(TEMPLATE.answer_for(states[i], *order[: states[i].leaving]))
        return [1 / (s.ranking().index(s.task.candidates[s.task.target].id) + 1) for s in states], calls


def call(policy: Policy, state: Elimination, session: int) -> Call:
    """Return the next call of an episode."""
    truth = state.ground_truth()
    most = most_calls(len(state.task.candidates), state.per_call)
    return Call(state.task, str(session), policy.prompt(state), len(truth["candidates"]), truth["target"], most)


def most_calls(size: int, per_call: int | Share) -> int:
    """Return the calls that an episode of ``size`` candidates takes to its end."""
    calls = 0
    while size > 1:
        size -= leaving(size, per_call)
        calls += 1
    return calls


def few(size: int) -> int:
    """Return how many candidates leave a call, for at most .35 (N - 1) calls, or one where that is less.

    >>> [(size, few(size), most_calls(size, few(size))) for size in (5, 6, 7, 9)]
    [(5, 4, 1), (6, 5, 1), (7, 3, 2), (9, 4, 2)]
    """
    return -(-(size - 1) // max(1, int(0.35 * (size - 1))))


def worked(
    policy: Policy, tasks: Sequence[RankingTask], schedules: Sequence[int | Share], rng: random.Random
) -> list[Call]:
    """Return the calls of worked eliminations, which exclude any but the positive, uniformly at random."""
    calls = []
    for number, (task, schedule) in enumerate(zip(tasks, schedules, strict=True)):
        state = Elimination(task, per_call=schedule)
        while not state.done:
            one = call(policy, state, number)
            chosen = rng.sample([i for i in range(one.size) if i != one.positive], state.leaving)
            calls.append(replace(one, excluded=chosen[0]))
            state.step(TEMPLATE.answer_for(state, *chosen))
    return calls


def paid(calls: Sequence[Call], rr: Sequence[float], rollouts: int) -> list[Call]:
    """Return the calls with GRPO's advantage: the session's reciprocal rank against its task's ``rollouts`` sessions.

    Sessions of a task stand one after the other. Divided by their standard deviation (population), where there is one.
    """
    advantages = []
    for first in range(0, len(rr), rollouts):
        group = rr[first : first + rollouts]
        mean, spread = fmean(group), pstdev(group)
        advantages += [(value - mean) / spread if spread > credit.MIN_SPREAD else 0.0 for value in group]
    return [replace(c, advantage=advantages[int(c.session)]) for c in calls]


def among_labels(scores: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return log-probs of labels, (prompts, labels), of those of each prompt's candidates alone; -inf for the others."""
    valid = torch.arange(scores.shape[1]) < torch.tensor(sizes)[:, None]
    return scores.masked_fill(~valid, -torch.inf).log_softmax(1)


Objective = Callable[[torch.Tensor, Sequence[Call], Policy], torch.Tensor]


def estimator(name: str, log_value: Callable[..., torch.Tensor], values: str) -> Objective:
    """Return the objective of an estimator over labels (:mod:`iranker_verl.training.policy_loss`)."""

    def objective(log_probs: torch.Tensor, calls: Sequence[Call], policy: Policy) -> torch.Tensor:
        fields = policy_loss.label_fields([c.record for c in calls], policy.tokenizer, name)
        tokens = fields[policy_loss.LABEL_TOKENS].to_padded_tensor(policy_loss.ANY_OTHER)
        return log_value(log_probs, tokens, fields[values].to_padded_tensor(0.0))

    return objective


def clipped(log_probs: torch.Tensor, calls: Sequence[Call], policy: Policy) -> torch.Tensor:
    """Return PPO's clipped objective of each sampled exclusion: (calls,)."""
    scores = among_labels(log_probs[:, policy.labels], [c.size for c in calls])
    chosen = scores.gather(1, torch.tensor([[c.excluded] for c in calls]))[:, 0]
    ratio = (chosen - torch.tensor([c.log_prob for c in calls])).exp()
    advantage = torch.tensor([c.advantage for c in calls])
    return torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)


def log_best(log_probs: torch.Tensor, calls: Sequence[Call], policy: Policy) -> torch.Tensor:
    """Return the log-likelihood of the positive as the label that is excluded last, log softmax(-z), and of any label: (calls,)."""
    scores = log_probs[:, policy.labels]
    valid = torch.arange(scores.shape[1]) < torch.tensor([c.size for c in calls])[:, None]
    best = (-scores).masked_fill(~valid, -torch.inf).log_softmax(1)
    formed = scores.masked_fill(~valid, -torch.inf).logsumexp(1)
    return best.gather(1, torch.tensor([[c.positive] for c in calls]))[:, 0] + formed


def log_worked(log_probs: torch.Tensor, calls: Sequence[Call], policy: Policy) -> torch.Tensor:
    """Return the log-likelihood of the worked exclusion's label: (calls,)."""
    return log_probs.gather(1, policy.labels[[c.excluded for c in calls]][:, None])[:, 0]


OBJECTIVES: dict[str, Objective] = {
    "expected": estimator(credit.EXPECTED_ESTIMATOR, policy_loss.log_mean_value, policy_loss.LABEL_VALUES),
    "order": estimator(credit.ORDER_ESTIMATOR, policy_loss.log_order_value, policy_loss.LABEL_GAINS),
    "grpo": clipped,
    "best": log_best,
    "worked": log_worked,
}


def update(
    policy: Policy,
    optimizer: Any,
    calls: Sequence[Call],
    objective: str,
    epochs: int,
    steps: int,
    rng: random.Random,
) -> None:
    """Take the optimiser steps of a batch: ``steps`` in each of ``epochs``."""
    rows = list(zip(calls, credit.row_weights([c.record for c in calls]).tolist(), strict=True))
    for _ in range(epochs):
        rng.shuffle(rows)
        for part in range(steps):
            mine = sorted(rows[part::steps], key=lambda row: len(row[0].ids))
            middle = -(-len(mine) // 2)
            for group in (mine[:middle], mine[middle:]):  # of similar length
                if group:
                    some = [one for one, _ in group]
                    values = OBJECTIVES[objective](policy.log_probs([c.ids for c in some]), some, policy)
                    loss = -(values * torch.tensor([weight for _, weight in group])).sum() / len(mine)
                    loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def evaluate(policy: Policy, tasks: Sequence[RankingTask]) -> dict[str, float]:
    """Return greedy macro MRR: excluding one a call, in at most .35 (N - 1) calls, and in one call; ``calls`` of the second, a task."""
    schedules: dict[str, list[int | Share]] = {
        "each": [1] * len(tasks),
        "few": [few(len(task.candidates)) for task in tasks],
        "once": ["all"] * len(tasks),
    }
    found = {}
    for name, own in schedules.items():
        rr, calls = policy.episodes(tasks, own, greedy=True)
        by: dict[str, list[float]] = defaultdict(list)
        for task, value in zip(tasks, rr, strict=True):
            by[task.dataset].append(value)
        found[name] = round(fmean(fmean(values) for values in by.values()), 4)
        if name == "few":
            found["calls"] = round(len(calls) / len(tasks), 2)
    return found


def first_of_each(tasks: Sequence[RankingTask], count: int) -> list[RankingTask]:
    """Return the first ``count`` tasks of each dataset."""
    return [task for own in by_dataset(tasks).values() for task in own[:count]]
