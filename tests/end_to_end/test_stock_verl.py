"""verl's own command on a CPU, with nothing of ours but the installed plug-in and a reward function; actor, reference and critic
on two ranks over gloo."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from data_prep.rows import write_tasks
from iranker_verl.job import supervise
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.templates import load
from tests import tiny_models

pytestmark = pytest.mark.slow


def test_stock_command_with_two_ranks(tmp_path: Path) -> None:
    tiny_models.save(tmp_path / "model")
    pool = tuple(Candidate(f"c{i}", f"thing {i}") for i in range(4))
    tasks = [RankingTask.with_positive(f"q{i}", "passage", "passage-5", "which", pool, "c1") for i in range(8)]
    data = tmp_path / "train.parquet"
    write_tasks(data, tasks, load("label"), "train")
    rollout = "actor_rollout_ref.rollout"
    arguments = f"""
        algorithm.adv_estimator=gae data.train_files={data} data.val_files={data} data.train_batch_size=4
        data.max_prompt_length=128 data.max_response_length=8 data.dataloader_num_workers=0
        actor_rollout_ref.model.path={tmp_path / "model"} actor_rollout_ref.model.use_remove_padding=False
        actor_rollout_ref.model.enable_gradient_checkpointing=False
        +actor_rollout_ref.model.override_config.attn_implementation=eager
        actor_rollout_ref.actor.strategy=fsdp2 actor_rollout_ref.actor.optim.lr=1e-3
        actor_rollout_ref.actor.ppo_mini_batch_size=4 actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2
        actor_rollout_ref.actor.use_dynamic_bsz=False actor_rollout_ref.actor.fsdp_config.model_dtype=fp32
        actor_rollout_ref.actor.use_torch_compile=False {rollout}.name=vllm {rollout}.mode=async {rollout}.n=2
        {rollout}.tensor_model_parallel_size=1 {rollout}.dtype=float32 {rollout}.enforce_eager=True
        {rollout}.free_cache_engine=False +{rollout}.enable_sleep_mode=False {rollout}.gpu_memory_utilization=0.2
        {rollout}.max_model_len=160 {rollout}.max_num_batched_tokens=1024 {rollout}.max_num_seqs=16
        {rollout}.agent.num_workers=1 {rollout}.log_prob_micro_batch_size_per_gpu=2
        {rollout}.agent.default_agent_loop=single_turn_agent
        actor_rollout_ref.actor.use_kl_loss=True actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=2
        actor_rollout_ref.ref.strategy=fsdp2 actor_rollout_ref.ref.fsdp_config.strategy=fsdp2
        critic.model.path={tmp_path / "model"} critic.strategy=fsdp2 critic.ppo_micro_batch_size_per_gpu=2
        critic.model.use_remove_padding=False critic.model.enable_gradient_checkpointing=False
        +critic.model.override_config.attn_implementation=eager critic.fsdp.model_dtype=fp32
        reward.custom_reward_function.path=pkg://reward_fns.exclusion reward.num_workers=1
        trainer.device=cpu trainer.n_gpus_per_node=2 trainer.nnodes=1 trainer.logger=[console]
        trainer.save_freq=-1 trainer.test_freq=-1 trainer.total_training_steps=1 trainer.val_before_train=False
        trainer.default_local_dir={tmp_path / "checkpoints"} hydra.run.dir={tmp_path / "hydra"}
        transfer_queue.backend.SimpleStorage.num_data_storage_units=1
        ray_kwargs.ray_init.num_cpus=16 +ray_kwargs.ray_init.num_gpus=2 +ray_kwargs.ray_init.include_dashboard=False
    """.split()
    # the column names our own agent loop; the stock single-turn one is asked for here
    drop_agent_name(data)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("VERL_", "VLLM_"))}
    env |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    log = tmp_path / "verl.log"
    # supervised, so that Ray leaves nothing behind; a failure raises
    supervise.run("verl", [sys.executable, "-m", "verl.trainer.main_ppo", *arguments], log, hint=str, env=env)
    output = log.read_text()
    assert "step:1 " in output
    for learned in ("actor/grad_norm", "actor/kl_loss", "critic/vf_loss", "critic/grad_norm"):
        assert learned in output
    # a random model answers nothing that can be read: the reward function's worst, for every row
    assert "critic/score/mean:-0.5" in output


def drop_agent_name(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path).drop_columns(["agent_name"]), path)
