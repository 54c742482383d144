"""``iranker score``: a run file against judgements."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from iranker_verl.cli.tables import show, table

MeasureNames = Annotated[
    str | None, typer.Option("--measures", help="in the words of ir_measures [default: nDCG@10,RR,Success@1]")
]


def score(
    run: Annotated[Path, typer.Argument(help="TREC run, or LLMRank's ranked candidates")],
    qrels: Annotated[Path, typer.Argument(help="judgements: TREC's or BEIR's qrels, or LLMRank's truth")],
    measures: MeasureNames = None,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Score a run file against judgements, all measures from one ranking."""
    from iranker_verl.evaluation import ranked_candidates, trec

    if ranked_candidates.is_truth(qrels):
        found = ranked_candidates.read_candidates(run)
        truth = ranked_candidates.read_truth(qrels, found)
    else:
        found, truth = trec.read_run(run), trec.read_qrels(qrels)
    # RR(rel=2,…) is one
    names = trec.STANDARD if measures is None else [n.strip() for n in re.split(r",(?![^(]*\))", measures)]
    scores = trec.score(found, truth, names)
    if as_json:
        print(json.dumps(asdict(scores), indent=2))
        return
    made = table("measure", run.name)
    for name, value in scores.means.items():
        made.add_row(name, f"{value:.4f}")
    note = f"{scores.judged:,} judged queries, {scores.missing:,} of them not in the run (they count 0)"
    if scores.unjudged:
        note += f"; {scores.unjudged:,} queries of the run are not judged and left out"
    if not scores.judged_documents:
        note += f"\nnothing that the run ranks is judged: do {run.name} and {qrels.name} name documents alike?"
    show([("Scores", made, note)])
