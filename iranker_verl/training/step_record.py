"""The record of one step of an episode: what the agent loop knows, and credit, metrics and the rollout dump read.

A step is one prompt and one response, and one training row. The agent loop (in a rollout worker) makes the record, and it
crosses TransferQueue as a plain dictionary in the row's ``extra_fields["step"]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class StepRecord:
    """One step of one rollout. N is the number of its prompt candidates.

    Attributes:
        task: verl's uid of the task; all rollouts of a task in one RL step share it.
        session: The rollout, ``{uid}_{number}``; all steps of an episode share it.
        candidate_ids: Ids of the N candidates that the prompt shows, in prompt order.
        reward: The score of the response, in units of the reward function.
        expected_reward: The mean reward of a valid response drawn uniformly at random, in the same units.
        counterfactual_rewards: The N rewards of all labels, in prompt order, and then that of a response which names no
            candidate: shape (N + 1,). Empty, except in training by ``exclusion_expected`` and ``exclusion_order``.
        reward_parts: All numbers that the reward function returned, by name.
        malformed: Whether the response is not one of the form that the prompt asks for.
        positive_survived: Whether a best candidate is still in after the exclusion; for a direct ranking, whether the last
            rank is not a best candidate's.
        dataset: verl's ``data_source``, e.g. ``rec-movie``.
        reciprocal_rank: Of the best candidate at the end of the episode; equal in all its steps.
        calls: LLM calls of the whole episode; equal in all its steps.
        most_calls: Responses that the episode can take, whatever they are: N - 1 where it begins with N candidates and each excludes
            one, times ``iranker.branch``. Equal in all its steps.
        whole: Whether the episode ran until its best candidate's rank was known; equal in all its steps.
    """

    task: str
    session: str
    candidate_ids: tuple[str, ...]
    reward: float
    expected_reward: float
    counterfactual_rewards: tuple[float, ...] = ()
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    malformed: bool = False
    positive_survived: bool = True
    dataset: str = ""
    reciprocal_rank: float = 0.0
    calls: int = 1
    most_calls: int = 1
    whole: bool = True

    @property
    def pool_size(self) -> int:
        """Return N, the number of prompt candidates."""
        return len(self.candidate_ids)

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary of plain types, as TransferQueue stores it.

        >>> step = StepRecord("t", "t_0", ("a", "b"), 1.0, 0.5)
        >>> StepRecord.from_dict(step.to_dict()) == step
        True
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> StepRecord:
        """Return the record that :meth:`to_dict` wrote. Raise TypeError for a missing or an unknown field."""
        sequences = {
            name: tuple(fields[name]) for name in ("candidate_ids", "counterfactual_rewards") if name in fields
        }
        return cls(**{**fields, **sequences})
