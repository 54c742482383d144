"""The base of real data: what suits a history is learned as a language model, and said by labels with the heads of circuits.

What next item suits a history is learned soonest by language modelling over whole histories, in which a frequent title is a
single token. Learned through labels from nothing, the same knowledge took many times as long. So the stages are

* ``language``: histories of titles (and queries with their positives) as plain text, and which of a list comes next, by name,
* ``lists``: which of these fits best, by its label (:mod:`.circuits` makes the heads for it after the first stage), and which of
  two fits worse, since a model that cannot say the opposite of what it sees has to unlearn it.

No stage has exclusions: their prompt gets a label as any prompt does, and which one is left to RL.
"""

from __future__ import annotations

from iranker_verl.toy.base import BaseConfig, Stage

STAGES = (
    Stage("language", 600, (("language", 0.75), ("name", 0.25)), rate=0.5),
    # A rate of .5 unlearned in 200 steps what the heads of circuits could do at once.
    Stage("lists", 600, (("language", 0.1), ("choice", 0.6), ("worse", 0.3)), rate=0.1),
)
REAL = BaseConfig(
    hidden=224,
    heads=7,
    kv_heads=7,
    titles=6000,
    circuits=True,
    rope_theta=1e6,
    matrix_lr=None,
    rows=32,
    tokens=2000,
    size_power=0.5,
    max_length=2040,
    stages=STAGES,
)
# What ``iranker.base.make`` makes, by its name.
BASES = {"tiny": BaseConfig(), "real": REAL}
