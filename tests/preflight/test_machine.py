"""What a base model's tokenizer lacks is said before Ray starts."""

import warnings

import pytest

pytest.importorskip("verl")

from iranker_verl.errors import UserError
from iranker_verl.preflight.machine import check_tokenizer
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


def test_a_label_of_several_tokens(model):
    with pytest.raises(UserError, match=r"3 tokens for the label \[A\]; it has to be one.*exclusion_grpo"):
        check_tokenizer(config(f"actor_rollout_ref.model.path={model}"))
    check_tokenizer(config(f"actor_rollout_ref.model.path={model}", "algorithm.adv_estimator=exclusion_grpo"))


def test_no_chat_template(model):
    for file in model.glob("*chat_template*"):
        file.unlink()
    with pytest.raises(UserError, match="no chat template"):
        check_tokenizer(config(f"actor_rollout_ref.model.path={model}", "algorithm.adv_estimator=exclusion_grpo"))


def test_a_base_that_is_made_has_no_tokenizer_yet():
    check_tokenizer(config("iranker.base.make=tiny"))
