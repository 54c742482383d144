"""What a recipe asks for against what there is: refused with the numbers, before anything starts."""

import shutil
import sys
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from iranker_verl import doctor
from iranker_verl.errors import UserError
from iranker_verl.preflight import machine


def config(devices=1, nodes=1, units=1, **ray_init):
    return OmegaConf.create(
        {
            "trainer": {"n_gpus_per_node": devices, "nnodes": nodes},
            "transfer_queue": {"backend": {"SimpleStorage": {"num_data_storage_units": units}}},
            "ray_kwargs": {"ray_init": ray_init},
            "actor_rollout_ref": {"model": {"override_config": {"attn_implementation": "sdpa"}}},
        }
    )


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("devices", "nodes", "units", "cpus"), [(1, 1, 1, 6), (2, 1, 1, 9), (4, 1, 8, 22), (8, 2, 8, 58)]
)
def test_what_a_recipe_asks_for(devices, nodes, units, cpus):
    # three CPUs a device, one a storage unit, one for its controller, one to place the rest
    assert machine.demand(config(devices, nodes, units)) == machine.Resources(cpus, devices * nodes)


def test_what_ray_will_have():
    assert machine.supply(config(num_cpus=16, num_gpus=2)) == machine.Resources(16, 2)


def test_what_ray_detects(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert machine.supply(config(num_cpus=None, num_gpus=None)) == machine.Resources(12, 3)
    assert machine.supply(config()) == machine.Resources(12, 3)
    assert machine.supply(config(num_gpus=0)) == machine.Resources(12, 0)


def test_what_a_running_cluster_has(monkeypatch):
    calls = []
    ray = SimpleNamespace(
        init=lambda **kwargs: calls.append(kwargs),
        cluster_resources=lambda: {"CPU": 96.0, "GPU": 8.0, "memory": 1.0},
        shutdown=lambda: calls.append("shutdown"),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert machine.supply(config(num_cpus=1, num_gpus=1)) == machine.Resources(96, 8)
    assert calls[-1] == "shutdown"
    ray.cluster_resources = lambda: {"CPU": 4.0}
    assert machine.supply(config()) == machine.Resources(4, 0)


def test_what_fits():
    wanted, given = machine.check_fits(config(num_cpus=6, num_gpus=1))
    assert wanted == given == machine.Resources(6, 1)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({"num_cpus": 5, "num_gpus": 1}, ["6 CPUs", "has 5", "ray_kwargs.ray_init.num_cpus"]),
        ({"num_cpus": 6, "num_gpus": 0}, ["1 GPUs", "has 0", "trainer.n_gpus_per_node"]),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(there, words):
    with pytest.raises(UserError) as error:
        machine.check_fits(config(**there))
    message = str(error.value)
    assert "\n" not in message and "wait for ever" in message
    assert all(word in message for word in words), message


def usage(free):
    return lambda path: shutil._ntuple_diskusage(100 << 30, 0, free)


def test_room_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", usage(machine.MIN_DISK_BYTES))
    machine.check_room(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()
    monkeypatch.setattr(shutil, "disk_usage", usage(machine.MIN_DISK_BYTES - 1))
    with pytest.raises(UserError, match=r"2\.0 GiB free, at least 2\.0 GiB"):
        machine.check_room(tmp_path)


def test_room_in_shared_memory(tmp_path, monkeypatch):
    def by_path(path):
        return usage(1 << 40 if path == tmp_path else 1 << 20)(path)

    monkeypatch.setattr(shutil, "disk_usage", by_path)
    if not machine.Path("/dev/shm").exists():
        pytest.skip("no /dev/shm here")
    with pytest.raises(UserError, match=r"/dev/shm: 0\.0 GiB free, at least 0\.5 GiB"):
        machine.check_room(tmp_path)


def test_rows_say_what_would_run_and_why(tmp_path, monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    lines = dict(doctor.rows(config(2, num_cpus=16, num_gpus=2), tmp_path))
    assert lines["platform"] == "cpu, because VERL_PLATFORM=cpu"
    assert lines["Ray, recipe asks for"].startswith("9 CPUs, 2 GPUs")
    assert lines["Ray, will have"].startswith("16 CPUs, 2 GPUs")
    assert str(tmp_path) in lines
    monkeypatch.setenv("VERL_PLATFORM", "cuda")
    lines = dict(doctor.rows(None, tmp_path))
    assert lines["platform"].startswith("accelerator") and "VERL_PLATFORM=cuda" in lines["platform"]
    assert not any(name.startswith("Ray") for name in lines)


@pytest.mark.parametrize(
    ("override", "installed", "refused"),
    [
        (None, False, True),  # verl's own choice
        ({"attn_implementation": "flash_attention_2"}, False, True),
        ({"attn_implementation": "flash_attention_2"}, True, False),
        ({"attn_implementation": "sdpa"}, False, False),
    ],
)
def test_flash_attention_that_is_not_there_is_refused_before_anything_starts(monkeypatch, override, installed, refused):
    monkeypatch.setattr(machine, "find_spec", lambda name: object() if installed and name == "flash_attn" else None)
    asked = OmegaConf.create({"actor_rollout_ref": {"model": {"override_config": override}}})
    if not refused:
        return machine.check_attention(asked)
    with pytest.raises(UserError, match=r"flash_attn is not installed.*attn_implementation=packed"):
        machine.check_attention(asked)
