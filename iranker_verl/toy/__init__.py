"""The laptop demonstration: a tiny base model, trained in minutes in place of a pre-trained instruct model.

Its stages are language modelling, instruction tuning, and the answer format. It finds the best candidate and writes
well-formed exclusions, but is not trained on which exclusion is good: that is left to RL.
"""

from iranker_verl.toy.base import BaseConfig, make_base

__all__ = ["BaseConfig", "make_base"]
