"""The benchmarks of an update and of the driver run, on a CPU in small, and two ranks learn what one learns."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

pytest.importorskip("verl")

from benchmarks import driver_step, update_gpu
from tests.training.rank_gradients import save_gradients

CPU = (
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096",
    "actor_rollout_ref.model.enable_gradient_checkpointing=false",
)


def test_the_gpus_benchmark_runs_on_a_cpu_with_a_small_shape(capsys):
    update_gpu.main(
        ["--recipe", "recipes/tiny_cpu", "--shape", "tiny", "--rows", "6", "--rounds", "1", "--no-generation", *CPU]
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("update")] == [
        f"update, {name}" for name, *_ in update_gpu.UPDATES
    ]
    planned = [line for line in lines if line.startswith("planned peak memory of an update: ")]
    assert len(planned) == 1 and 0.65 < float(planned[0].split()[-2]) < 5  # libraries alone are .65 GiB
    assert all("tokens/s" in line and "peak memory" in line for line in lines if line.startswith("update"))


def test_the_drivers_benchmark_times_every_part(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["driver_step", "1024"])
    driver_step.main()
    assert len(capsys.readouterr().out.splitlines()) == 9


@pytest.mark.slow
def test_two_ranks_have_the_gradients_of_one_and_packed_rows_those_of_padded_ones(tmp_path):
    """In float32, within a millionth of the largest."""
    update_gpu.save_model(tmp_path / "model", "tiny")
    command = [sys.executable, "-m", "tests.training.rank_gradients"]
    processes = [
        subprocess.Popen([*command, str(rank), "2", str(tmp_path / "model"), str(tmp_path / "two")])
        for rank in range(2)
    ]
    with update_gpu.one_rank():
        for name, packed in (("packed", True), ("padded", False)):
            save_gradients(0, 1, str(tmp_path / "model"), tmp_path / name, packed)
    assert [process.wait(120) for process in processes] == [0, 0]
    two, packed, padded = (torch.load(tmp_path / name) for name in ("two", "packed", "padded"))
    largest = float(packed.abs().max())
    assert largest > 1e-4
    torch.testing.assert_close(two, packed, rtol=0, atol=1e-6 * largest)
    torch.testing.assert_close(padded, packed, rtol=0, atol=1e-6 * largest)
