"""The domain, pure Python: tasks, prompt templates and the elimination state machine."""

from iranker_verl.ranking.direct import DirectRanking, DirectStep
from iranker_verl.ranking.elimination import Elimination, Step
from iranker_verl.ranking.task import DATASETS, SCENARIOS, Candidate, RankingTask, by_dataset

__all__ = [
    "DATASETS",
    "SCENARIOS",
    "Candidate",
    "DirectRanking",
    "DirectStep",
    "Elimination",
    "RankingTask",
    "Step",
    "by_dataset",
]
