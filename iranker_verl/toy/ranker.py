"""Make a ranker of the language model of real data: its heads are written and calibrated with training tasks."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from iranker_verl.ranking import Elimination, RankingTask
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.toy.circuits import calibrate, widen
from iranker_verl.toy.questions import BEST, WORSE
from iranker_verl.toy.tokenizer import LABELS

# Tasks whose questions the heads are calibrated with.
CALIBRATION = 32


def make_ranker(
    language: Qwen2ForCausalLM,
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[RankingTask],
    titles: Sequence[str],
) -> Qwen2ForCausalLM:
    """Write ``language`` into ``model`` and return it; of ``tasks``, the questions are read and not the answers.

    ``titles`` are those that are tokens, with the space before them.
    """
    ids, chat = tokenizer.get_vocab(), ChatEncoder(tokenizer)
    labels = [ids[label] for label in LABELS]
    [end] = tokenizer.encode("\n")
    widen(language, model, labels, end, [ids[f" {title}"] for title in titles])
    shown = [Elimination(task) for task in tasks[:: max(1, len(tasks) // CALIBRATION)]]
    best, worse = ([chat.encode(form.messages(state)) for state in shown] for form in (BEST, WORSE))
    calibrate(model, labels, end, best, worse)
    return model
