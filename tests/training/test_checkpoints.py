"""Which checkpoints of verl's are whole, which one a run resumes from, and which ones go."""

import json
import struct
import zipfile

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
    for path in sorted(p for p in actor.parent.rglob("*") if p.is_file()):
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
