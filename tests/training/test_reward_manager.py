"""The reward manager, as verl makes and calls it."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

pytest.importorskip("verl.experimental.reward_loop.reward_manager")

from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput, AgentLoopWorker
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls
from verl.trainer.ppo.reward import load_reward_manager

import reward_fns
from iranker_verl.training.reward_manager import EveryStepRewardManager

MODULE = "pkg://iranker_verl.training.reward_manager"
TEXTS = ["a1", "b1", "c1"]
ROW = {
    "data_source": "rec-movie",
    "reward_model": {"style": "rule", "ground_truth": {"candidates": TEXTS, "target": 0}},
    "extra_info": {"index": 3},
}


class Tokenizer:
    """A token is a character; 0 is padding and the end."""

    eos_token_id = 0

    def decode(self, ids, skip_special_tokens):
        return "".join(chr(i) for i in ids if i)


def manager(path="pkg://reward_fns.exclusion", source="importlib", name="EveryStepRewardManager", **reward_kwargs):
    config = {
        "reward": {
            "custom_reward_function": {"path": path, "name": "compute_score", "reward_kwargs": reward_kwargs},
            "reward_manager": {"source": source, "name": name, "module": {"path": MODULE, "name": None}},
        }
    }
    return load_reward_manager(OmegaConf.create(config), Tokenizer())


def outputs(*steps):
    """An episode: (answer, ground truth or None) a step."""
    return [
        AgentLoopOutput(
            prompt_ids=[1, 2],
            response_ids=[ord(c) for c in answer] or [0],
            response_mask=[1] * max(1, len(answer)),
            num_turns=2,
            metrics=AgentLoopMetrics(),
            extra_fields={"ground_truth": truth} if truth else {},
        )
        for answer, truth in steps
    ]


def scored(made, steps, row=ROW):
    """What verl's rollout worker makes of an episode: its own _compute_score, with the manager in the worker's place."""

    class Handle:
        def remote(self, data):
            return made.run_single(data)

    worker = SimpleNamespace(
        reward_loop_worker_handles=[SimpleNamespace(compute_score=Handle())],
        _compute_multi_modal_inputs=lambda output, ids: {},
        _get_mm_processor_kwargs=lambda audios: {},
        _compute_position_ids=lambda ids, mask, inputs, kwargs: torch.arange(ids.shape[1]).unsqueeze(0),
    )
    episode = outputs(*steps)

    async def run():
        made.loop = asyncio.get_running_loop()
        await AgentLoopWorker._compute_score(worker, episode, dict(row))

    asyncio.run(run())
    return episode


def test_every_step_is_scored_against_its_own_ground_truth():
    first, second = ROW["reward_model"]["ground_truth"], {"candidates": ["a1", "c1"], "target": 0}
    steps = [("[B]", first), ("[A]", second)]
    last = scored(manager(), steps)[-1]
    assert last.reward_score == 0.5
    info = last.extra_fields["reward_extra_info"]
    assert info["steps"] == 2.0
    assert (info["score"], info["pool_size"], info["lost_positive"]) == (0.5, 2.5, 0.5)
    assert info["expected"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    # the naive manager sees the last answer only, and reads it against the whole pool
    naive = scored(manager(source="register", name="naive"), steps)[-1]
    assert (naive.reward_score, naive.extra_fields["reward_extra_info"]["pool_size"]) == (0.0, 3.0)


def test_without_a_ground_truth_of_its_own_a_step_has_the_rows():
    last = scored(manager(), [("[A]", None), ("[B]", None), ("?", None)])[-1]
    assert last.reward_score == pytest.approx((0 + 1 - 0.5) / 3)


def test_one_output_is_what_the_naive_manager_makes_of_it():
    for answer in ("[A]", "[B]", "", "?"):
        ours, naive = (
            scored(made, [(answer, None)])[0] for made in (manager(), manager(source="register", name="naive"))
        )
        assert ours.reward_score == naive.reward_score
        info = ours.extra_fields["reward_extra_info"]
        assert info == {**naive.extra_fields["reward_extra_info"], "steps": 1.0}


def test_it_is_registered_and_passes_reward_kwargs():
    assert get_reward_manager_cls("every_step") is EveryStepRewardManager
    made = manager(source="register", name="every_step", kind="corrected", malformed=-2.0)
    assert scored(made, [("[B]", None), ("?", None)])[-1].reward_score == pytest.approx((1 - 2 - 2 * 2 / 3) / 2)
    by_path = manager(path=str(Path(reward_fns.__file__).parent / "exclusion.py"))
    assert scored(by_path, [("[B]", None)])[-1].reward_score == 1.0


def test_steps_do_not_write_into_each_other(tmp_path):
    file = tmp_path / "seen.py"
    file.write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info):\n"
        "    return {'score': extra_info['ground_truth']['target'], 'says': solution_str, 'seen': len(extra_info)}\n"
    )
    row = ROW | {"extra_info": {"index": 3}}
    steps = [(f"{i}", {"candidates": TEXTS, "target": i}) for i in range(3)]
    info = scored(manager(path=str(file)), steps, row)[-1].extra_fields["reward_extra_info"]
    assert info["score"] == 1.0  # 0, 1 and 2
    assert info["says"] == "2"  # no number: the last
    assert row["extra_info"] == {"index": 3}


def test_numpys_parts_are_averaged_and_none_is_lost(tmp_path):
    file = tmp_path / "numpy_parts.py"
    file.write_text(
        "import numpy as np\n"
        "def compute_score(data_source, solution_str, ground_truth, extra_info):\n"
        "    ok = solution_str == 'ok'\n"
        "    parts = {'score': np.float32(ok), 'count': np.int64(ok), 'valid': np.bool_(ok), 'half': np.float16(ok)}\n"
        "    return parts if ok else {**parts, 'why': 'unread', 'bad': 1.0}\n"
    )
    half = dict.fromkeys(("score", "count", "valid", "half"), 0.5)
    for steps in (["ok", "?"], ["?", "ok"]):
        last = scored(manager(path=str(file)), [(answer, None) for answer in steps])[-1]
        assert last.reward_score == 0.5
        assert last.extra_fields["reward_extra_info"] == {**half, "why": "unread", "bad": 1.0, "steps": 2.0}


def test_async_and_plain_numbers(tmp_path):
    file = tmp_path / "slow.py"
    file.write_text("async def compute_score(**row):\n    return len(row['solution_str'])\n")
    last = scored(manager(path=str(file)), [("ab", None), ("abcd", None)])[-1]
    assert last.reward_score == 3.0
    assert last.extra_fields["reward_extra_info"] == {"acc": 3.0, "steps": 2.0}
