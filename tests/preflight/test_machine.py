"""What a base model's tokenizer lacks is said before Ray starts."""

import warnings

import pytest

pytest.importorskip("verl")

from omegaconf import OmegaConf

from iranker_verl.errors import UserError
from iranker_verl.preflight.machine import check_here, check_room, check_tokenizer, check_weights, supply
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


def test_a_cluster_that_is_not_there_is_one_line(monkeypatch):
    ray = pytest.importorskip("ray")

    def unreachable(**_):
        raise ConnectionError("Failed to connect to GCS\nmore")

    monkeypatch.setattr(ray, "init", unreachable)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    config = OmegaConf.create({"ray_kwargs": {"ray_init": {}}})
    with pytest.raises(UserError, match=r"head:6379: no Ray cluster can be reached there \(Failed to connect to GCS\)"):
        supply(config)


def test_a_run_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the folder cannot be made"):
        check_room(tmp_path / "file" / "run")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", lambda whole: whole, None),
        ("model.safetensors", lambda whole: whole[:-1], "model.safetensors: not a whole file of weights"),
        ("model.safetensors", lambda whole: b"", "not a whole file of weights"),
        ("model.safetensors", lambda whole: POINTER, "not a whole file of weights"),
        ("model.safetensors", lambda whole: whole + b"x", "not a whole file of weights"),
        (
            "model.safetensors.index.json",
            lambda whole: b'{"weight_map": {"a": "model-00002-of-00002.safetensors"}}',
            "model-00002-of-00002.safetensors: not a whole file of weights .*No such file",
        ),
        ("model.safetensors.index.json", lambda whole: POINTER, "not an index of weights"),
        ("model.safetensors.index.json", lambda whole: b"[]", "not an index of weights"),
    ],
    ids=["whole", "cut", "empty", "pointer", "longer", "part missing", "index pointer", "index list"],
)
def test_weights_that_are_not_whole_are_named_before_ray_starts(tmp_path, name, content, words):
    numpy = pytest.importorskip("numpy")
    whole = pytest.importorskip("safetensors.numpy").save({"a": numpy.zeros(9, "float32")})
    (tmp_path / "model.safetensors").write_bytes(whole)
    (tmp_path / name).write_bytes(content(whole))
    asked = config(f"actor_rollout_ref.model.path={tmp_path}")
    if words is None:
        return check_weights(asked)
    with pytest.raises(UserError, match=words) as error:
        check_weights(asked)
    assert "\n" not in str(error.value)
