"""The baselines that a trained model is compared with. Each is found by its name, and imported when it is made."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines.base import Baseline, Context, PromptingBaseline, Ranking, Unavailable

__all__ = [
    "BASELINES",
    "STANDARD",
    "Baseline",
    "Context",
    "PromptingBaseline",
    "Ranking",
    "Unavailable",
    "make_baselines",
]

BASELINES = {
    "random": "random_order:RandomOrder",
    "constant": "constant:Constant",
    "popularity": "popularity:Popularity",
    "bm25": "bm25:Bm25",
    "contriever": "dense:Contriever",
    "dense": "dense:Dense",
    "rankbert": "cross_encoder:RankBert",
    "monot5": "mono_t5:MonoT5",
    "rankllama": "rank_llama:RankLlama",
    "bpr": "bpr:Bpr",
    "sasrec": "sasrec:SasRec",
    "r1-rec": "language_model:R1Rec",
    "router-knn": "router_knn:RouterKnn",
    "router-bert": "router_bert:RouterBert",
    "graph-router": "graph_router:GraphRouter",
}
STANDARD = ("random", "constant", "popularity", "bm25")  # in every table


def make_baselines(
    names: Iterable[str] = STANDARD, context: Context | None = None
) -> list[Baseline | PromptingBaseline]:
    """Return the baselines of these names. Raise UserError for an unknown one."""
    baselines: list[Baseline | PromptingBaseline] = []
    for name in names:
        if name not in BASELINES:
            raise UserError(f"unknown baseline {name!r}; choose from {', '.join(BASELINES)}")
        module, _, kind = BASELINES[name].partition(":")
        baselines.append(getattr(import_module(f"{__name__}.{module}"), kind)(context or Context()))
    return baselines
