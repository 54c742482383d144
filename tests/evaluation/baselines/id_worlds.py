"""Small worlds of users who choose items by a rule that only ids can tell: every text is the same."""

import random
from statistics import fmean

from iranker_verl.evaluation.metrics import measure
from iranker_verl.ranking import Candidate, RankingTask


def task(id, history, positive, others, *, dataset="rec-movie", scenario="recommendation", seed=0):
    ids = [positive, *others]
    random.Random(f"{seed}/{id}").shuffle(ids)
    return RankingTask(
        id,
        scenario,
        dataset,
        "some films",
        tuple(Candidate(i, "a film") for i in ids),
        tuple(float(i == positive) for i in ids),
        tuple(history),
    )


def tastes(users, seed=0, size=12, chosen=5):
    """Two groups of items, equally popular; a user likes one group. The positive stands among items of the other."""
    rng = random.Random(f"tastes/{seed}")
    groups = [[f"{group}{i}" for i in range(size)] for group in "ab"]
    tasks = []
    for user in range(users):
        liked, other = groups if user % 2 else groups[::-1]
        *history, positive = rng.sample(liked, chosen + 1)
        tasks.append(task(f"{seed}:{user}", history, positive, rng.sample(other, 7), seed=seed))
    return tasks


def successors(users, seed=0, size=20, length=5):
    """Every item has one successor, the same for all users; the positive stands among other items at random."""
    order = [f"s{i}" for i in range(size)]
    random.Random("successors").shuffle(order)
    rng = random.Random(f"successors/{seed}")
    tasks = []
    for user in range(users):
        start = rng.randrange(size)
        *history, positive = [order[(start + i) % size] for i in range(length + 1)]
        others = rng.sample([i for i in order if i != positive], 7)
        tasks.append(task(f"{seed}:{user}", history, positive, others, seed=seed))
    return tasks


def mrr(baseline, tasks):
    return fmean(values["rr"] for values in measure(tasks, baseline.rank(tasks)))
