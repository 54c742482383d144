"""Lines of trainer.rollout_data_dir tell the prompt of each response."""

import pytest
from omegaconf import OmegaConf

from iranker_verl.training.rollout_dump import ranking_field, real_rows, whole_answers
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


def test_a_response_has_what_all_labels_begin_with_and_the_prompt_has_not():
    assert whole_answers(["worst: [", "pad"], ["B]", ""], "[") == (["worst: ", "pad"], ["[B]", ""])
    assert whole_answers(["worst: ["], ["B]"], "") == (["worst: ["], ["B]"])


def test_the_trainer_dumps_whole_answers(monkeypatch):
    trainer = pytest.importorskip("iranker_verl.training.trainer")
    own = object.__new__(trainer.EliminationTrainer)
    algorithm = {"adv_estimator": "exclusion_order"}
    own.config = OmegaConf.create({"algorithm": algorithm, "trainer": {"rollout_data_dir": None}})
    own.tokenizer = Letters()
    dumped = []
    monkeypatch.setattr(
        trainer.SavingTrainer, "_dump_generations", lambda self, *columns: dumped.append(columns[:2]), raising=False
    )
    own._dump_generations(["worst: ["], ["B]"], [{}], [1.0], {}, "elsewhere")
    own.config.algorithm.adv_estimator = "exclusion_grpo"
    del own._answer_prefix
    own._dump_generations(["worst: ["], ["B]"], [{}], [1.0], {}, "elsewhere")
    assert dumped == [(["worst: "], ["[B]"]), (["worst: ["], ["B]"])]


class Letters:
    """A tokenizer with a token for each letter and bracket, and none for a label."""

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(letter) for letter in text]}

    def decode(self, ids):
        return "".join(map(chr, ids))
