"""Running a source as preparation does: found among the files of a folder, cut into units, each unit on its own."""

import pickle

from data_prep.options import Options
from data_prep.readers.sniff import NotRead, sniff
from data_prep.tasks import TASKS, nothing_dropped
from iranker_verl.errors import UserError


def files_in(raw):
    return [raw] if raw.is_file() else sorted(path for path in raw.rglob("*") if path.is_file())


def sources(finder, paths, raw):
    """The sources that one format finds among some files, without what it leaves aside."""
    found = list(finder([sniff(path) for path in paths], raw))
    return [one for one in found if not isinstance(one, NotRead)]


def find(finder, raw):
    return sources(finder, files_in(raw), raw)


def made(source, options=None, dropped=None, work=None, datasets=None):
    """The tables of tasks of a source, as preparation makes them."""
    if source.refused:
        raise UserError(source.refused)
    options, dropped = options or Options(), nothing_dropped() if dropped is None else dropped
    for unit in source.cut(options, work):
        yield from unit.run(options, datasets or source.datasets, dropped)


def run(finder, raw, options=None, datasets=None):
    """``(rows, dropped, source)``: the tasks of the one source in ``raw`` and what was dropped, ``{dataset: {reason: n}}``."""
    (source,) = find(finder, raw)
    assert len({unit.name for unit in source.units}) == len(source.units)
    rows, dropped = [], nothing_dropped()
    for table in made(pickle.loads(pickle.dumps(source)), options, dropped, None, datasets):
        assert table.schema == TASKS
        rows += table.to_pylist()
    return rows, {dataset: dict(+counts) for dataset, counts in dropped.items() if +counts}, source
