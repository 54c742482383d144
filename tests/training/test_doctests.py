"""The examples in the docstrings of rewards and training run."""

import doctest
from importlib import import_module

import pytest

MODULES = [
    "reward_fns.direct",
    "reward_fns.exclusion",
    "reward_fns.names",
    "iranker_verl.training.credit",
    "iranker_verl.training.curriculum",
    "iranker_verl.training.optimizer_steps",
    "iranker_verl.training.plackett_luce",
    "iranker_verl.training.policy_loss",
    "iranker_verl.training.step_record",
    "iranker_verl.training.token_budget",
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_run(name):
    if name.endswith(("plackett_luce", "policy_loss")):
        pytest.importorskip("torch")
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0 == result.failed
