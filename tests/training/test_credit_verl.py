"""Credit beside verl's own estimators: where the formulas meet, they give the same numbers; where values stand; names."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from iranker_verl.errors import UserError
from iranker_verl.training import credit
from iranker_verl.training.credit import episode_advantages, gae, step_advantages
from tests.training.credit_batches import batches, critic_values, episode, shares


@pytest.fixture(scope="module")
def core_algos():
    return pytest.importorskip("verl.trainer.ppo.core_algos")


# ---------------------------------------------------------------- GRPO


@settings(deadline=None)
@given(batches())
def test_with_equal_sets_only_it_is_verls_grpo_but_for_leave_one_out(core_algos, rows):
    index = np.array([f"{r.task}/{r.candidate_ids}" for r in rows], dtype=object)
    size = [int((index == name).sum()) for name in index]
    shared = [i for i, n in enumerate(size) if n > 1]
    assume(shared)
    rewards = torch.tensor([[r.reward] for r in rows], dtype=torch.float64)
    mask = torch.ones_like(rewards)
    for normalise, by_std in (("group", True), ("none", False)):
        theirs = core_algos.compute_grpo_outcome_advantage(rewards, mask, index, norm_adv_by_std_in_grpo=by_std)[0]
        ours = step_advantages(rows, prior=0.0, normalise=normalise)[0]
        got = [ours[i] * (size[i] - 1) / size[i] for i in shared]
        assert got == pytest.approx(theirs.flatten()[shared].tolist(), abs=1e-4)


# ---------------------------------------------------------------- within a step: verl's own


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5).filter(lambda lengths: sum(lengths) > 1),
    st.data(),
    shares,
    shares,
)
def test_cut_at_the_borders_of_rows_it_is_verls_gae(core_algos, lengths, data, gamma, lam):
    """Rows of ``lengths`` tokens, padded on the right: every token a step of ours, every row an episode of ours."""
    mask = torch.tensor([[float(j < n) for j in range(max(lengths))] for n in lengths], dtype=torch.float64)
    floats = st.lists(critic_values, min_size=mask.numel(), max_size=mask.numel())
    rewards = torch.tensor(data.draw(floats), dtype=torch.float64).reshape(mask.shape) * mask
    values = torch.tensor(data.draw(floats), dtype=torch.float64).reshape(mask.shape) * mask
    theirs, returns = core_algos.compute_gae_advantage_return(rewards, values, mask, gamma, lam)

    real = mask.bool()
    ends = np.zeros(sum(lengths), dtype=bool)
    ends[np.cumsum(lengths) - 1] = True
    ours = gae(rewards[real].numpy(), values[real].numpy(), ends, gamma=gamma, lam=lam)
    assert ours + values[real].numpy() == pytest.approx(returns[real].numpy(), abs=1e-9)
    if ours.std() > 1e-3:  # verl whitens, with n - 1
        white = (ours - ours.mean()) / ours.std(ddof=1)
        assert white == pytest.approx(theirs[real].numpy(), abs=1e-3, rel=1e-3)


def test_one_token_rows_differ_by_what_comes_after(core_algos):
    rewards, values = [1.0, 1.0, 0.0], [1.5, 0.5, 0.25]
    column = [torch.tensor(x, dtype=torch.float64)[:, None] for x in (rewards, values)]
    within = core_algos.compute_gae_advantage_return(*column, torch.ones(3, 1), 1.0, 1.0)[1].flatten()
    across = episode_advantages(episode(rewards), values)[1]
    assert (across - within.numpy()).tolist() == [
        1,
        0,
        0,
    ]  # the first return has the second step's reward in it as well


# ---------------------------------------------------------------- where the value stands


def test_the_first_value_of_a_row_is_that_of_its_last_prompt_token(core_algos):
    from verl.workers.utils.padding import response_from_nested

    prompts, answers = [3, 2], [2, 4]
    places = [torch.arange(p + a, dtype=torch.float32) for p, a in zip(prompts, answers, strict=True)]
    mask = torch.nested.as_nested_tensor([torch.ones(a) for a in answers], layout=torch.jagged)
    values = response_from_nested(torch.nested.as_nested_tensor(places, layout=torch.jagged), mask)
    assert values.to_padded_tensor(padding=0.0)[:, 0].tolist() == [p - 1 for p in prompts]


# ---------------------------------------------------------------- names


def test_verl_knows_the_names_and_says_what_they_need(core_algos):
    credit.register()
    credit.register()  # of the same functions: nothing happens
    for name in ("exclusion_grpo", "exclusion_gae"):
        with pytest.raises(UserError, match=f"adv_estimator={name} .*iranker train") as caught:
            core_algos.get_adv_estimator_fn(name)(token_level_rewards=None, response_mask=None, config=None, index=None)
        assert "\n" not in str(caught.value)
