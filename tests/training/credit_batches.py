"""Random batches of training rows, for the tests of credit: what elimination can produce, and its corner cases.

Several tasks and rollouts; sessions of different lengths (a lucky one goes on, an early mistake ends it); remaining sets met
by several rollouts, since there are few ways to go; groups in which all earned the same; and single rows.
"""

from hypothesis import strategies as st

from iranker_verl.training.step_record import StepRecord


def record(task, session, pool, size, reward, expected, counterfactual_rewards=()) -> StepRecord:
    """A step whose prompt shows the ``size`` candidates that ``pool`` stands for."""
    ids = tuple(f"{pool}/{i}" for i in range(size))
    return StepRecord(task, session, ids, reward, expected, tuple(counterfactual_rewards))


# gamma and lambda; what a critic may say
shares = st.sampled_from([0.0, 0.3, 0.9, 0.95, 1.0])
critic_values = st.floats(-3, 3, width=32)


def episode(rewards: list[float], *, session: str = "t_0", first: int | None = None) -> list[StepRecord]:
    """The rows of one session, whose pool shrinks from ``first`` candidates (default: down to two in the last row)."""
    first = first or len(rewards) + 1
    return [record("t", session, f"{session}{k}", first - k, r, 0.5) for k, r in enumerate(rewards)]


@st.composite
def sessions(draw, task: str, number: int, size: int, rewards: list[float]) -> list[StepRecord]:
    pool = "abcde"[:size]
    rows = []
    for _ in range(draw(st.integers(1, size - 1))):
        n = len(pool)
        rows.append(record(task, f"{task}_{number}", pool, n, draw(st.sampled_from(rewards)), (n - 1) / n))
        place = draw(st.integers(0, n - 1))
        pool = pool[:place] + pool[place + 1 :]
    return rows


@st.composite
def batches(draw) -> list[StepRecord]:
    """One batch of real rows, shuffled as verl's balancing does."""
    rows = []
    for task in "tuv"[: draw(st.integers(1, 3))]:
        size = draw(st.integers(2, 5))
        rewards = draw(st.sampled_from([[-0.5, 0.0, 1.0], [0.0, 1.0], [0.25, 0.7, 0.1], [1.0], [0.1]]))
        for number in range(draw(st.integers(1, 4))):
            rows += draw(sessions(task, number, size, rewards))
    return draw(st.permutations(rows))
