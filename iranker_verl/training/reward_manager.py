"""A reward manager that scores every step of a rollout of several outputs, for agent loops that do not score themselves.

An agent loop of verl may return a list of outputs, one a step. verl's own managers read the last one only
(``data[-1:]``) and so pay a whole episode for how it ended. This one calls the reward function on each:

``reward.reward_manager.source=importlib``
``reward.reward_manager.module.path=pkg://iranker_verl.training.reward_manager``
``reward.reward_manager.name=EveryStepRewardManager``

(or ``reward.reward_manager.name=every_step`` where ``VERL_USE_EXTERNAL_MODULES`` names this module). A step is scored against
its own ground truth: the loop puts it into ``extra_fields["ground_truth"]``; without one it is the row's. The reward is the
mean over the steps, and so is every part that the reward function returns, over the steps that have it; ``steps`` is their
number.

verl gives that reward to every row of the episode. A worker that is to keep each step's own, as
:mod:`iranker_verl.training.rollout`'s does, hands this manager one output at a time.
"""

from __future__ import annotations

import asyncio
from itertools import chain
from numbers import Real
from statistics import fmean
from typing import Any

import numpy as np
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import NaiveRewardManager, register


@register("every_step")
class EveryStepRewardManager(NaiveRewardManager):
    """verl's naive manager, on each output of an episode instead of the last."""

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """``{reward_score: mean, reward_extra_info: {part: mean, steps: count}}`` of the outputs in ``data``."""
        steps = await asyncio.gather(*(super(EveryStepRewardManager, self).run_single(s) for s in _steps(data)))
        infos = [step["reward_extra_info"] for step in steps]
        parts = {
            key: _mean([info[key] for info in infos if key in info])
            for key in dict.fromkeys(chain.from_iterable(infos))
        }
        score = fmean(float(step["reward_score"]) for step in steps)
        return {"reward_score": score, "reward_extra_info": {**parts, "steps": float(len(steps))}}


def _steps(data: DataProto) -> list[DataProto]:
    """Each output by itself. They share the row's ``extra_info``, which verl's manager writes to, so each gets a copy."""
    steps = []
    for i in range(len(data)):
        step = data[i : i + 1]
        fields = step.non_tensor_batch
        fields["extra_info"] = _one(dict(fields["extra_info"][0]) if "extra_info" in fields else {})
        own = fields["tool_extra_fields"][0] if "tool_extra_fields" in fields else {}
        if "ground_truth" in own:
            fields["reward_model"] = _one({**fields["reward_model"][0], "ground_truth": own["ground_truth"]})
        steps.append(step)
    return steps


def _one(value: dict[str, Any]) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


def _mean(values: list[Any]) -> Any:
    """The mean of numbers, NumPy's too; of anything else the last."""
    return fmean(map(float, values)) if all(isinstance(v, Real | np.bool_) for v in values) else values[-1]
