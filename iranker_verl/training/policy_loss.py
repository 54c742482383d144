"""The loss of ``exclusion_expected`` and ``exclusion_order``: over all exclusions that were possible, not only the one sampled.

**Action values.** Where a response is a label, the reward function gives the reward of every label without any rollout: the
counterfactual rewards. Of a pool of N candidates, exclusion i (reward ``r_i``), and any other token in the label's place (a
malformed response, index 0), have the value ::

    q_i = (r_i - floor) / (most - floor), clipped to [0, 1]      most: the largest reward of the N labels
                                                                 floor: 0, or the smallest of them where it is below 0

With one positive it is 0 for the positive and 1 for all others. Where the reward says that a mistake costs next to nothing
(``cost_aware``), its value is next to 1.

**Objective.** With ``p_i`` the policy's probability of label i as the first response token, the value of the step is J, and
its logarithm is maximised::

    J = sum_i p_i q_i + (1 - sum_i p_i) q_0                      loss of a row = - session weight * log J

*The sum* integrates the sampled action out: the all-actions update of Sutton, Singh and McAllester (Comparing policy-gradient
algorithms, 2001), mean actor-critic (Allen et al., arXiv 1709.00503), expected policy gradients (Ciosek and Whiteson, arXiv
1706.05374), with the exact reward function in the critic's place. It removes the variance of sampling, which for a near-uniform
policy is most of the signal (:mod:`iranker_verl.training.curriculum`). It needs no importance ratio: states come from the
rollouts, but actions are not sampled, so vLLM's and the actor's log-probs need not agree, and a batch may be used several times.

*The logarithm*: the gradient of J is the policy gradient, which vanishes as ``p (1 - p)`` where the policy is sure and wrong;
that of log J stays at ``p`` (the logarithm of expected reward: Dayan and Hinton, Using expectation-maximization for
reinforcement learning, 1997). Sampled rewards cannot estimate it without bias; here J is exact.

This is for templates whose response is a label alone. Its first token is the label's own: where a tokenizer has several for
``[A]``, the agent loop puts those that all labels share at the end of the prompt (:mod:`iranker_verl.ranking.label_tokens`). What
follows it, the end of the text, is taught where the response is well-formed (:func:`label_advantages`).

**The whole order** (``exclusion_order``). The same probabilities imply an order of all candidates: exclude one after the other
without asking again (:mod:`iranker_verl.training.plackett_luce`). A policy that only learns one exclusion well has no order among the
rest; this objective teaches it, so that one call can exclude several candidates, or rank all. With the gains
``g_i = (most - r_i) / (most - least)``, which are 1 for what should be excluded last and 0 for what should go first, and
``rank_i`` the rank of candidate i, the value is the expected gain over reciprocal ranks, from 0 for the worst order to 1 for the best::

    J = (E[sum_i g_i / rank_i] - worst) / (best - worst) * sum_i p_i

With one positive that is the expected reciprocal rank, scaled, and for two candidates J is ``exclusion_expected``'s. The last
factor is the probability of a well-formed response. The expectation is exact, and nothing is sampled.

**Where it meets verl** (0.9.1). verl's seam for losses, ``register_policy_loss``, hands a loss the log-probs of the *sampled*
tokens, their old log-probs, advantages, mask and config, and nothing else: neither another output of the engine nor a
field of the batch (``verl.workers.utils.losses.ppo_loss``). The log-probs of all labels exist in the engine only. So the engine
(:mod:`iranker_verl.training.answer_engine`) substitutes the log-prob of the first response token, and verl's own ``vanilla``
loss, ``- advantage * exp(log_prob - old_log_prob)``, does the rest::

    log_prob = old_log_prob + log J - stop_gradient(log J)       advantage = session weight

The ratio is 1, which is never clipped, and its gradient is that of log J. Three functions, in order: the trainer stores
:func:`label_fields` with the batch and sets :func:`label_advantages`; the engine calls :func:`substitute_log_probs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from iranker_verl.ranking.label_tokens import label_tokens
from iranker_verl.training.credit import ORDER_ESTIMATOR
from iranker_verl.training.plackett_luce import expected_gain, rank_law
from iranker_verl.training.step_record import StepRecord

# Fields of the batch that the engine reads, jagged, one row a row: the values q, and the label tokens that they belong to.
LABEL_VALUES, LABEL_TOKENS = "label_values", "label_tokens"
# In place of the values, for exclusion_order: the gains g.
LABEL_GAINS = "label_gains"
# Represents all other tokens among the label tokens.
ANY_OTHER = -1
# A mean value below this has no gradient: its logarithm's would be noise.
SMALLEST = 1e-30


def action_values(step: StepRecord) -> np.ndarray:
    """Return the values q of a step's N exclusions, in prompt order, and of any other response: (N + 1,), float64.

    >>> one_positive = StepRecord("t", "t_0", tuple("abc"), 1.0, 2 / 3, (0.0, 1.0, 1.0, -0.5))  # a is the positive
    >>> action_values(one_positive).tolist()
    [0.0, 1.0, 1.0, 0.0]
    >>> graded = StepRecord("t", "t_0", tuple("abc"), 0.8, 0.6, (0.4, 0.8, 0.5, -0.5))
    >>> action_values(graded).round(2).tolist()
    [0.5, 1.0, 0.62, 0.0]

    Raise ValueError for a record without all counterfactual rewards.
    """
    if len(step.counterfactual_rewards) != step.pool_size + 1:
        raise ValueError(
            f"{step.session}: {len(step.counterfactual_rewards)} counterfactual rewards for {step.pool_size} candidates "
            "and any other response"
        )
    rewards = np.array(step.counterfactual_rewards)
    least, most = rewards[:-1].min(), rewards[:-1].max()
    if most == least:  # all exclusions are equally good, and only the form can be learned
        return (rewards >= most).astype(float)
    floor = min(0.0, least)
    return np.clip((rewards - floor) / (most - floor), 0.0, 1.0)


def label_gains(step: StepRecord) -> np.ndarray:
    """Return the gains g of a step's N candidates, in prompt order, and 0 for any other response: (N + 1,), float64.

    >>> graded = StepRecord("t", "t_0", tuple("abc"), 0.8, 0.6, (0.4, 0.8, 0.5, -0.5))
    >>> label_gains(graded).round(2).tolist()
    [1.0, 0.0, 0.75, 0.0]
    """
    action_values(step)  # raises ValueError where counterfactual rewards are missing
    rewards = np.array(step.counterfactual_rewards[:-1])
    least, most = rewards.min(), rewards.max()
    gains = (most - rewards) / (most - least) if most > least else np.zeros(len(rewards))
    return np.append(gains, 0.0)


def label_fields(steps: Sequence[StepRecord | None], tokenizer: Any, estimator: str) -> dict[str, torch.Tensor]:
    """Return :data:`LABEL_TOKENS` of a batch, and :data:`LABEL_VALUES` or :data:`LABEL_GAINS` (float32), as ``estimator`` asks.

    All are jagged, (rows, N + 1) of each row's N. ``None`` marks a padding row, which has no gradient: any token has the value 1.
    Raise UserError where a label is not one token.
    """
    name, of_step = (LABEL_GAINS, label_gains) if estimator == ORDER_ESTIMATOR else (LABEL_VALUES, action_values)
    labels = label_tokens(tokenizer, max(step.pool_size for step in steps if step is not None)).ids
    values = [[1.0] if step is None else of_step(step) for step in steps]
    rows = {
        name: [torch.as_tensor(v, dtype=torch.float32) for v in values],
        LABEL_TOKENS: [torch.tensor([*labels[: len(v) - 1], ANY_OTHER]) for v in values],
    }
    return {name: torch.nested.as_nested_tensor(tensors, layout=torch.jagged) for name, tensors in rows.items()}


def label_advantages(steps: Sequence[StepRecord | None], weights: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return advantages, (rows, response tokens): the row's weight on the label, and where it is well-formed on what follows.

    What follows is the end of the response, which is right after any label, be it that of the best candidate, and is not taught
    after anything else. ``weights``: (rows,); ``mask``: (rows, response tokens), 0 in padding.
    """
    formed = torch.tensor([step is not None and not step.malformed for step in steps])
    taught = formed[:, None].expand(mask.shape).clone()
    taught[:, 0] = True
    return weights[:, None] * taught * mask


def log_mean_value(log_probs: torch.Tensor, tokens: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return log J of each row: (rows,).

    ``log_probs``: (rows, vocabulary), of the first response token; ``tokens``, ``values``: (rows, most), where the value of
    :data:`ANY_OTHER` counts for all tokens that are not listed; entries after it are padding, with the value 0.
    """
    listed = tokens != ANY_OTHER
    probs = log_probs.gather(1, tokens.clamp(min=0)).exp() * listed
    any_other = (values * ~listed).sum(1)
    mean = (probs * values).sum(1) + (1 - probs.sum(1)).clamp(min=0) * any_other
    return mean.clamp(min=SMALLEST).log()


def log_order_value(log_probs: torch.Tensor, tokens: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
    """Return log J of ``exclusion_order`` of each row: (rows,). 0 for a row that lists no label (padding).

    ``log_probs``: (rows, vocabulary), of the first response token; ``tokens``, ``gains``: (rows, most), padded with
    :data:`ANY_OTHER` and 0. A row of equal gains has nothing to order: its J is the probability of a well-formed response.
    """
    # the largest gains first, so that laws are computed of candidates with a gain only
    gains, by_gain = gains.masked_fill(tokens == ANY_OTHER, 0.0).sort(dim=1, descending=True, stable=True)
    tokens = tokens.gather(1, by_gain)
    listed = tokens != ANY_OTHER
    scores = log_probs.gather(1, tokens.clamp(min=0))
    padding = ~listed.any(1, keepdim=True)
    well_formed = torch.where(listed | padding, scores, -torch.inf).logsumexp(1)
    discounts = 1 / torch.arange(1, tokens.shape[1] + 1, dtype=scores.dtype, device=scores.device)
    mean = torch.zeros_like(scores[:, 0])
    for index in range(int((gains > 0).sum(1).max())):
        candidate = torch.full_like(tokens[:, 0], index)
        mean = mean + gains[:, index] * expected_gain(rank_law(scores, candidate, listed), discounts)
    best = (gains * discounts).sum(1)
    # the worst order gives the last rank to the largest gain
    last = (listed.sum(1, keepdim=True) - 1 - torch.arange(tokens.shape[1], device=scores.device)).clamp(min=0)
    worst = (gains * discounts[last]).sum(1)
    ordered = best > worst
    value = torch.where(ordered, (mean - worst) / torch.where(ordered, best - worst, 1.0), 1.0)
    return torch.where(padding[:, 0], 0.0, value.clamp(min=SMALLEST).log() + well_formed)


def substitute_log_probs(sampled: torch.Tensor, log_probs: torch.Tensor, batch: TensorDict) -> torch.Tensor:
    """Return ``sampled``, with what stands for log J in place of each row's first response token; see the module's docstring.

    ``sampled``: (response tokens of all rows,), the log-probs of the tokens sampled; ``log_probs``: (response tokens of all
    rows, vocabulary); ``batch``: the micro-batch, with jagged ``responses``, ``old_log_probs`` and :func:`label_fields`.
    A batch without label fields (of another estimator) leaves ``sampled`` as it is.
    """
    if LABEL_TOKENS not in batch:
        return sampled
    first = batch["responses"].offsets()[:-1]
    tokens = batch[LABEL_TOKENS].to_padded_tensor(ANY_OTHER)
    name, log_value = (LABEL_GAINS, log_order_value) if LABEL_GAINS in batch else (LABEL_VALUES, log_mean_value)
    log_mean = log_value(log_probs[first], tokens, batch[name].to_padded_tensor(0.0))
    old = batch["old_log_probs"].values()[first]
    return sampled.index_put((first,), old + log_mean - log_mean.detach())
