"""BPR and SASRec learn from real histories, too: MovieLens-100K, where it is there."""

from pathlib import Path

import pytest
from id_worlds import mrr

from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.schema import read_tasks
from iranker_verl.evaluation.baselines import Context
from iranker_verl.evaluation.baselines.bpr import Bpr
from iranker_verl.evaluation.baselines.bpr import Settings as BprSettings
from iranker_verl.evaluation.baselines.sasrec import SasRec
from iranker_verl.evaluation.baselines.sasrec import Settings as SasRecSettings
from iranker_verl.ranking.templates import load

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "rec" / "ml100k_recbole"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")


@pytest.fixture(scope="module")
def movielens(tmp_path_factory):
    out = tmp_path_factory.mktemp("movielens") / "out"
    prepare(DATA, out, load("label"), Options(), tasks=["rec-movie"])
    return [read_tasks(out / f"{split}.parquet") for split in ("train", "test")]


@pytest.mark.parametrize(
    "baseline",
    [
        Bpr(Context(log=lambda _: None), BprSettings(width=16, rounds=5)),
        SasRec(Context(log=lambda _: None), SasRecSettings(rounds=10)),
    ],
    ids=lambda r: r.name,
)
def test_far_better_than_chance_after_a_few_epochs(movielens, baseline):
    train, test = movielens
    baseline.fit(train)
    assert mrr(baseline, test) > 2 * 0.18  # chance among 20 candidates is 0.18
