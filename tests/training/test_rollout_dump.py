"""Lines of trainer.rollout_data_dir tell the prompt of each response."""

from iranker_verl.training.rollout_dump import ranking_field, real_rows
from iranker_verl.training.step_record import StepRecord

INFO = {
    "task_id": "t1",
    "scenario": "passage",
    "group": "q1",
    "context": "a question",
    "candidate_ids": ["a", "b", "c"],
    "template_id": "label",
    "template_hash": "0123",
    "history_ids": [],
}


def test_the_candidates_are_those_of_the_prompt_in_its_order():
    step = StepRecord("u", "u_0", ("c", "a"), 1.0, 0.5, dataset="passage-5")
    assert ranking_field(step, INFO, {"candidates": ["text a", "text b", "text c"]}) == {
        "dataset": "passage-5",
        "task_id": "t1",
        "scenario": "passage",
        "group": "q1",
        "context": "a question",
        "candidates": ["text c", "text a"],
        "template_id": "label",
        "template_hash": "0123",
    }


def test_padding_rows_are_left_out():
    ranking = {"u_0_0": {"task_id": "t1"}, "u_0_1": {"task_id": "t2"}}
    columns, extra = real_rows([["in 0", "pad", "in 1"], [1.0, 0.0, 2.0]], ["u_0_0", "u_9_9", "u_0_1"], ranking)
    assert columns == [["in 0", "in 1"], [1.0, 2.0]]
    assert extra == {"uid": ["u_0_0", "u_0_1"], "ranking": [{"task_id": "t1"}, {"task_id": "t2"}]}
