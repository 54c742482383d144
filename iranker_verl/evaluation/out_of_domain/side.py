"""Evaluate one model on the tasks by lm-eval: ``python -m iranker_verl.evaluation.out_of_domain.side OUT base|trained``.

It reads ``OUT/settings.json`` and writes ``OUT/<side>/<task>.json`` whenever a task is completed. A file holds the
questions' hashes and each metric's sums and counts, one a question; or the reason why the task is unavailable.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iranker_verl.console import say
from iranker_verl.errors import UserError
from iranker_verl.evaluation.out_of_domain.tasks import Unavailable, load_task
from iranker_verl.files import read_json, write_json

BACKENDS = ("vllm", "hf")
HF_BATCH = 8  # on a CPU; a GPU finds its own


def evaluate_side(out: Path, side: str) -> None:
    """Evaluate every task of the settings that is not completed. An unavailable task is recorded and skipped."""
    settings = read_json(out / "settings.json")
    data = Path(settings["data_folder"]) if settings["data_folder"] else None
    if data and settings["allow_code_execution"] and (data / "code_eval" / "code_eval.py").is_file():
        os.chdir(data)  # evaluate.load("code_eval"), which lm-eval calls, looks here first
    (out / side).mkdir(parents=True, exist_ok=True)
    pending = {}
    for name in settings["tasks"]:
        if (completed := read_task_result(out, side, name)) and "unavailable" not in completed:
            say(f"{name}: completed before")
            continue
        try:
            pending[name] = load_task(name, data, out / "tasks")
        except Unavailable as reason:
            say(f"{name}: unavailable, {reason}")
            write_json(out / side / f"{name}.json", {"unavailable": str(reason)})
    if not pending:
        return
    model = Path(settings["models"][side]["path"])
    say(f"loading {model.name} ({settings['backend']})")
    lm = load_language_model(settings["backend"], model, settings["max_model_len"], settings["seed"])
    for name, (task, manager) in pending.items():
        result = evaluate_task(lm, name, task, manager, settings)
        write_json(out / side / f"{name}.json", result)
        metric, first = next(iter(result["metrics"].items()))
        say(f"{name}: {metric} {sum(first['sums']) / sum(first['counts']):.4f} ({len(result['questions'])} questions)")


def read_task_result(out: Path, side: str, name: str) -> dict[str, Any] | None:
    """Return what is kept of a task; None where there is nothing yet."""
    path = out / side / f"{name}.json"
    return read_json(path) if path.exists() else None


def load_language_model(backend: str, model: Path, max_model_len: int | None, seed: int) -> Any:
    """Return lm-eval's model class on a model folder, with the vLLM settings of :mod:`iranker_verl.inference`."""
    import torch

    cpu = not torch.cuda.is_available()
    if backend == "hf":
        from lm_eval.models.huggingface import HFLM

        return HFLM(
            pretrained=str(model),
            dtype="float32" if cpu else "auto",
            device="cpu" if cpu else "cuda",
            batch_size=HF_BATCH if cpu else "auto",
            max_length=max_model_len,
        )
    from iranker_verl.inference.engine import MAX_NUM_SEQS, engine_settings
    from iranker_verl.vllm_cpu import vllm_distribution_name

    vllm_distribution_name()
    from lm_eval.models.vllm_causallms import VLLM

    arguments = engine_settings(model, max_model_len=max_model_len, max_num_seqs=MAX_NUM_SEQS, seed=seed, cpu=cpu)
    return VLLM(pretrained=arguments.pop("model"), batch_size="auto", **arguments)


def evaluate_task(lm: Any, name: str, task: Any, manager: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate one task with lm-eval's own number of examples; return what of it is kept."""
    import lm_eval

    seed = settings["seed"]
    with collected_truncations() as truncated:
        results = lm_eval.simple_evaluate(
            model=lm,
            tasks=[task],
            task_manager=manager,
            limit=settings["limit"],
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=settings["chat_template"]["applied"],
            fewshot_as_multiturn=settings["chat_template"]["fewshot_as_multiturn"],
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            confirm_run_unsafe_code=settings["allow_code_execution"],
        )
    kept = values_by_question(results["samples"])
    for metric, values in kept["metrics"].items():
        ours, theirs = sum(values["sums"]) / sum(values["counts"]), results["results"][name].get(metric)
        if theirs is None or abs(ours - theirs) > 1e-6:
            raise RuntimeError(f"{name} {metric}: its questions give {ours}, lm-eval says {theirs}")
    shots = {results["n-shot"][leaf] for leaf in results["samples"]}
    return {
        "fewshot": shots.pop() if len(shots) == 1 else sorted(shots),
        "version": results["versions"].get(name),
        "truncation_warnings": len(truncated),
        **kept,
    }


def values_by_question(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return ``{"questions": [hash], "metrics": {"metric,filter": {"sums": […], "counts": […]}}}`` of lm-eval's samples.

    A question's value is a number, or a list of them (IFEval's instructions).
    """
    hashes: dict[str, list[str]] = defaultdict(list)
    metrics: dict[str, dict[str, list[float]]] = {}
    for leaf in sorted(samples):
        for sample in samples[leaf]:
            hashes[sample["filter"]].append(f"{leaf}:{sample['doc_id']}:{sample['doc_hash'][:16]}")
            for metric in sample["metrics"]:
                value = sample[metric]
                values = [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)]
                kept = metrics.setdefault(f"{metric},{sample['filter']}", {"sums": [], "counts": []})
                kept["sums"].append(sum(values))
                kept["counts"].append(len(values))
    first, *others = hashes.values()
    assert all(other == first for other in others)  # every filter sees every question
    return {"questions": first, "metrics": metrics}


@contextmanager
def collected_truncations() -> Iterator[list[str]]:
    """Collect lm-eval's warnings that it cut a prompt (vLLM: one a prompt; hf: one a batch)."""
    found: list[str] = []

    class Counter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "truncat" in (message := record.getMessage().lower()):
                found.append(message)

    handler = Counter(logging.WARNING)
    logger = logging.getLogger("lm_eval")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def main() -> None:
    """Run the module's command line."""
    try:
        evaluate_side(Path(sys.argv[1]), sys.argv[2])
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
