"""verl's own command on a CPU, with nothing of ours but the installed plug-in and a reward function; two ranks over gloo."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from data_prep.schema import write_tasks
from iranker_verl.job import supervise
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.templates import load

pytestmark = pytest.mark.slow


def make_model(folder: Path) -> None:
    """A random Qwen2 of a few hundred thousand parameters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["Query candidates Exclude the worst thing user assistant"] * 10, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    fast.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


def test_stock_command_with_two_ranks(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    pool = tuple(Candidate(f"c{i}", f"thing {i}") for i in range(4))
    tasks = [RankingTask.with_positive(f"q{i}", "passage", "passage-5", "which", pool, "c1") for i in range(8)]
    data = tmp_path / "train.parquet"
    write_tasks(data, tasks, load("label"), "train")
    rollout = "actor_rollout_ref.rollout"
    arguments = f"""
        algorithm.adv_estimator=grpo data.train_files={data} data.val_files={data} data.train_batch_size=4
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
    supervise.run("verl", [sys.executable, "-m", "verl.trainer.main_ppo", *arguments], log, hint="", env=env)
    output = log.read_text()
    assert "step:1 " in output and "actor/grad_norm" in output
    # a random model answers nothing that can be read: the reward function's worst, for every row
    assert "critic/score/mean:-0.5" in output


def drop_agent_name(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path).drop_columns(["agent_name"]), path)
