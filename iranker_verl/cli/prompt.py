"""`iranker prompt`: which templates there are, and the exact text that a model sees of one."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS, Candidate, RankingTask
from iranker_verl.ranking.templates import State, Template, available, check_hash, load

app = typer.Typer(no_args_is_help=True, help="Prompt templates: which there are, and what a model sees of them.")
AsJson = Annotated[bool, typer.Option("--json", help="for machines")]

_QUERY = "Query: What is 17 times 23?\nPreference: "
_LLMS = (
    "Aster 70B: 0.9 $ a million tokens; strong at reasoning",
    "Briar 7B: 0.2 $ a million tokens; fast",
    "Clover 1B: 0.1 $ a million tokens; small talk",
)
_PASSAGE = (
    "how long can swifts stay in the air",
    ("Swifts have been seen to fly for ten months.", "Swift code is compiled.", "Swift wrote Gulliver's Travels."),
)
# Made up, for prompts without data: dataset to context and candidates, the first of them the positive.
EXAMPLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "rec-movie": (
        "The Lantern Keeper (1994); Salt Road (1999); Nine Rivers (2001)",
        ("Low Tide (2002)", "Robot Gala (1987)", "Mr. Biscuit (1996)"),
    ),
    "rec-music": ("Quiet Hours; Blue Ferry; Evening Post", ("Slow Harbour", "Polka Parade", "Iron Riot")),
    "rec-game": ("Star Courier; Void Miner; Orbit Wars II", ("Comet Trader", "Pony Stable", "Chess for Two")),
    "router-performance": (_QUERY + "quality only", _LLMS),
    "router-cost": (_QUERY + "quality 0.2, cost 0.8", _LLMS),
    "router-balance": (_QUERY + "quality 0.5, cost 0.5", _LLMS),
    "passage-5": _PASSAGE,
    "passage-7": _PASSAGE,
    "passage-9": _PASSAGE,
}


@app.command()
def render(
    template: Annotated[
        str | None, typer.Option(help="an id or a .yaml file (default: the data's own, or label without data)")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="e.g. rec-movie (default: every row of --data, or rec-movie)")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="folder of `iranker prepare` (default: a built-in example)")] = None,
    split: Annotated[str | None, typer.Option(help="with --data: train or test (default: test)")] = None,
    row: Annotated[int | None, typer.Option(min=0, help="with --data: which of its rows, from 0 (default: 0)")] = None,
    step: Annotated[int, typer.Option(min=1, help="which step; all answers before it named nobody")] = 1,
    tokenizer: Annotated[Path | None, typer.Option(help="model folder: its chat template, and tokens counted")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the text that a model sees (to standard output), and how long it is (to standard error)."""
    if data is not None:
        task, (made_id, made_hash), where = _prepared(data, split or "test", row or 0, dataset)
        chosen = load(template or made_id)
        if template is None:
            check_hash(chosen, made_id, made_hash, where)
        elif (chosen.id, chosen.hash) != (made_id, made_hash):
            print(f"note: {where} was made with template {made_id} ({made_hash})", file=sys.stderr)
    elif split is not None or row is not None:
        raise UserError("--split and --row choose from --data; give the folder of `iranker prepare`")
    else:
        task, chosen = _example(dataset or "rec-movie"), load(template or "label")
    content = _rendered(chosen, _state(chosen, task, step), step, tokenizer)
    if as_json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    print(content["text"])
    length = f"{content['characters']} characters; give --tokenizer MODEL_FOLDER to count tokens"
    if content["tokens"] is not None:
        length = f"{content['tokens']} tokens, {content['characters']} characters, by {tokenizer}"
    shown = f"template {chosen.id} ({chosen.hash}), {task.dataset}, task {task.id}, step {step} of {content['steps']}"
    print(f"{shown}: {length}", file=sys.stderr)


@app.command("list")
def list_templates(as_json: AsJson = False) -> None:
    """List the templates that come with the package; frame: the characters around the data, over the nine datasets."""
    rows = [_summary(load(name)) for name in available()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'id':20} {'kind':10} {'answer':7} {'hash':17} frame")
    for r in rows:
        print(f"{r['id']:20} {r['kind']:10} {r['answer']:7} {r['hash']:17} {r['frame'][0]} to {r['frame'][1]}")


def _example(dataset: str) -> RankingTask:
    if dataset not in EXAMPLES:
        raise UserError(f"no built-in example of {dataset!r}; choose one of {', '.join(EXAMPLES)}, or give --data")
    context, texts = EXAMPLES[dataset]
    candidates = tuple(Candidate(str(i), text) for i, text in enumerate(texts))
    return RankingTask.with_positive("example", DATASETS[dataset], dataset, context, candidates, "0")


def _prepared(data: Path, split: str, row: int, dataset: str | None) -> tuple[RankingTask, tuple[str, str], str]:
    """Return the task of a row of prepared data, the id and hash of the template that it was made with, and where it is."""
    from data_prep.schema import read_rows

    path = data / f"{split}.parquet"
    where = f"{path} row {row}" + (f" of {dataset}" if dataset else "")
    rows = (r for r in read_rows(path) if dataset in (None, r["data_source"]))
    found = next(islice(rows, row, None), None)
    if found is None:
        raise UserError(f"{where}: no such row; rows count from 0, and --dataset counts only its own")
    try:
        task = RankingTask.from_row(found)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return task, (found["extra_info"]["template_id"], found["extra_info"]["template_hash"]), where


def _state(template: Template, task: RankingTask, step: int) -> State:
    if step > _steps(template, task):
        raise UserError(
            f"--step {step}: with template {template.id}, task {task.id!r} has {_steps(template, task)} step(s)"
        )
    state = template.start(task)
    for _ in range(step - 1):
        state.step("")  # names no candidate; in an elimination the last one is excluded
    return state


def _steps(template: Template, task: RankingTask) -> int:
    """Return the number of steps. Where it depends on the answers, it is that of answers that name no candidate."""
    state = template.start(task)
    while not state.done:
        state.step("")
    return len(state.steps)


def _rendered(template: Template, state: State, step: int, tokenizer: Path | None) -> dict[str, Any]:
    messages = template.messages(state)
    text, tokens = "\n".join(f"[{m['role']}]\n{m['content']}" for m in messages), None
    if tokenizer is not None:
        from iranker_verl.inference.engine import ChatTokenizer

        chat = ChatTokenizer(tokenizer)
        text, tokens = chat.text(messages), len(chat.encode(messages))
    return {
        "template_id": template.id,
        "template_hash": template.hash,
        "dataset": state.task.dataset,
        "task_id": state.task.id,
        "step": step,
        "steps": _steps(template, state.task),
        "messages": messages,
        "text": text,
        "characters": sum(len(m["content"]) for m in messages),
        "tokens": tokens,
    }


def _summary(template: Template) -> dict[str, Any]:
    literals = [template.user_pieces(name, scenario)[::2] for name, scenario in DATASETS.items()]
    frames = [len(template.system or "") + sum(map(len, parts)) for parts in literals]
    return {
        "id": template.id,
        "kind": template.kind,
        "answer": template.answer,
        "hash": template.hash,
        "frame": [min(frames), max(frames)],
    }
