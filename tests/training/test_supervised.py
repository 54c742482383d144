"""Supervision by verl's SFT trainer: the loss is the responses' cross-entropy, and a run resumes where it was stopped."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("verl")

from omegaconf import OmegaConf

from iranker_verl.errors import UserError
from iranker_verl.job.worked_answers import COLUMNS
from iranker_verl.training import supervised
from iranker_verl.training.checkpoints import lack_of
from iranker_verl.training.main import compose_recipe
from iranker_verl.training.metrics_log import read_metrics
from iranker_verl.training.shards import full_weights
from tests import tiny_models

ROOT = Path(__file__).parents[2]
ROWS = [("History: Alder\n[A] Birch\n[B] <|im_end|>", "[A]"), ("Query", "[B]"), ("Exclude the worst:", "[A] > [B]")] * 2


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("supervised")
    tiny_models.save(folder / "base")
    rows = [{"prompt": [{"role": "user", "content": text}], "response": answer} for text, answer in ROWS]
    pq.write_table(pa.Table.from_pylist(rows, COLUMNS), folder / "worked.parquet")
    return folder


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what a rank sets is taken back


def train(base: Path, name: str, steps: int, *overrides: str):
    config = compose_recipe(
        ROOT / "recipes" / "tiny_cpu" / "sft.yaml",
        [
            f"iranker.run_dir={base / name}",
            f"+actor_rollout_ref.model.path={base / 'base'}",
            f"trainer.total_training_steps={steps}",
            "trainer.save_freq=1",
            "data.train_batch_size=3",
            "data.max_response_length=16",
            *overrides,
        ],
    )
    supervised.run_rank(0, 1, 29653, OmegaConf.to_yaml(config, resolve=True), base / "worked.parquet")
    return config


def weights(config) -> dict[str, torch.Tensor]:
    folder = Path(config.trainer.default_local_dir) / f"global_step_{config.trainer.total_training_steps}"
    assert lack_of(folder, config) is None
    return full_weights(folder / "actor")


def cross_entropy(model: Path, rows: list[dict]) -> float:
    """The mean over all tokens of the responses and their ends, by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, found = AutoTokenizer.from_pretrained(model), []
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for row in rows:
        ids, answer = row["input_ids"], row["responses"]
        assert tokenizer.decode(answer).endswith("<|im_end|>")
        log_probs = network(ids[None]).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        found.append(-log_probs.gather(1, answer[:, None]))
    return float(torch.cat(found).mean())


@pytest.mark.parametrize("step", [1, 2])  # in a pass over the rows, and between two
def test_a_stopped_run_goes_on_to_the_weights_of_one_that_was_not(base: Path, step: int) -> None:
    whole = train(base, f"whole-{step}", 3)
    train(base, f"stopped-{step}", step)
    resumed = train(base, f"stopped-{step}", 3)
    expected, found = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    lines = [read_metrics(Path(c.iranker.run_dir, "metrics.jsonl")) for c in (whole, resumed)]
    assert [line["step"] for line in lines[1]] == [1, 2, 3]
    losses = [[line["verl/actor/loss"] for line in own] for own in lines]
    assert losses[0] == losses[1] and losses[0][2] < losses[0][0]


def test_the_loss_is_the_cross_entropy_of_responses_and_their_ends(base: Path) -> None:
    config = train(base, "loss", 1, "data.train_batch_size=6", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=128")
    from transformers import AutoTokenizer

    data = OmegaConf.create({"max_response_length": 16, "apply_chat_template_kwargs": {}})
    rows = supervised.WorkedAnswers(str(base / "worked.parquet"), AutoTokenizer.from_pretrained(base / "base"), data)
    [line] = read_metrics(Path(config.iranker.run_dir, "metrics.jsonl"))
    assert line["verl/actor/loss"] == pytest.approx(cross_entropy(base / "base", list(rows)), rel=1e-5)
    assert line["tokens/step"] == sum(len(row["input_ids"]) for row in rows)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.max_response_length=4", "row 2: its response has 10"),
        ("data.train_batch_size=7", "6 worked answers are fewer than data.train_batch_size=7"),
    ],
)
def test_what_cannot_be_taught_is_one_line(base: Path, override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        train(base, "refused", 1, override)
