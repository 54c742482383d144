"""The report: ``report.html`` of a run folder, drawn from the files in it and from nothing else.

It reads ``results.json`` (needed), ``metrics.jsonl`` and ``episodes-<system>.jsonl`` (shown as far as they are there).

``results.json``
    ``datasets.<dataset>.<system>``, ``macro.<system>``
        ``rr``, ``ndcg@5``, ``ndcg@10``, ``hit@1``; ``n`` tasks; ``ci95`` = [low, high] of ``rr``; and, null for rivals
        that ask no language model, ``malformed_rate`` (of its calls), ``calls_per_task``, ``prompt_tokens_per_task``,
        ``new_tokens_per_task``. The systems are ``before``, ``after``, ``random``, ``popularity``, ``bm25``. ``macro``
        is the mean over datasets, each weighing the same; its ``n_datasets`` says over how many, as a rival may not
        apply to all.
    ``paired_p``
        two-sided p of "RL did not change the macro RR" (sign flips within tasks), or null.
    ``seed``, ``versions`` {package: version}, ``data_hash``, ``template_hash``, ``config``
        what made the run.
    ``time_s`` {``prepare``, ``base``, ``rl``, ``evaluate``, ``total``}, ``rl_time_share`` {``generate``, ``forward``,
    ``backward``, ``other``}, ``peak_rss_bytes``
        what it took. Without ``rl_time_share`` it is added up from ``metrics.jsonl``.
    ``about``
        paragraphs that say how the run was made, first of all the base.

``metrics.jsonl``
    one object an RL step: ``step``, ``reward/mean``, ``reward/malformed``, ``time/step``, ``time/generate``,
    ``time/forward``, ``time/backward``, ``time/other``, and at some steps ``val/mrr``.

``episodes-<system>.jsonl``
    one object a task: see :meth:`iranker_verl.evaluation.evaluate.Record.to_json`.

The page is one file: its style and its figures are in it, and it asks for nothing from elsewhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from iranker_verl import page
from iranker_verl.errors import UserError
from iranker_verl.evaluation import figures
from iranker_verl.files import write_text
from iranker_verl.ranking import DATASETS

SYSTEMS = ("after", "before", "bm25", "popularity", "random")  # the order of the tables


def write_report(run_dir: Path) -> Path:
    """Draw ``run_dir/report.html`` and return its path; it appears whole or not at all.

    UserError where ``results.json`` is missing or not what it should be.
    """
    path = run_dir / "report.html"
    write_text(path, render(run_dir))
    return path


def render(run_dir: Path) -> str:
    """The page as text."""
    results = _results(run_dir / "results.json")
    steps = list(_lines(run_dir / "metrics.jsonl"))
    episodes = {s: list(_lines(run_dir / f"episodes-{s}.jsonl")) for s in ("before", "after")}
    datasets = _in_order(results["datasets"])
    shares = results.get("rl_time_share") or time_shares(steps)
    drawn = {
        "datasets": figures.by_dataset(datasets),
        "learning": figures.learning(
            _curve(steps, "reward/mean"), _curve(steps, "val/mrr"), _curve(steps, "reward/malformed")
        ),
        "ranks": figures.ranks(*([e["rank_of_best"] for e in episodes[s]] for s in ("before", "after"))),
        "times": figures.times(results.get("time_s") or {}, shares),
    }
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=_number, percent=_percent, duration=_duration, whole=_whole, tojson_text=_json_text
    )
    return environment.get_template("report.html.j2").render(
        name=run_dir.resolve().name,
        css=Markup(resources.files(page).joinpath("style.css").read_text(encoding="utf-8")),  # our own text
        figures={name: Markup(svg) if svg else None for name, svg in drawn.items()},  # matplotlib escapes its texts
        macro=results["macro"],
        datasets=datasets,
        systems=SYSTEMS,
        labels=figures.LABELS,
        headline=_headline(results, datasets),
        example=_example(episodes["after"], episodes["before"]),
        about=results.get("about") or [],
        shares=shares,
        results=results,
    )


def _results(path: Path) -> dict[str, Any]:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {path.parent} holds no finished evaluation") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(results, dict) or not isinstance(results.get("datasets"), dict) or "macro" not in results:
        raise UserError(f"{path}: it needs `datasets` and `macro`; evaluate the run again")
    return results


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, if it is there. A line cut short (by a kill) is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def _curve(steps: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    points = {float(s["step"]): float(s[key]) for s in steps if s.get("step") is not None and _finite(s.get(key))}
    return sorted(points.items())  # a step taken again after a resume counts once, as last taken


def time_shares(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``rl_time_share``: what part of all RL steps' time each phase took; empty where no step was timed."""
    sums = {p: sum(float(s[f"time/{p}"]) for s in steps if _finite(s.get(f"time/{p}"))) for p in figures.PHASES}
    total = sum(sums.values())
    return {p: value / total for p, value in sums.items()} if total > 0 else {}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _in_order(datasets: Mapping[str, Any]) -> dict[str, Any]:
    known = list(DATASETS)
    return dict(sorted(datasets.items(), key=lambda item: (known.index(item[0]) if item[0] in known else 99, item[0])))


def _headline(results: Mapping[str, Any], datasets: Mapping[str, Any]) -> dict[str, Any]:
    before, after = results["macro"].get("before"), results["macro"].get("after")
    pairs = [(d["before"]["rr"], d["after"]["rr"]) for d in datasets.values() if "before" in d and "after" in d]
    return {
        "before": before,
        "after": after,
        "gain": after["rr"] - before["rr"] if before and after else None,
        "better": sum(new > old for old, new in pairs),
        "of": len(pairs),
        "p": results.get("paired_p"),
    }


def _example(after: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """An episode to read: a well-formed one that RL turned from a miss into a hit, of a length that reads well."""
    old = {(e["dataset"], e["task_id"]): e for e in before}

    def worth(episode: Mapping[str, Any]) -> tuple[Any, ...]:
        earlier = old.get((episode["dataset"], episode["task_id"]))
        gain = (earlier["rank_of_best"] if earlier else 1) - episode["rank_of_best"]
        size = len(episode["candidates"])
        return (-episode.get("malformed", 0), 5 <= size <= 10, gain, episode["task_id"])

    played = [e for e in after if e.get("steps")]
    if not played:
        return None
    chosen = max(played, key=worth)
    texts = {c["id"]: c["text"] for c in chosen["candidates"]}
    best = max(chosen["relevance"])
    relevance = {c["id"]: r for c, r in zip(chosen["candidates"], chosen["relevance"], strict=True)}
    earlier = old.get((chosen["dataset"], chosen["task_id"]))

    def candidate(id: str) -> dict[str, Any]:
        return {"text": texts[id], "positive": relevance[id] == best}

    return {
        "dataset": chosen["dataset"],
        "task_id": chosen["task_id"],
        "context": chosen["context"],
        "steps": [
            {**candidate(s["excluded"]), "response": s["response"].strip(), "status": s["status"]}
            for s in chosen["steps"]
        ],
        "winner": candidate(chosen["ranking"][0]),
        "rank": chosen["rank_of_best"],
        "rank_before": earlier["rank_of_best"] if earlier else None,
        "size": len(texts),
    }


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str)
