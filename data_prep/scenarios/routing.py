"""Routing in one neutral form, whatever format it came in, and the tasks made of it.

A source adds :class:`Results`: rows of (query, LLM, effect, cost, raw cost), in any order. Each of the three datasets then
ranks all LLMs for every query by ``weight * effect - weight * cost`` (arXiv 2506.21638; the weights are the preset's, or
the options'). The positive is the LLM with the best score. Where several have it, ``routing_ties`` decides: "graded", all of
them are positive, and a query on which all LLMs are equal is dropped as tied; "cheapest", the one with the lowest raw cost,
and where that is equal too the query is dropped; "first", the one that comes first in the raw files.

Relevance is 1 for a positive and 0 for the others, as published. With ``routing_relevance`` "score" it is every LLM's
score, shifted within the query by the best score among the others than the positives: these have their lead (where another
shares the best score, 1e-9, so that they alone are the best), the second 0, and the rest what they lack to the second, below 0.
Differences are those of the scores, which is what :mod:`reward_fns.exclusion` makes of them as ``cost_aware``; and since the
positives alone are above 0, every measure of evaluation is the one that the published relevance gives.

Policy. A query that lacks an LLM which other queries have, or a number, is dropped and counted, and so is one longer than
``max_query_chars``. Of a repeated query and LLM the first row counts. A name of an LLM in two spellings (upper and lower case) is
refused: every query would lack one of them. Costs that are missing from all rows leave the datasets that weigh them empty,
with that reason; router-performance is made all the same.

The split is by query text, near-duplicates together, and the same for all three datasets; it is decided here, since two
things are taken from the training queries alone (from all, where there is none):

* Scales. Effects and costs lie in [0, 1]. Raw costs are brought there as GraphRouter does it, by min-max within each task
  (benchmark), and cut off at 0 and 1. So are effects and costs that a source gives on another scale.
* What an LLM costs on average, which is shown for all of them where not every LLM has a price.

A candidate is ``name, price: description``, see :mod:`data_prep.scenarios.descriptions`. An LLM that is not described there is
counted, and has no description. Prices also order equals where no cost is known at all.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np

from data_prep.options import Options
from data_prep.presets import PRESETS
from data_prep.readers.lines import NAN
from data_prep.readers.sniff import RawFile
from data_prep.readers.text import query_key, shown
from data_prep.scenarios.descriptions import Described, descriptions, nearest
from data_prep.split import TEST, TRAIN, sides
from data_prep.tasks import Draft, Dropped, Source, Unit
from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS, Candidate, RankingTask
from iranker_verl.ranking.text import one_line, shorten

ROUTERS = tuple(name for name, scenario in DATASETS.items() if scenario == "routing")
_ROUNDED = 9  # decimals of a score, so that the order of float operations decides no tie
_SLACK = 1e-6  # how far out of [0, 1] a number may be by rounding


@dataclass(frozen=True)
class Query:
    """A query of a benchmark. A text is one query in each (side, name).

    ``task`` is the benchmark that it comes from, ``name`` what its id begins with, ``side`` is train or test where the raw
    files say so.
    """

    text: str
    name: str = ""
    task: str = field(default="", compare=False)
    side: str | None = None

    @property
    def id(self) -> str:
        """Side, name and a hash of the text."""
        digest = hashlib.blake2b(self.text.encode(), digest_size=8).hexdigest()
        return ":".join(part for part in (self.side, self.name, digest) if part)


class Results:
    """What LLMs did on queries, row by row. ``dropped`` counts what the source left out."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.queries: dict[Query, int] = {}
        self.llms: dict[str, int] = {}
        self._places = array("q")
        self._numbers = array("d")

    def add(self, query: Query, llm: str, effect: float, cost: float = NAN, cost_raw: float = NAN) -> None:
        """Take a row in. ``cost`` lies in [0, 1], ``cost_raw`` is in the source's own unit; NaN is a missing number."""
        self._places.append(self.queries.setdefault(query, len(self.queries)))
        self._places.append(self.llms.setdefault(llm, len(self.llms)))
        self._numbers.extend((effect, cost, cost_raw))

    def matrices(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Return ``(seen, numbers, repeated)``.

        ``seen`` is bool of shape (queries, LLMs); ``numbers`` is float64 of shape (queries, LLMs, 3) with effect, cost and raw
        cost, NaN where missing; ``repeated`` counts the rows that repeat a query and LLM.
        """
        shape = len(self.queries), len(self.llms)
        query, llm = np.frombuffer(self._places, np.int64).reshape(-1, 2).T
        cells, first = np.unique(query * shape[1] + llm, return_index=True)
        seen, numbers = np.zeros(shape, bool), np.full((*shape, 3), NAN)
        seen.reshape(-1)[cells] = True
        numbers.reshape(-1, 3)[cells] = np.frombuffer(self._numbers).reshape(-1, 3)[first]
        return seen, numbers, len(query) - len(first)


@dataclass(frozen=True)
class Outcomes:
    """The neutral form: queries with all numbers of all LLMs. Matrices are float64 of shape (queries, LLMs).

    ``side`` is each query's. ``effect`` and ``cost`` lie in [0, 1], ``cost_raw`` is in the source's unit; costs are None
    where none is known at all. ``average_cost`` is each LLM's, in the source's unit if that is known (NaN without costs).
    ``place`` is each LLM's place in the order in which the raw files name them first: int64.
    """

    queries: list[Query]
    llms: list[str]
    side: list[str]
    effect: np.ndarray
    cost: np.ndarray | None
    cost_raw: np.ndarray | None
    average_cost: list[float]
    place: np.ndarray

    def utilities(self, effect_weight: float, cost_weight: float) -> np.ndarray:
        """Return the weighted scores, shape (queries, LLMs). ``cost`` has to be known where it has weight."""
        score = effect_weight * self.effect
        if cost_weight:
            assert self.cost is not None
            score = score - cost_weight * self.cost
        return np.round(score, _ROUNDED)

    def positives(
        self, effect_weight: float, cost_weight: float, prices: Sequence[float], ties: str = "cheapest"
    ) -> np.ndarray:
        """Return which LLMs are each query's positives, bool of shape (queries, LLMs); none, or all, where it is tied.

        ``ties`` is ``routing_ties``; ``prices`` are the LLMs', in case no cost is known.
        """
        score = self.utilities(effect_weight, cost_weight)
        best = score == score.max(axis=1, keepdims=True)
        if ties == "graded":
            return best
        if ties == "first":
            return best & (self.place == np.where(best, self.place, len(self.llms)).min(axis=1, keepdims=True))
        paid = next((m for m in (self.cost_raw, self.cost) if m is not None), np.broadcast_to(prices, score.shape))
        paid = np.where(best, paid, np.inf)
        winners = np.where(best.sum(1, keepdims=True) == 1, best, best & (paid == paid.min(axis=1, keepdims=True)))
        return np.asarray(winners & (winners.sum(1, keepdims=True) == 1))


def leads(scores: np.ndarray, positive: np.ndarray) -> tuple[float, ...]:
    """Return the relevance of a query's LLMs by their weighted scores (see above); ``positive`` says which are positives."""
    lead = np.round(scores - scores[~positive].max(), _ROUNDED)
    lead[positive] = np.maximum(lead[positive], 10.0**-_ROUNDED)
    return tuple(lead.tolist())


def outcomes(results: Results, options: Options, source: Path) -> tuple[Outcomes, Counter[str]]:
    """Return the neutral form of what a source added, by query id and LLM, and what was dropped on the way."""
    _check_names(results.llms, source)
    seen, numbers, repeated = results.matrices()
    known = ~np.isnan(numbers).all(axis=(0, 1))
    dropped = results.dropped + Counter({"rows: repeated query and LLM": repeated})
    queries = list(results.queries)
    unfit = {
        f"queries: of {options.leave_out}, left out": np.array([q.task == options.leave_out for q in queries], bool),
        "queries: an LLM is missing": ~seen.all(axis=1),
        "queries: a number is missing": np.isnan(numbers[:, :, [True, *known[1:]]]).any(axis=(1, 2)),
        f"queries: longer than {options.max_query_chars} characters": np.array(
            [len(query.text) > options.max_query_chars for query in queries], bool
        ),
    }
    left = np.ones(len(queries), bool)
    for reason, bad in unfit.items():
        dropped[reason] += int((left & bad).sum())
        left &= ~bad
    kept = sorted(np.flatnonzero(left), key=lambda i: queries[i].id)
    queries, llms = [queries[i] for i in kept], sorted(results.llms)
    effect, cost, raw = np.moveaxis(numbers[np.ix_(kept, [results.llms[llm] for llm in llms])], 2, 0)
    side = _sides(queries, options)
    base = np.array([s == TRAIN for s in side], bool)
    base = base if base.any() else ~base
    scale = _Scale([query.task for query in queries], base)
    average = [math.fsum(own) / max(len(own), 1) for own in (raw if known[2] else cost)[base].T]
    if not known[1]:
        cost = scale.of(raw)
    data = Outcomes(
        queries,
        llms,
        side,
        scale.unit(effect),
        scale.unit(cost) if known[1:].any() else None,
        raw if known[2] else None,
        average,
        np.argsort(np.argsort([results.llms[llm] for llm in llms])),
    )
    return data, dropped


def _check_names(llms: Collection[str], source: Path) -> None:
    if len(llms) < 2:
        raise UserError(f"{source}: {len(llms)} LLM(s); ranking needs at least 2")
    spelt: dict[str, str] = {}
    for llm in sorted(llms):
        if (other := spelt.setdefault(llm.casefold(), llm)) != llm:
            raise UserError(f"{source}: an LLM is called {shown(other)} and {shown(llm)}; use one spelling")


def _sides(queries: Sequence[Query], options: Options) -> list[str]:
    if all(query.side for query in queries):
        return [TEST if options.split == "test" else str(query.side) for query in queries]
    keys = [query_key(query.text) for query in queries]
    decided = sides(keys, options, "router", queries=True)
    return [decided[key] for key in keys]


@dataclass(frozen=True)
class _Scale:
    """Min-max within each of the ``tasks`` by its queries in ``base`` (by all of ``base`` where it has none of its own)."""

    tasks: list[str]
    base: np.ndarray

    def unit(self, values: np.ndarray) -> np.ndarray:
        """Return values that lie in [0, 1] as they are; others scaled. Shapes (queries, LLMs)."""
        inside = values.min(initial=0) >= -_SLACK and values.max(initial=1) <= 1 + _SLACK
        return np.clip(values, 0, 1) if inside else self.of(values)

    def of(self, values: np.ndarray) -> np.ndarray:
        """Return scaled values, cut off at 0 and 1; 0 where a task knows one value only."""
        result = np.zeros_like(values)
        names, task = np.unique(np.array(self.tasks, dtype=str), return_inverse=True)
        for i in range(len(names)):
            own = task == i
            rows = own & self.base if (own & self.base).any() else self.base
            low, high = values[rows].min(), values[rows].max()
            if high > low:
                result[own] = np.clip((values[own] - low) / (high - low), 0, 1)
        return result


# --------------------------------------------------------------------------------------------------------------- tasks

# What reads a source's files, given what is known of the LLMs by all their names. It has to be picklable.
Reader = Callable[[Mapping[str, Described]], Results]


def router_source(
    format: str, paths: Sequence[Path], names: Collection[str], reader: Reader, files: Sequence[RawFile], raw: Path
) -> Source:
    """Return the source in some files, of three datasets, with the file of descriptions (one of ``names``) next to them.

    It is one unit, as its scales and its split need all of it.
    """
    first = paths[0]
    described = nearest(names, first, [file.path for file in files])
    name = f"{format.lower()}:{first.name if first == raw else first.relative_to(raw).as_posix()}"
    used = (*paths, described) if described else tuple(paths)
    return Source(format, ROUTERS, used, [Unit(name, make_routing, (reader, described, first))])


def make_routing(
    reader: Reader, described: Path | None, source: Path, options: Options, datasets: Sequence[str], dropped: Dropped
) -> Iterator[Draft]:
    """Yield the tasks of a source's files; ``described`` is the file of descriptions, ``source`` the file that errors name."""
    known = descriptions(described)
    return routing_drafts(reader(known), known, options, datasets, dropped, source)


def routing_drafts(
    results: Results,
    described: Mapping[str, Described],
    options: Options,
    datasets: Collection[str],
    dropped: Dropped,
    source: Path,
) -> Iterator[Draft]:
    """Yield the tasks of each dataset, by query id; ``source`` is the file that errors name."""
    data, lost = outcomes(results, options, source)
    if described:
        lost["LLMs: not described"] += sum(llm not in described for llm in data.llms)
        if lost["LLMs: not described"] == len(data.llms):
            raise UserError(
                f"{source}: the file of descriptions has none of its LLMs, e.g. {shown(data.llms[0])}; use the same names"
            )
    candidates = tuple(_candidates(data, described, options.max_llm_chars))
    shown_as: dict[str, str] = {}
    for llm in candidates:
        if (other := shown_as.setdefault(llm.text, llm.id)) != llm.id:
            raise UserError(
                f"{source}: the LLMs {shown(other)} and {shown(llm.id)} are both shown as {shown(llm.text)}; tell them apart"
            )
    prices = [described[llm].listed if llm in described else NAN for llm in data.llms]
    for dataset in datasets:
        dropped[dataset] += lost
        quality, thrift = weights(dataset, options)
        if thrift and data.cost is None:
            dropped[dataset]["queries: no cost is known"] += len(data.queries)
            continue
        preference = f"quality {quality:g}, cost {thrift:g}" if thrift else "quality only"
        positives = data.positives(quality, thrift, prices, options.routing_ties)
        scores = data.utilities(quality, thrift)
        for query, side, positive, score in zip(data.queries, data.side, positives, scores, strict=True):
            if not positive.any() or positive.all():
                dropped[dataset]["queries: tied"] += 1
                continue
            context = f"Query: {query.text}\nPreference: {preference}"
            id = f"{dataset}:{query.id}"
            best = options.routing_relevance == "best"
            relevance = tuple(positive.astype(float).tolist()) if best else leads(score, positive)
            task = RankingTask(id, "routing", dataset, context, candidates, relevance)
            yield Draft(task, query_key(query.text), side)


def weights(dataset: str, options: Options) -> tuple[float, float]:
    """Return the weights of effect and cost. Raise UserError where the options' make no preference.

    ``X-cost`` has the preset of ``router-cost``, and so on.
    """
    preset = PRESETS[f"router-{dataset.rpartition('-')[2]}"]
    given = (options.effect_weight, options.cost_weight)
    quality, thrift = (preset.effect_weight, preset.cost_weight) if None in given else given
    assert quality is not None and thrift is not None
    if not (0 <= quality < math.inf and 0 <= thrift < math.inf and quality + thrift > 0):
        raise UserError(f"effect_weight {quality:g} and cost_weight {thrift:g}: give weights from 0, not both 0")
    return quality, thrift


def _candidates(data: Outcomes, described: Mapping[str, Described], most: int | None) -> Iterator[Candidate]:
    entries = [described.get(llm, Described()) for llm in data.llms]
    prices = [entry.price for entry in entries]
    if None in prices and data.cost is not None:  # for all or for none, so that what is shown can be compared
        prices = [f"avg cost {Decimal(f'{cost:.3g}'):f}" for cost in data.average_cost]
    for llm, price, entry in zip(data.llms, prices, entries, strict=True):
        name = one_line(llm if price is None else f"{llm}, {price}")
        text = f"{name}: {entry.text}" if entry.text else name
        yield Candidate(llm, text if most is None else shorten(text, most))
