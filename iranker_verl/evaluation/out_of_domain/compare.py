"""Compare two models on the same questions: the difference and its standard error.

A question's value is a sum over a count: 1 or 0 over 1, or for IFEval's instruction-level accuracy the instructions followed
over those given. A score is the sum of sums over the sum of counts, as in lm-eval. Its standard error treats questions as
drawn at random (a ratio estimator: with counts of 1 it is the usual s/√n). The standard error of the difference is that of
the questions' differences, so a question's difficulty for both models does not count as noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def ratio(sums: Sequence[float], counts: Sequence[float]) -> tuple[float, float | None]:
    """Return ``(value, standard error)`` of sums over counts, one of each a question; None for a single question's error.

    value r = Σs/Σc; standard error = √(n/(n−1) · Σ(s − r·c)²) / Σc.
    """
    n, total = len(sums), math.fsum(counts)
    value = math.fsum(sums) / total
    if n < 2:
        return value, None
    spread = math.fsum((s - value * c) ** 2 for s, c in zip(sums, counts, strict=True))
    return value, math.sqrt(n / (n - 1) * spread) / total


def compare_models(base: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return one task of the results from what :mod:`.side` kept of it for each model.

    The first of lm-eval's metrics stands for the task; all are in ``metrics``. Raise ValueError where the two did not
    answer the same questions.
    """
    if base["questions"] != trained["questions"] or base["fewshot"] != trained["fewshot"]:
        raise ValueError("base and trained did not answer the same questions in the same order")
    metrics = {}
    for name, first in base["metrics"].items():
        second = trained["metrics"][name]
        if first["counts"] != second["counts"]:
            raise ValueError(f"{name}: base and trained were not judged on as many things in each question")
        before, before_error = ratio(first["sums"], first["counts"])
        after, after_error = ratio(second["sums"], second["counts"])
        gains = [b - a for a, b in zip(first["sums"], second["sums"], strict=True)]
        difference, error = ratio(gains, first["counts"])
        metrics[name] = {
            "base": before,
            "trained": after,
            "difference": difference,
            "stderr": error,
            "base_stderr": before_error,
            "trained_stderr": after_error,
            "n": len(gains),
        }
    metric = next(iter(metrics))
    return {
        **metrics[metric],
        "metric": metric,
        "fewshot": base["fewshot"],
        "version": base["version"],
        "truncation_warnings": [base["truncation_warnings"], trained["truncation_warnings"]],
        "metrics": metrics,
    }


def format_lines(results: Mapping[str, Any]) -> list[str]:
    """Return the results as lines for the console."""
    rows = [("task", "metric", "base", "trained", "difference", "± stderr", "n", "shots")]
    for name, task in results["tasks"].items():
        error = "–" if task["stderr"] is None else f"{task['stderr']:.4f}"
        numbers = (f"{task['base']:.4f}", f"{task['trained']:.4f}", f"{task['difference']:+.4f}", error)
        rows.append((name, task["metric"], *numbers, str(task["n"]), str(task["fewshot"])))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    missing = [f"{name}: unavailable, {reason}" for name, reason in results["unavailable"].items()]
    return (table if results["tasks"] else []) + missing
