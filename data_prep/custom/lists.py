"""Lists that are only to be ranked: the files of :mod:`data_prep.custom.passage`, where nobody need have judged anything.

Candidates may be bare texts, and ``relevance`` and other columns are not read. A list without a query id is called by its
row; a query id in two rows of lists is refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data_prep.custom.passage import open_queries
from data_prep.readers.filenames import suffix_of
from data_prep.readers.sniff import JSON_SUFFIXES
from data_prep.readers.text import shown
from iranker_verl.errors import UserError


@dataclass(frozen=True)
class Listed:
    """One list: its place in the file, what it is ranked for, and ``{id: text}`` of its candidates, in their order."""

    row: int
    id: str
    query: str
    candidates: dict[str, str]


def read_lists(path: Path) -> list[Listed]:
    """Return the lists of a file, in the order of their first rows. Raise UserError with file and row for an invalid one."""
    if suffix_of(path) not in (".csv", *JSON_SUFFIXES):
        raise UserError(f"{path}: lists are read from .csv and .jsonl files (either also as .gz)")
    found: dict[str, Listed] = {}
    for query in sorted(open_queries(path, Counter(), judged=False), key=lambda query: query.row):
        texts = {id: given for id, (given, _) in query.passages.items()}
        one = Listed(query.row, query.id or str(query.row), query.text, texts)
        if (other := found.setdefault(one.id, one)) is not one:
            raise UserError(
                f"{path} row {one.row}: list {shown(one.id)} occurred before, in row {other.row} (a list without a query "
                "id is named by its row); give each list its own id, or none of them an id"
            )
    if not found:
        raise UserError(f"{path}: there is no list in it")
    return list(found.values())
