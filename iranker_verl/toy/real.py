"""The base of real data: the tiny base's architecture and questions, with stages that real titles and texts need.

What next item suits a history is learned soonest by language modelling over whole histories, in which a frequent title is a
single token. Learned through labels from nothing, the same knowledge took many times as long. So the stages are

* ``language``: histories of titles (and queries with their positives) as plain text,
* ``recall``: which label has which title, or the passage that a few words in a row are from,
* ``lists``: which of these fits best, with a verdict at the end of every candidate's line,
* ``format``: valid exclusions, uniformly at random.
"""

from __future__ import annotations

from iranker_verl.toy.base import BaseConfig, Stage

STAGES = (
    Stage("language", 120, (("language", 1.0),)),
    Stage("recall", 400, (("language", 0.05), ("recall", 0.95)), largest=8),
    Stage("lists", 1000, (("language", 0.05), ("best", 0.85), ("recall", 0.1))),
    Stage("format", 280, (("language", 0.05), ("best", 0.45), ("exclusion", 0.5))),
)
REAL = BaseConfig(titles=6000, circuits=True, rows=80, max_length=2040, stages=STAGES)
# What ``iranker.base.make`` makes, by its name.
BASES = {"tiny": BaseConfig(), "real": REAL}
