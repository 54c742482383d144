"""The estimators' names, known to verl.

verl hands a registered estimator token rewards, the response mask and the prompt's uid. That does not say which step of
which session a row is, nor what it saw, so the formulas cannot run there: :mod:`iranker_verl.training.trainer` calls them.
What is registered says so, in the place of verl's "unknown advantage estimator".
"""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

from iranker_verl.errors import UserError
from iranker_verl.training.credit import expected, gae, grpo

ESTIMATORS = (grpo.ESTIMATOR, gae.ESTIMATOR, expected.ESTIMATOR)


def _refuse(name: str, **_: Any) -> NoReturn:
    raise UserError(
        f"algorithm.adv_estimator={name} needs to know which step of which session a row is, and verl's own trainer does "
        "not tell: start the run with `iranker train`, or choose one of verl's estimators (gae, grpo)"
    )


# Made once: verl takes a name twice only with the very same function.
_REFUSALS = {name: partial(_refuse, name) for name in ESTIMATORS}


def register() -> None:
    """Register :data:`ESTIMATORS` with verl, so that it lists them. Any number of calls is one; imports verl."""
    from verl.trainer.ppo.core_algos import register_adv_est

    for name, refusal in _REFUSALS.items():
        register_adv_est(name)(refusal)
