"""`iranker evaluate-out-of-domain`: evaluate the base and the trained model, one after the other in their own processes.

``OUT/out_of_domain.json``:

``tasks.<task>``
    ``base``, ``trained``, ``difference``; ``stderr`` of the difference, paired by question; ``base_stderr``,
    ``trained_stderr``; ``n`` questions; ``metric`` ("name,filter" as lm-eval writes it, the first that it lists; all are in
    ``metrics``); ``fewshot`` examples and ``version`` as lm-eval defines the task; ``truncation_warnings`` [base, trained]
``unavailable.<task>``
    the reason why there is no number
``models.base|trained``, ``backend``, ``chat_template`` {``applied``, ``hash``, ``fewshot_as_multiturn``}, ``seed``,
``limit``, ``max_model_len``, ``data`` {task: hash of its files, null from the Hub}, ``versions``
    what it was made of
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from iranker_verl import provenance, vllm_cpu
from iranker_verl.errors import UserError
from iranker_verl.evaluation.out_of_domain import compare, side, tasks
from iranker_verl.files import claimed, read_json, write_json
from iranker_verl.inference.engine import check_model
from iranker_verl.inference.models import model_hash
from iranker_verl.job import supervise

SIDES = ("base", "trained")
RESULTS = "out_of_domain.json"
RESUME = "Run the same command again to resume with the next task"
# Settings that may change between two calls that add to one folder.
FREE = ("tasks", "data", "data_folder", "allow_code_execution")


def evaluate_out_of_domain(
    base: Path,
    trained: Path,
    names: Sequence[str],
    out: Path,
    *,
    backend: str = "vllm",
    chat_template: bool = False,
    data_folder: Path | None = None,
    allow_code_execution: bool = False,
    limit: int | None = None,
    max_model_len: int | None = None,
    seed: int = 1,
    log: Callable[[str], None] = print,
) -> Path:
    """Evaluate both models on the tasks that are not completed in ``out``; return the path of the results.

    Raise UserError for a mistake, for results of other settings in ``out``, and where no task is available.
    """
    try:
        version("lm_eval")
    except PackageNotFoundError as error:
        raise UserError("lm-eval is not installed; pip install 'iranker-verl[generic]'") from error
    if backend not in side.BACKENDS:
        raise UserError(f"--backend {backend}: one of {', '.join(side.BACKENDS)}")
    if data_folder is not None and not data_folder.is_dir():
        raise UserError(f"--data-folder {data_folder}: no such folder")
    models = {"base": _path_and_hash(base), "trained": _path_and_hash(trained)}
    settings = {
        "tasks": list(names),
        "models": models,
        "backend": backend,
        "chat_template": _chat_template(models, chat_template),
        "seed": seed,
        "limit": limit,
        "max_model_len": max_model_len,
        "data_folder": str(data_folder.resolve()) if data_folder else None,
        "data": {name: tasks.data_hash(name, data_folder) for name in names},
        "allow_code_execution": allow_code_execution,
        "versions": _versions(),
    }
    out = out.resolve()
    with claimed(out):
        _check_same(settings, out)
        write_json(out / "settings.json", settings)
        for name in SIDES:
            command = [sys.executable, "-P", "-m", "iranker_verl.evaluation.out_of_domain.side", str(out), name]
            supervise.run(
                name, command, out / "logs" / f"{name}.log", hint=lambda: RESUME, env=environment(settings, out)
            )
        results = collect_results(settings, out)
        write_json(out / RESULTS, results)
    for line in compare.format_lines(results):
        log(line)
    if not results["tasks"]:
        raise UserError(f"no task is available; {out / RESULTS} has the reasons")
    return out / RESULTS


def collect_results(settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return the results from the files of both models in ``out``."""
    completed: dict[str, Any] = {}
    unavailable: dict[str, str] = {}
    for name in settings["tasks"]:
        both = [side.read_task_result(out, one, name) or {"unavailable": "not evaluated"} for one in SIDES]
        if reasons := [one["unavailable"] for one in both if "unavailable" in one]:
            unavailable[name] = reasons[0]
        else:
            completed[name] = compare.compare_models(*both)
    made_of = {k: v for k, v in settings.items() if k not in ("tasks", "data_folder", "allow_code_execution")}
    return {"tasks": completed, "unavailable": unavailable, **made_of}


def environment(settings: dict[str, Any], out: Path) -> dict[str, str]:
    """Return the environment of a model's process. A user's own values win, except for HF_ALLOW_CODE_EVAL."""
    defaults = {
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if on_cpu():
        defaults |= vllm_cpu.ENVIRONMENT | vllm_cpu.THREADS
    if folder := settings["data_folder"]:  # it is the only source then: nothing is fetched
        defaults |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"), "1")
        defaults |= {"HF_DATASETS_CACHE": str(out / "cache"), "NLTK_DATA": f"{folder}/nltk_data"}
    return defaults | dict(os.environ) | {"HF_ALLOW_CODE_EVAL": str(int(settings["allow_code_execution"]))}


def on_cpu() -> bool:
    """Return whether torch finds no GPU."""
    import torch

    return not torch.cuda.is_available()


def _path_and_hash(folder: Path) -> dict[str, str]:
    check_model(folder)
    return {"path": str(folder.resolve()), "hash": model_hash(folder)}


def _chat_template(models: dict[str, dict[str, str]], applied: bool) -> dict[str, Any]:
    """Whether a chat template is applied, and its hash. UserError where a model has none, or the two differ."""
    if not applied:
        return {"applied": False, "hash": None, "fewshot_as_multiturn": False}
    from transformers import AutoTokenizer

    hashes = {}
    for name, model in models.items():
        template = AutoTokenizer.from_pretrained(model["path"], local_files_only=True).chat_template
        if not template:
            raise UserError(f"{model['path']}: its tokenizer has no chat template; leave out --chat-template")
        hashes[name] = hashlib.sha256(str(template).encode()).hexdigest()[:16]
    if hashes["base"] != hashes["trained"]:
        raise UserError(
            f"the models have different chat templates ({hashes['base']} and {hashes['trained']}), so their results would "
            "not tell training from template; give both one, or leave out --chat-template"
        )
    return {"applied": True, "hash": hashes["base"], "fewshot_as_multiturn": True}


def _versions() -> dict[str, str]:
    return provenance.versions() | {name: version(name) for name in ("lm_eval", "datasets")}


def _check_same(settings: dict[str, Any], out: Path) -> None:
    """UserError where ``out`` holds results of other models, settings or data."""
    path = out / "settings.json"
    if not path.exists():
        return
    before = read_json(path)
    kept = [
        n for n in settings["tasks"] if any("metrics" in (side.read_task_result(out, one, n) or {}) for one in SIDES)
    ]

    def made_of(of: dict[str, Any]) -> dict[str, Any]:
        bound = {key: of.get(key) for key in settings if key not in FREE}
        return bound | {f"data of {name}": of["data"].get(name) for name in kept}

    provenance.require_same(made_of(before), made_of(settings), f"{out} holds results", "choose another --out")
