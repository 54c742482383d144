"""Baselines run where torch has a GPU, model and inputs alike, and reasons are cut between words."""

import subprocess
import sys

import pytest
import tiny_rankers as tiny
import torch

from iranker_verl.evaluation.baselines import Context, make_baselines
from iranker_verl.evaluation.baselines.base import Unavailable
from iranker_verl.evaluation.baselines.loading import unavailable_on_error
from iranker_verl.ranking.text import shorten


@pytest.mark.parametrize(
    ("built", "there", "platform", "device"),
    [
        ("13.0", True, None, "cuda"),
        ("13.0", True, "cuda", "cuda"),
        ("13.0", True, "cpu", "cpu"),
        ("13.0", False, None, "cpu"),
        (None, False, None, "cpu"),
    ],
)
def test_a_gpu_is_used_where_there_is_one(monkeypatch, built, there, platform, device):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    if platform:
        monkeypatch.setenv("VERL_PLATFORM", platform)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert Context().device == device
    assert Context(device="cpu").device == "cpu"


def test_naming_baselines_imports_no_torch():
    code = "import sys; import iranker_verl.evaluation.baselines; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


KINDS = {
    "rankbert": tiny.bert,
    "monot5": tiny.t5,
    "rankllama": lambda folder: tiny.llama(folder, kind="LlamaForSequenceClassification", num_labels=1),
}


@pytest.mark.parametrize("name", KINDS)
def test_model_and_inputs_are_on_the_device(name, tmp_path):
    """On torch's ``meta``, the only device besides the CPU that every machine has. It has shapes and no numbers."""
    context = Context(models={name: str(KINDS[name](tmp_path))}, device="meta", log=lambda line: None)
    [baseline] = make_baselines([name], context)
    baseline.fine_tune = lambda tasks: None  # the loss has no number
    baseline.load([])
    assert {str(weight.device) for weight in baseline.model.parameters()} == {"meta"}
    batch = baseline._padded([baseline.encode("ash", "bay cod")[0], baseline.encode("ash", "dew")[0]])
    assert {str(tensor.device) for tensor in batch.values()} == {"meta"}
    kept = torch.bfloat16 if name == "rankllama" else torch.float32
    assert {weight.dtype for weight in baseline.model.parameters()} == {kept}


def test_a_reason_is_cut_between_words():
    text = "one two three"
    assert shorten(text, 13) == text
    assert [shorten(text, most) for most in (12, 9, 8, 5)] == ["one two …", "one two …", "one …", "one …"]
    assert shorten("unbroken", 5) == "unbr…"
    said = "set the variable " * 20
    with pytest.raises(Unavailable) as raised, unavailable_on_error("monot5", "it"):
        raise OSError(said)
    assert str(raised.value).startswith("monot5: it cannot be loaded (OSError: set the variable set the")
    assert str(raised.value).split(" …);")[0].split()[-1] in ("set", "the", "variable") and " …);" in str(raised.value)
