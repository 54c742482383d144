"""What a recommendation source has found, read: for the tests of the formats."""

from collections import Counter

from data_prep.readers.sniff import sniff
from data_prep.scenarios.interactions import item_text


def interactions(find, raw):
    """The only source that is found in a file or folder; its interactions and files by name."""
    files = [raw] if raw.is_file() else sorted(path for path in raw.rglob("*") if path.is_file())
    (source,) = find([sniff(path) for path in files], raw)
    (data,) = source.units.args
    assert source.datasets == (data.dataset,)
    return data, [file.name for file in source.files]


def events(data):
    """``(user, item, time)`` of all events, and what was dropped; whole numbers are exact."""
    dropped = Counter()
    batches = [batch for path in data.events for batch in data.read_events(path, dropped)]
    return [exact(row) for batch in batches for row in batch.to_pylist()], dropped


def exact(row):
    """An event with its time as one number."""
    time = int(row["time"]) + row["rest"] if row["rest"] else row["time"]
    return row["user"], row["item"], time


def texts(data):
    """``(id, text)`` of all items, and what was dropped."""
    dropped = Counter()
    items = [item for path in data.items for item in data.read_items(path, dropped)]
    return [(item.id, item_text(item)) for item in items], dropped
