"""Ranking of one's own texts with a trained model: the library behind ``iranker rank`` and ``iranker serve``.

    with Ranker("runs/tiny/model") as ranker:
        ranking = ranker.rank("how long do fleas live", ["Fleas feed on blood.", "A flea can live up to a year."])
        ranking.order        # (1, 0): indices of the texts, best first

:class:`Ranker` blocks; :class:`AsyncRanker` is the same for programs with an event loop. Both run the state machines and
templates that training and evaluation run. What many callers ask at once is batched continuously by vLLM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from iranker_verl.errors import UserError
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.inference.engine import ChatTokenizer, Engine, Generation, longest_context, longest_prompt
from iranker_verl.inference.episode import (
    AHEAD,
    AnsweredStep,
    ChatEngine,
    EpisodeOptions,
    cancel_and_wait,
    check_constrained,
    run_episode,
)
from iranker_verl.inference.models import Stamp, model_folder, model_hash, model_name, trained_with
from iranker_verl.ranking import DATASETS, SCENARIOS, Candidate, RankingTask
from iranker_verl.ranking.elimination import Share
from iranker_verl.ranking.templates import Template, check_hash, load
from iranker_verl.ranking.text import clean

WINDOW = 20  # candidates of the paper's prompts at most
UNTRAINED = "think-label"  # the template for an instruct model that was not trained here
MAX_NEW_TOKENS = 1024
MAX_MODEL_LEN = 8192  # of a model that admits more: a longer context, which costs memory, has to be requested
HOLD_IDS = ("pool", "excluded", "also", "chosen", "named")
SHORT = 100_000  # characters of a list whose tokens are counted in milliseconds
CHARACTERS = 32  # more than a token has on the average, of any text


class Unrankable(UserError):
    """What was given cannot be ranked: an empty text, texts that are too long, an unknown scenario."""


@dataclass(frozen=True)
class Ranking:
    """A list, ranked.

    ``order`` has the candidates' positions in the list that was given, best first. ``steps`` has one entry for each call of the
    model, with its pool and response; none where there was nothing to decide. ``empty`` candidates had no text: they are last,
    and the model did not see them.
    """

    order: tuple[int, ...]
    steps: tuple[AnsweredStep, ...] = ()
    prompt_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0
    empty: int = 0

    @property
    def malformed(self) -> int:
        """The number of answers that named no candidate; the last candidate of the pool was excluded instead."""
        return sum(step.malformed for step in self.steps)

    def scores(self) -> tuple[float, ...]:
        """Return, for each candidate in the order given, the share of the others that it is above: 1 for the best, 0 for the worst.

        An elimination makes an order and no probabilities, so scores compare within a list only.
        """
        found = [1.0] * len(self.order)
        for rank, index in enumerate(self.order):
            found[index] = 1 - rank / max(1, len(self.order) - 1)
        return tuple(found)

    def explained(self) -> list[dict[str, Any]]:
        """Return the steps, for JSON: ``pool`` and ``excluded`` (``chosen``, ``named``) as indices in the list that was given."""
        return [
            {name: _indices(value) if name in HOLD_IDS else value for name, value in asdict(cast(Any, step)).items()}
            for step in self.steps
        ]


def _indices(ids: Any) -> Any:
    if ids is None:
        return None
    return int(ids) if isinstance(ids, str) else [int(id) for id in ids]


class AsyncRanker:
    """One model, ready to rank. Use it with ``async with``.

    ``model`` is what ``iranker evaluate --model`` takes (a folder, a checkpoint of verl, a name of the hub), or an
    :class:`~iranker_verl.inference.endpoint.Endpoint`. ``template`` and ``max_new_tokens``, the cap of an answer, are by
    default those that the model was trained with, else ``think-label`` and 1024. A prompt of an elimination has ``window``
    candidates at most (by default 20), so that a list of any length can be ranked (:mod:`iranker_verl.ranking.elimination`).
    ``per_call`` candidates leave in a call (a number, ``half`` or ``all``). With ``constrained``, and where several leave, answers
    are read from the model's log-probs of the labels, and cannot be malformed (:func:`.episode.check_constrained`). UserError for what cannot be used, before anything is loaded.
    """

    def __init__(
        self,
        model: str | Path | Endpoint,
        *,
        template: str | None = None,
        window: int | None = None,
        max_new_tokens: int | None = None,
        max_model_len: int | None = None,
        concurrency: int = 64,
        per_call: int | Share = 1,
        constrained: bool = False,
    ) -> None:
        bounds = (("window", window, 2), ("max_new_tokens", max_new_tokens, 1), ("concurrency", concurrency, 1))
        for name, value, least in bounds:
            if value is not None and value < least:
                raise UserError(f"{name} is at least {least}, got {value}")
        self.model = model if isinstance(model, Endpoint) else model_folder(str(model))
        self.name = self.model.model if isinstance(self.model, Endpoint) else model_name(str(model), self.model)
        stamp = trained_with(self.model) if isinstance(self.model, Path) else None
        self.template = _template(self.model, stamp, template)
        if window is not None and self.template.kind != "exclusion":
            raise UserError(
                f"window {window} has no effect with the template {self.template.id}, which is no elimination"
            )
        self.window = window or (WINDOW if self.template.kind == "exclusion" else None)
        as_trained = stamp is not None and stamp.constrained
        self.per_call, self.constrained = per_call, constrained or per_call != 1 or as_trained
        if self.constrained:
            check_constrained(self.model, self.template, self.window or 2, per_call)
        self._max_new_tokens = max_new_tokens or (stamp and stamp.max_new_tokens) or MAX_NEW_TOKENS
        self._concurrency = concurrency
        self._engine: ChatEngine | None = None
        self._gate: asyncio.Semaphore  # of lists under way
        # Of lists with few characters and of others: a thread's slot is free when its work ends, not when its client leaves.
        self._checkers: tuple[ThreadPoolExecutor, ThreadPoolExecutor]
        self._opened = AsyncExitStack()
        self._tokenizer = self._limit = None
        if isinstance(self.model, Path):
            self._tokenizer, self._limit = ChatTokenizer(self.model), self._room(self.model, max_model_len)
        elif max_model_len is not None:
            raise UserError(f"max_model_len {max_model_len} has no effect with an endpoint, whose server decides that")

    def _room(self, model: Path, wanted: int | None) -> int:
        admitted = longest_context(model)
        if wanted is not None and admitted is not None and wanted > admitted:
            raise UserError(f"{model}: max_model_len is {wanted}, but the model admits {admitted}")
        limit = wanted or min(MAX_MODEL_LEN, admitted or MAX_MODEL_LEN)
        if self._max_new_tokens >= limit:
            raise UserError(
                f"{model}: an answer of up to {self._max_new_tokens} tokens leaves no room for a prompt in {limit}; give a "
                "smaller max_new_tokens"
            )
        return limit

    def about(self) -> dict[str, Any]:
        """Return what a ranking depends on besides its texts: the hashes of model and template, and the limits."""
        if isinstance(self.model, Endpoint):
            own = {"model": self.model.model, "endpoint": self.model.url}
        else:
            own = {"model_hash": model_hash(self.model)}
        prompt = {"template_id": self.template.id, "template_hash": self.template.hash}
        schedule = {"window": self.window, "per_call": self.per_call, "constrained": self.constrained}
        return own | prompt | schedule | {"max_new_tokens": self._max_new_tokens}

    async def __aenter__(self) -> AsyncRanker:
        self._checkers = (ThreadPoolExecutor(1, "check-short"), ThreadPoolExecutor(1, "check-long"))
        self._gate = asyncio.Semaphore(self._concurrency * (1 if isinstance(self.model, Endpoint) else AHEAD))
        self._engine = await self._opened.enter_async_context(self._closed_engine())
        return self

    def _closed_engine(self) -> Endpoint | Engine:
        if isinstance(self.model, Endpoint):
            return self.model
        return Engine(self.model, max_model_len=self._limit, max_num_seqs=self._concurrency)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine = None
        for checker in self._checkers:
            checker.shutdown(wait=False, cancel_futures=True)
        await self._opened.aclose()

    async def check_alive(self) -> None:
        """Raise what the engine has died of. An endpoint is not checked."""
        if isinstance(self._engine, Engine):
            await self._engine.check_alive()

    def check(self, query: str, candidates: Sequence[str], scenario: str = "passage") -> RankingTask | None:
        """Return the task that :meth:`rank` would ask about, its texts on one line each as in preparation.

        Candidates without a text are not in it. None where fewer than two have one. Raise Unrankable for an empty query, an unknown
        ``scenario``, and for texts that are too long for the model.
        """
        if not (context := clean(query)):
            raise Unrankable("the query is empty; give what the candidates are to be ranked for")
        cleaned = ((index, clean(text)) for index, text in enumerate(candidates))
        shown = tuple(Candidate(str(index), text) for index, text in cleaned if text)
        if scenario not in SCENARIOS and scenario not in DATASETS:
            raise Unrankable(f"scenario {scenario[:50]!r}: choose one of {', '.join((*SCENARIOS, *DATASETS))}")
        if len(shown) < 2:
            return None
        task = RankingTask("", DATASETS.get(scenario, scenario), scenario, context, shown, ())
        if self._tokenizer is not None and self._limit is not None:
            self._check_length(task, self._tokenizer, self._limit)
        return task

    def _check_length(self, task: RankingTask, tokenizer: ChatTokenizer, limit: int) -> None:
        longest = self.template.longest(task, len, self.window)
        characters = sum(len(message["content"]) for message in longest)
        if characters > CHARACTERS * limit:  # not worth measuring, which takes a second a MB
            raise Unrankable(
                f"a prompt of {characters:,} characters is too long for {limit:,} tokens; shorten the texts"
            )
        # If the texts of the most characters do not fit, those of the most tokens do not either, which takes all texts to find.
        room = tokenizer.answer_room(self._max_new_tokens, self.constrained)
        needed = len(tokenizer.encode(longest)) + room
        if needed <= limit:
            needed = longest_prompt(tokenizer, self.template, task, self.window) + room
        if needed > limit:
            fewer = ", show fewer at once (window)" if self.window else ""
            raise Unrankable(
                f"a prompt and its answer of up to {room} tokens take {needed:,}, and there is room for "
                f"{limit:,}; shorten the texts{fewer}, or allow shorter answers (max_new_tokens)"
            )

    async def rank(
        self,
        query: str,
        candidates: Sequence[str],
        *,
        scenario: str = "passage",
        on_step: Callable[[AnsweredStep, Generation], None] | None = None,
    ) -> Ranking:
        """Rank texts for a query: N - 1 calls of the model, one after the other, for N texts; fewer with ``per_call``.

        ``scenario`` chooses the prompt's words: ``passage`` (a query), ``recommendation`` (the query tells what a user has
        chosen), ``routing`` (candidates are LLMs), or one of the nine datasets. ``on_step`` gets each step and the answer that
        made it, as it is made. Unrankable as :meth:`check`.
        """
        if self._engine is None:
            raise RuntimeError("the ranker is not open; use it within `async with`")
        checker = self._checkers[len(query) + sum(map(len, candidates)) > SHORT]
        task = await asyncio.get_running_loop().run_in_executor(checker, self.check, query, candidates, scenario)
        empty = [index for index, text in enumerate(candidates) if not text.strip()]
        if task is None:
            return Ranking((*sorted(set(range(len(candidates))) - set(empty)), *empty), empty=len(empty))
        async with self._gate:
            options = EpisodeOptions(
                self._max_new_tokens, window=self.window, per_call=self.per_call, constrained=self.constrained
            )
            episode = await run_episode(task, self.template, self._engine, options, on_step=on_step)
        order = (*(int(id) for id in episode.ranking), *empty)
        return Ranking(order, episode.steps, episode.prompt_tokens, episode.new_tokens, episode.seconds, len(empty))

    async def rank_all(
        self,
        lists: Sequence[tuple[str, Sequence[str]]],
        *,
        scenario: str = "passage",
        on_done: Callable[[int, Ranking], None] | None = None,
    ) -> list[Ranking]:
        """Rank many lists at once, each a query and its texts: batched, so much faster than one after the other.

        ``on_done`` gets each list's index and its ranking as it ends. The first error, or a cancellation, ends all; Unrankable names
        the list's index.
        """

        async def one(index: int) -> Ranking:
            query, candidates = lists[index]
            try:
                ranking = await self.rank(query, candidates, scenario=scenario)
            except Unrankable as error:
                raise Unrankable(f"list {index} (counted from 0): {error}") from error
            if on_done is not None:
                on_done(index, ranking)
            return ranking

        jobs = [asyncio.create_task(one(index)) for index in range(len(lists))]
        try:
            return list(await asyncio.gather(*jobs))
        finally:
            await cancel_and_wait(*jobs)


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
