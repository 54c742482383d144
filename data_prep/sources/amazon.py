"""Amazon reviews of 2014, 2018 (https://nijianmo.github.io/amazon) and 2023 (https://amazon-reviews-2023.github.io).

============================================  =======================================================================
``reviews_C.json``, ``reviews_C_5.json``      2014: ``reviewerID``, ``asin``, ``unixReviewTime``
``C.json``, ``C_5.json``                      2018: the same
``C.jsonl``                                   2023: ``user_id``, ``parent_asin``, ``timestamp`` (milliseconds)
``ratings_C.csv``, ``C.csv``                  ratings only, without a header: user, item, rating, time (2014), or item,
                                              user, rating, time (2018). Which one it is says the column of item ids, 10
                                              capitals and digits each; refused where both or neither are such
``C.csv``, or ``C.train.csv``,                2023, 5-core: a header with ``user_id``, ``parent_asin``, ``timestamp``
``C.valid.csv`` and ``C.test.csv``
``meta_C.json``, ``meta_C.jsonl``             the titles, needed with all of them: ``asin`` or ``parent_asin``, ``title``
============================================  =======================================================================

C is the category: CDs_and_Vinyl is rec-music, Video_Games is rec-game; in a folder named like a dataset any category
will do, and other files are ignored. All may be gzipped (``….gz``), or have that name and be unpacked. The meta file
is beside the reviews, or is the only one of its name in the raw folder.

Policy. Every review is an interaction, whatever its rating; of a product only the title is shown, without HTML. Lines
that are no JSON are read as Python literals (the 2014 files are), never evaluated. Products without a title and ids that
only one of the two files knows are left to :mod:`data_prep.scenarios.recommendation`, which counts them. Refused are a line that
is neither, a missing id or time, gzip data that is cut off, and a line of more than 16 MB.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.readers import events
from data_prep.readers.documents import json_records, parse_json
from data_prep.readers.lines import identifier, table_rows
from data_prep.readers.sniff import RawFile, sniff
from data_prep.readers.text import shown
from data_prep.scenarios.interactions import Interactions, Item, folder_dataset
from data_prep.scenarios.recommendation import interaction_source
from data_prep.tasks import Source
from iranker_verl.errors import UserError

CATEGORIES = {"cds_and_vinyl": "rec-music", "video_games": "rec-game"}
PARTS = ("train", "valid", "test")
_REVIEWS = re.compile(r"(?!meta_)(?:reviews_)?(?P<category>\w+?)(?:_5)?\.jsonl?(?:\.gz)?")
_RATINGS = re.compile(r"(?:ratings_)?(?P<category>\w+?)(?:\.(?P<part>train|valid|test))?\.csv(?:\.gz)?")
_HEADER = (("user_id",), ("parent_asin",), ("timestamp",))
_ASIN = re.compile(r"[0-9A-Z]{10}")
_SCRIPT = "getTime"  # by which the published notebook of the 2018 data knows titles that are none
_LOOKED_AT = 1000  # ratings, to tell users from items
_LITERAL = 1 << 20  # bytes; Python's parser takes a hundred times as many


def find_amazon(files: Sequence[RawFile], raw: Path) -> Iterator[Source]:
    """Yield reviews or ratings with their meta file. Raise UserError where a meta file or a part of three is missing."""
    seen: set[Path] = set()
    for file in files:
        path = file.path
        reviews, ratings = _REVIEWS.fullmatch(path.name), _RATINGS.fullmatch(path.name)
        match = reviews or (ratings if ratings and _is_ratings(file) else None)
        if match is None:
            continue
        category = match["category"]
        known = CATEGORIES.get(category.lower())
        metas = _metas(category, path, files)
        dataset = folder_dataset(path, raw) or known
        if not dataset or not (known or metas):
            continue
        if len(metas) != 1:
            wrong = f"is there {len(metas)} times, but not beside it" if metas else "is missing beside it"
            raise UserError(f"{path}: meta_{category}.json or .jsonl {wrong}; the items' titles are needed")
        parts = _parts(path, match["part"]) if match is ratings and match["part"] else (path,)
        if parts[0] not in seen:
            seen.add(parts[0])
            read = read_reviews if match is reviews else read_ratings
            yield interaction_source("Amazon", Interactions(dataset, parts, (metas[0],), read, read_items))


def _is_ratings(file: RawFile) -> bool:
    fields = file.columns
    return file.has(*(name for (name,) in _HEADER)) or (
        len(fields) == 4 and all(re.fullmatch(r"\d+(\.\d+)?", field) for field in fields[2:])
    )


def _metas(category: str, path: Path, files: Sequence[RawFile]) -> list[Path]:
    names = [f"meta_{category}.{end}" for end in ("json", "json.gz", "jsonl", "jsonl.gz")]
    beside = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    return beside or [file.path for file in files if file.path.name in names]


def _parts(path: Path, part: str) -> tuple[Path, ...]:
    """Return the three files that a leave-last-out split was cut into."""
    parts = tuple(path.with_name(path.name.replace(f".{part}.csv", f".{name}.csv")) for name in PARTS)
    if missing := [one for one in parts if not one.is_file()]:
        raise UserError(f"{path}: {missing[0].name} is missing beside it; the interactions are in all three parts")
    return parts


def read_reviews(path: Path, dropped: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Yield the events of reviews, JSON lines."""
    return events.event_batches(path, _reviews(path, dropped))


def _reviews(path: Path, dropped: Counter[str]) -> Iterator[tuple[int, Any, Any, Any]]:
    for row, record in json_records(path, dropped, parse_record):
        if "user_id" in record:
            yield row, record["user_id"], record.get("parent_asin"), record.get("timestamp")
        else:
            yield row, record.get("reviewerID"), record.get("asin"), record.get("unixReviewTime")


def read_ratings(path: Path, dropped: Counter[str]) -> Iterator[pa.RecordBatch]:
    """Yield the events of ratings, CSV with or without a header."""
    if sniff(path).has("parent_asin"):
        layout = events.header_layout(path, ",", _HEADER)
    else:
        user, item = _user_and_item(path)
        layout = events.Layout(",", 4, user, item, time=3)
    return events.table_events(path, layout, dropped)


def _user_and_item(path: Path) -> tuple[int, int]:
    first = [fields for _, fields in islice(table_rows(path, ",", 4, Counter()), _LOOKED_AT)]
    items = [place for place in (0, 1) if all(_ASIN.fullmatch(fields[place]) for fields in first)]
    if len(items) != 1:
        raise UserError(
            f"{path} row 1: {shown(','.join(first[0]))}: it is unclear which column is the item (10 capitals and "
            "digits in every row); write a header user_id,parent_asin,rating,timestamp in the right order above it"
        )
    return 1 - items[0], items[0]


def read_items(path: Path, dropped: Counter[str]) -> Iterator[Item]:
    """Yield the items of the meta file; a title that is a piece of a page's script counts as missing."""
    for row, record in json_records(path, dropped, parse_record):
        item = identifier(record.get("parent_asin", record.get("asin")), path, row, "item")
        title = record.get("title")
        yield Item(item, title if isinstance(title, str) and _SCRIPT not in title else "", row=row)


def parse_record(line: bytes) -> Any:
    """Return what a line of JSON, or a Python literal, holds. Raise ValueError for neither."""
    try:
        return parse_json(line)
    except ValueError:
        if len(line) > _LITERAL:
            raise
    try:
        return ast.literal_eval(line.decode().strip())
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("neither JSON nor a Python literal") from error
