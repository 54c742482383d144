"""Ranking of one's own texts with a trained model: the library behind ``iranker rank`` and ``iranker serve``.

    with Ranker("runs/tiny/model") as ranker:
        ranking = ranker.rank("how long do fleas live", ["Fleas feed on blood.", "A flea can live up to a year."])
        ranking.order        # (1, 0): places of the texts, best first

:class:`Ranker` blocks; :class:`AsyncRanker` is the same for programs with an event loop. Both run the state machines and
templates that training and evaluation run. What many callers ask at once is batched continuously by vLLM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from iranker_verl.errors import UserError
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.inference.engine import ChatTokenizer, Engine, longest_context
from iranker_verl.inference.models import Stamp, model_folder, model_hash, trained_with
from iranker_verl.inference.play import AHEAD, Answered, Answers, play_one
from iranker_verl.ranking import DATASETS, SCENARIOS, Candidate, RankingTask
from iranker_verl.ranking.templates import Template, check_hash, load
from iranker_verl.ranking.text import clean

WINDOW = 20  # candidates that the paper's prompts show at most
UNTRAINED = "think-label"  # the template for an instruct model that was not trained here
MAX_NEW_TOKENS = 1024
MAX_MODEL_LEN = 8192  # of a model that admits more: what a longer context costs in memory is asked for, not taken
HOLD_IDS = ("pool", "excluded", "chosen", "named")
SLACK = 16  # texts are measured one by one; together they may be a few tokens longer


class Unrankable(UserError):
    """What was given cannot be ranked: an empty text, texts that are too long, a scenario that is none."""


@dataclass(frozen=True)
class Ranking:
    """``order`` has the places of the candidates in the list that was given, best first. ``steps`` tells how it came about:
    one a call of the model, with what it was shown and said; none where there was nothing to decide."""

    order: tuple[int, ...]
    steps: tuple[Answered, ...] = ()
    prompt_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0

    @property
    def malformed(self) -> int:
        """Answers that named no candidate. The last candidate shown was excluded in their place."""
        return sum(step.malformed for step in self.steps)

    def scores(self) -> tuple[float, ...]:
        """For each candidate, in the order given, the share of the others that it is above: 1 for the best, 0 for the worst.
        An elimination makes an order, so this says no more than that: it is no probability, and compares within a list only."""
        found = [1.0] * len(self.order)
        for rank, place in enumerate(self.order):
            found[place] = 1 - rank / max(1, len(self.order) - 1)
        return tuple(found)

    def explained(self) -> list[dict[str, Any]]:
        """The steps, for JSON: ``pool`` and who was ``excluded`` (``chosen``, ``named``) as places in the list that was given."""
        return [
            {name: _places(value) if name in HOLD_IDS else value for name, value in asdict(cast(Any, step)).items()}
            for step in self.steps
        ]


def _places(ids: Any) -> Any:
    if ids is None:
        return None
    return int(ids) if isinstance(ids, str) else [int(id) for id in ids]


class AsyncRanker:
    """One model, ready to rank. Use it with ``async with``.

    ``model`` is what ``iranker evaluate --model`` takes (a folder, a checkpoint of verl, a name of the hub), or an
    :class:`~iranker_verl.inference.endpoint.Endpoint`. ``template`` and ``max_new_tokens``, the cap of an answer, are by
    default those that the model was trained with, else ``think-label`` and 1024. A step of an elimination shows ``window`` candidates at most, so that a list of any length can be ranked
    (:mod:`iranker_verl.ranking.elimination`). UserError for a model or template that cannot be used, before anything is loaded.
    """

    def __init__(
        self,
        model: str | Path | Endpoint,
        *,
        template: str | None = None,
        window: int = WINDOW,
        max_new_tokens: int | None = None,
        max_model_len: int | None = None,
        concurrency: int = 64,
    ) -> None:
        self.model = model if isinstance(model, Endpoint) else model_folder(str(model))
        stamp = trained_with(self.model) if isinstance(self.model, Path) else None
        self.template = _template(self.model, stamp, template)
        if window < 2:
            raise UserError(f"window {window}: a step shows 2 candidates at least")
        self.window = window
        self._max_new_tokens = max_new_tokens or (stamp and stamp.max_new_tokens) or MAX_NEW_TOKENS
        self._max_model_len, self._concurrency = max_model_len, concurrency
        self._tokenizer: ChatTokenizer | None = None
        self._engine: Answers | None = None
        self._gate: asyncio.Semaphore  # of lists under way
        self._opened = AsyncExitStack()
        if isinstance(self.model, Path):
            self._tokenizer = ChatTokenizer(self.model)
            admitted = longest_context(self.model)
            if max_model_len is None:
                self._max_model_len = min(MAX_MODEL_LEN, admitted or MAX_MODEL_LEN)

    @property
    def name(self) -> str:
        """The model's name: that of its folder or run, or the server's of it."""
        if isinstance(self.model, Endpoint):
            return self.model.model
        folder = self.model.resolve()
        return folder.parent.name if folder.name in ("model", "huggingface") else folder.name

    def about(self) -> dict[str, Any]:
        """What a ranking depends on beside its texts: the model and the template, with their hashes, and the limits."""
        own = (
            {"endpoint": self.model.url} if isinstance(self.model, Endpoint) else {"model_hash": model_hash(self.model)}
        )
        prompt = {"template_id": self.template.id, "template_hash": self.template.hash}
        limits = {"window": self.window, "max_new_tokens": self._max_new_tokens}
        return {"model": self.name, **own, **prompt, **limits}

    async def __aenter__(self) -> AsyncRanker:
        if isinstance(self.model, Endpoint):
            self._gate = asyncio.Semaphore(self._concurrency)
            self._engine = await self._opened.enter_async_context(self.model)
        else:
            self._gate = asyncio.Semaphore(AHEAD * self._concurrency)
            engine = Engine(self.model, max_model_len=self._max_model_len, max_num_seqs=self._concurrency)
            self._engine = await self._opened.enter_async_context(engine)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine = None
        await self._opened.aclose()

    def check(self, query: str, candidates: Sequence[str], scenario: str = "passage") -> RankingTask | None:
        """The task that :meth:`rank` would ask about, its texts on one line each as in preparation; None where there is one
        candidate, or none.

        Unrankable for a text that is empty, a ``scenario`` that is none, and for texts that are too long for the model.
        """
        if not (context := clean(query)):
            raise Unrankable("the query is empty; say what the candidates are to be ranked for")
        texts = [clean(text) for text in candidates]
        for place, text in enumerate(texts):
            if not text:
                raise Unrankable(f"candidate {place} (counted from 0) has an empty text; leave it out")
        if scenario not in SCENARIOS and scenario not in DATASETS:
            raise Unrankable(f"scenario {scenario!r}: choose one of {', '.join((*SCENARIOS, *DATASETS))}")
        if len(texts) < 2:
            return None
        shown = tuple(Candidate(str(place), text) for place, text in enumerate(texts))
        task = RankingTask("", DATASETS.get(scenario, scenario), scenario, context, shown, ())
        if self._tokenizer is not None and self._max_model_len is not None:
            self._check_length(task, self._tokenizer, self._max_model_len)
        return task

    def _check_length(self, task: RankingTask, tokenizer: ChatTokenizer, limit: int) -> None:
        def tokens(text: str) -> int:
            return len(tokenizer.encode([{"role": "user", "content": text}]))

        needed = len(tokenizer.encode(self.template.longest(task, tokens, self.window))) + self._max_new_tokens
        parts = self.template.shows(self.window)
        if parts is not None and parts < len(task.candidates):
            needed += SLACK
        if needed > limit:
            raise Unrankable(
                f"a prompt and its answer of up to {self._max_new_tokens} tokens take {needed} tokens, and there is room for "
                f"{limit}; shorten the texts, or show fewer at once (window, now {self.window})"
            )

    async def check_alive(self) -> None:
        """Raises what the engine has died of. Of a server nothing is asked."""
        if isinstance(self._engine, Engine):
            await self._engine.check_alive()

    async def rank(self, query: str, candidates: Sequence[str], *, scenario: str = "passage") -> Ranking:
        """Rank texts for a query: N - 1 calls of the model, one after the other, for N texts.

        ``scenario`` chooses the prompt's words: ``passage`` (a query), ``recommendation`` (the query tells what a user has
        chosen), ``routing`` (candidates are LLMs), or one of the nine datasets. Unrankable as :meth:`check`.
        """
        return await self._play(self.check(query, candidates, scenario), len(candidates))

    async def rank_all(
        self,
        lists: Sequence[tuple[str, Sequence[str]]],
        *,
        scenario: str = "passage",
        on_done: Callable[[int, Ranking], None] | None = None,
    ) -> list[Ranking]:
        """Many lists at once, each a query and its texts: batched, so much faster than one after the other. ``on_done`` gets
        each list's place and its ranking as it ends. Unrankable that names the list's place, before any is ranked."""
        tasks = []
        for place, (query, candidates) in enumerate(lists):
            try:
                tasks.append(self.check(query, candidates, scenario))
            except Unrankable as error:
                raise Unrankable(f"list {place} (counted from 0): {error}") from error

        async def one(place: int) -> Ranking:
            ranking = await self._play(tasks[place], len(lists[place][1]))
            if on_done is not None:
                on_done(place, ranking)
            return ranking

        jobs = [asyncio.create_task(one(place)) for place in range(len(lists))]
        try:
            return list(await asyncio.gather(*jobs))
        finally:
            for job in jobs:  # an error, or a cancellation, ends all
                job.cancel()

    async def _play(self, task: RankingTask | None, count: int) -> Ranking:
        if self._engine is None:
            raise RuntimeError("the ranker is not open; use it within `async with`")
        if task is None:
            return Ranking(tuple(range(count)))
        async with self._gate:
            played = await play_one(
                task, self.template, self._engine, max_new_tokens=self._max_new_tokens, window=self.window
            )
        order = tuple(int(id) for id in played.ranking)
        return Ranking(order, played.steps, played.prompt_tokens, played.new_tokens, played.seconds)


class Ranker:
    """:class:`AsyncRanker` for programs without an event loop: of one, or with the same arguments. Use it with ``with``."""

    def __init__(self, model: str | Path | Endpoint | AsyncRanker, **options: Any) -> None:
        self._ranker = model if isinstance(model, AsyncRanker) else AsyncRanker(model, **options)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Ranker:
        self._runner.__enter__()
        try:
            self._runner.run(self._ranker.__aenter__())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._ranker.__aexit__(kind, error, trace))
        finally:
            self._runner.close()

    def rank(self, query: str, candidates: Sequence[str], *, scenario: str = "passage") -> Ranking:
        """See :meth:`AsyncRanker.rank`."""
        return self._runner.run(self._ranker.rank(query, candidates, scenario=scenario))

    def rank_all(
        self,
        lists: Sequence[tuple[str, Sequence[str]]],
        *,
        scenario: str = "passage",
        on_done: Callable[[int, Ranking], None] | None = None,
    ) -> list[Ranking]:
        """See :meth:`AsyncRanker.rank_all`."""
        return self._runner.run(self._ranker.rank_all(lists, scenario=scenario, on_done=on_done))


def _template(model: Path | Endpoint, stamp: Stamp | None, named: str | None) -> Template:
    template = load(named or (stamp.template_id if stamp else UNTRAINED))
    if stamp is not None:
        check_hash(template, stamp.template_id, stamp.template_hash, str(model))
    return template
