"""A tiny base model made from nothing in minutes: what a pretrained instruct model is to the real runs.

Its stages are its big sisters': language modelling, instruction tuning, and the answer format. It can tell what fits, it
knows what an exclusion looks like, and it has never been told which exclusion is good: that is left to RL.
"""

from iranker_verl.toy.base import BaseConfig, make_base

__all__ = ["BaseConfig", "make_base"]
