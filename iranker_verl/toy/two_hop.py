"""A made-up world in which a short written thought is needed to answer: two-hop matching.

The context names a key and has a line that says what belongs to each key; each candidate is a kind::

    for mip? dul green, mip red, tas blue
    Candidates:
    - blue[A]
    - red[B]
    - green[C]

The best candidate is of the asked key's kind: key to kind is one look-up, kind to candidate another. A model of two layers can do one of
them in a forward pass, not one after the other (an induction head takes two layers: Olsson et al., arXiv 2209.11895); with a thought,
``<think> mip red</think>``, each is one pass. Lines of the map are in random order and every kind has a key, so neither the map nor the
candidates alone say anything.
"""

from __future__ import annotations

from random import Random

from iranker_verl.ranking import Candidate, Elimination, RankingTask
from iranker_verl.ranking.templates import parse
from iranker_verl.toy.questions import Sample, part_of
from reward_fns.answers import label

KEYS = ["mip", "dul", "tas", "rok", "fen", "gub", "lax", "nov", "pim", "sep", "tor", "wil"]
KINDS = ["red", "green", "blue", "black", "white", "pink", "brown", "grey"]
CANDIDATES = 6

_TEMPLATE = """
id: {id}
kind: exclusion
answer: label
candidate: "- {{text}}[{{label}}]"
system: null
user:
  recommendation: "{{context}}\\nCandidates:\\n{{candidates}}\\n{ask}:"
  routing: "{{context}}\\nCandidates:\\n{{candidates}}\\n{ask}:"
  passage: "{{context}}\\nCandidates:\\n{{candidates}}\\n{ask}:"
"""
LABEL = parse(_TEMPLATE.format(id="two-hop-label", ask="Exclude the worst"), "two-hop-label")
THINK = parse(_TEMPLATE.format(id="two-hop-think", ask="Think and exclude the worst"), "two-hop-think")


def make_task(random: Random, number: int, candidates: int = CANDIDATES) -> RankingTask:
    """Return a task of the world."""
    kinds = random.sample(KINDS, candidates)
    keys = random.sample(KEYS, candidates)
    pairs = [f"{key} {kind}" for key, kind in zip(keys, kinds, strict=True)]
    random.shuffle(pairs)
    shown = random.sample(kinds, candidates)
    asked = random.randrange(candidates)
    return RankingTask(
        f"two-hop-{number}",
        "passage",
        "two-hop",
        f"for {keys[asked]}? {', '.join(pairs)}",
        tuple(Candidate(str(i), kind) for i, kind in enumerate(shown)),
        tuple(float(kind == kinds[asked]) for kind in shown),
    )


def facts(task: RankingTask) -> list[tuple[str, str]]:
    """Return the key and the kind of each entry of a task's map, in its order.

    >>> facts(make_task(Random(0), 0, candidates=2))
    [('fen', 'black'), ('wil', 'blue')]
    """
    entries = task.context.partition("? ")[2].split(", ")
    return [(key, kind) for key, kind in (entry.split() for entry in entries)]


def asked_key(task: RankingTask) -> str:
    """Return the key that the context asks for."""
    return task.context.partition("?")[0].removeprefix("for ")


def exclusion(random: Random, task: RankingTask, think: bool) -> Sample:
    """Return the prompt with a valid answer that knows nothing of the asked key: the form of an exclusion, and of a thought.

    The thought repeats an entry of the map, uniformly at random; the label is that of a candidate of another kind, so that thoughts have
    consequences, as they have in a language model.
    """
    part = part_of(random, task)
    template = THINK if think else LABEL
    state = template.start(part)
    if not think:
        return Sample(template.messages(state), f"[{label(random.randrange(len(part.candidates)))}]")
    key, kind = random.choice(facts(task))
    others = [i for i, c in enumerate(part.candidates) if c.text != kind]
    return Sample(template.messages(state), f"<think> {key} {kind}</think>[{label(random.choice(others))}]")


def look_up(random: Random, task: RankingTask) -> Sample:
    """Return the question for the asked key's entry, the first hop, after the same of all keys."""
    entries = facts(task)
    asides = tuple((f"? {key}", f" {kind}") for key, kind in random.sample(entries, len(entries)))
    content = f"{task.context}\nWhat is{''.join(asked for asked, _ in asides)}\nWhat is it:"
    key = asked_key(task)
    return Sample([{"role": "user", "content": content}], f" {key} {dict(entries)[key]}", asides)


def find(random: Random, task: RankingTask) -> Sample:
    """Return the question for the labels of kinds, the second hop, in random order."""
    part = part_of(random, task)
    pairs = [(c.text, f"[{label(i)}]") for i, c in enumerate(part.candidates)]
    lines = "\n".join(f"- {kind}{name}" for kind, name in pairs)
    *asides, (kind, name) = random.sample(pairs, len(pairs))
    asked = [(f"? {kind}", name) for kind, name in asides]
    content = f"Candidates:\n{lines}\nWhich is{''.join(line for line, _ in asked)}\nWhich is {kind}:"
    return Sample([{"role": "user", "content": content}], f" {kind}{name}", tuple(asked))


def make_sample(random: Random, task: RankingTask) -> Sample:
    """Return a question of the base: one of the hops, or the form of one of the two prompts."""
    kind = random.choice(("look up", "find", "label", "think", "think", "think"))
    if kind in ("label", "think"):
        return exclusion(random, task, think=kind == "think")
    return look_up(random, task) if kind == "look up" else find(random, task)


def is_right(task: RankingTask, thought: str) -> bool:
    """Return whether a thought repeats the entry of the asked key."""
    key = asked_key(task)
    return thought.split() == [key, dict(facts(task))[key]]


def start(task: RankingTask, think: bool) -> Elimination:
    """Return the state of an episode."""
    state = (THINK if think else LABEL).start(task)
    assert isinstance(state, Elimination)
    return state
