"""Preparation on a Ray cluster (here: of this machine) gives the bytes that one process gives."""

import os
from pathlib import Path

import pytest

from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.work import Job, Work
from data_prep.world import WorldSize, write_world
from iranker_verl.errors import UserError
from iranker_verl.ranking.templates import load

pytestmark = pytest.mark.slow


def refuse(folder: Path) -> None:
    raise UserError("file 7: broken")


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}})
    yield
    ray.shutdown()


def test_the_same_bytes(tmp_path, cluster):
    write_world(tmp_path / "raw", 1, WorldSize(users=40, queries=40, passage_train=20, passage_test=5))
    options = Options(history=5, candidates=6)
    manifests = [
        prepare(tmp_path / "raw", tmp_path / name, load("label"), options, ray=ray)
        for name, ray in (("here", False), ("ray", True))
    ]
    assert manifests[0] == manifests[1]
    for name in ("train.parquet", "test.parquet", "manifest.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "ray" / name).read_bytes()
    with pytest.raises(UserError, match="file 7: broken"):
        Work(tmp_path / "work", ray=True).run([Job("bad", refuse)])
