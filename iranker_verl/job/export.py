"""A checkpoint of a run as a Hugging Face folder: merged, stamped with its template, with a model card, and checked.

``iranker train`` writes its last one to ``RUN/model``; ``iranker export`` writes any, and proves that it is the trained policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from iranker_verl.console import say
from iranker_verl.errors import UserError, first_line
from iranker_verl.evaluation.journal import of_system
from iranker_verl.evaluation.records import records_of
from iranker_verl.evaluation.systems import Role
from iranker_verl.files import locked, read_json, replacing_folder, write_json, write_text
from iranker_verl.inference.models import STAMP, Stamp, trained_with
from iranker_verl.job.model_card import model_card
from iranker_verl.job.starts import read_config
from iranker_verl.ranking import templates
from iranker_verl.training import checkpoints
from iranker_verl.training.credit import LABEL_ESTIMATORS
from iranker_verl.training.metrics_log import read_metrics as read_lines

CHECKS = ("transformers", "vllm")
EPISODES = 8  # that are ranked again
LEAST = 0.5  # share of these that has to come out alike: near ties may not, in another arithmetic


def export_run(
    run: Path, out: Path, step: str, check: str, license_name: str | None = None, log: Callable[[str], None] = print
) -> None:
    """Export a checkpoint of the run in the folder ``run`` to ``out``, and check it.

    Args:
        run: a folder of ``iranker train``.
        out: a new folder, or one that an export made.
        step: a number, ``last``, or ``best`` by validation MRR.
        check: what ranks stored episodes again, one of ``CHECKS``.
        license_name: of the model card; that of the base where it is None.
        log: gets lines of progress.

    Raises:
        UserError: where the run or the checkpoint is not there or not whole, or the exported model is not the trained policy.
    """
    if check not in CHECKS:
        raise UserError(f"--check {check}: one of {', '.join(CHECKS)}")
    config = read_config(run)
    config.trainer.default_local_dir = str(run / "checkpoints")  # the folder may have been moved
    config.iranker.run_dir = str(run)
    config.actor_rollout_ref.model.path = base_path(run)
    number = _step_of(config, run, step)
    with locked(out):
        export(config, run, out, number, license_name, log)
    prove(out, run, number, templates.load(config.iranker.template), check, log)


def _step_of(config: DictConfig, run: Path, step: str) -> int:
    whole = checkpoints.whole_steps(config)
    if not whole:
        raise UserError(f"{run / 'checkpoints'}: no whole checkpoint to export")
    found = {"last": whole[-1], "best": checkpoints.best(config, whole)} | {str(one): one for one in whole}
    if (number := found.get(step)) is None:
        raise UserError(
            f"--step {step}: none was validated (trainer.test_freq)"
            if step == "best"
            else f"--step {step}: the whole checkpoints are those of steps {', '.join(map(str, whole))}"
        )
    return number


def export(
    config: DictConfig,
    run: Path,
    out: Path,
    step: int,
    license_name: str | None = None,
    log: Callable[[str], None] = say,
) -> None:
    """Write the checkpoint of ``step`` to ``out``, in the precision of its base, with our stamp and a model card. Raise UserError."""
    from iranker_verl.training.shards import write_model

    folder = Path(config.trainer.default_local_dir)
    if not step:
        raise UserError(f"{folder}: no checkpoint, so nothing to export; train again from the start")
    template = templates.load(config.iranker.template)
    model = config.actor_rollout_ref.model
    with replacing_folder(out) as part:
        alpha = float(model.lora_alpha) if model.lora_rank else None
        write_model(folder / f"global_step_{step}" / "actor", part, base_dtype(Path(model.path)), alpha)
        constrained = answers_follow_a_prefix(part, config.algorithm.adv_estimator)
        stamp = Stamp(template.id, template.hash, config.data.max_response_length, constrained)
        write_json(part / STAMP, {**asdict(stamp), "step": step})
        (part / "README.md").write_text(model_card(config, run, step, stamp, license_name), encoding="utf-8")
    log(f"exported step {step} to {out}")


def write_card(config: DictConfig, run: Path) -> None:
    """Write the card of ``RUN/model`` again, once the run has results."""
    config = config.copy()
    config.actor_rollout_ref.model.path = base_path(run)
    model = run / "model"
    if (stamp := trained_with(model)) is not None and (step := _exported_step(model)) is not None:
        write_text(model / "README.md", model_card(config, run, step, stamp))


def base_path(run: Path) -> str:
    """Return the folder of the model that a run's reinforcement learning starts from."""
    return str(read_json(run / "base.json")["path"])


def _exported_step(model: Path) -> int | None:
    path = model / STAMP
    return read_json(path).get("step") if path.is_file() else None


def base_dtype(model: Path) -> str:
    """Return the precision that a model's ``config.json`` declares, e.g. ``bfloat16``; float32 where it declares none."""
    content = read_json(model / "config.json")
    return str(content.get("dtype") or content.get("torch_dtype") or "float32").removeprefix("torch.")


def answers_follow_a_prefix(model: Path, estimator: str) -> bool:
    """Return whether labels are several tokens and the policy learns what comes after their common beginning."""
    from iranker_verl.inference.engine import ChatTokenizer

    return estimator in LABEL_ESTIMATORS and bool(ChatTokenizer(model).labels(2).prefix)


def prove(
    out: Path, run: Path, step: int, template: templates.Template, check: str, log: Callable[[str], None] = print
) -> None:
    """Load the model in ``out`` and rank episodes again that the run's evaluation stored of the same step.

    Raise UserError where the model does not load, or fewer than half of the rankings are those of the trained policy. Where the
    run has stored no episodes of this step, only loading is shown, and said.
    """
    from iranker_verl.inference.episode import EpisodeOptions, run_episodes

    stamp = trained_with(out)
    assert stamp is not None
    stored = of_system(run, Role.AFTER)
    records = []
    if stored.is_file() and _exported_step(run / "model") == step:
        records = list(records_of(read_lines(stored), stored, Role.AFTER, template))
        records = records[:: max(1, len(records) // EPISODES)][:EPISODES]  # of all datasets
    options = EpisodeOptions(stamp.max_new_tokens or 16, constrained=stamp.constrained)

    async def rank() -> list[tuple[str, ...]]:
        async with _engine(out, check) as engine:
            episodes = await run_episodes([one.task for one in records], template, engine, options)
        return [episode.ranking for episode in episodes]

    rankings = asyncio.run(rank())
    if not records:
        log(f"{check} loads it; the run has stored no rankings of step {step} to compare with")
        return
    alike = sum(ranking == record.ranking for ranking, record in zip(rankings, records, strict=True))
    if alike < LEAST * len(records):
        raise UserError(
            f"{out}: {check} gives {alike} of {len(records)} stored rankings; this is not the trained policy"
        )
    log(f"{check} gives {alike} of {len(records)} stored rankings of the trained policy")


def _engine(model: Path, check: str) -> Any:
    if check == "vllm":
        from iranker_verl.inference.engine import Engine

        return Engine(model)
    from iranker_verl.inference.transformers_engine import TransformersEngine

    return TransformersEngine(model)


def push(folder: Path, name: str) -> str:
    """Upload an exported folder to the Hugging Face hub as the private repository ``name``; return its address. Raise UserError."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, ignore_patterns=[".iranker"]))
    except Exception as error:  # whatever the hub's client raises
        raise UserError(f"--push {name}: {first_line(error)}; log in with `hf auth login`") from error
