"""Weights of rows in the loss, against enumeration of all episodes of tabular policies."""

from collections.abc import Iterator
from dataclasses import replace
from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iranker_verl.training.credit import row_weights
from iranker_verl.training.step_record import StepRecord
from tests.training.credit_batches import batches, record

Pool = str  # of candidates, a letter each; P is the positive
Policy = dict[Pool, dict[str, float]]  # the probability of excluding each
START = "PABC"


def episodes(policy: Policy, pool: Pool = START) -> Iterator[tuple[float, list[tuple[Pool, str]]]]:
    """Yield the probability and the exclusions of every training episode, which ends where the positive is out or alone."""
    if len(pool) == 1 or "P" not in pool:
        yield 1.0, []
        return
    for out, chance in policy[pool].items():
        for rest, steps in episodes(policy, pool.replace(out, "")):
            yield chance * rest, [(pool, out), *steps]


def reciprocal_rank(steps: list[tuple[Pool, str]]) -> float:
    pool, out = steps[-1]
    return 1 / len(pool) if out == "P" else 1.0


def records(steps: list[tuple[Pool, str]], session: str = "t_0") -> list[StepRecord]:
    rows = [record("t", session, pool, len(pool), float(out != "P"), 1 - 1 / len(pool)) for pool, out in steps]
    return [
        replace(row, most_calls=len(START) - 1, positive_survived=out != "P")
        for row, (_, out) in zip(rows, steps, strict=True)
    ]


def uniform() -> Policy:
    pools = ["PABC", "PAB", "PAC", "PBC", "PA", "PB", "PC"]
    return {pool: {out: 1 / len(pool) for out in pool} for pool in pools}


def gradient(policy: Policy, first: str, of_row) -> float:
    """Return the mean of weight * value * d log pi / d logit of excluding ``first`` from the full pool."""
    total = 0.0
    for chance, steps in episodes(policy):
        weight = row_weights(records(steps))[0] / len(steps)  # the loss divides by the rows
        total += chance * weight * of_row(steps) * ((steps[0][1] == first) - policy[START][first])
    return total


def test_weights_by_hand():
    long = [record("t", "t_0", "x", n, 1.0, 1 - 1 / n) for n in (4, 3, 2)]
    short = [record("u", "u_0", "y", 4, 0.0, 0.75)]
    rows = [replace(row, most_calls=3) for row in [*long, *short]]
    # four rows of two sessions of three possible exclusions each: 4 / 2 / 3, whatever was excluded
    assert row_weights([*rows, None]).tolist() == pytest.approx([2 / 3] * 4 + [0.0])
    assert row_weights([*rows, None], "none").tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_a_weight_alone_has_no_gradient():
    """Divided by the session's own number of steps it is +.115 for the positive of four, and -.038 for each other."""
    for first in START:
        assert gradient(uniform(), first, lambda steps: 1.0) == pytest.approx(0, abs=1e-12)
    old = lambda steps: 3 / len(steps)  # noqa: E731
    assert gradient(uniform(), "P", old) == pytest.approx(0.11458333)
    assert gradient(uniform(), "B", old) == pytest.approx(-0.03819444)


def test_an_exclusion_is_not_taught_for_ending_its_episode():
    """After B the positive is lost, after C it is safe: E[RR] falls with B and rises with C, and both survive the first step."""
    policy = uniform()
    policy["PAC"] = {"P": 1.0, "A": 0.0, "C": 0.0}
    policy["PAB"] = {"P": 0.0, "A": 1.0, "B": 0.0}
    policy["PB"] = {"P": 0.0, "B": 1.0}
    true = {
        first: sum(
            chance * reciprocal_rank(steps) * ((steps[0][1] == first) - 0.25) for chance, steps in episodes(policy)
        )
        for first in "BC"
    }
    assert true["B"] < 0 < true["C"]
    reward = lambda steps: float(steps[0][1] != "P") - 0.75  # noqa: E731
    ours = {first: 3 * gradient(policy, first, reward) for first in "BC"}
    assert ours == pytest.approx({"B": 0.0625, "C": 0.0625})
    old = {first: gradient(policy, first, lambda steps: reward(steps) * 3 / len(steps)) for first in "BC"}
    assert old["B"] > old["C"] + 0.005  # the wrong way round


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.integers(2, 4), st.floats(-2, 3), min_size=3, max_size=3))
def test_weights_rr_make_the_gradient_that_of_the_reciprocal_rank(logits):
    """For a policy whose survival depends on the pool's size alone; the logit of a size is that of sparing the positive."""

    def survival(size: int, logit: float) -> float:
        return exp(logit) / (exp(logit) + 1)

    def policy_of(at: dict[int, float]) -> Policy:
        policy = uniform()
        for pool in policy:
            spared = survival(len(pool), at[len(pool)])
            policy[pool] = {out: 1 - spared if out == "P" else spared / (len(pool) - 1) for out in pool}
        return policy

    def value(at: dict[int, float]) -> float:
        return sum(chance * reciprocal_rank(steps) for chance, steps in episodes(policy_of(at)))

    batch = [  # of 1,000 pools of each size, those survived that should
        replace(
            record("t", f"t_{size}_{i}", "x", size, 1.0, 0.5), positive_survived=i < 1000 * survival(size, logits[size])
        )
        for size in logits
        for i in range(1000)
    ]
    weights = dict(zip((row.pool_size for row in batch), row_weights(batch, "rr"), strict=True))
    visits = dict.fromkeys(logits, 0.0)
    for chance, steps in episodes(policy_of(logits)):
        for pool, _ in steps:
            visits[len(pool)] += chance
    for size, logit in logits.items():
        step = 1e-5
        exact = (value(logits | {size: logit + step}) - value(logits | {size: logit - step})) / (2 * step)
        spared = survival(size, logit)
        assert visits[size] * weights[size] * spared * (1 - spared) == pytest.approx(exact, abs=2e-3)


@given(batches(), st.integers(0, 3), st.sampled_from(["session", "rr", "none"]))
def test_padding_rows_among_real_ones_change_nothing(rows, padding, weights):
    alone = row_weights(rows, weights)
    assert row_weights([*rows, *[None] * padding], weights).tolist() == pytest.approx([*alone, *[0.0] * padding])


def test_what_cannot_be_weighed():
    with pytest.raises(ValueError, match="padding"):
        row_weights([None, None])
    with pytest.raises(ValueError, match="choose one of session, rr, none"):
        row_weights([record("t", "t_0", "x", 2, 1.0, 0.5)], "rank")
