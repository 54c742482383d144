"""Read, write and score TREC's run and qrels files (``iranker score RUN QRELS``).

A run's lines are ``query Q0 document rank score tag``, a qrels file's ``query iteration document grade``; columns are
separated by white space, files may be gzipped. BEIR's qrels are read too: three columns under the header ``query-id
corpus-id score``.

**One ranking.** A query's documents are ordered once, by score (equal scores: the greater id first, as in trec_eval), and
every measure is computed from that order. The libraries behind ``ir_measures`` disagree about ties, and some keep 32 bits of
a score, so they are handed ranks and never the scores. The rank column is not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from data_prep.readers.lines import number
from data_prep.readers.text import shown
from data_prep.readers.trec import qrels_lines, run_lines
from iranker_verl.errors import UserError, first_line
from iranker_verl.files import write_text

STANDARD = ("nDCG@10", "RR", "Success@1")
INT32 = 2**31  # trec_eval's grades, cutoffs and levels are C ints: what is greater wraps around without a word

Run = dict[str, dict[str, float]]  # query -> document -> score
Qrels = dict[str, dict[str, int]]  # query -> document -> grade
Number = TypeVar("Number", int, float)


def read_run(path: Path) -> Run:
    """Return a run's scores.

    Raise UserError, by file and row, for a line of other columns, a number that is none, a document twice.
    """
    run: Run = {}
    for row, (query, _, document, rank, score, _) in run_lines(path):
        number(rank, path, row, "rank")
        _put(run.setdefault(query, {}), document, number(score, path, row, "score"), path, row, query)
    return run


def read_qrels(path: Path) -> Qrels:
    """Return the judgements of TREC's or BEIR's form.

    Raise UserError, by file and row, for a line of other columns, a grade that is no whole number of 32 bits, a document judged
    twice.
    """
    qrels: Qrels = {}
    for row, (query, document, grade) in qrels_lines(path):
        value = number(grade, path, row, "grade")
        if value != int(value):
            raise UserError(f"{path} row {row}: grade is {shown(grade)}, not a whole number; correct or remove the row")
        if not -INT32 <= value < INT32:
            raise UserError(
                f"{path} row {row}: grade is {shown(grade)}, which does not fit 32 bits; correct it or give lower grades"
            )
        _put(qrels.setdefault(query, {}), document, int(value), path, row, query)
    return qrels


def write_run(path: Path, rankings: Mapping[str, Sequence[str]], tag: str) -> None:
    """Write rankings (document ids, best first, of each query). Scores fall by one a rank, so that no two are equal.

    White space and ``%`` in ids are percent-encoded, here and in :func:`write_qrels` alike, as columns are separated by it.
    """
    text = "".join(
        f"{_coded(query)} Q0 {_coded(document)} {rank} {len(ranking) - rank + 1} {_coded(tag)}\n"
        for query, ranking in rankings.items()
        for rank, document in enumerate(ranking, 1)
    )
    write_text(path, text)


def write_qrels(path: Path, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements in TREC's form."""
    text = "".join(
        f"{_coded(query)} 0 {_coded(document)} {grade}\n"
        for query, grades in qrels.items()
        for document, grade in grades.items()
    )
    write_text(path, text)


@dataclass(frozen=True)
class Scores:
    """The means over all judged queries, by measure; those that the run lacks count 0 (``missing`` says how many).

    ``unjudged`` queries of the run are left out; ``judged_documents`` of the run's documents are in the qrels.
    """

    means: dict[str, float]
    judged: int
    missing: int
    unjudged: int
    judged_documents: int


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Return one query's documents, best first: by score, and where scores are equal the greater id first."""
    return sorted(scores, key=lambda document: (scores[document], document), reverse=True)


def score(run: Run, qrels: Qrels, measures: Sequence[str] = STANDARD) -> Scores:
    """Return the means of ``measures``, all computed from one order of each query's documents (see :func:`ranked`).

    Raise UserError for a measure that ``ir_measures`` does not know or cannot compute, and where no query is judged.
    """
    import ir_measures

    parsed = {name: _measure(name) for name in measures}
    shared = qrels.keys() & run.keys()
    if not shared:
        raise UserError("no query of the run is judged in the qrels; do the two files belong together?")
    by_rank = {query: _falling(ranked(scores)) for query, scores in run.items()}
    judgements = {query: _with_a_zero(grades, run.get(query, {})) for query, grades in qrels.items()}
    means = {}
    for name, measure in parsed.items():
        _check_gdeval(name, measure, run, qrels)
        try:
            means[name] = float(ir_measures.calc_aggregate([measure], judgements, by_rank)[measure])
        except Exception as error:  # whatever the libraries behind it raise; one may be absent
            raise UserError(
                f"measure {name!r} cannot be computed ({first_line(error)}); leave it out of --measures"
            ) from error
    judged = sum(len(run[query].keys() & qrels[query].keys()) for query in shared)
    return Scores(means, len(qrels), len(qrels) - len(shared), len(run) - len(shared), judged)


def _falling(ranking: Sequence[str]) -> dict[str, float]:
    """Return scores that fall by one a rank: the same order for every library, however it treats ties and precision."""
    return {document: float(len(ranking) - index) for index, document in enumerate(ranking)}


def _with_a_zero(grades: Mapping[str, int], scores: Mapping[str, float]) -> Mapping[str, int]:
    """Return the grades; where all are below 0, with one of 0 for a document that no file names: else nDCG's C code never ends."""
    return grades if max(grades.values()) >= 0 else {**grades, f"{max((*grades, *scores))}0": 0}


def _measure(name: str) -> Any:
    """Return the measure, its parameters complete and in range: the C code behind it aborts on a cutoff of 0."""
    import ir_measures

    try:
        measure = ir_measures.parse_measure(name)
    except (NameError, ValueError, SyntaxError, TypeError) as error:
        raise UserError(
            f"unknown measure {name!r}; write it as ir_measures does, e.g. nDCG@10, RR, RR(rel=2), AP, P@5, Success@1"
        ) from error
    known, given = measure.SUPPORTED_PARAMS, measure.params
    for key, value in given.items():
        if key not in known:
            raise UserError(f"measure {name!r} has no parameter {key}; it has {', '.join(known) or 'none'}")
        if not known[key].validate(value) or (known[key].dtype is int and isinstance(value, bool)):
            raise UserError(f"measure {name!r}: {key} cannot be {value!r} ({known[key].desc})")
        if key in ("cutoff", "rel") and not 1 <= value < INT32:
            raise UserError(f"measure {name!r}: {key} is {value}; it has to be at least 1 and to fit 32 bits")
    if missing := [key for key, info in known.items() if info.required and key not in given]:
        form = f"{measure.NAME}@10" if missing == ["cutoff"] else f"{name}({','.join(f'{key}=…' for key in missing)})"
        raise UserError(f"measure {name!r} needs {' and '.join(missing)}; write it e.g. as {form}")
    return measure


def _check_gdeval(name: str, measure: Any, run: Run, qrels: Qrels) -> None:
    """Raise UserError for what gdeval.pl, which computes these measures, fails on: other query ids than numbers, grades above 4."""
    if measure.NAME != "ERR" and measure.params.get("dcg") != "exp-log2":
        return
    for query in (*qrels, *run):
        if not re.fullmatch("[0-9]+", query):
            raise UserError(
                f"measure {name!r}: gdeval, which computes it, takes whole numbers as query ids, not {shown(query)}; number "
                "the queries in both files, or leave the measure out"
            )
    for query, grades in qrels.items():
        if high := [grade for grade in grades.values() if grade > 4]:
            raise UserError(
                f"measure {name!r}: gdeval, which computes it, takes grades up to 4, and query {query} has {high[0]}; "
                "leave the measure out, or lower the grades"
            )


def _put(table: dict[str, Number], document: str, value: Number, path: Path, row: int, query: str) -> None:
    if document in table:
        raise UserError(f"{path} row {row}: document {document} occurs twice under query {query}; remove one")
    table[document] = value


def _coded(text: str) -> str:
    """Return one column: white space and ``%`` percent-encoded. Raise UserError for an empty id, which would shift columns."""
    if not text:
        raise UserError("an id is empty; a TREC file cannot hold it")
    # whatever str.split() takes for white space, and the controls that could end a line
    return re.sub(r"[\s%\x00-\x20\x7f-\xa0\ufeff]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), text)
