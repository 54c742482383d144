"""Running a source as preparation does: found among the files of a folder, cut into units, each unit on its own."""

import pickle
from collections import Counter

from data_prep.options import Options
from data_prep.readers.sniff import NotRead, sniff
from data_prep.tasks import TASKS, nothing_dropped


def files_in(raw):
    return [raw] if raw.is_file() else sorted(path for path in raw.rglob("*") if path.is_file())


def sources(finder, paths, raw):
    """The sources that one format finds among some files, without what it leaves aside."""
    found = list(finder([sniff(path) for path in paths], raw))
    return [one for one in found if not isinstance(one, NotRead)]


def find(finder, raw):
    return sources(finder, files_in(raw), raw)


def run(finder, raw, options=None, datasets=None):
    """``(rows, dropped, source)``: the tasks of the one source in ``raw`` and what was dropped, ``{dataset: {reason: n}}``."""
    (source,) = find(finder, raw)
    units = source.units(options or Options(), datasets or source.datasets, None)
    assert len({unit.name for unit in units}) == len(units)
    rows, dropped = [], nothing_dropped()
    for unit in units:
        own = nothing_dropped()
        for table in pickle.loads(pickle.dumps(unit)).run(own):
            assert table.schema == TASKS
            rows += table.to_pylist()
        for dataset, counts in own.items():
            dropped[dataset] += Counter(counts)
    return rows, {dataset: dict(+counts) for dataset, counts in dropped.items() if +counts}, source
