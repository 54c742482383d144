"""Spoilt files for the verbs that read what other tools or earlier runs wrote: a result, or one line."""

import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
import typer

from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.schema import read_manifest, read_tasks
from iranker_verl.cli.data import check
from iranker_verl.cli.score import score
from iranker_verl.errors import UserError
from iranker_verl.evaluation.journal import finished
from iranker_verl.evaluation.records import records_of
from iranker_verl.evaluation.report.files import read_results
from iranker_verl.ranking.templates import load
from tests.spoiling import spoilt

COUNT = int(os.environ.get("IRANKER_FUZZ", "60"))
SCORED = {
    "a.run": b"".join(b"q%d Q0 d%d %d %d tag\n" % (q, d, d, 9 - d) for q in range(3) for d in range(4)),
    "qrels.txt": b"".join(b"q%d 0 d%d %d\n" % (q, d, d) for q in range(3) for d in range(4)),
}
BEIR = {"a.run": SCORED["a.run"], "qrels.tsv": b"query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td1\t0\n"}
LLMRANK = {
    "run.txt": b"".join(b"u%d\ti%d\n" % (u, i) for u in range(3) for i in range(4)),
    "truth.jsonl": b"".join(b'{"user": "u%d", "item": "i1"}\n' % u for u in range(3)),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small prepared folder."""
    top = tmp_path_factory.mktemp("prepared")
    (top / "raw").mkdir()
    lists = [
        {
            "query": f"question {n} {chr(97 + n) * 5}",
            "candidates": [{"text": f"right {n}", "relevance": 1}, {"text": f"wrong {n}", "relevance": 0}],
        }
        for n in range(12)
    ]
    (top / "raw" / "help.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lists))
    prepare(top / "raw", top / "data", load("label"), Options(), None, lambda line: None)
    return {file.name: file.read_bytes() for file in (top / "data").iterdir() if file.is_file()}


EPISODE = b'{"task": {"id": "t", "dataset": "d"}, "ranking": ["a", "b"]}\n'
RUN = {
    "episodes-bm25.jsonl": EPISODE * 3,
    "episodes-bm25.header.json": b'{"made_by": "iranker-verl", "fingerprint": {"system": "bm25"}, "took": {"seconds": 1, "role": "baseline"}}',
    "results.json": b'{"datasets": {"d": {"bm25": {"rr": 1.0}}}, "macro": {"bm25": {"rr": 1.0}}, "roles": {"bm25": "baseline"}}',
}


def scored(folder):
    run, qrels = sorted(folder.iterdir(), key=lambda file: file.suffix != ".run" and file.stem != "run")
    score(run, qrels)


def checked(folder):
    check(folder)


def evaluated(folder):
    """What ``evaluate`` reads before a model is loaded."""
    read_manifest(folder)
    for side in ("train", "test"):
        read_tasks(folder / f"{side}.parquet", load("label"))


def reported(folder):
    """What ``report``, and an evaluation that is resumed, read."""
    for one in finished(folder):
        records_of(one.lines(), one.path, one.system)
    read_results(folder)


@pytest.mark.parametrize(
    ("files", "read"),
    [(SCORED, scored), (BEIR, scored), (LLMRANK, scored), (None, checked), (None, evaluated), (RUN, reported)],
    ids=["TREC", "BEIR", "LLMRank", "check", "evaluate", "report"],
)
def test_a_spoilt_file_is_read_or_refused_in_one_line(tmp_path, prepared, capsys, files, read):
    files = files or prepared
    sys.stdout.reconfigure(errors="backslashreplace")  # as the command line does
    for number in range(COUNT):
        rng = random.Random(f"{read.__name__} {number}")
        target = rng.choice(sorted(set(files) - {".iranker"}))
        folder = tmp_path / "folder"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(spoilt(rng, content) if name == target else content)
        try:
            read(folder)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500, f"{number}: {error}"
        except typer.Exit:
            pass
        except Exception as error:
            raise AssertionError(f"{number}: {target}: {Path(folder, target).read_bytes()[:300]!r}") from error
