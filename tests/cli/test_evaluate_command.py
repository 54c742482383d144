"""`iranker evaluate` against a server that is none: killed and started again, its files, and a user's mistakes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from iranker_verl.cli.evaluate import evaluate
from iranker_verl.errors import UserError
from iranker_verl.evaluation.methods import choose
from iranker_verl.evaluation.trec import read_qrels, read_run
from iranker_verl.files import locked
from iranker_verl.ranking.templates import load
from tests import command
from tests.command import invoke
from tests.data_prep import prepared_folder
from tests.fake_openai import FakeServer, answer

pytest.importorskip("openai")
ROOT = Path(__file__).parents[2]
APP = typer.Typer()
APP.command()(evaluate)
DATASETS = ("passage-5", "rec-movie", "router-cost")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six test tasks a dataset, of four candidates."""
    folder = tmp_path_factory.mktemp("data")
    prepared_folder.write(folder, prepared_folder.rows(30, 100), prepared_folder.rows(18))
    return folder


def run(*arguments):
    return invoke(APP, *arguments)


def refused(*arguments):
    return command.refused(APP, *arguments)


def names_one(request, number):
    """A label that depends on the prompt alone; every fifth prompt or so is not answered in form."""
    prompt = request["messages"][-1]["content"]
    labels = re.findall(r"^\[([A-Z])\]", prompt, flags=re.MULTILINE)
    chosen = sum(prompt.encode()) % (len(labels) + 1)
    return 200, answer("hm" if chosen == len(labels) else f"[{labels[chosen]}]")


def stable(folder):
    lines = [json.loads(line) for line in (folder / "episodes-after.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_stopped_and_killed_it_goes_on_and_ends_as_if_nothing_had_happened(data, tmp_path):
    def slowly(request, number):
        time.sleep(0.02)
        return names_one(request, number)

    server = FakeServer(slowly)
    common = ["--endpoint", server.url, "--model", "fake", "--data", data, "--orders", "2", "--max-new-tokens", "8"]
    common += ["--concurrency", "3", "--baselines", "random"]
    with server.serving():
        assert run(*common, "--out", tmp_path / "whole").exit_code == 0
        asked = len(server.requests)
        assert asked == 2 * 18 * 3 and server.most == 3

        code = "import typer; from iranker_verl.cli.evaluate import evaluate; typer.run(evaluate)"
        command = [sys.executable, "-c", code, *map(str, common), "--out", str(tmp_path / "cut")]
        part = tmp_path / "cut" / "episodes-after.jsonl.unfinished"
        for end, lines in ((signal.SIGINT, 4), (signal.SIGKILL, 9)):
            process = subprocess.Popen(
                command,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            until = time.monotonic() + 60
            while time.monotonic() < until and not (part.exists() and part.read_bytes().count(b"\n") >= lines):
                assert process.poll() is None, "it ended before it could be stopped"
                time.sleep(0.02)
            os.killpg(process.pid, end)
            assert process.wait(30) != 0
        kept = part.read_bytes().count(b"\n")
        with part.open("ab") as file:
            file.write(b'{"task_id": "rec-mo')  # as a machine that loses power may leave it
        assert 9 <= kept < 36 and not (tmp_path / "cut" / "results.json").exists()

        before = len(server.requests)
        result = run(*common, "--out", tmp_path / "cut")
        assert f"{kept}/36 tasks completed before, resuming" in result.output
        assert len(server.requests) - before == (36 - kept) * 3
        assert stable(tmp_path / "cut") == stable(tmp_path / "whole")
        assert not part.exists()
        first, second = (json.loads((tmp_path / f / "results.json").read_text()) for f in ("whole", "cut"))
        for measure in ("rr", "rr_strict", "malformed_rate", "orders", "n", "ci95", "new_tokens_per_task"):
            assert first["macro"]["after"][measure] == second["macro"]["after"][measure]

        # and another time there is nothing left to do
        before = len(server.requests)
        assert "completed before" in run(*common, "--out", tmp_path / "cut").output and len(server.requests) == before


def test_the_files_of_an_evaluation(data, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a secret")
    prices = tmp_path / "prices.yaml"
    prices.write_text("fake: {input: 1, output: 2}")
    server = FakeServer(names_one)
    out = tmp_path / "out"
    with server.serving():
        result = run("--endpoint", server.url, "--model", "fake", "--data", data, "--out", out, "--limit", 4,
                     "--tasks", "rec-movie,passage-5", "--prices", prices, "--orders", 2, "--system", "fake")  # fmt: skip
    assert result.exit_code == 0 and "popularity" in result.output and str(out / "results.json") in result.output
    results = json.loads((out / "results.json").read_text())
    assert set(results["datasets"]) == {"rec-movie", "passage-5"}
    own = results["datasets"]["rec-movie"]["fake"]
    assert (own["n"], own["orders"]["k"], own["calls_per_task"]) == (4, 2, 3)
    assert own["dollars_per_task"] == pytest.approx((21 + 2 * own["new_tokens_per_task"]) / 1e6)
    assert own["rr_strict"] <= own["rr"] and own["orders"]["sd"] >= 0 and -1 <= own["orders"]["position_bias"] <= 1
    assert results["config"]["method"] == "iterative" and results["template_hash"] == load("label").hash
    assert "a secret" not in (out / "results.json").read_text() + (out / "episodes-fake.header.json").read_text()
    assert sorted(p.name for p in (out / "runs" / "rec-movie").iterdir()) == [
        *("bm25.run", "fake.order-1.run", "fake.run", "popularity.run", "qrels.txt", "random.run")
    ]
    assert len(read_run(out / "runs" / "rec-movie" / "fake.run")) == 4
    assert len(read_qrels(out / "runs" / "passage-5" / "qrels.txt")) == 4
    scored = run("--run", out / "runs" / "rec-movie" / "fake.run", "--qrels", out / "runs" / "rec-movie" / "qrels.txt",
                 "--measures", "RR,RR(rel=1),nDCG@10")  # fmt: skip
    lines = [json.loads(line) for line in (out / "episodes-fake.jsonl").read_text().splitlines()]
    first = [line["rr"] for line in lines if line["dataset"] == "rec-movie" and line["order"] == 0]
    assert re.search(rf"RR\(rel=1\) +{sum(first) / 4:.4f}", scored.output) and "4 judged queries, 0" in scored.output


def test_baselines_alone(data, tmp_path):
    assert run("--data", data, "--out", tmp_path, "--baselines", "random,bm25").exit_code == 0
    assert set(json.loads((tmp_path / "results.json").read_text())["macro"]) == {"random", "bm25"}


def test_the_old_name_of_baselines_is_taken_and_tells_the_new_one(data, tmp_path):
    result = run("--data", data, "--out", tmp_path, "--rivals", "bm25")
    assert result.stderr.splitlines() == ["--rivals is now --baselines"]
    assert set(json.loads((tmp_path / "results.json").read_text())["macro"]) == {"bm25"}
    assert "--rivals" not in run("--help").output and "--run" not in run("--help").output


def test_methods_choose_their_template(data):
    manifest = {"template_id": "think-label", "template_hash": load("think-label").hash}
    found = {m: choose(m, None, manifest) for m in ("iterative", "direct", "setwise", "pairwise", None)}
    assert {m: t.id for m, (_, t) in found.items()} == {
        **{"iterative": "think-label", "direct": "direct-think-label", None: "think-label"},
        **{"setwise": "setwise-think-label", "pairwise": "pairwise-think-label"},
    }
    assert choose("iterative", None, {"template_id": "direct-label", "template_hash": ""})[1].id == "label"
    assert choose(None, "direct-label", manifest)[0] == "direct"
    with pytest.raises(UserError, match="for --method direct, not iterative"):
        choose("iterative", "direct-label", manifest)
    with pytest.raises(UserError, match="unknown method 'listwise'; choose one of iterative, direct"):
        choose("listwise", None, manifest)
    with pytest.raises(UserError, match=load("think-label").hash):
        choose(None, None, manifest | {"template_hash": "0" * 16})


def test_mistakes_are_one_line_and_leave_nothing(data, tmp_path):
    out, run_file = tmp_path / "out", tmp_path / "a.run"
    run_file.write_text("q Q0 d 1 1 tag\n")
    common = ["--data", data, "--out", out]
    model = ["--model", "fake", "--endpoint", "http://host/v1"]
    for arguments, words in (
        ([], ["--data", "iranker score RUN QRELS"]),
        (["--model", tmp_path], ["--data"]),
        (["--run", run_file], ["iranker score RUN QRELS"]),
        (["--run", run_file, "--qrels", run_file, "--data", data], ["--run and --qrels"]),
        (["--run", run_file, "--qrels", run_file], ["a.run row 1", "6 columns, 4 expected"]),
        ([*common, "--rivals", "bm26"], ["unknown baseline 'bm26'"]),
        ([*common, "--baselines", "none"], ["--model"]),
        ([*common, "--endpoint", "http://host/v1"], ["--model"]),
        ([*common, "--model", "fake", "--endpoint", "host"], ["an address like"]),
        ([*common, "--model", tmp_path / "none"], ["none", "no such model folder"]),
        ([*common, "--model", tmp_path], ["no config.json"]),
        ([*common, "--baselines", "bm26"], ["unknown baseline 'bm26'", "bm25"]),
        ([*common, "--models", "bm25"], ["NAME=FOLDER"]),
        ([*common, *model, "--role", "judge"], ["--role judge", "before", "model"]),
        ([*common, *model, "--system", "a/b"], ["--system 'a/b'"]),
        ([*common, *model, "--system", "bm25"], ["no baseline's name"]),
        ([*common, "--models", "bm26=folder"], ["NAME one of"]),
        ([*common, "--tasks", "rec-music"], ["'rec-music'", *DATASETS]),
        ([*common, *model, "--method", "listwise"], ["unknown method"]),
        ([*common, *model, "--template", "lable"], ["unknown template 'lable'"]),
        (["--data", tmp_path, "--out", out], ["manifest.json"]),
        (["--data", data, "--out", run_file], ["a.run: the folder cannot be made", "choose another"]),
        (["--data", data, "--out", run_file / "sub"], ["a.run: the folder cannot be made"]),
        ([*common, *model, "--shards", "2"], ["shards have no effect with an endpoint"]),
    ):
        line = refused(*arguments)
        assert all(word in line for word in words), line
    negative = run(*common, "--seed", "-1")
    assert negative.exit_code == 2 and "--seed" in negative.output
    assert not out.exists()


def test_options_without_effect_are_refused(data, tmp_path):
    out, run_file = tmp_path / "out", tmp_path / "a.run"
    run_file.write_text("q Q0 d 1 1 tag\n")
    common, scored = ["--data", data, "--out", out], ["--run", run_file, "--qrels", run_file]
    model = ["--model", "fake", "--endpoint", "http://host/v1"]
    for arguments, words in (
        ([*scored, "--out", out], "--out has no effect with --run"),
        (
            [*scored, "--baselines", "random,constant,popularity,bm25"],
            "--baselines has no effect with --run",
        ),  # even the default
        ([*scored, "--endpoint", "http://host/v1"], "--endpoint has no effect with --run"),
        ([*scored, "--system", "after"], "--system has no effect with --run"),
        ([*common, "--measures", "RR"], "--measures has no effect without --run"),
        ([*common, "--prices", run_file], "--prices has no effect without --model"),
        ([*common, "--max-new-tokens", "9"], "--max-new-tokens has no effect without --model"),
        ([*common, *model, "--retriever", "folder"], "--retriever has no effect without --cot"),
        ([*common, *model, "--examples", "2"], "--examples has no effect without --cot"),
        ([*common, "--thoughts", data], "--cot has no effect without --model"),  # its former name
        ([*common, "--models", "r1-rec=folder"], "--models r1-rec=folder has no effect, as --baselines"),
    ):
        assert words in refused(*arguments)
    assert not out.exists()


def test_a_model_is_checked_before_baselines_are_trained(data, tmp_path, monkeypatch):
    (tmp_path / "iranker.json").write_text(json.dumps({"template_id": "label", "template_hash": "0" * 16}))
    monkeypatch.setattr("iranker_verl.inference.models.model_folder", lambda model: Path(model))
    out = tmp_path / "out"
    assert "0" * 16 in refused("--model", tmp_path, "--data", data, "--out", out)
    assert not out.exists()


def test_one_evaluation_at_a_time_in_a_folder(data, tmp_path):
    with locked(tmp_path / "out"):
        assert "another iranker is writing there" in refused("--data", data, "--out", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_is_finished_in_the_folder_stands_in_one_table(data, tmp_path):
    server = FakeServer(names_one)
    out, results = tmp_path / "out", {}
    with server.serving():
        common = ["--endpoint", server.url, "--model", "fake", "--data", data, "--out", out, "--max-new-tokens", "8"]
        for more in (
            ["--system", "before", "--baselines", "random"],
            ["--system", "setwise", "--method", "setwise", "--baselines", "none"],
            ["--system", "few", "--limit", "2", "--baselines", "none"],
            ["--system", "after", "--baselines", "none", "--orders", "2"],
        ):
            result = run(*common, *more)
            assert result.exit_code == 0
            results[more[1]] = json.loads((out / "results.json").read_text())
    assert {name: set(found["macro"]) for name, found in results.items()} == {
        "before": {"before", "random"},
        "setwise": {"setwise", "before", "random"},
        "few": {"few"},
        "after": {"after", "before", "setwise", "random"},
    }
    assert "few: left out of the results" in result.output and "on other tasks" in result.output
    last = results["after"]
    assert set(last["diagnosis"]) == set(last["datasets"]["rec-movie"]) == set(last["macro"])
    assert last["roles"] == {"after": "after", "before": "before", "setwise": "model", "random": "baseline"}
    assert last["paired_p"] is not None and {c["system"] for c in last["comparisons"]} == set(last["macro"]) - {"after"}
    for system in ("before", "setwise", "random"):  # read back, its numbers are those of its own call
        assert last["macro"][system] == results["before" if system == "random" else system]["macro"][system]
    path = out / "episodes-before.jsonl"
    path.write_text('{"task_id": "t"}\n' + path.read_text())
    line = refused("--data", data, "--out", out, "--baselines", "random")
    assert "episodes-before.jsonl row 1" in line and "evaluate before again" in line


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom iranker_verl.cli.evaluate import evaluate\n"
        "print(*({'torch', 'vllm', 'ray', 'transformers', 'openai', 'ir_measures'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
