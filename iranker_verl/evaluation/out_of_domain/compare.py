"""Two models on the same questions: the difference, and how sure it is.

A question's value is a sum over a count: 1 or 0 over 1, or for IFEval's instruction-level accuracy the instructions kept
over those given. A score is the sum of sums over the sum of counts, as lm-eval computes it. Its standard error treats
questions as drawn at random (a ratio estimator: with counts of 1 it is the usual s/√n), and the standard error of the
difference is that of the questions' differences, so what makes a question hard for both models does not count as noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def ratio(sums: Sequence[float], counts: Sequence[float]) -> tuple[float, float | None]:
    """``(value, standard error)`` of sums over counts, one of each a question; no standard error of a single question.

    value r = Σs/Σc; standard error = √(n/(n−1) · Σ(s − r·c)²) / Σc.
    """
    n, total = len(sums), math.fsum(counts)
    value = math.fsum(sums) / total
    if n < 2:
        return value, None
    spread = math.fsum((s - value * c) ** 2 for s, c in zip(sums, counts, strict=True))
    return value, math.sqrt(n / (n - 1) * spread) / total


def compare(base: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """One task of ``generic.json`` from what :mod:`.side` kept of it for each model.

    The first of lm-eval's metrics stands for the task; all are in ``metrics``. ValueError where the two did not answer the
    same questions.
    """
    if base["questions"] != trained["questions"] or base["fewshot"] != trained["fewshot"]:
        raise ValueError("base and trained did not answer the same questions in the same order")
    metrics = {}
    for name, ours in base["metrics"].items():
        theirs = trained["metrics"][name]
        if ours["counts"] != theirs["counts"]:
            raise ValueError(f"{name}: base and trained were not judged on as many things in each question")
        before, before_error = ratio(ours["sums"], ours["counts"])
        after, after_error = ratio(theirs["sums"], theirs["counts"])
        difference, error = ratio([b - a for a, b in zip(ours["sums"], theirs["sums"], strict=True)], ours["counts"])
        metrics[name] = {
            "base": before,
            "trained": after,
            "difference": difference,
            "stderr": error,
            "base_stderr": before_error,
            "trained_stderr": after_error,
            "n": len(ours["sums"]),
        }
    first = next(iter(metrics))
    return {
        **metrics[first],
        "metric": first,
        "fewshot": base["fewshot"],
        "version": base["version"],
        "truncation_warnings": [base["truncation_warnings"], trained["truncation_warnings"]],
        "metrics": metrics,
    }


def lines(results: Mapping[str, Any]) -> list[str]:
    """The results for the console."""
    rows = [("task", "metric", "base", "trained", "difference", "± stderr", "n", "shots")]
    for name, task in results["tasks"].items():
        error = "–" if task["stderr"] is None else f"{task['stderr']:.4f}"
        numbers = (f"{task['base']:.4f}", f"{task['trained']:.4f}", f"{task['difference']:+.4f}", error)
        rows.append((name, task["metric"], *numbers, str(task["n"]), str(task["fewshot"])))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    missing = [f"{name}: unavailable, {reason}" for name, reason in results["unavailable"].items()]
    return (table if results["tasks"] else []) + missing
