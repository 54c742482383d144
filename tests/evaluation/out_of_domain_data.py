"""A few questions in the columns of the data sets on the Hub, as a folder for ``--data-folder``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def gsm8k(folder: Path, tested: int = 4) -> None:
    rows = [
        {"question": f"Ann has {i} apples and buys {i} more. How many?", "answer": f"{i}+{i}={2 * i}\n#### {2 * i}"}
        for i in range(1, 12)
    ]
    jsonl(folder / "gsm8k" / "main" / "train.jsonl", rows[:6])
    jsonl(folder / "gsm8k" / "main" / "test.jsonl", rows[6 : 6 + tested])


def openbookqa(folder: Path, tested: int = 8) -> None:
    things = ["ice", "snow", "iron", "milk", "glass", "wood", "sand", "gold"]
    rows = [
        {
            "id": str(i),
            "question_stem": f"Which of these is {thing}?",
            "choices": {"text": [thing, "a cloud", "a song", "Monday"], "label": ["A", "B", "C", "D"]},
            "answerKey": "ABCD"[i % 4],
        }
        for i, thing in enumerate(things[:tested])
    ]
    # two shards, as on the Hub; no training split, which is not needed as there are no examples
    parquet(folder / "openbookqa" / "main" / "test-00000-of-00002.parquet", rows[: tested // 2])
    parquet(folder / "openbookqa" / "main" / "test-00001-of-00002.parquet", rows[tested // 2 :])


def mmlu(folder: Path, subjects: list[str]) -> None:
    """Two questions a subject, whose right answers are B and D."""
    for subject in subjects:
        rows = [
            {"question": f"{subject}?", "subject": subject, "choices": ["a", "b", "c", "d"], "answer": right}
            for right in (1, 3)
        ]
        jsonl(folder / "mmlu" / subject / "test.jsonl", rows)


def humaneval(folder: Path) -> None:
    """Two problems: the answer ``1`` solves the first, and ``2`` the second."""
    rows = [
        {
            "task_id": f"HumanEval/{number}",
            "prompt": "def number():\n    return ",
            "canonical_solution": str(right),
            "test": f"def check(candidate):\n    assert candidate() == {right}\n",
            "entry_point": "number",
        }
        for number, right in enumerate((1, 2))
    ]
    jsonl(folder / "humaneval" / "test.jsonl", rows)
    code_eval = folder / "code_eval"
    code_eval.mkdir(parents=True)
    (code_eval / "execute.py").write_text(_EXECUTE)
    (code_eval / "code_eval.py").write_text(_CODE_EVAL)


# A stand-in for the Space evaluate-metric/code_eval, whose two files, arguments and results are these.
_EXECUTE = """
import subprocess
import sys


def passed(program, seconds):
    try:
        return subprocess.run([sys.executable, "-I", "-c", program], timeout=seconds, capture_output=True).returncode == 0
    except subprocess.TimeoutExpired:
        return False
"""
_CODE_EVAL = """
import os

import datasets
import evaluate

from .execute import passed


class CodeEval(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": datasets.Sequence(text), "references": text})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references, k=(1,), timeout=300.0):
        if os.getenv("HF_ALLOW_CODE_EVAL") != "1":
            raise ValueError("not allowed")
        done = [passed(f"{answers[0]}\\n{test}", timeout) for answers, test in zip(predictions, references)]
        return {"pass@1": sum(done) / len(done)}, done
"""
