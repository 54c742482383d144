"""Replace rollout workers that die, and run their unfinished prompts again.

In verl 0.9.1 a prompt's status in TransferQueue says "running" for ever if the process that runs it is killed, and the
replay buffer waits for it without end (upstream issue 7155). :class:`RecoveringManager` keeps a call to every worker
open that ends only with the worker's process, so that a death is known at once. It starts a new worker, removes what the
unfinished prompts of the dead one have stored, and runs them again: nothing is lost and no row is trained twice.

:class:`~iranker_verl.training.sampler.PromptReplayBuffer` calls it while it waits, and ends a wait without any progress.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from uuid import uuid4

import ray
import transfer_queue as tq
from tensordict import TensorDict
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ
from verl.utils import tensordict_utils as tu

from iranker_verl.console import say

# deaths of workers in one batch after which the run ends: a prompt that kills its worker would kill the next one, too
MAX_RESTARTS = 3


class WatchedWorker:
    """Add to a rollout worker (an asynchronous Ray actor) the call by which its death is seen."""

    async def until_death(self) -> None:
        """Never return. The caller's reference becomes ready, with Ray's error, when this process is gone."""
        await asyncio.Event().wait()


class RecoveringManager(AgentLoopManagerTQ):
    """verl's rollout manager, which replaces workers that have died. Its workers have to be :class:`WatchedWorker`."""

    async def _init_agent_loop_workers(self) -> None:
        await super()._init_agent_loop_workers()
        self._deaths = [worker.until_death.remote() for worker in self.agent_loop_workers]
        self._chunks: list[list[TensorDict]] = [[] for _ in self.agent_loop_workers]
        self._restarts = 0

    def generate_sequences(self, prompts: TensorDict) -> None:
        """Hand each worker its part of ``prompts``, as verl does, and remember the parts until they are done."""
        unfinished = {uid for tags in (tq.kv_list() or {}).values() for uid in _unfinished(tags)}
        self._chunks = [[part for part in parts if unfinished & set(part["uid"])] for parts in self._chunks]
        self._restarts = 0
        for number, part in enumerate(prompts.chunk(len(self.agent_loop_workers))):
            self._chunks[number].append(part)
            self._dispatch(number, part)

    def _dispatch(self, number: int, chunk: TensorDict) -> None:
        with suppress(ray.exceptions.RayActorError):  # replace_dead_workers finds the death, and runs the chunk again
            ray.get(self.agent_loop_workers[number].generate_sequences.remote(chunk.copy()))

    def replace_dead_workers(self, partition_id: str) -> int:
        """Start a worker for each one that has died, and let it run the dead one's unfinished prompts.

        Return the number of prompts that run again. Raise RuntimeError, with the cause of the last death, after
        ``MAX_RESTARTS`` deaths in a batch.
        """
        again = 0
        for number, death in enumerate(self._deaths):
            if not ray.wait([death], timeout=0)[0]:
                continue
            cause = _cause_of_death(death)
            self._restarts += 1
            if self._restarts > MAX_RESTARTS:
                raise RuntimeError(
                    f"rollout workers died {self._restarts} times in one batch, the last of them: {cause}; "
                    "look for a lack of memory (`dmesg`, Ray's logs), then give the same command to resume"
                )
            say(f"a rollout worker died ({cause}); a new one runs its prompts again")
            self.agent_loop_workers[number] = worker = self._new_worker(number)
            self._deaths[number] = worker.until_death.remote()
            again += self._run_again(number, partition_id)
        return again

    def _run_again(self, number: int, partition_id: str) -> int:
        stored = (tq.kv_list(partition_id) or {}).get(partition_id, {})
        return sum(self._run_part_again(number, part, partition_id, stored) for part in self._chunks[number])

    def _run_part_again(self, number: int, part: TensorDict, partition_id: str, stored: dict[str, dict]) -> int:
        unfinished = _unfinished(stored)
        rows = [row for row, uid in enumerate(part["uid"]) if uid in unfinished]
        if not rows:
            return 0
        chunk = tu.index_select_tensor_dict(part, rows)
        uids = list(chunk["uid"])
        if partial := [key for key in stored if key not in uids and key.split("_")[0] in uids]:
            tq.kv_clear(keys=partial, partition_id=partition_id)
        tags = [stored[uid] | {"status": "pending"} for uid in uids]
        tq.kv_batch_put(keys=uids, partition_id=partition_id, tags=tags)
        self._dispatch(number, chunk)
        return len(uids)

    def _new_worker(self, number: int) -> Any:
        """Start a worker as ``AgentLoopManager._init_agent_loop_workers`` does, on any node with room."""
        return self.agent_loop_workers_class.options(name=f"agent_loop_worker_{number}_{uuid4().hex[:8]}").remote(
            self.config, self.llm_client, self.teacher_client, self.reward_loop_worker_handles
        )


def _unfinished(tags: dict[str, dict]) -> set[str]:
    """Return the uids of the prompts that are not done, of a partition's keys and tags."""
    return {uid for uid, tag in tags.items() if tag.get("status") in ("pending", "running")}


def _cause_of_death(death: Any) -> str:
    try:
        ray.get(death)
    except ray.exceptions.RayError as error:
        return str(error).strip().partition("\n")[0]
    return "it returned"
