"""What every node of a cluster is asked, and what is made of the answers."""

import os
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

from omegaconf import OmegaConf

from iranker_verl.errors import UserError
from iranker_verl.preflight import nodes
from iranker_verl.preflight.nodes import Fact, Question, check_nodes, problems

TOKEN = "the-token"
IDS = ("a0" * 28, "b1" * 28, "c2" * 28)  # of Ray's nodes


def same(**changes):
    facts = {"python": "3.11.7", "torch": "2.11.0", "template": "abc", "GPUs": "8 x H100", "driver": "580.1"}
    return {name: Fact(value) for name, value in (facts | changes).items()}


def found(**by_node):
    return [(row.of, row.value, row.nodes, row.why) for row in problems(by_node)]


def test_nodes_that_are_alike_have_no_problem():
    assert found(a=same(), b=same()) == [] and found(a=same()) == []


@pytest.mark.parametrize("name", ["python", "torch", "template", "GPUs"])
def test_what_differs_is_shown_with_every_value_and_its_nodes(name):
    odd = same(**{name: "other"})
    assert found(a=same(), b=odd, c=same()) == [
        (name, same()[name].value, ("a", "c"), "it differs"),
        (name, "other", ("b",), "it differs"),
    ]


def test_what_a_node_lacks_differs():
    odd = same()
    del odd["torch"]
    assert ("torch", "missing", ("b",), "it differs") in found(a=same(), b=odd)


def test_a_node_without_gpus_may_be_there_and_drivers_may_differ():
    head = same(GPUs=nodes.NO_GPU)
    del head["driver"]
    assert found(head=head, a=same(), b=same(driver="590.2")) == []


def test_what_is_wrong_on_one_node_is_said_of_that_one_alone():
    odd = same() | {"driver": Fact("535.1", "driver 535.1 is too old")}
    assert found(a=same(), b=odd) == [("driver", "535.1", ("b",), "driver 535.1 is too old")]


def test_a_node_that_does_not_answer_is_named_once():
    assert found(a=same(), b={"answer": Fact("none", "ModuleNotFoundError")}) == [
        ("answer", "none", ("b",), "ModuleNotFoundError")
    ]


@pytest.fixture
def question(tmp_path):
    (tmp_path / TOKEN).write_text(TOKEN)
    return Question("label", str(tmp_path), TOKEN, None)


def test_this_machine_answers(question, tmp_path):
    facts = question.answer()
    assert not [fact for fact in facts.values() if fact.wrong]
    assert facts["run folder"].value == "shared and writable" and facts["data"].value == "not prepared yet"
    assert facts["python"].value == ".".join(map(str, sys.version_info[:3])) and len(facts["code"].value) == 16
    assert os.listdir(tmp_path) == [TOKEN]


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (lambda folder: (folder / TOKEN).unlink(), "run folder", "is not there"),
        (lambda folder: (folder / TOKEN).write_text("x"), "run folder", "is another folder here"),
        (
            lambda folder: ((folder / "data").mkdir(), (folder / "data" / "manifest.json").write_text("{")),
            "data",
            "JSON",
        ),
    ],
)
def test_a_folder_that_is_not_the_shared_one_is_wrong(question, tmp_path, change, name, words):
    change(tmp_path)
    assert words in question.answer()[name].wrong


def test_a_model_or_a_template_that_is_not_there_is_wrong(tmp_path):
    facts = Question("no-such", str(tmp_path), TOKEN, str(tmp_path / "none")).answer()
    assert "no-such" in facts["template"].wrong and "none is not there" in facts["model"].wrong


@pytest.mark.parametrize(
    ("driver", "cuda", "old"), [("535.104.05", "13.0", True), ("580.65.06", "13.0", False), ("535.1", "12.8", False)]
)
def test_the_driver_has_to_be_new_enough_for_the_cuda_of_torch(monkeypatch, driver, cuda, old):
    line = f"NVIDIA H100 80GB HBM3, 81559 MiB, {driver}\n"
    monkeypatch.setattr(nodes.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=line * 2))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(version=SimpleNamespace(cuda=cuda)))
    facts = nodes._gpu_facts()
    assert facts["GPUs"].value == "2 x NVIDIA H100 80GB HBM3 81559 MiB"
    assert bool(facts["driver"].wrong) == old


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    def not_there(*_, **__):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(nodes.subprocess, "run", not_there)
    assert nodes._gpu_facts() == {"GPUs": Fact(nodes.NO_GPU)}
    monkeypatch.setattr(
        nodes.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(subprocess.TimeoutExpired("x", 1))
    )
    assert "TimeoutExpired" in nodes._gpu_facts()["GPUs"].wrong


def config(run, nnodes=2, gpus=1):
    return OmegaConf.create(
        {
            "ray_kwargs": {"ray_init": {}},
            "trainer": {"nnodes": nnodes, "n_gpus_per_node": gpus},
            "iranker": {"run_dir": str(run), "template": "label", "base": {"make": "tiny"}},
        }
    )


@pytest.fixture
def cluster(monkeypatch):
    """A stand-in for Ray with two nodes; what each answers can be changed."""
    answers = {name: lambda question: question.answer() for name in IDS[:2]}

    class Job:
        def options(self, scheduling_strategy):
            return SimpleNamespace(remote=lambda question: (scheduling_strategy.node_id, question))

    def get(job):
        return answers[job[0]](job[1])

    ray = SimpleNamespace(
        nodes=lambda: [
            {
                "NodeID": name,
                "Alive": name != IDS[2],
                "NodeManagerHostname": "host",
                "NodeManagerAddress": "10.0.0.1",
                "Resources": {"GPU": 1.0},
            }
            for name in IDS
        ],
        remote=lambda **_: lambda function: Job(),
        wait=lambda jobs, **_: ([job for job in jobs if answers[job[0]]], []),
        get=get,
    )

    @contextmanager
    def joined():
        yield ray

    monkeypatch.setattr(nodes, "cluster", joined)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    return answers


def test_a_cluster_whose_nodes_are_alike_passes_and_nothing_is_left(cluster, tmp_path, capsys):
    check_nodes(config(tmp_path / "run"))
    assert os.listdir(tmp_path / "run") == [] and capsys.readouterr().err == ""


def fails(question):
    raise ModuleNotFoundError("No module named 'vllm'")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda question: question.answer() | {"vllm": Fact("0.1")}, "vllm (it differs)"),
        (fails, "answer (ModuleNotFoundError: No module named 'vllm')"),
        (None, "answer (no answer within 120 s)"),
    ],
    ids=["another version", "no package", "no answer"],
)
def test_a_cluster_that_is_not_alike_is_refused_with_a_table(cluster, tmp_path, capsys, answer, words):
    cluster[IDS[1]] = answer
    with pytest.raises(UserError) as error:
        check_nodes(config(tmp_path / "run"))
    assert words in str(error.value) and "\n" not in str(error.value)
    assert "b1b1b1" in capsys.readouterr().err and os.listdir(tmp_path / "run") == []


def test_too_few_nodes_with_enough_gpus_are_refused(cluster, tmp_path):
    for size in ({"nnodes": 3}, {"gpus": 2}):
        with pytest.raises(UserError, match=r"asks for \d node\(s\) with \d GPUs each, and Ray has: host"):
            check_nodes(config(tmp_path / "run", **size))


def test_a_run_with_a_ray_of_its_own_asks_nobody(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check_nodes(config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
