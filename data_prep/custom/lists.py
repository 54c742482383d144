"""Lists that are only to be ranked: the files of :mod:`data_prep.custom.passage`, where nobody need have judged anything.

A row a list: ``{"query": …, "candidates": ["text", {"id": …, "text": …}, …]}`` and perhaps ``query_id``; the id of a candidate may
be called ``docid``, ``_id``, ``doc_id`` or ``passage_id`` as well. Or, in CSV too, a row a candidate: ``query, passage`` and perhaps
``query_id`` and ``passage_id``; a list's rows may stand anywhere. Other columns, such as ``relevance``, are not read. Without ids a
list is called by its row, and a candidate by its position, from 0.

A passage that is there twice, with its id, counts once. Refused are an id with two texts, a query id in two rows of lists, and
what is no text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.custom import identified, is_csv, own_rows, suffix, text
from data_prep.custom.passage import NESTED
from data_prep.readers.sniff import sniff
from data_prep.readers.text import shown
from iranker_verl.errors import UserError
from iranker_verl.ranking.text import clean

LONG = ("query", "passage")
IDS = ("id", "docid", "_id", "doc_id", "passage_id")  # of a candidate, as retrieval tools call it


@dataclass
class Listed:
    """One list: where it stands, what it is ranked for, and ``{id: text}`` of its candidates, in their order."""

    row: int
    id: str
    query: str
    candidates: dict[str, str] = field(default_factory=dict)


def read_lists(path: Path) -> list[Listed]:
    """Return the lists of a file, in the order of their first rows. Raise UserError with file and row for what is none."""
    if not suffix(path):
        raise UserError(f"{path}: lists are read from .csv and .jsonl files (either also as .gz)")
    found: dict[str, Listed] = {}
    for one in (_long if is_csv(path) or sniff(path).has(*LONG) else _nested)(path):
        if (other := found.setdefault(one.id, one)) is not one:
            raise UserError(
                f"{path} row {one.row}: a list called {shown(one.id)} was there before, in row {other.row} (without a query id, "
                "one is called by its row); give all of them ids of their own, or none"
            )
    if not found:
        raise UserError(f"{path}: there is no list in it")
    return list(found.values())


def _nested(path: Path) -> Iterator[Listed]:
    for row, (query, candidates, query_id) in own_rows(path, (*NESTED, "query_id"), len(NESTED), Counter()):
        one = _begun(path, row, query, query_id)
        if not isinstance(candidates, list):
            raise UserError(f"{path} row {row}: candidates is {shown(str(candidates))}, not a list")
        for candidate in candidates:
            own = candidate if isinstance(candidate, dict) else {"text": candidate}
            if "text" not in own:
                raise UserError(f"{path} row {row}: a candidate has no text: {shown(str(candidate))}")
            _add(one, path, row, next((own[name] for name in IDS if name in own), None), own["text"])
        yield one


def _long(path: Path) -> Iterator[Listed]:
    found: dict[tuple[bool, str], Listed] = {}
    for row, (query, passage, query_id, passage_id) in own_rows(path, (*LONG, "query_id", "passage_id"), 2, Counter()):
        new = _begun(path, row, query, query_id)
        one = found.setdefault((query_id != "", new.query if query_id == "" else new.id), new)
        if one.query != new.query:
            raise UserError(f"{path} row {row}: another query than in row {one.row}, which has the same query id")
        _add(one, path, row, passage_id, passage)
    yield from found.values()


def _begun(path: Path, row: int, query: Any, query_id: Any) -> Listed:
    return Listed(row, identified(query_id, path, row, "query id") or str(row), clean(text(query, path, row, "query")))


def _add(one: Listed, path: Path, row: int, id: Any, candidate: Any) -> None:
    given = identified(id, path, row, "candidate id")
    name, said = given or str(len(one.candidates)), text(candidate, path, row, "candidate")
    if one.candidates.get(name, said) != said or (name in one.candidates and not given):
        raise UserError(
            f"{path} row {row}: two candidates of this query are called {shown(name)} (without an id, one is called by its "
            "place); give all of them ids of their own, or none"
        )
    one.candidates[name] = said
