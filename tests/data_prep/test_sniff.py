"""What a file is, whatever its first row looks like: read, refused by file and row, or named as not read with the reason."""

import gzip
import json
import os
import zipfile

import pytest

from data_prep.discover import discover
from data_prep.prepare import prepare
from data_prep.readers import opened
from data_prep.readers.documents import json_records
from data_prep.readers.sniff import sniff
from iranker_verl.errors import UserError
from iranker_verl.ranking.templates import load
from tests.data_prep.source_runs import made

ROWS = [
    {"query": f"question {n // 2} about {'klmnopqrst'[n // 2] * 4}", "passage": f"passage {n}", "relevance": n % 2}
    for n in range(20)
]
LINES = [json.dumps(row) for row in ROWS]
CSV = ["query,passage,relevance", *(",".join(map(str, row.values())) for row in ROWS)]
READ = 10  # tasks


def jsonl(*first, rest=LINES[1:]):
    return "\n".join([*first, *rest]) + "\n"


def table(header, rows=CSV[1:], end="\n"):
    return end.join([header, *rows]) + end


def tasks(raw, name):
    """How many tasks a dataset of the folder makes."""
    (source,) = [source for source in discover(raw).sources if name in source.datasets]
    return sum(part.num_rows for part in made(source, datasets=(name,)))


@pytest.mark.parametrize(
    ("name", "content", "outcome"),
    [
        ("a.jsonl", jsonl(LINES[0][:40]), "a.jsonl row 1: not a JSON object, but"),
        ("a.jsonl", jsonl(json.dumps(ROWS[0] | {"passage": "word " * 250_000})), 9),
        ("a.jsonl", jsonl("// exported 2026-01-02", LINES[0]), "a.jsonl row 1: not a JSON object, but '// exported"),
        ("a.jsonl", jsonl("# exported", "# twice", LINES[0]), "a.jsonl row 1: not a JSON object"),
        ("a.jsonl", jsonl(LINES[0].replace('"', "\u201c")), "a.jsonl row 1: not a JSON object"),
        ("a.jsonl", jsonl(str(ROWS[0])), "a.jsonl row 1: not a JSON object"),
        ("a.jsonl", jsonl(LINES[0].replace("passage 0", "passage\t0")), "a.jsonl row 1: not a JSON object"),
        (
            "a.jsonl",
            jsonl(LINES[0].replace("}", ', "x": NaN}')),
            "a.jsonl row 1: .*holds NaN, which JSON does not have",
        ),
        ("a.jsonl", jsonl(*LINES[:3], LINES[3].replace("1}", "NaN}"), rest=LINES[4:]), "row 4: .*holds NaN"),
        ("a.jsonl", jsonl(LINES[0].replace("0}", "-Infinity}")), "row 1: .*holds -Infinity"),
        ("a.jsonl", jsonl(json.dumps({"query": "q", "passage": "x"})), "no column relevance"),
        ("a.jsonl", "[" + ",\n".join(LINES) + "]", READ),
        ("a.jsonl", "\n\n [" + ",".join(LINES) + "]\n\n", READ),
        ("a.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS), READ),
        ("a.jsonl", "".join(json.dumps(row, indent="\t") for row in ROWS), READ),
        ("a.jsonl", "\ufeff" + jsonl(LINES[0]), READ),
        ("a.jsonl", jsonl(LINES[0]).replace("\n", "\r\n"), READ),
        ("a.jsonl", jsonl(LINES[0]).encode("utf-16"), READ),
        ("a.jsonl", jsonl(LINES[0]).encode("utf-16-be"), READ),
        ("a.jsonl.gz", gzip.compress(jsonl(LINES[0]).encode()), READ),
        ("a.jsonl", "[" + ",\n".join(LINES[:-1]), "a.jsonl row 19: not a whole JSON file"),
        ("a.csv", table("Query,Passage,Relevance"), READ),
        ("a.csv", table(" query , passage, relevance "), READ),
        ("a.csv", table("\u00a0query\u00a0,\u2003passage,relevance\u00a0"), READ),
        ("a.csv", table("'query','passage','relevance'"), READ),
        ("a.csv", table("\u200bquery,passage\u200b,relevance"), READ),
        ("a.csv", "\ufeff\ufeff" + table(CSV[0]), READ),
        ("a.jsonl", jsonl(*(line + "," for line in LINES), rest=[]), "a.jsonl row 1: not a JSON object, but"),
        ("a.csv", table('"query","passage","relevance"'), READ),
        ("a.csv", table(CSV[0], [row.replace(",", ", ") for row in CSV[1:]]), READ),
        ("a.csv", table(CSV[0], [", ".join(f'"{cell}"' for cell in row.split(",")) for row in CSV[1:]]), READ),
        ("a.csv", table('query,passage,relevance,"note\nto self"', [f"{row},x" for row in CSV[1:]]), READ),
        ("a.csv", table("sep=,\nquery,passage,relevance"), READ),
        ("a.csv", table("\n\nquery,passage,relevance"), READ),
        ("a.csv", "\ufeff" + table(CSV[0]), READ),
        ("a.csv", "\ufeff" + table('"query",passage,relevance'), READ),
        ("a.csv", table(CSV[0]).encode("utf-16"), READ),
        ("a.csv", table(CSV[0]).encode("utf-16-le"), READ),
        ("a.csv", table(CSV[0]).encode("utf-32"), READ),
        ("a.csv", table(CSV[0], end="\r\n"), READ),
        (
            "a.csv",
            table("My exported table,,\nquery,passage,relevance"),
            "not the first row, but stand 1 rows below 'My",
        ),
        ("a.csv", table("# by hand\nquery,passage,relevance"), "not the first row, but stand 1 rows below '# by hand'"),
        ("a.csv", table("sep=;\nquery;passage;relevance"), "separated by semicolons"),
        ("a.csv", table(CSV[0]).replace(",", "\t"), "separated by tabs"),
        ("a.tsv", table(CSV[0]).replace(",", "\t"), "separated by tabs"),
        ("a.csv", table("query,passage,rel"), "no column relevance"),
        ("a.csv", table(CSV[0], [CSV[1][:-1] + "NaN", *CSV[2:]]), "row 2: relevance is 'NaN', not a number"),
        (
            "a.csv",
            table(CSV[0], ["x" * (17 << 20), *CSV[1:]]),
            "row 2: (a line|not well-formed CSV).* of more than 16 MB",
        ),
    ],
)
def test_an_odd_first_row_does_not_make_a_file_vanish(tmp_path, name, content, outcome):
    (tmp_path / "good.csv").write_text("query,passage,relevance\nx,y,1\nx,z,0\n")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if isinstance(outcome, int):
        assert tasks(tmp_path, "a") == outcome
    else:
        with pytest.raises(UserError, match=outcome):
            tasks(tmp_path, "a")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("README.md", b"# About\n", "of no format that is known"),
        ("picture.png", bytes(range(256)), "of no format that is known"),
        ("other.csv", b"uid,iid\n1,2\n", "of no format that is known; it has uid, iid"),
        ("other.jsonl", b'{"a": 1, "b": 2}\n', "of no format that is known; it has a, b"),
        ("other.jsonl", b"what is this\n", "no JSON objects, but 'what is this'"),
        ("other.json", b"[1, 2]", "no JSON objects, but '[1, 2]'"),
        ("empty.csv", b"", "of no format that is known"),
        ("data.zip", b"PK\x03\x04....", "packed as zip; unpack it"),
        ("data.csv.bz2", b"BZh91AY", "packed as bzip2; unpack it"),
        ("data.jsonl.zst", b"\x28\xb5\x2f\xfd\x00", "packed as zstd; unpack it"),
        ("x.items.csv", b"item_id,title\na,b\n", "of no format that is known; it has item_id, title"),
        (
            "mac.csv",
            b"query,passage,relevance\rq,a,1\rq,b,0\r",
            "its lines end in carriage returns alone, as on old Macs; save it with line feeds",
        ),
        ("ml.inter", b"user_id:token\titem_id_list:token_seq\n", "sequences that were cut already, without times"),
    ],
)
def test_what_is_not_read_is_named_with_the_reason(tmp_path, name, content, reason):
    raw, said = tmp_path / "raw", []
    raw.mkdir()
    (raw / "faq.csv").write_text(table(CSV[0]))
    (raw / name).write_bytes(content)
    assert discover(raw).not_read == {raw / name: reason}
    manifest = prepare(raw, tmp_path / "out", load("label"), progress=said.append)
    assert manifest["not_read"] == {name: reason}
    assert f"not read: {raw / name}: {reason}" in said


def test_many_files_that_are_not_read_are_named_in_the_manifest(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "faq.csv").write_text(table(CSV[0]))
    for number in range(30):
        (tmp_path / "raw" / f"note{number}.txt").write_text("x")
    said = []
    manifest = prepare(tmp_path / "raw", tmp_path / "out", load("label"), progress=said.append)
    assert len(manifest["not_read"]) == 30
    assert sum(line.startswith("not read: ") for line in said) == 21
    assert any(line.startswith("not read: 10 more files") for line in said)


def test_files_of_datasets_that_were_not_asked_for_are_named(tmp_path):
    (tmp_path / "faq.csv").write_text(table(CSV[0]))
    (tmp_path / "other.csv").write_text(table(CSV[0]))
    assert discover(tmp_path, ["faq"]).not_read == {tmp_path / "other.csv": "of other, not asked for"}


def test_pipes_and_devices_are_not_opened(tmp_path):
    (tmp_path / "faq.csv").write_text(table(CSV[0]))
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "null.jsonl").symlink_to("/dev/zero")
    assert {path.name: reason for path, reason in discover(tmp_path).not_read.items()} == {
        name: "cannot be read (not a regular file); check the path" for name in ("pipe.csv", "null.jsonl")
    }
    (tmp_path / "faq.csv").unlink()
    with pytest.raises(UserError) as error:
        prepare(tmp_path, tmp_path.parent / "out", load("label"))
    assert all(str(error.value).count(str(tmp_path / name)) == 1 for name in ("pipe.csv", "null.jsonl"))
    with pytest.raises(UserError, match=r"pipe.csv: cannot be read \(not a regular file\)"):
        discover(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match=r"pipe.csv: cannot be read \(not a regular file\)"):
        list(json_records(tmp_path / "pipe.csv", {}))


@pytest.mark.parametrize("name", ["a.csv.gz", "a.parquet", "a.json"])
def test_data_that_is_cut_off_at_its_start_is_refused_and_not_left_aside(tmp_path, name):
    (tmp_path / "faq.csv").write_text(table(CSV[0]))
    (tmp_path / name).write_bytes({"a.csv.gz": gzip.compress(b"a,b\n")[:12], "a.json": b'[{"a": 1'}.get(name, b"PAR1"))
    with pytest.raises(UserError, match=f"{name}"):
        discover(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"query": "q", "candidates": ["%s"]}'),
        ("a.jsonl", b'[{"query": "q", "candidates": [{"text": "%s"}]}]'),
        ("a.jsonl", b'{"query": "q",\n "candidates": [{"text": "%s"}]}'),
        ("a.csv", b"query,passage,relevance\nq,%s,1\n"),
        ("a.csv", b'query,passage,relevance\nq,"%s",1\n'),
        ("a.csv", b'query,passage,relevance\nq,"' + b"%s" * 3 + b'",1\n'),
        ("ratings.dat", b"1::2::3::4\n%s\n"),
    ],
)
@pytest.mark.parametrize("filler", [b"x", b" ", b"\\n"])
def test_one_limit_for_a_text_whatever_carries_it(tmp_path, monkeypatch, name, content, filler):
    monkeypatch.setattr(opened, "MAX_TEXT", 1 << 16)
    (tmp_path / "movies.dat").write_text("2::T::Drama\n")
    (tmp_path / name).write_bytes(content.replace(b"%s", filler * (1 << 17)))
    with pytest.raises(UserError, match="of more than 0 MB"):
        for source in discover(tmp_path / name).sources:
            for batch in source.units.args[0].read_events(tmp_path / name, {}) if name == "ratings.dat" else ():
                assert batch
            list(made(source) if name != "ratings.dat" else ())


def test_a_large_json_object_of_somebody_else_is_named_and_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "MAX_TEXT", 1 << 16)
    (tmp_path / "faq.csv").write_text(table(CSV[0]))
    (tmp_path / "results.json").write_text(json.dumps({"runs": ["x" * 100] * 2000}))
    assert "a line of more than 0 MB" in discover(tmp_path).not_read[tmp_path / "results.json"]


def test_an_endless_run_of_blank_lines_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "MAX_TEXT", 1 << 16)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"\n" * (1 << 17) + b'{"a": 2}\n')
    with pytest.raises(UserError, match="row 65538: blank lines of more than 0 MB"):
        list(json_records(path, {"lines: blank": 0}))


def test_a_file_is_known_by_its_bytes_and_not_by_its_name(tmp_path):
    path = tmp_path / "a.csv"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", "b")
    assert sniff(path).problem == "packed as zip; unpack it"
    path.write_bytes(gzip.compress(b"Query,Passage\n"))
    assert sniff(path).has("query", "passage") and not sniff(path).has("query", "relevance")
