"""A checkpoint as a Hugging Face folder that anyone can load, with its card, and its proof."""

import asyncio
import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("verl")

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from iranker_verl.cli import app
from iranker_verl.errors import UserError
from iranker_verl.evaluation.metrics import measure
from iranker_verl.evaluation.records import Record
from iranker_verl.files import mark
from iranker_verl.inference.engine import Generation
from iranker_verl.inference.episode import EpisodeOptions, run_episodes
from iranker_verl.inference.ranker import AsyncRanker
from iranker_verl.inference.transformers_engine import TransformersEngine
from iranker_verl.job import export as exporting
from iranker_verl.job.export import export, export_run
from iranker_verl.job.model_card import base_license
from iranker_verl.ranking import templates
from tests import tiny_models
from tests.evaluation.synthetic import make_tasks, play_as


def declare(model, dtype):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"dtype": dtype}))


def trained(run, dtype="float32", estimator="exclusion_grpo", step=3):
    """A run with a checkpoint of one rank, whose tensors are plain; return its config and the trained model's folder."""
    base, actor = run / "base", run / "checkpoints" / f"global_step_{step}" / "actor"
    if not base.is_dir():
        declare(tiny_models.save(base), dtype)
        (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\nlicense: mine\n")
        (run / "base.json").write_text(json.dumps({"path": str(base)}))
        mark(run)
    (actor / "huggingface").mkdir(parents=True)
    model = tiny_models.save_saying(run / f"trained-{step}", "[")
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).state_dict()
    torch.save(weights, actor / "model_world_size_1_rank_0.pt")
    for part in ("optim", "extra_state"):
        torch.save({}, actor / f"{part}_world_size_1_rank_0.pt")
    torch.save({}, actor.parent / "data.pt")
    (actor / "fsdp_config.json").write_text('{"world_size": 1, "FSDP_version": 2}')
    for file in model.iterdir():
        if file.suffix != ".safetensors":
            (actor / "huggingface" / file.name).write_bytes(file.read_bytes())
    declare(actor / "huggingface", "bfloat16")  # as verl writes, whatever the weights are
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(step))
    parts = {"save_contents": ["model", "optimizer", "extra"], "load_contents": ["model", "optimizer", "extra"]}
    config = OmegaConf.create(
        {
            "iranker": {
                "template": "label",
                "run_dir": str(run),
                "seed": 1,
            },
            "algorithm": {"adv_estimator": estimator},
            "data": {"max_response_length": 4, "train_batch_size": 8},
            "trainer": {
                "default_local_dir": str(run / "checkpoints"),
                "experiment_name": "mine",
                "total_training_steps": 9,
            },
            "actor_rollout_ref": {
                "actor": {"checkpoint": parts, "strategy": "fsdp2", "optim": {"lr": 0.1}},
                "model": {"path": str(base), "lora_rank": 0},
                "rollout": {"n": 1, "temperature": 1.0},
            },
            "critic": {"enable": False},
        }
    )
    OmegaConf.save(config, run / "config.yaml")
    return config, model


def test_where_nothing_was_saved_there_is_nothing_to_export(tmp_path):
    config, _ = trained(tmp_path)
    with pytest.raises(UserError, match="no checkpoint"):
        export(config, tmp_path, tmp_path / "model", 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_loads_in_the_precision_of_its_base(tmp_path, dtype):
    config, saved = trained(tmp_path, dtype)
    export(config, tmp_path, tmp_path / "model", 3)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert model.dtype == getattr(torch, dtype)
    wanted = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32).state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, wanted[name].to(weight.dtype))


def test_it_says_what_it_was_trained_with(tmp_path):
    config, _ = trained(tmp_path)
    export(config, tmp_path, tmp_path / "model", 3)
    stamp = json.loads((tmp_path / "model" / "iranker.json").read_text())
    assert (stamp["template_id"], stamp["step"], stamp["max_new_tokens"]) == ("label", 3, 4)
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n") and "as its base says" in card
    for words in (stamp["template_hash"], "| learning rate | 0.1 |", "step 3", "This step was not evaluated"):
        assert words in card


@pytest.mark.parametrize(("estimator", "constrained"), [("exclusion_grpo", False), ("exclusion_expected", True)])
def test_one_that_learned_what_follows_the_beginning_of_a_label_is_ranked_with_so(tmp_path, estimator, constrained):
    config, _ = trained(tmp_path, estimator=estimator)
    export(config, tmp_path, tmp_path / "model", 3)
    assert AsyncRanker(tmp_path / "model").constrained is constrained


class Answers:
    """An engine that always excludes the first candidate."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def ask(self, messages, max_new_tokens, temperature=0.0):
        assert max_new_tokens == 4
        return Generation("[A]", (1,), 9)


@pytest.mark.parametrize(("known", "accepted"), [(8, True), (4, True), (3, False)])
def test_it_has_to_give_the_rankings_that_the_run_stored(tmp_path, monkeypatch, known, accepted):
    config, _ = trained(tmp_path)
    export(config, tmp_path, tmp_path / "model", 3)  # as the job does, which then evaluates it
    tasks = make_tasks(n=4)
    label = templates.load("label")
    mine = asyncio.run(run_episodes(tasks, label, Answers(), EpisodeOptions(4)))
    others = [record.episode for record in play_as("after", tasks, knows=1.0).records]
    episodes = [*mine[:known], *others[known:]]
    assert all(one.ranking != other.ranking for one, other in zip(mine, others, strict=True))
    values = measure(tasks, [episode.ranking for episode in episodes])
    lines = [Record(t, e.ranking, v, e).to_json() for t, e, v in zip(tasks, episodes, values, strict=True)]
    (tmp_path / "episodes-after.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(exporting, "_engine", lambda model, check: Answers())
    log = []
    if accepted:
        export_run(tmp_path, tmp_path / "out", "last", "vllm", log=log.append)
        assert log[-1] == f"vllm gives {known} of 8 stored rankings of the trained policy"
    else:
        with pytest.raises(UserError, match="3 of 8 stored rankings; this is not the trained policy"):
            export_run(tmp_path, tmp_path / "out", "last", "vllm")


def test_transformers_answers_greedily_and_with_the_likeliest_label(tmp_path):
    engine = TransformersEngine(tiny_models.save_saying(tmp_path, "["))
    messages = [{"role": "user", "content": "which?"}]
    answer = asyncio.run(engine.ask(messages, 5))
    assert answer.text == "[" and answer.prompt_tokens == len(engine.tokenizer.encode(messages))
    order, cost = asyncio.run(engine.rank_labels(messages, 3))
    assert sorted(order) == [0, 1, 2] and cost.new_tokens == 1


def test_weights_that_are_not_all_there_are_refused(tmp_path):
    model = tiny_models.save(tmp_path)
    weights = load_file(model / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 missing keys of weights, e.g. model.norm.weight"):
        TransformersEngine(model)


def test_a_run_without_a_checkpoint_and_a_step_that_is_none_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no config.yaml"):
        export_run(tmp_path, tmp_path / "out", "last", "transformers")
    trained(tmp_path)
    for step, words in (("4", "whole checkpoints are those of steps 3"), ("best", "none was validated")):
        with pytest.raises(UserError, match=words):
            export_run(tmp_path, tmp_path / "out", step, "transformers")
    with pytest.raises(UserError, match="--check onnx: one of transformers, vllm"):
        export_run(tmp_path, tmp_path / "out", "last", "onnx")


def test_what_the_user_has_in_the_folder_stays(tmp_path):
    trained(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"thesis.tex, which iranker did not make"):
        export_run(tmp_path, tmp_path / "out", "last", "transformers")


def test_the_best_by_validation(tmp_path):
    for step in (3, 6):
        trained(tmp_path, step=step)
    lines = [{"step": 3, "val/mrr": 0.75}, {"step": 6, "val/mrr": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = CliRunner().invoke(app, ["export", str(tmp_path), "--step", "best", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "iranker.json").read_text())["step"] == 3
    assert "no rankings of step 3 to compare with" in done.output
    assert "Validation MRR, mean over datasets: 0.750" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("card", "name"), [("---\nlicense: mit\n---", "mit"), ("license: mit", "mit"), ("# no", None), (None, None)]
)
def test_the_licence_of_a_base(tmp_path, card, name):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert base_license(tmp_path) == name
