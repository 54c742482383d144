"""What stands beside submit.sh: parsed, and composed with the recipe that it names; no cluster is here to run it."""

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

pytest.importorskip("verl")

from iranker_verl.training.main import compose_recipe

CLUSTER = Path(__file__).parents[2] / "recipes" / "cluster"


def test_the_rayjob_runs_a_recipe_with_overrides_that_compose():
    job = yaml.safe_load((CLUSTER / "rayjob.yml").read_text())["spec"]
    words = shlex.split(job["entrypoint"])
    assert words[1:4] == ["-m", "iranker_verl.cli", "train"]
    config = compose_recipe(words[4].removeprefix("/iranker/"), words[5:])
    workers = job["rayClusterSpec"]["workerGroupSpecs"]
    assert config.trainer.nnodes == 1 + sum(group["replicas"] for group in workers)
    for group in (job["rayClusterSpec"]["headGroupSpec"], *workers):
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert config.trainer.n_gpus_per_node == int(limits["nvidia.com/gpu"])
    assert config.iranker.run_dir.startswith("/shared/") and yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]


def test_the_slurm_script_is_one_that_bash_reads_and_hands_a_notice_on():
    script = CLUSTER / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert "#SBATCH --signal=B:TERM@" in text and "kill -TERM $run" in text and "iranker train" in text
