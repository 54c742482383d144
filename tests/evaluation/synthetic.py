"""Systems played without a model, for what needs results of a known quality."""

import random

from iranker_verl.evaluation.baselines import BASELINES
from iranker_verl.evaluation.metrics import measure
from iranker_verl.evaluation.records import Record, SystemResult
from iranker_verl.evaluation.systems import role_by_name
from iranker_verl.inference.episode import Episode
from iranker_verl.ranking import Candidate, Elimination, RankingTask
from reward_fns.answers import label


def make_tasks(datasets=("rec-movie", "passage-5"), n=12, size=6, title="title"):
    scenarios = {"rec": "recommendation", "passage": "passage", "router": "routing"}
    tasks = []
    for dataset in datasets:
        for i in range(n):
            candidates = tuple(Candidate(f"c{j}", f"{title} {j}") for j in range(size))
            scenario = scenarios[dataset.split("-")[0]]
            # Ids are shared by the datasets, as they may be.
            tasks.append(
                RankingTask.with_positive(f"task {i}", scenario, dataset, f"context {i}", candidates, f"c{i % size}")
            )
    return tasks


def play_as(system, tasks, *, knows, malformed=0.0, seed=0):
    """A player that spares the positive in a share ``knows`` of steps and answers nonsense in a share ``malformed``."""
    rng = random.Random(f"{system}/{seed}")
    episodes = []
    for task in tasks:
        state = Elimination(task)
        while not state.done:
            places = list(range(len(state.pool)))
            if rng.random() < malformed:
                state.step("no idea")
                continue
            if rng.random() < knows:
                places = [i for i in places if state.pool[i] != task.candidates[task.target]]
            state.step(f"[{label(rng.choice(places))}]")
        steps = tuple(state.steps)
        episodes.append(
            Episode(task.id, task.dataset, tuple(state.ranking()), steps, 100 * len(steps), 3 * len(steps), 0.1)
        )
    values = measure(tasks, [e.ranking for e in episodes])
    records = tuple(Record(t, e.ranking, v, e) for t, e, v in zip(tasks, episodes, values, strict=True))
    return SystemResult(system, records, 1.0, role=role_by_name(system, baseline=system in BASELINES))
