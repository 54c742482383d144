"""The fast reader of events and the slow one give the same, whatever is in the file."""

import codecs
import gzip
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.readers import events, opened
from data_prep.readers.events import EVENTS, Layout, header_layout, table_events
from data_prep.readers.lines import NO_IDS
from iranker_verl.errors import UserError
from tests.data_prep.reading import exact

LAYOUTS = [
    Layout("::", 4, user=0, item=1, time=3),
    Layout("\t", 4, user=0, item=1, time=3),
    Layout(",", 4, user=1, item=0, time=3, header=1),
    Layout("\t", 3, user=2, item=1, time=0, header=2),
]


def outcome(path, layout):
    """All rows and what was dropped, or the error."""
    dropped = Counter()
    try:
        batches = list(events.table_events(path, layout, dropped))
    except UserError as error:
        return str(error)
    assert all(batch.schema == EVENTS and 0 < batch.num_rows <= events.BATCH for batch in batches)
    return [exact(row) for batch in batches for row in batch.to_pylist()], +dropped


GOOD_IDS = [
    b"1",
    b"u7",
    b"B00X",
    "Zoé".encode(),
    "\u2028\x85".encode(),
    b"a b",
    b"x\x00y",
    b"9" * 40,
    codecs.BOM_UTF8 + b"x",
]
GOOD_TIMES = [b"978300760", b"0", b"1.5e1", b"-3", b".5", b"5.", b" 7 ", b"+3", b"1e-400"]
BAD_FIELDS = [
    b"",
    b"nan",
    b"NaN",
    b"<NA>",
    b"inf",
    b"1e400",
    b"0x1",
    b"1_0",
    b"--1",
    b"Monday",
    b":",
    b"\xff",
    b"\xe9",
    b"\r",
]
# Numbers of so few digits that the float is what is written.
SHORT_TIMES = st.floats(-1e300, 1e300).map(lambda time: float(f"{time:.6g}"))
QUOTED = [b'"5"', b'a"b', b'"5', b'"a""b"', b'"\n"']
ENDS = [b"\n"] * 6 + [b"\r\n"] * 3
BAD_ENDS = [b"\n\n", b"\n\r\n", b"\n \n", b"\n\t\t\n", b"\n,,\n", b"\r", b"\r\r\n"]


def lines_of(layout, spoilt):
    """A good line; with ``spoilt`` one with a wrong field, another number of them, or a wrong separator or end."""
    separator = layout.separator.encode()
    row = st.tuples(
        *(st.sampled_from(GOOD_TIMES if place == layout.time else GOOD_IDS) for place in range(layout.columns))
    )
    if not spoilt:
        return st.builds(lambda row, end: separator.join(row) + end, row, st.sampled_from(ENDS))
    wrong = st.sampled_from(BAD_FIELDS + QUOTED)
    return st.one_of(
        st.builds(lambda row, i, value: separator.join([*row[:i], value, *row[i + 1 :]]) + b"\n", row, st.integers(0, 3), wrong),
        st.builds(lambda row: separator.join(row) + b"\n", st.lists(st.sampled_from(GOOD_IDS) | wrong, max_size=6)),
        st.builds(lambda row: separator.join(row).replace(b"::", b":x:", 1) + b"\n", row),
        st.builds(lambda row, end: separator.join(row) + end, row, st.sampled_from(BAD_ENDS)),
    )  # fmt: skip


@st.composite
def files(draw):
    layout = draw(st.sampled_from(LAYOUTS))
    head = layout.separator.encode().join([b"h"] * layout.columns) + b"\n" if layout.header else b""
    head = draw(st.sampled_from([b"", codecs.BOM_UTF8])) + b"\n" * (layout.header - 1) + head
    body = [*draw(st.lists(lines_of(layout, False), max_size=15)), *draw(st.lists(lines_of(layout, True), max_size=2))]
    if draw(st.booleans()):
        body = draw(st.permutations(body))
    content = head + b"".join(body)
    return layout, content.rstrip(b"\r\n") if draw(st.booleans()) and body else content


def both(path, layout):
    """The outcome of the fast reader (with the slow one behind it), and of the slow one alone."""
    read = outcome(path, layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_fast", lambda *_: iter(()))  # nothing read so far: the slow one reads it all
        return read, outcome(path, layout)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files(), st.sampled_from([48, 200, events.BLOCK_BYTES]), st.sampled_from([1, 3, events.BATCH]))
def test_fast_and_slow_agree_on_any_file(tmp_path, file, block, batch):
    layout, content = file
    path = tmp_path / "events"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "BLOCK_BYTES", block)
        patch.setattr(events, "BATCH", batch)
        fast, slow = both(path, layout)
    assert fast == slow


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fast_and_slow_agree_on_a_file_with_one_wrong_field_or_end(tmp_path, layout):
    path = tmp_path / "events"
    separator = layout.separator.encode()
    good = separator.join([b"7"] * layout.columns)
    spoilt = [good.replace(b"::", b":x:", 1), *ENDS, *BAD_ENDS]
    for field in BAD_FIELDS + QUOTED:
        for place in range(layout.columns):
            spoilt.append(separator.join([b"7"] * place + [field] + [b"7"] * (layout.columns - place - 1)))
    for line in spoilt:
        for before, after in ((b"", b"\n" + good + b"\n"), (good + b"\n", b""), (good + b"\n", b"\n" + good)):
            path.write_bytes(b"\n" * (layout.header - 1) + good * (layout.header > 0) + b"\n" + before + line + after)
            fast, slow = both(path, layout)
            assert fast == slow, path.read_bytes()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1), SHORT_TIMES)))
def test_any_ids_come_back(tmp_path, rows):
    """Independent of both readers: what was written is what is read, unless the format cannot hold it."""
    rows = [row for row in rows if not set("\t\r\n") & set(row[0] + row[1]) and not {*row[:2]} & {*NO_IDS}]
    path = tmp_path / "events"
    path.write_bytes("".join(f"{user}\t{item}\t5\t{time!r}\n" for user, item, time in rows).encode("utf-8", "replace"))
    rows = [tuple(v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for v in row) for row in rows]
    if rows and rows[0][0].startswith("\ufeff"):
        rows[0] = (rows[0][0][1:], *rows[0][1:])
    if not rows:
        assert "the file is empty" in outcome(path, LAYOUTS[1])
    elif not rows[0][0]:
        assert "the user is empty" in outcome(path, LAYOUTS[1])
    else:
        assert outcome(path, LAYOUTS[1]) == (rows, {})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ordinary_files_are_read_fast(tmp_path, monkeypatch, layout):
    row = ["1", "22", "333", "4444"][: layout.columns]
    lines_ = ["", "x" + layout.separator * (layout.columns - 1)][-layout.header :] if layout.header else []
    lines_ += [layout.separator.join(row), "", layout.separator.join(row)]
    path = tmp_path / "events"
    monkeypatch.setattr(events, "_slow", None)
    event = (row[layout.user], row[layout.item], float(row[layout.time]))
    for start in (b"", codecs.BOM_UTF8):
        path.write_bytes(start + "\r\n".join(lines_).encode())
        assert outcome(path, layout) == ([event, event], {"lines: blank": 1 + (layout.header == 2)})


def test_the_slow_reader_goes_on_where_the_fast_one_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "BLOCK_BYTES", 64)
    path = tmp_path / "events"
    path.write_bytes(b"".join(b"u%d\ti\t5\t%d\n" % (i, i) for i in range(100)) + b" \nlast\ti\t5\t+7\n")
    rows, dropped = outcome(path, LAYOUTS[1])
    assert rows == [(f"u{i}", "i", float(i)) for i in range(100)] + [("last", "i", 7.0)]
    assert dropped == {"lines: blank": 1}
    path.write_bytes(path.read_bytes() + b"u\ti\t5\n")
    assert outcome(path, LAYOUTS[1]).startswith(
        f"{path} row 103: 3 fields separated by tabs, 4 expected, in 'u\\ti\\t5'"
    )


def test_gzip(tmp_path):
    content = b"".join(b"u%d\ti\t5\t%d\n" % (i, i) for i in range(20_000))
    packed = gzip.compress(content)
    path = tmp_path / "events"  # no .gz: the bytes say it
    path.write_bytes(packed)
    rows, _ = outcome(path, LAYOUTS[1])
    assert len(rows) == 20_000
    path.write_bytes(packed[: len(packed) // 2])
    error = outcome(path, LAYOUTS[1])
    readable = int(error.split("; ")[1].split()[0])
    assert error == f"{path}: gzip data cut off or damaged; {readable} rows were readable; fetch it again"
    assert 5_000 < readable < 15_000
    path.write_bytes(packed[:-8] + b"\0" * 8)  # a wrong checksum
    assert "gzip data cut off or damaged; 20000 rows were readable" in outcome(path, LAYOUTS[1])
    path.write_bytes(packed[:2000] + b"\xff" * 2000 + packed[4000:])
    assert "gzip data cut off or damaged" in outcome(path, LAYOUTS[1])
    path.unlink()
    assert outcome(path, LAYOUTS[1]) == f"{path}: cannot be read (No such file or directory); check the path"


def test_a_huge_line(tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "MAX_TEXT", 1000)
    monkeypatch.setattr(events, "BLOCK_BYTES", 256)
    path = tmp_path / "events"
    path.write_bytes(b"u\ti\t5\t1\n" + b"x" * 999 + b"\n")
    assert "row 2: 1 fields" in outcome(path, LAYOUTS[1])
    path.write_bytes(b"u\ti\t5\t1\n" + b"x" * 100_000)
    assert outcome(path, LAYOUTS[1]).startswith(f"{path} row 2: a line of more than 0 MB, beginning with 'xxx")


@pytest.mark.parametrize(
    "written",
    [
        "170000000000000000{}",
        "170000000000000000{}.0",
        "1700000000.00000000{}",
        "1.70000000000000000{}e18",
        "-1700000000.00000000{}",
        " +1700000000.00000000{}",
    ],
)
def test_times_that_one_float_stands_for_are_ordered_as_they_are_written(tmp_path, written):
    path = tmp_path / "x.csv"
    path.write_text("u,i,t\n" + "".join(f"u,i,{written.format(n)}\n" for n in range(10)), encoding="utf-8")
    layout = header_layout(path, ",", [("u",), ("i",), ("t",)])
    batches = list(table_events(path, layout, Counter()))
    times = [(row["time"], row["rest"]) for batch in batches for row in batch.to_pylist()]
    assert len(set(times)) == 10
    assert times == sorted(times, reverse=written.startswith("-"))


def test_a_time_next_to_nothing_is_nothing(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("u,i,t\nu,i,1e-400000000000000000000\n", encoding="utf-8")
    [batch] = table_events(path, header_layout(path, ",", [("u",), ("i",), ("t",)]), Counter())
    assert batch.to_pylist() == [{"user": "u", "item": "i", "time": 0.0, "rest": 0}]
