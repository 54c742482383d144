"""What a base model's tokenizer lacks is said before Ray starts."""

import warnings

import pytest

pytest.importorskip("verl")

from iranker_verl.errors import UserError
from iranker_verl.preflight.machine import check_here, check_tokenizer
from iranker_verl.training.main import compose_recipe
from tests import tiny_models


@pytest.fixture
def model(tmp_path):
    tiny_models.tokenizer().save_pretrained(tmp_path)
    return tmp_path


def config(*overrides):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compose_recipe("recipes/tiny_cpu", ["iranker.base.make=null", *overrides])


def test_labels_without_tokens_of_their_own(model):
    path = f"actor_rollout_ref.model.path={model}"
    check_tokenizer(config(path))  # three tokens for [A], and one for A
    with pytest.raises(UserError, match=r"no single token of its own for the label AA.*exclusion_grpo"):
        check_tokenizer(config(path, "iranker.data.options.candidates=30"))
    check_tokenizer(config(path, "iranker.data.options.candidates=30", "algorithm.adv_estimator=exclusion_grpo"))


def test_no_chat_template(model):
    for file in model.glob("*chat_template*"):
        file.unlink()
    with pytest.raises(UserError, match="no chat template"):
        check_tokenizer(config(f"actor_rollout_ref.model.path={model}", "algorithm.adv_estimator=exclusion_grpo"))


def test_the_address_of_a_cluster_is_not_passed_over(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    with pytest.raises(UserError, match="RAY_ADDRESS has no effect"):
        check_here(config())


def test_a_base_that_is_made_has_no_tokenizer_yet():
    check_tokenizer(config("iranker.base.make=tiny"))
