"""Out of domain: which tasks, where their data comes from, what is compared; and lm-eval itself, on a tiny model."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner

from iranker_verl.cli import app
from iranker_verl.errors import UserError
from iranker_verl.evaluation.out_of_domain import side
from iranker_verl.evaluation.out_of_domain.compare import compare_models, format_lines, ratio
from iranker_verl.evaluation.out_of_domain.tasks import (
    RUNS_CODE,
    TASKS,
    Unavailable,
    choose_tasks,
    data_hash,
    leaves,
    needed_splits,
    split_files,
    task_manager,
    with_data_folder,
)
from iranker_verl.job import out_of_domain
from tests.evaluation import out_of_domain_data

GSM8K = {
    "dataset_name": "main",
    "training_split": "train",
    "fewshot_split": "train",
    "test_split": "test",
    "num_fewshot": 5,
}
OPENBOOKQA = {
    "dataset_name": "main",
    "training_split": "train",
    "validation_split": "validation",
    "test_split": "test",
}

# ---------------------------------------------------------------- which tasks


def test_the_papers_eight_are_the_default():
    assert choose_tasks(None, True) == list(TASKS) and len(TASKS) == 8
    [option] = [p for p in get_command(app).commands["evaluate-out-of-domain"].params if p.name == "tasks"]
    assert ", ".join(TASKS) in option.help
    assert choose_tasks(" mmlu , gsm8k ", False) == ["mmlu", "gsm8k"]


def test_the_former_verb_is_accepted_and_says_the_new_one(tmp_path):
    options = {"base": tmp_path, "trained": tmp_path, "out": tmp_path / "out", "tasks": "arc"}
    result = CliRunner().invoke(app, ["evaluate-generic", *(f"--{name}={value}" for name, value in options.items())])
    assert result.exit_code == 1 and "evaluate-out-of-domain" in result.stderr
    assert isinstance(result.exception, UserError) and "--tasks arc" in str(result.exception)


def test_running_a_models_programs_has_to_be_asked_for():
    with pytest.raises(UserError) as error:
        choose_tasks(None, False)
    assert "mbpp and humaneval run programs" in str(error.value) and "--allow-code-execution" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="humaneval run programs"):
        choose_tasks("gsm8k,humaneval", False)


@pytest.mark.parametrize("text", ["", " , ", "gsm8k,gsm8k", "gsm8k,arc"])
def test_tasks_that_there_are_not(text):
    with pytest.raises(UserError, match=r"--tasks"):
        choose_tasks(text, True)


# ---------------------------------------------------------------- their data


def test_a_download_of_the_hub_is_found_as_it_is(tmp_path):
    out_of_domain_data.openbookqa(tmp_path)
    out_of_domain_data.jsonl(
        tmp_path / "openbookqa" / "additional" / "test.jsonl", [{}]
    )  # another configuration: not ours
    found = with_data_folder("openbookqa", OPENBOOKQA, tmp_path)
    assert found["dataset_path"] == "parquet" and found["dataset_name"] is None
    files = found["dataset_kwargs"]["data_files"]
    assert list(files) == ["test"] and [Path(f).name[:11] for f in files["test"]] == ["test-00000-", "test-00001-"]
    # lm-eval must not ask for what is not there, and is not needed
    assert found["training_split"] is None and found["validation_split"] is None and "test_split" not in found


def test_files_may_lie_in_the_tasks_folder_itself_or_deeper(tmp_path):
    for path in ("humaneval/test.jsonl", "hellaswag/data/validation.jsonl"):
        out_of_domain_data.jsonl(tmp_path / path, [{}])
    assert with_data_folder("humaneval", {"test_split": "test"}, tmp_path)["dataset_path"] == "json"
    definition = {"training_split": "train", "validation_split": "validation"}
    assert with_data_folder("hellaswag", definition, tmp_path)["training_split"] is None


def test_a_split_is_told_from_others_with_its_name_in_theirs(tmp_path):
    for name in ("test.jsonl", "test-00000-of-00001.jsonl", "testing.jsonl", "test.txt", "latest.jsonl"):
        (tmp_path / name).write_text("{}\n")
    assert [p.name for p in split_files(tmp_path, "test")] == ["test-00000-of-00001.jsonl", "test.jsonl"]


def test_what_is_needed_and_missing_makes_a_task_unavailable(tmp_path):
    out_of_domain_data.gsm8k(tmp_path)
    assert set(with_data_folder("gsm8k", GSM8K, tmp_path)["dataset_kwargs"]["data_files"]) == {"train", "test"}
    (tmp_path / "gsm8k" / "main" / "train.jsonl").unlink()  # five examples come from it
    with pytest.raises(Unavailable, match=r"no train\.parquet"):
        with_data_folder("gsm8k", GSM8K, tmp_path)
    with pytest.raises(Unavailable, match=r"openbookqa: no test\.parquet"):
        with_data_folder("openbookqa", OPENBOOKQA, tmp_path)


def test_which_splits_are_needed_splits():
    assert needed_splits(GSM8K) == ["test", "train"]
    assert needed_splits(OPENBOOKQA) == ["test"]
    assert needed_splits({"training_split": "train", "validation_split": "validation"}) == ["validation"]
    given_ones = {"test_split": "test", "num_fewshot": 3, "fewshot_config": {"samples": "utils.list"}}
    assert needed_splits(given_ones) == ["test"]
    assert needed_splits({"test_split": "test", "fewshot_split": "dev"}) == ["test"]  # MMLU: no examples by default


def test_formats_are_not_mixed(tmp_path):
    out_of_domain_data.jsonl(tmp_path / "t" / "train.jsonl", [{"a": 1}])
    out_of_domain_data.parquet(tmp_path / "t" / "test.parquet", [{"a": 1}])
    with pytest.raises(UserError, match="one format"):
        with_data_folder("t", {"training_split": "train", "test_split": "test"}, tmp_path)


def test_the_hash_is_of_the_tasks_own_files(tmp_path):
    out_of_domain_data.gsm8k(tmp_path)
    before = data_hash("gsm8k", tmp_path)
    out_of_domain_data.openbookqa(tmp_path)
    assert data_hash("gsm8k", tmp_path) == before
    out_of_domain_data.gsm8k(tmp_path, tested=3)
    assert data_hash("gsm8k", tmp_path) != before
    assert data_hash("mmlu", tmp_path) is None and data_hash("gsm8k", None) is None


def test_lm_evals_definitions_are_what_we_take_them_for(tmp_path):
    pytest.importorskip("lm_eval")
    for name in TASKS:
        index = task_manager(name, None, tmp_path).task_index
        found = list(leaves(name, index))
        assert found == [name] if name != "mmlu" else len(found) == 57
        assert {bool(index[leaf].cfg.get("unsafe_code")) for leaf in found} == {name in RUNS_CODE}
    out_of_domain_data.gsm8k(tmp_path / "data")
    changed = task_manager("gsm8k", tmp_path / "data", tmp_path).task_index["gsm8k"].cfg
    assert changed["dataset_path"] == "json" and changed["num_fewshot"] == 5  # all else is lm-eval's


# ---------------------------------------------------------------- the comparison


def kept(values, counts=None, questions=None):
    counts = counts or [1] * len(values)
    return {
        "questions": questions or [f"q{i}" for i in range(len(values))],
        "fewshot": 5,
        "version": 3.0,
        "truncation_warnings": 0,
        "metrics": {"acc,none": {"sums": values, "counts": counts}},
    }


def test_the_difference_is_paired():
    result = compare_models(kept([1, 0, 0, 1]), kept([1, 1, 0, 1]))
    assert (result["base"], result["trained"], result["difference"]) == (0.5, 0.75, 0.25)
    # differences 0, 1, 0, 0: standard deviation 0.5, over √4
    assert result["stderr"] == pytest.approx(0.25)
    # 1, 0, 0, 1: standard deviation √(1/3), over √4
    assert result["base_stderr"] == pytest.approx(math.sqrt(1 / 3) / 2)
    assert (result["metric"], result["n"], result["fewshot"]) == ("acc,none", 4, 5)


def test_equal_answers_differ_by_nothing_and_surely():
    result = compare_models(kept([1, 0, 1]), kept([1, 0, 1]))
    assert result["difference"] == 0 and result["stderr"] == 0 and result["base_stderr"] > 0


def test_instructions_are_counted_and_questions_drawn():
    """Three prompts with 1, 2 and 3 instructions, of which 1, 1 and 0 are kept: 2/6. The residuals s − c/3 are 2/3, 1/3,
    −1; √(3/2 · 14/9)/6."""
    value, error = ratio([1, 1, 0], [1, 2, 3])
    assert value == pytest.approx(1 / 3)
    assert error == pytest.approx(math.sqrt(1.5 * 14 / 9) / 6)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
@settings(max_examples=50)
def test_with_counts_of_one_it_is_the_usual_standard_error(values):
    value, error = ratio(values, [1.0] * len(values))
    assert value == pytest.approx(statistics.fmean(values), abs=1e-12)
    assert error == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), abs=1e-9)


def test_one_question_has_no_standard_error():
    result = compare_models(kept([1]), kept([0]))
    assert result["difference"] == -1 and result["stderr"] is None
    assert "–" in "\n".join(format_lines({"tasks": {"gsm8k": result}, "unavailable": {"mmlu": "no file"}}))


def test_other_questions_are_not_compared():
    with pytest.raises(ValueError, match="same questions"):
        compare_models(kept([1, 0]), kept([1, 0], questions=["q0", "q2"]))
    with pytest.raises(ValueError, match="as many"):
        compare_models(kept([1, 1], [1, 2]), kept([1, 1], [1, 1]))


def sample(number, filter, **metrics):
    return {"doc_id": number, "doc_hash": f"{number:064}", "filter": filter, "metrics": list(metrics), **metrics}


def test_what_is_kept_of_lm_evals_samples():
    found = side.values_by_question(
        {
            "b": [sample(0, "strict", acc=1.0, parts=[True, False]), sample(0, "loose", acc=1, parts=[True, True])],
            "a": [sample(0, "strict", acc=False, parts=[False]), sample(0, "loose", acc=True, parts=[True])],
        }
    )
    assert found["questions"] == [f"a:0:{'0' * 16}", f"b:0:{'0' * 16}"]
    assert list(found["metrics"]) == ["acc,strict", "parts,strict", "acc,loose", "parts,loose"]
    assert found["metrics"]["acc,strict"] == {"sums": [0.0, 1.0], "counts": [1, 1]}
    assert found["metrics"]["parts,strict"] == {"sums": [0.0, 1.0], "counts": [1, 2]}


# ---------------------------------------------------------------- mistakes


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two tiny models with different weights and one tokenizer."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    from tests import tiny_models

    folder = tmp_path_factory.mktemp("models")
    base, trained = folder / "base", folder / "trained"
    tiny_models.save(base)
    tiny_models.save(trained)
    model = AutoModelForCausalLM.from_pretrained(trained)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=noise)
    model.save_pretrained(trained)
    return base, trained


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backend": "tgi"}, "--backend tgi"),
        ({"data_folder": Path("/nowhere")}, "--data-folder /nowhere"),
        ({"base": Path("/nowhere")}, "/nowhere: no such model folder"),
    ],
)
def test_a_mistake_is_one_line(models, tmp_path, change, words):
    pytest.importorskip("lm_eval")
    arguments = {"base": models[0], "trained": models[1], "names": ["gsm8k"], "out": tmp_path} | change
    with pytest.raises(UserError) as error:
        out_of_domain.evaluate_out_of_domain(**arguments)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_results_of_other_settings_are_not_added_to(models, tmp_path):
    pytest.importorskip("lm_eval")
    before = {"models": 1, "seed": 1, "backend": "hf", "data": {}, "versions": out_of_domain._versions()}
    (tmp_path / "settings.json").write_text(json.dumps(before))
    out_of_domain._check_same({**before, "tasks": ["mmlu"], "data": {"mmlu": None}}, tmp_path)
    with pytest.raises(UserError, match="seed was 1, is now 2"):
        out_of_domain._check_same({**before, "tasks": [], "seed": 2}, tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "mmlu.json").write_text(json.dumps(kept([1])))
    with pytest.raises(UserError, match="data of mmlu was None, is now 'abc'"):
        out_of_domain._check_same({**before, "tasks": ["mmlu"], "data": {"mmlu": "abc"}}, tmp_path)


def test_chat_templates_that_differ_are_refused(models, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(models[1], other)
    same = out_of_domain._chat_template(
        {"base": out_of_domain._path_and_hash(models[0]), "trained": out_of_domain._path_and_hash(other)}, True
    )
    assert same["applied"] and len(same["hash"]) == 16
    template = other / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    sides = {"base": out_of_domain._path_and_hash(models[0]), "trained": out_of_domain._path_and_hash(other)}
    with pytest.raises(UserError, match="different chat templates"):
        out_of_domain._chat_template(sides, True)
    assert out_of_domain._chat_template(sides, False) == {"applied": False, "hash": None, "fewshot_as_multiturn": False}


# ---------------------------------------------------------------- lm-eval itself


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["hf", "vllm"])
def test_end_to_end(models, tmp_path, monkeypatch, capsys, backend):
    pytest.importorskip("lm_eval")
    if backend == "vllm":
        pytest.importorskip("vllm")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    data, out = tmp_path / "data", tmp_path / "out"
    out_of_domain_data.gsm8k(data)
    out_of_domain_data.openbookqa(data)

    def run(*names, **more):
        more = {"backend": backend, "data_folder": data, "chat_template": True} | more
        return json.loads(out_of_domain.evaluate_out_of_domain(*models, names, out, **more).read_text())

    results = run("openbookqa", "mmlu")
    assert list(results["tasks"]) == ["openbookqa"] and "no test.parquet" in results["unavailable"]["mmlu"]
    found = results["tasks"]["openbookqa"]
    assert (found["n"], found["fewshot"], found["metric"]) == (8, 0, "acc,none")
    assert set(found["metrics"]) == {"acc,none", "acc_norm,none"}
    assert 0 <= found["base"] <= 1 and found["stderr"] is not None
    assert results["chat_template"]["applied"] and results["versions"]["lm_eval"]
    assert "mmlu: unavailable" in capsys.readouterr().out

    # one more task: what is done is not done again, and its numbers stay
    results = run("openbookqa", "gsm8k", limit=None)
    output = capsys.readouterr().out
    assert output.count("openbookqa: completed before") == 2
    assert results["tasks"]["openbookqa"] == found
    assert results["tasks"]["gsm8k"]["metric"] == "exact_match,strict-match"
    assert (results["tasks"]["gsm8k"]["n"], results["tasks"]["gsm8k"]["fewshot"]) == (4, 5)
    # five examples and 256 tokens of answer do not fit in 512
    assert min(results["tasks"]["gsm8k"]["truncation_warnings"]) > 0 == max(found["truncation_warnings"])
    with pytest.raises(UserError, match="seed was 1, is now 2"):
        run("gsm8k", seed=2)


@pytest.mark.slow
def test_a_group_end_to_end(models, tmp_path, monkeypatch):
    """MMLU is a group of 57 tasks, whose score is theirs together."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    data = tmp_path / "data"
    index = task_manager("mmlu", None, tmp_path).task_index
    out_of_domain_data.mmlu(data, [index[leaf].cfg["dataset_name"] for leaf in leaves("mmlu", index)])
    more = {"backend": "hf", "data_folder": data, "limit": 1}
    results = json.loads(out_of_domain.evaluate_out_of_domain(*models, ["mmlu"], tmp_path / "out", **more).read_text())
    assert results["unavailable"] == {}
    assert (results["tasks"]["mmlu"]["n"], results["tasks"]["mmlu"]["fewshot"]) == (57, 0)


@pytest.mark.slow
def test_a_models_programs_are_run_end_to_end(tmp_path, monkeypatch):
    """HumanEval from a folder, with nothing from the network: of its two problems each model solves one."""
    pytest.importorskip("lm_eval")
    from tests import tiny_models

    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    data, out = tmp_path / "data", tmp_path / "out"
    out_of_domain_data.humaneval(data)
    models = tiny_models.save_saying(tmp_path / "one", "1"), tiny_models.save_saying(tmp_path / "two", "2")
    more = {"backend": "hf", "data_folder": data, "allow_code_execution": True}
    results = json.loads(out_of_domain.evaluate_out_of_domain(*models, ["humaneval"], out, **more).read_text())
    assert results["unavailable"] == {}
    found = results["tasks"]["humaneval"]
    assert (found["n"], found["metric"], found["fewshot"]) == (2, "pass@1,create_test", 0)
    assert (found["base"], found["trained"]) == (0.5, 0.5)
    solved = [json.loads((out / side / "humaneval.json").read_text())["metrics"] for side in ("base", "trained")]
    assert [side["pass@1,create_test"]["sums"] for side in solved] == [[1, 0], [0, 1]]
