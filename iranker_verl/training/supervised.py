"""Supervision (``algorithm.adv_estimator=supervised``): verl's own SFT trainer on worked answers, as a run's training.

A row of the file that it reads is a prompt (chat messages, as prepared) and the response to teach
(:mod:`iranker_verl.job.worked_answers`); the loss is cross-entropy on the response's tokens and the end token, averaged over tokens.
``data.train_batch_size`` counts rows, of which each step takes one optimiser step. Model, optimiser, sharding, micro-batches and
checkpoints are those that the recipe sets for the policy of reinforcement learning, and so are the files of the run: it resumes, is
exported and is evaluated alike, and its model can be the base of a run of reinforcement learning.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils import tensordict_utils as tu
from verl.utils.checkpoint import CheckpointHandler
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

from iranker_verl.console import say
from iranker_verl.errors import UserError
from iranker_verl.files import write_text
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.training import checkpoints
from iranker_verl.training.metrics_log import MetricsLog


class WorkedAnswers(Dataset):
    """Rows with the columns ``prompt`` and ``response``, encoded as rollouts encode prompts and vLLM answers.

    verl's own data set for SFT encodes a turn by the chat template alone, in which a text may hold a token that ends the turn.
    Raise UserError for a response that is longer than ``data.max_response_length`` tokens.
    """

    def __init__(self, parquet_files: str, tokenizer: Any, config: DictConfig, **_: Any) -> None:
        """Read one file of Parquet; verl hands over the tokenizer of the model and the group ``data``."""
        self._rows = pq.read_table(parquet_files)
        self._end, self._chat = tokenizer.eos_token_id, ChatEncoder(tokenizer, **config.apply_chat_template_kwargs)
        for number, ids in enumerate(self._chat.encode_texts(self._rows["response"].to_pylist())):
            if len(ids) >= config.max_response_length:
                raise UserError(
                    f"{parquet_files} row {number}: its response has {len(ids) + 1} tokens with the end token, more than "
                    f"data.max_response_length={config.max_response_length}; raise it"
                )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return a row's tokens, each (tokens,); ``responses`` has those of the response alone."""
        prompt = self._chat.encode(self._rows["prompt"][index].as_py())
        response = [*self._chat.encode_texts([self._rows["response"][index].as_py()])[0], self._end]
        ids = torch.tensor([*prompt, *response])
        return {
            "input_ids": ids,
            "position_ids": torch.arange(len(ids)),
            "loss_mask": (torch.arange(len(ids)) >= len(prompt)).long(),
            "responses": ids[len(prompt) :].clone(),
        }


class Checkpoints(CheckpointHandler):
    """Checkpoints in the layout of reinforcement learning's (:mod:`iranker_verl.training.checkpoints`)."""

    engine: Any
    recipe: DictConfig

    def save_checkpoint(self, step: int) -> None:
        """Save weights, optimiser and the data loader's state, and then that this step is the last one."""
        folder = Path(self.default_local_dir) / f"global_step_{step}"
        checkpoints.check_room(self.recipe)
        self.engine.save_checkpoint(local_path=str(folder / "actor"), global_step=step)
        if self.rank == 0:
            torch.save(self.train_dataloader.state_dict(), folder / "data.pt")
            write_text(folder.parent / checkpoints.LATEST, str(step))
            checkpoints.prune(self.recipe)
        torch.distributed.barrier()

    def load_checkpoint(self) -> int:
        """Load the last checkpoint and return its step; 0 where there is none."""
        step = checkpoints.last_step(Path(self.default_local_dir))
        if step:
            folder = Path(self.default_local_dir) / f"global_step_{step}"
            self.engine.load_checkpoint(str(folder / "actor"))
            if step % len(self.train_dataloader):  # at the end of a pass the loader's state is one of nothing left
                self.train_dataloader.load_state_dict(torch.load(folder / "data.pt", weights_only=True))
        return step


class SupervisedTrainer(SFTTrainer):
    """verl's SFT trainer, with checkpoints and ``metrics.jsonl`` as a run has them."""

    def __init__(self, recipe: DictConfig, file: Path) -> None:
        """Build the model and resume from the last checkpoint. Raise UserError where ``file`` is smaller than a batch."""
        self._recipe = recipe
        super().__init__(sft_config(recipe, file))
        self._step = self.resume_global_step
        if self.rank == 0:
            self._metrics = MetricsLog(Path(recipe.iranker.run_dir, "metrics.jsonl"), last_step=self._step)

    def _build_engine(self) -> None:
        super()._build_engine()
        self._take_step, self.training_client.train_batch = self.training_client.train_batch, self._logged_step

    def _build_dataloader(self) -> None:
        super()._build_dataloader()
        if not len(self.train_dataloader):
            raise UserError(
                f"{len(self.train_dataset)} worked answers are fewer than data.train_batch_size={self.global_batch_size}; lower it"
            )
        self.train_sampler.seed = self._recipe.iranker.seed

    def _build_ckpt_handler(self) -> None:
        folder = self.config.trainer.default_local_dir
        self.ckpt_handler = Checkpoints(self.engine, self.train_dataloader, default_local_dir=folder)
        self.ckpt_handler.recipe = self._recipe

    def _logged_step(self, data: Any) -> Any:
        """Take a step as verl does, and write its line of ``metrics.jsonl``."""
        begun = time.monotonic()
        output = self._take_step(data)
        self._step += 1
        if self.rank == 0:
            found, seconds = tu.get(output, "metrics"), time.monotonic() - begun
            times = {"generate": 0.0, "forward": 0.0, "backward": seconds, "other": 0.0, "step": seconds}
            self._metrics.write(
                {
                    "step": self._step,
                    "tokens/step": float(sum(tu.get(data, "global_token_num"))),
                    **{f"time/{name}": value for name, value in times.items()},
                    **{f"verl/actor/{name}": float(found[name]) for name in ("loss", "grad_norm", "lr")},
                }
            )
            say(f"step {self._step}/{self.total_training_steps}  loss {found['loss']:.4f}  {seconds:.1f} s")
        return output


def sft_config(recipe: DictConfig, file: Path) -> DictConfig:
    """Return what verl's ``sft_trainer_engine`` needs, from what a recipe sets for the policy."""
    given: Any = OmegaConf.to_container(recipe, resolve=True)
    policy, data, trainer = given["actor_rollout_ref"], given["data"], given["trainer"]
    actor = policy["actor"]
    taken = ("default_local_dir", "project_name", "experiment_name", "total_epochs", "total_training_steps")
    return OmegaConf.create(
        {
            "model": policy["model"],
            "engine": actor["fsdp_config"] | {"strategy": actor["strategy"]},
            **{name: actor[name] for name in ("optim", "checkpoint", "profiler")},
            "data": {
                "train_files": str(file),
                "val_files": None,
                "custom_cls": {"path": "pkg://iranker_verl.training.supervised", "name": WorkedAnswers.__name__},
                "pad_mode": "no_padding",
                "num_workers": data["dataloader_num_workers"],
                "use_dynamic_bsz": actor["use_dynamic_bsz"],
                "max_token_len_per_gpu": actor["ppo_max_token_len_per_gpu"],
                "micro_batch_size_per_gpu": actor["ppo_micro_batch_size_per_gpu"],
                "apply_chat_template_kwargs": data["apply_chat_template_kwargs"] or {},
                **{name: data[name] for name in ("train_batch_size", "max_response_length")},
            },
            "trainer": {name: trainer[name] for name in (*taken, "save_freq", "logger", "device")}
            | {"test_freq": -1, "profile_interval": [-1, -1]},
        }
    )


def run(recipe: DictConfig, file: Path) -> None:
    """Train on ``file``, one process a GPU of this machine. Resume from the last checkpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = recipe.trainer.n_gpus_per_node
    torch.multiprocessing.spawn(run_rank, (ranks, port, OmegaConf.to_yaml(recipe, resolve=True), file), nprocs=ranks)


def run_rank(rank: int, ranks: int, port: int, recipe: str, file: Path) -> None:
    """Train as one process of several; ``recipe`` is the composed config as YAML, ``port`` that of rank 0."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    initialize_global_process_group()
    try:
        config = OmegaConf.create(recipe)
        assert isinstance(config, DictConfig)
        SupervisedTrainer(config, file).fit()
    finally:
        destroy_global_process_group()
