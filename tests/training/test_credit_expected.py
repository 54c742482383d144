"""Credit for every exclusion that was possible: its numbers by hand, and its gradient against the sampled one's mean."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from iranker_verl.errors import UserError
from iranker_verl.ranking.label_tokens import LabelTokens, label_tokens
from tests.training.credit_batches import record

policy_loss = pytest.importorskip("iranker_verl.training.policy_loss")
trainer = pytest.importorskip("iranker_verl.training.trainer")


def row(counterfactual_rewards, reward=1.0, expected=0.5):
    return record("t", "t_0", "abcd", len(counterfactual_rewards) - 1, reward, expected, counterfactual_rewards)


def action_values(*steps):
    return [policy_loss.action_values(step) for step in steps]


def test_action_values_by_hand():
    assert action_values(row([0.0, 1.0, -0.5]), row([1.0, 0.0, 1.0, -0.5])) == [
        pytest.approx([0, 1, 0]),
        pytest.approx([1, 0, 1, 0]),
    ]
    graded = row([0.2, 0.4, 0.8, 0.3])  # here an answer that names none earns more than excluding the best
    assert action_values(graded)[0] == pytest.approx([0.25, 0.5, 1, 0.375])
    assert action_values(row([-0.5, 0.5, -1.0]))[0] == pytest.approx([0, 1, 0])
    # a near tie costs next to nothing, and a large lead what it is worth
    assert action_values(row([0.99999, 1.0, -0.5]), row([0.6, 1.0, -0.5])) == [
        pytest.approx([0.99999, 1, 0]),
        pytest.approx([0.6, 1, 0]),
    ]
    assert action_values(row([0.5, 0.5, -0.5]))[0] == pytest.approx([1, 1, 0])  # nothing to choose, but the form


def test_a_step_without_counterfactual_rewards_is_refused():
    with pytest.raises(ValueError, match="t_0: 0 counterfactual rewards for 3 candidates"):
        action_values(record("t", "t_0", "abcd", 3, 1.0, 2 / 3))


ODDS = st.lists(st.floats(0.01, 5), min_size=3, max_size=8)


def log_j(logits, values):
    n = len(values) - 1
    tokens = torch.tensor([[*range(n), policy_loss.ANY_OTHER]])
    return policy_loss.log_mean_value(logits.log_softmax(-1)[None], tokens, torch.as_tensor(values)[None])[0]


@settings(deadline=None)
@given(ODDS, st.data())
def test_its_gradient_is_the_sampled_ones_on_average(odds, data):
    """Over all answers, sum of p_a w_a d log p_a, which is what sampling has for a mean, is the gradient of J."""
    n = len(odds) - 1
    rewards = data.draw(st.lists(st.sampled_from([-0.5, 0.0, 0.3, 1.0]), min_size=n + 1, max_size=n + 1))
    [values] = action_values(row(rewards))
    logits = torch.tensor(np.log(odds), dtype=torch.float64, requires_grad=True)
    mean = log_j(logits, values).exp()
    assert 0 <= mean.item() <= 1 + 1e-9
    mean.backward()
    ours, logits.grad = logits.grad, None
    log_chances = logits.log_softmax(-1)
    sum(w * chance.exp().detach() * chance for w, chance in zip(values, log_chances, strict=True)).backward()
    torch.testing.assert_close(ours, logits.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sure", [0.0, 5.0, 40.0])
def test_who_is_sure_and_wrong_is_taught_the_most(sure):
    logits = torch.tensor([sure, 0.0, 0.0, -9.0], requires_grad=True)  # three candidates, the first the positive
    log_j(logits, [0.0, 1.0, 1.0, 0.0]).backward()
    chance = logits.softmax(-1)[0].item()
    assert logits.grad[0].item() == pytest.approx(-chance, rel=1e-3)  # of J itself it would be -p (1 - p)


class Words:
    """A tokenizer with one token for each of the given labels, and two for any other."""

    def __init__(self, *known):
        self.known = known

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [self.known.index(text)] if text in self.known else [90, 91]}


def test_labels_are_single_tokens_or_an_error():
    assert label_tokens(Words("[B]", "[A]"), 2) == LabelTokens((), (1, 0))
    with pytest.raises(UserError, match="the label C "):
        label_tokens(Words("[A]", "[B]", "A", "B", "["), 3)


def test_a_tokenizer_with_several_tokens_for_a_label_is_given_what_all_labels_share():
    assert label_tokens(Words("[", "A", "C", "B", "[A]"), 3) == LabelTokens((0,), (1, 3, 2))


class Batch(SimpleNamespace):
    def __len__(self):
        return len(self.keys)


def test_the_trainer_stores_what_the_engine_reads(monkeypatch):
    """By row of the batch, a padding row among them, and one label and one end of an answer each."""
    own = object.__new__(trainer.EliminationTrainer)
    credit = {"prior": 8.0, "normalise": "batch", "weights": "session"}
    algorithm = {"adv_estimator": "exclusion_expected", "rollout_correction": None}
    data, rollout = {"train_batch_size": 2}, {"rollout": {"n": 1}}
    own.config = OmegaConf.create(
        {"iranker": {"credit": credit}, "algorithm": algorithm, "data": data, "actor_rollout_ref": rollout}
    )
    own.tokenizer = Words("[A]", "[B]", "[C]")
    rows = [
        replace(record("t", "t_0", "x", 3, 1.0, 2 / 3, (0.0, 1.0, 1.0, -0.5)), most_calls=2),
        replace(record("t", "t_0", "y", 2, 0.0, 0.5, (0.0, 1.0, -0.5)), most_calls=2),
        record("u", "u_0", "z", 2, 1.0, 0.5, (0.0, 1.0, -0.5)),
    ]
    mask = torch.nested.as_nested_tensor(
        [torch.ones(2), torch.ones(2), torch.zeros(2), torch.ones(2)], layout=torch.jagged
    )
    stored = {"response_mask": mask, "old_log_probs": mask, "rollout_log_probs": mask}
    put = {}
    monkeypatch.setattr(own, "_step_records", lambda batch: [*rows[:2], None, rows[2]], raising=False)
    monkeypatch.setattr(trainer, "_get", lambda batch, *fields: {name: stored[name] for name in fields})
    monkeypatch.setattr(trainer.tq, "kv_batch_put", lambda keys, partition_id, fields: put.update(fields.items()))
    tags = [{"seq_len": 9}, {"seq_len": 8}, {"seq_len": 1, "is_padding": True}, {"seq_len": 7}]
    own._compute_advantage(Batch(tags=tags, keys=list("abcd"), partition_id="train"), {})

    found = [row.tolist() for row in put["label_values"].unbind()]
    assert found == [[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0], [0.0, 1.0, 0.0]]
    assert [row.tolist() for row in put["label_tokens"].unbind()] == [
        [0, 1, 2, policy_loss.ANY_OTHER],
        [0, 1, policy_loss.ANY_OTHER],
        [policy_loss.ANY_OTHER],
        [0, 1, policy_loss.ANY_OTHER],
    ]
    weights = [3 / (2 * 2), 3 / (2 * 2), 3 / (2 * 1)]  # real rows / (sessions * the steps that they can take)
    advantages = [row.tolist() for row in put["advantages"].unbind()]
    assert advantages[2] == [0.0, 0.0]
    for (label, end), weight in zip([advantages[0], advantages[1], advantages[3]], weights, strict=True):
        assert label == pytest.approx(weight) and end == label  # the end is right after any label, the positive's too
