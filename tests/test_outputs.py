"""Every verb that writes, among other people's files and links: each foreign byte stays, and a refusal is one line."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data_prep import prepared_folder
from tests.evaluation.cot.samples import dump, line
from tests.fake_openai import FakeServer, answer
from tests.foreign import PLACES, plant, snapshot

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "iranker_verl.cli"]


def iranker(*arguments):
    """Exit code and standard error of ``iranker …``, in this process: many start-ups would take long."""
    from typer.testing import CliRunner

    from iranker_verl.cli import app
    from iranker_verl.errors import UserError

    result = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(result.exception, UserError):
        return 2, str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, ""


def raw_files(folder, users=30):
    folder.mkdir(parents=True)
    items = "".join(f"i{n}\tItem {n}\n" for n in range(60))
    (folder / "data.item").write_text("item_id:token\ttitle:token_seq\n" + items)
    events = "".join(f"u{u}\ti{(7 * u + n) % 60}\t{n}\n" for u in range(users) for n in range(8))
    (folder / "data.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + events)
    return folder


PREPARE = ("--task", "rec-movie", "--history", 3, "--candidates", 5)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """What the verbs read, apart from where they write."""
    top = tmp_path_factory.mktemp("inputs")
    raw_files(top / "raw" / "rec-movie")
    prepared_folder.write(top / "data", prepared_folder.rows(30, 100), prepared_folder.rows(9))
    assert iranker("evaluate", "--data", top / "data", "--out", top / "one", "--baselines", "random")[0] == 0
    assert iranker("evaluate", "--data", top / "data", "--out", top / "two", "--baselines", "random")[0] == 0
    dump(top / "rollouts", step1=[line()])
    lists = [
        {"query": f"query {n}", "candidates": [{"id": f"c{i}", "text": f"{n} {i}"} for i in range(3)]} for n in (1, 2)
    ]
    (top / "lists.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lists))
    server = FakeServer(lambda request, number: (200, answer("[A]")))
    with server.serving():
        yield top, server.url


def verbs(inputs, top):
    """Each verb that writes, with outputs in ``top``."""
    read, server = inputs
    runs = read / "one" / "runs" / "rec-movie"
    model = ("--endpoint", server, "--model", "fake", "--concurrency", 2)
    return {
        "prepare": ("prepare", "--raw", read / "raw", "--out", top / "out", *PREPARE),
        "inspect": ("inspect", top / "data"),
        "inspect --out": ("inspect", read / "data", "--out", top / "card.html"),
        "validate": ("validate", top / "data"),
        "evaluate": ("evaluate", "--data", read / "data", "--out", top / "run", "--baselines", "random"),
        "report": ("report", top / "one", "--tables"),
        "report --compare": (
            "report",
            "--compare",
            read / "one",
            read / "two",
            "--out",
            top / "page.html",
            "--system",
            "random",
        ),
        "score": ("evaluate", "--run", runs / "random.run", "--qrels", runs / "qrels.txt"),
        "cot collect": ("cot", "collect", "--rollouts", read / "rollouts", "--out", top / "store"),
        "rank": ("rank", "--lists", read / "lists.jsonl", "--out", top / "lists.jsonl", *model),
    }


INSIDE_READ = st.lists(
    st.tuples(
        st.sampled_from(
            [f"one/{name}" for name in ("report.html", "tables.tex", "tables.md", "tables.csv", "report.html.part")]
            + [f"data/{name}" for name in ("card.html", "card.json", "card.html.part", "notes.txt")]
        ),
        st.sampled_from(["file", "empty", "folder", "link to a file", "dead link"]),
    ),
    max_size=2,
)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=PLACES, inside=INSIDE_READ, seed=st.integers(0, 999))
def test_each_verb_leaves_what_is_not_ours_as_it_was(inputs, tmp_path_factory, places, inside, seed):
    """Twice, so that the second time finds what the first one made."""
    top = tmp_path_factory.mktemp("top")
    for name in ("one", "data"):
        subprocess.run(["cp", "-r", inputs[0] / name, top / name], check=True)
    plant(top, [*places, *inside], random.Random(seed))
    before = snapshot(top)
    for name, arguments in [*verbs(inputs, top).items()] * 2:
        code, error = iranker(*arguments)
        assert code in (0, 1, 2) and "\n" not in error, (name, error)
        assert {path: snapshot(top).get(path) for path in before} == before, name


def test_with_nothing_in_the_way_each_verb_writes_and_writes_again(inputs, tmp_path):
    for name in ("one", "data"):
        subprocess.run(["cp", "-r", inputs[0] / name, tmp_path / name], check=True)
    for name, arguments in [*verbs(inputs, tmp_path).items()] * 2:
        assert iranker(*arguments) == (0, ""), name
    hidden = {path.name for path in tmp_path.rglob(".*")}
    assert hidden == {".iranker"}
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"out", "run", "store", "card.html", "card.json", "page.html", "lists.jsonl", "lists.header.json"}


def test_the_second_output_of_inspect_does_not_replace_a_file_of_the_same_name(inputs, tmp_path):
    (tmp_path / "results.json").write_text('{"mine": 1}')
    code, error = iranker("inspect", inputs[0] / "data", "--out", tmp_path / "results.html")
    assert (code, "results.json: a file that iranker did not make is in the way" in error) == (2, True)
    assert os.listdir(tmp_path) == ["results.json"]


@pytest.mark.parametrize("name", ["out.old", "out.part", "out.work"])
def test_preparation_leaves_folders_with_the_names_of_former_temporary_ones(inputs, tmp_path, name):
    raw_files(tmp_path / name / "raw" / "rec-movie")
    (tmp_path / name / "manifest.json").write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for _ in range(2):  # raw data in it, too
        assert iranker("prepare", "--raw", tmp_path / name / "raw", "--out", tmp_path / "out", *PREPARE) == (0, "")
    assert {path: path.read_bytes() for path in before} == before


def test_raw_data_in_unfinished_work_is_refused(tmp_path):
    from iranker_verl import files

    work = files.kept_folder(tmp_path / "out", "other")
    raw_files(work / "raw" / "rec-movie")
    code, error = iranker("prepare", "--raw", work / "raw", "--out", tmp_path / "out", *PREPARE)
    assert code == 2 and "it holds the raw data" in error and (work / "raw" / "rec-movie" / "data.inter").exists()


def test_prepared_again_with_the_users_own_files_inside(inputs, tmp_path):
    arguments = ("prepare", "--raw", inputs[0] / "raw", "--out", tmp_path / "out", *PREPARE)
    assert iranker(*arguments) == (0, "")
    assert iranker("inspect", tmp_path / "out") == (0, "")  # the card is ours, and goes
    assert iranker(*arguments, "--seed", 2) == (0, "")
    assert not (tmp_path / "out" / "card.html").exists()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    code, error = iranker(*arguments, "--seed", 3)
    assert code == 2 and "out: it would be replaced, but holds thesis.txt, which iranker did not make" in error
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"
    assert iranker(*arguments, "--seed", 2) == (0, "")  # what is there is used again


def test_data_of_the_former_version_is_replaced_only_while_it_is_as_it_was_written(inputs, tmp_path):
    arguments = ("prepare", "--raw", inputs[0] / "raw", "--out", tmp_path / "out", *PREPARE)
    assert iranker(*arguments) == (0, "")
    (tmp_path / "out" / ".iranker").unlink()
    train = (tmp_path / "out" / "train.parquet").read_bytes()
    (tmp_path / "out" / "train.parquet").write_bytes(b"mine")
    code, error = iranker(*arguments, "--seed", 2)
    assert code == 2 and "holds manifest.json, test.parquet, train.parquet" in error
    (tmp_path / "out" / "train.parquet").write_bytes(train)
    assert iranker(*arguments, "--seed", 2) == (0, "")


def test_pieces_whose_names_differ_in_a_sign_only_stay_apart(tmp_path):
    def query(name, number):
        passages = {"is_selected": [1, 0, 0, 0, 0], "passage_text": [f"{name} {number} {i}" for i in range(5)]}
        return {"query": f"what is {name} {number * 7919}", "query_id": number, "passages": passages}

    (tmp_path / "raw").mkdir()
    names = ("train 1", "train_1", "train%201", "TRAIN_1")
    for place, name in enumerate(names):
        lines = [json.dumps(query(f"w{place}x{i}", 100 * place + i)) for i in range(10)]
        (tmp_path / "raw" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "raw" / "test.jsonl").write_text(json.dumps(query("other", 999)) + "\n")
    assert iranker("prepare", "--raw", tmp_path / "raw", "--out", tmp_path / "out", "--task", "passage-5") == (0, "")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["rows"] == {"train": 40, "test": 1}


def test_two_preparations_into_one_folder_and_one_that_is_killed(tmp_path):
    """The second says so in one line; after a kill the same command continues and ends as if nothing had happened."""
    raw = raw_files(tmp_path / "raw" / "rec-movie", users=8_000).parent
    arguments = [*COMMAND, "prepare", "--raw", raw, *map(str, PREPARE), "--processes", "2", "--out"]
    first = subprocess.Popen([*arguments, tmp_path / "out"], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*.work")):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)  # so that it does not end too soon
    second = subprocess.run([*arguments, tmp_path / "out"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 2 and re.fullmatch(
        r"error: .*out: another iranker is writing there; .*\n", second.stderr
    )
    first.send_signal(signal.SIGKILL)
    first.wait()
    subprocess.run([*arguments, tmp_path / "out"], cwd=ROOT, check=True)
    subprocess.run([*arguments, tmp_path / "whole"], cwd=ROOT, check=True)
    for name in ("train.parquet", "test.parquet", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["out", "raw", "whole"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs Linux")
def test_a_full_disk_is_one_line(inputs, tmp_path):
    """A limit on the size of files stands for the disk."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); from iranker_verl.cli import main; main()"
    )
    for arguments in (
        ("prepare", "--raw", inputs[0] / "raw", "--out", tmp_path / "out", *PREPARE),
        ("inspect", inputs[0] / "data", "--out", tmp_path / "card.html"),
        ("evaluate", "--data", inputs[0] / "data", "--out", tmp_path / "run", "--baselines", "random"),
    ):
        found = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert found.returncode == 2, found.stderr
        assert re.fullmatch(r"error: .* cannot be written \(.*\).*\n", found.stderr), found.stderr
