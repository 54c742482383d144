"""A model asked on several workers: all tasks, each once, and errors that arrive. The real Ray and vLLM, slowly."""

import asyncio
import dataclasses
import re

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation import sharding as asking
from iranker_verl.evaluation.model_runs import evaluate_model
from iranker_verl.evaluation.sharding import ModelJob, run_sharded
from iranker_verl.evaluation.systems import ModelSystem
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.ranking.templates import load
from tests import tiny_models
from tests.evaluation.synthetic import make_tasks
from tests.fake_openai import FakeServer, answer

pytest.importorskip("openai")
TEMPLATE = load("label")


def last_shown(request, number):
    prompt = request["messages"][-1]["content"]
    return 200, answer(re.findall(r"^(\[[A-Z]\])", prompt, flags=re.MULTILINE)[-1])


def broken(request, number):
    return 400, {"error": {"message": "no"}}


def job(server):
    return ModelJob(
        ModelSystem("after", Endpoint(server.url, "fake", retries=0), TEMPLATE, max_new_tokens=8), log_every_s=0.01
    )


def test_a_worker_yields_every_episode_and_its_progress():
    tasks, server = make_tasks(n=4), FakeServer(last_shown)
    with server.serving():
        items = list(asking._shard(job(server), tasks))
    episodes = {place: content for place, content in items if place is not None}
    assert {place: e.task_id for place, e in episodes.items()} == {i: task.id for i, task in enumerate(tasks)}
    assert all(e.ranking == tuple(f"c{i}" for i in range(6)) for e in episodes.values())
    assert any("8/8 tasks" in text for place, text in items if place is None)


def test_a_workers_error_arrives():
    server = FakeServer(broken)
    with server.serving(), pytest.raises(UserError, match="no"):
        list(asking._shard(job(server), make_tasks(n=2)))


class EngineDeadError(Exception):
    """vLLM's has this name."""


class DyingEngine:
    def __init__(self, *args, **options):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def ask(self, *args, **options):
        raise EngineDeadError("EngineCore encountered an issue. See stack trace (above) for the root cause.")


def test_a_model_whose_engine_dies_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(asking, "Engine", DyingEngine)
    work = ModelJob(ModelSystem("after", tmp_path / "model", TEMPLATE))
    with pytest.raises(UserError, match=r"model: vLLM's engine died .*the same command resumes") as error:
        asyncio.run(work.run(make_tasks(n=1), lambda index, episode: None, lambda line: None))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def ray_here():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_shards_on_ray(ray_here):
    tasks, server, found, said = make_tasks(n=5), FakeServer(last_shown), {}, []
    with server.serving():
        run_sharded(job(server), tasks, 2, found.__setitem__, said.append)
    assert {place: e.task_id for place, e in found.items()} == {i: task.id for i, task in enumerate(tasks)}
    assert {e.dataset for e in found.values()} == {"rec-movie", "passage-5"}
    assert any(line.startswith("shard 1/2: ") for line in said) and any(line.startswith("shard 2/2: ") for line in said)
    failing = FakeServer(broken)
    with failing.serving(), pytest.raises(UserError, match="no") as error:
        run_sharded(job(failing), tasks, 2, found.__setitem__, said.append)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="3 shards need 3 CPUs, but Ray has 2"):
        run_sharded(job(server), tasks, 3, found.__setitem__, said.append)


@pytest.mark.slow
def test_shards_of_vllm_answer_as_one_engine(ray_here, tmp_path):
    pytest.importorskip("vllm")
    model, tasks = tiny_models.save(tmp_path / "tiny"), make_tasks(n=3, size=4)
    system = ModelSystem("after", model, TEMPLATE, max_new_tokens=6, concurrency=8)
    one = evaluate_model(system, tasks, tmp_path / "one", log=lambda _: None)
    two = evaluate_model(dataclasses.replace(system, shards=2), tasks, tmp_path / "two", log=lambda _: None)
    assert [r.key for r in two.records] == [r.key for r in one.records]
    assert [[s.response for s in r.episode.steps] for r in two.records] == [
        [s.response for s in r.episode.steps] for r in one.records
    ]
