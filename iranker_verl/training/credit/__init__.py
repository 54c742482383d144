"""Credit for every exclusion: which advantage a step gets, and how much its session weighs in the loss.

============================  ======================================================================================
``exclusion_grpo``            :mod:`.grpo`: a step against the steps of other rollouts that saw the same remaining set
``exclusion_gae``             :mod:`.gae`: a critic, bootstrapping along the elimination, across the steps of an episode
``exclusion_expected``        :mod:`.expected`: what every possible exclusion would have earned, by the policy's own odds
any other ``adv_estimator``   verl's own: ``gae`` takes each row for an episode of its own (the published training),
                              ``grpo`` hands a session's last row to all its rows
============================  ======================================================================================

All work on real rows only, one row a step, and give one number a row: it stands on every token of the response (with
``exclusion_expected``, on all but the label). The
formulas know nothing of verl; :mod:`.registry` gives it the names. Session weights (:mod:`.sessions`) go with all of them.
"""

from iranker_verl.training.credit.expected import ESTIMATOR as EXPECTED_ESTIMATOR
from iranker_verl.training.credit.expected import NORMALISERS as EXPECTED_NORMALISERS
from iranker_verl.training.credit.expected import REST, worths
from iranker_verl.training.credit.expected import TOKENS as WHAT_IF_TOKENS
from iranker_verl.training.credit.expected import WORTHS as WHAT_IF_WORTHS
from iranker_verl.training.credit.gae import ESTIMATOR as GAE_ESTIMATOR
from iranker_verl.training.credit.gae import NORMALISERS as GAE_NORMALISERS
from iranker_verl.training.credit.gae import episode_advantages
from iranker_verl.training.credit.grpo import ESTIMATOR, NORMALISERS, step_advantages
from iranker_verl.training.credit.registry import ESTIMATORS, register
from iranker_verl.training.credit.rows import StepRow
from iranker_verl.training.credit.sessions import session_weights

__all__ = [
    "ESTIMATOR",
    "ESTIMATORS",
    "EXPECTED_ESTIMATOR",
    "EXPECTED_NORMALISERS",
    "GAE_ESTIMATOR",
    "GAE_NORMALISERS",
    "NORMALISERS",
    "REST",
    "WHAT_IF_TOKENS",
    "WHAT_IF_WORTHS",
    "StepRow",
    "episode_advantages",
    "register",
    "session_weights",
    "step_advantages",
    "worths",
]
