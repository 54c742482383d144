"""Reasoning traces for prepared data: the template that a model is prompted with, and the proof that nothing leaks."""

from __future__ import annotations

from pathlib import Path

from data_prep.schema import read_manifest, read_rows
from iranker_verl.evaluation.cot.leaks import NEAR_DUPLICATE, Proof, prove_no_leaks
from iranker_verl.evaluation.cot.retrieve import Bm25Retriever, EmbeddingRetriever, load_encoder
from iranker_verl.evaluation.cot.store import Store, read_traces
from iranker_verl.evaluation.cot.template import FewShotTemplate
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Template


def with_traces(
    base: Template, store: Path, data: Path, examples: int = 1, model: str | None = None
) -> tuple[FewShotTemplate, Proof]:
    """Return ``base`` with worked examples from a store, and the proof that none is of a test query of ``data``.

    Examples are retrieved by BM25, or by the embeddings of ``model``, a sentence-transformers folder or name.
    """
    content = read_traces(store)
    proof = prove_for_data(content, data)
    retriever = Bm25Retriever(content) if model is None else EmbeddingRetriever(content, load_encoder(model), model)
    return FewShotTemplate.over(base, retriever, examples), proof


def prove_for_data(store: Store, data: Path, near_duplicate: float = NEAR_DUPLICATE) -> Proof:
    """Return the proof over the test tasks of prepared data. Raise UserError where a trace is of one of them."""
    tasks, groups = read_test_side(data)
    return prove_no_leaks(store, tasks, groups=groups, threshold=near_duplicate)


def read_test_side(data: Path) -> tuple[list[RankingTask], dict[tuple[str, str], str]]:
    """Read the test tasks of prepared data, and their groups by dataset and task id.

    The users of a split by time are left out of the groups: they are on both sides on purpose, with different contexts.
    """
    by_time = read_manifest(data)["options"]["split"] == "time"
    tasks: list[RankingTask] = []
    groups: dict[tuple[str, str], str] = {}
    for row in read_rows(data / "test.parquet"):
        task = RankingTask.from_row(row)
        tasks.append(task)
        if not (by_time and task.scenario == "recommendation"):
            groups[task.dataset, task.id] = row["extra_info"]["group"] or ""
    return tasks, groups
