"""WikiQA (Yang et al. 2015): which sentences of a Wikipedia summary answer a question? One TSV file a split.

Columns QuestionID, Question, DocumentID, DocumentTitle, SentenceID, Sentence, Label, separated by tabs, without quoting.
Every question is a task of the dataset ``wikiqa``: the query is the question, the candidates are all sentences of its
document, and those with label 1 are relevant (several make the task graded). ``options.passages`` does not apply.

Where the files of one folder are called train and test (or dev), these are the sides of the split; otherwise the split is
by question. A file without labels is replaced by one of the same split with labels, ``WikiQA-test.tsv`` to
``WikiQA-test-gold.tsv``, and is refused without one.

Policy. Dropped and counted: a question without an answer, with nothing but answers, with one sentence, empty, or whose
sentences have more than ``max_chars`` characters together; blank lines and empty sentences. Refused, by file and row: a
line with another number of columns, a label that is not 0 or 1, a sentence id twice in a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.options import Options
from data_prep.readers.filenames import sides, split_of
from data_prep.readers.lines import table_rows
from data_prep.readers.sniff import NotRead, RawFile
from data_prep.readers.text import shown
from data_prep.scenarios import passage
from data_prep.tasks import Draft, Dropped, Source, Unit
from iranker_verl.errors import UserError

DATASET = "wikiqa"
COLUMNS = ("QuestionID", "Question", "DocumentID", "DocumentTitle", "SentenceID", "Sentence", "Label")


def find_wikiqa(files: Sequence[RawFile], raw: Path) -> Iterator[Source | NotRead]:
    """Yield a source for each folder. Raise UserError for a file without labels that has no gold file beside it."""
    folders: dict[Path, list[RawFile]] = {}
    for file in files:
        if file.suffix == ".tsv" and file.has(*COLUMNS[:6]):
            folders.setdefault(file.path.parent, []).append(file)
    for own in folders.values():
        labelled = [file.path for file in own if file.has(*COLUMNS)]
        gold = {split_of(path, raw) for path in labelled}
        bare = [file.path for file in own if file.path not in labelled]
        if alone := [path for path in bare if split_of(path, raw) not in gold]:
            raise UserError(
                f"{alone[0]} row 1: no column Label; put the file with labels beside it, or remove this one"
            )
        used = sides(labelled, raw)
        units = [Unit(f"{DATASET}:{path.stem}", wikiqa_drafts, (path, side)) for path, side in used]
        yield Source("WikiQA", (DATASET,), tuple(path for path, _ in used), units)
        yield from (NotRead(path, "without labels; the gold file beside it is read") for path in bare)


def wikiqa_drafts(
    path: Path, side: str | None, options: Options, datasets: Sequence[str], dropped: Dropped
) -> Iterator[Draft]:
    """Yield the tasks of a file (a unit)."""
    counts = dropped[DATASET]
    texts: dict[str, str] = {}
    sentences: dict[str, dict[str, tuple[str, float]]] = {}
    table = table_rows(path, "\t", len(COLUMNS), counts)
    next(table)
    for row, (question, text, _, _, id, sentence, label) in table:
        if label not in ("0", "1"):
            raise UserError(f"{path} row {row}: Label is {shown(label)}, not 0 or 1; correct or remove the row")
        if texts.setdefault(question, text) != text:
            raise UserError(
                f"{path} row {row}: QuestionID {shown(question)} is another question than before; correct it"
            )
        own = sentences.setdefault(question, {})
        if id in own:
            raise UserError(f"{path} row {row}: SentenceID {shown(id)} occurs twice; correct or remove the row")
        own[id] = (sentence, float(label))
    for question, own in sentences.items():
        full = [(id, text, relevance) for id, (text, relevance) in own.items() if text.strip()]
        counts["sentences: empty"] += len(own) - len(full)
        query = passage.graded_query(question, texts[question], full)
        yield from passage.draft_or_count(DATASET, query, side, _unfit(query, options), dropped)


def _unfit(query: passage.Query, options: Options) -> str | None:
    if len(query.passages) > 1 and query.text and len(set(query.relevance)) == 1:
        return "queries: nothing but answers" if any(query.relevance) else "queries: no answer"
    return passage.unfit_query(query, "sentences") or passage.too_long(query, options)
