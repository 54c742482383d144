"""vLLM in this process's care: one asynchronous engine on one model folder, on a GPU or on a CPU.

    async with Engine(folder, max_model_len=512) as engine:
        answer = await engine.generate(engine.encode(messages), max_new_tokens=8)

vLLM runs its model in processes of its own. They end with the ``async with``, however it ends; and if this process is
killed, they end themselves. All settings that differ between a CPU and a GPU are decided in :func:`engine_settings`.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from iranker_verl import vllm_cpu
from iranker_verl.errors import UserError, first_line
from iranker_verl.files import read_json
from iranker_verl.inference.orphans import ProcessGuard, remove_shared_memory, shared_memory_of
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.ranking.label_tokens import LabelTokens, label_tokens
from iranker_verl.ranking.templates import Template

# Read by vLLM and the Hugging Face libraries when they start; what the user has set already stays.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # a model is a folder here: nothing is fetched
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
}
CPU_ENVIRONMENT = vllm_cpu.ENVIRONMENT | vllm_cpu.THREADS
MAX_NUM_SEQS = 64
MAX_LABELS = 128  # of which vLLM returns log-probs in one call


Messages = Sequence[Mapping[str, str]]  # of a chat, each with a role and a content


@dataclass(frozen=True)
class Generation:
    """One answer: its text (special tokens left out), its tokens, and the number of tokens of its prompt.

    A server counts the answer's tokens (``counted``) and does not show them.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    counted: int | None = None

    @property
    def new_tokens(self) -> int:
        """The number of tokens of the answer."""
        return len(self.token_ids) if self.counted is None else self.counted


class ChatTokenizer(ChatEncoder):
    """A model folder's tokenizer and chat template; its weights need not be there. UserError where it lacks either."""

    def __init__(self, model: Path) -> None:
        check_tokenizer(model)
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever a broken tokenizer file leads to
            raise UserError(f"{model}: its tokenizer cannot be read ({first_line(error)})") from error
        if not tokenizer.chat_template:
            raise UserError(f"{model}: its tokenizer has no chat template; use a chat or instruct model")
        super().__init__(tokenizer)
        self._labels: dict[int, LabelTokens] = {}

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of an answer's token ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def labels(self, count: int) -> LabelTokens:
        """Return :func:`~iranker_verl.ranking.label_tokens.label_tokens` of this tokenizer. UserError where it has none."""
        if count not in self._labels:
            self._labels[count] = label_tokens(self._tokenizer, count)
        return self._labels[count]

    def answer_room(self, max_new_tokens: int, constrained: bool) -> int:
        """Return the tokens to leave free after a prompt: of the answer, or at least of a label where it is ``constrained`` to one."""
        return max(max_new_tokens, len(self.labels(2).prefix) + 1) if constrained else max_new_tokens


def longest_prompt(tokenizer: ChatTokenizer, template: Template, task: RankingTask, window: int | None = None) -> int:
    """Return the tokens of the longest prompt that ranking ``task`` may take (see :meth:`~.templates.Template.longest`)."""
    texts, most = [c.text for c in task.candidates], template.most_candidates(window)
    measured = [] if most is None or most >= len(texts) else tokenizer.ids(texts)
    tokens = {text: len(ids) for text, ids in zip(texts, measured, strict=False)}
    return len(tokenizer.encode(template.longest(task, tokens.__getitem__, window)))


def check_tokenizer(model: Path) -> None:
    """UserError for a missing folder or tokenizer."""
    if not model.is_dir():
        raise UserError(f"{model}: no such model folder")
    if not any((model / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise UserError(f"{model}: no tokenizer (tokenizer.json); save the model's tokenizer beside it")


def check_model(model: Path) -> dict[str, Any]:
    """Return a model folder's ``config.json``. Raise UserError for a missing folder, configuration, tokenizer or weights."""
    if not model.is_dir():
        raise UserError(f"{model}: no such model folder")
    if not (model / "config.json").is_file():
        raise UserError(f"{model}: no config.json; this is not a Hugging Face model folder")
    config = read_json(model / "config.json", "fetch or export the model again")
    check_tokenizer(model)
    if not any(model.glob("*.safetensors")) and not any(model.glob("*.bin")):
        raise UserError(f"{model}: no weights (*.safetensors); is the export complete?")
    return config


def longest_context(model: Path) -> int | None:
    """Return the most tokens, prompt and answer together, that the model admits; None where its config does not say."""
    length = check_model(model).get("max_position_embeddings")
    return int(length) if length is not None else None


def engine_settings(
    model: Path, *, max_model_len: int | None, max_num_seqs: int, seed: int, cpu: bool
) -> dict[str, Any]:
    """Return all of vLLM's arguments. Only here CPU and GPU differ."""
    common: dict[str, Any] = {
        "model": str(model),
        "trust_remote_code": False,
        "max_model_len": max_model_len,
        "max_num_seqs": max_num_seqs,
        "seed": seed,
        "enable_prefix_caching": True,  # an episode's steps begin alike
        "disable_log_stats": True,
        "max_logprobs": MAX_LABELS,
    }
    if cpu:
        # Compilation costs minutes that a small model never earns back; bfloat16 is emulated on most CPUs.
        # vLLM's engine dies of a seeded request whose prompt is cut into chunks: it sets back the offset of the request's
        # generator, which torch's on a CPU lacks. Unset, `max_num_batched_tokens` then is at least `max_model_len`.
        return {**common, "dtype": "float32", "enforce_eager": True, "block_size": 32, "enable_chunked_prefill": False}
    return {**common, "dtype": "auto", "gpu_memory_utilization": 0.85}


class Engine:
    """One model, ready to answer. Use it with ``async with``; it is used once.

    ``max_model_len`` bounds prompt and answer together (default: what the model admits) and with it the memory.
    """

    def __init__(
        self, model: Path | str, *, max_model_len: int | None = None, max_num_seqs: int = MAX_NUM_SEQS, seed: int = 0
    ) -> None:
        self.model = Path(model)
        check_model(self.model)
        self.tokenizer = ChatTokenizer(self.model)
        self.max_model_len = max_model_len
        admitted = longest_context(self.model)
        if max_model_len is not None and admitted is not None and max_model_len > admitted:
            raise UserError(f"{model}: {max_model_len} tokens are needed, but the model admits {admitted}")
        self._max_num_seqs = max_num_seqs
        self._seed = seed
        self._numbers = itertools.count()
        self._llm: Any = None
        self._before: dict[str, str] = {}
        self._siblings: set[int | None] = set()
        self._guard = ProcessGuard()

    async def __aenter__(self) -> Engine:
        self._before = dict(os.environ)
        self._siblings = {child.pid for child in psutil.Process().children()}
        try:
            # In a thread, so that the caller's loop continues, and can show that something happens.
            start = asyncio.get_running_loop().run_in_executor(None, self._start)
            try:
                self._llm = await asyncio.shield(start)
            except asyncio.CancelledError:
                with suppress(Exception):
                    self._llm = await start
                raise
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        await asyncio.sleep(0)  # lets vLLM's cancelled reader task end

    def encode(self, messages: Messages) -> list[int]:
        """Return the token ids of chat ``messages``; see :meth:`~iranker_verl.ranking.chat.ChatEncoder.encode`."""
        return self.tokenizer.encode(messages)

    async def ask(
        self, messages: Messages, max_new_tokens: int, temperature: float = 0.0, *, seed: int | None = None
    ) -> Generation:
        """Return the answer to chat ``messages``: :meth:`encode`, then :meth:`generate`."""
        return await self.generate(self.encode(messages), max_new_tokens, temperature, seed=seed)

    async def rank_labels(self, messages: Messages, count: int) -> tuple[list[int], Generation]:
        """Return the indices of the first ``count`` labels, the likeliest answer first, and the one token that it cost.

        The answer is constrained to a label, whatever the model would have said. Raise UserError where the tokenizer has no single
        token for a label (:func:`~iranker_verl.ranking.label_tokens.label_tokens`), or the prompt is too long.
        """
        labels = self.tokenizer.labels(count)
        ids = [*self.encode(messages), *labels.prefix]
        # earlier vLLM return log-probs only where ``logprobs`` is set too, and admit only their number for it
        asked = {"logprobs": count, "logprob_token_ids": list(labels.ids)}
        constrained = {"allowed_token_ids": list(labels.ids), **asked}
        answer, found = await self._generate(ids, 1, constrained)
        if found is None:
            raise RuntimeError("vLLM returned no log-probs of the labels")
        log_probs = [found[0][token].logprob for token in labels.ids]
        return sorted(range(count), key=lambda index: -log_probs[index]), answer

    async def generate(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        *,
        seed: int | None = None,
        ignore_eos: bool = False,
    ) -> Generation:
        """Return the answer to one prompt. Call it many times at once: the requests are batched continuously.

        ``seed`` makes a sampled answer repeatable; with ``ignore_eos`` it has ``max_new_tokens`` tokens, whatever the
        model says (for measuring speed). UserError where prompt and answer together exceed the engine's length. RuntimeError if the engine has died.
        """
        answer, _ = await self._generate(
            token_ids, max_new_tokens, {"temperature": temperature, "seed": seed, "ignore_eos": ignore_eos}
        )
        return answer

    async def _generate(
        self, token_ids: Sequence[int], max_new_tokens: int, options: Mapping[str, Any]
    ) -> tuple[Generation, Any]:
        """Return the answer, and vLLM's log-probs where ``options`` (of ``SamplingParams``) ask for them."""
        if self._llm is None:
            raise RuntimeError("the engine is not open; use it within `async with`")
        if self.max_model_len is not None and len(token_ids) + max_new_tokens > self.max_model_len:
            raise UserError(
                f"a prompt of {len(token_ids)} tokens and an answer of up to {max_new_tokens} "
                f"do not fit in {self.max_model_len} tokens"
            )
        from vllm import SamplingParams, __version__
        from vllm.sampling_params import RequestOutputKind

        if missing := [name for name in options if name not in SamplingParams.__struct_fields__]:
            raise UserError(
                f"vLLM {__version__} has no {missing[0]}, which constrained answers need; install a newer one"
            )
        sampling = SamplingParams(
            **({"temperature": 0.0} | dict(options)),
            max_tokens=max_new_tokens,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt = {"prompt_token_ids": list(token_ids)}
        async for output in self._llm.generate(prompt, sampling, str(next(self._numbers))):
            answer = output.outputs[0]
            return Generation(answer.text, tuple(answer.token_ids), len(token_ids)), answer.logprobs
        raise RuntimeError("vLLM ended a request without an answer")

    async def check_alive(self) -> None:
        """Raise vLLM's EngineDeadError where its processes have died, and RuntimeError where one is stopped or nothing is open."""
        if self._llm is None:
            raise RuntimeError("the engine is not open; use it within `async with`")
        await self._llm.check_health()
        if stopped := await asyncio.to_thread(stopped_processes, self._siblings | {self._guard.pid}):
            raise RuntimeError(f"process {stopped[0]} is stopped")

    def _start(self) -> Any:
        _set_environment(ENVIRONMENT)
        cpu = not _has_gpu()
        if cpu:
            _set_environment(CPU_ENVIRONMENT)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        settings = engine_settings(
            self.model, max_model_len=self.max_model_len, max_num_seqs=self._max_num_seqs, seed=self._seed, cpu=cpu
        )
        with self._guard.watching():
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**settings))

    def _close(self) -> None:
        llm, self._llm = self._llm, None
        shared = shared_memory_of(p.pid for p in own_processes(self._siblings | {self._guard.pid}))
        try:
            if llm is not None:
                llm.shutdown()
        finally:
            self._guard.end()
            for child in multiprocessing.active_children():
                if child.pid not in self._siblings:  # vLLM's, killed by now: reap it, or it stays as a zombie
                    child.join(5)
            remove_shared_memory(shared)
            # vLLM leaves LD_PRELOAD and more behind, which later processes (Ray's, say) would inherit.
            os.environ.clear()
            os.environ.update(self._before)


def stopped_processes(others: set[int | None]) -> list[int]:
    """Return the ids of this process's descendants, but for ``others`` and theirs, that a signal has stopped."""
    found = []
    for process in own_processes(others):
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED:
                found.append(process.pid)
    return found


def own_processes(others: set[int | None]) -> list[psutil.Process]:
    """Return this process's descendants, but for ``others`` and theirs."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        if child.pid not in others:
            with suppress(psutil.Error):
                found += [child, *child.children(recursive=True)]
    return found


def _has_gpu() -> bool:
    torch = importlib.import_module("torch")
    return bool(torch.cuda.is_available())


def _set_environment(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        os.environ.setdefault(name, value)
