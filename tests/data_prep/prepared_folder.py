"""Small prepared folders, written with pyarrow directly, for tests to spoil."""

import hashlib
import json
import random
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.options import Options
from data_prep.schema import SCHEMA, ContentHash
from iranker_verl.ranking import DATASETS, Candidate, RankingTask
from iranker_verl.ranking.templates import load

LABEL = load("label")
LLMS = tuple(f"llm-{i}" for i in range(4))


def row(
    dataset, number, *, template=LABEL, kind="episode", ids=None, texts=None, target=0, relevance=None, group=None,
    task_id=None, context=None, history=(), time=None, scenario=None,
):  # fmt: skip
    """One row; the target is an index, and the prompt is rendered as `Template.messages` does."""
    scenario = scenario or DATASETS[dataset]
    ids = list(ids or [f"{dataset}-{number}-{i}" for i in range(4)])
    texts = list(texts or [f"text of {i}" for i in ids])
    context = context if context is not None else f"context {number}"
    task_id = task_id or f"{dataset}:{number}"
    grades = relevance or [float(i == target) for i in range(len(ids))]
    candidates = tuple(Candidate(i, t) for i, t in zip(ids, texts, strict=True))
    task = RankingTask(task_id, scenario, dataset, context, candidates, tuple(grades))
    return {
        "data_source": dataset,
        "prompt": template.messages(template.start(task)),
        "ability": "ranking",
        "reward_model": {
            "style": "rule",
            "ground_truth": {"candidates": texts, "target": task.target, "relevance": relevance},
        },
        "agent_name": "direct_agent" if kind == "direct" else "elimination_agent",
        "extra_info": {
            "index": number,
            "split": "",
            "row_kind": kind,
            "task_id": task_id,
            "scenario": scenario,
            "group": group if group is not None else (context if scenario != "recommendation" else f"user {number}"),
            "time": time,
            "context": context,
            "candidate_ids": ids,
            "history_ids": list(history),
            "template_id": template.id,
            "template_hash": template.hash,
        },
    }


def rows(count, start=0, *, seed=0, template=LABEL):
    """``count`` valid rows, a third of each scenario, in which nothing repeats from one ``start`` to another."""
    dice = random.Random(f"{seed} {start}")
    made = []
    for number in range(start, start + count):
        dataset = ("rec-movie", "router-cost", "passage-5")[number % 3]
        place = dice.randrange(4)
        options = {"target": place, "template": template}
        if dataset == "rec-movie":
            items = [f"m{i}" for i in dice.sample(range(60), 9)]
            ids, past = items[:4], items[4:]
            texts = [f"Movie {i}" for i in ids]
            options |= {"ids": ids, "texts": texts, "history": past, "context": "; ".join(f"Movie {i}" for i in past)}
            options["time"] = 1e9 + number
        elif dataset == "router-cost":
            order = dice.sample(LLMS, 4)
            query = f"how many legs has number{number} word{number * 7}"
            options |= {"ids": order, "texts": [f"{i}: an LLM" for i in order]}
            options |= {"context": f"Query: {query}\nPreference: cost", "group": query}
        else:
            options["context"] = f"where does river{number} rise, and place{number}"
        made.append(row(dataset, number, **options))
    return made


def write(folder: Path, train, test, *, dropped=None, **options):
    """A folder with these rows and the manifest that belongs to them; the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    hashes, files, kinds = [], {}, set()
    for split, side in (("train", train), ("test", test)):
        for one in side:
            one["extra_info"]["split"] = split
            kinds.add(one["extra_info"]["row_kind"])
        table = pa.Table.from_pylist(side, schema=SCHEMA)
        path = folder / f"{split}.parquet"
        pq.write_table(table, path, row_group_size=64)
        hashes.append(ContentHash())
        if side:
            hashes[-1].update(table)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    names = sorted({r["data_source"] for r in [*train, *test]})
    of = lambda side, name: len({r["extra_info"]["task_id"] for r in side if r["data_source"] == name})  # noqa: E731
    template = (
        (train + test)[0]["extra_info"] if train + test else {"template_id": LABEL.id, "template_hash": LABEL.hash}
    )
    manifest = {
        "schema_version": 2,
        "seed": 1,
        "options": asdict(Options(**options)),
        "tasks": names,
        "template_id": template["template_id"],
        "template_hash": template["template_hash"],
        "inputs": {"raw.dat": {"bytes": 1, "sha256": "0" * 64}},
        "versions": {"iranker-verl": "0.1.0"},
        "data_hash": ContentHash.of(*hashes),
        "datasets": {
            name: {
                "train": of(train, name),
                "test": of(test, name),
                "candidates": 4,
                "dropped": (dropped or {}).get(name, {}),
            }
            for name in names
        },
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return manifest
