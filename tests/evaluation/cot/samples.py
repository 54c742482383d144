"""Reasoning traces, tasks and rollout lines for the tests of IRanker-COT."""

import json

from iranker_verl.evaluation.cot.store import ReasoningTrace, Store
from iranker_verl.ranking import DATASETS, Candidate, RankingTask
from iranker_verl.ranking.templates import load

TEMPLATE = load("think-label")
LONG = "The birds that fly for months are swifts, and code does not fly, so the passage on code is the worst."


def trace(context, said="because", dataset="passage-5", task_id=None, group="", candidates=("x", "y"), answer=(1,)):
    id = task_id or f"task of {context}"
    return ReasoningTrace(id, dataset, DATASETS[dataset], group, context, tuple(candidates), answer, said, 1.0, 3)


def store(*traces):
    manifest = {"template_id": TEMPLATE.id, "kind": TEMPLATE.kind, "answer": TEMPLATE.answer, "counts": {"kept": 9}}
    return Store(tuple(traces), manifest)


def task(context, dataset="passage-5", id="test", texts=("one", "two", "three")):
    candidates = tuple(Candidate(f"c{i}", text) for i, text in enumerate(texts))
    return RankingTask.with_positive(id, DATASETS[dataset], dataset, context, candidates, "c0")


def line(answer="[B]", reasoning=LONG, score=1.0, step=1, output=None, template=TEMPLATE, **ranking):
    """A line as the trainer writes it."""
    asked = {
        "task_id": "t1",
        "dataset": "passage-5",
        "scenario": "passage",
        "group": "g1",
        "context": "how long can swifts fly",
    }
    asked |= {"candidates": ["Swifts fly for months.", "Swift code is compiled."]}
    asked |= {"template_id": template.id, "template_hash": template.hash}
    output = f"<think>{reasoning}</think> <answer>{answer}</answer>" if output is None else output
    content = {"input": "…", "output": output, "gts": None, "score": score, "step": step, "uid": "u_0_0"}
    return content | {"ranking": asked | ranking}


def dump(folder, **files):
    """``step3=[line, …]`` becomes ``3.jsonl``."""
    folder.mkdir(exist_ok=True)
    for name, lines in files.items():
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines)
        (folder / f"{name.removeprefix('step')}.jsonl").write_text(text, encoding="utf-8")
    return folder
