"""What a line of ``trainer.rollout_data_dir`` says beside verl's own fields: the prompt of each response, under ``ranking``.

``iranker cot collect`` reads these files: verl writes ``<step>.jsonl`` with ``input``, ``output``, ``score`` and ``gts`` of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iranker_verl.training.step_record import StepRecord


def ranking_field(step: StepRecord, extra_info: Mapping[str, Any], ground_truth: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task, the texts of the prompt candidates in order, and the template of a step.

    ``extra_info`` and ``ground_truth`` are those of the prepared row (:mod:`data_prep.schema`).
    """
    texts = dict(zip(extra_info["candidate_ids"], ground_truth["candidates"], strict=True))
    return {
        "dataset": step.dataset,
        **{name: extra_info[name] for name in ("task_id", "scenario", "group", "context")},
        "candidates": [texts[id] for id in step.candidate_ids],
        **{name: extra_info[name] for name in ("template_id", "template_hash")},
    }


def whole_answers(inputs: Sequence[str], outputs: Sequence[str], prefix: str) -> tuple[list[str], list[str]]:
    """Return prompts and responses in which ``prefix``, what all labels begin with, is in the response and not in the prompt.

    The agent loop puts it at the end of the prompt where a tokenizer has no single token for a label.

    >>> whole_answers(["Exclude: ["], ["A]"], "[")
    (['Exclude: '], ['[A]'])
    """
    begun = [prefix if prefix and given.endswith(prefix) else "" for given in inputs]
    return (
        [given.removesuffix(own) for given, own in zip(inputs, begun, strict=True)],
        [own + answer for answer, own in zip(outputs, begun, strict=True)],
    )


def real_rows(
    columns: Sequence[Sequence[Any]], keys: Sequence[str], ranking: Mapping[str, dict[str, Any]]
) -> tuple[list[list[Any]], dict[str, list[Any]]]:
    """Return ``columns`` without padding rows, and the extra columns ``uid`` and ``ranking``.

    ``keys`` are the rows' keys; those of padding rows are not in ``ranking``, by key.
    """
    real = [i for i, key in enumerate(keys) if key in ranking]
    extra: dict[str, list[Any]] = {"uid": [keys[i] for i in real], "ranking": [ranking[keys[i]] for i in real]}
    return [[column[i] for i in real] for column in columns], extra
