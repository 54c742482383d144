"""`iranker cot`: from rollouts to a store, to the proof, to a template; and mistakes in one line."""

import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_prep.schema import SCHEMA
from iranker_verl.cli.cot import app, former
from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines import loading
from iranker_verl.evaluation.cot.store import read_traces
from iranker_verl.evaluation.cot.template import with_traces
from iranker_verl.ranking import Elimination
from tests.evaluation.cot.samples import LONG, TEMPLATE, dump, line, task


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments):
    with pytest.raises(UserError) as error:
        run(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def prepared(folder, *tasks, group="", split="group"):
    """As far as `iranker prepare` writes it and these verbs read it."""
    import pyarrow as pa

    folder.mkdir()
    rows = [
        {
            "data_source": t.dataset,
            "reward_model": {"ground_truth": t.ground_truth()},
            "extra_info": {
                **{"task_id": t.id, "scenario": t.scenario, "group": group, "context": t.context},
                **{"candidate_ids": [c.id for c in t.candidates]},
            },
        }
        for t in tasks
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "test.parquet")
    (folder / "manifest.json").write_text(json.dumps({"options": {"split": split}}))
    return folder


@pytest.fixture
def rollouts(tmp_path):
    rows = [line(), line(context="how long is the Nile", task_id="t2", group="g2", reasoning="Not " + LONG, step=4)]
    return dump(tmp_path / "rollouts", step1=rows)


def test_from_rollouts_to_a_prompt(tmp_path, rollouts, monkeypatch):
    data = prepared(tmp_path / "data", task("how long can a swift sleep"))
    out = run("collect", "--rollouts", rollouts, "--out", tmp_path / "store", "--seed", 3)
    assert "2 answers" in out and "2 kept" in out and str(tmp_path / "store") in out
    made = read_traces(tmp_path / "store")
    assert made.manifest["seed"] == 3 and len(made.traces) == 2
    proof = json.loads(run("check", "--store", tmp_path / "store", "--data", data))
    assert (proof["store_hash"], proof["traces"], proof["test_tasks"]) == (made.hash, 2, 1)
    template, again = with_traces(TEMPLATE, tmp_path / "store", data, examples=1)
    assert again.to_json() == proof
    assert LONG in template.messages(Elimination(task("how long can swifts fly")))[-1]["content"]

    class Model:
        def encode(self, texts, **_):
            return [[float("Nile" in text), 0.5] for text in texts]

    monkeypatch.setattr(loading, "load_sentence_encoder", lambda context, baseline: Model())
    template, _ = with_traces(TEMPLATE, tmp_path / "store", data, 1, "some/model")
    assert [t.task_id for t in template.retrieved(task("the Nile"))] == ["t2"]
    assert template.retriever.name == "embeddings:some/model"


def test_test_queries_are_refused_and_left_out(tmp_path, rollouts):
    data = prepared(tmp_path / "data", task("HOW LONG can swifts fly?", id="q1"))
    run("collect", "--rollouts", rollouts, "--out", tmp_path / "store")
    text = refused("check", "--store", tmp_path / "store", "--data", data)
    assert "1 of 2 reasoning traces" in text and "'t1'" in text and "'q1'" in text
    with pytest.raises(UserError, match="1 of 2 reasoning traces"):
        with_traces(TEMPLATE, tmp_path / "store", data)
    out = run("collect", "--rollouts", rollouts, "--out", tmp_path / "store", "--test", data)
    assert "1 of test queries" in out and "1 kept" in out
    assert json.loads(run("check", "--store", tmp_path / "store", "--data", data))["traces"] == 1


def test_groups_are_compared_except_users_of_a_split_by_time(tmp_path):
    films = {"dataset": "rec-movie", "scenario": "recommendation", "context": "Alien; Heat; Ran"}
    run("collect", "--rollouts", dump(tmp_path / "r", step1=[line(**films)]), "--out", tmp_path / "store")
    test = task("Solaris; Stalker", "rec-movie")
    by_user = prepared(tmp_path / "user", test, group="g1")
    by_time = prepared(tmp_path / "time", test, group="g1", split="time")
    assert "the same query or user as" in refused("check", "--store", tmp_path / "store", "--data", by_user)
    assert json.loads(run("check", "--store", tmp_path / "store", "--data", by_time))["groups"] == 0


def test_no_empty_store_is_written(tmp_path, rollouts):
    text = refused("collect", "--rollouts", rollouts, "--out", tmp_path / "store", "--min-chars", 5000)
    assert "no reasoning trace can be kept" in text and "2 no reasoning" in text
    assert not (tmp_path / "store").exists()


def test_mistakes(tmp_path, rollouts):
    assert "no such file" in refused("collect", "--rollouts", rollouts, "--out", tmp_path / "s", "--test", tmp_path)
    assert "trainer.rollout_data_dir" in refused("collect", "--rollouts", tmp_path, "--out", tmp_path / "s")
    assert "think-text" in refused(
        "collect", "--rollouts", rollouts, "--out", tmp_path / "s", "--template", "think-text"
    )
    assert "no store" in refused("check", "--store", tmp_path, "--data", tmp_path)


def test_the_former_verb_is_accepted_and_says_the_new_one(tmp_path, rollouts):
    result = CliRunner().invoke(former, ["collect", "--rollouts", str(rollouts), "--out", str(tmp_path / "store")])
    assert result.exit_code == 0 and "`iranker cot`" in result.stderr and "2 kept" in result.stdout


def test_a_store_of_the_former_version_is_refused_in_one_line(tmp_path):
    (tmp_path / "thoughts.jsonl").write_text("{}\n")
    (tmp_path / "manifest.json").write_text("{}")
    text = refused("check", "--store", tmp_path, "--data", tmp_path)
    assert "thoughts.jsonl" in text and "traces.jsonl" in text and "iranker cot collect" in text
