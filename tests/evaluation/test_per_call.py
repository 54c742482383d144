"""Several exclusions a call: what is kept of it, what is resumed, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation import sharding
from iranker_verl.evaluation.model_runs import check_model, evaluate_model
from iranker_verl.evaluation.systems import ModelSystem
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.inference.engine import Generation
from iranker_verl.ranking.templates import load
from tests import tiny_models
from tests.evaluation.synthetic import make_tasks


class LastFirst:
    """An engine for which the last label is the likeliest to be excluded, then the one before it."""

    def __init__(self, *args: object, **options: object) -> None:
        self.calls = 0

    async def __aenter__(self) -> LastFirst:
        return self

    async def __aexit__(self, *error: object) -> None: ...

    async def rank_labels(self, messages: object, count: int) -> tuple[list[int], Generation]:
        return list(reversed(range(count))), Generation("", (1,), 30)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSystem:
    monkeypatch.setattr(sharding, "Engine", LastFirst)
    model = tiny_models.save(tmp_path / "model")
    return ModelSystem("after", model, load("label"), max_new_tokens=4, per_call="half")


def test_calls_are_counted_and_an_episode_is_read_back_as_it_was(system: ModelSystem, tmp_path: Path) -> None:
    tasks = make_tasks(n=3, size=6)
    first = evaluate_model(system, tasks, run_dir=tmp_path, log=lambda _: None)
    episodes = [record.episode for record in first.records]
    assert all(e is not None and e.calls == 2 and e.malformed == 0 and e.new_tokens == 2 for e in episodes)  # 6, 3, 1
    assert all(record.ranking == tuple(f"c{i}" for i in range(6)) for record in first.records)
    lines = [json.loads(line) for line in (tmp_path / "episodes-after.jsonl").read_text().splitlines()]
    assert {line["per_call"] for line in lines} == {"half"}
    again = evaluate_model(system, tasks, run_dir=tmp_path, log=lambda _: None)
    assert [r.episode and r.episode.steps for r in again.records] == [
        r.episode and r.episode.steps for r in first.records
    ]
    with pytest.raises(UserError, match="per_call"):
        evaluate_model(dataclasses.replace(system, per_call=1), tasks, run_dir=tmp_path, log=lambda _: None)


def test_what_cannot_be_constrained_is_refused_before_a_model_is_loaded(system: ModelSystem) -> None:
    tasks = make_tasks(n=1, size=4)
    with pytest.raises(UserError, match=r"temperature 0\.5 has no effect"):
        check_model(dataclasses.replace(system, temperature=0.5), tasks)
    with pytest.raises(UserError, match="an endpoint does not give"):
        check_model(dataclasses.replace(system, model=Endpoint("http://127.0.0.1:9/v1", "m")), tasks)
    with pytest.raises(UserError, match="think-label asks for more"):
        check_model(dataclasses.replace(system, template=load("think-label"), max_new_tokens=100), tasks)
