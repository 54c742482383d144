"""The tables of a report, as texts that the page, LaTeX and Markdown show alike.

Every function takes ``results.json`` (see :mod:`.page`) and gives a :class:`Table`, or None where it has no row.
Published numbers are rows of their own kind and never enter a mean or a test of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from iranker_verl.evaluation.published import Published, Values
from iranker_verl.evaluation.report.formats import hundred, number, p_text, percent, signed, stars, whole
from iranker_verl.evaluation.report.table import GROUP, OURS, PUBLISHED, Row, Table, row
from iranker_verl.evaluation.statistics import MACRO
from iranker_verl.evaluation.systems import Role, Roles, main_system, with_role
from iranker_verl.ranking import DATASETS
from iranker_verl.ranking.text import shorten

Results = Mapping[str, Any]

CONSTANT = ("constant", "popularity")  # baselines whose order of the candidates is the same for all queries or users
REASON = 60  # characters of why a system was not run, in a row's name

SHORT = {
    "rec-movie": "Movie",
    "rec-music": "Music",
    "rec-game": "Game",
    "router-performance": "Perf.",
    "router-cost": "Cost",
    "router-balance": "Balance",
    "passage-5": "P-5",
    "passage-7": "P-7",
    "passage-9": "P-9",
}
_LABELS = {
    "before": "before RL",
    "bm25": "BM25",
    "contriever": "Contriever",
    "bpr": "BPR",
    "sasrec": "SASRec",
    "r1rec": "R1-Rec",
    "routerknn": "RouterKNN",
    "routerbert": "RouterBert",
    "graphrouter": "GraphRouter",
    "monot5": "MonoT5",
    "rankbert": "RankBERT",
    "rankllama": "RankLLaMA",
    "setwise": "setwise sort",
    "pairwise": "pairwise sort",
}


def label(system: str, roles: Roles) -> str:
    """Return what a system is called: by its role where its name is that role, else by its name."""
    if system == roles.get(system) == Role.AFTER:
        known = roles.values()
        return "trained on all" if Role.ZERO_SHOT in known else "after RL" if Role.BEFORE in known else "the model"
    return _LABELS.get(system.replace("-", "").replace("_", "").lower(), system)


def in_order(results: Results) -> list[str]:
    """Return the systems: the one that the report is about, the one before training, then the others.

    Of these, those that apply to more datasets come first (a macro mean of few says nothing beside one of all), then by macro MRR.
    """
    macro, roles = results["macro"], results["roles"]
    main = main_system(roles)

    def key(system: str) -> tuple[Any, ...]:
        numbers = macro[system]
        first = (system != main, roles[system] != Role.BEFORE)
        return (*first, -numbers.get("n_datasets", 0), -numbers["rr"], system)

    return sorted(macro, key=key)


def datasets_in_order(datasets: Iterable[str]) -> list[str]:
    """Return the paper's datasets in its order, then the others by name."""
    return sorted(datasets, key=_dataset_key)


def main_table(results: Results, published: Published | None = None) -> Table | None:
    """Return the paper's Table 1: MRR × 100 of every system on every dataset, ``published`` rows below ours.

    A system that could not run (``unavailable``) has a row that says why, and no number.
    """
    found, macro, roles = results["datasets"], results["macro"], results["roles"]
    nine = list(DATASETS) if published and set(found) & set(DATASETS) else []
    columns, main = datasets_in_order({*found, *nine}), main_system(roles)
    rows = []
    for system in in_order(results):
        values = (hundred(found.get(d, {}).get(system, {}).get("rr")) for d in columns)
        mean = hundred(macro[system]["rr"]) + _part(macro[system], found)
        rows.append(row(label(system, roles), *values, mean, kind=OURS if system == main else ""))
    if not rows:
        return None
    for system, reason in sorted((results.get("unavailable") or {}).items()):
        rows.append(
            row(f"{label(system, roles)} (not run: {_why(system, reason)})", *("–" for _ in (*columns, "macro")))
        )
    note = "MRR × 100. Macro: the mean over datasets, each weighing the same; (k of n) where a system applies to k of them."
    if alike := [d for d in datasets_in_order(found) if _none_beats_the_constant(found[d])]:
        note += (
            f" On {', '.join(SHORT.get(d, d) for d in alike)} no learned system beats the constant ranking (popularity where "
            "items are recommended): such a dataset cannot tell a system that reads from one that does not."
        )
    if nine and published:
        rows = [row("measured here", kind=GROUP), *rows, *_published_rows(published, published.systems, columns)]
    return Table("ranking", "Table 1", _by_dataset_columns(columns), tuple(rows), note)


def zero_shot_table(results: Results, published: Published) -> Table | None:
    """Return the numbers of what was trained without a scenario and tested on it (``zero_shot``: {dataset: {``rr``, …}}).

    Beside them stand the model trained on everything, where the results are of merged runs and have it, and the published rows.
    """
    ours = results.get("zero_shot") or {}
    if not ours:
        return None
    columns = datasets_in_order({*ours, *DATASETS} if set(ours) & set(DATASETS) else ours)
    values = {"zero-shot": {d: n["rr"] for d, n in ours.items()}}
    if with_role(results["roles"], Role.ZERO_SHOT):
        found = results["datasets"]
        for name, role in (("trained on all", Role.AFTER), ("before RL", Role.BEFORE)):
            system = with_role(results["roles"], role)
            values[name] = {d: found[d][system]["rr"] for d in ours if system in found.get(d, {})}
    rows = [row("measured here", kind=GROUP)]
    for name, own in values.items():
        if own:
            cells = (*(hundred(own.get(d)) for d in columns), hundred(fmean(own.values())))
            rows.append(row(name, *cells, kind=OURS if name == "zero-shot" else ""))
    theirs = published.zero_shot | {"IRanker-3B": published.systems["IRanker-3B"]}
    rows += _published_rows(published, theirs, columns)
    note = "MRR × 100 on scenarios that training left out; macro: the mean over the datasets of the row."
    return Table("zero_shot", "Zero-shot", _by_dataset_columns(columns), tuple(rows), note)


def generic_table(generic: Mapping[str, Mapping[str, Any]], published: Published) -> Table | None:
    """Return scores of tasks other than ranking, {task: {``base``, ``trained``, ``stderr``}}, beside the published pair."""
    if not generic:
        return None
    rows = []
    for task, found in generic.items():
        base, trained = found.get("base"), found.get("trained")
        change = None if base is None or trained is None else trained - base
        theirs = (hundred(value) for value in published.generic.get(task, (None, None)))
        rows.append(row(task, hundred(base), hundred(trained), signed(change), hundred(found.get("stderr")), *theirs))
    columns = ("task", "base", "trained", "change", "its std. error", "base (published)", "trained (published)")
    note = f"Scores × 100. Published: {published.source}."
    return Table("generic", "Out of domain", columns, tuple(rows), note)


def comparison_table(comparisons: Sequence[Mapping[str, Any]], roles: Roles, dataset: str | None) -> Table | None:
    """Return ``comparisons`` of the results, the macro ones (``dataset`` "macro") or those of every dataset (None).

    ``roles`` are in the order of the rows.
    """
    chosen = [c for c in comparisons if (c["dataset"] == MACRO if dataset == MACRO else c["dataset"] != MACRO)]
    if not chosen:
        return None
    names = list(roles)
    rows: list[Row] = []
    for one in sorted(chosen, key=lambda c: (_dataset_key(c["dataset"]), names.index(c["system"]))):
        heading = row(SHORT.get(one["dataset"], one["dataset"]), kind=GROUP)
        if dataset != MACRO and heading not in rows:
            rows.append(heading)
        rows.append(row(label(one["system"], roles), *comparison_cells(one)))
    against = label(chosen[0]["against"], roles)
    note = f"MRR × 100 minus that of: {against}. {tests_note(len(comparisons))}"
    title = "Macro MRR against the others" if dataset == MACRO else "MRR against the others, by dataset"
    columns = ("system", *COMPARISON_COLUMNS)
    return Table(f"comparisons_{'macro' if dataset == MACRO else 'datasets'}", title, columns, tuple(rows), note)


COMPARISON_COLUMNS = ("difference", "95 % interval", "p", "p (Holm)", "tasks")


def comparison_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of one comparison, under :data:`COMPARISON_COLUMNS`."""
    low, high = (signed(value, 1) for value in one["ci95"])
    p = (p_text(one["p"]), p_text(one["p_holm"]) + stars(one["p_holm"]))
    return (signed(one["difference"]), f"{low} to {high}", *p, f"{one['n']:,}")


def tests_note(count: int) -> str:
    """Return what the p values of ``count`` comparisons are."""
    return (
        "p: paired randomisation test over tasks, two-sided; Holm: corrected for all "
        f"{count} comparisons, macro and datasets together. * p < 0.05, ** p < 0.01, *** p < 0.001 after correction."
    )


def _by_system(table: Table, results: Results, cells: Mapping[str, Sequence[str]]) -> Table | None:
    """Return the table with a row for each system that has ``cells``, in the usual order; None where there is none."""
    rows = [row(label(s, results["roles"]), *cells[s]) for s in in_order(results) if s in cells]
    return replace(table, rows=tuple(rows)) if rows else None


def strict_table(results: Results) -> Table | None:
    """Return MRR with the rank that a task with a malformed answer gets all the same, and with the worst (``rr_strict``)."""
    found = {s: n for s, n in results["macro"].items() if n.get("malformed_rate") is not None}
    if not any(n.get("rr_strict") is not None for n in found.values()):
        return None
    note = (
        "Macro MRR × 100. Lenient: what a malformed answer leaves out falls back to the order shown. Strict: a task with any "
        "malformed answer has its best candidate ranked last."
    )
    table = Table("strict", "Malformed answers", ("system", "lenient", "strict", "malformed"), note=note)
    numbers = {
        s: (hundred(n["rr"]), hundred(n.get("rr_strict")), percent(n["malformed_rate"])) for s, n in found.items()
    }
    return _by_system(table, results, numbers)


def orders_table(results: Results) -> Table | None:
    """Return how much the order in which candidates are shown matters (``orders`` of a system's macro numbers)."""
    note = (
        "Spread: standard deviation of the macro MRR × 100 over the orders. Position bias: rank correlation (Spearman) of the "
        "order shown and the ranking: 0 is none, 1 repeats the order shown, −1 turns it round."
    )
    table = Table("orders", "Order of the candidates", ("system", "orders", "spread", "position bias"), note=note)
    found = {s: n["orders"] for s, n in results["macro"].items() if n.get("orders")}
    bias = {s: number(o.get("position_bias")).replace("-", "−") for s, o in found.items()}
    return _by_system(table, results, {s: (str(o["k"]), hundred(o.get("sd")), bias[s]) for s, o in found.items()})


def regret_table(results: Results) -> Table | None:
    """Return the relevance lost by taking a system's first candidate (:mod:`.diagnosis`)."""
    note = (
        "Regret: max(relevance) − relevance of the candidate ranked first, meaned over tasks; with one positive of relevance "
        "1 it is 1 − Hit@1. Random: max(relevance) − mean(relevance)."
    )
    table = Table("regret", "Regret", ("system", "regret", "random", "tasks"), note=note)
    found = results.get("diagnosis") or {}
    numbers = {s: (number(d["regret"]), number(d["regret_random"]), f"{d['n']:,}") for s, d in found.items()}
    return _by_system(table, results, numbers)


_COSTS = (
    ("calls_per_task", "calls"),
    ("prompt_tokens_per_task", "prompt tok."),
    ("new_tokens_per_task", "new tok."),
    ("seconds_p50", "s, median"),
    ("seconds_p95", "s, 95 %"),
    ("dollars_per_task", "$"),
    ("fit_seconds", "training, s"),
)


def cost_table(results: Results) -> Table | None:
    """Return what a task costs, and what training a baseline took. Columns that no system has are left out."""
    diagnoses = results.get("diagnosis") or {}
    costs = {s: {**(diagnoses.get(s, {}).get("cost") or {}), **results["macro"][s]} for s in in_order(results)}
    columns = [(key, name) for key, name in _COSTS if any(c.get(key) is not None for c in costs.values())]
    cells = {s: [cost(key, c.get(key)) for key, _ in columns] for s, c in costs.items()}
    known = {s: own for s, own in cells.items() if any(cell != "–" for cell in own)}
    note = (
        "Of a task, on average; seconds from its first prompt to its last answer, with other tasks running beside it. Training: "
        "of a baseline, all in all."
    )
    table = Table("cost", "Cost of a task", ("system", *(name for _, name in columns)), note=note)
    return _by_system(table, results, known)


def numbers_table(results: Results) -> Table:
    """Return all measures of all systems, macro and by dataset."""
    roles, main = results["roles"], main_system(results["roles"])
    parts = {"macro average": results["macro"]}
    parts |= {d: results["datasets"][d] for d in datasets_in_order(results["datasets"])}
    rows: list[Row] = []
    for title, found in parts.items():
        rows.append(row(title, kind=GROUP))
        for system in (s for s in in_order(results) if s in found):
            numbers = found[system]
            low, high = numbers["ci95"]
            cells = (
                label(system, roles) + (_part(numbers, results["datasets"]) if found is results["macro"] else ""),
                *(number(numbers["rr"]), f"{number(low)}–{number(high)}"),
                *(number(numbers[m]) for m in ("ndcg@5", "ndcg@10", "hit@1")),
                *(percent(numbers.get("malformed_rate")), f"{numbers['n']:,}"),
            )
            rows.append(row(*cells, kind=OURS if system == main else ""))
    columns = ("system", "MRR", "95 %", "nDCG@5", "nDCG@10", "Hit@1", "malformed", "tasks")
    note = "Macro: each dataset weighs the same. Intervals: 95 % bootstrap over tasks, of MRR. Malformed: share of LLM calls."
    return Table("numbers", "All numbers", columns, tuple(rows), note)


def _by_dataset_columns(datasets: Iterable[str]) -> tuple[str, ...]:
    return ("system", *(SHORT.get(d, d) for d in datasets), "macro")


def _published_rows(published: Published, systems: Mapping[str, Values], columns: Sequence[str]) -> Iterator[Row]:
    yield row(f"published: {published.source}", kind=GROUP)
    for name, values in systems.items():
        cells = (hundred(values.get(d), 1) for d in columns)
        yield row(name, *cells, hundred(fmean(values.values()), 1), kind=PUBLISHED)


def _why(system: str, reason: str) -> str:
    """Return a reason in few words: without the system's name, and without the way out that follows it."""
    return shorten(" ".join(reason.removeprefix(f"{system}: ").split("; ")[0].split()), REASON)


def _none_beats_the_constant(systems: Mapping[str, Mapping[str, Any]]) -> bool:
    constant = [systems[system]["rr"] for system in CONSTANT if system in systems]
    learned = [numbers["rr"] for system, numbers in systems.items() if system not in (*CONSTANT, "random")]
    return bool(constant and learned) and max(learned) <= max(constant)


def _part(numbers: Mapping[str, Any], datasets: Mapping[str, Any]) -> str:
    known = numbers.get("n_datasets", len(datasets))
    return f" ({known} of {len(datasets)})" if known < len(datasets) else ""


def _dataset_key(dataset: str) -> tuple[int, str]:
    known = list(DATASETS)
    return (known.index(dataset) if dataset in known else len(known), dataset)


def cost(key: str, value: float | None) -> str:
    """Return a number of :data:`_COSTS`, with as many digits as it bears, or a dash."""
    if value is None:
        return "–"
    if key == "dollars_per_task":
        return f"{value:.2g}"
    return f"{value:.2f}" if key.startswith("seconds") else whole(value)
