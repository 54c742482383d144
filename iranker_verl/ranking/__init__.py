"""The domain in pure Python: tasks, prompt templates and the state machines that rank."""

from iranker_verl.ranking.direct import DirectRanking, DirectStep
from iranker_verl.ranking.elimination import Elimination, Step
from iranker_verl.ranking.sorting import AllPairs, Pairwise, Setwise, SortStep
from iranker_verl.ranking.task import DATASETS, SCENARIOS, Candidate, RankingTask, by_dataset

__all__ = [
    "DATASETS",
    "SCENARIOS",
    "AllPairs",
    "Candidate",
    "DirectRanking",
    "DirectStep",
    "Elimination",
    "Pairwise",
    "RankingTask",
    "Setwise",
    "SortStep",
    "Step",
    "by_dataset",
]
