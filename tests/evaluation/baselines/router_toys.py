"""Routing tasks in which a query's words decide the LLM, and a tiny encoder with random weights."""

import random

import tiny_rankers

from iranker_verl.ranking import Candidate, RankingTask

TOPICS = {
    "poet": ["verse", "rhyme", "sonnet", "stanza", "meter", "ode", "ballad"],
    "coder": ["python", "loop", "array", "bug", "compile", "stack", "pointer"],
    "chef": ["soup", "oven", "butter", "spice", "dough", "roast", "salt"],
}
LLMS = ("chef", "coder", "idle", "poet")
FILLER = ["please", "tell", "me", "what", "the", "best", "way", "of", "this", "is", "now"]


def task(query, positive=None, *, scores=None, id=None, dataset="router-balance", llms=LLMS, preference="quality only"):
    """One task with a positive, or with ``scores`` by LLM."""
    relevance = tuple(float(llm == positive) if scores is None else float(scores[llm]) for llm in llms)
    candidates = tuple(Candidate(llm, f"{llm}, $1: knows of {llm}s") for llm in llms)
    context = f"Query: {query}\nPreference: {preference}"
    return RankingTask(id or f"{dataset}:{query}", "routing", dataset, context, candidates, relevance)


def topical(n, seed=0, graded=False, **form):
    """``n`` tasks; the topic's LLM is the best. Poets are asked twice as much, so there is a majority LLM."""
    rng = random.Random(seed)
    tasks = []
    for i in range(n):
        topic = ("poet", "poet", "coder", "chef")[i % 4]
        words = rng.sample(TOPICS[topic], 3) + rng.sample(FILLER, 3)
        rng.shuffle(words)
        # what is said of the others is noise, and every query has a level of its own
        level, scores = rng.uniform(-1, 0), {llm: rng.uniform(0, 0.2) for llm in LLMS}
        scores = {llm: level + score + (0.5 if llm == topic else 0) for llm, score in scores.items()}
        known = {"scores": scores} if graded else {"positive": topic}
        tasks.append(task(" ".join(words), id=f"{seed}:{i}", **known, **form))
    return tasks


def turned(one):
    """The same task with its candidates in another order."""
    order = [*range(1, len(one.candidates), 2), *range(0, len(one.candidates), 2)]
    return RankingTask(
        one.id,
        one.scenario,
        one.dataset,
        one.context,
        tuple(one.candidates[i] for i in order),
        tuple(one.relevance[i] for i in order),
    )


def hits(rankings, tasks):
    """The share of tasks whose best LLM is ranked first."""
    return sum(r[0] == t.candidates[t.target].id for r, t in zip(rankings, tasks, strict=True)) / len(tasks)


def save_encoder(folder):
    """A BERT of two small layers whose words are those of the toys; returns ``folder``."""
    words = [*FILLER, *(word for words in TOPICS.values() for word in words)]
    random_weights = {"initializer_range": 0.02, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    return tiny_rankers.bert(folder, words=words, num_hidden_layers=2, **random_weights)
