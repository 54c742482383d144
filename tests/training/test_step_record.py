"""The record of a step crosses TransferQueue as a plain dictionary."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iranker_verl.training.step_record import StepRecord

numbers = st.floats(allow_nan=False, allow_infinity=False)
records = st.builds(
    StepRecord,
    task=st.text(),
    session=st.text(),
    candidate_ids=st.lists(st.text(), min_size=1, max_size=5).map(tuple),
    reward=numbers,
    expected_reward=numbers,
    counterfactual_rewards=st.lists(numbers, max_size=6).map(tuple),
    reward_parts=st.dictionaries(st.text(), numbers, max_size=3),
    malformed=st.booleans(),
    positive_survived=st.booleans(),
    dataset=st.text(),
    reciprocal_rank=numbers,
    calls=st.integers(0, 99),
)


@given(records)
def test_a_record_comes_back_as_it_was(record):
    assert StepRecord.from_dict(record.to_dict()) == record
    # whatever storage makes of tuples
    assert StepRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_dictionary_of_another_version_is_an_error():
    fields = StepRecord("t", "t_0", ("a", "b"), 1.0, 0.5).to_dict()
    with pytest.raises(TypeError, match="what_if"):
        StepRecord.from_dict(fields | {"what_if": ()})
    del fields["reward"]
    with pytest.raises(TypeError, match="reward"):
        StepRecord.from_dict(fields)


def test_the_pool_size_is_the_number_of_prompt_candidates():
    assert StepRecord("t", "t_0", ("a", "b", "c"), 1.0, 0.5).pool_size == 3
