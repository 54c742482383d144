"""Which checkpoints of verl's are whole, which one a run resumes from, and which ones go."""

import json
import struct
import zipfile
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

from iranker_verl.errors import UserError
from iranker_verl.files import mark
from iranker_verl.training import checkpoints
from iranker_verl.training.main import compose_recipe


@pytest.fixture
def config(tmp_path):
    mark(tmp_path)
    return compose_recipe("recipes/tiny_cpu", [f"iranker.run_dir={tmp_path}"])


def save(run, step):
    """Write what verl does, small, at two ranks."""
    actor = run / "checkpoints" / f"global_step_{step}" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    names = [f"{part}_world_size_2_rank_{rank}" for part in ("model", "optim", "extra_state") for rank in (0, 1)]
    for path in (actor.parent / "data.pt", *(actor / f"{name}.pt" for name in names)):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("data", b"x" * 500)
    (actor / "fsdp_config.json").write_text('{"world_size": 2}')
    header = json.dumps({"w": {"dtype": "F32", "shape": [10], "data_offsets": [0, 40]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + b"0" * 40
    (actor / "huggingface" / "model.safetensors").write_bytes(weights)
    (run / "checkpoints" / checkpoints.LATEST).write_text(str(step))
    return actor


def test_a_newest_checkpoint_that_is_cut_short_is_skipped_whatever_file_it_is(tmp_path, config):
    save(tmp_path, 10)
    actor, lines = save(tmp_path, 20), []
    for path in sorted(p for p in actor.parent.rglob("*") if p.is_file() and p.suffix != ".safetensors"):
        whole = path.read_bytes()
        for left in (whole[:-30], None):
            path.unlink() if left is None else path.write_bytes(left)
            (tmp_path / "checkpoints" / checkpoints.LATEST).write_text("20")
            assert checkpoints.go_on(config, lines.append) == checkpoints.last_step(tmp_path / "checkpoints") == 10
            assert path.name.split(".")[-1] in lines[-1] and "continuing from that of step 10" in lines[-1]
        path.write_bytes(whole)
    assert checkpoints.go_on(config, lines.append) == 20


def test_an_only_checkpoint_that_is_cut_short_is_refused_and_kept(tmp_path, config):
    (save(tmp_path, 20).parent / "data.pt").unlink()
    with pytest.raises(UserError, match="no other is whole"):
        checkpoints.go_on(config)
    assert checkpoints.saved_steps(tmp_path / "checkpoints") == [20]


def test_what_earlier_starts_left_is_counted_and_nothing_else_is_removed(tmp_path, config):
    for step in (5, 10, 20, 30, 40):
        save(tmp_path, step)
    folder = tmp_path / "checkpoints"
    (folder / "global_step_5" / "notes.txt").write_text("mine")
    (folder / "global_step_10_best").mkdir()
    (folder / "global_step_40" / "data.pt").unlink()
    checkpoints.prune(config)
    left = {"global_step_5", "global_step_10_best", "global_step_20", "global_step_30", "global_step_40"}
    assert {path.name for path in folder.glob("global_step_*")} == left
    (tmp_path / ".iranker").unlink()
    save(tmp_path, 50)
    checkpoints.prune(config)
    assert len(list(folder.glob("global_step_*"))) == 6


def test_the_best_by_validation_stays_beside_the_newest_ones(tmp_path, config):
    lines = [{"step": step, "val/mrr": mrr} for step, mrr in ((10, 0.3), (20, 0.6), (25, 0.9), (30, 0.6), (40, None))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step in (10, 20, 30, 40, 50):  # 25 was validated, and not saved
        save(tmp_path, step)
    assert checkpoints.best(config, [10, 20, 30]) == 20
    checkpoints.prune(config)
    assert checkpoints.whole_steps(config) == [20, 40, 50]
    checkpoints.prune(config, kept=1)
    assert checkpoints.whole_steps(config) == [20, 50]


def test_while_a_checkpoint_is_saved_verl_removes_none(config):
    with pytest.raises(ValueError, match="full"), checkpoints.all_kept(config):
        assert config.trainer.max_actor_ckpt_to_keep is config.trainer.max_critic_ckpt_to_keep is None
        raise ValueError("full")
    assert (config.trainer.max_actor_ckpt_to_keep, config.trainer.max_critic_ckpt_to_keep) == (2, 2)


def free(monkeypatch, number):
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: SimpleNamespace(free=number))


def test_room_is_counted_by_the_newest_whole_checkpoint(tmp_path, config, monkeypatch):
    size = sum(path.stat().st_size for path in save(tmp_path, 20).parent.rglob("*") if path.is_file())
    assert checkpoints.save_bytes(config) == size
    free(monkeypatch, int(1.05 * size) + 1)
    checkpoints.check_room(config)
    free(monkeypatch, size)
    with pytest.raises(UserError, match=r"1 more checkpoint of 0.0 GiB need.*max_actor_ckpt_to_keep"):
        checkpoints.check_room(config)
    (save(tmp_path, 30).parent / "data.pt").unlink()  # what a checkpoint that failed has taken was free before it
    checkpoints.check_room(config, partial=30)


@pytest.mark.parametrize(
    ("overrides", "bytes_each"),
    [
        ((), 4 + 8),
        (("actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",), 4 + 8 + 4),
        (("critic.enable=true",), 2 * (4 + 8)),
        (("actor_rollout_ref.model.lora_rank=8",), 4),
    ],
    ids=["actor", "with hf_model", "with a critic", "with an adapter"],
)
def test_before_the_first_checkpoint_its_size_is_counted_from_the_base(tmp_path, monkeypatch, overrides, bytes_each):
    weights = save(tmp_path / "other", 1) / "huggingface"  # ten parameters
    run = f"iranker.run_dir={tmp_path / 'run'}"
    path = f"actor_rollout_ref.model.path={weights}"
    config = compose_recipe("recipes/tiny_cpu", [run, path, "trainer.save_freq=10", *overrides])
    assert checkpoints.save_bytes(config) == 10 * bytes_each
    # two are kept, one is saved meanwhile, and one more where the best is kept
    for steps, validated, count in ((20, -1, 2), (60, -1, 3), (60, 10, 4)):
        config.trainer.total_training_steps, config.trainer.test_freq = steps, validated
        free(monkeypatch, int(10 * bytes_each * count * 1.05) + 1)
        checkpoints.check_room_for_all(config)
        free(monkeypatch, 10 * bytes_each * count)
        with pytest.raises(UserError, match=f"{count} more checkpoints"):
            checkpoints.check_room_for_all(config)
