"""What a data card says in numbers. Both files are read once, batch by batch; the result is JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.card.histogram import Histogram
from data_prep.card.lengths import CountTokens, Lengths, characters
from data_prep.card.popularity import Popularity
from data_prep.checks.columns import batches, best, by_name, flat, leaves, lengths
from data_prep.checks.positions import Places, add, p_values
from data_prep.schema import SPLITS

# Dropped things that would have become a task each; of others, as rows or events, nothing says how many there were.
_TASKLIKE = ("users", "queries", "topics", "tasks")
_TEXTS = ("context", "candidates")


def statistics(
    folder: Path, manifest: Mapping[str, Any], count_tokens: CountTokens | None = None, limit: int | None = None
) -> dict[str, Any]:
    """Return the numbers of a prepared folder; ``limit`` is the longest prompt in tokens. Raise UserError for a broken file."""
    counts = _Counts()
    places: dict[str, Places] = {split: {} for split in SPLITS}
    popularity, routers, repeats, samples = Popularity(), _Routers(), _Repeats(), _Samples()
    lengths_of = Lengths(_rows_in(folder), count_tokens, limit)
    for split in SPLITS:
        for start, rows in batches(folder / f"{split}.parquet"):
            columns = leaves(rows)
            row, place = best(columns)
            prompts = rows["prompt"].combine_chunks()
            counts.add(split, columns)
            add(places[split], lengths(columns["candidate_ids"])[row], place)
            popularity.add(split, columns, row, place)
            routers.add(split, columns, row, place)
            repeats.add(split, columns, prompts)
            samples.add(split, start, rows, columns)
            lengths_of.add(split, start, prompts)
    names = counts.names(manifest)
    return {
        "splits": {split: {"rows": counts.rows[split]} for split in SPLITS},
        "datasets": {name: counts.of(name) | _kept(manifest, name) for name in names},
        "lengths": lengths_of.result(),
        "positions": [
            {"split": split, "candidates": size, "counts": count.tolist(), "p": p_values({size: count}).get(size)}
            for split in SPLITS
            for size, count in sorted(places[split].items())
        ],
        "popularity": _in_order(popularity.result(), names),
        "routers": _in_order(routers.result(), names),
        "repeats": repeats.result(),
        "samples": _in_order(samples.result(), names),
    }


def _in_order(found: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: found[name] for name in names if name in found}


def _rows_in(folder: Path) -> int:
    total = 0
    for split in SPLITS:
        next(iter(batches(folder / f"{split}.parquet", "data_source")), None)  # a broken file is a UserError here
        total += pq.read_metadata(folder / f"{split}.parquet").num_rows
    return total


def _kept(manifest: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """Return tasks made, and what was dropped: ``[reason, count, share of what could have become a task | None]``."""
    made = manifest["datasets"].get(dataset, {})
    tasks = {split: made.get(split, 0) for split in SPLITS}
    dropped = made.get("dropped", {})
    lost: Counter[str] = Counter()
    for reason, count in dropped.items():
        lost[reason.split(":")[0]] += count
    rows = []
    for reason, count in sorted(dropped.items(), key=lambda item: -item[1]):
        thing = reason.split(":")[0]
        total = lost[thing] + sum(tasks.values())
        rows.append([reason, count, round(count / total, 4) if thing in _TASKLIKE and total else None])
    return {"tasks": tasks, "dropped": rows}


class _Counts:
    """Rows, candidates and lengths of texts, by dataset."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self._rows: dict[str, Counter[str]] = defaultdict(Counter)
        self._about: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._sizes: dict[str, Histogram] = defaultdict(Histogram)
        self._history: dict[str, Histogram] = defaultdict(Histogram)
        self._texts: dict[str, dict[str, Histogram]] = {name: defaultdict(Histogram) for name in _TEXTS}

    def add(self, split: str, columns: dict[str, pa.Array]) -> None:
        sizes, past = lengths(columns["candidate_ids"]), lengths(columns["history_ids"])
        context = characters(columns["context"])
        of_row, text = flat(columns["candidates"])
        candidate = characters(text)
        self.rows[split] += len(sizes)
        for name, rows in by_name(columns["dataset"]):
            self._rows[name][split] += len(rows)
            self._sizes[name].add(sizes[rows])
            self._history[name].add(past[rows])
            self._texts["context"][name].add(context[rows])
            here = np.zeros(len(sizes), bool)
            here[rows] = True
            self._texts["candidates"][name].add(candidate[here[of_row]])
            for leaf in ("scenario", "kind"):
                self._about[name][leaf] |= set(pc.unique(columns[leaf].take(pa.array(rows))).to_pylist())

    def names(self, manifest: Mapping[str, Any]) -> list[str]:
        """Return the manifest's datasets in its order, then what else is in the files."""
        listed = [name for name in manifest["tasks"] if name in self._rows or name in manifest["datasets"]]
        return listed + sorted(set(self._rows) - set(listed))

    def of(self, name: str) -> dict[str, Any]:
        return {
            "scenario": ", ".join(sorted(self._about[name]["scenario"])),
            "kinds": sorted(self._about[name]["kind"]),
            "rows": {split: self._rows[name][split] for split in SPLITS},
            "candidates": self._sizes[name].summary(),
            "history": self._history[name].summary(),
            "characters": {text: self._texts[text][name].summary() for text in _TEXTS},
        }


class _Repeats:
    """What occurs again: prompts, and texts among a row's candidates."""

    def __init__(self) -> None:
        self._prompts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
        self._equal_texts: Counter[str] = Counter()

    def add(self, split: str, columns: dict[str, pa.Array], prompts: pa.ListArray) -> None:
        row, message = flat(prompts)
        content = pc.fill_null(pc.struct_field(message, "content"), "")
        last = np.flatnonzero(np.append(row[1:] != row[:-1], True)) if len(row) else row
        texts = content.take(pa.array(last)).to_numpy(zero_copy_only=False)
        self._prompts[split].append(pd.util.hash_array(texts, categorize=False))
        of_row, text = flat(columns["candidates"])
        code = text.dictionary_encode(null_encoding="encode").indices.to_numpy(zero_copy_only=False)
        first = np.unique(of_row * (int(code.max(initial=0)) + 1) + code, return_index=True)[1]
        again = np.ones(len(of_row), bool)
        again[first] = False
        self._equal_texts[split] += len(np.unique(of_row[again]))

    def result(self) -> dict[str, Any]:
        found = {s: np.concatenate(parts) if parts else np.zeros(0, np.uint64) for s, parts in self._prompts.items()}
        distinct = {split: np.unique(hashes) for split, hashes in found.items()}
        return {
            "prompts": {split: len(found[split]) - len(distinct[split]) for split in SPLITS},
            "prompts_on_both_sides": len(np.intersect1d(distinct["train"], distinct["test"])),
            "rows_with_equal_texts": {split: self._equal_texts[split] for split in SPLITS},
        }


class _Routers:
    """Label balance of routing, by dataset: one LLM that nearly always is the best can be chosen without a look."""

    def __init__(self) -> None:
        self._best: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        self._text: dict[str, str] = {}

    def add(self, split: str, columns: dict[str, pa.Array], row: np.ndarray, place: np.ndarray) -> None:
        """Count the routing tasks of a batch of rows."""
        routing = pc.equal(columns["scenario"], "routing").to_numpy(zero_copy_only=False)
        if not routing.any():
            return
        sizes = lengths(columns["candidate_ids"])
        starts = np.cumsum(sizes) - sizes
        flat_ids, flat_texts = columns["candidate_ids"].flatten(), columns["candidates"].flatten()
        for name, rows in by_name(columns["dataset"]):
            here = np.isin(row, rows) & routing[row]
            chosen = pa.array((starts[row] + place)[here])
            ids = flat_ids.take(chosen).to_pylist()
            shown = np.flatnonzero(np.isin(np.repeat(np.arange(len(sizes)), sizes), rows[:1]) & routing[rows[0]])
            for id in flat_ids.take(pa.array(shown)).to_pylist():
                self._best[name][id][split] += 0  # one that is never the best is shown too
            if len(flat_texts) == len(flat_ids):
                self._text |= dict(zip(ids, flat_texts.take(chosen).to_pylist(), strict=True))
            for id, count in Counter(ids).items():
                self._best[name][id][split] += count

    def result(self) -> dict[str, list[dict[str, Any]]]:
        """Return, for each dataset, its LLMs and how often each is the best, the most frequent first."""
        return {
            name: [
                {"llm": id, "text": self._text.get(id, ""), **{s: counts[s] for s in SPLITS}}
                for id, counts in sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))
            ]
            for name, found in sorted(self._best.items())
            if found
        }


class _Samples:
    """A row of each dataset to read: of the first test rows (or else training rows) the one that reads best."""

    LOOKED_AT = 200

    def __init__(self) -> None:
        self._found: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def add(self, split: str, start: int, rows: pa.Table, columns: dict[str, pa.Array]) -> None:
        """Look at the first rows of each dataset in a batch."""
        sizes = lengths(columns["candidate_ids"])
        for name, where in by_name(columns["dataset"]):
            for place in where[: self.LOOKED_AT].tolist():
                size = int(sizes[place])
                worth = (split == "test", size >= 3, -abs(size - 7) if size > 2 else 0, -start - place)
                if name not in self._found or worth > self._found[name][0]:
                    self._found[name] = (worth, _sample(rows.slice(place, 1), split, start + place))

    def result(self) -> dict[str, Any]:
        """Return a task of each dataset."""
        return {name: sample for name, (_, sample) in sorted(self._found.items())}


def _sample(row: pa.Table, split: str, number: int) -> dict[str, Any]:
    (content,) = row.to_pylist()
    truth, info = content["reward_model"]["ground_truth"], content["extra_info"]
    grades = truth["relevance"] or [float(i == truth["target"]) for i in range(len(truth["candidates"] or []))]
    return {
        "file": f"{split}.parquet",
        "row": number,
        "task_id": info["task_id"],
        "kind": info["row_kind"],
        "context": info["context"],
        "candidates": [
            {"text": text, "relevance": grade, "best": grade == max(grades)}
            for text, grade in zip(truth["candidates"] or [], grades, strict=False)
        ],
        "prompt": content["prompt"],
    }
