"""Parquet: the size of a page is known before it is decoded, so one long cell costs no memory."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.readers import opened, parquet
from data_prep.readers.parquet import parquet_batches
from data_prep.sources.ranking_bench import _arrow_rows
from iranker_verl.errors import UserError

WRITE = """
import sys
import pyarrow as pa, pyarrow.parquet as pq
table = pa.table({"query": ["q"] * 50, "candidates": [["y", "x" * (64 << 20)]] + [["y", "z"]] * 49})
pq.write_table(table, sys.argv[1], compression="zstd", use_dictionary=sys.argv[2] == "True", data_page_version=sys.argv[3])
"""
READ = """
import resource, sys
from pathlib import Path
from data_prep.checks.validate import validate
from data_prep.readers.parquet import parquet_batches
from iranker_verl.errors import UserError
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = most()
for read in (lambda path: list(parquet_batches(path, ["query", "candidates"])), validate):
    try:
        read(Path(sys.argv[1]))
        print("read")
    except UserError as error:
        print(error)
print(most() - before)
"""


@pytest.mark.parametrize(("dictionary", "version"), [(True, "1.0"), (False, "2.0")])
def test_a_cell_of_64_mb_is_refused_before_it_is_in_memory(tmp_path, dictionary, version):
    path = tmp_path / "cell.parquet"
    subprocess.run([sys.executable, "-c", WRITE, path, str(dictionary), version], check=True)
    assert path.stat().st_size < 1 << 20
    found = subprocess.run([sys.executable, "-c", READ, path], check=True, capture_output=True, text=True)
    *errors, grown = found.stdout.splitlines()
    assert len(errors) == 2
    for error in errors:
        assert "cell.parquet: candidates.list.element has a page of 64 MB in row group 1, and a text may have" in error
    assert int(grown) <= opened.MAX_TEXT >> 20


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.lists(st.text(max_size=40), max_size=4), min_size=1, max_size=300),
    dictionary=st.booleans(),
    version=st.sampled_from(["1.0", "2.0"]),
    packed=st.sampled_from(["none", "snappy", "zstd", "gzip"]),
    page=st.sampled_from([64, 1000, 1 << 20]),
    batch=st.sampled_from([1, 7, 1024]),
    checksum=st.booleans(),
)
def test_pages_are_found_whatever_wrote_them(
    tmp_path_factory, rows, dictionary, version, packed, page, batch, checksum
):
    path = tmp_path_factory.mktemp("pages") / "a.parquet"
    table = pa.table({"n": range(len(rows)), "s": pa.array(rows, pa.list_(pa.string()))})
    pq.write_table(
        table,
        path,
        use_dictionary=dictionary,
        data_page_version=version,
        compression=packed,
        data_page_size=page,
        write_batch_size=batch,
        row_group_size=100,
        write_page_checksum=checksum,
    )
    file = pq.ParquetFile(path)
    with path.open("rb") as raw:
        for number in range(file.num_row_groups):
            for column in map(file.metadata.row_group(number).column, range(2)):
                sizes = list(parquet._page_sizes(raw, column, path))
                texts = [len(text.encode()) for row in rows[100 * number : 100 * (number + 1)] for text in row]
                assert max(sizes) >= max(texts, default=0) or column.physical_type != "BYTE_ARRAY"
                # a page's header has 100 bytes and more, by its statistics; so no page was passed over
                assert 0 < column.total_uncompressed_size - sum(sizes) <= 1000 * len(sizes)


def test_pages_with_many_texts_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "MAX_TEXT", 1000)
    table = pa.table({"s": [f"{n:0500d}" for n in range(60)]})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, data_page_size=3000, write_batch_size=1)
    assert sum(batch.num_rows for _, batch in parquet_batches(tmp_path / "a.parquet", ["s"])) == 60
    pq.write_table(table, tmp_path / "b.parquet", use_dictionary=False)
    with pytest.raises(UserError, match=r"b.parquet: s has a page of 0 MB in row group 1.* in smaller pages"):
        list(parquet_batches(tmp_path / "b.parquet", ["s"]))


@pytest.mark.parametrize("damage", [b"\x00" * 64, b"\xff" * 64])
def test_a_damaged_header_of_a_page_is_one_line(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(opened, "MAX_TEXT", 100)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"s": ["x" * 99] * 9}), path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4 : 4 + len(damage)] = damage
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a.parquet: a page's header cannot be read; fetch it again"):
        list(parquet_batches(path, ["s"]))


def test_a_long_cell_of_an_arrow_file_is_refused_like_one_of_parquet(tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "MAX_TEXT", 1000)
    table = pa.table({"problem": ["x" * 1001], "candidates": [["a", "b"]]})
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match=r"a.arrow: a text of more than 0 MB"):
        list(_arrow_rows(tmp_path / "a.arrow"))
