"""A checkpoint is resumed from, and exported, whatever number of ranks saved it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl")

import torch
from transformers import AutoModelForCausalLM

from iranker_verl.errors import UserError
from iranker_verl.training.checkpoints import saved_by
from iranker_verl.training.shards import full_weights, write_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


def train(folder, ranks, load, **saves):
    """Return the loss of each step by its number; ``saves`` are the steps before each checkpoint, by its name."""
    steps = [str(word) for pair in saves.items() for word in pair]
    command = [sys.executable, "-m", "tests.training.sharded", str(ranks), str(folder), load, *steps]
    env = os.environ | {"PYTHONPATH": str(ROOT), "VERL_PLATFORM": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {int(step): float(loss) for step, loss in re.findall(r"loss (\d+) (\S+)", done.stdout)}


def test_two_ranks_then_one_then_two_train_as_two_ranks_do_without_a_break(folder):
    whole = train(folder, 2, "-", two=2, unbroken=2)
    found = whole | train(folder, 1, "two", one=1) | train(folder, 2, "one", again=1)
    assert [saved_by(folder / name).ranks for name in ("two", "one", "again")] == [2, 1, 2]
    assert found == pytest.approx(whole, abs=1e-5) and sorted(found) == [0, 1, 2, 3]
    assert whole[3] < whole[0] - 0.01  # it has learned, so that lost states would show
    wanted, weights = full_weights(folder / "unbroken"), full_weights(folder / "again")
    for name, weight in wanted.items():
        torch.testing.assert_close(weights[name], weight, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_shards_of_two_ranks_are_one_model(folder, tmp_path, dtype):
    if not (folder / "unbroken").is_dir():
        train(folder, 2, "-", unbroken=4)
    write_model(folder / "unbroken", tmp_path, dtype)
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == getattr(torch, dtype)
    state = model.state_dict()
    for name, weight in full_weights(folder / "unbroken").items():
        assert torch.equal(state[name], weight.to(model.dtype)), name


def test_a_missing_or_cut_shard_is_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"fsdp_config.json: it has to say how many ranks"):
        full_weights(tmp_path)
    (tmp_path / "fsdp_config.json").write_text('{"world_size": 1, "FSDP_version": 2}')
    with pytest.raises(UserError, match="no whole shards of model"):
        full_weights(tmp_path)
    (tmp_path / "model_world_size_1_rank_0.pt").write_bytes(b"PK cut short")
    with pytest.raises(UserError, match="no whole shards of model"):
        full_weights(tmp_path)
