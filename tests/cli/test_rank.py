"""`iranker rank`: a list from the command line, a file of lists that is stopped and resumed, and a user's mistakes."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from tests.command import iranker
from tests.fake_openai import FakeServer, answer

pytest.importorskip("openai")
ROOT = Path(__file__).parents[2]
FLEAS = ["Fleas feed on blood.", "A flea can live up to a year.", "Eggs hatch in a week."]


def by_prompt(request, number):
    """A label that depends on the prompt alone; some answers name nobody."""
    prompt = request["messages"][-1]["content"]
    labels = re.findall(r"^\[([A-Z])\]", prompt, flags=re.MULTILINE)
    chosen = zlib.crc32(prompt.encode()) % (len(labels) + 1)
    return 200, answer("hm" if chosen == len(labels) else f"[{labels[chosen]}]")


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *arguments: iranker(monkeypatch, capsys, "rank", *arguments)


@pytest.fixture
def server():
    made = FakeServer(by_prompt)
    with made.serving():
        yield made


def test_a_list(run):
    server = FakeServer(lambda request, number: (200, answer("[A]")))
    with server.serving():
        code, out, _ = run("--endpoint", server.url, "--model", "fake", "--query", "how long do fleas live", *FLEAS)
    assert code == 0
    assert re.findall(r"^ *(\d) +([\d.]+) +(.*?) *$", out, flags=re.M) == [
        ("1", "1.000", FLEAS[2]),
        ("2", "0.500", FLEAS[1]),
        ("3", "0.000", FLEAS[0]),
    ]
    assert "2 calls of the model, 0 answers malformed" in out


def test_what_is_printed_holds_no_control_characters(run, server):
    for title in ("\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "\u202eback"):
        code, out, _ = run("--endpoint", server.url, "--model", "fake", "--query", "q", title, "other")
        assert code == 0 and all(c.isprintable() or c == "\n" for c in out)


def test_lines_of_standard_input(run, server, monkeypatch):
    model = ("--endpoint", server.url, "--model", "fake", "--query", "q", "-")
    for content, words in (
        ("\ufeffeins\u2028noch\n\nzwei\n".encode(), "zwei"),
        (b"\xff\n", "not UTF-8"),
        (b"\n", "nothing to rank"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        code, out, err = run(*model)
        assert words in out + err and code == (0 if words == "zwei" else 2)


def test_texts_that_are_empty_come_last_and_are_counted(run, server, tmp_path):
    code, out, _ = run("--endpoint", server.url, "--model", "fake", "--query", "q", "x", " ", "y")
    assert code == 0 and "1 without a text, ranked last" in out
    path, out_path = tmp_path / "some.jsonl", tmp_path / "ranked.jsonl"
    path.write_text('{"query": "q", "candidates": [{"id": "e", "text": ""}, {"id": "a", "text": "x"}]}\n')
    code, out, _ = run("--endpoint", server.url, "--model", "fake", "--lists", path, "--out", out_path)
    line = json.loads(out_path.read_text())
    assert code == 0 and (line["ranking"], line["empty"]) == (["a", "e"], 1) and "1 texts empty, ranked last" in out


def lists(folder, number=12):
    path = folder / "lists.jsonl"
    lines = [
        {"query": f"query {n}", "candidates": [{"id": f"c{i}", "text": f"{n} {i}"} for i in range(4)]}
        for n in range(number)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def stable(path):
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]


def test_a_file_is_stopped_and_goes_on(run, server, tmp_path):
    path = lists(tmp_path)
    common = ["--endpoint", server.url, "--model", "fake", "--lists", path, "--concurrency", 2]
    code, out, _ = run(*common, "--out", tmp_path / "whole.jsonl")
    assert code == 0 and re.search(r"whole.jsonl: 12 lists, 36 calls, \d+ answers malformed", out)
    whole = stable(tmp_path / "whole.jsonl")
    assert [line["query_id"] for line in whole] == [str(n) for n in range(1, 13)]
    assert all(sorted(line["ranking"]) == ["c0", "c1", "c2", "c3"] and line["calls"] == 3 for line in whole)
    assert (
        sum(line["malformed"] for line in whole)
        == sum(s["status"] != "ok" for line in whole for s in line["steps"])
        > 0
    )
    header = json.loads((tmp_path / "whole.header.json").read_text())
    assert header["fingerprint"]["template_id"] == "think-label" and header["took"]["seconds"] > 0

    slow = FakeServer(lambda request, number: (time.sleep(0.05), by_prompt(request, number))[1])
    with slow.serving():
        common[1] = slow.url
        command = [
            sys.executable,
            "-m",
            "iranker_verl.cli",
            "rank",
            *map(str, common),
            "--out",
            str(tmp_path / "cut.jsonl"),
        ]
        part = tmp_path / "cut.jsonl.unfinished"
        for end, kept in ((signal.SIGINT, 2), (signal.SIGKILL, 5)):
            process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            until = time.monotonic() + 60
            while not (part.exists() and part.read_bytes().count(b"\n") >= kept):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.02)
            os.killpg(process.pid, end)
            _, said = process.communicate(timeout=30)
            assert process.returncode == (130 if end == signal.SIGINT else -9)
            assert b"Traceback" not in said and not (tmp_path / "cut.jsonl").exists()
        before, kept = len(slow.requests), part.read_bytes().count(b"\n")
        code, out, _ = run(*common, "--out", tmp_path / "cut.jsonl")
        assert code == 0 and f"{kept}/12 lists; loading fake" in out
        assert len(slow.requests) - before == 3 * (12 - kept)
        assert stable(tmp_path / "cut.jsonl") == whole and not part.exists()
        assert "done before" in run(*common, "--out", tmp_path / "cut.jsonl")[1]
        code, _, err = run(*common, "--out", tmp_path / "cut.jsonl", "--window", 3)
        assert code == 2 and "window was 20, is now 3" in err


def test_nothing_of_the_users_is_overwritten(run, server, tmp_path):
    path, notes = lists(tmp_path, 2), tmp_path / "notes.jsonl"
    notes.write_text("mine")
    (tmp_path / "folder.jsonl").mkdir()
    before = path.read_text()
    for out in (path, notes, tmp_path / "folder.jsonl"):
        code, _, err = run("--endpoint", server.url, "--model", "fake", "--lists", path, "--out", out)
        assert code == 2 and f"{out} exists" in err
    assert path.read_text() == before and notes.read_text() == "mine" and server.requests == []
    assert (
        "cannot be written"
        in run("--endpoint", server.url, "--model", "fake", "--lists", path, "--out", "/proc/x.jsonl")[2]
    )


def test_half_a_character_in_an_answer(run, tmp_path):
    made = FakeServer(lambda request, number: (200, answer("[A] \ud83d")))
    with made.serving():
        assert (
            run(
                "--endpoint", made.url, "--model", "fake", "--lists", lists(tmp_path, 1), "--out", tmp_path / "x.jsonl"
            )[0]
            == 0
        )
    assert json.loads((tmp_path / "x.jsonl").read_text())["steps"][0]["response"] == "[A] \ufffd"


def test_mistakes_are_one_line(run, server, tmp_path):
    path = lists(tmp_path, 2)
    bad = tmp_path / "bad.jsonl"
    bad.write_text(path.read_text() + '{"query": " ", "candidates": ["x", "y"]}\n')
    model = ("--endpoint", server.url, "--model", "fake")
    for arguments, words in (
        ((*model,), "give --query and texts"),
        ((*model, "--query", "q"), "nothing to rank"),
        ((*model, "--query", " ", "x", "y"), "the query is empty"),
        ((*model, "--lists", path), "--lists and --out"),
        ((*model, "--lists", path, "--out", tmp_path / "x.csv"), "ends in .jsonl"),
        ((*model, "--lists", bad, "--out", tmp_path / "x.jsonl"), "bad.jsonl row 3: query is empty"),
        (("--model", tmp_path / "none", "--query", "q", "x", "y"), "no such model folder"),
        (("--endpoint", "nowhere", "--model", "x", "--query", "q", "x", "y"), "an address like"),
    ):
        code, _, err = run(*arguments)
        assert code == 2 and len(err.strip().splitlines()) == 1 and words in err, (arguments, err)
    assert server.requests == [] and not (tmp_path / "x.jsonl").exists()
