"""BPR and SASRec beside RecBole's, an implementation that shares no code with them, on the same tasks and candidates.

Three steps, as RecBole needs older libraries than the project does; the second one imports nothing of the project and runs
in an environment of its own (docs/results.md has the results):

``export``   writes the training sequences of a prepared dataset in RecBole's format, and the tasks to rank; with
             ``--validation`` a seeded fifth of the training tasks are those, for choosing settings
``recbole``  trains RecBole's model of that name and writes a score for each candidate of each task
``score``    measures such scores, and with ``--baselines`` our own on the same tasks, by the same code

**What RecBole sees** is what ours sees: the sequence of each training task, of which it holds out the same tenth of the
users to know when to stop. RecBole's BPR cannot fold a new user in, so it trains on the histories of the tasks to rank as
well (never on their positives). Candidates that training never saw get the lowest score, as with ours.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path
from typing import Any

KNOWN = 0.75  # of a held-out user's sequence is trained on by RecBole's BPR, as ours folds it in


def export(arguments: argparse.Namespace) -> None:
    """Write the training sequences in RecBole's format, and the tasks to rank."""
    from iranker_verl.evaluation.baselines.histories import histories

    train, tasks = splits(arguments.data, arguments.validation)
    out: Path = arguments.out
    (data,) = histories(train).values()
    names = list(data.items)
    learned, held = (
        [[names[place] for place in user] for user in part] for part in data.split(arguments.held_out, arguments.seed)
    )
    pairs: dict[str, list[tuple[str, ...]]] = {"train": [], "valid": []}
    prefixes: dict[str, list[tuple[str, ...]]] = {"train": [], "valid": []}
    for number, sequence in enumerate([*learned, *held]):
        is_held, name = number >= len(learned), f"train-{number}"
        cut = round(KNOWN * len(sequence)) if is_held else len(sequence)
        pairs["train"] += [(name, item) for item in sequence[:cut]]
        pairs["valid"] += [(name, item) for item in sequence[cut:]]
        prefixes["valid" if is_held else "train"] += [
            (name, " ".join(sequence[:at]), sequence[at]) for at in range(1, len(sequence))
        ]
    pairs["train"] += [(f"rank-{task.id}", item) for task in tasks for item in task.history]
    for model, header, parts in (
        ("BPR", "user_id:token\titem_id:token", pairs),
        ("SASRec", "user_id:token\titem_id_list:token_seq\titem_id:token", prefixes),
    ):
        (out / model).mkdir(parents=True, exist_ok=True)
        for part, rows in parts.items():
            lines = [header, *("\t".join(row) for row in rows)]
            (out / model / f"{model}.{part}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    to_rank = {
        task.id: {"history": task.history, "candidates": sorted(c.id for c in task.candidates)} for task in tasks
    }
    (out / "tasks.json").write_text(json.dumps(to_rank), encoding="utf-8")
    print(f"{len(learned)} sequences to learn from, {len(held)} held out, {len(tasks)} tasks to rank")


def recbole(arguments: argparse.Namespace) -> None:
    """Train RecBole's model and write its scores."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.data.interaction import Interaction
    from recbole.utils import get_model, get_trainer, init_seed

    sequential = arguments.model == "SASRec"
    columns = ["user_id", *(["item_id_list"] if sequential else []), "item_id"]
    given: dict[str, Any] = {
        "data_path": str(arguments.data),
        "benchmark_filename": ["train", "valid", "valid"],  # there is no third part: RecBole never sees a task to rank
        "load_col": {"inter": columns},
        "seed": arguments.seed,
        "use_gpu": False,
        "show_progress": False,
        "checkpoint_dir": str(arguments.out.parent / "checkpoints"),
    }
    if sequential:
        given |= {"alias_of_item_id": ["item_id_list"], "train_neg_sample_args": None}
    given |= {key: json.loads(value) for key, value in (setting.split("=", 1) for setting in arguments.set)}
    config = Config(model=arguments.model, dataset=arguments.model, config_dict=given)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    best, _ = trainer.fit(train, valid, verbose=False, show_progress=False)
    model.load_state_dict(torch.load(trainer.saved_model_file)["state_dict"])
    model.eval()
    items = dataset.field2token_id["item_id"]
    users = dataset.field2token_id["user_id"]
    scores = {}
    for name, task in json.loads((arguments.data / "tasks.json").read_text(encoding="utf-8")).items():
        history = [items[item] for item in task["history"] if item in items]
        if sequential:
            row = {
                model.ITEM_SEQ: torch.tensor([history + [0] * (model.max_seq_length - len(history))]),
                model.ITEM_SEQ_LEN: torch.tensor([len(history)]),
            }
        else:
            row = {model.USER_ID: torch.tensor([users[f"rank-{name}"]])}
        with torch.no_grad():
            of_items = model.full_sort_predict(Interaction(row)).flatten().tolist()
        scores[name] = {item: of_items[items[item]] for item in task["candidates"] if item in items}
    arguments.out.write_text(json.dumps(scores), encoding="utf-8")
    print(
        f"{arguments.model} seed {arguments.seed}: {len(trainer.train_loss_dict)} epochs, RecBole's own validation {best:.4f}"
    )


def score(arguments: argparse.Namespace) -> None:
    """Print the MRR of files of scores and of baselines."""
    from iranker_verl.evaluation.baselines import Context, make_baselines
    from iranker_verl.evaluation.baselines.base import rank_by_score
    from iranker_verl.evaluation.metrics import measure

    train, tasks = splits(arguments.data, arguments.validation)

    def mrr(rankings: list[Any]) -> float:
        return statistics.fmean(values["rr"] for values in measure(tasks, rankings))

    for file in arguments.scores:
        found = json.loads(file.read_text(encoding="utf-8"))
        scores = [[found[task.id].get(c.id, float("-inf")) for c in task.candidates] for task in tasks]
        print(f"{file.stem:30} MRR {mrr([rank_by_score(t, s, 0) for t, s in zip(tasks, scores, strict=True)]):.4f}")
    for name in arguments.baselines:
        for seed in arguments.seeds:
            (baseline,) = make_baselines([name], Context(seed, log=lambda _: None))
            baseline.fit(train)
            print(f"{f'ours {name}, seed {seed}':30} MRR {mrr(list(baseline.rank(tasks))):.4f}", flush=True)


def splits(data: Path, validation: bool) -> tuple[list[Any], list[Any]]:
    """Return the training tasks and those to rank; for validation both are of the training part."""
    from data_prep.schema import read_tasks

    train = sorted(read_tasks(data / "train.parquet"), key=lambda task: task.id)
    if not validation:
        return train, read_tasks(data / "test.parquet")
    random.Random(0).shuffle(train)
    return train[len(train) // 5 :], train[: len(train) // 5]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)
    step = steps.add_parser("export")
    step.set_defaults(run=export)
    step.add_argument("--data", type=Path, required=True, help="folder of `iranker prepare`, of one dataset")
    step.add_argument("--validation", action="store_true")
    step.add_argument("--out", type=Path, required=True)
    step.add_argument("--held-out", type=float, default=0.1)
    step.add_argument("--seed", type=int, default=0, help="which users are held out")
    step = steps.add_parser("recbole")
    step.set_defaults(run=recbole)
    step.add_argument("--data", type=Path, required=True, help="folder of `export`")
    step.add_argument("--model", choices=("BPR", "SASRec"), required=True)
    step.add_argument("--seed", type=int, default=0)
    step.add_argument("--set", nargs="*", default=[], metavar="KEY=JSON", help="settings of RecBole")
    step.add_argument("--out", type=Path, required=True, help="JSON file of scores")
    step = steps.add_parser("score")
    step.set_defaults(run=score)
    step.add_argument("--data", type=Path, required=True, help="folder of `iranker prepare`")
    step.add_argument("--validation", action="store_true")
    step.add_argument("--scores", nargs="*", type=Path, default=[])
    step.add_argument("--baselines", nargs="*", default=[])
    step.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
