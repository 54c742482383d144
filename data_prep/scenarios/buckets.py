"""The first stage of recommendation: items and events read once, into a catalogue and buckets of whole users.

Everything is in files of a job's folder (:mod:`data_prep.work`), so that a finished stage is not done again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.ahead import ahead
from data_prep.hashing import keys
from data_prep.readers.events import EVENTS
from data_prep.readers.text import shown
from data_prep.scenarios.interactions import Interactions, item_text
from data_prep.spool import range_of, split_by
from iranker_verl.errors import UserError
from iranker_verl.ranking.text import shorten

TIME_BINS = 1 << 20
_SPOOLED = pa.schema([EVENTS.field("user"), pa.field("item", pa.int32()), EVENTS.field("time"), EVENTS.field("rest")])


def fill_catalogue(folder: Path, data: Interactions, title_alone: bool, most: int | None) -> None:
    """Write ``items.arrow``, an id and a text for each text, and ``ids.arrow``: all ids, and the place of their texts."""
    dropped: Counter[str] = Counter()
    texts: dict[str, str] = {}
    rows: dict[str, int] = {}
    for path in data.items:
        for item in data.read_items(path, dropped):
            text = item_text(item, title_alone)
            if most is not None:
                text = shorten(text, most)
            if not text:
                dropped["items: no title"] += 1
            elif texts.setdefault(item.id, text) != text:
                raise UserError(
                    f"{path} row {item.row}: item {shown(item.id)} is {shown(text)}, but {shown(texts[item.id])} in row "
                    f"{rows[item.id]}; correct or remove one"
                )
            elif rows.setdefault(item.id, item.row) != item.row:
                dropped["items: repeated id"] += 1
    ids = sorted(texts)
    place: dict[str, int] = {}
    places = [place.setdefault(texts[id], len(place)) for id in ids]
    firsts = np.unique(np.array(places, np.int64), return_index=True)[1]
    dropped["items: shown like another item"] += len(ids) - len(place)
    _write_arrow(folder / "ids.arrow", {"id": pa.array(ids, pa.string()), "place": pa.array(places, pa.int32())})
    shown_ids = pa.array([ids[first] for first in firsts], pa.string())
    _write_arrow(folder / "items.arrow", {"id": shown_ids, "text": pa.array(place, pa.string())})
    _write(folder / "dropped.json", dropped)


def _write_arrow(path: Path, columns: dict[str, pa.Array]) -> None:
    table = pa.table(columns)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def fill_buckets(folder: Path, data: Interactions, path: Path, catalogue: Path, seed: int, buckets: int) -> None:
    """Write ``bucket-<i>.arrow``: the events of the users whose hash falls there, in the file's order; unknown items are null."""
    ids, places = arrow_columns(catalogue / "ids.arrow")
    dropped: Counter[str] = Counter()
    counts, times = np.zeros(pc.max(places).as_py() + 1 if len(ids) else 0, np.int64), [np.inf, -np.inf]
    writers = [pa.ipc.new_file(str(folder / f"bucket-{i:04d}.arrow"), _SPOOLED) for i in range(buckets)]
    try:
        for batch in ahead(data.read_events(path, dropped)):
            users = batch["user"].dictionary_encode()
            key = keys(users.dictionary.to_pylist(), seed, "bucket")[users.indices.to_numpy()]
            items = places.take(pc.index_in(batch["item"], value_set=ids))
            table = pa.table([batch["user"], items, batch["time"], batch["rest"]], schema=_SPOOLED)
            for bucket, part in split_by(table, range_of(key, buckets), buckets):
                writers[bucket].write_table(part)
            counts += np.bincount(items.drop_null().to_numpy(), minlength=len(counts))
            if batch.num_rows:
                ends = pc.min_max(batch["time"]).as_py()
                times = [min(times[0], ends["min"]), max(times[1], ends["max"])]
    finally:
        for writer in writers:
            writer.close()
    np.save(folder / "popularity.npy", counts)
    _write(folder / "times.json", times)
    _write(folder / "dropped.json", dropped)


def cut_time(folders: Sequence[Path], fraction: float) -> float:
    """Return the time that ``fraction`` of all events are not before, to a millionth of the whole span."""
    spans = [json.loads((folder / "times.json").read_text(encoding="utf-8")) for folder in folders]
    first, last = min(s[0] for s in spans), max(s[1] for s in spans)
    if not last > first:
        return last
    counts = np.zeros(TIME_BINS, np.int64)
    for folder in folders:
        for path in sorted(folder.glob("bucket-*.arrow")):
            with pa.memory_map(str(path)) as file:
                reader = pa.ipc.open_file(file)
                for i in range(reader.num_record_batches):
                    counts += np.histogram(reader.get_batch(i)["time"], TIME_BINS, (first, last))[0]
    late = np.cumsum(counts[::-1])[::-1]  # events in a bin or after it
    place = int(np.searchsorted(-late, -fraction * counts.sum(), side="right")) - 1
    return first + (last - first) * max(place, 0) / TIME_BINS


def arrow_columns(path: Path) -> list[pa.Array]:
    """Return the columns of an Arrow file."""
    with pa.memory_map(str(path)) as file:
        return [column.combine_chunks() for column in pa.ipc.open_file(file).read_all().columns]


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
