"""TREC's run and qrels files: read, written and scored (``iranker evaluate --run RUN --qrels QRELS``).

A run's lines are ``query Q0 document rank score tag``, a qrels file's ``query iteration document grade``; columns are
separated by white space, files may be gzipped. A query's documents are ranked by score, as trec_eval does it (equal
scores: the greater id first); the rank column is not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_prep.reading.lines import number, text_lines
from data_prep.reading.text import shown
from iranker_verl.errors import UserError
from iranker_verl.files import write_text

STANDARD = ("nDCG@10", "RR", "Success@1")
RUN_COLUMNS = ("query", "Q0", "document", "rank", "score", "tag")
QRELS_COLUMNS = ("query", "iteration", "document", "grade")

Run = dict[str, dict[str, float]]  # query -> document -> score
Qrels = dict[str, dict[str, int]]  # query -> document -> grade
Number = TypeVar("Number", int, float)


def read_run(path: Path) -> Run:
    """A run's scores. UserError, by file and row, for a line of other columns, a number that is none, a document twice."""
    run: Run = {}
    for row, (query, _, document, rank, score, _) in _rows(path, RUN_COLUMNS):
        number(rank, path, row, "rank")
        _put(run.setdefault(query, {}), document, number(score, path, row, "score"), path, row, query)
    return run


def read_qrels(path: Path) -> Qrels:
    """The judgements. UserError, by file and row, for a line of other columns, a grade that is no whole number, a document
    judged twice."""
    qrels: Qrels = {}
    for row, (query, _, document, grade) in _rows(path, QRELS_COLUMNS):
        value = number(grade, path, row, "grade")
        if value != int(value):
            raise UserError(f"{path} row {row}: grade is {shown(grade)}, not a whole number; correct or remove the row")
        _put(qrels.setdefault(query, {}), document, int(value), path, row, query)
    return qrels


def write_run(path: Path, rankings: Mapping[str, Sequence[str]], tag: str) -> None:
    """Write rankings (document ids, best first, a query). Scores fall by one a place, so that no two are equal.

    White space and ``%`` in ids are percent-encoded, here and in :func:`write_qrels` alike, as columns are separated by it.
    """
    text = "".join(
        f"{_coded(query)} Q0 {_coded(document)} {place} {len(ranking) - place + 1} {_coded(tag)}\n"
        for query, ranking in rankings.items()
        for place, document in enumerate(ranking, 1)
    )
    write_text(path, text)


def write_qrels(path: Path, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements."""
    text = "".join(
        f"{_coded(query)} 0 {_coded(document)} {grade}\n"
        for query, grades in qrels.items()
        for document, grade in grades.items()
    )
    write_text(path, text)


@dataclass(frozen=True)
class Scores:
    """The means over all judged queries, by measure; those that the run lacks count 0 (``missing`` says how many)."""

    means: dict[str, float]
    judged: int
    missing: int
    unjudged: int


def score(run: Run, qrels: Qrels, measures: Sequence[str] = STANDARD) -> Scores:
    """Score a run with ``ir_measures``. UserError for a measure that it does not know, or where no query is judged."""
    import ir_measures

    asked = []
    for name in measures:
        try:
            asked.append(ir_measures.parse_measure(name))
        except (NameError, ValueError, SyntaxError) as error:
            raise UserError(
                f"unknown measure {name!r}; write it as ir_measures does, e.g. nDCG@10, RR, RR(rel=2), AP, P@5, Success@1"
            ) from error
    shared = qrels.keys() & run.keys()
    if not shared:
        raise UserError("no query of the run is judged in the qrels; do the two files belong together?")
    try:
        found = ir_measures.calc_aggregate(asked, qrels, run)
    except (ValueError, NameError, AssertionError) as error:  # e.g. a measure that only an absent library computes
        raise UserError(f"{', '.join(measures)}: cannot be computed ({str(error).splitlines()[0]})") from error
    means = {name: float(found[measure]) for name, measure in zip(measures, asked, strict=True)}
    return Scores(means, len(qrels), len(qrels) - len(shared), len(run) - len(shared))


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    empty = True
    for row, line in text_lines(path):
        fields = line.split()
        if len(fields) != len(columns):
            raise UserError(
                f"{path} row {row}: {len(fields)} columns, {len(columns)} expected ({' '.join(columns)}), "
                f"in {shown(' '.join(fields))}"
            )
        empty = False
        yield row, fields
    if empty:
        raise UserError(f"{path}: the file is empty")


def _put(table: dict[str, Number], document: str, value: Number, path: Path, row: int, query: str) -> None:
    if document in table:
        raise UserError(f"{path} row {row}: document {document} stands twice under query {query}; remove one")
    table[document] = value


def _coded(text: str) -> str:
    """One column: white space and ``%`` percent-encoded; an empty id, which would shift the columns, is refused."""
    if not text:
        raise UserError("an id is empty; a TREC file cannot hold it")
    # whatever str.split() takes for white space, and the controls that could end a line
    return re.sub(r"[\s%\x00-\x20\x7f-\xa0\ufeff]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), text)
