"""Queries with passages of a user's own, a row a passage or (JSON lines) a row a query.

A row a passage: ``query, passage, relevance`` and perhaps ``query_id``, ``passage_id`` and ``split``. A query's rows may
stand anywhere: a first reading notes which one is its last, and the second keeps a query until then. So of a file whose
queries stand together one query is in memory (and a short hash of each), of one that is shuffled nearly all.

A row a query: ``{"query": …, "candidates": [{"id": …, "text": …, "relevance": …}, …]}`` and perhaps ``query_id`` and
``split``. The id of a passage may be called ``docid``, ``_id``, ``doc_id`` or ``passage_id`` as well, as retrieval tools do;
one without an id is named by its position.

Relevance is a number from 0, the more the better. A dataset called like one of the paper's keeps to its rules
(:mod:`data_prep.scenarios.passage`). Of any other, queries that cannot be ranked are dropped and counted: less than two passages,
all equally relevant, an empty passage, passages above ``max_chars`` characters together, and another number than
``options.passages`` where that is given. Of a repeated passage id the first row counts; passages with one text and two
ids (or none) stay two, with one grade. Refused are an empty query, a relevance that is no number or below 0, a query id with
two texts or on two sides of the split, and a repeated passage id with another text or relevance.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.custom import Side, identified, own_rows, text
from data_prep.options import Options
from data_prep.readers.lines import limited_number
from data_prep.readers.sniff import TABLE, sniff
from data_prep.readers.text import shown
from data_prep.scenarios import passage
from data_prep.tasks import Draft, Dropped
from iranker_verl.errors import UserError
from iranker_verl.ranking.text import clean

LONG = ("query", "passage", "relevance")
NESTED = ("query", "candidates")
IDS = ("id", "docid", "_id", "doc_id", "passage_id")  # of a passage, as retrieval tools call it


def own_passage_drafts(path: Path, options: Options, datasets: Sequence[str], dropped: Dropped) -> Iterator[Draft]:
    """Yield a draft a query, in the order of their last rows (a unit)."""
    (dataset,) = datasets
    for one in open_queries(path, dropped[dataset]):
        query = one.query()
        if dataset in passage.DATASETS:
            yield from passage.preset_drafts([query], [dataset], options, one.side, dropped)
        else:
            yield from passage.draft_or_count(dataset, query, one.side, _unfit(query, options), dropped)


def _unfit(one: passage.Query, options: Options) -> str | None:
    if options.passages not in (None, len(one.passages)):
        return passage.not_of_size(options.passages or 0)
    return passage.unfit_query(one) or passage.too_long(one, options)


@dataclass
class Open:
    """A query whose passages are being read, ``{id: (text, relevance)}``. ``id`` is "" where it is named by its row."""

    path: Path
    row: int
    id: str
    text: str
    side: str | None
    passages: dict[str, tuple[str, float]] = field(default_factory=dict)

    def add(self, id: Any, told: Any, relevance: Any, row: int, dropped: Counter[str]) -> None:
        """Add a passage: its id ("" for one that is named by its position), text and relevance (None: not judged)."""
        given = identified(id, self.path, row, "passage id")
        name = given or str(len(self.passages))
        told = text(told, self.path, row, "passage")
        grade = 0.0 if relevance is None else limited_number(relevance, self.path, row, "relevance")
        if grade < 0:
            raise UserError(f"{self.path} row {row}: relevance is {grade:g}; it has to be 0 or more")
        if name not in self.passages:
            self.passages[name] = told, grade
        elif given and self.passages[name] == (told, grade):
            dropped["rows: repeated passage"] += 1
        else:
            raise UserError(
                f"{self.path} row {row}: passage {shown(name)} occurred before for this query, with another text or "
                "relevance (a passage without an id is named by its position); correct the row, or give all passages ids, or none"
            )

    def query(self) -> passage.Query:
        """Return the query with the passages read so far."""
        return passage.graded_query(
            self.id or str(self.row), self.text, ((id, *given) for id, given in self.passages.items())
        )


def open_queries(path: Path, dropped: Counter[str], *, judged: bool = True) -> Iterator[Open]:
    """Yield the queries with their passages, however the file is laid out; without ``judged``, only what is to be ranked."""
    file = sniff(path)
    is_long = file.form == TABLE or file.has(*LONG[: 2 + judged])
    yield from (_long if is_long else _nested)(path, dropped, judged)


def _nested(path: Path, dropped: Counter[str], judged: bool) -> Iterator[Open]:
    side = Side(path)
    for row, (query, candidates, query_id, split) in own_rows(path, (*NESTED, "query_id", "split"), 2, dropped):
        one = _open(path, row, query, query_id, side(split, row) if judged else None)
        if not isinstance(candidates, list):
            raise UserError(f"{path} row {row}: candidates is {shown(str(candidates))}, not a list")
        for candidate in candidates:
            own = candidate if isinstance(candidate, dict) else {"text": candidate}
            if missing := [name for name in ("text", "relevance")[: 1 + judged] if own.get(name) is None]:
                raise UserError(f"{path} row {row}: a candidate has no {missing[0]}: {shown(str(candidate))}")
            id = next((own[name] for name in IDS if own.get(name) is not None), "")
            one.add(id, own["text"], own["relevance"] if judged else None, row, dropped)
        yield one


def _long(path: Path, dropped: Counter[str], judged: bool) -> Iterator[Open]:
    last = {
        _key(query, query_id): row for row, (query, query_id) in own_rows(path, ("query", "query_id"), 1, Counter())
    }
    found: dict[bytes, Open] = {}
    side = Side(path)
    wanted = (*LONG, "query_id", "passage_id", "split")
    for row, (query, told, relevance, query_id, id, split) in own_rows(path, wanted, 2 + judged, dropped):
        new = _open(path, row, query, query_id, side(split, row) if judged else None)
        key = _key(query, query_id)
        one = found.setdefault(key, new)
        if (new.text, new.side) != (one.text, one.side):
            what = "split" if new.text == one.text else "query"
            raise UserError(f"{path} row {row}: another {what} than in row {one.row}, which is of the same query")
        one.add(id, told, relevance if judged else None, row, dropped)
        if row == last[key]:
            yield found.pop(key)


def _key(query: Any, query_id: Any) -> bytes:
    """Return a query's identity, short: its id, or else its text."""
    name = f"text {clean(str(query))}" if query_id == "" else f"id {query_id}"
    return hashlib.blake2b(name.encode(), digest_size=12).digest()


def _open(path: Path, row: int, query: Any, query_id: Any, side: str | None) -> Open:
    shown_text = clean(text(query, path, row, "query"))
    if not shown_text:
        raise UserError(f"{path} row {row}: query is empty; correct or remove the row")
    return Open(path, row, identified(query_id, path, row, "query id"), shown_text, side)
