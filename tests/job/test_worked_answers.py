"""What supervision is taught: right answers to training rows, or traces that the policy has earned."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.rows import write_tasks
from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.store import ReasoningTrace, Store, write_traces
from iranker_verl.job.worked_answers import write_worked_answers
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.templates import load
from reward_fns.answers import parse_exclusion, parse_ranking

# words of which no two contexts share any
TASKS = [
    RankingTask(
        f"t{number}",
        "passage",
        "passage-5",
        f"query{number}",
        tuple(Candidate(f"{number}{i}", f"text {number}{i}") for i in range(4)),
        (0.0, 2.0, 0.0, 1.0),
        group=f"g{number}",
    )
    for number in range(40)
]


def worked(folder: Path, template: str, traces: Path | None = None) -> list[dict]:
    folder.mkdir(exist_ok=True)
    write_tasks(folder / "train.parquet", TASKS[:-1], load(template), "train")
    write_tasks(folder / "test.parquet", TASKS[-1:], load(template), "test")
    (folder / "manifest.json").write_text(json.dumps({"options": {"split": "random"}}))
    count = write_worked_answers(folder / "worked.parquet", folder, load(template), 1, traces)
    rows = pq.read_table(folder / "worked.parquet").to_pylist()
    assert len(rows) == count
    return rows


def test_a_worked_exclusion_is_any_of_the_least_relevant(tmp_path: Path) -> None:
    rows = worked(tmp_path / "once", "label")
    template = load("label")
    answers = []
    for task, row in zip(TASKS, rows, strict=False):
        assert row["prompt"] == template.messages(template.start(task))
        answers.append(parse_exclusion(row["response"], [c.text for c in task.candidates]).index)
    assert set(answers) == {0, 2} and 10 < answers.count(0) < 30
    assert worked(tmp_path / "again", "label") == rows


def test_a_worked_ranking_goes_by_relevance(tmp_path: Path) -> None:
    orders = {parse_ranking(row["response"], list("abcd")).order for row in worked(tmp_path, "direct-label")}
    assert orders == {(1, 3, 0, 2), (1, 3, 2, 0)}


def store(folder: Path, template: str, task: RankingTask) -> Path:
    texts = tuple(c.text for c in task.candidates)
    trace = ReasoningTrace(
        task.id, task.dataset, task.scenario, task.group, task.context, texts, (2,), "It is so.", 1.0, 7
    )
    made = load(template)
    write_traces(Store((trace,), {"template_id": made.id, "template_hash": made.hash}), folder)
    return folder


@pytest.mark.parametrize(
    ("template", "response"),
    [
        ("think-label", "<think>\nIt is so.\n</think>\n<answer>[C]</answer>"),
        ("published", "\nIt is so.\n</think>\n<answer>text 02</answer>"),  # whose prompt begins the thought
    ],
)
def test_a_trace_is_taught_as_it_was_answered(tmp_path: Path, template: str, response: str) -> None:
    [row] = worked(tmp_path / "data", template, store(tmp_path / "traces", template, TASKS[0]))
    assert row == {"prompt": load(template).messages(load(template).start(TASKS[0])), "response": response}


def test_reasoning_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"asks for reasoning.*iranker\.data\.traces"):
        worked(tmp_path, "think-label")


@pytest.mark.parametrize(
    ("of", "task", "words"),
    [("think-text", 0, "was made with template think-text"), ("think-label", -1, "test queries")],
)
def test_traces_of_another_template_or_of_a_test_query_are_refused(
    tmp_path: Path, of: str, task: int, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        worked(tmp_path / "data", "think-label", store(tmp_path / "traces", of, TASKS[task]))
