"""The model card of an exported model: what it is, what it was made of, and what it reached."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from iranker_verl.files import read_json
from iranker_verl.inference.models import STAMP, Stamp, model_hash
from iranker_verl.training.metrics_log import read_metrics

UNKNOWN = "other"  # the hub's word for a licence that is not in its list
SETTINGS = {
    "estimator": "algorithm.adv_estimator",
    "tasks a step": "data.train_batch_size",
    "rollouts a task": "actor_rollout_ref.rollout.n",
    "temperature": "actor_rollout_ref.rollout.temperature",
    "learning rate": "actor_rollout_ref.actor.optim.lr",
    "LoRA rank": "actor_rollout_ref.model.lora_rank",
    "seed": "iranker.seed",
}


def model_card(config: DictConfig, run: Path, step: int, stamp: Stamp, license_name: str | None = None) -> str:
    """Return the card (Markdown, with the hub's front matter) of the checkpoint of ``step``, from the files of its run."""
    base = Path(config.actor_rollout_ref.model.path)
    manifest, results = _read(run / "data" / "manifest.json"), _read(run / "results.json")
    name = license_name or base_license(base) or UNKNOWN
    lines = ["---", f"license: {name}", "library_name: transformers", "pipeline_tag: text-generation"]
    lines += ["tags: [iranker, verl, ranking]", "---", "", f"# {config.trainer.experiment_name}, step {step}", ""]
    lines += [
        "Ranks candidates by iterative elimination: asked which of them to exclude, until one is left.",
        "",
        "## Use",
        "",
    ]
    lines += ["    iranker rank --help     # or iranker serve --model THIS_FOLDER", ""]
    lines += [
        f"Prompts have to be those of template `{stamp.template_id}` (hash `{stamp.template_hash}`, also in `{STAMP}`)."
    ]
    if stamp.constrained:
        lines += ["Answers are constrained to labels: it was trained on what follows their common beginning."]
    lines += ["", "## Made of", "", "| | |", "|---|---|"]
    lines += [f"| {what} | {value} |" for what, value in _made_of(config, run, base, manifest)]
    lines += ["", "## Numbers", "", *_numbers(run, step, results), "", "## Licence", ""]
    lines += [f"`{name}`" + (", as its base says." if not license_name and name != UNKNOWN else ".")]
    lines += ["The licences of the base and of the data apply as well; whoever publishes this has to check them.", ""]
    return "\n".join(lines)


def base_license(base: Path) -> str | None:
    """Return the licence that the base's model card names in its front matter; None where it names none."""
    card = base / "README.md"
    if card.is_file():
        head = card.read_text(encoding="utf-8", errors="replace").partition("\n---")[0]
        for line in head.splitlines():
            if line.startswith("license:"):
                return line.partition(":")[2].strip().strip("\"'") or None
    return None


def _made_of(config: DictConfig, run: Path, base: Path, manifest: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    from omegaconf import OmegaConf

    yield "base", f"{base.name}, hash `{model_hash(base)}`"
    datasets = manifest.get("datasets") or {}
    yield "data", f"{', '.join(datasets)}; hash `{manifest.get('data_hash')}`"
    for what, option in SETTINGS.items():
        if value := OmegaConf.select(config, option):
            yield what, value
    yield "settings", f"hash `{_read(run / 'run.json').get('hash')}`"
    yield (
        "versions",
        ", ".join(f"{name} {version}" for name, version in (_read(run / "results.json").get("versions") or {}).items()),
    )


def _numbers(run: Path, step: int, results: dict[str, Any]) -> Iterator[str]:
    """Yield MRR of the test where the evaluated model is of this step, else that of its validation."""
    if results.get("rl_steps") == step:
        yield "Test tasks, mean over datasets; 95 % intervals by bootstrap over queries; one training run."
        yield ""
        yield "| system | MRR | nDCG@10 |"
        yield "|---|---|---|"
        for system, found in results["macro"].items():
            low, high = found["ci95"]
            yield f"| {system} | {found['rr']:.3f} ({low:.3f} to {high:.3f}) | {found['ndcg@10']:.3f} |"
        return
    line = next((one for one in read_metrics(run / "metrics.jsonl") if one["step"] == step), {})
    if (mrr := line.get("val/mrr")) is not None:
        yield f"Validation MRR, mean over datasets: {mrr:.3f}. The test tasks were not ranked with this step."
    else:
        yield "This step was not evaluated."


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
