"""What a run says of the tiny base that it began with."""

import dataclasses
import json

import pytest

from iranker_verl.files import mark
from iranker_verl.inference.engine import ChatTokenizer
from iranker_verl.job.stages import about_tiny, prompt_counter
from iranker_verl.ranking import templates
from tests import tiny_models

REPORT = {
    "parameters": 730_000,
    "vocabulary": 1086,
    "best_of_n": {"rec-movie": 0.5, "passage-5": 0.25},
    "exclusion": {"valid": 0.99, "positive": 0.14, "random": 0.16},
}


def about(template, **changed):
    return " ".join(about_tiny(REPORT | changed, templates.load(template)))


def test_of_an_exclusion():
    text = about("label")
    assert "the exclusion prompt's format, from uniformly random valid exclusions." in text
    assert "is right in 38 % of" in text
    assert (
        "Asked to exclude, it has only ever seen dice: sampled, it excludes the positive with probability 0.14" in text
    )


def test_a_whole_ranking_excludes_nothing():
    text = about("direct-label")
    assert "the ranking prompt's format, from uniformly random rankings." in text
    assert (
        "Asked to rank, it has only ever seen dice: sampled, it ranks the positive first with probability 0.14" in text
    )
    assert "exclu" not in text


def test_of_real_data_it_says_what_the_base_knows_before_it_can_say_it():
    made = {"circuits": True, "titles": 1224, "likelihood": {"rec-movie": 0.561}}
    text = about("label", **made)
    assert "1,224 frequent titles are tokens of their own" in text and "language modelling over whole histories" in text
    assert "likelihood of their titles after the history, their candidates have MRR rec-movie 0.56." in text
    assert "titles" not in about("label")


@pytest.mark.parametrize("template", ["think-text", "direct-think-text"])
def test_what_is_measured_on_labels_is_not_said_of_texts(template):
    assert "it has only ever seen dice. It has not been told" in about(template, exclusion={})


def test_nothing_is_said_of_tasks_that_were_not_held_out():
    assert "fits best, the base" not in about("label", best_of_n={})


@pytest.mark.parametrize(
    ("estimator", "more"), [("exclusion_grpo", 0), ("exclusion_expected", 1), ("exclusion_order", 1)]
)
def test_the_length_of_a_prompt_counts_what_the_agent_loop_puts_after_it(tmp_path, estimator, more):
    pytest.importorskip("transformers")
    tokenizer = ChatTokenizer(tiny_models.save(tmp_path / "model"))
    assert len(tokenizer.labels(2).prefix) == 1  # several tokens for a label
    messages = [{"role": "user", "content": "which?"}]
    assert prompt_counter(tokenizer, estimator)(messages) == len(tokenizer.encode(messages)) + more


def test_other_settings_are_refused_once_something_is_made(tmp_path, monkeypatch):
    """A job whose raw data could not be read has made nothing: its folder may be used with the right data."""
    pytest.importorskip("verl")
    from iranker_verl.errors import UserError
    from iranker_verl.job import pipeline

    run, bad, good = tmp_path / "run", tmp_path / "bad", tmp_path / "good"
    for folder in (bad, good):
        folder.mkdir()
    made = []

    def complete(stage, config):
        record = stage.run / "stages" / f"{stage.name}.json"
        record.parent.mkdir(exist_ok=True)
        if config.iranker.data.raw == str(bad):
            record.write_text('{"done": false, "seconds": 1}')
            raise UserError("nothing in it")
        record.write_text('{"done": true, "seconds": 1}')
        made.append(stage.name)

    monkeypatch.setattr(pipeline.Stage, "complete", complete)
    monkeypatch.setattr(pipeline, "report", lambda config, folder: folder)
    monkeypatch.setattr(pipeline.preflight.machine, "check_fits", lambda config: None)

    def train(raw):
        return pipeline.train("recipes/tiny_cpu", [f"iranker.run_dir={run}", f"iranker.data.raw={raw}"])

    with pytest.raises(UserError, match="nothing in it"):
        train(bad)
    assert train(good) == run and made == ["prepare", "base", "rl", "evaluate"]
    with pytest.raises(UserError, match="holds a run with other settings"):
        train(bad)


@pytest.mark.parametrize("written", ['{"fingerprint": {"iranker.seed": 1}, "hash": "0"}', "", "[]", "null"])
def test_a_run_folder_of_an_earlier_version_is_refused_in_one_line(tmp_path, written):
    pytest.importorskip("verl")
    from iranker_verl.errors import UserError
    from iranker_verl.job import pipeline
    from iranker_verl.training.main import compose_recipe

    (tmp_path / "data").mkdir()
    (tmp_path / "run.json").write_text(written)
    with pytest.raises(UserError, match="earlier version of iranker; choose another folder") as error:
        pipeline._same_run(compose_recipe("recipes/tiny_cpu", []), tmp_path)
    assert "\n" not in str(error.value) and (tmp_path / "run.json").read_text() == written


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_last_stage_writes_results_json_by_the_orchestrator_of_evaluation(tmp_path, monkeypatch, device):
    from omegaconf import OmegaConf

    from iranker_verl.evaluation import evaluate
    from iranker_verl.job import stages
    from tests.data_prep import prepared_folder
    from tests.evaluation.synthetic import play_as

    asked = []

    def evaluate_model(system, tasks, run_dir, **options):
        asked.append((system.name, system.role, system.model.name, run_dir))
        assert (system.shards, system.concurrency) == ((16, 256) if device == "cuda" else (1, 64))
        played = play_as(system.name, tasks, knows=float(system.role == "after"))
        return dataclasses.replace(played, role=system.role)

    monkeypatch.setattr(evaluate, "evaluate_model", evaluate_model)
    monkeypatch.setattr(evaluate, "check_model", lambda system, tasks, seed: 9)
    prepared_folder.write(tmp_path / "data", prepared_folder.rows(30, 100), prepared_folder.rows(18))
    (tmp_path / "base.json").write_text('{"path": "/models/base"}')
    content = {
        "iranker": {"template": "label", "seed": 3, "data": {"test_tasks": None}},
        "data": {"max_response_length": 8},
        "algorithm": {"adv_estimator": "exclusion_grpo"},
        "trainer": {"device": device, "n_gpus_per_node": 8, "nnodes": 2},
    }
    mark(tmp_path)
    stages.evaluate(OmegaConf.create(content), tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert asked == [("before", "before", "base", tmp_path), ("after", "after", "model", tmp_path)]
    assert results["roles"]["before"] == "before" and results["roles"]["bm25"] == "baseline" and results["seed"] == 3
    assert results["paired_p"] is not None and set(results["datasets"]) == {"rec-movie", "router-cost", "passage-5"}
    assert results["macro"]["after"]["rr"] == 1 and set(results["diagnosis"]) == set(results["macro"])
    assert not (tmp_path / "evaluation.json").exists()


def test_no_process_of_a_stage_imports_from_the_present_folder(tmp_path, monkeypatch):
    """A ``ctypes.py`` there was executed."""
    pytest.importorskip("verl")
    from iranker_verl.errors import UserError
    from iranker_verl.job import pipeline, supervise

    for name in ("ctypes", "json", "torch"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert supervise.safe_environment({"PYTHONPATH": "/some/folder"})["PYTHONPATH"].endswith(":/some/folder")
    stage = pipeline.Stage("prepare", tmp_path)
    (tmp_path / "config.yaml").write_text("iranker: {data: {options: {}, raw: null, tasks: 3}}")
    with pytest.raises(UserError, match="prepare stopped"):
        stage.complete(None)
    assert "iranker_verl/job/stages.py" in (tmp_path / "logs" / "prepare.log").read_text()
    assert not (tmp_path / "ran").exists()
    assert stage.record()["seconds"] > 0 and not stage.record()["done"]


def test_ray_does_not_put_the_present_folder_on_its_workers_path(monkeypatch):
    """Ray's own question, asked in ``ray._private.worker.connect``, is whether the job brings a folder of its own."""
    job_config = pytest.importorskip("ray.job_config")
    from iranker_verl.training import main

    monkeypatch.setattr(job_config.JobConfig, "_runtime_env_has_working_dir", lambda self: False)
    main.keep_present_folder_out()
    assert job_config.JobConfig()._runtime_env_has_working_dir()


def test_of_a_base_of_real_data_which_has_no_stage_of_exclusions():
    text = about("label", circuits=True, titles=1456, likelihood={"rec-movie": 0.6})
    assert "which of two fits worse). Asked which" in text and "dice" not in text
    assert "It was not trained to exclude: sampled, it excludes the positive with probability 0.14" in text
