"""How far a run is, from the files in its folder."""

import json
import os
import socket
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("verl")

from prometheus_client import CollectorRegistry, generate_latest

from iranker_verl.cli import app
from iranker_verl.errors import UserError
from iranker_verl.job.status import Collector, read_status, serve

ROOT = Path(__file__).parents[2]
LOG = (
    "iranker| step 1/10\n(pid=3) chatter\n(pid=3) iranker| step 4/10  reward\n"
    "(pid=3) waits for episodes of train: 3 prompts not begun, 5 run, 56 done\n"
)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.yaml").write_text("trainer: {total_training_steps: 10}\n")
    for name in ("stages", "logs", "checkpoints"):
        (tmp_path / name).mkdir()
    for name in ("prepare", "base"):
        (tmp_path / "stages" / f"{name}.json").write_text('{"done": true}')
    (tmp_path / "run.json").write_text('{"starts": [{}, {}]}')
    times = (99.0, 2.0, 4.0, 6.0)  # the first step compiles
    lines = [{"step": i + 1, "time/step": t, "tokens/step": 60.0 * t * (i + 1)} for i, t in enumerate(times)]
    lines[1]["val/mrr"], lines[2]["val/mrr"], lines[3]["episode/rr"] = 0.5, 0.25, 0.4
    lines[3]["reward/malformed"] = 0.125
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "logs" / "rl.log").write_text(LOG)
    latest = tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt"
    latest.write_text("3")
    os.utime(latest, (time.time() - 100,) * 2)
    return tmp_path


def test_a_run_under_way(run):
    found = read_status(run)
    assert {"stage": "rl", "doing": "step 4/10  reward", "step": 4, "steps": 10, "starts": 2}.items() <= found.items()
    assert found["waiting"] == "train: 3 prompts not begun, 5 run, 56 done"
    assert (found["val_mrr"], found["val_step"], found["best_step"], found["episode_rr"]) == (0.25, 3, 2, 0.4)
    assert found["step_s"] == 5.0 and found["remaining_s"] == 30.0  # the median, of six steps
    assert found["tokens_per_s"] == 150.0  # of 60, 120, 180 and 240
    assert found["saved_step"] == 3 and 99 < found["saved_s"] < 200 and found["written_s"] < 60
    with (run / "logs" / "rl.log").open("a") as log:
        log.write("iranker| step 5/10\n")
    assert read_status(run)["waiting"] is None


def test_one_that_has_not_begun_and_one_that_is_done(tmp_path, run):
    for name in ("rl", "evaluate"):
        (run / "stages" / f"{name}.json").write_text('{"done": true}')
    assert read_status(run)["stage"] is None
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    with pytest.raises(UserError, match=r"fresh: no config.yaml; this is no folder of `iranker train`"):
        read_status(fresh)
    (fresh / "config.yaml").write_text("trainer: {total_training_steps: null}\n")
    found = read_status(fresh)
    assert found["stage"] == "prepare" and found["step"] == 0
    assert all(found[name] is None for name in ("steps", "step_s", "saved_step", "val_mrr", "doing", "waiting"))
    assert CliRunner().invoke(app, ["status", str(fresh)]).exit_code == 0


def test_on_the_console_and_for_machines(run):
    shown = CliRunner().invoke(app, ["status", str(run)]).output
    for words in ("4 of 10", "0:00:30, at 5.0 s a step", "0.250 at step 3, best at step 2", "step 3, 0:01:4"):
        assert words in shown
    assert json.loads(CliRunner().invoke(app, ["status", str(run), "--json"]).output)["step"] == 4


def test_the_dashboard_asks_for_what_is_served(run):
    registry = CollectorRegistry()
    registry.register(Collector(run))
    text = generate_latest(registry).decode()
    assert f'iranker_run_step{{run="{run.name}"}} 4.0' in text
    assert f'iranker_run_stage{{run="{run.name}",stage="rl"}} 1.0' in text
    served = {line.split("{")[0] for line in text.splitlines() if line.startswith("iranker_run_")}
    dashboard = json.loads((ROOT / "recipes" / "cluster" / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {
        word for expr in asked for word in expr.replace("{", " ").replace("(", " ").split() if "iranker_run_" in word
    }
    assert named and named <= served


def test_a_port_that_is_taken_is_one_line(run):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        with pytest.raises(UserError, match="the port cannot be opened"):
            serve(run, taken.getsockname()[1])
