"""How tasks are made. The defaults are the paper's (arXiv 2506.21638)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from iranker_verl.errors import UserError
from iranker_verl.options import check_options, option

# What IRanker's public code does, where it differs from the paper's words: `iranker prepare --published` (docs/reproduction.md).
PUBLIC_CODE: dict[str, Any] = {
    "history_from": "first",
    "negatives_avoid": "task",
    "item_text": "title",
    "max_states": 10_000,
    "routing_ties": "first",
    "leave_out": "multi_news",
    "rows": "states",
}


@dataclass(frozen=True)
class Options:
    """Options of preparation. Raise UserError for a value that makes no sense.

    ``history``, ``candidates`` and ``negatives`` are recommendation's (the other scenarios bring their candidates).
    ``max_chars`` caps a query's passages together (2,600 in the authors' code). ``effect_weight`` and ``cost_weight`` override
    a routing preset's. ``split``: by ``group`` (user or query), by ``time`` (recommendation: nothing after the cut is in
    training), or all to ``test``. ``rows``: whole tasks (``episodes``), the paper's elimination ``states``, or ``direct``
    ranking; each in ``orders`` candidate orders. :data:`PUBLIC_CODE` has the options of IRanker's public code.
    """

    history: int = option(20, "recommendation: items of history", least=1)
    history_from: str = option(
        "last",
        "recommendation: last (a user's last items, the last of all is the positive) or first (the first ones, the next one)",
        choices=("last", "first"),
    )
    item_text: str = option(
        "full", "recommendation: full (title, year, genres) or title alone", choices=("full", "title")
    )
    candidates: int = option(20, "recommendation: candidates a task", least=2)
    tasks_per_user: int = option(1, "recommendation: tasks a training user gives, the last items first", least=1)
    test_fraction: float = option(0.2, "share of users or queries that go to the test split", above=0, most=1)
    max_chars: int = option(2600, "cap of a query's passages together, in characters", least=1)
    max_query_chars: int = option(6000, "routing: cap of a query, in characters", least=1)
    max_title_chars: int | None = option(None, "recommendation: cap of an item's text, in characters", least=8)
    max_llm_chars: int | None = option(None, "routing: an LLM's name, price and description in characters", least=20)
    max_train: int | None = option(None, "cap of training tasks a dataset", least=1)
    max_states: int | None = option(
        None,
        "recommendation, passage: cap of training states a dataset; N candidates are N - 1 states a task",
        least=1,
    )
    max_test: int | None = option(None, "cap of test tasks a dataset", least=1)
    seed: int = option(1, "of the split, the candidates and their order", least=0)
    negatives: str = option(
        "uniform",
        "recommendation: uniform, popularity or bm25",
        choices=("uniform", "popularity", "bm25"),
    )
    negatives_avoid: str = option(
        "user",
        "recommendation: negatives are none of all that the user touched (user), or none of the task's own items (task)",
        choices=("user", "task"),
    )
    passages: int | None = option(None, "passages a query [default: the task's]", least=2)
    effect_weight: float | None = option(None, "routing: weight of effect [default: the task's]", least=0)
    cost_weight: float | None = option(None, "routing: weight of cost [default: the task's]", least=0)
    routing_ties: str = option(
        "cheapest",
        "routing: of LLMs with the best score, graded (all are best), cheapest, or first (in the files' order) is",
        choices=("graded", "cheapest", "first"),
    )
    leave_out: str | None = option(None, "routing: a benchmark (task_id) whose queries are left out")
    routing_relevance: str = option(
        "best",
        "routing: best (1 for the best LLM, as published) or score (every LLM's)",
        choices=("best", "score"),
    )
    split: str = option(
        "group",
        "group (user, query), time (recommendation) or test (all)",
        choices=("group", "time", "test"),
    )
    near_duplicate: float = option(
        0.8, "queries this alike stay on one side (Jaccard similarity of words; 1: equal words only)", above=0, most=1
    )
    rows: str = option(
        "episodes",
        "episodes, states (as published) or direct (for DRanker)",
        choices=("episodes", "states", "direct"),
    )
    orders: int = option(1, "candidate orders of each task", least=1)

    def __post_init__(self) -> None:
        """Check the values, each by itself and those that belong together."""
        check_options(self)
        if self.test_fraction == 1:
            raise UserError("test_fraction=1.0 leaves nothing to train on; give less, or split=test")
        if (self.effect_weight is None) != (self.cost_weight is None):
            raise UserError("effect_weight and cost_weight belong together; give both, e.g. 0.5 and 0.5")
        if self.history_from == "first" and (self.split == "time" or self.tasks_per_user > 1):
            raise UserError(
                "history_from=first is one task a user, split by user; leave out split=time and tasks_per_user"
            )


def as_public_code(options: Options) -> Options:
    """Return ``options`` with :data:`PUBLIC_CODE` for those that have their default."""
    default = Options()
    return replace(options, **{k: v for k, v in PUBLIC_CODE.items() if getattr(options, k) == getattr(default, k)})
