"""Thoughts over prepared data: the template that a model is asked with, and the proof that goes with it."""

from __future__ import annotations

from pathlib import Path

from data_prep.schema import read_manifest, read_rows
from iranker_verl.evaluation.cot.leaks import Proof, guard
from iranker_verl.evaluation.cot.retrieve import Bm25, Embeddings, encoder
from iranker_verl.evaluation.cot.store import Store, read
from iranker_verl.evaluation.cot.template import ThoughtTemplate
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Template


def with_thoughts(
    base: Template, store: Path, data: Path, examples: int = 1, model: str | None = None
) -> tuple[ThoughtTemplate, Proof]:
    """``base`` with worked examples from a store, and the proof that none is of a test query of ``data``. They are retrieved
    by words, or by the embeddings of ``model``, a sentence-transformers folder or name."""
    content = read(store)
    proof = proved(content, data)
    retriever = Bm25(content) if model is None else Embeddings(content, encoder(model), model)
    return ThoughtTemplate.over(base, retriever, examples), proof


def proved(store: Store, data: Path, near_duplicate: float = 0.8) -> Proof:
    """The guard's proof over the test queries of prepared data. UserError where a thought is of one of them."""
    tasks, groups = side_of_test(data)
    return guard(store, tasks, groups=groups, threshold=near_duplicate)


def side_of_test(data: Path) -> tuple[list[RankingTask], dict[tuple[str, str], str]]:
    """The test tasks of prepared data, and their groups by dataset and task id. Without the users of a split by time: they
    are on both sides of it on purpose, with contexts of their own."""
    by_time = read_manifest(data)["options"]["split"] == "time"
    tasks: list[RankingTask] = []
    groups: dict[tuple[str, str], str] = {}
    for row in read_rows(data / "test.parquet"):
        task = RankingTask.from_row(row)
        tasks.append(task)
        if not (by_time and task.scenario == "recommendation"):
            groups[task.dataset, task.id] = row["extra_info"]["group"] or ""
    return tasks, groups
