"""``exclusion_expected``: what every exclusion that was possible would have earned, not only the one that was sampled.

Where a policy's answer is a label, the reward of every label is known without asking anybody: the reward function says it. Each
candidate i of a pool of N has the worth of its exclusion, and so has any other word in the label's place (a malformed answer, 0)::

    w_i = (r_i - floor) / (most - floor), between 0 and 1        most: of the N candidates' rewards
                                                                 floor: 0, or the least of them where that is below 0

so with one positive it is 0 for the positive and 1 for all others; and where the reward says that a mistake costs next to nothing
(``cost_aware``), it costs next to nothing here. With ``p_i`` the policy's probability of i's label, the
mean worth of the step is, and what the policy is taught is its logarithm::

    J = sum_i p_i w_i + (1 - sum_i p_i) w_0                      maximise log J

**The sum** integrates the sampled answer out: the all-actions update of Sutton, Singh and McAllester (Comparing policy-gradient
algorithms, 2001), mean actor-critic (Allen et al., arXiv 1709.00503), expected policy gradients (Ciosek and Whiteson, arXiv
1706.05374), with the reward function, which does not err, in the critic's place. Nothing of the noise of the draw is left, which for a policy at
chance is most of the signal (:mod:`iranker_verl.training.curriculum`). No importance ratio is needed either: states come from the rollouts, but
answers are not sampled, so vLLM's and the actor's log-probs need not agree, and a batch can be gone through several times.

**The logarithm**: the gradient of J itself is that of the policy gradient, and where the policy is sure and wrong it vanishes, as
``p (1 - p)``; that of log J is ``p``, whole (of expected reward's logarithm: Dayan and Hinton, Using expectation-maximization for
reinforcement learning, 1997). Sampled rewards cannot estimate it without bias; here J is exact.

:mod:`iranker_verl.training.answer_engine` computes it from the logits of the answer's first token, so this is for templates whose
answer is a label alone, one token of the tokenizer. The answer's other tokens (its end) get the advantage of ``exclusion_grpo``.

>>> from iranker_verl.training.credit import StepRow
>>> worths([StepRow("t", "t_0", "abcd", 3, 1.0, 2 / 3, (0.0, 1.0, 1.0, -0.5))])[0].tolist()  # the first is the positive
[0.0, 1.0, 1.0, 0.0]
>>> worths([StepRow("t", "t_0", "abcd", 3, 0.8, 0.6, (0.4, 0.8, 0.5, -0.5))])[0].round(2).tolist()  # graded relevance
[0.5, 1.0, 0.62, 0.0]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iranker_verl.training.credit.rows import StepRow

ESTIMATOR = "exclusion_expected"
NORMALISERS = ("batch", "none")
# Names of the fields that the engine reads: the worths, and the tokens that they belong to, REST for any other.
WORTHS, TOKENS = "what_if_worths", "what_if_tokens"
REST = -1


def worths(rows: Sequence[StepRow]) -> list[np.ndarray]:
    """For every row the worths of its N possible exclusions, in the order shown, and of any other answer: (N + 1,), float64.

    ValueError for a row that does not know what its other exclusions would have earned.
    """
    return [_worths(row) for row in rows]


def _worths(row: StepRow) -> np.ndarray:
    if len(row.what_if) != row.pool_size + 1:
        raise ValueError(
            f"{row.session}: {len(row.what_if)} rewards for {row.pool_size} candidates and any other answer"
        )
    rewards = np.array(row.what_if)
    least, most = rewards[:-1].min(), rewards[:-1].max()
    if most == least:  # all exclusions are alike, and only the form can be learned
        return (rewards >= most).astype(float)
    floor = min(0.0, least)
    return np.clip((rewards - floor) / (most - floor), 0.0, 1.0)
