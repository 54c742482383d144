"""Rollout workers that keep the reward of every step of a multi-step episode.

``AgentLoopWorkerTQ._agent_loop_postprocess`` (verl 0.9.1) overwrites the reward of every earlier output of an episode with that
of the last one, which loses the credit of all steps but the last. The worker here hands verl outputs whose reward cannot be
overwritten. It serves any agent loop that returns a list of scored outputs:

``actor_rollout_ref.rollout.agent.agent_loop_manager_class=iranker_verl.training.rollout.StepRewardManager``
"""

from __future__ import annotations

from typing import Any

import ray
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

# registers elimination_agent and direct_agent in every worker
from iranker_verl.training import agent_loop as _agent_loop  # noqa: F401
from iranker_verl.training.recovery import RecoveringManager, WatchedWorker


class StepOutput(AgentLoopOutput):
    """An agent loop's output whose reward can be set only once."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "reward_score" and self.reward_score is not None:
            return
        super().__setattr__(name, value)

    @classmethod
    def keep(cls, output: AgentLoopOutput) -> StepOutput:
        """Return the same output, with the reward that it has now. Raise ValueError where it has none."""
        if output.reward_score is None:
            raise ValueError("a step of a multi-step episode has no reward; the agent loop has to score every step")
        return cls(**{name: getattr(output, name) for name in output.model_fields_set})


# verl exports the class already wrapped by @ray.remote; this is the plain one.
_wrapped: Any = AgentLoopWorkerTQ
_Worker: Any = _wrapped.__ray_metadata__.modified_class


class StepRewardWorker(WatchedWorker, _Worker):
    """verl's rollout worker, but a list of outputs keeps its rewards, and an empty list is an error."""

    async def _agent_loop_postprocess(self, output: Any, validate: bool, **kwargs: Any) -> None:
        if isinstance(output, list):
            if not output:
                raise ValueError(
                    f"the agent loop returned no step for prompt {kwargs['uid']}; the batch would train short"
                )
            output = [StepOutput.keep(o) for o in output]
        await super()._agent_loop_postprocess(output, validate, **kwargs)


class StepRewardManager(RecoveringManager):
    """verl's rollout manager with :class:`StepRewardWorker` for workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Set the worker class that verl's manager starts."""
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(StepRewardWorker)
