"""How tasks are made. The defaults are the paper's (arXiv 2506.21638)."""

from __future__ import annotations

from dataclasses import dataclass

from iranker_verl.errors import UserError

SPLITTINGS = ("group", "time", "test")
NEGATIVES = ("uniform", "popularity", "bm25")
ROWS = ("episodes", "states", "direct")
RELEVANCE = ("best", "score")


def check_whole(name: str, value: object, least: int) -> None:
    """UserError for anything but a whole number of ``least`` or more; Python counts true and false as such."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name} is {value}; it has to be a whole number, {least} or more")


@dataclass(frozen=True)
class Options:
    """UserError for a value that makes no sense.

    ``history``, ``candidates`` and ``negatives`` are recommendation's (the other scenarios bring their candidates):
    negatives are drawn ``uniform``\\ly, by ``popularity``, or are the hardest by ``bm25``. ``passages`` overrides the
    preset's passages a query; ``max_chars`` caps a query's passages together (2,600 in the authors' code), and
    ``max_query_chars`` a routing query. ``effect_weight`` and ``cost_weight`` override a routing preset's, and
    ``routing_relevance`` says what a task knows of its LLMs: which is the ``best``, as published, or every one's ``score``.
    ``max_train`` and ``max_test`` cap the tasks of each dataset.

    ``split``: by ``group`` (user or query), by ``time`` (recommendation: nothing after the cut is in training), or all
    to ``test``. Queries at least ``near_duplicate`` alike (Jaccard similarity of their words) stay on one side; 1 means
    equal words only. ``rows``: whole tasks (``episodes``), the paper's elimination ``states``, or ``direct`` ranking;
    each in ``orders`` candidate orders.
    """

    history: int = 20
    candidates: int = 20
    test_fraction: float = 0.2
    max_chars: int = 2600
    max_query_chars: int = 6000
    max_train: int | None = None
    max_test: int | None = None
    seed: int = 1
    negatives: str = "uniform"
    passages: int | None = None
    effect_weight: float | None = None
    cost_weight: float | None = None
    routing_relevance: str = "best"
    split: str = "group"
    near_duplicate: float = 0.8
    rows: str = "episodes"
    orders: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise UserError(f"test fraction is {self.test_fraction}; it has to lie between 0 and 1, e.g. 0.2")
        if not 0 < self.near_duplicate <= 1:
            raise UserError(f"near_duplicate is {self.near_duplicate}; it has to be above 0, and 1 at most, e.g. 0.8")
        if (self.effect_weight is None) != (self.cost_weight is None):
            raise UserError("effect_weight and cost_weight belong together; give both, e.g. 0.5 and 0.5")
        least = dict(
            history=1,
            candidates=2,
            max_chars=1,
            max_query_chars=1,
            max_train=1,
            max_test=1,
            passages=2,
            orders=1,
            seed=0,
        )
        for name, low in least.items():
            if (value := getattr(self, name)) is not None:
                check_whole(name, value, low)
        chosen = dict(split=SPLITTINGS, negatives=NEGATIVES, rows=ROWS, routing_relevance=RELEVANCE)
        for name, choices in chosen.items():
            if getattr(self, name) not in choices:
                raise UserError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
