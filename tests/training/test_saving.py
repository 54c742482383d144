"""When a checkpoint is written, what is written before it, and what ends a run; verl's own saving is a stand-in here."""

import zipfile
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

import torch

from iranker_verl.errors import UserError
from iranker_verl.files import mark
from iranker_verl.training import checkpoints, ending
from iranker_verl.training.main import compose_recipe
from iranker_verl.training.metrics_log import MetricsLog, read_metrics
from iranker_verl.training.saving import PPOTrainerSync, SavingTrainer

GIB = 1 << 30
METRICS = {
    "reward/corrected": 0.1,
    "reward/malformed": 0.0,
    "episode/rr": 0.5,
    "episode/candidates": 6.0,
    "episode/skill": 0.5,
}


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """A trainer of 40 steps that has done its first 10, all of them saved."""
    mark(tmp_path)
    made = object.__new__(SavingTrainer)
    made.config = compose_recipe("recipes/tiny_cpu", [f"iranker.run_dir={tmp_path}"])
    made.metrics_log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    made.total_training_steps, made.timing_raw = 40, {"gen": 1.0}
    made._requests = ending.Requests(tmp_path)
    made.train_dataloader = SimpleNamespace(state_dict=lambda: {"batches": made.drawn})
    made.drawn = made.global_steps = made._updated = made._saved = 10
    made.loaded, made.free = [], 9 * GIB
    made._metrics = METRICS

    def save(self):
        self.limits = [self.config.trainer[name] for name in checkpoints.LIMITS]
        self.lines = [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")]
        write(tmp_path, self.global_steps)
        torch.save(
            self.train_dataloader.state_dict(), tmp_path / f"checkpoints/global_step_{self.global_steps}/data.pt"
        )

    monkeypatch.setattr(PPOTrainerSync, "_save_checkpoint", save)
    monkeypatch.setattr(checkpoints, "save_bytes", lambda config: GIB)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: SimpleNamespace(free=made.free))
    return made


def write(run, step):
    actor = run / "checkpoints" / f"global_step_{step}" / "actor"
    actor.mkdir(parents=True)
    for path in (
        actor.parent / "data.pt",
        *(actor / f"{p}_world_size_1_rank_0.pt" for p in checkpoints.PARTS.values()),
    ):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("data", b"x")
    (actor / "fsdp_config.json").write_text('{"world_size": 1, "FSDP_version": 2}')
    (run / "checkpoints" / checkpoints.LATEST).write_text(str(step))


def test_a_line_before_the_checkpoint_and_only_the_newest_after_it(trainer, tmp_path):
    for step in (5, 10):
        write(tmp_path, step)
    trainer.global_steps = trainer._updated = 20
    trainer._save_checkpoint()
    assert trainer.lines == [20] and trainer.limits == [None, None]
    assert checkpoints.saved_steps(tmp_path / "checkpoints") == [10, 20] and trainer._saved == 20


def test_a_disk_without_room_for_the_next_one_ends_the_run_with_this_one_saved(trainer, tmp_path, monkeypatch):
    free = [2 * GIB, 2 * GIB, GIB // 2]
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: SimpleNamespace(free=free.pop(0)))
    trainer.global_steps = 20
    with pytest.raises(UserError, match=r"0.5 GiB free, but 1 more checkpoint of 1.0 GiB need"):
        trainer._save_checkpoint()
    assert checkpoints.last_step(tmp_path / "checkpoints") == 20


def test_the_last_checkpoint_needs_no_room_for_another(trainer, tmp_path, monkeypatch):
    free = [2 * GIB, 2 * GIB]
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: SimpleNamespace(free=free.pop(0)))
    trainer.global_steps = 40
    trainer._save_checkpoint()
    assert checkpoints.last_step(tmp_path / "checkpoints") == 40


def test_where_room_is_short_older_ones_go_first_and_a_full_disk_is_named(trainer, tmp_path, monkeypatch):
    for step in (5, 10):
        write(tmp_path, step)
    trainer.free = GIB // 2
    trainer.global_steps = 20
    with pytest.raises(UserError, match="GiB free, but 1 more checkpoint"):
        trainer._save_checkpoint()
    assert checkpoints.saved_steps(tmp_path / "checkpoints") == [10]

    trainer.free = 2 * GIB

    def fill(self):
        trainer.free = 0
        raise RuntimeError("PytorchStreamWriter failed writing file data/7")

    monkeypatch.setattr(PPOTrainerSync, "_save_checkpoint", fill)
    with pytest.raises(UserError, match=r"0.0 GiB free"):
        trainer._save_checkpoint()


def test_an_error_that_is_not_of_the_disk_stays_what_it_is(trainer, monkeypatch):
    def fail(self):
        raise RuntimeError("a rank is gone")

    monkeypatch.setattr(PPOTrainerSync, "_save_checkpoint", fail)
    with pytest.raises(RuntimeError, match="a rank is gone"):
        trainer._save_checkpoint()


def step_of(trainer, monkeypatch, run):
    """Take step 11 to 12 of verl's: while its batch is generated, the run is asked to end."""

    def step(self, metrics, timing_raw):
        self.drawn += 1
        ending.request(run)
        trainer._requests._looked = -ending.INTERVAL_S
        self._end_if_requested()

    monkeypatch.setattr(PPOTrainerSync, "step", step)
    return trainer.step(dict(METRICS), {})


@pytest.mark.parametrize(
    ("mode", "batches"),
    [
        ("sync", 11),  # the batch that is not trained on is drawn again
        ("colocate_async", 12),  # verl saves its prompts, which are in flight, with the checkpoint
    ],
)
def test_on_request_the_step_before_the_one_that_is_generated_is_saved(trainer, tmp_path, monkeypatch, mode, batches):
    trainer.config.trainer.v1.trainer_mode = mode
    trainer.metrics_log.append(11, 40, METRICS, {})
    trainer._updated, trainer.global_steps, trainer.drawn = 11, 12, 11
    with pytest.raises(UserError, match="ended by SIGTERM, with step 11 saved; give the same command to resume"):
        step_of(trainer, monkeypatch, tmp_path)
    assert checkpoints.last_step(tmp_path / "checkpoints") == 11
    state = torch.load(tmp_path / "checkpoints" / "global_step_11" / "data.pt", weights_only=False)
    assert state == {"batches": batches}
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [11]


def test_what_is_saved_already_is_not_saved_again(trainer, tmp_path, monkeypatch):
    trainer.global_steps = 11
    with pytest.raises(UserError, match="with step 10 saved"):
        step_of(trainer, monkeypatch, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_while_a_step_is_validated_it_is_that_step_that_is_saved(trainer, tmp_path):
    ending.request(tmp_path)
    trainer.global_steps = trainer._updated = trainer.drawn = 11
    with pytest.raises(UserError, match="with step 11 saved"):
        trainer._end_if_requested()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [11]
