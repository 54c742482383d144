"""The paper's eight tasks as lm-eval defines them, with data from the Hub (or its cache) or from a folder.

A folder has a folder for each task, and in it a file for each split, ``<split>.parquet``, ``.jsonl`` or ``.json``, or its
shards (``<split>-00000-of-00002.parquet``), somewhere below; columns are those of the data set on the Hub. Where that has
several configurations (``main``, a subject of MMLU), they are folders in between. So ``DIR/gsm8k`` may simply be a
download of ``openai/gsm8k``::

    DIR/gsm8k/main/train-00000-of-00001.parquet, test-….parquet      DIR/openbookqa/main/test.jsonl
    DIR/mmlu/anatomy/test.parquet, …                                 DIR/hellaswag/data/validation-….parquet
    DIR/ifeval/train.jsonl      DIR/mathqa/test.parquet      DIR/mbpp/full/test.parquet      DIR/humaneval/test.parquet
    DIR/nltk_data/tokenizers/punkt_tab/…     what IFEval counts words and sentences with
    DIR/code_eval/code_eval.py, execute.py   what runs MBPP's and HumanEval's programs (Hub space evaluate-metric/code_eval)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from iranker_verl.errors import UserError
from iranker_verl.files import write_text

# name: folder of its definition below lm_eval/tasks
TASKS = {
    "gsm8k": "gsm8k",
    "ifeval": "ifeval",
    "mmlu": "mmlu/default",
    "mbpp": "mbpp",
    "humaneval": "humaneval",
    "openbookqa": "openbookqa",
    "hellaswag": "hellaswag",
    "mathqa": "mathqa",
}
RUNS_CODE = ("mbpp", "humaneval")
LOADERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


class Unavailable(Exception):
    """A task cannot be evaluated here, with the reason in one line."""


def choose_tasks(text: str | None, allow_code: bool) -> list[str]:
    """Return the tasks of a comma-separated list (None: all), in its order.

    Raise UserError for an unknown one, one named twice, and one that runs a model's programs without ``allow_code``.
    """
    names = list(TASKS) if text is None else [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in TASKS]:
        raise UserError(f"--tasks {unknown[0]}: no such task; there are {', '.join(TASKS)}")
    if not names or len(set(names)) < len(names):
        raise UserError(f"--tasks {text}: name one task or more, each once, e.g. --tasks gsm8k,openbookqa")
    if not allow_code and (running := [name for name in names if name in RUNS_CODE]):
        raise UserError(
            f"{' and '.join(running)} run programs that a model wrote, on this machine and with your rights; "
            "add --allow-code-execution (in a container, better), or leave them out of --tasks"
        )
    return names


def task_manager(name: str, data: Path | None, work: Path) -> Any:
    """Return lm-eval's TaskManager with this task only; with ``data``, its data is read from that folder.

    Raise Unavailable where the folder lacks a split that is needed. ``work`` gets definitions that include lm-eval's own
    and change only where the data comes from.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    defined = Path(lm_eval.__file__).parent / "tasks" / TASKS[name]
    known = TaskManager(include_path=defined, include_defaults=False)
    if data is None:
        return known
    here = work / name
    here.mkdir(parents=True, exist_ok=True)
    for leaf in leaves(name, known.task_index):
        entry = known.task_index[leaf]
        own = {"include": str(entry.yaml_path), **with_data_folder(name, entry.cfg or {}, data)}
        write_text(here / f"{leaf}.yaml", yaml.safe_dump(own, sort_keys=False))
    return TaskManager(include_path=[defined, here], include_defaults=False)


def leaves(name: str, index: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tasks without parts below a task, a group or a tag of lm-eval's index."""
    entry = index[name]
    parts = sorted(entry.tags) if entry.kind.name == "TAG" else (entry.cfg or {}).get("task")
    if entry.kind.name not in ("TAG", "GROUP"):
        yield name
    else:
        for part in parts or ():
            yield from leaves(part, index)


def with_data_folder(name: str, definition: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """Return the changes of a definition of lm-eval's by which its data is read from the folder ``data``.

    Raise Unavailable where the split that is tested on, or that examples come from, is missing. Other missing splits are
    unset, so that lm-eval does not read them.
    """
    folder = data / name
    if definition.get("dataset_name") and (folder / definition["dataset_name"]).is_dir():
        folder = folder / definition["dataset_name"]
    keys = ("training_split", "validation_split", "test_split", "fewshot_split")
    splits = {key: definition[key] for key in keys if definition.get(key)}
    files = {split: split_files(folder, split) for split in {*splits.values()}}
    for split in needed_splits(definition):
        if not files.get(split):
            raise Unavailable(f"{folder}: no {split}.parquet, {split}.jsonl or {split}.json, nor shards of it")
    files = {split: found for split, found in sorted(files.items()) if found}
    loaders = {LOADERS[path.suffix] for found in files.values() for path in found}
    if len(loaders) > 1:
        raise UserError(f"{folder}: Parquet and JSON files are mixed; give all splits in one format")
    return {
        "dataset_path": loaders.pop(),
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: [str(p.resolve()) for p in found] for split, found in files.items()}},
    } | {key: None for key, split in splits.items() if split not in files}


def needed_splits(definition: Mapping[str, Any]) -> list[str]:
    """Return the splits that lm-eval reads: the one it tests on, and the one of the examples where there are any."""
    tested = definition.get("test_split") or definition["validation_split"]
    examples = definition.get("fewshot_split") or definition.get("training_split")
    given = (definition.get("fewshot_config") or {}).get("samples")
    return [tested, *([examples] if definition.get("num_fewshot") and examples and not given else [])]


def split_files(folder: Path, split: str) -> list[Path]:
    """Return the files of a split below a folder: named by the split, or by the split and a shard's number."""
    return sorted(
        path
        for path in folder.rglob(f"{split}*")
        if path.suffix in LOADERS and path.is_file() and (path.stem == split or path.stem.startswith(f"{split}-"))
    )


def load_task(name: str, data: Path | None, work: Path) -> tuple[Any, Any]:
    """Return lm-eval's ``(task or group, manager)`` with its data read.

    Raise Unavailable, with the reason, for anything that is missing, so that it is found before a model is loaded.
    """
    try:
        known = task_manager(name, data, work)
        loaded = known.load([name])
        if name == "ifeval":
            import nltk

            nltk.data.find("tokenizers/punkt_tab")
    except (Unavailable, UserError):
        raise
    except Exception as error:  # whatever a library says to missing data, files or network
        raise Unavailable(_one_line(error)) from error
    return loaded["groups"].get(name) or loaded["tasks"][name], known


def data_hash(name: str, data: Path | None) -> str | None:
    """Return 16 hex digits of SHA-256 over names and contents of a task's files in the folder; None where it has none."""
    if data is None or not (data / name).is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(p for p in (data / name).rglob("*") if p.suffix in LOADERS and p.is_file()):
        digest.update(path.relative_to(data).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _one_line(error: BaseException) -> str:
    """Return an error's message in one line for a table."""
    text = " ".join(word for line in str(error).splitlines() if (word := line.strip(" *")))
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
