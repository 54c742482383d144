"""Model folders that cannot work are refused at once; and, slowly, the real vLLM on a tiny random model."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from iranker_verl.errors import UserError
from iranker_verl.inference.engine import ChatTokenizer, Engine, check_model, engine_settings
from iranker_verl.inference.orphans import MARK, ProcessGuard
from tests import tiny_models


def broken(folder, *, config='{"max_position_embeddings": 64}', tokenizer=True, weights=True):
    if config is not None:
        (folder / "config.json").write_text(config)
    if tokenizer:
        (folder / "tokenizer.json").write_text("{}")
    if weights:
        (folder / "model.safetensors").write_text("")
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"config": None}, "no config.json"),
        ({"config": "{"}, "not valid JSON"),
        ({"tokenizer": False}, "no tokenizer"),
        ({"weights": False}, "no weights"),
    ],
)
def test_folders_that_are_no_models(tmp_path, what, message):
    with pytest.raises(UserError, match=message):
        check_model(broken(tmp_path, **what))


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="no such model folder"):
        Engine(tmp_path / "none")


def test_unreadable_tokenizer(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match="tokenizer cannot be read"):
        ChatTokenizer(broken(tmp_path))


def test_settings_never_trust_remote_code_and_differ_by_device():
    common = {"max_model_len": 100, "max_num_seqs": 8, "seed": 1}
    cpu = engine_settings(Path("m"), **common, cpu=True)
    gpu = engine_settings(Path("m"), **common, cpu=False)
    assert cpu["trust_remote_code"] is gpu["trust_remote_code"] is False
    assert cpu["dtype"] == "float32" and cpu["enforce_eager"]
    assert "enforce_eager" not in gpu and gpu["max_model_len"] == 100


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guard reads /proc")
def test_guard_ends_what_it_watched_and_nothing_else():
    guard = ProcessGuard()
    before = subprocess.Popen(["sleep", "60"])
    with guard.watching():
        marked = subprocess.Popen(["sleep", "60"])
    after = subprocess.Popen(["sleep", "60"])
    try:
        assert MARK not in os.environ
        guard.end()
        guard.end()  # twice does no harm
        assert marked.wait(5) == -signal.SIGTERM
        assert before.poll() is after.poll() is None
    finally:
        for process in (before, marked, after):
            process.kill()
            process.wait()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guard reads /proc")
def test_guard_acts_when_its_owner_is_killed():
    # The child ignores SIGTERM, so it takes the guard's second round.
    code = """
import subprocess, sys, time
from iranker_verl.inference.orphans import ProcessGuard
with ProcessGuard().watching():
    ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", ignores], stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    until = time.monotonic() + 15
    while alive(child) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(child)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A random Qwen2-architecture model of 0.1M parameters with a byte-level tokenizer and a chat template."""
    pytest.importorskip("vllm")
    return tiny_models.save(tmp_path_factory.mktemp("models") / "tiny")


def tasks(n=6, size=4):
    from iranker_verl.ranking import Candidate, RankingTask

    candidates = tuple(Candidate(str(i), f"title {i}") for i in range(size))
    return [
        RankingTask.with_positive(f"t{i}", "recommendation", "rec-movie", f"title {i}", candidates, "0")
        for i in range(n)
    ]


def children():
    """Pids of vLLM's processes below this one."""
    import psutil

    return [p.pid for p in psutil.Process().children(recursive=True) if "VLLM" in " ".join(p.cmdline())]


@pytest.mark.slow
def test_real_vllm_from_model_to_records(tiny_model, tmp_path):
    from iranker_verl.evaluation.model_runs import evaluate_model
    from iranker_verl.evaluation.results import collect
    from iranker_verl.evaluation.systems import ModelSystem
    from iranker_verl.ranking.templates import load

    template, said, environment = load("label"), [], dict(os.environ)
    system = ModelSystem("before", tiny_model, template, max_new_tokens=6)
    result = evaluate_model(system, tasks(), run_dir=tmp_path, log=said.append)
    assert children() == []  # vLLM has ended
    changed = {name for name in os.environ if os.environ[name] != environment.get(name)}
    assert not changed & {"LD_PRELOAD", "VLLM_CPU_KVCACHE_SPACE", "VLLM_WORKER_MULTIPROC_METHOD", MARK}
    assert "vLLM loads tiny" in said[0] and "6/6 tasks, 18 calls" in said[-1]
    lines = [json.loads(line) for line in (tmp_path / "episodes-before.jsonl").read_text().splitlines()]
    assert [line["task_id"] for line in lines] == [f"t{i}" for i in range(6)]
    assert all(len(line["steps"]) == line["calls"] == 3 and 0 < line["new_tokens"] <= 18 for line in lines)
    numbers = collect([result])["macro"]["before"]
    assert numbers["n"] == 6 and numbers["calls_per_task"] == 3 and 0 < numbers["rr"] <= 1


@pytest.mark.slow
def test_real_vllm_does_not_outlive_a_kill(tiny_model):
    code = """
import asyncio, sys, time
from iranker_verl.inference.engine import Engine
async def main():
    async with Engine(sys.argv[1], max_model_len=64):
        print("open", flush=True)
        await asyncio.sleep(600)
if __name__ == "__main__":
    asyncio.run(main())
"""
    import psutil

    script = tiny_model.parent / "hold.py"
    script.write_text(code)
    owner = subprocess.Popen([sys.executable, str(script), str(tiny_model)], stdout=subprocess.PIPE, text=True)
    while (line := owner.stdout.readline()) and line != "open\n":
        pass
    below = [p.pid for p in psutil.Process(owner.pid).children(recursive=True)]
    assert len(below) >= 2
    owner.kill()
    owner.wait()
    until = time.monotonic() + 15
    while any(map(alive, below)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not [pid for pid in below if alive(pid)]


@pytest.mark.slow
def test_too_long_for_the_model(tiny_model, tmp_path):
    from iranker_verl.evaluation.model_runs import evaluate_model
    from iranker_verl.evaluation.systems import ModelSystem
    from iranker_verl.ranking.templates import load

    with pytest.raises(UserError, match="admits 512"):
        Engine(tiny_model, max_model_len=513)
    with pytest.raises(UserError, match=r"task 't0' of 'rec-movie'.*admits 512"):
        evaluate_model(ModelSystem("before", tiny_model, load("label")), tasks(size=40), tmp_path)


class Answered:
    """Stands for vLLM: keeps what was asked, and gives the first label the best log-prob."""

    def __init__(self):
        self.asked = []

    async def generate(self, prompt, sampling, number):
        self.asked.append(sampling)
        found = {token: SimpleNamespace(logprob=-float(rank)) for rank, token in enumerate(sampling.logprob_token_ids)}
        answer = SimpleNamespace(text="", token_ids=(sampling.logprob_token_ids[0],), logprobs=[found])
        yield SimpleNamespace(outputs=[answer])


def test_log_probs_of_labels_are_asked_for_as_every_vllm_understands_it(tmp_path):
    pytest.importorskip("vllm")
    engine = Engine(tiny_models.save(tmp_path / "model"), max_model_len=256)
    engine._llm = Answered()
    order, _ = asyncio.run(engine.rank_labels([{"role": "user", "content": "which?"}], 24))
    [asked] = engine._llm.asked
    assert order == list(range(24))
    assert asked.logprobs == len(asked.logprob_token_ids) == 24
    settings = engine_settings(Path("m"), max_model_len=8, max_num_seqs=1, seed=0, cpu=True)
    assert settings["max_logprobs"] >= 24


def test_a_vllm_without_log_probs_of_labels_is_one_line(tmp_path, monkeypatch):
    vllm = pytest.importorskip("vllm")
    engine = Engine(tiny_models.save(tmp_path / "model"), max_model_len=256)
    engine._llm = Answered()
    former = [name for name in vllm.SamplingParams.__struct_fields__ if name != "logprob_token_ids"]
    monkeypatch.setattr(vllm, "SamplingParams", SimpleNamespace(__struct_fields__=former))
    with pytest.raises(UserError, match="has no logprob_token_ids, which constrained answers need"):
        asyncio.run(engine.rank_labels([{"role": "user", "content": "which?"}], 3))


@pytest.mark.slow
def test_labels_are_ranked_by_the_models_own_log_probs(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("vllm")
    from transformers import AutoModelForCausalLM

    folder = tiny_models.save(tmp_path / "model")
    messages = [{"role": "user", "content": "History: a\nCandidates:\n[A] x\n[B] y\n[C] z\nExclude the worst:"}]

    async def ask():
        async with Engine(folder, max_model_len=256) as engine:
            return engine.encode(messages), engine.tokenizer.labels(3), await engine.rank_labels(messages, 3)

    prompt, labels, (order, answer) = asyncio.run(ask())
    assert labels.prefix and len(labels.ids) == 3  # a tokenizer with several tokens for a label
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *labels.prefix]])).logits[0, -1]
    assert order == logits[list(labels.ids)].argsort(descending=True).tolist()
    assert answer.new_tokens == 1 and answer.token_ids == (labels.ids[order[0]],)


@pytest.mark.slow
def test_seeded_samples_under_load_are_repeatable(tiny_model):
    # 40 prompts of 400 tokens at once are several times what vLLM takes in one step, so that a prompt would be cut into chunks:
    # on a CPU vLLM's engine dies of a chunk whose request has a seed ("CPU Generator does not use offset").
    import asyncio

    async def sample():
        async with Engine(tiny_model, max_model_len=512, max_num_seqs=16) as engine:
            prompts = [[3 + (7 * number + place) % 200 for place in range(400)] for number in range(40)]
            calls = (engine.generate(ids, 8, temperature=1.0, seed=seed) for seed, ids in enumerate(prompts))
            return [answer.token_ids for answer in await asyncio.gather(*calls)]

    first = asyncio.run(sample())
    assert len(set(first)) > 1 and first == asyncio.run(sample())
