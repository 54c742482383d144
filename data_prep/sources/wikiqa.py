"""WikiQA (Yang et al. 2015): which sentences of a Wikipedia summary answer a question? One TSV file a split.

Columns QuestionID, Question, DocumentID, DocumentTitle, SentenceID, Sentence, Label, separated by tabs, without quoting.
Every question is a task of the dataset ``wikiqa``: the query is the question, the candidates are all sentences of its
document, and those with label 1 are relevant (several make the task graded). ``options.passages`` does not apply.

Where the files of one folder are called train and test (or dev), these are the sides of the split; otherwise the split is
by question. A file without labels gives way to one of the same split with labels, ``WikiQA-test.tsv`` to
``WikiQA-test-gold.tsv``, and is refused without one.

Policy. Dropped and counted: a question without an answer, with nothing but answers, with one sentence, empty, or whose
sentences have more than ``max_chars`` characters together; blank lines and empty sentences. Refused, by file and row: a
line with another number of columns, a label that is not 0 or 1, a sentence id twice in a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from data_prep.options import Options
from data_prep.readers.filenames import sides, split_of
from data_prep.readers.lines import rows
from data_prep.readers.streamed import head
from data_prep.readers.text import shown
from data_prep.scenarios import passage
from data_prep.tasks import Draft, Dropped, Source, Unit, tables
from iranker_verl.errors import UserError

DATASET = "wikiqa"
COLUMNS = ("QuestionID", "Question", "DocumentID", "DocumentTitle", "SentenceID", "Sentence", "Label")


def find(files: Sequence[Path], raw: Path) -> Iterator[Source]:
    """A source for each folder. UserError for a file without labels that has no gold file beside it."""
    folders: dict[Path, list[Path]] = {}
    for path in files:
        if path.suffix == ".tsv" and _header(path)[:6] == COLUMNS[:6]:
            folders.setdefault(path.parent, []).append(path)
    for own in folders.values():
        labelled = [path for path in own if _header(path) == COLUMNS]
        gold = {split_of(path, raw) for path in labelled}
        if bare := [path for path in own if path not in labelled and split_of(path, raw) not in gold]:
            raise UserError(f"{bare[0]} row 1: no column Label; put the file with labels beside it, or remove this one")
        used = sides(labelled, raw)
        yield Source("WikiQA", (DATASET,), tuple(path for path, _ in used), partial(units, used))


def units(
    files: Sequence[tuple[Path, str | None]], options: Options, datasets: Sequence[str], work: object = None
) -> list[Unit]:
    """A unit a file."""
    return [Unit(f"{DATASET}:{path.stem}", make, (path, side, options)) for path, side in files]


def _header(path: Path) -> tuple[str, ...]:
    first = head(path, 400).split(b"\n", 1)[0]
    return tuple(first.decode("utf-8", "replace").rstrip("\r").split("\t"))


def make(path: Path, side: str | None, options: Options, dropped: Dropped) -> Iterator[pa.Table]:
    """The tasks of a file."""
    yield from tables(_drafts(path, side, options, dropped))


def _drafts(path: Path, side: str | None, options: Options, dropped: Dropped) -> Iterator[Draft]:
    counts = dropped[DATASET]
    texts: dict[str, str] = {}
    sentences: dict[str, dict[str, tuple[str, float]]] = {}
    for row, fields in rows(path, "\t", len(COLUMNS), counts):
        if row == 1:
            continue
        question, text, _, _, id, sentence, label = fields
        if label not in ("0", "1"):
            raise UserError(f"{path} row {row}: Label is {shown(label)}, not 0 or 1; correct or remove the row")
        texts.setdefault(question, text)
        own = sentences.setdefault(question, {})
        if id in own:
            raise UserError(f"{path} row {row}: SentenceID {shown(id)} is there twice; correct or remove the row")
        own[id] = (sentence, float(label))
    for question, own in sentences.items():
        full = [(id, text, relevance) for id, (text, relevance) in own.items() if text.strip()]
        counts["sentences: empty"] += len(own) - len(full)
        query = passage.query(question, texts[question], full)
        if reason := _unfit(query, options):
            counts[reason] += 1
        else:
            yield passage.draft(DATASET, query, side)


def _unfit(query: passage.Query, options: Options) -> str | None:
    if not query.text:
        return "queries: empty"
    if len(query.passages) < 2:
        return "queries: fewer than 2 sentences"
    if not any(query.relevance):
        return "queries: no answer"
    if all(query.relevance):
        return "queries: nothing but answers"
    return passage.too_long(query, options)
