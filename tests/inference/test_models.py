"""Where a model's files are; and what tells two models apart."""

import os

import pytest

from iranker_verl.errors import UserError
from iranker_verl.inference.models import SAMPLE, model_folder, model_hash, trainable_folder
from tests import tiny_models


def hf(folder, weights=b"w"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_a_folder_is_itself(tmp_path):
    assert model_folder(str(hf(tmp_path / "m"))) == tmp_path / "m"


def test_a_checkpoint_of_verl_by_any_of_its_folders(tmp_path):
    steps = tmp_path / "checkpoints"
    own = hf(steps / "global_step_20" / "actor" / "huggingface")
    hf(steps / "global_step_30" / "actor" / "huggingface")  # not whole yet
    (steps / "latest_checkpointed_iteration.txt").write_text("20")
    for given in (steps, steps / "global_step_20", steps / "global_step_20" / "actor", own):
        assert model_folder(str(given)) == own


def test_shards_only_are_refused_with_the_way_out(tmp_path):
    actor = tmp_path / "global_step_5" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "huggingface" / "config.json").write_text("{}")  # verl saves it with the shards
    (actor / "model_world_size_2_rank_0.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"actor: only the shards.*iranker export RUN --step N --out FOLDER"):
        model_folder(str(actor.parent))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-folder", "no such model folder"),
        ("./none/here", "no such model folder"),
        ("a/b/c", "no such model folder"),
        ("http://host/v1", "no such model folder"),
    ],
)
def test_neither_a_folder_nor_a_name(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        model_folder(name)


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(UserError, match=r"no config.json"):
        model_folder(str(tmp_path))


def test_a_name_comes_from_the_cache_first_and_offline_is_said(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    asked = []

    def download(name, local_files_only=False, allow_patterns=(), etag_timeout=None):
        asked.append(local_files_only)
        if local_files_only and name == "org/cached":
            hf(tmp_path / "cached", b"weights")
            return str(tmp_path / "cached")
        raise ConnectionError("the hub is out of reach\nat length")

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert model_folder("org/cached") == tmp_path / "cached" and asked == [True]
    with pytest.raises(UserError, match=r"org/other: neither a folder .*\(the hub is out of reach\)"):
        model_folder("org/other")


def test_two_models_differ_wherever_their_weights_do(tmp_path):
    size = 5 * SAMPLE
    first = bytearray(os.urandom(size))
    same, other = hf(tmp_path / "a", bytes(first)), hf(tmp_path / "b", bytes(first))
    assert model_hash(same) == model_hash(other)
    for place in (0, size // 2, size - 1):
        changed = bytearray(first)
        changed[place] ^= 1
        (other / "model.safetensors").write_bytes(changed)
        assert model_hash(same) != model_hash(other), place
    (other / "model.safetensors").write_bytes(first)
    (other / "config.json").write_text("{ }")
    assert model_hash(same) != model_hash(other)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such GGUF file"), (b"GGUF but not really", "not a GGUF file that transformers reads")],
)
def test_a_gguf_file_that_cannot_be_read_is_the_users_mistake(tmp_path, content, words):
    pytest.importorskip("gguf")
    file = tmp_path / "model.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=words):
        trainable_folder(str(file), tmp_path / "cache")
    assert not any(path.is_dir() for path in (tmp_path / "cache").glob("*"))


def test_a_folder_is_trained_on_as_it_is(tmp_path):
    assert trainable_folder(str(tiny_models.save(tmp_path / "model")), tmp_path / "cache") == tmp_path / "model"
