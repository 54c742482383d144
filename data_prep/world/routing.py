"""Six language models with strengths and prices, and what each made of each query, in GraphRouter's CSV.

Every model is the expert for two topics, and every topic also has a cheap *deputy* that does fairly well. What is best
then depends on the weights: by performance alone the expert; with effect and cost weighed evenly the expert unless it is
costly; with the weight on cost the expert only where it is cheap. The deputies are in no description: they have to be
learned from the data, as a real model's odd talents have.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from random import Random

from data_prep.world import words

COSTS = {"cheap": 0.03, "moderate": 0.18, "costly": 0.66}
PRICES = {"cheap": 0.1, "moderate": 0.6, "costly": 3.0}
EXPERT, DEPUTY, REST = 1.0, 0.6, 0.2
# How often an expert fails on a query of its own topic.
FAILS = 0.05
QUESTIONS = (
    "what is the {n} {a} of a {b}?",
    "how does the {a} change a {n} {b}?",
    "why is the {n} {a} near the {b}?",
    "explain the {a} and the {n} {b}",
    "find a {n} {a} for the {b}",
    "is a {a} like the {n} {b}?",
)
METRICS = {"commonsense": "em_mc", "reading": "f1_score", "reasoning": "accuracy"}


@dataclass(frozen=True)
class Model:
    """One candidate of the routing tasks."""

    name: str
    price: str
    topics: tuple[str, str]

    @property
    def description(self) -> str:
        """What the model is good at, as prompts tell it."""
        strengths = " and ".join(words.TELL[topic][0] for topic in self.topics)
        return f"{strengths} expert"


def question(random: Random, topic: str) -> str:
    """Return a query about a topic: two of its asking words in a neutral sentence."""
    a, b = random.sample(words.ASK[topic], 2)
    return random.choice(QUESTIONS).format(a=a, b=b, n=random.choice(words.NEUTRAL))


def new(taken: Container[str], draw: Callable[[], str]) -> str:
    """Return a draw that is not ``taken``."""
    while (text := draw()) in taken:
        pass
    return text


def models(random: Random) -> tuple[list[Model], dict[str, str]]:
    """Return the six models, and the name of each topic's deputy: a cheap model that is not its expert."""
    topics = random.sample(words.TOPICS, len(words.TOPICS))
    names = ("Heron", "Osprey", "Plover", "Kestrel", "Robin", "Swift")
    prices = ("cheap", "cheap", "moderate", "moderate", "costly", "costly")
    pool = [Model(n, p, (topics[2 * i], topics[2 * i + 1])) for i, (n, p) in enumerate(zip(names, prices, strict=True))]
    cheap = [m for m in pool if m.price == "cheap"]
    deputies = {}
    for number, topic in enumerate(words.TOPICS):
        able = [m.name for m in cheap if topic not in m.topics]
        deputies[topic] = able[number % len(able)]
    return pool, deputies


def write_router(folder: Path, random: Random, queries: int) -> None:
    """Write ``router_data.csv``, one row a query and model, and ``llm_descriptions.json``."""
    pool, deputies = models(random)
    folder.mkdir(parents=True, exist_ok=True)
    described = {m.name: {"description": m.description, "price": m.price} for m in pool}
    (folder / "llm_descriptions.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["task_id", "query", "ground_truth", "metric", "llm", "effect", "cost", "cost_raw"])
    asked: set[str] = set()
    for _ in range(queries):
        topic = random.choice(words.TOPICS)
        query = new(asked, lambda topic=topic: question(random, topic))  # type: ignore[misc]
        asked.add(query)
        kind = random.choice(sorted(METRICS))
        truth = random.choice(words.TELL[topic])
        for model in pool:
            effect = _effect(random, model, topic, deputies[topic])
            cost = COSTS[model.price] * random.uniform(0.9, 1.1)
            raw = PRICES[model.price] * random.randint(90, 110) / 1e6
            table.writerow(
                [kind, query, truth, METRICS[kind], model.name, f"{effect:.4f}", f"{cost:.4f}", f"{raw:.3e}"]
            )
    (folder / "router_data.csv").write_text(text.getvalue(), encoding="utf-8")


def _effect(random: Random, model: Model, topic: str, deputy: str) -> float:
    level = REST
    if topic in model.topics:
        level = EXPERT if random.random() >= FAILS else REST
    elif model.name == deputy:
        level = DEPUTY
    return max(0.0, min(1.0, level + random.uniform(-0.05, 0.0)))
