"""Training ends by tokens, one step before the budget would be passed."""

from hypothesis import given
from hypothesis import strategies as st

from iranker_verl.training.token_budget import last_step


def lines(*tokens):
    return [{"step": step, "tokens/step": count} for step, count in enumerate(tokens, 1)]


def test_no_budget_and_no_step_yet_leave_the_plan():
    assert last_step(None, lines(50, 50), planned=20) == 20
    assert last_step(10, [], planned=20) == 20


def test_the_next_step_is_the_last_where_one_more_like_it_passes_the_budget():
    assert last_step(100, lines(40), planned=20) == 20  # 40 + 40
    assert last_step(100, lines(40, 30), planned=20) == 3  # 70 + 30
    assert last_step(100, lines(40, 30, 35), planned=20) == 4
    assert last_step(100, lines(40, 30), planned=2) == 2  # never later than planned


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 2000))
def test_a_run_of_equal_steps_ends_at_the_first_step_that_reaches_the_budget(tokens, budget):
    tokens = [tokens[0]] * len(tokens)
    planned, step = 10_000, 0
    while step < planned and step < len(tokens):
        step += 1
        planned = last_step(budget, lines(*tokens[:step]), planned)
    if planned < 10_000 and planned <= len(tokens):
        assert (planned == 2 or sum(tokens[: planned - 1]) < budget) and sum(tokens[:planned]) >= budget
