"""A replay buffer that notices at once when a batch of episodes is complete.

verl's own looks every 2.0 seconds, which is most of a tiny model's step. Chosen by
``trainer.v1.sampler.custom_sampler.{path,name}``; the interval is ``trainer.v1.sampler.sampler_kwargs.poll_interval``.
"""

from __future__ import annotations

from typing import Any

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer


class PromptReplayBuffer(ReplayBuffer):
    """verl's synchronous replay buffer with a poll interval in seconds from the config (0.05 by default)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        interval = float((kwargs.get("sampler_kwargs") or {}).get("poll_interval", 0.05))
        super().__init__(*args, **(kwargs | {"poll_interval": interval}))
