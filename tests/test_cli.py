"""The command line: a mistake is one line and exit code 2, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iranker_verl import __version__, cli
from tests.command import iranker

ROOT = Path(__file__).parents[1]


def one_line(result):
    code, out, err = result
    assert code == 2, (out, err)
    lines = [line for line in err.strip().splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    return lines[0]


@pytest.fixture
def run(monkeypatch, capsys):
    return lambda *arguments: iranker(monkeypatch, capsys, *arguments)


@pytest.fixture
def cpu(monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("verl")
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    if torch.version.cuda or torch.version.hip:
        pytest.skip("torch is an accelerator build")


def test_a_name_with_control_characters_does_not_reach_the_terminal(run, tmp_path):
    folder = tmp_path / "raw\x1b[31m"
    folder.mkdir()
    (folder / "a\x1b]0;title\x07.txt").write_text("x")
    message = one_line(run("prepare", "--raw", folder, "--out", tmp_path / "out"))
    assert message.isprintable() and "[31m" in message


def test_half_an_emoji_in_a_file_does_not_end_a_verb(run, monkeypatch):
    monkeypatch.setattr(cli, "app", lambda: print("half: \ud83d"))
    assert run() == (0, "half: \\ud83d\n", "")


TINY, BIG = ROOT / "recipes" / "tiny_cpu", ROOT / "recipes" / "iranker_3b"


def test_version_and_help(run):
    assert run("--version") == (0, f"{__version__}\n", "")
    code, out, _ = run("--help")
    assert code == 0
    assert all(verb in out for verb in ("train", "prepare", "evaluate", "report", "doctor"))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("recipe", "gpus"), [("tiny_cpu", 1), ("tiny_cpu/ppo.yaml", 1), ("tiny_cpu/smoke.yaml", 1), ("iranker_3b", 4)]
)
def test_a_dry_run_checks_a_recipe_and_starts_nothing(run, recipe, gpus, tmp_path, monkeypatch):
    pytest.importorskip("verl")
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("train", ROOT / "recipes" / recipe, "--dry-run")
    assert code == 0
    assert "the config composes" in out and f"{gpus} GPUs" in out
    assert len(out.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mistakes_in_training_are_one_line(run, cpu, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, words in (
        (["recipes/none"], ["recipes/none", "no such recipe"]),
        ([TINY, "nokey=1"], ["nokey"]),
        ([TINY, "foo"], ["foo"]),
        ([TINY, "--wrong-option"], ["--wrong-option"]),
        ([TINY, "iranker.template=lable"], ["unknown template 'lable'", "think-label"]),
        ([TINY, "iranker.template=null"], ["iranker.template has to be a text"]),
        ([TINY, "iranker.template=none.yaml"], ["none.yaml", "no such template file"]),
        ([TINY, "data.train_batch_size=25"], ["train_batch_size"]),
        ([TINY, "ray_kwargs.ray_init.num_cpus=4"], ["6 CPUs", "has 4"]),
        ([TINY, "iranker.base.make=null"], ["no such model folder"]),
    ):
        line = one_line(run("train", *arguments))
        assert all(word in line for word in words), line
    assert list(tmp_path.iterdir()) == []  # nothing half written


def test_the_3b_recipe_refuses_at_once_without_a_gpu(run, cpu):
    line = one_line(run("train", BIG))
    assert "4 GPU(s)" in line and "CPU installation" in line and "make train-tiny" in line


def test_the_3b_recipe_refuses_without_the_model(run, cpu, monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cuda")
    line = one_line(run("train", BIG))
    assert "Qwen2.5-3B-Instruct: no such model folder" in line and "actor_rollout_ref.model.path" in line


def test_a_cpu_recipe_on_an_accelerator_is_refused(run, cpu, monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cuda")
    assert "VERL_PLATFORM=cpu" in one_line(run("train", TINY))


def test_mistakes_in_preparation_are_one_line(run, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for arguments, word in (
        (["--raw", tmp_path / "none"], "none"),
        (["--raw", tmp_path / "empty"], "empty"),
        (["--raw", tmp_path / "empty", "--template", "lable"], "lable"),
        (["--raw", tmp_path / "empty", "--task", "rec-films"], "rec-films"),
        (["--raw", tmp_path / "empty", "--max-prompt-tokens", "5"], "--tokenizer"),
    ):
        assert word in one_line(run("prepare", "--out", out, *arguments))
        assert not out.exists()


def test_mistakes_in_evaluation_are_one_line(run, tmp_path):
    (tmp_path / "file").write_text("x")
    for data in (tmp_path / "none", tmp_path, tmp_path / "file"):
        line = one_line(run("evaluate", "--model", tmp_path, "--data", data, "--out", tmp_path / "out"))
        assert "manifest.json" in line
    assert not (tmp_path / "out").exists()


def test_a_missing_argument_is_typers_own_error(run):
    code, _, err = run("train")
    assert code == 2 and "Traceback" not in err
    code, _, err = run("nothing")
    assert code == 2 and "Traceback" not in err


def test_doctor(run, cpu, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("doctor", TINY)
    assert code == 0
    assert "CPU build" in out and "6 CPUs, 1 GPUs" in out and "verl" in out
    assert "6 CPUs" in one_line(run("doctor", TINY, "ray_kwargs.ray_init.num_cpus=2"))
    assert "no such recipe" in one_line(run("doctor", "recipes/none"))


def test_ctrl_c_says_that_the_command_goes_on(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("iranker_verl.job.pipeline.train", interrupted)
    code, _, err = run("train", TINY)
    assert code == 130 and "continues from here" in err and "Traceback" not in err


def test_as_a_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "iranker_verl.cli", "train", "recipes/none"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr == "error: recipes/none: no such recipe; give a folder of recipes/ or a YAML file\n"


def test_asking_for_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom iranker_verl import cli\nsys.argv = ['iranker', '--version']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print(*({'torch', 'verl', 'vllm', 'ray', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr.strip()) == (f"{__version__}\n", "")
