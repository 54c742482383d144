"""``exclusion_expected``: what every exclusion that was possible would have earned, not only the one that was sampled.

Once a policy's last word is a label, the reward of each label is known without asking anybody: the reward function says it. With
``p_i`` the policy's probability of candidate i's label in a pool of N, ``r_i`` what that answer earns and ``r_0`` what any other
token there earns (a malformed answer), the expected reward of the step is ::

    J = sum_i p_i r_i + (1 - sum_i p_i) r_0

and its gradient is the policy gradient with the sampled answer integrated out: the all-actions update of Sutton, Singh and
McAllester (Comparing policy-gradient algorithms, 2001), mean actor-critic (Allen et al., arXiv 1709.00503), expected policy
gradients (Ciosek and Whiteson, arXiv 1706.05374), with the critic's place taken by the reward function, which does not err. On average it is what
``exclusion_grpo`` with ``prior -> infinity`` follows; it has none of the noise of the draw, which for a policy at chance is
``mean^2 / second moment`` = .24 at N = 6 and .12 at N = 10 (:mod:`iranker_verl.training.curriculum`). No importance ratio is needed either: states come from
the rollouts, but actions from the policy that is being updated, so vLLM's and the actor's log-probs need not agree.

:mod:`iranker_verl.training.answer_engine` computes J from the logits of the answer's first token, so this is for templates whose
answer is a label alone, one token of the tokenizer; the answer's other tokens (its end) get the sampled advantage. The units are those
of ``exclusion_grpo``: ``A_i = r_i - e``, divided by the standard deviation of the batch's sampled advantages (``batch``) or by
nothing (``none``).

>>> from iranker_verl.training.credit import StepRow
>>> row = StepRow("t", "t_0", "abcd", 3, 1.0, 2 / 3, (0.0, 1.0, 1.0, -0.5))  # the first of three is the positive
>>> what_if_advantages([row], spread=1.0)[0].round(4).tolist()
[-0.6667, 0.3333, 0.3333, -1.1667]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iranker_verl.training.credit.rows import StepRow, divide

ESTIMATOR = "exclusion_expected"
NORMALISERS = ("batch", "none")
# Names of the fields that the engine reads: A_0 .. A_N-1 and the rest's; and the tokens that they belong to, REST for the rest.
ADVANTAGES, TOKENS = "what_if_advantages", "what_if_tokens"
REST = -1


def what_if_advantages(rows: Sequence[StepRow], *, spread: float) -> list[np.ndarray]:
    """For every row the advantages of its N possible exclusions, in the order shown, and of any other answer: (N + 1,), float64.

    ValueError for a row that does not know what its other exclusions would have earned.
    """
    for row in rows:
        if len(row.what_if) != row.pool_size + 1:
            raise ValueError(
                f"{row.session}: {len(row.what_if)} rewards for {row.pool_size} candidates and any other answer"
            )
    return [divide(np.array(row.what_if) - row.expected, spread) for row in rows]
