"""Workers that die are replaced, what they had not finished runs again, and nothing is waited for without end."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("verl.trainer.ppo.v1.agent_loop_tq")

import ray
from verl.trainer.ppo.v1 import replay_buffer
from verl.utils import tensordict_utils as tu

from iranker_verl.training import recovery
from iranker_verl.training.recovery import MAX_RESTARTS, RecoveringManager
from iranker_verl.training.sampler import AsyncPromptReplayBuffer, PromptReplayBuffer


class Worker:
    """A rollout worker that only notes what it is given; calls of a dead one fail, as Ray's do."""

    def __init__(self) -> None:
        self.dead, self.got = False, []
        self.generate_sequences = SimpleNamespace(remote=self._generate)
        self.until_death = SimpleNamespace(remote=lambda: self)

    def _generate(self, chunk):
        if not self.dead:
            self.got.append(list(chunk["uid"]))
        return self


class Store:
    """TransferQueue's key-value store, as far as it is used."""

    def __init__(self) -> None:
        self.tags: dict[str, dict] = {}

    def kv_list(self, partition_id=None):
        return {"train": dict(self.tags)} if self.tags else {}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            self.tags.pop(key, None)

    def kv_batch_put(self, keys, partition_id, tags):
        for key, tag in zip(keys, tags, strict=True):
            self.tags[key] = {**self.tags.get(key, {}), **tag}


@pytest.fixture
def store(monkeypatch) -> Store:
    store = Store()
    monkeypatch.setattr(recovery, "tq", store)
    monkeypatch.setattr(replay_buffer, "tq", store)

    def get(ref):
        if ref.dead:
            raise ray.exceptions.RayActorError(error_msg="killed by signal 9\nmore")

    monkeypatch.setattr(recovery.ray, "get", get)
    monkeypatch.setattr(recovery.ray, "wait", lambda refs, timeout: ([r for r in refs if r.dead], []))
    return store


@pytest.fixture
def manager() -> RecoveringManager:
    manager = object.__new__(RecoveringManager)
    manager.config = manager.llm_client = manager.teacher_client = manager.reward_loop_worker_handles = None
    manager.agent_loop_workers_class = SimpleNamespace(options=lambda name: SimpleNamespace(remote=lambda *a: Worker()))
    manager.agent_loop_workers = [Worker(), Worker()]
    manager._deaths = list(manager.agent_loop_workers)
    manager._chunks, manager._restarts = [[], []], 0
    return manager


def submit(manager: RecoveringManager, store: Store, uids: list[str]) -> None:
    store.kv_batch_put(uids, "train", [{"is_prompt": True, "status": "pending", "global_steps": 4} for _ in uids])
    manager.generate_sequences(tu.get_tensordict({"uid": np.array(uids, dtype=object), "raw_prompt": list(uids)}))


def test_a_dead_worker_is_replaced_and_its_unfinished_prompts_run_again(manager, store, capsys) -> None:
    submit(manager, store, ["a", "b", "c", "d"])
    first, other = manager.agent_loop_workers
    assert (first.got, other.got) == ([["a", "b"]], [["c", "d"]])
    store.tags["a"]["status"], store.tags["b"]["status"] = "finished", "running"
    store.tags |= {"a_0_0": {}, "b_0_0": {}, "b_0_1": {}, "c_0_0": {}}
    first.dead = True

    assert manager.replace_dead_workers("train") == 1
    assert manager.agent_loop_workers[0].got == [["b"]] and manager.agent_loop_workers[1] is other
    assert set(store.tags) == {"a", "b", "c", "d", "a_0_0", "c_0_0"}  # what b had stored would have been trained twice
    assert store.tags["b"] == {"is_prompt": True, "status": "pending", "global_steps": 4}
    assert "killed by signal 9)" in capsys.readouterr().out
    assert manager.replace_dead_workers("train") == 0


def test_a_worker_that_was_dead_before_it_got_its_prompts_is_replaced_too(manager, store) -> None:
    manager.agent_loop_workers[1].dead = True
    submit(manager, store, ["a", "b"])
    assert manager.replace_dead_workers("train") == 1
    assert manager.agent_loop_workers[1].got == [["b"]]


def test_prompts_that_kill_whoever_runs_them_end_the_run(manager, store) -> None:
    submit(manager, store, ["a", "b"])
    for _ in range(MAX_RESTARTS):
        manager.agent_loop_workers[0].dead = True
        assert manager.replace_dead_workers("train") == 1
    manager.agent_loop_workers[0].dead = True
    with pytest.raises(RuntimeError, match="killed by signal 9; look for a lack of memory"):
        manager.replace_dead_workers("train")
    submit(manager, store, ["c", "d"])  # each batch is counted for itself
    assert manager.replace_dead_workers("train") == 2  # a and c


def test_prompts_of_an_earlier_batch_that_are_still_in_flight_run_again_too(manager, store) -> None:
    """As in trainer_mode=colocate_async."""
    submit(manager, store, ["a", "b"])
    submit(manager, store, ["c", "d"])
    store.tags["b"]["status"] = "finished"
    submit(manager, store, ["e", "f"])
    assert [len(parts) for parts in manager._chunks] == [3, 2]  # what is done is forgotten
    manager.agent_loop_workers[0].dead = True
    assert manager.replace_dead_workers("train") == 3
    assert manager.agent_loop_workers[0].got == [["a"], ["c"], ["e"]]


def buffer(kind=PromptReplayBuffer, refill=None, **options) -> PromptReplayBuffer:
    return kind(
        trainer_mode="sync" if kind is PromptReplayBuffer else "colocate_async",
        trainer_config=None,
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs={"poll_interval": 0.001} | options,
        refill_fn=refill,
    )


def test_a_wait_in_which_nothing_happens_ends_with_the_numbers(store) -> None:
    store.tags = {"a": {"is_prompt": True, "status": "running", "global_steps": 1}}
    with pytest.raises(
        RuntimeError, match=r"no episode has ended for 0\.05 s: 0 prompts are done, 1 run, 0 have not begun"
    ):
        buffer(deadline_s=0.05).sample(1, "train", 1)


def test_what_runs_again_is_in_the_metrics(store) -> None:
    store.tags = {"a": {"is_prompt": True, "status": "running", "global_steps": 1}}
    waiting = buffer()

    def heal(partition_id: str) -> int:
        store.tags |= {"a": store.tags["a"] | {"status": "finished"}, "a_0_0": {"seq_len": 3}}
        return 1

    waiting.rollout = SimpleNamespace(replace_dead_workers=heal)
    batch, metrics = waiting.sample(1, "train", 1)
    assert batch.keys == ["a_0_0"] and metrics["training/prompts_run_again"] == 1


def test_a_batch_of_which_nothing_is_left_names_the_likely_cause(store) -> None:
    store.tags = {"a": {"is_prompt": True, "status": "failure", "global_steps": 1}}
    with pytest.raises(RuntimeError, match="all 1 prompts of a batch failed, as when vLLM has died"):
        buffer().sample(1, "train", 1)


def prompt(status: str, step: int = 1) -> dict:
    return {"is_prompt": True, "status": status, "global_steps": step}


def test_an_asynchronous_batch_is_the_oldest_tasks_that_are_whole_with_all_rows_of_their_episodes(store) -> None:
    store.tags = {
        "a": prompt("running"),
        "b": prompt("finished", 2),
        "c": prompt("finished", 1),
        "d": prompt("finished", 3),
    }
    store.tags |= {f"{uid}_{session}_{row}": {} for uid in "abcd" for session in range(2) for row in range(2)}
    batch, _ = buffer(AsyncPromptReplayBuffer).sample(3, "train", 2)
    assert set(batch.keys) == {f"{uid}_{session}_{row}" for uid in "bc" for session in range(2) for row in range(2)}
    assert {"a", "a_0_0", "d", "d_1_1"} <= set(store.tags)  # they wait for a later step


def test_a_failed_task_of_an_asynchronous_batch_is_replaced_and_a_batch_of_them_ends_the_run(store) -> None:
    drawn = []

    def refill(number: int, status: str = "finished") -> None:
        drawn.append(number)
        store.tags |= {f"new{len(drawn)}": prompt(status), f"new{len(drawn)}_0_0": {}}

    store.tags = {"a": prompt("failure"), "a_0_0": {}, "b": prompt("finished"), "b_0_0": {}}
    batch, _ = buffer(AsyncPromptReplayBuffer, refill).sample(1, "train", 2)
    assert (drawn, set(batch.keys)) == ([1], {"b_0_0", "new1_0_0"})

    store.tags = {"a": prompt("failure"), "b": prompt("running")}
    with pytest.raises(RuntimeError, match="all 2 prompts of a batch failed, as when vLLM has died"):
        buffer(AsyncPromptReplayBuffer, lambda number: refill(number, "failure")).sample(1, "train", 2)
